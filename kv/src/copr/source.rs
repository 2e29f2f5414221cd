//! Visible rows of ranges as batches.
//!
//! Columns that the first filter needs are decoded first; the rest only of rows that pass it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::filter as keep;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use rutile_expr::store_plan::scan::{ScanDecoder, ScanSpec};
use rutile_expr::{EvalContext, Expr, batch};
use rutile_proto::codec;

use crate::mvcc::ReadOptions;
use crate::mvcc::pair::PairKey;
use crate::mvcc::scanner::Scanner;
use crate::raftstore::RegionSnapshot;
use crate::txn;

/// Rows of the first batch; later ones grow.
const BATCH_ROWS_MIN: usize = 64;
const BATCH_ROWS_MAX: usize = 4096;

/// `[start, end)` in request form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub start: Bytes,
    pub end: Bytes,
}

/// When a page ends.
#[derive(Debug, Clone, Copy)]
pub struct PageBounds {
    /// Rows given; `usize::MAX` for steps that give fewer than they take.
    pub rows: usize,
    pub bytes: usize,
    pub time: Duration,
}

/// What to read.
pub struct Input {
    pub snapshot: RegionSnapshot,
    pub options: ReadOptions,
    /// In scan order.
    pub ranges: VecDeque<Range>,
    pub desc: bool,
    pub spec: Arc<ScanSpec>,
    pub ctx: Arc<EvalContext>,
    /// Conditions on the scan's columns.
    pub filter: Vec<Expr>,
}

/// What has been read so far.
#[derive(Debug, Default, Clone)]
pub struct Progress {
    pub scanned_keys: u64,
    pub scanned_bytes: u64,
    /// Where the scan stopped before its end: the first key not read (the end of what is not read, backwards).
    pub stopped_at: Option<Bytes>,
    /// Of a key that was read, a version newer than the snapshot was met.
    pub newer_seen: bool,
}

/// What can stop a page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Txn(#[from] txn::Error),
    #[error(transparent)]
    Expr(#[from] rutile_expr::Error),
    /// The caller does not wait any more.
    #[error("cancelled")]
    Cancelled,
}

impl From<crate::mvcc::Error> for Error {
    fn from(error: crate::mvcc::Error) -> Self {
        Error::Txn(error.into())
    }
}

/// Values of pairs whose remaining columns are decoded later, back to back.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    /// Ends of key and value of each pair.
    ends: Vec<(usize, usize)>,
}

impl Kept {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
    }

    fn pair(&self, at: usize) -> (&[u8], &[u8]) {
        let start = if at == 0 { 0 } else { self.ends[at - 1].1 };
        let (key_end, end) = self.ends[at];
        (&self.bytes[start..key_end], &self.bytes[key_end..end])
    }
}

/// Reads batch by batch.
pub struct Source {
    input: Input,
    scanner: Option<Scanner>,
    schema: SchemaRef,
    /// Columns that the filter needs, and the others.
    first: ScanDecoder,
    rest: Option<ScanDecoder>,
    first_columns: Vec<usize>,
    rest_columns: Vec<usize>,
    /// The filter over the first columns.
    filter: Vec<Expr>,
    first_schema: SchemaRef,
    kept: Kept,
    batch_rows: usize,
    bounds: PageBounds,
    started: Instant,
    given_rows: usize,
    given_bytes: usize,
    progress: Progress,
}

impl Source {
    /// A source at the beginning of its ranges.
    #[must_use]
    pub fn new(mut input: Input, bounds: PageBounds) -> Source {
        let schema = input.spec.arrow();
        let columns = input.spec.columns.len();
        let filter = std::mem::take(&mut input.filter);
        let mut needed: Vec<usize> = filter.iter().flat_map(Expr::columns).collect();
        needed.sort_unstable();
        needed.dedup();
        let lazily = !filter.is_empty() && needed.len() < columns;
        let first_columns: Vec<usize> = if lazily { needed } else { (0..columns).collect() };
        let rest_columns: Vec<usize> =
            if lazily { (0..columns).filter(|at| !first_columns.contains(at)).collect() } else { Vec::new() };
        let place = |at: usize| first_columns.iter().position(|own| *own == at).unwrap_or(at);
        let filter = filter.into_iter().map(|expr| expr.map_columns(&place)).collect();
        let decoder = |columns: &[usize], rows: usize| {
            let (spec, ctx) = (Arc::clone(&input.spec), Arc::clone(&input.ctx));
            ScanDecoder::of_columns(spec, columns.to_vec(), ctx, rows)
        };
        let first = decoder(&first_columns, 1024);
        let rest = lazily.then(|| decoder(&rest_columns, 256));
        let fields: Vec<Field> = first_columns.iter().map(|at| schema.field(*at).clone()).collect();
        input.options.key_only =
            !first.needs_value() && rest.as_ref().is_none_or(|decoder| !decoder.needs_value());
        Source {
            input,
            scanner: None,
            first,
            rest,
            first_columns,
            rest_columns,
            filter,
            first_schema: Arc::new(Schema::new(fields)),
            schema,
            kept: Kept::default(),
            batch_rows: BATCH_ROWS_MIN,
            bounds,
            started: Instant::now(),
            given_rows: 0,
            given_bytes: 0,
            progress: Progress::default(),
        }
    }

