//! Mathematical functions. Integers and decimals stay exact where MySQL keeps them exact; the rest is DOUBLE.

use std::sync::atomic::Ordering;

use super::registry::{self, Arg, Entry, ret};
use super::string::int;
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::eval::{Input, Value};
use crate::expr::{Expr, Function, Scope, Volatility};
use crate::types::field_type::Family;
use crate::types::{Collation, Datum, Decimal, FieldType, number};

macro_rules! real {
    ($name:literal, $function:expr) => {
        Entry::fixed(
            Function::strict($name, |scope, args| {
                let f: fn(f64) -> f64 = $function;
                finite(scope, $name, f(double(&args[0])))
            }),
            1,
            1,
            &[Arg::Real],
            ret::double,
        )
    };
}

pub(super) const ENTRIES: &[Entry] = &[
    Entry::fixed(Function::strict("abs", abs), 1, 1, &[Arg::Number], ret::first_number),
    Entry::fixed(Function::strict("sign", sign), 1, 1, &[Arg::Number], ret::int),
    Entry::fixed(Function::strict("ceil", ceil), 1, 1, &[Arg::Number], whole),
    Entry::fixed(Function::strict("floor", floor), 1, 1, &[Arg::Number], whole),
    Entry::custom(Function::strict("round", round), 1, 2, resolve_round),
    Entry::custom(Function::strict("truncate", truncate), 2, 2, resolve_round),
    Entry::fixed(Function::strict("pow", pow), 2, 2, &[Arg::Real], ret::double),
    Entry::fixed(Function::strict("sqrt", sqrt), 1, 1, &[Arg::Real], ret::double),
    Entry::fixed(Function::strict("ln", ln), 1, 1, &[Arg::Real], ret::double),
    Entry::fixed(Function::strict("log", log), 1, 2, &[Arg::Real], ret::double),
    Entry::fixed(Function::strict("log2", log2), 1, 1, &[Arg::Real], ret::double),
    Entry::fixed(Function::strict("log10", log10), 1, 1, &[Arg::Real], ret::double),
    Entry::fixed(Function::strict("asin", asin), 1, 1, &[Arg::Real], ret::double),
    Entry::fixed(Function::strict("acos", acos), 1, 1, &[Arg::Real], ret::double),
    Entry::fixed(Function::strict("atan", atan), 1, 2, &[Arg::Real], ret::double),
    Entry::fixed(Function::strict("atan2", atan), 1, 2, &[Arg::Real], ret::double),
    Entry::fixed(Function::strict("pi", |_, _| Ok(Datum::Double(std::f64::consts::PI))), 0, 0, &[], pi_type),
    real!("exp", f64::exp),
    real!("sin", f64::sin),
    real!("cos", f64::cos),
    real!("tan", f64::tan),
    real!("cot", |x| 1.0 / x.tan()),
    real!("degrees", f64::to_degrees),
    real!("radians", f64::to_radians),
    Entry::fixed(
        Function::strict("rand", rand_scalar).lazily(rand_lazy).volatility(Volatility::Volatile),
        0,
        1,
        &[Arg::Int],
        ret::double,
    ),
];

fn double(value: &Datum) -> f64 {
    match value {
        Datum::Double(v) => *v,
        Datum::Int(v) => *v as f64,
        Datum::UInt(v) => *v as f64,
        Datum::Decimal(v) => v.to_f64(),
        _ => 0.0,
    }
}

fn expression(scope: &Scope<'_>) -> String {
    Expr::Call(Box::new(scope.call.clone())).to_string()
}

fn finite(scope: &Scope<'_>, _name: &'static str, value: f64) -> Result<Datum> {
    if value.is_finite() {
        return Ok(Datum::Double(value));
    }
    Err(Error::DataOutOfRange { kind: "DOUBLE", expr: expression(scope) })
}

fn pi_type(_: &super::registry::Typing<'_>) -> FieldType {
    FieldType::double().with_decimals(6)
}

/// CEIL and FLOOR of a decimal are BIGINT where that holds them.
fn whole(t: &super::registry::Typing<'_>) -> FieldType {
    let ft = t.args[0].field_type();
    match ft.family() {
        Family::Int => FieldType::bigint().with_unsigned(ft.unsigned),
        Family::Decimal => {
            let digits = ft.flen.saturating_sub(u32::from(ft.decimals));
            if digits < 18 { FieldType::bigint() } else { FieldType::decimal((digits + 1).min(65), 0) }
        }
        _ => FieldType::double(),
    }
}

