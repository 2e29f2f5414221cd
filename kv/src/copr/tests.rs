//! Requests over one region without replication.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rutile_expr::agg::AggregateCall;
use rutile_expr::registry;
use rutile_expr::store_plan::scan::{ColumnFrom, ScanColumn, ScanSource, ScanSpec};
use rutile_expr::store_plan::{Step, StorePlan, wire};
use rutile_expr::types::{Datum, FieldType};
use rutile_expr::{EvalContext, Expr, row};
use rutile_proto::kvrpcpb::{CommitRequest, Context, Mutation, Op, PrewriteRequest};
use rutile_proto::{codec, copr, coprocessor};

use super::Endpoint;
use crate::txn::Scheduler;
use crate::txn::test_kv::{TestKv, test_scheduler};

struct Store {
    endpoint: Endpoint,
    txns: Scheduler,
    kv: Arc<TestKv>,
}

fn key(handle: i64) -> Bytes {
    let mut key = b"t".to_vec();
    codec::encode_i64(&mut key, 7);
    key.extend_from_slice(b"_r");
    codec::encode_i64(&mut key, handle);
    key.into()
}

fn row_of(v: i64, text: &str) -> Bytes {
    let mut out = Vec::new();
    row::encode(&[(1, &Datum::Int(v)), (2, &Datum::Bytes(text.as_bytes().to_vec()))], &mut out);
    out.into()
}

fn blob() -> FieldType {
    FieldType::varchar(1000, rutile_expr::Collation::Binary)
}

/// The handle, an integer and a text.
fn spec() -> Arc<ScanSpec> {
    let stored =
        |id, field_type| ScanColumn { field_type, from: ColumnFrom::Stored { id, missing: Datum::Int(0) } };
    let columns = vec![
        ScanColumn { field_type: FieldType::bigint(), from: ColumnFrom::Handle },
        stored(1, FieldType::bigint()),
        stored(2, blob()),
    ];
    Arc::new(ScanSpec { source: ScanSource::Rows, columns })
}

fn column(index: usize) -> Expr {
    let ty = if index == 2 { blob() } else { FieldType::bigint() };
    Expr::column(index, "x", ty)
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    registry::resolve(&EvalContext::default(), name, args).unwrap()
}

fn request(steps: Vec<Step>, desc: bool, ts: u64) -> coprocessor::Request {
    let plan = StorePlan { scan: spec(), desc, steps };
    coprocessor::Request {
        tp: wire::REQUEST_KIND,
        data: wire::encode_plan(&plan, &EvalContext::default(), 0),
        ranges: vec![coprocessor::KeyRange { start: key(0), end: key(1 << 40) }],
        start_ts: ts,
        ..coprocessor::Request::default()
    }
}

impl Store {
    fn new() -> Store {
        let (txns, kv) = test_scheduler();
        Store { endpoint: Endpoint::start(txns.clone(), 2).unwrap(), txns, kv }
    }

    async fn prewrite(&self, start_ts: u64, rows: &[(i64, Bytes)]) {
        let mutation = |(handle, value): &(i64, Bytes)| Mutation {
            op: Op::Put as i32,
            key: key(*handle),
            value: value.clone(),
            ..Mutation::default()
        };
        let request = PrewriteRequest {
            mutations: rows.iter().map(mutation).collect(),
            primary_lock: key(rows[0].0),
            start_version: start_ts,
            lock_ttl: 10_000,
            ..PrewriteRequest::default()
        };
        assert!(self.txns.prewrite(request).await.unwrap().errors.is_empty());
    }

    async fn write(&self, start_ts: u64, commit_ts: u64, rows: &[(i64, Bytes)]) {
        self.prewrite(start_ts, rows).await;
        let keys = rows.iter().map(|(handle, _)| key(*handle)).collect();
        let commit = CommitRequest {
            keys,
            start_version: start_ts,
            commit_version: commit_ts,
            ..CommitRequest::default()
        };
        self.txns.commit(&commit).await.unwrap();
    }

    async fn ask(&self, request: coprocessor::Request) -> coprocessor::Response {
        self.endpoint.handle(request).await.expect("the kind is known")
    }

