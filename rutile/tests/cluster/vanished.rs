//! Locks of clients that vanished in the middle of a commit: whoever meets them finds the right verdict, over both
//! transports. The vanished client is played by single requests.

use std::sync::Arc;

use crate::support::*;
use bytes::Bytes;
use rutile_client::grpc::GrpcTransport;
use rutile_client::{
    Client, Error, KeyRange, LockOptions, LockWait, StoreRequest, StoreResponse, Timestamp, Transport,
};
use rutile_proto::kvrpcpb::{
    CommitRequest, Context, KeyError, Mutation, Op, PessimisticLockRequest, PrewriteRequest, PrewriteResponse,
};

/// Long enough to be seen alive, short enough to wait for.
const TTL_MS: u64 = 300;

/// A client that stops half-way.
struct Vanishing {
    client: Client,
    transport: Arc<GrpcTransport>,
    start_ts: Timestamp,
    primary: Bytes,
    /// All keys of the transaction but the primary.
    secondaries: Vec<Bytes>,
    async_commit: bool,
}

impl Vanishing {
    async fn begin(playground: &rutile::playground::Playground, keys: &[Bytes], async_commit: bool) -> Self {
        let client = grpc_client(playground).await;
        let transport = GrpcTransport::connect(&[playground.addresses().pd.to_string()]).await.unwrap();
        let start_ts = client.timestamp().await.unwrap();
        let (primary, secondaries) = (keys[0].clone(), keys[1..].to_vec());
        Vanishing { client, transport, start_ts, primary, secondaries, async_commit }
    }

    async fn send(&self, key: &Bytes, request: impl FnOnce(Context) -> StoreRequest) -> StoreResponse {
        let (region, _) = self.client.regions(&KeyRange::point(key)).await.unwrap().swap_remove(0);
        let store = region.leader_store().unwrap();
        self.transport.store(store, request(region.context())).await.unwrap()
    }

    async fn prewrite(&self, key: &Bytes) -> PrewriteResponse {
        let is_primary = *key == self.primary;
        let request = |context| {
            StoreRequest::Prewrite(PrewriteRequest {
                context: Some(context),
                mutations: vec![Mutation {
                    op: Op::Put as i32,
                    key: key.clone(),
                    value: "new".into(),
                    ..Default::default()
                }],
                primary_lock: self.primary.clone(),
                start_version: self.start_ts.0,
                lock_ttl: TTL_MS,
                txn_size: 1,
                min_commit_ts: self.start_ts.0 + 1,
                use_async_commit: self.async_commit,
                secondaries: if is_primary { self.secondaries.clone() } else { Vec::new() },
                ..Default::default()
            })
        };
        match self.send(key, request).await {
            StoreResponse::Prewrite(answer) => {
                assert!(answer.region_error.is_none(), "{answer:?}");
                answer
            }
            other => panic!("{other:?}"),
        }
    }

