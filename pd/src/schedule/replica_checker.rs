//! Keeps the replicas of a region: enough of them, none too many, none on stores that are dead or leave, and as far apart as
//! the location labels allow.
//!
//! A replica is never given up before its successor has caught up, and never when there is no successor.

use std::collections::BTreeSet;

use rutile_proto::metapb::{Peer, PeerRole};

use super::placement::{best_store, isolation};
use super::proposal::{Goal, Kind, Proposal};
use super::view::{ClusterView, Health};
use crate::cluster::region_tree::RegionInfo;

/// What a region needs, the most urgent first.
#[must_use]
pub fn check(view: &ClusterView<'_>, region: &RegionInfo) -> Option<Proposal> {
    if view.busy.contains(&region.meta.id) || region.leader.is_none() {
        return None;
    }
    if region.is_in_joint_state() {
        return Some(propose(region, "leave-joint-state", Goal::LeaveJoint));
    }
    let by_urgency =
        [replace_dead, add_missing, settle_learner, replace_leaving, remove_extra, improve_location];
    by_urgency.into_iter().find_map(|check| check(view, region))
}

fn propose(region: &RegionInfo, reason: &'static str, goal: Goal) -> Proposal {
    Proposal { region_id: region.meta.id, reason, kind: Kind::Replica, goal }
}

fn place(region: &RegionInfo, reason: &'static str, voters: BTreeSet<u64>) -> Option<Proposal> {
    Some(propose(region, reason, Goal::Place { voters, leader: None }))
}

fn voters(region: &RegionInfo) -> BTreeSet<u64> {
    let voters = region.meta.peers.iter().filter(|peer| peer.role() == PeerRole::Voter);
    voters.map(|peer| peer.store_id).collect()
}

fn is_dead(view: &ClusterView<'_>, region: &RegionInfo, peer: &Peer) -> bool {
    let down_s = region.down_peers.iter().find(|down| down.peer.is_some_and(|p| p.id == peer.id));
    let silent_for_long = down_s.is_some_and(|down| down.down_seconds >= view.config.max_store_down_time_s);
    let leads = region.leader.is_some_and(|leader| leader.id == peer.id);
    let store = view.stores.get(&peer.store_id);
    // A store that is being decommissioned may die as well.
    let dead_store = store.is_none_or(|store| {
        store.health == Health::Down || (store.health == Health::Offline && store.silent && down_s.is_some())
    });
    !leads && (silent_for_long || dead_store)
}

fn replace(
    view: &ClusterView<'_>,
    region: &RegionInfo,
    peer: &Peer,
    reason: &'static str,
) -> Option<Proposal> {
    let mut voters = voters(region);
    voters.remove(&peer.store_id);
    if voters.len() < view.replicas_wanted() {
        let staying: Vec<u64> = voters.iter().copied().collect();
        voters.insert(best_store(view, region, &staying)?.0.id);
    }
    place(region, reason, voters)
}

fn replace_dead(view: &ClusterView<'_>, region: &RegionInfo) -> Option<Proposal> {
    let peer = region.meta.peers.iter().find(|peer| is_dead(view, region, peer))?;
    replace(view, region, peer, "replace-dead-replica")
}

fn replace_leaving(view: &ClusterView<'_>, region: &RegionInfo) -> Option<Proposal> {
    let leaves =
        |peer: &&Peer| view.stores.get(&peer.store_id).is_some_and(|store| store.health == Health::Offline);
    let peer = region.meta.peers.iter().find(leaves)?;
    replace(view, region, peer, "replace-leaving-replica")
}

fn add_missing(view: &ClusterView<'_>, region: &RegionInfo) -> Option<Proposal> {
    if region.meta.peers.len() >= view.replicas_wanted() {
        return None;
    }
    let mut voters = voters(region);
    let staying: Vec<u64> = region.meta.peers.iter().map(|peer| peer.store_id).collect();
    voters.insert(best_store(view, region, &staying)?.0.id);
    place(region, "add-missing-replica", voters)
}

/// A learner that an operator left behind becomes a voter where one is missing, and goes where none is.
fn settle_learner(view: &ClusterView<'_>, region: &RegionInfo) -> Option<Proposal> {
    let learner = region.meta.peers.iter().find(|peer| peer.role() == PeerRole::Learner)?;
    let mut voters = voters(region);
    let usable = view.stores.get(&learner.store_id).is_some_and(|store| store.health == Health::Up);
    if voters.len() < view.replicas_wanted() && usable {
        voters.insert(learner.store_id);
        return place(region, "promote-learner", voters);
    }
    place(region, "remove-learner", voters)
}

fn remove_extra(view: &ClusterView<'_>, region: &RegionInfo) -> Option<Proposal> {
    let mut voters = voters(region);
    if voters.len() <= view.replicas_wanted() || !region.pending_peers.is_empty() {
        return None;
    }
    let labels = &view.config.location_labels;
    let leader = region.leader.map(|leader| leader.store_id);
    let worst = view
        .stores_of(region)
        .filter(|store| voters.contains(&store.id))
        .min_by_key(|store| {
            let far = isolation(labels, store, view.stores_of(region));
            (store.health == Health::Up, far, Some(store.id) == leader, -store.peers, store.id)
        })?
        .id;
    voters.remove(&worst);
    place(region, "remove-extra-replica", voters)
}

fn improve_location(view: &ClusterView<'_>, region: &RegionInfo) -> Option<Proposal> {
    if view.config.location_labels.is_empty() || !view.is_healthy(region) {
        return None;
    }
    let labels = &view.config.location_labels;
    let nearest = view
        .stores_of(region)
        .min_by_key(|store| (isolation(labels, store, view.stores_of(region)), -store.peers, store.id))?;
    let far = isolation(labels, nearest, view.stores_of(region));
    let mut voters = voters(region);
    voters.remove(&nearest.id);
    let staying: Vec<u64> = voters.iter().copied().collect();
    let (better, farther) = best_store(view, region, &staying)?;
    if farther <= far {
        return None;
    }
    voters.insert(better.id);
    place(region, "improve-location", voters)
}
