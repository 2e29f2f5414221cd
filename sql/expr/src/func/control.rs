//! CASE, IF, IFNULL, COALESCE and NULLIF: a branch is evaluated only for the rows that take it.

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute;
use arrow::record_batch::RecordBatch;

use super::coercion::common_type;
use super::registry::{self, Entry, MANY};
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::eval::{Input, Value, truth_of};
use crate::expr::{Expr, Function, Scope};
use crate::types::{Datum, FieldType, convert};

/// This family's functions.
pub static ENTRIES: &[Entry] = &[
    Entry::custom(Function::with_nulls("case", unreachable_scalar).lazily(case), 2, MANY, resolve_case),
    Entry::custom(Function::with_nulls("if", unreachable_scalar).lazily(case), 3, 3, resolve_case),
    Entry::custom(
        Function::with_nulls("coalesce", unreachable_scalar).lazily(coalesce),
        1,
        MANY,
        resolve_coalesce,
    ),
    Entry::custom(
        Function::with_nulls("ifnull", unreachable_scalar).lazily(coalesce),
        2,
        2,
        resolve_coalesce,
    ),
    Entry::custom(Function::with_nulls("nullif", unreachable_scalar).lazily(case), 2, 2, resolve_nullif),
];

fn unreachable_scalar(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Err(Error::Internal(format!("{} is evaluated lazily", scope.call.func.name)))
}

/// Converts branch values to the type that they have in common.
fn unify(
    ctx: &EvalContext,
    args: &mut [Expr],
    is_value: impl Fn(usize) -> bool,
    name: &str,
) -> Result<FieldType> {
    let values: Vec<&Expr> = args.iter().enumerate().filter(|(i, _)| is_value(*i)).map(|(_, e)| e).collect();
    let field_type = common_type(ctx, &values, name)?;
    for (index, arg) in args.iter_mut().enumerate() {
        if is_value(index) && arg.field_type().family() != crate::types::field_type::Family::Null {
            let owned = std::mem::replace(arg, Expr::null());
            let exact =
                owned.field_type().arrow() == field_type.arrow() && owned.field_type().tp == field_type.tp;
            *arg = if exact { owned } else { registry::cast(owned, branch_type(&field_type)) };
        }
    }
    Ok(field_type)
}

/// A branch keeps its own length: only the kind of value is unified.
fn branch_type(common: &FieldType) -> FieldType {
    if common.is_string() {
        return FieldType::varchar(crate::types::field_type::LENGTH_UNSPECIFIED, common.collation);
    }
    common.clone()
}

fn resolve_case(ctx: &EvalContext, entry: &'static Entry, mut args: Vec<Expr>) -> Result<Expr> {
    let count = args.len();
    let is_value = move |i: usize| i % 2 == 1 || (i == count - 1 && count % 2 == 1);
    let field_type = unify(ctx, &mut args, is_value, entry.function.name)?;
    let not_null = field_type.not_null && count % 2 == 1;
    let collation = field_type.collation;
    Ok(entry.call(args, field_type.with_not_null(not_null), collation))
}

fn resolve_coalesce(ctx: &EvalContext, entry: &'static Entry, mut args: Vec<Expr>) -> Result<Expr> {
    let any_not_null = args.iter().any(|a| a.field_type().not_null);
    let field_type = unify(ctx, &mut args, |_| true, entry.function.name)?.with_not_null(any_not_null);
    let collation = field_type.collation;
    Ok(entry.call(args, field_type, collation))
}

/// NULLIF(a, b) is CASE WHEN a = b THEN NULL ELSE a END.
fn resolve_nullif(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let [a, b] =
        <[Expr; 2]>::try_from(args).map_err(|_| Error::WrongParamCount { function: "nullif".into() })?;
    let field_type = a.field_type().clone().with_not_null(false);
    let collation = field_type.collation;
    let condition = registry::resolve(ctx, "=", vec![a.clone(), b])?;
    Ok(entry.call(vec![condition, Expr::null(), a], field_type, collation))
}

/// Can evaluation neither fail nor warn, so that it may run for rows that do not need it?
pub(super) fn is_total(expr: &Expr) -> bool {
    let Expr::Call(call) = expr else { return true };
    let harmless = matches!(
        call.func.name,
        "=" | "<=>"
            | "<>"
            | "<"
            | "<="
            | ">"
            | ">="
            | "is_null"
            | "between"
            | "in"
            | "like"
            | "not"
            | "and"
            | "or"
    );
    let numbers = |e: &Expr| e.field_type().is_numeric() || e.field_type().is_temporal();
    let tests_truth = matches!(call.func.name, "not" | "and" | "or");
    harmless && call.args.iter().all(|arg| is_total(arg) && (!tests_truth || numbers(arg)))
}

/// The rows of a batch that are selected.
pub(super) fn filter_input(input: &Input<'_>, selected: &BooleanArray) -> Result<RecordBatch> {
    match input {
        Input::Batch(batch) => Ok(compute::filter_record_batch(batch, selected)?),
        Input::Row(_) => Err(Error::Internal("a single row is not filtered".into())),
    }
}

/// Spreads results for the selected rows over all rows; the rest takes `filler`.
pub(super) fn scatter(part: &BooleanArray, selected: &BooleanArray, filler: bool) -> BooleanArray {
    let mut values = part.iter();
    selected.iter().map(|s| if s == Some(true) { values.next().flatten() } else { Some(filler) }).collect()
}

