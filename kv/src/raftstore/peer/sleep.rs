//! Hibernation: a region in which nothing happens stops its clock, and sends no messages.
//!
//! The leader asks, once all followers have everything; each follower that agrees stops its clock; when all have, the leader stops its
//! own. Whatever happens to a peer wakes it: a message, a proposal, a read; for a follower also that its leader's store is gone. A
//! leader that wakes tells its followers at once. The lease simply ends meanwhile: the first read confirms it anew.

use std::sync::atomic::Ordering;

use raft::eraftpb::Message;
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::{ExtraMessage, ExtraMessageType, RaftMessage};

use super::Peer;
use crate::raftstore::context::StoreContext;

/// A peer's way to sleep.
#[derive(Default)]
pub(super) struct Sleep {
    /// Ticks in which nothing happened.
    idle_ticks: usize,
    /// The clock stands still.
    asleep: bool,
    /// Followers whose clock stands still.
    agreed: Vec<u64>,
    /// The followers must be told that the region is awake.
    rouse: bool,
}

impl Sleep {
    /// Of a peer that rested.
    pub(super) fn resume(&mut self, asleep: bool) {
        self.asleep = asleep;
    }
}

impl Peer {
    /// Whether its clock stands still.
    pub(crate) fn is_asleep(&self) -> bool {
        self.sleep.asleep
    }

    /// Something happened.
    pub(crate) fn wake(&mut self) {
        if !self.sleep.asleep {
            self.sleep.idle_ticks = 0;
            return;
        }
        self.sleep = Sleep::default();
        // Nobody was silent: nobody was asked.
        self.heard.clear();
        self.handle.asleep.store(false, Ordering::Release);
        self.sleep.rouse = self.is_leader;
    }

    /// Tells the followers of a leader that woke, in its next round.
    pub(super) fn rouse_followers(&mut self, ctx: &StoreContext) {
        if !std::mem::take(&mut self.sleep.rouse) {
            return;
        }
        for to in self.region.peers.iter().filter(|p| p.id != self.peer.id) {
            self.send_extra(ctx, *to, ExtraMessageType::MsgRegionWakeUp);
        }
        self.raft.ping();
    }

    /// Whether nothing has happened for long: called once each tick. A region's only member has nobody to ask whether it may rest.
    pub(crate) fn is_idle(&mut self, ctx: &StoreContext) -> bool {
        if ctx.config.hibernate_ticks == 0 || !self.is_only_member() || self.is_asleep() {
            return true;
        }
        self.sleep.idle_ticks += 1;
        self.voteless_ticks = self.voteless_ticks.saturating_sub(1);
        self.sleep.idle_ticks >= ctx.config.hibernate_ticks.max(ctx.config.election_ticks)
    }

    fn fall_asleep(&mut self) {
        self.sleep.asleep = true;
        self.handle.asleep.store(true, Ordering::Release);
    }

    /// Lets go of the memory that is only kept for speed.
    pub(crate) fn shrink(&mut self) {
        self.proposals.shrink_to_fit();
        self.members_at.shrink_to_fit();
        self.raft.mut_store().shrink_cache();
        let raft = &mut self.raft.raft;
        raft.maybe_free_inflight_buffers();
        raft.raft_log.unstable.entries.shrink_to_fit();
        raft.msgs.shrink_to_fit();
        raft.read_states.shrink_to_fit();
    }

    /// After each tick: asks the followers to stop their clocks when nothing has happened for long.
    pub(super) fn consider_sleep(&mut self, ctx: &StoreContext) {
        if ctx.config.hibernate_ticks == 0 || !self.is_leader || !self.has_nothing_to_do() {
            self.sleep.idle_ticks = 0;
            self.sleep.agreed.clear();
            return;
        }
        self.sleep.idle_ticks += 1;
        if self.sleep.idle_ticks < ctx.config.hibernate_ticks {
            return;
        }
        let missing: Vec<metapb::Peer> = self
            .region
            .peers
            .iter()
            .filter(|p| p.id != self.peer.id && !self.sleep.agreed.contains(&p.id))
            .copied()
            .collect();
        if missing.is_empty() {
            self.fall_asleep();
            return;
        }
        for to in missing {
            self.send_extra(ctx, to, ExtraMessageType::MsgHibernateRequest);
        }
    }

    /// Everything is applied everywhere, and nobody waits.
    pub(super) fn has_nothing_to_do(&self) -> bool {
        let raft = &self.raft.raft;
        let last = raft.raft_log.last_index();
        let quiet = self.proposals.is_empty()
            && self.reads.is_empty()
            && self.applying.is_none()
            && !self.is_merging()
            && raft.lead_transferee.is_none()
            && raft.raft_log.committed == last
            && raft.raft_log.applied == last;
        quiet && (!self.is_leader || raft.prs().iter().all(|(_, p)| p.matched == last))
    }

    pub(super) fn send_extra(&self, ctx: &StoreContext, to: metapb::Peer, kind: ExtraMessageType) {
        // The term and the last index say for which state of affairs this holds.
        let mut raft = Message::default();
        raft.term = self.raft.raft.term;
        raft.index = self.raft.raft.raft_log.last_index();
        let Ok(bytes) = protobuf::Message::write_to_bytes(&raft) else { return };
        ctx.transport.send(RaftMessage {
            region_id: self.region.id,
            from_peer: Some(self.peer),
            to_peer: Some(to),
            region_epoch: self.region.region_epoch,
            message: bytes.into(),
            extra_msg: Some(ExtraMessage { r#type: kind.into(), ..Default::default() }),
            ..Default::default()
        });
    }

    /// What another peer says outside raft.
    pub(crate) fn on_extra(
        &mut self,
        ctx: &StoreContext,
        from: &metapb::Peer,
        kind: ExtraMessageType,
        raft: &Message,
    ) {
        let same = raft.term == self.raft.raft.term && raft.index == self.raft.raft.raft_log.last_index();
        match kind {
            ExtraMessageType::MsgHibernateRequest => {
                self.on_applied();
                let follows = !self.is_leader && self.raft.raft.leader_id == from.id;
                if same && follows && self.has_nothing_to_do() {
                    self.send_extra(ctx, *from, ExtraMessageType::MsgHibernateResponse);
                    self.fall_asleep();
                }
            }
            ExtraMessageType::MsgHibernateResponse => {
                if same
                    && self.is_leader
                    && self.sleep.idle_ticks > 0
                    && !self.sleep.agreed.contains(&from.id)
                {
                    self.sleep.agreed.push(from.id);
                }
            }
            // Only who is no member any more is answered.
            ExtraMessageType::MsgCheckStalePeer => {}
            _ => self.wake(),
        }
    }
}
