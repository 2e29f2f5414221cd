//! Garbage collection as a SQL server takes part in it. Old versions are kept for the life time, and longer while a
//! transaction or statement of any SQL server still reads them.
//!
//! Every server tells the placement driver, again and again, the oldest timestamp that it reads at (a service safe point
//! with a time to live: it ends with the server). One of them leads, by a lease in the store (`mgc`): it picks a safe
//! point one life time ago, lowered to the smallest of the services, finishes what is left of transactions that began
//! before it, and moves the GC safe point there. The stores then remove what nobody can read.

use std::time::Duration;

use rand::Rng;
use rutile_client::{Client, Timestamp, TxnOptions};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

type Result<T> = rutile_client::Result<T>;

/// Who leads.
const LEASE_KEY: &[u8] = b"mgc";
/// What the leader registers as, so that no service comes to stand below the safe point it works towards.
const LEADER_SERVICE: &str = "gc_worker";
const TICK_MIN: Duration = Duration::from_millis(100);
const TICK_MAX: Duration = Duration::from_secs(60);
/// Ticks that a life time has, within the bounds above.
const TICKS_PER_LIFE_TIME: u32 = 10;
/// Ticks that a lease or a service safe point outlives its last renewal.
const TICKS_OF_GRACE: u32 = 4;
/// Time the last call takes, at most, when the server stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Who leads until when (milliseconds of timestamp time).
#[derive(Serialize, Deserialize)]
struct Lease {
    holder: u64,
    until_ms: u64,
}

/// One server's part in garbage collection.
pub(crate) struct Collector {
    client: Client,
    life_time: Duration,
    tick: Duration,
    id: u64,
    /// When this server last led a collection, in milliseconds of timestamp time.
    collected_ms: u64,
}

impl Collector {
    pub fn new(client: Client, life_time: Duration) -> Self {
        let tick = (life_time / TICKS_PER_LIFE_TIME).clamp(TICK_MIN, TICK_MAX);
        Collector { client, life_time, tick, id: rand::rng().random(), collected_ms: 0 }
    }

    /// Works until the server stops.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.tick) => {}
            }
            tokio::select! {
                () = stop.cancelled() => break,
                done = self.turn() => {
                    if let Err(error) = done {
                        tracing::info!(%error, "garbage collection waits for its next turn");
                    }
                }
            }
        }
        let name = self.service();
        let farewell = self.client.pd().update_service_safe_point(&name, 0, Timestamp::ZERO);
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }

    async fn turn(&mut self) -> Result<()> {
        let now = self.client.timestamp().await?;
        let life_ms = self.life_time.as_millis() as u64;
        let target = Timestamp::compose(now.physical_ms().saturating_sub(life_ms), 0);
        self.hold(target).await?;
        let due = now.physical_ms() >= self.collected_ms + life_ms;
        if self.leads(now).await? && due {
            self.collect(target).await?;
            self.collected_ms = now.physical_ms();
        }
        Ok(())
    }

    fn service(&self) -> String {
        format!("rutile-sql-{:016x}", self.id)
    }

    fn grace_ms(&self) -> u64 {
        (self.tick * TICKS_OF_GRACE).as_millis() as u64
    }

    /// Holds the safe point at what is open here. Nobody moves it past `target`, so there is no need to promise more.
    async fn hold(&self, target: Timestamp) -> Result<()> {
        let safe_point = self.client.oldest_open_ts().map_or(target, |oldest| oldest.min(target));
        let ttl_s = self.grace_ms().div_ceil(1000).max(2) as i64;
        self.client.pd().update_service_safe_point(&self.service(), ttl_s, safe_point).await.map(drop)
    }

    /// Takes or renews the lease; `false` while another server has it.
    async fn leads(&self, now: Timestamp) -> Result<bool> {
        let now_ms = now.physical_ms();
        let txn = self.client.begin(TxnOptions::default()).await?;
        let known = txn.get(LEASE_KEY).await?;
        let lease = known.and_then(|bytes| serde_json::from_slice::<Lease>(&bytes).ok());
        if let Some(lease) = lease.filter(|lease| lease.until_ms > now_ms) {
            if lease.holder != self.id {
                return Ok(false);
            }
            if lease.until_ms > now_ms + self.grace_ms() / 2 {
                return Ok(true);
            }
        }
        let lease = Lease { holder: self.id, until_ms: now_ms + self.grace_ms() };
        txn.put(LEASE_KEY, serde_json::to_vec(&lease).expect("two numbers"))?;
        match txn.commit().await {
            Ok(_) => Ok(true),
            Err(error) if error.is_retryable_transaction() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves the GC safe point towards `target` as far as open transactions allow.
    async fn collect(&self, target: Timestamp) -> Result<()> {
        let pd = self.client.pd();
        let allowed = pd.update_service_safe_point(LEADER_SERVICE, i64::MAX, target).await?.min(target);
        if allowed <= pd.gc_safe_point().await? {
            return Ok(());
        }
        let safe_point = self.client.finish_transactions(allowed).await?;
        if safe_point > pd.gc_safe_point().await? {
            pd.update_gc_safe_point(safe_point).await?;
            tracing::debug!(%safe_point, "versions below the safe point are garbage");
        }
        Ok(())
    }
}
