//! What part of a table's rows conditions keep.
//!
//! Conditions on one column are taken together (a range has two ends), those on several columns as nearly independent: the most
//! selective counts whole, the next by its square root, and so on, because columns of one row seldom know nothing of each
//! other. A value that is not known at plan time (a parameter) counts as an average value of its column.

use rutile_expr::types::field_type::Family;
use rutile_expr::types::{Datum, FieldType, MysqlType, convert, store};
use rutile_expr::{Call, EvalContext, Expr};

use super::model::{ColumnStats, TableStats, key_of};
use super::shares::End;
use crate::catalog::model::TableInfo;

/// Of a condition of which nothing is known.
const UNKNOWN_PART: f64 = 0.8;
/// Of a comparison with a value that is not known.
const RANGE_PART: f64 = 1.0 / 3.0;
/// Of a range with two ends that are not known.
const CLOSED_RANGE_PART: f64 = 1.0 / 40.0;
/// Of `LIKE '%x%'`.
const INNER_LIKE_PART: f64 = 0.1;
/// No condition keeps less than so many rows of a table of any size: counts are never certain.
const ROWS_MIN: f64 = 0.5;
/// Of the conditions on several columns so many count; the others are taken to follow from them.
const FACTORS_MAX: usize = 4;

/// What part of the rows passes all `filters`. `offset_of` tells where a column id of the filters stands in the table.
pub fn of(
    stats: &TableStats,
    table: &TableInfo,
    offset_of: &dyn Fn(usize) -> Option<usize>,
    filters: &[Expr],
) -> f64 {
    let all = Conjunction::new(Known { stats, table, offset_of }, filters);
    all.part().max((ROWS_MIN / stats.rows.max(1.0)).min(1.0)).min(1.0)
}

/// What estimates rest on.
#[derive(Clone, Copy)]
struct Known<'a> {
    stats: &'a TableStats,
    table: &'a TableInfo,
    offset_of: &'a dyn Fn(usize) -> Option<usize>,
}

/// The conditions on one column.
#[derive(Default)]
struct OnColumn {
    offset: usize,
    low: Option<End>,
    high: Option<End>,
    /// Of equalities, lists, NULL tests, patterns: the least counts.
    part: Option<f64>,
    /// One of them is an equality.
    point: bool,
}

struct Conjunction<'a> {
    known: Known<'a>,
    columns: Vec<OnColumn>,
    others: Vec<f64>,
    /// Of conditions about which nothing is known.
    unknown: i32,
}

impl<'a> Conjunction<'a> {
    fn new(known: Known<'a>, filters: &[Expr]) -> Self {
        let mut all = Conjunction { known, columns: Vec::new(), others: Vec::new(), unknown: 0 };
        filters.iter().for_each(|filter| all.add(filter));
        all
    }

    fn column(&mut self, offset: usize) -> &mut OnColumn {
        let place = match self.columns.iter().position(|column| column.offset == offset) {
            Some(place) => place,
            None => {
                self.columns.push(OnColumn { offset, ..OnColumn::default() });
                self.columns.len() - 1
            }
        };
        &mut self.columns[place]
    }

    fn add(&mut self, filter: &Expr) {
        let Expr::Call(call) = filter else {
            match filter {
                Expr::Literal { value, .. } if is_false(value) => self.others.push(0.0),
                Expr::Literal { .. } => {}
                _ => self.unknown += 1,
            }
            return;
        };
        if call.func.name == "and" {
            call.args.iter().for_each(|part| self.add(part));
        } else if !self.add_range(call) {
            match self.known.column_part(call) {
                Some((offset, part, point)) => {
                    let column = self.column(offset);
                    column.part = Some(column.part.map_or(part, |known: f64| known.min(part)));
                    column.point |= point;
                }
                None => match self.known.other_part(call) {
                    Some(part) => self.others.push(part),
                    None => self.unknown += 1,
                },
            }
        }
    }

