//! From access conditions to ranges of keys, with the values of this execution.
//!
//! A condition on one key column is a set of intervals of that column's encoded bytes, which order as the values do; sets are
//! intersected and united as bytes. Points of leading columns become prefixes; the last column's intervals end the keys.

use std::collections::VecDeque;

use rutile_client::KeyRange;
use rutile_expr::types::field_type::Family;
use rutile_expr::types::{Datum, Decimal, Duration, FieldType, MysqlType, Time};
use rutile_expr::{EvalContext, Expr};
use rutile_proto::codec;

use crate::catalog::model::{HandleKind, IndexColumnInfo, IndexInfo, TableInfo};
use crate::error::Result;
use crate::plan::range::{AccessConditions, RangeExpr, RangeOp};
use crate::table::index::{encode_value, index_prefix};
use crate::table::row::{Handle, row_prefix};

/// The keys of a table's rows that conditions on its handle select; in order, not overlapping.
pub fn of_table(
    table: &TableInfo,
    conditions: &AccessConditions,
    eval: &EvalContext,
) -> Result<VecDeque<KeyRange>> {
    let parts: Vec<Part<'_>> = match (&table.handle, table.primary()) {
        (HandleKind::Int { offset }, _) => vec![Part { ty: &table.columns[*offset].ty, info: None }],
        (HandleKind::Common, Some(primary)) => index_parts(table, primary),
        _ => Vec::new(),
    };
    ranges(row_prefix(table.id), &parts, conditions, eval)
}

/// The keys of an index's entries that conditions select.
pub fn of_index(
    table: &TableInfo,
    index: &IndexInfo,
    conditions: &AccessConditions,
    eval: &EvalContext,
) -> Result<VecDeque<KeyRange>> {
    ranges(index_prefix(table, index), &index_parts(table, index), conditions, eval)
}

/// A column of a key; `info` is `None` for an integer handle.
struct Part<'a> {
    ty: &'a FieldType,
    info: Option<&'a IndexColumnInfo>,
}

fn index_parts<'a>(table: &'a TableInfo, index: &'a IndexInfo) -> Vec<Part<'a>> {
    index.columns.iter().map(|info| Part { ty: &table.columns[info.offset].ty, info: Some(info) }).collect()
}

/// A place between keys: just before all keys that begin with `bytes`, or just after them. Empty bytes begin every key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edge {
    bytes: Vec<u8>,
    after: bool,
}

impl Edge {
    const START: Edge = Edge { bytes: Vec::new(), after: false };
    const END: Edge = Edge { bytes: Vec::new(), after: true };

    fn before(bytes: Vec<u8>) -> Edge {
        Edge { bytes, after: false }
    }

    fn after(bytes: Vec<u8>) -> Edge {
        Edge { bytes, after: true }
    }

    fn compare(&self, other: &Edge) -> std::cmp::Ordering {
        let common = self.bytes.len().min(other.bytes.len());
        self.bytes[..common].cmp(&other.bytes[..common]).then_with(|| {
            // One is a prefix of the other: its two edges enclose whatever begins with it.
            match self.bytes.len().cmp(&other.bytes.len()) {
                std::cmp::Ordering::Equal => self.after.cmp(&other.after),
                std::cmp::Ordering::Less if self.after => std::cmp::Ordering::Greater,
                std::cmp::Ordering::Less => std::cmp::Ordering::Less,
                std::cmp::Ordering::Greater if other.after => std::cmp::Ordering::Less,
                std::cmp::Ordering::Greater => std::cmp::Ordering::Greater,
            }
        })
    }

