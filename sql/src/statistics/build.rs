//! From a sample of rows to statistics. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use rutile_expr::EvalContext;
use rutile_expr::row::{Cell, RowView};
use rutile_expr::types::Datum;
use rutile_expr::types::field_type::Family;

use super::distinct::Seen;
use super::model::{Bucket, ColumnStats, Histogram, ShownHistogram, TableStats, TopValue, key_of};
use super::sample::Sample;
use super::shown;
use crate::Result;
use crate::catalog::model::{ColumnId, ColumnInfo, HandleKind, IndexInfo, TableInfo};
use crate::table::constraint::origin_default;
use crate::table::row;

/// Frequent values kept of a column.
const TOP_MAX: usize = 64;
/// A value counts as frequent from so many of the average value's rows on.
const TOP_TIMES_AVERAGE: f64 = 1.5;
/// In a sample that is not complete, a frequent value was seen at least so often.
const TOP_SEEN_MIN: u32 = 8;
const BUCKETS: usize = 256;
/// Longer values are no frequent ones: they cannot be told apart by their keys.
const VALUE_BYTES_MAX: usize = 96;

/// What is wanted of a column beside the usual.
pub type ShownBuckets = HashMap<ColumnId, u32>;

/// The statistics of a table that a sample tells. `shown` are the columns that have a histogram for people.
pub fn table(table: &TableInfo, sample: &Sample, shown: &ShownBuckets) -> Result<TableStats> {
    let eval = EvalContext::default();
    let reader = Reader::new(table, sample, &eval);
    let hashed = |offset: usize| {
        table.indexes.iter().any(|index| index.columns.iter().any(|column| column.offset == offset))
    };
    let mut columns = HashMap::new();
    let mut hashes: HashMap<usize, Vec<u64>> = HashMap::new();
    for (offset, column) in table.public_columns() {
        let values = Values::read(&reader, offset)?;
        if hashed(offset) {
            hashes.insert(offset, values.hashes(sample.len()));
        }
        let buckets = shown.get(&column.id).copied();
        columns.insert(column.id, values.summary(&reader, column, buckets)?);
    }
    let public = table.indexes.iter().filter(|index| index.state.is_public());
    let indexes = public.map(|index| (index.id, prefixes(index, &hashes, &reader))).collect();
    Ok(TableStats {
        rows: sample.rows,
        version: sample.ts.0,
        analyzed_rows: sample.rows,
        modified: 0.0,
        columns: Arc::new(columns),
        indexes: Arc::new(indexes),
    })
}

fn hasher() -> RandomState {
    RandomState::with_seeds(1, 2, 3, 4)
}

/// Different values of an index's first column, its first two, and so on; NULLs are equal to each other.
fn prefixes(index: &IndexInfo, hashes: &HashMap<usize, Vec<u64>>, reader: &Reader<'_>) -> Vec<f64> {
    let (rows, share) = (reader.sample.len(), reader.sample.share());
    let mut together = vec![0u64; rows];
    let mut found = Vec::with_capacity(index.columns.len());
    let state = hasher();
    for (place, column) in index.columns.iter().enumerate() {
        let Some(own) = hashes.get(&column.offset) else { break };
        together.iter_mut().zip(own).for_each(|(all, own)| *all = state.hash_one((*all, *own)));
        let mut places: Vec<(u64, u32)> =
            together.iter().copied().zip(reader.blocks.iter().copied()).collect();
        places.sort_unstable();
        places.dedup();
        let mut seen = Seen::default();
        places.chunk_by(|a, b| a.0 == b.0).for_each(|one| seen.add(one.len()));
        let whole = index.unique && place + 1 == index.columns.len();
        let ndv = if whole { reader.sample.rows } else { seen.estimate(share, reader.sample.rows) };
        found.push(ndv.max(1.0));
    }
    found
}

/// The rows of a sample, one after the other.
struct Reader<'a> {
    table: &'a TableInfo,
    sample: &'a Sample,
    eval: &'a EvalContext,
    /// Of each row its block.
    blocks: Vec<u32>,
    rows: Vec<&'a rutile_client::KvPair>,
}

