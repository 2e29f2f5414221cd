//! A consistent view of one region. Keys are in PD form; nothing outside the region can be seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use prost::Message;
use rutile_proto::raft_serverpb::RaftApplyState;
use rutile_proto::{key, metapb};

use super::keys;
use crate::engine::{Cf, EngineIterator, EngineSnapshot, IterOptions, Result};

/// Bytes and keys that went through.
#[derive(Debug, Default)]
pub struct Flow {
    bytes: AtomicU64,
    keys: AtomicU64,
    told_bytes: AtomicU64,
    told_keys: AtomicU64,
}

impl Flow {
    /// Counts more.
    pub fn add(&self, keys: u64, bytes: u64) {
        self.keys.fetch_add(keys, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes and keys since the last call.
    pub fn take(&self) -> (u64, u64) {
        let (bytes, keys) = self.total();
        let since = |told: &AtomicU64, now: u64| now - told.swap(now, Ordering::Relaxed).min(now);
        (since(&self.told_bytes, bytes), since(&self.told_keys, keys))
    }

    /// All bytes and keys.
    pub fn total(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.keys.load(Ordering::Relaxed))
    }
}

/// A consistent view of one region. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RegionSnapshot {
    snapshot: Arc<EngineSnapshot>,
    region: Arc<metapb::Region>,
    term: u64,
    flow: Option<Arc<Flow>>,
}

impl RegionSnapshot {
    /// A view of `region` within a view of the store; `term` is that of the leadership it was taken under.
    #[must_use]
    pub fn new(snapshot: Arc<EngineSnapshot>, region: Arc<metapb::Region>, term: u64) -> Self {
        Self { snapshot, region, term, flow: None }
    }

    /// The same, with reads of it counted.
    #[must_use]
    pub fn counted(self, flow: Arc<Flow>) -> Self {
        Self { flow: Some(flow), ..self }
    }

    /// Counts what a client was given of it.
    pub fn count_read(&self, keys: usize, bytes: usize) {
        if let Some(flow) = &self.flow {
            flow.add(keys as u64, bytes as u64);
        }
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &Arc<metapb::Region> {
        &self.region
    }

    /// Of the leadership it was taken under.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The index of the last command that this view has the effects of. As long as it stays, so do all records of the region.
    pub fn applied_index(&self) -> Result<u64> {
        let stored = self.snapshot.get(Cf::Raft, &keys::apply_state(self.region.id))?;
        let state = stored.and_then(|bytes| RaftApplyState::decode(bytes).ok());
        Ok(state.map_or(0, |state| state.applied_index))
    }

    /// Whether a key belongs to the region.
    #[must_use]
    pub fn contains(&self, pd_key: &[u8]) -> bool {
        key::in_range(pd_key, &self.region.start_key, &self.region.end_key)
    }

    /// The value of a key, which must belong to the region (check with [`RegionSnapshot::contains`] where it comes from a client).
    pub fn get(&self, cf: Cf, pd_key: &[u8]) -> Result<Option<Bytes>> {
        assert!(self.contains(pd_key), "read of a key outside region {}", self.region.id);
        with_data_key(pd_key, |data_key| self.snapshot.get(cf, data_key))
    }

    /// An iterator over the part of the range that lies in the region. Bounds in PD form.
    #[must_use]
    pub fn iter(&self, cf: Cf, options: IterOptions) -> RegionIterator {
        let lower = std::cmp::max(&options.lower[..], &self.region.start_key[..]);
        let end = &self.region.end_key[..];
        let upper = match &options.upper[..] {
            [] => end,
            upper if end.is_empty() => upper,
            upper => std::cmp::min(upper, end),
        };
        // RocksDB's bounds must not cross.
        let (lower, upper) = (key::data_key(lower), key::data_end_key(upper));
        let upper = std::cmp::max(upper, lower.clone());
        let inner = self.snapshot.iter(cf, IterOptions { lower, upper, ..options });
        RegionIterator { inner, buffer: Vec::with_capacity(64) }
    }
}

/// Calls with the data key; short keys need no allocation.
fn with_data_key<T>(pd_key: &[u8], f: impl FnOnce(&[u8]) -> T) -> T {
    let mut buffer = [0; 128];
    if pd_key.len() < buffer.len() {
        buffer[0] = key::DATA_PREFIX;
        buffer[1..=pd_key.len()].copy_from_slice(pd_key);
        f(&buffer[..=pd_key.len()])
    } else {
        f(&key::data_key(pd_key))
    }
}

/// A cursor over one column family of a region; starts nowhere: seek first.
pub struct RegionIterator {
    inner: EngineIterator,
    buffer: Vec<u8>,
}

impl RegionIterator {
    fn data_key(&mut self, pd_key: &[u8]) {
        self.buffer.clear();
        self.buffer.push(key::DATA_PREFIX);
        self.buffer.extend_from_slice(pd_key);
    }

    /// To the first key at or after `pd_key`. Says whether there is one within the bounds.
    pub fn seek(&mut self, pd_key: &[u8]) -> Result<bool> {
        self.data_key(pd_key);
        self.inner.seek(&self.buffer)
    }

    /// To the last key at or before `pd_key`.
    pub fn seek_for_prev(&mut self, pd_key: &[u8]) -> Result<bool> {
        self.data_key(pd_key);
        self.inner.seek_for_prev(&self.buffer)
    }

    /// To the first key within the bounds.
    pub fn seek_to_first(&mut self) -> Result<bool> {
        self.inner.seek_to_first()
    }

    /// To the last key within the bounds.
    pub fn seek_to_last(&mut self) -> Result<bool> {
        self.inner.seek_to_last()
    }

    /// One key forward; only when valid.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<bool> {
        self.inner.next()
    }

    /// One key backward; only when valid.
    pub fn prev(&mut self) -> Result<bool> {
        self.inner.prev()
    }

    /// Whether the cursor is on a key.
    #[must_use]
    pub fn valid(&self) -> bool {
        self.inner.valid()
    }

    /// The key in PD form; empty when not valid.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.inner.key().get(1..).unwrap_or_default()
    }

    /// The value; empty when not valid.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.inner.value()
    }
}
