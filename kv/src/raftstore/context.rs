//! What a store thread shares with its peers.

use std::sync::Arc;

use crossbeam_channel::Sender;
use parking_lot::RwLock;
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::RaftMessage;
use tokio::sync::mpsc::UnboundedSender;

use super::api::{RegionEvent, RegionObserver};
use super::apply::ApplyMsg;
use super::messages::{PdEvent, StoreMsg};
use super::registry::Registry;
use crate::config::RaftConfig;
use crate::engine::{Engine, RaftLog};

/// Takes raft messages to other stores. May drop them; must not wait.
pub trait Transport: Send + Sync {
    /// Sends a message to the store of `message.to_peer`.
    fn send(&self, message: RaftMessage);
    /// No more messages for now: what was sent may go out together.
    fn flush(&self) {}
}

/// For a store without others.
pub struct NoTransport;

impl Transport for NoTransport {
    fn send(&self, _message: RaftMessage) {}
}

/// Shared by all threads of a store.
pub(crate) struct StoreContext {
    pub(crate) store_id: u64,
    pub(crate) config: RaftConfig,
    pub(crate) engine: Engine,
    pub(crate) raft_log: RaftLog,
    pub(crate) registry: Arc<Registry>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) stores: Vec<Sender<StoreMsg>>,
    pub(crate) appliers: Vec<Sender<ApplyMsg>>,
    pub(crate) pd: UnboundedSender<PdEvent>,
    pub(crate) observers: RwLock<Vec<Arc<dyn RegionObserver>>>,
}

impl StoreContext {
    /// Tells the observers, then publishes; an observer that registers meanwhile sees either the event or its outcome.
    pub(crate) fn tell_then(&self, event: &RegionEvent, publish: impl FnOnce()) {
        let observers = self.observers.read();
        for observer in observers.iter() {
            observer.on_region_event(event);
        }
        publish();
    }

    pub(crate) fn store_of(&self, region_id: u64) -> &Sender<StoreMsg> {
        &self.stores[(region_id % self.stores.len() as u64) as usize]
    }

    pub(crate) fn applier_of(&self, region_id: u64) -> &Sender<ApplyMsg> {
        &self.appliers[(region_id % self.appliers.len() as u64) as usize]
    }

    pub(crate) fn heartbeat(&self, region_id: u64) {
        let _ = self.pd.send(PdEvent::Heartbeat { region_id });
    }

    /// This store's peer of a region.
    pub(crate) fn own_peer<'a>(&self, region: &'a metapb::Region) -> Option<&'a metapb::Peer> {
        region.peers.iter().find(|p| p.store_id == self.store_id)
    }
}
