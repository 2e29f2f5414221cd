//! Prewrite, commit and rollback of optimistic transactions, and reads around them.

use rutile_proto::kvrpcpb::write_conflict::Reason;
use rutile_proto::kvrpcpb::*;

use super::{Script, b, mutation, prewrite_request, put};
use crate::engine::Cf;

#[tokio::test]
async fn versions_become_visible_at_their_commit() {
    let s = Script::new();
    let long = "x".repeat(300);
    s.write(10, 20, vec![put("a", "1"), put("b", &long)]).await;
    s.write(30, 40, vec![mutation(Op::Del, "a", ""), put("b", "short")]).await;
    s.expect("a", 19, None).await;
    s.expect("a", 20, Some("1")).await;
    s.expect("a", 39, Some("1")).await;
    s.expect("a", 40, None).await;
    s.expect("b", 39, Some(&long)).await;
    s.expect("b", u64::MAX, Some("short")).await;
    assert_eq!(s.kv.count(Cf::Lock), 0);
    assert_eq!(s.kv.count(Cf::Default), 1);
}

#[tokio::test]
async fn locks_block_readers_above_their_start() {
    let s = Script::new();
    s.write(10, 20, vec![put("a", "1"), put("b", "1")]).await;
    s.prewrite(prewrite_request(30, vec![put("a", "2"), put("b", "2")])).await.unwrap();
    s.expect("b", 29, Some("1")).await;
    let locked = s.get("b", 30).await.unwrap_err().locked.unwrap();
    assert_eq!((locked.lock_version, &locked.primary_lock, &locked.key), (30, &b("a"), &b("b")));
    assert_eq!((locked.lock_ttl, locked.txn_size, locked.lock_type()), (10, 1, Op::Put));
    // A latest read may ignore an undecided primary, not a secondary.
    s.expect("a", u64::MAX, Some("1")).await;
    assert!(s.get("b", u64::MAX).await.is_err());
    let ctx = |resolved, committed| {
        Some(Context { resolved_locks: resolved, committed_locks: committed, ..Default::default() })
    };
    let get = |context| GetRequest { key: b("b"), version: 50, context, ..Default::default() };
    assert_eq!(s.txns.get(&get(ctx(vec![30], vec![]))).await.unwrap().value, b("1"));
    assert_eq!(s.txns.get(&get(ctx(vec![], vec![30]))).await.unwrap().value, b("2"));
    let rc = Context { isolation_level: IsolationLevel::Rc as i32, ..Default::default() };
    assert_eq!(s.txns.get(&get(Some(rc))).await.unwrap().value, b("1"));
}

#[tokio::test]
async fn prewrite_conflicts() {
    let s = Script::new();
    s.write(10, 20, vec![put("a", "1")]).await;
    let e = s.prewrite(prewrite_request(15, vec![put("a", "2")])).await.unwrap_err();
    let conflict = e.conflict.unwrap();
    assert!(!e.retryable.is_empty());
    assert_eq!((conflict.start_ts, conflict.conflict_ts, conflict.conflict_commit_ts), (15, 10, 20));
    assert_eq!(conflict.reason(), Reason::Optimistic);
    s.prewrite(prewrite_request(30, vec![put("a", "2")])).await.unwrap();
    let mut skip = prewrite_request(15, vec![put("b", "2")]);
    skip.skip_constraint_check = true;
    s.prewrite(skip).await.unwrap();
    let e = s.prewrite(prewrite_request(40, vec![put("c", "1"), put("a", "3"), put("b", "3")])).await;
    assert_eq!(e.unwrap_err().locked.unwrap().lock_version, 30);
    s.expect("c", 50, None).await;
    assert_eq!(s.locks(100).await.len(), 2, "nothing of a failed prewrite is written");
    // All locked keys are reported.
    let all = s.txns.prewrite(prewrite_request(40, vec![put("a", "3"), put("b", "3")])).await.unwrap();
    assert_eq!(all.errors.len(), 2);
    // The same prewrite again is fine.
    s.prewrite(prewrite_request(30, vec![put("a", "2")])).await.unwrap();
}

