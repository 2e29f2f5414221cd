//! `+ - * / DIV %` and unary minus.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, Decimal128Array, Decimal256Array, Float64Array, Int64Array,
    PrimitiveArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, i256};

use super::coercion::precision_of;
use super::registry::{self, Entry};
use crate::context::{EvalContext, SqlMode};
use crate::error::{Error, Result};
use crate::eval::Value;
use crate::expr::{Expr, Function, Scope};
use crate::types::decimal::POW10;
use crate::types::field_type::{DECIMAL_DIGITS_MAX, DECIMAL_SCALE_MAX, Family};
use crate::types::{Collation, Datum, Decimal, FieldType};

/// This family's functions.
pub static ENTRIES: &[Entry] = &[
    Entry::custom(Function::strict("+", add).vectorized(vector), 2, 2, resolve_additive),
    Entry::custom(Function::strict("-", sub).vectorized(vector), 2, 2, resolve_additive),
    Entry::custom(Function::strict("*", mul).vectorized(vector), 2, 2, resolve_additive),
    Entry::custom(Function::strict("/", div).vectorized(vector), 2, 2, resolve_div),
    Entry::custom(Function::strict("div", int_div), 2, 2, resolve_int_div),
    Entry::custom(Function::strict("%", rem), 2, 2, resolve_additive),
    Entry::custom(Function::strict("neg", neg), 1, 1, resolve_neg),
];

fn operands(args: Vec<Expr>) -> (Expr, Expr) {
    let mut args = args.into_iter().map(registry::to_number);
    match (args.next(), args.next()) {
        (Some(a), Some(b)) => (a, b),
        _ => (Expr::null(), Expr::null()),
    }
}

fn is_double(expr: &Expr) -> bool {
    expr.field_type().family() == Family::Double
}

/// An integer argument of decimal arithmetic, as DECIMAL of its digits.
fn as_decimal(expr: Expr) -> Expr {
    if expr.field_type().family() == Family::Decimal {
        return expr;
    }
    let precision = precision_of(&expr);
    registry::cast(expr, FieldType::decimal(precision, 0))
}

fn resolve_additive(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let (a, b) = operands(args);
    if is_double(&a) || is_double(&b) {
        let args = vec![registry::to_double(a), registry::to_double(b)];
        return Ok(entry.call(args, FieldType::double(), Collation::Binary));
    }
    if a.field_type().family() == Family::Decimal || b.field_type().family() == Family::Decimal {
        let (a, b) = (as_decimal(a), as_decimal(b));
        let field_type = decimal_result(entry.function.name, a.field_type(), b.field_type());
        return Ok(entry.call(vec![a, b], field_type, Collation::Binary));
    }
    let unsigned = match entry.function.name {
        "%" => a.field_type().unsigned,
        "-" if ctx.sql_mode.contains(SqlMode::NO_UNSIGNED_SUBTRACTION) => false,
        _ => a.field_type().unsigned || b.field_type().unsigned,
    };
    Ok(entry.call(vec![a, b], FieldType::bigint().with_unsigned(unsigned), Collation::Binary))
}

fn decimal_result(name: &str, a: &FieldType, b: &FieldType) -> FieldType {
    let (pa, pb) = (a.flen, b.flen);
    let (sa, sb) = (u32::from(a.decimals), u32::from(b.decimals));
    match name {
        "*" => FieldType::decimal(pa + pb, (sa + sb).min(u32::from(DECIMAL_SCALE_MAX)) as u8),
        "%" => FieldType::decimal(pa.max(pb), sa.max(sb) as u8),
        _ => {
            let whole = (pa - sa).max(pb - sb);
            FieldType::decimal(whole + 1 + sa.max(sb), sa.max(sb) as u8)
        }
    }
}

fn resolve_div(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let (a, b) = operands(args);
    if is_double(&a) || is_double(&b) {
        let args = vec![registry::to_double(a), registry::to_double(b)];
        return Ok(entry.call(args, FieldType::double(), Collation::Binary));
    }
    let (a, b) = (as_decimal(a), as_decimal(b));
    let (ta, tb) = (a.field_type(), b.field_type());
    let increment = u32::from(ctx.div_precision_increment);
    let scale = (u32::from(ta.decimals) + increment).min(u32::from(DECIMAL_SCALE_MAX)) as u8;
    let precision = ta.flen + u32::from(tb.decimals) + increment;
    let field_type = FieldType::decimal(precision, scale);
    Ok(entry.call(vec![a, b], field_type, Collation::Binary))
}

fn resolve_int_div(_: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let (a, b) = operands(args);
    let unsigned = a.field_type().unsigned || b.field_type().unsigned;
    Ok(entry.call(vec![a, b], FieldType::bigint().with_unsigned(unsigned), Collation::Binary))
}

