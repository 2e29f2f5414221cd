//! The cluster map: stores and regions in memory, kept in the replicated store so that a restart answers at once.
//!
//! Stores are written before they are acknowledged. Regions come again with every heartbeat, so they are written lazily:
//! a task collects what changed for a moment and writes it as one batch.

pub mod region_tree;
pub mod stores;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use prost::Message as _;
use rutile_proto::metapb::{self, NodeState, Peer, Region, Store, StoreState};
use rutile_proto::pdpb::{self, RegionHeartbeatRequest, StoreStats};
use tokio::sync::Notify;

use self::region_tree::{RegionInfo, RegionTree, Update};
use self::stores::{StoreRefused, Stores};
use crate::error::{Error, Result};
use crate::replicated::Replicated;
use crate::replicated::command::SystemBatch;

/// Record of the replicated state that holds the cluster's id, big-endian.
pub const CLUSTER_ID_KEY: &[u8] = b"cluster/id";
const BOOTSTRAPPED_KEY: &[u8] = b"cluster/bootstrapped";
const STORE_PREFIX: &[u8] = b"cluster/store/";
const REGION_PREFIX: &[u8] = b"cluster/region/";

/// How long changes of regions are collected before they are written.
const FLUSH_DELAY: Duration = Duration::from_millis(500);
/// Regions per batch.
const FLUSH_REGIONS_MAX: usize = 4096;

/// What is known, behind one lock.
#[derive(Debug, Default)]
pub struct View {
    /// Whether the first store and region were accepted.
    pub bootstrapped: bool,
    /// All regions.
    pub regions: RegionTree,
    /// All stores.
    pub stores: Stores,
}

/// Regions that differ from what is stored.
#[derive(Debug, Default)]
struct Dirty {
    changed: BTreeSet<u64>,
    removed: BTreeSet<u64>,
}

/// Why a bootstrap or a store is refused.
#[derive(Debug)]
pub enum Refused {
    /// Another store was first.
    AlreadyBootstrapped,
    /// Nobody was first yet.
    NotBootstrapped,
    /// The store cannot join.
    Store(StoreRefused),
    /// The request makes no sense.
    Invalid(String),
}

/// The cluster map.
pub struct Cluster {
    id: u64,
    store: Arc<Replicated>,
    view: RwLock<View>,
    dirty: Mutex<Dirty>,
    dirtied: Notify,
    changing: tokio::sync::Mutex<()>,
}

impl Cluster {
    /// Reads the map, and chooses the cluster's id the first time.
    pub async fn open(store: Arc<Replicated>, now_ms: u64) -> Result<Arc<Self>> {
        if store.system_get(CLUSTER_ID_KEY).is_none() {
            let id = (rand::random::<u64>() >> 1).max(1);
            let batch = SystemBatch::default().when(CLUSTER_ID_KEY, None);
            store.write_system(batch.put(CLUSTER_ID_KEY, id.to_be_bytes().to_vec())).await?;
        }
        let id = store.system_get_u64(CLUSTER_ID_KEY);
        assert!(id != 0, "the cluster id is never 0");
        let view = load(&store, now_ms)?;
        Ok(Arc::new(Cluster {
            id,
            store,
            view: RwLock::new(view),
            dirty: Mutex::default(),
            dirtied: Notify::new(),
            changing: tokio::sync::Mutex::new(()),
        }))
    }

