//! Merges: between the source and the target of one store.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rutile_proto::metapb;

use super::StoreLoop;
use crate::metrics;
use crate::raftstore::api::RegionEvent;
use crate::raftstore::apply::ApplyMsg;
use crate::raftstore::apply::merge::merged_tombstone;
use crate::raftstore::command::CommitMergeCommand;
use crate::raftstore::messages::{AdminCallback, ClearTask, StoreMsg};
use crate::raftstore::region_error;

impl StoreLoop {
    pub(super) fn propose_merge(
        &mut self,
        region_id: u64,
        epoch: Option<metapb::RegionEpoch>,
        target: metapb::Region,
        callback: AdminCallback,
    ) {
        match self.peers.get(region_id) {
            Some(peer) => {
                peer.propose_merge(&self.ctx, epoch, target, callback);
                self.mark(region_id);
            }
            None => callback(Err(region_error::region_not_found(region_id))),
        }
    }

    pub(super) fn propose_commit_merge(&mut self, region_id: u64, commit: &CommitMergeCommand) {
        if let Some(peer) = self.peers.get(region_id) {
            peer.propose_commit_merge(&self.ctx, commit);
            self.mark(region_id);
        }
    }

    /// A target waits for its source.
    pub(super) fn catch_up(&mut self, region_id: u64, target_id: u64, commit: &CommitMergeCommand) {
        match self.peers.get(region_id) {
            Some(peer) => {
                peer.catch_up(&self.ctx, target_id, commit);
                self.mark(region_id);
            }
            // A split is about to make it: the target looks again after a while.
            None => self.waiting_targets.push(target_id),
        }
    }

    /// The target has the source's range before the source is gone: every key has a region at all times.
    pub(super) fn on_merge_committed(
        &mut self,
        region_id: u64,
        region: Arc<metapb::Region>,
        source: &metapb::Region,
        callback: Option<AdminCallback>,
    ) {
        if let Some(peer) = self.peers.get(region_id) {
            peer.on_merge_committed(&self.ctx, Arc::clone(&region));
        }
        if let Some(handle) = self.ctx.registry.get(source.id) {
            self.ctx.registry.remove(&handle);
            let size = handle.approximate_size.load(Ordering::Relaxed);
            if let Some(target) = self.ctx.registry.get(region_id) {
                target.approximate_size.fetch_add(size, Ordering::Relaxed);
            }
        }
        tracing::info!(region_id, source = source.id, store_id = self.ctx.store_id, "regions merged");
        metrics::MERGES.inc();
        let merged = StoreMsg::Merged { region_id: source.id, tombstone: merged_tombstone(source) };
        let _ = self.ctx.store_of(source.id).send(merged);
        if let Some(callback) = callback {
            callback(Ok(vec![(*region).clone()]));
        }
    }

    /// The source of a merge: its data stays.
    pub(super) fn on_merged(&mut self, region_id: u64, tombstone: metapb::Region) {
        let Some(peer) = self.peers.remove(region_id) else { return };
        let region = Arc::clone(&peer.region);
        self.clearing.insert(region_id);
        // What was proposed behind the prepare is not applied anywhere.
        peer.end(&self.ctx, &region_error::region_not_found(region_id));
        let task = ClearTask { region_id, tombstone, target: None, keep_data: true, old: None };
        let _ = self.ctx.applier_of(region_id).send(ApplyMsg::Clear(task));
        self.ctx.tell_then(&RegionEvent::Destroyed { region }, || ());
    }
}