fn case(scope: &Scope<'_>, input: &Input<'_>) -> Result<Value> {
    match input {
        Input::Row(_) => case_row(scope, input),
        Input::Batch(batch) => case_batch(scope, batch),
    }
}

fn case_row(scope: &Scope<'_>, input: &Input<'_>) -> Result<Value> {
    let args = &scope.call.args;
    for pair in args.chunks(2) {
        let [condition, then] = pair else { return pair[0].eval_value(scope.ctx, input) };
        let value = condition.eval_value(scope.ctx, input)?.get(condition.field_type(), 0);
        if convert::truth(scope.ctx, &value, condition.field_type())? == Some(true) {
            return then.eval_value(scope.ctx, input);
        }
    }
    Ok(Value::Scalar(Datum::Null))
}

/// One branch: which rows take it (by row of the whole batch) and its value for those rows.
struct Branch {
    rows: Vec<usize>,
    values: ArrayRef,
}

fn case_batch(scope: &Scope<'_>, batch: &RecordBatch) -> Result<Value> {
    let args = &scope.call.args;
    let mut open: Vec<usize> = (0..batch.num_rows()).collect();
    let mut rest = batch.clone();
    let mut branches: Vec<Branch> = Vec::new();
    for pair in args.chunks(2) {
        if open.is_empty() {
            break;
        }
        let [condition, then] = pair else {
            let values = branch_values(scope, &pair[0], &rest)?;
            branches.push(Branch { rows: std::mem::take(&mut open), values });
            break;
        };
        let value = condition.eval_value(scope.ctx, &Input::Batch(&rest))?;
        let truths = truth_of(scope.ctx, &value, condition.field_type(), open.len())?;
        let taken: BooleanArray = truths.iter().map(|t| Some(t == Some(true))).collect();
        if taken.true_count() == 0 {
            continue;
        }
        let part = compute::filter_record_batch(&rest, &taken)?;
        let values = branch_values(scope, then, &part)?;
        let rows = open.iter().zip(taken.values()).filter(|(_, t)| *t).map(|(row, _)| *row).collect();
        branches.push(Branch { rows, values });
        rest = compute::filter_record_batch(&rest, &compute::not(&taken)?)?;
        open = open.iter().zip(taken.values()).filter(|(_, t)| !*t).map(|(row, _)| *row).collect();
    }
    gather(scope.ret(), branches, batch.num_rows())
}

fn branch_values(scope: &Scope<'_>, expr: &Expr, batch: &RecordBatch) -> Result<ArrayRef> {
    let value = expr.eval_value(scope.ctx, &Input::Batch(batch))?;
    let rows = batch.num_rows();
    // A branch that is always NULL has no type of its own.
    if matches!(value, Value::Scalar(Datum::Null)) || expr.field_type().tp == crate::types::MysqlType::Null {
        return Value::Scalar(Datum::Null).into_array(scope.ret(), rows);
    }
    value.into_array(scope.ret(), rows)
}

/// Puts the branches' rows back in order; rows of no branch are NULL.
fn gather(field_type: &FieldType, branches: Vec<Branch>, rows: usize) -> Result<Value> {
    if let [only] = branches.as_slice()
        && only.rows.len() == rows
    {
        return Ok(Value::Array(only.values.clone()));
    }
    let null = Value::Scalar(Datum::Null).into_array(field_type, 1)?;
    let mut indices = vec![(branches.len(), 0); rows];
    for (number, branch) in branches.iter().enumerate() {
        for (at, row) in branch.rows.iter().enumerate() {
            indices[*row] = (number, at);
        }
    }
    let mut arrays: Vec<&dyn Array> = branches.iter().map(|b| b.values.as_ref()).collect();
    arrays.push(null.as_ref());
    Ok(Value::Array(compute::interleave(&arrays, &indices)?))
}

fn coalesce(scope: &Scope<'_>, input: &Input<'_>) -> Result<Value> {
    let args = &scope.call.args;
    let batch = match input {
        Input::Batch(batch) => batch,
        Input::Row(_) => {
            for arg in args {
                let value = arg.eval_value(scope.ctx, input)?.get(arg.field_type(), 0);
                if !value.is_null() {
                    return Ok(Value::Scalar(value));
                }
            }
            return Ok(Value::Scalar(Datum::Null));
        }
    };
    let mut open: Vec<usize> = (0..batch.num_rows()).collect();
    let mut rest = (*batch).clone();
    let mut branches: Vec<Branch> = Vec::new();
    for arg in args {
        if open.is_empty() {
            break;
        }
        let values = branch_values(scope, arg, &rest)?;
        let filled = compute::is_not_null(&values)?;
        if filled.true_count() == open.len() {
            branches.push(Branch { rows: std::mem::take(&mut open), values });
            break;
        }
        let rows = open.iter().zip(filled.values()).filter(|(_, f)| *f).map(|(row, _)| *row).collect();
        branches.push(Branch { rows, values: compute::filter(&values, &filled)? });
        rest = compute::filter_record_batch(&rest, &compute::not(&filled)?)?;
        open = open.iter().zip(filled.values()).filter(|(_, f)| !*f).map(|(row, _)| *row).collect();
    }
    gather(scope.ret(), branches, batch.num_rows())
}
