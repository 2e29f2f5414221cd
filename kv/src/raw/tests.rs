//! Raw commands over one region without replication.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rutile_proto::kvrpcpb::*;

use super::{Error, RawStore};
use crate::txn::test_kv::TestKv;

fn b(s: &str) -> Bytes {
    Bytes::copy_from_slice(s.as_bytes())
}

fn ctx(api: ApiVersion) -> Context {
    Context { api_version: api as i32, ..Default::default() }
}

fn store() -> (RawStore, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(1000));
    let clock = now.clone();
    (RawStore::new(TestKv::new()).with_clock(Arc::new(move || clock.load(Ordering::SeqCst))), now)
}

fn keys(pairs: &[KvPair]) -> Vec<&str> {
    pairs.iter().map(|p| std::str::from_utf8(&p.key).unwrap()).collect()
}

#[tokio::test]
async fn put_get_delete_by_family() {
    let (raw, _) = store();
    let v1 = ctx(ApiVersion::V1);
    raw.put(&v1, "", [(b("k"), b("d"), 0)], false).await.unwrap();
    raw.put(&v1, "lock", [(b("k"), b("l"), 0)], false).await.unwrap();
    assert_eq!(raw.get(&v1, "default", &b("k")).await.unwrap().unwrap().value, b("d"));
    assert_eq!(raw.get(&v1, "lock", &b("k")).await.unwrap().unwrap().value, b("l"));
    raw.delete(&v1, "", &[b("k")], false).await.unwrap();
    assert!(raw.get(&v1, "", &b("k")).await.unwrap().is_none());
    assert!(matches!(raw.get(&v1, "raft", &b("k")).await, Err(Error::InvalidRequest(_))));
    assert!(matches!(raw.put(&v1, "", [(b("k"), b("d"), 9)], false).await, Err(Error::InvalidRequest(_))));
    raw.put(&v1, "", ["x", "y", "z"].map(|k| (b(k), b(""), 0)), false).await.unwrap();
    let found = raw.batch_get(&v1, "", &[b("z"), b("q"), b("x")]).await.unwrap();
    assert_eq!(keys(&found), ["z", "x"]);
    raw.delete_range(&v1, "", b"y", b"").await.unwrap();
    assert_eq!(raw.batch_get(&v1, "", &[b("x"), b("y"), b("z")]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn expired_keys_are_invisible_everywhere() {
    for api in [ApiVersion::V1ttl, ApiVersion::V2] {
        let (raw, now) = store();
        let ctx = ctx(api);
        raw.put(&ctx, "", [(b("r1"), b("v"), 10), (b("r2"), b("v"), 0)], false).await.unwrap();
        assert_eq!(raw.get(&ctx, "", &b("r1")).await.unwrap().unwrap().expires_at, Some(1010));
        let scan = RawScanRequest { context: Some(ctx.clone()), limit: 10, ..Default::default() };
        assert_eq!(keys(&raw.scan(&scan).await.unwrap()), ["r1", "r2"]);
        now.store(1010, Ordering::SeqCst);
        assert!(raw.get(&ctx, "", &b("r1")).await.unwrap().is_none());
        assert_eq!(keys(&raw.scan(&scan).await.unwrap()), ["r2"]);
        let cas = RawCasRequest {
            context: Some(ctx.clone()),
            key: b("r1"),
            value: b("w"),
            previous_not_exist: true,
            ..Default::default()
        };
        assert_eq!(raw.compare_and_swap(&cas).await.unwrap(), (true, None));
        assert_eq!(raw.compare_and_swap(&cas).await.unwrap(), (false, Some(b("w"))));
    }
}

#[tokio::test]
async fn compare_and_swap_can_delete() {
    let (raw, _) = store();
    let mut cas =
        RawCasRequest { key: b("k"), value: b("1"), previous_not_exist: true, ..Default::default() };
    assert_eq!(raw.compare_and_swap(&cas).await.unwrap(), (true, None));
    (cas.previous_not_exist, cas.previous_value, cas.delete) = (false, b("0"), true);
    assert_eq!(raw.compare_and_swap(&cas).await.unwrap(), (false, Some(b("1"))));
    cas.previous_value = b("1");
    assert_eq!(raw.compare_and_swap(&cas).await.unwrap(), (true, Some(b("1"))));
    assert_eq!(raw.compare_and_swap(&cas).await.unwrap(), (false, None));
}

#[tokio::test]
async fn scans_and_checksums() {
    let (raw, _) = store();
    let v1 = ctx(ApiVersion::V1);
    raw.put(&v1, "", ["a", "b", "c", "d"].map(|k| (b(k), b(k), 0)), true).await.unwrap();
    let scan = |start: &str, end: &str, limit, reverse| RawScanRequest {
        start_key: b(start),
        end_key: b(end),
        limit,
        reverse,
        ..Default::default()
    };
    assert_eq!(keys(&raw.scan(&scan("b", "d", 9, false)).await.unwrap()), ["b", "c"]);
    assert_eq!(keys(&raw.scan(&scan("d", "b", 9, true)).await.unwrap()), ["c", "b"]);
    assert_eq!(keys(&raw.scan(&scan("", "", 3, true)).await.unwrap()), ["d", "c", "b"]);
    let range = |start: &str, end: &str| KeyRange { start_key: b(start), end_key: b(end) };
    let batch = RawBatchScanRequest {
        ranges: vec![range("a", ""), range("b", "c"), range("c", "")],
        each_limit: 5,
        ..Default::default()
    };
    assert_eq!(keys(&raw.batch_scan(&batch).await.unwrap()), ["a", "b", "c", "d"]);
    let whole = |ranges| RawChecksumRequest { ranges, ..Default::default() };
    let (all, kvs, bytes) = raw.checksum(&whole(vec![range("", "")])).await.unwrap();
    assert_eq!((kvs, bytes), (4, 8));
    let (one, ..) = raw.checksum(&whole(vec![range("", "b")])).await.unwrap();
    let (rest, ..) = raw.checksum(&whole(vec![range("b", "")])).await.unwrap();
    assert_eq!(all, one ^ rest);
}
