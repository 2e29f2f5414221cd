//! Tables of information_schema: their rows are made when read.

use arrow::record_batch::RecordBatch;

use super::filter::{batch, filter};
use super::{ExecContext, RowStream};
use crate::catalog::system_tables;
use crate::error::Result;
use crate::plan::SchemaRef;
use crate::plan::physical::MemTable;

pub(super) fn open(table: &MemTable, schema: &SchemaRef, ctx: &ExecContext) -> RowStream {
    let rows = read(table, schema, ctx);
    Box::pin(futures::stream::once(async move { rows }))
}

fn read(table: &MemTable, schema: &SchemaRef, ctx: &ExecContext) -> Result<RecordBatch> {
    let access = &table.access;
    let all = system_tables::read(&access.db, &access.table, &ctx.statement)?;
    let arrays = access.offsets.iter().map(|offset| all.column(*offset).clone()).collect();
    let wanted = batch(&schema.arrow(), arrays, all.num_rows())?;
    filter(wanted, &table.filter, &ctx.eval)
}
