//! What the threads of a store tell one another.

use std::sync::Arc;
use std::time::Duration;

use raft::eraftpb::{ConfChangeType, ConfChangeV2, Message};
use rutile_proto::raft_serverpb::{MergeState, RaftMessage, RaftSnapshotData};
use rutile_proto::{errorpb, metapb};

use super::api::RegionResult;
use super::command::CommitMergeCommand;
use crate::engine::EngineSnapshot;

/// Gets all resulting regions in key order.
pub(crate) type AdminCallback = Box<dyn FnOnce(RegionResult<Vec<metapb::Region>>) + Send>;
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
        at: Duration,
        callback: ReadCallback,
    },
    /// Tell when an index is applied.
    AwaitApplied {
        region_id: u64,
        index: u64,
        callback: ReadCallback,
    },
    /// From a peer on another store.
    Raft(Box<RaftMessage>),
    /// From an apply thread.
    Applied {
        region_id: u64,
        results: Vec<ExecResult>,
    },
    /// Cut the log off up to an index (which is applied and flushed); `force`: even if a follower still needs it.
    Truncate {
        region_id: u64,
        index: u64,
        force: bool,
    },
    /// Hand the leadership to a peer.
    TransferLeader {
        region_id: u64,
        peer: metapb::Peer,
    },
    /// Change the members: none leaves a joint configuration, one is a simple change, more are a joint one.
    ChangePeers {
        region_id: u64,
        epoch: Option<metapb::RegionEpoch>,
        changes: Vec<(ConfChangeType, metapb::Peer)>,
        callback: AdminCallback,
    },
    /// A first peer, made by an earlier message of another thread's region (a split).
    Create {
        region: Arc<metapb::Region>,
        campaign: bool,
        created: Box<dyn FnOnce() + Send>,
    },
    /// A message to a peer was lost.
    Unreachable {
        region_id: u64,
        peer_id: u64,
    },
    /// The connection to a store is gone.
    StoreUnreachable {
        store_id: u64,
    },
    /// A snapshot has arrived at a peer, or not.
    SnapshotSent {
        region_id: u64,
        peer_id: u64,
        arrived: bool,
    },
    /// All that was applied is on disk: a received snapshot may be given to raft.
    Settled {
        region_id: u64,
        from: metapb::Peer,
        message: Box<Message>,
    },
    /// A snapshot's data is in the engine and flushed.
    SnapshotApplied {
        region_id: u64,
    },
    /// A peer's data is gone and its tombstone flushed.
    Cleared {
        region_id: u64,
    },
    /// Merge a region into a neighbour.
    PrepareMerge {
        region_id: u64,
        epoch: Option<metapb::RegionEpoch>,
        target: metapb::Region,
        callback: AdminCallback,
    },
    /// The source of a merge is ready on this store: propose the merge to the target, if it leads.
    CommitMerge {
        region_id: u64,
        commit: CommitMergeCommand,
    },
    /// The target of a merge waits for the source on this store.
    CatchUp {
        region_id: u64,
        target_id: u64,
        commit: CommitMergeCommand,
    },
    /// The region was merged into another.
    Merged {
        region_id: u64,
        tombstone: metapb::Region,
    },
    /// Other stores have merged the region, and nobody here waits for it.
    EndMerged {
        region_id: u64,
    },
    /// The source of a merge that the target must apply is gone from this store: only a snapshot helps.
    SourceGone {
        region_id: u64,
    },
    /// Let all peers of a region compare their data.
    CheckConsistency {
        region_id: u64,
    },
    /// The checksum of a peer's data as of an index.
    Hashed {
        region_id: u64,
        index: u64,
        hash: u64,
    },
    /// Somebody wants something of a peer that may be asleep.
    WakeUp {
        region_id: u64,
    },
    Stop,
}

/// What an applied entry means for the store thread.
pub(crate) enum ExecResult {
    /// The region was cut; in key order, the original region is the last.
    Split { regions: Vec<Arc<metapb::Region>>, callback: Option<AdminCallback> },
    /// A split had no effect.
    SplitRefused,
    /// The members changed; `None` if the entry had no effect.
    Members {
        index: u64,
        changed: Option<(Arc<metapb::Region>, ConfChangeV2)>,
        callback: Option<AdminCallback>,
    },
    /// The checksum that the leader's data had at an index.
    VerifyHash { index: u64, hash: u64 },
    /// The region takes no more writes: it waits to be merged.
    MergePrepared { region: Arc<metapb::Region>, state: MergeState, callback: Option<AdminCallback> },
    /// The region is not merged after all; it goes on as this, or as it was.
    MergeEnded { region: Option<Arc<metapb::Region>> },
    /// The region has taken over its neighbour.
    MergeCommitted {
        region: Arc<metapb::Region>,
        source: Arc<metapb::Region>,
        callback: Option<AdminCallback>,
    },
}

/// Work on a region's data as a whole, in a thread of its own.
pub(crate) enum RegionTask {
    /// Write all that was applied to disk; then a snapshot may be taken over.
    Settle {
        region_id: u64,
        from: metapb::Peer,
        message: Box<Message>,
    },
    /// Replace a region's data by that of a received snapshot.
    ApplySnapshot(SnapshotTask),
    /// Remove a region's data and leave a tombstone.
    Clear(ClearTask),
    /// Compute a checksum of a region's data.
    Hash(HashTask),
    Stop,
}

/// A snapshot whose files are complete.
pub(crate) struct SnapshotTask {
    pub(crate) region_id: u64,
    pub(crate) data: RaftSnapshotData,
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// What the peer was before; filled in by the apply thread.
    pub(crate) old: Option<metapb::Region>,
}

/// A region's data as of an index.
pub(crate) struct HashTask {
    pub(crate) region: Arc<metapb::Region>,
    pub(crate) index: u64,
    pub(crate) snapshot: Arc<EngineSnapshot>,
}

/// A peer that is gone.
pub(crate) struct ClearTask {
    pub(crate) region_id: u64,
    /// The data belongs to another region now.
    pub(crate) keep_data: bool,
    /// Its region in the epoch in which the peer was no longer a member.
    pub(crate) tombstone: metapb::Region,
    /// The region was merged into this one.
    pub(crate) target: Option<metapb::Region>,
    /// What the peer was before; filled in by the apply thread.
    pub(crate) old: Option<metapb::Region>,
}

/// Something the placement driver should know.
pub(crate) enum PdEvent {
    /// Send a heartbeat for this region now.
    Heartbeat { region_id: u64 },
    /// A split is done; in key order.
    Split { regions: Vec<Arc<metapb::Region>> },
    /// A peer has had no leader for long: is it still a member?
    IsMember { region_id: u64, peer: metapb::Peer },
}
