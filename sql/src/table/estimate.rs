//! How many rows a table has, roughly: for TABLE_ROWS, which promises no more.

use rutile_client::{Client, KeyRange, ScanOptions};

use super::row;
use crate::Result;
use crate::catalog::model::{HandleKind, TableInfo};

/// Keys looked at. Up to so many rows the number is exact.
pub const SAMPLE_ROWS: usize = 1000;

/// The number of a small table's rows; of a larger one an estimate from how densely its first handles lie up to its last one,
/// or, where handles are no numbers, from the number of its regions.
pub async fn rows(client: &Client, table: &TableInfo) -> Result<u64> {
    let range = row::row_range(table.id);
    let snapshot = client.snapshot(client.timestamp().await?);
    let options = |limit, reverse| ScanOptions { limit: Some(limit), reverse, key_only: true };
    let sample = snapshot.scan(range.clone(), options(SAMPLE_ROWS, false)).collect().await?;
    let (Some(first), Some(last)) = (sample.first(), sample.last()) else { return Ok(0) };
    if sample.len() < SAMPLE_ROWS {
        return Ok(sample.len() as u64);
    }
    let number = |key: &[u8]| -> Result<i128> {
        Ok(row::handle_of_row_key(table, key)?.as_i64().map_or(0, i128::from))
    };
    if table.handle == HandleKind::Common {
        return by_regions(client, &range).await;
    }
    let end = snapshot.scan(range.clone(), options(1, true)).collect().await?;
    let Some(end) = end.first() else { return Ok(SAMPLE_ROWS as u64) };
    let (low, high, top) = (number(&first.key)?, number(&last.key)?, number(&end.key)?);
    let estimate = (top - low + 1) * SAMPLE_ROWS as i128 / (high - low + 1).max(1);
    Ok(u64::try_from(estimate).unwrap_or(u64::MAX))
}

async fn by_regions(client: &Client, range: &KeyRange) -> Result<u64> {
    let regions = client.regions(range).await?.len() as u64;
    Ok(regions.max(1) * SAMPLE_ROWS as u64)
}
