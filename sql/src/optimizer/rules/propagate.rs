//! What a constant equals, its equals equal: `a = b AND a = 5` adds `b = 5`, so that b's table can be read by it.

use rutile_expr::Expr;

use crate::plan::exprs::{children_mut, same_expr};
use crate::plan::logical::{JoinKind, LogicalPlan};

/// Applies the rule to a whole tree.
pub fn propagate(mut plan: LogicalPlan) -> LogicalPlan {
    for child in children_mut(&mut plan) {
        let whole = std::mem::replace(child, LogicalPlan::dual());
        *child = propagate(whole);
    }
    if let LogicalPlan::Filter { input, predicates } = &mut plan {
        let mut all = predicates.clone();
        inner_conditions(input, &mut all);
        let new = consequences(&all);
        predicates.extend(new);
    }
    plan
}

/// Conditions of the inner joins below: every row that comes up satisfies them.
fn inner_conditions(plan: &LogicalPlan, found: &mut Vec<Expr>) {
    if let LogicalPlan::Join(join) = plan
        && join.kind == JoinKind::Inner
    {
        found.extend(join.filter.iter().cloned());
        inner_conditions(&join.left, found);
        inner_conditions(&join.right, found);
    }
}

fn consequences(conditions: &[Expr]) -> Vec<Expr> {
    let mut parts = Vec::new();
    for condition in conditions {
        super::push_down::split_and(condition.clone(), &mut |part| parts.push(part));
    }
    let given = parts.len();
    let mut at = 0;
    while at < parts.len() {
        for other in 0..parts.len() {
            let Some(new) = substitute(&parts[at], &parts[other]) else { continue };
            if !parts.iter().any(|known| same_expr(known, &new)) {
                parts.push(new);
            }
        }
        at += 1;
    }
    parts.split_off(given)
}

/// From `column = constant` and `column = other column`: `other column = constant`.
fn substitute(constant: &Expr, link: &Expr) -> Option<Expr> {
    let (Expr::Call(fact), Expr::Call(pair)) = (constant, link) else { return None };
    if fact.func.name != "=" || pair.func.name != "=" || fact.collation != pair.collation {
        return None;
    }
    let [column @ Expr::Column { .. }, value] = fact.args.as_slice() else { return None };
    if !value.is_constant() {
        return None;
    }
    let [left @ Expr::Column { .. }, right @ Expr::Column { .. }] = pair.args.as_slice() else { return None };
    let other = match (same_expr(left, column), same_expr(right, column)) {
        (true, false) => right,
        (false, true) => left,
        _ => return None,
    };
    // The same comparison on the other column: only where both are compared alike.
    if other.field_type().arrow() != column.field_type().arrow() {
        return None;
    }
    let mut new = fact.clone();
    new.args[0] = other.clone();
    Some(Expr::Call(new))
}
