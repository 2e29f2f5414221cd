//! A region's raft log as the raft library sees it: raft-engine, and the entries not yet applied in memory.
//!
//! Invariant: `truncated_index <= applied_index <= last_index`, and the log holds every entry in between.

use std::collections::VecDeque;

use parking_lot::Mutex;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::RaftTruncatedState;

use super::snapshot::SnapshotSource;
use crate::engine::{self, Engine, RaftLog};

/// Where the log of a new region begins, so that "nothing yet" (0) differs from "initial".
pub(crate) const INIT_LOG_INDEX: u64 = 5;
/// The term of that beginning.
pub(crate) const INIT_LOG_TERM: u64 = 5;

/// The term of a new region's first leader: no other can have led before it.
pub const FIRST_TERM: u64 = INIT_LOG_TERM + 1;

/// Where a log begins and ends.
pub(crate) struct LogEnd {
    pub(crate) truncated: RaftTruncatedState,
    pub(crate) last_index: u64,
    pub(crate) last_term: u64,
}

/// One region's log.
pub(crate) struct PeerStorage {
    region_id: u64,
    engine: Engine,
    log: RaftLog,
    hard_state: HardState,
    conf_state: ConfState,
    truncated: RaftTruncatedState,
    last_index: u64,
    last_term: u64,
    /// The newest entries, contiguous up to `last_index`; at least all that are not applied.
    cache: VecDeque<Entry>,
    /// Snapshots that raft was told of and that are not sent yet, by the peer that needs them.
    snapshots: Mutex<Vec<(u64, SnapshotSource)>>,
}

impl PeerStorage {
    /// Of a peer that knows nothing yet but perhaps how it voted: its region comes with a snapshot.
    pub(crate) fn uninitialized(engine: Engine, log: RaftLog, region_id: u64) -> engine::Result<Self> {
        let hard_state = log.hard_state(region_id)?.unwrap_or_default();
        Ok(Self {
            region_id,
            engine,
            log,
            hard_state: HardState { commit: 0, ..hard_state },
            conf_state: ConfState::default(),
            truncated: RaftTruncatedState::default(),
            last_index: 0,
            last_term: 0,
            cache: VecDeque::new(),
            snapshots: Mutex::default(),
        })
    }

    /// What the disk says. A region that has no log yet (it was just split off or bootstrapped) begins at [`INIT_LOG_INDEX`].
    pub(crate) fn load(
        engine: Engine,
        log: RaftLog,
        region: &metapb::Region,
        applied_index: u64,
    ) -> engine::Result<Self> {
        let region_id = region.id;
        let initial = RaftTruncatedState { index: INIT_LOG_INDEX, term: INIT_LOG_TERM };
        let truncated = log.truncated(region_id)?.unwrap_or(initial);
        let mut hard_state = log.hard_state(region_id)?.unwrap_or_else(|| HardState {
            term: INIT_LOG_TERM,
            commit: INIT_LOG_INDEX,
            ..HardState::default()
        });
        let last_index = log.last_index(region_id)?.unwrap_or(truncated.index);
        if applied_index > last_index {
            return Err(engine::Error::Corruption(format!(
                "{}: the log of region {region_id} ends at {last_index} but {applied_index} is applied: files were lost",
                log.dir().display()
            )));
        }
        let mut storage = Self {
            region_id,
            engine,
            log,
            hard_state: HardState::default(),
            conf_state: conf_state(region),
            last_term: truncated.term,
            truncated,
            last_index,
            cache: VecDeque::new(),
            snapshots: Mutex::default(),
        };
        storage.last_term = storage.stored_term(last_index)?;
        // What is applied was committed, even if the commit index had no time to be written.
        hard_state.commit = hard_state.commit.max(applied_index);
        // A peer that only voted, before it was split off here.
        hard_state.term = hard_state.term.max(INIT_LOG_TERM);
        storage.hard_state = hard_state;
        Ok(storage)
    }

    /// Of a peer that rested: everything was applied, and its end is known.
    pub(crate) fn resume(
        engine: Engine,
        log: RaftLog,
        region: &metapb::Region,
        hard_state: HardState,
        end: &LogEnd,
    ) -> Self {
        Self {
            region_id: region.id,
            engine,
            log,
            hard_state,
            conf_state: conf_state(region),
            truncated: end.truncated,
            last_index: end.last_index,
            last_term: end.last_term,
            cache: VecDeque::new(),
            snapshots: Mutex::default(),
        }
    }

    /// Whether a snapshot that raft was told of is not sent yet.
    pub(crate) fn has_snapshots(&self) -> bool {
        !self.snapshots.lock().is_empty()
    }

    pub(crate) fn truncated(&self) -> &RaftTruncatedState {
        &self.truncated
    }

    pub(crate) fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    /// The log begins anew behind a snapshot; the caller writes it.
    pub(crate) fn restore(&mut self, truncated: RaftTruncatedState) {
        (self.last_index, self.last_term) = (truncated.index, truncated.term);
        self.truncated = truncated;
        self.cache.clear();
    }

