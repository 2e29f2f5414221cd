//! Statistics in the cluster.
//!
//! ```text
//! mstat/v            counts analyses, decimal text: what servers look at to see whether they are current
//! mstat/t table_id   what was found when the table was analyzed: StoredStats as JSON
//! mstat/c table_id   its rows, and how many were changed since: Counts as JSON
//! mstat/o            who analyzes tables by itself at present: Owner as JSON
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use rutile_client::{Client, KeyRange, ScanOptions, Snapshot, Timestamp, Transaction, TxnMode, TxnOptions};
use rutile_expr::types::{Datum, Decimal, Duration, Time};
use rutile_proto::codec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::model::{Bucket, ColumnStats, Histogram, ShownHistogram, TableStats, TopValue, key_of};
use crate::catalog::model::{ColumnId, IndexId, TableId, TableInfo};
use crate::{Error, Result};

const VERSION_KEY: &[u8] = b"mstat/v";
const TABLE_PREFIX: &[u8] = b"mstat/t";
const COUNTS_PREFIX: &[u8] = b"mstat/c";
const OWNER_KEY: &[u8] = b"mstat/o";
/// Conflicts with other servers before giving up.
const ATTEMPTS_MAX: usize = 20;

/// A table's rows and how many of them were changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows, as far as inserts and deletes were counted.
    pub rows: i64,
    /// Rows inserted, changed and deleted since the table was last analyzed.
    pub modified: u64,
}

/// What was found when a table was analyzed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredStats {
    /// The timestamp of the snapshot.
    pub version: u64,
    /// How often it was changed without looking at the table again.
    #[serde(default)]
    pub edition: u32,
    pub rows: f64,
    columns: Vec<StoredColumn>,
    indexes: Vec<(IndexId, Vec<f64>)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredColumn {
    id: ColumnId,
    ndv: f64,
    nulls: f64,
    bytes: f64,
    correlation: f64,
    top: Vec<(StoredValue, f64)>,
    buckets: Vec<StoredBucket>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shown: Option<ShownHistogram>,
}

/// Low, high, part of the rows, of these equal to high, different values.
type StoredBucket = (StoredValue, StoredValue, f64, f64, f64);

#[derive(Debug, Clone, Serialize, Deserialize)]
enum StoredValue {
    #[serde(rename = "n")]
    Null,
    #[serde(rename = "i")]
    Int(i64),
    #[serde(rename = "u")]
    UInt(u64),
    /// The bits.
    #[serde(rename = "f")]
    Double(u64),
    #[serde(rename = "d")]
    Decimal(String),
    #[serde(rename = "s")]
    Text(String),
    /// In hexadecimal.
    #[serde(rename = "b")]
    Bytes(String),
    #[serde(rename = "t")]
    Time(u64),
    #[serde(rename = "l")]
    Duration(i64),
}

impl From<&Datum> for StoredValue {
    fn from(value: &Datum) -> StoredValue {
        match value {
            Datum::Null => StoredValue::Null,
            Datum::Int(v) => StoredValue::Int(*v),
            Datum::UInt(v) => StoredValue::UInt(*v),
            Datum::Double(v) => StoredValue::Double(v.to_bits()),
            Datum::Decimal(v) => StoredValue::Decimal(v.to_string()),
            Datum::String(v) => StoredValue::Text(v.clone()),
            Datum::Bytes(v) => StoredValue::Bytes(hex::encode(v)),
            Datum::Time(v) => StoredValue::Time(v.0),
            Datum::Duration(v) => StoredValue::Duration(v.0),
        }
    }
}

impl StoredValue {
    fn datum(&self) -> Option<Datum> {
        Some(match self {
            StoredValue::Null => Datum::Null,
            StoredValue::Int(v) => Datum::Int(*v),
            StoredValue::UInt(v) => Datum::UInt(*v),
            StoredValue::Double(v) => Datum::Double(f64::from_bits(*v)),
            StoredValue::Decimal(v) => Datum::Decimal(Decimal::parse(v)?),
            StoredValue::Text(v) => Datum::String(v.clone()),
            StoredValue::Bytes(v) => Datum::Bytes(hex::decode(v).ok()?),
            StoredValue::Time(v) => Datum::Time(Time(*v)),
            StoredValue::Duration(v) => Datum::Duration(Duration(*v)),
        })
    }
}

