//! A raft group over a small ordered store: propose, read, watch.
//!
//! One to five members. The leader alone serves: it begins once it has applied an entry of its own term, and goes on while
//! it holds the lease, which a quorum renews with every heartbeat.

pub mod command;
pub mod etcd;
mod lease;
mod log_file;
mod node;
mod raft_log;
pub mod state;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use prost::Message as _;
use raft::eraftpb::Message;
use tokio::sync::{mpsc, oneshot, watch};

use self::command::{Command, Op, Outcome, SystemBatch};
use self::lease::LeaderLease;
use self::node::{Node, Request};
use self::raft_log::RaftLog;
use self::state::State;
use crate::error::{Error, Result};

/// Requests that may wait for the raft thread.
const QUEUE_MAX: usize = 4096;
/// Larger commands are refused.
pub const COMMAND_SIZE_BYTES_MAX: usize = 16 << 20;
/// The shortest time without a leader after which a member stands for election, in ticks.
const ELECTION_TICKS: u64 = 20;
/// A leader's heartbeats, in ticks.
const HEARTBEAT_TICKS: u64 = 3;

/// Carries raft messages to the other members. Messages may be lost, doubled and reordered.
pub trait Outbox: Send {
    /// Takes a message for the member `message.to`; never blocks. For a snapshot, the inbox is told later whether it went out.
    fn send(&mut self, message: Message);
}

/// How to open a group.
pub struct Options {
    /// This member's id in the group.
    pub raft_id: u64,
    /// All members' ids; used when the directory is made.
    pub voters: Vec<u64>,
    /// The log is replaced by a snapshot when it is longer.
    pub log_size_bytes_max: u64,
    /// Without news of a leader for so long to twice as long, a member stands for election.
    pub election_timeout: Duration,
    /// Towards the other members.
    pub outbox: Box<dyn Outbox>,
}

/// Who leads, as this member knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// The newest raft term.
    pub term: u64,
    /// The leader's raft id; 0 = not known.
    pub leader: u64,
    /// Whether this member leads and has applied everything that was acknowledged before its term.
    pub leading: bool,
}

/// Numbers of the group for metrics and status.
#[derive(Debug, Default)]
pub struct GroupStats {
    /// Index of the last entry in the log.
    pub last_index: AtomicU64,
    /// Index up to which entries are applied.
    pub applied_index: AtomicU64,
    /// Bytes of log and snapshot.
    pub size_bytes: AtomicU64,
    /// Proposals taken.
    pub proposals: AtomicU64,
    /// Messages sent to other members.
    pub messages_sent: AtomicU64,
    /// Messages of other members taken.
    pub messages_received: AtomicU64,
    /// Snapshots installed.
    pub snapshots_installed: AtomicU64,
    /// Times this member became leader.
    pub elections_won: AtomicU64,
    /// Writes to the log with a sync.
    pub syncs: AtomicU64,
    /// Microseconds these took together.
    pub sync_us: AtomicU64,
}

struct Shared {
    state: RwLock<State>,
    role: watch::Sender<Role>,
    lease: LeaderLease,
    revision: watch::Sender<i64>,
    stats: GroupStats,
}

/// Towards the raft thread, for those who carry messages.
#[derive(Clone)]
pub struct Inbox {
    requests: mpsc::Sender<Request>,
}

impl Inbox {
    /// A message of another member; dropped when too many wait.
    pub fn step(&self, message: Message) {
        drop(self.requests.try_send(Request::Step(Box::new(message))));
    }

    /// A member could not be reached.
    pub fn unreachable(&self, raft_id: u64) {
        drop(self.requests.try_send(Request::Unreachable(raft_id)));
    }

    /// Whether a snapshot went out.
    pub async fn snapshot_sent(&self, raft_id: u64, ok: bool) {
        drop(self.requests.send(Request::SnapshotSent(raft_id, ok)).await);
    }

    /// The same from a thread that must not wait.
    pub fn snapshot_sent_now(&self, raft_id: u64, ok: bool) {
        drop(self.requests.try_send(Request::SnapshotSent(raft_id, ok)));
    }
}

