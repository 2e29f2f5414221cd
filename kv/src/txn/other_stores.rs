//! What a store asks of others; over gRPC (`server/store_client.rs`), or in a test without.

use async_trait::async_trait;
use rutile_proto::kvrpcpb::{CheckLeaderRequest, CheckLeaderResponse, ReadIndexRequest, ReadIndexResponse};

/// Calls of other stores of the cluster. Errors are for the log: the call may be made again.
#[async_trait]
pub trait OtherStores: Send + Sync + 'static {
    /// Asks a leader for a read index.
    async fn read_index(&self, store_id: u64, request: ReadIndexRequest)
    -> Result<ReadIndexResponse, String>;

    /// Asks for the leaders that a store knows, and tells it what may be read of their regions.
    async fn check_leader(
        &self,
        store_id: u64,
        request: CheckLeaderRequest,
    ) -> Result<CheckLeaderResponse, String>;
}
