//! The thread that drives the raft group: takes proposals and messages, persists, sends, applies, answers.
//!
//! Order in every round: a leader's messages go out, then the log is appended and synced, then the other messages go out,
//! then committed entries are applied, then callers are answered. All proposals that wait are written with one sync.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use prost::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use raft::{INVALID_ID, RawNode, ReadState, Ready, SnapshotStatus, StateRole};
use tokio::sync::mpsc;

use super::command::{Command, Outcome, StateImage};
use super::raft_log::RaftLog;
use super::state::State;
use super::{ELECTION_TICKS, HEARTBEAT_TICKS, Options, Outbox, Role, Shared};
use crate::error::{Error, Result};

/// Requests taken before one sync.
const BATCH_MAX: usize = 256;

/// Called once on the raft thread when the fate of a proposal is known.
pub type Reply = Box<dyn FnOnce(Result<Outcome>) + Send>;

/// What the thread is asked.
pub enum Request {
    /// Replicate a command, then answer.
    Propose {
        /// Only in this term; 0 = in any.
        term: u64,
        /// The encoded command.
        data: Vec<u8>,
        /// Who waits.
        reply: Reply,
    },
    /// Take a message of another member.
    Step(Box<Message>),
    /// Some time went by.
    Tick,
    /// A member could not be reached.
    Unreachable(u64),
    /// Whether a snapshot went out to a member.
    SnapshotSent(u64, bool),
    /// Hand the lead to a member; 0 = to the most up-to-date one.
    TransferLeader(u64),
    /// Answer what is under way and end.
    Stop,
}

pub(super) struct Node {
    raft: RawNode<RaftLog>,
    shared: Arc<Shared>,
    outbox: Box<dyn Outbox>,
    /// Proposals of this life in this term: `(life, number)` is the entry's context.
    pending: HashMap<u64, Reply>,
    next_proposal: u64,
    life: u64,
    applied: u64,
    /// Term of the last applied entry.
    applied_term: u64,
    log_size_bytes_max: u64,
    alone: bool,
    ticks: u64,
    /// When each heartbeat was sent whose confirmation renews the lease.
    heartbeats: HashMap<u64, Instant>,
    next_heartbeat: u64,
    /// Until then no vote is given: before its restart this member may have promised a leader not to.
    no_vote_until: Option<Instant>,
    role: Role,
}

impl Node {
    pub fn new(options: Options, log: RaftLog, shared: Arc<Shared>, fresh: bool) -> Result<Self> {
        let applied = log.snapshot_index();
        let config = raft::Config {
            id: options.raft_id,
            applied,
            election_tick: ELECTION_TICKS as usize,
            heartbeat_tick: HEARTBEAT_TICKS as usize,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            pre_vote: true,
            check_quorum: true,
            ..Default::default()
        };
        let raft = RawNode::new(&config, log, &slog::Logger::root(slog::Discard, slog::o!()))?;
        let alone = options.voters.len() == 1;
        Ok(Node {
            raft,
            shared,
            outbox: options.outbox,
            pending: HashMap::new(),
            next_proposal: 1,
            life: rand::random(),
            applied,
            applied_term: 0,
            log_size_bytes_max: options.log_size_bytes_max,
            alone,
            ticks: 0,
            heartbeats: HashMap::new(),
            next_heartbeat: 1,
            no_vote_until: (!fresh).then(|| Instant::now() + options.election_timeout),
            role: Role::default(),
        })
    }

    /// Makes the only voter lead at once and applies everything that was committed.
    pub fn lead(&mut self) -> Result<()> {
        self.raft.campaign()?;
        self.drive()?;
        assert!(self.raft.raft.state == StateRole::Leader, "the only voter leads after its campaign");
        Ok(())
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
        self.step_down_role();
        for (_, reply) in self.pending.drain() {
            reply(Err(Error::Undetermined("the placement driver stops".into())));
        }
        requests.close();
        while let Ok(request) = requests.try_recv() {
            if let Request::Propose { reply, .. } = request {
                reply(Err(Error::Stopping));
            }
        }
    }

    /// True: stop after this round.
    fn take(&mut self, request: Request) -> bool {
        match request {
            Request::Propose { term, data, reply } => self.propose(term, data, reply),
            Request::Step(message) => self.step(*message),
            Request::Tick => self.tick(),
            Request::Unreachable(id) => self.raft.report_unreachable(id),
            Request::SnapshotSent(id, ok) => {
                let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.raft.report_snapshot(id, status);
            }
            Request::TransferLeader(to) => self.transfer_leader(to),
            Request::Stop => return true,
        }
        false
    }

