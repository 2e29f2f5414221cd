//! Adding an index while the table is in use, after F1: delete-only, write-only, write-reorganization, public.
//!
//! Before each step, everyone in any server who works with the state before the last must be done, so that at any time only
//! neighbouring states are in use. Rows that were there before are filled in by small optimistic transactions that also check the
//! rows' keys: a row changed meanwhile makes the batch conflict and run again. A failure takes the index away again.

use std::time::Duration;

use rutile_client::{Client, KeyRange, LockOptions, ScanOptions, TxnMode, TxnOptions};
use std::sync::Arc;

use crate::catalog::infoschema::Catalog;
use crate::catalog::model::{Change, IndexId, InfoSchema, SchemaState, TableId, TableInfo};
use crate::context::StatementContext;
use crate::parser::ast::IndexDef;
use crate::table::{index as entries, row};
use crate::{Error, Result};

use super::alter::push_index;

/// Rows per transaction of the filling.
const BATCH_ROWS: usize = 256;
/// How often a batch is run again after conflicts.
const ATTEMPTS_MAX: usize = 100;

/// Whether a table has no row.
pub async fn is_empty(client: &Client, table: &TableInfo) -> Result<bool> {
    let snapshot = client.snapshot(client.timestamp().await?);
    let options = ScanOptions { limit: Some(1), key_only: true, ..ScanOptions::default() };
    let mut scanner = snapshot.scan(row::row_range(table.id), options);
    Ok(scanner.next_page().await?.is_none_or(|page| page.is_empty()))
}

/// Adds an index to a table that has rows.
///
/// `last`: the change of the table ends with it.
pub async fn add(
    table: TableId,
    def: &IndexDef,
    last: bool,
    ctx: &StatementContext,
    catalog: &Catalog,
) -> Result<()> {
    let mut index = IndexId(0);
    catalog
        .change(|schema, _| {
            edit(schema, table, |info| {
                index = push_index(info, def)?;
                set_state(info, index, SchemaState::DeleteOnly)
            })
        })
        .await?;
    match fill(table, index, last, ctx, catalog).await {
        Ok(()) => Ok(()),
        Err(error) => {
            take_away(table, index, catalog).await?;
            Err(error)
        }
    }
}

async fn fill(
    table: TableId,
    index: IndexId,
    last: bool,
    ctx: &StatementContext,
    catalog: &Catalog,
) -> Result<()> {
    step(table, index, SchemaState::WriteOnly, false, ctx, catalog).await?;
    step(table, index, SchemaState::WriteReorganization, false, ctx, catalog).await?;
    let schema = catalog.snapshot();
    let info = schema.table_by_id(table).map(|(_, info)| Arc::clone(info)).ok_or(Error::SchemaChanged)?;
    drop(schema);
    backfill(&info, index, ctx, catalog.client()).await?;
    step(table, index, SchemaState::Public, last, ctx, catalog).await
}

/// Waits until the state before is everyone's, then goes on to the next.
async fn step(
    table: TableId,
    index: IndexId,
    state: SchemaState,
    last: bool,
    ctx: &StatementContext,
    catalog: &Catalog,
) -> Result<()> {
    let timeout = Duration::from_millis(ctx.settings.lock_wait_timeout_ms);
    catalog.wait_for_users(table, timeout).await?;
    ctx.check_cancelled()?;
    catalog
        .change(|schema, _| {
            edit(schema, table, |info| {
                if last {
                    info.change = None;
                }
                set_state(info, index, state)
            })
        })
        .await?;
    Ok(())
}

/// A change of one table's description.
fn edit(
    schema: &InfoSchema,
    table: TableId,
    change: impl FnOnce(&mut TableInfo) -> Result<()>,
) -> Result<Vec<Change>> {
    let (database, info) = schema.table_by_id(table).ok_or(Error::SchemaChanged)?;
    let mut info = TableInfo::clone(info);
    change(&mut info)?;
    Ok(vec![Change::PutTable(database.id, Arc::new(info))])
}

fn set_state(table: &mut TableInfo, index: IndexId, state: SchemaState) -> Result<()> {
    let found = table.indexes.iter_mut().find(|info| info.id == index).ok_or(Error::SchemaChanged)?;
    Arc::make_mut(found).state = state;
    Ok(())
}

async fn take_away(table: TableId, index: IndexId, catalog: &Catalog) -> Result<()> {
    catalog
        .change(|schema, _| {
            let Some((database, info)) = schema.table_by_id(table) else { return Ok(Vec::new()) };
            let mut info = TableInfo::clone(info);
            info.indexes.retain(|other| other.id != index);
            Ok(vec![Change::PutTable(database.id, Arc::new(info)), Change::DropIndexData(table, index)])
        })
        .await?;
    Ok(())
}

/// Writes the entries of all rows.
async fn backfill(table: &TableInfo, index: IndexId, ctx: &StatementContext, client: &Client) -> Result<()> {
    let mut range = row::row_range(table.id);
    let mut attempts = 0;
    while !range.is_empty() {
        ctx.check_cancelled()?;
        match batch(table, index, &range, ctx, client).await {
            Ok(Some(next)) => {
                range.start = next;
                attempts = 0;
            }
            Ok(None) => return Ok(()),
            Err(Error::WriteConflict { .. }) if attempts < ATTEMPTS_MAX => attempts += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes the entries of the first rows of a range; gives where the next batch begins.
async fn batch(
    table: &TableInfo,
    index: IndexId,
    range: &KeyRange,
    ctx: &StatementContext,
    client: &Client,
) -> Result<Option<bytes::Bytes>> {
    let info = table.indexes.iter().find(|info| info.id == index).ok_or(Error::SchemaChanged)?;
    let txn = client.begin(TxnOptions { mode: TxnMode::Optimistic, ..TxnOptions::default() }).await?;
    let options = ScanOptions { limit: Some(BATCH_ROWS), ..ScanOptions::default() };
    let pairs = txn.scan(range.clone(), options).await?.collect().await?;
    let Some(last) = pairs.last() else {
        txn.rollback().await?;
        return Ok(None);
    };
    let mut next = last.key.to_vec();
    next.push(0);
    let mut rows = Vec::with_capacity(pairs.len());
    for pair in &pairs {
        let handle = row::handle_of_row_key(table, &pair.key)?;
        let values = row::decode_row(&ctx.eval, table, &handle, &pair.value)?;
        let entry = entries::entry(&ctx.eval, table, info, &values, &handle)?;
        rows.push((entry, values));
    }
    let keys = rows.iter().filter(|(entry, _)| entry.distinct).map(|(entry, _)| entry.key.clone()).collect();
    let taken = txn.batch_get(keys).await?;
    for (entry, values) in &rows {
        let other = taken.get(&entry.key).cloned().or_else(|| txn.own_write(&entry.key).flatten());
        match other {
            Some(value) if entry.distinct && value != entry.value => {
                return Err(entries::duplicate(table, info, values));
            }
            Some(_) if entry.distinct => {}
            _ => txn.put(entry.key.clone(), entry.value.clone())?,
        }
    }
    txn.lock_keys(pairs.iter().map(|pair| pair.key.clone()).collect(), LockOptions::default()).await?;
    txn.commit().await?;
    Ok(Some(next.into()))
}
