//! ORDER BY, with a LIMIT as a heap of the best rows. Few rows are sorted as one batch: an operator costs more than that.

use std::sync::Arc;

use arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::record_batch::RecordBatch;
use datafusion_physical_expr_common::sort_expr::{LexOrdering, PhysicalSortExpr};
use datafusion_physical_plan::sorts::sort::SortExec;
use futures::{StreamExt, TryStreamExt};
use rutile_expr::physical::PhysicalExpression;
use rutile_expr::registry;

use super::few_rows::{self, Read};
use super::{ExecContext, RowStream, builder, limit, operator};
use crate::error::Result;
use crate::plan::logical::{LimitClause, SortKey};
use crate::plan::physical::PhysicalPlan;

pub(super) fn open(
    input: &PhysicalPlan,
    keys: &[SortKey],
    clause: Option<&LimitClause>,
    ctx: &ExecContext,
) -> Result<RowStream> {
    let stream = builder::open(input, ctx)?;
    let bounds = clause.map(|clause| limit::bounds(clause, &ctx.eval)).transpose()?;
    if bounds.is_some_and(|bounds| bounds.count == 0) {
        return Ok(Box::pin(futures::stream::empty()));
    }
    let (ctx, keys, schema) = (ctx.clone(), keys.to_vec(), input.schema.arrow());
    let fetch = bounds.map(|bounds| bounds.fetch()).filter(|fetch| *fetch != usize::MAX);
    let sorted = async move {
        match few_rows::read(stream).await? {
            Read::All(batches) => {
                let batch = concat_batches(&schema, &batches)?;
                let sorted = sort_batch(&batch, &keys, fetch, &ctx)?;
                Ok(futures::stream::once(async move { Ok(sorted) }).boxed())
            }
            Read::Many(rows) => {
                let Some(ordering) = ordering(&keys, &ctx) else { return Ok(rows) };
                let source = operator::input(rows, schema);
                let sort = SortExec::new(ordering, source).with_fetch(fetch);
                operator::run(Arc::new(sort), ctx.task())
            }
        }
    };
    let sorted = futures::stream::once(sorted).try_flatten().boxed();
    Ok(match bounds {
        Some(bounds) => limit::limited(sorted, bounds),
        None => sorted,
    })
}

/// The first `fetch` rows in order.
fn sort_batch(
    batch: &RecordBatch,
    keys: &[SortKey],
    fetch: Option<usize>,
    ctx: &ExecContext,
) -> Result<RecordBatch> {
    if batch.num_rows() < 2 || keys.is_empty() {
        return Ok(batch.slice(0, batch.num_rows().min(fetch.unwrap_or(usize::MAX))));
    }
    let mut columns = Vec::with_capacity(keys.len());
    for key in keys {
        let values = registry::sort_key(key.expr.clone()).eval(&ctx.eval, batch)?;
        columns.push(SortColumn { values, options: Some(options(key)) });
    }
    Ok(take_record_batch(batch, &lexsort_to_indices(&columns, fetch)?)?)
}

/// MySQL puts NULL below every value.
fn options(key: &SortKey) -> SortOptions {
    SortOptions { descending: key.desc, nulls_first: !key.desc }
}

fn ordering(keys: &[SortKey], ctx: &ExecContext) -> Option<LexOrdering> {
    LexOrdering::new(keys.iter().map(|key| PhysicalSortExpr {
        expr: PhysicalExpression::key(key.expr.clone(), &ctx.eval),
        options: options(key),
    }))
}