/// A handle to the group; a clone may be bound to a term. The group stops with its last handle.
#[derive(Clone)]
pub struct Replicated {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    thread: Arc<Thread>,
    /// Proposals are refused in any other term; 0 = in none.
    term: u64,
}

struct Thread {
    handle: Mutex<Option<JoinHandle<()>>>,
    requests: mpsc::Sender<Request>,
}

/// For a group of one: nobody to send to.
struct Nobody;

impl Outbox for Nobody {
    fn send(&mut self, message: Message) {
        tracing::error!(to = message.to, "a group of one has a message for another member");
    }
}

impl Replicated {
    /// Opens or creates a group of one in `dir` and leads it: everything acknowledged before is there when this returns.
    pub fn open(dir: &Path, log_size_bytes_max: u64) -> Result<Self> {
        let options = Options {
            raft_id: 1,
            voters: vec![1],
            log_size_bytes_max,
            election_timeout: Duration::from_secs(1),
            outbox: Box::new(Nobody),
        };
        Self::open_group(dir, mpsc::channel(QUEUE_MAX), options)
    }

    /// The channel to a group that will be opened: what carries messages needs its inbox before.
    #[must_use]
    pub fn channel() -> (Inbox, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(QUEUE_MAX);
        (Inbox { requests }, receiver)
    }

    /// Opens or creates a member of a group in `dir`.
    pub fn open_member(
        dir: &Path,
        (inbox, receiver): (Inbox, mpsc::Receiver<Request>),
        options: Options,
    ) -> Result<Self> {
        Self::open_group(dir, (inbox.requests, receiver), options)
    }

