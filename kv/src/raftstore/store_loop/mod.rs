//! A store thread: drives the raft groups of its regions in rounds.
//!
//! A round takes all messages that have come, lets every touched peer put its entries into one batch, writes that batch with one sync,
//! and finishes the peers. While the disk syncs, the next round's proposals queue up: many clients share one sync.

mod incoming;
mod lifecycle;
mod merge;
mod merged;
mod peers;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashSet;
use crossbeam_channel::{Receiver, RecvTimeoutError};

use self::incoming::PendingVotes;
use self::peers::Peers;
use super::apply::ApplyMsg;
use super::context::StoreContext;
use super::messages::{ExecResult, StoreMsg};
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
    peers: Peers,
    /// Peers whose clock runs, or that hold entries in memory until they are applied.
    awake: BTreeSet<u64>,
    /// Peers to look at in this round.
    pending: Vec<u64>,
    batch: RaftLogBatch,
    sync: bool,
    /// Of the store's clock.
    next_tick: Duration,
    /// Called after the next round, when new peers have published that they lead.
    after_round: Vec<Box<dyn FnOnce() + Send>>,
    /// Regions whose data is being removed.
    clearing: AHashSet<u64>,
    votes: PendingVotes,
    /// Targets of merges whose source is not here yet.
    waiting_targets: Vec<u64>,
}

impl StoreLoop {
    pub(crate) fn new(ctx: Arc<StoreContext>, index: usize, rx: Receiver<StoreMsg>) -> Self {
        let batch = ctx.raft_log.batch();
        Self {
            peers: Peers::new(Arc::clone(&ctx)),
            next_tick: ctx.clock.now(),
            ctx,
            index,
            rx,
            awake: BTreeSet::new(),
            pending: Vec::new(),
            batch,
            sync: false,
            after_round: Vec::new(),
            clearing: AHashSet::new(),
            votes: PendingVotes::default(),
            waiting_targets: Vec::new(),
        }
    }

    /// Adds a peer found on disk, before the loop runs.
    pub(crate) fn add(&mut self, mut peer: Peer) {
        peer.set_loaded(&self.ctx);
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
            let timeout = self.next_tick.saturating_sub(self.ctx.clock.now());
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
        self.take(MESSAGES_MAX)
    }

    /// Takes messages that have come, and the tick if it is time. `false` when told to stop.
    pub(crate) fn take(&mut self, messages_max: usize) -> bool {
        for _ in 0..messages_max {
            match self.rx.try_recv() {
                Ok(msg) => {
                    if !self.handle(msg) {
                        return false;
                    }
                }
                Err(_) => break,
            }
        }
        if self.ctx.clock.now() >= self.next_tick {
            self.tick();
        }
        true
    }

    /// Whether a round would do something.
    #[cfg(test)]
    pub(crate) fn has_work(&self) -> bool {
        !self.pending.is_empty() || !self.rx.is_empty() || self.ctx.clock.now() >= self.next_tick
    }

    fn tick(&mut self) {
        let mut touched = Vec::new();
        let mut idle = Vec::new();
        let peers = &mut self.peers;
        let ctx = &self.ctx;
        self.awake.retain(|region_id| {
            let Some(peer) = peers.get(*region_id) else { return false };
            let cached = peer.on_applied();
            if peer.needs_ticks() {
                peer.tick(ctx);
                touched.push(*region_id);
            }
            let awake = cached || peer.needs_ticks() || peer.is_applying() || !peer.is_idle(ctx);
            if !awake {
                peer.shrink();
                idle.push(*region_id);
            }
            awake
        });
        idle.into_iter().for_each(|region_id| self.peers.rest(region_id));
        touched.into_iter().for_each(|region_id| self.mark(region_id));
        for region_id in self.waiting_targets.drain(..) {
            let _ = self.ctx.applier_of(region_id).send(ApplyMsg::Resume { region_id });
        }
        self.next_tick =
            self.ctx.clock.now() + if self.awake.is_empty() { IDLE } else { self.ctx.config.tick.0 };
    }

    /// To be looked at in this round; its clock runs until it has nothing to do.
    fn mark(&mut self, region_id: u64) {
        if let Some(peer) = self.peers.get(region_id)
            && !peer.is_pending
        {
            peer.is_pending = true;
            self.pending.push(region_id);
            // Also one that sleeps on: it may rest again.
            self.awake.insert(region_id);
        }
    }

