//! Reads of followers: as good as those of the leader, and stale ones that ask nobody.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rutile_kv::config::{Config, Span};
use rutile_kv::mvcc::key::Key;
use rutile_kv::mvcc::lock::{Lock, LockType};
use rutile_kv::raftstore::RaftKv;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::*;
use rutile_proto::tikvpb::tikv_client::TikvClient;
use support::nodes::{Nodes, value};

fn replica(ctx: &mut Context) {
    ctx.replica_read = true;
}

fn stale(ctx: &mut Context) {
    ctx.stale_read = true;
}

fn without_resolving(config: &mut Config) {
    config.resolved_ts.advance_interval = Span::ms(0);
}

/// A read at a node, as often as it takes until a region answers.
async fn read(nodes: &Nodes, i: usize, key: &str, ts: Timestamp, kind: fn(&mut Context)) -> GetResponse {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = nodes.get(i, key, ts, kind).await;
        if answer.region_error.is_none() {
            return answer;
        }
        assert!(Instant::now() < deadline, "node {i} does not serve {key} at {ts}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_see_every_acknowledged_write() {
    let nodes = Nodes::start(3, without_resolving).await;
    nodes.lead("k", 0).await;
    for round in 0..40 {
        let text = format!("v{round}");
        nodes.write("k", &text, nodes.timestamp().await).await;
        let i = 1 + round % 2;
        let ts = nodes.timestamp().await;
        assert_eq!(value(&read(&nodes, i, "k", ts, replica).await), Some(text.clone().into()));
        let mut context = nodes.context(i, "k");
        replica(&mut context);
        let scan =
            ScanRequest { context: Some(context.clone()), limit: 10, version: ts.0, ..Default::default() };
        let scanned = nodes.nodes[i].service().kv_scan(scan).await;
        assert_eq!(scanned.pairs.len(), 1, "{scanned:?}");
        assert_eq!(scanned.pairs[0].value, text);
        let keys = vec![Bytes::from("k"), Bytes::from("none")];
        let batch =
            BatchGetRequest { context: Some(context.clone()), keys, version: ts.0, ..Default::default() };
        let batch = nodes.nodes[i].service().kv_batch_get(batch).await;
        assert_eq!(batch.pairs.len(), 1, "{batch:?}");
        assert_eq!(batch.pairs[0].value, text);
    }
    // Raw reads as well.
    let (leader, ctx) = nodes.wait_leader("raw").await;
    let put =
        RawPutRequest { context: Some(ctx), key: "raw".into(), value: "v".into(), ..Default::default() };
    assert_eq!(nodes.nodes[leader].service().raw_put(put).await, RawPutResponse::default());
    for i in 0..3 {
        let mut context = nodes.context(i, "raw");
        replica(&mut context);
        let get = RawGetRequest { context: Some(context), key: "raw".into(), ..Default::default() };
        let answer = nodes.nodes[i].service().raw_get(get).await;
        assert_eq!(&answer.value[..], b"v", "node {i}: {answer:?}");
    }
    // Not asked for, a follower refuses.
    let refused = nodes.get(1, "k", nodes.timestamp().await, |_| ()).await;
    assert!(refused.region_error.unwrap().not_leader.is_some());
    nodes.shutdown().await;
}

/// A transaction in one phase takes its commit timestamp from what the leader knows of reads. One that the leader does not
/// hear of is overtaken.
#[tokio::test(flavor = "multi_thread")]
async fn the_leader_hears_of_a_followers_read() {
    let nodes = Nodes::start(3, without_resolving).await;
    nodes.lead("k", 0).await;
    nodes.write("k", "old", nodes.timestamp().await).await;

    // Replication alone: the data are up to date, but the read's timestamp is not told.
    let read_ts = Timestamp(nodes.timestamp().await.0 + 1_000);
    let ctx = Context { replica_read: true, ..nodes.context(1, "k") };
    let untold = nodes.nodes[1].raft().snapshot(&ctx).await.unwrap();
    let pd_key = rutile_proto::key::txn_pd_key(b"k");
    assert!(untold.contains(&pd_key));
    let committed = nodes.write("k", "new", nodes.timestamp().await).await;
    assert!(committed < read_ts, "the anomaly: another read at {read_ts} would see a commit at {committed}");

    let read_ts = Timestamp(read_ts.0 + 1_000);
    assert_eq!(value(&read(&nodes, 1, "k", read_ts, replica).await), Some("new".into()));
    let committed = nodes.write("k", "newest", nodes.timestamp().await).await;
    assert!(committed > read_ts, "a commit at {committed} after a read at {read_ts}");
    assert_eq!(value(&read(&nodes, 1, "k", read_ts, replica).await), Some("new".into()), "the read repeats");
    nodes.shutdown().await;
}

/// A write whose commit timestamp is chosen, but which no follower has: the read waits for it, or meets it as a lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_followers_read_waits_for_writes_in_flight() {
    let nodes = Nodes::start(3, without_resolving).await;
    nodes.lead("k", 0).await;
    let start_ts = nodes.timestamp().await;
    let leader = nodes.nodes[0].service();
    let mut in_flight = leader.scheduler().concurrency().in_flight();
    let mut lock = Lock::new(LockType::Put, Bytes::from("k"), start_ts, 60_000);
    lock.use_async_commit = true;
    in_flight.add(&Key::from_raw(&Bytes::from("k")), &mut lock);
    let before = Timestamp(lock.min_commit_ts.0 - 1);
    assert_eq!(value(&read(&nodes, 1, "k", before, replica).await), None, "not its business");

    let after = Timestamp(lock.min_commit_ts.0 + 10);
    let answer = read(&nodes, 1, "k", after, replica).await;
    assert_eq!(answer.error.expect("locked").locked.expect("locked").lock_version, start_ts.0);
    // The same over the wire, with ranges.
    let mut client =
        TikvClient::connect(format!("http://{}", nodes.pd.address_of(nodes.nodes[0].store_id())))
            .await
            .unwrap();
    let mut request = ReadIndexRequest {
        context: Some(nodes.context(0, "k")),
        start_ts: after.0,
        ranges: vec![KeyRange { start_key: "a".into(), end_key: "z".into() }],
    };
    let answer = client.read_index(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.locked.expect("locked").key, "k");
    request.ranges[0].start_key = "l".into();
    let answer = client.read_index(request.clone()).await.unwrap().into_inner();
    assert!(answer.locked.is_none() && answer.region_error.is_none() && answer.read_index > 0, "{answer:?}");
    request.context = Some(nodes.context(1, "k"));
    let address = nodes.pd.address_of(nodes.nodes[1].store_id());
    let mut follower = TikvClient::connect(format!("http://{address}")).await.unwrap();
    let answer = follower.read_index(request).await.unwrap().into_inner();
    assert!(answer.region_error.expect("not its leader").not_leader.is_some());

    // It is waited for, not for ever.
    let waiting = async { value(&read(&nodes, 1, "k", Timestamp(after.0 + 10), replica).await) };
    let released = async {
        tokio::task::yield_now().await;
        drop(in_flight);
    };
    let (found, ()) = futures::future::join(waiting, released).await;
    assert_eq!(found, None);
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_reads_are_bounded_by_locks() {
    let nodes = Nodes::start(3, |config| config.resolved_ts.advance_interval = Span::ms(20)).await;
    nodes.lead("k", 0).await;
    let first = nodes.write("k", "first", nodes.timestamp().await).await;
    let old = nodes.timestamp().await;
    for i in 0..3 {
        assert_eq!(value(&read(&nodes, i, "k", first, stale).await), Some("first".into()), "node {i}");
        assert_eq!(value(&read(&nodes, i, "k", old, stale).await), Some("first".into()), "node {i}");
        let future = nodes.get(i, "k", Timestamp(u64::MAX >> 1), stale).await;
        let safe_ts = future.region_error.unwrap().data_is_not_ready.unwrap().safe_ts;
        assert!(safe_ts >= old.0);
    }
    // Two phases with time between them.
    let start_ts = nodes.timestamp().await;
    let answer = nodes.prewrite("k", |request| request.start_version = start_ts.0).await;
    assert!(answer.errors.is_empty(), "{answer:?}");
    for i in 0..3 {
        let just_before = Timestamp(start_ts.0 - 1);
        assert_eq!(value(&read(&nodes, i, "k", just_before, stale).await), Some("first".into()), "node {i}");
    }
    let now = nodes.timestamp().await;
    for i in 0..3 {
        let answer = nodes.get(i, "k", now, stale).await;
        assert!(answer.region_error.is_some_and(|e| e.data_is_not_ready.is_some()), "node {i}");
        let safe_ts = nodes.nodes[i].service().get_store_safe_ts(Default::default()).await.safe_ts;
        assert!(safe_ts < now.0, "node {i}: {safe_ts}, and a lock since before {now}");
    }
    let commit_ts = nodes.timestamp().await;
    let (leader, ctx) = nodes.wait_leader("k").await;
    let commit = CommitRequest {
        context: Some(ctx),
        start_version: start_ts.0,
        keys: vec!["k".into()],
        commit_version: commit_ts.0,
        ..Default::default()
    };
    let done = nodes.nodes[leader].service().kv_commit(commit).await;
    assert!(done.error.is_none() && done.region_error.is_none(), "{done:?}");
    for i in 0..3 {
        assert_eq!(value(&read(&nodes, i, "k", commit_ts, stale).await), Some("value".into()), "node {i}");
        assert_eq!(value(&read(&nodes, i, "k", now, stale).await), Some("first".into()), "node {i}");
        let safe_ts = nodes.nodes[i].service().get_store_safe_ts(Default::default()).await.safe_ts;
        assert!(safe_ts >= commit_ts.0, "node {i}");
    }
    nodes.shutdown().await;
}

/// What stale reads saw while everything moved is what the leader says of that time afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn stale_reads_under_load_are_never_wrong() {
    let nodes = Arc::new(Nodes::start(3, |config| config.resolved_ts.advance_interval = Span::ms(10)).await);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..3).map(|n| tokio::spawn(write_on(Arc::clone(&nodes), Arc::clone(&stop), n))).collect();
    let readers: Vec<_> =
        (0..3).map(|i| tokio::spawn(read_on(Arc::clone(&nodes), Arc::clone(&stop), i))).collect();
    // Splits and changes of leaders meanwhile.
    for (key, leader) in [("k1", 1), ("k0", 2), ("k2", 0), ("k0", 1), ("k1", 0)] {
        if leader != 2 {
            nodes.split(key).await;
        }
        nodes.lead(key, leader).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let mut served = 0;
    for reader in readers {
        let seen = reader.await.unwrap();
        assert!(!seen.is_empty(), "no stale read was served");
        served += seen.len();
        for (key, ts, found) in seen {
            let (leader, _) = nodes.wait_leader(&key).await;
            let truth = value(&read(&nodes, leader, &key, ts, |_| ()).await);
            assert_eq!(found, truth, "{key} at {ts}");
        }
    }
    println!("{served} stale reads");
    Arc::into_inner(nodes).unwrap().shutdown().await;
}

