//! How many rows a logical plan gives, and how many different values its columns have: what costs are made of.
//!
//! Tables answer from their statistics. A join has `|L| · |R| / max(ndv)` rows for each equality; columns that contain a unique
//! key of one side count as that key does. Everything else is a guess in the right direction.

use std::collections::HashSet;

use rutile_expr::Expr;

use super::access_path::TABLE_ROWS_GUESS;
use crate::catalog::model::HandleKind;
use crate::plan::logical::{Aggregate, Join, JoinKind, LimitClause, LogicalPlan, Scan};
use crate::plan::schema::ColumnId;

/// Of a condition that is no equality between tables.
pub const OTHER_CONDITION_PART: f64 = 1.0 / 3.0;
/// Rows that an unknown filter keeps.
const FILTER_PART: f64 = 0.8;
/// Rows that a semi join (anti join) keeps where nothing says better.
const SEMI_PART: f64 = 0.5;
/// Rows of each group, where its columns' values are not known.
const ROWS_PER_GROUP: f64 = 10.0;

/// Rows a plan gives; at least 1.
pub fn rows(plan: &LogicalPlan) -> f64 {
    let rows = match plan {
        LogicalPlan::Scan(scan) => scan_rows(scan),
        LogicalPlan::Values { rows, .. } => rows.len() as f64,
        LogicalPlan::Filter { input, predicates } => rows(input) * FILTER_PART.powi(predicates.len() as i32),
        LogicalPlan::Project { input, .. } | LogicalPlan::Sort { input, .. } => rows(input),
        LogicalPlan::Distinct { input } => {
            let all: Vec<ColumnId> = input.schema().ids().collect();
            different(input, &all, rows(input))
        }
        LogicalPlan::Limit { input, limit } => rows(input).min(limit_rows(limit)),
        LogicalPlan::Join(join) => join_rows(join),
        LogicalPlan::Aggregate(aggregate) => groups(aggregate),
        LogicalPlan::Union { inputs, .. } => inputs.iter().map(rows).sum(),
        LogicalPlan::Apply(apply) => rows(&apply.outer),
    };
    rows.max(1.0)
}

fn scan_rows(scan: &Scan) -> f64 {
    if scan.is_virtual {
        return TABLE_ROWS_GUESS;
    }
    scan.rows()
}

/// Rows of a table before any condition.
pub fn base_rows(plan: &LogicalPlan) -> f64 {
    match plan {
        LogicalPlan::Scan(scan) if !scan.is_virtual => scan.stats.rows.max(1.0),
        LogicalPlan::Filter { input, .. } | LogicalPlan::Project { input, .. } => base_rows(input),
        other => rows(other),
    }
}

fn limit_rows(limit: &LimitClause) -> f64 {
    match &limit.count {
        Some(Expr::Literal { value, .. }) => value.as_u64().unwrap_or(u64::MAX) as f64,
        _ => f64::MAX,
    }
}

/// Groups of an aggregation.
pub fn groups(aggregate: &Aggregate) -> f64 {
    if aggregate.group.is_empty() {
        return 1.0;
    }
    let input = rows(&aggregate.input);
    let mut product = 1.0;
    for expr in &aggregate.group {
        let columns = expr.columns();
        product *= match columns.as_slice() {
            [] => 1.0,
            [one] => ndv(&aggregate.input, *one),
            _ => input / ROWS_PER_GROUP,
        };
    }
    product.min(input)
}

fn different(plan: &LogicalPlan, columns: &[ColumnId], rows: f64) -> f64 {
    columns.iter().map(|id| ndv(plan, *id)).product::<f64>().min(rows)
}

