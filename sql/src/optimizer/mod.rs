//! Logical to physical plan.
//!
//! Rules rewrite the logical tree: subqueries that depend on the row become joins ([`rules::decorrelate`]), ORs give away what all their alternatives say ([`rules::factor_or`]), constants spread over equalities ([`rules::propagate`]), conditions go down to where their
//! columns come from ([`rules::push_down`]), joins are put in the cheapest order ([`join_order`], by the estimates of [`cardinality`]), the
//! greatest and least values come from a key's ends ([`rules::extreme`]), columns nobody reads are dropped
//! ([`rules::prune_columns`]), DISTINCT goes where rows are different already ([`rules::drop_distinct`]), limits go down
//! ([`rules::push_topn`], [`rules::push_limit`]). Then [`physical`] picks operators, and [`access_path`] how each table is read;
//! [`push_to_stores`] lets the stores do what they can. All of it is pure.

pub mod access_path;
pub mod cardinality;
mod join_graph;
mod join_key;
pub mod join_order;
mod physical;
mod push_to_stores;
pub mod ranges;
pub mod rules;

use rutile_expr::EvalContext;

use crate::error::Result;
use crate::plan::dml::{Assignment, DeletePlan, InsertPlan, InsertSource, InsertValue, UpdatePlan};
use crate::plan::logical::{Bound, LogicalPlan, LogicalStatement};
use crate::plan::{PhysicalPlan, Plan, PlanBody, SubqueryPlan};

/// Optimizes a bound statement.
pub fn optimize(bound: Bound, eval: &EvalContext) -> Result<Plan> {
    let mut subqueries = Vec::with_capacity(bound.subqueries.len());
    for subquery in bound.subqueries {
        let plan = optimize_query(subquery.plan, eval)?;
        subqueries.push(SubqueryPlan { kind: subquery.kind, plan, slot: subquery.slot });
    }
    let body = match bound.statement {
        LogicalStatement::Query(plan) => PlanBody::Query(optimize_query(plan, eval)?),
        LogicalStatement::Insert(plan) => PlanBody::Insert(optimize_insert(plan, eval)?),
        LogicalStatement::Update(UpdatePlan { reader, targets, assignments, ignore }) => {
            let reader = optimize_query(reader, eval)?;
            let assignments = to_positions(assignments, &|id| reader.schema.position(id).unwrap_or(id));
            PlanBody::Update(UpdatePlan { reader, targets, assignments, ignore })
        }
        LogicalStatement::Delete(DeletePlan { reader, targets, ignore }) => {
            PlanBody::Delete(DeletePlan { reader: optimize_query(reader, eval)?, targets, ignore })
        }
    };
    Ok(Plan { body, subqueries, params: bound.params, cacheable: bound.cacheable, tables: bound.tables })
}

/// Optimizes one query.
pub fn optimize_query(plan: LogicalPlan, eval: &EvalContext) -> Result<PhysicalPlan> {
    Ok(push_to_stores::push(physical::plan(rewrite(plan, eval))?))
}

/// The rules, in order.
pub fn rewrite(plan: LogicalPlan, eval: &EvalContext) -> LogicalPlan {
    let plan = rules::decorrelate::decorrelate(plan, eval);
    let plan = rules::factor_or::factor_or(plan, eval);
    let plan = rules::propagate::propagate(plan);
    let plan = rules::push_down::push_down(plan, eval);
    let plan = rules::drop_distinct::drop_distinct(plan);
    let plan = join_order::reorder(plan);
    let plan = rules::extreme::extreme(plan, eval);
    let plan = rules::prune_columns::prune(plan);
    let plan = rules::push_topn::push_topn(plan);
    rules::push_limit::push_limit(plan)
}

fn optimize_insert(plan: InsertPlan<LogicalPlan>, eval: &EvalContext) -> Result<InsertPlan> {
    let InsertPlan { db, table, columns, source, defaults, on_duplicate, ignore, replace } = plan;
    let width = 2 * table.columns.len();
    let (source, on_duplicate) = match source {
        InsertSource::Values(rows) => (InsertSource::Values(rows), on_duplicate),
        InsertSource::Query(query) => {
            let query = optimize_query(*query, eval)?;
            let place = |id| match query.schema.position(id) {
                Some(place) if id >= width => width + place,
                _ => id,
            };
            let on_duplicate = to_positions(on_duplicate, &place);
            (InsertSource::Query(Box::new(query)), on_duplicate)
        }
    };
    Ok(InsertPlan { db, table, columns, source, defaults, on_duplicate, ignore, replace })
}

fn to_positions(assignments: Vec<Assignment>, place: &dyn Fn(usize) -> usize) -> Vec<Assignment> {
    let mut placed = assignments;
    for assignment in &mut placed {
        if let InsertValue::Expr(expr) = &mut assignment.value {
            *expr = std::mem::replace(expr, rutile_expr::Expr::null()).map_columns(place);
        }
    }
    placed
}
