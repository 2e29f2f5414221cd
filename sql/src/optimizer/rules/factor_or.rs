//! Conditions out of an OR: what every alternative says is said once, and what the alternatives say of one table alone goes to
//! that table.
//!
//! `(a = b AND x) OR (a = b AND y)` is `a = b AND (x OR y)`, which gives the join an equality to hash. `(t.a = 1 AND u.b = 2) OR
//! (t.a = 3 AND u.b = 4)` implies `t.a = 1 OR t.a = 3` and `u.b = 2 OR u.b = 4`, by which the tables' rows are fewer before
//! they are joined.

use std::collections::HashSet;

use rutile_expr::{EvalContext, Expr, Volatility, registry};

use super::push_down::split_and;
use crate::plan::exprs::{children, children_mut, same_expr};
use crate::plan::logical::{JoinKind, LogicalPlan};
use crate::plan::schema::ColumnId;

/// Applies the rule to a whole tree.
pub fn factor_or(mut plan: LogicalPlan, eval: &EvalContext) -> LogicalPlan {
    for child in children_mut(&mut plan) {
        let whole = std::mem::replace(child, LogicalPlan::dual());
        *child = factor_or(whole, eval);
    }
    match &mut plan {
        LogicalPlan::Filter { input, predicates } => {
            let mut tables = Vec::new();
            collect_tables(input, &mut tables);
            *predicates = factor_all(std::mem::take(predicates), &tables, eval);
        }
        LogicalPlan::Join(join) => {
            let mut tables = Vec::new();
            if join.kind == JoinKind::Inner {
                collect_tables(&join.left, &mut tables);
                collect_tables(&join.right, &mut tables);
            }
            join.filter = factor_all(std::mem::take(&mut join.filter), &tables, eval);
        }
        _ => {}
    }
    plan
}

/// The columns of each side of inner joins.
fn collect_tables(plan: &LogicalPlan, tables: &mut Vec<HashSet<ColumnId>>) {
    match plan {
        LogicalPlan::Join(join) if join.kind == JoinKind::Inner => {
            children(plan).into_iter().for_each(|child| collect_tables(child, tables));
        }
        LogicalPlan::Filter { input, .. } => collect_tables(input, tables),
        other => tables.push(other.schema().ids().collect()),
    }
}

fn factor_all(conditions: Vec<Expr>, tables: &[HashSet<ColumnId>], eval: &EvalContext) -> Vec<Expr> {
    let mut out: Vec<Expr> = Vec::with_capacity(conditions.len());
    for condition in conditions {
        let mut parts = Vec::new();
        split_and(condition, &mut |part| parts.push(part));
        for part in parts {
            factor_one(part, tables, eval, &mut out);
        }
    }
    out
}

fn factor_one(condition: Expr, tables: &[HashSet<ColumnId>], eval: &EvalContext, out: &mut Vec<Expr>) {
    if condition.function_name() != Some("or") || condition.volatility() == Volatility::Volatile {
        out.push(condition);
        return;
    }
    let mut alternatives: Vec<Vec<Expr>> = Vec::new();
    split_or(condition.clone(), &mut |part| {
        let mut all = Vec::new();
        split_and(part, &mut |conjunct| all.push(conjunct));
        alternatives.push(all);
    });
    let (first, others) = alternatives.split_at(1);
    let in_all = |part: &&Expr| others.iter().all(|all| all.iter().any(|other| same_expr(other, part)));
    let common: Vec<Expr> = first[0].iter().filter(in_all).cloned().collect();
    let is_common = |part: &Expr| common.iter().any(|known| same_expr(known, part));
    let rests: Vec<Vec<Expr>> = alternatives
        .iter()
        .map(|all| all.iter().filter(|part| !is_common(part)).cloned().collect())
        .collect();
    let rest = match common.is_empty() {
        true => Some(condition.clone()),
        // An alternative that says nothing more: the others do not matter.
        false if rests.iter().any(Vec::is_empty) => None,
        false => match any_of(&rests, eval) {
            Some(rest) => Some(rest),
            None => return out.push(condition),
        },
    };
    let Some(rest) = rest else { return out.extend(common) };
    out.extend(common);
    if tables.len() > 1 {
        derive(&rest, &rests, tables, eval, out);
    }
    out.push(rest);
}

/// What the alternatives say of each table alone.
fn derive(
    whole: &Expr,
    alternatives: &[Vec<Expr>],
    tables: &[HashSet<ColumnId>],
    eval: &EvalContext,
    out: &mut Vec<Expr>,
) {
    for table in tables {
        let of_table = |expr: &&Expr| {
            let columns = expr.columns();
            !columns.is_empty() && columns.iter().all(|id| table.contains(id))
        };
        if of_table(&whole) {
            return;
        }
        let own: Vec<Vec<Expr>> =
            alternatives.iter().map(|all| all.iter().filter(of_table).cloned().collect()).collect();
        if own.iter().all(|all| !all.is_empty())
            && let Some(derived) = any_of(&own, eval)
        {
            out.push(derived);
        }
    }
}

/// The alternatives of a disjunction.
fn split_or(expr: Expr, each: &mut dyn FnMut(Expr)) {
    match expr {
        Expr::Call(call) if call.func.name == "or" => {
            call.args.into_iter().for_each(|arg| split_or(arg, each));
        }
        part => each(part),
    }
}

/// `(a AND b) OR (c AND d) …`
fn any_of(alternatives: &[Vec<Expr>], eval: &EvalContext) -> Option<Expr> {
    let mut whole: Option<Expr> = None;
    for all in alternatives {
        let all = fold(all.iter().cloned(), "and", eval)?;
        whole = Some(match whole {
            None => all,
            Some(before) => registry::resolve(eval, "or", vec![before, all]).ok()?,
        });
    }
    whole
}

fn fold(mut parts: impl Iterator<Item = Expr>, name: &str, eval: &EvalContext) -> Option<Expr> {
    let first = parts.next()?;
    parts.try_fold(first, |a, b| registry::resolve(eval, name, vec![a, b]).ok())
}