impl<'a> Reader<'a> {
    fn new(table: &'a TableInfo, sample: &'a Sample, eval: &'a EvalContext) -> Reader<'a> {
        let (mut blocks, mut rows) = (Vec::with_capacity(sample.len()), Vec::with_capacity(sample.len()));
        for (number, block) in sample.blocks.iter().enumerate() {
            blocks.extend(std::iter::repeat_n(number as u32, block.pairs.len()));
            rows.extend(&block.pairs);
        }
        Reader { table, sample, eval, blocks, rows }
    }

    fn weight(&self, row: usize) -> f64 {
        self.sample.blocks[self.blocks[row] as usize].weight
    }

    /// A value and how many bytes it takes.
    fn value(&self, offset: usize, row: usize) -> Result<(Datum, usize)> {
        let (column, pair) = (&self.table.columns[offset], self.rows[row]);
        if self.table.handle == (HandleKind::Int { offset }) {
            let handle = row::handle_of_row_key(self.table, &pair.key)?;
            return Ok((handle.to_datum(column.ty.unsigned).unwrap_or_default(), 8));
        }
        let stored = RowView::new(&pair.value)?;
        Ok(match stored.cell(column.id.0)? {
            Cell::Missing => (origin_default(self.eval, column)?, 0),
            Cell::Null => (Datum::Null, 0),
            Cell::Value(bytes) => (stored.datum(column.id.0, &column.ty, &Datum::Null)?, bytes.len()),
        })
    }
}

/// The values of one column.
struct Values {
    offset: usize,
    /// Keys of the values that are not NULL with their rows; sorted.
    keys: Vec<(Vec<u8>, u32)>,
    /// Rows of the table that have NULL.
    nulls: f64,
    bytes: f64,
    weight: f64,
}

/// Equal values: a part of the keys.
struct Run {
    start: usize,
    len: usize,
    /// Rows of the table.
    weight: f64,
    /// Blocks with the value.
    blocks: usize,
}

impl Values {
    fn read(reader: &Reader<'_>, offset: usize) -> Result<Values> {
        let ty = &reader.table.columns[offset].ty;
        let mut values = Values {
            offset,
            keys: Vec::with_capacity(reader.rows.len()),
            nulls: 0.0,
            bytes: 0.0,
            weight: 0.0,
        };
        for row in 0..reader.rows.len() {
            let weight = reader.weight(row);
            let (value, bytes) = reader.value(offset, row)?;
            values.weight += weight;
            values.bytes += weight * bytes as f64;
            match key_of(&value, ty).filter(|_| !value.is_null()) {
                Some(key) => values.keys.push((key, row as u32)),
                None => values.nulls += weight,
            }
        }
        values.keys.sort_unstable();
        Ok(values)
    }

    /// By row; 0 for NULL.
    fn hashes(&self, rows: usize) -> Vec<u64> {
        let (state, mut hashes) = (hasher(), vec![0; rows]);
        self.keys.iter().for_each(|(key, row)| hashes[*row as usize] = state.hash_one(key));
        hashes
    }

    fn runs(&self, reader: &Reader<'_>) -> Vec<Run> {
        let (mut runs, mut start) = (Vec::new(), 0);
        for equal in self.keys.chunk_by(|a, b| a.0 == b.0) {
            // Rows of a run are in order, and so are their blocks.
            let blocks = equal.chunk_by(|a, b| reader.blocks[a.1 as usize] == reader.blocks[b.1 as usize]);
            let weight = equal.iter().map(|(_, row)| reader.weight(*row as usize)).sum();
            runs.push(Run { start, len: equal.len(), weight, blocks: blocks.count() });
            start += equal.len();
        }
        runs
    }

    fn summary(&self, reader: &Reader<'_>, column: &ColumnInfo, buckets: Option<u32>) -> Result<ColumnStats> {
        let (runs, total) = (self.runs(reader), self.weight.max(1.0));
        let mut seen = Seen::default();
        runs.iter().for_each(|run| seen.add(run.blocks));
        let not_null = (self.weight - self.nulls).max(0.0);
        let ndv = match is_unique(reader.table, self.offset) {
            true => not_null,
            false => seen.estimate(reader.sample.share(), not_null),
        };
        let mut stats = ColumnStats {
            ndv,
            null_fraction: self.nulls / total,
            average_bytes: self.bytes / total,
            correlation: self.correlation(&runs),
            ..ColumnStats::default()
        };
        if column.ty.family() == Family::Json {
            return Ok(stats);
        }
        let top = self.frequent(&runs, reader)?;
        for &place in &top {
            let (run, (value, _)) = (&runs[place], reader.value(self.offset, self.row(runs[place].start))?);
            let key = self.keys[run.start].0.clone();
            stats.top_n.push(TopValue { value, key, fraction: run.weight / total });
        }
        stats.top_n.sort_by(|a, b| b.fraction.total_cmp(&a.fraction));
        let others: Vec<&Run> = runs
            .iter()
            .enumerate()
            .filter(|(place, _)| top.binary_search(place).is_err())
            .map(|(_, run)| run)
            .collect();
        stats.histogram = self.histogram(&others, ndv - top.len() as f64, total, reader)?;
        if let Some(buckets) = buckets {
            let mut all = Vec::with_capacity(runs.len());
            for run in &runs {
                all.push((reader.value(self.offset, self.row(run.start))?.0, run.weight / total));
            }
            let json = shown::document(&column.ty, &all, stats.null_fraction, reader.sample, buckets);
            stats.shown = Some(ShownHistogram { buckets, json });
        }
        Ok(stats)
    }