    fn propose(&mut self, term: u64, data: Vec<u8>, reply: Reply) {
        let raft = &self.raft.raft;
        if raft.state != StateRole::Leader || (term != 0 && term != raft.term) {
            return reply(Err(Error::NotLeader));
        }
        let number = self.next_proposal;
        self.next_proposal += 1;
        let context = [self.life.to_le_bytes(), number.to_le_bytes()].concat();
        match self.raft.propose(context, data) {
            Ok(()) => {
                self.shared.stats.proposals.fetch_add(1, Ordering::Relaxed);
                self.pending.insert(number, reply);
            }
            Err(raft::Error::ProposalDropped) => reply(Err(Error::NotLeader)),
            Err(error) => reply(Err(Error::Raft(error))),
        }
    }

    fn step(&mut self, message: Message) {
        self.shared.stats.messages_received.fetch_add(1, Ordering::Relaxed);
        let asks_for_vote =
            matches!(message.get_msg_type(), MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        if asks_for_vote && self.no_vote_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        if let Err(error) = self.raft.step(message) {
            tracing::debug!(%error, "a raft message was refused");
        }
    }

    fn tick(&mut self) {
        self.raft.tick();
        self.ticks += 1;
        let handing_over = self.raft.raft.lead_transferee.is_some();
        if self.role.leading && !handing_over && self.ticks.is_multiple_of(HEARTBEAT_TICKS) {
            let number = self.next_heartbeat;
            self.next_heartbeat += 1;
            self.heartbeats.insert(number, Instant::now());
            self.raft.read_index(number.to_le_bytes().to_vec());
        }
    }

    fn transfer_leader(&mut self, to: u64) {
        let raft = &self.raft.raft;
        if raft.state != StateRole::Leader {
            return;
        }
        let candidates = raft.prs().iter().filter(|(id, p)| **id != raft.id && p.recent_active);
        let best = candidates.max_by_key(|(_, progress)| progress.matched).map(|(id, _)| *id);
        let Some(to) = Some(to).filter(|to| *to != 0).or(best) else { return };
        // The new leader may come at any moment from now on: its votes ask nobody's lease.
        self.shared.lease.end();
        self.heartbeats.clear();
        self.raft.transfer_leader(to);
    }

    fn drive(&mut self) -> Result<()> {
        while self.raft.has_ready() {
            self.round()?;
        }
        self.publish_role();
        self.compact_if_long()
    }

    fn round(&mut self) -> Result<()> {
        let mut ready: Ready = self.raft.ready();
        if ready.ss().is_some() {
            self.publish_role();
        }
        self.send(ready.take_messages());
        self.confirm(&ready.take_read_states());
        if !ready.snapshot().is_empty() {
            self.install(ready.snapshot(), &ready)?;
        }
        let hard_state = ready.hs().cloned();
        let sync = ready.must_sync();
        let begin = Instant::now();
        self.raft.mut_store().append(ready.entries(), hard_state.as_ref(), sync)?;
        if sync {
            self.count_sync(begin.elapsed());
        }
        self.send(ready.take_persisted_messages());
        let committed = ready.take_committed_entries();
        self.apply(committed)?;
        let mut light = self.raft.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raft.mut_store().set_commit(commit);
        }
        self.send(light.take_messages());
        let committed = light.take_committed_entries();
        self.apply(committed)?;
        self.raft.advance_apply();
        Ok(())
    }

    fn count_sync(&self, took: Duration) {
        let stats = &self.shared.stats;
        stats.syncs.fetch_add(1, Ordering::Relaxed);
        stats.sync_us.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        stats.size_bytes.store(self.raft.store().log_size_bytes(), Ordering::Relaxed);
        stats.last_index.store(self.raft.store().last_entry(), Ordering::Relaxed);
    }

    fn send(&mut self, messages: Vec<Message>) {
        self.shared.stats.messages_sent.fetch_add(messages.len() as u64, Ordering::Relaxed);
        for message in messages {
            self.outbox.send(message);
        }
    }

    /// A quorum answered these heartbeats: the lease is renewed.
    fn confirm(&mut self, states: &[ReadState]) {
        let numbers = states.iter().filter_map(|state| state.request_ctx.as_slice().try_into().ok());
        let Some(newest) = numbers.map(u64::from_le_bytes).max() else { return };
        let sent = self.heartbeats.get(&newest).copied();
        self.heartbeats.retain(|number, _| *number > newest);
        let raft = &self.raft.raft;
        if let Some(sent) = sent
            && raft.state == StateRole::Leader
            && raft.lead_transferee.is_none()
        {
            self.shared.lease.renew(raft.term, sent);
        }
    }

