//! Deadlocks over several stores.
//!
//! The store that leads the region of the first key is the detector. All stores tell it who waits for whom, each on one stream, in order;
//! it answers the wait that closes a circle. Nobody is aborted for what was true once: the store of that wait asks all others whether
//! the rest of the circle is still there, and has been since before it asked. Since a wait in a circle never ends by itself, all of
//! it being there at one moment is the deadlock.
//!
//! The detector keeps nothing when it changes: it ends its streams, and each store tells the new one everything anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use rutile_proto::deadlock::deadlock_client::DeadlockClient;
use rutile_proto::deadlock::deadlock_server::{Deadlock, DeadlockServer};
use rutile_proto::deadlock::{
    DeadlockRequest, DeadlockRequestType, DeadlockResponse, WaitForEntriesRequest, WaitForEntriesResponse,
};
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{self, WaitForEntry};
use rutile_proto::metapb::StoreState;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use crate::metrics;
use crate::pd_client::PdClient;
use crate::raftstore::RaftKv;
use crate::txn::deadlock::{Edge, WaitForGraph, key_hash};
use crate::txn::lock_wait::LockWait;

/// Waits that began or ended and were not told yet.
const QUEUE_MAX: usize = 16_384;
/// Circles that are being looked at.
const SUSPECTS_MAX: usize = 1024;
/// Between two looks at who is the detector.
const ROLE_POLL: Duration = Duration::from_millis(100);
/// Looks without a wait after which a session ends.
const IDLE_POLLS_MAX: u32 = 100;
/// Before the next try when there is none, or when a circle was not confirmed.
const RETRY: Duration = Duration::from_millis(50);
/// Before a circle is looked at.
const SETTLE: Duration = Duration::from_millis(4);
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Who looks for circles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// This store, for one leadership.
    Own {
        region_id: u64,
        term: u64,
    },
    /// Another store.
    Other(u64),
    Unknown,
}

fn role(raft: &dyn RaftKv) -> Role {
    let region = raft.region_of_key(b"");
    match region.and_then(|region| raft.peer_state(region.id)) {
        Some(state) if state.is_leader => Role::Own { region_id: state.region.id, term: state.term },
        Some(state) => state.leader.map_or(Role::Unknown, |leader| Role::Other(leader.store_id)),
        None => Role::Unknown,
    }
}

/// What the detector knows; of one leadership.
#[derive(Default)]
struct Table {
    graph: WaitForGraph,
    of: Option<Role>,
}

/// The waits of all stores, when this store is the detector. Cheap to clone.
#[derive(Clone)]
struct Detector {
    raft: Arc<dyn RaftKv>,
    table: Arc<Mutex<Table>>,
    owners: Arc<AtomicU64>,
}

impl Detector {
    fn is_here(&self) -> bool {
        matches!(role(&*self.raft), Role::Own { .. })
    }

    /// Takes one request; `Err` when this store is not the detector (any more).
    fn handle(&self, owner: u64, request: DeadlockRequest) -> Result<Option<DeadlockResponse>, Status> {
        let role = role(&*self.raft);
        if !matches!(role, Role::Own { .. }) {
            return Err(Status::failed_precondition("this store is not the deadlock detector"));
        }
        let mut table = self.table.lock();
        if table.of.replace(role) != Some(role) {
            table.graph = WaitForGraph::default();
        }
        Ok(apply(&mut table.graph, owner, request, Instant::now()))
    }

    fn forget(&self, owner: u64) {
        self.table.lock().graph.remove_owner(owner, Instant::now());
    }

    fn new_owner(&self) -> u64 {
        self.owners.fetch_add(1, Ordering::Relaxed)
    }
}

fn apply(
    graph: &mut WaitForGraph,
    owner: u64,
    request: DeadlockRequest,
    now: Instant,
) -> Option<DeadlockResponse> {
    let tp = request.tp();
    let entry = request.entry.unwrap_or_default();
    let (waiter, holder) = (Timestamp(entry.txn), Timestamp(entry.wait_for_txn));
    match tp {
        DeadlockRequestType::CleanUpWaitFor => graph.remove(owner, waiter, holder, &entry.key),
        DeadlockRequestType::CleanUp => graph.remove_waiter(waiter),
        DeadlockRequestType::Detect => {
            let edge = Edge { holder, key: entry.key.clone(), owner, at: now };
            if let Err(mut found) = graph.add(waiter, edge) {
                found.wait_chain.pop();
                return Some(DeadlockResponse {
                    entry: Some(entry),
                    deadlock_key_hash: found.deadlock_key_hash,
                    wait_chain: found.wait_chain,
                    deadlock_key: found.deadlock_key,
                });
            }
        }
    }
    None
}

