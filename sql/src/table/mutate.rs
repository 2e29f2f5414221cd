//! Inserts, changes and deletes rows together with their index entries, and keeps unique keys unique.
//!
//! Who finds a duplicate depends on the transaction:
//!
//! | transaction | found by | reported |
//! |---|---|---|
//! | one statement, optimistic | the store, when the key is prewritten (`insert` flag) | at commit, see [`duplicate_of_key`] |
//! | pessimistic | locking the keys with a check of their existence | at the statement |
//! | several statements, optimistic | reading the keys at the start timestamp | at the statement |
//!
//! Entries of other indexes are written blindly: whoever changes them holds the row's key. Writes respect schema states: an
//! index or column in delete-only state loses entries and gains none.

use std::collections::HashMap;

use bytes::Bytes;
use rutile_client::{Client, LockOptions, LockWait, Transaction, TxnMode};
use rutile_expr::EvalContext;
use rutile_expr::types::Datum;
use rutile_proto::codec;

use super::index::{self, Entry};
use super::row::{self, Handle, INDEX_MARK, PREFIX_LEN, ROW_MARK, TABLE_PREFIX};
use crate::catalog::model::{IndexInfo, InfoSchema, TableId, TableInfo};
use crate::context::{Effects, StatementContext, StatementTxn};
use crate::{Error, Result};

/// A row of a table: one datum per column, in the session's time zone.
pub type Row = Vec<Datum>;

/// Writes to one table within one statement.
pub struct TableWriter<'a> {
    table: &'a TableInfo,
    eval: &'a EvalContext,
    txn: &'a Transaction,
    effects: &'a Effects,
    found: Found,
    lock_wait_ms: u64,
    /// The store finds duplicates at commit.
    checked_at_commit: bool,
}

/// Which of a row's unique keys is taken, and by which row.
#[derive(Debug, Clone)]
pub struct Conflict<'a> {
    /// The index; of the primary key when the row key itself is taken.
    pub index: &'a IndexInfo,
    /// The row that has it.
    pub handle: Handle,
}

/// What the store is known to have under keys: values of keys that were locked or read, `None` for missing ones.
#[derive(Default)]
struct Found {
    values: HashMap<Bytes, Option<Bytes>>,
}

impl<'a> TableWriter<'a> {
    /// A writer within the statement's transaction, judging values under `eval`.
    pub async fn new(ctx: &'a StatementContext, eval: &'a EvalContext, table: &'a TableInfo) -> Result<Self> {
        super::constraint::check_supported(table)?;
        if table.change.is_some_and(|change| change.frozen) {
            return Err(Error::TableChanging);
        }
        let txn = ctx.txn.transaction().await?;
        Ok(TableWriter {
            table,
            eval,
            txn,
            effects: &ctx.effects,
            found: Found::default(),
            lock_wait_ms: ctx.settings.lock_wait_timeout_ms,
            checked_at_commit: is_checked_at_commit(&ctx.txn),
        })
    }

