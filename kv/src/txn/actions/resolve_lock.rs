//! Finishes a lock whose transaction's fate is known.

use rutile_proto::ids::Timestamp;

use super::commit::commit_lock;
use super::rollback::rollback_lock;
use crate::mvcc::key::Key;
use crate::mvcc::txn::MvccTxn;
use crate::txn::error::Result;
use crate::txn::reader::CommandReader;

/// Commits the transaction's lock on `key` at `commit_ts`, or rolls it back if that is zero. No lock: nothing to do.
pub fn resolve_lock(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    key: &Key,
    start_ts: Timestamp,
    commit_ts: Timestamp,
) -> Result<()> {
    match reader.find_lock(key)? {
        Some(found) if found.lock.start_ts == start_ts => {
            if commit_ts.is_zero() {
                rollback_lock(txn, reader, key, &found, false)
            } else {
                commit_lock(txn, key, &found, commit_ts)
            }
        }
        _ => Ok(()),
    }
}
