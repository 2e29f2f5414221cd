//! Rows of ranges of handles, decoded page by page.

use std::collections::VecDeque;

use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use rutile_client::{KeyRange, KvPair, ReadView, ScanOptions, Scanner};

use super::limit::{self, Bounds};
use super::row_batch::BatchDecoder;
use super::{ExecContext, RowStream, filter, key_ranges, lock};
use crate::error::Result;
use crate::plan::SchemaRef;
use crate::plan::logical::LockClause;
use crate::plan::physical::TableReader;

pub(super) fn open(reader: &TableReader, schema: &SchemaRef, ctx: &ExecContext) -> Result<RowStream> {
    let ranges = key_ranges::of_table(&reader.access.table, &reader.conditions, &ctx.eval)?;
    let bounds = reader.limit.as_ref().map(|clause| limit::bounds(clause, &ctx.eval)).transpose()?;
    let decoder = BatchDecoder::of_rows(&reader.access, schema.arrow(), &ctx.eval, 64)?;
    let locks = lock::takes_locks(reader.lock, ctx);
    // Locked rows come with their values anyway, but a filter wants to see them first.
    let key_only = decoder.keys_only() || (locks && reader.filter.is_empty());
    let pages = Pages::new(ranges, reader.desc, key_only, bounds.filter(|_| reader.filter.is_empty()));
    let state =
        Reading { reader: reader.clone(), decoder, pages, ctx: ctx.clone(), locks, left: left(bounds) };
    Ok(futures::stream::try_unfold(state, |mut state| async move {
        Ok(state.next().await?.map(|batch| (batch, state)))
    })
    .boxed())
}

/// How many rows the reader has to give at most.
pub(super) fn left(bounds: Option<Bounds>) -> usize {
    bounds.map_or(usize::MAX, Bounds::fetch)
}

struct Reading {
    reader: TableReader,
    decoder: BatchDecoder,
    pages: Pages,
    ctx: ExecContext,
    locks: bool,
    left: usize,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.left > 0 {
            self.ctx.statement.check_cancelled()?;
            let view = lock::view(self.reader.lock, &self.ctx).await?;
            let Some(mut pairs) = self.pages.next(&view).await? else { return Ok(None) };
            if let Some(clause) = self.reader.lock.filter(|_| self.locks) {
                pairs = self.locked(pairs, clause).await?;
            }
            let batch = self.decoder.decode(&pairs)?;
            let batch = filter::filter(batch, &self.reader.filter, &self.ctx.eval)?;
            if batch.num_rows() > 0 {
                let batch = batch.slice(0, batch.num_rows().min(self.left));
                self.left -= batch.num_rows();
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Locks what passes the filter as read, and answers its current state; the caller filters again.
    async fn locked(&mut self, mut pairs: Vec<KvPair>, clause: LockClause) -> Result<Vec<KvPair>> {
        if !self.reader.filter.is_empty() {
            pairs = passing(pairs, &mut self.decoder, &self.reader.filter, &self.ctx)?;
        }
        pairs.truncate(self.left);
        lock::lock_pairs(pairs, clause, &self.ctx).await
    }
}

/// The pairs whose rows pass a filter.
pub(super) fn passing(
    pairs: Vec<KvPair>,
    decoder: &mut BatchDecoder,
    predicates: &[rutile_expr::Expr],
    ctx: &ExecContext,
) -> Result<Vec<KvPair>> {
    let batch = decoder.decode(&pairs)?;
    let mut keep = vec![true; pairs.len()];
    for predicate in predicates {
        let truth = predicate.eval_predicate(&ctx.eval, &batch)?;
        for (row, keep) in keep.iter_mut().enumerate() {
            *keep &= arrow::array::Array::is_valid(&truth, row) && truth.value(row);
        }
    }
    let mut keep = keep.into_iter();
    Ok(pairs.into_iter().filter(|_| keep.next().unwrap_or(false)).collect())
}

/// The pairs of several ranges, in order.
pub(super) struct Pages {
    ranges: VecDeque<KeyRange>,
    options: ScanOptions,
    scanner: Option<Scanner>,
}

impl Pages {
    /// `bounds` only where every pair is a row of the output.
    pub(super) fn new(
        mut ranges: VecDeque<KeyRange>,
        desc: bool,
        key_only: bool,
        bounds: Option<Bounds>,
    ) -> Self {
        if desc {
            ranges.make_contiguous().reverse();
        }
        let limit = bounds.map(Bounds::fetch).filter(|fetch| *fetch != usize::MAX);
        Pages { ranges, options: ScanOptions { limit, reverse: desc, key_only }, scanner: None }
    }

    /// The next page; `None` at the end.
    pub(super) async fn next(&mut self, view: &ReadView) -> Result<Option<Vec<KvPair>>> {
        loop {
            if self.scanner.is_none() {
                let Some(range) = self.ranges.pop_front() else { return Ok(None) };
                self.scanner = Some(view.scan(range, self.options));
            }
            let Some(scanner) = &mut self.scanner else { return Ok(None) };
            match scanner.next_page().await? {
                Some(page) if !page.is_empty() => return Ok(Some(page)),
                Some(_) => {}
                None => self.scanner = None,
            }
        }
    }
}