    /// `column < value` and its kin, BETWEEN.
    fn add_range(&mut self, call: &Call) -> bool {
        let known = self.known;
        match (call.func.name, call.args.as_slice()) {
            ("<" | "<=" | ">" | ">=", [left, right]) => {
                let (offset, value, turned) = match (known.offset(left), known.offset(right)) {
                    (Some(offset), None) if right.is_constant() => (offset, right, false),
                    (None, Some(offset)) if left.is_constant() => (offset, left, true),
                    _ => return false,
                };
                let inclusive = call.func.name.len() == 2;
                let is_low = call.func.name.starts_with('>') != turned;
                let end = End { key: known.key(value, offset), inclusive };
                let column = self.column(offset);
                match is_low {
                    true => keep_tighter(&mut column.low, end, true),
                    false => keep_tighter(&mut column.high, end, false),
                }
                true
            }
            ("between", [value, low, high]) if low.is_constant() && high.is_constant() => {
                let Some(offset) = known.offset(value) else { return false };
                let low = End { key: known.key(low, offset), inclusive: true };
                let high = End { key: known.key(high, offset), inclusive: true };
                let column = self.column(offset);
                keep_tighter(&mut column.low, low, true);
                keep_tighter(&mut column.high, high, false);
                true
            }
            _ => false,
        }
    }

    fn part(mut self) -> f64 {
        let index = self.index_part();
        let known = self.known;
        let mut factors = std::mem::take(&mut self.others);
        factors.extend(self.columns.iter().map(|column| column.part(known)));
        factors.extend(index);
        factors.sort_by(f64::total_cmp);
        let mut part = 1.0;
        for (place, factor) in factors.iter().take(FACTORS_MAX).enumerate() {
            part *= factor.max(0.0).powf(0.5f64.powi(place as i32));
        }
        part * UNKNOWN_PART.powi(self.unknown)
    }

    /// Columns that an index counts together and that are all equated: their part as one, in place of their own ones.
    fn index_part(&mut self) -> Option<f64> {
        let mut best: Option<(Vec<usize>, f64)> = None;
        for index in &self.known.table.indexes {
            let Some(ndvs) = self.known.stats.indexes.get(&index.id) else { continue };
            let equated = |offset: usize| self.columns.iter().any(|c| c.offset == offset && c.point);
            let offsets: Vec<usize> =
                index.columns.iter().map(|column| column.offset).take_while(|o| equated(*o)).collect();
            let Some(ndv) = offsets.len().checked_sub(1).and_then(|last| ndvs.get(last)) else { continue };
            if offsets.len() > 1 && best.as_ref().is_none_or(|(known, _)| known.len() < offsets.len()) {
                best = Some((offsets, 1.0 / ndv.max(1.0)));
            }
        }
        let (offsets, average) = best?;
        let known = self.known;
        // Never more than the rarest of the values alone.
        let (of_index, rest): (Vec<OnColumn>, Vec<OnColumn>) =
            self.columns.drain(..).partition(|column| offsets.contains(&column.offset));
        self.columns = rest;
        let parts = of_index.iter().map(|column| column.part(known));
        // A value that is more frequent than others is so in combinations, too.
        let mut scale = 1.0;
        for column in &of_index {
            let usual = 1.0 / known.stats.ndv(known.table, column.offset);
            scale *= (column.part(known) / usual).max(0.0);
        }
        Some((average * scale).min(parts.fold(1.0, f64::min)))
    }
}

fn is_false(value: &Datum) -> bool {
    matches!(value, Datum::Null | Datum::Int(0) | Datum::UInt(0))
}

/// Keeps the end that leaves less.
fn keep_tighter(kept: &mut Option<End>, end: End, is_low: bool) {
    let tighter = match kept {
        None => true,
        Some(known) => match (&known.key, &end.key) {
            (Some(a), Some(b)) if is_low => b > a || (a == b && !end.inclusive),
            (Some(a), Some(b)) => b < a || (a == b && !end.inclusive),
            (None, Some(_)) => true,
            _ => false,
        },
    };
    if tighter {
        *kept = Some(end);
    }
}

impl OnColumn {
    fn part(&self, known: Known<'_>) -> f64 {
        let range = match (&self.low, &self.high) {
            (None, None) => 1.0,
            (low, high) => known.range_part(self.offset, low.as_ref(), high.as_ref()),
        };
        self.part.map_or(range, |part| part.min(range))
    }
}