    /// The table.
    pub fn table(&self) -> &'a TableInfo {
        self.table
    }

    /// The unique keys of a row, the row's own first.
    fn unique_keys(&self, row: &[Datum], handle: &Handle) -> Result<Vec<Bytes>> {
        let mut keys = Vec::with_capacity(1 + self.table.indexes.len());
        if self.has_row_key() {
            keys.push(row::row_key(self.table.id, handle));
        }
        for index in self.entry_indexes().filter(|i| i.unique && i.state.is_writable()) {
            let (key, distinct) = index::entry_key(self.eval, self.table, index, row, handle)?;
            if distinct {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// Whether the row's key is a primary key that users choose.
    fn has_row_key(&self) -> bool {
        self.table.primary().is_some_and(|p| self.table.is_clustered(p))
    }

    /// Indexes with entries of their own that writes must look after.
    fn entry_indexes(&self) -> impl Iterator<Item = &'a IndexInfo> + use<'a> {
        let table = self.table;
        table.indexes.iter().map(|i| &**i).filter(|i| !table.is_clustered(i) && i.state.is_deletable())
    }

    /// Makes sure that duplicates among these rows' unique keys will be found: locks or reads the keys, unless the store
    /// checks at commit. `values`: also learn who has taken them (for IGNORE, REPLACE, ON DUPLICATE KEY UPDATE).
    pub async fn prepare(&mut self, rows: &[(Row, Handle)], values: bool) -> Result<()> {
        if self.checked_at_commit && !values {
            return Ok(());
        }
        let mut keys = Vec::with_capacity(rows.len());
        for (row, handle) in rows {
            keys.extend(self.unique_keys(row, handle)?);
        }
        self.learn(keys.clone(), values).await?;
        if !values {
            return Ok(());
        }
        // The rows behind taken index entries will be read or changed.
        let mut behind = Vec::new();
        for key in &keys {
            if is_index_key(key)
                && let Some(value) = self.current(key)
                && let Some(handle) = self.handle_behind(key, &value)?
            {
                behind.push(row::row_key(self.table.id, &handle));
            }
        }
        self.learn(behind, true).await
    }

    /// Locks (pessimistic) or reads keys that are not known yet.
    async fn learn(&mut self, mut keys: Vec<Bytes>, values: bool) -> Result<()> {
        keys.retain(|key| !self.found.values.contains_key(key));
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return Ok(());
        }
        if self.txn.mode() == TxnMode::Pessimistic {
            let options = LockOptions {
                wait: LockWait::TimeoutMs(self.lock_wait_ms),
                return_values: values,
                check_existence: true,
                refresh_on_conflict: true,
            };
            let locked = self.txn.lock_keys(keys.clone(), options).await?;
            if values {
                let stored = |(key, locked): (Bytes, rutile_client::LockedValue)| (key, locked.value);
                self.found.values.extend(keys.into_iter().zip(locked).map(stored));
            }
            return Ok(());
        }
        let mut stored = self.txn.batch_get(keys.clone()).await?;
        self.found.values.extend(keys.into_iter().map(|key| {
            let value = stored.remove(&key);
            (key, value)
        }));
        Ok(())
    }

    /// What is under a key now: own writes first, then what was learnt.
    fn current(&self, key: &Bytes) -> Option<Bytes> {
        match self.txn.own_write(key) {
            Some(own) => own,
            None => self.found.values.get(key).cloned().flatten(),
        }
    }

    fn handle_behind(&self, key: &Bytes, value: &[u8]) -> Result<Option<Handle>> {
        let id = index_id_of(key);
        let Some(index) = self.table.indexes.iter().find(|i| Some(i.id.0) == id) else { return Ok(None) };
        index::handle_of_entry(self.table, index, key, value).map(Some)
    }

    /// The first unique key of a row that another row has; only what [`TableWriter::prepare`] learnt with values.
    pub fn conflict(&self, row: &[Datum], handle: &Handle) -> Result<Option<Conflict<'a>>> {
        if self.has_row_key() && self.current(&row::row_key(self.table.id, handle)).is_some() {
            return Ok(self.table.primary().map(|index| Conflict { index, handle: handle.clone() }));
        }
        self.index_conflict(row, handle)
    }

    /// As [`TableWriter::conflict`], leaving the row's own key out and entries that already belong to `handle`.
    fn index_conflict(&self, row: &[Datum], handle: &Handle) -> Result<Option<Conflict<'a>>> {
        for index in self.entry_indexes().filter(|i| i.unique && i.state.is_writable()) {
            let (key, distinct) = index::entry_key(self.eval, self.table, index, row, handle)?;
            if !distinct {
                continue;
            }
            if let Some(value) = self.current(&key) {
                let owner = index::handle_of_entry(self.table, index, &key, &value)?;
                if owner != *handle {
                    return Ok(Some(Conflict { index, handle: owner }));
                }
            }
        }
        Ok(None)
    }

    /// The row with this handle, which [`TableWriter::prepare`] has learnt or this transaction has written.
    pub async fn row_of(&mut self, handle: &Handle) -> Result<Option<Row>> {
        let key = row::row_key(self.table.id, handle);
        if self.txn.own_write(&key).is_none() {
            self.learn(vec![key.clone()], true).await?;
        }
        match self.current(&key) {
            Some(value) => row::decode_row(self.eval, self.table, handle, &value).map(Some),
            None => Ok(None),
        }
    }

    /// Inserts a row. `DupEntry` if a unique key is taken, as far as that is known now.
    pub fn insert(&self, row: &[Datum], handle: &Handle) -> Result<()> {
        let key = row::row_key(self.table.id, handle);
        let value = row::encode_row(self.eval, self.table, row)?;
        if self.has_row_key() {
            let primary = self.table.primary();
            self.put_unique(key, value, || match primary {
                Some(index) => index::duplicate(self.table, index, row),
                None => Error::internal("a clustered table has no primary key"),
            })?;
        } else {
            self.txn.put(key, value)?;
        }
        for index in self.entry_indexes().filter(|i| i.state.is_writable()) {
            let Entry { key, value, distinct } = index::entry(self.eval, self.table, index, row, handle)?;
            if distinct {
                self.put_unique(key, value, || index::duplicate(self.table, index, row))?;
            } else {
                self.txn.put(key, value)?;
            }
        }
        self.effects.changed_row(self.table.id, 1);
        Ok(())
    }

    /// Writes a key that no other row may have.
    fn put_unique(&self, key: Bytes, value: Bytes, duplicate: impl FnOnce() -> Error) -> Result<()> {
        if self.found.values.get(&key).is_some_and(Option::is_some) {
            // Taken in the store, unless this transaction has deleted it.
            if self.txn.own_write(&key) != Some(None) {
                return Err(duplicate());
            }
        }
        match self.txn.insert(key, value) {
            Err(rutile_client::Error::AlreadyExists { .. }) => Err(duplicate()),
            result => Ok(result?),
        }
    }

    /// Deletes a row and its entries.
    pub fn delete(&self, row: &[Datum], handle: &Handle) -> Result<()> {
        for index in self.entry_indexes() {
            let (key, _) = index::entry_key(self.eval, self.table, index, row, handle)?;
            self.txn.delete(key)?;
        }
        self.effects.changed_row(self.table.id, -1);
        Ok(self.txn.delete(row::row_key(self.table.id, handle))?)
    }

    /// Replaces a row by another version of it, which may have another primary key. Only entries that change are touched.
    pub fn update(
        &self,
        old: &[Datum],
        old_handle: &Handle,
        new: &[Datum],
        new_handle: &Handle,
    ) -> Result<()> {
        if old_handle != new_handle {
            self.delete(old, old_handle)?;
            return self.insert(new, new_handle);
        }
        for index in self.entry_indexes() {
            let (old_key, _) = index::entry_key(self.eval, self.table, index, old, old_handle)?;
            let entry = index::entry(self.eval, self.table, index, new, new_handle)?;
            let moved = old_key != entry.key;
            if moved {
                self.txn.delete(old_key)?;
            }
            if !index.state.is_writable() {
                continue;
            }
            if moved && entry.distinct {
                self.put_unique(entry.key, entry.value, || index::duplicate(self.table, index, new))?;
            } else if moved || self.is_restored_changed(index, old, new) || !index.state.is_public() {
                self.txn.put(entry.key, entry.value)?;
            }
        }
        self.effects.changed_row(self.table.id, 0);
        Ok(self
            .txn
            .put(row::row_key(self.table.id, new_handle), row::encode_row(self.eval, self.table, new)?)?)
    }

    /// Whether an entry's key stays but the values that it keeps aside change (`'a'` to `'A'`).
    fn is_restored_changed(&self, index: &IndexInfo, old: &[Datum], new: &[Datum]) -> bool {
        index.columns.iter().any(|p| index::is_restored(self.table, p) && old[p.offset] != new[p.offset])
    }

    /// Whether an update gives the row a unique key that it did not have.
    pub fn takes_unique_key(
        &self,
        old: &[Datum],
        old_handle: &Handle,
        new: &[Datum],
        new_handle: &Handle,
    ) -> Result<bool> {
        let before = self.unique_keys(old, old_handle)?;
        Ok(self.unique_keys(new, new_handle)?.iter().any(|key| !before.contains(key)))
    }

    /// From here on duplicates are looked for by [`TableWriter::prepare`]: rows that trade keys with each other cannot
    /// wait for the commit.
    pub fn check_now(&mut self) {
        self.checked_at_commit = false;
    }
}

