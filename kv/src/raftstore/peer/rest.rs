//! Rest: of a peer in which nothing happens only what cannot be read elsewhere is kept.
//!
//! Everything is applied, nobody waits and the log's end is what all members have: so raft's state is made again from a few numbers
//! when the peer is needed. A sleeping peer of several members rests, and so does a sole voter that has led for a while without work.

use std::sync::Arc;

use raft::eraftpb::HardState;
use raft::{INVALID_ID, StateRole};
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::RaftTruncatedState;

use super::Peer;
use crate::engine::{Error, Result};
use crate::raftstore::context::StoreContext;
use crate::raftstore::peer_storage::{LogEnd, PeerStorage};
use crate::raftstore::registry::RegionHandle;

/// A resting peer.
pub(crate) struct Resting {
    handle: Arc<RegionHandle>,
    term: u64,
    vote: u64,
    leader_id: u64,
    last_index: u64,
    last_term: u64,
    truncated: RaftTruncatedState,
    /// Answers to older rounds may still be on their way: their numbers are never used again.
    last_read_id: u64,
    asleep: bool,
}

impl Resting {
    /// Whether it follows a leader on this store, which it must not wait for in its sleep when the store is gone.
    pub(crate) fn follows(&self, store_id: u64) -> bool {
        let region = Arc::clone(&self.handle.published().region);
        let leads_there = |p: &metapb::Peer| p.id == self.leader_id && p.store_id == store_id;
        self.handle.peer_id() != self.leader_id && region.peers.iter().any(leads_there)
    }
}

impl Peer {
    /// What is left of a peer that has nothing to do; `None` when it must stay as it is.
    pub(crate) fn rest(&self, ctx: &StoreContext) -> Option<Resting> {
        let raft = &self.raft.raft;
        let settled = match raft.state {
            StateRole::Leader => self.is_leader,
            StateRole::Follower => !self.is_leader && raft.leader_id != INVALID_ID,
            _ => false,
        };
        let quiet = ctx.config.hibernate_ticks != 0
            && (self.is_asleep() || self.is_only_member())
            && settled
            && !self.is_pending
            && self.is_initialized()
            && self.has_nothing_to_do()
            && !self.raft.has_ready()
            && !raft.has_pending_conf()
            && self.members_at.is_empty()
            && self.lease_after.is_none()
            && self.voteless_ticks == 0
            && self.settling.is_none()
            && self.checksums.is_empty()
            && self.prepares == 0
            && self.splits == 0
            && !self.raft.store().has_snapshots();
        quiet.then(|| Resting {
            handle: Arc::clone(&self.handle),
            term: raft.term,
            vote: raft.vote,
            leader_id: raft.leader_id,
            last_index: raft.raft_log.last_index(),
            last_term: raft.raft_log.last_term(),
            truncated: *self.raft.store().truncated(),
            last_read_id: self.reads.last_id(),
            asleep: self.is_asleep(),
        })
    }

    /// Whether nobody else is a member: there is nobody to ask before it rests.
    pub(super) fn is_only_member(&self) -> bool {
        self.region.peers.len() == 1
    }

    /// The peer that rested.
    pub(crate) fn resume(ctx: &StoreContext, resting: &Resting) -> Result<Self> {
        let Resting { handle, last_index, last_term, .. } = resting;
        let region = Arc::clone(&handle.published().region);
        let Some(peer) = ctx.own_peer(&region).copied() else {
            return Err(Error::Corruption(format!(
                "region {} has no peer on store {}",
                region.id, ctx.store_id
            )));
        };
        let hard_state =
            HardState { term: resting.term, vote: resting.vote, commit: *last_index, ..Default::default() };
        let end = LogEnd { truncated: resting.truncated, last_index: *last_index, last_term: *last_term };
        let storage =
            PeerStorage::resume(ctx.engine.clone(), ctx.raft_log.clone(), &region, hard_state, &end);
        let mut this = Self::build(ctx, region, peer, storage, *last_index, Some(Arc::clone(handle)))?;
        this.resume_role(resting);
        this.reads.resume_at(resting.last_read_id);
        this.sleep.resume(resting.asleep);
        Ok(this)
    }

    /// Raft begins as a follower that knows nobody; nothing of the term is lost, so it goes on as what it was.
    fn resume_role(&mut self, resting: &Resting) {
        let raft = &mut self.raft.raft;
        raft.become_follower(resting.term, resting.leader_id);
        if resting.leader_id == self.peer.id {
            raft.state = StateRole::Leader;
            for (_, progress) in raft.mut_prs().iter_mut() {
                progress.matched = resting.last_index;
                progress.committed_index = resting.last_index;
                progress.recent_active = true;
                progress.become_replicate();
            }
            self.is_leader = true;
        }
        // The role is no news.
        if self.raft.has_ready() {
            let ready = self.raft.ready();
            let nothing = ready.entries().is_empty() && ready.hs().is_none() && ready.messages().is_empty();
            assert!(nothing, "region {} wakes up with something to do", self.region.id);
            let light = self.raft.advance_append(ready);
            assert!(light.committed_entries().is_empty(), "region {} applies in its sleep", self.region.id);
        }
    }
}
