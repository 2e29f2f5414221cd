//! Comparisons: `= <=> <> < <= > >=`, BETWEEN, IN, GREATEST, LEAST, STRCMP, and sort keys.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BinaryBuilder, Decimal128Array, Float64Array,
    Int64Array, PrimitiveArray, StringArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, UInt64Type};

use super::coercion;
use super::registry::{self, Arg, Entry, MANY, ret};
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::eval::Value;
use crate::expr::{Expr, Function, Scope};
use crate::types::field_type::Family;
use crate::types::time_parse::{DateRules, parse_datetime, parse_duration};
use crate::types::{Collation, Datum, FieldType, MysqlType};

/// The collation's sort key of a string.
pub static SORT_KEY: Function = Function::strict("sort_key", sort_key).vectorized(sort_key_vector);

/// This family's functions.
pub static ENTRIES: &[Entry] = &[
    Entry::custom(Function::strict("=", eq).vectorized(vector), 2, 2, resolve_comparison),
    Entry::custom(Function::with_nulls("<=>", null_safe_eq), 2, 2, resolve_comparison),
    Entry::custom(Function::strict("<>", ne).vectorized(vector), 2, 2, resolve_comparison),
    Entry::custom(Function::strict("<", lt).vectorized(vector), 2, 2, resolve_comparison),
    Entry::custom(Function::strict("<=", le).vectorized(vector), 2, 2, resolve_comparison),
    Entry::custom(Function::strict(">", gt).vectorized(vector), 2, 2, resolve_comparison),
    Entry::custom(Function::strict(">=", ge).vectorized(vector), 2, 2, resolve_comparison),
    Entry::custom(Function::with_nulls("between", between), 3, 3, resolve_between),
    Entry::custom(Function::with_nulls("in", is_in).vectorized(in_vector), 2, MANY, resolve_in),
    Entry::custom(Function::strict("greatest", greatest), 2, MANY, resolve_extreme),
    Entry::custom(Function::strict("least", least), 2, MANY, resolve_extreme),
    Entry::fixed(Function::strict("strcmp", strcmp), 2, 2, &[Arg::Str], ret::int),
    Entry::fixed(Function::with_nulls("interval", interval), 2, MANY, &[Arg::Number], ret::int),
    Entry::fixed(
        Function::strict("sort_key", sort_key).vectorized(sort_key_vector),
        1,
        1,
        &[Arg::Str],
        ret::binary,
    ),
    Entry::fixed(Function::strict("row_key", row_key), 1, MANY, &[Arg::Any], ret::binary),
    Entry::fixed(
        Function::strict("weight_string", sort_key).vectorized(sort_key_vector),
        1,
        1,
        &[Arg::Str],
        ret::binary,
    ),
];

/// In which type two values are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CompareAs {
    Int,
    Decimal,
    Double,
    String(Collation),
    Time(u8),
    Duration(u8),
}

fn is_hex_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal { value: Datum::Bytes(_), field_type } if field_type.unsigned)
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Column { .. })
}

fn is_number(expr: &Expr) -> bool {
    expr.field_type().is_numeric()
}

