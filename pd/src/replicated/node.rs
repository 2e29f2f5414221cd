//! The thread that drives the raft group: takes proposals, persists, applies, answers.
//!
//! Order in every round: append to the log and sync, then apply, then answer. All proposals that wait are written with
//! one sync.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};
use raft::{RawNode, Ready, StateRole};
use tokio::sync::mpsc;

use super::Shared;
use super::command::{Command, Outcome};
use super::raft_log::RaftLog;
use crate::error::{Error, Result};

/// Proposals written with one sync.
const BATCH_MAX: usize = 256;

/// Called once on the raft thread when the fate of a proposal is known.
pub type Reply = Box<dyn FnOnce(Result<Outcome>) + Send>;

/// What the thread is asked.
pub enum Request {
    /// Replicate a command, then answer.
    Propose(Vec<u8>, Reply),
    /// Answer what is under way and end.
    Stop,
}

pub(super) struct Node {
    raft: RawNode<RaftLog>,
    shared: Arc<Shared>,
    pending: HashMap<u64, Reply>,
    next_proposal: u64,
    applied: u64,
    log_size_bytes_max: u64,
}

impl Node {
    pub fn new(id: u64, log: RaftLog, shared: Arc<Shared>, log_size_bytes_max: u64) -> Result<Self> {
        let applied = log.snapshot_index();
        let config = raft::Config {
            id,
            applied,
            election_tick: 10,
            heartbeat_tick: 2,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            pre_vote: true,
            check_quorum: true,
            ..Default::default()
        };
        let raft = RawNode::with_default_logger(&config, log)?;
        Ok(Node { raft, shared, pending: HashMap::new(), next_proposal: 1, applied, log_size_bytes_max })
    }

    /// Makes the only voter lead at once and applies everything that was committed.
    pub fn lead(&mut self) -> Result<()> {
        self.raft.campaign()?;
        while self.raft.has_ready() {
            self.round()?;
        }
        assert!(self.raft.raft.state == StateRole::Leader, "the only voter leads after its campaign");
        self.compact_if_long()
    }

    /// Runs until stopped or until the log fails.
    pub fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut stopping = false;
        while !stopping {
            let Some(request) = requests.blocking_recv() else { break };
            stopping = self.take(request);
            for _ in 1..BATCH_MAX {
                let Ok(request) = requests.try_recv() else { break };
                stopping |= self.take(request);
            }
            if let Err(error) = self.drive() {
                tracing::error!(%error, "the placement driver's log failed; it takes no more writes");
                self.fail_all(requests, &error);
                return;
            }
        }
        requests.close();
        while let Ok(request) = requests.try_recv() {
            if let Request::Propose(_, reply) = request {
                reply(Err(Error::Stopping));
            }
        }
    }

    fn take(&mut self, request: Request) -> bool {
        let Request::Propose(data, reply) = request else { return true };
        let id = self.next_proposal;
        self.next_proposal += 1;
        match self.raft.propose(id.to_le_bytes().to_vec(), data) {
            Ok(()) => {
                self.pending.insert(id, reply);
            }
            Err(raft::Error::ProposalDropped) => reply(Err(Error::NotLeader)),
            Err(error) => reply(Err(Error::Raft(error))),
        }
        false
    }

    fn drive(&mut self) -> Result<()> {
        while self.raft.has_ready() {
            self.round()?;
        }
        self.compact_if_long()
    }

    fn round(&mut self) -> Result<()> {
        let mut ready: Ready = self.raft.ready();
        assert!(ready.snapshot().is_empty(), "a group of one never receives a snapshot");
        let hard_state = ready.hs().cloned();
        let sync = ready.must_sync();
        self.raft.mut_store().append(ready.entries(), hard_state.as_ref(), sync)?;
        let committed = ready.take_committed_entries();
        self.apply(committed)?;
        let mut light = self.raft.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raft.mut_store().set_commit(commit);
        }
        let committed = light.take_committed_entries();
        self.apply(committed)?;
        self.raft.advance_apply();
        self.shared.term.store(self.raft.raft.term, Ordering::Release);
        Ok(())
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<()> {
        let mut answers = Vec::new();
        let mut revision = None;
        for entry in entries {
            assert!(
                entry.get_index() == self.applied + 1,
                "entry {} applied after {}",
                entry.get_index(),
                self.applied
            );
            self.applied = entry.get_index();
            if entry.get_entry_type() != EntryType::EntryNormal || entry.get_data().is_empty() {
                continue;
            }
            let command = Command::decode(entry.get_data()).map_err(|e| {
                Error::Undetermined(format!("log entry {} does not decode: {e}", entry.get_index()))
            })?;
            let mut state = self.shared.state.write();
            let outcome = state.apply(command);
            revision = Some(state.revision());
            drop(state);
            let id = entry.get_context().try_into().map(u64::from_le_bytes).unwrap_or(0);
            // Entries of an earlier life of this process have nobody waiting; their ids may repeat ours only before
            // the first proposal, when nothing is pending.
            if let Some(reply) = self.pending.remove(&id) {
                answers.push((reply, outcome));
            }
        }
        if let Some(revision) = revision {
            self.shared.revision.send_if_modified(|old| std::mem::replace(old, revision) != revision);
        }
        for (reply, outcome) in answers {
            reply(Ok(outcome));
        }
        Ok(())
    }

    fn compact_if_long(&mut self) -> Result<()> {
        if self.raft.store().log_size_bytes() <= self.log_size_bytes_max {
            return Ok(());
        }
        let image = self.shared.state.read().image();
        self.raft.mut_store().compact(self.applied, image)
    }

    fn fail_all(&mut self, mut requests: mpsc::Receiver<Request>, error: &Error) {
        for (_, reply) in self.pending.drain() {
            reply(Err(Error::Undetermined(error.to_string())));
        }
        while let Some(request) = requests.blocking_recv() {
            match request {
                Request::Propose(_, reply) => reply(Err(Error::Undetermined(error.to_string()))),
                Request::Stop => break,
            }
        }
    }
}
