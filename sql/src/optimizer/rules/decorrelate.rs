//! Subqueries that depend on the row become joins.
//!
//! Running a subquery once per outer row costs as many runs as there are rows. Instead:
//! - `EXISTS`, and what is made of it (`IN` as a value), is a *mark join*: each outer row with 1 or 0, whether it has a partner;
//! - an aggregate is computed for all values of the inner side's correlated columns at once, and joined to the outer rows from
//!   the left. An outer row without partner gets what the aggregate of no rows is: 0 for COUNT, else NULL;
//! - a row found by a unique key is joined from the left.
//!
//! A subquery that reads little by an index for few outer rows stays as it is, and so does one with LIMIT or a correlation by
//! anything but equality below an aggregate.

use rutile_expr::types::{Datum, FieldType};
use rutile_expr::{EvalContext, Expr, Volatility, registry};

use super::pull_up::{equality, pull_up};
use super::push_down::push_down;
use crate::optimizer::{cardinality, physical};
use crate::plan::SubqueryKind;
use crate::plan::exprs::{children, children_mut, for_each_expr, for_each_expr_mut, free_columns, replace};
use crate::plan::logical::{Aggregate, Apply, Join, JoinKind, LimitClause, LogicalPlan};
use crate::plan::physical::{PhysicalNode, PhysicalPlan};
use crate::plan::schema::{ColumnId, OutputColumn, Schema, SchemaRef};

/// Applies the rule to a whole tree.
pub fn decorrelate(plan: LogicalPlan, eval: &EvalContext) -> LogicalPlan {
    let mut next = 0;
    highest(&plan, &mut next);
    visit(plan, &mut next, eval)
}

/// One more than the highest column id.
fn highest(plan: &LogicalPlan, next: &mut ColumnId) {
    *next = plan.schema().ids().fold(*next, |next, id| next.max(id + 1));
    children(plan).into_iter().for_each(|child| highest(child, next));
}

fn visit(mut plan: LogicalPlan, next: &mut ColumnId, eval: &EvalContext) -> LogicalPlan {
    for child in children_mut(&mut plan) {
        let whole = std::mem::replace(child, LogicalPlan::dual());
        *child = visit(whole, next, eval);
    }
    if let LogicalPlan::Apply(apply) = &plan
        && let Some(joined) = joined(apply, next, eval)
    {
        return joined;
    }
    plan
}

fn joined(apply: &Apply, next: &mut ColumnId, eval: &EvalContext) -> Option<LogicalPlan> {
    let mut inner = (*apply.inner).clone();
    unbind(&mut inner, &apply.bindings, apply.outer.schema());
    if is_volatile(&inner) || is_cheap_by_row(apply, eval) {
        return None;
    }
    let output = apply.schema.columns.last()?.clone();
    match apply.kind {
        SubqueryKind::Exists => mark(&apply.outer, inner, output),
        SubqueryKind::Scalar => aggregated(&apply.outer, inner.clone(), &output, next, eval)
            .or_else(|| unique(&apply.outer, inner, output)),
    }
}

/// Parameters become outer columns again.
fn unbind(plan: &mut LogicalPlan, bindings: &[(ColumnId, usize)], outer: &SchemaRef) {
    for_each_expr_mut(plan, &mut |expr| {
        let whole = std::mem::replace(expr, Expr::null());
        *expr = whole.transform(&mut |part| match part {
            Expr::Param { index, field_type } => {
                let bound = bindings.iter().find(|(_, slot)| *slot == index);
                match bound.and_then(|(id, _)| outer.position(*id)) {
                    Some(place) => {
                        let column = &outer.columns[place];
                        Expr::column(column.id, &column.name, field_type)
                    }
                    None => Expr::Param { index, field_type },
                }
            }
            other => other,
        });
    });
    children_mut(plan).into_iter().for_each(|child| unbind(child, bindings, outer));
}

fn is_volatile(plan: &LogicalPlan) -> bool {
    let mut volatile = false;
    for_each_expr(plan, &mut |expr| volatile |= expr.volatility() == Volatility::Volatile);
    volatile || children(plan).into_iter().any(is_volatile)
}

/// A parent's row costs so much at least, whatever the subquery reads.
const RUN_COST: f64 = 10.0;
/// Reading a row by an index, of a scan's row.
const LOOKUP_COST: f64 = 4.0;

/// Whether running the subquery for each outer row reads less than its tables hold.
fn is_cheap_by_row(apply: &Apply, eval: &EvalContext) -> bool {
    let outer = cardinality::rows(&push_down((*apply.outer).clone(), eval));
    let whole = all_rows(&apply.inner);
    let Ok(inner) = physical::plan(push_down((*apply.inner).clone(), eval)) else { return false };
    outer * run_cost(&inner, whole) < whole + outer
}

