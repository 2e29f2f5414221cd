//! What can go wrong in the placement driver.

use std::io;
use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of the placement driver. Answers to clients are made from these in `server`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused; nothing was promised to anyone.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses the directory; stop it or choose another directory.
    #[error("data directory {} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file's content is damaged; restore it from a copy. The placement driver does not start on it.
    #[error("{} is corrupt at offset {offset}: {reason}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The configuration cannot work.
    #[error("configuration: {0}")]
    Config(String),
    /// The other members do not accept this one.
    #[error("refused by the other members: {0}")]
    Refused(String),
    /// This member does not lead; ask the leader.
    #[error("not leader")]
    NotLeader,
    /// The raft group refused the proposal; nothing was written.
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    /// The log failed or the member stopped in the middle of a write; it may or may not take effect.
    #[error("result undetermined: {0}")]
    Undetermined(String),
    /// The member is stopping.
    #[error("the placement driver is stopping")]
    Stopping,
    /// A request that makes no sense, told in the words of the protocol.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Wraps an I/O error with the path it happened at.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotLeader | Error::Stopping => tonic::Status::unavailable(text),
            Error::Invalid(_) | Error::Config(_) | Error::Refused(_) => tonic::Status::invalid_argument(text),
            Error::Raft(_) => tonic::Status::unavailable(text),
            Error::Io { .. } | Error::Locked { .. } | Error::Corrupt { .. } | Error::Undetermined(_) => {
                tonic::Status::unknown(text)
            }
        }
    }
}
