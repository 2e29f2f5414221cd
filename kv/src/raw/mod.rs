//! Raw key-value access: no versions, no locks; TTL and compare-and-swap.
//!
//! | API | key in storage | value in storage |
//! |---|---|---|
//! | V1 | the key itself | the value |
//! | V1TTL | the key itself | value ‖ expiry (u64 unix seconds, big-endian; 0 = never) |
//! | V2 | `mce(key)`, keys start with `r` | value \[‖ expiry\] ‖ flags (bit 0: an expiry is there) |
//!
//! Which one is meant comes with each request.

mod encoding;
mod store;
#[cfg(test)]
mod tests;

pub use encoding::{RawApi, RawValue};
pub use store::RawStore;

use rutile_proto::errorpb;

/// Result of a raw command.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a raw command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The region does not serve the request here and now; find out where and try again.
    #[error("region: {}", .0.message)]
    Region(Box<errorpb::Error>),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] crate::engine::Error),
    /// The request is not one that this API allows.
    #[error("{0}")]
    InvalidRequest(String),
}

impl From<errorpb::Error> for Error {
    fn from(e: errorpb::Error) -> Self {
        Error::Region(Box::new(e))
    }
}