fn resolve_neg(_: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let Some(arg) = args.into_iter().next().map(registry::to_number) else {
        return Err(Error::WrongParamCount { function: "neg".into() });
    };
    if let Expr::Literal { value, field_type } = &arg {
        match value {
            Datum::Int(v) if *v != i64::MIN => return Ok(Expr::int(-v)),
            Datum::UInt(v) if *v == 1 << 63 => return Ok(Expr::int(i64::MIN)),
            Datum::UInt(v) => {
                let value = Decimal::from(*v).neg();
                return Ok(Expr::literal(value.into(), FieldType::decimal(20, 0).with_not_null(true)));
            }
            Datum::Decimal(v) => return Ok(Expr::literal(v.neg().into(), field_type.clone())),
            Datum::Double(v) => return Ok(Expr::literal(Datum::Double(-v), field_type.clone())),
            _ => {}
        }
    }
    let from = arg.field_type();
    let field_type = match from.family() {
        Family::Decimal => FieldType::decimal(from.flen, from.decimals),
        Family::Double => FieldType::double(),
        _ => FieldType::bigint(),
    };
    Ok(entry.call(vec![arg], field_type, Collation::Binary))
}

fn out_of_range(scope: &Scope<'_>) -> Error {
    let kind = match scope.ret().family() {
        Family::Double => "DOUBLE",
        Family::Decimal => "DECIMAL",
        _ if scope.ret().unsigned => "BIGINT UNSIGNED",
        _ => "BIGINT",
    };
    Error::DataOutOfRange { kind, expr: Expr::Call(Box::new(scope.call.clone())).to_string() }
}

fn as_i128(value: &Datum) -> i128 {
    match value {
        Datum::Int(v) => i128::from(*v),
        Datum::UInt(v) => i128::from(*v),
        _ => 0,
    }
}

fn as_f64(value: &Datum) -> f64 {
    match value {
        Datum::Double(v) => *v,
        Datum::Int(v) => *v as f64,
        Datum::UInt(v) => *v as f64,
        Datum::Decimal(v) => v.to_f64(),
        _ => 0.0,
    }
}

fn as_decimal_value(value: &Datum) -> Decimal {
    match value {
        Datum::Decimal(v) => *v,
        Datum::Int(v) => Decimal::from(*v),
        Datum::UInt(v) => Decimal::from(*v),
        Datum::Double(v) => Decimal::from_f64(*v).unwrap_or(Decimal::ZERO),
        _ => Decimal::ZERO,
    }
}

fn int_result(scope: &Scope<'_>, value: i128) -> Result<Datum> {
    let fitted = if scope.ret().unsigned {
        u64::try_from(value).map(Datum::UInt).ok()
    } else {
        i64::try_from(value).map(Datum::Int).ok()
    };
    fitted.ok_or_else(|| out_of_range(scope))
}

fn double_result(scope: &Scope<'_>, value: f64) -> Result<Datum> {
    if value.is_finite() { Ok(Datum::Double(value)) } else { Err(out_of_range(scope)) }
}

fn decimal_value(scope: &Scope<'_>, value: Option<Decimal>) -> Result<Datum> {
    let value = value.ok_or_else(|| out_of_range(scope))?;
    let scale = scope.ret().decimals;
    if value.int_digits() + u32::from(scale) > DECIMAL_DIGITS_MAX {
        return Err(out_of_range(scope));
    }
    Ok(Datum::Decimal(value.rescale(scale)))
}

fn binary(
    scope: &Scope<'_>,
    args: &[Datum],
    ints: fn(i128, i128) -> i128,
    doubles: fn(f64, f64) -> f64,
    decimals: fn(&Decimal, &Decimal) -> Option<Decimal>,
) -> Result<Datum> {
    let (a, b) = (&args[0], &args[1]);
    match scope.ret().family() {
        Family::Double => double_result(scope, doubles(as_f64(a), as_f64(b))),
        Family::Decimal => decimal_value(scope, decimals(&as_decimal_value(a), &as_decimal_value(b))),
        _ => int_result(scope, ints(as_i128(a), as_i128(b))),
    }
}

fn add(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    binary(scope, args, |a, b| a + b, |a, b| a + b, Decimal::add)
}

fn sub(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    binary(scope, args, |a, b| a - b, |a, b| a - b, Decimal::sub)
}

fn mul(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    binary(scope, args, |a, b| a.saturating_mul(b), |a, b| a * b, Decimal::mul)
}

