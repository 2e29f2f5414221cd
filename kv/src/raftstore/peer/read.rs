//! Reads that need the leadership confirmed: by a round of heartbeats, then they wait until the read index is applied.

use std::collections::VecDeque;
use std::time::Duration;

use raft::{RawNode, ReadState};

use super::Peer;
use crate::raftstore::context::StoreContext;
use crate::raftstore::messages::ReadCallback;
use crate::raftstore::peer_storage::PeerStorage;
use crate::raftstore::region_error;

/// Ticks after which an unanswered round is asked again.
const RETRY_TICKS: u32 = 4;

struct Round {
    id: u64,
    at: Duration,
    callbacks: Vec<ReadCallback>,
}

/// Reads on their way.
#[derive(Default)]
pub(super) struct Reads {
    /// Not asked yet: the leader has committed nothing in its term.
    queued: Vec<(Duration, ReadCallback)>,
    /// Asked, in order.
    rounds: VecDeque<Round>,
    /// Confirmed: read once this index is applied.
    confirmed: Vec<(u64, ReadCallback)>,
    last_id: u64,
    ticks: u32,
}

impl Reads {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.rounds.is_empty() && self.confirmed.is_empty()
    }

    /// The number of the last round.
    pub(super) fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Goes on behind the rounds up to `last_id`.
    pub(super) fn resume_at(&mut self, last_id: u64) {
        self.last_id = last_id;
    }

    /// Calls those whose index is applied.
    pub(super) fn finish(&mut self, applied: u64) {
        let mut i = 0;
        while i < self.confirmed.len() {
            if self.confirmed[i].0 <= applied {
                let (_, callback) = self.confirmed.swap_remove(i);
                callback(Ok(()));
            } else {
                i += 1;
            }
        }
    }

    /// No read will be served any more.
    pub(super) fn fail_all(&mut self, error: &rutile_proto::errorpb::Error) {
        let rounds = self.rounds.drain(..).flat_map(|r| r.callbacks);
        let confirmed = self.confirmed.drain(..).map(|(_, c)| c);
        let all = self.queued.drain(..).map(|(_, c)| c).chain(rounds).chain(confirmed);
        all.for_each(|callback| callback(Err(error.clone())));
    }

    /// Raft messages can be lost; asks again after a while.
    pub(super) fn retry(&mut self, raft: &mut RawNode<PeerStorage>) {
        self.ticks += 1;
        if self.ticks < RETRY_TICKS {
            return;
        }
        self.ticks = 0;
        for round in &self.rounds {
            raft.read_index(round.id.to_be_bytes().to_vec());
        }
    }
}

impl Peer {
    /// Confirms the leadership (as a follower: asks the leader to) and calls back when the peer may be read.
    pub(crate) fn read_index(&mut self, at: Duration, callback: ReadCallback) {
        if self.is_merging() {
            callback(Err(region_error::merging(self.region.id)));
            return;
        }
        if !self.is_leader && self.raft.raft.leader_id == raft::INVALID_ID {
            callback(Err(region_error::not_leader(self.region.id, None)));
            return;
        }
        self.wake();
        self.reads.queued.push((at, callback));
    }

    /// Calls back once an index is applied.
    pub(crate) fn await_applied(&mut self, index: u64, callback: ReadCallback) {
        self.reads.confirmed.push((index, callback));
        self.finish_reads();
    }

    /// Asks for all queued reads at once, as soon as the leader has committed an entry of its term.
    pub(super) fn ask_queued_reads(&mut self) {
        if self.reads.queued.is_empty() || (self.is_leader && !self.raft.raft.commit_to_current_term()) {
            return;
        }
        self.reads.last_id += 1;
        let id = self.reads.last_id;
        let queued = std::mem::take(&mut self.reads.queued);
        let at = queued.iter().map(|(at, _)| *at).min().unwrap_or_default();
        self.reads.rounds.push_back(Round {
            id,
            at,
            callbacks: queued.into_iter().map(|(_, c)| c).collect(),
        });
        self.raft.read_index(id.to_be_bytes().to_vec());
    }

    /// A quorum has followed this leader since `at`.
    pub(super) fn extend_lease(&mut self, ctx: &StoreContext, at: Duration) {
        if !self.is_leader
            || self.is_merging()
            || self.splits > 0
            || self.is_only_voter()
            || self.raft.raft.lead_transferee.is_some()
        {
            return;
        }
        if self.lease_after.is_some_and(|after| at < after) {
            return;
        }
        self.lease_after = None;
        ctx.registry.extend_lease(&self.handle, at, Peer::lease(&ctx.config));
    }

    /// Rounds that raft confirmed; they extend the lease.
    pub(super) fn on_read_states(&mut self, ctx: &StoreContext, states: Vec<ReadState>) {
        for state in states {
            let Ok(id) = state.request_ctx[..].try_into().map(u64::from_be_bytes) else { continue };
            while self.reads.rounds.front().is_some_and(|r| r.id <= id) {
                let Some(round) = self.reads.rounds.pop_front() else { break };
                self.extend_lease(ctx, round.at);
                self.reads.confirmed.extend(round.callbacks.into_iter().map(|c| (state.index, c)));
            }
        }
        self.finish_reads();
    }

    /// Calls the reads whose index is applied, and asks to be woken for the next one.
    pub(super) fn finish_reads(&mut self) {
        if self.splits > 0 {
            return;
        }
        loop {
            self.reads.finish(self.handle.applied_index());
            match self.reads.confirmed.iter().map(|(index, _)| *index).min() {
                // Applied just now, before the wish could be noted.
                Some(next) if !self.handle.want_notice(next) => {}
                _ => return,
            }
        }
    }

    /// Reads cannot be served any more.
    pub(super) fn fail_reads(&mut self) {
        let reads = std::mem::take(&mut self.reads);
        self.reads.last_id = reads.last_id;
        let rounds = reads.rounds.into_iter().flat_map(|r| r.callbacks);
        let all = reads.queued.into_iter().map(|(_, c)| c).chain(rounds);
        for callback in all {
            callback(Err(region_error::not_leader(self.region.id, self.published().leader)));
        }
        self.reads.confirmed = reads.confirmed;
    }
}
