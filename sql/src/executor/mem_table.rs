//! Tables of information_schema: their rows are made when read.

use futures::StreamExt;

use super::{ExecContext, RowStream, filter};
use crate::catalog::system_tables;
use crate::error::{Error, Result};
use crate::plan::SchemaRef;
use crate::plan::physical::MemTable;

pub(super) fn open(table: &MemTable, schema: &SchemaRef, ctx: &ExecContext) -> RowStream {
    let (table, schema, ctx) = (table.clone(), schema.clone(), ctx.clone());
    futures::stream::once(async move { read(&table, &schema, &ctx).await }).boxed()
}

async fn read(
    table: &MemTable,
    schema: &SchemaRef,
    ctx: &ExecContext,
) -> Result<arrow::record_batch::RecordBatch> {
    let access = &table.access;
    let all = system_tables::read(&access.db, &access.table.name, &ctx.statement).await?;
    let rows = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(all.num_rows()));
    let columns = access.offsets.iter().map(|offset| all.column(*offset).clone()).collect();
    let batch = arrow::record_batch::RecordBatch::try_new_with_options(schema.arrow(), columns, &rows)
        .map_err(|error| Error::internal(format!("a system table does not fit its plan: {error}")))?;
    filter::filter(batch, &table.filter, &ctx.eval)
}
