//! Lets the stores do what they can of a plan: filter, compute, group and find the first rows where the rows are, so that few of
//! them travel.
//!
//! A reader that looks at many rows is put under a [`Gather`]; what stands above and can be evaluated in a store goes below it:
//! conditions and computed columns as they are, grouping as a partial stage, an order with a limit and a limit as a share of each
//! region. Readers of few rows stay as they are: a plan's way to a store and back costs more than their rows do.

use rutile_expr::Expr;
use rutile_expr::store_plan::{can_group_in_store, can_run_in_store};

use crate::plan::logical::{LimitClause, SortKey};
use crate::plan::physical::{AggregateNode, Gather, PhysicalNode, PhysicalPlan, Stage};

/// Readers of fewer rows stay.
const SCANNED_ROWS_MIN: f64 = 500.0;

/// The plan with everything below gathers that can be there.
pub fn push(plan: PhysicalPlan) -> PhysicalPlan {
    let PhysicalPlan { node, schema, rows } = plan;
    let whole = |node: PhysicalNode| PhysicalPlan { node, schema: schema.clone(), rows };
    let boxed = |plan: Box<PhysicalPlan>| Box::new(push(*plan));
    match node {
        PhysicalNode::TableReader(reader) => {
            let many = reader.scanned >= SCANNED_ROWS_MIN && reader.lock.is_none() && all(&reader.filter);
            let keep_order = reader.keep_order;
            gathered(whole(PhysicalNode::TableReader(reader)), many, keep_order)
        }
        PhysicalNode::IndexReader(reader) => {
            let many = reader.scanned >= SCANNED_ROWS_MIN && all(&reader.filter);
            let keep_order = reader.keep_order;
            gathered(whole(PhysicalNode::IndexReader(reader)), many, keep_order)
        }
        PhysicalNode::Filter { input, predicates } => {
            let can = all(&predicates);
            below(boxed(input), can, |input| whole(PhysicalNode::Filter { input, predicates }))
        }
        PhysicalNode::Project { input, exprs } => {
            let can = all(&exprs) && exprs.len() <= input.schema.len();
            below(boxed(input), can, |input| whole(PhysicalNode::Project { input, exprs }))
        }
        PhysicalNode::Aggregate(node) => aggregate(AggregateNode { input: boxed(node.input), ..node }, whole),
        PhysicalNode::Sort { input, keys, limit } => sort(boxed(input), keys, limit, whole),
        PhysicalNode::Limit { input, limit } => limited(boxed(input), limit, whole),
        PhysicalNode::HashJoin(mut join) => {
            (join.left, join.right) = (boxed(join.left), boxed(join.right));
            whole(PhysicalNode::HashJoin(join))
        }
        PhysicalNode::LoopJoin(mut join) => {
            (join.left, join.right) = (boxed(join.left), boxed(join.right));
            whole(PhysicalNode::LoopJoin(join))
        }
        PhysicalNode::IndexJoin(mut join) => {
            // The inner reader is run with few keys at a time.
            join.outer = boxed(join.outer);
            whole(PhysicalNode::IndexJoin(join))
        }
        PhysicalNode::Apply(mut apply) => {
            (apply.outer, apply.inner) = (boxed(apply.outer), boxed(apply.inner));
            whole(PhysicalNode::Apply(apply))
        }
        PhysicalNode::Union { inputs } => {
            whole(PhysicalNode::Union { inputs: inputs.into_iter().map(push).collect() })
        }
        node => whole(node),
    }
}

fn all(exprs: &[Expr]) -> bool {
    exprs.iter().all(can_run_in_store)
}

fn gathered(plan: PhysicalPlan, wanted: bool, keep_order: bool) -> PhysicalPlan {
    if !wanted {
        return plan;
    }
    let (schema, rows) = (plan.schema.clone(), plan.rows);
    PhysicalPlan { node: PhysicalNode::Gather(Gather { input: Box::new(plan), keep_order }), schema, rows }
}

