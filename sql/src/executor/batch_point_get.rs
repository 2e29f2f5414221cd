//! The rows of several primary or unique keys (`IN`), read together.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::StreamExt;
use rutile_client::KvPair;

use super::row_batch::BatchDecoder;
use super::table_reader::passing;
use super::{ExecContext, RowStream, filter, lock, point_get};
use crate::error::Result;
use crate::plan::SchemaRef;
use crate::plan::physical::BatchPointGet;
use crate::table::index::{handle_of_entry, handle_of_values, unique_key};
use crate::table::row::row_key;

pub(super) fn open(get: &BatchPointGet, schema: &SchemaRef, ctx: &ExecContext) -> RowStream {
    let (get, schema, ctx) = (get.clone(), Arc::clone(schema), ctx.clone());
    futures::stream::once(async move { run(&get, &schema, &ctx).await }).boxed()
}

async fn run(get: &BatchPointGet, schema: &SchemaRef, ctx: &ExecContext) -> Result<RecordBatch> {
    let view = lock::view(get.lock, ctx).await?;
    let mut decoder = BatchDecoder::of_rows(&get.access, schema.arrow(), &ctx.eval, get.keys.len())?;
    let keys = row_keys(get, &view, ctx).await?;
    let mut values = view.batch_get(keys.clone()).await?;
    let mut rows: Vec<KvPair> =
        keys.into_iter().filter_map(|key| Some(KvPair { value: values.remove(&key)?, key })).collect();
    if let Some(clause) = get.lock.filter(|_| lock::takes_locks(get.lock, ctx)) {
        rows = passing(rows, &mut decoder, &get.filter, ctx)?;
        rows = lock::lock_pairs(rows, clause, ctx).await?;
    }
    filter::filter(decoder.decode(&rows)?, &get.filter, &ctx.eval)
}

/// The keys of the rows, each once.
async fn row_keys(
    get: &BatchPointGet,
    view: &rutile_client::ReadView,
    ctx: &ExecContext,
) -> Result<Vec<Bytes>> {
    let table = &get.access.table;
    let (mut keys, mut entries) = (Vec::with_capacity(get.keys.len()), Vec::new());
    let mut seen = HashSet::new();
    for key in &get.keys {
        let Some(values) = point_get::key_values(table, key, ctx)? else { continue };
        let found = match &key.index {
            None => handle_of_values(table, &values)?.map(|handle| row_key(table.id, &handle)),
            Some(index) => unique_key(table, index, &values)?,
        };
        if let Some(found) = found.filter(|found| seen.insert(found.clone())) {
            if key.index.is_none() { keys.push(found) } else { entries.push(found) }
        }
    }
    if let Some(index) = get.keys.first().and_then(|key| key.index.as_ref()) {
        let mut values = view.batch_get(entries.clone()).await?;
        for entry in entries {
            if let Some(value) = values.remove(&entry) {
                keys.push(row_key(table.id, &handle_of_entry(table, index, &entry, &value)?));
            }
        }
    }
    Ok(keys)
}
