//! A limit tells the scan below it how many rows will do, where nothing between them drops or adds rows.

use crate::plan::exprs::children_mut;
use crate::plan::logical::{LimitClause, LogicalPlan};

/// Applies the rule to a whole tree.
pub fn push_limit(mut plan: LogicalPlan) -> LogicalPlan {
    visit(&mut plan);
    plan
}

fn visit(plan: &mut LogicalPlan) {
    if let LogicalPlan::Limit { input, limit } = plan {
        offer(input, limit);
    }
    children_mut(plan).into_iter().for_each(visit);
}

fn offer(plan: &mut LogicalPlan, limit: &LimitClause) {
    match plan {
        // A sort in between is handled where its order is matched with an index.
        LogicalPlan::Project { input, .. } => offer(input, limit),
        LogicalPlan::Scan(scan) => scan.limit = Some(limit.clone()),
        LogicalPlan::Union { inputs, .. } => inputs.iter_mut().for_each(|input| offer(input, limit)),
        _ => {}
    }
}
