//! Merges: a source that gives up, and its way into the target.
//!
//! From the commit of its prepare on, a source serves nothing: another store may have merged it already. Every peer of the source that
//! has applied the prepare offers the merge to the target's peer on its own store; the one that leads proposes it.

use std::sync::Arc;

use raft::GetEntriesContext;
use raft::eraftpb::{Entry, MessageType};
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::{MergeState, PeerState};

use super::Peer;
use crate::raftstore::apply::members::is_joint;
use crate::raftstore::apply::merge::merge_regions;
use crate::raftstore::apply::{ApplyMsg, Callback};
use crate::raftstore::command::{self, CommitMergeCommand, PrepareMergeCommand};
use crate::raftstore::context::StoreContext;
use crate::raftstore::messages::{AdminCallback, StoreMsg};
use crate::raftstore::region_error;

/// A source's log may be so much longer than what all its peers have.
const LAG_MAX: u64 = 1024;
/// Between two offers of the merge to the target.
const OFFER_TICKS: u32 = 5;

/// The source of a merge.
pub(super) struct Merge {
    /// `None` while the prepare is only committed.
    state: Option<MergeState>,
    ticks: u32,
    /// The target on this store waits.
    waiting: Option<u64>,
}

impl Peer {
    /// Whether the peer waits to be merged into another region.
    pub(super) fn is_merging(&self) -> bool {
        self.merge.is_some()
    }

    /// Where the log must begin that a merge may need.
    pub(super) fn merge_needs(&self) -> u64 {
        match &self.merge {
            Some(Merge { state: Some(state), .. }) => state.min_index,
            Some(_) => 0,
            None => u64::MAX,
        }
    }

    /// As the disk has it.
    pub(crate) fn set_merging(&mut self, state: MergeState) {
        self.merge = Some(Merge { state: Some(state), ticks: 0, waiting: None });
    }

    /// Proposes that this region is merged into a neighbour.
    pub(crate) fn propose_merge(
        &mut self,
        ctx: &StoreContext,
        epoch: Option<metapb::RegionEpoch>,
        target: metapb::Region,
        callback: AdminCallback,
    ) {
        let min_index = match self.check_merge(ctx, epoch, &target) {
            Ok(min_index) => min_index,
            Err(error) => return callback(Err(error)),
        };
        let epoch = self.region.region_epoch.unwrap_or_default();
        let prepare = PrepareMergeCommand { conf_ver: epoch.conf_ver, min_index, target: Some(target) };
        let data = command::encode_prepare_merge(epoch.version, &prepare);
        self.propose(ctx, self.raft.raft.term, data, Callback::Admin(callback));
    }

    /// What all peers have of the log, if the merge makes sense.
    fn check_merge(
        &self,
        ctx: &StoreContext,
        epoch: Option<metapb::RegionEpoch>,
        target: &metapb::Region,
    ) -> Result<u64, rutile_proto::errorpb::Error> {
        let region = &self.region;
        if !self.is_leader {
            return Err(region_error::not_leader(region.id, self.published().leader));
        }
        if epoch.is_some() && epoch != region.region_epoch {
            return Err(region_error::epoch_not_match(region.id, vec![(**region).clone()]));
        }
        let known = ctx.registry.get(target.id).map(|h| h.published());
        let same = known.is_some_and(|k| k.region.region_epoch == target.region_epoch && !k.merging);
        let stores = |r: &metapb::Region| {
            let mut stores: Vec<_> = r.peers.iter().map(|p| (p.store_id, p.role)).collect();
            stores.sort_unstable();
            stores
        };
        let raft = &self.raft.raft;
        let wrong = if !same {
            "the target is not here as it is wanted"
        } else if merge_regions(target, region).is_none() {
            "the target is no neighbour"
        } else if stores(target) != stores(region) {
            "the peers of the regions are on different stores"
        } else if is_joint(region) || raft.has_pending_conf() {
            "the members are changing"
        } else if raft.lead_transferee.is_some() || !raft.commit_to_current_term() {
            "the leader is changing"
        } else {
            let min_index = raft.prs().iter().map(|(_, p)| p.matched).min().unwrap_or(0);
            let first = self.raft.store().truncated().index;
            if min_index > first && raft.raft_log.last_index() - min_index <= LAG_MAX {
                return Ok(min_index);
            }
            "a peer lags behind"
        };
        Err(region_error::other(wrong))
    }

    /// A prepare is committed: as soon as others know, another store may merge the region and write to it. Called before they can.
    pub(super) fn note_prepares(&mut self, ctx: &StoreContext, entries: &[Entry]) {
        let prepares = |e: &&Entry| e.data.first() == Some(&command::KIND_PREPARE_MERGE);
        let count = entries.iter().filter(prepares).count();
        if count == 0 {
            return;
        }
        self.prepares += count;
        ctx.registry.end_lease(&self.handle);
        self.merge.get_or_insert(Merge { state: None, ticks: 0, waiting: None });
        self.reads.fail_all(&region_error::merging(self.region.id));
    }