    /// The cluster's id: never 0, the same for ever.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What is known. The guard must not be held across an await.
    pub fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read()
    }

    /// Accepts the first store and the first region, which covers everything.
    pub async fn bootstrap(
        &self,
        store: Store,
        region: Region,
        now_ms: u64,
    ) -> Result<std::result::Result<(), Refused>> {
        let _changing = self.changing.lock().await;
        if self.view().bootstrapped {
            return Ok(Err(Refused::AlreadyBootstrapped));
        }
        if let Err(text) = check_first_region(&store, &region) {
            return Ok(Err(Refused::Invalid(text)));
        }
        let store = match self.view().stores.check(store) {
            Ok(store) => store,
            Err(refused) => return Ok(Err(Refused::Store(refused))),
        };
        let info = RegionInfo { leader: region.peers.first().copied(), meta: region, ..Default::default() };
        let batch = SystemBatch::default()
            .when(BOOTSTRAPPED_KEY, None)
            .put(BOOTSTRAPPED_KEY, &b"1"[..])
            .put(id_key(STORE_PREFIX, store.id), store.encode_to_vec())
            .put(id_key(REGION_PREFIX, info.meta.id), encode_region(&info));
        if !self.store.write_system(batch).await? {
            return Ok(Err(Refused::AlreadyBootstrapped));
        }
        let mut view = self.view.write();
        view.bootstrapped = true;
        view.stores.put(store, now_ms);
        view.regions.update(info);
        Ok(Ok(()))
    }

    /// Registers or updates a store.
    pub async fn put_store(&self, store: Store, now_ms: u64) -> Result<std::result::Result<(), Refused>> {
        let _changing = self.changing.lock().await;
        if !self.view().bootstrapped {
            return Ok(Err(Refused::NotBootstrapped));
        }
        let checked = self.view().stores.check(store);
        let store = match checked {
            Ok(store) => store,
            Err(refused) => return Ok(Err(Refused::Store(refused))),
        };
        let unchanged = self.view().stores.get(store.id).is_some_and(|known| known.meta == store);
        if !unchanged {
            let batch = SystemBatch::default().put(id_key(STORE_PREFIX, store.id), store.encode_to_vec());
            self.store.write_system(batch).await?;
            self.view.write().stores.put(store, now_ms);
        }
        Ok(Ok(()))
    }

    /// Changes whether a store stays, leaves or is gone. `Err`: why not, in words for people.
    pub async fn set_store_state(
        &self,
        id: u64,
        state: StoreState,
        now_ms: u64,
    ) -> Result<std::result::Result<(), String>> {
        let _changing = self.changing.lock().await;
        let Some(info) = self.view().stores.get(id).cloned() else {
            return Ok(Err(format!("invalid store ID {id}, not found")));
        };
        if info.is_tombstone() && state != StoreState::Tombstone {
            return Ok(Err(format!("store {id} is gone for good and cannot come back")));
        }
        let mut meta = info.meta.clone();
        meta.state = state as i32;
        meta.node_state = match state {
            StoreState::Up => NodeState::Serving,
            StoreState::Offline => NodeState::Removing,
            StoreState::Tombstone => NodeState::Removed,
        } as i32;
        if meta != info.meta {
            let batch = SystemBatch::default().put(id_key(STORE_PREFIX, id), meta.encode_to_vec());
            self.store.write_system(batch).await?;
            self.view.write().stores.put(meta, now_ms);
        }
        Ok(Ok(()))
    }

    /// Takes a store's heartbeat; false when the store is unknown.
    pub fn store_heartbeat(&self, stats: StoreStats, now_ms: u64) -> bool {
        self.view.write().stores.heartbeat(stats, now_ms)
    }

    /// Takes a region's heartbeat.
    pub fn region_heartbeat(
        &self,
        heartbeat: &RegionHeartbeatRequest,
        now_ms: u64,
        hot_bytes_per_s: u64,
    ) -> std::result::Result<Update, String> {
        let Some(meta) = heartbeat.region.clone() else { return Err("invalid request, no region".into()) };
        if meta.id == 0 || meta.region_epoch.is_none() || meta.peers.is_empty() {
            return Err(format!("invalid region {}: id, epoch and peers must be set", meta.id));
        }
        if !meta.end_key.is_empty() && meta.start_key >= meta.end_key {
            return Err(format!("invalid region {}: its range is empty", meta.id));
        }
        let (flow, heard_ms) = {
            let view = self.view();
            view.regions.by_id(meta.id).map_or_else(Default::default, |known| (known.flow, known.heard_ms))
        };
        let flow = match heard_ms {
            0 => flow,
            _ => flow.after(
                heartbeat.bytes_written,
                heartbeat.bytes_read,
                now_ms.saturating_sub(heard_ms),
                hot_bytes_per_s,
            ),
        };
        let info = RegionInfo {
            flow,
            heard_ms: now_ms,
            split_ms: now_ms,
            meta,
            leader: heartbeat.leader,
            term: heartbeat.term,
            since_ms: now_ms,
            down_peers: heartbeat.down_peers.clone(),
            pending_peers: heartbeat.pending_peers.clone(),
            approximate_size_bytes: heartbeat.approximate_size,
            approximate_keys: heartbeat.approximate_keys,
            written_bytes: heartbeat.bytes_written,
            read_bytes: heartbeat.bytes_read,
        };
        Ok(self.update_region(info))
    }

    /// Takes the regions of a finished split; each is led from the store that led their parent until a heartbeat tells.
    pub fn report_split(&self, regions: Vec<Region>) {
        let leader_store = {
            let view = self.view();
            regions.iter().find_map(|r| view.regions.by_id(r.id)?.leader.map(|leader| leader.store_id))
        };
        for meta in regions {
            if meta.id == 0 || meta.region_epoch.is_none() {
                continue;
            }
            let on_store = |peer: &&Peer| Some(peer.store_id) == leader_store;
            let leader = meta.peers.iter().find(on_store).copied();
            self.update_region(RegionInfo { meta, leader, ..Default::default() });
        }
    }

    fn update_region(&self, info: RegionInfo) -> Update {
        let id = info.meta.id;
        let mut view = self.view.write();
        let update = view.regions.update(info);
        if let Update::Changed { removed } = &update {
            // Under the view's lock, so that the dirty set never misses a later change.
            let mut dirty = self.dirty.lock();
            dirty.changed.insert(id);
            dirty.removed.remove(&id);
            for gone in removed {
                dirty.changed.remove(gone);
                dirty.removed.insert(*gone);
            }
            self.dirtied.notify_one();
        }
        update
    }

    /// Writes changed regions; runs until dropped. Sleeps while nothing changes.
    pub async fn run_flush(self: Arc<Self>) {
        loop {
            self.dirtied.notified().await;
            tokio::time::sleep(FLUSH_DELAY).await;
            if let Err(error) = self.flush().await {
                tracing::warn!(%error, "could not write the regions, trying again");
                self.dirtied.notify_one();
            }
        }
    }

    /// Writes all changed regions now.
    pub async fn flush(&self) -> Result<()> {
        loop {
            let mut batch = SystemBatch::default();
            let taken = {
                let view = self.view();
                let mut dirty = self.dirty.lock();
                let rest = dirty.changed.iter().nth(FLUSH_REGIONS_MAX).copied();
                let rest = rest.map(|id| dirty.changed.split_off(&id)).unwrap_or_default();
                let taken = Dirty {
                    changed: std::mem::replace(&mut dirty.changed, rest),
                    removed: std::mem::take(&mut dirty.removed),
                };
                for id in &taken.changed {
                    if let Some(info) = view.regions.by_id(*id) {
                        batch = batch.put(id_key(REGION_PREFIX, *id), encode_region(info));
                    }
                }
                taken
            };
            for id in &taken.removed {
                batch = batch.delete(id_key(REGION_PREFIX, *id));
            }
            if batch.puts.is_empty() && batch.deletes.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.store.write_system(batch).await {
                let view = self.view();
                let mut dirty = self.dirty.lock();
                for id in taken.changed.into_iter().chain(taken.removed) {
                    if view.regions.by_id(id).is_some() {
                        dirty.changed.insert(id);
                    } else {
                        dirty.removed.insert(id);
                    }
                }
                return Err(error);
            }
        }
    }
}

