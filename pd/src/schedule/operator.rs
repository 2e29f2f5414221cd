//! Operators: the way from what a region is to what it shall be, in steps that its leader carries out one by one.
//!
//! A step is done when a heartbeat shows it; whoever carried it out. A step is sent again until then.

use std::fmt;

use rutile_proto::metapb::{Peer, PeerRole, Region, RegionEpoch};
use rutile_proto::pdpb::{self, RegionHeartbeatResponse};

use super::proposal::Kind;
use crate::cluster::region_tree::RegionInfo;

/// How long a step may take that moves no data.
const STEP_MS: u64 = 60_000;
/// How long a hand-over may take: it waits for a peer that may be gone, and meanwhile nothing else happens to the region.
const TRANSFER_MS: u64 = 10_000;
/// How long a new peer may take to catch up, beside what its size needs.
const ADD_MS: u64 = 600_000;
/// Bytes per millisecond that a snapshot goes at least.
const ADD_BYTES_PER_MS: u64 = 2048;

/// `eraftpb.ConfChangeType`.
const ADD_NODE: i32 = 0;
const REMOVE_NODE: i32 = 1;
const ADD_LEARNER: i32 = 2;

/// One thing that a region's leader does.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A new peer catches up without a vote.
    AddLearner(Peer),
    /// A peer that caught up gets its vote.
    Promote(Peer),
    /// Several peers get and lose their votes at once: the region enters the joint state.
    EnterJoint {
        /// Learners that become voters.
        promote: Vec<Peer>,
        /// Voters that become learners.
        demote: Vec<Peer>,
    },
    /// The joint state ends.
    LeaveJoint,
    /// A peer goes.
    Remove(Peer),
    /// A voter on this store takes the lead.
    TransferLeader(u64),
    /// Cut at these keys (PD form), or in the middle when there are none.
    Split(Vec<bytes::Bytes>),
    /// Become part of this neighbour.
    Merge(Region),
    /// A neighbour becomes part of this region; nothing else may happen meanwhile.
    AwaitMerge {
        /// The neighbour.
        source: u64,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stores = |peers: &[Peer]| peers.iter().map(|peer| peer.store_id).collect::<Vec<_>>();
        match self {
            Step::AddLearner(peer) => write!(f, "add learner on {}", peer.store_id),
            Step::Promote(peer) => write!(f, "promote on {}", peer.store_id),
            Step::EnterJoint { promote, demote } => {
                write!(f, "enter joint: promote {:?}, demote {:?}", stores(promote), stores(demote))
            }
            Step::LeaveJoint => write!(f, "leave joint"),
            Step::Remove(peer) => write!(f, "remove from {}", peer.store_id),
            Step::TransferLeader(store) => write!(f, "transfer leader to {store}"),
            Step::Split(keys) => write!(f, "split at {} keys", keys.len()),
            Step::Merge(target) => write!(f, "merge into {}", target.id),
            Step::AwaitMerge { source } => write!(f, "await the merge of {source}"),
        }
    }
}

impl Step {
    /// Whether a region shows that it is done; `version` is the region's when the operator began.
    #[must_use]
    pub fn is_done(&self, region: &RegionInfo, version: u64) -> bool {
        let role = |peer: &Peer| region.meta.peers.iter().find(|p| p.id == peer.id).map(Peer::role);
        match self {
            Step::AddLearner(peer) => {
                role(peer).is_some() && region.pending_peers.iter().all(|pending| pending.id != peer.id)
            }
            Step::Promote(peer) => role(peer) == Some(PeerRole::Voter),
            Step::EnterJoint { promote, demote } => {
                let votes = |p| matches!(role(p), Some(PeerRole::Voter | PeerRole::IncomingVoter));
                let leaves = |p| matches!(role(p), None | Some(PeerRole::Learner | PeerRole::DemotingVoter));
                promote.iter().all(votes) && demote.iter().all(leaves)
            }
            Step::LeaveJoint => !region.is_in_joint_state(),
            Step::Remove(peer) => role(peer).is_none(),
            Step::TransferLeader(store) => region.leader.is_some_and(|leader| leader.store_id == *store),
            Step::Split(_) => region.epoch().version > version,
            Step::Merge(_) => false, // the region is gone then
            Step::AwaitMerge { .. } => region.epoch().version > version,
        }
    }

