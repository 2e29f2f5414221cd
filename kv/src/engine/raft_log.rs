//! The raft logs of all regions in one raft-engine.
//!
//! Per region: its entries; under `h` the hard state; under `t` the truncated state; under `s`, while a snapshot is being applied, the
//! region as the snapshot has it. Region id 0 holds, under `i`, the store's identity. Compaction commands travel only in synced batches, so that a hole in the log is never legal.

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::{Entry, HardState};
use raft_engine::{Command, LogBatch, MessageExt, ReadableSize, RecoveryMode};
use rutile_proto::raft_serverpb::{RaftSnapshotData, RaftTruncatedState, StoreIdent};

use super::raft_log_verify::{self, CleanMarker};
use super::{Error, Result};
use crate::config::RaftLogConfig;

const STORE_KEY_SPACE: u64 = 0;
const IDENT_KEY: &[u8] = b"i";
const HARD_STATE_KEY: &[u8] = b"h";
const TRUNCATED_KEY: &[u8] = b"t";
const APPLYING_KEY: &[u8] = b"s";

#[cfg(not(test))]
use raft_engine::env::DefaultFileSystem as LogFs;

#[cfg(test)]
use super::lossy_fs::LossyFs as LogFs;

type Logs = raft_engine::Engine<LogFs>;

struct EntryCodec;

impl MessageExt for EntryCodec {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// The raft logs of a store. Cheap to clone.
#[derive(Clone)]
pub struct RaftLog {
    /// `None` once closed.
    engine: Arc<RwLock<Option<Logs>>>,
    dir: Arc<Path>,
}

impl RaftLog {
    /// Opens or creates the logs in `dir`. Every record of every file is verified first: a record torn by a crash at the very end is
    /// cut off, everything else that is wrong is [`Error::Corruption`] naming the file.
    pub fn open(dir: &Path, config: &RaftLogConfig) -> Result<Self> {
        #[cfg(not(test))]
        let fs = LogFs {};
        #[cfg(test)]
        let fs = LogFs::default();
        Self::open_on(dir, config, fs)
    }