/// Different values of a column; at least 1, at most as many as there are rows.
pub fn ndv(plan: &LogicalPlan, id: ColumnId) -> f64 {
    let rows = rows(plan);
    let known = match plan {
        LogicalPlan::Scan(scan) if !scan.is_virtual => scan.ndv(id).unwrap_or(rows),
        LogicalPlan::Filter { input, .. }
        | LogicalPlan::Sort { input, .. }
        | LogicalPlan::Distinct { input }
        | LogicalPlan::Limit { input, .. } => ndv(input, id),
        LogicalPlan::Project { input, exprs, schema } => {
            let expr = schema.position(id).map(|place| &exprs[place]);
            match expr.map(Expr::columns).as_deref() {
                Some([one]) => ndv(input, *one),
                _ => rows,
            }
        }
        LogicalPlan::Join(join) if join.left.schema().contains(id) => ndv(&join.left, id),
        LogicalPlan::Join(join) if join.right.schema().contains(id) => ndv(&join.right, id),
        LogicalPlan::Aggregate(aggregate) => match aggregate.schema.position(id) {
            Some(place) if place < aggregate.group.len() => match aggregate.group[place].columns().as_slice()
            {
                [one] => ndv(&aggregate.input, *one),
                _ => rows,
            },
            _ => rows,
        },
        LogicalPlan::Apply(apply) if apply.outer.schema().contains(id) => ndv(&apply.outer, id),
        _ => rows,
    };
    known.min(rows).max(1.0)
}

/// Sets of columns in which no two rows of a plan agree.
pub fn unique_keys(plan: &LogicalPlan) -> Vec<Vec<ColumnId>> {
    match plan {
        LogicalPlan::Scan(scan) if !scan.is_virtual => scan_keys(scan),
        LogicalPlan::Filter { input, .. }
        | LogicalPlan::Sort { input, .. }
        | LogicalPlan::Limit { input, .. } => unique_keys(input),
        LogicalPlan::Project { input, schema, .. } => {
            let shown = |key: &Vec<ColumnId>| key.iter().all(|id| schema.contains(*id));
            unique_keys(input).into_iter().filter(shown).collect()
        }
        LogicalPlan::Aggregate(aggregate) => {
            vec![aggregate.schema.ids().take(aggregate.group.len()).collect()]
        }
        LogicalPlan::Distinct { input } => {
            let mut keys = unique_keys(input);
            keys.push(input.schema().ids().collect());
            keys
        }
        LogicalPlan::Join(join) if !multiplies(join) => unique_keys(&join.left),
        LogicalPlan::Apply(apply) => unique_keys(&apply.outer),
        _ => Vec::new(),
    }
}

/// Whether a left row may come out of a join more than once.
fn multiplies(join: &Join) -> bool {
    match join.kind {
        JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti | JoinKind::Mark => false,
        JoinKind::Right => true,
        JoinKind::Inner | JoinKind::Left => {
            let right: HashSet<ColumnId> = join.right.schema().ids().collect();
            let fixed = equated(&join.filter, &right);
            !unique_keys(&join.right).iter().any(|key| key.iter().all(|id| fixed.contains(id)))
        }
    }
}

/// Columns of `side` that conditions equate with something outside.
pub fn equated(conditions: &[Expr], side: &HashSet<ColumnId>) -> HashSet<ColumnId> {
    let mut found = HashSet::new();
    for condition in conditions {
        let Expr::Call(call) = condition else { continue };
        let ("=", [left, right]) = (call.func.name, call.args.as_slice()) else { continue };
        for (column, other) in [(left, right), (right, left)] {
            if let Expr::Column { index, field_type, .. } = column
                && side.contains(index)
                && (!field_type.is_string() || field_type.collation == call.collation)
                && other.columns().iter().all(|id| !side.contains(id))
            {
                found.insert(*index);
            }
        }
    }
    found
}

fn scan_keys(scan: &Scan) -> Vec<Vec<ColumnId>> {
    let id_of = |offset: usize| {
        let place = scan.offsets.iter().position(|read| *read == offset)?;
        Some(scan.schema.columns[place].id)
    };
    let mut keys: Vec<Vec<ColumnId>> = Vec::new();
    if let HandleKind::Int { offset } = scan.table.handle {
        keys.extend(id_of(offset).map(|id| vec![id]));
    }
    for index in scan.table.indexes.iter().filter(|index| index.unique && index.state.is_public()) {
        let whole = |c: &crate::catalog::model::IndexColumnInfo| {
            c.prefix.is_none() && scan.table.columns[c.offset].ty.not_null
        };
        if index.columns.iter().all(whole) {
            keys.extend(index.columns.iter().map(|c| id_of(c.offset)).collect::<Option<Vec<_>>>());
        }
    }
    keys
}

