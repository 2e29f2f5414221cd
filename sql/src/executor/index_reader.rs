//! Rows restored from the entries of a covering index.

use futures::StreamExt;

use super::row_batch::BatchDecoder;
use super::table_reader::{Pages, left};
use super::{ExecContext, RowStream, filter, key_ranges, limit};
use crate::error::Result;
use crate::plan::SchemaRef;
use crate::plan::physical::IndexReader;

pub(super) fn open(reader: &IndexReader, schema: &SchemaRef, ctx: &ExecContext) -> Result<RowStream> {
    let ranges = key_ranges::of_index(&reader.access.table, &reader.index, &reader.conditions, &ctx.eval)?;
    let bounds = reader.limit.as_ref().map(|clause| limit::bounds(clause, &ctx.eval)).transpose()?;
    let decoder = BatchDecoder::of_entries(&reader.access, &reader.index, schema.arrow(), &ctx.eval);
    let pages = Pages::new(ranges, reader.desc, false, bounds.filter(|_| reader.filter.is_empty()));
    let state = (reader.filter.clone(), decoder, pages, ctx.clone(), left(bounds));
    Ok(futures::stream::try_unfold(state, |(predicates, mut decoder, mut pages, ctx, mut left)| async move {
        while left > 0 {
            ctx.statement.check_cancelled()?;
            let view = ctx.statement.txn.read_view().await?;
            let Some(pairs) = pages.next(&view).await? else { return Ok(None) };
            let batch = filter::filter(decoder.decode(&pairs)?, &predicates, &ctx.eval)?;
            if batch.num_rows() > 0 {
                let batch = batch.slice(0, batch.num_rows().min(left));
                left -= batch.num_rows();
                return Ok(Some((batch, (predicates, decoder, pages, ctx, left))));
            }
        }
        Ok(None)
    })
    .boxed())
}