    fn row(&self, place: usize) -> usize {
        self.keys[place].1 as usize
    }

    /// Places of the runs of frequent values, in order.
    fn frequent(&self, runs: &[Run], reader: &Reader<'_>) -> Result<Vec<usize>> {
        let average = self.keys.len() as f64 / runs.len().max(1) as f64;
        let complete = reader.sample.complete;
        // Few values, all seen often enough: each is known by itself.
        let few = runs.len() <= TOP_MAX;
        let mut found: Vec<usize> = (0..runs.len())
            .filter(|place| {
                let run = &runs[*place];
                let often = if complete { run.len > 1 || few } else { run.len as u32 >= TOP_SEEN_MIN };
                often && (few || run.len as f64 > average * TOP_TIMES_AVERAGE)
            })
            .collect();
        found.sort_by(|a, b| runs[*b].weight.total_cmp(&runs[*a].weight));
        found.truncate(TOP_MAX);
        let mut short = Vec::with_capacity(found.len());
        for place in found {
            let (value, _) = reader.value(self.offset, self.row(runs[place].start))?;
            if value.as_bytes().is_none_or(|bytes| bytes.len() <= VALUE_BYTES_MAX) {
                short.push(place);
            }
        }
        short.sort_unstable();
        Ok(short)
    }

    /// Buckets of about as many rows each. `ndv` is that of these runs in the whole table.
    fn histogram(&self, runs: &[&Run], ndv: f64, total: f64, reader: &Reader<'_>) -> Result<Histogram> {
        let weight: f64 = runs.iter().map(|run| run.weight).sum();
        let depth = weight / BUCKETS as f64;
        let per_seen = (ndv / runs.len().max(1) as f64).max(1.0);
        let mut buckets = Vec::new();
        let (mut first, mut filled) = (0, 0.0);
        for (place, run) in runs.iter().enumerate() {
            filled += run.weight;
            if filled < depth && place + 1 < runs.len() {
                continue;
            }
            let end = |run: &Run| -> Result<(Datum, Vec<u8>)> {
                let (value, _) = reader.value(self.offset, self.row(run.start))?;
                Ok((cut(value), self.keys[run.start].0.clone()))
            };
            let ((low, low_key), (high, high_key)) = (end(runs[first])?, end(run)?);
            buckets.push(Bucket {
                low,
                high,
                low_key,
                high_key,
                fraction: filled / total,
                high_fraction: (run.weight / per_seen).min(filled) / total,
                ndv: (place + 1 - first) as f64 * per_seen,
            });
            (first, filled) = (place + 1, 0.0);
        }
        Ok(Histogram { buckets })
    }