/// MySQL's rules for the type of a comparison of two values.
fn compare_as(ctx: &EvalContext, a: &Expr, b: &Expr, name: &str) -> Result<CompareAs> {
    let (fa, fb) = (a.field_type().family(), b.field_type().family());
    let fsp = a.field_type().fsp().max(b.field_type().fsp());
    let texts = |f: Family| matches!(f, Family::String | Family::Enum | Family::Json);
    let pair = (fa, fb);
    if fa == Family::Null || fb == Family::Null {
        let other = if fa == Family::Null { b } else { a };
        return Ok(match other.field_type().family() {
            Family::Decimal => CompareAs::Decimal,
            Family::Double => CompareAs::Double,
            Family::String | Family::Json => {
                CompareAs::String(coercion::aggregate(ctx, &[other], name)?.collation)
            }
            Family::Time => CompareAs::Time(other.field_type().fsp()),
            Family::Duration => CompareAs::Duration(other.field_type().fsp()),
            _ => CompareAs::Int,
        });
    }
    if (is_hex_literal(a) && is_number(b)) || (is_hex_literal(b) && is_number(a)) {
        return Ok(CompareAs::Int);
    }
    Ok(match pair {
        (Family::Enum, Family::Enum) if a.field_type().elems == b.field_type().elems => CompareAs::Int,
        (x, y) if texts(x) && texts(y) => {
            CompareAs::String(coercion::aggregate(ctx, &[a, b], name)?.collation)
        }
        (Family::Time, Family::Time | Family::Duration | Family::String | Family::Enum)
        | (Family::Duration | Family::String | Family::Enum, Family::Time) => CompareAs::Time(fsp),
        (Family::Duration, Family::Duration) => CompareAs::Duration(fsp),
        // A text is read as TIME beside a column; beside any other TIME it stays a text.
        (Family::Duration, Family::String | Family::Enum) if is_column(a) => CompareAs::Duration(fsp),
        (Family::String | Family::Enum, Family::Duration) if is_column(b) => CompareAs::Duration(fsp),
        (Family::Duration, Family::String | Family::Enum)
        | (Family::String | Family::Enum, Family::Duration) => {
            CompareAs::String(coercion::aggregate(ctx, &[a, b], name)?.collation)
        }
        (Family::Int | Family::Enum, Family::Int | Family::Enum) => CompareAs::Int,
        (Family::Double | Family::String | Family::Json, _)
        | (_, Family::Double | Family::String | Family::Json) => CompareAs::Double,
        (Family::Int | Family::Enum | Family::Decimal, Family::Int | Family::Enum | Family::Decimal) => {
            CompareAs::Decimal
        }
        // A temporal and a number: by the temporal's number form.
        _ => CompareAs::Double,
    })
}

fn decimal_type(exprs: &[&Expr]) -> FieldType {
    let scale = exprs.iter().map(|e| e.field_type().decimal_scale()).max().unwrap_or(0);
    let whole =
        |e: &&Expr| coercion::precision_of(e).saturating_sub(u32::from(e.field_type().decimal_scale()));
    let whole = exprs.iter().map(whole).max().unwrap_or(0);
    FieldType::decimal(whole + u32::from(scale), scale)
}

/// A constant text that is compared with a temporal must be one (error 1525).
fn check_temporal_literal(expr: &Expr, with: &FieldType) -> Result<()> {
    let Expr::Literal { value, .. } = expr else { return Ok(()) };
    let Some(text) = value.as_str().filter(|_| value.as_bytes().is_some() && !is_hex_literal(expr)) else {
        return Ok(());
    };
    let kind = match with.tp {
        MysqlType::Date => "DATE",
        MysqlType::Time => "TIME",
        MysqlType::Timestamp => "TIMESTAMP",
        _ => "DATETIME",
    };
    let valid = match with.tp {
        MysqlType::Time => parse_duration(text).is_some(),
        _ => parse_datetime(text, DateRules::fuzzy()).is_some(),
    };
    if valid { Ok(()) } else { Err(Error::WrongLiteral { kind, value: text.to_string() }) }
}

fn convert_to(ctx: &EvalContext, expr: Expr, to: &CompareAs, decimal: &FieldType) -> Expr {
    if expr.field_type().family() == Family::Null {
        return expr;
    }
    match to {
        CompareAs::Int if is_hex_literal(&expr) => registry::cast(expr, FieldType::bigint_unsigned()),
        // The number of an ENUM or SET is what its array holds.
        CompareAs::Int => expr,
        CompareAs::Decimal => registry::cast(expr, decimal.clone()),
        CompareAs::Double => registry::to_double(registry::to_number(expr)),
        CompareAs::String(collation) => registry::to_string(ctx, expr, Some(*collation)),
        CompareAs::Time(_) if expr.field_type().family() == Family::Time => expr,
        CompareAs::Time(fsp) => {
            let fsp = if expr.field_type().is_string() { 6 } else { *fsp };
            let cast = registry::to_fuzzy_time(expr);
            with_type(cast, FieldType::datetime(fsp))
        }
        CompareAs::Duration(_) if expr.field_type().family() == Family::Duration => expr,
        CompareAs::Duration(_) => registry::cast(expr, FieldType::time(6)),
    }
}

