//! What a transactional command answers when it does not do what was asked, and its wire form.

use bytes::Bytes;
use rutile_proto::errorpb;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{self, KeyError, LockInfo, write_conflict::Reason};

use crate::mvcc;

/// Result of a transactional command.
pub type Result<T> = std::result::Result<T, Error>;

/// A newer version than the transaction may overwrite.
#[derive(Debug, Clone)]
pub struct Conflict {
    /// Of the failing transaction.
    pub start_ts: Timestamp,
    pub conflict_start_ts: Timestamp,
    pub conflict_commit_ts: Timestamp,
    pub key: Bytes,
    /// Primary key of the failing transaction.
    pub primary: Bytes,
    pub reason: Reason,
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The region does not serve the request here and now; find out where and try again.
    #[error("region: {}", .0.message)]
    Region(Box<errorpb::Error>),
    /// A lock, or a failure of the storage below.
    #[error(transparent)]
    Mvcc(#[from] mvcc::Error),
    /// Start again with a newer timestamp.
    #[error("write conflict with commit_ts {}", .0.conflict_commit_ts)]
    WriteConflict(Box<Conflict>),
    /// Insert of a key that exists.
    #[error("key already exists")]
    AlreadyExists { key: Bytes },
    /// Waiting would never end; roll back.
    #[error("deadlock with transaction {}", .0.lock_ts)]
    Deadlock(Box<kvrpcpb::Deadlock>),
    /// Commit again at a timestamp of at least min_commit_ts.
    #[error("commit_ts {commit_ts} is below min_commit_ts {min_commit_ts}")]
    CommitTsExpired { start_ts: Timestamp, commit_ts: Timestamp, key: Bytes, min_commit_ts: Timestamp },
    /// min_commit_ts passed the request's max_commit_ts; answered by falling back to two phases.
    #[error("commit_ts {min_commit_ts} is too large")]
    CommitTsTooLarge { min_commit_ts: Timestamp },
    /// Neither a lock nor a record of the transaction.
    #[error("transaction {start_ts} not found")]
    TxnNotFound { start_ts: Timestamp, primary: Bytes },
    /// The transaction was rolled back, or never prewrote this key.
    #[error("lock of transaction {start_ts} not found")]
    TxnLockNotFound { start_ts: Timestamp, key: Bytes },
    /// The key is not in the state the client promised.
    #[error("assertion failed")]
    AssertionFailed {
        start_ts: Timestamp,
        key: Bytes,
        assertion: kvrpcpb::Assertion,
        existing_start_ts: Timestamp,
        existing_commit_ts: Timestamp,
    },
    /// The key is not the primary of the lock found on it.
    #[error("the key is not the transaction's primary")]
    PrimaryMismatch(Box<LockInfo>),
    /// A pessimistic lock is gone and cannot be restored; roll back.
    #[error("pessimistic lock of transaction {start_ts} not found: {reason}")]
    PessimisticLockNotFound { start_ts: Timestamp, key: Bytes, reason: &'static str },
    /// The transaction's own lock is of another kind than the command is for.
    #[error("lock of transaction {start_ts} is of another kind")]
    LockTypeNotMatch { start_ts: Timestamp, key: Bytes, pessimistic: bool },
    /// The transaction was rolled back before.
    #[error("transaction {start_ts} was rolled back on this key")]
    PessimisticLockRolledBack { start_ts: Timestamp, key: Bytes },
    /// Too late for a rollback.
    #[error("transaction {start_ts} is committed at {commit_ts}")]
    Committed { start_ts: Timestamp, commit_ts: Timestamp, key: Bytes },
    /// Too old: versions that it would read may be gone. Begin again with a new timestamp.
    #[error("timestamp {ts} is below the GC safe point {safe_point}")]
    BelowSafePoint { ts: Timestamp, safe_point: Timestamp },
    /// The request contradicts itself.
    #[error("invalid request: {0}")]
    InvalidRequest(String),
}

impl From<errorpb::Error> for Error {
    fn from(e: errorpb::Error) -> Self {
        Error::Region(Box::new(e))
    }
}

impl From<crate::engine::Error> for Error {
    fn from(e: crate::engine::Error) -> Self {
        Error::Mvcc(e.into())
    }
}

impl Error {
    /// The lock that stands in the way, if this is what happened.
    #[must_use]
    pub fn lock_info(&self) -> Option<&LockInfo> {
        match self {
            Error::Mvcc(mvcc::Error::KeyIsLocked(info)) => Some(info),
            _ => None,
        }
    }

    /// Another transaction's lock.
    #[must_use]
    pub fn locked(info: LockInfo) -> Self {
        Error::Mvcc(mvcc::Error::KeyIsLocked(Box::new(info)))
    }

    /// The region error, or the wire form for the `error` field.
    pub fn split(self) -> std::result::Result<KeyError, errorpb::Error> {
        match self {
            Error::Region(e) => Err(*e),
            e => Ok(e.into_key_error()),
        }
    }

    fn into_key_error(self) -> KeyError {
        let text = self.to_string();
        let mut e = KeyError::default();
        match self {
            Error::Mvcc(mvcc::Error::KeyIsLocked(info)) => e.locked = Some(*info),
            Error::Mvcc(mvcc::Error::RcCheckTs(conflict)) => {
                e.conflict = Some(*conflict);
                e.retryable = text;
            }
            Error::WriteConflict(c) => {
                e.conflict = Some(kvrpcpb::WriteConflict {
                    start_ts: c.start_ts.0,
                    conflict_ts: c.conflict_start_ts.0,
                    key: c.key,
                    primary: c.primary,
                    conflict_commit_ts: c.conflict_commit_ts.0,
                    reason: c.reason as i32,
                });
                e.retryable = text;
            }
            Error::AlreadyExists { key } => e.already_exist = Some(kvrpcpb::AlreadyExist { key }),
            Error::Deadlock(deadlock) => e.deadlock = Some(*deadlock),
            Error::CommitTsExpired { start_ts, commit_ts, key, min_commit_ts } => {
                e.commit_ts_expired = Some(kvrpcpb::CommitTsExpired {
                    start_ts: start_ts.0,
                    attempted_commit_ts: commit_ts.0,
                    key,
                    min_commit_ts: min_commit_ts.0,
                });
            }
            Error::CommitTsTooLarge { min_commit_ts } => {
                e.commit_ts_too_large = Some(kvrpcpb::CommitTsTooLarge { commit_ts: min_commit_ts.0 });
            }
            Error::TxnNotFound { start_ts, primary } => {
                e.txn_not_found = Some(kvrpcpb::TxnNotFound { start_ts: start_ts.0, primary_key: primary });
            }
            Error::TxnLockNotFound { key, .. } => {
                e.txn_lock_not_found = Some(kvrpcpb::TxnLockNotFound { key });
                e.retryable = text;
            }
            Error::AssertionFailed { start_ts, key, assertion, existing_start_ts, existing_commit_ts } => {
                e.assertion_failed = Some(kvrpcpb::AssertionFailed {
                    start_ts: start_ts.0,
                    key,
                    assertion: assertion as i32,
                    existing_start_ts: existing_start_ts.0,
                    existing_commit_ts: existing_commit_ts.0,
                });
            }
            Error::PrimaryMismatch(info) => {
                e.primary_mismatch = Some(kvrpcpb::PrimaryMismatch { lock_info: Some(*info) });
            }
            Error::Region(_)
            | Error::Mvcc(_)
            | Error::PessimisticLockNotFound { .. }
            | Error::LockTypeNotMatch { .. }
            | Error::PessimisticLockRolledBack { .. }
            | Error::Committed { .. }
            | Error::BelowSafePoint { .. }
            | Error::InvalidRequest(_) => e.abort = text,
        }
        e
    }
}
