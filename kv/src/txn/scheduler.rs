//! What commands share: the way from latches to the replicated write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use dashmap::DashMap;
use rutile_proto::ids::Timestamp;
use rutile_proto::{errorpb, kvrpcpb, metapb};

use super::concurrency::{ConcurrencyManager, InFlightLocks};
use super::detached::Detached;
use super::error::{Error, Result};
use super::latch::{LatchGuard, Latches};
use super::lock_wait::LockWait;
use super::memory_locks::{MemoryLocks, RegionView};
use super::other_stores::OtherStores;
use super::reader::CommandReader;
use super::resolved_ts::ResolvedTs;
use crate::engine::Cf;
use crate::mvcc::key::Key;
use crate::mvcc::reader::MvccReader;
use crate::mvcc::txn::{MemoryChange, MvccTxn};
use crate::pd_client::{self, PdClient};
use crate::raftstore::{Modify, RaftKv, RegionSnapshot, WriteData};

/// How far ahead of both the local clock and all earlier timestamps a client's timestamp may be.
const FUTURE_MS_MAX: u64 = 24 * 60 * 60 * 1000;

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Where fresh timestamps come from.
#[async_trait]
pub trait TimestampSource: Send + Sync + 'static {
    /// A timestamp larger than every one given out before.
    async fn timestamp(&self) -> pd_client::Result<Timestamp>;
}

/// Timestamps of the placement driver.
pub struct PdTimestamps(pub Arc<dyn PdClient>);

#[async_trait]
impl TimestampSource for PdTimestamps {
    async fn timestamp(&self) -> pd_client::Result<Timestamp> {
        self.0.timestamp().await
    }
}

struct Inner {
    raft: Arc<dyn RaftKv>,
    timestamps: Arc<dyn TimestampSource>,
    concurrency: ConcurrencyManager,
    latches: Latches,
    lock_wait: LockWait,
    memory_locks: MemoryLocks,
    /// By region: the term and epoch version since when `max_ts` is above every read served elsewhere.
    max_ts_synced: DashMap<u64, (u64, u64), ahash::RandomState>,
    /// Versions needed only by reads below it may be gone.
    safe_point: AtomicU64,
    resolved: ResolvedTs,
    other_stores: OnceLock<Arc<dyn OtherStores>>,
}

/// Runs transactional commands on a store. Cheap to clone.
#[derive(Clone)]
pub struct Scheduler(Arc<Inner>);

/// A writing command between its latches and its write.
pub struct Started {
    latches: LatchGuard,
    view: RegionView,
    snapshot: RegionSnapshot,
    /// What the command sees.
    pub reader: CommandReader,
}

/// The part of a context that addresses a region.
fn write_context(ctx: &kvrpcpb::Context, term: u64) -> kvrpcpb::Context {
    kvrpcpb::Context {
        region_id: ctx.region_id,
        region_epoch: ctx.region_epoch,
        peer: ctx.peer,
        term,
        ..kvrpcpb::Context::default()
    }
}

/// The region error for a key that the region does not hold.
#[must_use]
pub fn key_not_in_region(raw_key: &bytes::Bytes, region: &metapb::Region) -> errorpb::Error {
    errorpb::Error {
        message: format!("key not in region {}", region.id),
        key_not_in_region: Some(errorpb::KeyNotInRegion {
            key: raw_key.clone(),
            region_id: region.id,
            start_key: region.start_key.clone(),
            end_key: region.end_key.clone(),
        }),
        ..errorpb::Error::default()
    }
}

impl Scheduler {
    /// A scheduler over replication.
    #[must_use]
    pub fn new(raft: Arc<dyn RaftKv>, timestamps: Arc<dyn TimestampSource>) -> Self {
        let memory_locks = MemoryLocks::default();
        raft.observe(Arc::new(memory_locks.clone()));
        Scheduler(Arc::new(Inner {
            raft,
            timestamps,
            concurrency: ConcurrencyManager::default(),
            latches: Latches::default(),
            lock_wait: LockWait::default(),
            memory_locks,
            max_ts_synced: DashMap::default(),
            safe_point: AtomicU64::new(0),
            resolved: ResolvedTs::default(),
            other_stores: OnceLock::new(),
        }))
    }

