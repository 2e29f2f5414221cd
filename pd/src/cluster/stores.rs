//! The stores: what they are (replicated) and how they do (heartbeats, in memory).

use std::collections::BTreeMap;
use std::sync::Arc;

use rutile_proto::metapb::{Store, StoreState};
use rutile_proto::pdpb::StoreStats;

/// What is known of a store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreInfo {
    /// Address, labels, state.
    pub meta: Store,
    /// What it told last.
    pub stats: Option<StoreStats>,
    /// Unix milliseconds of its last heartbeat; 0 = none since we started.
    pub last_heartbeat_ms: u64,
    /// Unix milliseconds of its last heartbeat, or when we began to listen.
    pub heard_ms: u64,
}

impl StoreInfo {
    /// The store as clients see it.
    #[must_use]
    pub fn to_meta(&self) -> Store {
        let mut meta = self.meta.clone();
        meta.last_heartbeat = (self.last_heartbeat_ms as i64).saturating_mul(1_000_000);
        meta
    }

    /// Whether it was removed for good.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.meta.state() == StoreState::Tombstone
    }
}

/// Why a store is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreRefused {
    /// The id is 0 or the address is empty.
    Invalid(String),
    /// The store was removed for good.
    Tombstone(u64),
    /// Another store has this address.
    DuplicateAddress(String),
}

/// All stores.
#[derive(Debug, Default)]
pub struct Stores {
    by_id: BTreeMap<u64, Arc<StoreInfo>>,
}

impl Stores {
    /// By id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Arc<StoreInfo>> {
        self.by_id.get(&id)
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<StoreInfo>> {
        self.by_id.values()
    }

    /// What would be stored for a store that introduces itself.
    pub fn check(&self, mut store: Store) -> Result<Store, StoreRefused> {
        if store.id == 0 {
            return Err(StoreRefused::Invalid("invalid put store request: store id is 0".into()));
        }
        if store.address.is_empty() || store.address.contains("://") {
            let address = &store.address;
            return Err(StoreRefused::Invalid(format!(
                "store address must read host:port, not \"{address}\""
            )));
        }
        if let Some(other) = self
            .iter()
            .find(|o| o.meta.id != store.id && !o.is_tombstone() && o.meta.address == store.address)
        {
            let text = format!(
                "duplicated store address: {} is used by store {}; choose another with --addr, or decommission that store",
                store.address, other.meta.id
            );
            return Err(StoreRefused::DuplicateAddress(text));
        }
        if let Some(known) = self.get(store.id) {
            if known.is_tombstone() {
                return Err(StoreRefused::Tombstone(store.id));
            }
            // Whether a store is on its way out is our decision, not the store's.
            store.state = known.meta.state;
            store.node_state = known.meta.node_state;
        } else {
            store.state = StoreState::Up as i32;
            store.node_state = rutile_proto::metapb::NodeState::Serving as i32;
        }
        store.last_heartbeat = 0;
        Ok(store)
    }

    /// Takes a store's description; one that was not known counts as heard of now.
    pub fn put(&mut self, meta: Store, now_ms: u64) {
        let mut info = self.by_id.get(&meta.id).map(|info| info.as_ref().clone()).unwrap_or_default();
        let id = meta.id;
        info.meta = meta;
        if info.heard_ms == 0 {
            info.heard_ms = now_ms;
        }
        self.by_id.insert(id, Arc::new(info));
    }

    /// Takes a heartbeat; false when the store is unknown.
    pub fn heartbeat(&mut self, stats: StoreStats, now_ms: u64) -> bool {
        let Some(info) = self.by_id.get_mut(&stats.store_id) else { return false };
        let info = Arc::make_mut(info);
        info.stats = Some(stats);
        info.last_heartbeat_ms = now_ms;
        info.heard_ms = now_ms;
        true
    }
}
