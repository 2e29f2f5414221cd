//! Old versions go away, and nobody who reads them notices.

use crate::support::*;
use bytes::Bytes;
use rutile::playground::Playground;
use rutile_client::grpc::GrpcTransport;
use rutile_client::{
    Client, Error, KeyRange, LockOptions, StoreRequest, StoreResponse, Timestamp, Transport,
};
use rutile_proto::kvrpcpb::{Mutation, MvccGetByKeyRequest, MvccInfo, Op, PrewriteRequest};
use rutile_proto::tikvpb::tikv_client::TikvClient;

/// A playground that keeps versions for one second.
async fn forgetful() -> Playground {
    playground(|config| {
        config.sql.gc_life_time_seconds = 1;
        config.kv.gc.poll_interval = "50ms".parse().unwrap();
    })
    .await
}

/// Everything the store has under a key.
async fn versions(playground: &Playground, key: &Bytes) -> MvccInfo {
    let (region, _) = playground.client().regions(&KeyRange::point(key)).await.unwrap().swap_remove(0);
    let mut store = TikvClient::connect(format!("http://{}", playground.addresses().kv[0])).await.unwrap();
    let request = MvccGetByKeyRequest { context: Some(region.context()), key: key.clone() };
    let answer = store.mvcc_get_by_key(request).await.unwrap().into_inner();
    assert!(answer.error.is_empty() && answer.region_error.is_none(), "{answer:?}");
    answer.info.unwrap_or_default()
}

