//! Physical plan to rows.
//!
//! [`execute`] runs a statement: first its uncorrelated subqueries, whose values join the parameters, then its body. A query is
//! opened from the leaves up ([`builder`]): each node becomes a stream of batches over its inputs' streams. Readers, filters
//! and projections are ours; sorting, hashing and grouping are DataFusion's operators, each run over its input streams
//! ([`operator`]). A point get builds nothing at all. Dropping a stream stops everything below it.

pub mod aggregate;
pub mod apply;
pub mod batch_point_get;
pub mod builder;
pub mod delete;
pub mod dml;
pub mod explain;
mod few_rows;
pub mod filter;
pub mod gather;
pub mod index_join;
pub mod index_lookup;
pub mod index_reader;
pub mod insert;
pub mod join;
pub mod key_ranges;
pub mod limit;
pub mod load_data;
mod load_lines;
pub mod lock;
pub mod mem_table;
pub mod operator;
pub mod point_get;
pub mod point_read;
pub mod replace;
pub mod row_batch;
pub mod sort;
pub mod table_reader;
pub mod update;

use std::sync::{Arc, OnceLock};

use arrow::record_batch::RecordBatch;
use datafusion_execution::TaskContext;
use futures::StreamExt;
use futures::stream::BoxStream;
use rutile_expr::EvalContext;
use rutile_expr::types::Datum;

use crate::context::{Output, Rows, StatementContext};
use crate::error::{Error, Result};
use crate::plan::physical::{PhysicalNode, PhysicalPlan};
use crate::plan::{Plan, PlanBody, SubqueryKind};

/// Batches of rows as they are computed.
pub type RowStream = BoxStream<'static, Result<RecordBatch>>;

/// What the operators of one execution share. Cheap to clone.
#[derive(Clone)]
pub struct ExecContext {
    pub statement: Arc<StatementContext>,
    /// The statement's own, with the values of its subqueries behind the parameters.
    pub eval: Arc<EvalContext>,
    task: Arc<OnceLock<Arc<TaskContext>>>,
    /// Filled by EXPLAIN ANALYZE.
    pub(crate) profile: Option<Arc<explain::Profile>>,
}

impl ExecContext {
    /// The context of a statement that has no subqueries yet.
    pub fn new(statement: Arc<StatementContext>) -> Self {
        let eval = Arc::clone(&statement.eval);
        ExecContext { statement, eval, task: Arc::default(), profile: None }
    }

    /// The same with a value in a parameter slot.
    pub fn with_params(&self, values: impl IntoIterator<Item = (usize, Datum)>) -> Self {
        let mut params = self.eval.params.clone();
        for (slot, value) in values {
            if params.len() <= slot {
                params.resize(slot + 1, Datum::Null);
            }
            params[slot] = value;
        }
        ExecContext { eval: with_params(&self.eval, params), ..self.clone() }
    }

    /// What DataFusion's operators run in: the statement's memory quota.
    pub fn task(&self) -> Arc<TaskContext> {
        let quota = self.statement.settings.memory_quota_bytes;
        Arc::clone(self.task.get_or_init(|| operator::task_context(quota)))
    }
}

/// The same context with other parameters.
fn with_params(eval: &EvalContext, params: Vec<Datum>) -> Arc<EvalContext> {
    let mut context = eval.for_folding();
    context.params = params;
    context.warnings = Arc::clone(&eval.warnings);
    context.on_bad_value = eval.on_bad_value;
    Arc::new(context)
}

/// Runs a statement.
pub async fn execute(plan: &Plan, statement: &Arc<StatementContext>) -> Result<Output> {
    let ctx = prepare(plan, ExecContext::new(Arc::clone(statement))).await?;
    match &plan.body {
        PlanBody::Query(query) => {
            let schema = Arc::clone(&query.schema);
            if let PhysicalNode::PointGet(get) = &query.node {
                let rows = point_get::run(get, &query.schema, &ctx, true).await?;
                return Ok(Output::Rows { schema, rows: Rows::Batches(rows.into_iter().collect()) });
            }
            let rows = builder::open(query, &ctx)?;
            Ok(Output::Rows { schema, rows: Rows::Stream(rows) })
        }
        PlanBody::Explain(plan) => Box::pin(explain::run(plan, ctx)).await,
        PlanBody::Insert(plan) => Box::pin(insert::execute(plan, &ctx)).await.map(|()| Output::Done),
        PlanBody::Update(plan) => Box::pin(update::execute(plan, &ctx)).await.map(|()| Output::Done),
        PlanBody::Delete(plan) => Box::pin(delete::execute(plan, &ctx)).await.map(|()| Output::Done),
    }
}

/// Runs the subqueries of a plan; the context answered knows their values.
pub(crate) async fn prepare(plan: &Plan, mut ctx: ExecContext) -> Result<ExecContext> {
    for subquery in &plan.subqueries {
        let value = subquery_value(&subquery.plan, subquery.kind, &ctx).await?;
        ctx = ctx.with_params([(subquery.slot, value)]);
    }
    Ok(ctx)
}

/// The value of a subquery.
pub(crate) async fn subquery_value(
    plan: &PhysicalPlan,
    kind: SubqueryKind,
    ctx: &ExecContext,
) -> Result<Datum> {
    let mut rows = builder::open(plan, ctx)?;
    let mut value: Option<Datum> = None;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        if batch.num_rows() == 0 {
            continue;
        }
        if kind == SubqueryKind::Exists {
            return Ok(Datum::bool(true));
        }
        if value.is_some() || batch.num_rows() > 1 {
            return Err(Error::SubqueryNotOneRow);
        }
        value = Some(rutile_expr::array::datum_at(batch.column(0), &plan.schema.columns[0].ty, 0));
    }
    Ok(match kind {
        SubqueryKind::Exists => Datum::bool(false),
        SubqueryKind::Scalar => value.unwrap_or(Datum::Null),
    })
}
