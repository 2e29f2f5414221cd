//! The RocksDB of a store: column families, options, atomic batches without a write-ahead log.
//!
//! Invariant: a batch that changes a region's data also writes its apply state, and memtables of all column families are
//! flushed together (`atomic_flush`), so that what is on disk is always the effect of a prefix of each region's log.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, FlushOptions,
    Options, Range, ReadOptions, ReadTier, SliceTransform, WriteOptions,
};

use super::{Cf, EngineSnapshot, Error, Result};
use crate::config::EngineConfig;

/// Length in bytes of the timestamp that ends keys of the write and default families.
const TS_SIZE_BYTES: usize = 8;
/// Bits per key of bloom filters: 1 % false positives.
const BLOOM_BITS_PER_KEY: f64 = 10.0;

pub(super) struct Inner {
    pub(super) db: DB,
    dir: PathBuf,
    failure: Mutex<Option<Error>>,
    on_failure: Mutex<Option<Box<dyn Fn(&Error) + Send>>>,
}

/// The store's RocksDB. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) inner: Arc<Inner>,
}

/// An engine that may have been closed.
#[derive(Clone)]
pub struct WeakEngine(Weak<Inner>);

impl WeakEngine {
    /// The engine, if it is still open.
    #[must_use]
    pub fn upgrade(&self) -> Option<Engine> {
        self.0.upgrade().map(|inner| Engine { inner })
    }
}

impl Inner {
    pub(super) fn handle(&self, cf: Cf) -> &ColumnFamily {
        self.db.cf_handle(cf.name()).expect("every column family is opened at start")
    }

    pub(super) fn poison(&self, error: &Error) {
        let first = {
            let mut failure = self.failure.lock();
            let first = failure.is_none();
            failure.get_or_insert_with(|| error.clone());
            first
        };
        if first {
            tracing::error!(%error, "the storage engine failed; the store stops");
            if let Some(hook) = self.on_failure.lock().as_ref() {
                hook(error);
            }
        }
    }
}