async fn safe_point(client: &Client) -> Timestamp {
    client.pd().gc_safe_point().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_go_away_and_reads_of_them_are_refused() {
    let playground = forgetful().await;
    let client = playground.client();
    let (kept, removed) = (key("kept", 0), key("removed", 0));
    let old = grpc_client(&playground).await;
    write(&client, optimistic(), &[kept.clone(), removed.clone()], "first").await.unwrap();
    let early = client.timestamp().await.unwrap();
    for i in 0..20 {
        write(&client, optimistic(), &[kept.clone(), removed.clone()], &"long ".repeat(i * 10))
            .await
            .unwrap();
    }
    client.split_region(&removed).await.unwrap();
    let txn = client.begin(optimistic()).await.unwrap();
    txn.delete(removed.clone()).unwrap();
    txn.commit().await.unwrap();
    until("all versions but the newest are gone", || async {
        let (kept, removed) = (versions(&playground, &kept).await, versions(&playground, &removed).await);
        kept.writes.len() == 1
            && kept.values.len() == 1
            && removed.writes.is_empty()
            && removed.values.is_empty()
    })
    .await;
    assert_eq!(read(&client, &kept).await, Some("long ".repeat(190)));
    assert_eq!(read(&client, &removed).await, None);
    // A client of another process, which told nobody that it reads there.
    let view = old.snapshot(early);
    let refused = view.get(&kept).await;
    assert!(
        matches!(&refused, Err(Error::Aborted { message, .. }) if message.contains("safe point")),
        "{refused:?}"
    );
    assert!(view.batch_get(vec![kept.clone(), removed.clone()]).await.is_err());
    assert!(view.scan(KeyRange::default(), Default::default()).collect().await.is_err());
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_transactions_and_snapshots_hold_the_safe_point_back() {
    let playground = forgetful().await;
    let client = playground.client();
    let k = key("held", 0);
    write(&client, optimistic(), std::slice::from_ref(&k), "old").await.unwrap();
    let txn = client.begin(optimistic()).await.unwrap();
    let held = txn.start_ts().await.unwrap();
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    write(&client, optimistic(), std::slice::from_ref(&k), "new").await.unwrap();
    until("the safe point reaches the transaction", || async { safe_point(&client).await == held }).await;
    let later = client.timestamp().await.unwrap();
    until("two seconds of timestamp time", || async {
        client.timestamp().await.unwrap().physical_ms() > later.physical_ms() + 2000
    })
    .await;
    assert_eq!(safe_point(&client).await, held);
    assert_eq!(txn.get(&k).await.unwrap().as_deref(), Some(&b"old"[..]));
    txn.rollback().await.unwrap();
    until("the safe point reaches the snapshot", || async { safe_point(&client).await == snapshot.ts() })
        .await;
    assert_eq!(snapshot.get(&k).await.unwrap().as_deref(), Some(&b"old"[..]));
    drop(snapshot);
    until("one version is left", || async { versions(&playground, &k).await.writes.len() == 1 }).await;
    assert_eq!(read(&client, &k).await.as_deref(), Some("new"));
    playground.shutdown().await;
}

/// Another process's transaction is known by its locks alone: as long as it keeps them alive, it is not in the way.
#[tokio::test(flavor = "multi_thread")]
async fn living_locks_hold_the_safe_point_back_and_dead_ones_are_finished() {
    let playground = forgetful().await;
    let (client, other) = (playground.client(), grpc_client(&playground).await);
    let (alive, dead) = (key("alive", 0), key("dead", 0));
    let txn = other.begin(pessimistic()).await.unwrap();
    txn.lock_keys(vec![alive.clone()], LockOptions::default()).await.unwrap();
    let start_ts = txn.start_ts().await.unwrap();
    prewrite_and_vanish(&playground, &other, &dead).await;
    assert!(versions(&playground, &dead).await.lock.is_some());
    until("the lock of a dead transaction is finished by nobody but the collector", || async {
        versions(&playground, &dead).await.lock.is_none()
    })
    .await;
    let later = client.timestamp().await.unwrap();
    until("three seconds of timestamp time", || async {
        client.timestamp().await.unwrap().physical_ms() > later.physical_ms() + 3000
    })
    .await;
    assert!(safe_point(&client).await < start_ts);
    txn.put(alive.clone(), "committed").unwrap();
    txn.commit().await.unwrap();
    until("the safe point passes it", || async { safe_point(&client).await > start_ts }).await;
    assert_eq!(read(&client, &alive).await.as_deref(), Some("committed"));
    assert_eq!(read(&client, &dead).await, None);
    playground.shutdown().await;
}

async fn prewrite_and_vanish(playground: &Playground, client: &Client, key: &Bytes) {
    let transport = GrpcTransport::connect(&[playground.addresses().pd.to_string()]).await.unwrap();
    let (region, _) = client.regions(&KeyRange::point(key)).await.unwrap().swap_remove(0);
    let request = PrewriteRequest {
        context: Some(region.context()),
        mutations: vec![Mutation {
            op: Op::Put as i32,
            key: key.clone(),
            value: "x".into(),
            ..Default::default()
        }],
        primary_lock: key.clone(),
        start_version: client.timestamp().await.unwrap().0,
        lock_ttl: 10,
        ..Default::default()
    };
    let answer =
        transport.store(region.leader_store().unwrap(), StoreRequest::Prewrite(request)).await.unwrap();
    assert!(matches!(answer, StoreResponse::Prewrite(answer) if answer.errors.is_empty()));
}

/// Writers, readers at their snapshots, and splits, while versions are removed all the time.
#[tokio::test(flavor = "multi_thread")]
async fn readers_never_miss_a_version() {
    let playground = forgetful().await;
    let client = playground.client();
    let keys: Vec<Bytes> = (0..50).map(|i| key("busy", i)).collect();
    write(&client, optimistic(), &keys, "0").await.unwrap();
    let begun = client.timestamp().await.unwrap().physical_ms();
    let mut round = 0;
    while client.timestamp().await.unwrap().physical_ms() < begun + 6000 {
        round += 1;
        let reader = client.begin(optimistic()).await.unwrap();
        let before = reader.batch_get(keys.clone()).await.unwrap();
        for n in 0..10 {
            write(&client, optimistic(), &keys, &format!("{round} {n}")).await.unwrap();
        }
        if round <= 20 {
            client.split_region(&keys[round * 2]).await.unwrap();
        }
        assert_eq!(reader.batch_get(keys.clone()).await.unwrap(), before);
        assert_eq!(before.len(), keys.len());
    }
    until("the history is gone", || async { versions(&playground, &keys[3]).await.writes.len() == 1 }).await;
    playground.shutdown().await;
}
