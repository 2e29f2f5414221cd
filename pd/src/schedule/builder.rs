//! From a goal to steps. At every moment a majority of the voters that a region had can go on: new voters have caught up
//! before they vote, and several votes change at once, in the joint state.

use std::collections::BTreeSet;

use rutile_proto::metapb::{Peer, PeerRole};

use super::operator::Step;
use super::proposal::Goal;
use super::view::{ClusterView, Health};
use crate::cluster::region_tree::RegionInfo;

/// How many new peers a goal needs.
#[must_use]
pub fn new_peers(region: &RegionInfo, goal: &Goal) -> u64 {
    let Goal::Place { voters, .. } = goal else { return 0 };
    voters.iter().filter(|id| region.meta.peers.iter().all(|peer| peer.store_id != **id)).count() as u64
}

/// Steps to a goal within one region.
pub fn build(
    cluster: &ClusterView<'_>,
    region: &RegionInfo,
    goal: &Goal,
    new_ids: impl Iterator<Item = u64>,
) -> Result<Vec<Step>, String> {
    match goal {
        Goal::LeaveJoint => leave_joint(cluster, region),
        Goal::Place { voters, leader } => {
            let can_lead = |id| cluster.stores.get(&id).is_some_and(|store| store.health == Health::Up);
            place(region, voters, *leader, can_lead, new_ids)
        }
        Goal::MergeInto { .. } => Err("a merge takes two regions".into()),
    }
}

/// Steps to have voters on these stores; empty when nothing is to be done. `new_ids` gives ids for new peers; `can_lead` says
/// which stores may get the lead.
pub fn place(
    region: &RegionInfo,
    voters: &BTreeSet<u64>,
    leader: Option<u64>,
    can_lead: impl Fn(u64) -> bool,
    mut new_ids: impl Iterator<Item = u64>,
) -> Result<Vec<Step>, String> {
    if voters.is_empty() || leader.is_some_and(|leader| !voters.contains(&leader)) {
        return Err("the goal has no voter, or none where it wants the leader".into());
    }
    let peer_on = |store: u64| region.meta.peers.iter().find(|peer| peer.store_id == store).copied();
    let (mut steps, mut promote) = (Vec::new(), Vec::new());
    for store_id in voters {
        match peer_on(*store_id) {
            Some(peer) if peer.role() == PeerRole::Voter => {}
            Some(peer) => promote.push(peer),
            None => {
                let id = new_ids.next().ok_or("no id for a new peer")?;
                let peer =
                    Peer { id, store_id: *store_id, role: PeerRole::Learner as i32, is_witness: false };
                steps.push(Step::AddLearner(peer));
                promote.push(peer);
            }
        }
    }
    let leaving: Vec<Peer> =
        region.meta.peers.iter().filter(|peer| !voters.contains(&peer.store_id)).copied().collect();
    let demote: Vec<Peer> = leaving.iter().filter(|peer| peer.role() == PeerRole::Voter).copied().collect();
    let leads = region.leader.map_or(0, |leader| leader.store_id);
    let goes = |store: u64| demote.iter().any(|peer| peer.store_id == store);
    // An old voter that stays can take the lead before anything changes; a new one only in or after the joint state.
    let stays = |store: &u64| peer_on(*store).is_some_and(|p| p.role() == PeerRole::Voter) && !goes(*store);
    let heir = leader.or_else(|| {
        let candidates = || voters.iter().copied().filter(|store| can_lead(*store));
        candidates().find(|store| stays(store)).or_else(|| candidates().next())
    });
    let heir = if goes(leads) || leader.is_some() { heir.filter(|heir| *heir != leads) } else { None };
    if goes(leads) && heir.is_none() {
        return Err("no store can take the lead from the one that goes".into());
    }
    let early = heir.filter(|heir| stays(heir));
    steps.extend(early.map(Step::TransferLeader));
    let late = heir.filter(|_| early.is_none()).map(Step::TransferLeader);
    match (promote.len(), demote.len()) {
        (0, 0) => {}
        (1, 0) => steps.push(Step::Promote(promote[0])),
        // The leader is no longer among those that go, so voters are removed one by one.
        (0, _) => {}
        _ => {
            steps.push(Step::EnterJoint { promote, demote: demote.clone() });
            if goes(leads) {
                steps.extend(late.clone());
            }
            steps.push(Step::LeaveJoint);
        }
    }
    if !goes(leads) {
        steps.extend(late);
    }
    steps.extend(leaving.into_iter().map(Step::Remove));
    Ok(steps)
}

