//! What became of a transaction, judged by its primary key; an expired one is rolled back.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{Action, LockInfo};

use super::rollback::{MissingLock, known_outcome, rollback_lock, rollback_missing_lock};
use crate::mvcc::key::Key;
use crate::mvcc::txn::MvccTxn;
use crate::txn::error::{Error, Result};
use crate::txn::reader::{CommandReader, FoundLock};

/// The question.
#[derive(Debug, Clone)]
pub struct CheckTxnStatus {
    pub primary: Key,
    /// start_ts of the transaction asked about.
    pub lock_ts: Timestamp,
    /// start_ts of the reader; zero for none, MAX for a latest read.
    pub caller_start_ts: Timestamp,
    /// MAX treats the lock as expired.
    pub current_ts: Timestamp,
    pub rollback_if_not_exist: bool,
    pub force_sync_commit: bool,
    pub resolving_pessimistic_lock: bool,
    pub verify_is_primary: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub enum TxnStatus {
    Committed(Timestamp),
    RolledBack(Action),
    Locked(LockInfo, Action),
}

/// Looks at the primary and does what the answer calls for.
pub fn check_txn_status(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    ask: &CheckTxnStatus,
) -> Result<TxnStatus> {
    match reader.find_lock(&ask.primary)? {
        Some(found) if found.lock.start_ts == ask.lock_ts => {
            if ask.verify_is_primary && found.lock.primary != ask.primary.raw() {
                if found.lock.is_pessimistic() && !ask.resolving_pessimistic_lock {
                    // A stale lock of an attempt with another primary.
                    txn.unlock(&ask.primary, found.in_memory);
                    return without_lock(txn, reader, ask, None);
                }
                let info = found.lock.to_info(ask.primary.raw().clone());
                return Err(Error::PrimaryMismatch(Box::new(info)));
            }
            with_lock(txn, reader, ask, found)
        }
        other => without_lock(txn, reader, ask, other.as_ref()),
    }
}

fn with_lock(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    ask: &CheckTxnStatus,
    mut found: FoundLock,
) -> Result<TxnStatus> {
    let key = &ask.primary;
    if found.lock.use_async_commit && !ask.force_sync_commit {
        // Only the state of all keys tells; the caller checks the secondaries.
        return Ok(TxnStatus::Locked(found.lock.to_info(key.raw().clone()), Action::NoAction));
    }
    if found.lock.is_expired(ask.current_ts) {
        if ask.resolving_pessimistic_lock && found.lock.is_pessimistic() {
            txn.unlock(key, found.in_memory);
            return Ok(TxnStatus::RolledBack(Action::TtlExpirePessimisticRollback));
        }
        rollback_lock(txn, reader, key, &found, true)?;
        return Ok(TxnStatus::RolledBack(Action::TtlExpireRollback));
    }
    let caller = ask.caller_start_ts;
    let lock = &mut found.lock;
    if !lock.min_commit_ts.is_zero() && caller != Timestamp::MAX && caller >= lock.min_commit_ts {
        lock.min_commit_ts = caller.next().max(ask.current_ts);
        txn.update_lock(key, lock, found.in_memory);
    }
    // The reader may ignore all locks of a transaction that will commit above its snapshot.
    let pushed = (!caller.is_zero() && lock.min_commit_ts > caller) || caller == Timestamp::MAX;
    let action = if pushed { Action::MinCommitTsPushed } else { Action::NoAction };
    Ok(TxnStatus::Locked(lock.to_info(key.raw().clone()), action))
}

fn without_lock(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    ask: &CheckTxnStatus,
    other: Option<&FoundLock>,
) -> Result<TxnStatus> {
    let key = &ask.primary;
    match known_outcome(reader, key, ask.lock_ts)? {
        Ok(MissingLock::Committed(commit_ts)) => return Ok(TxnStatus::Committed(commit_ts)),
        Ok(_) => return Ok(TxnStatus::RolledBack(Action::NoAction)),
        Err(_) => {}
    }
    if !ask.rollback_if_not_exist {
        return Err(Error::TxnNotFound { start_ts: ask.lock_ts, primary: key.raw().clone() });
    }
    if ask.resolving_pessimistic_lock {
        return Ok(TxnStatus::RolledBack(Action::LockNotExistDoNothing));
    }
    rollback_missing_lock(txn, reader, key, ask.lock_ts, other, true)?;
    Ok(TxnStatus::RolledBack(Action::LockNotExistRollback))
}
