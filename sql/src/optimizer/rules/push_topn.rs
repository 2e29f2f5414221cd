//! The first rows of a union or of an outer join's preserved side: each input need not give more of them than are wanted.
//!
//! `ORDER BY … LIMIT` over `UNION ALL` takes that many rows of each input first; over a left join whose left side has all the
//! columns of the order, of the left side: every left row comes out at least once.

use rutile_expr::Expr;

use crate::plan::exprs::children_mut;
use crate::plan::logical::{JoinKind, LimitClause, LogicalPlan, SortKey};
use crate::plan::schema::SchemaRef;

/// Applies the rule to a whole tree.
pub fn push_topn(mut plan: LogicalPlan) -> LogicalPlan {
    if let LogicalPlan::Limit { input, limit } = &mut plan
        && let Some(rows) = rows_wanted(limit)
    {
        match &mut **input {
            LogicalPlan::Sort { input, keys } => offer(input, Some(keys), rows),
            other => offer(other, None, rows),
        }
    }
    for child in children_mut(&mut plan) {
        let whole = std::mem::replace(child, LogicalPlan::dual());
        *child = push_topn(whole);
    }
    plan
}

/// Rows to read for a limit, where its numbers are known.
fn rows_wanted(limit: &LimitClause) -> Option<i64> {
    let number = |expr: &Option<Expr>| match expr {
        None => Some(0),
        Some(Expr::Literal { value, .. }) => value.as_u64(),
        Some(_) => None,
    };
    limit.count.as_ref()?;
    i64::try_from(number(&limit.offset)?.checked_add(number(&limit.count)?)?).ok()
}

fn offer(plan: &mut LogicalPlan, keys: Option<&[SortKey]>, rows: i64) {
    match plan {
        LogicalPlan::Project { input, exprs, schema } => {
            let below = keys.map(|keys| through(keys, schema, exprs));
            match below {
                None => offer(input, None, rows),
                Some(Some(keys)) => offer(input, Some(&keys), rows),
                Some(None) => {}
            }
        }
        LogicalPlan::Union { inputs, schema } => {
            for input in inputs {
                let columns: Vec<Expr> = input
                    .schema()
                    .columns
                    .iter()
                    .map(|column| Expr::column(column.id, &column.name, column.ty.clone()))
                    .collect();
                match keys.map(|keys| through(keys, schema, &columns)) {
                    None => cut(input, None, rows),
                    Some(Some(keys)) => cut(input, Some(keys), rows),
                    Some(None) => {}
                }
            }
        }
        LogicalPlan::Join(join) if join.kind == JoinKind::Left => {
            let left = join.left.schema().clone();
            let known = |key: &SortKey| key.expr.columns().iter().all(|id| left.contains(*id));
            if keys.is_none_or(|keys| keys.iter().all(known)) {
                cut(&mut join.left, keys.map(<[SortKey]>::to_vec), rows);
            }
        }
        _ => {}
    }
}

/// Keys that are bare columns of `schema`, as what computes them; `None` when that is no bare column either.
fn through(keys: &[SortKey], schema: &SchemaRef, exprs: &[Expr]) -> Option<Vec<SortKey>> {
    let below = |key: &SortKey| {
        let Expr::Column { index, .. } = &key.expr else { return None };
        let expr = exprs.get(schema.position(*index)?)?;
        matches!(expr, Expr::Column { .. }).then(|| SortKey { expr: expr.clone(), desc: key.desc })
    };
    keys.iter().map(below).collect()
}

/// Puts an order and a limit on a plan, unless there is a limit already.
fn cut(plan: &mut LogicalPlan, keys: Option<Vec<SortKey>>, rows: i64) {
    if matches!(plan, LogicalPlan::Limit { .. } | LogicalPlan::Values { .. }) {
        return;
    }
    let mut input = std::mem::replace(plan, LogicalPlan::dual());
    if let Some(keys) = keys.filter(|keys| !keys.is_empty()) {
        input = LogicalPlan::Sort { input: Box::new(input), keys };
    }
    let limit = LimitClause { offset: None, count: Some(Expr::int(rows)) };
    *plan = LogicalPlan::Limit { input: Box::new(input), limit };
}
