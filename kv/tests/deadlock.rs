//! Deadlocks over several stores: one transaction of the circle is told at once, and nobody without one.

mod support;

use std::time::{Duration, Instant};

use rutile_kv::config::Span;
use rutile_kv::metrics;
use rutile_kv::txn::deadlock::key_hash;
use rutile_proto::deadlock::deadlock_client::DeadlockClient;
use rutile_proto::deadlock::{DeadlockRequest, WaitForEntriesRequest};
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{KeyError, PessimisticRollbackRequest, WaitForEntry};
use support::nodes::{Nodes, lock_request};

/// Three regions, from "", "b" and "c" on, led by one node each.
async fn three_regions() -> Nodes {
    let nodes = Nodes::start(3, |config| config.resolved_ts.advance_interval = Span::ms(0)).await;
    for (i, key) in ["a", "b", "c"].into_iter().enumerate() {
        if i > 0 {
            nodes.split(key).await;
        }
        nodes.lead(key, i).await;
    }
    nodes
}

/// Locks a key, waiting for it as a client does: as often as the store's patience ends.
async fn lock(nodes: &Nodes, key: &str, txn: Timestamp) -> Result<(), KeyError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "{txn} waits for {key} in vain");
        let (leader, ctx) = nodes.wait_leader(key).await;
        let answer = nodes.nodes[leader].service().kv_pessimistic_lock(lock_request(&ctx, key, txn)).await;
        match answer.errors.into_iter().next() {
            Some(error) if error.locked.is_some() => {}
            Some(error) => return Err(error),
            None if answer.region_error.is_none() => return Ok(()),
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn unlock(nodes: &Nodes, key: &str, txn: Timestamp) {
    let (leader, ctx) = nodes.wait_leader(key).await;
    let request = PessimisticRollbackRequest {
        context: Some(ctx),
        start_version: txn.0,
        for_update_ts: u64::MAX,
        keys: vec![key.to_owned().into()],
    };
    let answer = nodes.nodes[leader].service().kv_pessimistic_rollback(request).await;
    assert!(answer.errors.is_empty() && answer.region_error.is_none(), "{answer:?}");
}

/// Each of the transactions holds its key and asks for the next one's. One is told; it gives up, and the others go on.
async fn circle(nodes: &Nodes, keys: &[&str]) {
    let mut txns = Vec::new();
    for key in keys {
        let txn = nodes.timestamp().await;
        lock(nodes, key, txn).await.unwrap();
        txns.push(txn);
    }
    let begun = Instant::now();
    let wants = (0..keys.len()).map(|i| {
        let (txn, next) = (txns[i], keys[(i + 1) % keys.len()]);
        let (own, txns) = (keys[i], &txns);
        async move {
            let result = lock(nodes, next, txn).await;
            let told = result.is_err();
            if let Err(error) = result {
                let deadlock = error.deadlock.unwrap_or_else(|| panic!("no deadlock: {}", error.abort));
                assert_eq!(&deadlock.lock_key[..], next.as_bytes());
                assert_eq!(deadlock.lock_ts, txns[(i + 1) % txns.len()].0);
                // What it holds itself closes the circle.
                assert_eq!(&deadlock.deadlock_key[..], own.as_bytes());
                assert_eq!(deadlock.deadlock_key_hash, key_hash(own.as_bytes()));
                let mut waiting: Vec<u64> = deadlock.wait_chain.iter().map(|e| e.txn).collect();
                assert_eq!(waiting.last(), Some(&txn.0));
                waiting.sort_unstable();
                assert_eq!(waiting, txns.iter().map(|ts| ts.0).collect::<Vec<_>>());
                unlock(nodes, own, txn).await;
                return (told, begun.elapsed());
            }
            unlock(nodes, own, txn).await;
            unlock(nodes, next, txn).await;
            (told, begun.elapsed())
        }
    });
    let results = futures::future::join_all(wants).await;
    let told: Vec<_> = results.iter().filter(|(told, _)| *told).collect();
    assert_eq!(told.len(), 1, "one of {} is told", keys.len());
    println!("a circle of {}: told after {:?}", keys.len(), told[0].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_over_stores_ends_before_and_after_the_detector_moved() {
    let nodes = three_regions().await;
    circle(&nodes, &["a1", "b1"]).await;
    circle(&nodes, &["b2", "c2"]).await;
    circle(&nodes, &["a3", "b3", "c3"]).await;
    // Another store leads the first region: it knows nothing yet.
    nodes.lead("a", 2).await;
    circle(&nodes, &["b4", "c4"]).await;
    circle(&nodes, &["a5", "b5", "c5"]).await;
    nodes.shutdown().await;
}

/// The detector goes away while one of the waits is known to it alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_detector_is_told_of_old_waits() {
    let nodes = three_regions().await;
    let (first, second) = (nodes.timestamp().await, nodes.timestamp().await);
    lock(&nodes, "b1", first).await.unwrap();
    lock(&nodes, "c1", second).await.unwrap();
    let waits = lock(&nodes, "c1", first);
    let closes = async {
        // The first wait is at the old detector by now.
        let waiting = || nodes.nodes[2].service().scheduler().lock_wait().waiting() == 1;
        support::cluster::wait_until("the first one waits", waiting).await;
        nodes.lead("a", 1).await;
        lock(&nodes, "b1", second).await
    };
    let (waits, closes) = futures::future::join(
        async {
            let result = waits.await;
            unlock(&nodes, "b1", first).await;
            result
        },
        async {
            let result = closes.await;
            unlock(&nodes, "c1", second).await;
            result
        },
    )
    .await;
    let told = [&waits, &closes].into_iter().filter(|r| r.as_ref().is_err_and(|e| e.deadlock.is_some()));
    assert_eq!(told.count(), 1, "{waits:?} {closes:?}");
    nodes.shutdown().await;
}

/// What the detector believes does not abort anybody when it is not so.
#[tokio::test(flavor = "multi_thread")]
async fn a_circle_that_is_not_there_aborts_nobody() {
    let nodes = three_regions().await;
    let (first, second) = (nodes.timestamp().await, nodes.timestamp().await);
    lock(&nodes, "b1", first).await.unwrap();
    // Somebody told the detector of a wait that has ended.
    let address = nodes.pd.address_of(nodes.nodes[0].store_id());
    let mut client = DeadlockClient::connect(format!("http://{address}")).await.unwrap();
    let wait = WaitForEntry { txn: first.0, wait_for_txn: second.0, key: "c1".into(), ..Default::default() };
    let told = futures::stream::iter([DeadlockRequest { entry: Some(wait), ..Default::default() }]);
    let stays_open = futures::StreamExt::chain(told, futures::stream::pending());
    let answers = client.detect(stays_open).await.unwrap();

    let before = metrics::DEADLOCKS_REFUTED.get();
    let waits = lock(&nodes, "b1", second);
    let frees = async {
        let node = &nodes.nodes[1];
        support::cluster::wait_until("it waits", || node.service().scheduler().lock_wait().waiting() == 1)
            .await;
        let known = client.get_wait_for_entries(WaitForEntriesRequest {}).await.unwrap().into_inner();
        assert_eq!(known.entries, [], "the wait is not at node 0");
        let refuted = || metrics::DEADLOCKS_REFUTED.get() > before;
        support::cluster::wait_until("the circle is not confirmed", refuted).await;
        unlock(&nodes, "b1", first).await;
    };
    let (waits, ()) = futures::future::join(waits, frees).await;
    waits.unwrap();
    drop(answers);
    nodes.shutdown().await;
}
