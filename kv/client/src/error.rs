//! What can go wrong between a client and the cluster.

use bytes::Bytes;
use rutile_proto::ids::{RegionId, StoreId, Timestamp};

/// Result of a client call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A call that did not reach a server, or whose answer did not come back.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// Text for a person.
    pub message: String,
    /// Whether the server may have executed the request all the same.
    pub maybe_executed: bool,
}

impl TransportError {
    /// The request certainly did not reach the server.
    pub fn not_sent(message: impl Into<String>) -> Self {
        TransportError { message: message.into(), maybe_executed: false }
    }

    /// The request may have been executed.
    pub fn unknown(message: impl Into<String>) -> Self {
        TransportError { message: message.into(), maybe_executed: true }
    }
}

/// Errors of the client; each variant says what the caller can do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The placement driver cannot be reached or refuses; try again later.
    #[error("placement driver: {0}")]
    Pd(String),
    /// A store cannot be reached; the client has used up its retries.
    #[error("store {store}: {message}")]
    Store {
        /// Which store.
        store: StoreId,
        /// Why.
        message: String,
    },
    /// No region could serve the key before the back-off budget ran out.
    #[error("region {region:?} unavailable: {message}")]
    RegionUnavailable {
        /// The last region tried.
        region: Option<RegionId>,
        /// The last region error.
        message: String,
    },
    /// The request is larger than a store accepts; write less at once.
    #[error("entry of {size_bytes} bytes is too large for region {region:?}")]
    EntryTooLarge {
        /// The region.
        region: Option<RegionId>,
        /// Size of the refused entry.
        size_bytes: u64,
    },
    /// A newer version was committed after this transaction's snapshot; restart the transaction
    /// (optimistic) or the statement (pessimistic).
    #[error("write conflict: start_ts {start_ts}, conflict_commit_ts {conflict_commit_ts}: {reason}")]
    WriteConflict {
        /// The key in conflict.
        key: Bytes,
        /// This transaction.
        start_ts: Timestamp,
        /// Start of the transaction that won.
        conflict_start_ts: Timestamp,
        /// Its commit timestamp.
        conflict_commit_ts: Timestamp,
        /// The store's reason.
        reason: &'static str,
    },
    /// Another transaction's lock blocked us until the back-off budget ran out.
    #[error("key locked by start_ts {lock_ts}")]
    KeyIsLocked {
        /// The key.
        key: Bytes,
        /// Start of the transaction that owns the lock.
        lock_ts: Timestamp,
    },
    /// `LockWait::NoWait` met a lock.
    #[error("key locked by start_ts {lock_ts}, and NOWAIT was asked for")]
    LockNoWait {
        /// The key.
        key: Bytes,
        /// Start of the transaction that owns the lock.
        lock_ts: Timestamp,
    },
    /// The lock was not released in time; the statement fails, the transaction lives on.
    #[error("lock wait timeout")]
    LockWaitTimeout {
        /// The key.
        key: Bytes,
    },
    /// Waiting would close a cycle; roll the transaction back.
    #[error("deadlock: waiting for start_ts {lock_ts}")]
    Deadlock {
        /// The key waited for.
        key: Bytes,
        /// The transaction waited for.
        lock_ts: Timestamp,
    },
    /// An inserted key exists.
    #[error("key already exists")]
    AlreadyExists {
        /// The key.
        key: Bytes,
    },
    /// It is not known whether the transaction was committed; never answer "failed" or "retry".
    #[error("result of the commit is undetermined: {0}")]
    ResultUndetermined(String),
    /// The transaction was rolled back by others (its locks expired); restart it.
    #[error("transaction {start_ts} was aborted: {message}")]
    Aborted {
        /// The transaction.
        start_ts: Timestamp,
        /// The store's text.
        message: String,
    },
    /// The transaction is already committed or rolled back; a bug of the caller.
    #[error("the transaction has ended")]
    TransactionEnded,
    /// A raw request failed in the store.
    #[error("raw: {0}")]
    Raw(String),
    /// A pushed-down computation failed in the store.
    #[error("coprocessor: {0}")]
    Coprocessor(String),
    /// The store answered something that the protocol does not allow.
    #[error("protocol: {0}")]
    Protocol(String),
}

impl Error {
    /// Whether running the same transaction again from its start may succeed.
    #[must_use]
    pub fn is_retryable_transaction(&self) -> bool {
        matches!(self, Error::WriteConflict { .. } | Error::KeyIsLocked { .. } | Error::Aborted { .. })
    }
}
