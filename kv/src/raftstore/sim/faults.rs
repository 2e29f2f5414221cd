//! What goes wrong in a simulation, and what operators do meanwhile.

use std::sync::Arc;

use raft::eraftpb::ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
use rand::Rng;
use rutile_proto::metapb::{self, PeerRole};

use super::clients::{REGISTERS_MAX, key_of};
use super::net::Noise;
use super::world::{MS, World};
use crate::raftstore::RaftKv;
use crate::raftstore::apply::members::is_joint;
use crate::raftstore::worker::log_gc;

impl World {
    /// One change of regions.
    pub(super) fn reshape(&mut self) {
        match self.rng.random_range(0..10) {
            0..4 => self.split(),
            4..8 => self.merge(),
            _ => self.transfer(),
        }
    }

    /// A log is cut off, or a store crashes.
    pub(super) fn wreck(&mut self) {
        match self.rng.random_range(0..10) {
            0..6 => self.cut_logs(),
            _ => {
                let i = self.any();
                self.crash(i, 20 * MS);
            }
        }
    }

    /// One fault or one change.
    pub(super) fn disturb(&mut self) {
        match self.rng.random_range(0..100) {
            0..12 => self.split(),
            12..24 => self.merge(),
            24..32 => self.transfer(),
            32..48 => self.change_members(),
            48..56 => self.cut_logs(),
            56..60 => self.flush(),
            60..63 => self.compare(),
            63..71 => self.partition(),
            71..77 => self.make_noise(),
            77..82 => self.quiet(),
            82..87 => {
                let (i, away) = (self.any(), self.rng.random_range(MS..500 * MS));
                self.crash(i, away);
            }
            87..92 => {
                let n = self.rng.random_range(1..120);
                super::crash_in(Some(n));
            }
            92..96 => {
                let (i, until) = (self.any(), self.now + self.rng.random_range(MS..400 * MS));
                self.nodes[i].paused_until = until;
            }
            _ => {
                let (i, by) = (self.any(), self.rng.random_range(MS..2000 * MS));
                self.jump(i, by);
            }
        }
    }

    fn any(&mut self) -> usize {
        self.rng.random_range(0..self.nodes.len())
    }

    fn any_key(&mut self) -> bytes::Bytes {
        key_of(self.rng.random_range(0..REGISTERS_MAX))
    }

    /// All faults end.
    pub(super) fn heal(&mut self) {
        self.quiet();
        for node in &mut self.nodes {
            node.paused_until = 0;
            node.restart_at = node.restart_at.min(self.now);
        }
    }

    fn quiet(&mut self) {
        self.note("quiet", &[]);
        // Both ends have noticed that the connection was dead.
        for (from, to) in std::mem::take(&mut self.net.cut) {
            for (here, there) in [(from, to), (to, from)] {
                if let Some(live) = &self.nodes[self.index_of(here)].live {
                    live.router.store_unreachable(there);
                }
            }
        }
        self.net.noise = Noise::default();
    }

    fn make_noise(&mut self) {
        self.note("noise", &[]);
        self.net.noise = Noise {
            drop: self.rng.random_range(0..150),
            twice: self.rng.random_range(0..100),
            late: self.rng.random_range(0..150),
        };
    }

    fn partition(&mut self) {
        let victim = self.any();
        let (deaf, mute) = match self.rng.random_range(0..3) {
            0 => (true, true),
            1 => (true, false),
            _ => (false, true),
        };
        self.isolate(victim, deaf, mute);
    }

    /// Nothing comes to a store, or nothing leaves it.
    pub(super) fn isolate(&mut self, i: usize, deaf: bool, mute: bool) {
        let id = self.nodes[i].id;
        self.note("isolate", &[id, u64::from(deaf), u64::from(mute)]);
        for other in self.nodes.iter().map(|n| n.id).filter(|other| *other != id) {
            self.net.cut.extend(deaf.then_some((other, id)));
            self.net.cut.extend(mute.then_some((id, other)));
        }
    }

    fn split(&mut self) {
        let key = self.any_key();
        self.split_at(&key);
    }

    /// Asks the leader of a key's region for a split there.
    pub(super) fn split_at(&mut self, key: &bytes::Bytes) {
        let Some((i, region)) = self.leader(key) else { return };
        self.note("split", &[region.id]);
        let store = Arc::clone(self.store(i).expect("runs"));
        let key = key.clone();
        self.ask(i, format!("split {}", region.id), async move {
            let _ = store.split(&store.context_of(&region), vec![key]).await;
        });
    }

    fn merge(&mut self) {
        let key = self.any_key();
        let Some((_, region)) = self.leader(&key) else { return };
        let left = self.rng.random_bool(0.5) && !region.start_key.is_empty();
        let next = if left { key_before(&region.start_key) } else { region.end_key.clone() };
        if next.is_empty() {
            return;
        }
        self.merge_into(&key, &next);
    }

    /// Asks the leader of one key's region to have it merged into that of the other, whose leader comes to the same store.
    pub(super) fn merge_into(&mut self, source: &[u8], target: &[u8]) {
        let (Some((i, region)), Some((_, into))) = (self.leader(source), self.leader(target)) else { return };
        if region.id == into.id {
            return;
        }
        self.note("merge", &[region.id, into.id]);
        let store = Arc::clone(self.store(i).expect("runs"));
        let what = format!("merge {} into {}", region.id, into.id);
        self.ask(i, what, async move { drop(store.merge(region.id, (*into).clone()).await) });
    }