impl Engine {
    /// Opens or creates the engine in `dir`.
    pub fn open(dir: &Path, config: &EngineConfig) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, &e))?;
        let cache = Cache::new_lru_cache(config.block_cache_size.bytes() as usize);
        let families =
            Cf::ALL.map(|cf| ColumnFamilyDescriptor::new(cf.name(), cf_options(cf, config, &cache)));
        let db = DB::open_cf_descriptors(&db_options(config), dir, families).map_err(|e| name_dir(dir, e))?;
        let inner =
            Inner { db, dir: dir.to_owned(), failure: Mutex::new(None), on_failure: Mutex::new(None) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Does not keep the files open.
    #[must_use]
    pub fn downgrade(&self) -> WeakEngine {
        WeakEngine(Arc::downgrade(&self.inner))
    }

    /// Called once, with the first failure (corruption or I/O).
    pub fn on_failure(&self, hook: impl Fn(&Error) + Send + 'static) {
        *self.inner.on_failure.lock() = Some(Box::new(hook));
    }

    /// The first failure met, if any.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.inner.failure.lock().clone()
    }

    /// Declares the store broken; the node stops.
    pub fn fail(&self, error: Error) {
        self.inner.poison(&error);
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// A consistent view of all column families.
    #[must_use]
    pub fn snapshot(&self) -> EngineSnapshot {
        EngineSnapshot::new(self)
    }

    /// The newest value of a key.
    pub fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.inner.db.get_cf(self.inner.handle(cf), key);
        value.map(|v| v.map(Bytes::from)).map_err(|e| self.inner.read_failed(e))
    }

    /// The value of a key as it would be after a crash now.
    pub fn get_flushed(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        let mut read = ReadOptions::default();
        read.set_read_tier(ReadTier::Persisted);
        let value = self.inner.db.get_cf_opt(self.inner.handle(cf), key, &read);
        value.map(|v| v.map(Bytes::from)).map_err(|e| self.inner.read_failed(e))
    }

    /// An empty batch for this engine.
    #[must_use]
    pub fn batch(&self) -> WriteBatch {
        WriteBatch { inner: Arc::clone(&self.inner), batch: rocksdb::WriteBatch::default() }
    }

    /// Makes a batch visible, all of it at once.
    pub fn write(&self, batch: WriteBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.inner.db.write_opt(batch.batch, &options).map_err(|e| self.inner.read_failed(e))
    }

    /// Writes all memtables to disk and waits for it.
    pub fn flush(&self) -> Result<()> {
        let handles = Cf::ALL.map(|cf| self.inner.handle(cf));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.inner.db.flush_cfs_opt(&handles, &options).map_err(|e| self.inner.read_failed(e))
    }

    /// Physically removes a range of data keys from all data families, without raft, durably.
    pub fn destroy_range(&self, start: &[u8], end: &[u8]) -> Result<()> {
        let mut batch = self.batch();
        for cf in Cf::DATA {
            let handle = self.inner.handle(cf);
            self.inner
                .db
                .delete_file_in_range_cf(handle, start, end)
                .map_err(|e| self.inner.read_failed(e))?;
            batch.delete_range(cf, start, end);
        }
        self.write(batch)?;
        // Without this, a crash would bring back what the log below the applied index put there.
        self.flush()
    }

    /// Bytes on disk and in memtables of a range of data keys, roughly.
    #[must_use]
    pub fn approximate_size_bytes(&self, start: &[u8], end: &[u8]) -> u64 {
        let range = [Range::new(start, end)];
        let size = |cf| self.inner.db.get_approximate_sizes_cf(self.inner.handle(cf), &range)[0];
        Cf::DATA.into_iter().map(size).sum()
    }

    /// Bytes of all live files.
    #[must_use]
    pub fn used_size_bytes(&self) -> u64 {
        let size = |cf| {
            let property = rocksdb::properties::TOTAL_SST_FILES_SIZE;
            self.inner.db.property_int_value_cf(self.inner.handle(cf), property).ok().flatten().unwrap_or(0)
        };
        Cf::ALL.into_iter().map(size).sum()
    }

    /// Bytes held by memtables, block cache and table readers.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let property = |cf, name| {
            self.inner.db.property_int_value_cf(self.inner.handle(cf), name).ok().flatten().unwrap_or(0)
        };
        let tables = |cf| {
            property(cf, rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES)
                + property(cf, rocksdb::properties::ESTIMATE_TABLE_READERS_MEM)
        };
        Cf::ALL.into_iter().map(tables).sum::<u64>()
            + property(Cf::Default, rocksdb::properties::BLOCK_CACHE_USAGE)
    }

    /// Reads every block of every file, so that their checksums are verified.
    /// Stops early (with `false`) once `bytes_max` bytes of files were too many to read.
    pub fn verify(&self, bytes_max: u64) -> Result<bool> {
        if self.used_size_bytes() > bytes_max {
            return Ok(false);
        }
        for cf in Cf::ALL {
            let mut read = ReadOptions::default();
            read.set_total_order_seek(true);
            read.fill_cache(false);
            let mut iter = self.inner.db.raw_iterator_cf_opt(self.inner.handle(cf), read);
            iter.seek_to_first();
            while iter.valid() {
                iter.next();
            }
            iter.status().map_err(|e| self.inner.read_failed(e))?;
        }
        Ok(true)
    }
}

/// Changes that become visible together. Keys are data keys (CF raft: local keys).
pub struct WriteBatch {
    inner: Arc<Inner>,
    batch: rocksdb::WriteBatch,
}

impl WriteBatch {
    /// Sets a key.
    pub fn put(&mut self, cf: Cf, key: &[u8], value: &[u8]) {
        self.batch.put_cf(self.inner.handle(cf), key, value);
    }

