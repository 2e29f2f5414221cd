//! The placement driver over the wire: what TiKV and etcd clients rely on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rutile_pd::tso::{Clock, SystemClock};
use rutile_pd::{Config, Server};
use rutile_proto::etcdserverpb::kv_client::KvClient;
use rutile_proto::etcdserverpb::lease_client::LeaseClient;
use rutile_proto::etcdserverpb::watch_client::WatchClient;
use rutile_proto::etcdserverpb::*;
use rutile_proto::keyspacepb::LoadKeyspaceRequest;
use rutile_proto::keyspacepb::keyspace_client::KeyspaceClient;
use rutile_proto::metapb::{Peer, Region, RegionEpoch, Store};
use rutile_proto::pdpb::pd_client::PdClient;
use rutile_proto::pdpb::{self, *};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

struct Running {
    server: Server,
    address: String,
    channel: Channel,
    cluster_id: u64,
}

/// The machine's clock, some time later.
#[derive(Default)]
struct LaterClock(AtomicU64);

impl Clock for LaterClock {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms() + self.0.load(Ordering::Relaxed)
    }
}

async fn start(dir: &std::path::Path) -> Running {
    start_with_clock(dir, Arc::new(SystemClock)).await
}

async fn start_with_clock(dir: &std::path::Path, clock: Arc<dyn Clock>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = Config { data_dir: dir.into(), client_addr: address.clone(), ..Config::default() };
    let server = Server::start_with_clock(config, clock).await.unwrap();
    server.serve(listener).await.unwrap();
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let cluster_id = server.service().cluster_id();
    Running { server, address, channel, cluster_id }
}

impl Running {
    fn header(&self) -> Option<RequestHeader> {
        Some(RequestHeader { cluster_id: self.cluster_id, ..Default::default() })
    }

    fn pd(&self) -> PdClient<Channel> {
        PdClient::new(self.channel.clone())
    }

    async fn bootstrap(&self) -> BootstrapResponse {
        let store = Store { id: 1, address: "127.0.0.1:20160".into(), ..Default::default() };
        let request = BootstrapRequest {
            header: self.header(),
            store: Some(store),
            region: Some(region(2, "", "", 1)),
        };
        self.pd().bootstrap(request).await.unwrap().into_inner()
    }

    async fn get_region(&self, key: &'static str) -> GetRegionResponse {
        let request = GetRegionRequest { header: self.header(), region_key: key.into(), need_buckets: false };
        self.pd().get_region(request).await.unwrap().into_inner()
    }

