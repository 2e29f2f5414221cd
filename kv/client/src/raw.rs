//! Raw access: keys and values without transactions.

use bytes::Bytes;

use crate::client::Client;
use crate::error::Result;
use crate::txn::{KeyRange, KvPair, ScanOptions};

/// How a raw client works.
#[derive(Clone, Debug, Default)]
pub struct RawOptions {
    /// Column family; empty is the default one.
    pub cf: String,
    /// Puts and deletes are ordered with compare-and-swap.
    pub atomic: bool,
}

/// Raw access to the cluster. Cheap to clone.
#[derive(Clone)]
pub struct RawClient {
    client: Client,
    options: RawOptions,
}

impl RawClient {
    pub(crate) fn new(client: Client, options: RawOptions) -> Self {
        RawClient { client, options }
    }

    /// The value of `key`.
    pub async fn get(&self, _key: &[u8]) -> Result<Option<Bytes>> {
        let _ = &self.options;
        Err(self.client.not_built())
    }

    /// The pairs of those `keys` that exist.
    pub async fn batch_get(&self, _keys: Vec<Bytes>) -> Result<Vec<KvPair>> {
        Err(self.client.not_built())
    }

    /// Writes a value, which expires after `ttl_secs` if not 0.
    pub async fn put(&self, _key: impl Into<Bytes>, _value: impl Into<Bytes>, _ttl_secs: u64) -> Result<()> {
        Err(self.client.not_built())
    }

    /// Writes many values.
    pub async fn batch_put(&self, _pairs: Vec<KvPair>, _ttl_secs: u64) -> Result<()> {
        Err(self.client.not_built())
    }

    /// Deletes a key.
    pub async fn delete(&self, _key: impl Into<Bytes>) -> Result<()> {
        Err(self.client.not_built())
    }

    /// Deletes many keys.
    pub async fn batch_delete(&self, _keys: Vec<Bytes>) -> Result<()> {
        Err(self.client.not_built())
    }

    /// Deletes a range.
    pub async fn delete_range(&self, _range: KeyRange) -> Result<()> {
        Err(self.client.not_built())
    }

    /// The pairs of a range; `options.limit` should be set.
    pub async fn scan(&self, _range: KeyRange, _options: ScanOptions) -> Result<Vec<KvPair>> {
        Err(self.client.not_built())
    }

    /// Seconds until `key` expires; `Some(0)` without TTL, `None` if there is no such key.
    pub async fn ttl_secs(&self, _key: &[u8]) -> Result<Option<u64>> {
        Err(self.client.not_built())
    }

    /// Puts `value` if the key's value is `expected` (`None`: the key is absent). Answers whether it did, and the value
    /// before.
    pub async fn compare_and_swap(
        &self,
        _key: impl Into<Bytes>,
        _expected: Option<Bytes>,
        _value: impl Into<Bytes>,
        _ttl_secs: u64,
    ) -> Result<(bool, Option<Bytes>)> {
        Err(self.client.not_built())
    }
}
