//! The raft group's storage: a snapshot file, a log file after it, and the entries in memory.
//!
//! Directory: `snapshot-<index>` and `log-<index>`, where index is what the snapshot has applied (16 hex digits).
//! To compact, first `log-<new>` is written with the entries that remain, then `snapshot-<new>`; both by rename. The newest
//! snapshot decides which log belongs to it, so a crash between the two steps leaves the old pair in force.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::command::StateImage;
use super::log_file::LogFile;
use crate::error::{Error, Result};

const SNAPSHOT_MAGIC: &[u8; 8] = b"RTLPDSN1";

/// One write to the log: entries and, when it changed, the hard state.
#[derive(Clone, PartialEq, prost::Message)]
struct LogRecord {
    #[prost(bytes = "vec", repeated, tag = "1")]
    entries: Vec<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    hard_state: Option<Vec<u8>>,
}

/// What a snapshot file holds.
#[derive(Clone, PartialEq, prost::Message)]
struct SnapshotFile {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(bytes = "vec", tag = "3")]
    conf_state: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    state: Option<StateImage>,
}

/// Storage of the raft group.
#[derive(Debug)]
pub struct RaftLog {
    dir: PathBuf,
    log: LogFile,
    hard_state: HardState,
    conf_state: ConfState,
    snapshot_index: u64,
    snapshot_term: u64,
    /// Entries after the snapshot, without gaps.
    entries: Vec<Entry>,
}

