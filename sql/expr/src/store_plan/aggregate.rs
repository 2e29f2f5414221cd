//! Grouping in one stage, or in two: partial groups where the rows are, put together where the query is.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use futures::StreamExt;

use crate::context::EvalContext;
use crate::error::Result;
use crate::expr::Expr;
use crate::func::{agg, registry};
use crate::operator;
use crate::physical::PhysicalExpression;

/// Which half of the work an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Rows to groups.
    Whole,
    /// Rows to partial groups: keys, then the states of the calls.
    Partial,
    /// Partial groups, of any number of partial stages, to groups.
    Final,
}

/// Keys and calls over an input, ready to be run in any stage.
pub struct Grouping {
    groups: PhysicalGroupBy,
    calls: Vec<Arc<AggregateFunctionExpr>>,
    /// Where each output column stands in what the operator gives: for the keys, then for the calls.
    order: Vec<usize>,
    input: SchemaRef,
}

impl Grouping {
    /// Over rows of `input`.
    pub fn new(
        group: &[Expr],
        calls: &[agg::AggregateCall],
        input: &SchemaRef,
        ctx: &Arc<EvalContext>,
    ) -> Result<Grouping> {
        let build = |call: agg::AggregateCall, place: usize| -> Result<Arc<AggregateFunctionExpr>> {
            let resolved = agg::resolve(ctx, call)?;
            let args =
                resolved.args.into_iter().map(|arg| PhysicalExpression::over(arg, input, ctx)).collect();
            let builder = AggregateExprBuilder::new(resolved.udaf, args)
                .schema(Arc::clone(input))
                .alias(format!("a{place}"))
                .with_distinct(resolved.distinct);
            Ok(Arc::new(builder.build()?))
        };
        let mut built = Vec::with_capacity(calls.len());
        let mut order = Vec::with_capacity(group.len() + calls.len());
        let mut keys = Vec::with_capacity(group.len());
        let mut originals = Vec::new();
        for (place, expr) in group.iter().enumerate() {
            let key = registry::sort_key(expr.clone());
            if key == *expr {
                order.push(place);
            } else {
                // Rows of one sort key show the value of one of them.
                order.push(group.len() + calls.len() + originals.len());
                originals.push(expr.clone());
            }
            keys.push((PhysicalExpression::over(key, input, ctx), format!("g{place}")));
        }
        for (place, call) in calls.iter().enumerate() {
            order.push(group.len() + place);
            built.push(build(call.clone(), place)?);
        }
        for expr in originals {
            let name = "any_value".to_owned();
            let call = agg::AggregateCall { name, args: vec![expr], ..agg::AggregateCall::default() };
            built.push(build(call, built.len())?);
        }
        let groups = PhysicalGroupBy::new_single(keys);
        Ok(Grouping { groups, calls: built, order, input: Arc::clone(input) })
    }

    /// The operator of a stage over an input of rows (of partial groups, in the final stage).
    pub fn operator(&self, stage: Stage, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let (mode, groups) = match stage {
            Stage::Whole => (AggregateMode::Single, self.groups.clone()),
            Stage::Partial => (AggregateMode::Partial, self.groups.clone()),
            Stage::Final => (AggregateMode::Final, self.groups.as_final()),
        };
        let filters = vec![None; self.calls.len()];
        let (calls, schema) = (self.calls.clone(), Arc::clone(&self.input));
        Ok(Arc::new(AggregateExec::try_new(mode, groups, calls, filters, input, schema)?))
    }

    /// Where each output column (the keys, then the calls) stands in the batches of the whole or final stage.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The schema of partial groups.
    pub fn partial_schema(&self) -> Result<SchemaRef> {
        let nothing = operator::input(futures::stream::empty().boxed(), Arc::clone(&self.input));
        Ok(self.operator(Stage::Partial, nothing)?.schema())
    }
}