/// Whether more can be put on top of what is gathered: what a store has grouped, sorted or cut is a share only.
fn takes_more(gather: &Gather) -> bool {
    match &gather.input.node {
        PhysicalNode::Filter { .. } | PhysicalNode::Project { .. } => true,
        PhysicalNode::TableReader(reader) => reader.limit.is_none(),
        PhysicalNode::IndexReader(reader) => reader.limit.is_none(),
        _ => false,
    }
}

/// Puts a node below the gather that its input is, if it can be there.
fn below(
    input: Box<PhysicalPlan>,
    can: bool,
    make: impl FnOnce(Box<PhysicalPlan>) -> PhysicalPlan,
) -> PhysicalPlan {
    match input.node {
        PhysicalNode::Gather(gather) if can && takes_more(&gather) => {
            gathered(make(gather.input), true, gather.keep_order)
        }
        node => make(Box::new(PhysicalPlan { node, ..*input })),
    }
}

fn aggregate(node: AggregateNode, whole: impl Fn(PhysicalNode) -> PhysicalPlan) -> PhysicalPlan {
    let can = all(&node.group)
        && node.calls.iter().all(|call| can_group_in_store(&call.resolvable()))
        && !(node.group.is_empty() && node.calls.is_empty());
    let input = *node.input;
    match input.node {
        PhysicalNode::Gather(gather) if can && takes_more(&gather) => {
            let (group, calls) = (node.group.clone(), node.calls.clone());
            let partial = AggregateNode { stage: Stage::Partial, input: gather.input, group, calls };
            let partial = whole(PhysicalNode::Aggregate(partial));
            let input = Box::new(gathered(partial, true, false));
            whole(PhysicalNode::Aggregate(AggregateNode { stage: Stage::Final, input, ..node }))
        }
        below => {
            let input = Box::new(PhysicalPlan { node: below, ..input });
            whole(PhysicalNode::Aggregate(AggregateNode { input, ..node }))
        }
    }
}

fn sort(
    input: Box<PhysicalPlan>,
    keys: Vec<SortKey>,
    limit: Option<LimitClause>,
    whole: impl Fn(PhysicalNode) -> PhysicalPlan,
) -> PhysicalPlan {
    let can = keys.iter().all(|key| can_run_in_store(&key.expr));
    let share = limit.as_ref().and_then(share_of);
    let input = match (input.node, share) {
        (PhysicalNode::Gather(gather), Some(share)) if can && takes_more(&gather) => {
            let first = PhysicalNode::Sort { input: gather.input, keys: keys.clone(), limit: Some(share) };
            let first = PhysicalPlan { node: first, schema: input.schema.clone(), rows: whole_rows(&whole) };
            gathered(first, true, false)
        }
        (node, _) => PhysicalPlan { node, ..*input },
    };
    whole(PhysicalNode::Sort { input: Box::new(input), keys, limit })
}

fn whole_rows(whole: &impl Fn(PhysicalNode) -> PhysicalPlan) -> f64 {
    whole(PhysicalNode::Values { rows: Vec::new() }).rows
}

fn limited(
    input: Box<PhysicalPlan>,
    limit: LimitClause,
    whole: impl Fn(PhysicalNode) -> PhysicalPlan,
) -> PhysicalPlan {
    let share = share_of(&limit);
    let input = match (input.node, share) {
        (PhysicalNode::Gather(gather), Some(share)) if takes_more(&gather) => {
            let keep_order = gather.keep_order;
            gathered(whole(PhysicalNode::Limit { input: gather.input, limit: share }), true, keep_order)
        }
        (node, _) => PhysicalPlan { node, ..*input },
    };
    whole(PhysicalNode::Limit { input: Box::new(input), limit })
}

/// What each region has to give for a limit: the rows to be skipped, too. `None` where that is not known before the execution.
fn share_of(limit: &LimitClause) -> Option<LimitClause> {
    let count = limit.count.clone()?;
    let Some(offset) = &limit.offset else {
        return Some(LimitClause { offset: None, count: Some(count) });
    };
    let number = |expr: &Expr| match expr {
        Expr::Literal { value, .. } => value.as_u64(),
        _ => None,
    };
    let total = number(offset)?.checked_add(number(&count)?)?;
    let total = i64::try_from(total).ok()?;
    Some(LimitClause { offset: None, count: Some(Expr::int(total)) })
}