    async fn http(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: pd\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn region(id: u64, start: &'static str, end: &'static str, version: u64) -> Region {
    Region {
        id,
        start_key: start.into(),
        end_key: end.into(),
        region_epoch: Some(RegionEpoch { conf_ver: 1, version }),
        peers: vec![Peer { id: id + 100, store_id: 1, ..Default::default() }],
        ..Default::default()
    }
}

fn error_type(header: &Option<pdpb::ResponseHeader>) -> ErrorType {
    header.as_ref().expect("every answer has a header").error.as_ref().map_or(ErrorType::Ok, |e| e.r#type())
}

#[tokio::test]
async fn before_and_after_bootstrap() {
    let dir = tempfile::tempdir().unwrap();
    let pd = start(dir.path()).await;
    let members = pd.pd().get_members(GetMembersRequest::default()).await.unwrap().into_inner();
    assert_eq!(members.header.as_ref().unwrap().cluster_id, pd.cluster_id);
    assert_ne!(pd.cluster_id, 0);
    assert_eq!(members.leader.unwrap().client_urls, [format!("http://{}", pd.address)]);

    let wrong = pd.pd().alloc_id(AllocIdRequest { count: 1, ..Default::default() }).await.unwrap_err();
    assert_eq!(wrong.code(), tonic::Code::FailedPrecondition);
    assert_eq!(wrong.message(), format!("mismatch cluster id, need {} but got 0", pd.cluster_id));

    assert_eq!(error_type(&pd.get_region("a").await.header), ErrorType::NotBootstrapped);
    assert_eq!(error_type(&pd.bootstrap().await.header), ErrorType::Ok);
    assert_eq!(error_type(&pd.bootstrap().await.header), ErrorType::AlreadyBootstrapped);
    let found = pd.get_region("a").await;
    assert_eq!((found.region.unwrap().id, found.leader.unwrap().id), (2, 102));

    let missing = GetStoreRequest { header: pd.header(), store_id: 77 };
    let missing = pd.pd().get_store(missing).await.unwrap().into_inner();
    let error = missing.header.unwrap().error.unwrap();
    assert_eq!(
        (error.r#type(), error.message.as_str()),
        (ErrorType::Unknown, "invalid store ID 77, not found")
    );

    let mut keyspaces = KeyspaceClient::new(pd.channel.clone());
    let load = |name: &str| LoadKeyspaceRequest { header: pd.header(), name: name.into() };
    let default = keyspaces.load_keyspace(load("DEFAULT")).await.unwrap().into_inner();
    assert_eq!((error_type(&default.header), default.keyspace.unwrap().id), (ErrorType::Ok, 0));
    let unknown = keyspaces.load_keyspace(load("nope")).await.unwrap().into_inner();
    assert_eq!(error_type(&unknown.header), ErrorType::EntryNotFound);
    pd.server.shutdown().await;
}

#[tokio::test]
async fn timestamps_on_a_stream_and_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = (0, 0);
    let mut cluster_id = None;
    for _ in 0..3 {
        let pd = start(dir.path()).await;
        assert_eq!(*cluster_id.get_or_insert(pd.cluster_id), pd.cluster_id);
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        let mut answers = pd.pd().tso(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        for count in [1, 64, 10_000, 3] {
            sender.send(TsoRequest { header: pd.header(), count, ..Default::default() }).await.unwrap();
        }
        for count in [1, 64, 10_000, 3] {
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!(answer.count, count);
            let ts = answer.timestamp.unwrap();
            let first = (ts.physical, ts.logical + 1 - i64::from(count));
            assert!(first.1 >= 0 && first > last, "{first:?} after {last:?}");
            last = (ts.physical, ts.logical);
        }
        sender.send(TsoRequest { count: 1, ..Default::default() }).await.unwrap();
        let refused = answers.message().await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        pd.server.shutdown().await;
    }
}

#[tokio::test]
async fn splits_reach_clients_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(LaterClock::default());
    let pd = start_with_clock(dir.path(), clock.clone()).await;
    pd.bootstrap().await;
    let ask =
        AskBatchSplitRequest { header: pd.header(), region: Some(region(2, "", "", 1)), split_count: 2 };
    let ids = pd.pd().ask_batch_split(ask).await.unwrap().into_inner().ids;
    assert_eq!(ids.len(), 2);
    assert!(ids.iter().all(|id| id.new_peer_ids.len() == 1));

    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    let mut steps = pd.pd().region_heartbeat(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let halves = [region(2, "", "m", 3), region(3, "m", "t", 3), region(4, "t", "", 3)];
    for half in &halves {
        let leader = half.peers.first().copied();
        let heartbeat = RegionHeartbeatRequest {
            header: pd.header(),
            region: Some(half.clone()),
            leader,
            ..Default::default()
        };
        sender.send(heartbeat).await.unwrap();
    }
    // The region that holds a keyspace's bounds and stays as it is gets asked to split there.
    let again = |region: &Region| RegionHeartbeatRequest {
        header: pd.header(),
        region: Some(region.clone()),
        leader: region.peers.first().copied(),
        ..Default::default()
    };
    let scan_to_end = || async {
        let scan = ScanRegionsRequest { header: pd.header(), limit: 0, ..Default::default() };
        pd.pd().scan_regions(scan).await.unwrap().into_inner().regions.len()
    };
    while scan_to_end().await < 3 {
        tokio::task::yield_now().await;
    }
    clock.0.store(11_000, Ordering::Relaxed);
    sender.send(again(&halves[1])).await.unwrap();
    let step = steps.message().await.unwrap().unwrap();
    assert_eq!((step.region_id, step.split_region.unwrap().keys.len()), (3, 2));
    drop(sender);

    pd.server.shutdown().await;
    let pd = start(dir.path()).await;
    for (key, id) in [("", 2), ("a", 2), ("m", 3), ("z", 4)] {
        let found = pd.get_region(key).await;
        assert_eq!((found.region.unwrap().id, found.leader.unwrap().id), (id, id + 100), "key {key}");
    }
    let prev = GetRegionRequest { header: pd.header(), region_key: "n".into(), need_buckets: false };
    assert_eq!(pd.pd().get_prev_region(prev).await.unwrap().into_inner().region.unwrap().id, 2);
    let scan =
        ScanRegionsRequest { header: pd.header(), start_key: "b".into(), limit: 2, end_key: "".into() };
    let scan = pd.pd().scan_regions(scan).await.unwrap().into_inner();
    assert_eq!(scan.regions.iter().map(|r| r.region.as_ref().unwrap().id).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((scan.region_metas.len(), scan.leaders.len()), (2, 2));
    let ranges = vec![
        pdpb::KeyRange { start_key: "a".into(), end_key: "b".into() },
        pdpb::KeyRange { start_key: "c".into(), end_key: "".into() },
    ];
    let batch = BatchScanRegionsRequest {
        header: pd.header(),
        ranges,
        contain_all_key_range: true,
        ..Default::default()
    };
    assert_eq!(pd.pd().batch_scan_regions(batch).await.unwrap().into_inner().regions.len(), 3);
    pd.server.shutdown().await;
}

#[tokio::test]
async fn http_shares_the_port() {
    let dir = tempfile::tempdir().unwrap();
    let pd = start(dir.path()).await;
    pd.bootstrap().await;
    assert!(pd.http("/pd/api/v1/regions").await.contains("\"count\":1"));
    assert!(pd.http("/pd/api/v1/stores").await.contains("127.0.0.1:20160"));
    assert!(pd.http("/pd/api/v1/members").await.contains("pd-1"));
    assert!(pd.http("/pd/api/v1/health").await.contains("\"health\":true"));
    assert!(pd.http("/metrics").await.contains("rutile_pd_regions 1"));
    assert!(pd.http("/pd/api/v1/region/id/99").await.starts_with("HTTP/1.1 404"));
    pd.server.shutdown().await;
}

#[tokio::test]
async fn safe_points() {
    let dir = tempfile::tempdir().unwrap();
    let pd = start(dir.path()).await;
    let update = |safe_point| UpdateGcSafePointRequest { header: pd.header(), safe_point };
    assert_eq!(pd.pd().update_gc_safe_point(update(50)).await.unwrap().into_inner().new_safe_point, 50);
    assert_eq!(pd.pd().update_gc_safe_point(update(40)).await.unwrap().into_inner().new_safe_point, 50);
    let advance = AdvanceTxnSafePointRequest { header: pd.header(), target: 60, ..Default::default() };
    assert_eq!(pd.pd().advance_txn_safe_point(advance).await.unwrap().into_inner().new_txn_safe_point, 60);
    let state = GetGcStateRequest { header: pd.header(), ..Default::default() };
    let state = pd.pd().get_gc_state(state).await.unwrap().into_inner().gc_state.unwrap();
    assert_eq!((state.gc_safe_point, state.txn_safe_point), (50, 60));
    pd.server.shutdown().await;
}

fn put(key: &'static str, value: &'static str, lease: i64) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), lease, prev_kv: true, ..Default::default() }
}

#[tokio::test]
async fn etcd_service_keeps_revisions_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let pd = start(dir.path()).await;
    let mut kv = KvClient::new(pd.channel.clone());
    let first = kv.put(put("a", "1", 0)).await.unwrap().into_inner();
    let second = kv.put(put("a", "2", 0)).await.unwrap().into_inner();
    assert_eq!(second.header.unwrap().revision, first.header.unwrap().revision + 1);
    assert_eq!(second.prev_kv.unwrap().value, "1");
    kv.put(put("b", "3", 0)).await.unwrap();

    // Election: create the key only if nobody has.
    let elect = |value: &'static str| TxnRequest {
        compare: vec![Compare {
            result: compare::CompareResult::Equal as i32,
            target: compare::CompareTarget::Create as i32,
            key: "owner".into(),
            target_union: Some(compare::TargetUnion::CreateRevision(0)),
            ..Default::default()
        }],
        success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put("owner", value, 0))) }],
        failure: vec![],
    };
    assert!(kv.txn(elect("s1")).await.unwrap().into_inner().succeeded);
    assert!(!kv.txn(elect("s2")).await.unwrap().into_inner().succeeded);
    pd.server.shutdown().await;

    let pd = start(dir.path()).await;
    let mut kv = KvClient::new(pd.channel.clone());
    let all = RangeRequest { key: "a".into(), range_end: "\0".into(), ..Default::default() };
    let all = kv.range(all).await.unwrap().into_inner();
    let got: Vec<_> = all.kvs.iter().map(|kv| (kv.key.as_ref(), kv.value.as_ref(), kv.version)).collect();
    assert_eq!(got, [(&b"a"[..], &b"2"[..], 2), (b"b", b"3", 1), (b"owner", b"s1", 1)]);
    assert_eq!((all.count, all.header.unwrap().revision), (3, 5));
    let unknown_lease = kv.put(put("c", "", 99)).await.unwrap_err();
    assert_eq!(unknown_lease.code(), tonic::Code::NotFound);
    pd.server.shutdown().await;
}