    /// Removes a key.
    pub fn delete(&mut self, cf: Cf, key: &[u8]) {
        self.batch.delete_cf(self.inner.handle(cf), key);
    }

    /// Removes the keys of `[start, end)`.
    pub fn delete_range(&mut self, cf: Cf, start: &[u8], end: &[u8]) {
        self.batch.delete_range_cf(self.inner.handle(cf), start, end);
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Bytes of the encoded batch.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.batch.size_in_bytes()
    }
}

fn name_dir(dir: &Path, e: rocksdb::Error) -> Error {
    let text = e.to_string();
    match Error::from(e) {
        _ if text.contains("/LOCK") => Error::Locked { dir: dir.to_owned() },
        Error::Corruption(what) if !what.contains('/') => {
            Error::Corruption(format!("{}: {what}", dir.display()))
        }
        error => error,
    }
}

fn db_options(config: &EngineConfig) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_avoid_unnecessary_blocking_io(true);
    options.set_paranoid_checks(true);
    options.set_max_background_jobs(config.background_jobs as i32);
    options.set_db_write_buffer_size(config.write_buffer_total.bytes() as usize);
    options.set_max_open_files(config.open_files_max as i32);
    options.set_keep_log_file_num(5);
    options.set_max_log_file_size(4 << 20);
    options.set_bytes_per_sync(1 << 20);
    options.set_max_manifest_file_size(16 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// Of files that are written outside the engine.
pub(super) fn sst_options(cf: Cf) -> Options {
    let mut options = table_options(cf, None);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

/// Neighbouring entries of which half must be deletions for a file to be compacted.
const DELETION_WINDOW: usize = 256;

fn cf_options(cf: Cf, config: &EngineConfig, cache: &Cache) -> Options {
    let mut options = table_options(cf, Some(cache));
    if cf == Cf::Write {
        options.set_memtable_prefix_bloom_ratio(0.1);
    }
    options.set_write_buffer_size(config.write_buffer_size.bytes() as usize);
    options.set_max_write_buffer_number(4);
    options.set_min_write_buffer_number_to_merge(1);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_target_file_size_base(16 << 20);
    options.set_max_bytes_for_level_base(256 << 20);
    options.set_level_zero_file_num_compaction_trigger(4);
    options.set_level_zero_slowdown_writes_trigger(20);
    options.set_level_zero_stop_writes_trigger(36);
    options.set_paranoid_checks(true);
    options.set_compression_per_level(&compression(cf));
    // What was deleted must not be stepped over by every scan until enough else is written.
    options.add_compact_on_deletion_collector_factory(DELETION_WINDOW, DELETION_WINDOW / 2, 0.5);
    options
}

/// The form of table files.
fn table_options(cf: Cf, cache: Option<&Cache>) -> Options {
    let mut table = BlockBasedOptions::default();
    if let Some(cache) = cache {
        table.set_block_cache(cache);
    }
    table.set_block_size(16 << 10);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(5);
    let mut options = Options::default();
    if cf != Cf::Raft {
        table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        table.set_whole_key_filtering(cf != Cf::Write);
    }
    if cf == Cf::Write {
        options.set_prefix_extractor(SliceTransform::create(
            "rutile.WithoutTimestamp",
            |key| &key[..key.len() - TS_SIZE_BYTES],
            Some(|key: &[u8]| key.len() >= TS_SIZE_BYTES),
        ));
    }
    options.set_block_based_table_factory(&table);
    options
}

/// The newest levels uncompressed for speed, the large ones small.
fn compression(cf: Cf) -> Vec<DBCompressionType> {
    use DBCompressionType::{Lz4, None, Zstd};
    if matches!(cf, Cf::Lock | Cf::Raft) {
        vec![None; 7]
    } else {
        vec![None, None, Lz4, Lz4, Lz4, Zstd, Zstd]
    }
}
