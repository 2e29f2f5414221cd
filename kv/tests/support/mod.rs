//! A placement driver in memory, and a store over a directory, for tests.
#![allow(dead_code)]

pub mod cluster;
pub mod net;
pub mod nodes;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use rutile_kv::config::Config;
use rutile_kv::engine::{Cf, Engine, RaftLog};
use rutile_kv::pd_client::{Error, PdClient, Result};
use rutile_kv::raftstore::{
    Modify, NoTransport, RaftKv, RaftStore, StoreOptions, Transport, WriteData, bootstrap,
};
use rutile_proto::ids::{ClusterId, Timestamp};
use rutile_proto::{kvrpcpb, metapb, pdpb};
use tokio::sync::mpsc;

/// A placement driver in memory. Cheap to clone.
#[derive(Clone)]
pub struct MemoryPd(Arc<State>);

pub struct State {
    pub cluster_id: u64,
    ids: AtomicU64,
    timestamps: AtomicU64,
    bootstrapped: AtomicBool,
    pub regions: Mutex<Vec<metapb::Region>>,
    pub reported: Mutex<Vec<Vec<metapb::Region>>>,
    pub heartbeats: Mutex<Vec<pdpb::RegionHeartbeatRequest>>,
    stores: Mutex<BTreeMap<u64, metapb::Store>>,
    forget: AtomicBool,
    answers: Mutex<Vec<mpsc::UnboundedSender<pdpb::RegionHeartbeatResponse>>>,
}

impl MemoryPd {
    pub fn new(cluster_id: u64) -> Self {
        MemoryPd(Arc::new(State {
            cluster_id,
            ids: AtomicU64::new(1),
            timestamps: AtomicU64::new(1 << 18),
            bootstrapped: AtomicBool::new(false),
            regions: Mutex::default(),
            reported: Mutex::default(),
            heartbeats: Mutex::default(),
            stores: Mutex::default(),
            forget: AtomicBool::new(false),
            answers: Mutex::default(),
        }))
    }

    /// Sends an operator's step to all stores; the region's leader acts if the region is as it was heard of last.
    pub fn order(&self, mut step: pdpb::RegionHeartbeatResponse) {
        let known = self.regions.lock().iter().find(|r| r.id == step.region_id).cloned();
        step.region_epoch = known.and_then(|r| r.region_epoch);
        self.answers.lock().retain(|answers| answers.send(step.clone()).is_ok());
    }

    /// Where a store listens.
    pub fn address_of(&self, store_id: u64) -> String {
        self.stores.lock()[&store_id].address.clone()
    }

    /// Heartbeats are of no interest.
    pub fn forget_heartbeats(&self) {
        self.forget.store(true, Ordering::SeqCst);
    }

    fn heard(&self, heartbeat: pdpb::RegionHeartbeatRequest) {
        if self.forget.load(Ordering::SeqCst) {
            return;
        }
        if let Some(region) = &heartbeat.region {
            let mut regions = self.regions.lock();
            let newer = |known: &metapb::Region| {
                let version = |r: &metapb::Region| {
                    let epoch = r.region_epoch.unwrap_or_default();
                    (epoch.version, epoch.conf_ver)
                };
                version(region) >= version(known)
            };
            match regions.iter_mut().find(|r| r.id == region.id) {
                Some(known) if newer(known) => *known = region.clone(),
                Some(_) => {}
                None => regions.push(region.clone()),
            }
        }
        self.heartbeats.lock().push(heartbeat);
    }
}

impl std::ops::Deref for MemoryPd {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

#[async_trait]
impl PdClient for MemoryPd {
    async fn cluster_id(&self) -> Result<ClusterId> {
        Ok(ClusterId::new(self.cluster_id).unwrap())
    }
    async fn is_bootstrapped(&self) -> Result<bool> {
        Ok(self.bootstrapped.load(Ordering::SeqCst))
    }
    async fn bootstrap(&self, _store: metapb::Store, region: metapb::Region) -> Result<()> {
        if self.bootstrapped.swap(true, Ordering::SeqCst) {
            return Err(Error::AlreadyBootstrapped);
        }
        self.regions.lock().push(region);
        Ok(())
    }
    async fn alloc_ids(&self, count: u32) -> Result<u64> {
        Ok(self.ids.fetch_add(u64::from(count), Ordering::SeqCst))
    }
    async fn put_store(&self, store: metapb::Store) -> Result<()> {
        self.stores.lock().insert(store.id, store);
        Ok(())
    }
    async fn get_store(&self, store_id: u64) -> Result<metapb::Store> {
        let known = self.stores.lock().get(&store_id).cloned();
        known.ok_or_else(|| Error::Refused(format!("invalid store ID {store_id}, not found")))
    }
    async fn get_all_stores(&self) -> Result<Vec<metapb::Store>> {
        Ok(self.stores.lock().values().cloned().collect())
    }
    async fn get_region(&self, _key: &[u8]) -> Result<Option<(metapb::Region, Option<metapb::Peer>)>> {
        Ok(None)
    }
    async fn get_region_by_id(&self, id: u64) -> Result<Option<(metapb::Region, Option<metapb::Peer>)>> {
        Ok(self.regions.lock().iter().find(|r| r.id == id).map(|r| (r.clone(), None)))
    }
    async fn timestamps(&self, count: u32) -> Result<Timestamp> {
        Ok(Timestamp(self.timestamps.fetch_add(u64::from(count), Ordering::SeqCst) + u64::from(count)))
    }
    async fn store_heartbeat(&self, _stats: pdpb::StoreStats) -> Result<()> {
        Ok(())
    }
    async fn region_heartbeats(
        &self,
        mut heartbeats: mpsc::Receiver<pdpb::RegionHeartbeatRequest>,
    ) -> Result<BoxStream<'static, Result<pdpb::RegionHeartbeatResponse>>> {
        let pd = self.clone();
        #[expect(clippy::disallowed_methods, reason = "a test sends few")]
        let (tx, rx) = mpsc::unbounded_channel();
        self.answers.lock().push(tx);
        tokio::spawn(async move {
            while let Some(heartbeat) = heartbeats.recv().await {
                pd.heard(heartbeat);
            }
        });
        Ok(tokio_stream::wrappers::UnboundedReceiverStream::new(rx).map(Ok).boxed())
    }
    async fn ask_batch_split(&self, region: metapb::Region, count: u32) -> Result<Vec<pdpb::SplitId>> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let first = self.alloc_ids(1 + region.peers.len() as u32).await?;
            let new_peer_ids = (1..=region.peers.len() as u64).map(|i| first + i).collect();
            ids.push(pdpb::SplitId { new_region_id: first, new_peer_ids });
        }
        Ok(ids)
    }
    async fn report_batch_split(&self, regions: Vec<metapb::Region>) -> Result<()> {
        self.reported.lock().push(regions);
        Ok(())
    }
    async fn gc_safe_point(&self) -> Result<Timestamp> {
        Ok(Timestamp::ZERO)
    }
}

