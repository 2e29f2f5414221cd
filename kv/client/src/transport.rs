//! How requests travel: over gRPC, or as direct calls into a store and a placement driver of the same process.
//!
//! A transport knows neither regions nor retries: it delivers one request to one store, or one to the leader of the
//! placement driver. The lists of RPCs are macros, so that an implementation can dispatch without writing them again.

use async_trait::async_trait;
use rutile_proto::ids::{ClusterId, StoreId, Timestamp};
use rutile_proto::kvrpcpb::{Context, GetRequest, GetResponse};
use rutile_proto::{coprocessor, errorpb, kvrpcpb, pdpb};

use crate::error::TransportError;

/// Calls the given macro with every store RPC: `(Variant, Request, Response, method)`.
#[macro_export]
macro_rules! for_each_store_rpc {
    ($callback:ident) => {
        $callback! {
            (Get, kvrpcpb::GetRequest, kvrpcpb::GetResponse, kv_get),
            (BatchGet, kvrpcpb::BatchGetRequest, kvrpcpb::BatchGetResponse, kv_batch_get),
            (Scan, kvrpcpb::ScanRequest, kvrpcpb::ScanResponse, kv_scan),
            (Prewrite, kvrpcpb::PrewriteRequest, kvrpcpb::PrewriteResponse, kv_prewrite),
            (Commit, kvrpcpb::CommitRequest, kvrpcpb::CommitResponse, kv_commit),
            (BatchRollback, kvrpcpb::BatchRollbackRequest, kvrpcpb::BatchRollbackResponse, kv_batch_rollback),
            (PessimisticLock, kvrpcpb::PessimisticLockRequest, kvrpcpb::PessimisticLockResponse, kv_pessimistic_lock),
            (PessimisticRollback, kvrpcpb::PessimisticRollbackRequest, kvrpcpb::PessimisticRollbackResponse, kv_pessimistic_rollback),
            (TxnHeartBeat, kvrpcpb::TxnHeartBeatRequest, kvrpcpb::TxnHeartBeatResponse, kv_txn_heart_beat),
            (CheckTxnStatus, kvrpcpb::CheckTxnStatusRequest, kvrpcpb::CheckTxnStatusResponse, kv_check_txn_status),
            (CheckSecondaryLocks, kvrpcpb::CheckSecondaryLocksRequest, kvrpcpb::CheckSecondaryLocksResponse, kv_check_secondary_locks),
            (ResolveLock, kvrpcpb::ResolveLockRequest, kvrpcpb::ResolveLockResponse, kv_resolve_lock),
            (ScanLock, kvrpcpb::ScanLockRequest, kvrpcpb::ScanLockResponse, kv_scan_lock),
            (DeleteRange, kvrpcpb::DeleteRangeRequest, kvrpcpb::DeleteRangeResponse, kv_delete_range),
            (UnsafeDestroyRange, kvrpcpb::UnsafeDestroyRangeRequest, kvrpcpb::UnsafeDestroyRangeResponse, unsafe_destroy_range),
            (SplitRegion, kvrpcpb::SplitRegionRequest, kvrpcpb::SplitRegionResponse, split_region),
            (Coprocessor, coprocessor::Request, coprocessor::Response, coprocessor),
            (RawGet, kvrpcpb::RawGetRequest, kvrpcpb::RawGetResponse, raw_get),
            (RawBatchGet, kvrpcpb::RawBatchGetRequest, kvrpcpb::RawBatchGetResponse, raw_batch_get),
            (RawPut, kvrpcpb::RawPutRequest, kvrpcpb::RawPutResponse, raw_put),
            (RawBatchPut, kvrpcpb::RawBatchPutRequest, kvrpcpb::RawBatchPutResponse, raw_batch_put),
            (RawDelete, kvrpcpb::RawDeleteRequest, kvrpcpb::RawDeleteResponse, raw_delete),
            (RawBatchDelete, kvrpcpb::RawBatchDeleteRequest, kvrpcpb::RawBatchDeleteResponse, raw_batch_delete),
            (RawScan, kvrpcpb::RawScanRequest, kvrpcpb::RawScanResponse, raw_scan),
            (RawDeleteRange, kvrpcpb::RawDeleteRangeRequest, kvrpcpb::RawDeleteRangeResponse, raw_delete_range),
            (RawGetKeyTtl, kvrpcpb::RawGetKeyTtlRequest, kvrpcpb::RawGetKeyTtlResponse, raw_get_key_ttl),
            (RawCompareAndSwap, kvrpcpb::RawCasRequest, kvrpcpb::RawCasResponse, raw_compare_and_swap),
        }
    };
}