impl StoredStats {
    /// The stored form.
    pub fn of(stats: &TableStats) -> StoredStats {
        let mut columns: Vec<StoredColumn> = stats.columns.iter().map(|(id, c)| column(*id, c)).collect();
        columns.sort_by_key(|column| column.id);
        let mut indexes: Vec<(IndexId, Vec<f64>)> =
            stats.indexes.iter().map(|(id, ndvs)| (*id, ndvs.clone())).collect();
        indexes.sort_by_key(|(id, _)| *id);
        StoredStats { version: stats.version, edition: 0, rows: stats.analyzed_rows, columns, indexes }
    }

    /// Takes the histogram for people away from a column; `false` if there was none. What ANALYZE TABLE found for the optimizer
    /// stays.
    pub fn drop_histogram(&mut self, column: ColumnId) -> bool {
        let Some(found) = self.columns.iter_mut().find(|stored| stored.id == column) else { return false };
        let had = found.shown.take().is_some();
        self.edition += u32::from(had);
        had
    }

    /// Whether this is the same finding; a histogram may have been dropped since.
    pub fn same(&self, other: &StoredStats) -> bool {
        self.version == other.version && self.edition == other.edition
    }

    /// The statistics of a table as it is defined now. A column that is gone or has another type has none.
    pub fn stats(&self, table: &TableInfo) -> TableStats {
        let mut columns = HashMap::with_capacity(self.columns.len());
        for stored in &self.columns {
            let Some(info) = table.columns.iter().find(|column| column.id == stored.id) else { continue };
            if let Some(stats) = stored.stats(&info.ty) {
                columns.insert(stored.id, stats);
            }
        }
        TableStats {
            rows: self.rows,
            version: self.version,
            analyzed_rows: self.rows,
            modified: 0.0,
            columns: Arc::new(columns),
            indexes: Arc::new(self.indexes.iter().cloned().collect()),
        }
    }
}

fn column(id: ColumnId, stats: &ColumnStats) -> StoredColumn {
    let bucket = |bucket: &Bucket| -> StoredBucket {
        let Bucket { low, high, fraction, high_fraction, ndv, .. } = bucket;
        (low.into(), high.into(), *fraction, *high_fraction, *ndv)
    };
    StoredColumn {
        id,
        ndv: stats.ndv,
        nulls: stats.null_fraction,
        bytes: stats.average_bytes,
        correlation: stats.correlation,
        top: stats.top_n.iter().map(|top| ((&top.value).into(), top.fraction)).collect(),
        buckets: stats.histogram.buckets.iter().map(bucket).collect(),
        shown: stats.shown.clone(),
    }
}

impl StoredColumn {
    fn stats(&self, ty: &rutile_expr::types::FieldType) -> Option<ColumnStats> {
        let keyed = |stored: &StoredValue| -> Option<(Datum, Vec<u8>)> {
            let value = stored.datum()?;
            let key = key_of(&value, ty)?;
            Some((value, key))
        };
        let mut top_n = Vec::with_capacity(self.top.len());
        for (value, fraction) in &self.top {
            let (value, key) = keyed(value)?;
            top_n.push(TopValue { value, key, fraction: *fraction });
        }
        let mut buckets = Vec::with_capacity(self.buckets.len());
        for (low, high, fraction, high_fraction, ndv) in &self.buckets {
            let ((low, low_key), (high, high_key)) = (keyed(low)?, keyed(high)?);
            let (fraction, high_fraction, ndv) = (*fraction, *high_fraction, *ndv);
            buckets.push(Bucket { low, high, low_key, high_key, fraction, high_fraction, ndv });
        }
        Some(ColumnStats {
            ndv: self.ndv,
            null_fraction: self.nulls,
            average_bytes: self.bytes,
            top_n,
            histogram: Histogram { buckets },
            correlation: self.correlation,
            shown: self.shown.clone(),
        })
    }
}

fn id_key(prefix: &[u8], table: TableId) -> Vec<u8> {
    let mut key = prefix.to_vec();
    codec::encode_i64(&mut key, table.0);
    key
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Error::internal(format!("statistics cannot be written: {error}")))
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T> {
    serde_json::from_slice(value)
        .map_err(|error| Error::internal(format!("stored statistics are damaged: {error}")))
}

async fn all<T: DeserializeOwned>(snapshot: &Snapshot, prefix: &[u8]) -> Result<Vec<(TableId, T)>> {
    let pairs = snapshot.scan(KeyRange::prefix(prefix), ScanOptions::default()).collect().await?;
    let mut found = Vec::with_capacity(pairs.len());
    for pair in &pairs {
        let id = codec::decode_i64(&mut &pair.key[prefix.len()..]);
        let id = id.map_err(|_| Error::internal("a key of statistics is damaged"))?;
        found.push((TableId(id), decode(&pair.value)?));
    }
    Ok(found)
}

