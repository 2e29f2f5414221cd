//! Replication for tests: one region over a bare engine, every write applied at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use rutile_proto::ids::Timestamp;
use rutile_proto::key::{data_end_key, data_key};
use rutile_proto::raft_serverpb::RaftApplyState;
use rutile_proto::{errorpb, kvrpcpb, metapb};

use super::scheduler::{Scheduler, TimestampSource};
use crate::config::EngineConfig;
use crate::engine::{Cf, Engine};
use crate::pd_client;
use crate::raftstore::keys::apply_state;
use crate::raftstore::{
    LockWatch, Modify, PeerState, RaftKv, RegionObserver, RegionResult, RegionSnapshot, WriteCallback,
    WriteData,
};

/// One region without replication.
pub struct TestKv {
    engine: Engine,
    region: Mutex<Arc<metapb::Region>>,
    term: AtomicU64,
    writes: AtomicU64,
    watch: Mutex<Option<Arc<dyn LockWatch>>>,
    _dir: tempfile::TempDir,
}

/// Counts up from 1 000 000.
#[derive(Default)]
pub struct TestClock(AtomicU64);

#[async_trait]
impl TimestampSource for TestClock {
    async fn timestamp(&self) -> pd_client::Result<Timestamp> {
        Ok(Timestamp(1_000_000 + self.0.fetch_add(1, Ordering::SeqCst)))
    }
}

impl TestKv {
    pub fn new() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), &EngineConfig::default()).unwrap();
        let region = metapb::Region {
            id: 1,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
            peers: vec![metapb::Peer { id: 1, store_id: 1, ..Default::default() }],
            ..Default::default()
        };
        let region = Mutex::new(Arc::new(region));
        let (term, writes) = (AtomicU64::new(5), AtomicU64::new(0));
        Arc::new(TestKv { engine, region, term, writes, watch: Mutex::default(), _dir: dir })
    }

    /// As after losing and winning the leadership.
    pub fn next_term(&self) {
        self.term.fetch_add(2, Ordering::SeqCst);
    }

    /// Cuts the region's end off, as a split does.
    pub fn set_end(&self, end: &'static [u8]) {
        let mut region = self.region.lock();
        let mut changed = metapb::Region::clone(&region);
        changed.end_key = Bytes::from(rutile_proto::codec::encoded_bytes(end));
        changed.region_epoch.as_mut().unwrap().version += 1;
        *region = Arc::new(changed);
    }

    fn apply(&self, data: WriteData) {
        let mut batch = self.engine.batch();
        let watch = self.watch.lock();
        let mut changes = Vec::new();
        for modify in data.modifies {
            if let (Some(watch), Modify::Put(Cf::Lock, key, lock)) = (&*watch, &modify) {
                changes.push((key[..].into(), watch.digest(lock)));
            }
            if let Modify::Delete(Cf::Lock, key) = &modify {
                changes.push((key[..].into(), None));
            }
            match modify {
                Modify::Put(cf, key, value) => batch.put(cf, &data_key(&key), &value),
                Modify::Delete(cf, key) => batch.delete(cf, &data_key(&key)),
                Modify::DeleteRange(cf, start, end) => {
                    batch.delete_range(cf, &data_key(&start), &data_end_key(&end));
                }
            }
        }
        let writes = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        let applied = RaftApplyState { applied_index: writes, ..RaftApplyState::default() };
        batch.put(Cf::Raft, &apply_state(self.region.lock().id), &applied.encode_to_vec());
        self.engine.write(batch).unwrap();
        if let Some(watch) = &*watch {
            watch.on_changes(&mut changes);
        }
    }

    /// Number of records in a column family.
    pub fn count(&self, cf: Cf) -> usize {
        let snapshot = self.try_snapshot(&kvrpcpb::Context::default()).unwrap().unwrap();
        let mut cursor = snapshot.iter(cf, Default::default());
        let mut count = 0;
        let mut valid = cursor.seek_to_first().unwrap();
        while valid {
            count += 1;
            valid = cursor.next().unwrap();
        }
        count
    }
}

/// A scheduler over a fresh test region.
pub fn test_scheduler() -> (Scheduler, Arc<TestKv>) {
    let kv = TestKv::new();
    (Scheduler::new(kv.clone(), Arc::new(TestClock::default())), kv)
}

#[async_trait]
impl RaftKv for TestKv {
    fn try_snapshot(&self, _: &kvrpcpb::Context) -> Option<RegionResult<RegionSnapshot>> {
        let region = self.region.lock().clone();
        let term = self.term.load(Ordering::SeqCst);
        Some(Ok(RegionSnapshot::new(Arc::new(self.engine.snapshot()), region, term)))
    }

    async fn snapshot(&self, ctx: &kvrpcpb::Context) -> RegionResult<RegionSnapshot> {
        self.try_snapshot(ctx).unwrap()
    }

    async fn write(&self, ctx: &kvrpcpb::Context, data: WriteData) -> RegionResult<()> {
        // Others get a turn between proposing and applying, as with real replication.
        tokio::task::yield_now().await;
        if ctx.term != 0 && self.term.load(Ordering::SeqCst) > ctx.term + 1 {
            let stale_command = Some(errorpb::StaleCommand {});
            return Err(errorpb::Error { stale_command, ..Default::default() });
        }
        self.apply(data);
        Ok(())
    }

    fn write_with(&self, _: &kvrpcpb::Context, data: WriteData, callback: WriteCallback) {
        self.apply(data);
        callback(Ok(()));
    }

    async fn split(&self, _: &kvrpcpb::Context, _: Vec<Bytes>) -> RegionResult<Vec<metapb::Region>> {
        Ok(vec![metapb::Region::clone(&self.region.lock())])
    }

    fn check(&self, _: &kvrpcpb::Context) -> RegionResult<(Arc<metapb::Region>, u64)> {
        Ok((self.region.lock().clone(), self.term.load(Ordering::SeqCst)))
    }

    fn peer_state(&self, _: u64) -> Option<PeerState> {
        let term = self.term.load(Ordering::SeqCst);
        let region = self.region.lock().clone();
        Some(PeerState {
            leader: region.peers.first().copied(),
            region,
            term,
            is_leader: true,
            has_lease: true,
            applied_index: self.writes.load(Ordering::SeqCst),
            applied_term: term,
            merging: false,
        })
    }

    async fn await_applied(&self, _: u64, _: u64) -> RegionResult<()> {
        Ok(())
    }

    fn local_snapshot(&self, ctx: &kvrpcpb::Context) -> RegionResult<RegionSnapshot> {
        self.try_snapshot(ctx).unwrap()
    }

    fn watch_locks(&self, _: u64, watch: Option<Arc<dyn LockWatch>>) -> bool {
        *self.watch.lock() = watch;
        true
    }

    fn region_of_key(&self, _: &[u8]) -> Option<Arc<metapb::Region>> {
        Some(self.region.lock().clone())
    }

    fn regions(&self) -> Vec<(Arc<metapb::Region>, bool)> {
        vec![(self.region.lock().clone(), true)]
    }

    fn unsafe_destroy_range(&self, start: &[u8], end: &[u8]) -> Result<(), crate::engine::Error> {
        self.engine.destroy_range(&data_key(start), &data_end_key(end))
    }

    fn observe(&self, _: Arc<dyn RegionObserver>) {}

    fn store_id(&self) -> u64 {
        1
    }
}