fn div(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    if scope.ret().family() == Family::Double {
        let divisor = as_f64(&args[1]);
        if divisor == 0.0 {
            scope.ctx.division_by_zero()?;
            return Ok(Datum::Null);
        }
        return double_result(scope, as_f64(&args[0]) / divisor);
    }
    let divisor = as_decimal_value(&args[1]);
    if divisor.is_zero() {
        scope.ctx.division_by_zero()?;
        return Ok(Datum::Null);
    }
    decimal_value(scope, as_decimal_value(&args[0]).div(&divisor, scope.ret().decimals))
}

fn int_div(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let (a, b) = (&args[0], &args[1]);
    let exact = |v: &Datum| matches!(v, Datum::Int(_) | Datum::UInt(_));
    if exact(a) && exact(b) {
        if as_i128(b) == 0 {
            scope.ctx.division_by_zero()?;
            return Ok(Datum::Null);
        }
        return int_result(scope, as_i128(a) / as_i128(b));
    }
    let (a, b) = (as_decimal_value(a), as_decimal_value(b));
    if b.is_zero() {
        scope.ctx.division_by_zero()?;
        return Ok(Datum::Null);
    }
    let quotient = a.div(&b, 30).or_else(|| a.div(&b, 0)).ok_or_else(|| out_of_range(scope))?;
    let whole = quotient.truncate(0).unscaled();
    int_result(scope, i128::try_from(whole).unwrap_or(i128::MAX))
}

fn rem(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let b = &args[1];
    let zero = match scope.ret().family() {
        Family::Double => as_f64(b) == 0.0,
        Family::Decimal => as_decimal_value(b).is_zero(),
        _ => as_i128(b) == 0,
    };
    if zero {
        scope.ctx.division_by_zero()?;
        return Ok(Datum::Null);
    }
    binary(scope, args, |a, b| a % b, |a, b| a % b, Decimal::rem)
}

fn neg(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    match &args[0] {
        Datum::Double(v) => Ok(Datum::Double(-v)),
        Datum::Decimal(v) => Ok(Datum::Decimal(v.neg())),
        other => int_result(scope, -as_i128(other)),
    }
}

/// One side of a vectorized operation.
enum Side<'a, T: ArrowPrimitiveType> {
    Array(&'a PrimitiveArray<T>),
    Scalar(T::Native),
}

impl<T: ArrowPrimitiveType> Side<'_, T> {
    fn nulls(&self) -> Option<&NullBuffer> {
        match self {
            Side::Array(array) => array.nulls(),
            Side::Scalar(_) => None,
        }
    }
}

fn sides<'a, T: ArrowPrimitiveType>(
    args: &'a [Value],
    scalar: impl Fn(&Datum) -> Option<T::Native>,
) -> Option<(Side<'a, T>, Side<'a, T>)> {
    let side = |value: &'a Value| match value {
        Value::Array(array) => array.as_any().downcast_ref::<PrimitiveArray<T>>().map(Side::Array),
        Value::Scalar(value) => scalar(value).map(Side::Scalar),
    };
    Some((side(&args[0])?, side(&args[1])?))
}

/// Applies `op` to every pair whose values are both there; `None` from `op` stops.
fn zip<T: ArrowPrimitiveType>(
    a: &Side<'_, T>,
    b: &Side<'_, T>,
    rows: usize,
    op: impl Fn(T::Native, T::Native) -> Option<T::Native>,
) -> Option<(Vec<T::Native>, Option<NullBuffer>)> {
    let nulls = NullBuffer::union(a.nulls(), b.nulls());
    let mut out = Vec::with_capacity(rows);
    let mut run = |pairs: &mut dyn Iterator<Item = (T::Native, T::Native)>| -> Option<()> {
        match &nulls {
            None => {
                for (x, y) in pairs {
                    out.push(op(x, y)?);
                }
            }
            Some(nulls) => {
                for ((x, y), valid) in pairs.zip(nulls.iter()) {
                    out.push(if valid { op(x, y)? } else { T::default_value() });
                }
            }
        }
        Some(())
    };
    match (a, b) {
        (Side::Array(x), Side::Array(y)) => {
            run(&mut x.values().iter().copied().zip(y.values().iter().copied()))?;
        }
        (Side::Array(x), Side::Scalar(y)) => run(&mut x.values().iter().map(|x| (*x, *y)))?,
        (Side::Scalar(x), Side::Array(y)) => run(&mut y.values().iter().map(|y| (*x, *y)))?,
        (Side::Scalar(_), Side::Scalar(_)) => return None,
    }
    Some((out, nulls))
}

