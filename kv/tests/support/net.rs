//! The network between the stores of a test: every message passes the filters, which drop, delay, repeat or reorder it.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use raft::eraftpb::{Message, MessageType};
use rutile_kv::raftstore::{RaftRouter, SnapshotSource, Transport};
use rutile_proto::raft_serverpb::RaftMessage;

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Pass,
    Drop,
    Twice,
    /// Arrives later, perhaps behind messages that were sent after it.
    After(Duration),
}

type Filter = Arc<dyn Fn(&RaftMessage) -> Fate + Send + Sync>;

#[derive(Default)]
struct State {
    routers: Mutex<BTreeMap<u64, RaftRouter>>,
    filters: Mutex<Vec<(&'static str, Filter)>>,
    late: Mutex<BinaryHeap<Late>>,
    wake: Condvar,
    snapshots: AtomicU64,
}

/// The network. Cheap to clone.
#[derive(Clone, Default)]
pub struct Net(Arc<State>);

struct Late {
    at: Instant,
    number: u64,
    message: RaftMessage,
}

impl PartialEq for Late {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Late {}
impl PartialOrd for Late {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Late {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The stores between which a message travels.
pub fn ends(message: &RaftMessage) -> (u64, u64) {
    (message.from_peer.map_or(0, |p| p.store_id), message.to_peer.map_or(0, |p| p.store_id))
}

/// The kind of a raft message.
pub fn kind(message: &RaftMessage) -> MessageType {
    let raft: Message = protobuf::Message::parse_from_bytes(&message.message).unwrap_or_default();
    raft.get_msg_type()
}

impl Net {
    pub fn new() -> Self {
        let net = Net::default();
        let state = Arc::downgrade(&net.0);
        std::thread::spawn(move || {
            while let Some(state) = state.upgrade() {
                Net(state).deliver_late();
            }
        });
        net
    }

    /// Adds a filter; a name is used to remove it.
    pub fn filter(&self, name: &'static str, filter: impl Fn(&RaftMessage) -> Fate + Send + Sync + 'static) {
        self.0.filters.lock().push((name, Arc::new(filter)));
    }

    pub fn remove_filter(&self, name: &'static str) {
        self.0.filters.lock().retain(|(n, _)| *n != name);
    }

    /// Nothing goes in or out of the stores.
    pub fn isolate(&self, stores: &[u64]) {
        let stores = stores.to_vec();
        self.filter("isolate", move |m| {
            let (from, to) = ends(m);
            if stores.contains(&from) == stores.contains(&to) { Fate::Pass } else { Fate::Drop }
        });
    }

    /// Ends all partitions and other faults.
    pub fn heal(&self) {
        self.0.filters.lock().clear();
    }

    /// Snapshots that have arrived.
    pub fn snapshots(&self) -> u64 {
        self.0.snapshots.load(Ordering::SeqCst)
    }

    /// The transport of a store.
    pub fn transport(&self, store_id: u64) -> Arc<dyn Transport> {
        Arc::new(NetTransport { store_id, net: self.clone() })
    }

    fn fate(&self, message: &RaftMessage) -> Vec<Fate> {
        let filters: Vec<Filter> = self.0.filters.lock().iter().map(|(_, f)| Arc::clone(f)).collect();
        filters.iter().map(|f| f(message)).filter(|fate| *fate != Fate::Pass).collect()
    }

    fn router(&self, store_id: u64) -> Option<RaftRouter> {
        self.0.routers.lock().get(&store_id).cloned()
    }

    fn deliver(&self, message: RaftMessage) {
        match self.router(ends(&message).1) {
            Some(router) => router.step(message),
            None => self.lost(&message),
        }
    }

    fn lost(&self, message: &RaftMessage) {
        if let (Some(router), Some(to)) = (self.router(ends(message).0), message.to_peer) {
            router.unreachable(message.region_id, to.id);
        }
    }

    fn send(&self, message: RaftMessage) {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let fates = self.fate(&message);
        if fates.contains(&Fate::Drop) {
            self.lost(&message);
            return;
        }
        let delay = fates.iter().find_map(|f| if let Fate::After(d) = f { Some(*d) } else { None });
        if fates.contains(&Fate::Twice) {
            self.deliver(message.clone());
        }
        match delay {
            Some(delay) => {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                self.0.late.lock().push(Late { at: Instant::now() + delay, number, message });
                self.0.wake.notify_one();
            }
            None => self.deliver(message),
        }
    }

    fn deliver_late(&self) {
        let mut late = self.0.late.lock();
        let now = Instant::now();
        let mut due = Vec::new();
        while late.peek().is_some_and(|l| l.at <= now) {
            due.extend(late.pop());
        }
        if due.is_empty() {
            let until = late.peek().map_or(now + Duration::from_millis(100), |l| l.at);
            self.0.wake.wait_until(&mut late, until.min(now + Duration::from_millis(100)));
            return;
        }
        drop(late);
        due.into_iter().for_each(|late| self.deliver(late.message));
    }
}

struct NetTransport {
    store_id: u64,
    net: Net,
}

impl Transport for NetTransport {
    fn start(&self, router: RaftRouter) {
        self.net.0.routers.lock().insert(self.store_id, router);
    }

    fn send(&self, message: RaftMessage) {
        self.net.send(message);
    }

    fn send_snapshot(&self, message: RaftMessage, source: SnapshotSource) {
        let net = self.net.clone();
        let Some(own) = net.router(self.store_id) else { return };
        let (region_id, to) = (message.region_id, message.to_peer.unwrap_or_default());
        let dropped = net.fate(&message).contains(&Fate::Drop);
        std::thread::spawn(move || {
            let target = net.router(to.store_id).filter(|_| !dropped);
            let chunks = source.chunks().map(|chunk| chunk.expect("the engine can be read"));
            let arrived = target.is_some_and(|target| target.receive_snapshot(message, chunks).is_ok());
            net.0.snapshots.fetch_add(u64::from(arrived), Ordering::SeqCst);
            own.snapshot_sent(region_id, to.id, arrived);
        });
    }

    fn stop(&self) {
        let others: Vec<RaftRouter> = {
            let mut routers = self.net.0.routers.lock();
            routers.remove(&self.store_id);
            routers.values().cloned().collect()
        };
        // As a broken connection would tell.
        others.iter().for_each(|other| other.store_unreachable(self.store_id));
    }
}
