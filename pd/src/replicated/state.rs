//! The state machine: the placement driver's own records and an etcd-like ordered store.
//!
//! Invariant: `apply` depends on the command and the state alone, so that all members agree.
//! Every effective etcd command raises `revision` by one; all its changes carry that revision.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use rutile_proto::mvccpb::{Event, KeyValue};

use super::command::{Command, LeaseGrant, Op, Outcome, Pair, StateImage, SystemBatch};
use super::etcd;

/// Changes kept when nobody compacts; older ones are forgotten by themselves.
const EVENTS_MAX: usize = 64 << 10;
/// Bytes of keys and values in these changes.
const EVENTS_SIZE_BYTES_MAX: usize = 64 << 20;

/// A lease and the keys bound to it.
#[derive(Debug, Default)]
pub struct Lease {
    /// Seconds it lives without a keep-alive.
    pub ttl_s: i64,
    /// Keys that go with it.
    pub keys: BTreeSet<Bytes>,
}

/// The replicated state.
#[derive(Debug)]
pub struct State {
    pub(super) system: BTreeMap<Bytes, Bytes>,
    pub(super) keys: BTreeMap<Bytes, KeyValue>,
    pub(super) leases: BTreeMap<i64, Lease>,
    pub(super) revision: i64,
    /// All changes since the compaction, newest last; `(revision, event)`. Every event holds the version before it.
    pub(super) events: VecDeque<(i64, Event)>,
    events_size_bytes: usize,
    /// Versions before the newest, oldest first, of keys changed since the compaction. Version 0 = the key was deleted then.
    history: BTreeMap<Bytes, Vec<KeyValue>>,
    /// Versions that were replaced below this revision are forgotten.
    pub(super) compacted_revision: i64,
}

impl Default for State {
    fn default() -> Self {
        State {
            system: BTreeMap::new(),
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            revision: 1,
            events: VecDeque::new(),
            events_size_bytes: 0,
            history: BTreeMap::new(),
            compacted_revision: 0,
        }
    }
}

impl State {
    /// Applies one command.
    pub fn apply(&mut self, command: Command) -> Outcome {
        match command.op {
            None => Outcome::Refused("unknown command".into()),
            Some(Op::System(batch)) => Outcome::System { applied: self.apply_system(batch) },
            Some(Op::Etcd(txn)) => match etcd::apply_txn(self, txn) {
                Ok(response) => Outcome::Etcd(response),
                Err(text) => Outcome::Refused(text),
            },
            Some(Op::LeaseGrant(grant)) => Outcome::LeaseGranted(self.grant_lease(&grant)),
            Some(Op::Compact(revision)) => match self.compact(revision) {
                Ok(()) => Outcome::Compacted,
                Err(text) => Outcome::Refused(text),
            },
            Some(Op::LeaseRevoke(revoke)) => Outcome::LeaseRevoked(self.revoke_lease(revoke.id)),
        }
    }

    fn apply_system(&mut self, batch: SystemBatch) -> bool {
        let holds = batch.conditions.iter().all(|c| self.system.get(&c.key) == c.expected.as_ref());
        if holds {
            for key in batch.deletes {
                self.system.remove(&key);
            }
            for pair in batch.puts {
                self.system.insert(pair.key, pair.value);
            }
            for pair in batch.raises {
                if self.system.get(&pair.key).is_none_or(|known| *known < pair.value) {
                    self.system.insert(pair.key, pair.value);
                }
            }
        }
        holds
    }

    fn grant_lease(&mut self, grant: &LeaseGrant) -> bool {
        if self.leases.contains_key(&grant.id) {
            return false;
        }
        self.leases.insert(grant.id, Lease { ttl_s: grant.ttl_s, keys: BTreeSet::new() });
        true
    }

    fn revoke_lease(&mut self, id: i64) -> bool {
        let Some(lease) = self.leases.remove(&id) else { return false };
        if !lease.keys.is_empty() {
            self.revision += 1;
            for key in lease.keys {
                etcd::delete_key(self, &key);
            }
            self.limit_history();
        }
        true
    }

    pub(super) fn record_event(&mut self, event: Event) {
        if let Some(old) = &event.prev_kv {
            self.history.entry(old.key.clone()).or_default().push(old.clone());
        }
        if let Some(gone) = event.kv.as_ref().filter(|kv| kv.version == 0) {
            self.history.entry(gone.key.clone()).or_default().push(gone.clone());
        }
        self.events_size_bytes += event_size_bytes(&event);
        self.events.push_back((event.kv.as_ref().map_or(self.revision, |kv| kv.mod_revision), event));
    }

    /// Forgets the oldest half of the changes when there are too many. After a whole command: a revision stays together.
    pub(super) fn limit_history(&mut self) {
        if self.events.len() > EVENTS_MAX || self.events_size_bytes > EVENTS_SIZE_BYTES_MAX {
            let revision = self.events[self.events.len() / 2].0;
            self.forget_below(revision);
        }
    }

    /// Forgets what is needed only by reads below `revision`.
    pub(super) fn compact(&mut self, revision: i64) -> Result<(), String> {
        self.check_revision(revision)?;
        if revision == self.compacted_revision {
            return Err("etcdserver: mvcc: required revision has been compacted".into());
        }
        self.forget_below(revision);
        Ok(())
    }

