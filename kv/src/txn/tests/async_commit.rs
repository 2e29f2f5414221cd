//! Async commit and one-phase commit: commit timestamps from `max_ts`, in-flight locks, fallbacks, retries.

use std::time::Duration;

use futures::FutureExt;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::*;

use super::{Script, b, lock_request, prewrite_request, put};
use crate::engine::Cf;

fn one_phase(start_ts: u64, mutations: Vec<Mutation>) -> PrewriteRequest {
    PrewriteRequest { try_one_pc: true, ..prewrite_request(start_ts, mutations) }
}

fn async_commit(start_ts: u64, mutations: Vec<Mutation>) -> PrewriteRequest {
    let secondaries = mutations[1..].iter().map(|m| m.key.clone()).collect();
    PrewriteRequest { use_async_commit: true, secondaries, ..prewrite_request(start_ts, mutations) }
}

#[tokio::test]
async fn one_phase_commits_above_every_read() {
    let s = Script::new();
    let first = s.prewrite(one_phase(2_000_000, vec![put("a", "1"), put("b", "1")])).await.unwrap();
    assert_eq!((first.one_pc_commit_ts, first.min_commit_ts), (2_000_001, 0));
    s.expect("a", 2_000_000, None).await;
    s.expect("a", 2_000_500, Some("1")).await;
    let second = s.prewrite(one_phase(2_000_100, vec![put("a", "2")])).await.unwrap();
    assert_eq!(second.one_pc_commit_ts, 2_000_501);
    s.expect("a", 2_000_500, Some("1")).await;
    s.expect("a", u64::MAX, Some("2")).await;
    assert_eq!(s.kv.count(Cf::Lock), 0);
    // The same request again, after its answer was lost.
    let again = s.prewrite(one_phase(2_000_100, vec![put("a", "2")])).await.unwrap();
    assert_eq!(again.one_pc_commit_ts, 2_000_501);
}

#[tokio::test]
async fn a_new_leader_learns_of_earlier_reads() {
    let s = Script::new();
    let response = s.prewrite(one_phase(10, vec![put("a", "1")])).await.unwrap();
    assert!(response.one_pc_commit_ts > 1_000_000, "a fresh timestamp was taken first");
    let before = s.txns.concurrency().max_ts();
    s.prewrite(one_phase(response.one_pc_commit_ts + 1, vec![put("a", "1")])).await.unwrap();
    assert_eq!(s.txns.concurrency().max_ts(), before, "once per leadership");
    s.kv.next_term();
    s.prewrite(one_phase(response.one_pc_commit_ts + 9, vec![put("a", "1")])).await.unwrap();
    assert!(s.txns.concurrency().max_ts() > before);
}

#[tokio::test]
async fn one_phase_over_pessimistic_locks() {
    let s = Script::new();
    s.lock(lock_request(10, 12, &["a"])).await.unwrap();
    let mut req = one_phase(10, vec![put("a", "1")]);
    (req.for_update_ts, req.pessimistic_actions) = (12, vec![1]);
    let response = s.prewrite(req).await.unwrap();
    s.expect("a", response.one_pc_commit_ts, Some("1")).await;
    assert!(s.locks(u64::MAX).await.is_empty());
}

#[tokio::test]
async fn async_commit_locks_and_their_commit() {
    let s = Script::new();
    s.txns.concurrency().update_max_ts(Timestamp(2_000_000));
    let response = s.prewrite(async_commit(10, vec![put("a", "1"), put("b", "1")])).await.unwrap();
    assert_eq!((response.min_commit_ts, response.one_pc_commit_ts), (2_000_001, 0));
    let again = s.prewrite(async_commit(10, vec![put("a", "1"), put("b", "1")])).await.unwrap();
    assert_eq!(again.min_commit_ts, 2_000_001);
    s.expect("a", 2_000_000, None).await;
    assert!(s.get("a", 2_000_001).await.unwrap_err().locked.unwrap().use_async_commit);
    assert!(s.get("a", u64::MAX).await.is_err(), "a latest read must wait for a decided transaction");
    let locks = s.locks(u64::MAX).await;
    assert_eq!((&locks[0].secondaries[..], &locks[1].secondaries[..]), (&[b("b")][..], &[][..]));
    assert!(s.commit(10, 2_000_000, &["a"]).await.is_err());
    s.commit(10, 2_000_001, &["a", "b"]).await.unwrap();
    let late = s.prewrite(async_commit(10, vec![put("a", "1"), put("b", "1")])).await.unwrap();
    assert_eq!(late.min_commit_ts, 2_000_001);
}

#[tokio::test]
async fn a_limit_makes_it_fall_back_to_two_phases() {
    let s = Script::new();
    s.txns.concurrency().update_max_ts(Timestamp(2_000_000));
    for (key, mut req) in
        [("a", async_commit(10, vec![put("a", "1")])), ("b", one_phase(11, vec![put("b", "1")]))]
    {
        req.max_commit_ts = 1_999_999;
        let response = s.prewrite(req).await.unwrap();
        assert_eq!((response.min_commit_ts, response.one_pc_commit_ts), (0, 0));
        let lock = s.locks(u64::MAX).await.into_iter().find(|l| l.key == b(key)).unwrap();
        assert!(!lock.use_async_commit);
    }
    assert!(s.txns.concurrency().blocking_lock_in_range(b"", b"", Timestamp(u64::MAX - 1), &[]).is_none());
}

#[tokio::test]
async fn a_rollback_on_a_commit_timestamp_is_kept() {
    let s = Script::new();
    let at = s.prewrite(async_commit(10, vec![put("a", "1")])).await.unwrap().min_commit_ts;
    // Another transaction began exactly there and is rolled back for good on the same key.
    let cleanup = CleanupRequest { key: b("a"), start_version: at, ..Default::default() };
    s.txns.cleanup(&cleanup).await.unwrap();
    s.commit(10, at, &["a"]).await.unwrap();
    s.expect("a", at, Some("1")).await;
    assert!(s.prewrite(prewrite_request(at, vec![put("a", "2")])).await.is_err());
    s.txns.cleanup(&cleanup).await.unwrap();
    // And the other way round: the rollback comes after the commit.
    let start = at + 10;
    let at = s.prewrite(async_commit(start, vec![put("b", "1")])).await.unwrap().min_commit_ts;
    s.commit(start, at, &["b"]).await.unwrap();
    s.txns.cleanup(&CleanupRequest { key: b("b"), start_version: at, ..Default::default() }).await.unwrap();
    s.expect("b", at, Some("1")).await;
    assert!(s.prewrite(prewrite_request(at, vec![put("b", "2")])).await.is_err());
}

#[tokio::test]
async fn readers_wait_for_writes_in_flight() {
    let s = Script::new();
    let txns = s.txns.clone();
    // Learn the leadership's timestamp first, so that the next prewrite goes straight to its write.
    let first = s.prewrite(one_phase(10, vec![put("z", "1")])).await.unwrap().one_pc_commit_ts;
    let mut write = Box::pin(txns.prewrite(one_phase(first + 1, vec![put("a", "1")])));
    assert!((&mut write).now_or_never().is_none(), "the write is under way");
    s.expect("a", u64::MAX, None).await;
    let read = s.txns.clone();
    let read = tokio::spawn(async move {
        read.get(&GetRequest { key: b("a"), version: first + 100, ..Default::default() }).await
    });
    tokio::task::yield_now().await;
    // The writer's client goes away; the write is finished nevertheless.
    drop(write);
    let found = tokio::time::timeout(Duration::from_secs(5), read).await.unwrap().unwrap().unwrap();
    assert_eq!(found.value, b("1"));
}