/// Rows of all tables of a plan.
fn all_rows(plan: &LogicalPlan) -> f64 {
    match plan {
        LogicalPlan::Scan(_) => cardinality::base_rows(plan),
        other => children(other).into_iter().map(all_rows).sum(),
    }
}

fn run_cost(plan: &PhysicalPlan, whole: f64) -> f64 {
    match &plan.node {
        PhysicalNode::PointGet(_) | PhysicalNode::BatchPointGet(_) => RUN_COST + plan.rows,
        PhysicalNode::TableReader(reader) if reader.conditions.is_full() => whole,
        PhysicalNode::IndexReader(reader) if reader.conditions.is_full() => whole,
        PhysicalNode::TableReader(_) | PhysicalNode::IndexReader(_) | PhysicalNode::IndexLookup(_) => {
            RUN_COST + plan.rows * LOOKUP_COST
        }
        PhysicalNode::MemTable(_) => whole,
        _ => plan.inputs().into_iter().map(|input| run_cost(input, whole)).sum(),
    }
}

/// Whether nothing of the outer query is left in a plan.
fn is_free_of(plan: &LogicalPlan, outer: &SchemaRef) -> bool {
    !free_columns(plan).iter().any(|column| column.columns().iter().any(|id| outer.contains(*id)))
        && !binds(plan, outer)
}

/// Whether a subquery that is run by row takes an outer column.
fn binds(plan: &LogicalPlan, outer: &SchemaRef) -> bool {
    let own =
        matches!(plan, LogicalPlan::Apply(apply) if apply.bindings.iter().any(|(id, _)| outer.contains(*id)));
    own || children(plan).into_iter().any(|child| binds(child, outer))
}

fn lets_one_pass(limit: &LimitClause) -> bool {
    limit.offset.is_none()
        && matches!(&limit.count, Some(Expr::Literal { value, .. }) if value.as_u64().is_some_and(|n| n > 0))
}

fn mark(outer: &LogicalPlan, inner: LogicalPlan, output: OutputColumn) -> Option<LogicalPlan> {
    let inner = match inner {
        LogicalPlan::Limit { input, limit } if lets_one_pass(&limit) => *input,
        other => other,
    };
    let (inner, filter) = pull_up(inner, false);
    if !is_free_of(&inner, outer.schema()) || filter.is_empty() {
        return None;
    }
    let mut columns = outer.schema().columns.clone();
    columns.push(output);
    Some(LogicalPlan::Join(Join {
        kind: JoinKind::Mark,
        left: Box::new(outer.clone()),
        right: Box::new(inner),
        filter,
        schema: Schema::new(columns),
        straight: false,
    }))
}

/// What stands above an aggregate of all rows: the value, and the conditions without which it is NULL.
struct Above {
    value: Expr,
    having: Vec<Expr>,
    aggregate: Aggregate,
}

fn peel(mut plan: LogicalPlan) -> Option<Above> {
    let first = plan.schema().columns.first()?.clone();
    let mut value = Expr::column(first.id, &first.name, first.ty);
    let mut having: Vec<Expr> = Vec::new();
    loop {
        plan = match plan {
            LogicalPlan::Project { input, exprs, schema } => {
                let computed = |expr: &mut Expr| {
                    let whole = std::mem::replace(expr, Expr::null());
                    *expr = whole.transform(&mut |part| match &part {
                        Expr::Column { index, .. } => match schema.position(*index) {
                            Some(place) => exprs[place].clone(),
                            None => part,
                        },
                        _ => part,
                    });
                };
                computed(&mut value);
                having.iter_mut().for_each(&computed);
                *input
            }
            LogicalPlan::Filter { input, predicates } => {
                having.extend(predicates);
                *input
            }
            LogicalPlan::Sort { input, .. } => *input,
            LogicalPlan::Limit { input, limit } if lets_one_pass(&limit) => *input,
            LogicalPlan::Aggregate(aggregate) if aggregate.group.is_empty() => {
                return Some(Above { value, having, aggregate });
            }
            _ => return None,
        }
    }
}