    /// How many changes of members it makes at most.
    fn conf_changes(&self) -> u64 {
        match self {
            // A region that is about to be merged raises both its versions.
            Step::AddLearner(_) | Step::Promote(_) | Step::Remove(_) | Step::Merge(_) => 1,
            Step::EnterJoint { promote, demote } => (promote.len() + demote.len()) as u64,
            Step::LeaveJoint => 16,
            _ => 0,
        }
    }

    fn time_limit_ms(&self, region_size_bytes: u64) -> u64 {
        match self {
            Step::AddLearner(_) => ADD_MS + region_size_bytes / ADD_BYTES_PER_MS,
            Step::TransferLeader(_) => TRANSFER_MS,
            Step::AwaitMerge { .. } | Step::Merge(_) => 4 * STEP_MS,
            _ => STEP_MS,
        }
    }

    /// What a region's leader is told; without any action in it, the leader shall tell at once how the region is. The caller
    /// adds the header.
    #[must_use]
    pub fn instruct(&self, region: &RegionInfo) -> Option<RegionHeartbeatResponse> {
        let mut answer = RegionHeartbeatResponse {
            region_id: region.meta.id,
            region_epoch: region.meta.region_epoch,
            target_peer: region.leader,
            ..Default::default()
        };
        let change = |peer: &Peer, change_type: i32| {
            let role = if change_type == ADD_LEARNER { PeerRole::Learner } else { PeerRole::Voter };
            pdpb::ChangePeer { peer: Some(Peer { role: role as i32, ..*peer }), change_type }
        };
        match self {
            // It is there and catches up: nothing to do but to tell how far it is.
            Step::AddLearner(peer) if region.meta.peers.iter().any(|p| p.id == peer.id) => {}
            Step::AddLearner(peer) => answer.change_peer = Some(change(peer, ADD_LEARNER)),
            Step::Promote(peer) => answer.change_peer = Some(change(peer, ADD_NODE)),
            Step::Remove(peer) => {
                let peer = Some(*peer);
                answer.change_peer = Some(pdpb::ChangePeer { peer, change_type: REMOVE_NODE });
            }
            Step::EnterJoint { promote, demote } => {
                let promote = promote.iter().map(|peer| change(peer, ADD_NODE));
                let changes = promote.chain(demote.iter().map(|peer| change(peer, ADD_LEARNER))).collect();
                answer.change_peer_v2 = Some(pdpb::ChangePeerV2 { changes });
            }
            Step::LeaveJoint => answer.change_peer_v2 = Some(pdpb::ChangePeerV2::default()),
            Step::TransferLeader(store) => {
                let peer = region.meta.peers.iter().find(|peer| peer.store_id == *store).copied();
                answer.transfer_leader = Some(pdpb::TransferLeader { peer: Some(peer?), peers: vec![] });
            }
            Step::Split(keys) => {
                let policy = match keys.is_empty() {
                    true => pdpb::split_region::Policy::Scan,
                    false => pdpb::split_region::Policy::Usekey,
                };
                answer.split_region = Some(pdpb::SplitRegion { policy: policy as i32, keys: keys.clone() });
            }
            Step::Merge(target) => answer.merge = Some(pdpb::Merge { target: Some(target.clone()) }),
            Step::AwaitMerge { .. } => return None,
        }
        Some(answer)
    }
}

/// How an operator ended, or that it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not over.
    Running,
    /// All steps are done.
    Success,
    /// A step took too long.
    Timeout,
    /// A person or the region's change ended it.
    Cancelled,
    /// One of higher priority took its place.
    Replaced,
}

impl Status {
    /// As people and metrics read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Success => "success",
            Status::Timeout => "timeout",
            Status::Cancelled => "cancelled",
            Status::Replaced => "replaced",
        }
    }
}