fn with_type(expr: Expr, field_type: FieldType) -> Expr {
    match expr {
        Expr::Call(mut call) => {
            call.field_type = field_type;
            Expr::Call(call)
        }
        other => other,
    }
}

/// `int_column = '5'` and `int_column = 5.0` compare integers when the constant is one, so that they can use an index.
fn literal_as_int(expr: Expr, other: &Expr) -> Expr {
    if other.field_type().family() != Family::Int || matches!(other, Expr::Literal { .. }) {
        return expr;
    }
    let Expr::Literal { value, .. } = &expr else { return expr };
    let exact = match value {
        Datum::String(s) => s.parse::<i64>().ok().filter(|v| v.unsigned_abs() < 1 << 53),
        Datum::Decimal(d) if d.rescale(0) == *d => Some(d.to_i64()).filter(|(_, fits)| *fits).map(|(v, _)| v),
        _ => None,
    };
    exact.map_or(expr, Expr::int)
}

/// Temporal constants are parsed when the plan is made.
fn fold_constant(ctx: &EvalContext, expr: Expr) -> Expr {
    if expr.args().iter().all(|a| matches!(a, Expr::Literal { .. })) { expr.fold(ctx, false) } else { expr }
}

fn resolve_comparison(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let [a, b] = <[Expr; 2]>::try_from(args).map_err(|_| Error::WrongParamCount { function: "=".into() })?;
    let (a, b) = (literal_as_int(a.clone(), &b), literal_as_int(b, &a));
    let kind = compare_as(ctx, &a, &b, entry.function.name)?;
    if let CompareAs::Time(_) | CompareAs::Duration(_) = kind {
        check_temporal_literal(&a, b.field_type())?;
        check_temporal_literal(&b, a.field_type())?;
    }
    let decimal = if kind == CompareAs::Decimal { decimal_type(&[&a, &b]) } else { FieldType::null() };
    let collation = if let CompareAs::String(collation) = kind { collation } else { Collation::Binary };
    let convert = |e: Expr| fold_constant(ctx, convert_to(ctx, e, &kind, &decimal));
    let args = vec![convert(a), convert(b)];
    let not_null = entry.function.name == "<=>";
    Ok(entry.call(args, FieldType::boolean().with_not_null(not_null), collation))
}

/// One type for all: BETWEEN, IN, GREATEST and LEAST compare in it.
fn unify(ctx: &EvalContext, args: Vec<Expr>, name: &str) -> Result<(Vec<Expr>, Collation)> {
    let first = args[0].clone();
    let mut kind: Option<CompareAs> = None;
    for arg in &args[1..] {
        if arg.field_type().family() == Family::Null && args.len() > 2 {
            continue;
        }
        let next = compare_as(ctx, &first, arg, name)?;
        kind = Some(match (kind, next) {
            (None, next) => next,
            (Some(CompareAs::String(_)), CompareAs::String(_)) => {
                let all: Vec<&Expr> = args.iter().collect();
                CompareAs::String(coercion::aggregate(ctx, &all, name)?.collation)
            }
            (Some(a), b) if a == b => a,
            (Some(CompareAs::Time(x)), CompareAs::Time(y)) => CompareAs::Time(x.max(y)),
            (Some(CompareAs::Duration(x)), CompareAs::Duration(y)) => CompareAs::Duration(x.max(y)),
            (Some(CompareAs::Int | CompareAs::Decimal), CompareAs::Int | CompareAs::Decimal) => {
                CompareAs::Decimal
            }
            _ => CompareAs::Double,
        });
    }
    let kind = kind.unwrap_or(CompareAs::Int);
    if let CompareAs::Time(_) | CompareAs::Duration(_) = kind {
        for arg in &args[1..] {
            check_temporal_literal(arg, first.field_type())?;
        }
    }
    let all: Vec<&Expr> = args.iter().filter(|a| a.field_type().family() != Family::Null).collect();
    let decimal = decimal_type(&all);
    let collation = if let CompareAs::String(collation) = kind { collation } else { Collation::Binary };
    let args = args.into_iter().map(|e| fold_constant(ctx, convert_to(ctx, e, &kind, &decimal))).collect();
    Ok((args, collation))
}

