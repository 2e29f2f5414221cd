//! Multi-version records over a region's snapshot.
//!
//! | CF | key | content |
//! |---|---|---|
//! | `lock` | `mce(key)` | at most one [`lock::Lock`]: a transaction in flight |
//! | `write` | `mce(key) ‖ !commit_ts` | [`write::Write`] records, newest first; values up to 255 bytes inside |
//! | `default` | `mce(key) ‖ !start_ts` | longer values |
//!
//! Source: Percolator (OSDI '10) §2.2; record layouts as in TiKV.

pub mod key;
pub mod lock;
pub mod pair;
pub mod point_getter;
pub mod reader;
pub mod scanner;
pub mod tagged;
pub mod txn;
pub mod write;

use rutile_proto::codec::CodecError;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{self, LockInfo};

/// Values up to this many bytes lie inside the lock and write records.
pub const SHORT_VALUE_LEN_MAX: usize = 255;
/// How many versions a cursor steps over before it seeks instead.
pub(crate) const STEPS_BEFORE_SEEK_MAX: usize = 8;

/// Result of the MVCC floor.
pub type Result<T> = std::result::Result<T, Error>;

/// What a read of versions can meet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] crate::engine::Error),
    /// A stored record is not one that this store writes.
    #[error("malformed record: {0}")]
    Malformed(#[from] CodecError),
    /// A version names a value that is not there.
    #[error("value of version start_ts {start_ts} is missing")]
    ValueMissing {
        /// Of the transaction that wrote it.
        start_ts: Timestamp,
    },
    /// Another transaction's lock blocks us; resolve it, then retry.
    #[error("key locked by start_ts {}", .0.lock_version)]
    KeyIsLocked(Box<LockInfo>),
    /// A read that promised to see everything met a newer version; take a new timestamp.
    #[error("a version newer than {} exists", .0.start_ts)]
    RcCheckTs(Box<kvrpcpb::WriteConflict>),
}

/// How a read treats locks and versions.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// The snapshot's timestamp; `MAX` reads the newest version.
    pub ts: Timestamp,
    pub isolation: kvrpcpb::IsolationLevel,
    /// Transactions whose locks are known not to matter.
    pub bypass_locks: Vec<u64>,
    /// Transactions known to be committed before `ts`: the value of their lock is the visible version.
    pub access_locks: Vec<u64>,
    /// Leave values empty.
    pub key_only: bool,
    /// Do not keep what was read in the block cache.
    pub skip_cache: bool,
}

impl ReadOptions {
    /// The request's wishes.
    #[must_use]
    pub fn from_context(ctx: &kvrpcpb::Context, ts: Timestamp) -> Self {
        ReadOptions {
            ts,
            isolation: ctx.isolation_level(),
            bypass_locks: ctx.resolved_locks.clone(),
            access_locks: ctx.committed_locks.clone(),
            key_only: false,
            skip_cache: ctx.not_fill_cache,
        }
    }

    /// Snapshot isolation at `ts` with no known locks.
    #[must_use]
    pub fn at(ts: Timestamp) -> Self {
        ReadOptions { ts, ..ReadOptions::default() }
    }

    fn checks_locks(&self) -> bool {
        self.isolation != kvrpcpb::IsolationLevel::Rc
    }
}

/// What a lock means for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LockEffect {
    /// Read the committed versions.
    Ignore,
    /// The lock's value is the visible one.
    ReadThrough,
    /// The read fails.
    Block,
}

fn lock_effect(lock: &lock::Lock, raw_key: &[u8], options: &ReadOptions) -> LockEffect {
    match options.isolation {
        kvrpcpb::IsolationLevel::Rc => LockEffect::Ignore,
        kvrpcpb::IsolationLevel::RcCheckTs => {
            let inert = matches!(lock.lock_type, lock::LockType::Lock | lock::LockType::Pessimistic);
            if inert || options.bypass_locks.contains(&lock.start_ts.0) {
                LockEffect::Ignore
            } else {
                LockEffect::Block
            }
        }
        kvrpcpb::IsolationLevel::Si => {
            if !lock.blocks_read(raw_key, options.ts, &options.bypass_locks) {
                LockEffect::Ignore
            } else if options.access_locks.contains(&lock.start_ts.0) {
                LockEffect::ReadThrough
            } else {
                LockEffect::Block
            }
        }
    }
}

fn blocked(lock: &lock::Lock, raw_key: bytes::Bytes, options: &ReadOptions) -> Error {
    if options.isolation == kvrpcpb::IsolationLevel::RcCheckTs {
        return rc_check_ts(options.ts, lock.start_ts, Timestamp::ZERO, raw_key);
    }
    Error::KeyIsLocked(Box::new(lock.to_info(raw_key)))
}

fn rc_check_ts(
    read_ts: Timestamp,
    start_ts: Timestamp,
    commit_ts: Timestamp,
    raw_key: bytes::Bytes,
) -> Error {
    Error::RcCheckTs(Box::new(kvrpcpb::WriteConflict {
        start_ts: read_ts.0,
        conflict_ts: start_ts.0,
        conflict_commit_ts: commit_ts.0,
        key: raw_key,
        primary: bytes::Bytes::new(),
        reason: kvrpcpb::write_conflict::Reason::RcCheckTs as i32,
    }))
}
