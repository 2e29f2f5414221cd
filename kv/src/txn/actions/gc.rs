//! Garbage of one key: records that no read at or above the safe point needs.
//!
//! | records with commit_ts ≤ safe point, newest first | becomes |
//! |---|---|
//! | Lock, Rollback | removed |
//! | the first Put | kept |
//! | the first Delete | removed, after everything below it |
//! | any later one | removed, with its value |
//!
//! Every transaction that began at or below the safe point has ended by then, so that nobody asks for these records.

use rutile_proto::ids::Timestamp;

use crate::mvcc::key::Key;
use crate::mvcc::txn::MvccTxn;
use crate::mvcc::write::WriteType;
use crate::txn::error::Result;
use crate::txn::reader::CommandReader;

/// Removes the garbage of `key` until `txn` has `modifies_max` changes. Answers whether some is left.
pub fn collect_garbage(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    key: &Key,
    safe_point: Timestamp,
    modifies_max: usize,
) -> Result<bool> {
    let mut covered = false;
    let mut tombstone = None;
    let mut found = reader.seek_write(key, safe_point)?;
    while let Some((commit_ts, write)) = found {
        if txn.modify_count() >= modifies_max {
            return Ok(true);
        }
        match write.write_type {
            WriteType::Put if !covered => covered = true,
            WriteType::Delete if !covered => {
                covered = true;
                tombstone = Some(commit_ts);
            }
            write_type => {
                txn.delete_write(key, commit_ts);
                if write_type == WriteType::Put && write.short_value.is_none() {
                    txn.delete_value(key, write.start_ts);
                }
            }
        }
        found = reader.next_write(key)?;
    }
    if let Some(commit_ts) = tombstone {
        txn.delete_write(key, commit_ts);
    }
    Ok(false)
}