/// How many analyses there were. No timestamp is taken.
pub async fn version(client: &Client) -> Result<u64> {
    let value = client.snapshot(Timestamp::MAX).get(VERSION_KEY).await?;
    value.map_or(Ok(0), |value| decode(&value))
}

/// What was found of all tables.
pub async fn tables(snapshot: &Snapshot) -> Result<Vec<(TableId, StoredStats)>> {
    all(snapshot, TABLE_PREFIX).await
}

/// The counts of all tables.
pub async fn counts(snapshot: &Snapshot) -> Result<Vec<(TableId, Counts)>> {
    all(snapshot, COUNTS_PREFIX).await
}

/// What is written in one transaction.
enum Write<'a> {
    Finding { table: TableId, stats: &'a StoredStats, recount: bool },
    Counted(&'a [(TableId, Counts)]),
    Gone(&'a [TableId]),
    Owner { holder: u64, now_ms: u64, until_ms: u64 },
}

impl Write<'_> {
    /// Whether it was in place.
    async fn apply(&self, txn: &Transaction) -> Result<bool> {
        match self {
            Write::Finding { table, stats, recount } => {
                let known = txn.get(VERSION_KEY).await?;
                let next = known.map_or(Ok(0), |value| decode::<u64>(&value))? + 1;
                txn.put(id_key(TABLE_PREFIX, *table), encode(stats)?)?;
                if *recount {
                    let counts = Counts { rows: stats.rows.round() as i64, modified: 0 };
                    txn.put(id_key(COUNTS_PREFIX, *table), encode(&counts)?)?;
                }
                txn.put(VERSION_KEY, encode(&next)?)?;
            }
            Write::Counted(changes) => {
                for (table, change) in *changes {
                    let key = id_key(COUNTS_PREFIX, *table);
                    let known = txn.get(&key).await?;
                    let mut counts: Counts = known.map_or(Ok(Counts::default()), |value| decode(&value))?;
                    counts.rows = (counts.rows + change.rows).max(0);
                    counts.modified += change.modified;
                    txn.put(key, encode(&counts)?)?;
                }
            }
            Write::Gone(tables) => {
                for table in *tables {
                    txn.delete(id_key(TABLE_PREFIX, *table))?;
                    txn.delete(id_key(COUNTS_PREFIX, *table))?;
                }
            }
            Write::Owner { holder, now_ms, until_ms } => {
                let known = txn.get(OWNER_KEY).await?;
                let known: Option<Owner> = known.map(|value| decode(&value)).transpose()?;
                if known.is_some_and(|owner| owner.holder != *holder && owner.until_ms >= *now_ms) {
                    return Ok(false);
                }
                txn.put(OWNER_KEY, encode(&Owner { holder: *holder, until_ms: *until_ms })?)?;
            }
        }
        Ok(true)
    }

    /// In a transaction of its own; again when another one came first.
    async fn commit(&self, client: &Client) -> Result<bool> {
        for _ in 0..ATTEMPTS_MAX {
            let txn = client.begin(TxnOptions { mode: TxnMode::Optimistic, ..TxnOptions::default() }).await?;
            let done = match self.apply(&txn).await {
                Ok(true) => txn.commit().await.map(|_| true).map_err(Error::from),
                other => {
                    txn.rollback().await?;
                    other
                }
            };
            match done {
                Err(Error::WriteConflict { .. }) => {}
                other => return other,
            }
        }
        Err(Error::internal("statistics cannot be written: others write them all the time"))
    }
}

/// Keeps what was found when a table was analyzed. With `recount` its rows are counted from there; else only the finding is
/// replaced.
pub async fn put(client: &Client, table: TableId, stats: &StoredStats, recount: bool) -> Result<()> {
    Write::Finding { table, stats, recount }.commit(client).await.map(|_| ())
}

/// Adds changes to the counts of tables.
pub async fn add(client: &Client, changes: &[(TableId, Counts)]) -> Result<()> {
    Write::Counted(changes).commit(client).await.map(|_| ())
}

/// Forgets tables that are gone.
pub async fn forget(client: &Client, tables: &[TableId]) -> Result<()> {
    Write::Gone(tables).commit(client).await.map(|_| ())
}

/// Who analyzes tables by itself, until when (milliseconds of the cluster's timestamps).
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Owner {
    holder: u64,
    until_ms: u64,
}

/// Becomes or stays the one who analyzes, for so long; `false` if another one is.
pub async fn own(client: &Client, holder: u64, lease_ms: u64) -> Result<bool> {
    let now_ms = client.timestamp().await?.physical_ms();
    Write::Owner { holder, now_ms, until_ms: now_ms + lease_ms }.commit(client).await
}
