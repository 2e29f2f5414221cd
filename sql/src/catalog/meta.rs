//! The catalog's stored form.
//!
//! Keys, all under `m` (no separators; integers are memcomparable, 8 bytes):
//!
//! ```text
//! m/v                      schema version, decimal text; every change writes it, so changes never overlap
//! m/n                      last id given to a database or table, decimal text
//! m/d database_id          DatabaseInfo as JSON
//! m/t database_id table_id  TableInfo as JSON
//! m/s server_id            an SQL server and the oldest schema it may use: ServerEntry as JSON
//! m/g table_id             a dropped table whose data is to be removed: DroppedTable as JSON
//! ```
//!
//! Other rooms keep their own keys beside these: `mauto` for AUTO_INCREMENT, `muser` for accounts, `mgc` for
//! garbage collection. What a change of a table has reached stands in the table itself ([`super::model::TableChange`]).

use bytes::Bytes;
use rutile_client::{KeyRange, ReadView, ScanOptions, Snapshot, Transaction};
use rutile_proto::codec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::model::{DatabaseId, DatabaseInfo, TableId, TableInfo};
use crate::{Error, Result};

const VERSION_KEY: &[u8] = b"m/v";
const LAST_ID_KEY: &[u8] = b"m/n";
const DATABASE_PREFIX: &[u8] = b"m/d";
const TABLE_PREFIX: &[u8] = b"m/t";
const DROPPED_PREFIX: &[u8] = b"m/g";
const SERVER_PREFIX: &[u8] = b"m/s";

/// An SQL server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerEntry {
    /// It uses no definition from before this schema version.
    pub version: i64,
    /// When its lease ends, in the milliseconds of the cluster's timestamps.
    pub until_ms: u64,
}

/// A table that is gone from the catalog and whose keys are still in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedTable {
    pub table: TableId,
    /// Only this index's keys; the whole table without it.
    #[serde(default)]
    pub index: Option<i64>,
    /// When, in milliseconds since 1970: transactions that began before may still read it for a while.
    pub dropped_ms: i64,
}

impl DroppedTable {
    /// What the keys to be removed begin with: `t table_id [_i index_id]`.
    pub fn key_prefix(&self) -> Vec<u8> {
        let mut key = id_key(b"t", &[self.table.0]);
        if let Some(index) = self.index {
            key.extend_from_slice(b"_i");
            codec::encode_i64(&mut key, index);
        }
        key
    }
}

/// A version and what it consists of.
pub struct Loaded {
    pub version: i64,
    pub databases: Vec<(DatabaseInfo, Vec<TableInfo>)>,
}

fn id_key(prefix: &[u8], ids: &[i64]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    for id in ids {
        codec::encode_i64(&mut key, *id);
    }
    key
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Error::internal(format!("a catalog record cannot be written: {error}")))
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|error| {
        Error::internal(format!("the catalog record at {} is damaged: {error}", hex::encode(key)))
    })
}

fn number(key: &[u8], value: Option<Bytes>) -> Result<i64> {
    match value {
        None => Ok(0),
        Some(text) => decode(key, &text),
    }
}

/// The version alone: what servers look at to see whether they are current. No timestamp is taken.
pub async fn newest_version(snapshot: &Snapshot) -> Result<i64> {
    number(VERSION_KEY, snapshot.get(VERSION_KEY).await?)
}

/// Everything, as of one timestamp.
pub async fn load(snapshot: &Snapshot) -> Result<Loaded> {
    let version = newest_version(snapshot).await?;
    let databases =
        snapshot.scan(KeyRange::prefix(DATABASE_PREFIX), ScanOptions::default()).collect().await?;
    let tables = snapshot.scan(KeyRange::prefix(TABLE_PREFIX), ScanOptions::default()).collect().await?;
    let mut loaded = Vec::with_capacity(databases.len());
    for pair in &databases {
        let info: DatabaseInfo = decode(&pair.key, &pair.value)?;
        loaded.push((info, Vec::new()));
    }
    for pair in &tables {
        let mut rest = &pair.key[TABLE_PREFIX.len()..];
        let database = codec::decode_i64(&mut rest)
            .map_err(|_| Error::internal(format!("the catalog key {} is damaged", hex::encode(&pair.key))))?;
        let table: TableInfo = decode(&pair.key, &pair.value)?;
        match loaded.iter_mut().find(|(info, _): &&mut (DatabaseInfo, Vec<TableInfo>)| info.id.0 == database)
        {
            Some((_, tables)) => tables.push(table),
            None => return Err(Error::internal(format!("table {} belongs to no database", table.name))),
        }
    }
    Ok(Loaded { version, databases: loaded })
}

