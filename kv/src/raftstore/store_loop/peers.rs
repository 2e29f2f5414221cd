//! The peers of one store thread: those that have something to do, and those that rest.

use std::sync::Arc;

use ahash::AHashMap;

use crate::raftstore::context::StoreContext;
use crate::raftstore::peer::{Peer, Resting};

/// The peers by region. Whoever asks for a resting one gets it awake.
pub(super) struct Peers {
    ctx: Arc<StoreContext>,
    active: AHashMap<u64, Box<Peer>>,
    resting: AHashMap<u64, Box<Resting>>,
}

impl Peers {
    pub(super) fn new(ctx: Arc<StoreContext>) -> Self {
        Self { ctx, active: AHashMap::new(), resting: AHashMap::new() }
    }

    /// A region's peer; `None` if there is none, or if the store is failing.
    pub(super) fn get(&mut self, region_id: u64) -> Option<&mut Peer> {
        if let Some(resting) = self.resting.remove(&region_id) {
            match Peer::resume(&self.ctx, &resting) {
                Ok(peer) => drop(self.active.insert(region_id, Box::new(peer))),
                Err(error) => self.ctx.engine.fail(error),
            }
        }
        self.active.get_mut(&region_id).map(|peer| &mut **peer)
    }

    pub(super) fn insert(&mut self, region_id: u64, peer: Peer) {
        self.active.insert(region_id, Box::new(peer));
    }

    pub(super) fn remove(&mut self, region_id: u64) -> Option<Box<Peer>> {
        self.get(region_id)?;
        self.active.remove(&region_id)
    }

    /// Lets a peer rest, if it can.
    pub(super) fn rest(&mut self, region_id: u64) {
        let resting = self.active.get(&region_id).and_then(|peer| peer.rest(&self.ctx));
        if let Some(resting) = resting {
            self.active.remove(&region_id);
            self.resting.insert(region_id, Box::new(resting));
            // What many peers needed while they began.
            let left = self.active.len();
            if left * 4 < self.active.capacity() {
                self.active.shrink_to(left * 2);
            }
        }
    }

    /// Wakes the peers whose leader is on a store that is gone; returns which were asleep.
    pub(super) fn store_unreachable(&mut self, store_id: u64) -> Vec<u64> {
        let resting = self.resting.iter().filter(|(_, p)| p.follows(store_id)).map(|(id, _)| *id);
        let mut concerned: Vec<u64> = resting.chain(self.active.keys().copied()).collect();
        concerned.sort_unstable();
        concerned.retain(|id| self.get(*id).is_some_and(|peer| peer.on_store_unreachable(store_id)));
        concerned
    }
}
