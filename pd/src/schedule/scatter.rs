//! Spreads the regions of a group, such as those of a new index, over all stores.

use std::collections::{BTreeMap, BTreeSet};

use super::placement::isolation;
use super::proposal::{Goal, Kind, Proposal};
use super::view::ClusterView;
use crate::cluster::region_tree::RegionInfo;

/// What a group has been given so far, by store.
#[derive(Clone, Debug, Default)]
pub struct Group {
    peers: BTreeMap<u64, u64>,
    leaders: BTreeMap<u64, u64>,
}

/// Where a region of the group shall be; remembers it in the group. `None`: it cannot be moved now.
#[must_use]
pub fn scatter(view: &ClusterView<'_>, region: &RegionInfo, group: &mut Group) -> Option<Proposal> {
    if !view.is_healthy(region) {
        return None;
    }
    let labels = &view.config.location_labels;
    let held: BTreeSet<u64> = region.meta.peers.iter().map(|peer| peer.store_id).collect();
    let mut voters: BTreeSet<u64> = BTreeSet::new();
    let given = |map: &BTreeMap<u64, u64>, id: u64| map.get(&id).copied().unwrap_or(0);
    while voters.len() < held.len() {
        let next = view
            .stores
            .values()
            .filter(|store| !voters.contains(&store.id))
            .filter(|store| held.contains(&store.id) || store.can_take_peer(view.config))
            .min_by_key(|store| {
                let far = isolation(labels, store, voters.iter().filter_map(|id| view.stores.get(id)));
                let moves = !held.contains(&store.id);
                (std::cmp::Reverse(far), given(&group.peers, store.id), moves, store.peers, store.id)
            })?;
        voters.insert(next.id);
    }
    let leads = region.leader.map(|leader| leader.store_id);
    let leader = *voters.iter().min_by_key(|id| (given(&group.leaders, **id), Some(**id) != leads, **id))?;
    for id in &voters {
        *group.peers.entry(*id).or_default() += 1;
    }
    *group.leaders.entry(leader).or_default() += 1;
    let goal = Goal::Place { voters, leader: Some(leader) };
    Some(Proposal { region_id: region.meta.id, reason: "scatter", kind: Kind::Admin, goal })
}
