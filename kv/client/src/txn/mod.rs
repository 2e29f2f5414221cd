//! Transactions over the cluster: snapshots, scans, optimistic and pessimistic transactions, lock resolution.
//!
//! Source: Percolator (OSDI '10) and TiKV's extensions of it: pessimistic locks, async commit, one-phase commit.

use std::sync::Arc;

use bytes::Bytes;
use rutile_proto::codec;

use crate::sender::Cluster;

mod committer;
mod compute;
pub(crate) mod gc;
mod membuffer;
mod open;
mod pessimistic;
mod resolver;
mod scanner;
mod snapshot;
mod transaction;
mod view;

pub use compute::{Computation, ComputeStats, Computing};
pub use scanner::Scanner;
pub use snapshot::Snapshot;
pub use transaction::{LockOptions, LockWait, LockedValue, Savepoint, Transaction, TxnMode, TxnOptions};
pub use view::ReadView;

/// What every snapshot and transaction of a client shares.
pub(crate) struct TxnCore {
    pub cluster: Arc<Cluster>,
    pub resolver: resolver::LockResolver,
    pub open: Arc<open::OpenTimestamps>,
}

impl TxnCore {
    pub fn new(cluster: Arc<Cluster>) -> Self {
        TxnCore { resolver: resolver::LockResolver::new(cluster.clone()), cluster, open: Arc::default() }
    }
}

/// Keys from `start` (inclusive) to `end` (exclusive); an empty `end` is unbounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// First key.
    pub start: Bytes,
    /// Just after the last key.
    pub end: Bytes,
}

impl KeyRange {
    /// The range between two keys.
    pub fn new(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        KeyRange { start: start.into(), end: end.into() }
    }

    /// Every key that begins with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        KeyRange { start: Bytes::copy_from_slice(prefix), end: codec::prefix_next(prefix) }
    }

    /// Exactly one key.
    #[must_use]
    pub fn point(key: &[u8]) -> Self {
        let mut end = Vec::with_capacity(key.len() + 1);
        end.extend_from_slice(key);
        end.push(0);
        KeyRange { start: Bytes::copy_from_slice(key), end: end.into() }
    }

    /// Whether `key` lies inside.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        rutile_proto::key::in_range(key, &self.start, &self.end)
    }

    /// Whether no key lies inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.start >= self.end
    }
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvPair {
    /// The key.
    pub key: Bytes,
    /// The value; empty when only keys were asked for.
    pub value: Bytes,
}

/// How to scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// At most so many pairs in all; `None` is no limit.
    pub limit: Option<usize>,
    /// From the range's end downwards.
    pub reverse: bool,
    /// Leave the values out.
    pub key_only: bool,
}
