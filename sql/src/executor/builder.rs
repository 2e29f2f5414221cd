//! From a plan node to its stream of batches.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use rutile_expr::Expr;

use super::{ExecContext, RowStream, explain, filter};
use crate::error::Result;
use crate::plan::SchemaRef;
use crate::plan::physical::{PhysicalNode, PhysicalPlan};

/// Opens a plan: nothing runs until the stream is polled.
pub fn open(plan: &PhysicalPlan, ctx: &ExecContext) -> Result<RowStream> {
    let stream = open_node(plan, ctx)?;
    Ok(match &ctx.profile {
        Some(profile) => explain::measured(stream, plan, Arc::clone(profile)),
        None => stream,
    })
}

fn open_node(plan: &PhysicalPlan, ctx: &ExecContext) -> Result<RowStream> {
    match &plan.node {
        PhysicalNode::PointGet(get) => Ok(super::point_get::open(get, &plan.schema, ctx)),
        PhysicalNode::BatchPointGet(get) => Ok(super::batch_point_get::open(get, &plan.schema, ctx)),
        PhysicalNode::TableReader(reader) => super::table_reader::open(reader, &plan.schema, ctx),
        PhysicalNode::IndexReader(reader) => super::index_reader::open(reader, &plan.schema, ctx),
        PhysicalNode::IndexLookup(reader) => super::index_lookup::open(reader, &plan.schema, ctx),
        PhysicalNode::MemTable(table) => Ok(super::mem_table::open(table, &plan.schema, ctx)),
        PhysicalNode::Values { rows } => values(rows, &plan.schema, ctx),
        PhysicalNode::Filter { input, predicates } => {
            let (predicates, eval) = (predicates.clone(), Arc::clone(&ctx.eval));
            let input = open(input, ctx)?;
            Ok(input.map(move |batch| filter::filter(batch?, &predicates, &eval)).boxed())
        }
        PhysicalNode::Project { input, exprs } => {
            let (exprs, eval, schema) = (exprs.clone(), Arc::clone(&ctx.eval), plan.schema.arrow());
            let input = open(input, ctx)?;
            let by_row = exprs.iter().any(filter::assigns);
            let project = if by_row { filter::project_by_row } else { filter::project };
            Ok(input.map(move |batch| project(&batch?, &exprs, &schema, &eval)).boxed())
        }
        PhysicalNode::HashJoin(join) => super::join::hash_join(join, plan, ctx),
        PhysicalNode::LoopJoin(join) => super::join::loop_join(join, plan, ctx),
        PhysicalNode::IndexJoin(join) => super::index_join::open(join, plan, ctx),
        PhysicalNode::Aggregate(aggregate) => super::aggregate::open(aggregate, plan, ctx),
        PhysicalNode::Sort { input, keys, limit } => super::sort::open(input, keys, limit.as_ref(), ctx),
        PhysicalNode::Limit { input, limit } => {
            let bounds = super::limit::bounds(limit, &ctx.eval)?;
            Ok(super::limit::limited(open(input, ctx)?, bounds))
        }
        PhysicalNode::Union { inputs } => union(inputs, &plan.schema, ctx),
        PhysicalNode::Gather(gather) => super::gather::open(gather, plan, ctx),
        PhysicalNode::Apply(apply) => super::apply::open(apply, &plan.schema, ctx),
    }
}

fn values(rows: &[Vec<Expr>], schema: &SchemaRef, ctx: &ExecContext) -> Result<RowStream> {
    let eval = &ctx.eval;
    let mut arrays = Vec::with_capacity(schema.len());
    for (place, column) in schema.columns.iter().enumerate() {
        let mut builder = rutile_expr::array::ColumnBuilder::new(&column.ty, rows.len());
        for row in rows {
            builder.push(&row[place].eval_scalar(eval)?)?;
        }
        arrays.push(builder.finish());
    }
    let batch = filter::batch(&schema.arrow(), arrays, rows.len())?;
    Ok(futures::stream::once(async move { Ok(batch) }).boxed())
}

/// One input after the other.
fn union(inputs: &[PhysicalPlan], schema: &SchemaRef, ctx: &ExecContext) -> Result<RowStream> {
    let streams: Vec<RowStream> = inputs.iter().map(|input| open(input, ctx)).collect::<Result<_>>()?;
    let schema = schema.arrow();
    let renamed = futures::stream::iter(streams).flatten().map(move |batch: Result<RecordBatch>| {
        let batch = batch?;
        filter::batch(&schema, batch.columns().to_vec(), batch.num_rows())
    });
    Ok(renamed.boxed())
}