    /// As [`RaftLog::open`], on another file system.
    pub(crate) fn open_on(dir: &Path, config: &RaftLogConfig, fs: LogFs) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, &e))?;
        let marker = CleanMarker::read(dir)?;
        raft_log_verify::verify_dir(dir, marker.as_ref())?;
        CleanMarker::remove(dir)?;
        let config = raft_engine::Config {
            dir: dir.to_string_lossy().into_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            target_file_size: ReadableSize(config.file_size.bytes()),
            purge_threshold: ReadableSize(config.purge_threshold.bytes()),
            recovery_threads: 2,
            // Old bytes behind the end of the log would look like corruption to the verification.
            enable_log_recycle: false,
            ..Default::default()
        };
        match Logs::open_with_file_system(config, Arc::new(fs)) {
            Ok(engine) => Ok(Self { engine: Arc::new(RwLock::new(Some(engine))), dir: Arc::from(dir) }),
            Err(raft_engine::Error::Other(e)) if e.to_string().contains("lock") => {
                Err(Error::Locked { dir: dir.to_owned() })
            }
            Err(raft_engine::Error::Corruption(what)) => {
                Err(Error::Corruption(format!("{}: {what}", dir.display())))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Closes the files and notes that they are complete, so that the next start can insist on every byte.
    pub fn close(&self) -> Result<()> {
        match self.engine.write().take() {
            Some(engine) => {
                drop(engine);
                CleanMarker::write(&self.dir)
            }
            None => Ok(()),
        }
    }

    fn with<T>(&self, f: impl FnOnce(&Logs) -> raft_engine::Result<T>) -> Result<T> {
        match self.engine.read().as_ref() {
            Some(engine) => f(engine).map_err(|e| self.named(e)),
            None => Err(Error::RaftLog("closed".to_owned())),
        }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// An empty batch.
    #[must_use]
    pub fn batch(&self) -> RaftLogBatch {
        RaftLogBatch { batch: LogBatch::default() }
    }

    /// Appends a batch; with `sync` it is on disk when this returns. The batch is empty afterwards.
    pub fn write(&self, batch: &mut RaftLogBatch, sync: bool) -> Result<()> {
        self.with(|engine| engine.write(&mut batch.batch, sync)).map(drop)
    }

    /// The store's identity.
    pub fn ident(&self) -> Result<Option<StoreIdent>> {
        self.decoded(STORE_KEY_SPACE, IDENT_KEY)
    }

    /// A region's hard state.
    pub fn hard_state(&self, region_id: u64) -> Result<Option<HardState>> {
        self.with(|engine| engine.get_message(region_id, HARD_STATE_KEY))
    }

    /// What was cut off a region's log.
    pub fn truncated(&self, region_id: u64) -> Result<Option<RaftTruncatedState>> {
        self.decoded(region_id, TRUNCATED_KEY)
    }

    /// The snapshot that is being applied to a region; its index and term are those of the truncated state.
    pub fn applying(&self, region_id: u64) -> Result<Option<RaftSnapshotData>> {
        self.decoded(region_id, APPLYING_KEY)
    }

    /// All regions of which something is kept.
    pub fn regions(&self) -> Result<Vec<u64>> {
        let mut regions = self.with(|engine| Ok(engine.raft_groups()))?;
        regions.retain(|id| *id != STORE_KEY_SPACE);
        Ok(regions)
    }

    /// Index of the last entry.
    pub fn last_index(&self, region_id: u64) -> Result<Option<u64>> {
        self.with(|engine| Ok(engine.last_index(region_id)))
    }

    /// One entry.
    pub fn entry(&self, region_id: u64, index: u64) -> Result<Option<Entry>> {
        self.with(|engine| engine.get_entry::<EntryCodec>(region_id, index))
    }

    /// The entries `[low, high)`, at least one and at most `bytes_max` bytes.
    pub fn entries(
        &self,
        region_id: u64,
        low: u64,
        high: u64,
        bytes_max: Option<usize>,
    ) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.with(|engine| {
            engine.fetch_entries_to::<EntryCodec>(region_id, low, high, bytes_max, &mut entries)
        })?;
        Ok(entries)
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> Result<bool> {
        self.with(|engine| Ok(engine.is_empty()))
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used_size_bytes(&self) -> u64 {
        self.with(|engine| Ok(engine.get_used_size() as u64)).unwrap_or(0)
    }

    /// Removes files that hold nothing needed; returns the regions whose logs stand in the way.
    pub fn purge(&self) -> Result<Vec<u64>> {
        self.with(Logs::purge_expired_files)
    }

    fn decoded<M: prost::Message + Default>(&self, region_id: u64, key: &[u8]) -> Result<Option<M>> {
        let Some(bytes) = self.with(|engine| Ok(engine.get(region_id, key)))? else { return Ok(None) };
        let decoded = M::decode(&bytes[..]);
        decoded.map(Some).map_err(|e| Error::Corruption(format!("{}: {e}", self.dir.display())))
    }

    fn named(&self, e: raft_engine::Error) -> Error {
        match e {
            raft_engine::Error::Corruption(what) => {
                Error::Corruption(format!("{}: {what}", self.dir.display()))
            }
            e => e.into(),
        }
    }
}

/// Changes to the raft logs that are written with one append.
pub struct RaftLogBatch {
    batch: LogBatch,
}

impl RaftLogBatch {
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Sets the store's identity.
    pub fn put_ident(&mut self, ident: &StoreIdent) -> Result<()> {
        Ok(self.batch.put(STORE_KEY_SPACE, IDENT_KEY.to_vec(), ident.encode_to_vec())?)
    }

    /// Appends entries to a region's log, replacing what was there from the first of them on.
    pub fn append(&mut self, region_id: u64, entries: &[Entry]) -> Result<()> {
        Ok(self.batch.add_entries::<EntryCodec>(region_id, entries)?)
    }

    /// Sets a region's hard state.
    pub fn put_hard_state(&mut self, region_id: u64, state: &HardState) -> Result<()> {
        let bytes = state.write_to_bytes().map_err(|e| Error::RaftLog(e.to_string()))?;
        Ok(self.batch.put(region_id, HARD_STATE_KEY.to_vec(), bytes)?)
    }

    /// Cuts a region's log off up to and including `truncated.index`.
    pub fn truncate(&mut self, region_id: u64, truncated: &RaftTruncatedState) -> Result<()> {
        self.put_truncated(region_id, truncated)?;
        self.batch.add_command(region_id, Command::Compact { index: truncated.index + 1 });
        Ok(())
    }

    /// Sets where a new region's log begins.
    pub fn put_truncated(&mut self, region_id: u64, truncated: &RaftTruncatedState) -> Result<()> {
        Ok(self.batch.put(region_id, TRUNCATED_KEY.to_vec(), truncated.encode_to_vec())?)
    }

    /// Notes that a snapshot is being applied; with the truncated state this is all that a restart needs.
    pub fn put_applying(&mut self, region_id: u64, snapshot: &RaftSnapshotData) -> Result<()> {
        Ok(self.batch.put(region_id, APPLYING_KEY.to_vec(), snapshot.encode_to_vec())?)
    }

    /// The snapshot is applied and flushed.
    pub fn delete_applying(&mut self, region_id: u64) {
        self.batch.delete(region_id, APPLYING_KEY.to_vec());
    }

    /// Removes everything of a region.
    pub fn clean(&mut self, region_id: u64) {
        self.batch.add_command(region_id, Command::Clean);
    }
}
