//! The split of a region, after it was applied.

use std::sync::Arc;

use raft::eraftpb::Entry;
use rutile_proto::metapb;

use super::Peer;
use crate::raftstore::command;
use crate::raftstore::context::StoreContext;

impl Peer {
    /// Takes over the original region's new range and epoch, and publishes them. A snapshot that is on its way in says it, too.
    pub(crate) fn on_split(&mut self, ctx: &StoreContext, region: Arc<metapb::Region>) {
        assert!(
            region.id == self.region.id,
            "the split of region {} reached region {}",
            region.id,
            self.region.id
        );
        self.end_split();
        if self.is_applying() {
            return;
        }
        self.region = region;
        ctx.registry.publish(&self.handle, self.published());
        // The pieces are about equal; the next check measures them.
        let size = self.handle.approximate_size.load(std::sync::atomic::Ordering::Relaxed);
        self.handle.approximate_size.store(size / 2, std::sync::atomic::Ordering::Relaxed);
        ctx.heartbeat(self.region.id);
    }

    /// This thread has heard what became of a split.
    pub(crate) fn end_split(&mut self) {
        self.splits = self.splits.saturating_sub(1);
    }

    /// Counts splits that are committed: from now on another store may lead a piece and write to it, while this peer still has the whole
    /// range. Nothing that is read here counts as confirmed until the smaller range is published.
    pub(super) fn note_splits(&mut self, entries: &[Entry]) {
        self.splits += entries.iter().filter(|e| e.data.first() == Some(&command::KIND_SPLIT)).count();
    }

    /// Its term.
    pub(crate) fn term(&self) -> u64 {
        self.raft.raft.term
    }

    /// Whether this peer leads.
    pub(crate) fn is_leader(&self) -> bool {
        self.is_leader
    }
}