    /// The snapshot that raft was told of last for a peer.
    pub(crate) fn take_snapshot(&mut self, peer_id: u64) -> Option<SnapshotSource> {
        let mut snapshots = self.snapshots.lock();
        let at = snapshots.iter().position(|(to, _)| *to == peer_id)?;
        Some(snapshots.swap_remove(at).1)
    }

    /// Raft has asked for the members: it keeps them itself from now on.
    pub(crate) fn forget_members(&mut self) {
        self.conf_state = ConfState::default();
    }

    /// Takes over entries that are in the write batch of this round.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        assert!(first.index <= self.last_index + 1, "hole in the log of region {}", self.region_id);
        assert!(
            first.index > self.truncated.index,
            "rewriting truncated entries of region {}",
            self.region_id
        );
        (self.last_index, self.last_term) = (last.index, last.term);
        while self.cache.back().is_some_and(|e| e.index >= first.index) {
            self.cache.pop_back();
        }
        self.cache.extend(entries);
    }

    /// Forgets cached entries that nobody needs soon.
    pub(crate) fn trim_cache(&mut self, upto: u64) {
        while self.cache.front().is_some_and(|e| e.index <= upto) {
            self.cache.pop_front();
        }
        if self.cache.is_empty() && self.cache.capacity() > 64 {
            self.cache.shrink_to_fit();
        }
    }

    /// Lets go of memory that is not needed.
    pub(crate) fn shrink_cache(&mut self) {
        self.cache.shrink_to_fit();
    }

    pub(crate) fn is_cached(&self) -> bool {
        !self.cache.is_empty()
    }

    /// Notes that the log was cut off; the caller writes it.
    pub(crate) fn set_truncated(&mut self, truncated: RaftTruncatedState) {
        assert!(truncated.index <= self.last_index, "truncating the whole log of region {}", self.region_id);
        self.truncated = truncated;
    }

    fn stored_term(&self, index: u64) -> engine::Result<u64> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        match self.log.entry(self.region_id, index)? {
            Some(entry) => Ok(entry.term),
            None => Err(engine::Error::Corruption(format!(
                "{}: entry {index} of region {} is missing",
                self.log.dir().display(),
                self.region_id
            ))),
        }
    }

    fn cached(&self, index: u64) -> Option<&Entry> {
        let first = self.cache.front()?.index;
        self.cache.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }
}

/// The raft library's view of a region's members.
pub(crate) fn conf_state(region: &metapb::Region) -> ConfState {
    let mut state = ConfState::default();
    let joint = region
        .peers
        .iter()
        .any(|p| matches!(p.role(), metapb::PeerRole::IncomingVoter | metapb::PeerRole::DemotingVoter));
    for peer in &region.peers {
        match peer.role() {
            metapb::PeerRole::Voter => {
                state.voters.push(peer.id);
                if joint {
                    state.voters_outgoing.push(peer.id);
                }
            }
            metapb::PeerRole::Learner => state.learners.push(peer.id),
            metapb::PeerRole::IncomingVoter => state.voters.push(peer.id),
            metapb::PeerRole::DemotingVoter => {
                state.voters_outgoing.push(peer.id);
                state.learners_next.push(peer.id);
            }
        }
    }
    state
}

fn storage_error(e: engine::Error) -> Error {
    Error::Store(StorageError::Other(Box::new(e)))
}

impl Storage for PeerStorage {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.truncated.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(
            high <= self.last_index + 1,
            "entries up to {high} asked of a log that ends at {}",
            self.last_index
        );
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let cached_from = self.cache.front().map_or(high, |e| e.index);
        let mut entries = Vec::new();
        if low < cached_from {
            let bytes_max = usize::try_from(max_size).ok();
            let end = high.min(cached_from);
            entries = self.log.entries(self.region_id, low, end, bytes_max).map_err(storage_error)?;
            if entries.first().is_none_or(|e| e.index != low) {
                return Err(Error::Store(StorageError::Unavailable));
            }
        }
        let mut size: u64 = entries.iter().map(entry_size).sum();
        let mut index = low + entries.len() as u64;
        while index < high && index >= cached_from {
            let Some(entry) = self.cached(index) else { break };
            size += entry_size(entry);
            if size > max_size && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
            index += 1;
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.last_index {
            return Ok(self.last_term);
        }
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        if index < self.truncated.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        if index > self.last_index {
            return Err(Error::Store(StorageError::Unavailable));
        }
        match self.cached(index) {
            Some(entry) => Ok(entry.term),
            None => self.stored_term(index).map_err(storage_error),
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.truncated.index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last_index)
    }

    /// Taking a view of the engine costs next to nothing; it is read while it is sent.
    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let taken = SnapshotSource::take(&self.engine, self.region_id).map_err(storage_error)?;
        match taken {
            Some((source, snapshot)) if snapshot.get_metadata().index >= request_index => {
                let mut snapshots = self.snapshots.lock();
                snapshots.retain(|(peer_id, _)| *peer_id != to);
                snapshots.push((to, source));
                Ok(snapshot)
            }
            _ => Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable)),
        }
    }
}

fn entry_size(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len() + 24) as u64
}
