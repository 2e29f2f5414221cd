//! Multi-raft: the key space cut into regions, each a raft group, many of them on one store.
//!
//! The layers above see [`RaftKv`]: snapshots of a region, replicated writes to it, splits, and events.
//!
//! A write's life: its caller's thread checks it and encodes the entry ([`store`]) → a store thread proposes it, writes it
//! to the raft log together with everything else of that round and syncs once ([`store_loop`]) → an apply thread puts its
//! effects into RocksDB and calls back ([`apply`]). A read under a lease touches none of these threads ([`registry`]).

/// An edge between two steps at which a test may end the store: a failpoint, and a place where a simulation may crash.
macro_rules! edge {
    ($name:literal) => {
        fail::fail_point!($name);
        #[cfg(test)]
        $crate::raftstore::sim::edge($name);
    };
}

/// Whether a simulation has put this fault in here, to see that it is found.
#[cfg(test)]
macro_rules! planted {
    ($bug:ident) => {
        $crate::raftstore::sim::is_planted($crate::raftstore::sim::Bug::$bug)
    };
}
#[cfg(not(test))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

mod api;
mod apply;
pub mod bootstrap;
mod clock;
mod command;
mod context;
pub(crate) mod keys;
mod load;
mod messages;
mod peer;
mod peer_storage;
pub mod region_error;
mod region_snapshot;
mod region_worker;
mod registry;
#[cfg(test)]
mod sim;
mod snapshot;
mod split;
mod store;
mod store_loop;
mod worker;

pub use api::{
    LockWatch, Modify, PeerState, RaftKv, RegionEvent, RegionObserver, RegionResult, WriteCallback, WriteData,
};
pub use context::{NoTransport, RaftRouter, Transport};
pub use peer_storage::FIRST_TERM;
pub use region_snapshot::{RegionIterator, RegionSnapshot};
pub use snapshot::{Chunks, SnapshotSource};
pub use split::split_bound;
pub use store::{RaftStore, StoreOptions};