    /// Gives it a way to the other stores; once.
    pub fn connect(&self, others: Arc<dyn OtherStores>) {
        assert!(self.0.other_stores.set(others).is_ok(), "connected twice");
    }

    /// The way to the other stores, if there is one.
    #[must_use]
    pub fn other_stores(&self) -> Option<&Arc<dyn OtherStores>> {
        self.0.other_stores.get()
    }

    /// What stale reads rest on.
    #[must_use]
    pub fn resolved(&self) -> &ResolvedTs {
        &self.0.resolved
    }

    /// A fresh timestamp.
    pub async fn timestamp(&self) -> pd_client::Result<Timestamp> {
        self.0.timestamps.timestamp().await
    }

    /// Replication below.
    #[must_use]
    pub fn raft(&self) -> &Arc<dyn RaftKv> {
        &self.0.raft
    }

    /// `max_ts` and in-flight locks.
    #[must_use]
    pub fn concurrency(&self) -> &ConcurrencyManager {
        &self.0.concurrency
    }

    /// Queues of waiting transactions.
    #[must_use]
    pub fn lock_wait(&self) -> &LockWait {
        &self.0.lock_wait
    }

    /// Pessimistic locks in memory.
    #[must_use]
    pub fn memory_locks(&self) -> &MemoryLocks {
        &self.0.memory_locks
    }

    /// The GC safe point as far as this store knows.
    #[must_use]
    pub fn safe_point(&self) -> Timestamp {
        Timestamp(self.0.safe_point.load(Ordering::SeqCst))
    }

    /// Learns the GC safe point; it never goes back.
    pub fn raise_safe_point(&self, safe_point: Timestamp) {
        self.0.safe_point.fetch_max(safe_point.0, Ordering::SeqCst);
    }

    /// Refuses a read, or the first lock of a transaction, at a timestamp whose versions may be gone. A read calls it
    /// after it has taken its snapshot: what the snapshot lacks was removed after the safe point was raised.
    pub fn check_safe_point(&self, ts: Timestamp) -> Result<()> {
        let safe_point = self.safe_point();
        if ts >= safe_point { Ok(()) } else { Err(Error::BelowSafePoint { ts, safe_point }) }
    }

    /// Notes that a client reads or asks at `ts`: later commits that this store times come after it.
    ///
    /// A timestamp from the far future is refused: it would push all those commits there.
    pub fn observe_ts(&self, ts: Timestamp) -> Result<()> {
        if ts != Timestamp::MAX && ts > self.0.concurrency.max_ts() {
            let limit_ms = unix_ms().max(self.0.concurrency.max_ts().physical_ms()) + FUTURE_MS_MAX;
            if ts.physical_ms() > limit_ms {
                return Err(Error::InvalidRequest(format!("timestamp {ts} lies in the far future")));
            }
            self.0.concurrency.update_max_ts(ts);
        }
        Ok(())
    }

    /// A snapshot of the leader, on the caller's thread while the lease holds; for reads see [`Scheduler::read_snapshot`].
    pub async fn snapshot(&self, ctx: &kvrpcpb::Context) -> Result<RegionSnapshot> {
        let leader_only;
        let ctx = if ctx.replica_read || ctx.stale_read {
            leader_only = kvrpcpb::Context { replica_read: false, stale_read: false, ..ctx.clone() };
            &leader_only
        } else {
            ctx
        };
        match self.0.raft.try_snapshot(ctx) {
            Some(result) => Ok(result?),
            None => Ok(self.0.raft.snapshot(ctx).await?),
        }
    }