/// The aggregate of all rows with the same keys, joined from the left.
fn aggregated(
    outer: &LogicalPlan,
    inner: LogicalPlan,
    output: &OutputColumn,
    next: &mut ColumnId,
    eval: &EvalContext,
) -> Option<LogicalPlan> {
    let Above { value, having, aggregate } = peel(inner)?;
    let (input, conditions) = pull_up(*aggregate.input, true);
    let known = |expr: &Expr| expr.columns().iter().all(|id| input.schema().contains(*id));
    let inside = |call: &crate::plan::logical::AggregateCall| {
        call.args.iter().all(known) && call.order_by.iter().all(|key| known(&key.expr))
    };
    if conditions.is_empty() || !is_free_of(&input, outer.schema()) || !aggregate.calls.iter().all(inside) {
        return None;
    }
    let (mut group, mut columns, mut filter) = (Vec::new(), Vec::new(), Vec::new());
    for mut condition in conditions {
        let key = equality(&condition, &input)?;
        let column = OutputColumn::computed(*next, "", key.field_type().clone());
        *next += 1;
        replace(&mut condition, std::slice::from_ref(&key), std::slice::from_ref(&column));
        filter.push(condition);
        group.push(key);
        columns.push(column);
    }
    let mut value = without_rows(value, &aggregate.calls, eval)?;
    let mut all: Option<Expr> = None;
    for condition in having {
        let condition = without_rows(condition, &aggregate.calls, eval)?;
        all = Some(match all {
            None => condition,
            Some(before) => registry::resolve(eval, "and", vec![before, condition]).ok()?,
        });
    }
    if let Some(condition) = all {
        value = registry::case(eval, None, vec![(condition, value)], Some(Expr::null())).ok()?;
    }
    if value.field_type().arrow() != output.ty.arrow() {
        return None;
    }
    columns.extend(aggregate.calls.iter().map(|call| call.output.clone()));
    let right =
        Aggregate { input: Box::new(input), group, calls: aggregate.calls, schema: Schema::new(columns) };
    Some(joined_left(outer, LogicalPlan::Aggregate(right), filter, value, output.clone()))
}

/// An expression over aggregates where there may have been no row: then the calls' columns are NULL, but a COUNT is 0.
fn without_rows(
    expr: Expr,
    calls: &[crate::plan::logical::AggregateCall],
    eval: &EvalContext,
) -> Option<Expr> {
    let mut failed = false;
    let changed = expr.transform(&mut |part| {
        let Expr::Column { index, name, field_type } = &part else { return part };
        let Some(call) = calls.iter().find(|call| call.output.id == *index) else { return part };
        let column = Expr::column(*index, name, field_type.clone().with_not_null(false));
        let nothing = match call.name.as_str() {
            "count" | "approx_count_distinct" => Expr::int(0),
            "bit_or" | "bit_xor" => Expr::literal(Datum::UInt(0), FieldType::bigint_unsigned()),
            "bit_and" => Expr::literal(Datum::UInt(u64::MAX), FieldType::bigint_unsigned()),
            _ => return column,
        };
        registry::resolve(eval, "ifnull", vec![column, nothing]).unwrap_or_else(|_| {
            failed = true;
            part
        })
    });
    (!failed).then_some(changed)
}

/// At most one row, found by a unique key, joined from the left.
fn unique(outer: &LogicalPlan, inner: LogicalPlan, output: OutputColumn) -> Option<LogicalPlan> {
    let first = inner.schema().columns.first()?.clone();
    let (inner, filter) = pull_up(inner, true);
    let own = inner.schema().ids().collect();
    let fixed = cardinality::equated(&filter, &own);
    let is_unique =
        cardinality::unique_keys(&inner).iter().any(|key| key.iter().all(|id| fixed.contains(id)));
    if !is_unique || !is_free_of(&inner, outer.schema()) || !inner.schema().contains(first.id) {
        return None;
    }
    let value = Expr::column(first.id, &first.name, first.ty.with_not_null(false));
    Some(joined_left(outer, inner, filter, value, output))
}

fn joined_left(
    outer: &LogicalPlan,
    right: LogicalPlan,
    filter: Vec<Expr>,
    value: Expr,
    output: OutputColumn,
) -> LogicalPlan {
    let mut columns = outer.schema().columns.clone();
    let mut exprs: Vec<Expr> =
        columns.iter().map(|column| Expr::column(column.id, &column.name, column.ty.clone())).collect();
    let mut both = columns.clone();
    both.extend(right.schema().columns.iter().cloned().map(|mut column| {
        column.ty.not_null = false;
        column
    }));
    let join = LogicalPlan::Join(Join {
        kind: JoinKind::Left,
        left: Box::new(outer.clone()),
        right: Box::new(right),
        filter,
        schema: Schema::new(both),
        straight: false,
    });
    exprs.push(value);
    columns.push(output);
    LogicalPlan::Project { input: Box::new(join), exprs, schema: Schema::new(columns) }
}
