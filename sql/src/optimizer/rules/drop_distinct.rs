//! DISTINCT over rows that are different already: its columns hold a unique key of the input.

use crate::optimizer::cardinality::unique_keys;
use crate::plan::exprs::children_mut;
use crate::plan::logical::LogicalPlan;

/// Applies the rule to a whole tree.
pub fn drop_distinct(mut plan: LogicalPlan) -> LogicalPlan {
    for child in children_mut(&mut plan) {
        let whole = std::mem::replace(child, LogicalPlan::dual());
        *child = drop_distinct(whole);
    }
    match plan {
        LogicalPlan::Distinct { input } if is_distinct(&input) => *input,
        other => other,
    }
}

fn is_distinct(plan: &LogicalPlan) -> bool {
    let schema = plan.schema();
    unique_keys(plan).iter().any(|key| key.iter().all(|id| schema.contains(*id)))
}
