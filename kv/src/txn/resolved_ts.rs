//! Up to which timestamp nothing can change any more, region by region: what stale reads rest on.
//!
//! A round of a leader: take a timestamp T of the placement driver; raise `max_ts` to it; take the smallest bound of the writes in
//! flight, then the applied index A, then the smallest bound of the locks that are there. Then the leadership is confirmed. Whatever
//! commits at or below S, the smallest of these, is applied at A:
//! - a lock applied by A bounds S below the commit timestamps it can get;
//! - a transaction whose lock comes after A takes its commit timestamp from the placement driver after T, or from `max_ts`;
//! - another leader, if there is one by now, began after T, and took a timestamp of its own before it timed commits.
//!
//! So (A, S) is a fact about the region's log, in this version of the region: every peer that has applied A serves reads at S
//! without asking anybody. Leaders tell their followers with the request that also confirms leaderships without a lease; it does
//! not go through raft, and so wakes no sleeping region.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use dashmap::DashMap;
use parking_lot::Mutex;
use rutile_proto::errorpb;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{
    CheckLeaderRequest, CheckLeaderResponse, Context, LeaderInfo, ReadState, StoreSafeTsRequest,
};
use rutile_proto::metapb::{self, PeerRole};
use tokio::sync::watch;

use super::error::{Error, Result};
use super::scheduler::Scheduler;
use crate::engine::{Cf, IterOptions};
use crate::mvcc::lock::{Lock, LockType};
use crate::raftstore::{LockWatch, PeerState, RegionSnapshot};

/// Facts about one region that are remembered: the newest ones may not be applied here yet.
const FACTS_MAX: usize = 8;
/// Regions whose locks are read in one round.
const SCANS_MAX: usize = 1024;
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// No transaction commits at or below it through this lock.
fn bound(lock: &Lock) -> Timestamp {
    lock.start_ts.max(Timestamp(lock.min_commit_ts.0.saturating_sub(1)))
}

/// What a stored lock bounds; pessimistic locks bound nothing: their transactions take a timestamp after they have prewritten.
fn bound_of(stored: &[u8]) -> Option<Timestamp> {
    match Lock::parse(stored) {
        Ok(lock) if lock.lock_type == LockType::Pessimistic => None,
        Ok(lock) => Some(bound(&lock)),
        Err(_) => Some(Timestamp::ZERO),
    }
}

#[derive(Default)]
enum Known {
    /// Nothing: the locks must be read.
    #[default]
    Nothing,
    /// What changed since the locks are being read, by key.
    Changes(AHashMap<Box<[u8]>, Option<Timestamp>>),
    /// Every lock's bound, by key.
    All(AHashMap<Box<[u8]>, Timestamp>),
}

/// The locks of a region under one leadership and version.
struct Tracker {
    term: u64,
    version: u64,
    known: Mutex<Known>,
}

impl LockWatch for Tracker {
    fn digest(&self, lock: &[u8]) -> Option<Timestamp> {
        bound_of(lock)
    }

    fn on_changes(&self, changes: &mut Vec<(Box<[u8]>, Option<Timestamp>)>) {
        match &mut *self.known.lock() {
            Known::Nothing => {}
            Known::Changes(changed) => changed.extend(changes.drain(..)),
            Known::All(locks) => {
                for (key, bound) in changes.drain(..) {
                    match bound {
                        Some(bound) => drop(locks.insert(key, bound)),
                        None => drop(locks.remove(&key)),
                    }
                }
            }
        }
    }

    fn on_lost(&self) {
        *self.known.lock() = Known::Nothing;
    }
}

impl Tracker {
    /// The smallest bound; `None` when it is not known.
    fn smallest(&self) -> Option<Timestamp> {
        match &*self.known.lock() {
            Known::All(locks) => Some(locks.values().copied().min().unwrap_or(Timestamp::MAX)),
            Known::Nothing | Known::Changes(_) => None,
        }
    }

    /// From now on changes are kept, until [`Tracker::finish`].
    fn begin(&self) {
        *self.known.lock() = Known::Changes(AHashMap::new());
    }