    /// A snapshot says how the region went on.
    pub(super) fn forget_merge(&mut self) {
        (self.merge, self.prepares, self.merging_source) = (None, 0, None);
        self.needs_snapshot = false;
        self.splits = 0;
    }

    /// Whether a raft message may be answered: a source confirms no reads.
    pub(super) fn refuses(&self, kind: MessageType) -> bool {
        self.is_merging() && kind == MessageType::MsgReadIndex
    }

    /// The prepare is applied here.
    pub(crate) fn on_merge_prepared(
        &mut self,
        ctx: &StoreContext,
        region: Arc<metapb::Region>,
        state: MergeState,
    ) {
        if self.is_applying() {
            return;
        }
        tracing::info!(
            region_id = region.id,
            target = state.target.as_ref().map(|t| t.id),
            store_id = ctx.store_id,
            "waits to be merged"
        );
        self.prepares = self.prepares.saturating_sub(1);
        let waiting = self.merge.take().and_then(|m| m.waiting);
        self.merge = Some(Merge { state: Some(state), ticks: 0, waiting: None });
        self.region = region;
        ctx.registry.publish(&self.handle, self.published());
        if self.is_leader {
            ctx.heartbeat(self.region.id);
        }
        if let Some(target_id) = waiting {
            let _ = ctx.applier_of(target_id).send(ApplyMsg::Resume { region_id: target_id });
        }
    }

    /// The region is not merged after all.
    pub(crate) fn on_merge_ended(&mut self, ctx: &StoreContext, region: Option<Arc<metapb::Region>>) {
        if self.is_applying() {
            return;
        }
        match region {
            Some(region) => {
                tracing::info!(region_id = region.id, store_id = ctx.store_id, "is not merged after all");
                self.region = region;
                if let Some(merge) = &mut self.merge {
                    merge.state = None;
                }
            }
            None => self.prepares = self.prepares.saturating_sub(1),
        }
        // Another prepare is applied or committed already, or the target waits for it.
        if self.prepares > 0 || self.merge.as_ref().is_some_and(|m| m.state.is_some() || m.waiting.is_some())
        {
            return;
        }
        self.merge = None;
        ctx.registry.publish(&self.handle, self.published());
        if self.is_leader {
            if self.is_only_voter() {
                ctx.registry.lease_forever(&self.handle);
            }
            ctx.heartbeat(self.region.id);
        }
    }

    /// From time to time: offers the merge to the target on this store; calls it off when the target has changed.
    pub(super) fn offer_merge(&mut self, ctx: &StoreContext) {
        let Some(merge) = &mut self.merge else { return };
        merge.ticks += 1;
        let Some(state) = merge.state.as_ref().filter(|_| merge.ticks % OFFER_TICKS == 1) else { return };
        let (Some(expected), commit) = (&state.target, state.commit) else { return };
        let target_id = expected.id;
        let Some(target) = ctx.registry.get(target_id) else {
            if self.is_leader && self.is_merged(ctx, target_id) && self.still_merging(ctx) {
                self.propose_rollback();
            }
            return;
        };
        let known = target.published();
        let epoch = |r: &metapb::Region| {
            let epoch = r.region_epoch.unwrap_or_default();
            (epoch.version, epoch.conf_ver)
        };
        if epoch(&known.region) == epoch(expected) {
            if !known.is_leader {
                return;
            }
            let (min_index, expected) = (state.min_index, expected.clone());
            let entries = self.log_between(min_index + 1, commit);
            let (version, conf_ver) = epoch(&expected);
            let source = Some((*self.region).clone());
            let offer = CommitMergeCommand { conf_ver, version, source, commit, entries, min_index };
            let region_id = expected.id;
            let _ = ctx.store_of(region_id).send(StoreMsg::CommitMerge { region_id, commit: offer });
        } else if self.is_leader && epoch(&known.region) > epoch(expected) && self.still_merging(ctx) {
            // Whatever changed the target came before the merge in its log: no store can commit the merge any more.
            self.propose_rollback();
        }
    }

    fn propose_rollback(&mut self) {
        let version = self.region.region_epoch.unwrap_or_default().version;
        if let Err(error) = self.raft.propose(Vec::new(), command::encode_rollback_merge(version)) {
            tracing::debug!(region_id = self.region.id, %error, "rollback of a merge dropped");
        }
    }

    /// Whether a region has itself been merged into another: its log has ended on this store, without the merge that it was wanted for.
    fn is_merged(&self, ctx: &StoreContext, region_id: u64) -> bool {
        let state = ctx.state_of(region_id);
        state
            .is_some_and(|s| s.state() == PeerState::Tombstone && s.merge_state.is_some_and(|m| m.commit > 0))
    }

