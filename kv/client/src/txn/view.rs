//! What a statement reads through: a snapshot, with a transaction's own writes over it if there is one.

use std::collections::HashMap;

use bytes::Bytes;
use rutile_proto::ids::Timestamp;

use crate::error::Result;
use crate::txn::{KeyRange, ScanOptions, Scanner, Snapshot};

/// Reads of one statement. Cheap to clone. Made from a [`Snapshot`] (no transaction) or by
/// [`Transaction::view`](crate::Transaction::view).
#[derive(Clone)]
pub struct ReadView {
    snapshot: Snapshot,
}

impl From<Snapshot> for ReadView {
    fn from(snapshot: Snapshot) -> Self {
        ReadView { snapshot }
    }
}

impl ReadView {
    /// The timestamp of the snapshot below.
    #[must_use]
    pub fn ts(&self) -> Timestamp {
        self.snapshot.ts()
    }

    /// As [`Snapshot::try_get`], own writes first.
    #[must_use]
    pub fn try_get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.snapshot.try_get(key)
    }

    /// The value of `key`, own writes first.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.snapshot.get(key).await
    }

    /// The values of those `keys` that exist, own writes first.
    pub async fn batch_get(&self, keys: Vec<Bytes>) -> Result<HashMap<Bytes, Bytes>> {
        self.snapshot.batch_get(keys).await
    }

    /// The pairs of a range, merged with own writes **as they are now**: writes made while the scan runs are not seen.
    #[must_use]
    pub fn scan(&self, range: KeyRange, options: ScanOptions) -> Scanner {
        self.snapshot.scan(range, options)
    }
}