/// Same-type arrays of BIGINT, DOUBLE and DECIMAL up to 38 digits; overflow leaves it to the row-wise way, which words the error.
fn vector(scope: &Scope<'_>, args: &[Value], rows: usize) -> Option<Result<Value>> {
    if args.iter().any(|a| matches!(a, Value::Scalar(Datum::Null))) {
        return Some(Ok(Value::Scalar(Datum::Null)));
    }
    let name = scope.call.func.name;
    let array: ArrayRef = match scope.ret().family() {
        Family::Double => {
            let (a, b) =
                sides::<Float64Type>(args, |v| if let Datum::Double(v) = v { Some(*v) } else { None })?;
            let finite = |v: f64| v.is_finite().then_some(v);
            let (values, nulls) = match name {
                "+" => zip(&a, &b, rows, |x: f64, y| finite(x + y)),
                "-" => zip(&a, &b, rows, |x: f64, y| finite(x - y)),
                "*" => zip(&a, &b, rows, |x: f64, y| finite(x * y)),
                "/" => zip(&a, &b, rows, |x: f64, y| finite(x / y)),
                _ => None,
            }?;
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        Family::Int if !scope.ret().unsigned => {
            let (a, b) = sides::<Int64Type>(args, |v| if let Datum::Int(v) = v { Some(*v) } else { None })?;
            let (values, nulls) = match name {
                "+" => zip(&a, &b, rows, i64::checked_add),
                "-" => zip(&a, &b, rows, i64::checked_sub),
                "*" => zip(&a, &b, rows, i64::checked_mul),
                _ => None,
            }?;
            Arc::new(Int64Array::new(values.into(), nulls))
        }
        Family::Decimal => return decimal_vector(scope, args, rows),
        _ => return None,
    };
    Some(Ok(Value::Array(array)))
}

fn decimal_vector(scope: &Scope<'_>, args: &[Value], rows: usize) -> Option<Result<Value>> {
    let ret = scope.ret();
    let scales = [scope.arg_type(0).decimals, scope.arg_type(1).decimals];
    let (wide0, wide1) = (narrowed(&args[0], scales[0])?, narrowed(&args[1], scales[1])?);
    let (a, b) = (wide0.side(), wide1.side());
    let limit = POW10.get(ret.flen as usize).map_or(u128::MAX, |limit| limit.unsigned_abs());
    let within = move |v: i128| (v.unsigned_abs() < limit).then_some(v);
    let target = ret.decimals;
    let factor = |scale: u8| POW10.get(usize::from(target.saturating_sub(scale))).copied();
    let (fa, fb) = (factor(scales[0])?, factor(scales[1])?);
    let (values, nulls) = match scope.call.func.name {
        "+" => zip(&a, &b, rows, |x, y| within(x.checked_mul(fa)?.checked_add(y.checked_mul(fb)?)?)),
        "-" => zip(&a, &b, rows, |x, y| within(x.checked_mul(fa)?.checked_sub(y.checked_mul(fb)?)?)),
        "*" if target == scales[0] + scales[1] => zip(&a, &b, rows, |x, y| within(x.checked_mul(y)?)),
        _ => None,
    }?;
    let array: Result<ArrayRef> = if ret.flen <= 38 {
        let array =
            Decimal128Array::new(values.into(), nulls).with_precision_and_scale(ret.flen as u8, target as i8);
        array.map(|a| Arc::new(a) as ArrayRef).map_err(Error::from)
    } else {
        let values: Vec<i256> = values.into_iter().map(i256::from_i128).collect();
        let array =
            Decimal256Array::new(values.into(), nulls).with_precision_and_scale(ret.flen as u8, target as i8);
        array.map(|a| Arc::new(a) as ArrayRef).map_err(Error::from)
    };
    Some(array.map(Value::Array))
}

/// A decimal argument in 128 bits: most numbers of wide types fit.
enum Narrow<'a> {
    Borrowed(&'a Decimal128Array),
    Owned(Decimal128Array),
    Scalar(i128),
}

impl Narrow<'_> {
    fn side(&self) -> Side<'_, Decimal128Type> {
        match self {
            Narrow::Borrowed(array) => Side::Array(array),
            Narrow::Owned(array) => Side::Array(array),
            Narrow::Scalar(value) => Side::Scalar(*value),
        }
    }
}

fn narrowed(value: &Value, scale: u8) -> Option<Narrow<'_>> {
    let array = match value {
        Value::Scalar(Datum::Decimal(v)) => return v.rescale(scale).unscaled_i128().map(Narrow::Scalar),
        Value::Scalar(_) => return None,
        Value::Array(array) => array,
    };
    if let Some(array) = array.as_any().downcast_ref::<Decimal128Array>() {
        return Some(Narrow::Borrowed(array));
    }
    let wide = array.as_any().downcast_ref::<Decimal256Array>()?;
    // What lies below a NULL need not fit.
    let values: Option<Vec<i128>> = (0..wide.len())
        .map(|row| if wide.is_null(row) { Some(0) } else { wide.value(row).to_i128() })
        .collect();
    Some(Narrow::Owned(Decimal128Array::new(values?.into(), wide.nulls().cloned())))
}