    fn open_group(
        dir: &Path,
        (requests, receiver): (mpsc::Sender<Request>, mpsc::Receiver<Request>),
        options: Options,
    ) -> Result<Self> {
        let fresh = !dir.exists();
        let (log, image) = RaftLog::open(dir, &options.voters)?;
        if log.voters() != options.voters {
            return Err(Error::Config(format!(
                "the raft group in {} has {} members, the configuration {}",
                dir.display(),
                log.voters().len(),
                options.voters.len()
            )));
        }
        let state = State::from_image(image);
        let (revision, _) = watch::channel(state.revision());
        let alone = options.voters.len() == 1;
        let tick = options.election_timeout / ELECTION_TICKS as u32;
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            role: watch::channel(Role::default()).0,
            // Two ticks less, for followers count ticks and not time, and a tenth less for clocks that differ.
            lease: LeaderLease::new(alone, tick * (ELECTION_TICKS as u32 - 2) * 9 / 10),
            revision,
            stats: GroupStats::default(),
        });
        let mut node = Node::new(options, log, shared.clone(), fresh)?;
        if alone {
            node.lead()?;
        } else {
            spawn_ticker(tick, requests.clone())?;
        }
        let handle = std::thread::Builder::new()
            .name("pd-raft".into())
            .spawn(move || node.run(receiver))
            .map_err(Error::io(dir))?;
        let thread = Thread { handle: Mutex::new(Some(handle)), requests: requests.clone() };
        Ok(Replicated { shared, requests, thread: Arc::new(thread), term: 0 })
    }

    /// The same group, for work that belongs to one term: proposals are refused in any other.
    #[must_use]
    pub fn in_term(&self, term: u64) -> Arc<Self> {
        Arc::new(Replicated { term, ..self.clone() })
    }

    /// The term this handle is bound to; 0 = none.
    #[must_use]
    pub fn bound_term(&self) -> u64 {
        self.term
    }

    /// Replicates a command and applies it. Not cancel-safe: once called, the command may take effect.
    pub async fn propose(&self, op: Op) -> Result<Outcome> {
        let data = encode(op)?;
        let (sender, receiver) = oneshot::channel();
        let reply = Box::new(move |result| drop(sender.send(result)));
        let request = Request::Propose { term: self.term, data, reply };
        self.requests.send(request).await.map_err(|_| Error::Stopping)?;
        receiver.await.map_err(|_| Error::Undetermined("the raft thread ended".into()))?
    }

    /// The same without waiting: `reply` is called on the raft thread, which it must not block.
    pub fn propose_with(&self, op: Op, reply: impl FnOnce(Result<Outcome>) + Send + 'static) {
        let data = match encode(op) {
            Ok(data) => data,
            Err(error) => return reply(Err(error)),
        };
        let request = Request::Propose { term: self.term, data, reply: Box::new(reply) };
        if let Err(error) = self.requests.try_send(request) {
            let (mpsc::error::TrySendError::Full(request) | mpsc::error::TrySendError::Closed(request)) =
                error;
            if let Request::Propose { reply, .. } = request {
                reply(Err(Error::Stopping));
            }
        }
    }

    /// Changes the placement driver's own records; false when a condition did not hold.
    pub async fn write_system(&self, batch: SystemBatch) -> Result<bool> {
        match self.propose(Op::System(batch)).await? {
            Outcome::System { applied } => Ok(applied),
            other => Err(Error::Undetermined(format!("a system batch gave {other:?}"))),
        }
    }

    /// Reads the newest state of this member. The guard must not be held across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read()
    }

    /// One of the placement driver's own records.
    #[must_use]
    pub fn system_get(&self, key: &[u8]) -> Option<Bytes> {
        self.read().system_get(key)
    }

    /// A big-endian number among the placement driver's own records; 0 when there is none.
    #[must_use]
    pub fn system_get_u64(&self, key: &[u8]) -> u64 {
        self.system_get(key)
            .and_then(|value| value.as_ref().try_into().ok().map(u64::from_be_bytes))
            .unwrap_or(0)
    }

    /// Who leads, as this member knows it.
    #[must_use]
    pub fn role(&self) -> Role {
        *self.shared.role.borrow()
    }

    /// Tells every change of the role.
    #[must_use]
    pub fn roles(&self) -> watch::Receiver<Role> {
        self.shared.role.subscribe()
    }

    /// Whether nobody else can lead at this moment: this member leads in `term` and a quorum confirmed it lately.
    #[must_use]
    pub fn holds_lease(&self, term: u64) -> bool {
        self.shared.lease.holds(term)
    }

    /// Numbers for metrics and status.
    #[must_use]
    pub fn stats(&self) -> &GroupStats {
        &self.shared.stats
    }

    /// Tells every new revision of the etcd service.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<i64> {
        self.shared.revision.subscribe()
    }

    /// Hands the lead to another member, the one that is most up to date when `to` is 0; returns once this member does
    /// not lead any more or `timeout` is over.
    pub async fn transfer_leader(&self, to: u64, timeout: Duration) -> bool {
        let mut roles = self.roles();
        drop(self.requests.send(Request::TransferLeader(to)).await);
        let gone = roles.wait_for(|role| !role.leading);
        tokio::time::timeout(timeout, gone).await.is_ok_and(|role| role.is_ok())
    }

    /// Answers what is under way and stops the thread.
    pub fn shutdown(&self) {
        self.thread.stop();
    }
}

impl Thread {
    fn stop(&self) {
        let Some(thread) = self.handle.lock().take() else { return };
        // A full queue drains; the raft thread never waits for us.
        while let Err(mpsc::error::TrySendError::Full(_)) = self.requests.try_send(Request::Stop) {
            std::thread::yield_now();
        }
        if thread.join().is_err() {
            tracing::error!("the raft thread panicked");
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn_ticker(tick: Duration, requests: mpsc::Sender<Request>) -> Result<()> {
    let tick_until_closed = move || {
        loop {
            std::thread::sleep(tick);
            if let Err(mpsc::error::TrySendError::Closed(_)) = requests.try_send(Request::Tick) {
                return;
            }
        }
    };
    let spawned = std::thread::Builder::new().name("pd-tick".into()).spawn(tick_until_closed);
    spawned.map(drop).map_err(Error::io("pd-tick"))
}

fn encode(op: Op) -> Result<Vec<u8>> {
    let data = Command { op: Some(op) }.encode_to_vec();
    if data.len() > COMMAND_SIZE_BYTES_MAX {
        return Err(Error::Invalid(format!("request is too large: {} bytes", data.len())));
    }
    Ok(data)
}