    /// One write for all peers that have something to persist.
    pub(crate) fn round(&mut self) -> Result<()> {
        let touched = std::mem::take(&mut self.pending);
        let mut readies: Vec<PendingReady> = Vec::with_capacity(touched.len());
        for region_id in touched {
            let Some(peer) = self.peers.get(region_id) else { continue };
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
            let Some(peer) = self.peers.get(region_id) else { continue };
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
        edge!("raftstore::persist::before");
        let start = std::time::Instant::now();
        let sync = std::mem::take(&mut self.sync) && !planted!(AnswerBeforeSync);
        self.ctx.raft_log.write(&mut self.batch, sync)?;
        metrics::RAFT_LOG_WRITE_SECONDS.observe(start.elapsed().as_secs_f64());
        edge!("raftstore::persist::after");
        Ok(())
    }

    /// `false` for the message to stop.
    fn handle(&mut self, msg: StoreMsg) -> bool {
        match msg {
            StoreMsg::Propose { region_id, term, data, callback } => match self.peers.get(region_id) {
                Some(peer) => {
                    peer.propose(&self.ctx, term, data, callback);
                    self.mark(region_id);
                }
                None => callback.fail(region_error::region_not_found(region_id)),
            },
            StoreMsg::ReadIndex { region_id, at, callback } => match self.peers.get(region_id) {
                Some(peer) => {
                    peer.read_index(at, callback);
                    self.mark(region_id);
                }
                None => callback(Err(region_error::region_not_found(region_id))),
            },
            StoreMsg::AwaitApplied { region_id, index, callback } => match self.peers.get(region_id) {
                Some(peer) => {
                    peer.await_applied(index, callback);
                    self.mark(region_id);
                }
                None => callback(Err(region_error::region_not_found(region_id))),
            },
            StoreMsg::Applied { region_id, results } => self.on_applied(region_id, results),
            StoreMsg::Truncate { region_id, index, force } => self.truncate(region_id, index, force),
            StoreMsg::Raft(message) => self.step(&message),
            StoreMsg::TransferLeader { region_id, peer: to } => {
                if let Some(peer) = self.peers.get(region_id) {
                    peer.transfer_leader(&self.ctx, &to);
                    self.mark(region_id);
                }
            }
            StoreMsg::Create { region, campaign, created } => {
                self.create(region, campaign);
                self.after_round.push(created);
            }
            StoreMsg::ChangePeers { region_id, epoch, changes, callback } => {
                match self.peers.get(region_id) {
                    Some(peer) => {
                        peer.propose_members(&self.ctx, epoch, &changes, callback);
                        self.mark(region_id);
                    }
                    None => callback(Err(region_error::region_not_found(region_id))),
                }
            }
            StoreMsg::Unreachable { region_id, peer_id } => {
                if let Some(peer) = self.peers.get(region_id) {
                    peer.on_unreachable(peer_id);
                }
            }
            StoreMsg::StoreUnreachable { store_id } => self.on_store_unreachable(store_id),
            StoreMsg::SnapshotSent { region_id, peer_id, arrived } => {
                if let Some(peer) = self.peers.get(region_id) {
                    peer.on_snapshot_sent(peer_id, arrived);
                    self.mark(region_id);
                }
            }
            StoreMsg::Settled { region_id, from, message } => self.on_settled(region_id, &from, *message),
            StoreMsg::SnapshotApplied { region_id } => self.on_snapshot_applied(region_id),
            StoreMsg::Cleared { region_id } => self.on_cleared(region_id),
            StoreMsg::PrepareMerge { region_id, epoch, target, callback } => {
                self.propose_merge(region_id, epoch, target, callback);
            }
            StoreMsg::CommitMerge { region_id, commit } => self.propose_commit_merge(region_id, &commit),
            StoreMsg::CatchUp { region_id, target_id, commit } => {
                self.catch_up(region_id, target_id, &commit);
            }
            StoreMsg::Merged { region_id, tombstone } => self.on_merged(region_id, tombstone),
            StoreMsg::EndMerged { region_id } => self.end_merged(region_id),
            StoreMsg::SourceGone { region_id } => self.on_source_gone(region_id),
            StoreMsg::CheckConsistency { region_id } => {
                if let Some(peer) = self.peers.get(region_id) {
                    peer.check_consistency();
                    self.mark(region_id);
                }
            }
            StoreMsg::Hashed { region_id, index, hash } => {
                if let Some(peer) = self.peers.get(region_id) {
                    peer.on_hashed(index, hash);
                    self.mark(region_id);
                }
            }
            StoreMsg::WakeUp { region_id } => {
                if let Some(peer) = self.peers.get(region_id) {
                    peer.wake();
                    self.mark(region_id);
                }
            }
            StoreMsg::Stop => return false,
        }
        self.next_tick = self.next_tick.min(self.ctx.clock.now() + self.ctx.config.tick.0);
        true
    }

    fn on_applied(&mut self, region_id: u64, results: Vec<ExecResult>) {
        for result in results {
            match result {
                ExecResult::Split { regions, callback } => self.on_split(region_id, regions, callback),
                ExecResult::SplitRefused => {
                    if let Some(peer) = self.peers.get(region_id) {
                        peer.end_split();
                    }
                }
                ExecResult::Members { index, changed, callback } => {
                    self.on_members(region_id, index, changed, callback);
                }
                ExecResult::VerifyHash { index, hash } => {
                    if let Some(peer) = self.peers.get(region_id) {
                        peer.on_verify_hash(index, hash);
                    }
                }
                ExecResult::MergePrepared { region, state, callback } => {
                    if let Some(peer) = self.peers.get(region_id) {
                        peer.on_merge_prepared(&self.ctx, Arc::clone(&region), state);
                    }
                    callback.into_iter().for_each(|callback| callback(Ok(vec![(*region).clone()])));
                }
                ExecResult::MergeEnded { region } => {
                    if let Some(peer) = self.peers.get(region_id) {
                        peer.on_merge_ended(&self.ctx, region);
                    }
                }
                ExecResult::MergeCommitted { region, source, callback } => {
                    self.on_merge_committed(region_id, region, &source, callback);
                }
            }
        }
        if let Some(peer) = self.peers.get(region_id) {
            peer.on_applied();
        }
        self.mark(region_id);
    }

    fn truncate(&mut self, region_id: u64, index: u64, force: bool) {
        let Some(peer) = self.peers.get(region_id) else { return };
        if let Some(truncated) = peer.truncate(&self.ctx, index, force) {
            if let Err(error) = self.batch.truncate(region_id, &truncated) {
                self.ctx.engine.fail(error);
            }
            // Also keeps the rule that nothing unsynced precedes something synced.
            self.sync = true;
        }
    }
}
