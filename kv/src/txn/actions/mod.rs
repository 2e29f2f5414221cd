//! What each verb does, as pure functions: (view, arguments) → changes and result. No clock, no I/O beside the snapshot.

pub mod acquire_pessimistic_lock;
pub mod check_secondary_locks;
pub mod check_txn_status;
pub mod commit;
pub mod gc;
pub mod pessimistic_rollback;
pub mod prewrite;
pub mod resolve_lock;
pub mod rollback;
pub mod txn_heart_beat;

use rutile_proto::ids::Timestamp;

use super::error::{Error, Result};
use super::reader::CommandReader;
use crate::mvcc::key::Key;
use crate::mvcc::write::{Write, WriteType};

/// Fails when the key exists; `newest` is its newest record.
fn check_not_exists(
    reader: &mut CommandReader,
    key: &Key,
    commit_ts: Timestamp,
    newest: &Write,
) -> Result<()> {
    let exists = match newest.write_type {
        WriteType::Put => true,
        WriteType::Delete => false,
        WriteType::Lock | WriteType::Rollback => {
            let older = reader.visible_write(key, commit_ts.prev())?;
            older.is_some_and(|(_, w)| w.write_type == WriteType::Put)
        }
    };
    if exists { Err(Error::AlreadyExists { key: key.raw().clone() }) } else { Ok(()) }
}

/// Whether the record says that the transaction `start_ts` was rolled back.
fn is_rollback_of(start_ts: Timestamp, commit_ts: Timestamp, write: &Write) -> bool {
    commit_ts == start_ts && (write.write_type == WriteType::Rollback || write.has_overlapped_rollback)
}