/// The stored catalog within a transaction.
pub struct Meta<'a> {
    txn: &'a Transaction,
    view: ReadView,
}

impl<'a> Meta<'a> {
    /// Through this transaction, at its snapshot.
    pub async fn new(txn: &'a Transaction) -> Result<Meta<'a>> {
        let view = txn.view(txn.start_ts().await?);
        Ok(Meta { txn, view })
    }

    /// The schema version.
    pub async fn version(&self) -> Result<i64> {
        number(VERSION_KEY, self.view.get(VERSION_KEY).await?)
    }

    /// Sets the schema version.
    pub fn set_version(&self, version: i64) -> Result<()> {
        Ok(self.txn.put(VERSION_KEY.to_vec(), encode(&version)?)?)
    }

    /// The last id given out.
    pub async fn last_id(&self) -> Result<i64> {
        number(LAST_ID_KEY, self.view.get(LAST_ID_KEY).await?)
    }

    /// Notes the last id given out.
    pub fn set_last_id(&self, id: i64) -> Result<()> {
        Ok(self.txn.put(LAST_ID_KEY.to_vec(), encode(&id)?)?)
    }

    pub fn put_database(&self, info: &DatabaseInfo) -> Result<()> {
        Ok(self.txn.put(id_key(DATABASE_PREFIX, &[info.id.0]), encode(info)?)?)
    }

    pub fn delete_database(&self, id: DatabaseId) -> Result<()> {
        Ok(self.txn.delete(id_key(DATABASE_PREFIX, &[id.0]))?)
    }

    pub fn put_table(&self, database: DatabaseId, table: &TableInfo) -> Result<()> {
        Ok(self.txn.put(id_key(TABLE_PREFIX, &[database.0, table.id.0]), encode(table)?)?)
    }

    pub fn delete_table(&self, database: DatabaseId, table: TableId) -> Result<()> {
        Ok(self.txn.delete(id_key(TABLE_PREFIX, &[database.0, table.0]))?)
    }

    /// Notes that a table's data is to be removed.
    pub fn put_dropped(&self, dropped: &DroppedTable) -> Result<()> {
        Ok(self.txn.put(dropped_key(dropped), encode(dropped)?)?)
    }

    /// Writes a server's entry.
    pub fn put_server(&self, id: u64, entry: &ServerEntry) -> Result<()> {
        Ok(self.txn.put(id_key(SERVER_PREFIX, &[id as i64]), encode(entry)?)?)
    }

    /// A server is gone.
    pub fn delete_server(&self, id: u64) -> Result<()> {
        Ok(self.txn.delete(id_key(SERVER_PREFIX, &[id as i64]))?)
    }

    /// The data of a dropped table is gone.
    pub fn delete_dropped(&self, dropped: &DroppedTable) -> Result<()> {
        Ok(self.txn.delete(dropped_key(dropped))?)
    }
}

fn dropped_key(dropped: &DroppedTable) -> Vec<u8> {
    id_key(DROPPED_PREFIX, &[dropped.table.0, dropped.index.unwrap_or(0)])
}

/// The SQL servers' entries, by id.
pub async fn servers(snapshot: &Snapshot) -> Result<Vec<(u64, ServerEntry)>> {
    let pairs = snapshot.scan(KeyRange::prefix(SERVER_PREFIX), ScanOptions::default()).collect().await?;
    let mut servers = Vec::with_capacity(pairs.len());
    for pair in &pairs {
        let id = codec::decode_i64(&mut &pair.key[SERVER_PREFIX.len()..])
            .map_err(|_| Error::internal(format!("the catalog key {} is damaged", hex::encode(&pair.key))))?;
        servers.push((id as u64, decode(&pair.key, &pair.value)?));
    }
    Ok(servers)
}

/// Tables dropped and not yet removed.
pub async fn dropped_tables(snapshot: &Snapshot) -> Result<Vec<DroppedTable>> {
    let pairs = snapshot.scan(KeyRange::prefix(DROPPED_PREFIX), ScanOptions::default()).collect().await?;
    pairs.iter().map(|pair| decode(&pair.key, &pair.value)).collect()
}