/// The RPCs between stores.
pub struct DeadlockService {
    detector: Detector,
    lock_wait: LockWait,
    stop: watch::Receiver<bool>,
}

type Answers = std::pin::Pin<Box<dyn Stream<Item = Result<DeadlockResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Deadlock for DeadlockService {
    async fn get_wait_for_entries(
        &self,
        _: Request<WaitForEntriesRequest>,
    ) -> Result<Response<WaitForEntriesResponse>, Status> {
        Ok(Response::new(WaitForEntriesResponse { entries: self.lock_wait.edges(|| ()) }))
    }

    type DetectStream = Answers;

    /// Answers until the stream ends or this store is not the detector any more.
    async fn detect(
        &self,
        request: Request<Streaming<DeadlockRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (detector, mut stop) = (self.detector.clone(), self.stop.clone());
        let mut requests = request.into_inner();
        let owner = Owner { id: detector.new_owner(), detector };
        let answers = async_stream::stream! {
            let mut role_poll = tokio::time::interval(ROLE_POLL);
            loop {
                let answer = tokio::select! {
                    request = requests.message() => match request {
                        Ok(Some(request)) => owner.detector.handle(owner.id, request),
                        Ok(None) | Err(_) => return,
                    },
                    _ = role_poll.tick() => match owner.detector.is_here() {
                        true => Ok(None),
                        false => Err(Status::failed_precondition("this store is not the deadlock detector")),
                    },
                    _ = stop.wait_for(|stop| *stop) => return,
                };
                match answer {
                    Ok(None) => {}
                    Ok(Some(found)) => yield Ok(found),
                    Err(status) => {
                        yield Err(status);
                        return;
                    }
                }
            }
        };
        Ok(Response::new(Box::pin(answers)))
    }
}

/// One stream; what it told is forgotten with it.
struct Owner {
    id: u64,
    detector: Detector,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.detector.forget(self.id);
    }
}

/// How one session with a detector ended.
enum Ended {
    /// Begin another one.
    Again,
    /// The store stops.
    Stop,
}

/// Tells the detector of this store's waits, and ends those that close circles.
pub struct DetectorLink {
    raft: Arc<dyn RaftKv>,
    pd: Arc<dyn PdClient>,
    lock_wait: LockWait,
    detector: Detector,
    events: mpsc::Receiver<DeadlockRequest>,
    suspects: mpsc::Sender<DeadlockResponse>,
}

/// Starts what a store needs to take part: its RPCs, and the tasks that tell the detector.
#[must_use]
pub fn start(
    raft: Arc<dyn RaftKv>,
    pd: Arc<dyn PdClient>,
    lock_wait: &LockWait,
    stop: &watch::Sender<bool>,
) -> (DeadlockServer<DeadlockService>, Vec<tokio::task::JoinHandle<()>>) {
    let (events_tx, events) = mpsc::channel(QUEUE_MAX);
    lock_wait.tell_to(events_tx);
    let (suspects, suspects_rx) = mpsc::channel(SUSPECTS_MAX);
    let owners = Arc::new(AtomicU64::new(1));
    let detector = Detector { raft: Arc::clone(&raft), table: Arc::default(), owners };
    let confirmer = Confirmer {
        store_id: raft.store_id(),
        pd: Arc::clone(&pd),
        lock_wait: lock_wait.clone(),
        clients: HashMap::new(),
    };
    let service =
        DeadlockService { detector: detector.clone(), lock_wait: lock_wait.clone(), stop: stop.subscribe() };
    let link = DetectorLink { raft, pd, lock_wait: lock_wait.clone(), detector, events, suspects };
    let tasks = vec![
        tokio::spawn(link.run(stop.subscribe())),
        tokio::spawn(confirmer.run(suspects_rx, stop.subscribe())),
    ];
    (DeadlockServer::new(service), tasks)
}

async fn dial(pd: &dyn PdClient, store_id: u64) -> Result<DeadlockClient<Channel>, String> {
    let store = pd.get_store(store_id).await.map_err(|e| e.to_string())?;
    let endpoint = Endpoint::from_shared(format!("http://{}", store.address)).map_err(|e| e.to_string())?;
    let endpoint = endpoint
        .connect_timeout(CALL_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE * 2);
    Ok(DeadlockClient::new(endpoint.connect_lazy()))
}

impl DetectorLink {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            // Nobody waits: nobody needs to know.
            if self.lock_wait.waiting() == 0 {
                tokio::select! {
                    event = self.events.recv() => if event.is_none() { return },
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
            let ended = tokio::select! {
                ended = self.session() => ended,
                _ = stop.wait_for(|stop| *stop) => Ended::Stop,
            };
            match ended {
                Ended::Again => tokio::time::sleep(RETRY).await,
                Ended::Stop => return,
            }
        }
    }