#[tokio::test]
async fn watches_see_changes_and_the_end_of_leases() {
    let dir = tempfile::tempdir().unwrap();
    let pd = start(dir.path()).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    let create = WatchCreateRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let create = WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) };
    sender.send(create).await.unwrap();
    let mut watch = WatchClient::new(pd.channel.clone());
    let mut answers = watch.watch(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().created);

    let mut leases = LeaseClient::new(pd.channel.clone());
    let lease = leases.lease_grant(LeaseGrantRequest { ttl: 1, id: 0 }).await.unwrap().into_inner();
    let mut kv = KvClient::new(pd.channel.clone());
    kv.put(put("other", "0", 0)).await.unwrap();
    kv.put(put("k1", "v", lease.id)).await.unwrap();
    let event = answers.message().await.unwrap().unwrap().events.remove(0);
    assert_eq!(event.kv.unwrap().key, "k1");
    // Nobody keeps the lease alive: its key goes.
    let gone =
        tokio::time::timeout(Duration::from_secs(10), answers.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(gone.events[0].r#type, 1);
    let left = LeaseTimeToLiveRequest { id: lease.id, keys: true };
    assert_eq!(leases.lease_time_to_live(left).await.unwrap().into_inner().ttl, -1);
    pd.server.shutdown().await;
}

#[tokio::test]
async fn a_directory_belongs_to_one_process_and_damage_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let pd = start(dir.path()).await;
    let config = Config { data_dir: dir.path().into(), ..Config::default() };
    let error = Server::start(config.clone()).await.err().unwrap().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    pd.bootstrap().await;
    pd.server.shutdown().await;
    drop(pd);
    let log = std::fs::read_dir(dir.path().join("raft"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("log-"))
        .unwrap();
    let mut content = std::fs::read(&log).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&log, content).unwrap();
    let error = Server::start(config).await.err().unwrap().to_string();
    assert!(error.contains(log.file_name().unwrap().to_str().unwrap()), "{error}");
}