/// Whether the store alone finds duplicates: nobody asks before the commit.
fn is_checked_at_commit(txn: &StatementTxn) -> bool {
    !txn.is_pessimistic() && !txn.is_explicit()
}

fn is_index_key(key: &[u8]) -> bool {
    key.get(PREFIX_LEN - 2..PREFIX_LEN) == Some(&INDEX_MARK[..])
}

fn index_id_of(key: &[u8]) -> Option<i64> {
    is_index_key(key).then(|| codec::decode_i64(&mut key.get(PREFIX_LEN..)?).ok()).flatten()
}

/// The error of a commit that found `key` taken: names the entry as the transaction was to write it, or, where that is not
/// known any more, as the row that has it spells it.
pub async fn duplicate_of_key(
    schema: &InfoSchema,
    client: &Client,
    eval: &EvalContext,
    key: &Bytes,
    txn: Option<&Transaction>,
) -> Error {
    let unnamed = || Error::DupEntry { entry: hex::encode(key), key: "?".to_owned() };
    let own = txn.and_then(|txn| txn.own_write(key)).flatten();
    duplicate_in(schema, client, eval, key, own).await.ok().flatten().unwrap_or_else(unnamed)
}

async fn duplicate_in(
    schema: &InfoSchema,
    client: &Client,
    eval: &EvalContext,
    key: &Bytes,
    own: Option<Bytes>,
) -> Result<Option<Error>> {
    let Some(mut id) = key.strip_prefix(&[TABLE_PREFIX]) else { return Ok(None) };
    let Ok(id) = codec::decode_i64(&mut id) else { return Ok(None) };
    let Some((_, table)) = schema.table_by_id(TableId(id)) else { return Ok(None) };
    let value = match own {
        Some(value) => value,
        None => match client.snapshot(rutile_client::Timestamp::MAX).get(key).await? {
            Some(value) => value,
            None => return Ok(None),
        },
    };
    let (index, row) = if key.get(PREFIX_LEN - 2..PREFIX_LEN) == Some(&ROW_MARK[..]) {
        let handle = row::handle_of_row_key(table, key)?;
        (table.primary(), row::decode_row(eval, table, &handle, &value)?)
    } else {
        let index = table.indexes.iter().find(|i| Some(i.id.0) == index_id_of(key));
        let Some(index) = index else { return Ok(None) };
        let mut row = vec![Datum::Null; table.columns.len()];
        let values = index::values_of_entry(table, index, key, &value)?;
        for (part, value) in index.columns.iter().zip(values) {
            row[part.offset] = super::constraint::from_storage(eval, value, &table.columns[part.offset].ty);
        }
        (Some(index), row)
    };
    Ok(index.map(|index| index::duplicate(table, index, &row)))
}
