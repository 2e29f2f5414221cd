//! What a store thread shares with its peers, and what leads from the outside to the store threads.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use crossbeam_channel::Sender;
use parking_lot::RwLock;
use prost::Message as _;
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::{RaftMessage, RegionLocalState};
use tokio::sync::mpsc::UnboundedSender;

use super::api::{RegionEvent, RegionObserver};
use super::apply::ApplyMsg;
use super::clock::Clock;
use super::keys;
use super::messages::{PdEvent, RegionTask, StoreMsg};
use super::registry::Registry;
use super::snapshot::{self, SnapshotSource};
use crate::config::RaftConfig;
use crate::engine::{Cf, Engine, RaftLog, WeakEngine};

/// Takes raft messages to other stores. May drop them; must not wait.
pub trait Transport: Send + Sync {
    /// Called once before any message is sent: where messages of other stores and news of sent ones go.
    fn start(&self, _router: RaftRouter) {}
    /// Sends a message to the store of `message.to_peer`.
    fn send(&self, message: RaftMessage);
    /// Sends a snapshot to the store of `message.to_peer`, and tells the router how that went.
    fn send_snapshot(&self, message: RaftMessage, source: SnapshotSource);
    /// No more messages for now: what was sent may go out together.
    fn flush(&self) {}
    /// Nothing is sent any more; lets go of the router.
    fn stop(&self) {}
}

/// For a store without others.
pub struct NoTransport;

impl Transport for NoTransport {
    fn send(&self, _message: RaftMessage) {}

    fn send_snapshot(&self, _message: RaftMessage, _source: SnapshotSource) {}
}

/// The way to the store threads for messages of other stores. Cheap to clone.
#[derive(Clone)]
pub struct RaftRouter {
    stores: Vec<Sender<StoreMsg>>,
    /// A router that is still around does not keep a stopped store's files.
    engine: WeakEngine,
}

impl RaftRouter {
    pub(crate) fn new(stores: Vec<Sender<StoreMsg>>, engine: &Engine) -> Self {
        Self { stores, engine: engine.downgrade() }
    }

    pub(crate) fn send(&self, region_id: u64, msg: StoreMsg) {
        let _ = self.stores[(region_id % self.stores.len() as u64) as usize].send(msg);
    }

    /// A raft message of another store.
    pub fn step(&self, message: RaftMessage) {
        self.send(message.region_id, StoreMsg::Raft(Box::new(message)));
    }

    /// A message to a peer was lost.
    pub fn unreachable(&self, region_id: u64, peer_id: u64) {
        self.send(region_id, StoreMsg::Unreachable { region_id, peer_id });
    }

    /// The connection to a store is gone.
    pub fn store_unreachable(&self, store_id: u64) {
        for store in &self.stores {
            let _ = store.send(StoreMsg::StoreUnreachable { store_id });
        }
    }

    /// A snapshot has arrived at a peer, or not.
    pub fn snapshot_sent(&self, region_id: u64, peer_id: u64, arrived: bool) {
        self.send(region_id, StoreMsg::SnapshotSent { region_id, peer_id, arrived });
    }

    /// Takes a snapshot's chunks, and gives the message to raft when they are complete and on disk. Blocks.
    pub fn receive_snapshot(
        &self,
        message: RaftMessage,
        chunks: impl Iterator<Item = Bytes>,
    ) -> Result<(), String> {
        let engine = self.engine.upgrade().ok_or("the store has stopped")?;
        snapshot::receive(&engine, &message, chunks)?;
        self.step(message);
        Ok(())
    }
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
    pub(crate) region_tasks: Sender<RegionTask>,
    pub(crate) pd: UnboundedSender<PdEvent>,
    pub(crate) observers: RwLock<Vec<Arc<dyn RegionObserver>>>,
    pub(crate) clock: Clock,
    /// From which peers draw their election timeouts.
    pub(crate) seed: u64,
    /// Raft's own, which says nothing; one for all peers.
    pub(crate) raft_logger: slog::Logger,
    /// There is too little room for writes.
    pub(crate) disk_full: AtomicBool,
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

    /// What the engine says of a region; `None` when it knows nothing of it, or has failed.
    pub(crate) fn state_of(&self, region_id: u64) -> Option<RegionLocalState> {
        match self.engine.get(Cf::Raft, &keys::region_state(region_id)) {
            Ok(state) => state.map(|state| RegionLocalState::decode(state).unwrap_or_default()),
            Err(error) => {
                self.engine.fail(error);
                None
            }
        }
    }

    pub(crate) fn heartbeat(&self, region_id: u64) {
        let _ = self.pd.send(PdEvent::Heartbeat { region_id });
    }

    /// This store's peer of a region.
    pub(crate) fn own_peer<'a>(&self, region: &'a metapb::Region) -> Option<&'a metapb::Peer> {
        region.peers.iter().find(|p| p.store_id == self.store_id)
    }
}
