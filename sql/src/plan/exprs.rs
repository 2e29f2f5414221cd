//! Expressions of plans: comparing, replacing, and finding what a subquery takes from outside.

use std::collections::HashSet;

use rutile_expr::Expr;

use super::logical::LogicalPlan;
use super::schema::{ColumnId, OutputColumn};

/// Whether two expressions compute the same: columns are compared by id alone.
pub fn same_expr(a: &Expr, b: &Expr) -> bool {
    match (a, b) {
        (Expr::Column { index: a, .. }, Expr::Column { index: b, .. }) => a == b,
        (Expr::Call(x), Expr::Call(y)) => {
            x.func.name == y.func.name
                && x.func.volatility < rutile_expr::Volatility::Volatile
                && x.collation == y.collation
                && x.field_type.tp == y.field_type.tp
                && x.field_type.flen == y.field_type.flen
                && x.field_type.decimals == y.field_type.decimals
                && x.args.len() == y.args.len()
                && x.args.iter().zip(&y.args).all(|(x, y)| same_expr(x, y))
        }
        (a, b) => a == b,
    }
}

/// Replaces each subexpression equal to one of `exprs` by the column of the same place.
pub fn replace(expr: &mut Expr, exprs: &[Expr], columns: &[OutputColumn]) {
    if let Some(place) = exprs.iter().position(|known| same_expr(known, expr)) {
        let column = &columns[place];
        *expr = Expr::column(column.id, &column.name, column.ty.clone());
        return;
    }
    if let Expr::Call(call) = expr {
        call.args.iter_mut().for_each(|arg| replace(arg, exprs, columns));
    }
}

/// Calls `visit` on every expression of the node itself.
pub fn for_each_expr(plan: &LogicalPlan, visit: &mut dyn FnMut(&Expr)) {
    let limit_exprs = |limit: &super::logical::LimitClause, visit: &mut dyn FnMut(&Expr)| {
        limit.offset.iter().chain(&limit.count).for_each(visit);
    };
    match plan {
        LogicalPlan::Scan(scan) => scan.filters.iter().for_each(visit),
        LogicalPlan::Values { rows, .. } => rows.iter().flatten().for_each(visit),
        LogicalPlan::Filter { predicates, .. } => predicates.iter().for_each(visit),
        LogicalPlan::Project { exprs, .. } => exprs.iter().for_each(visit),
        LogicalPlan::Join(join) => join.filter.iter().for_each(visit),
        LogicalPlan::Aggregate(aggregate) => {
            aggregate.group.iter().for_each(&mut *visit);
            for call in &aggregate.calls {
                call.args.iter().for_each(&mut *visit);
                call.order_by.iter().for_each(|key| visit(&key.expr));
            }
        }
        LogicalPlan::Sort { keys, .. } => keys.iter().for_each(|key| visit(&key.expr)),
        LogicalPlan::Limit { limit, .. } => limit_exprs(limit, visit),
        LogicalPlan::Distinct { .. } | LogicalPlan::Union { .. } | LogicalPlan::Apply(_) => {}
    }
}

/// As [`for_each_expr`], to change them.
pub fn for_each_expr_mut(plan: &mut LogicalPlan, visit: &mut dyn FnMut(&mut Expr)) {
    match plan {
        LogicalPlan::Scan(scan) => scan.filters.iter_mut().for_each(visit),
        LogicalPlan::Values { rows, .. } => rows.iter_mut().flatten().for_each(visit),
        LogicalPlan::Filter { predicates, .. } => predicates.iter_mut().for_each(visit),
        LogicalPlan::Project { exprs, .. } => exprs.iter_mut().for_each(visit),
        LogicalPlan::Join(join) => join.filter.iter_mut().for_each(visit),
        LogicalPlan::Aggregate(aggregate) => {
            aggregate.group.iter_mut().for_each(&mut *visit);
            for call in &mut aggregate.calls {
                call.args.iter_mut().for_each(&mut *visit);
                call.order_by.iter_mut().for_each(|key| visit(&mut key.expr));
            }
        }
        LogicalPlan::Sort { keys, .. } => keys.iter_mut().for_each(|key| visit(&mut key.expr)),
        LogicalPlan::Limit { limit, .. } => limit.offset.iter_mut().chain(&mut limit.count).for_each(visit),
        LogicalPlan::Distinct { .. } | LogicalPlan::Union { .. } | LogicalPlan::Apply(_) => {}
    }
}

