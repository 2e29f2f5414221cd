//! The store's replication: starts and stops its threads, and is what the layers above call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Mutex, RwLock};
use raft::eraftpb::ConfChangeType;
use rutile_proto::raft_serverpb::RaftMessage;
use rutile_proto::{key, kvrpcpb, metapb};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::api::{
    LockWatch, Modify, PeerState, RaftKv, RegionEvent, RegionObserver, RegionResult, WriteCallback, WriteData,
};
use super::apply::{Applier, ApplyMsg, Callback};
use super::clock::Clock;
use super::context::{RaftRouter, StoreContext, Transport};
use super::load::load_peers;
use super::messages::{PdEvent, RegionTask, StoreMsg};
use super::region_worker::RegionWorker;
use super::registry::{Published, RegionHandle, Registry};
use super::store_loop::StoreLoop;
use super::{RegionSnapshot, command, region_error, split, worker};
use crate::config::RaftConfig;
use crate::engine::{Engine, EngineSnapshot, Error, RaftLog, Result};
use crate::pd_client::PdClient;

/// Proposals count for more the larger they are, so that waiting ones are bounded in bytes, too.
const BYTES_PER_PERMIT: usize = 8 << 10;

/// What a store's replication is made of.
pub struct StoreOptions {
    /// This store.
    pub store_id: u64,
    /// Raft's part of the configuration.
    pub config: RaftConfig,
    /// Where data is.
    pub engine: Engine,
    /// Where the logs are.
    pub raft_log: RaftLog,
    /// Gives ids for splits and hears of regions.
    pub pd: Arc<dyn PdClient>,
    /// To the other stores.
    pub transport: Arc<dyn Transport>,
    /// Sent with store heartbeats.
    pub start_time_s: u32,
}

/// What drives a store's replication: each part belongs into a thread of its own.
pub(crate) struct Machines {
    pub(crate) loops: Vec<StoreLoop>,
    pub(crate) appliers: Vec<Applier>,
    pub(crate) region_worker: RegionWorker,
    pub(crate) pd_events: mpsc::UnboundedReceiver<PdEvent>,
    pub(crate) size_checks: mpsc::UnboundedReceiver<u64>,
}

/// The replication of a store.
pub struct RaftStore {
    pub(super) ctx: Arc<StoreContext>,
    pd: Arc<dyn PdClient>,
    /// One per store thread.
    permits: Vec<Arc<Semaphore>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    workers: Mutex<Option<worker::Workers>>,
}

impl RaftStore {
    /// Loads all peers, starts the threads, and returns once every region with a single voter leads and has begun its term.
    /// Must be called within a tokio runtime, which runs the workers.
    pub async fn start(options: StoreOptions) -> Result<Arc<Self>> {
        let start_time_s = options.start_time_s;
        let seed = rand::random();
        let assembled = tokio::task::spawn_blocking(move || Self::assemble(options, Clock::system(), seed));
        let assembled = assembled.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
        let (store, machines) = assembled?;
        let (ctx, engine) = (&store.ctx, &store.ctx.engine);
        let Machines { loops, appliers, region_worker, pd_events, size_checks } = machines;
        let mut threads = vec![spawn(engine, "region-0".to_owned(), move || region_worker.run())?];
        for (i, applier) in appliers.into_iter().enumerate() {
            threads.push(spawn(engine, format!("apply-{i}"), move || applier.run())?);
        }
        threads.extend(start_loops(engine, loops).await?);
        let workers = worker::Workers::start(ctx, &store.pd, pd_events, size_checks, start_time_s)?;
        *store.threads.lock() = threads;
        *store.workers.lock() = Some(workers);
        Ok(Arc::new(store))
    }

