//! Prolongs the life of a transaction.

use rutile_proto::ids::Timestamp;

use crate::mvcc::key::Key;
use crate::mvcc::txn::MvccTxn;
use crate::txn::error::{Error, Result};
use crate::txn::reader::CommandReader;

/// Raises the TTL of the primary's lock to `ttl`; returns what it is now.
pub fn txn_heart_beat(
    txn: &mut MvccTxn,
    reader: &CommandReader,
    primary: &Key,
    start_ts: Timestamp,
    ttl: u64,
    min_commit_ts: Timestamp,
) -> Result<u64> {
    match reader.find_lock(primary)? {
        Some(mut found) if found.lock.start_ts == start_ts => {
            let lock = &mut found.lock;
            let pushes = min_commit_ts > lock.min_commit_ts && !lock.use_async_commit;
            if lock.ttl < ttl || pushes {
                lock.ttl = lock.ttl.max(ttl);
                if pushes {
                    lock.min_commit_ts = min_commit_ts;
                }
                txn.update_lock(primary, lock, found.in_memory);
            }
            Ok(found.lock.ttl)
        }
        _ => Err(Error::TxnNotFound { start_ts, primary: primary.raw().clone() }),
    }
}
