//! The storage engine of a store: one RocksDB for the state machines, one raft-engine for the raft logs.
//!
//! The raft log is the durable truth. RocksDB runs without a write-ahead log: what a crash takes out of its
//! memtables is applied again from the raft log, which is only truncated below the flushed applied index.

mod error;
mod image;
#[cfg(test)]
pub(crate) mod lossy_fs;
mod raft_log;
mod raft_log_verify;
mod rocks;
mod snapshot;
mod sst;

pub use error::{Error, Result};
pub use image::Image;
pub use raft_log::{RaftLog, RaftLogBatch};
pub use rocks::{Engine, WeakEngine, WriteBatch};
pub use snapshot::{EngineIterator, EngineSnapshot, IterOptions};
pub use sst::{SstOptions, SstWriter};

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cf {
    /// Long values of transactions at `mce(key) ‖ !start_ts`; raw data.
    Default = 0,
    /// Locks at `mce(key)`.
    Lock = 1,
    /// Write records at `mce(key) ‖ !commit_ts`.
    Write = 2,
    /// Region and apply states; never holds user data.
    Raft = 3,
}

impl Cf {
    /// Those that hold user data.
    pub const DATA: [Cf; 3] = [Cf::Default, Cf::Lock, Cf::Write];
    /// All of them.
    pub const ALL: [Cf; 4] = [Cf::Default, Cf::Lock, Cf::Write, Cf::Raft];

    /// The name in RocksDB and on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cf::Default => "default",
            Cf::Lock => "lock",
            Cf::Write => "write",
            Cf::Raft => "raft",
        }
    }

    /// By its name; the empty name is the default family, as in kvrpcpb.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Cf> {
        match name {
            "" | "default" => Some(Cf::Default),
            "lock" => Some(Cf::Lock),
            "write" => Some(Cf::Write),
            "raft" => Some(Cf::Raft),
            _ => None,
        }
    }

    pub(crate) const fn from_u8(tag: u8) -> Option<Cf> {
        match tag {
            0 => Some(Cf::Default),
            1 => Some(Cf::Lock),
            2 => Some(Cf::Write),
            3 => Some(Cf::Raft),
            _ => None,
        }
    }
}
