//! GROUP BY, DISTINCT and aggregate functions.

use std::sync::Arc;

use datafusion_physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion_physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use futures::StreamExt;
use rutile_expr::physical::PhysicalExpression;
use rutile_expr::{Expr, agg, registry};

use super::{ExecContext, RowStream, builder, filter, operator};
use crate::error::Result;
use crate::plan::logical::AggregateCall;
use crate::plan::physical::{AggregateNode, PhysicalPlan};

pub(super) fn open(node: &AggregateNode, plan: &PhysicalPlan, ctx: &ExecContext) -> Result<RowStream> {
    let schema = plan.schema.arrow();
    if node.group.is_empty() && node.calls.is_empty() {
        // One group, of which nobody reads anything.
        let batch = filter::batch(&schema, Vec::new(), 1)?;
        return Ok(futures::stream::once(async move { Ok(batch) }).boxed());
    }
    let input_schema = node.input.schema.arrow();
    let input = operator::input(builder::open(&node.input, ctx)?, Arc::clone(&input_schema));
    let build = |call: agg::AggregateCall, place: usize| -> Result<Arc<AggregateFunctionExpr>> {
        let resolved = agg::resolve(&ctx.eval, call)?;
        let args = resolved.args.into_iter().map(|arg| PhysicalExpression::value(arg, &ctx.eval)).collect();
        let builder = AggregateExprBuilder::new(resolved.udaf, args)
            .schema(Arc::clone(&input_schema))
            .alias(format!("a{place}"))
            .with_distinct(resolved.distinct);
        Ok(Arc::new(builder.build()?))
    };
    let mut calls = Vec::with_capacity(node.calls.len());
    // Where each output column stands in what the operator gives: the groups' keys, then the calls.
    let mut order = Vec::with_capacity(plan.schema.len());
    let mut keys = Vec::with_capacity(node.group.len());
    let mut originals = Vec::new();
    for (place, expr) in node.group.iter().enumerate() {
        let key = registry::sort_key(expr.clone());
        if matches!(&key, Expr::Call(call) if call.func.name == "sort_key") && key != *expr {
            // Rows of one sort key show the value of one of them.
            order.push(node.group.len() + node.calls.len() + originals.len());
            originals.push(expr.clone());
        } else {
            order.push(place);
        }
        keys.push((PhysicalExpression::value(key, &ctx.eval), format!("g{place}")));
    }
    for (place, call) in node.calls.iter().enumerate() {
        order.push(node.group.len() + place);
        calls.push(build(resolvable(call), place)?);
    }
    for expr in originals {
        let name = "any_value".to_owned();
        let call = agg::AggregateCall { name, args: vec![expr], ..agg::AggregateCall::default() };
        calls.push(build(call, calls.len())?);
    }
    let filters = vec![None; calls.len()];
    let groups = PhysicalGroupBy::new_single(keys);
    let operator =
        AggregateExec::try_new(AggregateMode::Single, groups, calls, filters, input, input_schema)?;
    let rows = operator::run(Arc::new(operator), ctx.task())?;
    Ok(rows
        .map(move |batch| {
            let batch = batch?;
            let columns = order.iter().map(|place| Arc::clone(batch.column(*place))).collect();
            filter::batch(&schema, columns, batch.num_rows())
        })
        .boxed())
}

fn resolvable(call: &AggregateCall) -> agg::AggregateCall {
    let name = if call.name == "first_row" { "any_value" } else { &call.name };
    agg::AggregateCall {
        name: name.to_owned(),
        args: call.args.clone(),
        distinct: call.distinct,
        order_by: call.order_by.iter().map(|key| (key.expr.clone(), key.desc)).collect(),
        separator: call.separator.clone(),
    }
}
