//! Conditions and computed columns over a batch.

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use rutile_expr::array::ColumnBuilder;
use rutile_expr::{EvalContext, Expr, Input};

use crate::error::Result;

/// The rows for which all conditions are true. Each condition sees only what those before it let pass.
pub fn filter(batch: RecordBatch, predicates: &[Expr], eval: &EvalContext) -> Result<RecordBatch> {
    Ok(rutile_expr::batch::filter(batch, predicates, eval)?)
}

/// A batch of computed columns.
pub fn project(
    input: &RecordBatch,
    exprs: &[Expr],
    schema: &SchemaRef,
    eval: &EvalContext,
) -> Result<RecordBatch> {
    Ok(rutile_expr::batch::project(input, exprs, schema, eval)?)
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
    Ok(rutile_expr::batch::of_arrays(schema, arrays, rows)?)
}