    /// Takes the state that the leader sent because its log does not reach back far enough.
    fn install(&mut self, snapshot: &Snapshot, ready: &Ready) -> Result<()> {
        let image = StateImage::decode(snapshot.get_data())
            .map_err(|e| Error::Undetermined(format!("a snapshot of the leader does not decode: {e}")))?;
        let hard_state = ready.hs().cloned().unwrap_or_else(|| self.raft.store().hard_state().clone());
        self.raft.mut_store().install(snapshot, &hard_state, image.clone())?;
        let state = State::from_image(image);
        let revision = state.revision();
        *self.shared.state.write() = state;
        self.applied = snapshot.get_metadata().index;
        self.applied_term = snapshot.get_metadata().term;
        self.shared.stats.snapshots_installed.fetch_add(1, Ordering::Relaxed);
        self.shared.revision.send_replace(revision);
        tracing::info!(index = self.applied, "took a snapshot of the leader");
        Ok(())
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<()> {
        let mut answers = Vec::new();
        let mut revision = None;
        for entry in entries {
            let index = entry.get_index();
            assert!(index == self.applied + 1, "entry {index} applied after {}", self.applied);
            self.applied = index;
            self.applied_term = entry.get_term();
            if entry.get_entry_type() != EntryType::EntryNormal || entry.get_data().is_empty() {
                continue;
            }
            let command = Command::decode(entry.get_data())
                .map_err(|e| Error::Undetermined(format!("log entry {index} does not decode: {e}")))?;
            let mut state = self.shared.state.write();
            let outcome = state.apply(command);
            revision = Some(state.revision());
            drop(state);
            if let Some(reply) = self.waiting_for(entry.get_context()) {
                answers.push((reply, outcome));
            }
        }
        self.shared.stats.applied_index.store(self.applied, Ordering::Relaxed);
        if let Some(revision) = revision {
            self.shared.revision.send_if_modified(|old| std::mem::replace(old, revision) != revision);
        }
        for (reply, outcome) in answers {
            reply(Ok(outcome));
        }
        Ok(())
    }

    /// Who waits for an entry; nobody when another life or member proposed it.
    fn waiting_for(&mut self, context: &[u8]) -> Option<Reply> {
        let number = context.strip_prefix(self.life.to_le_bytes().as_slice())?;
        self.pending.remove(&u64::from_le_bytes(number.try_into().ok()?))
    }

    /// Tells who leads. Whatever was proposed in a term that is over may or may not take effect.
    fn publish_role(&mut self) {
        let raft = &self.raft.raft;
        let leads = raft.state == StateRole::Leader;
        let role = Role {
            term: raft.term,
            leader: if raft.leader_id == INVALID_ID { 0 } else { raft.leader_id },
            leading: leads && self.applied_term == raft.term,
        };
        if role == self.role {
            return;
        }
        let lost = (!leads || role.term != self.role.term) && !self.pending.is_empty();
        if !role.leading {
            self.shared.lease.end();
            self.heartbeats.clear();
        } else if !self.role.leading {
            self.shared.stats.elections_won.fetch_add(1, Ordering::Relaxed);
            if self.alone {
                self.shared.lease.renew(role.term, Instant::now());
            }
        }
        self.role = role;
        self.shared.role.send_replace(role);
        if lost {
            for (_, reply) in self.pending.drain() {
                reply(Err(Error::Undetermined("the placement driver's leader changed".into())));
            }
        }
    }

    fn step_down_role(&mut self) {
        self.shared.lease.end();
        self.role = Role { leader: 0, leading: false, ..self.role };
        self.shared.role.send_replace(self.role);
    }

    fn compact_if_long(&mut self) -> Result<()> {
        if self.raft.store().log_size_bytes() <= self.log_size_bytes_max {
            return Ok(());
        }
        let image = self.shared.state.read().image();
        self.raft.mut_store().compact(self.applied, image)
    }

    fn fail_all(mut self, mut requests: mpsc::Receiver<Request>, error: &Error) {
        self.step_down_role();
        for (_, reply) in self.pending.drain() {
            reply(Err(Error::Undetermined(error.to_string())));
        }
        while let Some(request) = requests.blocking_recv() {
            match request {
                Request::Propose { reply, .. } => reply(Err(Error::Undetermined(error.to_string()))),
                Request::Stop => break,
                _ => {}
            }
        }
    }
}
