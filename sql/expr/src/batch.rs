//! Conditions and computed columns over a batch.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::context::EvalContext;
use crate::error::Result;
use crate::expr::Expr;

/// The rows for which all conditions are true. Each condition sees only what those before it let pass.
pub fn filter(mut batch: RecordBatch, predicates: &[Expr], ctx: &EvalContext) -> Result<RecordBatch> {
    for predicate in predicates {
        if batch.num_rows() == 0 {
            break;
        }
        let passes: BooleanArray = predicate.eval_predicate(ctx, &batch)?;
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
    ctx: &EvalContext,
) -> Result<RecordBatch> {
    let mut arrays = Vec::with_capacity(exprs.len());
    for expr in exprs {
        arrays.push(expr.eval(ctx, input)?);
    }
    of_arrays(schema, arrays, input.num_rows())
}

/// A batch that may have no columns and yet has rows.
pub fn of_arrays(schema: &SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(SchemaRef::clone(schema), arrays, &options)?)
}