    /// The rows of one page.
    async fn rows(&self, request: coprocessor::Request) -> (Vec<Vec<Datum>>, coprocessor::Response) {
        let response = self.ask(request).await;
        assert_eq!(response.other_error, "");
        let answer = copr::Answer::decode(response.data.clone()).unwrap();
        assert!(answer.error.is_none(), "{:?}", answer.error);
        let mut rows = Vec::new();
        for batch in wire::decode_batches(answer.rows).unwrap() {
            for at in 0..batch.num_rows() {
                let value = |array: &arrow::array::ArrayRef| {
                    let ty = if array.data_type() == &arrow::datatypes::DataType::Int64 {
                        FieldType::bigint()
                    } else {
                        blob()
                    };
                    rutile_expr::array::datum_at(array, &ty, at)
                };
                rows.push(batch.columns().iter().map(value).collect());
            }
        }
        (rows, response)
    }
}

async fn filled(count: i64) -> Store {
    let store = Store::new();
    // Every third value is too long to lie in the version's record.
    let text = |i: i64| if i % 3 == 0 { "long".repeat(100) } else { format!("text {i}") };
    let rows: Vec<_> = (1..=count).map(|i| (i, row_of(i % 10, &text(i)))).collect();
    store.write(10, 20, &rows).await;
    store
}

fn ints(rows: &[Vec<Datum>], place: usize) -> Vec<i64> {
    rows.iter().filter_map(|row| row[place].as_i64()).collect()
}

#[tokio::test]
async fn rows_that_pass_come_whole() {
    let store = filled(1000).await;
    let filter = Step::Filter(vec![call("=", vec![column(1), Expr::int(3)])]);
    let (rows, response) = store.rows(request(vec![filter], false, 30)).await;
    assert_eq!(ints(&rows, 0), (0..100).map(|i| i * 10 + 3).collect::<Vec<_>>());
    assert_eq!(rows[0][2], Datum::Bytes("long".repeat(100).into_bytes()));
    assert_eq!(rows[1][2], Datum::Bytes(b"text 13".to_vec()));
    assert!(response.range.is_none());
    let (before, _) = store.rows(request(Vec::new(), false, 19)).await;
    assert!(before.is_empty());
}

#[tokio::test]
async fn pages_go_on_where_they_stopped() {
    let store = filled(1000).await;
    for desc in [false, true] {
        let mut got = Vec::new();
        let mut next = request(Vec::new(), desc, 30);
        next.paging_size = 100;
        loop {
            let (rows, response) = store.rows(next.clone()).await;
            assert!(rows.len() < 600, "a page of {} rows", rows.len());
            got.extend(ints(&rows, 0));
            let Some(covered) = response.range else { break };
            if desc {
                next.ranges[0].end = covered.start;
            } else {
                next.ranges[0].start = covered.end;
            }
        }
        let mut wanted: Vec<i64> = (1..=1000).collect();
        if desc {
            wanted.reverse();
        }
        assert_eq!(got, wanted);
    }
}

#[tokio::test]
async fn groups_and_first_rows() {
    let store = filled(1000).await;
    let count = AggregateCall { name: "count".into(), args: Vec::new(), ..AggregateCall::default() };
    let step = Step::Aggregate { group: vec![column(1)], calls: vec![count] };
    let (mut groups, _) = store.rows(request(vec![step], false, 30)).await;
    groups.sort_by_key(|row| row[0].as_i64());
    assert_eq!(ints(&groups, 0), (0..10).collect::<Vec<_>>());
    assert_eq!(ints(&groups, 1), vec![100; 10]);
    let top = Step::TopN { keys: vec![(column(1), true), (column(0), false)], limit: 2 };
    let (first, _) = store.rows(request(vec![top], false, 30)).await;
    assert_eq!(ints(&first, 0), [9, 19]);
    let (limited, _) = store.rows(request(vec![Step::Limit(3)], true, 30)).await;
    assert_eq!(ints(&limited, 0), [1000, 999, 998]);
}

#[tokio::test]
async fn versions_and_locks() {
    let store = filled(10).await;
    store.write(40, 50, &[(5, row_of(77, "new"))]).await;
    let value = |rows: &[Vec<Datum>]| ints(rows, 1)[4];
    assert_eq!(value(&store.rows(request(Vec::new(), false, 45)).await.0), 5);
    assert_eq!(value(&store.rows(request(Vec::new(), false, 55)).await.0), 77);
    store.prewrite(60, &[(6, row_of(88, "locked"))]).await;
    assert_eq!(store.rows(request(Vec::new(), false, 55)).await.0.len(), 10);
    let response = store.ask(request(Vec::new(), false, 65)).await;
    assert_eq!(response.locked.expect("a lock in the way").lock_version, 60);
    // Known to commit later than the read.
    let mut bypassing = request(Vec::new(), false, 65);
    bypassing.context = Some(Context { resolved_locks: vec![60], ..Context::default() });
    assert_eq!(store.rows(bypassing).await.0.len(), 10);
}

