//! A follower takes over a snapshot: noted in the raft log, put into the engine by another thread, then served.

use std::sync::Arc;

use prost::Message as _;
use raft::Ready;
use raft::eraftpb::{Entry, Message};
use rutile_proto::metapb::{self, PeerRole};
use rutile_proto::raft_serverpb::{RaftSnapshotData, RaftTruncatedState};

use super::Peer;
use crate::engine::{Error, RaftLogBatch, Result};
use crate::raftstore::api::RegionEvent;
use crate::raftstore::apply::ApplyMsg;
use crate::raftstore::context::StoreContext;
use crate::raftstore::messages::{RegionTask, SnapshotTask, StoreMsg};
use crate::raftstore::registry::RegionHandle;
use crate::raftstore::snapshot::SnapshotFiles;

fn index_and_term(message: &Message) -> (u64, u64) {
    let metadata = message.get_snapshot().get_metadata();
    (metadata.index, metadata.term)
}

/// A snapshot on its way into the engine.
pub(super) struct Applying {
    region: Arc<metapb::Region>,
    index: u64,
    term: u64,
    /// Entries behind the snapshot that are committed already.
    committed: Vec<Entry>,
}

impl Peer {
    /// Makes ready for a received snapshot, if its range is free here: all that was ever applied to the range must be on disk before the
    /// snapshot is noted there, or a restart would apply it again on top of the snapshot. Files that raft will not want are removed.
    pub(crate) fn step_snapshot(&mut self, ctx: &StoreContext, from: &metapb::Peer, message: Message) {
        let (index, term) = index_and_term(&message);
        let data = RaftSnapshotData::decode(&message.get_snapshot().data[..]).unwrap_or_default();
        let region_id = self.region.id;
        let files = SnapshotFiles::new(&ctx.engine, region_id, index, term);
        let Some(region) = data.region.as_ref().filter(|r| r.id == region_id) else { return };
        let under_way = self.snapshot_under_way();
        if under_way == Some((index, term)) {
            // It has come twice: its files are needed.
            return;
        }
        if under_way.is_some() || !ctx.registry.reserve(region_id, &region.start_key, &region.end_key) {
            tracing::debug!(region_id, index, ?under_way, "the range of a snapshot is not free");
            self.free_range(ctx, region);
            files.remove();
            return;
        }
        self.wake();
        self.settling = Some((index, term));
        let task = RegionTask::Settle { region_id, from: *from, message: Box::new(message) };
        let _ = ctx.region_tasks.send(task);
    }

    /// Index and term of the snapshot that is being taken over.
    fn snapshot_under_way(&self) -> Option<(u64, u64)> {
        let noted = self.raft.snap().filter(|s| !s.is_empty());
        let noted = noted.map(|s| (s.get_metadata().index, s.get_metadata().term));
        self.settling.or(noted).or_else(|| self.applying.as_ref().map(|a| (a.index, a.term)))
    }

    /// Ends what stands in the way of a snapshot and was merged away.
    fn free_range(&self, ctx: &StoreContext, region: &metapb::Region) {
        // What is on its way through the apply thread could take them over meanwhile.
        let settled = self.needs_snapshot || self.handle.applied_index() == self.handed_to_apply;
        let version = region.region_epoch.unwrap_or_default().version;
        for (merged_id, merged) in ctx.registry.merged_in(&region.start_key, &region.end_key) {
            let is_target = merged.target.id == region.id;
            if version >= merged.version()
                && if is_target { settled } else { ctx.state_of(merged.target.id).is_none() }
            {
                let _ = ctx.store_of(merged_id).send(StoreMsg::EndMerged { region_id: merged_id });
            }
        }
    }

    /// All that was applied is on disk: raft may have the snapshot.
    pub(crate) fn step_settled(&mut self, ctx: &StoreContext, from: &metapb::Peer, message: Message) {
        let (index, term) = index_and_term(&message);
        self.settling = None;
        self.step(ctx, from, message);
        let taken = self.raft.snap().is_some_and(|s| s.get_metadata().index == index);
        if !taken {
            ctx.registry.unreserve(self.region.id);
            SnapshotFiles::new(&ctx.engine, self.region.id, index, term).remove();
        }
    }