/// The inputs of a node.
pub fn children(plan: &LogicalPlan) -> Vec<&LogicalPlan> {
    match plan {
        LogicalPlan::Scan(_) | LogicalPlan::Values { .. } => Vec::new(),
        LogicalPlan::Filter { input, .. }
        | LogicalPlan::Project { input, .. }
        | LogicalPlan::Distinct { input }
        | LogicalPlan::Sort { input, .. }
        | LogicalPlan::Limit { input, .. } => vec![input],
        LogicalPlan::Aggregate(aggregate) => vec![&aggregate.input],
        LogicalPlan::Join(join) => vec![&join.left, &join.right],
        LogicalPlan::Union { inputs, .. } => inputs.iter().collect(),
        LogicalPlan::Apply(apply) => vec![&apply.outer, &apply.inner],
    }
}

/// The inputs of a node, to change them.
pub fn children_mut(plan: &mut LogicalPlan) -> Vec<&mut LogicalPlan> {
    match plan {
        LogicalPlan::Scan(_) | LogicalPlan::Values { .. } => Vec::new(),
        LogicalPlan::Filter { input, .. }
        | LogicalPlan::Project { input, .. }
        | LogicalPlan::Distinct { input }
        | LogicalPlan::Sort { input, .. }
        | LogicalPlan::Limit { input, .. } => vec![input],
        LogicalPlan::Aggregate(aggregate) => vec![&mut aggregate.input],
        LogicalPlan::Join(join) => vec![&mut join.left, &mut join.right],
        LogicalPlan::Union { inputs, .. } => inputs.iter_mut().collect(),
        LogicalPlan::Apply(apply) => vec![&mut apply.outer, &mut apply.inner],
    }
}

/// Columns that a plan reads and nothing inside it computes: those of outer queries, each once.
pub fn free_columns(plan: &LogicalPlan) -> Vec<Expr> {
    let mut made = HashSet::new();
    collect_made(plan, &mut made);
    let mut free: Vec<Expr> = Vec::new();
    collect_used(plan, &mut |column, id| {
        let known = free.iter().any(|other| matches!(other, Expr::Column { index, .. } if *index == id));
        if !made.contains(&id) && !known {
            free.push(column.clone());
        }
    });
    free
}

fn collect_made(plan: &LogicalPlan, made: &mut HashSet<ColumnId>) {
    made.extend(plan.schema().ids());
    children(plan).into_iter().for_each(|child| collect_made(child, made));
}

fn collect_used(plan: &LogicalPlan, used: &mut dyn FnMut(&Expr, ColumnId)) {
    for_each_expr(plan, &mut |expr| {
        expr.visit(&mut |part| {
            if let Expr::Column { index, .. } = part {
                used(part, *index);
            }
            true
        });
    });
    children(plan).into_iter().for_each(|child| collect_used(child, used));
}

/// Replaces outer columns by parameters, all through a plan.
pub fn bind_outer(plan: &mut LogicalPlan, slots: &[(ColumnId, usize)]) {
    for_each_expr_mut(plan, &mut |expr| {
        let whole = std::mem::replace(expr, Expr::null());
        *expr = whole.transform(&mut |part| match part {
            Expr::Column { index, name, field_type } => match slots.iter().find(|(id, _)| *id == index) {
                Some((_, slot)) => Expr::Param { index: *slot, field_type },
                None => Expr::Column { index, name, field_type },
            },
            other => other,
        });
    });
    children_mut(plan).into_iter().for_each(|child| bind_outer(child, slots));
}
