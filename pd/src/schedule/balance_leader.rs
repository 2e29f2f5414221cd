//! Evens out the number of regions that stores lead, by handing single regions over. No data moves.

use rutile_proto::metapb::PeerRole;

use super::proposal::{Goal, Kind, Proposal};
use super::view::{ClusterView, Health, StoreView};

/// The next hand-overs, at most `count`. `seed` chooses where to look first.
#[must_use]
pub fn schedule(view: &ClusterView<'_>, seed: u64, count: usize) -> Vec<Proposal> {
    let mut stores: Vec<StoreView> =
        view.stores.values().filter(|store| store.health == Health::Up).cloned().collect();
    let total: i64 = stores.iter().map(|store| store.leaders).sum();
    let mut proposals = Vec::new();
    for region in view.regions_from(seed) {
        if proposals.len() >= count {
            break;
        }
        let Some(leader) = region.leader.filter(|_| view.is_idle(region)) else { continue };
        let Some(source) = stores.iter().position(|store| store.id == leader.store_id) else { continue };
        let largest = stores.iter().map(|store| store.leaders).max().unwrap_or(0);
        if stores[source].leaders < largest {
            continue;
        }
        let is_well = |id: u64| {
            region.pending_peers.iter().all(|peer| peer.id != id)
                && region.down_peers.iter().all(|down| down.peer.is_none_or(|peer| peer.id != id))
        };
        let followers = region.meta.peers.iter().filter(|p| p.role() == PeerRole::Voter && is_well(p.id));
        let target = followers
            .filter_map(|peer| stores.iter().position(|store| store.id == peer.store_id))
            .filter(|at| *at != source && stores[*at].can_take_leader())
            .min_by_key(|at| (stores[*at].leaders, stores[*at].id));
        let Some(target) = target else { continue };
        if !view.is_uneven(stores[source].leaders, stores[target].leaders, total) {
            continue;
        }
        stores[source].leaders -= 1;
        stores[target].leaders += 1;
        let voters = region.meta.peers.iter().filter(|peer| peer.role() == PeerRole::Voter);
        proposals.push(Proposal {
            region_id: region.meta.id,
            reason: "balance-leader",
            kind: Kind::Leader,
            goal: Goal::Place {
                voters: voters.map(|peer| peer.store_id).collect(),
                leader: Some(stores[target].id),
            },
        });
    }
    proposals
}
