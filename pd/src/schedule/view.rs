//! The cluster as schedulers see it: stores with what they hold, and all regions. Pure data; the time comes with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rutile_proto::metapb::{PeerRole, StoreState};

use super::config::ScheduleConfig;
use super::proposal::{Goal, Proposal};
use crate::cluster::region_tree::{RegionInfo, RegionTree};
use crate::cluster::stores::{StoreInfo, Stores};

/// With so much free space a store is given peers, however small a share of the disk it is.
const LOW_SPACE_BYTES_MAX: u64 = 8 << 30;

/// What can be asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Everything.
    Up,
    /// Nothing new: it was silent for a moment.
    Disconnected,
    /// Nothing, and its replicas are replaced: it was silent for long.
    Down,
    /// Its replicas are moved away: it is being decommissioned.
    Offline,
    /// It is gone for good.
    Tombstone,
}

impl Health {
    /// From what the store is meant to be and how long it was silent.
    #[must_use]
    pub fn of(store: &StoreInfo, config: &ScheduleConfig, now_ms: u64) -> Self {
        let silent_s = now_ms.saturating_sub(store.heard_ms) / 1000;
        match store.meta.state() {
            StoreState::Tombstone => Health::Tombstone,
            StoreState::Offline => Health::Offline,
            StoreState::Up if silent_s >= config.max_store_down_time_s => Health::Down,
            StoreState::Up if silent_s >= config.store_disconnected_s => Health::Disconnected,
            StoreState::Up => Health::Up,
        }
    }

    /// As people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Health::Up => "Up",
            Health::Disconnected => "Disconnected",
            Health::Down => "Down",
            Health::Offline => "Offline",
            Health::Tombstone => "Tombstone",
        }
    }
}

/// A store and what it holds, with the operators under way taken as done.
#[derive(Clone, Debug)]
pub struct StoreView {
    /// Its id.
    pub id: u64,
    /// What can be asked of it.
    pub health: Health,
    /// Silent for a moment, whatever else: it can neither give nor take now.
    pub silent: bool,
    /// Where it is.
    pub labels: BTreeMap<String, String>,
    /// Peers on it.
    pub peers: i64,
    /// Regions led from it.
    pub leaders: i64,
    /// Peers being added.
    pub adding: usize,
    /// Peers being removed.
    pub removing: usize,
    /// Whether it may take another peer by its space and its snapshots.
    pub has_room: bool,
}

impl StoreView {
    /// Whether it may get a peer.
    #[must_use]
    pub fn can_take_peer(&self, config: &ScheduleConfig) -> bool {
        self.health == Health::Up && self.has_room && self.adding < config.store_limit
    }

    /// Whether it may get a leader.
    #[must_use]
    pub fn can_take_leader(&self) -> bool {
        self.health == Health::Up
    }
}

/// Changes that operators under way will bring.
#[derive(Clone, Debug, Default)]
pub struct Influence {
    /// Regions with an operator.
    pub busy: HashSet<u64>,
    /// By store: peers to come or go, leaders to come or go, peers being added, peers being removed.
    pub stores: HashMap<u64, StoreInfluence>,
}

/// What operators under way bring to one store.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreInfluence {
    /// Peers.
    pub peers: i64,
    /// Leaders.
    pub leaders: i64,
    /// Peers being added.
    pub adding: usize,
    /// Peers being removed.
    pub removing: usize,
}

/// Everything that a decision depends on.
pub struct ClusterView<'a> {
    /// All regions.
    pub regions: &'a RegionTree,
    /// All stores but tombstones, by id.
    pub stores: BTreeMap<u64, StoreView>,
    /// Settings.
    pub config: &'a ScheduleConfig,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Regions with an operator: they are left alone.
    pub busy: &'a HashSet<u64>,
}

impl<'a> ClusterView<'a> {
    /// Counts what the stores hold.
    #[must_use]
    pub fn new(
        regions: &'a RegionTree,
        stores: &Stores,
        config: &'a ScheduleConfig,
        influence: &'a Influence,
        now_ms: u64,
    ) -> Self {
        let mut views = BTreeMap::new();
        for store in stores.iter() {
            let health = Health::of(store, config, now_ms);
            if health != Health::Tombstone {
                let pending = influence.stores.get(&store.meta.id).copied().unwrap_or_default();
                views.insert(store.meta.id, store_view(store, health, config, now_ms, pending));
            }
        }
        for region in regions.iter() {
            for peer in &region.meta.peers {
                if let Some(store) = views.get_mut(&peer.store_id) {
                    store.peers += 1;
                }
            }
            if let Some(store) = region.leader.and_then(|leader| views.get_mut(&leader.store_id)) {
                store.leaders += 1;
            }
        }
        ClusterView { regions, stores: views, config, now_ms, busy: &influence.busy }
    }

