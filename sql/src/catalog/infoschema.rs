//! The catalog of one server: a cached snapshot of everything, how it is changed, and how it learns of others' changes.
//!
//! A change is decided by a pure function from the current snapshot to a list of [`Change`]s and written in one optimistic
//! transaction together with the next schema version. Every change writes the version's key, so two never overlap: the
//! later one conflicts, refreshes and decides again. A server looks at the version every [`REFRESH_MS`], and more often while a
//! table is being changed in steps: each step waits until every server has come along ([`super::servers`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rutile_client::{Client, KeyRange, Timestamp, TxnMode, TxnOptions};
use tokio_util::sync::CancellationToken;

use super::bootstrap;
use super::meta::{self, DroppedTable, Meta};
use super::model::{Change, InfoSchema, TableChange, TableId};
use super::servers::Membership;
use super::system_tables;
use super::usage::{TransactionSchema, Usage};
use crate::{Error, Result};

/// How often a server looks whether another one changed the schema.
const REFRESH_MS: u64 = 500;
/// Conflicts with other changes before giving up.
const ATTEMPTS_MAX: usize = 30;
/// How long a dropped table's data stays, for transactions that still read it.
const DROPPED_STAYS_MS: i64 = 60_000;
/// As [`REFRESH_MS`], while a table is being changed.
const REFRESH_CHANGING_MS: u64 = 10;
/// How often, while a table is being changed, whether the server that does so still lives.
const RECOVER_MS: u64 = 2_000;

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
    usage: Arc<Usage>,
    membership: Membership,
    next_job: AtomicU64,
    /// When `current` got its version.
    installed: Mutex<Instant>,
    /// One change at a time within this server; others are kept apart by write conflicts.
    changing: tokio::sync::Mutex<()>,
    stop: CancellationToken,
}

impl Catalog {
    /// Loads the catalog, creating it in an empty cluster, and keeps it current until [`Catalog::stop`].
    pub async fn start(client: Client) -> Result<Arc<Catalog>> {
        let catalog = Arc::new(Catalog {
            membership: Membership::new(client.clone()),
            client,
            current: RwLock::new(Arc::new(InfoSchema::default())),
            installed: Mutex::new(Instant::now()),
            usage: Arc::default(),
            next_job: AtomicU64::new(1),
            changing: tokio::sync::Mutex::new(()),
            stop: CancellationToken::new(),
        });
        // From here on changes wait for this server, which then loads what is there.
        catalog.membership.announce(0).await?;
        catalog.reload().await?;
        if catalog.snapshot().version() == 0 {
            bootstrap::create(&catalog).await?;
        }
        catalog.announce().await?;
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

    /// [`Catalog::refresh`]; whether that brought a newer schema.
    pub async fn learn(&self) -> Result<bool> {
        let known = self.snapshot().version();
        self.refresh().await?;
        Ok(self.snapshot().version() > known)
    }

    /// The schema as it was at `ts`, of the tables that are still there: of the others nothing is kept.
    pub async fn past(&self, ts: Timestamp) -> Result<Arc<InfoSchema>> {
        let snapshot = self.client.snapshot(ts);
        let current = self.snapshot();
        if meta::newest_version(&snapshot).await? == current.version() {
            return Ok(current);
        }
        let loaded = meta::load(&snapshot).await?;
        let stored = loaded.databases.into_iter().map(|(info, tables)| {
            let tables = tables.into_iter().filter(|table| current.table_by_id(table.id).is_some());
            (info, tables.map(Arc::new).collect())
        });
        let databases = system_tables::databases().chain(stored);
        Ok(Arc::new(InfoSchema::new(super::usage::private_version(), databases)))
    }

    /// For how long this server has known the present version of the schema.
    pub fn unchanged_for(&self) -> Duration {
        self.installed.lock().elapsed()
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
        if schema.version() > current.version() {
            *self.installed.lock() = Instant::now();
        }
        let old = std::mem::replace(&mut *current, Arc::new(schema));
        self.usage.retire(&old);
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

    /// A transaction begins to use the schema.
    pub fn begin_transaction(&self) -> TransactionSchema {
        self.usage.begin(&self.snapshot())
    }

    /// Fails when this server must not commit any more: others may have gone on without it.
    pub fn check_lease(&self) -> Result<()> {
        self.membership.check_lease()
    }

    /// A new change of a table, of this server.
    pub fn new_change(&self, frozen: bool) -> TableChange {
        TableChange {
            server: self.membership.id(),
            job: self.next_job.fetch_add(1, Ordering::Relaxed),
            frozen,
        }
    }

    /// Waits until nobody, in this server or another, uses an older definition of the table than the newest.
    pub async fn wait_for_users(&self, table: TableId, timeout: Duration) -> Result<()> {
        let version = self.snapshot().table_by_id(table).map(|(_, info)| info.version);
        let version = version.ok_or(Error::SchemaChanged)?;
        self.membership.wait_for(&self.usage, table, version, timeout).await
    }

    /// Tells the other servers how old the oldest schema in use here is.
    async fn announce(&self) -> Result<()> {
        self.membership.announce(self.usage.oldest(&self.snapshot())).await
    }

    async fn keep_current(self: Arc<Self>) {
        let mut recovered = Instant::now();
        loop {
            let changing = self.snapshot().all_tables().any(|(_, table)| table.change.is_some());
            let pause_ms = if changing { REFRESH_CHANGING_MS } else { REFRESH_MS };
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "the schema version cannot be read");
            } else if let Err(error) = self.announce().await {
                tracing::warn!(%error, "this server's lease cannot be renewed");
            }
            if changing && recovered.elapsed() > Duration::from_millis(RECOVER_MS) {
                recovered = Instant::now();
                if let Err(error) = self.undo_abandoned().await {
                    tracing::warn!(%error, "an abandoned schema change cannot be undone");
                }
            }
        }
        if let Err(error) = self.membership.leave().await {
            tracing::debug!(%error, "the server's entry stays until its lease is over");
        }
    }

    /// Undoes changes of tables whose servers are gone.
    async fn undo_abandoned(&self) -> Result<()> {
        let live = self.membership.live().await?;
        let abandoned = |change: &TableChange| live.iter().all(|(id, _)| *id != change.server);
        if !self.snapshot().all_tables().any(|(_, table)| table.change.as_ref().is_some_and(abandoned)) {
            return Ok(());
        }
        self.change(|schema, _| {
            let mut changes = Vec::new();
            for (database, table) in schema.all_tables() {
                if table.change.as_ref().is_some_and(abandoned) {
                    let (info, dropped) = table.without_change();
                    changes.push(Change::PutTable(database.id, Arc::new(info)));
                    changes.extend(dropped.into_iter().map(|index| Change::DropIndexData(table.id, index)));
                }
            }
            Ok(changes)
        })
        .await?;
        Ok(())
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
