//! Tables of information_schema: their rows are made when read.

use super::{ExecContext, RowStream};
use crate::error::Error;
use crate::plan::SchemaRef;
use crate::plan::physical::MemTable;

pub(super) fn open(table: &MemTable, _schema: &SchemaRef, _ctx: &ExecContext) -> RowStream {
    let error = Error::not_supported(format!("reading information_schema.{}", table.access.table.name));
    Box::pin(futures::stream::once(async move { Err(error) }))
}
