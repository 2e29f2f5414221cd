//! The order of inner joins: as written where each table joins the ones before it on a condition, else the next table that does.

use std::collections::HashSet;

use rutile_expr::Expr;

use crate::optimizer::rules::push_down::join_schema;
use crate::plan::exprs::children_mut;
use crate::plan::logical::{Join, JoinKind, LogicalPlan};
use crate::plan::schema::ColumnId;

/// Reorders every group of inner joins in a tree.
pub fn reorder(mut plan: LogicalPlan) -> LogicalPlan {
    if matches!(&plan, LogicalPlan::Join(join) if is_free(join)) {
        let (mut tables, mut conditions) = (Vec::new(), Vec::new());
        flatten(plan, &mut tables, &mut conditions);
        let tables = tables.into_iter().map(reorder).collect();
        return rebuild(tables, conditions);
    }
    for child in children_mut(&mut plan) {
        let whole = std::mem::replace(child, LogicalPlan::dual());
        *child = reorder(whole);
    }
    plan
}

fn is_free(join: &Join) -> bool {
    join.kind == JoinKind::Inner && !join.straight
}

fn flatten(plan: LogicalPlan, tables: &mut Vec<LogicalPlan>, conditions: &mut Vec<Expr>) {
    match plan {
        LogicalPlan::Join(join) if is_free(&join) => {
            flatten(*join.left, tables, conditions);
            flatten(*join.right, tables, conditions);
            conditions.extend(join.filter);
        }
        other => tables.push(other),
    }
}

fn rebuild(mut tables: Vec<LogicalPlan>, mut conditions: Vec<Expr>) -> LogicalPlan {
    let mut joined = tables.remove(0);
    while !tables.is_empty() {
        let have: HashSet<ColumnId> = joined.schema().ids().collect();
        let connects = |table: &LogicalPlan| {
            let own: HashSet<ColumnId> = table.schema().ids().collect();
            conditions.iter().any(|condition| {
                let columns = condition.columns();
                columns.iter().any(|id| own.contains(id))
                    && columns.iter().any(|id| have.contains(id))
                    && columns.iter().all(|id| own.contains(id) || have.contains(id))
            })
        };
        let next = tables.iter().position(connects).unwrap_or(0);
        let right = tables.remove(next);
        let all: HashSet<ColumnId> = have.iter().copied().chain(right.schema().ids()).collect();
        let (filter, later): (Vec<_>, Vec<_>) = conditions
            .into_iter()
            .partition(|condition| condition.columns().iter().all(|id| all.contains(id)));
        conditions = later;
        let schema = joined.schema().clone();
        let mut join = Join {
            kind: JoinKind::Inner,
            left: Box::new(joined),
            right: Box::new(right),
            filter,
            schema,
            straight: false,
        };
        join.schema = join_schema(&join);
        joined = LogicalPlan::Join(join);
    }
    if conditions.is_empty() {
        return joined;
    }
    LogicalPlan::Filter { input: Box::new(joined), predicates: conditions }
}
