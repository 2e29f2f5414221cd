//! One replica of a region, on its store thread.

mod propose;
mod read;
mod ready;
mod split;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft::eraftpb::Message;
use raft::{RawNode, StateRole};
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::RaftMessage;

use self::read::Reads;
use super::api::RegionEvent;
use super::apply::{ApplyMsg, Callback};
use super::context::StoreContext;
use super::peer_storage::PeerStorage;
use super::registry::{Published, RegionHandle};
use crate::engine::{Error, Result};

pub(crate) use self::ready::PendingReady;

/// A proposed entry, and who waits for it.
struct Proposal {
    index: u64,
    term: u64,
    at: Instant,
    callback: Callback,
}

/// One replica of a region.
pub(crate) struct Peer {
    pub(crate) region: Arc<metapb::Region>,
    pub(crate) handle: Arc<RegionHandle>,
    peer: metapb::Peer,
    raft: RawNode<PeerStorage>,
    proposals: VecDeque<Proposal>,
    reads: Reads,
    is_leader: bool,
    /// Is in the store loop's list of peers to look at.
    pub(crate) is_pending: bool,
    /// Last index handed to the apply thread.
    handed_to_apply: u64,
}

impl Peer {
    /// A peer as the disk has it; `applied` is the index and term of the last applied entry.
    pub(crate) fn load(ctx: &StoreContext, region: Arc<metapb::Region>, applied: u64) -> Result<Self> {
        let Some(peer) = ctx.own_peer(&region).copied() else {
            return Err(Error::Corruption(format!(
                "region {} has no peer on store {}",
                region.id, ctx.store_id
            )));
        };
        let storage = PeerStorage::load(ctx.raft_log.clone(), &region, applied)?;
        let applied_term = raft::Storage::term(&storage, applied).map_err(|e| {
            Error::Corruption(format!(
                "{}: term of entry {applied} of region {}: {e}",
                ctx.raft_log.dir().display(),
                region.id
            ))
        })?;
        let handle = Arc::new(RegionHandle::new(Arc::clone(&region), peer, (applied, applied_term)));
        let config = raft::Config {
            id: peer.id,
            election_tick: ctx.config.election_ticks,
            heartbeat_tick: ctx.config.heartbeat_ticks,
            applied,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            skip_bcast_commit: true,
            batch_append: true,
            max_committed_size_per_ready: 16 << 20,
            ..Default::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&config, storage, &logger).map_err(|e| Error::RaftLog(e.to_string()))?;
        let handed_to_apply = applied;
        Ok(Self {
            region,
            handle,
            peer,
            raft,
            proposals: VecDeque::new(),
            reads: Reads::default(),
            is_leader: false,
            is_pending: false,
            handed_to_apply,
        })
    }

    /// Makes the peer known to readers and to its apply thread.
    pub(crate) fn register(&self, ctx: &StoreContext) {
        let register =
            ApplyMsg::Register { region: (*self.region).clone(), handle: Arc::clone(&self.handle) };
        let _ = ctx.applier_of(self.region.id).send(register);
        ctx.registry.insert(Arc::clone(&self.handle));
    }

    pub(crate) fn id(&self) -> u64 {
        self.peer.id
    }

    /// Whether nobody else votes.
    pub(crate) fn is_only_voter(&self) -> bool {
        let conf = self.raft.raft.prs().conf();
        conf.voters().ids().iter().all(|id| id == self.peer.id) && conf.voters().contains(self.peer.id)
    }

    /// Whether raft's clock matters: a sole voter that leads has nobody to tell and nothing to fear.
    pub(crate) fn needs_ticks(&self) -> bool {
        !(self.is_leader && self.region.peers.len() == 1)
    }

    pub(crate) fn tick(&mut self) {
        self.raft.tick();
        self.reads.retry(&mut self.raft);
    }

