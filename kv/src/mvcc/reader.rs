//! Reads of locks and versions for commands that write: conflict checks and commit records.

use bytes::Bytes;
use rutile_proto::ids::Timestamp;

use super::key::{Key, split_ts};
use super::lock::Lock;
use super::write::{Write, WriteRef, WriteType};
use super::{Error, Result};
use crate::engine::{Cf, IterOptions};
use crate::raftstore::{RegionIterator, RegionSnapshot};

/// What became of a transaction on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnRecord {
    /// A record of its own: committed at `commit_ts`, or a Rollback.
    Own { commit_ts: Timestamp, write: Write },
    /// Rolled back; the mark is on another transaction's record with commit_ts = its start_ts.
    OverlappedRollback,
    /// Nothing. `overlapped` is another transaction's record at commit_ts = its start_ts.
    None { overlapped: Option<Write> },
}

/// Reads one snapshot; keeps its cursor between keys.
pub struct MvccReader {
    snapshot: RegionSnapshot,
    write_cursor: Option<RegionIterator>,
}

impl MvccReader {
    /// A reader of `snapshot`.
    #[must_use]
    pub fn new(snapshot: RegionSnapshot) -> Self {
        MvccReader { snapshot, write_cursor: None }
    }

    /// What is read.
    #[must_use]
    pub fn snapshot(&self) -> &RegionSnapshot {
        &self.snapshot
    }

    /// The stored lock of `key`.
    pub fn load_lock(&self, key: &Key) -> Result<Option<Lock>> {
        let stored = self.snapshot.get(Cf::Lock, key.encoded())?;
        stored.map(|bytes| Lock::parse(&bytes)).transpose().map_err(Error::from)
    }

    /// The newest record of `key` with commit_ts ≤ `ts`.
    pub fn seek_write(&mut self, key: &Key, ts: Timestamp) -> Result<Option<(Timestamp, Write)>> {
        let snapshot = &self.snapshot;
        let cursor = self.write_cursor.get_or_insert_with(|| {
            snapshot.iter(Cf::Write, IterOptions { prefix_seek: true, ..IterOptions::default() })
        });
        cursor.seek(&key.at(ts))?;
        current_write(cursor, key)
    }

    /// The record after the one last found by [`MvccReader::seek_write`].
    pub fn next_write(&mut self, key: &Key) -> Result<Option<(Timestamp, Write)>> {
        let cursor = self.write_cursor.as_mut().expect("next_write follows seek_write");
        if !cursor.valid() {
            return Ok(None);
        }
        cursor.next()?;
        current_write(cursor, key)
    }

    /// The newest Put or Delete of `key` with commit_ts ≤ `ts`.
    pub fn visible_write(&mut self, key: &Key, ts: Timestamp) -> Result<Option<(Timestamp, Write)>> {
        let mut found = self.seek_write(key, ts)?;
        while let Some((_, write)) = &found {
            match write.write_type {
                WriteType::Put | WriteType::Delete => break,
                WriteType::Lock | WriteType::Rollback => found = self.next_write(key)?,
            }
        }
        Ok(found)
    }

    /// The value of `key` at `ts`, ignoring locks.
    pub fn value_at(&mut self, key: &Key, ts: Timestamp) -> Result<Option<Bytes>> {
        match self.visible_write(key, ts)? {
            Some((_, write)) => self.value_of(key, &write),
            None => Ok(None),
        }
    }

    /// The value a version gives to `key`; `None` when it is a removal.
    pub fn value_of(&self, key: &Key, write: &Write) -> Result<Option<Bytes>> {
        match (write.write_type, &write.short_value) {
            (WriteType::Put, Some(value)) => Ok(Some(value.clone())),
            (WriteType::Put, None) => {
                load_long_value(&self.snapshot, key.encoded(), write.start_ts).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// What became of the transaction `start_ts` on `key`.
    ///
    /// A pessimistic transaction with a smaller start_ts can have a larger commit_ts: all versions down to `start_ts`
    /// are looked at.
    pub fn txn_record(&mut self, key: &Key, start_ts: Timestamp) -> Result<TxnRecord> {
        let mut found = self.seek_write(key, Timestamp::MAX)?;
        while let Some((commit_ts, write)) = found {
            if write.start_ts == start_ts {
                return Ok(TxnRecord::Own { commit_ts, write });
            }
            if commit_ts == start_ts {
                if write.has_overlapped_rollback {
                    return Ok(TxnRecord::OverlappedRollback);
                }
                return Ok(TxnRecord::None { overlapped: Some(write) });
            }
            if commit_ts < start_ts {
                break;
            }
            found = self.next_write(key)?;
        }
        Ok(TxnRecord::None { overlapped: None })
    }

    /// Locks in `[start, end)` (PD form, clamped to the region) that `want` accepts, at most `limit` (0 = all).
    pub fn scan_locks(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        want: impl Fn(&Lock) -> bool,
    ) -> Result<Vec<(Key, Lock)>> {
        let options = IterOptions { lower: start.to_vec(), upper: end.to_vec(), ..IterOptions::default() };
        let mut cursor = self.snapshot.iter(Cf::Lock, options);
        let mut found = Vec::new();
        let mut valid = cursor.seek_to_first()?;
        while valid && (limit == 0 || found.len() < limit) {
            let lock = Lock::parse(cursor.value())?;
            if want(&lock) {
                found.push((Key::from_encoded(cursor.key())?, lock));
            }
            valid = cursor.next()?;
        }
        Ok(found)
    }
}

fn current_write(cursor: &RegionIterator, key: &Key) -> Result<Option<(Timestamp, Write)>> {
    if !cursor.valid() {
        return Ok(None);
    }
    let (encoded, commit_ts) = split_ts(cursor.key())?;
    if encoded != key.encoded() {
        return Ok(None);
    }
    Ok(Some((commit_ts, WriteRef::parse(cursor.value())?.to_owned())))
}

/// A value that is too long for its write record.
pub(super) fn load_long_value(
    snapshot: &RegionSnapshot,
    encoded: &[u8],
    start_ts: Timestamp,
) -> Result<Bytes> {
    let at = super::key::append_ts(encoded, start_ts);
    snapshot.get(Cf::Default, &at)?.ok_or(Error::ValueMissing { start_ts })
}
