//! The operators under way: at most one per region, limited by kind and by store, followed by heartbeats and by time.

use std::collections::{BTreeMap, VecDeque};

use rutile_proto::pdpb::RegionHeartbeatResponse;

use super::config::ScheduleConfig;
use super::operator::{Operator, Status, Step};
use super::proposal::Kind;
use super::view::Influence;
use crate::cluster::region_tree::{RegionInfo, RegionTree};

/// A step is sent again when no heartbeat came for so long.
const RESEND_MS: u64 = 5_000;
/// A region whose new peer catches up is asked so often how it is.
const ASK_MS: u64 = 1_000;
/// Ended operators that are remembered.
const HISTORY_MAX: usize = 1024;

/// All operators.
#[derive(Debug, Default)]
pub struct Controller {
    running: BTreeMap<u64, Running>,
    ended: VecDeque<Operator>,
    counts: BTreeMap<(String, &'static str), u64>,
}

#[derive(Debug)]
struct Running {
    operator: Operator,
    sent_ms: u64,
}

impl Controller {
    /// Whether the limits leave room for one more of a kind.
    #[must_use]
    pub fn has_room(&self, kind: Kind, config: &ScheduleConfig) -> bool {
        let limit = match kind {
            Kind::Leader => config.leader_schedule_limit,
            Kind::Region => config.region_schedule_limit,
            Kind::Replica => config.replica_schedule_limit,
            Kind::Hot => config.hot_region_schedule_limit,
            Kind::Merge => config.merge_schedule_limit,
            Kind::Split | Kind::Admin => usize::MAX,
        };
        self.count(kind) < limit
    }

    /// How many of a kind are under way.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.running.values().filter(|running| running.operator.kind == kind).count()
    }

    /// Takes an operator; it takes the place of one of lower priority.
    pub fn add(&mut self, operator: Operator) -> Result<(), String> {
        if operator.steps.is_empty() {
            return Err(format!("region {} is as it shall be", operator.region_id));
        }
        if let Some(known) = self.running.get(&operator.region_id) {
            if known.operator.kind.priority() >= operator.kind.priority() {
                return Err(format!("region {} has an operator: {}", operator.region_id, known.operator));
            }
            self.end(operator.region_id, Status::Replaced);
        }
        *self.counts.entry((operator.reason.clone(), "created")).or_default() += 1;
        self.running.insert(operator.region_id, Running { operator, sent_ms: 0 });
        Ok(())
    }

    /// Takes what a region's leader tells; the answer is what it shall do now.
    pub fn on_heartbeat(&mut self, region: &RegionInfo, now_ms: u64) -> Option<RegionHeartbeatResponse> {
        let running = self.running.get_mut(&region.meta.id)?;
        running.operator.advance(region, now_ms);
        if running.operator.status != Status::Running {
            let status = running.operator.status;
            self.end(region.meta.id, status);
            return None;
        }
        running.sent_ms = now_ms;
        running.operator.current()?.instruct(region).filter(has_action)
    }

    /// What must be sent without waiting for heartbeats: steps of new operators, and such as were not answered for long. Ends
    /// operators that take too long or whose region is gone.
    pub fn tick(&mut self, regions: &RegionTree, now_ms: u64) -> Vec<RegionHeartbeatResponse> {
        let mut over = Vec::new();
        let mut answers = Vec::new();
        for (id, running) in &mut self.running {
            let operator = &mut running.operator;
            let Some(region) = regions.by_id(*id) else {
                let merged = matches!(operator.current(), Some(Step::Merge(_)));
                over.push((*id, if merged { Status::Success } else { Status::Cancelled }));
                continue;
            };
            operator.check_time(now_ms);
            if operator.status != Status::Running {
                over.push((*id, operator.status));
                continue;
            }
            let Some(answer) = operator.current().and_then(|step| step.instruct(region)) else { continue };
            let wait_ms = if has_action(&answer) { RESEND_MS } else { ASK_MS };
            if now_ms.saturating_sub(running.sent_ms) >= wait_ms {
                running.sent_ms = now_ms;
                answers.push(answer);
            }
        }
        for (id, status) in over {
            self.end(id, status);
        }
        answers
    }

    /// Ends the operators that need a store of these: it was lost or is leaving. What is left half done is seen to anew.
    pub fn give_up_on(&mut self, stores: &[u64]) {
        let stranded = |running: &Running| stores.iter().any(|store| running.operator.needs(*store));
        let ids: Vec<u64> =
            self.running.iter().filter(|(_, running)| stranded(running)).map(|(id, _)| *id).collect();
        for id in ids {
            self.end(id, Status::Cancelled);
        }
    }

