//! The gRPC side of [`Service`].

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use rutile_proto::kvrpcpb::*;
use rutile_proto::raft_serverpb::{Done, RaftMessage, SnapshotChunk};
use rutile_proto::tikvpb::tikv_server::{Tikv, TikvServer};
use rutile_proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse, BatchRaftMessage};
use rutile_proto::{coprocessor, kvrpcpb};
use tonic::{Request, Response, Status, Streaming};

use super::batch_commands;
use super::service::Service;

/// Largest request in bytes: one BatchCommands message carries up to 128 requests.
const MESSAGE_SIZE_BYTES_MAX: usize = 256 << 20;

/// Where raft messages and snapshots of other stores go.
#[tonic::async_trait]
pub trait RaftReceiver: Send + Sync + 'static {
    /// Takes messages until the stream ends.
    async fn raft(&self, messages: Streaming<RaftMessage>) -> Result<Done, Status>;
    /// Takes batches of messages until the stream ends.
    async fn batch_raft(&self, messages: Streaming<BatchRaftMessage>) -> Result<Done, Status>;
    /// Takes one snapshot.
    async fn snapshot(&self, chunks: Streaming<SnapshotChunk>) -> Result<Done, Status>;
}

/// [`Service`] and [`RaftReceiver`] as a tonic service.
#[derive(Clone)]
pub struct GrpcService {
    service: Service,
    raft: Arc<dyn RaftReceiver>,
}

impl GrpcService {
    /// Ready to be added to a tonic server.
    #[must_use]
    pub fn server(service: Service, raft: Arc<dyn RaftReceiver>) -> TikvServer<GrpcService> {
        TikvServer::new(GrpcService { service, raft })
            .max_decoding_message_size(MESSAGE_SIZE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }
}

/// Refuses requests meant for another cluster.
pub(super) fn check_cluster(service: &Service, ctx: Option<&kvrpcpb::Context>) -> Result<(), Status> {
    let (asked, own) = (ctx.map_or(0, |c| c.cluster_id), service.cluster_id());
    if asked != 0 && own != 0 && asked != own {
        return Err(Status::failed_precondition(format!("mismatch cluster id, need {own} but got {asked}")));
    }
    Ok(())
}

macro_rules! unary {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl Tikv for GrpcService {
            $(async fn $name(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                let request = request.into_inner();
                check_cluster(&self.service, request.context.as_ref())?;
                Ok(Response::new(self.service.$name(request).await))
            })*

            async fn check_leader(
                &self,
                request: Request<CheckLeaderRequest>,
            ) -> Result<Response<CheckLeaderResponse>, Status> {
                Ok(Response::new(self.service.check_leader(request.into_inner()).await))
            }

            async fn get_store_safe_ts(
                &self,
                request: Request<StoreSafeTsRequest>,
            ) -> Result<Response<StoreSafeTsResponse>, Status> {
                Ok(Response::new(self.service.get_store_safe_ts(request.into_inner()).await))
            }

            async fn kv_gc(&self, _: Request<GcRequest>) -> Result<Response<GcResponse>, Status> {
                Err(Status::unimplemented("KvGC"))
            }

            type BatchCommandsStream = Pin<Box<dyn Stream<Item = Result<BatchCommandsResponse, Status>> + Send>>;

            async fn batch_commands(
                &self,
                request: Request<Streaming<BatchCommandsRequest>>,
            ) -> Result<Response<Self::BatchCommandsStream>, Status> {
                let answers = batch_commands::serve(self.service.clone(), request.into_inner());
                Ok(Response::new(Box::pin(answers)))
            }

            async fn raft(&self, request: Request<Streaming<RaftMessage>>) -> Result<Response<Done>, Status> {
                self.raft.raft(request.into_inner()).await.map(Response::new)
            }

            async fn batch_raft(
                &self,
                request: Request<Streaming<BatchRaftMessage>>,
            ) -> Result<Response<Done>, Status> {
                self.raft.batch_raft(request.into_inner()).await.map(Response::new)
            }

            async fn snapshot(
                &self,
                request: Request<Streaming<SnapshotChunk>>,
            ) -> Result<Response<Done>, Status> {
                self.raft.snapshot(request.into_inner()).await.map(Response::new)
            }
        }
    };
}

unary! {
    kv_get(GetRequest) -> GetResponse;
    kv_scan(ScanRequest) -> ScanResponse;
    kv_prewrite(PrewriteRequest) -> PrewriteResponse;
    kv_pessimistic_lock(PessimisticLockRequest) -> PessimisticLockResponse;
    kv_pessimistic_rollback(PessimisticRollbackRequest) -> PessimisticRollbackResponse;
    kv_txn_heart_beat(TxnHeartBeatRequest) -> TxnHeartBeatResponse;
    kv_check_txn_status(CheckTxnStatusRequest) -> CheckTxnStatusResponse;
    kv_check_secondary_locks(CheckSecondaryLocksRequest) -> CheckSecondaryLocksResponse;
    kv_commit(CommitRequest) -> CommitResponse;
    kv_cleanup(CleanupRequest) -> CleanupResponse;
    kv_batch_get(BatchGetRequest) -> BatchGetResponse;
    kv_batch_rollback(BatchRollbackRequest) -> BatchRollbackResponse;
    kv_scan_lock(ScanLockRequest) -> ScanLockResponse;
    kv_resolve_lock(ResolveLockRequest) -> ResolveLockResponse;
    kv_delete_range(DeleteRangeRequest) -> DeleteRangeResponse;
    raw_get(RawGetRequest) -> RawGetResponse;
    raw_batch_get(RawBatchGetRequest) -> RawBatchGetResponse;
    raw_put(RawPutRequest) -> RawPutResponse;
    raw_batch_put(RawBatchPutRequest) -> RawBatchPutResponse;
    raw_delete(RawDeleteRequest) -> RawDeleteResponse;
    raw_batch_delete(RawBatchDeleteRequest) -> RawBatchDeleteResponse;
    raw_scan(RawScanRequest) -> RawScanResponse;
    raw_delete_range(RawDeleteRangeRequest) -> RawDeleteRangeResponse;
    raw_batch_scan(RawBatchScanRequest) -> RawBatchScanResponse;
    raw_get_key_ttl(RawGetKeyTtlRequest) -> RawGetKeyTtlResponse;
    raw_compare_and_swap(RawCasRequest) -> RawCasResponse;
    raw_checksum(RawChecksumRequest) -> RawChecksumResponse;
    raw_coprocessor(RawCoprocessorRequest) -> RawCoprocessorResponse;
    unsafe_destroy_range(UnsafeDestroyRangeRequest) -> UnsafeDestroyRangeResponse;
    split_region(SplitRegionRequest) -> SplitRegionResponse;
    mvcc_get_by_key(MvccGetByKeyRequest) -> MvccGetByKeyResponse;
    read_index(ReadIndexRequest) -> ReadIndexResponse;
    get_health_feedback(GetHealthFeedbackRequest) -> GetHealthFeedbackResponse;
    coprocessor(coprocessor::Request) -> coprocessor::Response;
}
