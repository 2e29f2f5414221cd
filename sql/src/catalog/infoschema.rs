//! The catalog of one server: a cached snapshot of everything, how it is changed, and how it learns of others' changes.
//!
//! A change is decided by a pure function from the current snapshot to a list of [`Change`]s and written in one optimistic
//! transaction together with the next schema version. Every change writes the version's key, so two never overlap: the
//! later one conflicts, refreshes and decides again. A server looks at the version every [`REFRESH_MS`].

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rutile_client::{Client, KeyRange, Timestamp, TxnMode, TxnOptions};
use tokio_util::sync::CancellationToken;

use super::bootstrap;
use super::meta::{self, DroppedTable, Meta};
use super::model::{Change, InfoSchema};
use super::system_tables;
use crate::{Error, Result};

/// How often a server looks whether another one changed the schema.
const REFRESH_MS: u64 = 500;
/// Conflicts with other changes before giving up.
const ATTEMPTS_MAX: usize = 30;
/// How long a dropped table's data stays, for transactions that still read it.
const DROPPED_STAYS_MS: i64 = 60_000;
/// How often old snapshots are looked at while a change waits for their users.
const WAIT_STEP_MS: u64 = 5;

/// Gives out ids for new databases and tables while a change is decided.
pub struct Ids {
    last: i64,
}

impl Ids {
    /// A fresh id.
    pub fn next_id(&mut self) -> i64 {
        self.last += 1;
        self.last
    }

    /// Leaves out what is below an id.
    pub fn skip_to(&mut self, id: i64) {
        self.last = self.last.max(id - 1);
    }
}

/// The catalog as one server sees it.
pub struct Catalog {
    client: Client,
    current: RwLock<Arc<InfoSchema>>,
    /// Earlier snapshots that statements or transactions may still use.
    old: Mutex<Vec<Weak<InfoSchema>>>,
    /// One change at a time within this server; others are kept apart by write conflicts.
    changing: tokio::sync::Mutex<()>,
    stop: CancellationToken,
}

impl Catalog {
    /// Loads the catalog, creating it in an empty cluster, and keeps it current until [`Catalog::stop`].
    pub async fn start(client: Client) -> Result<Arc<Catalog>> {
        let catalog = Arc::new(Catalog {
            client,
            current: RwLock::new(Arc::new(InfoSchema::default())),
            old: Mutex::new(Vec::new()),
            changing: tokio::sync::Mutex::new(()),
            stop: CancellationToken::new(),
        });
        catalog.reload().await?;
        if catalog.snapshot().version() == 0 {
            bootstrap::create(&catalog).await?;
        }
        tokio::spawn(Arc::clone(&catalog).keep_current());
        tokio::spawn(Arc::clone(&catalog).remove_dropped());
        Ok(catalog)
    }

    /// Ends the background work.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// The newest snapshot this server knows.
    pub fn snapshot(&self) -> Arc<InfoSchema> {
        Arc::clone(&self.current.read())
    }

    /// The cluster.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Loads everything if the stored version is another one than ours.
    pub async fn refresh(&self) -> Result<()> {
        let newest = meta::newest_version(&self.client.snapshot(Timestamp::MAX)).await?;
        if newest != self.snapshot().version() { self.reload().await } else { Ok(()) }
    }

    async fn reload(&self) -> Result<()> {
        let snapshot = self.client.snapshot(self.client.timestamp().await?);
        let loaded = meta::load(&snapshot).await?;
        let stored = loaded.databases.into_iter().map(|(info, tables)| {
            let tables = tables.into_iter().map(Arc::new).collect();
            (info, tables)
        });
        self.install(InfoSchema::new(loaded.version, system_tables::databases().chain(stored)));
        Ok(())
    }

    /// Makes a snapshot current unless a newer one already is.
    fn install(&self, schema: InfoSchema) {
        let mut current = self.current.write();
        if schema.version() < current.version() {
            return;
        }
        let old = std::mem::replace(&mut *current, Arc::new(schema));
        let mut olds = self.old.lock();
        olds.retain(|weak| weak.strong_count() > 0);
        olds.push(Arc::downgrade(&old));
    }