    /// Ends an operator by hand; false when there is none. Both halves of a merge end.
    pub fn cancel(&mut self, region_id: u64) -> bool {
        let Some(running) = self.running.get(&region_id) else { return false };
        let partner = running.operator.steps.iter().find_map(|step| match step {
            Step::Merge(target) => Some(target.id),
            Step::AwaitMerge { source } => Some(*source),
            _ => None,
        });
        self.end(region_id, Status::Cancelled);
        if let Some(partner) = partner {
            self.end(partner, Status::Cancelled);
        }
        true
    }

    fn end(&mut self, region_id: u64, status: Status) {
        let Some(mut running) = self.running.remove(&region_id) else { return };
        running.operator.status = status;
        *self.counts.entry((running.operator.reason.clone(), status.name())).or_default() += 1;
        if status != Status::Success {
            tracing::info!(operator = %running.operator, status = status.name(), "an operator ended");
        }
        self.ended.push_back(running.operator);
        if self.ended.len() > HISTORY_MAX {
            self.ended.pop_front();
        }
    }

    /// Whether a region has one under way.
    #[must_use]
    pub fn is_running(&self, region_id: u64) -> bool {
        self.running.contains_key(&region_id)
    }

    /// Under way, by region.
    pub fn running(&self) -> impl Iterator<Item = &Operator> {
        self.running.values().map(|running| &running.operator)
    }

    /// Of a region: under way, or the last one that ended.
    #[must_use]
    pub fn of_region(&self, region_id: u64) -> Option<&Operator> {
        let running = self.running.get(&region_id).map(|running| &running.operator);
        running.or_else(|| self.ended.iter().rev().find(|operator| operator.region_id == region_id))
    }

    /// Ended ones, oldest first.
    pub fn ended(&self) -> impl Iterator<Item = &Operator> {
        self.ended.iter()
    }

    /// How many began and ended, by reason and by how.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &'static str, u64)> {
        self.counts.iter().map(|((reason, status), count)| (reason.as_str(), *status, *count))
    }

    /// What the operators under way will change.
    #[must_use]
    pub fn influence(&self, regions: &RegionTree) -> Influence {
        let mut influence = Influence::default();
        for operator in self.running() {
            influence.busy.insert(operator.region_id);
            for store in operator.adds() {
                let store = influence.stores.entry(store).or_default();
                store.adding += 1;
                store.peers += 1;
            }
            for store in operator.removes() {
                let store = influence.stores.entry(store).or_default();
                store.removing += 1;
                store.peers -= 1;
            }
            let region = regions.by_id(operator.region_id);
            let leads = region.and_then(|region| region.leader).map(|leader| leader.store_id);
            if let (Some(from), Some(to)) = (leads, operator.leader_goes_to())
                && from != to
            {
                influence.stores.entry(from).or_default().leaders -= 1;
                influence.stores.entry(to).or_default().leaders += 1;
            }
        }
        influence
    }
}

