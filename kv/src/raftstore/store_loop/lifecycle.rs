//! Peers that begin (by a split or a snapshot), and peers that end.

use std::sync::Arc;

use raft::eraftpb::{ConfChangeV2, Message};
use rutile_proto::metapb;

use super::StoreLoop;
use crate::metrics;
use crate::raftstore::api::RegionEvent;
use crate::raftstore::apply::ApplyMsg;
use crate::raftstore::context::StoreContext;
use crate::raftstore::messages::{AdminCallback, ClearTask, PdEvent, StoreMsg};
use crate::raftstore::peer::Peer;
use crate::raftstore::peer_storage::INIT_LOG_INDEX;
use crate::raftstore::region_error;

impl StoreLoop {
    /// The new regions of this thread are registered first, so that every key has a region at all times; they serve nothing before
    /// this thread's next round, when the original has published its smaller range.
    pub(super) fn on_split(
        &mut self,
        region_id: u64,
        regions: Vec<Arc<metapb::Region>>,
        callback: Option<AdminCallback>,
    ) {
        let campaign = self.peers.get(region_id).is_some_and(|p| p.is_leader());
        let (original, pieces) = regions.split_last().expect("a split has at least the original region");
        let threads = self.ctx.stores.len() as u64;
        let (own, others): (Vec<_>, Vec<_>) =
            pieces.iter().cloned().partition(|piece| (piece.id % threads) as usize == self.index);
        for piece in own {
            self.create(piece, campaign);
        }
        let term = self.peers.get(region_id).filter(|p| p.is_leader()).map(|p| p.term());
        let event = RegionEvent::Split { region_id, regions: regions.clone(), term };
        let ctx = Arc::clone(&self.ctx);
        // The original may have been removed from this store since; its pieces were not.
        if let Some(peer) = self.peers.get(region_id) {
            ctx.tell_then(&event, || peer.on_split(&ctx, Arc::clone(original)));
        }
        tracing::info!(region_id, pieces = regions.len(), "region split");
        metrics::SPLITS.inc();
        let report = campaign || callback.is_some();
        let done = Arc::new(Done {
            regions: regions.clone(),
            callback: parking_lot::Mutex::new(callback),
            report,
            ctx,
        });
        for region in others {
            let done = Arc::clone(&done);
            let store = self.ctx.store_of(region.id);
            let _ = store.send(StoreMsg::Create { region, campaign, created: Box::new(move || drop(done)) });
        }
        self.after_round.push(Box::new(move || drop(done)));
    }

    /// A peer that a split made. Votes for it may have come before.
    pub(super) fn create(&mut self, region: Arc<metapb::Region>, campaign: bool) {
        let region_id = region.id;
        if self.peers.get(region_id).is_some_and(|p| p.is_initialized()) || self.clearing.contains(&region_id)
        {
            return;
        }
        let created = Peer::load(&self.ctx, region, INIT_LOG_INDEX);
        let mut peer = match created {
            Ok(peer) => peer,
            Err(error) => {
                self.ctx.engine.fail(error);
                return;
            }
        };
        peer.register(&self.ctx);
        if campaign || peer.is_only_voter() {
            peer.campaign_first();
        }
        self.peers.insert(region_id, peer);
        self.mark(region_id);
        for vote in self.votes.take(region_id) {
            self.step(&vote);
        }
    }

    pub(super) fn on_members(
        &mut self,
        region_id: u64,
        index: u64,
        changed: Option<(Arc<metapb::Region>, ConfChangeV2)>,
        callback: Option<AdminCallback>,
    ) {
        let region = changed.as_ref().map(|(region, _)| Arc::clone(region));
        let Some(peer) = self.peers.get(region_id) else { return };
        let removed = peer.on_members(&self.ctx, index, changed);
        let Some(region) = region else { return };
        if removed {
            self.destroy(region_id, (*region).clone());
        }
        if let Some(callback) = callback {
            callback(Ok(vec![(*region).clone()]));
        }
    }

    /// Ends a peer: its data is removed by another thread, its log once a tombstone is on disk. `tombstone`: the region in an epoch in
    /// which the peer is no member.
    pub(super) fn destroy(&mut self, region_id: u64, tombstone: metapb::Region) {
        let Some(peer) = self.peers.remove(region_id) else { return };
        let region = Arc::clone(&peer.region);
        tracing::info!(region_id, store_id = self.ctx.store_id, peer_id = peer.id(), "peer destroyed");
        self.clearing.insert(region_id);
        if peer.is_initialized() {
            self.ctx.registry.remove(&peer.handle);
            self.ctx.registry.reserve(region_id, &region.start_key, &region.end_key);
        }
        let target = peer.handle.merged.lock().take().map(|merged| merged.target);
        peer.end(&self.ctx, &region_error::undetermined("the peer was removed"));
        let task = ClearTask { region_id, tombstone, target, keep_data: false, old: None };
        let _ = self.ctx.applier_of(region_id).send(ApplyMsg::Clear(task));
        self.ctx.tell_then(&RegionEvent::Destroyed { region }, || ());
    }

    pub(super) fn on_cleared(&mut self, region_id: u64) {
        self.clearing.remove(&region_id);
        self.ctx.registry.unreserve(region_id);
        self.batch.clean(region_id);
        self.sync = true;
    }

    pub(super) fn on_settled(&mut self, region_id: u64, from: &metapb::Peer, message: Message) {
        match self.peers.get(region_id) {
            Some(peer) if peer.id() == message.to => {
                peer.step_settled(&self.ctx, from, message);
                self.mark(region_id);
            }
            // A newer peer, or what is being cleared, keeps the range.
            Some(_) => {}
            None if self.clearing.contains(&region_id) => {}
            None => self.ctx.registry.unreserve(region_id),
        }
    }

    pub(super) fn on_snapshot_applied(&mut self, region_id: u64) {
        let Some(peer) = self.peers.get(region_id) else {
            self.ctx.registry.unreserve(region_id);
            return;
        };
        peer.finish_snapshot(&self.ctx);
        self.batch.delete_applying(region_id);
        self.sync = true;
        self.mark(region_id);
    }

    /// Followers that sleep hear of a dead leader only this way.
    pub(super) fn on_store_unreachable(&mut self, store_id: u64) {
        let woken = self.peers.store_unreachable(store_id);
        woken.into_iter().for_each(|region_id| self.mark(region_id));
    }
}

/// Reports a split once the last of its regions was created.
struct Done {
    regions: Vec<Arc<metapb::Region>>,
    callback: parking_lot::Mutex<Option<AdminCallback>>,
    /// Only the leader tells the placement driver.
    report: bool,
    ctx: Arc<StoreContext>,
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(callback) = self.callback.lock().take() {
            callback(Ok(self.regions.iter().map(|r| (**r).clone()).collect()));
        }
        if self.report {
            let _ = self.ctx.pd.send(PdEvent::Split { regions: std::mem::take(&mut self.regions) });
        }
    }
}
