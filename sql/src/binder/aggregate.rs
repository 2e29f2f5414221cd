//! Aggregate calls of a query block, and which columns its groups determine.

use std::collections::HashSet;

use rutile_expr::Expr;

use super::{Binder, ExprScope};
use crate::error::{Error, Result};
use crate::parser::ast;
use crate::plan::exprs::same_expr;
use crate::plan::logical::{AggregateCall, JoinKind, LogicalPlan, SortKey};
use crate::plan::schema::ColumnId;

/// What binding the clauses of a block has collected.
#[derive(Debug, Default)]
pub(crate) struct Aggregates {
    pub calls: Vec<AggregateCall>,
    /// Columns below ANY_VALUE: not checked.
    pub any_value: HashSet<ColumnId>,
    /// Values of subqueries inside aggregate arguments: computed before grouping.
    pub applied_inside: Vec<ColumnId>,
    pub group_ids: Vec<ColumnId>,
    pub is_grouped: bool,
    pub has_group_by: bool,
}

/// A unique key of a table in the statement, by column ids.
#[derive(Debug)]
pub(super) struct TableKeys {
    pub keys: Vec<Vec<ColumnId>>,
    pub all: Vec<ColumnId>,
}

/// Whether a function name is an aggregate's.
pub(super) fn is_aggregate(name: &str) -> bool {
    const NAMES: [&str; 19] = [
        "avg",
        "bit_and",
        "bit_or",
        "bit_xor",
        "count",
        "group_concat",
        "json_arrayagg",
        "json_objectagg",
        "max",
        "min",
        "std",
        "stddev",
        "stddev_pop",
        "stddev_samp",
        "sum",
        "var_pop",
        "var_samp",
        "variance",
        "approx_count_distinct",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

impl Binder<'_> {
    /// Binds an aggregate call; the expression is its output column.
    pub(super) fn bind_aggregate(
        &mut self,
        function: &ast::Function,
        names: &mut ExprScope<'_>,
    ) -> Result<Expr> {
        if names.aggregates.is_none() || names.in_aggregate {
            return Err(Error::InvalidGroupFunction);
        }
        let applies_before = names.applies.len();
        names.in_aggregate = true;
        let bound = self.bind_call(function, names);
        names.in_aggregate = false;
        let call = bound?;
        let inside: Vec<ColumnId> =
            names.applies[applies_before..].iter().map(|apply| apply.output.id).collect();
        let Some(aggregates) = &mut names.aggregates else { return Err(Error::InvalidGroupFunction) };
        aggregates.applied_inside.extend(inside);
        if let Some(same) = aggregates.calls.iter().find(|other| is_same_call(other, &call)) {
            return Ok(super::column_expr(&same.output));
        }
        let expr = super::column_expr(&call.output);
        aggregates.calls.push(call);
        Ok(expr)
    }

    fn bind_call(&mut self, function: &ast::Function, names: &mut ExprScope<'_>) -> Result<AggregateCall> {
        let name = canonical_name(&function.name.to_ascii_lowercase()).to_owned();
        let mut args = Vec::with_capacity(function.args.len());
        for arg in &function.args {
            args.push(self.bind_expr(arg, names)?);
        }
        let mut order_by = Vec::with_capacity(function.order_by.len());
        for item in &function.order_by {
            let expr = match super::query::ordinal(&item.expr) {
                Some(number) => {
                    super::query::at_ordinal(&args, number, super::scope::Clause::OrderBy)?.clone()
                }
                None => self.bind_expr(&item.expr, names)?,
            };
            order_by.push(SortKey { expr, desc: item.desc });
        }
        let separator = function.separator.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        // MIN, MAX and the like see each value once anyway.
        let distinct = function.distinct && !matches!(name.as_str(), "min" | "max" | "bit_and" | "bit_or");
        let ty = self.aggregate_type(rutile_expr::agg::AggregateCall {
            name: name.clone(),
            args: args.clone(),
            distinct,
            order_by: order_by.iter().map(|key| (key.expr.clone(), key.desc)).collect(),
            separator: separator.clone(),
        })?;
        let output = self.output("", ty);
        Ok(AggregateCall { name, args, distinct, order_by, separator, output })
    }

    /// The columns that are the same in all rows of a group: the grouping columns and what follows from them by keys and
    /// equalities.
    pub(super) fn determined_columns(&self, plan: &LogicalPlan, group: &[Expr]) -> HashSet<ColumnId> {
        let mut determined: HashSet<ColumnId> = group
            .iter()
            .filter_map(|expr| if let Expr::Column { index, .. } = expr { Some(*index) } else { None })
            .collect();
        let mut equalities = Vec::new();
        collect_equalities(plan, &mut equalities);
        loop {
            let before = determined.len();
            for (column, sources) in &equalities {
                if sources.iter().all(|source| determined.contains(source)) {
                    determined.insert(*column);
                }
            }
            for table in &self.keys {
                if table.keys.iter().any(|key| key.iter().all(|id| determined.contains(id))) {
                    determined.extend(&table.all);
                }
            }
            if determined.len() == before {
                return determined;
            }
        }
    }
}

fn canonical_name(name: &str) -> &str {
    match name {
        "std" | "stddev" => "stddev_pop",
        "variance" => "var_pop",
        other => other,
    }
}

fn is_same_call(a: &AggregateCall, b: &AggregateCall) -> bool {
    a.name == b.name
        && a.distinct == b.distinct
        && a.separator == b.separator
        && a.args.len() == b.args.len()
        && a.args.iter().zip(&b.args).all(|(x, y)| same_expr(x, y))
        && a.order_by.len() == b.order_by.len()
        && a.order_by.iter().zip(&b.order_by).all(|(x, y)| x.desc == y.desc && same_expr(&x.expr, &y.expr))
}

/// `column = f(sources)` for equalities that every row of the plan satisfies, and computed columns of derived tables.
fn collect_equalities(plan: &LogicalPlan, found: &mut Vec<(ColumnId, Vec<ColumnId>)>) {
    match plan {
        LogicalPlan::Filter { input, predicates } => {
            predicates.iter().for_each(|predicate| equality(predicate, found));
            collect_equalities(input, found);
        }
        LogicalPlan::Join(join) => {
            if matches!(join.kind, JoinKind::Inner | JoinKind::Semi) {
                join.filter.iter().for_each(|predicate| equality(predicate, found));
            }
            if join.kind != JoinKind::Right {
                collect_equalities(&join.left, found);
            }
            if join.kind == JoinKind::Inner || join.kind == JoinKind::Right {
                collect_equalities(&join.right, found);
            }
        }
        LogicalPlan::Project { input, exprs, schema } => {
            for (expr, column) in exprs.iter().zip(&schema.columns) {
                if expr.volatility() < rutile_expr::Volatility::Volatile {
                    found.push((column.id, expr.columns()));
                }
            }
            collect_equalities(input, found);
        }
        LogicalPlan::Aggregate(aggregate) => {
            let group: Vec<ColumnId> = aggregate.schema.ids().take(aggregate.group.len()).collect();
            found.extend(aggregate.schema.ids().skip(group.len()).map(|id| (id, group.clone())));
            collect_equalities(&aggregate.input, found);
        }
        LogicalPlan::Distinct { input }
        | LogicalPlan::Sort { input, .. }
        | LogicalPlan::Limit { input, .. } => {
            collect_equalities(input, found);
        }
        LogicalPlan::Apply(apply) => collect_equalities(&apply.outer, found),
        LogicalPlan::Scan(_) | LogicalPlan::Values { .. } | LogicalPlan::Union { .. } => {}
    }
}

fn equality(predicate: &Expr, found: &mut Vec<(ColumnId, Vec<ColumnId>)>) {
    let (Some("="), [left, right]) = (predicate.function_name(), predicate.args()) else { return };
    for (column, other) in [(left, right), (right, left)] {
        if let Expr::Column { index, .. } = column
            && !other.columns().contains(index)
            && other.volatility() < rutile_expr::Volatility::Volatile
        {
            found.push((*index, other.columns()));
        }
    }
}