    /// Loads all peers, and makes what will run in threads.
    #[expect(clippy::disallowed_methods, reason = "one message per region and kind waits at most")]
    pub(crate) fn assemble(options: StoreOptions, clock: Clock, seed: u64) -> Result<(Self, Machines)> {
        let StoreOptions { store_id, config, engine, raft_log, pd, transport, start_time_s: _ } = options;
        let (stores, store_rxs) = channels::<StoreMsg>(config.store_threads);
        let (appliers, apply_rxs) = channels::<ApplyMsg>(config.apply_threads);
        let (region_tasks, region_rx) = unbounded();
        let (pd_tx, pd_rx) = mpsc::unbounded_channel();
        let (check_tx, check_rx) = mpsc::unbounded_channel();
        let permits = stores.iter().map(|_| Arc::new(Semaphore::new(config.proposals_max))).collect();
        transport.start(RaftRouter::new(stores.clone(), &engine));
        let ctx = Arc::new(StoreContext {
            store_id,
            config,
            engine: engine.clone(),
            raft_log,
            registry: Arc::new(Registry::new(store_id, clock.clone())),
            transport,
            stores: stores.clone(),
            appliers,
            region_tasks,
            pd: pd_tx,
            observers: RwLock::default(),
            clock,
            seed,
            raft_logger: slog::Logger::root(slog::Discard, slog::o!()),
            disk_full: AtomicBool::new(false),
        });
        worker::disk::look(&ctx);
        let new_loop = |(i, rx)| StoreLoop::new(Arc::clone(&ctx), i, rx);
        let mut loops: Vec<StoreLoop> = store_rxs.into_iter().enumerate().map(new_loop).collect();
        for peer in load_peers(&ctx)? {
            let owner = (peer.region.id % loops.len() as u64) as usize;
            loops[owner].add(peer);
        }
        let machines = Machines {
            loops,
            appliers: appliers_of(&ctx, apply_rxs, &check_tx),
            region_worker: RegionWorker { engine, rx: region_rx, stores },
            pd_events: pd_rx,
            size_checks: check_rx,
        };
        Ok((Self { ctx, pd, permits, threads: Mutex::default(), workers: Mutex::new(None) }, machines))
    }

