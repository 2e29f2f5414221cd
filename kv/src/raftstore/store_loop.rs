//! A store thread: drives the raft groups of its regions in rounds.
//!
//! A round takes all messages that have come, lets every touched peer put its entries into one batch, writes that batch with one sync,
//! and finishes the peers. While the disk syncs, the next round's proposals queue up: many clients share one sync.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use raft::eraftpb::Message;
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::RaftMessage;

use super::api::RegionEvent;
use super::context::StoreContext;
use super::messages::{ExecResult, PdEvent, SplitCallback, StoreMsg};
use super::peer::{Peer, PendingReady};
use super::region_error;
use crate::engine::{RaftLogBatch, Result};
use crate::metrics;

/// Messages taken per round, at most.
const MESSAGES_MAX: usize = 4096;
/// How long a thread without ticking peers sleeps at most.
const IDLE: Duration = Duration::from_secs(10);

/// One store thread.
pub(crate) struct StoreLoop {
    ctx: Arc<StoreContext>,
    index: usize,
    rx: Receiver<StoreMsg>,
    peers: AHashMap<u64, Peer>,
    /// Peers to look at in this round.
    pending: Vec<u64>,
    batch: RaftLogBatch,
    sync: bool,
    next_tick: Instant,
    /// Called after the next round, when new peers have published that they lead.
    after_round: Vec<Box<dyn FnOnce() + Send>>,
}

impl StoreLoop {
    pub(crate) fn new(ctx: Arc<StoreContext>, index: usize, rx: Receiver<StoreMsg>) -> Self {
        let batch = ctx.raft_log.batch();
        Self {
            ctx,
            index,
            rx,
            peers: AHashMap::new(),
            pending: Vec::new(),
            batch,
            sync: false,
            next_tick: Instant::now(),
            after_round: Vec::new(),
        }
    }

    /// Adds a peer found on disk, before the loop runs.
    pub(crate) fn add(&mut self, mut peer: Peer) {
        peer.register(&self.ctx);
        if peer.is_only_voter() {
            peer.campaign();
        }
        let region_id = peer.region.id;
        self.peers.insert(region_id, peer);
        self.mark(region_id);
    }

    /// Runs until told to stop or until the disk fails. `started` is called after the first round.
    pub(crate) fn run(mut self, started: impl FnOnce()) {
        let mut started = Some(started);
        loop {
            if let Err(error) = self.round() {
                self.ctx.engine.fail(error);
                return;
            }
            if let Some(started) = started.take() {
                started();
            }
            if !self.wait() {
                return;
            }
        }
    }