/// A configuration with small bounds for a directory.
pub fn config(dir: &Path) -> Config {
    let mut config = Config { data_dir: dir.to_owned(), ..Default::default() };
    config.raft.split_at_bootstrap = false;
    config
}

/// A running store.
pub struct TestStore {
    pub store: Arc<RaftStore>,
    pub engine: Engine,
    pub log: RaftLog,
}

impl TestStore {
    /// Opens the directory and starts.
    pub async fn start(config: &Config, pd: &MemoryPd) -> Self {
        Self::try_start(config, pd).await.unwrap()
    }

    /// As [`TestStore::start`], with what went wrong as text.
    pub async fn try_start(config: &Config, pd: &MemoryPd) -> std::result::Result<Self, String> {
        Self::try_start_on(config, pd, |_| Arc::new(NoTransport)).await
    }

    /// As [`TestStore::try_start`], with the transport of the store with this id.
    pub async fn try_start_on(
        config: &Config,
        pd: &MemoryPd,
        transport: impl FnOnce(u64) -> Arc<dyn Transport>,
    ) -> std::result::Result<Self, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let log = RaftLog::open(&config.data_dir.join("raft"), &config.raft_log).map_err(|e| text(&e))?;
        let engine = Engine::open(&config.data_dir.join("db"), &config.engine).map_err(|e| text(&e))?;
        engine.verify(u64::MAX).map_err(|e| text(&e))?;
        let ident = bootstrap::identify(&engine, &log, pd).await.map_err(|e| text(&e))?;
        let meta = metapb::Store { id: ident.store_id, ..Default::default() };
        bootstrap::bootstrap(&engine, pd, &meta).await.map_err(|e| text(&e))?;
        let options = StoreOptions {
            store_id: ident.store_id,
            config: config.raft.clone(),
            engine: engine.clone(),
            raft_log: log.clone(),
            pd: Arc::new(pd.clone()),
            transport: transport(ident.store_id),
            start_time_s: 0,
        };
        let store = RaftStore::start(options).await.map_err(|e| text(&e))?;
        Ok(Self { store, engine, log })
    }

    /// Stops in order: everything flushed, the log marked as complete.
    pub async fn close(self) {
        self.store.stop().await;
        self.engine.flush().unwrap();
        let TestStore { store, engine, log } = self;
        drop((store, engine));
        log.close().unwrap();
    }

    /// Ends as a killed process would: what only memory held is gone.
    pub async fn crash(self) {
        self.store.stop().await;
        let TestStore { store, engine, log } = self;
        let image = engine.image().unwrap();
        drop((store, engine, log));
        image.restore().unwrap();
    }

    pub fn ctx(&self, key: &[u8]) -> kvrpcpb::Context {
        self.store.context_of(&self.store.region_of_key(key).expect("every key has a region"))
    }

    /// Writes through the region of the key, following splits.
    pub async fn put(&self, key: &[u8], value: &[u8]) {
        for _ in 0..2000 {
            let put = Modify::Put(Cf::Default, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            match self.store.write(&self.ctx(key), WriteData::new(vec![put])).await {
                Ok(()) => return,
                Err(e)
                    if e.epoch_not_match.is_some()
                        || e.key_not_in_region.is_some()
                        || e.region_not_found.is_some()
                        // A region that a split has just made is about to elect its leader.
                        || e.not_leader.is_some() =>
                {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
                Err(e) => panic!("write failed: {e:?}"),
            }
        }
        panic!("no region takes the write");
    }

    pub async fn get(&self, key: &[u8]) -> Option<Bytes> {
        let snapshot = self.store.snapshot(&self.ctx(key)).await.unwrap();
        snapshot.get(Cf::Default, key).unwrap()
    }

    pub async fn split(&self, keys: &[&[u8]]) -> Vec<metapb::Region> {
        let keys: Vec<Bytes> = keys.iter().map(|k| Bytes::copy_from_slice(k)).collect();
        self.store.split(&self.ctx(&keys[0]), keys).await.unwrap()
    }
}
