//! A raft group over a small ordered store: propose, read, watch.
//!
//! One member now; the log, the snapshots and the state machine are those of a group of any size, what is missing for
//! three is a transport for the messages.

pub mod command;
pub mod etcd;
mod log_file;
mod node;
mod raft_log;
pub mod state;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot, watch};

use self::command::{Command, Op, Outcome, SystemBatch};
use self::node::{Node, Request};
use self::raft_log::RaftLog;
use self::state::State;
use crate::error::{Error, Result};

/// Proposals that may wait for the raft thread.
const QUEUE_MAX: usize = 1024;
/// Larger commands are refused.
pub const COMMAND_SIZE_BYTES_MAX: usize = 16 << 20;
/// The only member's raft id.
const MEMBER_RAFT_ID: u64 = 1;

struct Shared {
    state: RwLock<State>,
    term: AtomicU64,
    revision: watch::Sender<i64>,
}

/// A handle to the group.
pub struct Replicated {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Replicated {
    /// Opens or creates the group in `dir` and leads it: everything acknowledged before is there when this returns.
    pub fn open(dir: &Path, log_size_bytes_max: u64) -> Result<Self> {
        let (log, image) = RaftLog::open(dir, &[MEMBER_RAFT_ID])?;
        let state = State::from_image(image);
        let (revision, _) = watch::channel(state.revision());
        let shared = Arc::new(Shared { state: RwLock::new(state), term: AtomicU64::new(0), revision });
        let mut node = Node::new(MEMBER_RAFT_ID, log, shared.clone(), log_size_bytes_max)?;
        node.lead()?;
        let (requests, receiver) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("pd-raft".into())
            .spawn(move || node.run(receiver))
            .map_err(Error::io(dir))?;
        Ok(Replicated { shared, requests, thread: Mutex::new(Some(thread)) })
    }

    /// Replicates a command and applies it. Not cancel-safe: once called, the command may take effect.
    pub async fn propose(&self, op: Op) -> Result<Outcome> {
        let data = encode(op)?;
        let (sender, receiver) = oneshot::channel();
        let reply = Box::new(move |result| drop(sender.send(result)));
        self.requests.send(Request::Propose(data, reply)).await.map_err(|_| Error::Stopping)?;
        receiver.await.map_err(|_| Error::Undetermined("the raft thread ended".into()))?
    }

    /// The same without waiting: `reply` is called on the raft thread, which it must not block.
    pub fn propose_with(&self, op: Op, reply: impl FnOnce(Result<Outcome>) + Send + 'static) {
        let data = match encode(op) {
            Ok(data) => data,
            Err(error) => return reply(Err(error)),
        };
        if let Err(error) = self.requests.try_send(Request::Propose(data, Box::new(reply))) {
            let (mpsc::error::TrySendError::Full(request) | mpsc::error::TrySendError::Closed(request)) =
                error;
            if let Request::Propose(_, reply) = request {
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

    /// Reads the newest state. The guard must not be held across an await.
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

    /// The raft term, for the headers of the etcd service.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.shared.term.load(Ordering::Acquire)
    }

    /// Tells every new revision of the etcd service.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<i64> {
        self.shared.revision.subscribe()
    }

    /// Answers what is under way and stops the thread.
    pub fn shutdown(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        let requests = self.requests.clone();
        // A full queue drains; the raft thread never waits for us.
        while let Err(mpsc::error::TrySendError::Full(_)) = requests.try_send(Request::Stop) {
            std::thread::yield_now();
        }
        if thread.join().is_err() {
            tracing::error!("the raft thread panicked");
        }
    }
}

impl Drop for Replicated {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn encode(op: Op) -> Result<Vec<u8>> {
    let data = Command { op: Some(op) }.encode_to_vec();
    if data.len() > COMMAND_SIZE_BYTES_MAX {
        return Err(Error::Invalid(format!("request is too large: {} bytes", data.len())));
    }
    Ok(data)
}
