//! A chain of operators over one reader, run by the stores that hold the rows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use rutile_client::{Computation, Computing, KeyRange};
use rutile_expr::store_plan::scan::{PREFIX_LEN, ScanSpec};
use rutile_expr::store_plan::{Step, StorePlan, wire};
use rutile_expr::{Expr, Warnings};
use rutile_proto::copr;

use super::explain::StoreWork;
use super::row_batch::{entries_spec, rows_spec};
use super::{ExecContext, RowStream, aggregate, builder, filter, key_ranges, limit};
use crate::catalog::model::HandleKind;
use crate::error::{Error, Result};
use crate::plan::logical::{AggregateCall, LimitClause};
use crate::plan::physical::{Gather, PhysicalNode, PhysicalPlan};

/// Rows of a region's first page where few rows are wanted.
const FIRST_PAGE_ROWS: u64 = 256;

/// Ranges of so few handles are read here, whatever was expected when the plan was made.
const HANDLES_HERE_MAX: u64 = 512;

/// Whether the chain runs here in this execution, as far as that is known before it reads.
pub(super) fn runs_here(gather: &Gather, ctx: &ExecContext) -> Result<bool> {
    if !ctx.statement.settings.coprocessor {
        return Ok(true);
    }
    let mut leaf = &*gather.input;
    while let Some(below) = leaf.inputs().first() {
        leaf = below;
    }
    let PhysicalNode::TableReader(reader) = &leaf.node else { return Ok(false) };
    if reader.conditions.is_full() || matches!(reader.access.table.handle, HandleKind::Common) {
        return Ok(false);
    }
    let ranges = key_ranges::of_table(&reader.access.table, &reader.conditions, &ctx.eval)?;
    let mut spans = ranges.iter().map(|range| {
        let bits =
            |key: &[u8]| Some(u64::from_be_bytes(key.get(PREFIX_LEN..PREFIX_LEN + 8)?.try_into().ok()?));
        let (start, end) = (bits(&range.start)?, bits(&range.end)?);
        Some(end.saturating_sub(start).saturating_add(1))
    });
    let handles = spans.try_fold(0u64, |sum: u64, span| Some(sum.saturating_add(span?)));
    Ok(handles.is_some_and(|handles| handles <= HANDLES_HERE_MAX))
}

pub(super) fn open(gather: &Gather, plan: &PhysicalPlan, ctx: &ExecContext) -> Result<RowStream> {
    if runs_here(gather, ctx)? {
        return builder::open(&gather.input, ctx);
    }
    let schema = match &gather.input.node {
        PhysicalNode::Aggregate(partial) => aggregate::partial_schema(partial, ctx)?,
        _ => plan.schema.arrow(),
    };
    let mut steps = Vec::new();
    let Chain { spec, ranges, desc, wanted } = chain(&gather.input, &mut steps, ctx)?;
    let store_plan = StorePlan { scan: spec, desc, steps };
    let job = Computation {
        kind: wire::REQUEST_KIND,
        plan: wire::encode_plan(&store_plan, &ctx.eval, ctx.statement.settings.memory_quota_bytes as u64),
        desc,
        keep_order: gather.keep_order,
        // Few rows in order are mostly found in the first region.
        concurrency: if gather.keep_order && wanted.is_some() {
            1
        } else {
            ctx.statement.settings.scan_concurrency
        },
        first_page_rows: if wanted.is_some() { FIRST_PAGE_ROWS } else { 0 },
    };
    let (ctx, input) = (ctx.clone(), (*gather.input).clone());
    let node = super::explain::key(plan);
    let started = async move {
        let view = ctx.statement.txn.read_view().await?;
        let ranges: Vec<KeyRange> = ranges.into();
        if view.has_own_writes(&ranges) {
            // Only here they are known.
            return builder::open(&input, &ctx);
        }
        let computing = view.compute(ranges, job);
        Ok(pages(Gathering { computing, schema, ctx, node, batches: VecDeque::new() }))
    };
    Ok(futures::stream::once(started).try_flatten().boxed())
}

/// What of the chain is not a step.
struct Chain {
    spec: Arc<ScanSpec>,
    ranges: VecDeque<KeyRange>,
    desc: bool,
    /// Rows that a reader has to give at most.
    wanted: Option<usize>,
}

