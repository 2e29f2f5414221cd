//! What a store needs of the placement driver.

mod grpc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use rutile_proto::ids::{ClusterId, Timestamp};
use rutile_proto::{metapb, pdpb};
use tokio::sync::mpsc;

pub use grpc::GrpcPdClient;

/// Result of a call to the placement driver.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the placement driver did not answer as wished.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No member answered; try again later.
    #[error("placement driver unavailable: {0}")]
    Unavailable(String),
    /// The cluster has a first store and region already.
    #[error("the cluster is bootstrapped already")]
    AlreadyBootstrapped,
    /// The placement driver belongs to another cluster.
    #[error("placement driver of cluster {actual}, this store is of cluster {expected}")]
    ClusterMismatch {
        /// Of the store.
        expected: u64,
        /// Of the placement driver.
        actual: u64,
    },
    /// It answered with an error.
    #[error("placement driver: {0}")]
    Refused(String),
}

/// The placement driver as a store sees it: over gRPC, or in the same process.
#[async_trait]
pub trait PdClient: Send + Sync + 'static {
    /// Of the cluster it drives.
    async fn cluster_id(&self) -> Result<ClusterId>;
    /// Whether there is a first store and region.
    async fn is_bootstrapped(&self) -> Result<bool>;
    /// Offers the first store and region; [`Error::AlreadyBootstrapped`] when another was faster.
    async fn bootstrap(&self, store: metapb::Store, region: metapb::Region) -> Result<()>;
    /// The first of `count` consecutive new ids.
    async fn alloc_ids(&self, count: u32) -> Result<u64>;
    /// Registers or updates a store.
    async fn put_store(&self, store: metapb::Store) -> Result<()>;
    /// A store by its id.
    async fn get_store(&self, store_id: u64) -> Result<metapb::Store>;
    /// All stores that are not tombstones.
    async fn get_all_stores(&self) -> Result<Vec<metapb::Store>>;
    /// The region that holds a key (PD form), and its leader when known.
    async fn get_region(&self, key: &[u8]) -> Result<Option<(metapb::Region, Option<metapb::Peer>)>>;
    /// A region by its id, and its leader when known.
    async fn get_region_by_id(
        &self,
        region_id: u64,
    ) -> Result<Option<(metapb::Region, Option<metapb::Peer>)>>;
    /// `count` fresh timestamps; returns the largest of them.
    async fn timestamps(&self, count: u32) -> Result<Timestamp>;
    /// Tells how a store is.
    async fn store_heartbeat(&self, stats: pdpb::StoreStats) -> Result<()>;
    /// Sends region heartbeats until the receiver ends, and yields what the placement driver wants done.
    /// The header of the requests is filled in by the client.
    async fn region_heartbeats(
        &self,
        heartbeats: mpsc::Receiver<pdpb::RegionHeartbeatRequest>,
    ) -> Result<BoxStream<'static, Result<pdpb::RegionHeartbeatResponse>>>;
    /// Ids for `count` new regions that will be split off `region`.
    async fn ask_batch_split(&self, region: metapb::Region, count: u32) -> Result<Vec<pdpb::SplitId>>;
    /// Tells of a finished split; regions in key order.
    async fn report_batch_split(&self, regions: Vec<metapb::Region>) -> Result<()>;
    /// Versions needed only by reads before it may be removed.
    async fn gc_safe_point(&self) -> Result<Timestamp>;

    /// One fresh timestamp.
    async fn timestamp(&self) -> Result<Timestamp> {
        self.timestamps(1).await
    }
}
