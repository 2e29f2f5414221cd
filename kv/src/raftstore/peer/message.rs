//! Messages between the peers of a region.

use std::time::Duration;

use raft::eraftpb::{Message, MessageType};
use raft::{INVALID_ID, SnapshotStatus};
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::{ExtraMessageType, RaftMessage};

use super::Peer;
use crate::raftstore::context::StoreContext;
use crate::raftstore::messages::PdEvent;
use crate::raftstore::registry::Followers;

/// Senders that are no members, remembered at most.
const SENDERS_MAX: usize = 8;
/// A follower is down when it was silent for so many election timeouts.
const DOWN_ELECTIONS: u32 = 3;
/// How long an unanswered request to take over may still be on its way.
const TRANSFER_IN_FLIGHT_MAX: Duration = Duration::from_secs(30);

/// Whether a message may be the first one to a peer: its store makes the peer then.
pub(crate) fn is_initial(message: &Message) -> bool {
    match message.get_msg_type() {
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => true,
        MessageType::MsgHeartbeat => message.commit == 0,
        _ => false,
    }
}

impl Peer {
    /// A message of another peer of the region.
    pub(crate) fn step(&mut self, ctx: &StoreContext, from: &metapb::Peer, message: Message) {
        let is_vote =
            matches!(message.get_msg_type(), MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        if is_vote && self.voteless_ticks > 0 {
            // Its clock must run until it may vote.
            self.wake();
            return;
        }
        if self.refuses(message.get_msg_type()) {
            return;
        }
        // Raft would look for entries that the snapshot covers; who asks for a new leader asks again.
        if self.is_applying() && message.get_msg_type() == MessageType::MsgTimeoutNow {
            return;
        }
        // A leader that is awake sends heartbeats and a follower answers them; a region falls asleep all the same.
        if !matches!(message.get_msg_type(), MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse) {
            self.wake();
        }
        self.remember(ctx, from);
        if let Err(error) = self.raft.step(message) {
            tracing::debug!(region_id = self.region.id, %error, "raft message refused");
        }
    }

    fn remember(&mut self, ctx: &StoreContext, from: &metapb::Peer) {
        if self.is_leader {
            match self.heard.iter_mut().find(|(id, _)| *id == from.id) {
                Some((_, at)) => *at = ctx.clock.now(),
                None => self.heard.push((from.id, ctx.clock.now())),
            }
        }
        let known = |peers: &[metapb::Peer]| peers.iter().any(|p| p.id == from.id);
        if !known(&self.region.peers) && !known(&self.senders) {
            if self.senders.len() == SENDERS_MAX {
                self.senders.remove(0);
            }
            self.senders.push(*from);
        }
    }

    fn address(&self, peer_id: u64) -> Option<metapb::Peer> {
        self.region.peers.iter().chain(&self.senders).find(|p| p.id == peer_id).copied()
    }

    pub(super) fn to_raft_message(&self, message: &Message) -> Option<RaftMessage> {
        let to_peer = self.address(message.to)?;
        let bytes = protobuf::Message::write_to_bytes(message).ok()?;
        let mut out = RaftMessage {
            region_id: self.region.id,
            from_peer: Some(self.peer),
            to_peer: Some(to_peer),
            message: bytes.into(),
            region_epoch: self.region.region_epoch,
            ..Default::default()
        };
        if is_initial(message) {
            out.start_key = self.region.start_key.clone();
            out.end_key = self.region.end_key.clone();
        }
        Some(out)
    }

    /// Whether a sender was a member once and is no more: it does not know how the region went on.
    pub(crate) fn is_gone(&self, from: &metapb::Peer, epoch: &metapb::RegionEpoch) -> bool {
        let own = self.region.region_epoch.unwrap_or_default();
        self.is_initialized()
            && epoch.conf_ver < own.conf_ver
            && self.region.peers.iter().all(|p| p.id != from.id)
    }

    /// Tells a peer that it is no member any more.
    pub(crate) fn send_gone(&self, ctx: &StoreContext, to: metapb::Peer) {
        ctx.transport.send(RaftMessage {
            region_id: self.region.id,
            from_peer: Some(self.peer),
            to_peer: Some(to),
            region_epoch: self.region.region_epoch,
            is_tombstone: true,
            ..Default::default()
        });
    }

    /// The store of a member is gone: if it was the leader's, this peer's clock must run.
    pub(crate) fn on_store_unreachable(&mut self, store_id: u64) -> bool {
        let leader = self.raft.raft.leader_id;
        let concerns = self.is_asleep()
            && !self.is_leader
            && self.region.peers.iter().any(|p| p.id == leader && p.store_id == store_id);
        if concerns {
            self.wake();
        }
        concerns
    }

    /// A message to a member was lost.
    pub(crate) fn on_unreachable(&mut self, peer_id: u64) {
        if self.is_leader {
            self.raft.report_unreachable(peer_id);
        }
    }

    /// A snapshot has arrived at a member, or not.
    pub(crate) fn on_snapshot_sent(&mut self, peer_id: u64, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raft.report_snapshot(peer_id, status);
    }

    /// Asks a member to take over. What it was asked may reach it late: there is no lease until that can no longer be.
    pub(crate) fn transfer_leader(&mut self, ctx: &StoreContext, to: &metapb::Peer) {
        if !self.is_leader || to.id == self.peer.id || !self.region.peers.iter().any(|p| p.id == to.id) {
            return;
        }
        self.wake();
        ctx.registry.end_lease(&self.handle);
        self.lease_after = Some(ctx.clock.now() + TRANSFER_IN_FLIGHT_MAX);
        self.raft.transfer_leader(to.id);
    }

    /// Which followers lag or are silent, for the placement driver.
    pub(super) fn look_at_followers(&mut self, ctx: &StoreContext) {
        let now = ctx.clock.now();
        let silent = ctx.config.tick.0 * ctx.config.election_ticks as u32 * DOWN_ELECTIONS;
        let (last, first) = {
            let log = &self.raft.raft.raft_log;
            (log.committed, raft::Storage::first_index(self.raft.store()).unwrap_or(0))
        };
        let mut followers = Followers::default();
        for peer in self.region.peers.iter().filter(|p| p.id != self.peer.id) {
            let Some(progress) = self.raft.raft.prs().get(peer.id) else { continue };
            // The log reaches back to what it has, and it has most of it: it is on its way.
            if progress.matched < first.saturating_sub(1) || progress.matched + PENDING_LAG < last {
                followers.pending.push(*peer);
            }
            let at = match self.heard.iter().find(|(id, _)| *id == peer.id) {
                Some((_, at)) => *at,
                None => {
                    self.heard.push((peer.id, now));
                    now
                }
            };
            if now.saturating_sub(at) >= silent {
                followers.down.push((*peer, at));
            }
        }
        let known = std::mem::replace(&mut *self.handle.followers.lock(), followers.clone());
        if known.pending != followers.pending || known.down.len() != followers.down.len() {
            // Somebody waits for a member to catch up, or must replace it.
            ctx.heartbeat(self.region.id);
        }
    }

    /// Asks the placement driver and those who were members, after long, whether this still is one.
    pub(super) fn look_for_leader(&mut self, ctx: &StoreContext) {
        // A learner never campaigns, so it keeps the leader that it had.
        let raft = &self.raft.raft;
        let silent = raft.election_elapsed > ctx.config.election_ticks * DOWN_ELECTIONS as usize;
        if (raft.leader_id != INVALID_ID && !silent) || !self.is_initialized() {
            self.leaderless_since = None;
            return;
        }
        let now = ctx.clock.now();
        let since = *self.leaderless_since.get_or_insert(now);
        if now.saturating_sub(since) >= ctx.config.leaderless_max.0 {
            self.leaderless_since = None;
            let _ = ctx.pd.send(PdEvent::IsMember { region_id: self.region.id, peer: self.peer });
            // It does not know regions that were merged; stores that had them do.
            for to in self.region.peers.iter().filter(|p| p.id != self.peer.id) {
                self.send_extra(ctx, *to, ExtraMessageType::MsgCheckStalePeer);
            }
        }
    }
}

/// Entries that a follower may lag behind without being reported as catching up.
const PENDING_LAG: u64 = 1024;
