//! Rows of a table, some or all, in the order of their keys.
//!
//! A table of up to [`ROWS_MAX`] rows is read whole. Of a larger one, blocks of neighbouring rows are read at places that divide
//! the space between its first and last key evenly; how densely the keys lie in each says how many rows there are.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use rutile_client::{Client, KeyRange, KvPair, ScanOptions, Snapshot, Timestamp};
use rutile_proto::codec;

use crate::Result;
use crate::catalog::model::{HandleKind, TableInfo};
use crate::table::row;

/// Rows of a sample; a table of so many is read whole.
pub const ROWS_MAX: usize = 100_000;
/// Bytes of a sample, roughly.
const BYTES_MAX: usize = 128 << 20;
/// Places where blocks begin.
const BLOCKS: usize = 250;
/// Blocks read at a time.
const PARALLEL: usize = 4;

/// Neighbouring rows.
#[derive(Debug, Clone)]
pub struct Block {
    pub pairs: Vec<KvPair>,
    /// How many rows of the table each of them stands for.
    pub weight: f64,
}

/// Rows of a table.
#[derive(Debug, Clone)]
pub struct Sample {
    /// In the order of keys.
    pub blocks: Vec<Block>,
    /// Rows of the table.
    pub rows: f64,
    /// All rows are in it, so that every count is exact.
    pub complete: bool,
    /// What it is a snapshot of.
    pub ts: Timestamp,
}

impl Sample {
    /// Rows in it.
    pub fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.pairs.len()).sum()
    }

    /// Whether there is no row in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What share of the table's rows it holds; above 0, up to 1.
    pub fn share(&self) -> f64 {
        if self.complete { 1.0 } else { (self.len() as f64 / self.rows.max(1.0)).clamp(1e-9, 1.0) }
    }
}

/// A sample of a table as it is now. `counted` is what the counters say of its rows, if they say anything.
pub async fn read(client: &Client, table: &TableInfo, counted: Option<f64>) -> Result<Sample> {
    let ts = client.timestamp().await?;
    let snapshot = client.snapshot(ts);
    let range = row::row_range(table.id);
    if counted.is_none_or(|rows| rows <= ROWS_MAX as f64) {
        let pairs = read_block(&snapshot, range.clone(), ROWS_MAX + 1, BYTES_MAX).await?;
        if !pairs.stopped {
            let rows = pairs.pairs.len() as f64;
            let blocks = vec![Block { pairs: pairs.pairs, weight: 1.0 }];
            return Ok(Sample { blocks, rows, complete: true, ts });
        }
    }
    spread(&snapshot, table, range, counted, ts).await
}

struct Pairs {
    pairs: Vec<KvPair>,
    /// There is more in the range.
    stopped: bool,
}

async fn read_block(
    snapshot: &Snapshot,
    range: KeyRange,
    rows_max: usize,
    bytes_max: usize,
) -> Result<Pairs> {
    let options = ScanOptions { limit: Some(rows_max), ..ScanOptions::default() };
    let mut scanner = snapshot.scan(range, options);
    let (mut pairs, mut bytes) = (Vec::new(), 0);
    while let Some(page) = scanner.next_page().await? {
        bytes += page.iter().map(|pair| pair.key.len() + pair.value.len()).sum::<usize>();
        pairs.extend(page);
        if pairs.len() >= rows_max || bytes >= bytes_max {
            return Ok(Pairs { pairs, stopped: true });
        }
    }
    Ok(Pairs { pairs, stopped: false })
}

async fn end_key(snapshot: &Snapshot, range: &KeyRange, reverse: bool) -> Result<Option<Bytes>> {
    let options = ScanOptions { limit: Some(1), reverse, key_only: true };
    Ok(snapshot.scan(range.clone(), options).collect().await?.into_iter().next().map(|pair| pair.key))
}