impl Known<'_> {
    fn offset(&self, expr: &Expr) -> Option<usize> {
        match expr {
            Expr::Column { index, .. } => {
                (self.offset_of)(*index).filter(|offset| *offset < self.table.columns.len())
            }
            _ => None,
        }
    }

    fn column(&self, offset: usize) -> Option<&ColumnStats> {
        self.stats.column(self.table, offset)
    }

    /// A constant as a key of a column; `None` when its value is not known yet.
    fn key(&self, value: &Expr, offset: usize) -> Option<Vec<u8>> {
        self.column(offset)?;
        let datum = known_value(value)?;
        key_among(&datum, value.field_type(), &self.table.columns[offset].ty)
    }

    /// Conditions of single values: the column, the part, and whether it is an equality.
    fn column_part(&self, call: &Call) -> Option<(usize, f64, bool)> {
        match (call.func.name, call.args.as_slice()) {
            ("=" | "<=>", [left, right]) => {
                let (offset, value) = match (self.offset(left), self.offset(right)) {
                    (Some(offset), None) => (offset, right),
                    (None, Some(offset)) => (offset, left),
                    _ => return None,
                };
                if call.func.name == "<=>" && known_value(value) == Some(Datum::Null) {
                    return Some((offset, self.null_part(offset), true));
                }
                Some((offset, self.equal_part(offset, value), true))
            }
            ("<>" | "!=", [left, right]) => {
                let (offset, value) = match (self.offset(left), self.offset(right)) {
                    (Some(offset), None) if right.is_constant() => (offset, right),
                    (None, Some(offset)) if left.is_constant() => (offset, left),
                    _ => return None,
                };
                Some((offset, self.not_null_part(offset) - self.equal_part(offset, value), false))
            }
            ("in", [value, list @ ..]) => {
                let offset = self.offset(value)?;
                if !list.iter().all(Expr::is_constant) {
                    return None;
                }
                let sum: f64 = list.iter().map(|item| self.equal_part(offset, item)).sum();
                Some((offset, sum.min(self.not_null_part(offset)), list.len() == 1))
            }
            ("is_null", [value]) => {
                let offset = self.offset(value)?;
                Some((offset, self.null_part(offset), true))
            }
            ("like", [value, pattern, ..]) => {
                let offset = self.offset(value)?;
                Some((offset, self.like_part(offset, pattern), false))
            }
            ("not", [inner]) => {
                let Expr::Call(inner) = inner else { return None };
                let (offset, part, _) = self.column_part(inner)?;
                let whole = if inner.func.name == "is_null" { 1.0 } else { self.not_null_part(offset) };
                Some((offset, (whole - part).max(0.0), false))
            }
            _ => None,
        }
    }

    fn other_part(&self, call: &Call) -> Option<f64> {
        match (call.func.name, call.args.as_slice()) {
            ("or", alternatives) => {
                let mut neither = 1.0;
                for alternative in alternatives {
                    let part = Conjunction::new(*self, std::slice::from_ref(alternative)).part();
                    neither *= 1.0 - part.clamp(0.0, 1.0);
                }
                // Alternatives on one column exclude each other mostly: their parts add up.
                let sum = |one: &Expr| Conjunction::new(*self, std::slice::from_ref(one)).part();
                let one_column = self.same_column(alternatives);
                let part = if one_column { alternatives.iter().map(sum).sum() } else { 1.0 - neither };
                Some(part.min(1.0))
            }
            ("not", [inner]) if !matches!(inner.function_name(), Some("exists")) => {
                let part = Conjunction::new(*self, std::slice::from_ref(inner)).part();
                inner
                    .function_name()
                    .is_some_and(|name| matches!(name, "or" | "and" | "between"))
                    .then_some(1.0 - part)
            }
            ("=", [left, right]) => {
                let (left, right) = (self.offset(left)?, self.offset(right)?);
                let ndv = self.stats.ndv(self.table, left).max(self.stats.ndv(self.table, right));
                Some(1.0 / ndv)
            }
            ("<" | "<=" | ">" | ">=", [left, right]) => {
                self.offset(left).and(self.offset(right)).map(|_| RANGE_PART)
            }
            _ => None,
        }
    }

    fn same_column(&self, alternatives: &[Expr]) -> bool {
        let mut columns = alternatives.iter().map(Expr::columns);
        let Some(first) = columns.next() else { return false };
        let first: std::collections::HashSet<usize> = first.into_iter().collect();
        first.len() == 1 && columns.all(|other| other.iter().all(|id| first.contains(id)))
    }

    fn null_part(&self, offset: usize) -> f64 {
        match self.column(offset) {
            Some(column) => column.null_fraction,
            None if self.table.columns[offset].ty.not_null => 0.0,
            None => (super::model::ROWS_PER_VALUE_GUESS / self.stats.rows.max(1.0)).min(1.0),
        }
    }

    fn not_null_part(&self, offset: usize) -> f64 {
        self.column(offset).map_or(1.0, |column| 1.0 - column.null_fraction)
    }

    fn equal_part(&self, offset: usize, value: &Expr) -> f64 {
        let Some(column) = self.column(offset) else { return 1.0 / self.stats.ndv(self.table, offset) };
        let part = match self.key(value, offset) {
            Some(key) => column.equal_part(&key),
            None if known_value(value) == Some(Datum::Null) => 0.0,
            None => column.average_fraction(),
        };
        part / self.stats.growth(column)
    }

    fn range_part(&self, offset: usize, low: Option<&End>, high: Option<&End>) -> f64 {
        let unknown = |end: Option<&End>| end.is_some_and(|end| end.key.is_none());
        let not_null = self.not_null_part(offset);
        match (self.column(offset), unknown(low), unknown(high)) {
            (Some(column), false, false) => column.range_part(low, high),
            (Some(column), true, false) if high.is_some() => column.range_part(None, high) * RANGE_PART,
            (Some(column), false, true) if low.is_some() => column.range_part(low, None) * RANGE_PART,
            _ if low.is_some() && high.is_some() => CLOSED_RANGE_PART * not_null,
            _ => RANGE_PART * not_null,
        }
    }

    fn like_part(&self, offset: usize, pattern: &Expr) -> f64 {
        let not_null = self.not_null_part(offset);
        let Some(text) = known_value(pattern) else { return CLOSED_RANGE_PART * not_null };
        let Some(text) = text.as_str() else { return 0.0 };
        let literal: String = text.chars().take_while(|c| !matches!(c, '%' | '_' | '\\')).collect();
        if literal.is_empty() {
            return if text.chars().all(|c| c == '%') { not_null } else { INNER_LIKE_PART * not_null };
        }
        let ty = &self.table.columns[offset].ty;
        let Some(column) = self.column(offset).filter(|_| ty.is_string()) else {
            return CLOSED_RANGE_PART * not_null;
        };
        if literal.len() == text.len() {
            let key = key_of(&Datum::String(literal), ty);
            return key.map_or(CLOSED_RANGE_PART, |key| column.equal_part(&key));
        }
        let low = key_of(&Datum::String(literal.clone()), ty);
        let high = key_of(&Datum::String(literal + "\u{10FFFF}\u{10FFFF}"), ty);
        let end = |key| Some(End { key, inclusive: true });
        let (low, high) = (end(low), end(high));
        column.range_part(low.as_ref(), high.as_ref())
    }
}

