//! Raft's work of one round: persist, send, apply, in that order; a leader sends while it persists.

use raft::Ready;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::Peer;
use crate::engine::{RaftLogBatch, Result};
use crate::metrics;
use crate::raftstore::apply::{ApplyMsg, ApplyTask};
use crate::raftstore::context::StoreContext;
use crate::raftstore::messages::SnapshotTask;

/// What remains to be done for a peer after the round's write.
pub(crate) struct PendingReady {
    pub(crate) region_id: u64,
    ready: Ready,
    snapshot: Option<SnapshotTask>,
}

impl Peer {
    /// Puts what must be persisted into the round's batch. Returns what to finish afterwards, and whether it needs a sync.
    pub(crate) fn begin_ready(
        &mut self,
        ctx: &StoreContext,
        batch: &mut RaftLogBatch,
    ) -> Result<Option<(PendingReady, bool)>> {
        if self.applying.is_some() {
            return Ok(None);
        }
        self.on_applied();
        self.rouse_followers(ctx);
        self.ask_queued_reads();
        if !self.raft.has_ready() {
            return Ok(None);
        }
        let mut ready = self.raft.ready();
        self.note_prepares(ctx, ready.committed_entries());
        // A leader replicates in parallel with its own write (raft thesis, 10.2.1).
        self.send(ctx, ready.take_messages());
        if ready.ss().is_some() || ready.hs().is_some_and(|hs| hs.term != self.handle.published().term) {
            self.on_role(ctx);
            if !self.is_leader {
                self.fail_reads();
            }
        }
        let snapshot = self.persist_snapshot(ctx, batch, &ready)?;
        let entries = ready.take_entries();
        batch.append(self.region.id, &entries)?;
        self.raft.mut_store().append(entries);
        if let Some(state) = ready.hs() {
            batch.put_hard_state(self.region.id, state)?;
            let state = state.clone();
            self.raft.mut_store().set_hard_state(state);
        }
        let sync = ready.must_sync();
        Ok(Some((PendingReady { region_id: self.region.id, ready, snapshot }, sync)))
    }

    /// After the round's write: what was waiting for the disk is sent, what is committed goes to the apply thread.
    /// Returns whether raft has more to do.
    pub(crate) fn finish_ready(&mut self, ctx: &StoreContext, pending: PendingReady) -> bool {
        let mut ready = pending.ready;
        self.send(ctx, ready.take_persisted_messages());
        let read_states = ready.take_read_states();
        let mut committed = ready.take_committed_entries();
        let mut light = self.raft.advance_append(ready);
        self.note_prepares(ctx, light.committed_entries());
        self.send(ctx, light.take_messages());
        committed.extend(light.take_committed_entries());
        if let Some(task) = pending.snapshot {
            self.begin_snapshot(ctx, task, committed);
            return false;
        }
        self.hand_to_apply(ctx, committed);
        if !read_states.is_empty() {
            self.on_read_states(ctx, read_states);
        }
        self.ask_queued_reads();
        self.raft.has_ready()
    }

    pub(super) fn hand_to_apply(&mut self, ctx: &StoreContext, entries: Vec<Entry>) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        assert!(
            first.index == self.handed_to_apply + 1,
            "region {} commits entry {} after {}",
            self.region.id,
            first.index,
            self.handed_to_apply
        );
        self.handed_to_apply = last.index;
        let (callbacks, newest) = self.take_callbacks(&entries);
        if let Some(at) = newest {
            metrics::COMMIT_SECONDS.observe(at.elapsed().as_secs_f64());
            self.extend_lease(ctx, at);
        }
        let members = entries.iter().filter(|e| e.get_entry_type() != EntryType::EntryNormal);
        self.members_at.extend(members.map(|e| e.index));
        fail::fail_point!("raftstore::apply::before_send");
        let task = ApplyTask { region_id: self.region.id, entries, callbacks };
        let _ = ctx.applier_of(self.region.id).send(ApplyMsg::Apply(task));
    }

    fn send(&mut self, ctx: &StoreContext, messages: Vec<Message>) {
        for message in messages {
            fail::fail_point!("raftstore::send::before");
            let (kind, to) = (message.get_msg_type(), message.to);
            let Some(message) = self.to_raft_message(&message) else { continue };
            metrics::RAFT_MESSAGES_SENT.inc();
            if kind != MessageType::MsgSnapshot {
                ctx.transport.send(message);
            } else if let Some(source) = self.raft.mut_store().take_snapshot(to) {
                ctx.transport.send_snapshot(message, source);
            }
        }
    }
}