#[tokio::test]
async fn unchanged_data_need_not_be_computed_again() {
    let store = filled(10).await;
    let mut asked = request(Vec::new(), false, 30);
    asked.is_cache_enabled = true;
    let first = store.ask(asked.clone()).await;
    assert!(first.can_be_cached);
    asked.cache_if_match_version = first.cache_last_version;
    assert!(store.ask(asked.clone()).await.is_cache_hit);
    store.write(40, 50, &[(5, row_of(77, "new"))]).await;
    let again = store.ask(asked).await;
    assert!(!again.is_cache_hit);
    // The next snapshot sees more than this one.
    assert!(!again.can_be_cached);
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_reason() {
    let store = filled(10).await;
    let refused = async |change: &dyn Fn(&mut coprocessor::Request)| {
        let mut request = request(Vec::new(), false, 30);
        change(&mut request);
        let response = store.ask(request).await;
        assert!(response.data.is_empty());
        response.other_error
    };
    assert!(refused(&|r| r.data = Bytes::from_static(b"\xff\xff garbage")).await.contains("malformed plan"));
    assert!(refused(&|r| r.data = Bytes::new()).await.contains("version"));
    assert!(refused(&|r| r.ranges.clear()).await.contains("no ranges"));
    assert!(refused(&|r| r.ranges[0].end = Bytes::new()).await.contains("without bounds"));
    assert!(refused(&|r| r.ranges[0].end = key(-5)).await.contains("cross"));
    assert!(refused(&|r| r.ranges.push(r.ranges[0].clone())).await.contains("not in order"));
    let changed = |change: &dyn Fn(&mut copr::Plan)| {
        let filter = Step::Filter(vec![call("=", vec![column(1), Expr::int(3)])]);
        let mut plan = copr::Plan::decode(request(vec![filter], false, 30).data).unwrap();
        change(&mut plan);
        Bytes::from(plan.encode_to_vec())
    };
    let filter = |plan: &mut copr::Plan, change: &dyn Fn(&mut copr::Expr)| {
        if let Some(copr::step::Step::Filter(filter)) = &mut plan.steps[0].step {
            change(&mut filter.predicates[0]);
        }
    };
    let unknown = changed(&|plan| {
        filter(plan, &|expr| {
            let Some(copr::node::Node::Call(call)) = &mut expr.nodes[2].node else { panic!("a call") };
            call.function = "no_such_function".into();
        });
    });
    assert!(refused(&|r| r.data = unknown.clone()).await.contains("unknown function no_such_function"));
    let starved = changed(&|plan| filter(plan, &|expr| drop(expr.nodes.remove(0))));
    assert!(refused(&|r| r.data = starved.clone()).await.contains("lacks arguments"));
    let outside = changed(&|plan| {
        filter(plan, &|expr| {
            let Some(copr::node::Node::Column(column)) = &mut expr.nodes[0].node else { panic!("a column") };
            column.index = 99;
        });
    });
    assert!(refused(&|r| r.data = outside.clone()).await.contains("no column 99"));
    let newer = changed(&|plan| plan.version = 99);
    assert!(refused(&|r| r.data = newer.clone()).await.contains("version 99"));
    // A call with too few arguments ends its request, not the store.
    let short = changed(&|plan| {
        filter(plan, &|expr| {
            expr.nodes.remove(0);
            let Some(copr::node::Node::Call(call)) = &mut expr.nodes[1].node else { panic!("a call") };
            call.args = 1;
        });
    });
    let _ = refused(&|r| r.data = short.clone()).await;
    assert_eq!(store.rows(request(Vec::new(), false, 30)).await.0.len(), 10);
}

#[tokio::test]
async fn ranges_outside_the_region_are_a_region_error() {
    let store = filled(10).await;
    store.kv.set_end(b"a");
    let response = store.ask(request(Vec::new(), false, 30)).await;
    assert!(response.region_error.is_some_and(|error| error.key_not_in_region.is_some()));
}

#[tokio::test]
async fn evaluation_errors_keep_their_number() {
    let store = filled(10).await;
    let overflow = call("*", vec![call("+", vec![column(1), Expr::int(i64::MAX)]), Expr::int(2)]);
    let response = store.ask(request(vec![Step::Project(vec![overflow])], false, 30)).await;
    let answer = copr::Answer::decode(response.data).unwrap();
    assert_eq!(answer.error.expect("an overflow").code, 1690);
}