    /// Takes the latches of `keys`, then a snapshot that sees all earlier writes to them.
    pub async fn start<'a>(
        &self,
        ctx: &kvrpcpb::Context,
        keys: impl Iterator<Item = &'a Key> + Clone + Send,
    ) -> Result<Started> {
        let latches = self.0.latches.acquire(keys.clone().map(Key::encoded)).await;
        let snapshot = self.snapshot(ctx).await?;
        for key in keys {
            if !snapshot.contains(key.encoded()) {
                return Err(key_not_in_region(key.raw(), snapshot.region()).into());
            }
        }
        let view = self.0.memory_locks.view(snapshot.region(), snapshot.term());
        let reader = CommandReader::new(MvccReader::new(snapshot.clone()), view.clone());
        Ok(Started { latches, view, snapshot, reader })
    }

    /// A view without latches, for commands that look first and lock later.
    pub async fn look(&self, ctx: &kvrpcpb::Context) -> Result<CommandReader> {
        let snapshot = self.snapshot(ctx).await?;
        let view = self.0.memory_locks.view(snapshot.region(), snapshot.term());
        Ok(CommandReader::new(MvccReader::new(snapshot), view))
    }

    /// Makes the command's changes. They happen even when the caller goes away: latches and in-flight locks stay until
    /// the write is applied.
    pub async fn finish(
        &self,
        ctx: &kvrpcpb::Context,
        started: Started,
        txn: MvccTxn,
        in_flight: Option<InFlightLocks>,
    ) -> Result<()> {
        let Started { latches, mut view, snapshot, reader } = started;
        drop(reader);
        let (mut modifies, memory, released) = txn.into_parts();
        let mut added = Vec::new();
        let mut removed = Vec::new();
        for change in memory {
            match change {
                MemoryChange::Put(key, lock) => {
                    if view.put(&key, lock.clone()) {
                        added.push(key);
                    } else {
                        let encoded = bytes::Bytes::copy_from_slice(key.encoded());
                        modifies.push(Modify::Put(Cf::Lock, encoded, lock.to_bytes().into()));
                    }
                }
                MemoryChange::Remove(key) => removed.push(key),
            }
        }
        let this = self.clone();
        let settle = move |written: bool| {
            for key in if written { &removed } else { &added } {
                view.remove(key.encoded());
            }
            drop(in_flight);
            drop(latches);
            if written {
                for key in &released {
                    this.0.lock_wait.wake(key.encoded());
                }
            }
        };
        if modifies.is_empty() {
            settle(true);
            return Ok(());
        }
        let ctx = write_context(ctx, snapshot.term());
        drop(snapshot);
        let raft = self.0.raft.clone();
        let write = Detached::new(async move {
            let result = raft.write(&ctx, WriteData::new(modifies)).await;
            settle(result.is_ok());
            result
        });
        Ok(write.await?)
    }

    /// A command without extras: latches, snapshot, `act`, write.
    pub async fn run<R>(
        &self,
        ctx: &kvrpcpb::Context,
        keys: &[Key],
        act: impl FnOnce(&mut MvccTxn, &mut CommandReader) -> Result<R>,
    ) -> Result<R> {
        let mut started = self.start(ctx, keys.iter()).await?;
        let mut txn = MvccTxn::new();
        let reply = act(&mut txn, &mut started.reader)?;
        if !txn.is_empty() {
            self.finish(ctx, started, txn, None).await?;
        }
        Ok(reply)
    }

    /// Before a commit timestamp is derived from `max_ts`: makes sure that it is above every read that another leader
    /// of these keys served. Call with a snapshot taken under this leadership.
    pub async fn sync_max_ts(&self, started: &Started) -> Result<()> {
        let region = started.snapshot.region();
        let version = region.region_epoch.as_ref().map_or(0, |e| e.version);
        let leadership = (started.snapshot.term(), version);
        if self.0.max_ts_synced.get(&region.id).is_some_and(|synced| *synced == leadership) {
            return Ok(());
        }
        let fresh = self.0.timestamps.timestamp().await.map_err(|e| errorpb::Error {
            message: format!("no timestamp for the new leader: {e}"),
            stale_command: Some(errorpb::StaleCommand {}),
            ..errorpb::Error::default()
        })?;
        self.0.concurrency.update_max_ts(fresh);
        self.0.max_ts_synced.insert(region.id, leadership);
        Ok(())
    }
}
