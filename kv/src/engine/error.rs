//! What can go wrong below replication.

use std::path::PathBuf;

/// Result of the engine floor.
pub type Result<T> = std::result::Result<T, Error>;

/// An engine error. None of them can be retried: the store stops on all of them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A file holds other bytes than were written. The message names the file.
    #[error("data corruption: {0}")]
    Corruption(String),
    /// The directory belongs to a running process.
    #[error("{dir} is in use by another process")]
    Locked {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The file system said no.
    #[error("{path}: {reason}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why it failed.
        reason: String,
    },
    /// Anything else that RocksDB reports.
    #[error("storage engine: {0}")]
    Rocks(String),
    /// Anything else that raft-engine reports.
    #[error("raft log: {0}")]
    RaftLog(String),
}

impl Error {
    /// From an I/O error on `path`.
    pub fn io(path: impl Into<PathBuf>, e: &std::io::Error) -> Self {
        Error::Io { path: path.into(), reason: e.to_string() }
    }
}

impl From<rocksdb::Error> for Error {
    fn from(e: rocksdb::Error) -> Self {
        match e.kind() {
            rocksdb::ErrorKind::Corruption => Error::Corruption(e.into_string()),
            _ => Error::Rocks(e.into_string()),
        }
    }
}

impl From<raft_engine::Error> for Error {
    fn from(e: raft_engine::Error) -> Self {
        match e {
            raft_engine::Error::Corruption(what) => Error::Corruption(format!("raft log: {what}")),
            e => Error::RaftLog(e.to_string()),
        }
    }
}
