//! Random transactions against a simple model: every snapshot shows exactly what was committed before it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rutile_proto::kvrpcpb::*;

use super::{Script, b, lock_request, mutation, prewrite_request};

const KEYS: [&str; 6] = ["a", "aa", "b", "bbbbbbbb", "c", "d"];

#[derive(Debug, Clone, Copy)]
enum End {
    Commit,
    OnePhase,
    Rollback,
    Leave,
}

#[derive(Debug, Clone)]
struct Step {
    writes: BTreeMap<usize, Option<u16>>,
    pessimistic: bool,
    end: End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let writes = prop::collection::btree_map(0..KEYS.len(), prop::option::of(any::<u16>()), 1..4);
    let end = prop_oneof![
        4 => Just(End::Commit),
        3 => Just(End::OnePhase),
        2 => Just(End::Rollback),
        1 => Just(End::Leave)
    ];
    let step =
        (writes, any::<bool>(), end).prop_map(|(writes, pessimistic, end)| Step { writes, pessimistic, end });
    prop::collection::vec(step, 1..30)
}

/// Long for odd numbers, so that some values leave their records.
fn value(n: u16) -> String {
    if n % 2 == 1 { format!("{n}-{}", "v".repeat(300)) } else { n.to_string() }
}

type Model = BTreeMap<&'static str, BTreeMap<u64, Option<String>>>;

async fn run(steps: Vec<Step>) {
    let s = Script::new();
    let mut model: Model = BTreeMap::new();
    let mut clock = 2_000_000;
    for step in &steps {
        clock += 10;
        let start_ts = clock;
        let mutations: Vec<_> = step
            .writes
            .iter()
            .map(|(k, v)| match v {
                Some(n) => mutation(Op::Put, KEYS[*k], &value(*n)),
                None => mutation(Op::Del, KEYS[*k], ""),
            })
            .collect();
        let keys: Vec<_> = step.writes.keys().map(|k| KEYS[*k]).collect();
        let mut req = prewrite_request(start_ts, mutations);
        req.lock_ttl = u64::MAX >> 20;
        if step.pessimistic {
            if s.lock(lock_request(start_ts, start_ts, &keys)).await.is_err() {
                continue;
            }
            req.for_update_ts = start_ts;
            req.pessimistic_actions = vec![1; keys.len()];
        }
        req.try_one_pc = matches!(step.end, End::OnePhase);
        let Ok(response) = s.prewrite(req).await else {
            s.rollback(start_ts, &keys).await.unwrap();
            continue;
        };
        clock = clock.max(response.one_pc_commit_ts) + 10;
        let commit_ts = match step.end {
            End::OnePhase => response.one_pc_commit_ts,
            End::Commit => {
                s.commit(start_ts, clock, &keys).await.unwrap();
                clock
            }
            End::Rollback => {
                s.rollback(start_ts, &keys).await.unwrap();
                continue;
            }
            End::Leave => continue,
        };
        for (k, v) in &step.writes {
            model.entry(KEYS[*k]).or_default().insert(commit_ts, v.map(value));
        }
        if step.writes.len() == 2 {
            check(&s, &model, clock).await;
        }
    }
    for ts in (2_000_000..=clock + 10).step_by(7) {
        check(&s, &model, ts).await;
    }
}

/// Reads of all kinds at `ts`, ignoring the locks left behind.
async fn check(s: &Script, model: &Model, ts: u64) {
    let left: Vec<u64> = s.locks(u64::MAX).await.iter().map(|l| l.lock_version).collect();
    let context = Some(Context { resolved_locks: left, ..Default::default() });
    let visible =
        |k: &str| model.get(k).and_then(|v| v.range(..=ts).next_back()).and_then(|(_, v)| v.clone());
    let expected: Vec<_> = KEYS.iter().filter_map(|k| visible(k).map(|v| format!("{k}={v}"))).collect();
    for k in KEYS {
        let req = GetRequest { context: context.clone(), key: b(k), version: ts, ..Default::default() };
        let got = s.txns.get(&req).await.unwrap();
        let got = (!got.not_found).then(|| String::from_utf8(got.value.to_vec()).unwrap());
        assert_eq!(got, visible(k), "{k} at {ts}");
    }
    for reverse in [false, true] {
        let req =
            ScanRequest { context: context.clone(), limit: 100, version: ts, reverse, ..Default::default() };
        let mut got = s.scan(req).await;
        if reverse {
            got.reverse();
        }
        assert_eq!(got, expected, "scan at {ts}, reverse: {reverse}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn snapshots_show_what_was_committed(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