    /// The schema of the batches.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What has been read so far.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    fn page_is_full(&self) -> bool {
        self.given_rows >= self.bounds.rows
            || self.given_bytes >= self.bounds.bytes
            || (self.progress.scanned_keys > 0 && self.started.elapsed() >= self.bounds.time)
    }

    /// The next rows that pass the filter (perhaps none); `None` at the end of the ranges, or of the page.
    pub fn next(&mut self) -> Result<Option<RecordBatch>, Error> {
        loop {
            if self.scanner.is_none() {
                let Some(range) = self.input.ranges.pop_front() else { return Ok(None) };
                if self.page_is_full() {
                    let at = if self.input.desc { range.end.clone() } else { range.start.clone() };
                    self.progress.stopped_at = Some(at);
                    return Ok(None);
                }
                let (lower, upper) = (encoded(&range.start), encoded(&range.end));
                let (snapshot, options) = (&self.input.snapshot, self.input.options.clone());
                self.scanner = Some(Scanner::new(snapshot, &lower, &upper, self.input.desc, options));
                self.input.ranges.push_front(range);
            } else if self.page_is_full() {
                self.progress.stopped_at = self.position()?;
                return Ok(None);
            }
            let more = self.read_batch()?;
            if !more {
                self.scanner = None;
                self.input.ranges.pop_front();
            }
            if self.first.rows() > 0 {
                return self.finish_batch().map(Some);
            }
        }
    }

    /// The first key that is not read yet; backwards, the last that is.
    fn position(&self) -> Result<Option<Bytes>, Error> {
        let Some(scanner) = &self.scanner else { return Ok(None) };
        let last = scanner.last_key()?;
        Ok(last.map(|mut key| {
            if !self.input.desc {
                key.push(0);
            }
            key.into()
        }))
    }

    /// Decodes pairs of the current range; false at its end.
    fn read_batch(&mut self) -> Result<bool, Error> {
        let wanted = self.batch_rows;
        self.batch_rows = (self.batch_rows * 4).min(BATCH_ROWS_MAX);
        self.kept.clear();
        let Some(scanner) = &mut self.scanner else { return Ok(false) };
        let (first, rest, kept) = (&mut self.first, &self.rest, &mut self.kept);
        let keep_key = rest.as_ref().is_some_and(ScanDecoder::needs_key);
        let with_key = first.needs_key() || keep_key;
        let (mut bytes, mut rows) = (0, 0);
        let mut raw = Vec::with_capacity(64);
        let more = scanner.visit(&mut |key: PairKey<'_>, value: &[u8]| {
            bytes += key.len() + value.len();
            raw.clear();
            if with_key {
                key.raw_into(&mut raw)?;
            }
            first.push(&raw, value).map_err(Error::Expr)?;
            if rest.is_some() {
                kept.push(if keep_key { &raw } else { &[] }, value);
            }
            rows += 1;
            Ok::<bool, Error>(rows < wanted)
        })?;
        self.progress.newer_seen |= scanner.newer_seen();
        self.progress.scanned_keys += rows as u64;
        self.progress.scanned_bytes += bytes as u64;
        self.input.snapshot.count_read(rows, bytes);
        Ok(more)
    }

    /// Filters what was read, and decodes the other columns of what passes.
    fn finish_batch(&mut self) -> Result<RecordBatch, Error> {
        let rows = self.first.rows();
        let arrays = self.first.finish();
        let mut found = batch::of_arrays(&self.first_schema, arrays, rows)?;
        if let Some(mut rest) = self.rest.take() {
            let passes = self.passing(&found)?;
            for at in passes.values().set_indices() {
                let (key, value) = self.kept.pair(at);
                rest.push(key, value)?;
            }
            let count = rest.rows();
            let others = rest.finish();
            self.rest = Some(rest);
            found = self.assemble(&found, &passes, others, count)?;
        } else {
            found = batch::filter(found, &self.filter, &self.input.ctx)?;
        }
        self.given_rows += found.num_rows();
        self.given_bytes += found.columns().iter().map(|array| array.get_array_memory_size()).sum::<usize>()
            * usize::from(found.num_rows() > 0);
        Ok(found)
    }

    /// Which rows pass the whole filter; none is NULL.
    fn passing(&self, first: &RecordBatch) -> Result<BooleanArray, Error> {
        let mut passes: Option<BooleanArray> = None;
        for predicate in &self.filter {
            let truth: BooleanArray = predicate.eval_predicate(&self.input.ctx, first)?;
            let truth = match truth.nulls() {
                Some(nulls) => BooleanArray::new(truth.values() & nulls.inner(), None),
                None => truth,
            };
            passes = Some(match passes {
                None => truth,
                Some(before) => BooleanArray::new(before.values() & truth.values(), None),
            });
        }
        Ok(passes.unwrap_or_else(|| BooleanArray::from(vec![true; first.num_rows()])))
    }

    /// All columns in their order.
    fn assemble(
        &self,
        first: &RecordBatch,
        passes: &BooleanArray,
        others: Vec<ArrayRef>,
        rows: usize,
    ) -> Result<RecordBatch, Error> {
        let mut arrays: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        for (array, at) in first.columns().iter().zip(&self.first_columns) {
            arrays[*at] = Some(keep(array, passes).map_err(rutile_expr::Error::from)?);
        }
        for (array, at) in others.into_iter().zip(&self.rest_columns) {
            arrays[*at] = Some(array);
        }
        Ok(batch::of_arrays(&self.schema, arrays.into_iter().flatten().collect(), rows)?)
    }
}

fn encoded(raw: &[u8]) -> Vec<u8> {
    if raw.is_empty() { Vec::new() } else { codec::encoded_bytes(raw) }
}