fn resolve_between(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    // x BETWEEN a AND b is x >= a AND x <= b, each side in a type of its own when they differ.
    let [x, low, high] =
        <[Expr; 3]>::try_from(args).map_err(|_| Error::WrongParamCount { function: "between".into() })?;
    let _ = entry;
    let from = registry::resolve(ctx, ">=", vec![x.clone(), low])?;
    let to = registry::resolve(ctx, "<=", vec![x, high])?;
    registry::resolve(ctx, "and", vec![from, to])
}

fn resolve_in(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let first = args[0].clone();
    let mut args: Vec<Expr> = args.into_iter().collect();
    for arg in args.iter_mut().skip(1) {
        *arg = literal_as_int(std::mem::replace(arg, Expr::null()), &first);
    }
    let families: Vec<Family> =
        args[1..].iter().map(|a| a.field_type().family()).filter(|f| *f != Family::Null).collect();
    let mixed = families.windows(2).any(|w| w[0] != w[1])
        && !args.iter().all(|a| is_number(a) || a.field_type().family() == Family::Null);
    if mixed {
        // Values of several kinds: each is compared in its own type.
        let tests = args.drain(1..).map(|value| registry::resolve(ctx, "=", vec![first.clone(), value]));
        let tests = tests.collect::<Result<Vec<Expr>>>()?;
        return registry::resolve(ctx, "or", tests);
    }
    let (args, collation) = unify(ctx, args, "in")?;
    Ok(entry.call(args, FieldType::boolean(), collation))
}

fn resolve_extreme(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let refs: Vec<&Expr> = args.iter().collect();
    let field_type = coercion::common_type(ctx, &refs, entry.function.name)?.with_not_null(false);
    let collation = field_type.collation;
    let args = args.into_iter().map(|a| registry::cast(a, field_type.clone())).collect();
    Ok(entry.call(args, field_type, collation))
}

/// Orders two values of one type (integers may differ in sign); NULL never gets here.
#[must_use]
pub fn compare_datums(a: &Datum, b: &Datum, collation: Collation) -> Ordering {
    match (a, b) {
        (Datum::Int(x), Datum::Int(y)) => x.cmp(y),
        (Datum::UInt(x), Datum::UInt(y)) => x.cmp(y),
        (Datum::Int(x), Datum::UInt(y)) => i128::from(*x).cmp(&i128::from(*y)),
        (Datum::UInt(x), Datum::Int(y)) => i128::from(*x).cmp(&i128::from(*y)),
        (Datum::Double(x), Datum::Double(y)) => x.partial_cmp(y).unwrap_or(Ordering::Equal),
        (Datum::Decimal(x), Datum::Decimal(y)) => x.cmp(y),
        (Datum::Time(x), Datum::Time(y)) => x.cmp(y),
        (Datum::Duration(x), Datum::Duration(y)) => x.cmp(y),
        (Datum::Null, Datum::Null) => Ordering::Equal,
        (Datum::Null, _) => Ordering::Less,
        (_, Datum::Null) => Ordering::Greater,
        _ => match (a.as_bytes(), b.as_bytes()) {
            (Some(x), Some(y)) => collation.compare(x, y),
            _ => as_number(a).partial_cmp(&as_number(b)).unwrap_or(Ordering::Equal),
        },
    }
}