    fn inverted(self) -> Edge {
        Edge { bytes: self.bytes.into_iter().map(|byte| !byte).collect(), after: !self.after }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Interval {
    low: Edge,
    high: Edge,
}

impl Interval {
    fn point(bytes: Vec<u8>) -> Interval {
        Interval { low: Edge::before(bytes.clone()), high: Edge::after(bytes) }
    }

    fn is_empty(&self) -> bool {
        self.low.compare(&self.high).is_ge()
    }

    fn is_point(&self) -> bool {
        !self.low.after && self.high.after && self.low.bytes == self.high.bytes && !self.low.bytes.is_empty()
    }
}

/// How a value stands to the values a key column can hold.
enum Place {
    Null,
    Exact(Datum),
    /// Between this one and the next.
    JustAbove(Datum),
    BelowAll,
    AboveAll,
}

fn ranges(
    prefix: Vec<u8>,
    parts: &[Part<'_>],
    conditions: &AccessConditions,
    eval: &EvalContext,
) -> Result<VecDeque<KeyRange>> {
    let mut prefixes = vec![prefix];
    let mut found: Vec<(Edge, Edge)> = Vec::new();
    let last = conditions.columns.len().min(parts.len());
    for (place, part) in parts.iter().enumerate().take(last) {
        let mut intervals = part.all_of(&conditions.columns[place], eval)?;
        if part.info.is_some_and(|info| info.desc) {
            let invert = |interval: Interval| Interval {
                low: interval.high.inverted(),
                high: interval.low.inverted(),
            };
            intervals = intervals.into_iter().rev().map(invert).collect();
        }
        if place + 1 < last && intervals.iter().all(Interval::is_point) {
            let extend = |prefix: &Vec<u8>| {
                let prefix = prefix.clone();
                intervals
                    .iter()
                    .map(move |interval| [prefix.as_slice(), &interval.low.bytes].concat())
                    .collect::<Vec<_>>()
            };
            prefixes = prefixes.iter().flat_map(extend).collect();
            continue;
        }
        for prefix in &prefixes {
            let whole =
                |edge: &Edge| Edge { bytes: [prefix.as_slice(), &edge.bytes].concat(), after: edge.after };
            found.extend(intervals.iter().map(|interval| (whole(&interval.low), whole(&interval.high))));
        }
        return Ok(found.into_iter().map(|(low, high)| KeyRange::new(key(low), key(high))).collect());
    }
    Ok(prefixes.iter().map(|prefix| KeyRange::prefix(prefix)).collect())
}

fn key(edge: Edge) -> bytes::Bytes {
    if edge.after { codec::prefix_next(&edge.bytes) } else { edge.bytes.into() }
}

impl Part<'_> {
    /// Ascending encoding of a value.
    fn encode(&self, value: &Datum) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(16);
        match self.info {
            Some(info) => {
                encode_value(&mut out, value, self.ty, &IndexColumnInfo { desc: false, ..info.clone() })?
            }
            None => {
                if let Some(handle) = Handle::of_datum(value) {
                    handle.encode(&mut out);
                }
            }
        }
        Ok(out)
    }

    /// Where the values that are not NULL begin.
    fn not_null(&self) -> Result<Edge> {
        match self.info {
            Some(_) => Ok(Edge::after(self.encode(&Datum::Null)?)),
            None => Ok(Edge::START),
        }
    }

    /// The intervals that satisfy all conditions; in order, not overlapping.
    fn all_of(&self, conditions: &[RangeExpr], eval: &EvalContext) -> Result<Vec<Interval>> {
        let mut left = vec![Interval { low: Edge::START, high: Edge::END }];
        for condition in conditions {
            let right = self.intervals(condition, eval)?;
            let mut both = Vec::new();
            for a in &left {
                for b in &right {
                    let low = if a.low.compare(&b.low).is_ge() { &a.low } else { &b.low };
                    let high = if a.high.compare(&b.high).is_le() { &a.high } else { &b.high };
                    both.push(Interval { low: low.clone(), high: high.clone() });
                }
            }
            left = united(both);
        }
        Ok(left)
    }

    fn intervals(&self, condition: &RangeExpr, eval: &EvalContext) -> Result<Vec<Interval>> {
        match condition {
            RangeExpr::Cmp { op, value } => self.comparison(*op, value, eval),
            RangeExpr::In(list) => {
                let mut all = Vec::with_capacity(list.len());
                for value in list {
                    all.extend(self.comparison(RangeOp::Eq, value, eval)?);
                }
                Ok(united(all))
            }
            RangeExpr::IsNull => self.null(),
            RangeExpr::IsNotNull => Ok(vec![Interval { low: self.not_null()?, high: Edge::END }]),
            RangeExpr::Like { pattern, escape } => self.like(pattern, *escape, eval),
            RangeExpr::Or(alternatives) => {
                let mut all = Vec::new();
                for alternative in alternatives {
                    all.extend(self.all_of(alternative, eval)?);
                }
                Ok(united(all))
            }
        }
    }

    fn null(&self) -> Result<Vec<Interval>> {
        match self.info {
            Some(_) => Ok(vec![Interval::point(self.encode(&Datum::Null)?)]),
            None => Ok(Vec::new()),
        }
    }

    fn comparison(&self, op: RangeOp, value: &Expr, eval: &EvalContext) -> Result<Vec<Interval>> {
        let place = place_of(value.eval_scalar(eval)?, self.ty);
        let cut = self.info.is_some_and(|info| info.prefix.is_some());
        let interval = match (place, op) {
            (Place::Null, RangeOp::NullEq) => return self.null(),
            (Place::Null, _) => return Ok(Vec::new()),
            (Place::Exact(v), RangeOp::Eq | RangeOp::NullEq) => Interval::point(self.encode(&v)?),
            (_, RangeOp::Eq | RangeOp::NullEq) => return Ok(Vec::new()),
            // What shares the prefix may be on either side.
            (Place::Exact(v), RangeOp::Lt) if !cut => {
                Interval { low: self.not_null()?, high: Edge::before(self.encode(&v)?) }
            }
            (Place::Exact(v), RangeOp::Gt) if !cut => {
                Interval { low: Edge::after(self.encode(&v)?), high: Edge::END }
            }
            (Place::Exact(v), RangeOp::Ge | RangeOp::Gt) => {
                Interval { low: Edge::before(self.encode(&v)?), high: Edge::END }
            }
            (Place::Exact(v) | Place::JustAbove(v), RangeOp::Lt | RangeOp::Le) => {
                Interval { low: self.not_null()?, high: Edge::after(self.encode(&v)?) }
            }
            (Place::JustAbove(v), RangeOp::Gt | RangeOp::Ge) => {
                Interval { low: Edge::after(self.encode(&v)?), high: Edge::END }
            }
            (Place::BelowAll, RangeOp::Gt | RangeOp::Ge) | (Place::AboveAll, RangeOp::Lt | RangeOp::Le) => {
                Interval { low: self.not_null()?, high: Edge::END }
            }
            (Place::BelowAll | Place::AboveAll, _) => return Ok(Vec::new()),
        };
        Ok(if interval.is_empty() { Vec::new() } else { vec![interval] })
    }

    /// What begins with the pattern's literal beginning.
    fn like(&self, pattern: &Expr, escape: Option<char>, eval: &EvalContext) -> Result<Vec<Interval>> {
        let pattern = pattern.eval_scalar(eval)?;
        let all = Interval { low: self.not_null()?, high: Edge::END };
        let Some(text) = pattern.as_str() else {
            return Ok(if pattern.is_null() { Vec::new() } else { vec![all] });
        };
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' | '_' => break,
                c if Some(c) == escape => literal.extend(chars.next()),
                c => literal.push(c),
            }
        }
        // A sort key ends in padding to whole groups: cut that off, and everything that begins so is inside.
        let literal = literal.trim_end_matches(' ');
        let cut = self.info.and_then(|info| info.prefix).map_or(usize::MAX, |chars| chars as usize);
        let literal: String = literal.chars().take(cut).collect();
        let sort_key = self.ty.collation.sort_key(literal.as_bytes());
        if sort_key.is_empty() {
            return Ok(vec![all]);
        }
        let mut bytes = self.not_null_flag()?;
        bytes.extend(open_bytes(&sort_key));
        Ok(vec![Interval { low: Edge::before(bytes.clone()), high: Edge::after(bytes) }])
    }

    /// What every value that is not NULL begins with.
    fn not_null_flag(&self) -> Result<Vec<u8>> {
        let empty = self.encode(&Datum::String(String::new()))?;
        Ok(empty.into_iter().take(1).collect())
    }
}