/// A store that leads every region and splits where it is told to.
async fn obedient_store(pd: &Running) -> tokio::task::JoinHandle<()> {
    let (heartbeats, rx) = tokio::sync::mpsc::channel(16);
    let header = pd.header();
    let heartbeat = move |region: Region| RegionHeartbeatRequest {
        header: header.clone(),
        leader: region.peers.first().copied(),
        region: Some(region),
        term: 5,
        ..Default::default()
    };
    heartbeats.send(heartbeat(region(2, "", "", 1))).await.unwrap();
    let mut answers = pd.pd().region_heartbeat(ReceiverStream::new(rx)).await.unwrap().into_inner();
    let (mut stub, header) = (pd.pd(), pd.header());
    let mut whole = region(2, "", "", 1);
    tokio::spawn(async move {
        while let Ok(Some(answer)) = answers.message().await {
            let Some(split) = answer.split_region else { continue };
            let ask = AskBatchSplitRequest {
                header: header.clone(),
                region: Some(whole.clone()),
                split_count: split.keys.len() as u32,
            };
            let ids = stub.ask_batch_split(ask).await.unwrap().into_inner().ids;
            let mut pieces = Vec::new();
            whole.region_epoch.as_mut().unwrap().version += split.keys.len() as u64;
            for (id, key) in ids.iter().zip(&split.keys) {
                let mut piece = whole.clone();
                (piece.id, piece.peers[0].id) = (id.new_region_id, id.new_peer_ids[0]);
                (piece.end_key, whole.start_key) = (key.clone(), key.clone());
                pieces.push(piece);
            }
            pieces.push(whole.clone());
            let report = ReportBatchSplitRequest { header: header.clone(), regions: pieces.clone() };
            stub.report_batch_split(report).await.unwrap();
            for piece in pieces {
                heartbeats.send(heartbeat(piece)).await.unwrap();
            }
        }
    })
}

