//! GROUP BY, DISTINCT and aggregate functions, in one stage or in two.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use futures::{StreamExt, TryStreamExt};
use rutile_expr::registry;
use rutile_expr::store_plan::aggregate::{Grouping, Stage};
use rutile_expr::types::field_type::Family;

use super::few_rows::{self, Read};
use super::{ExecContext, RowStream, builder, filter, gather, operator};
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
    if node.stage == Stage::Final
        && let PhysicalNode::Gather(gather) = &node.input.node
        && let PhysicalNode::Aggregate(partial) = &gather.input.node
        && gather::runs_here(gather, ctx)?
    {
        // Nothing is gained by two stages in one place.
        let whole = AggregateNode { stage: Stage::Whole, ..partial.clone() };
        return open(&whole, plan, ctx);
    }
    // Zeros of both signs are one value, which the keys of few rows would tell apart.
    let bytewise = node.group.iter().all(|expr| expr.field_type().family() != Family::Double);
    if node.calls.is_empty() && node.stage == Stage::Whole && bytewise {
        return distinct(node, plan, ctx);
    }
    grouped(node, plan, ctx, None)
}

/// Groups without calls: few rows are told apart as one batch.
fn distinct(node: &AggregateNode, plan: &PhysicalPlan, ctx: &ExecContext) -> Result<RowStream> {
    let input = builder::open(&node.input, ctx)?;
    let (node, plan, ctx) = (node.clone(), plan.clone(), ctx.clone());
    let rows = async move {
        match few_rows::read(input).await? {
            Read::All(batches) => {
                let batch = concat_batches(&node.input.schema.arrow(), &batches)?;
                let distinct = distinct_of(&batch, &node, &plan, &ctx)?;
                Ok(futures::stream::once(async move { Ok(distinct) }).boxed())
            }
            Read::Many(rows) => grouped(&node, &plan, &ctx, Some(rows)),
        }
    };
    Ok(futures::stream::once(rows).try_flatten().boxed())
}

/// One row of each set of rows with equal keys: the first.
fn distinct_of(
    batch: &RecordBatch,
    node: &AggregateNode,
    plan: &PhysicalPlan,
    ctx: &ExecContext,
) -> Result<RecordBatch> {
    let mut fields = Vec::with_capacity(node.group.len());
    let mut keys = Vec::with_capacity(node.group.len());
    let mut values = Vec::with_capacity(node.group.len());
    for expr in &node.group {
        let value = expr.eval(&ctx.eval, batch)?;
        let key_expr = registry::sort_key(expr.clone());
        let key = if key_expr == *expr { Arc::clone(&value) } else { key_expr.eval(&ctx.eval, batch)? };
        fields.push(SortField::new(key.data_type().clone()));
        keys.push(key);
        values.push(value);
    }
    let converter = RowConverter::new(fields)?;
    let rows = converter.convert_columns(&keys)?;
    let mut seen = HashSet::with_capacity(rows.num_rows());
    let first: UInt32Array =
        (0..rows.num_rows()).filter(|at| seen.insert(rows.row(*at).data())).map(|at| at as u32).collect();
    let columns = values.iter().map(|value| take(value, &first, None)).collect::<Result<Vec<_>, _>>()?;
    filter::batch(&plan.schema.arrow(), columns, first.len())
}

/// Through the operator; `input` if rows have been looked at already.
fn grouped(
    node: &AggregateNode,
    plan: &PhysicalPlan,
    ctx: &ExecContext,
    input: Option<RowStream>,
) -> Result<RowStream> {
    let schema = plan.schema.arrow();
    let grouping = grouping(node, ctx)?;
    let input_schema = match node.stage {
        Stage::Final => grouping.partial_schema()?,
        Stage::Whole | Stage::Partial => node.input.schema.arrow(),
    };
    let input = match input {
        Some(input) => input,
        None => builder::open(&node.input, ctx)?,
    };
    let input = operator::input(input, input_schema);
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