fn id_key(prefix: &[u8], id: u64) -> Vec<u8> {
    [prefix, &id.to_be_bytes()].concat()
}

fn encode_region(info: &RegionInfo) -> Vec<u8> {
    pdpb::Region { region: Some(info.meta.clone()), leader: info.leader, ..Default::default() }
        .encode_to_vec()
}

fn load(store: &Replicated, now_ms: u64) -> Result<View> {
    let state = store.read();
    let damaged = |what: &str, e: prost::DecodeError| {
        Error::Undetermined(format!("stored {what} does not decode: {e}"))
    };
    let mut view = View { bootstrapped: state.system_get(BOOTSTRAPPED_KEY).is_some(), ..View::default() };
    for (_, value) in state.system_scan(STORE_PREFIX) {
        view.stores.put(metapb::Store::decode(value).map_err(|e| damaged("store", e))?, now_ms);
    }
    for (_, value) in state.system_scan(REGION_PREFIX) {
        let region = pdpb::Region::decode(value).map_err(|e| damaged("region", e))?;
        let info = RegionInfo {
            meta: region.region.unwrap_or_default(),
            leader: region.leader,
            ..Default::default()
        };
        view.regions.update(info);
    }
    Ok(view)
}

fn check_first_region(store: &Store, region: &Region) -> std::result::Result<(), String> {
    let fail = |what: &str| Err(format!("invalid bootstrap request: {what}"));
    if region.id == 0 || region.region_epoch.is_none() {
        return fail("the region needs an id and an epoch");
    }
    if !region.start_key.is_empty() || !region.end_key.is_empty() {
        return fail("the first region must cover all keys");
    }
    match region.peers.as_slice() {
        [peer] if peer.id != 0 && peer.store_id == store.id => Ok(()),
        _ => fail("the first region must have one peer, on the first store"),
    }
}
