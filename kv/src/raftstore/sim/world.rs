//! The stores of a simulation, their clients, and the order in which things happen.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::future::Future;
use std::hash::Hasher;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rutile_linear::Op;
use rutile_proto::metapb;

use super::clients::{Outcome, Pending, REGISTERS, REGISTERS_MAX, Task};
use super::disk::{Blocks, temporary_dir};
use super::net::{Net, Outbox, Sender, ends};
use super::pd::SimPd;
use super::{Bug, Crash};
use crate::config::{ByteSize, Config, Span};
use crate::engine::lossy_fs::LossyFs;
use crate::engine::{Engine, RaftLog};
use crate::raftstore::clock::Clock;
use crate::raftstore::context::RaftRouter;
use crate::raftstore::messages::PdEvent;
use crate::raftstore::store::Machines;
use crate::raftstore::{RaftKv, RaftStore, RegionEvent, RegionObserver, StoreOptions, bootstrap, worker};

pub(super) const MS: u64 = 1_000_000;

/// A running store.
pub(super) struct Live {
    pub(super) store: Arc<RaftStore>,
    pub(super) engine: Engine,
    pub(super) log: RaftLog,
    machines: Machines,
    pub(super) router: RaftRouter,
    fs: LossyFs,
}

/// A store, whether it runs or not.
pub(super) struct Node {
    pub(super) id: u64,
    dir: tempfile::TempDir,
    clock: Arc<AtomicU64>,
    /// How fast the clock runs, in parts per million of the true time.
    pub(super) rate: u64,
    /// Does nothing before.
    pub(super) paused_until: u64,
    /// When it runs again.
    pub(super) restart_at: u64,
    pub(super) live: Option<Live>,
}

/// What the stores say of who leads.
#[derive(Clone, Default)]
struct Leaders(Arc<Mutex<(BTreeMap<(u64, u64), u64>, Vec<String>)>>);

struct Watch {
    store_id: u64,
    leaders: Leaders,
}

impl RegionObserver for Watch {
    fn on_region_event(&self, event: &RegionEvent) {
        if let RegionEvent::BecameLeader { region, term } = event {
            let (known, wrong) = &mut *self.leaders.0.lock();
            let first = *known.entry((region.id, *term)).or_insert(self.store_id);
            if first != self.store_id {
                let id = region.id;
                wrong.push(format!("stores {first} and {} lead region {id} in term {term}", self.store_id));
            }
        }
    }
}

/// Everything.
pub(super) struct World {
    pub(super) rng: StdRng,
    /// True time, in nanoseconds.
    pub(super) now: u64,
    /// Orders what clients see.
    pub(super) stamp: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) net: Net,
    outbox: Outbox,
    pub(super) blocks: Blocks,
    pub(super) pd: SimPd,
    config: Config,
    leaders: Leaders,
    pub(super) pending: Vec<Pending>,
    pub(super) admin: Vec<(usize, String, Task<()>)>,
    pub(super) histories: BTreeMap<usize, Vec<Op>>,
    pub(super) registers: Vec<usize>,
    pub(super) unused_registers: Vec<usize>,
    pub(super) next_value: u64,
    pub(super) clients: usize,
    trace: DefaultHasher,
    verbose: bool,
    pub(super) crashes: u64,
    pub(super) snapshots: u64,
}

