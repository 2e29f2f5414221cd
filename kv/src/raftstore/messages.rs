//! What the threads of a store tell one another.

use std::sync::Arc;
use std::time::Instant;

use rutile_proto::raft_serverpb::RaftMessage;
use rutile_proto::{errorpb, metapb};

use super::api::RegionResult;

/// Gets all resulting regions in key order.
pub(crate) type SplitCallback = Box<dyn FnOnce(RegionResult<Vec<metapb::Region>>) + Send>;
/// Called when the peer may be read: leadership confirmed and everything up to then applied.
pub(crate) type ReadCallback = Box<dyn FnOnce(Result<(), errorpb::Error>) + Send>;

/// To a store thread.
pub(crate) enum StoreMsg {
    /// Propose an entry. `term`: of the leadership under which the request was checked.
    Propose {
        region_id: u64,
        term: u64,
        data: Vec<u8>,
        callback: super::apply::Callback,
    },
    /// Confirm the leadership.
    ReadIndex {
        region_id: u64,
        at: Instant,
        callback: ReadCallback,
    },
    /// From a peer on another store.
    Raft(Box<RaftMessage>),
    /// From an apply thread.
    Applied {
        region_id: u64,
        results: Vec<ExecResult>,
    },
    /// Cut the log off up to an index (which is applied and flushed).
    Truncate {
        region_id: u64,
        index: u64,
    },
    /// Hand the leadership to a peer.
    TransferLeader {
        region_id: u64,
        peer: metapb::Peer,
    },
    /// A first peer, made by an earlier message of another thread's region (a split).
    Create {
        region: Arc<metapb::Region>,
        campaign: bool,
        created: Box<dyn FnOnce() + Send>,
    },
    Stop,
}

/// What an applied entry means for the store thread.
pub(crate) enum ExecResult {
    /// The region was cut; in key order, the original region is the last.
    Split { regions: Vec<Arc<metapb::Region>>, callback: Option<SplitCallback> },
}

/// Something the placement driver should know.
pub(crate) enum PdEvent {
    /// Send a heartbeat for this region now.
    Heartbeat { region_id: u64 },
    /// A split is done; in key order.
    Split { regions: Vec<Arc<metapb::Region>> },
}
