//! Columns that nobody reads are not computed.

use std::collections::HashSet;

use crate::optimizer::rules::push_down::join_schema;
use crate::plan::logical::{Aggregate, JoinKind, LogicalPlan, Scan};
use crate::plan::schema::{ColumnId, Schema};

/// Applies the rule; the root's own columns are all read.
pub fn prune(plan: LogicalPlan) -> LogicalPlan {
    let needed = plan.schema().ids().collect();
    prune_node(plan, &needed)
}

type Needed = HashSet<ColumnId>;

fn with<'e>(needed: &Needed, exprs: impl IntoIterator<Item = &'e rutile_expr::Expr>) -> Needed {
    let mut all = needed.clone();
    exprs.into_iter().for_each(|expr| all.extend(expr.columns()));
    all
}

fn prune_node(plan: LogicalPlan, needed: &Needed) -> LogicalPlan {
    match plan {
        LogicalPlan::Scan(scan) => LogicalPlan::Scan(prune_scan(scan, needed)),
        LogicalPlan::Values { rows, schema } => LogicalPlan::Values { rows, schema },
        LogicalPlan::Filter { input, predicates } => {
            let below = with(needed, &predicates);
            LogicalPlan::Filter { input: Box::new(prune_node(*input, &below)), predicates }
        }
        LogicalPlan::Project { input, exprs, schema } => {
            let kept: Vec<bool> = schema.ids().map(|id| needed.contains(&id)).collect();
            let mut keep = kept.iter();
            let exprs: Vec<_> = exprs.into_iter().filter(|_| *keep.next().unwrap_or(&true)).collect();
            let columns =
                schema.columns.iter().filter(|column| needed.contains(&column.id)).cloned().collect();
            let below = with(&Needed::new(), &exprs);
            let input = Box::new(prune_node(*input, &below));
            LogicalPlan::Project { input, exprs, schema: Schema::new(columns) }
        }
        LogicalPlan::Join(mut join) => {
            // A mark that nobody looks at.
            if join.kind == JoinKind::Mark
                && join.schema.columns.last().is_some_and(|mark| !needed.contains(&mark.id))
            {
                return prune_node(*join.left, needed);
            }
            let below = with(needed, &join.filter);
            join.left = Box::new(prune_node(*join.left, &below));
            join.right = Box::new(prune_node(*join.right, &below));
            join.schema = join_schema(&join);
            LogicalPlan::Join(join)
        }
        LogicalPlan::Aggregate(aggregate) => prune_aggregate(aggregate, needed),
        LogicalPlan::Distinct { input } => {
            let all = input.schema().ids().collect();
            LogicalPlan::Distinct { input: Box::new(prune_node(*input, &all)) }
        }
        LogicalPlan::Sort { input, keys } => {
            let below = with(needed, keys.iter().map(|key| &key.expr));
            LogicalPlan::Sort { input: Box::new(prune_node(*input, &below)), keys }
        }
        LogicalPlan::Limit { input, limit } => {
            LogicalPlan::Limit { input: Box::new(prune_node(*input, needed)), limit }
        }
        LogicalPlan::Union { inputs, schema } => {
            LogicalPlan::Union { inputs: inputs.into_iter().map(prune).collect(), schema }
        }
        LogicalPlan::Apply(mut apply) => {
            let mut below = needed.clone();
            below.extend(apply.bindings.iter().map(|(id, _)| *id));
            let output = apply.schema.columns.last().cloned();
            apply.outer = Box::new(prune_node(*apply.outer, &below));
            apply.inner = Box::new(prune(*apply.inner));
            let mut columns = apply.outer.schema().columns.clone();
            columns.extend(output);
            apply.schema = Schema::new(columns);
            LogicalPlan::Apply(apply)
        }
    }
}

fn prune_scan(mut scan: Scan, needed: &Needed) -> Scan {
    let needed = with(needed, &scan.filters);
    let (mut offsets, mut columns) = (Vec::new(), Vec::new());
    for (offset, column) in scan.offsets.iter().zip(&scan.schema.columns) {
        if needed.contains(&column.id) {
            offsets.push(*offset);
            columns.push(column.clone());
        }
    }
    scan.offsets = offsets;
    scan.schema = Schema::new(columns);
    scan
}

fn prune_aggregate(aggregate: Aggregate, needed: &Needed) -> LogicalPlan {
    let Aggregate { input, group, calls, schema } = aggregate;
    let calls: Vec<_> = calls.into_iter().filter(|call| needed.contains(&call.output.id)).collect();
    let mut below = with(&Needed::new(), &group);
    for call in &calls {
        below = with(&below, &call.args);
        below = with(&below, call.order_by.iter().map(|key| &key.expr));
    }
    let mut columns: Vec<_> = schema.columns.iter().take(group.len()).cloned().collect();
    columns.extend(calls.iter().map(|call| call.output.clone()));
    let input = Box::new(prune_node(*input, &below));
    LogicalPlan::Aggregate(Aggregate { input, group, calls, schema: Schema::new(columns) })
}
