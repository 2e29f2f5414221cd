//! Sources of merges that this store missed: how they end, and how those who have their ranges now come here.
//!
//! A region that other stores have merged serves nothing any more, but the target here may still have to take it over by its log. Unless
//! it does, the region ends. A target that finds its source gone all the same asks its leader for a snapshot.

use rutile_proto::metapb;
use rutile_proto::raft_serverpb::{PeerState, RaftMessage};

use super::StoreLoop;
use crate::raftstore::messages::StoreMsg;
use crate::raftstore::registry::Merged;

impl StoreLoop {
    /// Another store says that it has merged a region.
    pub(super) fn on_merged_elsewhere(
        &mut self,
        region_id: u64,
        target: &metapb::Region,
        epoch: metapb::RegionEpoch,
    ) {
        let now = self.ctx.clock.now();
        let Some(peer) = self.peers.get(region_id) else { return };
        let since = {
            let mut known = peer.handle.merged.lock();
            let since = known.as_ref().map_or(now, |known| known.since);
            *known = Some(Box::new(Merged { target: target.clone(), epoch, since }));
            since
        };
        let late = now.saturating_sub(since) >= self.ctx.config.leaderless_max.0;
        if !self.is_awaited(target, late) {
            self.end_merged(region_id);
        }
    }

    /// Whether the target of a merge (as it was right after it) may still take over its source here by its log; `late`: a target that
    /// is not here would have come by now.
    fn is_awaited(&self, target: &metapb::Region, late: bool) -> bool {
        let epoch = |r: &metapb::Region| r.region_epoch.unwrap_or_default();
        let has_peer = || !late && target.peers.iter().any(|p| p.store_id == self.ctx.store_id);
        let Some(state) = self.ctx.state_of(target.id) else {
            // A split that is not applied yet may make it.
            return has_peer();
        };
        let known = state.region.as_ref().map(epoch).unwrap_or_default();
        match state.state() {
            PeerState::Tombstone => has_peer() && known.conf_ver < epoch(target).conf_ver,
            _ => known.version < epoch(target).version,
        }
    }

    /// Regions here that others have merged do not stand in the way of who has their ranges now.
    pub(super) fn make_room(&self, message: &RaftMessage) {
        let version = message.region_epoch.unwrap_or_default().version;
        for (region_id, merged) in self.ctx.registry.merged_in(&message.start_key, &message.end_key) {
            let target_id = merged.target.id;
            let newer = version > merged.version() && target_id != message.region_id;
            if newer && self.ctx.state_of(target_id).is_none() {
                let _ = self.ctx.store_of(region_id).send(StoreMsg::EndMerged { region_id });
            }
        }
    }

    /// Ends the source of a merge that this store missed.
    pub(super) fn end_merged(&mut self, region_id: u64) {
        let state = self.ctx.state_of(region_id).map(|state| state.state());
        let Some(peer) = self.peers.get(region_id) else { return };
        if (peer.is_initialized() && state == Some(PeerState::Tombstone)) || peer.is_applying() {
            // The target is about to say that it has taken the range over, or a snapshot comes first.
            return;
        }
        let Some(merged) = peer.handle.merged.lock().as_deref().cloned() else { return };
        let own = peer.region.region_epoch.unwrap_or_default();
        let epoch = metapb::RegionEpoch {
            conf_ver: merged.epoch.conf_ver.max(own.conf_ver + 1),
            version: merged.epoch.version.max(own.version),
        };
        let tombstone =
            metapb::Region { peers: Vec::new(), region_epoch: Some(epoch), ..(*peer.region).clone() };
        self.destroy(region_id, tombstone);
    }

    /// A target waits for a source that is gone.
    pub(super) fn on_source_gone(&mut self, region_id: u64) {
        if let Some(peer) = self.peers.get(region_id) {
            peer.need_snapshot();
            self.mark(region_id);
        }
    }
}
