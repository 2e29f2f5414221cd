//! What INSERT, UPDATE, DELETE and LOAD DATA share: rows of datums out of batches and expressions.

use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use rutile_expr::array::Reader;
use rutile_expr::types::Datum;
use rutile_expr::{EvalContext, Expr, FieldType, Input};

use super::{ExecContext, builder};
use crate::catalog::model::TableInfo;
use crate::plan::{DmlTarget, PhysicalPlan};
use crate::table::constraint::{self, Slot};
use crate::table::{Handle, Row, index};
use crate::{Error, Result};

/// Rows that are checked for duplicates together.
pub const CHUNK_ROWS: usize = 1024;

/// The value of an expression over one row.
pub fn value_of(eval: &EvalContext, expr: &Expr, row: &[Datum]) -> Result<Datum> {
    if let Expr::Literal { value, .. } = expr {
        return Ok(value.clone());
    }
    let value = expr.eval_value(eval, &Input::Row(row))?;
    Ok(value.get(expr.field_type(), 0))
}

/// All rows of a reader, before the first of them is changed: a statement never sees its own writes.
pub async fn read_all(plan: &PhysicalPlan, ctx: &ExecContext) -> Result<Vec<Row>> {
    let types: Vec<FieldType> = plan.schema.columns.iter().map(|c| c.ty.clone()).collect();
    let mut rows = Vec::new();
    let mut batches = builder::open(plan, ctx)?;
    while let Some(batch) = batches.next().await {
        rows_of_batch(&batch?, &types, &mut rows);
        ctx.statement.check_cancelled()?;
    }
    Ok(rows)
}

fn rows_of_batch(batch: &RecordBatch, types: &[FieldType], rows: &mut Vec<Row>) {
    let readers: Vec<Reader<'_>> =
        batch.columns().iter().zip(types).map(|(array, ty)| Reader::new(array.as_ref(), ty)).collect();
    rows.reserve(batch.num_rows());
    for at in 0..batch.num_rows() {
        rows.push(readers.iter().map(|reader| reader.get(at)).collect());
    }
}

/// A target's part of a reader's row.
pub fn target_row<'r>(target: &DmlTarget, row: &'r [Datum]) -> &'r [Datum] {
    &row[target.first_column..target.first_column + target.table.columns.len()]
}

/// The handle of a target's row within a reader's row; `None` where an outer join found none.
pub fn target_handle(eval: &EvalContext, target: &DmlTarget, row: &[Datum]) -> Result<Option<Handle>> {
    let own = target_row(target, row);
    if let Some(column) = target.rowid_column {
        return Ok(Handle::of_datum(&row[column]));
    }
    if target.nullable && own.iter().all(Datum::is_null) {
        return Ok(None);
    }
    index::handle_of_row(eval, &target.table, own)
}

/// `ON UPDATE CURRENT_TIMESTAMP` columns of a changed row, unless assigned.
pub fn touch(
    eval: &EvalContext,
    table: &TableInfo,
    row: &mut [Datum],
    assigned: impl Fn(usize) -> bool,
) -> Result<()> {
    for (offset, column) in table.columns.iter().enumerate() {
        if column.on_update_now && !assigned(offset) {
            row[offset] = constraint::now(eval, &column.ty)?;
        }
    }
    Ok(())
}

/// Converts an assigned value for its column of an existing row.
pub fn assigned(
    eval: &EvalContext,
    value: Datum,
    from: &FieldType,
    slot: Slot<'_>,
    ignore: bool,
) -> Result<Datum> {
    let value = constraint::convert(eval, value, from, slot)?;
    constraint::check_null(eval, value, slot, false, ignore)
}

/// A statement under IGNORE goes on after a duplicate, with a warning.
pub fn ignore_duplicate(eval: &EvalContext, result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error @ Error::DupEntry { .. }) => {
            eval.warnings.push(rutile_expr::context::Level::Warning, error.code(), error.to_string());
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
