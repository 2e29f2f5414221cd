//! Comparisons: `= <=> <> < <= > >=`, BETWEEN, IN, GREATEST, LEAST, STRCMP, and sort keys.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BinaryBuilder, Decimal128Array, Float64Array,
    Int64Array, PrimitiveArray, StringArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, UInt64Type};

use super::compare_types::{resolve_between, resolve_comparison, resolve_extreme, resolve_in};
use super::registry::{Arg, Entry, MANY, ret};
use crate::error::{Error, Result};
use crate::eval::Value;
use crate::expr::{Function, Scope};
use crate::types::{Collation, Datum};

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

/// Texts of a batch that are remembered.
const KNOWN_VALUES_MAX: usize = 256;

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
        // Columns that are asked for one of several words often hold few different ones.
        let mut known: ahash::AHashMap<&[u8], bool> = ahash::AHashMap::new();
        let mut contains = |bytes| {
            if let Some(hit) = known.get(bytes) {
                return *hit;
            }
            key.clear();
            collation.sort_key_into(bytes, &mut key);
            let hit = set.contains(&key);
            if known.len() < KNOWN_VALUES_MAX {
                known.insert(bytes, hit);
            }
            hit
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
