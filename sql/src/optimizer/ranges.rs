//! Which conditions say what part of a key to visit.
//!
//! A condition qualifies when it compares the bare key column, under the column's own collation, with values that are constant
//! during the execution. Values stay expressions: the executor turns them into key bytes, each time from that execution's
//! parameters. A condition that the range expresses exactly needs no second test; the others stay as filters.

use rutile_expr::types::field_type::Family;
use rutile_expr::types::{Datum, FieldType, MysqlType};
use rutile_expr::{Call, Expr};

use crate::plan::range::{AccessConditions, RangeExpr, RangeOp};
use crate::plan::schema::ColumnId;

/// A column of a key, as an access path sees it.
#[derive(Debug, Clone)]
pub struct KeyColumn {
    /// `None` when the query does not read the column at all, so that no condition is on it.
    pub id: Option<ColumnId>,
    pub ty: FieldType,
    /// Only a prefix of the values is in the key.
    pub prefix: bool,
}

/// What of a table's conditions a key can use.
#[derive(Debug, Clone, Default)]
pub struct Match {
    pub conditions: AccessConditions,
    /// Columns fixed to single values by `=`: any one value each.
    pub points: usize,
    /// Columns fixed to one of several values.
    pub lists: usize,
    /// Whether the last condition column is a range.
    pub range: bool,
    /// Filters (by place) that the ranges make superfluous.
    pub exact: Vec<usize>,
    /// Filters (by place) that the ranges come from.
    pub used: Vec<usize>,
}

/// Matches filters with the leading columns of a key.
pub fn match_key(columns: &[KeyColumn], filters: &[Expr]) -> Match {
    let mut found = Match::default();
    for column in columns {
        let Some(id) = column.id else { break };
        let mut on_column = Vec::new();
        let (mut point, mut list) = (false, false);
        for (place, filter) in filters.iter().enumerate() {
            let Some((conditions, exact)) = condition_on(filter, id, column) else { continue };
            for condition in &conditions {
                point |= is_point(condition);
                list |= is_list(condition);
            }
            on_column.extend(conditions);
            found.used.push(place);
            if exact && !column.prefix {
                found.exact.push(place);
            }
        }
        if on_column.is_empty() {
            break;
        }
        found.conditions.columns.push(on_column);
        // Behind a prefix of a value nothing is in order.
        match (point, list) {
            (true, _) if !column.prefix => found.points += 1,
            (_, true) if !column.prefix => found.lists += 1,
            _ => {
                found.range = true;
                break;
            }
        }
    }
    found
}

fn is_point(condition: &RangeExpr) -> bool {
    matches!(condition, RangeExpr::Cmp { op: RangeOp::Eq | RangeOp::NullEq, .. } | RangeExpr::IsNull)
}

fn is_list(condition: &RangeExpr) -> bool {
    match condition {
        RangeExpr::In(_) => true,
        RangeExpr::Or(alternatives) => {
            alternatives.iter().all(|all| all.iter().any(|one| is_point(one) || is_list(one)))
        }
        other => is_point(other),
    }
}

/// The conditions a filter puts on a column, and whether they say all that the filter does.
fn condition_on(filter: &Expr, id: ColumnId, column: &KeyColumn) -> Option<(Vec<RangeExpr>, bool)> {
    let Expr::Call(call) = filter else { return None };
    let is_column = |expr: &Expr| matches!(expr, Expr::Column { index, .. } if *index == id);
    match (call.func.name, call.args.as_slice()) {
        (name, [left, right]) if compare_op(name).is_some() => {
            let op = compare_op(name)?;
            let (op, value) = match (is_column(left), is_column(right)) {
                (true, _) => (op, right),
                (_, true) => (flip(op), left),
                _ => return None,
            };
            let exact = usable(value, call, column)?;
            Some((vec![RangeExpr::Cmp { op, value: value.clone() }], exact))
        }
        ("between", [value, low, high]) if is_column(value) => {
            let exact = usable(low, call, column)? & usable(high, call, column)?;
            let low = RangeExpr::Cmp { op: RangeOp::Ge, value: low.clone() };
            let high = RangeExpr::Cmp { op: RangeOp::Le, value: high.clone() };
            Some((vec![low, high], exact))
        }
        ("in", [value, list @ ..]) if is_column(value) => {
            let mut exact = true;
            for item in list {
                exact &= usable(item, call, column)?;
            }
            Some((vec![RangeExpr::In(list.to_vec())], exact))
        }
        ("is_null", [value]) if is_column(value) => Some((vec![RangeExpr::IsNull], true)),
        ("not", [inner]) => match (inner.function_name(), inner.args()) {
            (Some("is_null"), [value]) if is_column(value) => Some((vec![RangeExpr::IsNotNull], true)),
            _ => None,
        },
        ("like", [value, pattern, rest @ ..]) if is_column(value) => {
            like_condition(call, pattern, rest, column).map(|condition| (vec![condition], false))
        }
        ("or", alternatives) => {
            let mut exact = true;
            let mut any = Vec::with_capacity(alternatives.len());
            for alternative in alternatives {
                let mut all = Vec::new();
                let mut parts = Vec::new();
                crate::optimizer::rules::push_down::split_and(alternative.clone(), &mut |part| {
                    parts.push(part)
                });
                for part in &parts {
                    match condition_on(part, id, column) {
                        Some((conditions, part_exact)) => {
                            exact &= part_exact;
                            all.extend(conditions);
                        }
                        None => exact = false,
                    }
                }
                if all.is_empty() {
                    return None;
                }
                any.push(all);
            }
            Some((vec![RangeExpr::Or(any)], exact))
        }
        _ => None,
    }
}