fn abs(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(match &args[0] {
        Datum::Int(v) => match v.checked_abs() {
            Some(v) => Datum::Int(v),
            None => return Err(Error::DataOutOfRange { kind: "BIGINT", expr: expression(scope) }),
        },
        Datum::Decimal(v) => Datum::Decimal(v.abs()),
        Datum::Double(v) => Datum::Double(v.abs()),
        other => other.clone(),
    })
}

fn sign(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(match &args[0] {
        Datum::Int(v) => v.signum(),
        Datum::UInt(v) => i64::from(*v > 0),
        Datum::Decimal(v) if v.is_zero() => 0,
        Datum::Decimal(v) => 1 - 2 * i64::from(v.is_negative()),
        other => {
            let v = double(other);
            i64::from(v > 0.0) - i64::from(v < 0.0)
        }
    }))
}

fn whole_decimal(scope: &Scope<'_>, value: Decimal) -> Datum {
    if scope.ret().family() == Family::Int { Datum::Int(value.to_i64().0) } else { Datum::Decimal(value) }
}

fn ceil(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(match &args[0] {
        Datum::Decimal(v) => whole_decimal(scope, v.ceil()),
        Datum::Double(v) => Datum::Double(v.ceil()),
        other => other.clone(),
    })
}

fn floor(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(match &args[0] {
        Datum::Decimal(v) => whole_decimal(scope, v.floor()),
        Datum::Double(v) => Datum::Double(v.floor()),
        other => other.clone(),
    })
}

/// ROUND and TRUNCATE keep the type's family; a constant number of digits narrows a decimal's scale.
fn resolve_round(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let mut args = args.into_iter();
    let value = registry::to_number(args.next().unwrap_or_else(Expr::null));
    let digits = args.next().map(registry::to_int);
    let from = value.field_type();
    let field_type = match from.family() {
        Family::Int => FieldType::bigint().with_unsigned(from.unsigned),
        Family::Decimal => {
            let scale = match &digits {
                None => 0,
                Some(d) if d.is_constant() => {
                    int(&d.eval_scalar(ctx)?).clamp(0, i64::from(from.decimals)) as u8
                }
                Some(_) => from.decimals,
            };
            let whole = from.flen.saturating_sub(u32::from(from.decimals)) + 1;
            FieldType::decimal((whole + u32::from(scale)).min(65), scale)
        }
        _ => FieldType::double(),
    };
    let args = std::iter::once(value).chain(digits).collect();
    Ok(entry.call(args, field_type, Collation::Binary))
}

fn round_int(scope: &Scope<'_>, value: i128, digits: i64, cut: bool) -> Result<Datum> {
    if digits >= 0 {
        return int_result(scope, value);
    }
    let Some(unit) = u32::try_from(-digits).ok().filter(|d| *d < 20).map(|d| 10i128.pow(d)) else {
        return int_result(scope, 0);
    };
    let down = value / unit * unit;
    let rest = (value - down).abs();
    let up = !cut && rest * 2 >= unit;
    int_result(scope, if up { down + unit * value.signum() } else { down })
}

fn int_result(scope: &Scope<'_>, value: i128) -> Result<Datum> {
    let out_of_range = |kind| Error::DataOutOfRange { kind, expr: expression(scope) };
    if scope.ret().unsigned {
        u64::try_from(value).map(Datum::UInt).map_err(|_| out_of_range("BIGINT UNSIGNED"))
    } else {
        i64::try_from(value).map(Datum::Int).map_err(|_| out_of_range("BIGINT"))
    }
}

fn round_double(value: f64, digits: i64, cut: bool) -> f64 {
    let whole = if cut { f64::trunc } else { number::round_half_even };
    let digits = digits.clamp(-400, 400) as i32;
    if digits == 0 {
        return whole(value);
    }
    let unit = 10f64.powi(digits.abs());
    let result = if digits > 0 {
        let scaled = value * unit;
        if scaled.is_finite() { whole(scaled) / unit } else { value }
    } else if unit.is_finite() {
        whole(value / unit) * unit
    } else {
        0.0
    };
    if result.is_finite() { result } else { value }
}

