//! Spreads regions that are written or read much: where the flow is largest, one of them gets another leader, or a peer
//! elsewhere if no hand-over helps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::placement::isolation;
use super::proposal::{Goal, Kind, Proposal};
use super::view::ClusterView;
use crate::cluster::region_tree::RegionInfo;

/// Which flow is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Bytes read; leaders serve them.
    Read,
    /// Bytes written; leaders bear most of the work.
    Write,
}

impl Flow {
    fn of(self, region: &RegionInfo) -> u64 {
        match self {
            Flow::Read => region.flow.read_bytes_per_s,
            Flow::Write => region.flow.written_bytes_per_s,
        }
    }

    fn heartbeats(self, region: &RegionInfo) -> u32 {
        match self {
            Flow::Read => region.flow.hot_read_heartbeats,
            Flow::Write => region.flow.hot_write_heartbeats,
        }
    }
}

/// The hot regions of a flow, the hottest first.
#[must_use]
pub fn hot_regions<'a>(view: &ClusterView<'a>, flow: Flow) -> Vec<&'a Arc<RegionInfo>> {
    let mut hot: Vec<&Arc<RegionInfo>> = view
        .regions
        .iter()
        .filter(|region| flow.heartbeats(region) >= view.config.hot_region_heartbeats)
        .collect();
    hot.sort_by_key(|region| (std::cmp::Reverse(flow.of(region)), region.meta.id));
    hot
}

/// The next move, if one makes the largest load of a store smaller.
#[must_use]
pub fn schedule(view: &ClusterView<'_>, flow: Flow) -> Option<Proposal> {
    let hot = hot_regions(view, flow);
    let mut load: BTreeMap<u64, u64> =
        view.stores.values().filter(|store| store.can_take_leader()).map(|store| (store.id, 0)).collect();
    for region in &hot {
        if let Some(sum) = region.leader.and_then(|leader| load.get_mut(&leader.store_id)) {
            *sum += flow.of(region);
        }
    }
    let (source, heaviest) =
        load.iter().max_by_key(|(id, sum)| (**sum, **id)).map(|(id, sum)| (*id, *sum))?;
    let led_there = hot
        .iter()
        .filter(|region| region.leader.is_some_and(|leader| leader.store_id == source))
        .filter(|region| view.is_healthy(region));
    // A move helps when the target stays below what the source is rid of; a tenth of difference is not worth it.
    let helps = |region: &RegionInfo, target: u64| {
        let after = load.get(&target).copied().unwrap_or(u64::MAX).saturating_add(flow.of(region));
        after < heaviest && (heaviest - after) * 10 > heaviest
    };
    for region in led_there {
        let held: BTreeSet<u64> = region.meta.peers.iter().map(|peer| peer.store_id).collect();
        let best = |stores: &mut dyn Iterator<Item = u64>| {
            stores.filter(|id| helps(region, *id)).min_by_key(|id| (load.get(id).copied(), *id))
        };
        let (voters, leader) = if let Some(target) = best(&mut held.iter().copied()) {
            (held, target)
        } else {
            let labels = &view.config.location_labels;
            let from = view.stores.get(&source)?;
            let far = isolation(labels, from, view.stores_of(region));
            let mut others = view
                .stores
                .values()
                .filter(|store| store.can_take_peer(view.config) && !held.contains(&store.id))
                .filter(|store| {
                    let staying = view.stores_of(region).filter(|other| other.id != source);
                    isolation(labels, store, staying) >= far
                })
                .map(|store| store.id);
            let Some(target) = best(&mut others) else { continue };
            let mut voters = held.clone();
            voters.remove(&source);
            voters.insert(target);
            (voters, target)
        };
        let reason = if flow == Flow::Read { "move-hot-read-region" } else { "move-hot-write-region" };
        let goal = Goal::Place { voters, leader: Some(leader) };
        return Some(Proposal { region_id: region.meta.id, reason, kind: Kind::Hot, goal });
    }
    None
}