    /// Tries to become leader.
    pub(crate) fn campaign(&mut self) {
        if let Err(error) = self.raft.campaign() {
            tracing::warn!(region_id = self.region.id, %error, "cannot campaign");
        }
    }

    /// Takes note of what is applied. Returns whether it should be looked at again soon.
    pub(crate) fn on_applied(&mut self) -> bool {
        let applied = self.handle.applied_index();
        if applied > self.raft.raft.raft_log.applied {
            self.raft.advance_apply_to(applied);
            self.raft.mut_store().trim_cache(applied);
        }
        self.finish_reads();
        self.raft.store().is_cached()
    }

    /// A message of another peer of the region.
    pub(crate) fn step(&mut self, message: Message) {
        if let Err(error) = self.raft.step(message) {
            tracing::debug!(region_id = self.region.id, %error, "raft message refused");
        }
    }

    pub(crate) fn transfer_leader(&mut self, to: &metapb::Peer) {
        if self.is_leader && self.region.peers.iter().any(|p| p.id == to.id) {
            self.raft.transfer_leader(to.id);
        }
    }

    /// Cuts the log off up to `index`, at most what is applied and what every follower has. Returns what the caller writes.
    pub(crate) fn truncate(&mut self, index: u64) -> Option<rutile_proto::raft_serverpb::RaftTruncatedState> {
        let mut index = index.min(self.handle.applied_index());
        if self.is_leader {
            index = self.raft.raft.prs().iter().map(|(_, p)| p.matched).min().unwrap_or(0).min(index);
        }
        if index <= self.raft.store().truncated().index {
            return None;
        }
        let term = raft::Storage::term(self.raft.store(), index).ok()?;
        let truncated = rutile_proto::raft_serverpb::RaftTruncatedState { index, term };
        self.raft.mut_store().set_truncated(truncated);
        self.raft.mut_store().trim_cache(index);
        Some(truncated)
    }

    fn published(&self) -> Published {
        let leader_id = self.raft.raft.leader_id;
        Published {
            region: Arc::clone(&self.region),
            term: self.raft.raft.term,
            is_leader: self.is_leader,
            leader: self.region.peers.iter().find(|p| p.id == leader_id).copied(),
        }
    }

    /// Publishes leadership, term and leader after raft's state changed.
    fn on_role(&mut self, ctx: &StoreContext) {
        let leads = self.raft.raft.state == StateRole::Leader;
        let was_leader = std::mem::replace(&mut self.is_leader, leads);
        let state = self.published();
        let (region, term) = (Arc::clone(&self.region), state.term);
        let publish = || ctx.registry.publish(&self.handle, state);
        match (was_leader, leads) {
            (false, true) => {
                ctx.registry.end_lease(&self.handle);
                if self.is_only_voter() {
                    ctx.registry.lease_forever(&self.handle);
                }
                ctx.tell_then(&RegionEvent::BecameLeader { region, term }, publish);
                ctx.heartbeat(self.region.id);
            }
            (true, false) => {
                ctx.registry.end_lease(&self.handle);
                publish();
                ctx.tell_then(&RegionEvent::LostLeader { region, term }, || ());
            }
            _ => publish(),
        }
    }

    fn lease(ctx: &StoreContext) -> Duration {
        // Followers wait at least an election timeout before they vote; clocks may drift apart by a tenth of it.
        ctx.config.tick.0 * ctx.config.election_ticks as u32 * 9 / 10
    }

    fn to_raft_message(&self, message: Message) -> Option<RaftMessage> {
        let to_peer = self.region.peers.iter().find(|p| p.id == message.to).copied()?;
        let bytes = protobuf::Message::write_to_bytes(&message).ok()?;
        Some(RaftMessage {
            region_id: self.region.id,
            from_peer: Some(self.peer),
            to_peer: Some(to_peer),
            message: bytes.into(),
            region_epoch: self.region.region_epoch,
            start_key: self.region.start_key.clone(),
            end_key: self.region.end_key.clone(),
            ..Default::default()
        })
    }
}
