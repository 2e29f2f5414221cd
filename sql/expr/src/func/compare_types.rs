//! In which type a comparison takes place: MySQL's rules, and the conversions that follow from them.

use super::coercion;
use super::registry::{self, Entry};
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::types::field_type::Family;
use crate::types::time_parse::{DateRules, parse_datetime, parse_duration};
use crate::types::{Collation, Datum, FieldType, MysqlType};

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
        // One scale is enough: a difference in precision does not matter.
        CompareAs::Decimal if is_decimal_of_scale(&expr, decimal) => expr,
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

fn is_decimal_of_scale(expr: &Expr, decimal: &FieldType) -> bool {
    let from = expr.field_type();
    from.family() == Family::Decimal
        && from.decimals == decimal.decimals
        && (from.flen <= 38) == (decimal.flen <= 38)
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

pub(super) fn resolve_comparison(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
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

pub(super) fn resolve_between(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    // x BETWEEN a AND b is x >= a AND x <= b, each side in a type of its own when they differ.
    let [x, low, high] =
        <[Expr; 3]>::try_from(args).map_err(|_| Error::WrongParamCount { function: "between".into() })?;
    let _ = entry;
    let from = registry::resolve(ctx, ">=", vec![x.clone(), low])?;
    let to = registry::resolve(ctx, "<=", vec![x, high])?;
    registry::resolve(ctx, "and", vec![from, to])
}

pub(super) fn resolve_in(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
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

pub(super) fn resolve_extreme(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let refs: Vec<&Expr> = args.iter().collect();
    let field_type = coercion::common_type(ctx, &refs, entry.function.name)?.with_not_null(false);
    let collation = field_type.collation;
    let args = args.into_iter().map(|a| registry::cast(a, field_type.clone())).collect();
    Ok(entry.call(args, field_type, collation))
}