    async fn prewrite_all<'a>(&self, keys: impl IntoIterator<Item = &'a Bytes>) -> u64 {
        let mut min_commit_ts = 0;
        for key in keys {
            let answer = self.prewrite(key).await;
            assert!(answer.errors.is_empty(), "{answer:?}");
            assert_eq!(answer.min_commit_ts > 0, self.async_commit);
            min_commit_ts = min_commit_ts.max(answer.min_commit_ts);
        }
        min_commit_ts
    }

    async fn commit(&self, key: &Bytes, commit_ts: Timestamp) -> Option<KeyError> {
        let request = |context| {
            StoreRequest::Commit(CommitRequest {
                context: Some(context),
                start_version: self.start_ts.0,
                commit_version: commit_ts.0,
                keys: vec![key.clone()],
                ..Default::default()
            })
        };
        match self.send(key, request).await {
            StoreResponse::Commit(answer) => answer.error,
            other => panic!("{other:?}"),
        }
    }

    async fn lock(&self, key: &Bytes) {
        let request = |context| {
            StoreRequest::PessimisticLock(PessimisticLockRequest {
                context: Some(context),
                mutations: vec![Mutation {
                    op: Op::PessimisticLock as i32,
                    key: key.clone(),
                    ..Default::default()
                }],
                primary_lock: self.primary.clone(),
                start_version: self.start_ts.0,
                for_update_ts: self.start_ts.0,
                lock_ttl: TTL_MS,
                wait_timeout: -1,
                ..Default::default()
            })
        };
        match self.send(key, request).await {
            StoreResponse::PessimisticLock(answer) => {
                assert!(answer.errors.is_empty() && answer.region_error.is_none(), "{answer:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Four keys in four regions, all with the value "old".
async fn four_regions(client: &Client, name: &str) -> Vec<Bytes> {
    let keys: Vec<Bytes> = (0..4).map(|i| key(name, i)).collect();
    for k in &keys[1..] {
        client.split_region(k).await.unwrap();
    }
    write(client, optimistic(), &keys, "old").await.unwrap();
    // Once it has been read none of its locks is left.
    expect_all(client, &keys, "old", name).await;
    keys
}

async fn expect(client: &Client, keys: &[Bytes], value: &str, case: &str) {
    // The secondaries first: their fate must be found through the primary.
    for k in keys.iter().rev() {
        assert_eq!(read(client, k).await.as_deref(), Some(value), "{case}: {k:?}");
    }
    // Nothing is in the way of the next writer.
    write(client, pessimistic(), keys, "next").await.unwrap();
    expect_all(client, keys, "next", case).await;
}

async fn expect_all(client: &Client, keys: &[Bytes], value: &str, case: &str) {
    let view = client.snapshot(client.timestamp().await.unwrap());
    let found = view.batch_get(keys.to_vec()).await.unwrap();
    assert!(found.len() == keys.len() && found.values().all(|v| v == value), "{case}: {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_phases_before_the_primary_is_committed() {
    let playground = playground(|_| ()).await;
    for (transport, client) in clients(&playground).await {
        let keys = four_regions(&client, transport).await;
        let gone = Vanishing::begin(&playground, &keys, false).await;
        gone.prewrite_all(&keys).await;
        expect(&client, &keys, "old", transport).await;
        // It was only slow: too late.
        let late = gone.commit(&keys[0], client.timestamp().await.unwrap()).await;
        assert!(late.is_some_and(|e| e.txn_lock_not_found.is_some()), "{transport}");
        expect_all(&client, &keys, "next", transport).await;
    }
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_phases_after_the_primary_is_committed() {
    let playground = playground(|_| ()).await;
    for (transport, client) in clients(&playground).await {
        let keys = four_regions(&client, transport).await;
        let before = client.timestamp().await.unwrap();
        let gone = Vanishing::begin(&playground, &keys, false).await;
        gone.prewrite_all(&keys).await;
        let commit_ts = client.timestamp().await.unwrap();
        assert_eq!(gone.commit(&keys[0], commit_ts).await, None);
        // At once: there is nothing to wait for.
        for k in keys.iter().rev() {
            assert_eq!(client.snapshot(before).get(k).await.unwrap().as_deref(), Some(&b"old"[..]));
        }
        expect(&client, &keys, "new", transport).await;
        // A slow second phase does no harm.
        assert_eq!(gone.commit(&keys[2], commit_ts).await, None);
        expect_all(&client, &keys, "next", transport).await;
    }
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn async_commit_after_all_keys_are_prewritten() {
    let playground = playground(|_| ()).await;
    for (transport, client) in clients(&playground).await {
        let keys = four_regions(&client, transport).await;
        let gone = Vanishing::begin(&playground, &keys, true).await;
        let commit_ts = Timestamp(gone.prewrite_all(&keys).await);
        // Committed, though nobody has said so: every reader from now on sees it.
        expect(&client, &keys, "new", transport).await;
        let earlier = client.snapshot(Timestamp(commit_ts.0 - 1));
        let exactly = client.snapshot(commit_ts);
        for k in &keys {
            assert_eq!(earlier.get(k).await.unwrap().as_deref(), Some(&b"old"[..]), "{transport}");
            assert_eq!(exactly.get(k).await.unwrap().as_deref(), Some(&b"new"[..]), "{transport}");
        }
        assert_eq!(gone.commit(&keys[0], commit_ts).await, None, "its own commit finds it done");
    }
    playground.shutdown().await;
}

/// One key is missing, each of the four in its turn: rolled back, and the missing key can never be prewritten.
#[tokio::test(flavor = "multi_thread")]
async fn async_commit_before_all_keys_are_prewritten() {
    let playground = playground(|_| ()).await;
    for (transport, client) in clients(&playground).await {
        for missing in 0..4 {
            let case = format!("{transport}, without key {missing}");
            let keys = four_regions(&client, &case).await;
            let gone = Vanishing::begin(&playground, &keys, true).await;
            gone.prewrite_all(keys.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, k)| k)).await;
            for k in keys.iter().rev() {
                assert_eq!(read(&client, k).await.as_deref(), Some("old"), "{case}");
            }
            let late = gone.prewrite(&keys[missing]).await;
            assert!(late.errors.iter().any(|e| e.conflict.is_some()), "{case}: {late:?}");
            expect(&client, &keys, "old", &case).await;
        }
    }
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pessimistic_locks_expire() {
    let playground = playground(|_| ()).await;
    for (transport, client) in clients(&playground).await {
        let keys = four_regions(&client, transport).await;
        let gone = Vanishing::begin(&playground, &keys, false).await;
        for k in &keys {
            gone.lock(k).await;
        }
        let txn = client.begin(pessimistic()).await.unwrap();
        let no_wait = LockOptions { wait: LockWait::NoWait, ..LockOptions::default() };
        let refused = txn.lock_keys(keys.clone(), no_wait).await;
        assert!(matches!(refused, Err(Error::LockNoWait { .. })), "{transport}: {refused:?}");
        txn.lock_keys(keys.clone(), LockOptions::default()).await.unwrap();
        txn.rollback().await.unwrap();
        expect(&client, &keys, "old", transport).await;
    }
    playground.shutdown().await;
}
