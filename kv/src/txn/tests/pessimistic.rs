//! Pessimistic locks: acquiring, waiting, losing and prewriting them.

use rutile_proto::kvrpcpb::prewrite_request::PessimisticAction;
use rutile_proto::kvrpcpb::write_conflict::Reason;
use rutile_proto::kvrpcpb::*;

use super::{Script, b, lock_request, mutation, prewrite_request, put};
use crate::engine::Cf;

fn pessimistic_prewrite(start_ts: u64, for_update_ts: u64, mutations: Vec<Mutation>) -> PrewriteRequest {
    let actions = vec![PessimisticAction::DoPessimisticCheck as i32; mutations.len()];
    let mut req = prewrite_request(start_ts, mutations);
    (req.for_update_ts, req.pessimistic_actions) = (for_update_ts, actions);
    req
}

impl Script {
    async fn unlock(&self, start_ts: u64, for_update_ts: u64, keys: &[&str]) {
        let keys = keys.iter().map(|k| b(k)).collect();
        let req =
            PessimisticRollbackRequest { start_version: start_ts, for_update_ts, keys, ..Default::default() };
        assert!(self.txns.pessimistic_rollback(&req).await.unwrap().errors.is_empty());
    }
}

#[tokio::test]
async fn locks_stay_in_memory_and_answer_values() {
    let s = Script::new();
    s.write(10, 20, vec![put("a", "1")]).await;
    let mut req = lock_request(30, 30, &["a", "x"]);
    req.return_values = true;
    for _ in 0..2 {
        let response = s.lock(req.clone()).await.unwrap();
        assert_eq!(response.values, [b("1"), b("")]);
        assert_eq!(response.not_founds, [false, true]);
    }
    (req.return_values, req.check_existence) = (false, true);
    let response = s.lock(req.clone()).await.unwrap();
    assert_eq!((response.values.len(), response.not_founds), (0, vec![false, true]));
    req.check_existence = false;
    assert!(s.lock(req).await.unwrap().not_founds.is_empty());
    assert_eq!(s.kv.count(Cf::Lock), 0);
    s.expect("a", 100, Some("1")).await;
    s.prewrite(pessimistic_prewrite(30, 30, vec![put("a", "2"), put("x", "2")])).await.unwrap();
    s.commit(30, 40, &["a", "x"]).await.unwrap();
    s.expect("x", 40, Some("2")).await;
    assert!(s.locks(u64::MAX).await.is_empty());
    assert_eq!(s.txns.memory_locks().bytes(), 0);
}

#[tokio::test]
async fn conflicts_existence_and_own_rollbacks() {
    let s = Script::new();
    s.write(10, 20, vec![put("a", "1")]).await;
    let e = s.lock(lock_request(15, 15, &["a"])).await.unwrap_err();
    assert_eq!(e.conflict.unwrap().reason(), Reason::PessimisticRetry);
    let mut insert = lock_request(15, 25, &["a"]);
    insert.mutations[0].assertion = Assertion::NotExist as i32;
    assert!(s.lock(insert).await.unwrap_err().already_exist.is_some());
    s.rollback(15, &["a"]).await.unwrap();
    assert!(!s.lock(lock_request(15, 25, &["a"])).await.unwrap_err().abort.is_empty());
    let mut only = lock_request(30, 30, &["none"]);
    (only.lock_only_if_exists, only.return_values) = (true, true);
    assert_eq!(s.lock(only).await.unwrap().not_founds, [true]);
    assert!(s.locks(u64::MAX).await.is_empty());
    s.prewrite(prewrite_request(40, vec![put("b", "1")])).await.unwrap();
    assert!(!s.lock(lock_request(40, 40, &["b"])).await.unwrap_err().abort.is_empty());
}