/// Steps for one region.
#[derive(Clone, Debug)]
pub struct Operator {
    /// The region.
    pub region_id: u64,
    /// Why.
    pub reason: String,
    /// What it counts as.
    pub kind: Kind,
    /// The region's epoch when it began.
    pub epoch: RegionEpoch,
    /// What is to be done.
    pub steps: Vec<Step>,
    /// How many of them are done.
    pub done: usize,
    /// Unix milliseconds of its begin.
    pub created_ms: u64,
    /// Unix milliseconds of the current step's begin.
    pub step_ms: u64,
    /// Size of the region, for time limits.
    pub region_size_bytes: u64,
    /// How it stands.
    pub status: Status,
}

impl Operator {
    /// Steps for a region as it is now.
    #[must_use]
    pub fn new(
        region: &RegionInfo,
        reason: impl Into<String>,
        kind: Kind,
        steps: Vec<Step>,
        now_ms: u64,
    ) -> Self {
        Operator {
            region_id: region.meta.id,
            reason: reason.into(),
            kind,
            epoch: region.epoch(),
            steps,
            done: 0,
            created_ms: now_ms,
            step_ms: now_ms,
            region_size_bytes: region.approximate_size_bytes,
            status: Status::Running,
        }
    }

    /// The step that is under way.
    #[must_use]
    pub fn current(&self) -> Option<&Step> {
        self.steps.get(self.done)
    }

    /// Takes what a heartbeat shows; the operator may be over afterwards.
    pub fn advance(&mut self, region: &RegionInfo, now_ms: u64) {
        while self.current().is_some_and(|step| step.is_done(region, self.epoch.version)) {
            self.done += 1;
            self.step_ms = now_ms;
        }
        if self.current().is_none() {
            self.status = Status::Success;
            return;
        }
        let epoch = region.epoch();
        let changes: u64 = self.steps[..=self.done].iter().map(Step::conf_changes).sum();
        let is_merge = self.steps.iter().any(|s| matches!(s, Step::Merge(_) | Step::AwaitMerge { .. }));
        let elsewhere = epoch.conf_ver > self.epoch.conf_ver + changes;
        if elsewhere || (epoch.version != self.epoch.version && !is_merge) {
            self.status = Status::Cancelled;
        }
    }

    /// Ends it when its step takes too long.
    pub fn check_time(&mut self, now_ms: u64) {
        if let Some(step) = self.current()
            && now_ms.saturating_sub(self.step_ms) > step.time_limit_ms(self.region_size_bytes)
        {
            self.status = Status::Timeout;
        }
    }

    /// Peers that it still adds.
    pub fn adds(&self) -> impl Iterator<Item = u64> + '_ {
        self.steps[self.done.min(self.steps.len())..].iter().filter_map(|step| match step {
            Step::AddLearner(peer) => Some(peer.store_id),
            _ => None,
        })
    }

    /// Peers that it still removes.
    pub fn removes(&self) -> impl Iterator<Item = u64> + '_ {
        self.steps[self.done.min(self.steps.len())..].iter().filter_map(|step| match step {
            Step::Remove(peer) => Some(peer.store_id),
            _ => None,
        })
    }

    /// Whether something that it still needs is on this store.
    #[must_use]
    pub fn needs(&self, store: u64) -> bool {
        self.leader_goes_to() == Some(store) || self.adds().any(|added| added == store)
    }

    /// Where it still moves the leader.
    #[must_use]
    pub fn leader_goes_to(&self) -> Option<u64> {
        let rest = &self.steps[self.done.min(self.steps.len())..];
        rest.iter().rev().find_map(|step| match step {
            Step::TransferLeader(store) => Some(*store),
            _ => None,
        })
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "region {} {} ({}):", self.region_id, self.reason, self.kind.name())?;
        for (at, step) in self.steps.iter().enumerate() {
            let mark = match at.cmp(&self.done) {
                std::cmp::Ordering::Less => "done ",
                std::cmp::Ordering::Equal => "now ",
                std::cmp::Ordering::Greater => "",
            };
            write!(f, "{} {mark}{step}", if at == 0 { "" } else { ";" })?;
        }
        Ok(())
    }
}
