//! Handles from an index, then their rows.

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::StreamExt;
use rutile_client::{KvPair, ReadView};

use super::row_batch::BatchDecoder;
use super::table_reader::{Pages, left, passing};
use super::{ExecContext, RowStream, filter, key_ranges, limit, lock};
use crate::error::Result;
use crate::plan::SchemaRef;
use crate::plan::physical::IndexLookup;
use crate::table::index::handle_of_entry;
use crate::table::row::row_key;

pub(super) fn open(reader: &IndexLookup, schema: &SchemaRef, ctx: &ExecContext) -> Result<RowStream> {
    let ranges = key_ranges::of_index(&reader.access.table, &reader.index, &reader.conditions, &ctx.eval)?;
    let bounds = reader.limit.as_ref().map(|clause| limit::bounds(clause, &ctx.eval)).transpose()?;
    let decoder = BatchDecoder::of_rows(&reader.access, schema.arrow(), &ctx.eval, 64)?;
    let pages = Pages::new(ranges, reader.desc, false, bounds.filter(|_| reader.filter.is_empty()));
    let state = Reading { reader: reader.clone(), decoder, pages, ctx: ctx.clone(), left: left(bounds) };
    Ok(futures::stream::try_unfold(state, |mut state| async move {
        Ok(state.next().await?.map(|batch| (batch, state)))
    })
    .boxed())
}

struct Reading {
    reader: IndexLookup,
    decoder: BatchDecoder,
    pages: Pages,
    ctx: ExecContext,
    left: usize,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.left > 0 {
            self.ctx.statement.check_cancelled()?;
            let view = lock::view(self.reader.lock, &self.ctx).await?;
            let Some(entries) = self.pages.next(&view).await? else { return Ok(None) };
            let mut rows = self.rows(&entries, &view).await?;
            if let Some(clause) = self.reader.lock.filter(|_| lock::takes_locks(self.reader.lock, &self.ctx))
            {
                rows = passing(rows, &mut self.decoder, &self.reader.filter, &self.ctx)?;
                rows.truncate(self.left);
                rows = lock::lock_pairs(rows, clause, &self.ctx).await?;
            }
            let batch = self.decoder.decode(&rows)?;
            let batch = filter::filter(batch, &self.reader.filter, &self.ctx.eval)?;
            if batch.num_rows() > 0 {
                let batch = batch.slice(0, batch.num_rows().min(self.left));
                self.left -= batch.num_rows();
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// The rows of index entries, in the entries' order.
    async fn rows(&self, entries: &[KvPair], view: &ReadView) -> Result<Vec<KvPair>> {
        let (table, index) = (&self.reader.access.table, &self.reader.index);
        let mut keys: Vec<Bytes> = Vec::with_capacity(entries.len());
        for entry in entries {
            let handle = handle_of_entry(table, index, &entry.key, &entry.value)?;
            keys.push(row_key(table.id, &handle));
        }
        let mut values = view.batch_get(keys.clone()).await?;
        Ok(keys.into_iter().filter_map(|key| Some(KvPair { value: values.remove(&key)?, key })).collect())
    }
}
