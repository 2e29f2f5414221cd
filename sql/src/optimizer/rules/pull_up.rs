//! The conditions on outer columns come out of a subquery, to be tested where it is joined with the outer query.
//!
//! They rise through filters, projections (which then show the columns they need), orders, inner joins, the preserved sides of
//! other joins, and through groupings where they are equalities: `GROUP BY` of the inner side then keeps apart what belongs to
//! different outer rows.

use std::collections::HashSet;

use rutile_expr::Expr;

use super::push_down::join_schema;
use crate::optimizer::join_key;
use crate::plan::logical::{Aggregate, JoinKind, LogicalPlan};
use crate::plan::schema::{ColumnId, OutputColumn, Schema};

/// A subquery without its conditions on outer columns, and these. What cannot be taken out stays. `once`: the same row may not
/// come twice where it came once.
pub fn pull_up(plan: LogicalPlan, once: bool) -> (LogicalPlan, Vec<Expr>) {
    match plan {
        LogicalPlan::Project { input, exprs, schema } => {
            let (input, pulled) = pull_up(*input, once);
            let (exprs, schema) = shown(&input, exprs, schema.columns.clone(), &pulled);
            (LogicalPlan::Project { input: Box::new(input), exprs, schema: Schema::new(schema) }, pulled)
        }
        LogicalPlan::Filter { input, predicates } => {
            let (input, mut pulled) = pull_up(*input, once);
            let made: HashSet<ColumnId> = input.schema().ids().collect();
            let (own, outer): (Vec<_>, Vec<_>) = predicates
                .into_iter()
                .partition(|predicate| predicate.columns().iter().all(|id| made.contains(id)));
            pulled.extend(outer);
            if own.is_empty() {
                return (input, pulled);
            }
            (LogicalPlan::Filter { input: Box::new(input), predicates: own }, pulled)
        }
        LogicalPlan::Sort { input, .. } => pull_up(*input, once),
        LogicalPlan::Distinct { input } if !once => pull_up(*input, once),
        LogicalPlan::Join(mut join) if join.kind != JoinKind::Right => {
            let (left, mut pulled) = pull_up(*join.left, once);
            join.left = Box::new(left);
            if join.kind == JoinKind::Inner {
                let (right, more) = pull_up(*join.right, once);
                pulled.extend(more);
                join.right = Box::new(right);
                let made: HashSet<ColumnId> =
                    join.left.schema().ids().chain(join.right.schema().ids()).collect();
                let (own, outer): (Vec<_>, Vec<_>) = std::mem::take(&mut join.filter)
                    .into_iter()
                    .partition(|condition| condition.columns().iter().all(|id| made.contains(id)));
                join.filter = own;
                pulled.extend(outer);
            }
            join.schema = join_schema(&join);
            (LogicalPlan::Join(join), pulled)
        }
        LogicalPlan::Aggregate(aggregate) if !aggregate.group.is_empty() => through_groups(aggregate),
        other => (other, Vec::new()),
    }
}

/// The columns of a projection with those that conditions above need.
fn shown(
    input: &LogicalPlan,
    mut exprs: Vec<Expr>,
    mut columns: Vec<OutputColumn>,
    conditions: &[Expr],
) -> (Vec<Expr>, Vec<OutputColumn>) {
    for id in conditions.iter().flat_map(Expr::columns) {
        let Some(place) = input.schema().position(id) else { continue };
        if !columns.iter().any(|column| column.id == id) {
            let column = input.schema().columns[place].clone();
            exprs.push(Expr::column(column.id, &column.name, column.ty.clone()));
            columns.push(column);
        }
    }
    (exprs, columns)
}

fn through_groups(aggregate: Aggregate) -> (LogicalPlan, Vec<Expr>) {
    let whole = LogicalPlan::Aggregate(aggregate.clone());
    let Aggregate { input, mut group, calls, schema } = aggregate;
    let width = group.len();
    let (input, pulled) = pull_up(*input, true);
    if pulled.is_empty() {
        return (whole, pulled);
    }
    let Some(keys) = pulled.iter().map(|condition| equality(condition, &input)).collect::<Option<Vec<_>>>()
    else {
        return (whole, Vec::new());
    };
    let mut columns: Vec<OutputColumn> = schema.columns[..width].to_vec();
    for key in keys {
        // Only bare columns: they keep their ids, by which the conditions know them.
        let Expr::Column { index, name, field_type } = &key else { return (whole, Vec::new()) };
        if !columns.iter().any(|column| column.id == *index) {
            columns.push(OutputColumn::computed(*index, &**name, field_type.clone()));
            group.push(key);
        }
    }
    columns.extend(schema.columns[width..].iter().cloned());
    let aggregate = Aggregate { input: Box::new(input), group, calls, schema: Schema::new(columns) };
    (LogicalPlan::Aggregate(aggregate), pulled)
}

/// The inner side of an equality of something of `inner` with something of outside, where at most one inner value equals an
/// outer one.
pub fn equality(condition: &Expr, inner: &LogicalPlan) -> Option<Expr> {
    let Expr::Call(call) = condition else { return None };
    let [a, b] = call.args.as_slice() else { return None };
    if call.func.name != "=" {
        return None;
    }
    let side = |expr: &Expr| {
        let columns = expr.columns();
        let inside = columns.iter().filter(|id| inner.schema().contains(**id)).count();
        (inside == columns.len() && inside > 0, inside == 0)
    };
    let (own, other) = match (side(a), side(b)) {
        ((true, _), (_, true)) => (a, b),
        ((_, true), (true, _)) => (b, a),
        _ => return None,
    };
    join_key::alike(own.clone(), other.clone(), call.collation)?;
    let ty = own.field_type();
    (!ty.is_string() || ty.collation == call.collation).then(|| own.clone())
}
