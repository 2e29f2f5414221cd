//! What becomes of abandoned transactions: CheckTxnStatus, CheckSecondaryLocks, ResolveLock, TxnHeartBeat.

use rutile_proto::kvrpcpb::*;

use super::{Script, b, lock_request, prewrite_request, put};

const START: u64 = 100 << 18;
const ALIVE: u64 = 105 << 18;
const EXPIRED: u64 = 200 << 18;

fn ask(key: &str, caller: u64, current: u64) -> CheckTxnStatusRequest {
    CheckTxnStatusRequest {
        primary_key: b(key),
        lock_ts: START,
        caller_start_ts: caller,
        current_ts: current,
        ..Default::default()
    }
}

impl Script {
    async fn check(&self, req: CheckTxnStatusRequest) -> (u64, u64, Action) {
        let r = self.txns.check_txn_status(&req).await.unwrap();
        assert_eq!(r.lock_ttl > 0, r.lock_info.is_some());
        (r.commit_version, r.lock_ttl, r.action())
    }
}

#[tokio::test]
async fn living_and_expired_locks() {
    let s = Script::new();
    s.prewrite(prewrite_request(START, vec![put("a", "1")])).await.unwrap();
    assert_eq!(s.check(ask("a", START + 9, ALIVE)).await, (0, 10, Action::NoAction));
    assert_eq!(s.check(ask("a", u64::MAX, ALIVE)).await, (0, 10, Action::MinCommitTsPushed));
    assert_eq!(s.check(ask("a", 1, EXPIRED)).await, (0, 0, Action::TtlExpireRollback));
    assert_eq!(s.check(ask("a", 1, EXPIRED)).await, (0, 0, Action::NoAction));
    assert!(s.prewrite(prewrite_request(START, vec![put("a", "1")])).await.is_err());
}

#[tokio::test]
async fn min_commit_ts_is_pushed() {
    let s = Script::new();
    let mut req = prewrite_request(START, vec![put("a", "1")]);
    req.min_commit_ts = START + 1;
    s.prewrite(req).await.unwrap();
    let caller = START + 10;
    assert_eq!(s.check(ask("a", caller, caller + 5)).await, (0, 10, Action::MinCommitTsPushed));
    assert!(s.commit(START, caller, &["a"]).await.unwrap_err().commit_ts_expired.is_some());
    assert_eq!(s.locks(u64::MAX).await[0].min_commit_ts, caller + 5);
    assert_eq!(s.check(ask("a", caller, ALIVE)).await, (0, 10, Action::MinCommitTsPushed));
    assert_eq!(s.check(ask("a", 0, ALIVE)).await, (0, 10, Action::NoAction));
    s.commit(START, caller + 5, &["a"]).await.unwrap();
    assert_eq!(s.check(ask("a", 0, ALIVE)).await, (caller + 5, 0, Action::NoAction));
}

#[tokio::test]
async fn missing_locks() {
    let s = Script::new();
    let e = s.txns.check_txn_status(&ask("a", 0, ALIVE)).await.unwrap_err().split().unwrap();
    assert_eq!(e.txn_not_found.unwrap().start_ts, START);
    let mut req = ask("a", 0, ALIVE);
    req.rollback_if_not_exist = true;
    let mut pessimistic = req.clone();
    pessimistic.resolving_pessimistic_lock = true;
    assert_eq!(s.check(pessimistic).await, (0, 0, Action::LockNotExistDoNothing));
    assert_eq!(s.check(req.clone()).await, (0, 0, Action::LockNotExistRollback));
    assert_eq!(s.check(req).await, (0, 0, Action::NoAction));
    assert!(s.prewrite(prewrite_request(START, vec![put("a", "1")])).await.is_err());
}

#[tokio::test]
async fn pessimistic_primaries() {
    let s = Script::new();
    s.lock(lock_request(START, START, &["a"])).await.unwrap();
    let mut req = ask("a", 0, EXPIRED);
    req.resolving_pessimistic_lock = true;
    assert_eq!(s.check(req).await, (0, 0, Action::TtlExpirePessimisticRollback));
    s.lock(lock_request(START, START, &["a"])).await.unwrap();
    assert_eq!(s.check(ask("a", 0, EXPIRED)).await, (0, 0, Action::TtlExpireRollback));
    assert!(!s.lock(lock_request(START, START, &["a"])).await.unwrap_err().abort.is_empty());
}

