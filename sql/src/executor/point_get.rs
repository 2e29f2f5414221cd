//! The row of one primary or unique key: a key, a get, a row; no tree.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::StreamExt;
use rutile_client::ReadView;
use rutile_expr::types::Datum;

use super::row_batch::BatchDecoder;
use super::{ExecContext, RowStream, filter, key_ranges, lock};
use crate::catalog::model::{HandleKind, TableInfo};
use crate::error::Result;
use crate::plan::SchemaRef;
use crate::plan::physical::{PointGet, PointKey};
use crate::table::index::{handle_of_entry, handle_of_values, unique_key};
use crate::table::row::{Handle, row_key};

/// As a node of a larger plan.
pub(super) fn open(get: &PointGet, schema: &SchemaRef, ctx: &ExecContext) -> RowStream {
    let (get, schema, ctx) = (get.clone(), Arc::clone(schema), ctx.clone());
    futures::stream::once(async move { run(&get, &schema, &ctx, false).await })
        .filter_map(|row| async move { row.transpose() })
        .boxed()
}

/// The row, if there is one that passes. `alone`: the get is the whole statement, so that it may read the newest version.
pub async fn run(
    get: &PointGet,
    schema: &SchemaRef,
    ctx: &ExecContext,
    alone: bool,
) -> Result<Option<RecordBatch>> {
    let table = &get.access.table;
    let Some(values) = key_values(table, &get.key, ctx)? else { return Ok(None) };
    let newest = match alone && get.key.index.is_none() && get.lock.is_none() {
        true => ctx.statement.txn.newest_view(),
        false => None,
    };
    let view = match newest {
        Some(view) => view,
        None => lock::view(get.lock, ctx).await?,
    };
    let Some(handle) = find_handle(table, &get.key, &values, &view, get, ctx).await? else { return Ok(None) };
    let key = row_key(table.id, &handle);
    let value = match get.lock.filter(|_| lock::takes_locks(get.lock, ctx)) {
        Some(clause) => lock::lock_values(vec![key.clone()], clause, ctx).await?.pop().flatten(),
        None => read(&view, &key).await?,
    };
    let Some(value) = value else { return Ok(None) };
    let input = get.columns.arrow();
    let mut decoder = BatchDecoder::of_rows(&get.access, input, &ctx.eval, 1)?;
    let mut row = decoder.decode_one(&key, &value)?;
    if !get.filter.is_empty() {
        row = filter::filter(row, &get.filter, &ctx.eval)?;
        if row.num_rows() == 0 {
            return Ok(None);
        }
    }
    match &get.project {
        Some(exprs) => Ok(Some(filter::project(&row, exprs, &schema.arrow(), &ctx.eval)?)),
        None => Ok(Some(row)),
    }
}

async fn read(view: &ReadView, key: &[u8]) -> Result<Option<Bytes>> {
    match view.try_get(key) {
        Some(value) => Ok(value),
        None => Ok(view.get(key).await?),
    }
}

/// The handle, through the index if the key is one's.
async fn find_handle(
    table: &TableInfo,
    key: &PointKey,
    values: &[Datum],
    view: &ReadView,
    get: &PointGet,
    ctx: &ExecContext,
) -> Result<Option<Handle>> {
    let Some(index) = &key.index else { return handle_of_values(table, values) };
    let Some(entry_key) = unique_key(table, index, values)? else { return Ok(None) };
    let entry = match get.lock.filter(|_| lock::takes_locks(get.lock, ctx)) {
        Some(clause) => lock::lock_values(vec![entry_key.clone()], clause, ctx).await?.pop().flatten(),
        None => read(view, &entry_key).await?,
    };
    entry.map(|value| handle_of_entry(table, index, &entry_key, &value)).transpose()
}

/// The values of a key's columns as stored; `None` when no row can have them.
pub(super) fn key_values(table: &TableInfo, key: &PointKey, ctx: &ExecContext) -> Result<Option<Vec<Datum>>> {
    let mut values = Vec::with_capacity(key.values.len());
    for (place, value) in key.values.iter().enumerate() {
        let offset = match (&key.index, &table.handle) {
            (Some(index), _) => index.columns[place].offset,
            (None, HandleKind::Int { offset }) => *offset,
            (None, _) => match table.primary() {
                Some(primary) => primary.columns[place].offset,
                None => return Ok(None),
            },
        };
        let value = value.eval_scalar(&ctx.eval)?;
        match key_ranges::point_value(value, &table.columns[offset].ty) {
            Some(value) => values.push(value),
            None => return Ok(None),
        }
    }
    Ok(Some(values))
}
