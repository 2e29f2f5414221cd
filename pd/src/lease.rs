//! Lifetimes of the etcd service's leases.
//!
//! What a lease is, and its keys, is replicated; how long it still lives is known to the leader alone. A new leader gives
//! every lease its full time again, so a lease never ends early.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::Result;
use crate::replicated::Replicated;
use crate::replicated::command::{LeaseGrant, LeaseRevoke, Op, Outcome};

/// The longest time to live.
const TTL_S_MAX: i64 = 9_000_000;

/// The leases' deadlines.
pub struct Leases {
    store: Arc<Replicated>,
    deadlines: Mutex<BTreeMap<i64, Instant>>,
    changed: Notify,
}

impl Leases {
    /// Gives every stored lease its full time.
    #[must_use]
    pub fn open(store: Arc<Replicated>) -> Arc<Self> {
        let now = Instant::now();
        let leases = store.read().leases();
        let deadlines = leases.into_iter().map(|(id, ttl_s)| (id, now + seconds(ttl_s))).collect();
        Arc::new(Leases { store, deadlines: Mutex::new(deadlines), changed: Notify::new() })
    }

    /// A new lease; `None` when the id is taken. Id 0 lets us choose.
    pub async fn grant(&self, id: i64, ttl_s: i64) -> Result<Option<LeaseGrant>> {
        let ttl_s = ttl_s.clamp(1, TTL_S_MAX);
        let id = if id == 0 { (rand::random::<u64>() >> 1).max(1) as i64 } else { id };
        let grant = LeaseGrant { id, ttl_s };
        match self.store.propose(Op::LeaseGrant(grant.clone())).await? {
            Outcome::LeaseGranted(true) => {
                self.deadlines.lock().insert(id, Instant::now() + seconds(ttl_s));
                self.changed.notify_one();
                Ok(Some(grant))
            }
            _ => Ok(None),
        }
    }

    /// Ends a lease and removes its keys; false when there is none.
    pub async fn revoke(&self, id: i64) -> Result<bool> {
        let outcome = self.store.propose(Op::LeaseRevoke(LeaseRevoke { id })).await?;
        self.deadlines.lock().remove(&id);
        Ok(outcome == Outcome::LeaseRevoked(true))
    }

    /// Gives a lease its full time again; the answer is that time in seconds, `None` when the lease is gone.
    pub fn keep_alive(&self, id: i64) -> Option<i64> {
        let ttl_s = self.store.read().lease(id)?.ttl_s;
        let mut deadlines = self.deadlines.lock();
        let deadline = deadlines.get_mut(&id)?;
        let now = Instant::now();
        if *deadline <= now {
            return None; // its end is being proposed
        }
        *deadline = now + seconds(ttl_s);
        Some(ttl_s)
    }

    /// Seconds left, `None` when the lease is gone.
    pub fn seconds_left(&self, id: i64) -> Option<i64> {
        let deadline = *self.deadlines.lock().get(&id)?;
        Some(deadline.saturating_duration_since(Instant::now()).as_secs() as i64)
    }

    /// Ends leases when their time is over; runs until dropped. Sleeps while no lease is near its end.
    pub async fn run(self: Arc<Self>) {
        loop {
            let next = self.deadlines.lock().values().min().copied();
            match next {
                None => self.changed.notified().await,
                Some(deadline) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(deadline) => self.expire().await,
                        () = self.changed.notified() => {}
                    }
                }
            }
        }
    }

    async fn expire(&self) {
        let now = Instant::now();
        let over: Vec<i64> = self
            .deadlines
            .lock()
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            if let Err(error) = self.revoke(id).await {
                tracing::warn!(lease = id, %error, "could not end a lease, trying again");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

fn seconds(s: i64) -> Duration {
    Duration::from_secs(s.clamp(0, TTL_S_MAX) as u64)
}