/// The value of a constant that has no parameter in it.
fn known_value(expr: &Expr) -> Option<Datum> {
    if let Expr::Literal { value, .. } = expr {
        return Some(value.clone());
    }
    let mut has_param = false;
    expr.visit(&mut |part| {
        has_param |= matches!(part, Expr::Param { .. });
        true
    });
    if has_param || !expr.is_constant() {
        return None;
    }
    expr.eval_scalar(&EvalContext::default()).ok()
}

/// The key of a value of any type among a column's; rounding does no harm here.
fn key_among(value: &Datum, from: &FieldType, to: &FieldType) -> Option<Vec<u8>> {
    if value.is_null() || to.family() == Family::Json {
        return None;
    }
    let eval = EvalContext::default();
    let converted = match to.family() {
        Family::Enum => {
            let member = match store::to_enum(value, from, to) {
                Some(member) => member,
                None if to.tp == MysqlType::Enum => return None,
                None => 0,
            };
            Datum::UInt(member)
        }
        family if family == from.family() && !matches!(family, Family::Int | Family::Decimal) => {
            value.clone()
        }
        _ => convert::cast(&eval, value, from, to).ok()?,
    };
    key_of(&converted, to)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use rutile_expr::registry;

    use super::super::model::{Bucket, Histogram, TopValue};
    use super::*;
    use crate::catalog::system_tables;

    /// A table whose first two columns are integers.
    fn table() -> TableInfo {
        let mut databases = system_tables::databases();
        let (_, tables) = databases.find(|(info, _)| info.name == "information_schema").expect("it is there");
        let mut table = TableInfo::clone(&tables[0]);
        table.columns[0].ty = FieldType::bigint();
        table.columns[1].ty = FieldType::bigint();
        table
    }

    /// 1,000,000 rows; in the first column a tenth NULL, half 7, and the rest 200 values from 0 to 1,000.
    fn known(table: &TableInfo) -> TableStats {
        let ty = FieldType::bigint();
        let key = |value: i64| key_of(&Datum::Int(value), &ty).expect("an integer has a key");
        let bucket = |low: i64, high: i64| Bucket {
            low: Datum::Int(low),
            high: Datum::Int(high),
            low_key: key(low),
            high_key: key(high),
            fraction: 0.2,
            high_fraction: 0.002,
            ndv: 100.0,
        };
        let column = ColumnStats {
            ndv: 201.0,
            null_fraction: 0.1,
            top_n: vec![TopValue { value: Datum::Int(7), key: key(7), fraction: 0.5 }],
            histogram: Histogram { buckets: vec![bucket(0, 500), bucket(501, 1000)] },
            ..ColumnStats::default()
        };
        let columns = Arc::new(HashMap::from([(table.columns[0].id, column)]));
        let rows = 1e6;
        TableStats { rows, version: 1, analyzed_rows: rows, modified: 0.0, columns, indexes: Arc::default() }
    }

    fn call(name: &str, args: Vec<Expr>) -> Expr {
        registry::resolve(&EvalContext::default(), name, args).expect(name)
    }

    fn column(id: usize) -> Expr {
        Expr::column(id, "c", FieldType::bigint())
    }

    fn part(stats: &TableStats, table: &TableInfo, filters: &[Expr]) -> f64 {
        of(stats, table, &|id| Some(id), filters)
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= wanted * 0.1 + 1e-9, "{found} is not {wanted}");
    }

    #[test]
    fn values_count_as_often_as_they_were_seen() {
        let table = table();
        let stats = known(&table);
        let equal = |value: i64| call("=", vec![column(0), Expr::int(value)]);
        near(part(&stats, &table, &[equal(7)]), 0.5);
        near(part(&stats, &table, &[equal(500)]), 0.002);
        near(part(&stats, &table, &[equal(3)]), 0.002);
        near(part(&stats, &table, &[call("or", vec![equal(7), equal(500)])]), 0.502);
        near(part(&stats, &table, &[call("in", vec![column(0), Expr::int(7), Expr::int(8)])]), 0.502);
        near(part(&stats, &table, &[call("is_null", vec![column(0)])]), 0.1);
        // A parameter is any value.
        let param = Expr::Param { index: 0, field_type: FieldType::bigint() };
        near(part(&stats, &table, &[call("=", vec![column(0), param])]), 0.9 / 201.0);
    }

    #[test]
    fn both_ends_of_a_range_count() {
        let table = table();
        let stats = known(&table);
        let compare = |op: &str, value: i64| call(op, vec![column(0), Expr::int(value)]);
        near(part(&stats, &table, &[compare(">", 500)]), 0.2);
        near(part(&stats, &table, &[compare(">=", 0), compare("<=", 1000)]), 0.9);
        near(part(&stats, &table, &[compare(">", 600), compare("<", 700)]), 0.04);
        let between = call("between", vec![column(0), Expr::int(600), Expr::int(700)]);
        near(part(&stats, &table, &[between]), 0.041);
        // Nothing is there, or a row at most.
        assert!(part(&stats, &table, &[compare(">", 5000)]) <= 1e-6);
    }

    #[test]
    fn columns_together_keep_less_than_each_alone() {
        let table = table();
        let stats = known(&table);
        let first = call("=", vec![column(0), Expr::int(500)]);
        let second = call("=", vec![column(1), Expr::int(1)]);
        let (one, both) =
            (part(&stats, &table, std::slice::from_ref(&second)), part(&stats, &table, &[first, second]));
        assert!(both < one && both < 0.002 && both > one * 0.002, "{both} of {one}");
    }

    #[test]
    fn guesses_need_no_statistics() {
        let table = table();
        let stats = TableStats::guess(None);
        near(part(&stats, &table, &[call("=", vec![column(0), Expr::int(1)])]), 0.001);
        near(part(&stats, &table, &[call(">", vec![column(0), Expr::int(1)])]), 1.0 / 3.0);
        near(part(&stats, &table, &[Expr::int(0)]), 0.5 / 10_000.0);
    }
}