    async fn session(&mut self) -> Ended {
        match role(&*self.raft) {
            own @ Role::Own { .. } => self.here(own).await,
            Role::Other(store_id) => self.there(store_id).await,
            // This store has no peer of that region, or that one knows no leader.
            Role::Unknown => match self.pd.get_region(b"").await {
                Ok(Some((_, Some(leader)))) if leader.store_id != self.raft.store_id() => {
                    self.there(leader.store_id).await
                }
                _ => Ended::Again,
            },
        }
    }

    /// All waits there are; what was queued before is among them, or over.
    fn all(&mut self) -> Vec<DeadlockRequest> {
        let events = &mut self.events;
        let _ = self.lock_wait.take_lost();
        let edges = self.lock_wait.edges(|| while events.try_recv().is_ok() {});
        let detect = |entry| DeadlockRequest {
            tp: DeadlockRequestType::Detect.into(),
            entry: Some(WaitForEntry { wait_time: 0, ..entry }),
        };
        edges.into_iter().map(detect).collect()
    }

    /// This store is the detector itself.
    async fn here(&mut self, own: Role) -> Ended {
        let owner = Owner { id: self.detector.new_owner(), detector: self.detector.clone() };
        let (mut role_poll, mut idle) = (tokio::time::interval(ROLE_POLL), 0);
        let mut requests = self.all();
        loop {
            for request in requests.drain(..) {
                match owner.detector.handle(owner.id, request) {
                    Ok(found) => self.suspect(found),
                    Err(_) => return Ended::Again,
                }
            }
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => requests.push(event),
                    None => return Ended::Stop,
                },
                _ = role_poll.tick() => if role(&*self.raft) != own || self.is_over(&mut idle) {
                    return Ended::Again;
                },
            }
        }
    }

    /// Another store is the detector.
    async fn there(&mut self, store_id: u64) -> Ended {
        let Ok(mut client) = dial(&*self.pd, store_id).await else { return Ended::Again };
        let (tx, rx) = mpsc::channel(QUEUE_MAX);
        // The answer's head comes with the first request at the latest.
        let mut requests = self.all();
        let opened = tokio::time::timeout(CALL_TIMEOUT * 2, client.detect(ReceiverStream::new(rx))).await;
        let Ok(Ok(answers)) = opened else { return Ended::Again };
        let mut answers = answers.into_inner();
        let (mut poll, mut idle) = (tokio::time::interval(ROLE_POLL), 0);
        loop {
            for request in requests.drain(..) {
                if tx.try_send(request).is_err() {
                    return Ended::Again;
                }
            }
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => requests.push(event),
                    None => return Ended::Stop,
                },
                answer = answers.message() => match answer {
                    Ok(Some(found)) => self.suspect(Some(found)),
                    Ok(None) | Err(_) => return Ended::Again,
                },
                _ = poll.tick() => if self.is_over(&mut idle) {
                    return Ended::Again;
                },
            }
        }
    }

    /// Whether a session must begin anew because something was not told, or is of no use because nobody has waited for long.
    fn is_over(&self, idle_polls: &mut u32) -> bool {
        *idle_polls = if self.lock_wait.waiting() == 0 { *idle_polls + 1 } else { 0 };
        *idle_polls >= IDLE_POLLS_MAX || self.lock_wait.take_lost()
    }

    fn suspect(&self, found: Option<DeadlockResponse>) {
        if let Some(found) = found
            && let Err(mpsc::error::TrySendError::Full(found)) = self.suspects.try_send(found)
        {
            // The wait ends by its time; its transaction asks again.
            tracing::debug!(txn = found.entry.map_or(0, |e| e.txn), "too many circles to look at");
        }
    }
}

/// Makes sure that circles are there before anybody is aborted for them.
struct Confirmer {
    store_id: u64,
    pd: Arc<dyn PdClient>,
    lock_wait: LockWait,
    clients: HashMap<u64, DeadlockClient<Channel>>,
}

/// Waits seen on all stores that existed at one moment.
type Seen = std::collections::HashSet<(u64, u64, Bytes)>;