/// The memcomparable bytes of a string, without what comes after its last whole byte: what longer strings begin with, too.
fn open_bytes(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() / 8 * 9 + 8);
    for group in key.chunks(8) {
        out.extend_from_slice(group);
        if group.len() == 8 {
            // A marker below 0xFF only ends a string exactly here; both must stay inside.
            out.push(0xFF);
        }
    }
    if key.len().is_multiple_of(8) {
        out.pop();
    }
    out
}

/// Sorts intervals and joins those that touch; empty ones vanish.
fn united(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.retain(|interval| !interval.is_empty());
    intervals.sort_by(|a, b| a.low.compare(&b.low));
    let mut out: Vec<Interval> = Vec::with_capacity(intervals.len());
    for interval in intervals {
        match out.last_mut() {
            Some(last) if interval.low.compare(&last.high).is_lt() => {
                if interval.high.compare(&last.high).is_gt() {
                    last.high = interval.high;
                }
            }
            _ => out.push(interval),
        }
    }
    out
}

/// A value among those of a type. The optimizer lets only comparable families come here.
fn place_of(value: Datum, ty: &FieldType) -> Place {
    match (ty.family(), value) {
        (_, Datum::Null) => Place::Null,
        (Family::Int, value) => int_place(value, ty),
        (Family::Decimal, Datum::Decimal(value)) => decimal_place(value, ty),
        (Family::Decimal, Datum::Int(value)) => decimal_place(Decimal::from_i128(value.into(), 0), ty),
        (Family::Decimal, Datum::UInt(value)) => decimal_place(Decimal::from_i128(value.into(), 0), ty),
        (Family::Time, Datum::Time(value)) => {
            let floor = if ty.tp == MysqlType::Date { value.to_date() } else { value.truncate(ty.fsp()) };
            place(Datum::Time(floor), floor == Time(value.0))
        }
        (Family::Duration, Datum::Duration(value)) => {
            let unit = 10i64.pow(6 - u32::from(ty.fsp()));
            let floor = Duration(value.0.div_euclid(unit) * unit);
            place(Datum::Duration(floor), floor == value)
        }
        (_, value) => Place::Exact(value),
    }
}

