//! GROUP BY, DISTINCT and aggregate functions, in one stage or in two.

use std::sync::Arc;

use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use futures::StreamExt;
use rutile_expr::store_plan::aggregate::{Grouping, Stage};

use super::{ExecContext, RowStream, builder, filter, operator};
use crate::error::{Error, Result};
use crate::plan::logical::AggregateCall;
use crate::plan::physical::{AggregateNode, PhysicalNode, PhysicalPlan};

pub(super) fn open(node: &AggregateNode, plan: &PhysicalPlan, ctx: &ExecContext) -> Result<RowStream> {
    let schema = plan.schema.arrow();
    if node.group.is_empty() && node.calls.is_empty() {
        // One group, of which nobody reads anything.
        let batch = filter::batch(&schema, Vec::new(), 1)?;
        return Ok(futures::stream::once(async move { Ok(batch) }).boxed());
    }
    let grouping = grouping(node, ctx)?;
    let input_schema = match node.stage {
        Stage::Final => grouping.partial_schema()?,
        Stage::Whole | Stage::Partial => node.input.schema.arrow(),
    };
    let input = operator::input(builder::open(&node.input, ctx)?, input_schema);
    let rows = operator::run(grouping.operator(node.stage, input)?, ctx.task())?;
    if node.stage == Stage::Partial {
        return Ok(rows);
    }
    let order = grouping.order().to_vec();
    Ok(rows
        .map(move |batch| {
            let batch = batch?;
            let columns = order.iter().map(|place| Arc::clone(batch.column(*place))).collect();
            filter::batch(&schema, columns, batch.num_rows())
        })
        .boxed())
}

/// The schema of what a partial stage gives.
pub(super) fn partial_schema(node: &AggregateNode, ctx: &ExecContext) -> Result<ArrowSchemaRef> {
    Ok(grouping(node, ctx)?.partial_schema()?)
}

fn grouping(node: &AggregateNode, ctx: &ExecContext) -> Result<Grouping> {
    let calls: Vec<_> = node.calls.iter().map(AggregateCall::resolvable).collect();
    let rows = rows_below(node)?.schema.arrow();
    Ok(Grouping::new(&node.group, &calls, &rows, &ctx.eval)?)
}

/// What gives the rows that are grouped.
fn rows_below(node: &AggregateNode) -> Result<&PhysicalPlan> {
    if node.stage != Stage::Final {
        return Ok(&node.input);
    }
    if let PhysicalNode::Gather(gather) = &node.input.node
        && let PhysicalNode::Aggregate(partial) = &gather.input.node
    {
        return Ok(&partial.input);
    }
    Err(Error::internal("a final aggregation has no partial one below"))
}
