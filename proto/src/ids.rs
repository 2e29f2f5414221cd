//! Identifiers as types, and the cluster's timestamps.

use std::fmt;
use std::num::NonZeroU64;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub NonZeroU64);

        impl $name {
            /// `None` for 0, which protobuf uses for "not set".
            #[must_use]
            pub const fn new(id: u64) -> Option<Self> {
                match NonZeroU64::new(id) {
                    Some(id) => Some(Self(id)),
                    None => None,
                }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0.get()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

id!(/** A region: one raft group over a range of keys. */ RegionId);
id!(/** A peer: one replica of a region. */ PeerId);
id!(/** A store: one process that holds peers. */ StoreId);
id!(/** A cluster; every request may carry it, a wrong one is refused. */ ClusterId);

/// Bits of a timestamp below the milliseconds.
pub const LOGICAL_BITS: u32 = 18;

/// A timestamp of the placement driver: unix milliseconds `<< 18 | logical`.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Before every timestamp that was ever given out.
    pub const ZERO: Timestamp = Timestamp(0);
    /// Reads the newest committed version without asking for a timestamp.
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// From milliseconds and the logical part.
    #[must_use]
    pub const fn compose(physical_ms: u64, logical: u64) -> Self {
        Timestamp((physical_ms << LOGICAL_BITS) + logical)
    }

    /// Unix milliseconds.
    #[must_use]
    pub const fn physical_ms(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// The counter within the millisecond.
    #[must_use]
    pub const fn logical(self) -> u64 {
        self.0 & ((1 << LOGICAL_BITS) - 1)
    }

    /// The next timestamp.
    #[must_use]
    pub const fn next(self) -> Self {
        Timestamp(self.0 + 1)
    }

    /// The timestamp before this one; zero stays zero.
    #[must_use]
    pub const fn prev(self) -> Self {
        Timestamp(self.0.saturating_sub(1))
    }

    /// Whether this is no timestamp at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl From<u64> for Timestamp {
    fn from(ts: u64) -> Self {
        Timestamp(ts)
    }
}

impl From<&crate::pdpb::Timestamp> for Timestamp {
    fn from(ts: &crate::pdpb::Timestamp) -> Self {
        Timestamp::compose(ts.physical as u64, ts.logical as u64)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ts({})", self.0)
    }
}
