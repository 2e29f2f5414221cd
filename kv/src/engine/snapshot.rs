//! Consistent views of RocksDB that own what they look at, so that they can travel between threads and tasks.
#![allow(unsafe_code)]

use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};

use super::rocks::Inner;
use super::{Cf, Engine, Error, Result};

/// How an iterator looks at a range.
#[derive(Clone, Debug, Default)]
pub struct IterOptions {
    /// First key it can reach; empty for no bound.
    pub lower: Vec<u8>,
    /// First key after those it can reach; empty for no bound.
    pub upper: Vec<u8>,
    /// Only keys that share the sought key's prefix (the key without its last 8 bytes, in CF write) are wanted, so that
    /// bloom filters may skip files. Keys with another prefix may or may not be seen.
    pub prefix_seek: bool,
    /// Do not keep the blocks read in the cache (long scans).
    pub skip_cache: bool,
}

/// A consistent view of all column families. Keys are data keys.
pub struct EngineSnapshot {
    // Fields drop in order: the snapshot goes before the database it borrows from.
    snapshot: SnapshotWithThreadMode<'static, DB>,
    inner: Arc<Inner>,
}

impl EngineSnapshot {
    pub(super) fn new(engine: &Engine) -> Self {
        let inner = Arc::clone(&engine.inner);
        // SAFETY: `inner` keeps the `DB` alive at a stable heap address for as long as this struct lives, the snapshot
        // is dropped before `inner`, and the extended borrow never leaves this struct.
        let db: &'static DB = unsafe { &*std::ptr::from_ref::<DB>(&inner.db) };
        Self { snapshot: db.snapshot(), inner }
    }

    /// The value of a key.
    pub fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        let handle = self.inner.handle(cf);
        match self.snapshot.get_pinned_cf(handle, key) {
            Ok(value) => Ok(value.map(|v| Bytes::copy_from_slice(&v))),
            Err(e) => Err(self.inner.read_failed(e)),
        }
    }

    /// An iterator; it keeps this view alive.
    pub fn iter(self: &Arc<Self>, cf: Cf, options: IterOptions) -> EngineIterator {
        let mut read = ReadOptions::default();
        if !options.lower.is_empty() {
            read.set_iterate_lower_bound(options.lower);
        }
        if !options.upper.is_empty() {
            read.set_iterate_upper_bound(options.upper);
        }
        read.set_total_order_seek(!options.prefix_seek);
        read.set_prefix_same_as_start(options.prefix_seek);
        read.fill_cache(!options.skip_cache);
        let raw = self.snapshot.raw_iterator_cf_opt(self.inner.handle(cf), read);
        // SAFETY: the iterator borrows from the database behind `self.inner`; `EngineIterator` holds this snapshot (and
        // with it the database) and drops the raw iterator first.
        let raw = unsafe {
            std::mem::transmute::<DBRawIteratorWithThreadMode<'_, DB>, DBRawIteratorWithThreadMode<'static, DB>>(
                raw,
            )
        };
        EngineIterator { raw, snapshot: Arc::clone(self) }
    }
}

/// A cursor over one column family of an [`EngineSnapshot`]; starts nowhere: seek first.
pub struct EngineIterator {
    // Fields drop in order: the iterator goes before the snapshot it reads.
    raw: DBRawIteratorWithThreadMode<'static, DB>,
    snapshot: Arc<EngineSnapshot>,
}

impl EngineIterator {
    /// To the first key at or after `key`. Says whether there is one.
    pub fn seek(&mut self, key: &[u8]) -> Result<bool> {
        self.raw.seek(key);
        self.settle()
    }

    /// To the last key at or before `key`.
    pub fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        self.raw.seek_for_prev(key);
        self.settle()
    }

    /// To the first key within the bounds.
    pub fn seek_to_first(&mut self) -> Result<bool> {
        self.raw.seek_to_first();
        self.settle()
    }

    /// To the last key within the bounds.
    pub fn seek_to_last(&mut self) -> Result<bool> {
        self.raw.seek_to_last();
        self.settle()
    }

    /// One key forward; only when valid.
    pub fn next(&mut self) -> Result<bool> {
        self.raw.next();
        self.settle()
    }

    /// One key backward; only when valid.
    pub fn prev(&mut self) -> Result<bool> {
        self.raw.prev();
        self.settle()
    }

    /// Whether the cursor is on a key.
    #[must_use]
    pub fn valid(&self) -> bool {
        self.raw.valid()
    }

    /// The key; empty when not valid.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.raw.key().unwrap_or_default()
    }

    /// The value; empty when not valid.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.raw.value().unwrap_or_default()
    }

    fn settle(&self) -> Result<bool> {
        if self.raw.valid() {
            return Ok(true);
        }
        match self.raw.status() {
            Ok(()) => Ok(false),
            Err(e) => Err(self.snapshot.inner.read_failed(e)),
        }
    }
}

impl std::fmt::Debug for EngineSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineSnapshot").finish_non_exhaustive()
    }
}

// A poisoned engine refuses all further reads with the first corruption it met.
impl Inner {
    pub(super) fn read_failed(&self, e: rocksdb::Error) -> Error {
        let error = Error::from(e);
        self.poison(&error);
        error
    }
}
