//! What the layers above see of replication.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rutile_proto::ids::Timestamp;
use rutile_proto::{errorpb, kvrpcpb, metapb};

use super::RegionSnapshot;
use crate::engine::Cf;

/// A result, or the region error that the client gets.
pub type RegionResult<T> = Result<T, errorpb::Error>;

/// Called once a write is applied, or will never be, or may or may not be (`undetermined_result`).
pub type WriteCallback = Box<dyn FnOnce(RegionResult<()>) + Send>;

/// One change to a region. Keys are in PD form: storage order, without the data prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modify {
    /// Sets a key.
    Put(Cf, Bytes, Bytes),
    /// Removes a key.
    Delete(Cf, Bytes),
    /// Removes the keys of `[start, end)`; the range must lie in the region, an empty end is the region's end.
    DeleteRange(Cf, Bytes, Bytes),
}

/// Changes to one region that become visible together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteData {
    /// In order; a later change of a key wins.
    pub modifies: Vec<Modify>,
}

impl WriteData {
    /// From its changes.
    #[must_use]
    pub fn new(modifies: Vec<Modify>) -> Self {
        Self { modifies }
    }

    /// Bytes of keys and values.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let size = |m: &Modify| match m {
            Modify::Put(_, key, value) => key.len() + value.len(),
            Modify::Delete(_, key) => key.len(),
            Modify::DeleteRange(_, start, end) => start.len() + end.len(),
        };
        self.modifies.iter().map(size).sum()
    }
}

/// Something that happened to a peer of this store.
#[derive(Clone, Debug)]
pub enum RegionEvent {
    /// It leads since `term`. Told before it serves any read or write of this term.
    BecameLeader {
        /// As of now.
        region: Arc<metapb::Region>,
        /// Of the leadership.
        term: u64,
    },
    /// It no longer leads. Told when it has stopped to serve.
    LostLeader {
        /// As of now.
        region: Arc<metapb::Region>,
        /// The new term.
        term: u64,
    },
    /// A split took effect; told before any of the regions serves at its new epoch. In key order, with the region that was split
    /// among them.
    Split {
        /// The id that was split.
        region_id: u64,
        /// All resulting regions.
        regions: Vec<Arc<metapb::Region>>,
        /// Of the leadership under which this store serves the region that was split, if it does.
        term: Option<u64>,
    },
    /// The members changed.
    MembersChanged {
        /// As of now.
        region: Arc<metapb::Region>,
    },
    /// The peer is gone from this store.
    Destroyed {
        /// Its last state.
        region: Arc<metapb::Region>,
    },
}

/// Told of events on the store's threads: must be quick and must not wait.
pub trait RegionObserver: Send + Sync {
    /// Called for every event, in order for each region.
    fn on_region_event(&self, event: &RegionEvent);
}

/// Told by an apply thread what happens to the locks of one region: after it is visible, before anybody hears that it is applied.
pub trait LockWatch: Send + Sync {
    /// What is kept of a stored lock; `None` if it is of no interest.
    fn digest(&self, lock: &[u8]) -> Option<Timestamp>;
    /// Locks that were put (with their digest) or are gone, in order. Keys are in PD form.
    fn on_changes(&self, changes: &mut Vec<(Box<[u8]>, Option<Timestamp>)>);
    /// Changes were missed.
    fn on_lost(&self);
}

/// A peer of this store as all threads see it.
#[derive(Clone, Debug)]
pub struct PeerState {
    /// Its region.
    pub region: Arc<metapb::Region>,
    /// Raft's.
    pub term: u64,
    /// Whether it leads, as far as it knows.
    pub is_leader: bool,
    /// The leader as far as it knows.
    pub leader: Option<metapb::Peer>,
    /// No other peer can lead, and everything from before its term is applied.
    pub has_lease: bool,
    /// Everything up to here is visible.
    pub applied_index: u64,
    /// Of the entry at the applied index.
    pub applied_term: u64,
    /// Waits to be merged into another region: serves nothing.
    pub merging: bool,
}

/// Replication as the layers above see it.
#[async_trait]
pub trait RaftKv: Send + Sync + 'static {
    /// A consistent snapshot of the region after checking epoch, leadership and lease, at once and on the caller's thread.
    /// `None`: the lease is in doubt, use [`RaftKv::snapshot`].
    fn try_snapshot(&self, ctx: &kvrpcpb::Context) -> Option<RegionResult<RegionSnapshot>>;

    /// As [`RaftKv::try_snapshot`], confirming the leadership with a quorum when in doubt.
    /// Also serves replica reads on followers.
    async fn snapshot(&self, ctx: &kvrpcpb::Context) -> RegionResult<RegionSnapshot>;

    /// Replicates the changes; returns once they are on a quorum's disks and applied here. Dropping the future does not undo
    /// the write.
    async fn write(&self, ctx: &kvrpcpb::Context, data: WriteData) -> RegionResult<()>;

    /// As [`RaftKv::write`], with a callback on a store thread (which must be quick) instead of a future.
    /// A full queue answers `server_is_busy`.
    fn write_with(&self, ctx: &kvrpcpb::Context, data: WriteData, callback: WriteCallback);

    /// Splits a region at keys in PD form (valid bounds as of kvproto-facts §3.1; those that are no cut are ignored).
    /// Returns all resulting regions in key order.
    async fn split(&self, ctx: &kvrpcpb::Context, keys: Vec<Bytes>) -> RegionResult<Vec<metapb::Region>>;

    /// Checks what can be checked before any work is done: region, store, peer, leader, term, epoch. Returns the region and the term.
    fn check(&self, ctx: &kvrpcpb::Context) -> RegionResult<(Arc<metapb::Region>, u64)>;

    /// A peer of this store as it is now; nobody is asked or woken.
    fn peer_state(&self, region_id: u64) -> Option<PeerState>;

    /// Returns once this store's peer of a region has applied an index.
    async fn await_applied(&self, region_id: u64, index: u64) -> RegionResult<()>;

    /// A snapshot of what the peer has applied, whether it leads or not. The caller knows why that is enough.
    fn local_snapshot(&self, ctx: &kvrpcpb::Context) -> RegionResult<RegionSnapshot>;

    /// Tells a watch (or nobody) of all changes of locks in a region from now on, in place of an earlier one. `false`: no such region.
    fn watch_locks(&self, region_id: u64, watch: Option<Arc<dyn LockWatch>>) -> bool;

    /// The region of this store that holds a key in PD form.
    fn region_of_key(&self, key: &[u8]) -> Option<Arc<metapb::Region>>;

    /// All regions of this store, in key order; with whether this store leads them.
    fn regions(&self) -> Vec<(Arc<metapb::Region>, bool)>;

    /// Physically removes a range (PD form, empty end is the end of all data) of this store, without raft.
    fn unsafe_destroy_range(&self, start: &[u8], end: &[u8]) -> Result<(), crate::engine::Error>;

    /// Tells an observer of all events from now on; of leaderships that began earlier at once.
    fn observe(&self, observer: Arc<dyn RegionObserver>);

    /// The id of this store.
    fn store_id(&self) -> u64;
}
