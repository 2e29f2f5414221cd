//! AUTO_INCREMENT values and hidden row ids: ranges taken from the key-value store, given out from memory.
//!
//! The store keeps, per table and sequence, the last number taken by any server: `m ‖ auto ‖ table_id (8 B) ‖ kind`. A range
//! that a server does not use up is lost when it stops, as gaps are allowed.

use std::sync::{Arc, LazyLock};

use dashmap::DashMap;
use rutile_client::{Client, TxnOptions};
use rutile_expr::FieldType;
use rutile_proto::codec;
use rutile_proto::ids::ClusterId;
use tokio::sync::Mutex;

use crate::catalog::model::{TableId, TableInfo};
use crate::{Error, Result};

const KEY_PREFIX: &[u8] = b"mauto";
/// Numbers of the first range; each further range doubles.
const RANGE_MIN: u64 = 16;
const RANGE_MAX: u64 = 8192;
/// Conflicts with other servers before giving up.
const ATTEMPTS: usize = 50;

/// Which numbers of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sequence {
    /// The AUTO_INCREMENT column.
    Increment,
    /// The hidden row id of a table without a primary key.
    RowId,
}

/// Numbers this process may give out: `next..=last`.
#[derive(Default)]
struct Range {
    next: u64,
    last: u64,
    size: u64,
}

type Ranges = DashMap<(ClusterId, TableId, Sequence), Arc<Mutex<Range>>>;

/// Shared by all sessions of the process; keyed by cluster, as a process may reach several.
static RANGES: LazyLock<Ranges> = LazyLock::new(DashMap::new);

fn key(table: TableId, sequence: Sequence) -> Vec<u8> {
    let mut key = KEY_PREFIX.to_vec();
    codec::encode_i64(&mut key, table.0);
    key.push(match sequence {
        Sequence::Increment => b'a',
        Sequence::RowId => b'r',
    });
    key
}

fn range_of(client: &Client, table: TableId, sequence: Sequence) -> Arc<Mutex<Range>> {
    RANGES.entry((client.cluster_id(), table, sequence)).or_default().clone()
}

/// The next value of the AUTO_INCREMENT column that is `offset` plus a multiple of `increment`, and at least what
/// `AUTO_INCREMENT = n` asked for.
pub async fn next_increment(client: &Client, table: &TableInfo, increment: u64, offset: u64) -> Result<u64> {
    let shared = range_of(client, table.id, Sequence::Increment);
    let mut range = shared.lock().await;
    let (increment, offset) = if offset > increment { (increment, 1) } else { (increment, offset) };
    loop {
        let value = align(range.next.max(1), increment, offset);
        if range.next > 0 && value >= table.auto_increment && value <= range.last {
            range.next = value + 1;
            return Ok(value);
        }
        let floor = table.auto_increment.saturating_sub(1);
        refill(client, table.id, Sequence::Increment, &mut range, floor, increment).await?;
    }
}

/// A fresh hidden row id.
pub async fn next_row_id(client: &Client, table: TableId) -> Result<i64> {
    let shared = range_of(client, table, Sequence::RowId);
    let mut range = shared.lock().await;
    if range.next == 0 || range.next > range.last {
        refill(client, table, Sequence::RowId, &mut range, 0, 1).await?;
    }
    let value = range.next;
    range.next += 1;
    i64::try_from(value).map_err(|_| Error::AutoIncrementFailed)
}

/// An explicit value was stored: later generated ones must be larger.
pub async fn rebase(client: &Client, table: TableId, value: u64) -> Result<()> {
    let shared = range_of(client, table, Sequence::Increment);
    let mut range = shared.lock().await;
    if value < range.next {
        return Ok(());
    }
    if value <= range.last {
        range.next = value + 1;
        return Ok(());
    }
    // Takes numbers beyond the value as well, so that ascending explicit values do not each go to the store.
    refill(client, table, Sequence::Increment, &mut range, value, 1).await
}

/// The largest value a counter of this type gives out.
pub fn top_of(ty: &FieldType) -> u64 {
    match ty {
        ty if !ty.is_integer() => u64::MAX - 1,
        ty if ty.unsigned => ty.unsigned_max(),
        ty => ty.signed_range().1 as u64,
    }
}

/// What the next generated value would be, for SHOW CREATE TABLE: 0 if none was ever taken.
pub async fn peek(client: &Client, table: &TableInfo) -> Result<u64> {
    let top = table.auto_column().map_or(u64::MAX, |(_, column)| top_of(&column.ty));
    Ok(peek_uncapped(client, table).await?.min(top.max(table.auto_increment)))
}

async fn peek_uncapped(client: &Client, table: &TableInfo) -> Result<u64> {
    let shared = range_of(client, table.id, Sequence::Increment);
    let range = shared.lock().await;
    if range.next > 0 {
        return Ok(range.next.max(table.auto_increment));
    }
    let stored = client.snapshot(client.timestamp().await?).get(&key(table.id, Sequence::Increment)).await?;
    let last = stored.map_or(Ok(0), |v| codec::decode_u64(&mut &v[..])).map_err(corrupt)?;
    Ok(if last == 0 { table.auto_increment } else { (last + 1).max(table.auto_increment) })
}

/// Takes a new range above everything taken so far and above `floor`.
async fn refill(
    client: &Client,
    table: TableId,
    sequence: Sequence,
    range: &mut Range,
    floor: u64,
    increment: u64,
) -> Result<()> {
    let size = (range.size * 2).clamp(RANGE_MIN, RANGE_MAX).saturating_mul(increment);
    let key = key(table, sequence);
    for _ in 0..ATTEMPTS {
        let txn = client.begin(TxnOptions { autocommit: true, ..TxnOptions::default() }).await?;
        let stored = txn.get(&key).await?;
        let taken = stored.map_or(Ok(0), |v| codec::decode_u64(&mut &v[..])).map_err(corrupt)?;
        let base = taken.max(floor);
        if base == u64::MAX {
            return Err(Error::AutoIncrementFailed);
        }
        let last = base.saturating_add(size);
        let mut value = Vec::with_capacity(8);
        codec::encode_u64(&mut value, last);
        txn.put(key.clone(), value)?;
        match txn.commit().await {
            Ok(_) => {
                *range = Range { next: base + 1, last, size: size / increment };
                return Ok(());
            }
            Err(error) if error.is_retryable_transaction() => {}
            // The range may be taken: the next attempt reads what is there, and at worst a range is lost.
            Err(rutile_client::Error::ResultUndetermined(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::AutoIncrementFailed)
}

fn corrupt<E: std::fmt::Display>(error: E) -> Error {
    Error::internal(format!("stored AUTO_INCREMENT value: {error}"))
}

/// The smallest `offset + k * increment` that is at least `value`.
fn align(value: u64, increment: u64, offset: u64) -> u64 {
    if increment <= 1 {
        return value;
    }
    if value <= offset {
        return offset;
    }
    let steps = (value - offset).div_ceil(increment);
    steps.checked_mul(increment).and_then(|s| s.checked_add(offset)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_to_offset_and_increment() {
        let aligned: Vec<u64> = (1..=9).map(|v| align(v, 3, 2)).collect();
        assert_eq!(aligned, [2, 2, 5, 5, 5, 8, 8, 8, 11]);
        assert_eq!(align(7, 1, 1), 7);
        assert_eq!(align(u64::MAX, 10, 1), u64::MAX);
    }
}