/// Writes one key again and again, in one phase or two.
async fn write_on(nodes: Arc<Nodes>, stop: Arc<AtomicBool>, n: usize) {
    let key = format!("k{n}");
    let mut round = 0;
    while !stop.load(Ordering::SeqCst) {
        round += 1;
        let (start_ts, text) = (nodes.timestamp().await, format!("{round}"));
        if round % 3 != 0 {
            nodes.write(&key, &text, start_ts).await;
            continue;
        }
        let two_phases = |request: &mut PrewriteRequest| {
            request.start_version = start_ts.0;
            request.mutations[0].value = text.clone().into();
        };
        assert!(nodes.prewrite(&key, two_phases).await.errors.is_empty());
        let commit_ts = nodes.timestamp().await;
        loop {
            let (leader, ctx) = nodes.wait_leader(&key).await;
            let commit = CommitRequest {
                context: Some(ctx),
                start_version: start_ts.0,
                keys: vec![key.clone().into()],
                commit_version: commit_ts.0,
                ..Default::default()
            };
            let done = nodes.nodes[leader].service().kv_commit(commit).await;
            assert!(done.error.is_none(), "{done:?}");
            if done.region_error.is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Stale reads at one node: what was found of which key at which time.
async fn read_on(
    nodes: Arc<Nodes>,
    stop: Arc<AtomicBool>,
    i: usize,
) -> Vec<(String, Timestamp, Option<Bytes>)> {
    let mut seen = Vec::new();
    let mut round = 0;
    let mut asked = nodes.timestamp().await;
    while !stop.load(Ordering::SeqCst) {
        round += 1;
        let key = format!("k{}", round % 3);
        let answer = nodes.get(i, &key, asked, stale).await;
        match &answer.region_error {
            // What it can serve right now is the most interesting.
            Some(e) => {
                let safe = e.data_is_not_ready.as_ref().map_or(0, |e| e.safe_ts);
                asked = if safe == 0 { nodes.timestamp().await } else { Timestamp(safe) };
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            None => {
                if answer.error.is_none() {
                    seen.push((key, asked, value(&answer)));
                }
                asked = Timestamp(asked.0 + 1);
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_without_its_leader_serves_stale_reads_only() {
    let nodes = Nodes::start(2, |config| config.resolved_ts.advance_interval = Span::ms(20)).await;
    nodes.lead("k", 0).await;
    nodes.write("k", "v", nodes.timestamp().await).await;
    let ts = nodes.timestamp().await;
    assert_eq!(value(&read(&nodes, 1, "k", ts, stale).await), Some("v".into()));
    nodes.nodes[0].shutdown().await;
    assert_eq!(value(&read(&nodes, 1, "k", ts, stale).await), Some("v".into()));
    let refused = nodes.get(1, "k", nodes.timestamp().await, replica).await;
    assert!(refused.region_error.is_some(), "{refused:?}");
    nodes.nodes[1].shutdown().await;
}
