//! Rollback of one key, and the records that keep a rolled back transaction from coming back.

use rutile_proto::ids::Timestamp;

use crate::mvcc::key::Key;
use crate::mvcc::lock::{Lock, LockType};
use crate::mvcc::reader::TxnRecord;
use crate::mvcc::txn::MvccTxn;
use crate::mvcc::write::{Write, WriteType};
use crate::txn::error::{Error, Result};
use crate::txn::reader::{CommandReader, FoundLock};

/// What is known of a transaction that has no lock on a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingLock {
    Committed(Timestamp),
    RolledBack,
    /// Nothing was there; a Rollback record is there now.
    NowRolledBack,
}

/// Rolls `key` of the transaction `start_ts` back, unless its lock lives on at `current_ts` (zero: whatever its age).
pub fn cleanup(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    key: &Key,
    start_ts: Timestamp,
    current_ts: Timestamp,
    protected: bool,
) -> Result<()> {
    match reader.find_lock(key)? {
        Some(found) if found.lock.start_ts == start_ts => {
            if !current_ts.is_zero() && !found.lock.is_expired(current_ts) {
                return Err(Error::locked(found.lock.to_info(key.raw().clone())));
            }
            rollback_lock(txn, reader, key, &found, protected)
        }
        other => match rollback_missing_lock(txn, reader, key, start_ts, other.as_ref(), protected)? {
            MissingLock::Committed(commit_ts) => {
                Err(Error::Committed { start_ts, commit_ts, key: key.raw().clone() })
            }
            MissingLock::RolledBack | MissingLock::NowRolledBack => Ok(()),
        },
    }
}

/// Removes an own lock with its value and leaves a Rollback record.
pub fn rollback_lock(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    key: &Key,
    found: &FoundLock,
    protected: bool,
) -> Result<()> {
    let lock = &found.lock;
    txn.unlock(key, found.in_memory);
    let overlapped = match reader.txn_record(key, lock.start_ts)? {
        TxnRecord::Own { commit_ts, write } => {
            // A pessimistic lock request that came after its transaction's end can leave a lock beside a commit.
            let consistent = write.write_type == WriteType::Rollback || lock.is_pessimistic();
            assert!(consistent, "prewritten lock of a transaction committed at {commit_ts}");
            return Ok(());
        }
        TxnRecord::OverlappedRollback => return Ok(()),
        TxnRecord::None { overlapped } => overlapped,
    };
    if lock.lock_type == LockType::Put && lock.short_value.is_none() {
        txn.delete_value(key, lock.start_ts);
    }
    let protected = protected || lock.primary == key.raw();
    put_rollback(txn, reader, key, lock.start_ts, overlapped, protected)
}

/// What became of a transaction without a lock on `key`; when nothing did, it is rolled back.
/// `other` is another transaction's lock on the key.
pub fn rollback_missing_lock(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    key: &Key,
    start_ts: Timestamp,
    other: Option<&FoundLock>,
    protected: bool,
) -> Result<MissingLock> {
    let overlapped = match known_outcome(reader, key, start_ts)? {
        Ok(known) => return Ok(known),
        Err(overlapped) => overlapped,
    };
    if let Some(found) = other
        && protected
        && overlapped.is_none()
        && may_commit_at(&found.lock, start_ts)
    {
        let mut lock = found.lock.clone();
        if !lock.rollback_ts.contains(&start_ts) {
            lock.rollback_ts.push(start_ts);
        }
        txn.update_lock(key, &lock, found.in_memory);
    }
    put_rollback(txn, reader, key, start_ts, overlapped, protected)?;
    Ok(MissingLock::NowRolledBack)
}

/// What became of a transaction without a lock, or else another transaction's record at commit_ts = `start_ts`.
pub fn known_outcome(
    reader: &mut CommandReader,
    key: &Key,
    start_ts: Timestamp,
) -> Result<std::result::Result<MissingLock, Option<Write>>> {
    Ok(match reader.txn_record(key, start_ts)? {
        TxnRecord::Own { write, .. } if write.write_type == WriteType::Rollback => {
            Ok(MissingLock::RolledBack)
        }
        TxnRecord::Own { commit_ts, .. } => Ok(MissingLock::Committed(commit_ts)),
        TxnRecord::OverlappedRollback => Ok(MissingLock::RolledBack),
        TxnRecord::None { overlapped } => Err(overlapped),
    })
}

/// An async-commit transaction chooses its commit_ts itself: it may be the start_ts of another transaction.
fn may_commit_at(lock: &Lock, ts: Timestamp) -> bool {
    lock.use_async_commit && lock.min_commit_ts <= ts
}

fn put_rollback(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    key: &Key,
    start_ts: Timestamp,
    overlapped: Option<Write>,
    protected: bool,
) -> Result<()> {
    match overlapped {
        Some(mut write) if protected => {
            write.has_overlapped_rollback = true;
            txn.put_write(key, start_ts, &write);
        }
        // Another transaction's record is in the place; an unprotected rollback may get lost.
        Some(_) => {}
        None => {
            collapse_previous(txn, reader, key, start_ts)?;
            txn.put_write(key, start_ts, &Write::new_rollback(start_ts, protected));
        }
    }
    Ok(())
}

/// A later rollback makes an unprotected earlier one superfluous.
fn collapse_previous(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    key: &Key,
    start_ts: Timestamp,
) -> Result<()> {
    if let Some((commit_ts, write)) = reader.seek_write(key, start_ts)?
        && write.write_type == WriteType::Rollback
        && !write.is_protected_rollback()
        && commit_ts < start_ts
    {
        txn.delete_write(key, commit_ts);
    }
    Ok(())
}