    fn forget_below(&mut self, revision: i64) {
        self.compacted_revision = self.compacted_revision.max(revision);
        while self.events.front().is_some_and(|(at, _)| *at < revision) {
            let Some((_, event)) = self.events.pop_front() else { break };
            self.events_size_bytes -= event_size_bytes(&event);
            let Some(kv) = event.kv else { continue };
            let Some(versions) = self.history.get_mut(&kv.key) else { continue };
            // The newest version at or below the revision can still be read there.
            let readable = versions.partition_point(|version| version.mod_revision <= revision);
            let current = self.keys.get(&kv.key).is_some_and(|current| current.mod_revision <= revision);
            let drop_to = if current { versions.len() } else { readable.saturating_sub(1) };
            versions.drain(..drop_to);
            if versions.first().is_some_and(|first| first.version == 0 && first.mod_revision <= revision) {
                versions.remove(0);
            }
            if versions.is_empty() {
                self.history.remove(&kv.key);
            }
        }
    }

    /// Refuses revisions that are forgotten or not there yet, in the words of etcd.
    pub(super) fn check_revision(&self, revision: i64) -> Result<(), String> {
        if revision > self.revision {
            return Err("etcdserver: mvcc: required revision is a future revision".into());
        }
        if revision < self.compacted_revision {
            return Err("etcdserver: mvcc: required revision has been compacted".into());
        }
        Ok(())
    }

    /// The keys of a range as they were at a revision, in order.
    pub(super) fn keys_at(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>), revision: i64) -> Vec<&KeyValue> {
        let current = self.keys.range::<[u8], _>(bounds);
        if revision >= self.revision {
            return current.map(|(_, kv)| kv).collect();
        }
        let mut found: BTreeMap<&Bytes, &KeyValue> =
            current.filter(|(_, kv)| kv.mod_revision <= revision).collect();
        for (key, versions) in self.history.range::<[u8], _>(bounds) {
            let at = versions.partition_point(|version| version.mod_revision <= revision);
            if let Some(version) = at.checked_sub(1).map(|at| &versions[at])
                && version.version != 0
                && !found.contains_key(key)
            {
                found.insert(key, version);
            }
        }
        found.into_values().collect()
    }

    /// One of the placement driver's own records.
    #[must_use]
    pub fn system_get(&self, key: &[u8]) -> Option<Bytes> {
        self.system.get(key).cloned()
    }

    /// The placement driver's own records whose key begins with `prefix`, in order.
    #[must_use]
    pub fn system_scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        self.system
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Revision of the etcd service.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Versions that were replaced below this revision are forgotten.
    #[must_use]
    pub fn compacted_revision(&self) -> i64 {
        self.compacted_revision
    }

    /// A checksum over all keys and their newest versions, the same on all members.
    #[must_use]
    pub fn hash(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for (key, kv) in &self.keys {
            hasher.update(key);
            hasher.update(&kv.mod_revision.to_le_bytes());
            hasher.update(&kv.value);
        }
        hasher.finalize()
    }

    /// A lease: its time to live and its keys.
    #[must_use]
    pub fn lease(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// Every lease with its time to live in seconds.
    #[must_use]
    pub fn leases(&self) -> Vec<(i64, i64)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl_s)).collect()
    }

    /// Events from `start_revision` on; `None` when some of them are forgotten.
    #[must_use]
    pub fn events_since(&self, start_revision: i64) -> Option<Vec<(i64, Event)>> {
        if start_revision < self.compacted_revision && start_revision <= self.revision {
            return None;
        }
        let from = self.events.partition_point(|(revision, _)| *revision < start_revision);
        Some(self.events.range(from..).cloned().collect())
    }

    /// Everything, for a snapshot.
    #[must_use]
    pub fn image(&self) -> StateImage {
        StateImage {
            system: self.system.iter().map(|(k, v)| Pair { key: k.clone(), value: v.clone() }).collect(),
            keys: self.keys.values().cloned().collect(),
            leases: self
                .leases
                .iter()
                .map(|(id, lease)| LeaseGrant { id: *id, ttl_s: lease.ttl_s })
                .collect(),
            revision: self.revision,
            events: self.events.iter().map(|(_, event)| event.clone()).collect(),
            compacted_revision: self.compacted_revision,
        }
    }

    /// The state that a snapshot holds.
    #[must_use]
    pub fn from_image(image: StateImage) -> Self {
        let mut state = State {
            revision: image.revision.max(1),
            // Images of old did not hold changes.
            compacted_revision: if image.events.is_empty() && image.revision > 1 {
                image.revision
            } else {
                image.compacted_revision
            },
            system: image.system.into_iter().map(|pair| (pair.key, pair.value)).collect(),
            ..State::default()
        };
        for lease in image.leases {
            state.leases.insert(lease.id, Lease { ttl_s: lease.ttl_s, keys: BTreeSet::new() });
        }
        for kv in image.keys {
            if let Some(lease) = state.leases.get_mut(&kv.lease) {
                lease.keys.insert(kv.key.clone());
            }
            state.keys.insert(kv.key.clone(), kv);
        }
        for event in image.events {
            // The first event of a key brings the version before it; later ones bring what is there already.
            state.record_event(event);
        }
        state
    }
}

fn event_size_bytes(event: &Event) -> usize {
    event.kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len()) + 64
}