/// Rows of a join.
pub fn join_rows(join: &Join) -> f64 {
    let (left, right) = (rows(&join.left), rows(&join.right));
    let part = selectivity(&join.left, &join.right, &join.filter);
    let inner = left * right * part;
    match join.kind {
        JoinKind::Inner => inner,
        JoinKind::Left => inner.max(left),
        JoinKind::Mark => left,
        JoinKind::Right => inner.max(right),
        JoinKind::Semi => left * semi_part(&join.left, &join.right, &join.filter),
        JoinKind::Anti | JoinKind::NullAwareAnti => {
            left * (1.0 - semi_part(&join.left, &join.right, &join.filter)).max(0.1)
        }
    }
    .max(1.0)
}

/// What part of all pairs of rows passes the conditions between two plans.
pub fn selectivity(left: &LogicalPlan, right: &LogicalPlan, conditions: &[Expr]) -> f64 {
    let left_ids: HashSet<ColumnId> = left.schema().ids().collect();
    let right_ids: HashSet<ColumnId> = right.schema().ids().collect();
    let mut pairs = Vec::new();
    let mut part = 1.0;
    for condition in conditions {
        match pair(condition, &left_ids, &right_ids) {
            Some(found) => pairs.push(found),
            None => part *= OTHER_CONDITION_PART,
        }
    }
    part * pairs_part(left, right, &pairs)
}

/// The columns of an equality of two columns, the left plan's first.
fn pair(
    condition: &Expr,
    left: &HashSet<ColumnId>,
    right: &HashSet<ColumnId>,
) -> Option<(ColumnId, ColumnId)> {
    if !matches!(condition.function_name(), Some("=" | "<=>")) {
        return None;
    }
    let [a, b] = condition.args() else { return None };
    let (a, b) = (a.columns(), b.columns());
    let ([a], [b]) = (a.as_slice(), b.as_slice()) else { return None };
    match () {
        () if left.contains(a) && right.contains(b) => Some((*a, *b)),
        () if left.contains(b) && right.contains(a) => Some((*b, *a)),
        () => None,
    }
}

/// What part of all pairs of rows agrees in pairs of columns.
pub fn pairs_part(left: &LogicalPlan, right: &LogicalPlan, pairs: &[(ColumnId, ColumnId)]) -> f64 {
    if pairs.is_empty() {
        return 1.0;
    }
    let covers = |plan: &LogicalPlan, pick: &dyn Fn(&(ColumnId, ColumnId)) -> ColumnId| {
        let columns: Vec<ColumnId> = pairs.iter().map(pick).collect();
        unique_keys(plan).iter().any(|key| key.iter().all(|id| columns.contains(id)))
    };
    let mut keys: Vec<f64> = Vec::new();
    if covers(left, &|pair| pair.0) {
        keys.push(base_rows(left));
    }
    if covers(right, &|pair| pair.1) {
        keys.push(base_rows(right));
    }
    if let Some(values) = keys.into_iter().min_by(f64::total_cmp) {
        return 1.0 / values.max(1.0);
    }
    let values: f64 = pairs.iter().map(|(l, r)| base_ndv(left, *l).max(base_ndv(right, *r))).product();
    1.0 / values.min(base_rows(left).max(base_rows(right))).max(1.0)
}

/// Different values of a column before the conditions on its table: both sides of a join are thought to lose values alike.
fn base_ndv(plan: &LogicalPlan, id: ColumnId) -> f64 {
    match plan {
        LogicalPlan::Scan(scan) if !scan.is_virtual => scan.ndv(id).unwrap_or(1.0),
        LogicalPlan::Filter { input, .. } => base_ndv(input, id),
        LogicalPlan::Join(join) if join.left.schema().contains(id) => base_ndv(&join.left, id),
        LogicalPlan::Join(join) if join.right.schema().contains(id) => base_ndv(&join.right, id),
        other => ndv(other, id),
    }
}

/// What part of the left rows has a partner.
pub fn semi_part(left: &LogicalPlan, right: &LogicalPlan, conditions: &[Expr]) -> f64 {
    let left_ids: HashSet<ColumnId> = left.schema().ids().collect();
    let right_ids: HashSet<ColumnId> = right.schema().ids().collect();
    let pairs = conditions.iter().filter_map(|condition| pair(condition, &left_ids, &right_ids));
    let parts = pairs.map(|(l, r)| ndv(right, r) / base_ndv(left, l).max(1.0));
    parts
        .fold(None, |least: Option<f64>, part| Some(least.map_or(part, |least| least.min(part))))
        .map_or(SEMI_PART, |part| part.clamp(0.0, 1.0) * 0.9)
}
