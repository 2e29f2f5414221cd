//! Conditions and computed columns over a batch.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use rutile_expr::array::ColumnBuilder;
use rutile_expr::{EvalContext, Expr, Input};

use crate::error::Result;

/// The rows for which all conditions are true. Each condition sees only what those before it let pass.
pub fn filter(mut batch: RecordBatch, predicates: &[Expr], eval: &EvalContext) -> Result<RecordBatch> {
    for predicate in predicates {
        if batch.num_rows() == 0 {
            break;
        }
        let passes: BooleanArray = predicate.eval_predicate(eval, &batch)?;
        if passes.true_count() < batch.num_rows() {
            batch = filter_record_batch(&batch, &passes)?;
        }
    }
    Ok(batch)
}

/// A batch of computed columns.
pub fn project(
    input: &RecordBatch,
    exprs: &[Expr],
    schema: &SchemaRef,
    eval: &EvalContext,
) -> Result<RecordBatch> {
    let mut arrays = Vec::with_capacity(exprs.len());
    for expr in exprs {
        arrays.push(expr.eval(eval, input)?);
    }
    batch(schema, arrays, input.num_rows())
}

/// Whether an expression assigns a user variable.
pub fn assigns(expr: &Expr) -> bool {
    let mut found = false;
    expr.visit(&mut |part| {
        found |= matches!(part, Expr::Call(call) if call.func.name == "setvar");
        !found
    });
    found
}

/// As [`project`], one row after the other: what a row assigns to a variable is read by the next.
pub fn project_by_row(
    input: &RecordBatch,
    exprs: &[Expr],
    schema: &SchemaRef,
    eval: &EvalContext,
) -> Result<RecordBatch> {
    let rows = input.num_rows();
    let mut columns: Vec<_> = exprs.iter().map(|expr| ColumnBuilder::new(expr.field_type(), rows)).collect();
    for at in 0..rows {
        let row = input.slice(at, 1);
        for (expr, column) in exprs.iter().zip(&mut columns) {
            let value = expr.eval_value(eval, &Input::Batch(&row))?;
            column.push(&value.get(expr.field_type(), 0))?;
        }
    }
    batch(schema, columns.into_iter().map(|mut column| column.finish()).collect(), rows)
}

/// A batch that may have no columns and yet has rows.
pub fn batch(schema: &SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(SchemaRef::clone(schema), arrays, &options)?)
}
