//! Conditions go down to the node nearest to the data, constant ones are decided, and an outer join whose NULL rows a condition
//! throws away becomes an inner join.

use std::collections::HashSet;

use rutile_expr::types::Datum;
use rutile_expr::{EvalContext, Expr, Volatility};

use crate::plan::logical::{Aggregate, Apply, Join, JoinKind, LogicalPlan};
use crate::plan::schema::{ColumnId, Schema, SchemaRef};

/// Applies the rule to a whole tree.
pub fn push_down(plan: LogicalPlan, eval: &EvalContext) -> LogicalPlan {
    push(plan, Vec::new(), eval)
}

/// The plan with `predicates` applied to its output.
fn push(plan: LogicalPlan, predicates: Vec<Expr>, eval: &EvalContext) -> LogicalPlan {
    match plan {
        LogicalPlan::Filter { input, predicates: own } => {
            let mut all = predicates;
            let mut never = false;
            for predicate in own {
                split_and(predicate.fold(eval, false), &mut |part| match truth(&part) {
                    Some(true) => {}
                    Some(false) => never = true,
                    None => all.push(part),
                });
            }
            if never { nothing(input.schema()) } else { push(*input, all, eval) }
        }
        LogicalPlan::Scan(mut scan) => {
            scan.filters.extend(predicates);
            LogicalPlan::Scan(scan)
        }
        LogicalPlan::Project { input, exprs, schema } => {
            push_project(*input, exprs, schema, predicates, eval)
        }
        LogicalPlan::Join(join) => push_join(join, predicates, eval),
        LogicalPlan::Aggregate(aggregate) => push_aggregate(aggregate, predicates, eval),
        LogicalPlan::Distinct { input } => {
            LogicalPlan::Distinct { input: Box::new(push(*input, predicates, eval)) }
        }
        LogicalPlan::Sort { input, keys } => {
            LogicalPlan::Sort { input: Box::new(push(*input, predicates, eval)), keys }
        }
        LogicalPlan::Limit { input, limit } => {
            let input = Box::new(push(*input, Vec::new(), eval));
            filtered(LogicalPlan::Limit { input, limit }, predicates)
        }
        LogicalPlan::Union { inputs, schema } => push_union(inputs, schema, predicates, eval),
        LogicalPlan::Apply(apply) => push_apply(apply, predicates, eval),
        values @ LogicalPlan::Values { .. } => filtered(values, predicates),
    }
}

fn filtered(plan: LogicalPlan, predicates: Vec<Expr>) -> LogicalPlan {
    if predicates.is_empty() { plan } else { LogicalPlan::Filter { input: Box::new(plan), predicates } }
}

/// No rows of these columns.
fn nothing(schema: &SchemaRef) -> LogicalPlan {
    LogicalPlan::Values { rows: Vec::new(), schema: schema.clone() }
}

/// The parts of a conjunction.
pub fn split_and(expr: Expr, each: &mut dyn FnMut(Expr)) {
    match expr {
        Expr::Call(call) if call.func.name == "and" => {
            call.args.into_iter().for_each(|arg| split_and(arg, each))
        }
        part => each(part),
    }
}

/// What a constant condition decides.
fn truth(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Literal { value: Datum::Null, .. } => Some(false),
        Expr::Literal { value: Datum::Int(value), .. } => Some(*value != 0),
        Expr::Literal { value: Datum::UInt(value), .. } => Some(*value != 0),
        _ => None,
    }
}

fn within(expr: &Expr, ids: &HashSet<ColumnId>) -> bool {
    expr.columns().iter().all(|id| ids.contains(id))
}

fn push_project(
    input: LogicalPlan,
    exprs: Vec<Expr>,
    schema: SchemaRef,
    predicates: Vec<Expr>,
    eval: &EvalContext,
) -> LogicalPlan {
    let (mut below, mut above) = (Vec::new(), Vec::new());
    for predicate in predicates {
        let mut movable = true;
        let moved = predicate.clone().transform(&mut |part| match part {
            Expr::Column { index, name, field_type } => match schema.position(index) {
                Some(place) if exprs[place].volatility() < Volatility::Volatile => exprs[place].clone(),
                Some(_) => {
                    movable = false;
                    Expr::Column { index, name, field_type }
                }
                None => Expr::Column { index, name, field_type },
            },
            other => other,
        });
        if movable { below.push(moved) } else { above.push(predicate) }
    }
    let input = Box::new(push(input, below, eval));
    filtered(LogicalPlan::Project { input, exprs, schema }, above)
}

fn push_aggregate(aggregate: Aggregate, predicates: Vec<Expr>, eval: &EvalContext) -> LogicalPlan {
    let Aggregate { input, group, calls, schema } = aggregate;
    let ids: HashSet<ColumnId> = schema.ids().take(group.len()).collect();
    let movable = |predicate: &Expr| {
        !group.is_empty() && within(predicate, &ids) && predicate.volatility() < Volatility::Volatile
    };
    let (below, above): (Vec<_>, Vec<_>) = predicates.into_iter().partition(movable);
    let below = below.into_iter().map(|predicate| {
        predicate.transform(&mut |part| match &part {
            Expr::Column { index, .. } => match schema.position(*index) {
                Some(place) => group[place].clone(),
                None => part,
            },
            _ => part,
        })
    });
    let input = Box::new(push(*input, below.collect(), eval));
    filtered(LogicalPlan::Aggregate(Aggregate { input, group, calls, schema }), above)
}

