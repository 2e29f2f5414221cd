//! Garbage collection changes nothing that can still be read.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::*;

use super::{Script, mutation, put};
use crate::mvcc::key::Key;
use crate::txn::gc::find_garbage;

const LONG: &str = "a value of more than two hundred and fifty-five bytes lies in another column family than its record; \
    this one is made long enough by saying so at some length, and then by going on about it for a while, since nothing \
    else is asked of it than to be long, which is easy, but takes its time; so here it ends";

impl Script {
    /// Everything there is to remove, as a worker does it. Answers how many keys had garbage.
    async fn collect_garbage(&self, safe_point: u64) -> usize {
        self.txns.raise_safe_point(Timestamp(safe_point));
        let ctx = Context::default();
        let mut lower = Some(Vec::new());
        let mut count = 0;
        while let Some(from) = lower {
            let snapshot = self.txns.snapshot(&ctx).await.unwrap();
            let (keys, next) = find_garbage(&snapshot, from, Timestamp(safe_point)).unwrap();
            count += keys.len();
            while self.txns.collect_garbage(&ctx, &keys, Timestamp(safe_point)).await.unwrap() {}
            lower = next;
        }
        count
    }

    async fn versions(&self, key: &str) -> (usize, usize) {
        let req = MvccGetByKeyRequest { key: super::b(key), ..Default::default() };
        let info = self.txns.mvcc_get_by_key(&req).await.unwrap().info.unwrap_or_default();
        (info.writes.len(), info.values.len())
    }
}

#[tokio::test]
async fn the_newest_version_at_the_safe_point_stays() {
    let script = Script::new();
    for (start_ts, value) in [(10, LONG), (20, "b"), (30, LONG), (40, "d")] {
        script.write(start_ts, start_ts + 5, vec![put("k", value)]).await;
    }
    script.rollback(26, &["k"]).await.unwrap();
    assert_eq!(script.collect_garbage(36).await, 1);
    script.expect("k", 36, Some(LONG)).await;
    script.expect("k", 50, Some("d")).await;
    assert_eq!(script.versions("k").await.0, 2);
    let refused = script.get("k", 35).await.unwrap_err();
    assert!(refused.abort.contains("safe point 36"), "{refused:?}");
    assert_eq!(script.collect_garbage(36).await, 0, "nothing is left");
    assert_eq!(script.collect_garbage(45).await, 1);
    assert_eq!(script.versions("k").await, (1, 0));
    script.expect("k", 45, Some("d")).await;
}

#[tokio::test]
async fn a_deleted_key_leaves_nothing() {
    let script = Script::new();
    script.write(10, 11, vec![put("k", LONG)]).await;
    script.write(20, 21, vec![mutation(Op::Del, "k", "")]).await;
    script.write(30, 31, vec![put("other", "x")]).await;
    script.collect_garbage(20).await;
    assert_eq!(script.versions("k").await, (2, 1), "the removal is newer than the safe point");
    script.collect_garbage(21).await;
    assert_eq!(script.versions("k").await, (0, 0));
    script.expect("k", 21, None).await;
    script.expect("other", 40, Some("x")).await;
}

#[tokio::test]
async fn old_transactions_are_refused() {
    let script = Script::new();
    script.collect_garbage(100).await;
    let refused = script.prewrite(super::prewrite_request(99, vec![put("k", "v")])).await.unwrap_err();
    assert!(refused.abort.contains("safe point"), "{refused:?}");
    let refused = script.lock(super::lock_request(99, 120, &["k"])).await.unwrap_err();
    assert!(refused.abort.contains("safe point"), "{refused:?}");
    script.write(100, 101, vec![put("k", "v")]).await;
    script.expect("k", u64::MAX, Some("v")).await;
}

#[tokio::test]
async fn more_keys_and_versions_than_one_removal_takes() {
    let script = Script::new();
    for ts in 0..2100 {
        script.write(10 + 2 * ts, 11 + 2 * ts, vec![put("hot", "v")]).await;
    }
    for i in 0..200 {
        let key = format!("k{i:03}");
        script.write(6000, 6001, vec![put(&key, "old")]).await;
        script
            .write(6002, 6003, vec![if i % 2 == 0 { put(&key, "new") } else { mutation(Op::Del, &key, "") }])
            .await;
    }
    assert_eq!(script.collect_garbage(7000).await, 201);
    assert_eq!(script.versions("hot").await.0, 1);
    assert_eq!(script.versions("k000").await.0, 1);
    assert_eq!(script.versions("k001").await.0, 0);
    let all = script.scan(ScanRequest { version: 8000, limit: 1000, ..Default::default() }).await;
    assert_eq!(all.len(), 101);
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize, bool),
    Delete(usize),
    Lock(usize),
    Rollback(usize),
    Collect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..4usize;
    let step = prop_oneof![
        4 => (key.clone(), any::<bool>()).prop_map(|(k, long)| Step::Put(k, long)),
        2 => key.clone().prop_map(Step::Delete),
        1 => key.clone().prop_map(Step::Lock),
        1 => key.prop_map(Step::Rollback),
        1 => Just(Step::Collect),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever was written: every read at or above the safe point sees what it saw before, and at most one record of a
    /// key stays at or below it.
    #[test]
    fn reads_above_the_safe_point_never_change(steps in steps(), back in 0u64..60) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let script = Script::new();
            let mut history: BTreeMap<(usize, u64), Option<String>> = BTreeMap::new();
            let mut ts = 10;
            let mut safe_point = 0;
            for step in steps {
                ts += 10;
                let name = |k: usize| format!("key{k}");
                match step {
                    Step::Put(k, long) => {
                        let value = format!("{}{ts}", if long { LONG } else { "" });
                        script.write(ts, ts + 5, vec![put(&name(k), &value)]).await;
                        history.insert((k, ts + 5), Some(value));
                    }
                    Step::Delete(k) => {
                        script.write(ts, ts + 5, vec![mutation(Op::Del, &name(k), "")]).await;
                        history.insert((k, ts + 5), None);
                    }
                    Step::Lock(k) => script.write(ts, ts + 5, vec![mutation(Op::Lock, &name(k), "")]).await,
                    Step::Rollback(k) => script.rollback(ts, &[&name(k)]).await.unwrap(),
                    Step::Collect => {
                        safe_point = safe_point.max(ts.saturating_sub(back));
                        script.collect_garbage(safe_point).await;
                    }
                }
                for k in 0..4 {
                    for at in (safe_point..=ts + 9).filter(|at| at % 5 == 0 || *at == safe_point) {
                        let seen = history.range((k, 0)..=(k, at)).next_back().and_then(|(_, v)| v.clone());
                        assert_eq!(script.get(&name(k), at).await.unwrap(), seen, "key{k} at {at}");
                    }
                }
            }
            let end = ts + 10;
            script.collect_garbage(end).await;
            for k in 0..4 {
                let key = Key::from_raw(&super::b(&format!("key{k}")));
                let left = script.versions(std::str::from_utf8(key.raw()).unwrap()).await;
                let lives = history.range((k, 0)..=(k, end)).next_back().is_some_and(|(_, v)| v.is_some());
                assert_eq!(left.0, usize::from(lives));
            }
        });
    }
}