fn as_number(value: &Datum) -> f64 {
    match value {
        Datum::Int(v) => *v as f64,
        Datum::UInt(v) => *v as f64,
        Datum::Double(v) => *v,
        Datum::Decimal(v) => v.to_f64(),
        _ => 0.0,
    }
}

fn order(scope: &Scope<'_>, args: &[Datum]) -> Ordering {
    compare_datums(&args[0], &args[1], scope.collation())
}

fn eq(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::bool(order(scope, args).is_eq()))
}

fn ne(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::bool(order(scope, args).is_ne()))
}

fn lt(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::bool(order(scope, args).is_lt()))
}

fn le(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::bool(order(scope, args).is_le()))
}

fn gt(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::bool(order(scope, args).is_gt()))
}

fn ge(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::bool(order(scope, args).is_ge()))
}

fn null_safe_eq(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::bool(match (args[0].is_null(), args[1].is_null()) {
        (true, true) => true,
        (false, false) => order(scope, args).is_eq(),
        _ => false,
    }))
}

fn between(_: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Err(Error::Internal("BETWEEN is resolved into two comparisons".into()))
}

fn is_in(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    if args[0].is_null() {
        return Ok(Datum::Null);
    }
    let mut has_null = false;
    for value in &args[1..] {
        if value.is_null() {
            has_null = true;
        } else if compare_datums(&args[0], value, scope.collation()).is_eq() {
            return Ok(Datum::bool(true));
        }
    }
    Ok(if has_null { Datum::Null } else { Datum::bool(false) })
}

fn extreme(scope: &Scope<'_>, args: &[Datum], keep: Ordering) -> Result<Datum> {
    let mut best = &args[0];
    for value in &args[1..] {
        if compare_datums(value, best, scope.collation()) == keep {
            best = value;
        }
    }
    Ok(best.clone())
}

fn greatest(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    extreme(scope, args, Ordering::Greater)
}

fn least(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    extreme(scope, args, Ordering::Less)
}

fn strcmp(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(order(scope, args) as i64))
}

/// INTERVAL(n, a, b, …): how many of the ascending values are not above n.
fn interval(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    if args[0].is_null() {
        return Ok(Datum::Int(-1));
    }
    let above =
        args[1..].iter().position(|v| !v.is_null() && compare_datums(v, &args[0], scope.collation()).is_gt());
    Ok(Datum::Int(above.unwrap_or(args.len() - 1) as i64))
}

fn sort_key(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(args[0].as_bytes().map(|b| scope.collation().sort_key(b)).into())
}

fn sort_key_vector(scope: &Scope<'_>, args: &[Value], rows: usize) -> Option<Result<Value>> {
    let Value::Array(array) = &args[0] else { return None };
    let strings = array.as_any().downcast_ref::<StringArray>()?;
    let mut builder = BinaryBuilder::with_capacity(rows, strings.value_data().len() * 2);
    let mut key = Vec::new();
    for text in strings {
        match text {
            None => builder.append_null(),
            Some(text) => {
                key.clear();
                scope.collation().sort_key_into(text.as_bytes(), &mut key);
                builder.append_value(&key);
            }
        }
    }
    Some(Ok(Value::Array(Arc::new(builder.finish()))))
}

fn test_of(name: &str) -> fn(Ordering) -> bool {
    match name {
        "=" => Ordering::is_eq,
        "<>" => Ordering::is_ne,
        "<" => Ordering::is_lt,
        "<=" => Ordering::is_le,
        ">" => Ordering::is_gt,
        _ => Ordering::is_ge,
    }
}

fn ints(values: Vec<i64>, nulls: Option<NullBuffer>) -> Value {
    Value::Array(Arc::new(Int64Array::new(values.into(), nulls)))
}