fn push_union(
    inputs: Vec<LogicalPlan>,
    schema: SchemaRef,
    predicates: Vec<Expr>,
    eval: &EvalContext,
) -> LogicalPlan {
    let inputs = inputs.into_iter().map(|input| {
        let columns = input.schema().clone();
        let moved = predicates.iter().map(|predicate| {
            predicate.clone().transform(&mut |part| match &part {
                Expr::Column { index, .. } => match schema.position(*index) {
                    Some(place) => {
                        let column = &columns.columns[place];
                        Expr::column(column.id, &column.name, column.ty.clone())
                    }
                    None => part,
                },
                _ => part,
            })
        });
        let moved = moved.collect();
        push(input, moved, eval)
    });
    LogicalPlan::Union { inputs: inputs.collect(), schema }
}

fn push_apply(apply: Apply, predicates: Vec<Expr>, eval: &EvalContext) -> LogicalPlan {
    let ids: HashSet<ColumnId> = apply.outer.schema().ids().collect();
    let (below, above): (Vec<_>, Vec<_>) =
        predicates.into_iter().partition(|predicate| within(predicate, &ids));
    let outer = Box::new(push(*apply.outer, below, eval));
    let inner = Box::new(push(*apply.inner, Vec::new(), eval));
    filtered(LogicalPlan::Apply(Apply { outer, inner, ..apply }), above)
}

fn push_join(mut join: Join, predicates: Vec<Expr>, eval: &EvalContext) -> LogicalPlan {
    let left_ids: HashSet<ColumnId> = join.left.schema().ids().collect();
    let right_ids: HashSet<ColumnId> = join.right.schema().ids().collect();
    join.kind = simplify(join.kind, &predicates, &left_ids, &right_ids);
    let mut on = Vec::new();
    for condition in std::mem::take(&mut join.filter) {
        split_and(condition.fold(eval, false), &mut |part| {
            if truth(&part) != Some(true) {
                on.push(part);
            }
        });
    }
    let (mut left, mut right, mut above) = (Vec::new(), Vec::new(), Vec::new());
    // Conditions above the join: down the sides whose rows all reach the output.
    for predicate in predicates {
        let volatile = predicate.volatility() == Volatility::Volatile;
        match join.kind {
            _ if volatile => above.push(predicate),
            JoinKind::Inner if within(&predicate, &left_ids) => left.push(predicate),
            JoinKind::Inner if within(&predicate, &right_ids) => right.push(predicate),
            JoinKind::Inner => on.push(predicate),
            JoinKind::Right if within(&predicate, &right_ids) => right.push(predicate),
            JoinKind::Right => above.push(predicate),
            _ if within(&predicate, &left_ids) => left.push(predicate),
            _ => above.push(predicate),
        }
    }
    // Conditions of the join itself: down the sides whose rows may be dropped.
    for condition in on {
        let to_left = matches!(join.kind, JoinKind::Inner | JoinKind::Right | JoinKind::Semi);
        let to_right = !matches!(join.kind, JoinKind::Right | JoinKind::NullAwareAnti);
        if to_left && within(&condition, &left_ids) {
            left.push(condition);
        } else if to_right && within(&condition, &right_ids) {
            right.push(condition);
        } else {
            join.filter.push(condition);
        }
    }
    join.left = Box::new(push(*join.left, left, eval));
    join.right = Box::new(push(*join.right, right, eval));
    filtered(LogicalPlan::Join(join), above)
}

/// An outer join is an inner one when a condition above it refuses the rows it makes up.
fn simplify(
    kind: JoinKind,
    predicates: &[Expr],
    left: &HashSet<ColumnId>,
    right: &HashSet<ColumnId>,
) -> JoinKind {
    let made_up = match kind {
        JoinKind::Left => right,
        JoinKind::Right => left,
        other => return other,
    };
    if predicates.iter().any(|predicate| refuses_null(predicate, made_up)) { JoinKind::Inner } else { kind }
}

/// Whether a condition is never true when all `ids` are NULL.
fn refuses_null(expr: &Expr, ids: &HashSet<ColumnId>) -> bool {
    let null = |arg: &Expr| is_null_for_null(arg, ids);
    match (expr.function_name(), expr.args()) {
        (Some("and"), args) => args.iter().any(|arg| refuses_null(arg, ids)),
        (Some("or"), args) => args.iter().all(|arg| refuses_null(arg, ids)),
        (Some("=" | "<" | "<=" | ">" | ">=" | "<>" | "like"), args) => args.iter().any(null),
        (Some("between" | "in"), args) => args.first().is_some_and(null),
        (Some("not"), [inner]) => match (inner.function_name(), inner.args()) {
            (Some("is_null"), [arg]) => null(arg),
            (Some("=" | "<" | "<=" | ">" | ">=" | "<>" | "like"), args) => args.iter().any(null),
            (Some("between" | "in"), args) => args.first().is_some_and(null),
            _ => false,
        },
        _ => false,
    }
}

/// Whether a value is certainly NULL when all `ids` are.
fn is_null_for_null(expr: &Expr, ids: &HashSet<ColumnId>) -> bool {
    match expr {
        Expr::Column { index, .. } => ids.contains(index),
        Expr::Call(call) => {
            call.func.null_in_null_out && call.args.iter().any(|arg| is_null_for_null(arg, ids))
        }
        _ => false,
    }
}

/// Rebuilds a join's schema from its sides.
pub fn join_schema(join: &Join) -> SchemaRef {
    if matches!(join.kind, JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti) {
        return join.left.schema().clone();
    }
    let mut columns = join.left.schema().columns.clone();
    if join.kind == JoinKind::Mark {
        columns.extend(join.schema.columns.last().cloned());
        return Schema::new(columns);
    }
    let split = columns.len();
    columns.extend(join.right.schema().columns.iter().cloned());
    let nullable = match join.kind {
        JoinKind::Left => split..columns.len(),
        JoinKind::Right => 0..split,
        _ => 0..0,
    };
    columns[nullable].iter_mut().for_each(|column| column.ty.not_null = false);
    Schema::new(columns)
}