impl RaftLog {
    /// Opens the directory, or makes it with the given voters. Also gives the state at the snapshot.
    pub fn open(dir: &Path, voters: &[u64]) -> Result<(Self, StateImage)> {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let mut newest = None;
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
            let name = entry.map_err(Error::io(dir))?.file_name().to_string_lossy().into_owned();
            if let Some(index) =
                name.strip_prefix("snapshot-").and_then(|hex| u64::from_str_radix(hex, 16).ok())
            {
                newest = newest.max(Some(index));
            }
            files.push(name);
        }
        let Some(index) = newest else {
            if let Some(log) = files.iter().find(|name| is_log(name)) {
                // A log whose snapshot was never finished is the trace of a first start that was killed.
                if files.iter().filter(|name| is_log(name)).count() > 1 || log != &log_name(1) {
                    let (path, reason) =
                        (dir.join(log), "the snapshot that belongs to this log is missing".into());
                    return Err(Error::Corrupt { path, offset: 0, reason });
                }
            }
            return Self::create(dir, voters);
        };
        let (this, image) = Self::load(dir, index)?;
        for name in files {
            let keep = name == log_name(index) || name == snapshot_name(index);
            if !keep && (is_log(&name) || name.starts_with("snapshot-") || name.ends_with(".tmp")) {
                let path = dir.join(name);
                fs::remove_file(&path).map_err(Error::io(&path))?;
            }
        }
        Ok((this, image))
    }

    fn create(dir: &Path, voters: &[u64]) -> Result<(Self, StateImage)> {
        let mut hard_state = HardState::default();
        hard_state.set_term(1);
        hard_state.set_commit(1);
        let conf_state = ConfState::from((voters.to_vec(), vec![]));
        let log = write_log(dir, 1, &hard_state, &[])?;
        let image = super::state::State::default().image();
        write_snapshot(dir, 1, 1, &conf_state, image.clone())?;
        let this = RaftLog {
            dir: dir.into(),
            log,
            hard_state,
            conf_state,
            snapshot_index: 1,
            snapshot_term: 1,
            entries: Vec::new(),
        };
        Ok((this, image))
    }

    fn load(dir: &Path, index: u64) -> Result<(Self, StateImage)> {
        let path = dir.join(snapshot_name(index));
        let snapshot = read_snapshot(&path)?;
        let conf_state = ConfState::parse_from_bytes(&snapshot.conf_state).map_err(|e| Error::Corrupt {
            path: path.clone(),
            offset: 0,
            reason: e.to_string(),
        })?;
        let mut hard_state = HardState::default();
        let mut entries: Vec<Entry> = Vec::new();
        let log = LogFile::open(&dir.join(log_name(index)), |record| {
            let record = LogRecord::decode(record).map_err(|e| e.to_string())?;
            if let Some(bytes) = record.hard_state {
                hard_state = HardState::parse_from_bytes(&bytes).map_err(|e| e.to_string())?;
            }
            for bytes in record.entries {
                let entry = Entry::parse_from_bytes(&bytes).map_err(|e| e.to_string())?;
                push_entry(&mut entries, snapshot.index, entry)?;
            }
            Ok(())
        })?;
        hard_state.set_commit(hard_state.get_commit().max(snapshot.index));
        let this = RaftLog {
            dir: dir.into(),
            log,
            hard_state,
            conf_state,
            snapshot_index: snapshot.index,
            snapshot_term: snapshot.term,
            entries,
        };
        Ok((this, snapshot.state.unwrap_or_default()))
    }

    /// Appends entries and the hard state in one record.
    pub fn append(&mut self, entries: &[Entry], hard_state: Option<&HardState>, sync: bool) -> Result<()> {
        if entries.is_empty() && hard_state.is_none() {
            return Ok(());
        }
        self.log.append(&encode_record(entries, hard_state), sync)?;
        for entry in entries {
            push_entry(&mut self.entries, self.snapshot_index, entry.clone()).map_err(Error::Undetermined)?;
        }
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state.clone();
        }
        Ok(())
    }

    /// Remembers the commit index in memory; it is written with the next record.
    pub fn set_commit(&mut self, commit: u64) {
        self.hard_state.set_commit(commit);
    }

    /// Bytes in the log file.
    pub fn log_size_bytes(&self) -> u64 {
        self.log.size_bytes()
    }

    /// Replaces everything up to `applied` by a snapshot of the state there.
    pub fn compact(&mut self, applied: u64, image: StateImage) -> Result<()> {
        if applied <= self.snapshot_index {
            return Ok(());
        }
        let term = self
            .term_of(applied)
            .ok_or_else(|| Error::Undetermined("applied entry is not in the log".into()))?;
        let keep = (applied - self.snapshot_index) as usize;
        let log = write_log(&self.dir, applied, &self.hard_state, &self.entries[keep..])?;
        write_snapshot(&self.dir, applied, term, &self.conf_state, image)?;
        for name in [snapshot_name(self.snapshot_index), log_name(self.snapshot_index)] {
            let path = self.dir.join(name);
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        self.log = log;
        self.entries.drain(..keep);
        self.snapshot_index = applied;
        self.snapshot_term = term;
        Ok(())
    }

    /// Replaces everything by a snapshot that another member sent; survives a crash once this returns.
    pub fn install(&mut self, snapshot: &Snapshot, hard_state: &HardState, image: StateImage) -> Result<()> {
        let (index, term) = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        assert!(index > self.snapshot_index, "snapshot {index} is not newer than {}", self.snapshot_index);
        let mut hard_state = hard_state.clone();
        hard_state.set_commit(hard_state.get_commit().max(index));
        let log = write_log(&self.dir, index, &hard_state, &[])?;
        let conf_state = snapshot.get_metadata().get_conf_state().clone();
        write_snapshot(&self.dir, index, term, &conf_state, image)?;
        for name in [snapshot_name(self.snapshot_index), log_name(self.snapshot_index)] {
            let path = self.dir.join(name);
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        self.log = log;
        self.hard_state = hard_state;
        self.conf_state = conf_state;
        self.entries.clear();
        self.snapshot_index = index;
        self.snapshot_term = term;
        Ok(())
    }

    /// Who votes, as the directory knows it.
    pub fn voters(&self) -> &[u64] {
        self.conf_state.get_voters()
    }

    /// The hard state as it was written last.
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// Index of the last entry.
    pub fn last_entry(&self) -> u64 {
        self.last()
    }

    /// Up to where the snapshot file reaches.
    pub fn snapshot_index(&self) -> u64 {
        self.snapshot_index
    }

    fn last(&self) -> u64 {
        self.snapshot_index + self.entries.len() as u64
    }

    fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.snapshot_index {
            return Some(self.snapshot_term);
        }
        let at = index.checked_sub(self.snapshot_index + 1)?;
        self.entries.get(usize::try_from(at).ok()?).map(Entry::get_term)
    }
}

