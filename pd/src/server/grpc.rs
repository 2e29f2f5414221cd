//! The gRPC services, and their router joined with HTTP's.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use rutile_proto::etcdserverpb::cluster_server::{Cluster, ClusterServer};
use rutile_proto::etcdserverpb::kv_server::{Kv, KvServer};
use rutile_proto::etcdserverpb::lease_server::{Lease, LeaseServer};
use rutile_proto::etcdserverpb::maintenance_server::{Maintenance, MaintenanceServer};
use rutile_proto::etcdserverpb::watch_server::{Watch, WatchServer};
use rutile_proto::etcdserverpb::{self, *};
use rutile_proto::health::health_check_response::ServingStatus;
use rutile_proto::health::health_server::{Health, HealthServer};
use rutile_proto::health::{HealthCheckRequest, HealthCheckResponse};
use rutile_proto::keyspacepb::keyspace_server::{Keyspace, KeyspaceServer};
use rutile_proto::keyspacepb::{LoadKeyspaceRequest, LoadKeyspaceResponse};
use rutile_proto::pdpb::pd_server::{Pd, PdServer};
use rutile_proto::pdpb::*;
use tonic::{Request, Response, Status, Streaming};

use super::{PdService, forward, http, watch};

/// Largest request: a transaction of the etcd service or a long split report.
const MESSAGE_SIZE_BYTES_MAX: usize = 32 << 20;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// All services of the client port.
pub fn router(service: Arc<PdService>) -> axum::Router {
    let api = Api(service.clone());
    tonic::service::Routes::new(PdServer::new(api.clone()).max_decoding_message_size(MESSAGE_SIZE_BYTES_MAX))
        .add_service(KeyspaceServer::new(api.clone()))
        .add_service(KvServer::new(api.clone()).max_decoding_message_size(MESSAGE_SIZE_BYTES_MAX))
        .add_service(WatchServer::new(api.clone()))
        .add_service(LeaseServer::new(api.clone()))
        .add_service(ClusterServer::new(api.clone()))
        .add_service(MaintenanceServer::new(api.clone()))
        .add_service(HealthServer::new(api))
        .prepare()
        .into_axum_router()
        .merge(http::router(service.clone()))
        .layer(axum::middleware::from_fn_with_state(service, forward::to_leader))
}

#[derive(Clone)]
struct Api(Arc<PdService>);

macro_rules! unary {
    ($($method:ident, $to:ident, $request:ty, $response:ty;)*) => {
        $(
            // What `async_trait` makes of an async fn; it does not look into this macro.
            fn $method<'a, 'b>(
                &'a self,
                request: Request<$request>,
            ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'b>>
            where
                'a: 'b,
                Self: 'b,
            {
                Box::pin(async move { self.0.$to(request.into_inner()).await.map(Response::new) })
            }
        )*
    };
}

#[tonic::async_trait]
impl Pd for Api {
    unary! {
        get_members, get_members, GetMembersRequest, GetMembersResponse;
        get_cluster_info, get_cluster_info, GetClusterInfoRequest, GetClusterInfoResponse;
        bootstrap, bootstrap, BootstrapRequest, BootstrapResponse;
        is_bootstrapped, is_bootstrapped, IsBootstrappedRequest, IsBootstrappedResponse;
        alloc_id, alloc_id, AllocIdRequest, AllocIdResponse;
        get_store, get_store, GetStoreRequest, GetStoreResponse;
        put_store, put_store, PutStoreRequest, PutStoreResponse;
        get_all_stores, get_all_stores, GetAllStoresRequest, GetAllStoresResponse;
        store_heartbeat, store_heartbeat, StoreHeartbeatRequest, StoreHeartbeatResponse;
        get_region, get_region, GetRegionRequest, GetRegionResponse;
        get_prev_region, get_prev_region, GetRegionRequest, GetRegionResponse;
        get_region_by_id, get_region_by_id, GetRegionByIdRequest, GetRegionResponse;
        scan_regions, scan_regions, ScanRegionsRequest, ScanRegionsResponse;
        batch_scan_regions, batch_scan_regions, BatchScanRegionsRequest, BatchScanRegionsResponse;
        ask_batch_split, ask_batch_split, AskBatchSplitRequest, AskBatchSplitResponse;
        report_batch_split, report_batch_split, ReportBatchSplitRequest, ReportBatchSplitResponse;
        scatter_region, scatter_region, ScatterRegionRequest, ScatterRegionResponse;
        split_regions, split_regions, SplitRegionsRequest, SplitRegionsResponse;
        split_and_scatter_regions, split_and_scatter_regions,
            SplitAndScatterRegionsRequest, SplitAndScatterRegionsResponse;
        get_operator, get_operator, GetOperatorRequest, GetOperatorResponse;
        get_gc_safe_point, get_gc_safe_point, GetGcSafePointRequest, GetGcSafePointResponse;
        update_gc_safe_point, update_gc_safe_point, UpdateGcSafePointRequest, UpdateGcSafePointResponse;
        update_service_gc_safe_point, update_service_gc_safe_point,
            UpdateServiceGcSafePointRequest, UpdateServiceGcSafePointResponse;
        get_gc_state, get_gc_state, GetGcStateRequest, GetGcStateResponse;
        advance_txn_safe_point, advance_txn_safe_point, AdvanceTxnSafePointRequest, AdvanceTxnSafePointResponse;
    }

    type TsoStream = Answers<TsoResponse>;

    /// One answer per request, in order; the response's headers go out before the first request is read.
    async fn tso(
        &self,
        request: Request<Streaming<TsoRequest>>,
    ) -> Result<Response<Self::TsoStream>, Status> {
        let service = self.0.clone();
        let answers = request.into_inner().then(move |request| {
            let service = service.clone();
            async move { service.tso(request?).await }
        });
        Ok(Response::new(Box::pin(until_error(answers))))
    }

    type RegionHeartbeatStream = Answers<RegionHeartbeatResponse>;

    async fn region_heartbeat(
        &self,
        request: Request<Streaming<RegionHeartbeatRequest>>,
    ) -> Result<Response<Self::RegionHeartbeatStream>, Status> {
        Ok(Response::new(Box::pin(self.0.clone().region_heartbeats(request.into_inner()))))
    }
}

/// Ends a stream after its first error, as gRPC does.
fn until_error<T: Send + 'static>(
    answers: impl Stream<Item = Result<T, Status>> + Send,
) -> impl Stream<Item = Result<T, Status>> + Send {
    answers.scan(false, |failed, answer| {
        let end = *failed;
        *failed = answer.is_err();
        std::future::ready((!end).then_some(answer))
    })
}