    /// Takes what was read; the last change of a key counts, be it in there or not.
    fn finish(&self, read: AHashMap<Box<[u8]>, Timestamp>) {
        let mut known = self.known.lock();
        let Known::Changes(changed) = &mut *known else { return };
        let mut locks = read;
        for (key, bound) in changed.drain() {
            match bound {
                Some(bound) => drop(locks.insert(key, bound)),
                None => drop(locks.remove(&key)),
            }
        }
        *known = Known::All(locks);
    }
}

/// Every peer that has applied `applied_index`, of the region in `version`, serves reads at `ts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fact {
    version: u64,
    applied_index: u64,
    ts: Timestamp,
}

/// What is known of the regions of a store.
#[derive(Default)]
pub struct ResolvedTs {
    trackers: Mutex<HashMap<u64, Arc<Tracker>>>,
    facts: DashMap<u64, VecDeque<Fact>, ahash::RandomState>,
}

impl ResolvedTs {
    fn learn(&self, region_id: u64, fact: Fact) {
        let mut facts = self.facts.entry(region_id).or_default();
        facts.retain(|known| known.version >= fact.version);
        let newer = |known: &Fact| known.version == fact.version && known.ts < fact.ts;
        if facts.back().is_none_or(newer) {
            if facts.len() == FACTS_MAX {
                facts.pop_front();
            }
            facts.push_back(fact);
        }
    }

    /// What a peer may serve. Zero: nothing.
    fn safe_ts(&self, state: &PeerState) -> Timestamp {
        let version = version_of(&state.region);
        let Some(facts) = self.facts.get(&state.region.id) else { return Timestamp::ZERO };
        let holds = |fact: &&Fact| fact.version == version && fact.applied_index <= state.applied_index;
        facts.iter().rev().find(holds).map_or(Timestamp::ZERO, |fact| fact.ts)
    }

    /// Locks went without anybody being told: all are read anew.
    pub fn forget_locks(&self) {
        self.trackers.lock().values().for_each(|tracker| tracker.on_lost());
    }
}

fn version_of(region: &metapb::Region) -> u64 {
    region.region_epoch.map_or(0, |epoch| epoch.version)
}

/// A region led here, in the middle of a round.
struct Candidate {
    state: PeerState,
    resolved: Timestamp,
}

impl Candidate {
    fn info(&self, store_id: u64, with_state: bool) -> LeaderInfo {
        let own = self.state.region.peers.iter().find(|peer| peer.store_id == store_id);
        LeaderInfo {
            region_id: self.state.region.id,
            peer_id: own.map_or(0, |peer| peer.id),
            term: self.state.term,
            region_epoch: self.state.region.region_epoch,
            read_state: with_state
                .then_some(ReadState { applied_index: self.state.applied_index, safe_ts: self.resolved.0 }),
        }
    }

    /// Whether these stores and this one are enough to say that nobody else leads.
    fn has_quorum(&self, store_id: u64, agreed: &[u64]) -> bool {
        let peers = &self.state.region.peers;
        let agrees = |peer: &metapb::Peer| peer.store_id == store_id || agreed.contains(&peer.store_id);
        if peers.iter().any(|peer| matches!(peer.role(), PeerRole::IncomingVoter | PeerRole::DemotingVoter)) {
            return peers.iter().all(agrees);
        }
        let voters = peers.iter().filter(|peer| peer.role() == PeerRole::Voter);
        let (mut all, mut yes) = (0, 0);
        for voter in voters {
            all += 1;
            yes += usize::from(agrees(voter));
        }
        yes * 2 > all
    }
}