#[tokio::test]
async fn wrong_primaries() {
    let s = Script::new();
    s.prewrite(prewrite_request(START, vec![put("a", "1"), put("b", "1")])).await.unwrap();
    let mut req = ask("b", 0, ALIVE);
    req.verify_is_primary = true;
    let e = s.txns.check_txn_status(&req).await.unwrap_err().split().unwrap();
    assert_eq!(e.primary_mismatch.unwrap().lock_info.unwrap().primary_lock, b("a"));
}

#[tokio::test]
async fn secondaries_decide() {
    let s = Script::new();
    let mut req = prewrite_request(START, vec![put("a", "1"), put("b", "1")]);
    (req.use_async_commit, req.secondaries) = (true, vec![b("b")]);
    s.prewrite(req).await.unwrap();
    let (_, _, action) = s.check(ask("a", 0, EXPIRED)).await;
    assert_eq!(action, Action::NoAction, "an async-commit lock is never rolled back by its primary");
    let secondaries = |keys: &[&str]| CheckSecondaryLocksRequest {
        keys: keys.iter().map(|k| b(k)).collect(),
        start_version: START,
        ..Default::default()
    };
    let all = s.txns.check_secondary_locks(&secondaries(&["a", "b"])).await.unwrap();
    assert_eq!((all.locks.len(), all.commit_ts), (2, 0));
    assert_eq!(all.locks[0].secondaries, [b("b")]);
    let missing = s.txns.check_secondary_locks(&secondaries(&["b", "c"])).await.unwrap();
    assert_eq!((missing.locks.len(), missing.commit_ts), (0, 0));
    assert!(s.prewrite(prewrite_request(START, vec![put("c", "1")])).await.is_err());
    let at = all.locks.iter().map(|l| l.min_commit_ts).max().unwrap();
    s.commit(START, at, &["a"]).await.unwrap();
    let one = s.txns.check_secondary_locks(&secondaries(&["b", "a"])).await.unwrap();
    assert_eq!((one.locks.len(), one.commit_ts), (0, at));
}

#[tokio::test]
async fn resolving_whole_regions_and_single_keys() {
    let s = Script::new();
    s.prewrite(prewrite_request(10, vec![put("a", "1"), put("b", "1"), put("c", "1")])).await.unwrap();
    s.prewrite(prewrite_request(11, vec![put("d", "1")])).await.unwrap();
    s.lock(lock_request(12, 12, &["e"])).await.unwrap();
    assert_eq!(s.locks(11).await.len(), 4);
    assert_eq!(s.locks(12).await.len(), 5);
    let lite = ResolveLockRequest {
        start_version: 10,
        commit_version: 20,
        keys: vec![b("b"), b("zzz")],
        ..Default::default()
    };
    s.txns.resolve_lock(&lite).await.unwrap();
    s.expect("b", 20, Some("1")).await;
    assert_eq!(s.locks(12).await.len(), 4);
    let rest = ResolveLockRequest { start_version: 10, commit_version: 20, ..Default::default() };
    s.txns.resolve_lock(&rest).await.unwrap();
    s.expect("a", 20, Some("1")).await;
    let info = |txn, status| TxnInfo { txn, status };
    let many = ResolveLockRequest { txn_infos: vec![info(11, 0), info(12, 0)], ..Default::default() };
    s.txns.resolve_lock(&many).await.unwrap();
    assert!(s.locks(u64::MAX).await.is_empty());
    s.expect("d", 30, None).await;
}

#[tokio::test]
async fn heart_beats() {
    let s = Script::new();
    let beat = |key, ttl| TxnHeartBeatRequest {
        primary_lock: b(key),
        start_version: START,
        advise_lock_ttl: ttl,
        ..Default::default()
    };
    s.prewrite(prewrite_request(START, vec![put("a", "1")])).await.unwrap();
    s.lock(lock_request(START, START, &["p"])).await.unwrap();
    for key in ["a", "p"] {
        assert_eq!(s.txns.txn_heart_beat(&beat(key, 100)).await.unwrap().lock_ttl, 100);
        assert_eq!(s.txns.txn_heart_beat(&beat(key, 50)).await.unwrap().lock_ttl, 100);
    }
    let e = s.txns.txn_heart_beat(&beat("z", 1)).await.unwrap_err().split().unwrap();
    assert!(e.txn_not_found.is_some());
}