fn compare_op(name: &str) -> Option<RangeOp> {
    Some(match name {
        "=" => RangeOp::Eq,
        "<=>" => RangeOp::NullEq,
        "<" => RangeOp::Lt,
        "<=" => RangeOp::Le,
        ">" => RangeOp::Gt,
        ">=" => RangeOp::Ge,
        _ => return None,
    })
}

fn flip(op: RangeOp) -> RangeOp {
    match op {
        RangeOp::Lt => RangeOp::Gt,
        RangeOp::Le => RangeOp::Ge,
        RangeOp::Gt => RangeOp::Lt,
        RangeOp::Ge => RangeOp::Le,
        same => same,
    }
}

/// Whether a value can bound a range of the column: `Some(true)` when the range then says exactly what the comparison does.
fn usable(value: &Expr, call: &Call, column: &KeyColumn) -> Option<bool> {
    if !value.is_constant() {
        return None;
    }
    if matches!(value, Expr::Literal { value: Datum::Null, .. }) {
        return Some(true);
    }
    comparable(value, call, column).then_some(true)
}

/// The other side of an equality with a key column, when its values can be looked up in the key.
pub fn lookup_value<'e>(condition: &'e Expr, column: &KeyColumn) -> Option<&'e Expr> {
    let (id, Expr::Call(call)) = (column.id?, condition) else { return None };
    let ("=", [left, right]) = (call.func.name, call.args.as_slice()) else { return None };
    let is_column = |expr: &Expr| matches!(expr, Expr::Column { index, .. } if *index == id);
    let value = match (is_column(left), is_column(right)) {
        (true, false) => right,
        (false, true) => left,
        _ => return None,
    };
    (!value.columns().contains(&id) && comparable(value, call, column)).then_some(value)
}

/// Whether values of an expression have their place among a column's.
fn comparable(value: &Expr, call: &Call, column: &KeyColumn) -> bool {
    // A TIMESTAMP is kept in UTC and values come in the session's zone; YEAR and BIT have conversions of their own.
    if matches!(column.ty.tp, MysqlType::Timestamp | MysqlType::Year | MysqlType::Bit) {
        return false;
    }
    match (column.ty.family(), value.field_type().family()) {
        (Family::Int | Family::Decimal, Family::Int | Family::Decimal) => true,
        (Family::Double, Family::Double) => true,
        (Family::String, Family::String) => call.collation == column.ty.collation,
        (Family::Time, Family::Time) | (Family::Duration, Family::Duration) => true,
        _ => false,
    }
}

fn like_condition(call: &Call, pattern: &Expr, rest: &[Expr], column: &KeyColumn) -> Option<RangeExpr> {
    let is_text = column.ty.is_string() && pattern.field_type().is_string();
    if !is_text || !pattern.is_constant() || call.collation != column.ty.collation {
        return None;
    }
    let escape = match rest {
        [] => Some('\\'),
        [Expr::Literal { value, .. }] => match value.as_str()?.chars().collect::<Vec<_>>()[..] {
            [] => None,
            [one] => Some(one),
            _ => return None,
        },
        _ => return None,
    };
    Some(RangeExpr::Like { pattern: pattern.clone(), escape })
}

#[cfg(test)]
mod tests {
    use rutile_expr::{EvalContext, registry};

    use super::*;

    fn int_key() -> Vec<KeyColumn> {
        let column = |id| KeyColumn { id: Some(id), ty: FieldType::bigint(), prefix: false };
        vec![column(0), column(1)]
    }

    fn call(name: &str, args: Vec<Expr>) -> Expr {
        registry::resolve(&EvalContext::default(), name, args).expect(name)
    }

    fn column(id: usize) -> Expr {
        Expr::column(id, "c", FieldType::bigint())
    }

    #[test]
    fn equalities_lead_to_a_range_on_the_next_column() {
        let filters = [
            call(">", vec![column(1), Expr::int(5)]),
            call("=", vec![Expr::int(1), column(0)]),
            call("<", vec![column(2), Expr::int(9)]),
        ];
        let found = match_key(&int_key(), &filters);
        assert_eq!((found.points, found.lists, found.range), (1, 0, true));
        assert_eq!(found.exact, [1, 0]);
    }

    #[test]
    fn a_gap_ends_the_match() {
        let found = match_key(&int_key(), &[call("=", vec![column(1), Expr::int(5)])]);
        assert!(found.conditions.is_full() && found.exact.is_empty());
    }

    #[test]
    fn alternatives_need_the_column_in_each() {
        let one = || call("=", vec![column(0), Expr::int(1)]);
        let two = call("in", vec![column(0), Expr::int(2), Expr::int(3)]);
        assert_eq!(match_key(&int_key(), &[call("or", vec![one(), two])]).lists, 1);
        let other = call("=", vec![column(1), Expr::int(2)]);
        assert!(match_key(&int_key(), &[call("or", vec![one(), other])]).conditions.is_full());
    }
}
