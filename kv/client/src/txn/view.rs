//! What a statement reads through: a snapshot, with a transaction's own writes over it if there is one.

use std::collections::HashMap;

use bytes::Bytes;
use rutile_proto::ids::Timestamp;

use crate::error::Result;
use crate::read_from::ReadFrom;
use crate::txn::{Computation, Computing, KeyRange, ScanOptions, Scanner, Snapshot, Transaction};

/// Reads of one statement. Cheap to clone. Made from a [`Snapshot`] (no transaction) or by [`Transaction::view`].
#[derive(Clone)]
pub struct ReadView {
    snapshot: Snapshot,
    own: Option<Transaction>,
}

impl From<Snapshot> for ReadView {
    fn from(snapshot: Snapshot) -> Self {
        ReadView { snapshot, own: None }
    }
}

impl ReadView {
    pub(crate) fn new(snapshot: Snapshot, own: Transaction) -> Self {
        ReadView { snapshot, own: Some(own) }
    }

    /// The timestamp of the snapshot below.
    #[must_use]
    pub fn ts(&self) -> Timestamp {
        self.snapshot.ts()
    }

    /// The same, read from these peers.
    #[must_use]
    pub fn read_from(self, from: ReadFrom) -> Self {
        ReadView { snapshot: self.snapshot.read_from(from), ..self }
    }

    /// As [`Snapshot::try_get`], own writes first.
    #[must_use]
    pub fn try_get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.own_write(key).or_else(|| self.snapshot.try_get(key))
    }

    /// The value of `key`, own writes first.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.own_write(key) {
            Some(value) => Ok(value),
            None => self.snapshot.get(key).await,
        }
    }

    /// The values of those `keys` that exist, own writes first.
    pub async fn batch_get(&self, mut keys: Vec<Bytes>) -> Result<HashMap<Bytes, Bytes>> {
        let mut own = Vec::new();
        if let Some(txn) = self.own.as_ref().filter(|t| t.is_dirty()) {
            keys.retain(|key| match txn.own_write(key) {
                Some(value) => {
                    own.extend(value.map(|v| (key.clone(), v)));
                    false
                }
                None => true,
            });
        }
        let mut found = self.snapshot.batch_get(keys).await?;
        found.extend(own);
        Ok(found)
    }

    /// The pairs of a range, merged with own writes **as they are now**: writes made while the scan runs are not seen.
    #[must_use]
    pub fn scan(&self, range: KeyRange, options: ScanOptions) -> Scanner {
        let own = self.own.as_ref().map_or_else(Vec::new, |txn| txn.own_writes(&range));
        Scanner::new(self.snapshot.clone(), range, options, own)
    }

    /// Whether a transaction of its own has written within one of the ranges.
    #[must_use]
    pub fn has_own_writes(&self, ranges: &[KeyRange]) -> bool {
        let own = self.own.as_ref().filter(|txn| txn.is_dirty());
        own.is_some_and(|txn| ranges.iter().any(|range| txn.has_own_writes(range)))
    }

    /// Runs a plan over ranges (in key order, not overlapping) in the stores. Own writes are **not** seen there.
    #[must_use]
    pub fn compute(&self, ranges: Vec<KeyRange>, job: Computation) -> Computing {
        Computing::new(self.snapshot.clone(), ranges, job)
    }

    fn own_write(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.own.as_ref().and_then(|txn| txn.own_write(key))
    }
}
