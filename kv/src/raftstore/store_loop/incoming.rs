//! Messages of other stores: to which peer they go, which peers they make and which they end.

use raft::eraftpb::{Message, MessageType};
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::{PeerState, RaftMessage};

use super::StoreLoop;
use crate::metrics;
use crate::raftstore::peer::{Peer, is_initial};

/// Votes kept for regions that a split will make here, at most.
const PENDING_VOTES_MAX: usize = 1024;

/// Votes asked for in regions that are not here yet, because this store has not applied a split.
#[derive(Default)]
pub(super) struct PendingVotes(Vec<RaftMessage>);

impl PendingVotes {
    fn push(&mut self, message: &RaftMessage) {
        self.0.retain(|m| m.region_id != message.region_id || m.from_peer != message.from_peer);
        if self.0.len() == PENDING_VOTES_MAX {
            self.0.remove(0);
        }
        self.0.push(message.clone());
    }

    /// Those for a region.
    pub(super) fn take(&mut self, region_id: u64) -> Vec<RaftMessage> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let (taken, kept) = std::mem::take(&mut self.0).into_iter().partition(|m| m.region_id == region_id);
        self.0 = kept;
        taken
    }
}

impl StoreLoop {
    pub(super) fn step(&mut self, message: &RaftMessage) {
        metrics::RAFT_MESSAGES_RECEIVED.inc();
        let (Some(from), Some(to)) = (message.from_peer, message.to_peer) else { return };
        if to.store_id != self.ctx.store_id || self.clearing.contains(&message.region_id) {
            return;
        }
        if message.is_tombstone {
            self.on_gone(message, &to);
            return;
        }
        let parsed: protobuf::ProtobufResult<Message> =
            protobuf::Message::parse_from_carllerche_bytes(&message.message);
        let raft = match parsed {
            Ok(raft) => raft,
            Err(error) => {
                tracing::warn!(region_id = message.region_id, %error, "malformed raft message");
                return;
            }
        };
        if !self.find_or_make(message, &raft, &from, &to) {
            return;
        }
        let Some(peer) = self.peers.get(message.region_id) else { return };
        let is_gone = peer.is_gone(&from, &message.region_epoch.unwrap_or_default());
        if let Some(extra) = message.extra_msg.as_ref().filter(|_| !is_gone) {
            peer.on_extra(&self.ctx, &from, extra.r#type(), &raft);
            self.mark(message.region_id);
            return;
        }
        if is_gone {
            peer.send_gone(&self.ctx, from);
            return;
        }
        if raft.get_msg_type() == MessageType::MsgSnapshot {
            peer.step_snapshot(&self.ctx, &from, raft);
        } else {
            peer.step(&self.ctx, &from, raft);
        }
        self.mark(message.region_id);
    }

    /// Whether the addressed peer is here, perhaps since now.
    fn find_or_make(
        &mut self,
        message: &RaftMessage,
        raft: &Message,
        from: &metapb::Peer,
        to: &metapb::Peer,
    ) -> bool {
        let region_id = message.region_id;
        match self.peers.get(region_id).map(|p| p.id()) {
            Some(id) if id == to.id => return true,
            // A store has one peer of a region at a time: ours was replaced by a newer one.
            Some(id) if id < to.id => {
                self.destroy_replaced(region_id, message.region_epoch.unwrap_or_default());
                return false;
            }
            Some(_) => return false,
            None => {}
        }
        let is_vote = is_initial(raft) && raft.get_msg_type() != MessageType::MsgHeartbeat;
        if !self.may_make(message, from, is_vote) || !is_initial(raft) {
            return false;
        }
        if self.ctx.registry.overlaps(&message.start_key, &message.end_key, region_id) {
            // A region here will be split into it, or will be removed.
            self.make_room(message);
            if is_vote {
                self.votes.push(message);
            }
            return false;
        }
        match Peer::uninitialized(&self.ctx, region_id, *to) {
            Ok(peer) => {
                self.peers.insert(region_id, peer);
                true
            }
            Err(error) => {
                self.ctx.engine.fail(error);
                false
            }
        }
    }

    /// Whether what the engine knows of a region allows to make a peer of it.
    fn may_make(&mut self, message: &RaftMessage, from: &metapb::Peer, is_vote: bool) -> bool {
        let Some(state) = self.ctx.state_of(message.region_id) else { return true };
        if state.state() != PeerState::Tombstone {
            // A split has been applied; its peer is about to begin, and then answers.
            if is_vote {
                self.votes.push(message);
            }
            return false;
        }
        let gone = state.region.unwrap_or_default();
        let own = gone.region_epoch.unwrap_or_default();
        let theirs = message.region_epoch.unwrap_or_default();
        if theirs.conf_ver > own.conf_ver {
            return true;
        }
        if theirs.conf_ver < own.conf_ver && gone.peers.iter().all(|p| p.id != from.id) {
            self.ctx.transport.send(RaftMessage {
                region_id: message.region_id,
                from_peer: message.to_peer,
                to_peer: message.from_peer,
                region_epoch: gone.region_epoch,
                is_tombstone: true,
                merge_target: state.merge_state.and_then(|m| m.target),
                ..Default::default()
            });
        }
        false
    }

    /// A member, or the placement driver, says that this peer is no member any more.
    fn on_gone(&mut self, message: &RaftMessage, to: &metapb::Peer) {
        let Some(peer) = self.peers.get(message.region_id) else { return };
        let theirs = message.region_epoch.unwrap_or_default();
        let (id, own) = (peer.id(), peer.region.region_epoch.unwrap_or_default());
        if id != to.id || theirs.conf_ver <= own.conf_ver {
            return;
        }
        match message.merge_target.as_ref().filter(|target| target.id != 0) {
            Some(target) => {
                self.on_merged_elsewhere(message.region_id, target, theirs);
            }
            None => self.destroy_replaced(message.region_id, theirs),
        }
    }

    fn destroy_replaced(&mut self, region_id: u64, epoch: metapb::RegionEpoch) {
        let initialized = self.peers.get(region_id).is_some_and(|peer| peer.is_initialized());
        let state = self.ctx.state_of(region_id);
        if initialized && state.is_some_and(|state| state.state() == PeerState::Tombstone) {
            // Another region has taken its range and data over; this thread is about to hear of it.
            return;
        }
        let Some(peer) = self.peers.get(region_id) else { return };
        if peer.is_applying() {
            // Once the snapshot is in; whoever wants this to end will say so again.
            return;
        }
        let own = peer.id();
        let mut tombstone = (*peer.region).clone();
        let known = tombstone.region_epoch.unwrap_or_default();
        tombstone.peers.retain(|p| p.id != own);
        // A new peer is added in a later epoch than that in which this one was removed.
        let conf_ver = epoch.conf_ver.saturating_sub(1).max(known.conf_ver);
        tombstone.region_epoch =
            Some(metapb::RegionEpoch { conf_ver, version: epoch.version.max(known.version) });
        self.destroy(region_id, tombstone);
    }
}
