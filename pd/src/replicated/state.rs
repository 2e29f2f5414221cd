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

/// Changes kept for watchers that start in the past or lag behind.
const EVENTS_MAX: usize = 16 << 10;

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
    /// Newest last; `(revision, event)`.
    pub(super) events: VecDeque<(i64, Event)>,
    /// Events up to this revision are forgotten.
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
            compacted_revision: 1,
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
        }
        true
    }

    pub(super) fn record_event(&mut self, event: Event) {
        self.events.push_back((self.revision, event));
        while self.events.len() > EVENTS_MAX {
            if let Some((revision, _)) = self.events.pop_front() {
                self.compacted_revision = revision;
            }
        }
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

    /// Events after this revision can still be told.
    #[must_use]
    pub fn compacted_revision(&self) -> i64 {
        self.compacted_revision
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
        if start_revision <= self.compacted_revision && start_revision <= self.revision {
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
        }
    }

    /// The state that a snapshot holds.
    #[must_use]
    pub fn from_image(image: StateImage) -> Self {
        let mut state = State {
            revision: image.revision.max(1),
            compacted_revision: image.revision.max(1),
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
        state
    }
}