#[tonic::async_trait]
impl Keyspace for Api {
    unary! { load_keyspace, load_keyspace, LoadKeyspaceRequest, LoadKeyspaceResponse; }
}

#[tonic::async_trait]
impl Kv for Api {
    unary! {
        range, etcd_range, RangeRequest, RangeResponse;
        put, etcd_put, PutRequest, PutResponse;
        delete_range, etcd_delete_range, DeleteRangeRequest, DeleteRangeResponse;
        txn, etcd_txn, TxnRequest, TxnResponse;
        compact, etcd_compact, CompactionRequest, CompactionResponse;
    }
}

#[tonic::async_trait]
impl Watch for Api {
    type WatchStream = Answers<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(Box::pin(watch::run(self.0.clone(), request.into_inner()))))
    }
}

#[tonic::async_trait]
impl Lease for Api {
    unary! {
        lease_grant, lease_grant, LeaseGrantRequest, LeaseGrantResponse;
        lease_revoke, lease_revoke, LeaseRevokeRequest, LeaseRevokeResponse;
        lease_time_to_live, lease_time_to_live, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse;
        lease_leases, lease_leases, LeaseLeasesRequest, LeaseLeasesResponse;
    }

    type LeaseKeepAliveStream = Answers<LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let service = self.0.clone();
        let answers = request
            .into_inner()
            .map(move |request| request.and_then(|request| service.lease_keep_alive(request.id)));
        Ok(Response::new(Box::pin(until_error(answers))))
    }
}

#[tonic::async_trait]
impl Cluster for Api {
    async fn member_list(
        &self,
        request: Request<etcdserverpb::MemberListRequest>,
    ) -> Result<Response<etcdserverpb::MemberListResponse>, Status> {
        self.0.member_list(request.into_inner()).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl Maintenance for Api {
    unary! {
        alarm, etcd_alarm, AlarmRequest, AlarmResponse;
        status, etcd_status, StatusRequest, StatusResponse;
        defragment, etcd_defragment, DefragmentRequest, DefragmentResponse;
        hash_kv, etcd_hash, HashKvRequest, HashKvResponse;
        move_leader, move_leader, MoveLeaderRequest, MoveLeaderResponse;
    }
}

#[tonic::async_trait]
impl Health for Api {
    async fn check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving as i32 }))
    }

    type WatchStream = Answers<HealthCheckResponse>;

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let serving = HealthCheckResponse { status: ServingStatus::Serving as i32 };
        let stream = futures::stream::once(std::future::ready(Ok(serving))).chain(futures::stream::pending());
        Ok(Response::new(Box::pin(stream)))
    }
}