#[tokio::test]
async fn inserts_need_absence() {
    let s = Script::new();
    s.write(10, 20, vec![put("a", "1"), put("gone", "1")]).await;
    s.write(21, 22, vec![mutation(Op::Lock, "a", ""), mutation(Op::Del, "gone", "")]).await;
    for op in [Op::Insert, Op::CheckNotExists] {
        let e = s.prewrite(prewrite_request(30, vec![mutation(op, "a", "2")])).await.unwrap_err();
        assert_eq!(e.already_exist.unwrap().key, b("a"));
        s.prewrite(prewrite_request(30, vec![mutation(op, "new", "2")])).await.unwrap();
    }
    s.prewrite(prewrite_request(31, vec![mutation(Op::Insert, "gone", "2")])).await.unwrap();
    assert_eq!(s.locks(100).await.len(), 2, "CheckNotExists leaves no lock");
}

#[tokio::test]
async fn assertions() {
    let s = Script::new();
    s.write(10, 20, vec![put("a", "1")]).await;
    let request = |key, assertion: Assertion, level: AssertionLevel| {
        let mut m = put(key, "2");
        m.assertion = assertion as i32;
        let mut req = prewrite_request(30, vec![m]);
        req.assertion_level = level as i32;
        req
    };
    let failed = s.prewrite(request("a", Assertion::NotExist, AssertionLevel::Fast)).await.unwrap_err();
    let failed = failed.assertion_failed.unwrap();
    assert_eq!((failed.existing_start_ts, failed.existing_commit_ts), (10, 20));
    assert!(s.prewrite(request("z", Assertion::Exist, AssertionLevel::Strict)).await.is_err());
    s.prewrite(request("z", Assertion::Exist, AssertionLevel::Off)).await.unwrap();
    s.prewrite(request("a", Assertion::Exist, AssertionLevel::Strict)).await.unwrap();
}

#[tokio::test]
async fn commits_and_what_they_find() {
    let s = Script::new();
    s.prewrite(prewrite_request(10, vec![put("a", "1")])).await.unwrap();
    s.commit(10, 20, &["a"]).await.unwrap();
    s.commit(10, 20, &["a"]).await.unwrap();
    let e = s.commit(11, 20, &["a"]).await.unwrap_err();
    assert_eq!(e.txn_lock_not_found.unwrap().key, b("a"));
    assert!(!e.retryable.is_empty());
    assert!(!s.commit(11, 11, &["a"]).await.unwrap_err().abort.is_empty());
    let mut req = prewrite_request(30, vec![put("b", "1")]);
    req.min_commit_ts = 40;
    s.prewrite(req).await.unwrap();
    let expired = s.commit(30, 39, &["b"]).await.unwrap_err().commit_ts_expired.unwrap();
    assert_eq!((expired.attempted_commit_ts, expired.min_commit_ts, expired.key), (39, 40, b("b")));
    s.commit(30, 40, &["b"]).await.unwrap();
}

#[tokio::test]
async fn rollbacks_keep_late_prewrites_out() {
    let s = Script::new();
    s.prewrite(prewrite_request(10, vec![put("a", &"x".repeat(300))])).await.unwrap();
    s.rollback(10, &["a", "b"]).await.unwrap();
    s.rollback(10, &["a", "b"]).await.unwrap();
    assert_eq!((s.kv.count(Cf::Lock), s.kv.count(Cf::Default), s.kv.count(Cf::Write)), (0, 0, 2));
    for key in ["a", "b"] {
        let e = s.prewrite(prewrite_request(10, vec![put(key, "1")])).await.unwrap_err();
        assert_eq!(e.conflict.unwrap().reason(), Reason::SelfRolledBack);
        assert!(s.commit(10, 20, &[key]).await.unwrap_err().txn_lock_not_found.is_some());
    }
    // Unprotected rollbacks collapse, protected ones (of a primary) stay.
    s.rollback(30, &["b"]).await.unwrap();
    s.rollback(40, &["a"]).await.unwrap();
    assert_eq!(s.kv.count(Cf::Write), 3);
    s.write(50, 60, vec![put("a", "1")]).await;
    assert!(!s.rollback(50, &["a"]).await.unwrap_err().abort.is_empty());
}

