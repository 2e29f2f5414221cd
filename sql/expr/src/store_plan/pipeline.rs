//! The steps of a plan over a stream of rows.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::{SortOptions, filter_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::Result as DfResult;
use datafusion_execution::TaskContext;
use datafusion_physical_expr_common::sort_expr::{LexOrdering, PhysicalSortExpr};
use datafusion_physical_plan::sorts::sort::SortExec;
use futures::StreamExt;
use futures::stream::BoxStream;
use rand::Rng as _;

use super::Step;
use super::aggregate::{Grouping, Stage};
use crate::batch;
use crate::context::EvalContext;
use crate::error::Result;
use crate::expr::Expr;
use crate::func::registry;
use crate::operator;
use crate::physical::PhysicalExpression;

/// Rows on their way.
pub type Batches = BoxStream<'static, DfResult<RecordBatch>>;

/// The schema of computed columns.
#[must_use]
pub fn project_schema(exprs: &[Expr]) -> SchemaRef {
    let field = |(i, expr): (usize, &Expr)| Field::new(format!("c{i}"), expr.field_type().arrow(), true);
    Arc::new(Schema::new(exprs.iter().enumerate().map(field).collect::<Vec<_>>()))
}

/// The rows that come out of the steps, and their schema. Nothing runs until the stream is polled.
pub fn run(
    steps: &[Step],
    mut rows: Batches,
    mut schema: SchemaRef,
    ctx: &Arc<EvalContext>,
    task: &Arc<TaskContext>,
) -> Result<(Batches, SchemaRef)> {
    for step in steps {
        (rows, schema) = add(step, rows, schema, ctx, task)?;
    }
    Ok((rows, schema))
}

fn add(
    step: &Step,
    rows: Batches,
    schema: SchemaRef,
    ctx: &Arc<EvalContext>,
    task: &Arc<TaskContext>,
) -> Result<(Batches, SchemaRef)> {
    let ctx = Arc::clone(ctx);
    Ok(match step {
        Step::Filter(predicates) => {
            let predicates = predicates.clone();
            (rows.map(move |rows| Ok(batch::filter(rows?, &predicates, &ctx)?)).boxed(), schema)
        }
        Step::Project(exprs) => {
            let (exprs, output) = (exprs.clone(), project_schema(exprs));
            let schema = Arc::clone(&output);
            (rows.map(move |rows| Ok(batch::project(&rows?, &exprs, &schema, &ctx)?)).boxed(), output)
        }
        Step::Aggregate { group, calls } => {
            let grouping = Grouping::new(group, calls, &schema, &ctx)?;
            let operator = grouping.operator(Stage::Partial, operator::input(rows, schema))?;
            let schema = operator.schema();
            (operator.execute(0, Arc::clone(task))?.boxed(), schema)
        }
        Step::TopN { keys, limit } => {
            let ordering = keys.iter().map(|(expr, desc)| PhysicalSortExpr {
                expr: PhysicalExpression::over(registry::sort_key(expr.clone()), &schema, &ctx),
                options: SortOptions { descending: *desc, nulls_first: !*desc },
            });
            let Some(ordering) = LexOrdering::new(ordering) else { return Ok((rows, schema)) };
            let source = operator::input(rows, Arc::clone(&schema));
            let sort = SortExec::new(ordering, source).with_fetch(Some(*limit));
            (operator::execute(Arc::new(sort), task)?, schema)
        }
        Step::Limit(limit) => (limited(rows, *limit), schema),
        Step::Sample(rate) => {
            let rate = *rate;
            (rows.map(move |rows| sampled(&rows?, rate)).boxed(), schema)
        }
    })
}

fn limited(rows: Batches, limit: usize) -> Batches {
    let state = (rows, limit);
    futures::stream::try_unfold(state, |(mut rows, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let Some(batch) = rows.next().await.transpose()? else { return Ok(None) };
        let batch = batch.slice(0, batch.num_rows().min(left));
        let left = left - batch.num_rows();
        Ok(Some((batch, (rows, left))))
    })
    .boxed()
}

fn sampled(rows: &RecordBatch, rate: f64) -> DfResult<RecordBatch> {
    let mut random = rand::rng();
    let keep: BooleanArray = (0..rows.num_rows()).map(|_| Some(random.random_bool(rate))).collect();
    Ok(filter_record_batch(rows, &keep)?)
}
