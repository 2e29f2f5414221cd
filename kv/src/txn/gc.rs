//! Removes old versions once the placement driver's safe point has passed them.
//!
//! Who does what: the SQL server that leads garbage collection finishes locks of old transactions and moves the safe
//! point; every store looks at the safe point now and then, refuses reads and new locks below it, and removes garbage
//! from the regions it leads. Removal is an ordinary command: latches of the keys, a fresh snapshot, one replicated
//! write. So it is ordered with commands on the same keys, and all replicas remove the same.
//!
//! A store removes nothing for a safe point that it has not known for two looks: by then the other stores know it as
//! well and refuse reads below it when they come to lead one of these regions.
//!
//! Invariant: this store refuses reads below what it removes. The safe point is raised before the first removal, and
//! reads check it after they have taken their snapshot.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rutile_proto::ids::Timestamp;
use rutile_proto::{kvrpcpb, metapb};
use tokio::sync::watch;

use super::actions::gc::collect_garbage;
use super::error::{Error, Result};
use super::scheduler::Scheduler;
use crate::engine::{Cf, IterOptions};
use crate::mvcc::key::{Key, split_ts};
use crate::mvcc::write::{WriteRef, WriteType};
use crate::pd_client::PdClient;
use crate::raftstore::RegionSnapshot;

/// Keys of one removal: their latches are held for the time of one replicated write.
const KEYS_MAX: usize = 64;
/// Changes of one removal.
const MODIFIES_MAX: usize = 2048;
/// Looks at the safe point before anything is removed for it.
const LOOKS: usize = 2;

/// Removes garbage of the regions that a store leads.
pub struct GcWorker {
    scheduler: Scheduler,
    pd: Arc<dyn PdClient>,
    interval: Duration,
    /// What the last looks saw, oldest first.
    seen: VecDeque<Timestamp>,
    /// The safe point that each region led here was last rid of garbage for.
    done: HashMap<u64, Timestamp>,
}

impl GcWorker {
    /// A worker that looks every `interval`.
    #[must_use]
    pub fn new(scheduler: Scheduler, pd: Arc<dyn PdClient>, interval: Duration) -> Self {
        GcWorker { scheduler, pd, interval, seen: VecDeque::new(), done: HashMap::new() }
    }

    /// Works until told to stop.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(self.interval) => {}
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.look() => {}
            }
        }
    }

    /// One look at the safe point, and what follows from it.
    pub async fn look(&mut self) {
        match self.pd.gc_safe_point().await {
            Ok(safe_point) => self.scheduler.raise_safe_point(safe_point),
            Err(error) => {
                tracing::debug!(%error, "the GC safe point is unknown");
                return;
            }
        }
        self.seen.push_back(self.scheduler.safe_point());
        if self.seen.len() <= LOOKS {
            return;
        }
        let Some(safe_point) = self.seen.pop_front().filter(|ts| !ts.is_zero()) else { return };
        let mut led: Vec<Arc<metapb::Region>> =
            self.scheduler.raft().regions().into_iter().filter(|r| r.1).map(|r| r.0).collect();
        self.done.retain(|id, _| led.iter().any(|region| region.id == *id));
        led.retain(|region| self.done.get(&region.id).is_none_or(|done| *done < safe_point));
        for region in led {
            match collect_region(&self.scheduler, &region, safe_point).await {
                Ok(()) => drop(self.done.insert(region.id, safe_point)),
                // It moved or changed: the next look sees what it has become.
                Err(error) => tracing::debug!(%error, region_id = region.id, "garbage is left for later"),
            }
        }
    }
}

/// Removes the garbage of one region.
async fn collect_region(scheduler: &Scheduler, region: &metapb::Region, safe_point: Timestamp) -> Result<()> {
    let store_id = scheduler.raft().store_id();
    let ctx = kvrpcpb::Context {
        region_id: region.id,
        region_epoch: region.region_epoch,
        peer: region.peers.iter().find(|peer| peer.store_id == store_id).copied(),
        ..kvrpcpb::Context::default()
    };
    let mut from = Some(region.start_key.to_vec());
    while let Some(lower) = from {
        let snapshot = scheduler.snapshot(&ctx).await?;
        let found = tokio::task::spawn_blocking(move || find_garbage(&snapshot, lower, safe_point)).await;
        let (keys, next) =
            found.map_err(|e| Error::InvalidRequest(format!("the search for garbage stopped: {e}")))??;
        while !keys.is_empty() && scheduler.collect_garbage(&ctx, &keys, safe_point).await? {}
        from = next;
    }
    Ok(())
}

/// The first keys at or after `lower` that have garbage, and where to go on.
pub(crate) fn find_garbage(
    snapshot: &RegionSnapshot,
    lower: Vec<u8>,
    safe_point: Timestamp,
) -> Result<(Vec<Key>, Option<Vec<u8>>)> {
    let options = IterOptions { lower, skip_cache: true, ..IterOptions::default() };
    let mut cursor = snapshot.iter(Cf::Write, options);
    let mut keys: Vec<Key> = Vec::new();
    let mut current = Vec::new();
    let mut covered = false;
    let mut valid = cursor.seek_to_first().map_err(crate::mvcc::Error::from)?;
    while valid {
        let (encoded, commit_ts) = split_ts(cursor.key()).map_err(crate::mvcc::Error::from)?;
        if encoded != &current[..] {
            if keys.len() >= KEYS_MAX {
                return Ok((keys, Some(encoded.to_vec())));
            }
            current = encoded.to_vec();
            covered = false;
        }
        if commit_ts <= safe_point {
            let write = WriteRef::parse(cursor.value()).map_err(crate::mvcc::Error::from)?;
            let garbage = covered || write.write_type != WriteType::Put;
            covered |= matches!(write.write_type, WriteType::Put | WriteType::Delete);
            if garbage && keys.last().is_none_or(|last| last.encoded() != &current[..]) {
                keys.push(Key::from_encoded(&current).map_err(crate::mvcc::Error::from)?);
            }
        }
        valid = cursor.next().map_err(crate::mvcc::Error::from)?;
    }
    Ok((keys, None))
}

impl Scheduler {
    /// Removes garbage of `keys` of one region; answers whether some is left.
    pub async fn collect_garbage(
        &self,
        ctx: &kvrpcpb::Context,
        keys: &[Key],
        safe_point: Timestamp,
    ) -> Result<bool> {
        assert!(safe_point <= self.safe_point(), "reads at {safe_point} are still served");
        self.run(ctx, keys, |txn, reader| {
            let mut left = false;
            for key in keys {
                left |= collect_garbage(txn, reader, key, safe_point, MODIFIES_MAX)?;
            }
            Ok(left)
        })
        .await
    }
}
