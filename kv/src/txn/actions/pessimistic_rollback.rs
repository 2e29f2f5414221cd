//! Gives a pessimistic lock back; leaves no trace, never touches a prewritten lock.

use rutile_proto::ids::Timestamp;

use crate::mvcc::key::Key;
use crate::mvcc::txn::MvccTxn;
use crate::txn::error::Result;
use crate::txn::reader::CommandReader;

/// Removes the own pessimistic lock on `key` if its for_update_ts is at most `for_update_ts`.
pub fn pessimistic_rollback(
    txn: &mut MvccTxn,
    reader: &CommandReader,
    key: &Key,
    start_ts: Timestamp,
    for_update_ts: Timestamp,
) -> Result<()> {
    if let Some(found) = reader.find_lock(key)?
        && found.lock.is_pessimistic()
        && found.lock.start_ts == start_ts
        && found.lock.for_update_ts <= for_update_ts
    {
        txn.unlock(key, found.in_memory);
    }
    Ok(())
}