/// Whether an answer asks for more than another heartbeat.
fn has_action(answer: &RegionHeartbeatResponse) -> bool {
    answer.change_peer.is_some()
        || answer.change_peer_v2.is_some()
        || answer.transfer_leader.is_some()
        || answer.merge.is_some()
        || answer.split_region.is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rutile_proto::metapb::{Peer, PeerRole, Region, RegionEpoch};

    use super::*;
    use crate::schedule::builder;

    fn region(conf_ver: u64, peers: &[(u64, PeerRole)], leader: u64) -> RegionInfo {
        let peer = |id: u64, role: PeerRole| Peer { id, store_id: id, role: role as i32, is_witness: false };
        let meta = Region {
            id: 1,
            region_epoch: Some(RegionEpoch { conf_ver, version: 1 }),
            peers: peers.iter().map(|(id, role)| peer(*id, *role)).collect(),
            ..Default::default()
        };
        RegionInfo { meta, leader: Some(peer(leader, PeerRole::Voter)), since_ms: 1, ..Default::default() }
    }

    #[test]
    fn heartbeats_lead_from_step_to_step() {
        use PeerRole::{DemotingVoter, IncomingVoter, Learner, Voter};
        let start = region(1, &[(1, Voter), (2, Voter), (3, Voter)], 1);
        let steps = builder::place(&start, &BTreeSet::from([1, 2, 4]), None, |_| true, 4..).unwrap();
        let mut controller = Controller::default();
        let operator = |kind| Operator::new(&start, "test", kind, steps.clone(), 0);
        controller.add(operator(Kind::Region)).unwrap();
        assert!(controller.add(operator(Kind::Region)).unwrap_err().contains("has an operator"));
        controller.add(operator(Kind::Replica)).unwrap();

        let answer = controller.on_heartbeat(&start, 10).unwrap();
        assert_eq!(answer.change_peer.unwrap().change_type, 2);
        let mut added = region(2, &[(1, Voter), (2, Voter), (3, Voter), (4, Learner)], 1);
        added.pending_peers = vec![added.meta.peers[3]];
        assert_eq!(controller.on_heartbeat(&added, 20), None, "it catches up");
        added.pending_peers.clear();
        let joint = controller.on_heartbeat(&added, 30).unwrap().change_peer_v2.unwrap();
        assert_eq!(joint.changes.iter().map(|c| c.change_type).collect::<Vec<_>>(), [0, 2]);
        let entered = region(4, &[(1, Voter), (2, Voter), (3, DemotingVoter), (4, IncomingVoter)], 1);
        assert_eq!(controller.on_heartbeat(&entered, 40).unwrap().change_peer_v2.unwrap().changes, []);
        let left = region(6, &[(1, Voter), (2, Voter), (3, Learner), (4, Voter)], 1);
        assert_eq!(controller.on_heartbeat(&left, 50).unwrap().change_peer.unwrap().change_type, 1);
        let end = region(7, &[(1, Voter), (2, Voter), (4, Voter)], 1);
        assert_eq!(controller.on_heartbeat(&end, 60), None);
        assert_eq!(controller.of_region(1).unwrap().status, Status::Success);
        assert_eq!(controller.running().count(), 0);
    }

    #[test]
    fn operators_end_when_others_change_the_region_or_time_is_over() {
        use PeerRole::Voter;
        let start = region(1, &[(1, Voter), (2, Voter)], 1);
        let transfer = || {
            let steps = vec![Step::TransferLeader(2)];
            Operator::new(&start, "test", Kind::Leader, steps, 101_000)
        };
        let mut controller = Controller::default();
        controller.add(transfer()).unwrap();
        let mut split = start.clone();
        split.meta.region_epoch = Some(RegionEpoch { conf_ver: 1, version: 2 });
        assert_eq!(controller.on_heartbeat(&split, 2_000), None);
        assert_eq!(controller.of_region(1).unwrap().status, Status::Cancelled);

        controller.add(transfer()).unwrap();
        let mut tree = RegionTree::default();
        tree.update(start.clone());
        assert_eq!(controller.tick(&tree, 102_000).len(), 1, "sent without a heartbeat");
        assert_eq!(controller.tick(&tree, 103_000).len(), 0);
        assert_eq!(controller.tick(&tree, 108_000).len(), 1, "sent again");
        assert_eq!(controller.tick(&tree, 200_000).len(), 0);
        assert_eq!(controller.of_region(1).unwrap().status, Status::Timeout);
        controller.add(transfer()).unwrap();
        controller.give_up_on(&[3]);
        assert!(controller.is_running(1));
        controller.give_up_on(&[2]);
        assert!(!controller.is_running(1), "the store that shall lead is lost");
        controller.add(transfer()).unwrap();
        assert!(controller.cancel(1) && !controller.cancel(1));
    }

    #[test]
    fn a_region_that_prepares_its_merge_is_not_taken_for_another() {
        use PeerRole::Voter;
        let peers = [(1, Voter), (2, Voter)];
        let source = region(5, &peers, 1);
        let mut controller = Controller::default();
        let target = Region { id: 2, ..Default::default() };
        controller.add(Operator::new(&source, "merge", Kind::Merge, vec![Step::Merge(target)], 0)).unwrap();
        assert!(controller.on_heartbeat(&source, 0).unwrap().merge.is_some());
        let mut prepared = region(6, &peers, 1);
        prepared.meta.region_epoch.as_mut().unwrap().version += 1;
        controller.on_heartbeat(&prepared, 1);
        assert_eq!(controller.of_region(1).unwrap().status, Status::Running);
        controller.tick(&RegionTree::default(), 2);
        assert_eq!(controller.of_region(1).unwrap().status, Status::Success);
    }
}
