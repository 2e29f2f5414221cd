//! EXPLAIN and EXPLAIN ANALYZE: the plan as a tree, and what each node did.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use parking_lot::Mutex;

use super::{ExecContext, RowStream, builder, filter, prepare};
use crate::context::{Output, Rows};
use crate::error::Result;
use crate::plan::explain::describe;
use crate::plan::{ExplainPlan, PhysicalPlan, Plan, PlanBody};

/// What the nodes of one execution did, by the node's address in the plan.
#[derive(Debug, Default)]
pub struct Profile {
    nodes: Mutex<HashMap<usize, Measure>>,
}

/// One node's rows, batches and time; the time includes its inputs'.
#[derive(Debug, Default, Clone, Copy)]
pub struct Measure {
    pub rows: usize,
    pub batches: usize,
    pub time: Duration,
    /// Of a node whose input ran in the stores.
    pub stores: Option<StoreWork>,
}

/// What the stores did for a node.
#[derive(Debug, Default, Clone, Copy)]
pub struct StoreWork {
    pub regions: u64,
    pub requests: u64,
    pub retries: u64,
    pub scanned_keys: u64,
    pub returned_rows: u64,
    /// Bytes of answers.
    pub bytes: u64,
    /// Added up over all pages.
    pub store_time_ns: u64,
}

impl Profile {
    /// Adds to what the stores did for a node.
    pub fn add_store_work(&self, node: usize, add: impl FnOnce(&mut StoreWork)) {
        let mut nodes = self.nodes.lock();
        add(nodes.entry(node).or_default().stores.get_or_insert_default());
    }
}

impl Measure {
    fn text(&self) -> String {
        let own = format!("time:{:?}, loops:{}", self.time, self.batches);
        let Some(work) = self.stores else { return own };
        format!(
            "{own}, regions:{}, requests:{}, retries:{}, scanned keys:{}, returned rows:{}, bytes:{}, store time:{:?}",
            work.regions,
            work.requests,
            work.retries,
            work.scanned_keys,
            work.returned_rows,
            work.bytes,
            Duration::from_nanos(work.store_time_ns)
        )
    }
}

/// What a node is known by.
pub(super) fn key(plan: &PhysicalPlan) -> usize {
    std::ptr::from_ref(plan) as usize
}

/// Counts what a node's stream gives.
pub(super) fn measured(stream: RowStream, plan: &PhysicalPlan, profile: Arc<Profile>) -> RowStream {
    let node = key(plan);
    profile.nodes.lock().entry(node).or_default();
    let state = (stream, profile);
    futures::stream::unfold(state, move |(mut stream, profile)| async move {
        let start = Instant::now();
        let batch = stream.next().await;
        let mut nodes = profile.nodes.lock();
        let measure = nodes.entry(node).or_default();
        measure.time += start.elapsed();
        if let Some(Ok(batch)) = &batch {
            measure.rows += batch.num_rows();
            measure.batches += 1;
        }
        drop(nodes);
        batch.map(|batch| (batch, (stream, profile)))
    })
    .boxed()
}

/// Answers an EXPLAIN.
pub(super) async fn run(explain: &ExplainPlan, ctx: ExecContext) -> Result<Output> {
    let mut profile = None;
    if explain.analyze {
        profile = Some(analyze(&explain.target, ctx).await?);
    }
    let measure = |plan: &PhysicalPlan| {
        let nodes = profile.as_ref()?.nodes.lock();
        let measure = nodes.get(&key(plan)).copied().unwrap_or_default();
        Some((measure.rows, measure.text()))
    };
    let lines = describe(&explain.target, &measure);
    let schema = Arc::clone(&explain.schema);
    let mut builders: Vec<_> = schema
        .columns
        .iter()
        .map(|column| rutile_expr::array::ColumnBuilder::new(&column.ty, lines.len()))
        .collect();
    for line in &lines {
        for (builder, cell) in builders.iter_mut().zip(line) {
            builder.push(&cell.as_str().into())?;
        }
    }
    let arrays = builders.iter_mut().map(rutile_expr::array::ColumnBuilder::finish).collect();
    let batch = filter::batch(&schema.arrow(), arrays, lines.len())?;
    Ok(Output::Rows { schema, rows: Rows::Batches(vec![batch]) })
}

/// Runs a query for its measurements.
async fn analyze(plan: &Plan, ctx: ExecContext) -> Result<Arc<Profile>> {
    let profile = Arc::new(Profile::default());
    let ctx = ExecContext { profile: Some(Arc::clone(&profile)), ..ctx };
    let ctx = prepare(plan, ctx).await?;
    let PlanBody::Query(query) = &plan.body else {
        return Err(crate::error::Error::not_supported("EXPLAIN ANALYZE of a statement that changes rows"));
    };
    let mut rows = builder::open(query, &ctx)?;
    while let Some(batch) = rows.next().await {
        batch?;
    }
    Ok(profile)
}