/// Compares arrays of one primitive type with an operation known at compile time, so that the loop is branch-free.
fn primitive<T: ArrowPrimitiveType>(
    name: &str,
    a: &PrimitiveArray<T>,
    b: &Value,
    scalar: impl Fn(&Datum) -> Option<T::Native>,
) -> Option<Value>
where
    T::Native: PartialOrd,
{
    fn run<T: ArrowPrimitiveType>(
        a: &PrimitiveArray<T>,
        b: &Value,
        scalar: Option<T::Native>,
        test: impl Fn(T::Native, T::Native) -> bool,
    ) -> Option<Value> {
        if let Some(y) = scalar {
            return Some(ints(
                a.values().iter().map(|x| i64::from(test(*x, y))).collect(),
                a.nulls().cloned(),
            ));
        }
        let Value::Array(b) = b else { return None };
        let b = b.as_any().downcast_ref::<PrimitiveArray<T>>()?;
        let values = a.values().iter().zip(b.values()).map(|(x, y)| i64::from(test(*x, *y))).collect();
        Some(ints(values, NullBuffer::union(a.nulls(), b.nulls())))
    }
    let y = b.as_scalar().and_then(scalar);
    if b.as_scalar().is_some() && y.is_none() {
        return None;
    }
    match name {
        "=" => run(a, b, y, |x, y| x == y),
        "<>" => run(a, b, y, |x, y| x != y),
        "<" => run(a, b, y, |x, y| x < y),
        "<=" => run(a, b, y, |x, y| x <= y),
        ">" => run(a, b, y, |x, y| x > y),
        _ => run(a, b, y, |x, y| x >= y),
    }
}

/// The same comparison with the sides swapped.
fn mirrored(name: &str) -> &str {
    match name {
        "<" => ">",
        "<=" => ">=",
        ">" => "<",
        ">=" => "<=",
        same => same,
    }
}

fn vector(scope: &Scope<'_>, args: &[Value], rows: usize) -> Option<Result<Value>> {
    let name = scope.call.func.name;
    match (&args[0], &args[1]) {
        (Value::Scalar(Datum::Null), _) | (_, Value::Scalar(Datum::Null)) => {
            Some(Ok(Value::Scalar(Datum::Null)))
        }
        (Value::Array(a), _) => compare_array(scope, name, a, &args[1], 1, rows),
        (Value::Scalar(_), Value::Array(b)) => compare_array(scope, mirrored(name), b, &args[0], 0, rows),
        _ => None,
    }
}

fn compare_array(
    scope: &Scope<'_>,
    name: &str,
    a: &ArrayRef,
    b: &Value,
    b_index: usize,
    rows: usize,
) -> Option<Result<Value>> {
    let any = a.as_any();
    let found = if let Some(x) = any.downcast_ref::<Int64Array>() {
        primitive::<Int64Type>(name, x, b, |v| match v {
            Datum::Int(v) => Some(*v),
            Datum::UInt(v) => i64::try_from(*v).ok(),
            Datum::Duration(v) => Some(v.0),
            _ => None,
        })
    } else if let Some(x) = any.downcast_ref::<UInt64Array>() {
        primitive::<UInt64Type>(name, x, b, |v| match v {
            Datum::UInt(v) => Some(*v),
            Datum::Int(v) => u64::try_from(*v).ok(),
            Datum::Time(v) => Some(v.0),
            _ => None,
        })
    } else if let Some(x) = any.downcast_ref::<Float64Array>() {
        primitive::<Float64Type>(name, x, b, |v| if let Datum::Double(v) = v { Some(*v) } else { None })
    } else if let Some(x) = any.downcast_ref::<Decimal128Array>() {
        let scale = scope.arg_type(1 - b_index).decimals;
        if scope.arg_type(b_index).decimals != scale {
            return None;
        }
        primitive::<Decimal128Type>(name, x, b, |v| match v {
            Datum::Decimal(v) => v.rescale(scale).unscaled_i128(),
            _ => None,
        })
    } else {
        return strings(scope, name, a, b, rows);
    };
    found.map(Ok)
}