    /// Stops all threads. What was acknowledged is in the raft log; the caller flushes the engine.
    pub async fn stop(&self) {
        let workers = self.workers.lock().take();
        if let Some(workers) = workers {
            workers.stop().await;
        }
        for store in &self.ctx.stores {
            let _ = store.send(StoreMsg::Stop);
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        let (appliers, region_tasks) = (self.ctx.appliers.clone(), self.ctx.region_tasks.clone());
        let _ = tokio::task::spawn_blocking(move || {
            // Store threads first: they hand the last committed entries to the apply threads, and these work to the region thread.
            let named =
                |prefix: &str, t: &JoinHandle<()>| t.thread().name().is_some_and(|n| n.starts_with(prefix));
            let (stores, rest): (Vec<_>, Vec<_>) = threads.into_iter().partition(|t| named("store-", t));
            let (apply, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|t| named("apply-", t));
            stores.into_iter().for_each(|t| drop(t.join()));
            for applier in appliers {
                let _ = applier.send(ApplyMsg::Stop);
            }
            apply.into_iter().for_each(|t| drop(t.join()));
            let _ = region_tasks.send(RegionTask::Stop);
            rest.into_iter().for_each(|t| drop(t.join()));
        })
        .await;
        self.ctx.transport.stop();
    }

    /// Changes a region's members, as its leader: none leaves a joint configuration, one is a simple change, more are a joint one.
    /// `epoch`: the change is only meant for the region in this epoch. Returns the region once the change is applied here.
    pub async fn change_peers(
        &self,
        region_id: u64,
        epoch: Option<metapb::RegionEpoch>,
        changes: Vec<(ConfChangeType, metapb::Peer)>,
    ) -> RegionResult<metapb::Region> {
        let (tx, rx) = oneshot::channel();
        let callback = Box::new(move |result| drop(tx.send(result)));
        let change = StoreMsg::ChangePeers { region_id, epoch, changes, callback };
        let _ = self.ctx.store_of(region_id).send(change);
        let regions = rx.await.unwrap_or_else(|_| Err(region_error::undetermined("the store stops")))?;
        regions.into_iter().next().ok_or_else(|| region_error::other("no region"))
    }

    /// Merges a region into a neighbour, as its leader. Returns the region once it takes no more writes; the merge follows.
    pub async fn merge(&self, region_id: u64, target: metapb::Region) -> RegionResult<metapb::Region> {
        let (tx, rx) = oneshot::channel();
        let callback = Box::new(move |result| drop(tx.send(result)));
        let merge = StoreMsg::PrepareMerge { region_id, epoch: None, target, callback };
        let _ = self.ctx.store_of(region_id).send(merge);
        let regions = rx.await.unwrap_or_else(|_| Err(region_error::undetermined("the store stops")))?;
        regions.into_iter().next().ok_or_else(|| region_error::other("no region"))
    }

    /// The way for messages of other stores.
    #[must_use]
    pub fn router(&self) -> RaftRouter {
        RaftRouter::new(self.ctx.stores.clone(), &self.ctx.engine)
    }

    /// A raft message of another store.
    pub fn step(&self, message: RaftMessage) {
        let _ = self.ctx.store_of(message.region_id).send(StoreMsg::Raft(Box::new(message)));
    }

    /// Hands a region's leadership to another peer.
    pub fn transfer_leader(&self, region_id: u64, peer: metapb::Peer) {
        let _ = self.ctx.store_of(region_id).send(StoreMsg::TransferLeader { region_id, peer });
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.ctx.engine
    }

    /// Cuts the logs off as far as the data is flushed, even where a follower needs more; for tests and before a planned stop.
    pub fn truncate_logs(&self) {
        worker::log_gc::truncate_all(&self.ctx, 0, true);
    }

    /// Bytes of all raft log files.
    #[must_use]
    pub fn raft_log_size_bytes(&self) -> u64 {
        self.ctx.raft_log.used_size_bytes()
    }

    /// Checks a request. One that a sleeping follower refuses wakes it: its leader may be gone.
    fn checked(&self, ctx: &kvrpcpb::Context) -> RegionResult<(Arc<RegionHandle>, Arc<Published>)> {
        let result = self.ctx.registry.check(ctx);
        if result.as_ref().is_err_and(|e| e.not_leader.is_some())
            && let Some(handle) = self.ctx.registry.get(ctx.region_id)
            && handle.asleep.load(Ordering::Acquire)
        {
            let region_id = ctx.region_id;
            let _ = self.ctx.store_of(region_id).send(StoreMsg::WakeUp { region_id });
        }
        result
    }

    fn checked_leader(&self, ctx: &kvrpcpb::Context) -> RegionResult<Arc<Published>> {
        let (_, published) = self.checked(ctx)?;
        if !published.is_leader {
            return Err(region_error::not_leader(ctx.region_id, published.leader));
        }
        Ok(published)
    }

    /// The entry for a write, and the term under which it was checked.
    fn prepare(&self, ctx: &kvrpcpb::Context, data: &WriteData) -> RegionResult<(Vec<u8>, u64)> {
        let published = self.checked_leader(ctx)?;
        if self.ctx.disk_full.load(Ordering::Relaxed) {
            return Err(region_error::disk_full(self.ctx.store_id));
        }
        for modify in &data.modifies {
            check_bounds(&published.region, modify)?;
        }
        let size = data.size_bytes() as u64;
        if size > self.ctx.config.entry_size_max.bytes() {
            return Err(region_error::raft_entry_too_large(ctx.region_id, size));
        }
        let version = published.region.region_epoch.unwrap_or_default().version;
        Ok((command::encode_write(version, data), published.term))
    }

    fn permits_of(&self, region_id: u64, size_bytes: usize) -> (&Arc<Semaphore>, u32) {
        let permits = 1 + size_bytes / BYTES_PER_PERMIT;
        let semaphore = &self.permits[(region_id % self.permits.len() as u64) as usize];
        (semaphore, permits.min(self.ctx.config.proposals_max) as u32)
    }

    fn propose(&self, region_id: u64, term: u64, data: Vec<u8>, callback: WriteCallback) {
        let propose = StoreMsg::Propose { region_id, term, data, callback: Callback::Write(callback) };
        let _ = self.ctx.store_of(region_id).send(propose);
    }
}

fn appliers_of(
    ctx: &StoreContext,
    rxs: Vec<Receiver<ApplyMsg>>,
    checks: &mpsc::UnboundedSender<u64>,
) -> Vec<Applier> {
    let new = |rx| {
        Applier::new(
            ctx.engine.clone(),
            rx,
            ctx.stores.clone(),
            checks.clone(),
            ctx.config.split_check_diff.bytes(),
            ctx.region_tasks.clone(),
        )
    };
    rxs.into_iter().map(new).collect()
}

/// Starts the store threads; returns after their first round.
async fn start_loops(engine: &Engine, loops: Vec<StoreLoop>) -> Result<Vec<JoinHandle<()>>> {
    let (mut threads, mut started) = (Vec::new(), Vec::new());
    for (i, store_loop) in loops.into_iter().enumerate() {
        let (tx, rx) = oneshot::channel();
        started.push(rx);
        threads.push(spawn(engine, format!("store-{i}"), move || {
            store_loop.run(|| {
                let _ = tx.send(());
            });
        })?);
    }
    for rx in started {
        let _ = rx.await;
    }
    Ok(threads)
}

#[expect(clippy::disallowed_methods, reason = "bounded by the proposals' permits and the number of regions")]
fn channels<T>(count: usize) -> (Vec<Sender<T>>, Vec<Receiver<T>>) {
    // What travels in them is bounded by the proposals' permits and the number of regions.
    (0..count).map(|_| unbounded()).unzip()
}

/// A thread whose panic stops the store.
fn spawn(engine: &Engine, name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let engine = engine.clone();
    let label = name.clone();
    let guarded = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
            engine.fail(Error::Rocks(format!("thread {label} panicked")));
        }
    };
    std::thread::Builder::new().name(name).spawn(guarded).map_err(|e| Error::io("thread", &e))
}