    /// An entry cannot be applied here.
    pub(crate) fn need_snapshot(&mut self) {
        self.needs_snapshot = true;
        self.wake();
    }

    /// From time to time, while the log cannot be applied: a follower asks its leader, a leader lets another lead.
    pub(super) fn ask_for_snapshot(&mut self, ctx: &StoreContext) {
        if !self.needs_snapshot || self.is_applying() {
            return;
        }
        if !self.is_leader {
            if let Err(error) = self.raft.request_snapshot() {
                tracing::debug!(region_id = self.region.id, %error, "no snapshot could be asked for");
            }
            return;
        }
        let raft = &self.raft.raft;
        let last = raft.raft_log.last_index();
        let other = raft.prs().iter().find(|(id, progress)| **id != self.peer.id && progress.matched == last);
        let to = other.and_then(|(id, _)| self.region.peers.iter().find(|p| p.id == *id)).copied();
        if let Some(to) = to.filter(|to| to.role() == PeerRole::Voter && raft.lead_transferee.is_none()) {
            self.transfer_leader(ctx, &to);
        }
    }

    /// Notes a snapshot in the round's batch: from then on a restart goes on with it.
    pub(super) fn persist_snapshot(
        &mut self,
        ctx: &StoreContext,
        batch: &mut RaftLogBatch,
        ready: &Ready,
    ) -> Result<Option<SnapshotTask>> {
        let metadata = ready.snapshot().get_metadata();
        let (index, term) = (metadata.index, metadata.term);
        if index == 0 {
            return Ok(None);
        }
        let region_id = self.region.id;
        let data = RaftSnapshotData::decode(&ready.snapshot().data[..])
            .map_err(|e| Error::Corruption(format!("a snapshot of region {region_id}: {e}")))?;
        let truncated = RaftTruncatedState { index, term };
        batch.clean(region_id);
        batch.put_truncated(region_id, &truncated)?;
        batch.put_hard_state(region_id, &self.raft.raft.hard_state())?;
        batch.put_applying(region_id, &data)?;
        self.raft.mut_store().restore(truncated);
        tracing::info!(region_id, store_id = ctx.store_id, index, "applying a snapshot");
        Ok(Some(SnapshotTask { region_id, data, index, term, old: None }))
    }

    /// The snapshot is noted on disk: the region is not served until its data is in the engine.
    pub(super) fn begin_snapshot(&mut self, ctx: &StoreContext, task: SnapshotTask, committed: Vec<Entry>) {
        let region = Arc::new(task.data.region.clone().unwrap_or_default());
        self.applying = Some(Applying { region, index: task.index, term: task.term, committed });
        if self.is_initialized() {
            // The old range stays ours until it is cleared.
            let old = Arc::clone(&self.region);
            ctx.registry.remove(&self.handle);
            ctx.registry.reserve(old.id, &old.start_key, &old.end_key);
        }
        self.members_at.clear();
        self.forget_merge();
        self.fail_proposals_before(task.index, task.term);
        let _ = ctx.applier_of(self.region.id).send(ApplyMsg::Snapshot(task));
    }

    /// The data is in the engine: the peer goes on from there.
    pub(crate) fn finish_snapshot(&mut self, ctx: &StoreContext) {
        let Some(Applying { region, index, term, committed }) = self.applying.take() else { return };
        let Some(peer) = ctx.own_peer(&region).copied() else { return };
        self.peer = peer;
        self.region = Arc::clone(&region);
        self.senders.retain(|s| region.peers.iter().all(|p| p.id != s.id));
        self.handle = Arc::new(RegionHandle::new(Arc::clone(&region), peer, (index, term)));
        self.handed_to_apply = index;
        self.raft.advance_apply_to(index);
        ctx.registry.unreserve(region.id);
        self.register(ctx);
        ctx.registry.publish(&self.handle, self.published());
        SnapshotFiles::new(&ctx.engine, region.id, index, term).remove();
        ctx.tell_then(&RegionEvent::MembersChanged { region }, || ());
        self.hand_to_apply(ctx, committed);
    }

    /// Up to where raft may believe that entries are applied.
    pub(super) fn applied_for_raft(&self) -> u64 {
        let applied = self.handle.applied_index();
        self.members_at.front().map_or(applied, |at| applied.min(at - 1))
    }
}
