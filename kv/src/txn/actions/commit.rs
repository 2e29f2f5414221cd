//! Commit of one key: the lock becomes a write record.

use rutile_proto::ids::Timestamp;

use crate::mvcc::key::Key;
use crate::mvcc::lock::Lock;
use crate::mvcc::reader::TxnRecord;
use crate::mvcc::txn::MvccTxn;
use crate::mvcc::write::{Write, WriteType};
use crate::txn::error::{Error, Result};
use crate::txn::reader::{CommandReader, FoundLock};

/// Commits `key` of the transaction `start_ts` at `commit_ts`; fine when it is committed already.
pub fn commit(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    key: &Key,
    start_ts: Timestamp,
    commit_ts: Timestamp,
) -> Result<()> {
    match reader.find_lock(key)? {
        Some(found) if found.lock.start_ts == start_ts => commit_lock(txn, key, &found, commit_ts),
        _ => match reader.txn_record(key, start_ts)? {
            TxnRecord::Own { write, .. } if write.write_type != WriteType::Rollback => Ok(()),
            _ => Err(Error::TxnLockNotFound { start_ts, key: key.raw().clone() }),
        },
    }
}

/// Commits an own lock. A pessimistic lock that was never prewritten just goes away.
pub fn commit_lock(txn: &mut MvccTxn, key: &Key, found: &FoundLock, commit_ts: Timestamp) -> Result<()> {
    let lock = &found.lock;
    if commit_ts < lock.min_commit_ts && !lock.is_pessimistic() {
        return Err(Error::CommitTsExpired {
            start_ts: lock.start_ts,
            commit_ts,
            key: key.raw().clone(),
            min_commit_ts: lock.min_commit_ts,
        });
    }
    put_commit_record(txn, key, lock, commit_ts);
    txn.unlock(key, found.in_memory);
    Ok(())
}

/// Writes the version a lock stands for.
pub fn put_commit_record(txn: &mut MvccTxn, key: &Key, lock: &Lock, commit_ts: Timestamp) {
    let Some(write_type) = WriteType::from_lock(lock.lock_type) else { return };
    assert!(commit_ts > lock.start_ts, "commit_ts {commit_ts} <= start_ts {}", lock.start_ts);
    let mut write = Write::new(write_type, lock.start_ts, lock.short_value.clone());
    write.has_overlapped_rollback = lock.rollback_ts.contains(&commit_ts);
    txn.put_write(key, commit_ts, &write);
}
