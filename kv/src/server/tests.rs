//! The service on the wire: unary calls, BatchCommands and health over a real socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rutile_proto::health::health_check_response::ServingStatus;
use rutile_proto::health::health_client::HealthClient;
use rutile_proto::health::health_server::HealthServer;
use rutile_proto::health::{HealthCheckRequest, HealthCheckResponse};
use rutile_proto::kvrpcpb::*;
use rutile_proto::raft_serverpb::{Done, RaftMessage, SnapshotChunk};
use rutile_proto::tikvpb::batch_commands_request::{Request as BatchRequest, request::Cmd as Ask};
use rutile_proto::tikvpb::batch_commands_response::response::Cmd as Answer;
use rutile_proto::tikvpb::tikv_client::TikvClient;
use rutile_proto::tikvpb::{BatchCommandsEmptyRequest, BatchCommandsRequest, BatchRaftMessage};
use rutile_proto::{coprocessor, metapb};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Server};
use tonic::{Code, Status, Streaming};

use super::grpc::{GrpcService, RaftReceiver};
use super::health::HealthService;
use super::service::Service;
use crate::txn::test_kv::{TestClock, TestKv};

const CLUSTER_ID: u64 = 7;

struct NoRaft;

#[tonic::async_trait]
impl RaftReceiver for NoRaft {
    async fn raft(&self, _: Streaming<RaftMessage>) -> Result<Done, Status> {
        Err(Status::unimplemented("no raft here"))
    }

    async fn batch_raft(&self, _: Streaming<BatchRaftMessage>) -> Result<Done, Status> {
        Err(Status::unimplemented("BatchRaft"))
    }

    async fn snapshot(&self, _: Streaming<SnapshotChunk>) -> Result<Done, Status> {
        Err(Status::unimplemented("Snapshot"))
    }
}

async fn serve() -> (Channel, HealthService) {
    let service = Service::with_timestamps(TestKv::new(), Arc::new(TestClock::default()), CLUSTER_ID);
    let health = HealthService::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::builder()
        .add_service(GrpcService::server(service, Arc::new(NoRaft)))
        .add_service(HealthServer::new(health.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    (Channel::from_shared(address).unwrap().connect().await.unwrap(), health)
}

fn b(s: &str) -> Bytes {
    Bytes::copy_from_slice(s.as_bytes())
}

fn lock(start_ts: u64) -> PessimisticLockRequest {
    let key = Mutation { op: Op::PessimisticLock as i32, key: b("k"), ..Default::default() };
    PessimisticLockRequest {
        mutations: vec![key],
        primary_lock: b("k"),
        start_version: start_ts,
        for_update_ts: start_ts,
        lock_ttl: 1000,
        wait_timeout: 500,
        ..Default::default()
    }
}

#[tokio::test]
async fn unary_calls() {
    let (channel, health) = serve().await;
    let mut store = TikvClient::new(channel.clone());
    store.raw_put(RawPutRequest { key: b("k"), value: b("v"), ..Default::default() }).await.unwrap();
    let get = |cluster_id| RawGetRequest {
        context: Some(Context { cluster_id, ..Default::default() }),
        key: b("k"),
        ..Default::default()
    };
    assert_eq!(store.raw_get(get(0)).await.unwrap().into_inner().value, b("v"));
    assert_eq!(store.raw_get(get(CLUSTER_ID)).await.unwrap().into_inner().value, b("v"));
    assert_eq!(store.raw_get(get(8)).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(store.kv_gc(GcRequest::default()).await.unwrap_err().code(), Code::Unimplemented);
    let plan = coprocessor::Request { tp: 103, ..Default::default() };
    assert!(store.coprocessor(plan).await.unwrap().into_inner().other_error.contains("103"));
    let split = SplitRegionRequest { split_keys: vec![b("m")], ..Default::default() };
    let regions: Vec<metapb::Region> = store.split_region(split).await.unwrap().into_inner().regions;
    assert_eq!(regions.len(), 1);
    store.unsafe_destroy_range(UnsafeDestroyRangeRequest::default()).await.unwrap();
    assert!(store.raw_get(get(0)).await.unwrap().into_inner().not_found);

    let mut checks = HealthClient::new(channel);
    let status = |r: tonic::Response<HealthCheckResponse>| r.into_inner().status();
    assert_eq!(status(checks.check(HealthCheckRequest::default()).await.unwrap()), ServingStatus::Serving);
    health.set_serving(false);
    assert_eq!(status(checks.check(HealthCheckRequest::default()).await.unwrap()), ServingStatus::NotServing);
}

#[tokio::test]
async fn batches_are_answered_as_they_finish() {
    let (channel, _) = serve().await;
    let mut store = TikvClient::new(channel);
    let (requests, stream) = tokio::sync::mpsc::channel(4);
    let send = |asks: Vec<(u64, Ask)>| {
        let (request_ids, asks): (Vec<_>, Vec<_>) = asks.into_iter().unzip();
        let asks = asks.into_iter().map(|cmd| BatchRequest { cmd: Some(cmd) }).collect();
        requests.send(BatchCommandsRequest { requests: asks, request_ids, ..Default::default() })
    };
    let mut answers = store.batch_commands(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let put = RawPutRequest { key: b("r"), value: b("v"), ..Default::default() };
    let slow = BatchCommandsEmptyRequest { test_id: 9, delay_time: 60_000 };
    // 3 waits for the lock of 2, and 4 for the clock; nobody else waits for them.
    let first = vec![(1, Ask::RawPut(Box::new(put))), (2, Ask::PessimisticLock(Box::new(lock(10))))];
    send(first).await.unwrap();
    let mut seen = std::collections::HashMap::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut sent = 2;
    while seen.len() < 6 {
        let message = tokio::time::timeout_at(deadline, answers.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(message.request_ids.len(), message.responses.len());
        seen.extend(message.request_ids.into_iter().zip(message.responses));
        if seen.len() == 2 && sent == 2 {
            let blocked = (3, Ask::PessimisticLock(Box::new(lock(20))));
            send(vec![
                blocked,
                (4, Ask::Empty(Box::new(slow))),
                (5, Ask::RawGet(Box::new(RawGetRequest { key: b("r"), ..Default::default() }))),
            ])
            .await
            .unwrap();
            sent = 5;
        }
        if seen.contains_key(&5) && sent == 5 {
            assert!(!seen.contains_key(&3), "the blocked request is not answered yet");
            let unlock = PessimisticRollbackRequest {
                start_version: 10,
                for_update_ts: 10,
                keys: vec![b("k")],
                ..Default::default()
            };
            let soon = BatchCommandsEmptyRequest { test_id: 1, delay_time: 0 };
            send(vec![(6, Ask::PessimisticRollback(Box::new(unlock))), (7, Ask::Empty(Box::new(soon)))])
                .await
                .unwrap();
            sent = 7;
        }
    }
    assert!(!seen.contains_key(&4));
    let Some(Answer::PessimisticLock(locked)) = &seen[&3].cmd else { panic!("an answer of another kind") };
    assert!(locked.errors.is_empty(), "{:?}", locked.errors);
    let Some(Answer::RawGet(got)) = &seen[&5].cmd else { panic!("an answer of another kind") };
    assert_eq!(got.value, b("v"));
    let Some(Answer::Empty(empty)) = &seen[&7].cmd else { panic!("an answer of another kind") };
    assert_eq!(empty.test_id, 1);
}