    fn transfer(&mut self) {
        let key = self.any_key();
        let to = self.any();
        self.transfer_to(&key, to);
    }

    /// Asks the leader of a key's region to hand over.
    pub(super) fn transfer_to(&mut self, key: &[u8], to: usize) {
        let Some((i, region)) = self.leader(key) else { return };
        let id = self.nodes[to].id;
        let peer = region.peers.iter().find(|p| p.store_id == id && p.role() == PeerRole::Voter);
        if let Some(peer) = peer {
            self.note("transfer", &[region.id, id]);
            self.store(i).expect("runs").transfer_leader(region.id, *peer);
        }
    }

    /// What a placement driver that keeps about three voters could want.
    fn change_members(&mut self) {
        let key = self.any_key();
        let Some((i, region)) = self.leader(&key) else { return };
        if is_joint(&region) {
            return self.leave_joint();
        }
        let id = self.nodes[i].id;
        let voters: Vec<_> = region.peers.iter().filter(|p| p.role() == PeerRole::Voter).copied().collect();
        let learner = region.peers.iter().find(|p| p.role() == PeerRole::Learner).copied();
        let free = self.nodes.iter().map(|n| n.id).find(|s| region.peers.iter().all(|p| p.store_id != *s));
        let leaving =
            voters.iter().filter(|p| p.store_id != id).min_by_key(|_| self.rng.random::<u32>()).copied();
        let changes = match (learner, free, leaving) {
            (Some(learner), _, Some(leaving)) if self.rng.random_bool(0.4) => {
                vec![(AddNode, learner), (AddLearnerNode, leaving)]
            }
            (Some(learner), ..) if voters.len() < 3 || self.rng.random_bool(0.5) => vec![(AddNode, learner)],
            (Some(learner), ..) => vec![(RemoveNode, learner)],
            (None, _, Some(leaving)) if voters.len() > 3 => vec![(RemoveNode, leaving)],
            (None, _, Some(leaving)) if voters.len() == 3 && self.rng.random_bool(0.2) => {
                vec![(RemoveNode, leaving)]
            }
            (None, Some(free), _) => {
                let peer = metapb::Peer { id: self.pd.id(), store_id: free, ..Default::default() };
                vec![(AddLearnerNode, peer)]
            }
            _ => return,
        };
        self.propose_members(i, &region, changes);
    }

    pub(super) fn propose_members(
        &mut self,
        i: usize,
        region: &metapb::Region,
        changes: Vec<(raft::eraftpb::ConfChangeType, metapb::Peer)>,
    ) {
        self.note("members", &[region.id, changes.len() as u64]);
        let store = Arc::clone(self.store(i).expect("runs"));
        let (id, epoch) = (region.id, region.region_epoch);
        let what = format!("members {id} {epoch:?} {changes:?}");
        self.ask(i, what, async move { drop(store.change_peers(id, epoch, changes).await) });
    }

    /// Ends all joint configurations, as a placement driver does.
    pub(super) fn leave_joint(&mut self) {
        for i in self.running() {
            let Some(store) = self.store(i) else { continue };
            let joint = store.regions().into_iter().filter(|(region, leads)| *leads && is_joint(region));
            for (region, _) in joint.collect::<Vec<_>>() {
                let demoted =
                    |p: &metapb::Peer| p.store_id == self.nodes[i].id && p.role() == PeerRole::DemotingVoter;
                let to = region
                    .peers
                    .iter()
                    .find(|p| matches!(p.role(), PeerRole::Voter | PeerRole::IncomingVoter));
                match to {
                    // A leader does not take the vote from itself.
                    Some(to) if region.peers.iter().any(demoted) => {
                        self.store(i).expect("runs").transfer_leader(region.id, *to);
                    }
                    _ => self.propose_members(i, &region, Vec::new()),
                }
            }
        }
    }

    /// Cuts the logs of a store off as far as it is flushed, even where a follower needs more.
    pub(super) fn cut_logs(&mut self) {
        let i = self.any();
        self.cut_logs_of(i);
    }

    pub(super) fn cut_logs_of(&mut self, i: usize) {
        let keep = self.rng.random_range(0..4);
        let flush = self.rng.random_bool(0.7);
        let Some(live) = &self.nodes[i].live else { return };
        if flush {
            live.engine.flush().expect("the engine can be flushed");
        }
        log_gc::truncate_all(&live.store.ctx, keep, true);
        live.log.purge().expect("the log can be purged");
        self.note("cut logs", &[self.nodes[i].id, keep]);
    }

    fn flush(&mut self) {
        let i = self.any();
        if let Some(live) = &self.nodes[i].live {
            live.engine.flush().expect("the engine can be flushed");
            self.note("flush", &[self.nodes[i].id]);
        }
    }

    fn compare(&mut self) {
        let key = self.any_key();
        let Some((i, region)) = self.leader(&key) else { return };
        let store = self.store(i).expect("runs");
        let check = crate::raftstore::messages::StoreMsg::CheckConsistency { region_id: region.id };
        let _ = store.ctx.store_of(region.id).send(check);
    }
}

/// Some key in front of a bound.
fn key_before(bound: &[u8]) -> bytes::Bytes {
    let mut key = bound.to_vec();
    match key.pop() {
        None | Some(0) => {}
        Some(last) => key.extend([last - 1, 0xFF]),
    }
    key.into()
}
