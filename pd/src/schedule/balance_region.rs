//! Evens out the number of peers on the stores, never at the price of location.

use std::collections::BTreeSet;

use super::placement::isolation;
use super::proposal::{Goal, Kind, Proposal};
use super::view::{ClusterView, Health, StoreView};
use crate::cluster::region_tree::RegionInfo;

/// The next moves, at most `count`. `seed` chooses where to look first.
#[must_use]
pub fn schedule(view: &ClusterView<'_>, seed: u64, count: usize) -> Vec<Proposal> {
    let mut stores: Vec<StoreView> =
        view.stores.values().filter(|store| store.health == Health::Up).cloned().collect();
    let total: i64 = stores.iter().map(|store| store.peers).sum();
    let mut proposals: Vec<Proposal> = Vec::new();
    // Without a target at all, do not look at every region.
    let limits = (stores.iter().map(|s| s.peers).max(), stores.iter().map(|s| s.peers).min());
    let (Some(largest), Some(smallest)) = limits else { return proposals };
    if !view.is_uneven(largest, smallest, total) {
        return proposals;
    }
    // First regions whose peer there does not lead: moving a leader costs a hand-over.
    for leaders_too in [false, true] {
        for region in view.regions_from(seed) {
            if proposals.len() >= count {
                return proposals;
            }
            if !view.is_healthy(region) || proposals.iter().any(|p| p.region_id == region.meta.id) {
                continue;
            }
            let Some((source, target)) = best_move(view, &stores, region, total, leaders_too) else {
                continue;
            };
            stores[source].peers -= 1;
            stores[source].removing += 1;
            stores[target].peers += 1;
            stores[target].adding += 1;
            let mut voters: BTreeSet<u64> = region.meta.peers.iter().map(|peer| peer.store_id).collect();
            voters.remove(&stores[source].id);
            voters.insert(stores[target].id);
            let goal = Goal::Place { voters, leader: None };
            proposals.push(Proposal {
                region_id: region.meta.id,
                reason: "balance-region",
                kind: Kind::Region,
                goal,
            });
        }
    }
    proposals
}

/// From which of its stores to which other one a region's peer should move.
fn best_move(
    view: &ClusterView<'_>,
    stores: &[StoreView],
    region: &RegionInfo,
    total: i64,
    leaders_too: bool,
) -> Option<(usize, usize)> {
    let labels = &view.config.location_labels;
    let held = |id: u64| region.meta.peers.iter().any(|peer| peer.store_id == id);
    let leads = |id: u64| region.leader.is_some_and(|leader| leader.store_id == id);
    let source = (0..stores.len())
        .filter(|at| held(stores[*at].id) && (leaders_too || !leads(stores[*at].id)))
        .filter(|at| stores[*at].removing < view.config.store_limit)
        .max_by_key(|at| (stores[*at].peers, stores[*at].id))?;
    let far = isolation(labels, &stores[source], view.stores_of(region));
    let staying = || view.stores_of(region).filter(|store| store.id != stores[source].id);
    let target = (0..stores.len())
        .filter(|at| !held(stores[*at].id) && stores[*at].can_take_peer(view.config))
        .filter(|at| isolation(labels, &stores[*at], staying()) >= far)
        .min_by_key(|at| (stores[*at].peers, stores[*at].id))?;
    view.is_uneven(stores[source].peers, stores[target].peers, total).then_some((source, target))
}
