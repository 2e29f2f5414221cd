//! What the session and the statement know: user, database, versions, ids; user variables; SLEEP and BENCHMARK.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::registry::{Arg, Entry, ret};
use super::string::{int, text};
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::eval::{Input, Value};
use crate::expr::{Expr, Function, Scope, Volatility};
use crate::types::field_type::LENGTH_UNSPECIFIED;
use crate::types::{Collation, Datum, FieldType};

const fn stable(name: &'static str, scalar: crate::expr::ScalarFn) -> Function {
    Function::with_nulls(name, scalar).volatility(Volatility::Stable)
}

pub(super) const ENTRIES: &[Entry] = &[
    Entry::fixed(stable("database", database), 0, 0, &[], ret::text),
    Entry::fixed(stable("user", user), 0, 0, &[], ret::text),
    Entry::fixed(stable("current_user", current_user), 0, 0, &[], ret::text),
    Entry::fixed(stable("current_role", current_role), 0, 0, &[], ret::text),
    Entry::fixed(stable("version", version), 0, 0, &[], ret::text),
    Entry::fixed(stable("connection_id", connection_id), 0, 0, &[], ret::uint),
    Entry::fixed(stable("found_rows", found_rows), 0, 0, &[], ret::int),
    Entry::fixed(stable("row_count", row_count), 0, 0, &[], ret::int),
    Entry::fixed(
        Function::with_nulls("last_insert_id", last_insert_id).volatility(Volatility::Volatile),
        0,
        1,
        &[Arg::Int],
        ret::uint,
    ),
    Entry::custom(stable("getvar", getvar), 1, 1, resolve_getvar),
    Entry::custom(
        Function::with_nulls("getvar_now", getvar).volatility(Volatility::Volatile),
        1,
        2,
        resolve_getvar_now,
    ),
    Entry::custom(
        Function::with_nulls("setvar", setvar).volatility(Volatility::Volatile),
        2,
        2,
        resolve_setvar,
    ),
    Entry::fixed(
        Function::with_nulls("sleep", sleep).volatility(Volatility::Volatile),
        1,
        1,
        &[Arg::Real],
        ret::int,
    ),
    Entry::fixed(
        Function::with_nulls("benchmark", |_, _| Ok(Datum::Int(0)))
            .lazily(benchmark)
            .volatility(Volatility::Volatile),
        2,
        2,
        &[Arg::Int, Arg::Any],
        ret::int,
    ),
];

fn database(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(scope.ctx.connection.database.clone().map_or(Datum::Null, Datum::String))
}

fn user(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(Datum::String(scope.ctx.connection.user.clone()))
}

fn current_user(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(Datum::String(scope.ctx.connection.current_user.clone()))
}

fn current_role(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    let role = scope.ctx.connection.current_role.clone();
    Ok(Datum::String(role.unwrap_or_else(|| "NONE".to_string())))
}

fn version(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(Datum::String(scope.ctx.connection.version.clone()))
}

fn connection_id(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(Datum::UInt(scope.ctx.connection.connection_id))
}

fn found_rows(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(scope.ctx.found_rows as i64))
}

fn row_count(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(scope.ctx.row_count))
}

fn last_insert_id(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let id = &scope.ctx.last_insert_id;
    let Some(value) = args.first() else { return Ok(Datum::UInt(id.load(Ordering::Relaxed))) };
    let value = match value {
        Datum::Null => {
            id.store(0, Ordering::Relaxed);
            return Ok(Datum::Null);
        }
        Datum::UInt(v) => *v,
        other => int(other) as u64,
    };
    id.store(value, Ordering::Relaxed);
    Ok(Datum::UInt(value))
}

fn variable_name(ctx: &EvalContext, arg: &Expr) -> Result<String> {
    Ok(text(&arg.eval_scalar(ctx)?).to_string())
}

/// A variable has the type of what was last assigned; one that was never set is NULL.
fn resolve_getvar(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let name = variable_name(ctx, &args[0])?;
    let field_type = match ctx.user_vars.get(&name) {
        Some((_, field_type)) => field_type.with_not_null(false),
        None => FieldType::varchar(0, Collation::Binary),
    };
    let collation = field_type.collation;
    Ok(entry.call(args, field_type, collation))
}

/// Where the statement assigns variables: the value as of the row. The second argument's type is the variable's, if given.
fn resolve_getvar_now(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let name = variable_name(ctx, &args[0])?;
    let field_type = match (args.get(1), ctx.user_vars.get(&name)) {
        (Some(sample), _) => sample.field_type().clone(),
        (None, Some((_, field_type))) => field_type.with_not_null(false),
        (None, None) => FieldType::varchar(LENGTH_UNSPECIFIED, Collation::DEFAULT),
    };
    let collation = field_type.collation;
    Ok(entry.call(args, field_type, collation))
}

/// The value as of now, in the type that was planned with.
fn getvar(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    match scope.ctx.user_vars.get(text(&args[0])) {
        None => Ok(Datum::Null),
        Some((value, field_type)) if field_type == *scope.ret() || value.is_null() => Ok(value),
        Some((value, field_type)) => crate::types::convert::cast(scope.ctx, &value, &field_type, scope.ret()),
    }
}

fn resolve_setvar(_: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let field_type = args[1].field_type().clone().with_not_null(false);
    let collation = field_type.collation;
    Ok(entry.call(args, field_type, collation))
}

fn setvar(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    scope.ctx.user_vars.set(text(&args[0]), args[1].clone(), scope.ret().clone());
    Ok(args[1].clone())
}

const SLEEP_STEP: Duration = Duration::from_millis(10);

/// Sleeps in short steps, so that KILL ends it: then the result is 1.
fn sleep(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let seconds = match &args[0] {
        Datum::Double(v) if *v >= 0.0 => *v,
        _ => return Err(Error::WrongArguments { function: "sleep".to_string() }),
    };
    let mut left = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    while !left.is_zero() {
        if scope.ctx.killed.load(Ordering::Relaxed) {
            return Ok(Datum::Int(1));
        }
        let step = left.min(SLEEP_STEP);
        std::thread::sleep(step);
        left -= step;
    }
    Ok(Datum::Int(0))
}

fn benchmark(scope: &Scope<'_>, input: &Input<'_>) -> Result<Value> {
    let times = match scope.call.args[0].eval_value(scope.ctx, input)? {
        Value::Scalar(times) => int(&times),
        Value::Array(_) => return Err(Error::WrongArguments { function: "benchmark".to_string() }),
    };
    for _ in 0..times {
        scope.ctx.check_killed()?;
        scope.call.args[1].eval_value(scope.ctx, input)?;
    }
    Ok(Value::Scalar(Datum::Int(0)))
}