#[tokio::test]
async fn forced_locks_report_the_conflict() {
    let s = Script::new();
    s.write(10, 20, vec![put("a", "1")]).await;
    let mut req = lock_request(15, 15, &["a"]);
    req.wake_up_mode = PessimisticLockWakeUpMode::WakeUpModeForceLock as i32;
    let result = s.lock(req).await.unwrap().results.remove(0);
    assert_eq!(result.r#type(), PessimisticLockKeyResultType::LockResultLockedWithConflict);
    assert_eq!((result.locked_with_conflict_ts, result.value), (20, b("1")));
    assert_eq!(s.locks(u64::MAX).await[0].lock_for_update_ts, 20);
}

#[tokio::test]
async fn all_keys_or_none() {
    let s = Script::new();
    s.lock(lock_request(10, 10, &["b"])).await.unwrap();
    let e = s.lock(lock_request(20, 20, &["a", "b", "c"])).await.unwrap_err();
    let locked = e.locked.unwrap();
    assert_eq!((locked.lock_version, locked.lock_type()), (10, Op::PessimisticLock));
    assert_eq!(s.locks(u64::MAX).await.len(), 1);
    s.unlock(10, 9, &["b"]).await;
    assert_eq!(s.locks(u64::MAX).await.len(), 1, "a newer for_update_ts survives");
    s.unlock(10, 10, &[]).await;
    assert!(s.locks(u64::MAX).await.is_empty());
    assert_eq!(s.kv.count(Cf::Write), 0);
}

#[tokio::test]
async fn lost_locks_are_amended_when_nothing_changed() {
    let s = Script::new();
    s.write(5, 6, vec![put("a", "0"), put("b", "0")]).await;
    s.lock(lock_request(10, 10, &["a", "b"])).await.unwrap();
    s.kv.next_term();
    assert!(s.locks(u64::MAX).await.is_empty());
    s.write(20, 25, vec![put("b", "other")]).await;
    s.prewrite(pessimistic_prewrite(10, 10, vec![put("a", "1")])).await.unwrap();
    let e = s.prewrite(pessimistic_prewrite(10, 10, vec![put("b", "1")])).await.unwrap_err();
    assert!(!e.abort.is_empty() && e.locked.is_none());
    let e = s.prewrite(pessimistic_prewrite(30, 30, vec![put("a", "1")])).await.unwrap_err();
    assert!(!e.abort.is_empty(), "another transaction's lock where ours should be");
}

#[tokio::test]
async fn keys_without_pessimistic_lock() {
    let s = Script::new();
    s.write(5, 50, vec![put("a", "0")]).await;
    let request = |action: PessimisticAction, key| {
        let mut req = pessimistic_prewrite(10, 20, vec![put(key, "1")]);
        req.pessimistic_actions = vec![action as i32];
        req
    };
    let e = s.prewrite(request(PessimisticAction::DoConstraintCheck, "a")).await.unwrap_err();
    assert_eq!(e.conflict.unwrap().reason(), Reason::LazyUniquenessCheck);
    let mut retry = request(PessimisticAction::SkipPessimisticCheck, "a");
    retry.context = Some(Context { is_retry_request: true, ..Default::default() });
    assert!(!s.prewrite(retry).await.unwrap_err().abort.is_empty());
    s.prewrite(request(PessimisticAction::SkipPessimisticCheck, "a")).await.unwrap();
    let other = pessimistic_prewrite(60, 60, vec![put("a", "2")]);
    let other = PrewriteRequest { pessimistic_actions: vec![0], ..other };
    assert_eq!(s.prewrite(other).await.unwrap_err().locked.unwrap().lock_ttl, 0);
    let mut constrained = pessimistic_prewrite(70, 75, vec![put("c", "1")]);
    s.lock(lock_request(70, 71, &["c"])).await.unwrap();
    constrained.for_update_ts_constraints =
        vec![prewrite_request::ForUpdateTsConstraint { index: 0, expected_for_update_ts: 75 }];
    assert!(!s.prewrite(constrained.clone()).await.unwrap_err().abort.is_empty());
    constrained.for_update_ts_constraints[0].expected_for_update_ts = 71;
    s.prewrite(constrained).await.unwrap();
    let optimistic = prewrite_request(80, vec![put("d", "1")]);
    s.lock(lock_request(80, 80, &["d"])).await.unwrap();
    assert!(!s.prewrite(optimistic).await.unwrap_err().abort.is_empty());
    let check = pessimistic_prewrite(90, 90, vec![mutation(Op::CheckNotExists, "e", "")]);
    assert!(!s.prewrite(check).await.unwrap_err().abort.is_empty());
}

async fn until_waiting(s: &Script, count: usize) {
    while s.txns.lock_wait().waiting() != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_waiter_gets_the_lock_when_it_is_released() {
    let s = Script::new();
    s.lock(lock_request(10, 10, &["a"])).await.unwrap();
    let waiting = {
        let txns = s.txns.clone();
        let req = PessimisticLockRequest { wait_timeout: 0, ..lock_request(20, 20, &["a"]) };
        tokio::spawn(async move { txns.pessimistic_lock(req).await })
    };
    until_waiting(&s, 1).await;
    s.unlock(10, 10, &["a"]).await;
    waiting.await.unwrap().unwrap();
    assert_eq!(s.locks(u64::MAX).await[0].lock_version, 20);
    // After a commit with a newer timestamp the waiter has to come back.
    let waiting = {
        let txns = s.txns.clone();
        let req = PessimisticLockRequest { wait_timeout: 500, ..lock_request(21, 21, &["a"]) };
        tokio::spawn(async move { txns.pessimistic_lock(req).await })
    };
    until_waiting(&s, 1).await;
    s.prewrite(pessimistic_prewrite(20, 20, vec![put("a", "1")])).await.unwrap();
    s.commit(20, 30, &["a"]).await.unwrap();
    let e = waiting.await.unwrap().unwrap_err().split().unwrap();
    assert_eq!(e.conflict.unwrap().conflict_commit_ts, 30);
}

#[tokio::test]
async fn a_wait_ends_with_the_lock_info() {
    let s = Script::new();
    s.lock(lock_request(10, 10, &["a"])).await.unwrap();
    let req = PessimisticLockRequest { wait_timeout: 20, ..lock_request(20, 20, &["a"]) };
    let locked = s.lock(req).await.unwrap_err().locked.unwrap();
    assert_eq!(locked.lock_version, 10);
    assert!(locked.duration_to_last_update_ms > 0);
    assert_eq!(s.txns.lock_wait().waiting(), 0);
}

#[tokio::test]
async fn the_one_who_closes_a_circle_fails() {
    let s = Script::new();
    s.lock(lock_request(10, 10, &["a"])).await.unwrap();
    s.lock(lock_request(20, 20, &["b"])).await.unwrap();
    let waiting = {
        let txns = s.txns.clone();
        let req = PessimisticLockRequest { wait_timeout: 0, ..lock_request(10, 10, &["b"]) };
        tokio::spawn(async move { txns.pessimistic_lock(req).await })
    };
    until_waiting(&s, 1).await;
    let closing = PessimisticLockRequest { wait_timeout: 0, ..lock_request(20, 20, &["a"]) };
    let deadlock = s.lock(closing).await.unwrap_err().deadlock.unwrap();
    assert_eq!((deadlock.lock_ts, deadlock.lock_key, deadlock.deadlock_key), (10, b("a"), b("b")));
    assert_eq!(deadlock.wait_chain.len(), 2);
    s.unlock(20, 20, &["b"]).await;
    waiting.await.unwrap().unwrap();
}
