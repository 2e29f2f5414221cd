//! AND, OR, XOR, NOT and the IS tests: three-valued logic.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, Int64Array};
use arrow::compute;

use super::control::{filter_input, is_total, scatter};
use super::registry::{Arg, Entry, ret};
use crate::error::Result;
use crate::eval::{Input, Value, ints_of, truth_of};
use crate::expr::{Function, Scope};
use crate::types::{Datum, convert};

/// This family's functions.
pub static ENTRIES: &[Entry] = &[
    Entry::fixed(
        Function::with_nulls("and", and).lazily(lazy_and),
        2,
        super::registry::MANY,
        &[Arg::Any],
        ret::boolean,
    ),
    Entry::fixed(
        Function::with_nulls("or", or).lazily(lazy_or),
        2,
        super::registry::MANY,
        &[Arg::Any],
        ret::boolean,
    ),
    Entry::fixed(Function::strict("xor", xor), 2, 2, &[Arg::Any], ret::boolean),
    Entry::fixed(Function::strict("not", not).vectorized(not_vector), 1, 1, &[Arg::Any], ret::boolean),
    Entry::fixed(
        Function::with_nulls("is_null", is_null).vectorized(is_null_vector),
        1,
        1,
        &[Arg::Any],
        always,
    ),
    Entry::fixed(Function::with_nulls("is_true", is_true), 1, 1, &[Arg::Any], always),
    Entry::fixed(Function::with_nulls("is_false", is_false), 1, 1, &[Arg::Any], always),
];

fn always(t: &super::registry::Typing<'_>) -> crate::types::FieldType {
    ret::boolean(t).with_not_null(true)
}

fn truth(scope: &Scope<'_>, args: &[Datum], index: usize) -> Result<Option<bool>> {
    convert::truth(scope.ctx, &args[index], scope.arg_type(index))
}

fn datum(truth: Option<bool>) -> Datum {
    truth.map_or(Datum::Null, Datum::bool)
}

/// AND of all when `stop` is false, OR of all when it is true.
fn combine(scope: &Scope<'_>, args: &[Datum], stop: bool) -> Result<Datum> {
    let mut result = Some(!stop);
    for index in 0..args.len() {
        match truth(scope, args, index)? {
            Some(t) if t == stop => return Ok(Datum::bool(stop)),
            Some(_) => {}
            None => result = None,
        }
    }
    Ok(datum(result))
}

fn and(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    combine(scope, args, false)
}

fn or(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    combine(scope, args, true)
}

fn lazy_and(scope: &Scope<'_>, input: &Input<'_>) -> Result<Value> {
    lazy(scope, input, false)
}

fn lazy_or(scope: &Scope<'_>, input: &Input<'_>) -> Result<Value> {
    lazy(scope, input, true)
}

/// Evaluates the arguments from left to right; those that may fail or warn only for rows that are still open.
fn lazy(scope: &Scope<'_>, input: &Input<'_>, stop: bool) -> Result<Value> {
    let rows = input.rows();
    let mut result: Option<BooleanArray> = None;
    for arg in &scope.call.args {
        let open = match &result {
            None => None,
            Some(so_far) => {
                let closed = so_far.iter().filter(|t| *t == Some(stop)).count();
                if closed == rows && rows > 0 {
                    break;
                }
                (closed > 0 && !is_total(arg))
                    .then(|| so_far.iter().map(|t| Some(t != Some(stop))).collect::<BooleanArray>())
            }
        };
        let truths = match &open {
            None => truth_of(scope.ctx, &arg.eval_value(scope.ctx, input)?, arg.field_type(), rows)?,
            Some(open) => {
                let part = filter_input(input, open)?;
                let count = open.true_count();
                let value = arg.eval_value(scope.ctx, &Input::Batch(&part))?;
                let truths = truth_of(scope.ctx, &value, arg.field_type(), count)?;
                // Rows that are closed take what leaves them as they are.
                scatter(&truths, open, !stop)
            }
        };
        result = Some(match result {
            None => truths,
            Some(so_far) if stop => compute::or_kleene(&so_far, &truths)?,
            Some(so_far) => compute::and_kleene(&so_far, &truths)?,
        });
    }
    let result = result.unwrap_or_else(|| BooleanArray::from(vec![!stop; rows]));
    if let Input::Row(_) = input {
        let value = if result.is_null(0) { Datum::Null } else { Datum::bool(result.value(0)) };
        return Ok(Value::Scalar(value));
    }
    Ok(Value::Array(ints_of(&result)))
}

fn xor(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let (a, b) = (truth(scope, args, 0)?, truth(scope, args, 1)?);
    Ok(datum(a.zip(b).map(|(a, b)| a != b)))
}

fn not(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(datum(truth(scope, args, 0)?.map(|t| !t)))
}

fn not_vector(scope: &Scope<'_>, args: &[Value], rows: usize) -> Option<Result<Value>> {
    let truths = truth_of(scope.ctx, &args[0], scope.arg_type(0), rows);
    Some(truths.and_then(|t| Ok(Value::Array(ints_of(&compute::not(&t)?)))))
}

fn is_null(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::bool(args[0].is_null()))
}

fn is_null_vector(_: &Scope<'_>, args: &[Value], rows: usize) -> Option<Result<Value>> {
    let Value::Array(array) = &args[0] else { return None };
    let nulls = array.logical_nulls();
    let values: Vec<i64> = match nulls {
        None => vec![0; rows],
        Some(nulls) => nulls.iter().map(|valid| i64::from(!valid)).collect(),
    };
    Some(Ok(Value::Array(Arc::new(Int64Array::from(values)))))
}

fn is_true(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::bool(truth(scope, args, 0)? == Some(true)))
}

fn is_false(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::bool(truth(scope, args, 0)? == Some(false)))
}