fn strings(scope: &Scope<'_>, name: &str, a: &ArrayRef, b: &Value, rows: usize) -> Option<Result<Value>> {
    let collation = scope.collation();
    let test = test_of(name);
    let left = Bytes::of(a)?;
    let compare = |x: &[u8], y: &[u8]| -> i64 {
        match name {
            "=" => i64::from(collation.equal(x, y)),
            "<>" => i64::from(!collation.equal(x, y)),
            _ => i64::from(test(collation.compare(x, y))),
        }
    };
    match b {
        Value::Scalar(scalar) => {
            let y = scalar.as_bytes()?;
            let values = (0..rows).map(|row| compare(left.get(row), y)).collect();
            Some(Ok(ints(values, a.nulls().cloned())))
        }
        Value::Array(b) => {
            let right = Bytes::of(b)?;
            let values = (0..rows).map(|row| compare(left.get(row), right.get(row))).collect();
            Some(Ok(ints(values, NullBuffer::union(a.nulls(), b.nulls()))))
        }
    }
}

/// A string array of either kind, as bytes.
pub(super) enum Bytes<'a> {
    String(&'a StringArray),
    Binary(&'a BinaryArray),
}

impl<'a> Bytes<'a> {
    pub(super) fn of(array: &'a ArrayRef) -> Option<Bytes<'a>> {
        let any = array.as_any();
        let string = any.downcast_ref::<StringArray>().map(Bytes::String);
        string.or_else(|| any.downcast_ref::<BinaryArray>().map(Bytes::Binary))
    }

    pub(super) fn get(&self, row: usize) -> &'a [u8] {
        match self {
            Bytes::String(a) => a.value(row).as_bytes(),
            Bytes::Binary(a) => a.value(row),
        }
    }
}

/// `column IN (constants)` of integers, and of strings whose collation compares bytes.
fn in_vector(scope: &Scope<'_>, args: &[Value], rows: usize) -> Option<Result<Value>> {
    let Value::Array(array) = &args[0] else { return None };
    let list: Vec<&Datum> = args[1..].iter().map(Value::as_scalar).collect::<Option<_>>()?;
    let has_null = list.iter().any(|v| v.is_null());
    let list: Vec<&Datum> = list.into_iter().filter(|v| !v.is_null()).collect();
    let hits: Vec<bool> = if let Some(column) = array.as_any().downcast_ref::<Int64Array>() {
        let set = list.iter().map(|v| match v {
            Datum::Int(v) => Some(i128::from(*v)),
            Datum::UInt(v) => Some(i128::from(*v)),
            Datum::Duration(v) => Some(i128::from(v.0)),
            _ => None,
        });
        let set: ahash::AHashSet<i64> =
            set.collect::<Option<Vec<_>>>()?.into_iter().filter_map(|v| v.try_into().ok()).collect();
        column.values().iter().map(|v| set.contains(v)).collect()
    } else if let Some(column) = Bytes::of(array) {
        let collation = scope.collation();
        let set: ahash::AHashSet<Vec<u8>> =
            list.iter().map(|v| v.as_bytes().map(|b| collation.sort_key(b))).collect::<Option<_>>()?;
        let mut key = Vec::new();
        let mut contains = |bytes: &[u8]| {
            key.clear();
            collation.sort_key_into(bytes, &mut key);
            set.contains(&key)
        };
        (0..rows).map(|row| contains(column.get(row))).collect()
    } else {
        return None;
    };
    let column_nulls = array.nulls();
    let values = hits.iter().enumerate().map(|(row, hit)| {
        let is_null = column_nulls.is_some_and(|n| n.is_null(row)) || (!hit && has_null);
        (!is_null).then_some(i64::from(*hit))
    });
    Some(Ok(Value::Array(Arc::new(values.collect::<Int64Array>()))))
}

/// The values of a row as one memcomparable string; NULL when any is NULL, as COUNT(DISTINCT a, b) wants it.
fn row_key(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let mut key = Vec::new();
    for (index, value) in args.iter().enumerate() {
        crate::index_key::encode(value, &crate::index_key::KeyPart::new(scope.arg_type(index)), &mut key)?;
    }
    Ok(Datum::Bytes(key))
}
