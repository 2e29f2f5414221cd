//! Joins: by hash where there is an equality, else by looping over one side held in memory.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::Schema as ArrowSchema;
use datafusion_common::{JoinSide, JoinType, NullEquality};
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion_physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode};
use futures::StreamExt;
use rutile_expr::Expr;
use rutile_expr::physical::PhysicalExpression;

use super::{ExecContext, RowStream, builder, filter, operator};
use crate::error::Result;
use crate::plan::logical::JoinKind;
use crate::plan::physical::{HashJoin, LoopJoin, PhysicalPlan};

pub(super) fn hash_join(join: &HashJoin, plan: &PhysicalPlan, ctx: &ExecContext) -> Result<RowStream> {
    let mut left = operator::input(builder::open(&join.left, ctx)?, join.left.schema.arrow());
    let mut right = operator::input(builder::open(&join.right, ctx)?, join.right.schema.arrow());
    let key = |expr: &Expr| PhysicalExpression::value(expr.clone(), &ctx.eval);
    let mut on: Vec<_> = join.on.iter().map(|(l, r)| (key(l), key(r))).collect();
    let mut sides = [(&*join.left, JoinSide::Left), (&*join.right, JoinSide::Right)];
    let mut kind = join_type(join.kind);
    if join.build_right {
        std::mem::swap(&mut left, &mut right);
        on.iter_mut().for_each(|(l, r)| std::mem::swap(l, r));
        sides = [(&*join.left, JoinSide::Right), (&*join.right, JoinSide::Left)];
        kind = kind.swap();
    }
    let residual = condition(&join.filter, sides, ctx);
    let nulls = match join.null_equal {
        true => NullEquality::NullEqualsNull,
        false => NullEquality::NullEqualsNothing,
    };
    let null_aware = join.kind == JoinKind::NullAwareAnti;
    let mode = PartitionMode::CollectLeft;
    // DataFusion keeps the left side in memory.
    let operator = HashJoinExec::try_new(left, right, on, residual, &kind, None, mode, nulls, null_aware)?;
    output(Arc::new(operator), plan, ctx)
}

pub(super) fn loop_join(join: &LoopJoin, plan: &PhysicalPlan, ctx: &ExecContext) -> Result<RowStream> {
    let left = operator::input(builder::open(&join.left, ctx)?, join.left.schema.arrow());
    let right = operator::input(builder::open(&join.right, ctx)?, join.right.schema.arrow());
    if join.kind == JoinKind::Inner && join.filter.is_empty() {
        return output(Arc::new(CrossJoinExec::new(left, right)), plan, ctx);
    }
    let condition = join_filter(&join.filter, &join.left, &join.right, ctx);
    let operator = NestedLoopJoinExec::try_new(left, right, condition, &join_type(join.kind), None)?;
    output(Arc::new(operator), plan, ctx)
}

/// The operator's batches under the plan's own schema.
fn output(operator: Arc<dyn ExecutionPlan>, plan: &PhysicalPlan, ctx: &ExecContext) -> Result<RowStream> {
    let schema = plan.schema.arrow();
    let rows = operator::run(operator, ctx.task())?;
    let renamed = rows.map(move |batch| {
        let batch = batch?;
        let mut columns = batch.columns().to_vec();
        // A mark comes as a truth value.
        if let Some(last) = columns.last_mut()
            && let Some(marks) = last.as_any().downcast_ref::<BooleanArray>()
        {
            *last = rutile_expr::eval::ints_of(marks);
        }
        filter::batch(&schema, columns, batch.num_rows())
    });
    Ok(renamed.boxed())
}

fn join_type(kind: JoinKind) -> JoinType {
    match kind {
        JoinKind::Inner => JoinType::Inner,
        JoinKind::Left => JoinType::Left,
        JoinKind::Right => JoinType::Right,
        JoinKind::Semi => JoinType::LeftSemi,
        JoinKind::Anti | JoinKind::NullAwareAnti => JoinType::LeftAnti,
        JoinKind::Mark => JoinType::LeftMark,
    }
}

/// Conditions over both sides' columns side by side.
fn join_filter(
    conditions: &[Expr],
    left: &PhysicalPlan,
    right: &PhysicalPlan,
    ctx: &ExecContext,
) -> Option<JoinFilter> {
    condition(conditions, [(left, JoinSide::Left), (right, JoinSide::Right)], ctx)
}

/// Conditions over the columns of two inputs one after the other, each on its side of the operator.
pub(super) fn condition(
    conditions: &[Expr],
    inputs: [(&PhysicalPlan, JoinSide); 2],
    ctx: &ExecContext,
) -> Option<JoinFilter> {
    let all = all_of(conditions, ctx)?;
    let [(first, first_side), (second, second_side)] = inputs;
    let split = first.schema.len();
    let used = all.columns();
    let column = |position: &usize| match position.checked_sub(split) {
        Some(index) => ColumnIndex { index, side: second_side },
        None => ColumnIndex { index: *position, side: first_side },
    };
    let (first, second) = (first.schema.arrow(), second.schema.arrow());
    let field = |position: &usize| match position.checked_sub(split) {
        Some(index) => second.field(index).clone(),
        None => first.field(*position).clone(),
    };
    let schema = ArrowSchema::new(used.iter().map(field).collect::<Vec<_>>());
    let columns = used.iter().map(column).collect();
    let compact =
        all.map_columns(&|position| used.iter().position(|known| *known == position).unwrap_or(position));
    Some(JoinFilter::new(PhysicalExpression::predicate(compact, &ctx.eval), columns, Arc::new(schema)))
}

/// The conjunction of several conditions.
fn all_of(conditions: &[Expr], ctx: &ExecContext) -> Option<Expr> {
    let mut all = conditions.iter().cloned();
    let first = all.next()?;
    let and = |a, b| rutile_expr::registry::resolve(&ctx.eval, "and", vec![a, b]).ok();
    all.try_fold(first, and)
}
