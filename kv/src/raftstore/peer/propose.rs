//! Proposals: an entry is appended to the leader's log, its callback waits until the entry is applied.

use std::time::Duration;

use super::{Peer, Proposal};
use crate::metrics;
use crate::raftstore::apply::Callback;
use crate::raftstore::context::StoreContext;
use crate::raftstore::region_error;

impl Peer {
    /// Appends an entry. Whether the region's epoch still matches is checked when the entry is applied.
    pub(crate) fn propose(&mut self, ctx: &StoreContext, term: u64, data: Vec<u8>, callback: Callback) {
        if !self.is_leader {
            let leader = self.published().leader;
            callback.fail(region_error::not_leader(self.region.id, leader));
            return;
        }
        if term != self.raft.raft.term {
            // Checked under another leadership: locks held in memory then may be gone now.
            callback.fail(region_error::stale_command());
            return;
        }
        let Some(callback) = self.refuse_while_merging(callback) else { return };
        let size = data.len() as u64;
        if size > ctx.config.entry_size_max.bytes() {
            callback.fail(region_error::raft_entry_too_large(self.region.id, size));
            return;
        }
        self.wake();
        if let Err(error) = self.raft.propose(Vec::new(), data) {
            // During a leadership transfer, or when too much is uncommitted. The entry is not in the log.
            tracing::debug!(region_id = self.region.id, %error, "proposal dropped");
            callback.fail(region_error::not_leader(self.region.id, None));
            return;
        }
        metrics::PROPOSALS.inc();
        if matches!(callback, Callback::Admin(_)) {
            // The others need not wait for the next heartbeat to hear that it is committed.
            self.raft.skip_bcast_commit(false);
        }
        let index = self.raft.raft.raft_log.last_index();
        self.proposals.push_back(Proposal { index, term, at: ctx.clock.now(), callback });
    }

    /// A snapshot covers the proposals up to `index`: whether they are in it is not known. Those behind it of earlier terms were
    /// overwritten.
    pub(super) fn fail_proposals_before(&mut self, index: u64, term: u64) {
        while let Some(proposal) = self.proposals.pop_front_if(|p| p.index <= index || p.term < term) {
            let outcome = if proposal.index <= index {
                region_error::undetermined("the log was replaced by a snapshot")
            } else {
                region_error::stale_command()
            };
            proposal.callback.fail(outcome);
        }
    }

    /// The callbacks of committed entries, given in order. Proposals that were overwritten by another leader's entries fail.
    pub(super) fn take_callbacks(
        &mut self,
        entries: &[raft::eraftpb::Entry],
    ) -> (Vec<(u64, Callback)>, Option<Duration>) {
        let mut callbacks = Vec::with_capacity(self.proposals.len().min(entries.len()));
        let mut newest = None;
        for entry in entries {
            while let Some(front) = self.proposals.front() {
                let is_it = front.term == entry.term && front.index == entry.index;
                if !is_it && front.term >= entry.term {
                    break;
                }
                let Some(Proposal { at, callback, .. }) = self.proposals.pop_front() else { break };
                if is_it {
                    newest = Some(at);
                    callbacks.push((entry.index, callback));
                    break;
                }
                callback.fail(region_error::stale_command());
            }
        }
        (callbacks, newest)
    }
}