/// Calls the given macro with every unary RPC of the placement driver: `(Variant, Request, Response, method)`.
#[macro_export]
macro_rules! for_each_pd_rpc {
    ($callback:ident) => {
        $callback! {
            (GetMembers, pdpb::GetMembersRequest, pdpb::GetMembersResponse, get_members),
            (GetRegion, pdpb::GetRegionRequest, pdpb::GetRegionResponse, get_region),
            (GetPrevRegion, pdpb::GetRegionRequest, pdpb::GetRegionResponse, get_prev_region),
            (GetRegionById, pdpb::GetRegionByIdRequest, pdpb::GetRegionResponse, get_region_by_id),
            (ScanRegions, pdpb::ScanRegionsRequest, pdpb::ScanRegionsResponse, scan_regions),
            (GetStore, pdpb::GetStoreRequest, pdpb::GetStoreResponse, get_store),
            (GetAllStores, pdpb::GetAllStoresRequest, pdpb::GetAllStoresResponse, get_all_stores),
            (AllocId, pdpb::AllocIdRequest, pdpb::AllocIdResponse, alloc_id),
            (GetGcSafePoint, pdpb::GetGcSafePointRequest, pdpb::GetGcSafePointResponse, get_gc_safe_point),
            (UpdateGcSafePoint, pdpb::UpdateGcSafePointRequest, pdpb::UpdateGcSafePointResponse, update_gc_safe_point),
            (UpdateServiceGcSafePoint, pdpb::UpdateServiceGcSafePointRequest, pdpb::UpdateServiceGcSafePointResponse, update_service_gc_safe_point),
        }
    };
}

macro_rules! define_store_rpcs {
    ($(($variant:ident, $request:ty, $response:ty, $method:ident),)*) => {
        /// A request to a store.
        #[allow(missing_docs, clippy::large_enum_variant)]
        #[derive(Clone, Debug)]
        pub enum StoreRequest { $($variant($request),)* }

        /// The answer, of the variant that the request had.
        #[allow(missing_docs, clippy::large_enum_variant)]
        #[derive(Clone, Debug)]
        pub enum StoreResponse { $($variant($response),)* }

        impl StoreRequest {
            /// Name of the RPC, for logs and metrics.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(StoreRequest::$variant(_) => stringify!($method),)* }
            }
        }

        $(impl StoreRpc for $request {
            type Response = $response;

            fn set_context(&mut self, context: Context) {
                self.context = Some(context);
            }

            fn into_request(self) -> StoreRequest {
                StoreRequest::$variant(self)
            }

            fn from_response(response: StoreResponse) -> Option<Self::Response> {
                match response {
                    StoreResponse::$variant(response) => Some(response),
                    _ => None,
                }
            }

            fn take_region_error(response: &mut Self::Response) -> Option<errorpb::Error> {
                response.region_error.take()
            }
        })*
    };
}

macro_rules! define_pd_rpcs {
    ($(($variant:ident, $request:ty, $response:ty, $method:ident),)*) => {
        /// A request to the placement driver.
        #[allow(missing_docs)]
        #[derive(Clone, Debug)]
        pub enum PdRequest { $($variant($request),)* }

        /// The answer, of the variant that the request had.
        #[allow(missing_docs, clippy::large_enum_variant)]
        #[derive(Clone, Debug)]
        pub enum PdResponse { $($variant($response),)* }
    };
}

/// A request that a region's leader answers.
pub trait StoreRpc: Clone + Send + Sync {
    /// Its answer.
    type Response: Send;

    /// Sets region, epoch and peer.
    fn set_context(&mut self, context: Context);
    /// As the transport takes it.
    fn into_request(self) -> StoreRequest;
    /// `None` if the answer is of another RPC.
    fn from_response(response: StoreResponse) -> Option<Self::Response>;
    /// Takes the region error out of the answer.
    fn take_region_error(response: &mut Self::Response) -> Option<errorpb::Error>;
}

for_each_store_rpc!(define_store_rpcs);
for_each_pd_rpc!(define_pd_rpcs);

/// Delivers requests to the placement driver's leader and to stores.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// The cluster that this transport leads to.
    fn cluster_id(&self) -> ClusterId;

    /// Timestamps without waiting, where the placement driver lives in this process: the largest of `count`.
    fn try_tso(&self, _count: u32) -> Option<Timestamp> {
        None
    }

    /// The largest of `count` fresh consecutive timestamps (of one millisecond).
    async fn tso(&self, count: u32) -> Result<Timestamp, TransportError>;

    /// One call to the placement driver's leader.
    async fn pd(&self, request: PdRequest) -> Result<PdResponse, TransportError>;

    /// A point read without waiting, where the store lives in this process and can serve it at once.
    fn try_get(&self, _store: StoreId, _request: &GetRequest) -> Option<GetResponse> {
        None
    }

    /// One call to a store.
    async fn store(&self, store: StoreId, request: StoreRequest) -> Result<StoreResponse, TransportError>;

    /// The store's address may have changed: forget connections to it.
    fn forget_store(&self, _store: StoreId) {}
}
