//! Reads at one timestamp.

use std::collections::HashMap;

use bytes::Bytes;
use rutile_proto::ids::Timestamp;

use crate::client::Client;
use crate::error::Result;
use crate::txn::{KeyRange, ScanOptions, Scanner};

/// The committed data as of a timestamp. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    client: Client,
    ts: Timestamp,
}

impl Snapshot {
    pub(crate) fn new(client: Client, ts: Timestamp) -> Self {
        Snapshot { client, ts }
    }

    /// The timestamp read at.
    #[must_use]
    pub fn ts(&self) -> Timestamp {
        self.ts
    }

    /// The value of `key`, if it can be had without waiting (the store is in this process and leads the region, no
    /// lock is in the way); `None` tells to call [`Snapshot::get`].
    #[must_use]
    pub fn try_get(&self, _key: &[u8]) -> Option<Option<Bytes>> {
        None
    }

    /// The value of `key`. At `Timestamp::MAX` it is the newest committed one, and no timestamp is asked for.
    pub async fn get(&self, _key: &[u8]) -> Result<Option<Bytes>> {
        Err(self.client.not_built())
    }

    /// The values of those `keys` that exist.
    pub async fn batch_get(&self, _keys: Vec<Bytes>) -> Result<HashMap<Bytes, Bytes>> {
        Err(self.client.not_built())
    }

    /// The pairs of a range, in pages.
    #[must_use]
    pub fn scan(&self, range: KeyRange, options: ScanOptions) -> Scanner {
        Scanner::new(self.clone(), range, options)
    }
}