fn round_with(scope: &Scope<'_>, args: &[Datum], cut: bool) -> Result<Datum> {
    let digits = match args.get(1) {
        Some(Datum::UInt(v)) => i64::try_from(*v).unwrap_or(i64::MAX),
        Some(d) => int(d),
        None => 0,
    };
    match &args[0] {
        Datum::Int(v) => round_int(scope, i128::from(*v), digits, cut),
        Datum::UInt(v) => round_int(scope, i128::from(*v), digits, cut),
        Datum::Decimal(v) => {
            let digits = digits.min(i64::from(v.scale()));
            let value = if cut { v.truncate(digits) } else { v.round(digits) };
            Ok(Datum::Decimal(value.rescale(scope.ret().decimals)))
        }
        other => Ok(Datum::Double(round_double(double(other), digits, cut))),
    }
}

fn round(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    round_with(scope, args, false)
}

fn truncate(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    round_with(scope, args, true)
}

fn pow(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    finite(scope, "pow", double(&args[0]).powf(double(&args[1])))
}

fn or_null(value: f64) -> Result<Datum> {
    Ok(if value.is_finite() { Datum::Double(value) } else { Datum::Null })
}

fn sqrt(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    or_null(double(&args[0]).sqrt())
}

fn asin(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    or_null(double(&args[0]).asin())
}

fn acos(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    or_null(double(&args[0]).acos())
}

fn atan(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let y = double(&args[0]);
    or_null(args.get(1).map_or(y.atan(), |x| y.atan2(double(x))))
}

/// Logarithms of what has none are NULL with warning 3020.
fn logarithm(scope: &Scope<'_>, value: f64, f: fn(f64) -> f64) -> Result<Datum> {
    if value <= 0.0 {
        scope.ctx.bad_value(Error::InvalidLogarithm)?;
        return Ok(Datum::Null);
    }
    or_null(f(value))
}

fn ln(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    logarithm(scope, double(&args[0]), f64::ln)
}

fn log2(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    logarithm(scope, double(&args[0]), f64::log2)
}

fn log10(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    logarithm(scope, double(&args[0]), f64::log10)
}

fn log(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let Some(value) = args.get(1) else { return ln(scope, args) };
    let base = double(&args[0]);
    if base <= 0.0 || base == 1.0 {
        scope.ctx.bad_value(Error::InvalidLogarithm)?;
        return Ok(Datum::Null);
    }
    match logarithm(scope, double(value), f64::ln)? {
        Datum::Double(v) => or_null(v / base.ln()),
        other => Ok(other),
    }
}

const RAND_MODULUS: u64 = 0x3FFF_FFFF;

/// MySQL's generator for RAND(seed): two linear congruences.
struct SeededRand {
    a: u64,
    b: u64,
}

impl SeededRand {
    fn new(seed: u64) -> SeededRand {
        let seed = seed & 0xFFFF_FFFF;
        let part = |factor: u64, add: u64| {
            ((seed.wrapping_mul(factor).wrapping_add(add)) & 0xFFFF_FFFF) % RAND_MODULUS
        };
        SeededRand { a: part(0x10001, 55_555_555), b: part(0x1000_0001, 0) }
    }

    fn next(&mut self) -> f64 {
        self.a = (self.a * 3 + self.b) % RAND_MODULUS;
        self.b = (self.a + self.b + 33) % RAND_MODULUS;
        self.a as f64 / RAND_MODULUS as f64
    }
}

fn rand_scalar(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Double(match args.first() {
        None => rand::random(),
        Some(seed) => SeededRand::new(int(seed) as u64).next(),
    }))
}

/// One number per row; a constant seed gives one sequence through the whole statement.
fn rand_lazy(scope: &Scope<'_>, input: &Input<'_>) -> Result<Value> {
    let rows = input.rows();
    let values: Vec<f64> = match scope.call.args.first() {
        None => (0..rows).map(|_| rand::random()).collect(),
        Some(seed) => match seed.eval_value(scope.ctx, input)? {
            Value::Scalar(seed) => {
                let mut generator = SeededRand::new(int(&seed) as u64);
                let done = scope.ctx.sequence.fetch_add(rows as u64, Ordering::Relaxed);
                for _ in 0..done {
                    generator.next();
                }
                (0..rows).map(|_| generator.next()).collect()
            }
            Value::Array(seeds) => {
                let reader = crate::array::Reader::new(&seeds, seed.field_type());
                (0..rows).map(|row| SeededRand::new(int(&reader.get(row)) as u64).next()).collect()
            }
        },
    };
    if let (Input::Row(_), [value]) = (input, values.as_slice()) {
        return Ok(Value::Scalar(Datum::Double(*value)));
    }
    Ok(Value::Array(std::sync::Arc::new(arrow::array::Float64Array::from(values))))
}