#[tokio::test]
async fn cleanup_minds_the_ttl() {
    let s = Script::new();
    let start = 100 << 18;
    let cleanup =
        |current_ts| CleanupRequest { key: b("a"), start_version: start, current_ts, ..Default::default() };
    s.prewrite(prewrite_request(start, vec![put("a", "1")])).await.unwrap();
    let alive = s.txns.cleanup(&cleanup(110 << 18)).await.unwrap_err().split().unwrap();
    assert!(alive.locked.is_some());
    s.txns.cleanup(&cleanup(111 << 18)).await.unwrap();
    s.txns.cleanup(&cleanup(0)).await.unwrap();
    assert!(s.prewrite(prewrite_request(start, vec![put("a", "1")])).await.is_err());
    s.write(start + 1, start + 2, vec![put("c", "1")]).await;
    let late = CleanupRequest { key: b("c"), start_version: start + 1, ..Default::default() };
    assert_eq!(s.txns.cleanup(&late).await.unwrap().commit_version, start + 2);
}

#[tokio::test]
async fn scans_fill_their_pages() {
    let s = Script::new();
    for (i, key) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let ts = 10 + 10 * i as u64;
        s.write(ts, ts + 5, vec![put(key, key)]).await;
    }
    // Many versions of one key, so that cursors seek.
    for i in 0..20 {
        s.write(100 + 2 * i, 101 + 2 * i, vec![put("c", &format!("c{i}"))]).await;
    }
    s.write(200, 201, vec![mutation(Op::Del, "b", ""), mutation(Op::Lock, "d", "")]).await;
    s.prewrite(prewrite_request(300, vec![put("d", "d2"), put("f", "f")])).await.unwrap();
    let scan = |start: &str, end: &str, limit, version, reverse| ScanRequest {
        start_key: b(start),
        end_key: b(end),
        limit,
        version,
        reverse,
        ..Default::default()
    };
    assert_eq!(s.scan(scan("", "", 10, 99, false)).await, ["a=a", "b=b", "c=c", "d=d", "e=e"]);
    assert_eq!(s.scan(scan("", "", 10, 99, true)).await, ["e=e", "d=d", "c=c", "b=b", "a=a"]);
    assert_eq!(s.scan(scan("", "", 2, 250, false)).await, ["a=a", "c=c19"]);
    assert_eq!(s.scan(scan("e", "a", 9, 103, true)).await, ["d=d", "c=c1", "b=b", "a=a"]);
    let now = ["a=a", "c=c19", "locked by 300", "e=e", "locked by 300"];
    assert_eq!(s.scan(scan("", "", 10, 400, false)).await, now);
    let reversed: Vec<_> = now.iter().rev().copied().collect();
    assert_eq!(s.scan(scan("", "", 10, 400, true)).await, reversed);
    assert_eq!(s.scan(scan("", "", 0, 400, true)).await, Vec::<String>::new());
    assert_eq!(s.scan(scan("", "", 10, 36, false)).await, ["a=a", "b=b", "c=c"]);
    let mut keys = scan("a", "c", 10, 99, false);
    keys.key_only = true;
    assert_eq!(s.scan(keys).await, ["a=", "b="]);
    s.kv.set_end(b"c");
    assert_eq!(s.scan(scan("", "z", 10, 99, false)).await, ["a=a", "b=b"]);
    assert_eq!(s.scan(scan("z", "", 10, 99, true)).await, ["b=b", "a=a"]);
    let outside = s.txns.get(&GetRequest { key: b("c"), version: 1, ..Default::default() }).await;
    assert!(outside.unwrap_err().split().unwrap_err().key_not_in_region.is_some());
}

#[tokio::test]
async fn batch_get_reports_keys_and_locks() {
    let s = Script::new();
    s.write(10, 20, vec![put("a", "1"), put("b", "2")]).await;
    s.prewrite(prewrite_request(30, vec![put("c", "3")])).await.unwrap();
    let keys = ["c", "b", "x", "a"].map(b).to_vec();
    let response =
        s.txns.batch_get(&BatchGetRequest { keys, version: 40, ..Default::default() }).await.unwrap();
    assert!(response.pairs[0].error.as_ref().unwrap().locked.is_some());
    assert_eq!((&response.pairs[1].value, &response.pairs[2].value), (&b("2"), &b("1")));
    assert_eq!(response.pairs.len(), 3);
}