    /// Of the values' ranks with the rows' places.
    fn correlation(&self, runs: &[Run]) -> f64 {
        let n = self.keys.len() as f64;
        if self.keys.len() < 2 || runs.len() < 2 {
            return 0.0;
        }
        let (mut x, mut y, mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for run in runs {
            let rank = (run.start as f64 + run.len as f64 / 2.0) / n;
            for (_, row) in &self.keys[run.start..run.start + run.len] {
                let place = f64::from(*row) / n;
                x += rank;
                y += place;
                xx += rank * rank;
                yy += place * place;
                xy += rank * place;
            }
        }
        let spread = ((n * xx - x * x) * (n * yy - y * y)).sqrt();
        if spread > 0.0 { ((n * xy - x * y) / spread).clamp(-1.0, 1.0) } else { 0.0 }
    }
}

fn is_unique(table: &TableInfo, offset: usize) -> bool {
    table.handle == (HandleKind::Int { offset })
        || table.indexes.iter().any(|index| {
            let mut columns = index.columns.iter();
            let alone = index.columns.len() == 1 && index.unique && index.state.is_public();
            alone && columns.all(|column| column.offset == offset && column.prefix.is_none())
        })
}

/// A long value's beginning.
fn cut(value: Datum) -> Datum {
    match value {
        Datum::String(text) if text.len() > VALUE_BYTES_MAX => {
            let end = (0..=VALUE_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            Datum::String(text[..end].to_owned())
        }
        Datum::Bytes(mut bytes) => {
            bytes.truncate(VALUE_BYTES_MAX);
            Datum::Bytes(bytes)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use rutile_client::{KvPair, Timestamp};
    use rutile_expr::types::FieldType;

    use super::super::sample::Block;
    use super::super::store::StoredStats;
    use super::*;
    use crate::catalog::model::TableId;
    use crate::catalog::system_tables;
    use crate::table::Handle;

    /// `id` is the key; `near` follows it, ten rows a value; `far` has 100 values anywhere; `flag` is 1 in one row of a hundred,
    /// NULL in every tenth, else 0.
    fn table() -> TableInfo {
        let (_, tables) = system_tables::databases().next().expect("there are some");
        let mut table = TableInfo::clone(&tables[0]);
        table.id = TableId(7);
        table.columns.truncate(4);
        assert_eq!(table.columns.len(), 4);
        table.columns.iter_mut().for_each(|column| column.ty = FieldType::bigint());
        table.handle = HandleKind::Int { offset: 0 };
        table
    }

    fn pair(table: &TableInfo, id: i64) -> KvPair {
        let flag = match id {
            id if id % 100 == 1 => Datum::Int(1),
            id if id % 10 == 0 => Datum::Null,
            _ => Datum::Int(0),
        };
        let values = [Datum::Int(id / 10), Datum::Int((id * 7919) % 100), flag];
        let cells: Vec<(i64, &Datum)> =
            table.columns[1..].iter().map(|column| column.id.0).zip(&values).collect();
        let mut value = Vec::new();
        rutile_expr::row::encode(&cells, &mut value);
        KvPair { key: row::row_key(table.id, &Handle::of_i64(id)), value: value.into() }
    }

    fn column(stats: &TableStats, table: &TableInfo, offset: usize) -> ColumnStats {
        stats.columns[&table.columns[offset].id].clone()
    }

    #[test]
    fn a_table_that_was_read_whole_is_known_exactly() {
        let table = table();
        let pairs = (0..10_000).map(|id| pair(&table, id)).collect();
        let blocks = vec![Block { pairs, weight: 1.0 }];
        let sample = Sample { blocks, rows: 10_000.0, complete: true, ts: Timestamp(5) };
        let shown = ShownBuckets::from([(table.columns[3].id, 8)]);
        let stats = super::table(&table, &sample, &shown).expect("it can be read");
        assert_eq!((stats.rows, stats.version), (10_000.0, 5));
        let ndvs: Vec<f64> = (0..4).map(|offset| column(&stats, &table, offset).ndv).collect();
        assert_eq!(ndvs, [10_000.0, 1_000.0, 100.0, 2.0]);
        let flag = column(&stats, &table, 3);
        assert!((flag.null_fraction - 0.1).abs() < 1e-9, "{}", flag.null_fraction);
        let top: Vec<(Datum, f64)> = flag.top_n.iter().map(|top| (top.value.clone(), top.fraction)).collect();
        assert_eq!(top.len(), 2);
        assert!(top[0].0 == Datum::Int(0) && (top[0].1 - 0.89).abs() < 1e-9);
        assert!(top[1].0 == Datum::Int(1) && (top[1].1 - 0.01).abs() < 1e-9);
        let json = flag.shown.clone().expect("it was asked for").json;
        assert!(json.contains("\"singleton\"") && json.contains("[[0,0.89],[1,0.9]]"), "{json}");
        assert!(column(&stats, &table, 1).correlation > 0.99);
        assert!(column(&stats, &table, 2).correlation.abs() < 0.1);
        let spread: f64 =
            column(&stats, &table, 1).histogram.buckets.iter().map(|bucket| bucket.fraction).sum();
        assert!((spread - 1.0).abs() < 1e-9, "{spread}");
        // The stored form says the same.
        assert_eq!(StoredStats::of(&stats).stats(&table), stats);
    }

    #[test]
    fn blocks_of_neighbours_tell_how_many_values_there_are() {
        let table = table();
        let block = |start: i64| Block {
            pairs: (start..start + 100).map(|id| pair(&table, id)).collect(),
            weight: 100.0,
        };
        let blocks = (0..50).map(|i| block(i * 10_000)).collect();
        let sample = Sample { blocks, rows: 500_000.0, complete: false, ts: Timestamp(5) };
        let stats = super::table(&table, &sample, &ShownBuckets::new()).expect("it can be read");
        let near = |offset: usize, wanted: f64| {
            let found = column(&stats, &table, offset).ndv;
            assert!((found - wanted).abs() < wanted * 0.1, "{found} is not {wanted}");
        };
        near(0, 500_000.0);
        near(1, 50_000.0);
        near(2, 100.0);
        near(3, 2.0);
    }
}
