//! Joining with a table by its key: the keys of some outer rows are looked up together, and the rows found are hashed against them.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion_common::{JoinSide, JoinType, NullEquality};
use datafusion_physical_plan::joins::{HashJoinExec, PartitionMode};
use futures::{StreamExt, TryStreamExt};
use rutile_expr::Expr;
use rutile_expr::array::datum_at;
use rutile_expr::physical::PhysicalExpression;
use rutile_expr::types::Datum;

use super::{ExecContext, RowStream, builder, filter, join, operator};
use crate::error::{Error, Result};
use crate::plan::SchemaRef;
use crate::plan::logical::JoinKind;
use crate::plan::physical::{IndexJoin, PhysicalNode, PhysicalPlan};
use crate::plan::range::RangeExpr;

/// Outer rows whose keys are looked up together.
const OUTER_ROWS_MAX: usize = 4096;
/// Of the first lookup.
const OUTER_ROWS_MIN: usize = 64;

pub(super) fn open(node: &IndexJoin, plan: &PhysicalPlan, ctx: &ExecContext) -> Result<RowStream> {
    let outer = builder::open(&node.outer, ctx)?;
    let (node, schema, ctx) = (Arc::new(node.clone()), Arc::clone(&plan.schema), ctx.clone());
    let joined =
        chunks(outer, node.outer.schema.arrow()).map(move |chunk| join_chunk(&node, chunk?, &schema, &ctx));
    Ok(joined.try_flatten().boxed())
}

/// The outer rows in pieces that are worth a lookup, however few each batch has. The first pieces are small: few rows may be
/// wanted.
fn chunks(outer: RowStream, schema: arrow::datatypes::SchemaRef) -> RowStream {
    let state = (outer, Vec::<RecordBatch>::new(), OUTER_ROWS_MIN);
    futures::stream::try_unfold(state, move |(mut outer, mut waiting, size)| {
        let schema = Arc::clone(&schema);
        async move {
            let mut rows: usize = waiting.iter().map(RecordBatch::num_rows).sum();
            while rows < size {
                let Some(batch) = outer.next().await else { break };
                let batch = batch?;
                rows += batch.num_rows();
                waiting.push(batch);
            }
            if rows == 0 {
                return Ok(None);
            }
            let all = arrow::compute::concat_batches(&schema, &waiting)?;
            let taken = size.min(rows);
            let rest = all.slice(taken, rows - taken);
            let waiting = if rest.num_rows() > 0 { vec![rest] } else { Vec::new() };
            Ok(Some((all.slice(0, taken), (outer, waiting, (size * 4).min(OUTER_ROWS_MAX)))))
        }
    })
    .boxed()
}

fn join_chunk(
    node: &IndexJoin,
    chunk: RecordBatch,
    schema: &SchemaRef,
    ctx: &ExecContext,
) -> Result<RowStream> {
    let mut inner = (*node.inner).clone();
    set_keys(&mut inner, keys_of(&node.key, &chunk, ctx)?)?;
    let found = operator::input(builder::open(&inner, ctx)?, inner.schema.arrow());
    let outer = futures::stream::once(async move { Ok(chunk) }).boxed();
    let outer = operator::input(outer, node.outer.schema.arrow());
    let key = |expr: &Expr| PhysicalExpression::value(expr.clone(), &ctx.eval);
    let on = node.on.iter().map(|(outer, inner)| (key(inner), key(outer))).collect();
    let inputs = [(&*node.outer, JoinSide::Right), (&*node.inner, JoinSide::Left)];
    let condition = join::condition(&node.filter, inputs, ctx);
    let kind = match node.kind {
        JoinKind::Inner => JoinType::Inner,
        JoinKind::Left => JoinType::Right,
        JoinKind::Semi => JoinType::RightSemi,
        JoinKind::Anti => JoinType::RightAnti,
        JoinKind::Right | JoinKind::NullAwareAnti | JoinKind::Mark => {
            return Err(Error::internal("no index join of this kind"));
        }
    };
    let (mode, nulls) = (PartitionMode::CollectLeft, NullEquality::NullEqualsNothing);
    let operator = HashJoinExec::try_new(found, outer, on, condition, &kind, None, mode, nulls, false)?;
    let rows = operator::run(Arc::new(operator), ctx.task())?;
    // The operator puts what it found first.
    let split =
        if matches!(node.kind, JoinKind::Inner | JoinKind::Left) { node.inner.schema.len() } else { 0 };
    let schema = schema.arrow();
    Ok(rows
        .map(move |batch| {
            let batch = batch?;
            let (found, outer) = batch.columns().split_at(split);
            filter::batch(&schema, outer.iter().chain(found).cloned().collect(), batch.num_rows())
        })
        .boxed())
}

/// The distinct values of the key; NULL finds nothing.
fn keys_of(key: &Expr, chunk: &RecordBatch, ctx: &ExecContext) -> Result<Vec<Expr>> {
    let array = key.eval(&ctx.eval, chunk)?;
    let ty = key.field_type();
    let mut keys: Vec<Datum> = Vec::with_capacity(chunk.num_rows());
    for row in 0..chunk.num_rows() {
        let value = datum_at(&array, ty, row);
        // Neighbours are often equal; the ranges made of the keys drop other repetitions.
        if !value.is_null() && keys.last() != Some(&value) {
            keys.push(value);
        }
    }
    Ok(keys.into_iter().map(|value| Expr::literal(value, ty.clone())).collect())
}

fn set_keys(reader: &mut PhysicalPlan, keys: Vec<Expr>) -> Result<()> {
    let conditions = match &mut reader.node {
        PhysicalNode::TableReader(reader) => &mut reader.conditions,
        PhysicalNode::IndexReader(reader) => &mut reader.conditions,
        PhysicalNode::IndexLookup(reader) => &mut reader.conditions,
        _ => return Err(Error::internal("the inner side of an index join is no reader")),
    };
    conditions.columns = vec![vec![RangeExpr::In(keys)]];
    Ok(())
}
