//! Whether an async-commit transaction prewrote its secondary keys; those it did not, it never will.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::LockInfo;

use super::rollback::{MissingLock, rollback_lock, rollback_missing_lock};
use crate::mvcc::key::Key;
use crate::mvcc::txn::MvccTxn;
use crate::txn::error::Result;
use crate::txn::reader::CommandReader;

/// What the keys say together.
#[derive(Debug, Clone, PartialEq)]
pub enum SecondaryLocks {
    /// Every key is locked.
    Locked(Vec<LockInfo>),
    Committed(Timestamp),
    RolledBack,
}

/// Looks at the keys in order until one decides.
pub fn check_secondary_locks(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    keys: &[Key],
    start_ts: Timestamp,
) -> Result<SecondaryLocks> {
    let mut locks = Vec::with_capacity(keys.len());
    for key in keys {
        match reader.find_lock(key)? {
            Some(found) if found.lock.start_ts == start_ts => {
                if found.lock.is_pessimistic() {
                    rollback_lock(txn, reader, key, &found, true)?;
                    return Ok(SecondaryLocks::RolledBack);
                }
                locks.push(found.lock.to_info(key.raw().clone()));
            }
            other => {
                return Ok(match rollback_missing_lock(txn, reader, key, start_ts, other.as_ref(), true)? {
                    MissingLock::Committed(commit_ts) => SecondaryLocks::Committed(commit_ts),
                    MissingLock::RolledBack | MissingLock::NowRolledBack => SecondaryLocks::RolledBack,
                });
            }
        }
    }
    Ok(SecondaryLocks::Locked(locks))
}