fn place(floor: Datum, exact: bool) -> Place {
    if exact { Place::Exact(floor) } else { Place::JustAbove(floor) }
}

fn int_place(value: Datum, ty: &FieldType) -> Place {
    let (floor, exact) = match value {
        Datum::Int(v) => (i128::from(v), true),
        Datum::UInt(v) => (i128::from(v), true),
        Datum::Decimal(v) => {
            let floor = v.floor();
            let exact = floor == v;
            match floor.rescale(0).unscaled_i128() {
                Some(floor) => (floor, exact),
                None if v.is_negative() => return Place::BelowAll,
                None => return Place::AboveAll,
            }
        }
        other => return Place::Exact(other),
    };
    let (min, max) = if ty.unsigned { (0, i128::from(u64::MAX)) } else { (i64::MIN.into(), i64::MAX.into()) };
    match floor {
        floor if floor < min => Place::BelowAll,
        floor if floor > max => Place::AboveAll,
        floor if ty.unsigned => place(Datum::UInt(floor as u64), exact),
        floor => place(Datum::Int(floor as i64), exact),
    }
}

fn decimal_place(value: Decimal, ty: &FieldType) -> Place {
    let max = Decimal::max(ty.flen, ty.decimals);
    let floor = value.truncate(ty.decimals.into()).rescale(ty.decimals);
    let exact = floor == value;
    // Truncation goes towards zero: below zero that is up.
    let floor = match value.is_negative() && !exact {
        true => floor.sub(&Decimal::from_i128(1, ty.decimals)).unwrap_or(floor),
        false => floor,
    };
    if floor.fits(ty.flen) {
        return place(Datum::Decimal(floor), exact);
    }
    if max.is_negative() || value.is_negative() { Place::BelowAll } else { Place::AboveAll }
}

/// The value of one key column for a point get: `None` when no row can have it.
pub fn point_value(value: Datum, ty: &FieldType) -> Option<Datum> {
    match place_of(value, ty) {
        Place::Exact(value) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int_part(ty: &FieldType) -> Part<'_> {
        Part { ty, info: None }
    }

    fn int_edges(conditions: &[RangeExpr]) -> Vec<(Option<i64>, Option<i64>)> {
        let ty = FieldType::bigint();
        let eval = EvalContext::default();
        let value = |edge: &Edge| {
            let bytes: [u8; 8] = edge.bytes.as_slice().try_into().ok()?;
            let value = (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64;
            Some(if edge.after { value + 1 } else { value })
        };
        let intervals = int_part(&ty).all_of(conditions, &eval).expect("integers");
        intervals.iter().map(|interval| (value(&interval.low), value(&interval.high))).collect()
    }

    fn cmp(op: RangeOp, value: i64) -> RangeExpr {
        RangeExpr::Cmp { op, value: Expr::int(value) }
    }

    #[test]
    fn conditions_on_a_column_intersect() {
        let both = [cmp(RangeOp::Gt, 3), cmp(RangeOp::Le, 9)];
        assert_eq!(int_edges(&both), [(Some(4), Some(10))]);
        assert_eq!(int_edges(&[cmp(RangeOp::Lt, 3), cmp(RangeOp::Gt, 3)]), []);
        assert_eq!(int_edges(&[cmp(RangeOp::Ge, 3)]), [(Some(3), None)]);
    }

    #[test]
    fn alternatives_unite_without_repeating_keys() {
        let list = RangeExpr::In(vec![Expr::int(5), Expr::int(2), Expr::int(5)]);
        assert_eq!(int_edges(&[list]), [(Some(2), Some(3)), (Some(5), Some(6))]);
        let or = RangeExpr::Or(vec![
            vec![cmp(RangeOp::Lt, 4)],
            vec![cmp(RangeOp::Le, 2)],
            vec![cmp(RangeOp::Gt, 8)],
        ]);
        assert_eq!(int_edges(&[or]), [(None, Some(4)), (Some(9), None)]);
    }

    #[test]
    fn fractions_fall_between_integers() {
        let half = |op| RangeExpr::Cmp { op, value: Expr::number("2.5").expect("a number") };
        assert_eq!(int_edges(&[half(RangeOp::Gt)]), [(Some(3), None)]);
        assert_eq!(int_edges(&[half(RangeOp::Le)]), [(None, Some(3))]);
        assert_eq!(int_edges(&[half(RangeOp::Eq)]), []);
    }

    #[test]
    fn null_selects_nothing() {
        let null = RangeExpr::Cmp { op: RangeOp::Eq, value: Expr::null() };
        assert_eq!(int_edges(&[null]), []);
    }
}