    /// The source's state changes in the same batch as the target's.
    fn still_merging(&self, ctx: &StoreContext) -> bool {
        ctx.state_of(self.region.id).is_some_and(|s| s.state() == PeerState::Merging)
    }

    /// The entries `[low, last]`, or as many of the last ones as are here: the log may have been cut off, or have come by a snapshot.
    fn log_between(&self, low: u64, last: u64) -> Vec<bytes::Bytes> {
        let low = low.max(self.raft.raft.raft_log.first_index());
        if low > last {
            return Vec::new();
        }
        let context = GetEntriesContext::empty(false);
        let entries = raft::Storage::entries(self.raft.store(), low, last + 1, None, context);
        let entries = entries.ok().filter(|entries| entries.last().is_some_and(|e| e.index == last));
        let bytes = |e: &Entry| protobuf::Message::write_to_bytes(e).ok().map(Into::into);
        entries.and_then(|entries| entries.iter().map(bytes).collect()).unwrap_or_default()
    }

    /// As the target: proposes the merge if this peer leads.
    pub(crate) fn propose_commit_merge(&mut self, ctx: &StoreContext, commit: &CommitMergeCommand) {
        let epoch = self.region.region_epoch.unwrap_or_default();
        let fits = (epoch.conf_ver, epoch.version) == (commit.conf_ver, commit.version);
        let source = commit.source.as_ref().map_or(0, |s| s.id);
        let this = (source, commit.commit, self.raft.raft.term);
        let under_way = self.merging_source == Some(this);
        if !self.is_leader || !fits || under_way || self.is_merging() {
            return;
        }
        let data = command::encode_commit_merge(commit);
        let region_id = self.region.id;
        let callback: AdminCallback = Box::new(move |result| {
            if let Err(error) = result {
                tracing::info!(region_id, source, ?error, "the merge was not committed");
            }
        });
        let last = self.raft.raft.raft_log.last_index();
        self.propose(ctx, self.raft.raft.term, data, Callback::Admin(callback));
        // A proposal that is dropped, as during a transfer of the leadership, is made again.
        if self.raft.raft.raft_log.last_index() > last {
            self.merging_source = Some(this);
        }
    }

    /// As the source: the target on this store waits until this peer has applied its prepare.
    pub(crate) fn catch_up(&mut self, ctx: &StoreContext, target_id: u64, commit: &CommitMergeCommand) {
        // An earlier prepare may be in force here, whose rollback this peer lacks.
        let state = self.merge.as_ref().and_then(|m| m.state.as_ref());
        let prepared = state.is_some_and(|state| state.commit == commit.commit);
        if prepared || self.handle.applied_index() >= commit.commit {
            let _ = ctx.applier_of(target_id).send(ApplyMsg::Resume { region_id: target_id });
            return;
        }
        let merge = self.merge.get_or_insert(Merge { state: None, ticks: 0, waiting: None });
        merge.waiting = Some(target_id);
        ctx.registry.end_lease(&self.handle);
        self.wake();
        if !self.append_merged(commit) {
            let _ = ctx.store_of(target_id).send(StoreMsg::SourceGone { region_id: target_id });
        }
    }

    /// Appends committed entries that another peer of the region had; raft would get them no more. `false` when some are missing.
    fn append_merged(&mut self, commit: &CommitMergeCommand) -> bool {
        let committed = self.raft.raft.raft_log.committed;
        if committed >= commit.commit {
            return true;
        }
        let decode = |e: &bytes::Bytes| <Entry as protobuf::Message>::parse_from_bytes(e).ok();
        let missing: Vec<Entry> =
            commit.entries.iter().filter_map(decode).filter(|e| e.index > committed).collect();
        let (Some(first), Some(last)) = (missing.first(), missing.last()) else { return false };
        let index = first.index - 1;
        // Behind that, what is here need not be what is committed.
        let known = committed.max(commit.min_index).min(self.raft.raft.raft_log.last_index());
        if index > known || last.index < commit.commit {
            return false;
        }
        if last.term > self.raft.raft.term {
            self.raft.raft.become_follower(last.term, raft::INVALID_ID);
        }
        let log = &mut self.raft.raft.raft_log;
        let Ok(term) = log.term(index) else { return false };
        log.maybe_append(index, term, commit.commit, &missing);
        true
    }

    /// As the target: the source's range is ours.
    pub(crate) fn on_merge_committed(&mut self, ctx: &StoreContext, region: Arc<metapb::Region>) {
        self.merging_source = None;
        if self.is_applying() {
            return;
        }
        self.region = region;
        ctx.registry.publish(&self.handle, self.published());
        if self.is_leader {
            ctx.heartbeat(self.region.id);
        }
    }

    /// Fails who wants to write to a source.
    pub(super) fn refuse_while_merging(&self, callback: Callback) -> Option<Callback> {
        if self.is_merging() {
            callback.fail(region_error::merging(self.region.id));
            return None;
        }
        Some(callback)
    }
}