    /// Changes the schema. `decide` may run several times, each time on the newest snapshot; an empty list changes nothing.
    pub async fn change(
        &self,
        mut decide: impl FnMut(&InfoSchema, &mut Ids) -> Result<Vec<Change>>,
    ) -> Result<Arc<InfoSchema>> {
        let _changing = self.changing.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let options = TxnOptions { mode: TxnMode::Optimistic, ..TxnOptions::default() };
            let txn = self.client.begin(options).await?;
            let meta = Meta::new(&txn).await?;
            let version = meta.version().await?;
            if version != self.snapshot().version() {
                txn.rollback().await?;
                self.reload().await?;
                continue;
            }
            let schema = self.snapshot();
            let first_id = meta.last_id().await?;
            let mut ids = Ids { last: first_id };
            let changes = match decide(&schema, &mut ids) {
                Ok(changes) => changes,
                Err(error) => {
                    txn.rollback().await?;
                    return Err(error);
                }
            };
            if changes.is_empty() {
                txn.rollback().await?;
                return Ok(schema);
            }
            let version = version + 1;
            let changes = stamp(changes, version);
            let dropped = write(&meta, &schema, &changes)?;
            if ids.last != first_id {
                meta.set_last_id(ids.last)?;
            }
            meta.set_version(version)?;
            match txn.commit().await {
                Ok(_) => {
                    self.install(schema.with_changes(version, &changes));
                    self.schedule(dropped);
                    return Ok(self.snapshot());
                }
                Err(
                    rutile_client::Error::WriteConflict { .. } | rutile_client::Error::KeyIsLocked { .. },
                ) => {
                    self.refresh().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::SchemaChanged)
    }

    /// Waits until nobody in this server uses a snapshot older than the current one, except the caller with its own.
    pub async fn wait_for_old_snapshots(&self, own: &Arc<InfoSchema>, timeout: Duration) -> Result<()> {
        let current = self.snapshot().version();
        let own_is_old = own.version() < current;
        let waiting = async {
            loop {
                let used = self.old.lock().iter().filter_map(Weak::upgrade).any(|schema| {
                    // One for the reference just made, one for the caller's statement.
                    let expected = 1 + usize::from(own_is_old && Arc::ptr_eq(&schema, own));
                    schema.version() < current && Arc::strong_count(&schema) > expected
                });
                if !used {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(WAIT_STEP_MS)).await;
            }
        };
        tokio::time::timeout(timeout, waiting).await.map_err(|_| Error::LockWaitTimeout)
    }

    async fn keep_current(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(REFRESH_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "the schema version cannot be read");
            }
        }
    }

    /// Removes what was dropped before this server started.
    async fn remove_dropped(self: Arc<Self>) {
        let dropped = async {
            let snapshot = self.client.snapshot(self.client.timestamp().await?);
            meta::dropped_tables(&snapshot).await
        };
        match dropped.await {
            Ok(dropped) => self.schedule(dropped),
            Err(error) => tracing::warn!(%error, "the list of dropped tables cannot be read"),
        }
    }

    /// Removes data of dropped tables once nobody can read it any more.
    fn schedule(&self, dropped: Vec<DroppedTable>) {
        if dropped.is_empty() {
            return;
        }
        let client = self.client.clone();
        let stop = self.stop.clone();
        tokio::spawn(async move {
            for dropped in dropped {
                let wait_ms = (dropped.dropped_ms + DROPPED_STAYS_MS - now_ms()).clamp(0, DROPPED_STAYS_MS);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(wait_ms as u64)) => {}
                }
                if let Err(error) = destroy(&client, &dropped).await {
                    tracing::warn!(%error, table = dropped.table.0, "a dropped table's data stays until the next start");
                }
            }
        });
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// Gives every changed table the version that changes it.
fn stamp(changes: Vec<Change>, version: i64) -> Vec<Change> {
    changes
        .into_iter()
        .map(|change| match change {
            Change::PutTable(database, table) => {
                let mut table = Arc::unwrap_or_clone(table);
                table.version = version;
                Change::PutTable(database, Arc::new(table))
            }
            other => other,
        })
        .collect()
}

/// Writes changes into a transaction; gives what data is to be removed.
fn write(meta: &Meta<'_>, schema: &InfoSchema, changes: &[Change]) -> Result<Vec<DroppedTable>> {
    let dropped_ms = now_ms();
    let mut dropped = Vec::new();
    for change in changes {
        match change {
            Change::PutDatabase(info) => meta.put_database(info)?,
            Change::DropDatabase(id) => {
                meta.delete_database(*id)?;
                if let Some(entry) = schema.databases().find(|entry| entry.info.id == *id) {
                    for table in entry.tables.values() {
                        meta.delete_table(*id, table.id)?;
                        dropped.push(DroppedTable { table: table.id, index: None, dropped_ms });
                    }
                }
            }
            Change::PutTable(database, table) => meta.put_table(*database, table)?,
            Change::DropTable(database, table) => {
                meta.delete_table(*database, *table)?;
                dropped.push(DroppedTable { table: *table, index: None, dropped_ms });
            }
            Change::ForgetTable(database, table) => meta.delete_table(*database, *table)?,
            Change::DropIndexData(table, index) => {
                dropped.push(DroppedTable { table: *table, index: Some(index.0), dropped_ms });
            }
        }
    }
    dropped.iter().try_for_each(|dropped| meta.put_dropped(dropped))?;
    Ok(dropped)
}

/// Removes the keys of a dropped table from every store.
async fn destroy(client: &Client, dropped: &DroppedTable) -> Result<()> {
    client.unsafe_destroy_range(&KeyRange::prefix(&dropped.key_prefix())).await?;
    let txn = client.begin(TxnOptions { mode: TxnMode::Optimistic, ..TxnOptions::default() }).await?;
    Meta::new(&txn).await?.delete_dropped(dropped)?;
    txn.commit().await?;
    Ok(())
}
