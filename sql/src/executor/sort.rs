//! ORDER BY, with a LIMIT as a heap of the best rows.

use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion_physical_expr_common::sort_expr::{LexOrdering, PhysicalSortExpr};
use datafusion_physical_plan::sorts::sort::SortExec;
use rutile_expr::physical::PhysicalExpression;

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
    let Some(ordering) = ordering(keys, ctx) else {
        return Ok(match bounds {
            Some(bounds) => limit::limited(stream, bounds),
            None => stream,
        });
    };
    let source = operator::input(stream, input.schema.arrow());
    let fetch = bounds.map(|bounds| bounds.fetch()).filter(|fetch| *fetch != usize::MAX);
    let sorted = operator::run(Arc::new(SortExec::new(ordering, source).with_fetch(fetch)), ctx.task())?;
    Ok(match bounds {
        Some(bounds) => limit::limited(sorted, bounds),
        None => sorted,
    })
}

/// MySQL puts NULL below every value.
pub(super) fn ordering(keys: &[SortKey], ctx: &ExecContext) -> Option<LexOrdering> {
    LexOrdering::new(keys.iter().map(|key| PhysicalSortExpr {
        expr: PhysicalExpression::key(key.expr.clone(), &ctx.eval),
        options: SortOptions { descending: key.desc, nulls_first: !key.desc },
    }))
}