#[tokio::test]
async fn regions_are_split_and_scattered_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let pd = start(dir.path()).await;
    pd.bootstrap().await;
    let store = obedient_store(&pd).await;
    let split = |keys: &[&'static str]| SplitRegionsRequest {
        header: pd.header(),
        split_keys: keys.iter().map(|key| (*key).into()).collect(),
        retry_limit: 10,
    };
    let done = pd.pd().split_regions(split(&["d", "b", "d"])).await.unwrap().into_inner();
    assert_eq!((error_type(&done.header), done.finished_percentage), (ErrorType::Ok, 100));
    let (b, d) = (pd.get_region("b").await.region.unwrap(), pd.get_region("dd").await.region.unwrap());
    assert_eq!((&b.start_key[..], &b.end_key[..], &d.start_key[..]), (&b"b"[..], &b"d"[..], &b"d"[..]));
    assert_eq!(done.regions_id, [b.id, d.id]);
    // The region that was split says so.
    let asked = GetOperatorRequest { header: pd.header(), region_id: 2 };
    let operator = pd.pd().get_operator(asked).await.unwrap().into_inner();
    assert_eq!((operator.status(), &operator.kind[..]), (OperatorStatus::Success, &b"split"[..]));
    assert!(String::from_utf8_lossy(&operator.desc).contains("split-regions"), "{operator:?}");

    let both = SplitAndScatterRegionsRequest {
        header: pd.header(),
        split_keys: vec!["d".into(), "f".into()],
        group: "g".into(),
        retry_limit: 10,
    };
    let done = pd.pd().split_and_scatter_regions(both).await.unwrap().into_inner();
    assert_eq!((done.split_finished_percentage, done.scatter_finished_percentage), (100, 100), "{done:?}");
    for (key, id) in [("d", done.regions_id[0]), ("f", done.regions_id[1])] {
        assert_eq!(pd.get_region(key).await.region.unwrap().id, id, "{key}");
    }

    let none = pd.pd().split_regions(split(&[])).await.unwrap().into_inner();
    assert_eq!(error_type(&none.header), ErrorType::InvalidValue);
    let scatter =
        |regions_id: Vec<u64>| ScatterRegionRequest { header: pd.header(), regions_id, ..Default::default() };
    let done = pd.pd().scatter_region(scatter(vec![b.id, 4711])).await.unwrap().into_inner();
    assert_eq!((done.finished_percentage, &done.failed_regions_id[..]), (50, &[4711][..]));
    assert_eq!(error_type(&done.header), ErrorType::Ok);
    let done = pd.pd().scatter_region(scatter(vec![4711])).await.unwrap().into_inner();
    assert_eq!((error_type(&done.header), done.finished_percentage), (ErrorType::Unknown, 0));

    // What the metrics say of all this.
    pd.server.service().timestamps(3).await.unwrap();
    let metrics = pd.http("/metrics").await;
    for line in [
        "rutile_pd_regions 4",
        "rutile_pd_store_states{state=\"Up\"} 1",
        "rutile_pd_timestamps_total 3",
        "rutile_pd_tso_duration_seconds_count 1",
        "rutile_pd_operators{event=\"success\",reason=\"split-regions\"} 2",
    ] {
        assert!(metrics.to_lowercase().contains(&line.to_lowercase()), "no {line} in {metrics}");
    }
    store.abort();
    pd.server.shutdown().await;
}