async fn spread(
    snapshot: &Snapshot,
    table: &TableInfo,
    range: KeyRange,
    counted: Option<f64>,
    ts: Timestamp,
) -> Result<Sample> {
    let (first, last) = (end_key(snapshot, &range, false).await?, end_key(snapshot, &range, true).await?);
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(Sample { blocks: Vec::new(), rows: 0.0, complete: true, ts });
    };
    let space = Space::between(&first, &last);
    let places = space.places(BLOCKS);
    let (rows_max, bytes_max) = (ROWS_MAX / places.len().max(1), BYTES_MAX / places.len().max(1));
    let ranges = places.iter().enumerate().map(|(i, from)| {
        let start = if i == 0 { first.clone() } else { space.key(*from) };
        let end = places.get(i + 1).map_or_else(|| codec::prefix_next(&last), |to| space.key(*to));
        KeyRange::new(start, end)
    });
    let reads = ranges.map(|range| read_block(snapshot, range, rows_max.max(1), bytes_max));
    let read: Vec<Pairs> =
        futures::stream::iter(reads.collect::<Vec<_>>()).buffered(PARALLEL).try_collect().await?;
    let complete = read.iter().all(|block| !block.stopped);
    let mut blocks = Vec::with_capacity(read.len());
    for (i, Pairs { pairs, stopped }) in read.into_iter().enumerate() {
        let to = places.get(i + 1).copied().unwrap_or(space.high);
        let weight = if stopped { space.rows_of_each(&pairs, places[i], to) } else { 1.0 };
        blocks.push(Block { pairs, weight });
    }
    blocks.retain(|block| !block.pairs.is_empty());
    let estimated: f64 = blocks.iter().map(|block| block.pairs.len() as f64 * block.weight).sum();
    // Where keys are no numbers their density says little.
    let rows = match counted {
        Some(counted) if !complete && table.handle == HandleKind::Common => counted.max(1.0),
        _ => estimated,
    };
    let scale = if estimated > 0.0 && !complete { rows / estimated } else { 1.0 };
    blocks.iter_mut().for_each(|block| block.weight *= scale);
    Ok(Sample { blocks, rows, complete, ts })
}

/// The keys between two as numbers: the 8 bytes behind what the two have in common.
struct Space {
    prefix: Vec<u8>,
    low: u64,
    high: u64,
}

impl Space {
    fn between(first: &[u8], last: &[u8]) -> Space {
        let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let mut space = Space { prefix: first[..common].to_vec(), low: 0, high: 0 };
        (space.low, space.high) = (space.number(first), space.number(last));
        space
    }

    fn number(&self, key: &[u8]) -> u64 {
        let rest = key.get(self.prefix.len()..).unwrap_or_default();
        let mut bytes = [0; 8];
        let len = rest.len().min(8);
        bytes[..len].copy_from_slice(&rest[..len]);
        u64::from_be_bytes(bytes)
    }

    fn key(&self, number: u64) -> Bytes {
        [self.prefix.as_slice(), &number.to_be_bytes()].concat().into()
    }

    /// Up to `count` numbers that divide the space evenly, from its low end on.
    fn places(&self, count: usize) -> Vec<u64> {
        let width = u128::from(self.high - self.low) + 1;
        let count = (count as u128).min(width);
        (0..count).map(|i| self.low + (width * i / count) as u64).collect()
    }

    /// How many rows each of `pairs` stands for, which are the first ones between two numbers.
    fn rows_of_each(&self, pairs: &[KvPair], from: u64, to: u64) -> f64 {
        let (Some(first), Some(last)) = (pairs.first(), pairs.last()) else { return 1.0 };
        let covered = self.number(&last.key).saturating_sub(self.number(&first.key)) as f64;
        let whole = to.saturating_sub(from.min(self.number(&first.key))) as f64;
        if covered <= 0.0 { 1.0 } else { (whole / covered).max(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(number: u64) -> KvPair {
        KvPair { key: [b"t".as_slice(), &number.to_be_bytes()].concat().into(), value: Bytes::new() }
    }

    #[test]
    fn places_divide_the_space_between_two_keys() {
        let space = Space::between(&pair(100).key, &pair(1099).key);
        let places = space.places(4);
        let keys: Vec<Bytes> = places.iter().map(|place| space.key(*place)).collect();
        assert_eq!(keys.len(), 4);
        assert!(keys[0].starts_with(&pair(100).key));
        assert!(keys.windows(2).all(|two| two[0] < two[1]) && keys[3] < pair(1099).key);
        // No more places than keys.
        assert_eq!(Space::between(&pair(5).key, &pair(5).key).places(4).len(), 1);
    }

    #[test]
    fn a_block_stands_for_the_space_up_to_the_next() {
        let space = Space { prefix: b"t".to_vec(), low: 0, high: 10_000 };
        let pairs: Vec<KvPair> = (0..101).map(pair).collect();
        assert!((space.rows_of_each(&pairs, 0, 1000) - 10.0).abs() < 0.01);
    }
}