    /// Waits for messages or the next tick, and takes them. `false` when told to stop.
    fn wait(&mut self) -> bool {
        if self.pending.is_empty() {
            let timeout = self.next_tick.saturating_duration_since(Instant::now());
            match self.rx.recv_timeout(timeout) {
                Ok(msg) => {
                    if !self.handle(msg) {
                        return false;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        for _ in 0..MESSAGES_MAX {
            match self.rx.try_recv() {
                Ok(msg) => {
                    if !self.handle(msg) {
                        return false;
                    }
                }
                Err(_) => break,
            }
        }
        if Instant::now() >= self.next_tick {
            self.tick();
        }
        true
    }

    fn tick(&mut self) {
        let mut ticking = false;
        let mut touched = Vec::new();
        for (region_id, peer) in &mut self.peers {
            let cached = peer.on_applied();
            if peer.needs_ticks() {
                peer.tick();
                touched.push(*region_id);
            }
            ticking |= cached || peer.needs_ticks();
        }
        touched.into_iter().for_each(|region_id| self.mark(region_id));
        self.next_tick = Instant::now() + if ticking { self.ctx.config.tick.0 } else { IDLE };
    }

    fn mark(&mut self, region_id: u64) {
        if let Some(peer) = self.peers.get_mut(&region_id)
            && !peer.is_pending
        {
            peer.is_pending = true;
            self.pending.push(region_id);
        }
    }

    /// One write for all peers that have something to persist.
    fn round(&mut self) -> Result<()> {
        let touched = std::mem::take(&mut self.pending);
        let mut readies: Vec<PendingReady> = Vec::with_capacity(touched.len());
        for region_id in touched {
            let Some(peer) = self.peers.get_mut(&region_id) else { continue };
            peer.is_pending = false;
            if let Some((ready, sync)) = peer.begin_ready(&self.ctx, &mut self.batch)? {
                self.sync |= sync;
                readies.push(ready);
            }
        }
        self.ctx.transport.flush();
        self.write()?;
        for ready in readies {
            let region_id = ready.region_id;
            let Some(peer) = self.peers.get_mut(&region_id) else { continue };
            if peer.finish_ready(&self.ctx, ready) {
                self.mark(region_id);
            }
        }
        self.ctx.transport.flush();
        self.after_round.drain(..).for_each(|done| done());
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        fail::fail_point!("raftstore::persist::before");
        let start = Instant::now();
        let sync = std::mem::take(&mut self.sync);
        self.ctx.raft_log.write(&mut self.batch, sync)?;
        metrics::RAFT_LOG_WRITE_SECONDS.observe(start.elapsed().as_secs_f64());
        fail::fail_point!("raftstore::persist::after");
        Ok(())
    }

    /// `false` for the message to stop.
    fn handle(&mut self, msg: StoreMsg) -> bool {
        match msg {
            StoreMsg::Propose { region_id, term, data, callback } => match self.peers.get_mut(&region_id) {
                Some(peer) => {
                    peer.propose(&self.ctx, term, data, callback);
                    self.mark(region_id);
                }
                None => callback.fail(region_error::region_not_found(region_id)),
            },
            StoreMsg::ReadIndex { region_id, at, callback } => match self.peers.get_mut(&region_id) {
                Some(peer) => {
                    peer.read_index(at, callback);
                    self.mark(region_id);
                }
                None => callback(Err(region_error::region_not_found(region_id))),
            },
            StoreMsg::Applied { region_id, results } => self.on_applied(region_id, results),
            StoreMsg::Truncate { region_id, index } => self.truncate(region_id, index),
            StoreMsg::Raft(message) => self.step(*message),
            StoreMsg::TransferLeader { region_id, peer: to } => {
                if let Some(peer) = self.peers.get_mut(&region_id) {
                    peer.transfer_leader(&to);
                    self.mark(region_id);
                }
            }
            StoreMsg::Create { region, campaign, created } => {
                self.create(region, campaign);
                self.after_round.push(created);
            }
            StoreMsg::Stop => return false,
        }
        self.next_tick = self.next_tick.min(Instant::now() + self.ctx.config.tick.0);
        true
    }

    fn on_applied(&mut self, region_id: u64, results: Vec<ExecResult>) {
        for result in results {
            match result {
                ExecResult::Split { regions, callback } => self.on_split(region_id, regions, callback),
            }
        }
        if let Some(peer) = self.peers.get_mut(&region_id) {
            peer.on_applied();
        }
        self.mark(region_id);
    }

    fn truncate(&mut self, region_id: u64, index: u64) {
        let Some(peer) = self.peers.get_mut(&region_id) else { return };
        if let Some(truncated) = peer.truncate(index) {
            if let Err(error) = self.batch.truncate(region_id, &truncated) {
                self.ctx.engine.fail(error);
            }
            // Also keeps the rule that nothing unsynced precedes something synced.
            self.sync = true;
        }
    }

    fn step(&mut self, message: RaftMessage) {
        let region_id = message.region_id;
        let Some(peer) = self.peers.get_mut(&region_id) else {
            tracing::debug!(region_id, "raft message for an unknown region");
            return;
        };
        if message.to_peer.is_none_or(|to| to.id != peer.id()) {
            return;
        }
        match protobuf::Message::parse_from_carllerche_bytes(&message.message)
            as protobuf::ProtobufResult<Message>
        {
            Ok(message) => peer.step(message),
            Err(error) => tracing::warn!(region_id, %error, "malformed raft message"),
        }
        self.mark(region_id);
    }

    /// The new regions of this thread are registered first, so that every key has a region at all times; they serve nothing before
    /// this thread's next round, when the original has published its smaller range.
    fn on_split(
        &mut self,
        region_id: u64,
        regions: Vec<Arc<metapb::Region>>,
        callback: Option<SplitCallback>,
    ) {
        let Some(campaign) = self.peers.get(&region_id).map(Peer::is_leader) else { return };
        let (original, pieces) = regions.split_last().expect("a split has at least the original region");
        let threads = self.ctx.stores.len() as u64;
        let (own, others): (Vec<_>, Vec<_>) =
            pieces.iter().cloned().partition(|piece| (piece.id % threads) as usize == self.index);
        for piece in own {
            self.create(piece, campaign);
        }
        let event = RegionEvent::Split { region_id, regions: regions.clone() };
        let ctx = Arc::clone(&self.ctx);
        if let Some(peer) = self.peers.get_mut(&region_id) {
            ctx.tell_then(&event, || peer.on_split(&ctx, Arc::clone(original)));
        }
        tracing::info!(region_id, pieces = regions.len(), "region split");
        metrics::SPLITS.inc();
        let done =
            Arc::new(Done { regions: regions.clone(), callback: parking_lot::Mutex::new(callback), ctx });
        for region in others {
            let done = Arc::clone(&done);
            let store = self.ctx.store_of(region.id);
            let _ = store.send(StoreMsg::Create { region, campaign, created: Box::new(move || drop(done)) });
        }
        self.after_round.push(Box::new(move || drop(done)));
    }

    fn create(&mut self, region: Arc<metapb::Region>, campaign: bool) {
        let region_id = region.id;
        if self.peers.contains_key(&region_id) {
            return;
        }
        let created = Peer::load(&self.ctx, region, super::peer_storage::INIT_LOG_INDEX);
        let mut peer = match created {
            Ok(peer) => peer,
            Err(error) => {
                self.ctx.engine.fail(error);
                return;
            }
        };
        peer.register(&self.ctx);
        if campaign || peer.is_only_voter() {
            peer.campaign();
        }
        self.peers.insert(region_id, peer);
        self.mark(region_id);
    }
}

/// Reports a split once the last of its regions was created.
struct Done {
    regions: Vec<Arc<metapb::Region>>,
    callback: parking_lot::Mutex<Option<SplitCallback>>,
    ctx: Arc<StoreContext>,
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(callback) = self.callback.lock().take() {
            callback(Ok(self.regions.iter().map(|r| (**r).clone()).collect()));
        }
        let _ = self.ctx.pd.send(PdEvent::Split { regions: std::mem::take(&mut self.regions) });
    }
}