/// What a message says, for whoever reads a trace.
fn describe(message: &rutile_proto::raft_serverpb::RaftMessage) -> String {
    let raft: raft::eraftpb::Message =
        protobuf::Message::parse_from_bytes(&message.message).unwrap_or_default();
    let entries: Vec<u64> = raft.entries.iter().map(|e| e.index).collect();
    format!(
        "{:?} of region {} peers {} -> {} term {} log term {} index {} commit {} entries {entries:?} reject {} gone {} extra {:?}",
        raft.get_msg_type(),
        message.region_id,
        message.from_peer.map_or(0, |p| p.id),
        message.to_peer.map_or(0, |p| p.id),
        raft.term,
        raft.log_term,
        raft.index,
        raft.commit,
        raft.reject,
        message.is_tombstone,
        message.extra_msg.as_ref().map(|e| e.r#type())
    )
}

impl World {
    /// `stores` stores; the first three have a peer of the only region.
    pub(super) fn new(seed: u64, stores: usize, bug: Option<Bug>) -> Self {
        super::begin(bug);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut config = Config::default();
        config.engine.block_cache_size = ByteSize::mib(4);
        config.engine.write_buffer_size = ByteSize::mib(8);
        config.engine.background_jobs = 1;
        config.raft_log.file_size = ByteSize(64 << 10);
        config.raft_log.purge_threshold = ByteSize(128 << 10);
        config.raft.tick = Span::ms(10);
        config.raft.hibernate_ticks = if rng.random_bool(0.6) { 8 } else { 0 };
        config.raft.leaderless_max = Span::ms(500);
        config.raft.store_threads = rng.random_range(1..3);
        config.raft.apply_threads = rng.random_range(1..3);
        let mut unused: Vec<usize> = (0..REGISTERS_MAX).collect();
        unused.shuffle(&mut rng);
        let registers = unused.split_off(REGISTERS_MAX - REGISTERS);
        let mut world = World {
            rng,
            now: 0,
            stamp: 0,
            nodes: Vec::new(),
            net: Net::default(),
            outbox: Outbox::default(),
            blocks: Blocks::new(&config.raft_log),
            pd: SimPd::default(),
            config,
            leaders: Leaders::default(),
            pending: Vec::new(),
            admin: Vec::new(),
            histories: BTreeMap::new(),
            registers,
            unused_registers: unused,
            next_value: 1,
            clients: 4,
            trace: DefaultHasher::new(),
            verbose: std::env::var_os("SIM_TRACE").is_some(),
            crashes: 0,
            snapshots: 0,
        };
        let peer = |id| metapb::Peer { id: 10 + id, store_id: id, ..Default::default() };
        let region = metapb::Region {
            id: 2,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
            peers: (1..=3).map(peer).collect(),
            ..Default::default()
        };
        for id in 1..=stores as u64 {
            world.add_node(id, (id <= 3).then_some(&region));
        }
        world
    }

    fn add_node(&mut self, id: u64, first: Option<&metapb::Region>) {
        let dir = temporary_dir();
        if let Some(region) = first {
            let engine = Engine::open(&dir.path().join("db"), &self.config.engine).expect("an engine");
            bootstrap::write_first_region(&engine, region).expect("a first region");
        }
        self.nodes.push(Node {
            id,
            dir,
            clock: Arc::new(AtomicU64::new(self.rng.random_range(0..1_000_000 * MS))),
            rate: self.rng.random_range(960_000..1_040_000),
            paused_until: 0,
            restart_at: 0,
            live: None,
        });
        self.start(self.nodes.len() - 1);
    }

    /// Notes that something happens.
    pub(super) fn note(&mut self, what: &str, numbers: &[u64]) {
        self.trace.write(what.as_bytes());
        numbers.iter().for_each(|n| self.trace.write_u64(*n));
        if self.verbose {
            eprintln!("{:>9.3} ms {what} {numbers:?}", self.now as f64 / MS as f64);
        }
    }

    /// What distinguishes this run from others.
    pub(super) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Starts a store that does not run. It may crash on the way.
    pub(super) fn start(&mut self, i: usize) {
        let node = &self.nodes[i];
        let (dir, id) = (node.dir.path().to_owned(), node.id);
        self.be_another();
        let fs = LossyFs::default();
        let log = RaftLog::open_on(&dir.join("raft"), &self.config.raft_log, fs.clone());
        let log = log.unwrap_or_else(|e| panic!("the logs of store {id} do not open: {e}"));
        let engine = Engine::open(&dir.join("db"), &self.config.engine);
        let engine = engine.unwrap_or_else(|e| panic!("store {id} does not open: {e}"));
        let options = StoreOptions {
            store_id: id,
            config: self.config.raft.clone(),
            engine: engine.clone(),
            raft_log: log.clone(),
            pd: Arc::new(self.pd.clone()),
            transport: Arc::new(Sender(Arc::clone(&self.outbox))),
            start_time_s: 0,
        };
        let clock = Clock::manual(Arc::clone(&node.clock));
        let seed = self.rng.random();
        self.note("start", &[id]);
        let assembled = catch_unwind(AssertUnwindSafe(|| RaftStore::assemble(options, clock, seed)));
        match assembled {
            Ok(Ok((store, machines))) => {
                store.observe(Arc::new(Watch { store_id: id, leaders: self.leaders.clone() }));
                let router = store.router();
                let store = Arc::new(store);
                self.nodes[i].live = Some(Live { store, engine, log, machines, router, fs });
            }
            Ok(Err(error)) => panic!("store {id} does not start: {error}"),
            Err(panic) if panic.is::<Crash>() => {
                self.switch_off(&fs);
                let image = engine.image().expect("files can be copied");
                drop((engine, log));
                image.restore().expect("files can be moved");
                self.nodes[i].restart_at = self.now + 50 * MS;
                self.note("crash at start", &[id]);
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Ends a store as a loss of power would.
    pub(super) fn crash(&mut self, i: usize, away: u64) {
        let Some(live) = self.nodes[i].live.take() else { return };
        let id = self.nodes[i].id;
        self.note("crash", &[id]);
        self.crashes += 1;
        self.switch_off(&live.fs);
        let image = live.engine.image().expect("files can be copied");
        let weak = live.engine.downgrade();
        let gone: Vec<Pending> = {
            let (gone, kept) = self.pending.drain(..).partition(|p| p.node == i);
            self.pending = kept;
            gone
        };
        for pending in gone {
            self.finish(pending.register, pending.write, pending.start, &Outcome::Unknown);
        }
        self.admin.retain(|(node, ..)| *node != i);
        self.outbox.lock().retain(|(m, _)| ends(m).0 != id);
        self.net.forget_snapshots_of(id);
        drop(live);
        assert!(weak.upgrade().is_none(), "somebody holds the engine of store {id}");
        image.restore().expect("files can be moved");
        self.nodes[i].restart_at = self.now + away;
        for j in 0..self.nodes.len() {
            if self.rng.random_bool(0.8)
                && let Some(live) = &self.nodes[j].live
            {
                live.router.store_unreachable(id);
            }
        }
    }

    pub(super) fn store(&self, i: usize) -> Option<&Arc<RaftStore>> {
        self.nodes[i].live.as_ref().map(|live| &live.store)
    }

    pub(super) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].live.is_some()).collect()
    }

    pub(super) fn index_of(&self, store_id: u64) -> usize {
        self.nodes.iter().position(|n| n.id == store_id).expect("a store of the simulation")
    }

    /// The store that leads the region of a key in the newest term, and the region as it knows it.
    pub(super) fn leader(&self, key: &[u8]) -> Option<(usize, Arc<metapb::Region>)> {
        let leads = |i: usize| {
            let store = self.store(i)?;
            let region = store.region_of_key(key)?;
            let (_, published) = store.ctx.registry.check(&store.context_of(&region)).ok()?;
            let version = published.region.region_epoch.unwrap_or_default().version;
            Some(((version, published.term), i, Arc::clone(&published.region)))
        };
        let newest = self.running().into_iter().filter_map(leads).max_by_key(|(newest, ..)| *newest);
        newest.map(|(_, i, region)| (i, region))
    }

    /// Lets something be done by a store; what comes of it is seen later.
    pub(super) fn ask(&mut self, i: usize, what: String, task: impl Future<Output = ()> + Send + 'static) {
        self.admin.push((i, what, Box::pin(task)));
    }

    /// A little time passes, in which some parts of some stores do some of their work.
    pub(super) fn turn(&mut self) {
        let step = self.rng.random_range(300_000..1_700_000);
        self.now += step;
        for node in &self.nodes {
            node.clock.fetch_add(step / 1000 * node.rate / 1000, Ordering::Relaxed);
        }
        for i in 0..self.nodes.len() {
            if self.nodes[i].live.is_none() && self.nodes[i].restart_at <= self.now {
                self.start(i);
            }
        }
        self.deliver();
        let mut order = self.running();
        order.shuffle(&mut self.rng);
        for i in order {
            if self.nodes[i].paused_until <= self.now {
                self.pump_store(i);
            }
        }
        self.placement_driver();
        self.collect();
        self.poll_all();
        while self.pending.len() < self.clients && self.rng.random_bool(0.5) {
            self.operate();
        }
        if let Some(wrong) = self.leaders.0.lock().1.pop() {
            panic!("{wrong}");
        }
    }

    /// The parts of a store in some order, each with some of its messages.
    fn pump_store(&mut self, i: usize) {
        self.be_another();
        let Some(live) = &self.nodes[i].live else { return };
        let (loops, appliers) = (live.machines.loops.len(), live.machines.appliers.len());
        let mut parts: Vec<usize> = (0..=loops + appliers).collect();
        parts.shuffle(&mut self.rng);
        for part in parts {
            if self.rng.random_bool(0.3) {
                continue;
            }
            let limit = *[1, 3, 4096].get(self.rng.random_range(0..3)).expect("three");
            let Some(live) = &mut self.nodes[i].live else { return };
            let machines = &mut live.machines;
            let has_work = match part {
                0 => machines.region_worker.has_work(),
                p if p <= loops => machines.loops[p - 1].has_work(),
                p => machines.appliers[p - loops - 1].has_work(),
            };
            if !has_work {
                continue;
            }
            let result = catch_unwind(AssertUnwindSafe(|| match part {
                0 => machines.region_worker.pump(),
                p if p <= loops => {
                    let machine = &mut machines.loops[p - 1];
                    machine.take(limit) && machine.round().is_ok()
                }
                p => machines.appliers[p - loops - 1].pump(None, limit),
            }));
            let id = self.nodes[i].id;
            self.note("step", &[id, part as u64, limit as u64]);
            match result {
                Ok(goes_on) => {
                    let failure = self.nodes[i].live.as_ref().and_then(|l| l.engine.failure());
                    assert!(goes_on && failure.is_none(), "store {id} fails: {failure:?}");
                }
                Err(panic) if panic.is::<Crash>() => {
                    let away = self.rng.random_range(MS..500 * MS);
                    return self.crash(i, away);
                }
                Err(panic) => resume_unwind(panic),
            }
        }
    }

    /// What the stores have sent goes into the network.
    fn collect(&mut self) {
        let sent = std::mem::take(&mut *self.outbox.lock());
        for (message, snapshot) in sent {
            let ends = ends(&message);
            let (is_snapshot, region_id) = (snapshot.is_some(), message.region_id);
            if self.verbose {
                eprintln!("                {}", describe(&message));
            }
            self.note("send", &[ends.0, ends.1, region_id, u64::from(crc32fast::hash(&message.message))]);
            let lost = self.net.take(&mut self.rng, self.now, message, snapshot);
            let to = lost.and_then(|m| m.to_peer);
            if let (Some(to), Some(live)) = (to, &self.nodes[self.index_of(ends.0)].live) {
                if is_snapshot {
                    live.router.snapshot_sent(region_id, to.id, false);
                } else if self.rng.random_bool(0.3) {
                    live.router.unreachable(region_id, to.id);
                }
            }
        }
    }

    fn deliver(&mut self) {
        for parcel in self.net.due(self.now) {
            let (from, to) = ends(&parcel.message);
            if self.net.is_cut(from, to) && parcel.snapshot.is_none() {
                continue;
            }
            let region_id = parcel.message.region_id;
            if self.verbose {
                eprintln!("                {}", describe(&parcel.message));
            }
            let target = &self.nodes[self.index_of(to)].live;
            let mut arrived = false;
            match (target, parcel.snapshot) {
                (Some(target), None) => target.router.step(parcel.message),
                (target, Some(source)) => {
                    let peer_id = parcel.message.to_peer.map_or(0, |p| p.id);
                    if let Some(target) = target.as_ref().filter(|_| !self.net.is_cut(from, to)) {
                        // Sometimes the connection ends before the last chunk.
                        let chunks = source.chunks().map(|chunk| chunk.expect("the engine can be read"));
                        let all: Vec<Bytes> = chunks.collect();
                        let count = if self.rng.random_bool(0.1) { all.len() - 1 } else { all.len() };
                        let received =
                            target.router.receive_snapshot(parcel.message, all.into_iter().take(count));
                        arrived = received.is_ok();
                        self.snapshots += u64::from(arrived);
                    } else {
                        drop(source);
                    }
                    if let Some(sender) = &self.nodes[self.index_of(from)].live {
                        sender.router.snapshot_sent(region_id, peer_id, arrived);
                    }
                }
                (None, None) => {}
            }
            self.note("arrive", &[from, to, region_id, parcel.number]);
        }
    }

    /// It hears of regions, and tells peers that are no members any more.
    fn placement_driver(&mut self) {
        for node in &mut self.nodes {
            let Some(live) = &mut node.live else { continue };
            while live.machines.size_checks.try_recv().is_ok() {}
            while let Ok(event) = live.machines.pd_events.try_recv() {
                match event {
                    PdEvent::Heartbeat { region_id } => {
                        let known = live.store.ctx.registry.get(region_id).map(|h| h.published());
                        known.filter(|p| p.is_leader).into_iter().for_each(|p| self.pd.heard(&p.region));
                    }
                    PdEvent::IsMember { region_id, peer } => {
                        let region = self.pd.region(region_id);
                        let gone = region.and_then(|region| worker::pd::gone(&region, peer));
                        gone.into_iter().for_each(|gone| live.router.step(gone));
                    }
                    PdEvent::Split { .. } => {}
                }
            }
        }
    }

    /// The thread acts as another store now.
    pub(super) fn be_another(&self) {
        self.blocks.forget();
    }

    /// Goes on until something holds.
    pub(super) fn until(&mut self, what: &str, mut holds: impl FnMut(&World) -> bool) {
        let deadline = self.now + 60_000 * MS;
        while !holds(self) {
            assert!(self.now < deadline, "in vain waited until {what}");
            self.turn();
        }
    }

    /// Goes on for a while.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now + ms * MS;
        while self.now < end {
            self.turn();
        }
    }

    /// Moves a store's clock forward.
    pub(super) fn jump(&self, i: usize, by: u64) {
        self.nodes[i].clock.fetch_add(by, Ordering::Relaxed);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Futures and snapshots hold engines: they go before the directories.
        self.pending.clear();
        self.admin.clear();
        self.net.parcels.clear();
        self.outbox.lock().clear();
        for node in &mut self.nodes {
            drop(node.live.take());
        }
        super::end();
    }
}
