//! CAST, CONVERT, COLLATE, and the conversions that the registry inserts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, Float64Array, Int64Array, UInt64Array};

use super::registry::{Arg, Entry, ret};
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::eval::Value;
use crate::expr::{Expr, Function, Scope};
use crate::types::decimal::POW10;
use crate::types::field_type::{Family, LENGTH_UNSPECIFIED};
use crate::types::time_parse::DateRules;
use crate::types::{Charset, Collation, Datum, FieldType, MysqlType, convert};

/// CAST to the call's type.
pub static CAST: Function = Function::strict("cast", cast).vectorized(cast_vector);
/// To DATETIME with zeros allowed, for functions that read parts of dates.
pub static FUZZY_TIME: Function = Function::strict("fuzzy_time", fuzzy_time);
/// COLLATE: the same text in another collation.
pub static COLLATE: Function = Function::strict("collate", cast).vectorized(cast_vector);

/// This family's functions. `cast` and `collate` need more than a list of arguments: see the registry's `cast` and `collate`.
pub static ENTRIES: &[Entry] = &[
    Entry::custom(Function::strict("cast", cast).vectorized(cast_vector), 1, 1, unresolvable),
    Entry::custom(Function::strict("collate", cast).vectorized(cast_vector), 1, 1, unresolvable),
    Entry::custom(Function::strict("fuzzy_time", fuzzy_time), 1, 1, unresolvable),
    Entry::custom(Function::strict("binary", cast).vectorized(cast_vector), 1, 1, resolve_binary),
    Entry::custom(Function::strict("convert_using", cast).vectorized(cast_vector), 2, 2, resolve_using),
    Entry::fixed(Function::with_nulls("charset", charset), 1, 1, &[Arg::Any], ret::text),
    Entry::fixed(Function::with_nulls("collation", collation), 1, 1, &[Arg::Any], ret::text),
    Entry::fixed(Function::with_nulls("coercibility", coercibility), 1, 1, &[Arg::Any], ret::int),
];

fn unresolvable(_: &EvalContext, entry: &'static Entry, _: Vec<Expr>) -> Result<Expr> {
    Err(Error::FunctionDoesNotExist { function: entry.function.name.to_string() })
}

fn resolve_binary(_: &EvalContext, _: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let to = FieldType::varchar(LENGTH_UNSPECIFIED, Collation::Binary);
    let arg = args.into_iter().next().unwrap_or_else(Expr::null);
    Ok(super::registry::explicit_cast(arg, to))
}

/// `CONVERT(x USING charset)`; the character set's name is a string literal.
fn resolve_using(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let mut args = args.into_iter();
    let arg = args.next().unwrap_or_else(Expr::null);
    let name = args.next().unwrap_or_else(Expr::null).eval_scalar(ctx)?;
    let charset = Charset::from_name(name.as_str().unwrap_or_default())?;
    let collation = charset.default_collation();
    Ok(entry.call(vec![arg], FieldType::varchar(LENGTH_UNSPECIFIED, collation), collation))
}

fn cast(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    convert::cast(scope.ctx, &args[0], scope.arg_type(0), scope.ret())
}

fn fuzzy_time(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let fsp = scope.ret().fsp();
    Ok(convert::to_time(scope.ctx, &args[0], scope.arg_type(0), fsp, DateRules::fuzzy())?.into())
}

/// Exact conversions between numbers, and those that change nothing in the array.
fn cast_vector(scope: &Scope<'_>, args: &[Value], _: usize) -> Option<Result<Value>> {
    let Value::Array(array) = &args[0] else { return None };
    let (from, to) = (scope.arg_type(0), scope.ret());
    let nulls = array.nulls().cloned();
    let result: ArrayRef = match (from.family(), to.family()) {
        (Family::Int, Family::Double) if to.tp == MysqlType::Double => {
            let values: Vec<f64> = match array.as_any().downcast_ref::<Int64Array>() {
                Some(ints) => ints.values().iter().map(|v| *v as f64).collect(),
                None => {
                    array.as_any().downcast_ref::<UInt64Array>()?.values().iter().map(|v| *v as f64).collect()
                }
            };
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        (Family::Int | Family::Decimal, Family::Decimal) if to.flen <= 38 => {
            return to_decimal_vector(array, from, to);
        }
        (Family::Decimal, Family::Double) if from.flen <= 15 && to.tp == MysqlType::Double => {
            let decimals = array.as_any().downcast_ref::<Decimal128Array>()?;
            let divisor = 10f64.powi(i32::from(from.decimals));
            let values: Vec<f64> = decimals.values().iter().map(|v| *v as i64 as f64 / divisor).collect();
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        (Family::Time, Family::Time)
            if from.fsp() <= to.fsp() && to.tp != MysqlType::Date && plain_dates(array) =>
        {
            array.clone()
        }
        (Family::String, Family::String)
            if from.arrow() == to.arrow() && to.flen == LENGTH_UNSPECIFIED && same_text(from, to) =>
        {
            array.clone()
        }
        _ => return None,
    };
    Some(Ok(Value::Array(result)))
}

fn same_text(from: &FieldType, to: &FieldType) -> bool {
    from.collation.charset() == to.collation.charset() || to.collation.charset() == Charset::Utf8mb4
}

/// No zero dates, which sql_mode may refuse.
fn plain_dates(array: &ArrayRef) -> bool {
    let times = array.as_any().downcast_ref::<UInt64Array>();
    times.is_some_and(|times| {
        let refused = |v: &u64| crate::types::Time(*v).has_zero_in_date();
        times.null_count() > 0 || !times.values().iter().any(refused)
    })
}

fn to_decimal_vector(array: &ArrayRef, from: &FieldType, to: &FieldType) -> Option<Result<Value>> {
    let from_scale = if from.family() == Family::Decimal { from.decimals } else { 0 };
    if to.decimals < from_scale {
        return None;
    }
    let factor = POW10[usize::from(to.decimals - from_scale)];
    let limit = POW10[to.flen as usize];
    let scaled = |v: i128| v.checked_mul(factor).filter(|v| v.unsigned_abs() < limit.unsigned_abs());
    let any = array.as_any();
    let values: Option<Vec<i128>> = if let Some(ints) = any.downcast_ref::<Int64Array>() {
        ints.values().iter().map(|v| scaled(i128::from(*v))).collect()
    } else if let Some(ints) = any.downcast_ref::<UInt64Array>() {
        ints.values().iter().map(|v| scaled(i128::from(*v))).collect()
    } else {
        any.downcast_ref::<Decimal128Array>()?.values().iter().map(|v| scaled(*v)).collect()
    };
    let decimals = Decimal128Array::new(values?.into(), array.nulls().cloned());
    let decimals = decimals.with_precision_and_scale(to.flen as u8, to.decimals as i8);
    Some(decimals.map(|a| Value::Array(Arc::new(a) as ArrayRef)).map_err(Error::from))
}

fn collation_of(scope: &Scope<'_>) -> Collation {
    let arg = scope.arg_type(0);
    match arg.family() {
        Family::String | Family::Enum => arg.collation,
        _ => Collation::Binary,
    }
}

fn charset(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(Datum::from(collation_of(scope).charset().name()))
}

fn collation(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(Datum::from(collation_of(scope).name()))
}

fn coercibility(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(scope.call.args[0].coercibility() as i64))
}
