//! Three stores in one process: reads of followers and of the past, deadlocks over stores.

use std::time::Duration;

use crate::support::*;
use bytes::Bytes;
use rutile::playground::Playground;
use rutile_client::{Client, Error, KeyRange, LockOptions, ReadFrom, ScanOptions, Timestamp, TxnOptions};
use rutile_kv::config::Span;
use rutile_proto::metapb::PeerRole;

/// Regions with three replicas each.
async fn three_stores() -> Playground {
    let playground = playground(|config| {
        config.stores = 3;
        config.kv.resolved_ts.advance_interval = Span::ms(50);
        config.kv.raft.region_heartbeat_interval = Span::ms(500);
        config.kv.raft.store_heartbeat_interval = Span::ms(500);
    })
    .await;
    until("all regions have three replicas", || async {
        let client = grpc_client(&playground).await;
        let regions = client.regions(&KeyRange::default()).await.unwrap();
        regions.iter().all(|(region, _)| {
            let peers = region.peers();
            peers.len() == 3 && peers.iter().all(|peer| peer.role() == PeerRole::Voter)
        })
    })
    .await;
    playground
}

/// Hands the leadership of a key's region to another store than `not`, and tells to which.
async fn led_elsewhere(playground: &Playground, key: &Bytes, not: Option<u64>) -> u64 {
    let operators = format!("http://{}/pd/api/v1/operators", playground.addresses().pd);
    let begun = std::time::Instant::now();
    loop {
        let client = grpc_client(playground).await;
        let (region, _) = client.regions(&KeyRange::point(key)).await.unwrap().swap_remove(0);
        let leader = region.leader().store_id;
        if Some(leader) != not {
            return leader;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the region of {key:?} stays where it is");
        let to = region.peers().iter().find(|peer| peer.store_id != leader).unwrap().store_id;
        let body =
            format!(r#"{{"name": "transfer-leader", "region_id": {}, "to_store_id": {to}}}"#, region.id());
        post(&operators, &body).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The store that leads a key's region, as the placement driver knows it.
async fn leader_of(playground: &Playground, key: &Bytes) -> u64 {
    let client = grpc_client(playground).await;
    client.regions(&KeyRange::point(key)).await.unwrap()[0].0.leader().store_id
}

/// Two transactions that have locked a key each lock the other's; what came of it.
async fn cross(
    client: &Client,
    a: &Bytes,
    b: &Bytes,
) -> (rutile_client::Result<()>, rutile_client::Result<()>) {
    let (first, second) =
        (client.begin(pessimistic()).await.unwrap(), client.begin(pessimistic()).await.unwrap());
    let lock = LockOptions::default();
    first.lock_keys(vec![a.clone()], lock).await.unwrap();
    second.lock_keys(vec![b.clone()], lock).await.unwrap();
    let wants = |txn: rutile_client::Transaction, key: Bytes| async move {
        let result = txn.lock_keys(vec![key], lock).await.map(drop);
        // The other one goes on.
        txn.rollback().await.unwrap();
        result
    };
    tokio::join!(wants(first, b.clone()), wants(second, a.clone()))
}

async fn post(url: &str, body: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let request = format!(
        "POST /{path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    // An operator that is there already is as good.
    stream.read_to_end(&mut Vec::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_every_kind_see_what_was_committed() {
    let playground = three_stores().await;
    for (transport, client) in clients(&playground).await {
        let keys: Vec<Bytes> = (0..30).map(|i| key(transport, i)).collect();
        client.split_region(&keys[10]).await.unwrap();
        client.split_region(&keys[20]).await.unwrap();
        let mut old: Option<(Timestamp, String)> = None;
        for round in 0..10 {
            let value = format!("v{round}");
            write(&client, optimistic(), &keys, &value).await.unwrap();
            let now = client.timestamp().await.unwrap();
            for from in [ReadFrom::Follower, ReadFrom::Any, ReadFrom::Stale, ReadFrom::Leader] {
                let case = format!("{transport}, {from:?}, round {round}");
                expect(&client, now, from, &keys, &value, &case).await;
                if let Some((ts, value)) = &old {
                    expect(&client, *ts, from, &keys, value, &case).await;
                }
                let txn = client.begin(TxnOptions { read_from: from, ..pessimistic() }).await.unwrap();
                txn.put(keys[3].clone(), "own").unwrap();
                assert_eq!(txn.get(&keys[3]).await.unwrap().as_deref(), Some(&b"own"[..]), "{case}");
                assert_eq!(txn.get(&keys[4]).await.unwrap().as_deref(), Some(value.as_bytes()), "{case}");
                txn.rollback().await.unwrap();
            }
            old = Some((now, value));
        }
    }
    playground.shutdown().await;
}

async fn expect(client: &Client, ts: Timestamp, from: ReadFrom, keys: &[Bytes], value: &str, case: &str) {
    let view = client.snapshot(ts).read_from(from);
    assert_eq!(view.get(&keys[0]).await.unwrap().as_deref(), Some(value.as_bytes()), "{case}");
    let found = view.batch_get(keys.to_vec()).await.unwrap();
    assert!(found.len() == keys.len() && found.values().all(|v| v == value), "{case}: {found:?}");
    let range = KeyRange::new(keys[0].clone(), Bytes::from([&keys[29][..], b"~"].concat()));
    for reverse in [false, true] {
        let options = ScanOptions { reverse, ..ScanOptions::default() };
        let scanned = view.scan(range.clone(), options).collect().await.unwrap();
        assert!(
            scanned.len() == keys.len() && scanned.iter().all(|p| p.value == value),
            "{case}: {scanned:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_over_two_stores_is_told_to_one() {
    let playground = three_stores().await;
    for (transport, client) in clients(&playground).await {
        let (a, b) = (key(transport, 1), key(transport, 2));
        client.split_region(&a).await.unwrap();
        client.split_region(&b).await.unwrap();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let first_store = led_elsewhere(&playground, &a, None).await;
            let second_store = led_elsewhere(&playground, &b, Some(first_store)).await;
            let begun = std::time::Instant::now();
            let results = cross(&client, &a, &b).await;
            let told = [&results.0, &results.1].into_iter();
            let told = told.filter(|r| matches!(r, Err(Error::Deadlock { .. }))).count();
            assert!(results.0.is_ok() || results.1.is_ok(), "{transport}: {results:?}");
            if told == 1 {
                println!("{transport}: told after {:?}", begun.elapsed());
                break;
            }
            // Locks in memory are lost with the leadership.
            let now = (leader_of(&playground, &a).await, leader_of(&playground, &b).await);
            let moved = now != (first_store, second_store);
            assert!(moved && attempt < 10, "{transport}: {results:?}");
        }
    }
    playground.shutdown().await;
}
