//! Raw access: keys and values without transactions. Keys are in PD form as they are (API V1).

use std::sync::Arc;

use bytes::Bytes;
use rutile_proto::kvrpcpb::{
    self, RawBatchDeleteRequest, RawBatchGetRequest, RawBatchPutRequest, RawCasRequest,
    RawDeleteRangeRequest, RawDeleteRequest, RawGetKeyTtlRequest, RawGetRequest, RawPutRequest,
    RawScanRequest,
};

use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::sender::{Cluster, Sent};
use crate::txn::{KeyRange, KvPair, ScanOptions};

/// Keys of one batch request.
const BATCH_KEYS_MAX: usize = 512;
/// Pairs of one scan request.
const PAGE: usize = 1024;

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
    cluster: Arc<Cluster>,
    options: Arc<RawOptions>,
}

impl RawClient {
    pub(crate) fn new(cluster: Arc<Cluster>, options: RawOptions) -> Self {
        RawClient { cluster, options: Arc::new(options) }
    }

    /// The value of `key`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let request = RawGetRequest { key: Bytes::copy_from_slice(key), cf: self.cf(), ..Default::default() };
        let mut backoff = Backoff::new(Backoff::READ_MS);
        let answer = self.cluster.call(key, &request, |_| (), &mut backoff).await?;
        refusal(answer.error)?;
        Ok((!answer.not_found).then_some(answer.value))
    }

    /// The pairs of those `keys` that exist.
    pub async fn batch_get(&self, keys: Vec<Bytes>) -> Result<Vec<KvPair>> {
        let mut backoff = Backoff::new(Backoff::READ_MS);
        let mut found = Vec::with_capacity(keys.len());
        let mut pending = keys;
        while !pending.is_empty() {
            let taken = std::mem::take(&mut pending);
            for (region, keys) in self.cluster.group_by_region(taken, key_itself, &mut backoff).await? {
                for chunk in keys.chunks(BATCH_KEYS_MAX) {
                    let request =
                        RawBatchGetRequest { keys: chunk.to_vec(), cf: self.cf(), ..Default::default() };
                    match self.cluster.send(&region, request, |_| (), &mut backoff).await? {
                        Sent::Answer(answer) => found.extend(answer.pairs.into_iter().map(pair)),
                        Sent::Relocate => pending.extend_from_slice(chunk),
                    }
                }
            }
        }
        Ok(found)
    }

    /// Writes a value, which expires after `ttl_secs` if not 0.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>, ttl_secs: u64) -> Result<()> {
        let key = key.into();
        let request = RawPutRequest {
            key: key.clone(),
            value: value.into(),
            cf: self.cf(),
            ttl: ttl_secs,
            for_cas: self.options.atomic,
            ..Default::default()
        };
        let mut backoff = Backoff::new(Backoff::WRITE_MS);
        refusal(self.cluster.call(&key, &request, |_| (), &mut backoff).await?.error)
    }

    /// Writes many values; not one atomic step.
    pub async fn batch_put(&self, pairs: Vec<KvPair>, ttl_secs: u64) -> Result<()> {
        let mut backoff = Backoff::new(Backoff::WRITE_MS);
        let mut pending = pairs;
        let pd_key = |p: &KvPair, out: &mut Vec<u8>| out.extend_from_slice(&p.key);
        while !pending.is_empty() {
            let taken = std::mem::take(&mut pending);
            for (region, pairs) in self.cluster.group_by_region(taken, pd_key, &mut backoff).await? {
                for chunk in pairs.chunks(BATCH_KEYS_MAX) {
                    let stored = |p: &KvPair| kvrpcpb::KvPair {
                        key: p.key.clone(),
                        value: p.value.clone(),
                        ..Default::default()
                    };
                    let request = RawBatchPutRequest {
                        pairs: chunk.iter().map(stored).collect(),
                        cf: self.cf(),
                        for_cas: self.options.atomic,
                        ttls: if ttl_secs == 0 { Vec::new() } else { vec![ttl_secs] },
                        ..Default::default()
                    };
                    match self.cluster.send(&region, request, |_| (), &mut backoff).await? {
                        Sent::Answer(answer) => refusal(answer.error)?,
                        Sent::Relocate => pending.extend_from_slice(chunk),
                    }
                }
            }
        }
        Ok(())
    }

    /// Deletes a key.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        let request = RawDeleteRequest {
            key: key.clone(),
            cf: self.cf(),
            for_cas: self.options.atomic,
            ..Default::default()
        };
        let mut backoff = Backoff::new(Backoff::WRITE_MS);
        refusal(self.cluster.call(&key, &request, |_| (), &mut backoff).await?.error)
    }

    /// Deletes many keys; not one atomic step.
    pub async fn batch_delete(&self, keys: Vec<Bytes>) -> Result<()> {
        let mut backoff = Backoff::new(Backoff::WRITE_MS);
        let mut pending = keys;
        while !pending.is_empty() {
            let taken = std::mem::take(&mut pending);
            for (region, keys) in self.cluster.group_by_region(taken, key_itself, &mut backoff).await? {
                for chunk in keys.chunks(BATCH_KEYS_MAX) {
                    let request = RawBatchDeleteRequest {
                        keys: chunk.to_vec(),
                        cf: self.cf(),
                        for_cas: self.options.atomic,
                        ..Default::default()
                    };
                    match self.cluster.send(&region, request, |_| (), &mut backoff).await? {
                        Sent::Answer(answer) => refusal(answer.error)?,
                        Sent::Relocate => pending.extend_from_slice(chunk),
                    }
                }
            }
        }
        Ok(())
    }

    /// Deletes a range, region after region.
    pub async fn delete_range(&self, range: KeyRange) -> Result<()> {
        let mut backoff = Backoff::new(Backoff::WRITE_MS);
        let mut rest = range;
        while !rest.is_empty() {
            let region = self.cluster.locate(&rest.start, &mut backoff).await?;
            let bound = region.end_key();
            let is_last = bound.is_empty() || (!rest.end.is_empty() && rest.end <= *bound);
            let end = if is_last { rest.end.clone() } else { bound.clone() };
            let request = RawDeleteRangeRequest {
                start_key: rest.start.clone(),
                end_key: end.clone(),
                cf: self.cf(),
                ..Default::default()
            };
            match self.cluster.send(&region, request, |_| (), &mut backoff).await? {
                Sent::Answer(answer) => refusal(answer.error)?,
                Sent::Relocate => continue,
            }
            if is_last {
                return Ok(());
            }
            rest.start = end;
        }
        Ok(())
    }

    /// The pairs of a range; `options.limit` should be set.
    pub async fn scan(&self, range: KeyRange, options: ScanOptions) -> Result<Vec<KvPair>> {
        let mut backoff = Backoff::new(Backoff::READ_MS);
        let limit = options.limit.unwrap_or(usize::MAX);
        let mut rest = range;
        let mut found: Vec<KvPair> = Vec::new();
        while found.len() < limit && !rest.is_empty() {
            let region = if options.reverse {
                self.cluster.locate_before(&rest.end, &mut backoff).await?
            } else {
                self.cluster.locate(&rest.start, &mut backoff).await?
            };
            let wanted = (limit - found.len()).min(PAGE);
            let request = self.scan_request(&rest, wanted, options);
            let answer = match self.cluster.send(&region, request, |_| (), &mut backoff).await? {
                Sent::Answer(answer) => answer,
                Sent::Relocate => continue,
            };
            let exhausted = answer.kvs.len() < wanted;
            found.extend(answer.kvs.into_iter().map(pair));
            let bound = if options.reverse { region.start_key() } else { region.end_key() };
            let next = match found.last() {
                Some(last) if !exhausted && options.reverse => last.key.clone(),
                Some(last) if !exhausted => Bytes::from([&last.key[..], &[0]].concat()),
                _ if bound.is_empty() => break,
                _ => bound.clone(),
            };
            if options.reverse {
                rest.end = next;
            } else {
                rest.start = next;
            }
        }
        Ok(found)
    }

    fn scan_request(&self, range: &KeyRange, limit: usize, options: ScanOptions) -> RawScanRequest {
        let (start_key, end_key) = if options.reverse {
            (range.end.clone(), range.start.clone())
        } else {
            (range.start.clone(), range.end.clone())
        };
        RawScanRequest {
            start_key,
            end_key,
            limit: limit as u32,
            key_only: options.key_only,
            reverse: options.reverse,
            cf: self.cf(),
            ..Default::default()
        }
    }

    /// Seconds until `key` expires; `Some(0)` without TTL, `None` if there is no such key.
    pub async fn ttl_secs(&self, key: &[u8]) -> Result<Option<u64>> {
        let request =
            RawGetKeyTtlRequest { key: Bytes::copy_from_slice(key), cf: self.cf(), ..Default::default() };
        let mut backoff = Backoff::new(Backoff::READ_MS);
        let answer = self.cluster.call(key, &request, |_| (), &mut backoff).await?;
        refusal(answer.error)?;
        Ok((!answer.not_found).then_some(answer.ttl))
    }

    /// Puts `value` if the key's value is `expected` (`None`: the key is absent). Answers whether it did, and the value
    /// before. `ResultUndetermined` if an answer was lost: a repetition would compare with what it wrote itself.
    pub async fn compare_and_swap(
        &self,
        key: impl Into<Bytes>,
        expected: Option<Bytes>,
        value: impl Into<Bytes>,
        ttl_secs: u64,
    ) -> Result<(bool, Option<Bytes>)> {
        let key = key.into();
        let request = RawCasRequest {
            key: key.clone(),
            value: value.into(),
            previous_not_exist: expected.is_none(),
            previous_value: expected.unwrap_or_default(),
            cf: self.cf(),
            ttl: ttl_secs,
            ..Default::default()
        };
        let mut backoff = Backoff::new(Backoff::WRITE_MS);
        loop {
            let region = self.cluster.locate(&key, &mut backoff).await?;
            let sent = self.cluster.send(&region, request.clone(), |_| (), &mut backoff).await;
            if backoff.maybe_executed() {
                return Err(Error::ResultUndetermined("the answer of the store was lost".to_owned()));
            }
            if let Sent::Answer(answer) = sent? {
                refusal(answer.error)?;
                let before = (!answer.previous_not_exist).then_some(answer.previous_value);
                return Ok((answer.succeed, before));
            }
        }
    }

    fn cf(&self) -> String {
        self.options.cf.clone()
    }
}

fn key_itself(key: &Bytes, out: &mut Vec<u8>) {
    out.extend_from_slice(key);
}

fn pair(stored: kvrpcpb::KvPair) -> KvPair {
    KvPair { key: stored.key, value: stored.value }
}

fn refusal(error: String) -> Result<()> {
    if error.is_empty() { Ok(()) } else { Err(Error::Raw(error)) }
}