/// Steps out of a joint state that nobody looks after; a leader that loses its vote hands over first.
pub fn leave_joint(view: &ClusterView<'_>, region: &RegionInfo) -> Result<Vec<Step>, String> {
    let leader = region.leader.ok_or("the region has no leader")?;
    let role = region.meta.peers.iter().find(|peer| peer.id == leader.id).map(Peer::role);
    let mut steps = Vec::new();
    if role == Some(PeerRole::DemotingVoter) {
        let votes = |peer: &&Peer| matches!(peer.role(), PeerRole::Voter | PeerRole::IncomingVoter);
        let can_lead =
            |peer: &&Peer| view.stores.get(&peer.store_id).is_some_and(|store| store.health == Health::Up);
        let heir = region.meta.peers.iter().filter(votes).find(can_lead);
        steps.push(Step::TransferLeader(heir.ok_or("no store can take the lead")?.store_id));
    }
    steps.push(Step::LeaveJoint);
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::region_tree::RegionInfo;

    /// `1L 2 3` = voters on 1, 2 and 3, led from 1; `4l` = a learner on 4.
    fn region(text: &str) -> RegionInfo {
        let mut region = RegionInfo::default();
        for word in text.split(' ') {
            let store_id = word.trim_end_matches(['L', 'l']).parse().unwrap();
            let role = if word.ends_with('l') { PeerRole::Learner } else { PeerRole::Voter };
            let peer = Peer { id: 100 + store_id, store_id, role: role as i32, ..Default::default() };
            region.meta.peers.push(peer);
            if word.ends_with('L') {
                region.leader = Some(peer);
            }
        }
        region
    }

    fn plan(from: &str, to: &[u64], leader: Option<u64>) -> String {
        let steps = place(&region(from), &to.iter().copied().collect(), leader, |_| true, 900..);
        let steps = steps.unwrap();
        steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn steps_to_a_place() {
        for (from, to, leader, steps) in [
            ("1L 2 3", &[1, 2, 3][..], None, ""),
            ("1L 2 3", &[1, 2, 3], Some(2), "transfer leader to 2"),
            ("1L", &[1, 2], None, "add learner on 2; promote on 2"),
            ("1L 2l", &[1, 2], None, "promote on 2"),
            ("1L 2 3 4", &[1, 2, 3], None, "remove from 4"),
            ("1L 2 3 4", &[2, 3, 4], None, "transfer leader to 2; remove from 1"),
            ("1L 2 3 4l", &[1, 2, 3], None, "remove from 4"),
            (
                "1L 2 3",
                &[1, 2, 4],
                None,
                "add learner on 4; enter joint: promote [4], demote [3]; leave joint; remove from 3",
            ),
            (
                "1L 2 3",
                &[2, 3, 4],
                None,
                "add learner on 4; transfer leader to 2; enter joint: promote [4], demote [1]; leave joint; remove from 1",
            ),
            (
                "1L 2 3",
                &[2, 3, 4],
                Some(4),
                "add learner on 4; enter joint: promote [4], demote [1]; transfer leader to 4; leave joint; remove from 1",
            ),
            (
                "1L 2 3",
                &[1, 2, 4],
                Some(4),
                "add learner on 4; enter joint: promote [4], demote [3]; leave joint; transfer leader to 4; remove from 3",
            ),
            (
                "1L",
                &[2],
                None,
                "add learner on 2; enter joint: promote [2], demote [1]; transfer leader to 2; leave joint; remove from 1",
            ),
            (
                "1L 2 3",
                &[4, 5, 6],
                None,
                "add learner on 4; add learner on 5; add learner on 6; enter joint: promote [4, 5, 6], demote [1, 2, 3]; \
                 transfer leader to 4; leave joint; remove from 1; remove from 2; remove from 3",
            ),
        ] {
            assert_eq!(plan(from, to, leader), steps, "{from} to {to:?} led by {leader:?}");
        }
        assert!(place(&region("1L 2 3"), &BTreeSet::new(), None, |_| true, 1..).is_err());
        assert!(place(&region("1L 2"), &BTreeSet::from([2]), None, |_| false, 1..).is_err());
    }
}