fn region_snapshot(
    snapshot: Arc<EngineSnapshot>,
    handle: &RegionHandle,
    published: &Published,
) -> RegionSnapshot {
    let region = Arc::clone(&published.region);
    RegionSnapshot::new(snapshot, region, published.term).counted(Arc::clone(&handle.flow.read))
}

fn check_bounds(region: &metapb::Region, modify: &Modify) -> RegionResult<()> {
    let (start, end) = (&region.start_key[..], &region.end_key[..]);
    let inside = match modify {
        Modify::Put(_, k, _) | Modify::Delete(_, k) => key::in_range(k, start, end),
        Modify::DeleteRange(_, from, to) => {
            key::in_range(from, start, end) && (to.is_empty() || end.is_empty() || to <= end)
        }
    };
    match modify {
        _ if inside => Ok(()),
        Modify::Put(_, k, _) | Modify::Delete(_, k) | Modify::DeleteRange(_, k, _) => {
            Err(region_error::key_not_in_region(k.clone(), region))
        }
    }
}

#[async_trait]
impl RaftKv for RaftStore {
    fn try_snapshot(&self, ctx: &kvrpcpb::Context) -> Option<RegionResult<RegionSnapshot>> {
        let registry = &self.ctx.registry;
        let (handle, published) = match self.checked(ctx) {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        if !registry.lease_holds(&handle, &published) {
            return None;
        }
        let snapshot = Arc::new(self.ctx.engine.snapshot());
        // A split or a change of leader in between: look again.
        let current = handle.is_current(&published);
        current.then(|| Ok(region_snapshot(snapshot, &handle, &published)))
    }

    async fn snapshot(&self, ctx: &kvrpcpb::Context) -> RegionResult<RegionSnapshot> {
        if let Some(result) = self.try_snapshot(ctx) {
            return result;
        }
        self.checked(ctx)?;
        let (tx, rx) = oneshot::channel();
        let callback = Box::new(move |result| drop(tx.send(result)));
        let read = StoreMsg::ReadIndex { region_id: ctx.region_id, at: self.ctx.clock.now(), callback };
        let _ = self.ctx.store_of(ctx.region_id).send(read);
        rx.await.unwrap_or_else(|_| Err(region_error::region_not_found(ctx.region_id)))?;
        self.local_snapshot(ctx)
    }

    async fn write(&self, ctx: &kvrpcpb::Context, data: WriteData) -> RegionResult<()> {
        let (entry, term) = self.prepare(ctx, &data)?;
        drop(data);
        let (semaphore, permits) = self.permits_of(ctx.region_id, entry.len());
        let permit = Arc::clone(semaphore).acquire_many_owned(permits).await;
        let (tx, rx) = oneshot::channel();
        let callback = Box::new(move |result| {
            drop(permit);
            let _ = tx.send(result);
        });
        self.propose(ctx.region_id, term, entry, callback);
        rx.await.unwrap_or_else(|_| Err(region_error::undetermined("the store stops")))
    }

    fn write_with(&self, ctx: &kvrpcpb::Context, data: WriteData, callback: WriteCallback) {
        let (entry, term) = match self.prepare(ctx, &data) {
            Ok(prepared) => prepared,
            Err(error) => return callback(Err(error)),
        };
        let (semaphore, permits) = self.permits_of(ctx.region_id, entry.len());
        match Arc::clone(semaphore).try_acquire_many_owned(permits) {
            Ok(permit) => {
                let callback = Box::new(move |result| {
                    drop(permit);
                    callback(result);
                });
                self.propose(ctx.region_id, term, entry, callback);
            }
            Err(_) => callback(Err(region_error::server_is_busy("too many proposals are waiting"))),
        }
    }

    async fn split(&self, ctx: &kvrpcpb::Context, keys: Vec<Bytes>) -> RegionResult<Vec<metapb::Region>> {
        let published = self.checked_leader(ctx)?;
        split::split(&self.ctx, &*self.pd, &published, keys).await
    }

    fn check(&self, ctx: &kvrpcpb::Context) -> RegionResult<(Arc<metapb::Region>, u64)> {
        let (_, published) = self.checked(ctx)?;
        Ok((Arc::clone(&published.region), published.term))
    }

    fn peer_state(&self, region_id: u64) -> Option<PeerState> {
        let handle = self.ctx.registry.get(region_id)?;
        let published = handle.published();
        Some(PeerState {
            region: Arc::clone(&published.region),
            term: published.term,
            is_leader: published.is_leader,
            leader: published.leader,
            has_lease: self.ctx.registry.lease_holds(&handle, &published),
            applied_index: handle.applied_index(),
            applied_term: handle.applied_term(),
            merging: published.merging,
        })
    }

    async fn await_applied(&self, region_id: u64, index: u64) -> RegionResult<()> {
        let not_found = || region_error::region_not_found(region_id);
        let handle = self.ctx.registry.get(region_id).ok_or_else(not_found)?;
        if handle.applied_index() >= index {
            return Ok(());
        }
        let (tx, rx) = oneshot::channel();
        let callback = Box::new(move |result| drop(tx.send(result)));
        let _ = self.ctx.store_of(region_id).send(StoreMsg::AwaitApplied { region_id, index, callback });
        rx.await.unwrap_or_else(|_| Err(not_found()))
    }

    fn local_snapshot(&self, ctx: &kvrpcpb::Context) -> RegionResult<RegionSnapshot> {
        loop {
            let (handle, published) = self.ctx.registry.check(ctx)?;
            let snapshot = Arc::new(self.ctx.engine.snapshot());
            if handle.is_current(&published) {
                return Ok(region_snapshot(snapshot, &handle, &published));
            }
        }
    }

    fn watch_locks(&self, region_id: u64, watch: Option<Arc<dyn LockWatch>>) -> bool {
        let handle = self.ctx.registry.get(region_id);
        handle.map(|handle| *handle.lock_watch.write() = watch).is_some()
    }

    fn region_of_key(&self, key: &[u8]) -> Option<Arc<metapb::Region>> {
        self.ctx.registry.by_key(key).map(|handle| Arc::clone(&handle.published().region))
    }

    fn regions(&self) -> Vec<(Arc<metapb::Region>, bool)> {
        let all = self.ctx.registry.all();
        all.into_iter().map(|h| h.published()).map(|p| (Arc::clone(&p.region), p.is_leader)).collect()
    }

    fn unsafe_destroy_range(&self, start: &[u8], end: &[u8]) -> std::result::Result<(), Error> {
        self.ctx.engine.destroy_range(&key::data_key(start), &key::data_end_key(end))
    }

    fn observe(&self, observer: Arc<dyn RegionObserver>) {
        let mut observers = self.ctx.observers.write();
        for published in self.ctx.registry.all().into_iter().map(|h| h.published()).filter(|p| p.is_leader) {
            let (region, term) = (Arc::clone(&published.region), published.term);
            observer.on_region_event(&RegionEvent::BecameLeader { region, term });
        }
        observers.push(observer);
    }

    fn store_id(&self) -> u64 {
        self.ctx.store_id
    }
}

/// For requests that no client made.
pub(crate) fn leader_context(region: &metapb::Region, store_id: u64) -> kvrpcpb::Context {
    kvrpcpb::Context {
        region_id: region.id,
        region_epoch: region.region_epoch,
        peer: region.peers.iter().find(|p| p.store_id == store_id).copied(),
        ..Default::default()
    }
}

impl std::fmt::Debug for RaftStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftStore").field("store_id", &self.ctx.store_id).finish_non_exhaustive()
    }
}