impl Storage for RaftLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.snapshot_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let offset = self.snapshot_index + 1;
        let mut found = self.entries[(low - offset) as usize..(high - offset) as usize].to_vec();
        raft::util::limit_size(&mut found, max_size.into());
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.snapshot_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        self.term_of(index).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.snapshot_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let file = read_snapshot(&self.dir.join(snapshot_name(self.snapshot_index)))
            .map_err(|e| raft::Error::Store(StorageError::Other(Box::new(e))))?;
        let mut snapshot = Snapshot::default();
        snapshot.set_data(file.state.unwrap_or_default().encode_to_vec().into());
        snapshot.mut_metadata().set_index(file.index);
        snapshot.mut_metadata().set_term(file.term);
        snapshot.mut_metadata().set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}

fn snapshot_name(index: u64) -> String {
    format!("snapshot-{index:016x}")
}

fn log_name(index: u64) -> String {
    format!("log-{index:016x}")
}

fn is_log(name: &str) -> bool {
    name.starts_with("log-") && !name.ends_with(".tmp")
}

fn encode_record(entries: &[Entry], hard_state: Option<&HardState>) -> Vec<u8> {
    LogRecord {
        entries: entries.iter().map(|entry| entry.write_to_bytes().expect("entries always encode")).collect(),
        hard_state: hard_state.map(|state| state.write_to_bytes().expect("a hard state always encodes")),
    }
    .encode_to_vec()
}

/// Adds an entry; one that was there under the same index is replaced together with all that followed it.
fn push_entry(
    entries: &mut Vec<Entry>,
    snapshot_index: u64,
    entry: Entry,
) -> std::result::Result<(), String> {
    let index = entry.get_index();
    if index <= snapshot_index {
        return Ok(());
    }
    let at = (index - snapshot_index - 1) as usize;
    if at > entries.len() {
        return Err(format!("entry {index} follows a gap"));
    }
    entries.truncate(at);
    entries.push(entry);
    Ok(())
}

fn write_log(dir: &Path, index: u64, hard_state: &HardState, entries: &[Entry]) -> Result<LogFile> {
    let (temporary, path) = (dir.join(format!("{}.tmp", log_name(index))), dir.join(log_name(index)));
    let log = LogFile::create(&temporary, &[encode_record(entries, Some(hard_state))])?;
    fs::rename(&temporary, &path).map_err(Error::io(&path))?;
    sync_dir(dir)?;
    Ok(log)
}

fn write_snapshot(
    dir: &Path,
    index: u64,
    term: u64,
    conf_state: &ConfState,
    state: StateImage,
) -> Result<()> {
    let conf_state = conf_state.write_to_bytes().expect("a conf state always encodes");
    let payload = SnapshotFile { index, term, conf_state, state: Some(state) }.encode_to_vec();
    let (temporary, path) =
        (dir.join(format!("{}.tmp", snapshot_name(index))), dir.join(snapshot_name(index)));
    let mut file = File::create(&temporary).map_err(Error::io(&temporary))?;
    let header = [&SNAPSHOT_MAGIC[..], &crc32fast::hash(&payload).to_le_bytes()].concat();
    file.write_all(&header)
        .and_then(|()| file.write_all(&payload))
        .and_then(|()| file.sync_all())
        .map_err(Error::io(&temporary))?;
    fs::rename(&temporary, &path).map_err(Error::io(&path))?;
    sync_dir(dir)
}

fn read_snapshot(path: &Path) -> Result<SnapshotFile> {
    let content = fs::read(path).map_err(Error::io(path))?;
    let corrupt = |reason: &str| Error::Corrupt { path: path.into(), offset: 0, reason: reason.into() };
    let payload = content
        .strip_prefix(&SNAPSHOT_MAGIC[..])
        .and_then(|rest| rest.split_at_checked(4))
        .ok_or_else(|| corrupt("not a snapshot of the placement driver"))?;
    if crc32fast::hash(payload.1).to_le_bytes() != payload.0 {
        return Err(corrupt("the checksum does not match"));
    }
    SnapshotFile::decode(payload.1).map_err(|e| corrupt(&e.to_string()))
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io(dir))
}