impl Confirmer {
    async fn run(mut self, mut suspects: mpsc::Receiver<DeadlockResponse>, mut stop: watch::Receiver<bool>) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = suspects.recv_many(&mut batch, SUSPECTS_MAX) => if count == 0 { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
            // The wait that closes the circle has only begun; see `look`.
            tokio::time::sleep(SETTLE).await;
            let seen = self.look().await;
            let mut doubtful = Vec::new();
            for suspect in batch.drain(..) {
                if !self.judge(&suspect, &seen) {
                    metrics::DEADLOCKS_REFUTED.inc();
                    doubtful.extend(suspect.entry);
                }
            }
            if !doubtful.is_empty() {
                let lock_wait = self.lock_wait.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(RETRY).await;
                    doubtful.iter().for_each(|wait| lock_wait.tell_again(wait));
                });
            }
        }
    }

    /// The waits of all stores that exist now, at the beginning of this call.
    async fn look(&mut self) -> Seen {
        let begun = Instant::now();
        let mut seen = Seen::new();
        let mut take = |entries: Vec<WaitForEntry>| {
            let elapsed_ms = begun.elapsed().as_millis() as u64 + 1;
            let old = entries.into_iter().filter(|entry| entry.wait_time >= elapsed_ms);
            seen.extend(old.map(|entry| (entry.txn, entry.wait_for_txn, entry.key)));
        };
        take(self.lock_wait.edges(|| ()));
        let stores = self.pd.get_all_stores().await.unwrap_or_default();
        let others =
            stores.into_iter().filter(|s| s.id != self.store_id && s.state() != StoreState::Tombstone);
        let mut asked = Vec::new();
        for store in others {
            let client = match self.clients.get(&store.id) {
                Some(client) => client.clone(),
                None => match dial(&*self.pd, store.id).await {
                    Ok(client) => self.clients.entry(store.id).or_insert(client).clone(),
                    Err(_) => continue,
                },
            };
            asked.push(ask(store.id, client));
        }
        for (store_id, answer) in futures::future::join_all(asked).await {
            match answer {
                Some(entries) => take(entries),
                // It may come back at another address.
                None => drop(self.clients.remove(&store_id)),
            }
        }
        seen
    }

    /// Ends the wait if its circle is there. `false` when that is not sure.
    fn judge(&self, suspect: &DeadlockResponse, seen: &Seen) -> bool {
        let Some(entry) = &suspect.entry else { return true };
        let is_there = |e: &WaitForEntry| seen.contains(&(e.txn, e.wait_for_txn, e.key.clone()));
        if !is_there(entry) || !suspect.wait_chain.iter().all(is_there) {
            return false;
        }
        let deadlock = kvrpcpb::Deadlock {
            lock_ts: entry.wait_for_txn,
            lock_key: entry.key.clone(),
            deadlock_key_hash: key_hash(&suspect.deadlock_key),
            deadlock_key: suspect.deadlock_key.clone(),
            wait_chain: suspect.wait_chain.iter().chain([entry]).cloned().collect(),
        };
        if self.lock_wait.fail(entry, deadlock) {
            metrics::DEADLOCKS_OVER_STORES.inc();
            tracing::debug!(
                txn = entry.txn,
                waits_for = entry.wait_for_txn,
                "a deadlock over several stores"
            );
        }
        true
    }
}

async fn ask(store_id: u64, mut client: DeadlockClient<Channel>) -> (u64, Option<Vec<WaitForEntry>>) {
    let asked = tokio::time::timeout(CALL_TIMEOUT, client.get_wait_for_entries(WaitForEntriesRequest {}));
    let answer = asked.await.ok().and_then(Result::ok);
    (store_id, answer.map(|answer| answer.into_inner().entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(tp: DeadlockRequestType, waiter: u64, holder: u64, key: &'static str) -> DeadlockRequest {
        let entry = WaitForEntry { txn: waiter, wait_for_txn: holder, key: key.into(), ..Default::default() };
        DeadlockRequest { tp: tp.into(), entry: Some(entry) }
    }

    #[test]
    fn circles_over_streams() {
        use DeadlockRequestType::{CleanUp, CleanUpWaitFor, Detect};
        let (mut graph, now) = (WaitForGraph::default(), Instant::now());
        let mut told = |owner, request| apply(&mut graph, owner, request, now);
        assert!(told(1, request(Detect, 10, 20, "a")).is_none());
        assert!(told(2, request(Detect, 20, 30, "b")).is_none());
        let found = told(3, request(Detect, 30, 10, "c")).unwrap();
        assert_eq!(found.entry.unwrap().txn, 30);
        let chain: Vec<_> = found.wait_chain.iter().map(|e| (e.txn, e.wait_for_txn, &e.key[..])).collect();
        assert_eq!(chain, [(10, 20, &b"a"[..]), (20, 30, &b"b"[..])]);
        assert_eq!((&found.deadlock_key[..], found.deadlock_key_hash), (&b"b"[..], key_hash(b"b")));
        assert!(told(1, request(CleanUpWaitFor, 10, 20, "a")).is_none());
        assert!(told(3, request(Detect, 30, 10, "c")).is_none(), "the circle is open");
        assert!(told(1, request(Detect, 10, 20, "a")).is_some());
        told(3, request(CleanUp, 30, 0, ""));
        assert!(told(1, request(Detect, 10, 20, "a")).is_none());
    }
}