/// The steps of a chain, the reader's first.
fn chain(plan: &PhysicalPlan, steps: &mut Vec<Step>, ctx: &ExecContext) -> Result<Chain> {
    let limit_of = |clause: &Option<LimitClause>| -> Result<Option<usize>> {
        let bounds = clause.as_ref().map(|clause| limit::bounds(clause, &ctx.eval)).transpose()?;
        Ok(bounds.map(limit::Bounds::fetch).filter(|fetch| *fetch != usize::MAX))
    };
    let mut read = |predicates: &[Expr], limit: Option<usize>| {
        if !predicates.is_empty() {
            steps.push(Step::Filter(predicates.to_vec()));
        }
        steps.extend(limit.map(Step::Limit));
    };
    match &plan.node {
        PhysicalNode::TableReader(reader) => {
            let ranges = key_ranges::of_table(&reader.access.table, &reader.conditions, &ctx.eval)?;
            let wanted = limit_of(&reader.limit)?;
            read(&reader.filter, wanted);
            Ok(Chain { spec: rows_spec(&reader.access, &ctx.eval)?, ranges, desc: reader.desc, wanted })
        }
        PhysicalNode::IndexReader(reader) => {
            let (table, index) = (&reader.access.table, &reader.index);
            let ranges = key_ranges::of_index(table, index, &reader.conditions, &ctx.eval)?;
            let wanted = limit_of(&reader.limit)?;
            read(&reader.filter, wanted);
            Ok(Chain { spec: entries_spec(&reader.access, index), ranges, desc: reader.desc, wanted })
        }
        PhysicalNode::Filter { input, predicates } => {
            let below = chain(input, steps, ctx)?;
            steps.push(Step::Filter(predicates.clone()));
            Ok(below)
        }
        PhysicalNode::Project { input, exprs } => {
            let below = chain(input, steps, ctx)?;
            steps.push(Step::Project(exprs.clone()));
            Ok(below)
        }
        PhysicalNode::Aggregate(node) => {
            let below = chain(&node.input, steps, ctx)?;
            let calls = node.calls.iter().map(AggregateCall::resolvable).collect();
            steps.push(Step::Aggregate { group: node.group.clone(), calls });
            Ok(below)
        }
        PhysicalNode::Sort { input, keys, limit } => {
            let below = chain(input, steps, ctx)?;
            let keys = keys.iter().map(|key| (key.expr.clone(), key.desc)).collect();
            let limit = limit_of(limit)?.unwrap_or(usize::MAX);
            steps.push(Step::TopN { keys, limit });
            Ok(below)
        }
        PhysicalNode::Limit { input, limit } => {
            let below = chain(input, steps, ctx)?;
            let wanted = limit_of(&Some(limit.clone()))?;
            steps.extend(wanted.map(Step::Limit));
            Ok(Chain { wanted, ..below })
        }
        _ => Err(Error::internal("a store cannot run this part of a plan")),
    }
}

struct Gathering {
    computing: Computing,
    schema: SchemaRef,
    ctx: ExecContext,
    node: usize,
    batches: VecDeque<RecordBatch>,
}

fn pages(state: Gathering) -> RowStream {
    futures::stream::try_unfold(state, |mut state| async move {
        Ok(state.next().await?.map(|batch| (batch, state)))
    })
    .boxed()
}

impl Gathering {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.batches.pop_front() {
                let columns = batch.columns().to_vec();
                return filter::batch(&self.schema, columns, batch.num_rows()).map(Some);
            }
            self.ctx.statement.check_cancelled()?;
            let page = self.computing.next_page().await?;
            self.note(page.is_none());
            let Some(page) = page else { return Ok(None) };
            let answer = copr::Answer::decode(page)
                .map_err(|e| Error::internal(format!("a store's answer cannot be read: {e}")))?;
            self.take(answer)?;
        }
    }

    fn take(&mut self, answer: copr::Answer) -> Result<()> {
        let warnings: &Warnings = &self.ctx.eval.warnings;
        wire::add_warnings(warnings, answer.warnings, answer.warning_count);
        if let Some(error) = answer.error {
            return Err(wire::decode_error(error).into());
        }
        if let (Some(profile), Some(summary)) = (&self.ctx.profile, answer.summary) {
            profile.add_store_work(self.node, |work: &mut StoreWork| {
                work.scanned_keys += summary.scanned_keys;
                work.returned_rows += summary.returned_rows;
                work.store_time_ns += summary.time_ns;
            });
        }
        if !answer.rows.is_empty() {
            self.batches.extend(wire::decode_batches(answer.rows)?);
        }
        Ok(())
    }

    /// Tells EXPLAIN ANALYZE what it took.
    fn note(&self, at_end: bool) {
        if let Some(profile) = self.ctx.profile.as_ref().filter(|_| at_end) {
            let stats = self.computing.stats();
            profile.add_store_work(self.node, |work: &mut StoreWork| {
                work.regions += stats.regions.load(Ordering::Relaxed);
                work.requests += stats.requests.load(Ordering::Relaxed);
                work.retries += stats.retries.load(Ordering::Relaxed);
                work.bytes += stats.bytes.load(Ordering::Relaxed);
            });
        }
    }
}
