//! Raft's work of one round: persist, send, apply, in that order; a leader sends while it persists.

use raft::Ready;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::{APPEND_SIZE_BYTES_MAX, Peer};
use crate::engine::{RaftLogBatch, Result};
use crate::metrics;
use crate::raftstore::apply::{ApplyMsg, ApplyTask, Callback};
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
        self.note_splits(ready.committed_entries());
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
        self.note_splits(light.committed_entries());
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
        if callbacks.iter().any(|(_, callback)| matches!(callback, Callback::Admin(_))) {
            self.raft.skip_bcast_commit(true);
        }
        if let Some(at) = newest {
            metrics::COMMIT_SECONDS.observe(ctx.clock.now().saturating_sub(at).as_secs_f64());
            self.extend_lease(ctx, at);
        }
        let members = entries.iter().filter(|e| e.get_entry_type() != EntryType::EntryNormal);
        self.members_at.extend(members.map(|e| e.index));
        edge!("raftstore::apply::before_send");
        let task = ApplyTask { region_id: self.region.id, entries, callbacks, at: std::time::Instant::now() };
        let _ = ctx.applier_of(self.region.id).send(ApplyMsg::Apply(task));
    }

    fn send(&mut self, ctx: &StoreContext, messages: Vec<Message>) {
        for message in join_appends(messages) {
            edge!("raftstore::send::before");
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

/// Makes one message of appends to the same peer that continue one another, as many proposals of one round make them.
fn join_appends(messages: Vec<Message>) -> Vec<Message> {
    let mut joined: Vec<Message> = Vec::with_capacity(messages.len());
    // Where the last message to each peer is, and the size of its entries.
    let mut last: Vec<(u64, usize, usize)> = Vec::new();
    for mut message in messages {
        let size: usize = message.entries.iter().map(|e| e.data.len() + e.context.len()).sum();
        let at = last.iter().position(|(to, ..)| *to == message.to);
        if let Some((_, before, bytes)) = at.map(|at| &mut last[at])
            && *bytes + size <= APPEND_SIZE_BYTES_MAX
            && continues(&joined[*before], &message)
        {
            let before = &mut joined[*before];
            before.commit = before.commit.max(message.commit);
            before.mut_entries().extend(message.take_entries());
            *bytes += size;
            continue;
        }
        let new = (message.to, joined.len(), size);
        match at {
            Some(at) => last[at] = new,
            None => last.push(new),
        }
        joined.push(message);
    }
    joined
}

/// Whether an append begins exactly where another ends.
fn continues(before: &Message, after: &Message) -> bool {
    let appends = |m: &Message| m.get_msg_type() == MessageType::MsgAppend;
    let (end, term) = match before.entries.last() {
        Some(entry) => (entry.index, entry.term),
        None => (before.index, before.log_term),
    };
    appends(before)
        && appends(after)
        && before.term == after.term
        && (after.index, after.log_term) == (end, term)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(to: u64, index: u64, log_term: u64, entries: &[(u64, u64)]) -> Message {
        let mut message = Message { to, term: 9, index, log_term, commit: index, ..Default::default() };
        message.set_msg_type(MessageType::MsgAppend);
        let entry = |(index, term): &(u64, u64)| Entry { index: *index, term: *term, ..Default::default() };
        message.set_entries(entries.iter().map(entry).collect::<Vec<_>>().into());
        message
    }

    fn shape(messages: &[Message]) -> Vec<(u64, u64, u64, Vec<u64>)> {
        let entries = |m: &Message| m.entries.iter().map(|e| e.index).collect();
        messages.iter().map(|m| (m.to, m.index, m.commit, entries(m))).collect()
    }

    #[test]
    fn only_appends_that_continue_one_another_are_joined() {
        let rounds = vec![
            append(2, 5, 8, &[(6, 9)]),
            append(3, 4, 8, &[(5, 8), (6, 9)]),
            append(2, 6, 9, &[(7, 9)]),
            append(3, 6, 9, &[(7, 9)]),
            append(2, 7, 9, &[]),
        ];
        let joined = join_appends(rounds);
        assert_eq!(shape(&joined), [(2, 5, 7, vec![6, 7]), (3, 4, 6, vec![5, 6, 7])]);
        // The follower refused, and gets earlier entries: behind an empty message they would be taken for later ones.
        let back = vec![append(2, 20, 9, &[]), append(2, 18, 9, &[(19, 9), (20, 9)])];
        assert_eq!(shape(&join_appends(back)), [(2, 20, 20, vec![]), (2, 18, 18, vec![19, 20])]);
        let other_term = vec![append(2, 5, 8, &[(6, 8)]), append(2, 6, 9, &[(7, 9)])];
        assert_eq!(join_appends(other_term).len(), 2);
        let mut heartbeat = append(2, 6, 9, &[]);
        heartbeat.set_msg_type(MessageType::MsgHeartbeat);
        let between = vec![append(2, 5, 9, &[(6, 9)]), heartbeat, append(2, 6, 9, &[(7, 9)])];
        assert_eq!(join_appends(between).len(), 3);
    }
}