impl Scheduler {
    /// Runs rounds until told to stop.
    pub async fn advance_resolved_ts(self, interval: Duration, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(interval) => {}
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.resolve_round() => {}
            }
        }
    }

    /// One round for all regions led here.
    pub async fn resolve_round(&self) {
        let ts = match self.timestamp().await {
            Ok(ts) => ts,
            Err(error) => {
                tracing::debug!(%error, "no timestamp to resolve regions at");
                return;
            }
        };
        self.concurrency().update_max_ts(ts);
        let floor = self.concurrency().smallest_in_flight(bound).unwrap_or(ts).min(ts);
        let (candidates, unread) = self.candidates(floor);
        let confirmed = self.confirm(candidates).await;
        for candidate in &confirmed {
            let fact = Fact {
                version: version_of(&candidate.state.region),
                applied_index: candidate.state.applied_index,
                ts: candidate.resolved,
            };
            self.resolved().learn(candidate.state.region.id, fact);
        }
        self.ask_followers(&confirmed, true).await;
        if !unread.is_empty() {
            let this = self.clone();
            let read = move || unread.iter().for_each(|(region, tracker)| this.read_locks(region, tracker));
            let _ = tokio::task::spawn_blocking(read).await;
        }
    }

    /// The regions led here with their bounds, and those whose locks must be read first.
    #[allow(clippy::type_complexity)]
    fn candidates(&self, floor: Timestamp) -> (Vec<Candidate>, Vec<(Arc<metapb::Region>, Arc<Tracker>)>) {
        let (mut candidates, mut unread) = (Vec::new(), Vec::new());
        let mut trackers = self.resolved().trackers.lock();
        let mut here = ahash::AHashSet::new();
        for (region, leads) in self.raft().regions() {
            here.insert(region.id);
            if !leads {
                if trackers.remove(&region.id).is_some() {
                    self.raft().watch_locks(region.id, None);
                }
                continue;
            }
            // The applied index comes after the writes in flight and before the locks.
            let Some(state) = self.raft().peer_state(region.id) else { continue };
            if !state.is_leader || state.merging || state.applied_term != state.term {
                continue;
            }
            let version = version_of(&state.region);
            let tracker = trackers.get(&region.id);
            let tracker = tracker.filter(|t| (t.term, t.version) == (state.term, version));
            match tracker.map(|tracker| (tracker, tracker.smallest())) {
                Some((_, Some(smallest))) => {
                    candidates.push(Candidate { state, resolved: floor.min(smallest) });
                }
                other if unread.len() < SCANS_MAX => {
                    let tracker = other.map_or_else(
                        || Arc::new(Tracker { term: state.term, version, known: Mutex::default() }),
                        |(tracker, _)| Arc::clone(tracker),
                    );
                    trackers.insert(region.id, Arc::clone(&tracker));
                    unread.push((state.region, tracker));
                }
                _ => {}
            }
        }
        trackers.retain(|id, _| here.contains(id));
        self.resolved().facts.retain(|id, _| here.contains(id));
        (candidates, unread)
    }

    /// Reads the locks of a region while changes are kept.
    fn read_locks(&self, region: &metapb::Region, tracker: &Arc<Tracker>) {
        tracker.begin();
        if !self.raft().watch_locks(region.id, Some(Arc::clone(tracker) as Arc<dyn LockWatch>)) {
            return;
        }
        let ctx = Context {
            region_id: region.id,
            region_epoch: region.region_epoch,
            peer: region.peers.iter().find(|p| p.store_id == self.raft().store_id()).copied(),
            ..Context::default()
        };
        let read = || -> Option<AHashMap<Box<[u8]>, Timestamp>> {
            let snapshot = self.raft().local_snapshot(&ctx).ok()?;
            let mut cursor =
                snapshot.iter(Cf::Lock, IterOptions { skip_cache: true, ..IterOptions::default() });
            let mut locks = AHashMap::new();
            let mut valid = cursor.seek_to_first().ok()?;
            while valid {
                if let Some(bound) = bound_of(cursor.value()) {
                    locks.insert(cursor.key().into(), bound);
                }
                valid = cursor.next().ok()?;
            }
            Some(locks)
        };
        match read() {
            Some(locks) => tracker.finish(locks),
            None => tracker.on_lost(),
        }
    }

    /// Those that nobody else leads, as of some moment in this call.
    async fn confirm(&self, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let store_id = self.raft().store_id();
        let still = |candidate: &Candidate, lease: bool| {
            let now = self.raft().peer_state(candidate.state.region.id);
            now.is_some_and(|now| {
                now.is_leader && now.term == candidate.state.term && (now.has_lease || !lease)
            })
        };
        let (mut confirmed, doubtful): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|candidate| still(candidate, true));
        let agreed = self.ask_followers(&doubtful, false).await;
        let none = Vec::new();
        confirmed.extend(doubtful.into_iter().filter(|candidate| {
            let agreed = agreed.get(&candidate.state.region.id).unwrap_or(&none);
            candidate.has_quorum(store_id, agreed) && still(candidate, false)
        }));
        confirmed
    }

    /// Tells the stores of all followers; answers which of them agree about the leader, by region.
    async fn ask_followers(&self, candidates: &[Candidate], with_state: bool) -> HashMap<u64, Vec<u64>> {
        let own = self.raft().store_id();
        let mut by_store: HashMap<u64, Vec<LeaderInfo>> = HashMap::new();
        for candidate in candidates {
            for peer in candidate.state.region.peers.iter().filter(|peer| peer.store_id != own) {
                by_store.entry(peer.store_id).or_default().push(candidate.info(own, with_state));
            }
        }
        let Some(others) = self.other_stores() else { return HashMap::new() };
        let ask = |(store_id, regions)| async move {
            let request = CheckLeaderRequest { regions, ts: 0 };
            let answer = tokio::time::timeout(CALL_TIMEOUT, others.check_leader(store_id, request)).await;
            (store_id, answer.ok().and_then(std::result::Result::ok).unwrap_or_default())
        };
        let mut agreed: HashMap<u64, Vec<u64>> = HashMap::new();
        for (store_id, answer) in futures::future::join_all(by_store.into_iter().map(ask)).await {
            for region_id in answer.regions {
                agreed.entry(region_id).or_default().push(store_id);
            }
        }
        agreed
    }

    /// Takes what leaders tell, and answers which of them this store follows.
    #[must_use]
    pub fn check_leader(&self, req: &CheckLeaderRequest) -> CheckLeaderResponse {
        let mut response = CheckLeaderResponse { ts: req.ts, ..CheckLeaderResponse::default() };
        for info in &req.regions {
            let Some(state) = self.raft().peer_state(info.region_id) else { continue };
            if state.term == info.term && state.leader.is_some_and(|leader| leader.id == info.peer_id) {
                response.regions.push(info.region_id);
            }
            if let Some(read) = &info.read_state {
                let fact = Fact {
                    version: info.region_epoch.map_or(0, |epoch| epoch.version),
                    applied_index: read.applied_index,
                    ts: Timestamp(read.safe_ts),
                };
                self.resolved().learn(info.region_id, fact);
            }
        }
        response
    }

    /// What this peer has at `ts`, if nothing at or below it can change any more.
    pub fn stale_snapshot(&self, ctx: &Context, ts: Timestamp) -> Result<RegionSnapshot> {
        self.raft().check(ctx)?;
        let state = self.raft().peer_state(ctx.region_id);
        let safe_ts = state.as_ref().map_or(Timestamp::ZERO, |state| self.resolved().safe_ts(state));
        if ts > safe_ts {
            let region_id = ctx.region_id;
            let peer_id = ctx.peer.map_or(0, |peer| peer.id);
            return Err(Error::from(errorpb::Error {
                message: format!("region {region_id} is resolved up to {safe_ts} here, not {ts}"),
                data_is_not_ready: Some(errorpb::DataIsNotReady { region_id, peer_id, safe_ts: safe_ts.0 }),
                ..errorpb::Error::default()
            }));
        }
        Ok(self.raft().local_snapshot(ctx)?)
    }

    /// The smallest timestamp that all regions of a range (PD form; empty: everything) may be read at here; 0 if one of them has none.
    #[must_use]
    pub fn store_safe_ts(&self, req: &StoreSafeTsRequest) -> u64 {
        let range = req.key_range.clone().unwrap_or_default();
        let overlaps = |region: &metapb::Region| {
            (range.end_key.is_empty() || region.start_key < range.end_key)
                && (region.end_key.is_empty() || region.end_key > range.start_key)
        };
        let regions = self.raft().regions();
        let states = regions.iter().filter(|(region, _)| overlaps(region));
        let safe = states.map(|(region, _)| {
            let state = self.raft().peer_state(region.id);
            state.map_or(Timestamp::ZERO, |state| self.resolved().safe_ts(&state))
        });
        safe.min().map_or(0, |ts| ts.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker() -> Tracker {
        Tracker { term: 1, version: 1, known: Mutex::default() }
    }

    fn changes(list: &[(&str, Option<u64>)]) -> Vec<(Box<[u8]>, Option<Timestamp>)> {
        list.iter().map(|(key, ts)| (key.as_bytes().into(), ts.map(Timestamp))).collect()
    }

    fn read(list: &[(&str, u64)]) -> AHashMap<Box<[u8]>, Timestamp> {
        list.iter().map(|(key, ts)| (key.as_bytes().into(), Timestamp(*ts))).collect()
    }

    #[test]
    fn the_last_change_of_a_key_counts() {
        let tracker = tracker();
        tracker.on_changes(&mut changes(&[("a", Some(5))]));
        assert_eq!(tracker.smallest(), None);
        tracker.begin();
        // `a` was read before it went, `b` was put and went, `c` came back with another lock.
        tracker.on_changes(&mut changes(&[
            ("a", None),
            ("b", Some(2)),
            ("b", None),
            ("c", None),
            ("c", Some(30)),
        ]));
        assert_eq!(tracker.smallest(), None);
        tracker.finish(read(&[("a", 1), ("c", 3), ("d", 40)]));
        assert_eq!(tracker.smallest(), Some(Timestamp(30)));
        tracker.on_changes(&mut changes(&[("c", None)]));
        assert_eq!(tracker.smallest(), Some(Timestamp(40)));
        tracker.on_changes(&mut changes(&[("d", None)]));
        assert_eq!(tracker.smallest(), Some(Timestamp::MAX));
        tracker.on_lost();
        assert_eq!(tracker.smallest(), None);
    }

    #[test]
    fn changes_lost_while_reading() {
        let tracker = tracker();
        tracker.begin();
        tracker.on_lost();
        tracker.finish(read(&[("a", 1)]));
        assert_eq!(tracker.smallest(), None, "what was read may be outdated");
    }

    #[test]
    fn facts_hold_for_one_version_and_what_is_applied() {
        let known = ResolvedTs::default();
        let state = |version, applied_index| PeerState {
            region: Arc::new(metapb::Region {
                id: 1,
                region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version }),
                ..Default::default()
            }),
            term: 1,
            is_leader: false,
            leader: None,
            has_lease: false,
            applied_index,
            applied_term: 1,
            merging: false,
        };
        let fact = |version, applied_index, ts| Fact { version, applied_index, ts: Timestamp(ts) };
        known.learn(1, fact(1, 10, 100));
        known.learn(1, fact(1, 20, 200));
        assert_eq!(known.safe_ts(&state(1, 9)), Timestamp::ZERO);
        assert_eq!(known.safe_ts(&state(1, 19)), Timestamp(100));
        assert_eq!(known.safe_ts(&state(1, 20)), Timestamp(200));
        known.learn(1, fact(1, 15, 150));
        assert_eq!(known.safe_ts(&state(1, 20)), Timestamp(200), "it does not go back");
        assert_eq!(known.safe_ts(&state(2, 20)), Timestamp::ZERO, "split or merged since");
        known.learn(1, fact(2, 30, 300));
        assert_eq!(known.safe_ts(&state(1, 99)), Timestamp::ZERO);
        assert_eq!(known.safe_ts(&state(2, 30)), Timestamp(300));
    }

    #[test]
    fn quorums() {
        let peer = |store_id, role: PeerRole| metapb::Peer {
            id: store_id,
            store_id,
            role: role.into(),
            ..Default::default()
        };
        let candidate = |roles: &[PeerRole]| {
            let peers = roles.iter().zip(1..).map(|(role, store)| peer(store, *role)).collect();
            let state = PeerState {
                region: Arc::new(metapb::Region { id: 1, peers, ..Default::default() }),
                term: 1,
                is_leader: true,
                leader: None,
                has_lease: false,
                applied_index: 1,
                applied_term: 1,
                merging: false,
            };
            Candidate { state, resolved: Timestamp(1) }
        };
        use PeerRole::{DemotingVoter, IncomingVoter, Learner, Voter};
        assert!(candidate(&[Voter]).has_quorum(1, &[]));
        assert!(!candidate(&[Voter, Voter]).has_quorum(1, &[]));
        assert!(candidate(&[Voter, Voter, Voter]).has_quorum(1, &[3]));
        assert!(!candidate(&[Voter, Voter, Voter, Learner]).has_quorum(1, &[4]), "a learner has no vote");
        assert!(!candidate(&[Voter, Voter, DemotingVoter, IncomingVoter]).has_quorum(1, &[2, 3]));
        assert!(candidate(&[Voter, Voter, DemotingVoter, IncomingVoter]).has_quorum(1, &[2, 3, 4]));
    }
}