    /// Counts a proposal as taken up, so that the next one sees its effect.
    pub fn take(&mut self, region: &RegionInfo, proposal: &Proposal) {
        let Goal::Place { voters, .. } = &proposal.goal else { return };
        let held = |id: u64| region.meta.peers.iter().any(|peer| peer.store_id == id);
        for store in self.stores.values_mut() {
            match (held(store.id), voters.contains(&store.id)) {
                (false, true) => {
                    store.peers += 1;
                    store.adding += 1;
                }
                (true, false) => {
                    store.peers -= 1;
                    store.removing += 1;
                }
                _ => {}
            }
        }
    }

    /// How many replicas a region can have: no more than there are stores. One that leaves counts until it is empty, so that its
    /// replicas wait for successors.
    #[must_use]
    pub fn replicas_wanted(&self) -> usize {
        (self.config.max_replicas as usize).min(self.stores.len().max(1))
    }

    /// A region that may get an operator: it has none, a leader, and no change of members is on its way.
    #[must_use]
    pub fn is_idle(&self, region: &RegionInfo) -> bool {
        !self.busy.contains(&region.meta.id)
            && region.leader.is_some()
            && region.since_ms != 0
            && !region.is_in_joint_state()
    }

    /// Whether all its replicas are there and well, so that it may be moved about.
    #[must_use]
    pub fn is_healthy(&self, region: &RegionInfo) -> bool {
        self.is_idle(region)
            && region.down_peers.is_empty()
            && region.pending_peers.is_empty()
            && region.meta.peers.len() == self.replicas_wanted()
            && region.meta.peers.iter().all(|peer| {
                peer.role() == PeerRole::Voter
                    && self.stores.get(&peer.store_id).is_some_and(|store| store.health == Health::Up)
            })
    }

    /// The stores of a region's peers.
    pub fn stores_of<'b>(&'b self, region: &'b RegionInfo) -> impl Iterator<Item = &'b StoreView> + 'b {
        region.meta.peers.iter().filter_map(|peer| self.stores.get(&peer.store_id))
    }

    /// All regions, beginning at a place that `seed` chooses, so that the same ones are not always first.
    pub fn regions_from(&self, seed: u64) -> impl Iterator<Item = &'a Arc<RegionInfo>> {
        let count = self.regions.len().max(1);
        let skip = (seed % count as u64) as usize;
        self.regions.iter().skip(skip).chain(self.regions.iter().take(skip))
    }

    /// Whether two stores differ so much that a peer or leader should move; counts as with one moved.
    #[must_use]
    pub fn is_uneven(&self, source: i64, target: i64, total: i64) -> bool {
        let average = total / self.stores.len().max(1) as i64;
        let tolerated = average * i64::from(self.config.tolerance_percent) / 100;
        source - target >= tolerated.max(2)
    }
}

fn store_view(
    store: &StoreInfo,
    health: Health,
    config: &ScheduleConfig,
    now_ms: u64,
    pending: StoreInfluence,
) -> StoreView {
    let stats = store.stats.unwrap_or_default();
    let low_space = stats.capacity > 0
        && stats.available
            < (stats.capacity / 100 * u64::from(config.low_space_percent)).min(LOW_SPACE_BYTES_MAX);
    let snapshots = stats.sending_snap_count.max(stats.receiving_snap_count).max(stats.applying_snap_count);
    StoreView {
        id: store.meta.id,
        health,
        silent: now_ms.saturating_sub(store.heard_ms) / 1000 >= config.store_disconnected_s,
        labels: store.meta.labels.iter().map(|l| (l.key.clone(), l.value.clone())).collect(),
        peers: pending.peers,
        leaders: pending.leaders,
        adding: pending.adding,
        removing: pending.removing,
        has_room: !low_space && !stats.is_busy && snapshots < config.max_snapshot_count,
    }
}
