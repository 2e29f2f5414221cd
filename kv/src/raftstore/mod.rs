//! Multi-raft: the key space cut into regions, each a raft group, many of them on one store.
//!
//! The layers above see [`RaftKv`]: snapshots of a region, replicated writes to it, splits, and events.

mod api;
mod region_snapshot;

pub use api::{Modify, RaftKv, RegionEvent, RegionObserver, RegionResult, WriteCallback, WriteData};
pub use region_snapshot::{RegionIterator, RegionSnapshot};
