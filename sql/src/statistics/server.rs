//! The statistics one server knows: what tables were found to hold when they were analyzed, and how many rows they have by now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use rutile_client::Client;

use super::TableStats;
use super::store::{self, Counts, StoredStats};
use crate::Result;
use crate::catalog::model::{IndexInfo, TableId, TableInfo};

/// What a statement did to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub table: TableId,
    /// Rows inserted less rows deleted.
    pub rows: i64,
    /// Rows inserted, changed and deleted.
    pub modified: u64,
}

/// One server's statistics of all tables.
#[derive(Debug, Default)]
pub struct Statistics {
    tables: DashMap<TableId, Entry>,
    /// What this server's commits changed and the cluster does not know yet.
    pending: Mutex<ahash::AHashMap<TableId, Counts>>,
    /// Grows whenever a table's statistics become others: plans made before may be bad ones now.
    generation: AtomicU64,
    /// The newest analysis this server has seen.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct Entry {
    stored: Option<Arc<StoredStats>>,
    counts: Option<Counts>,
    /// What `stored` and `counts` say of the table in this version of its definition.
    built: Option<(i64, Arc<TableStats>)>,
}

impl Entry {
    fn build(&mut self, table: &TableInfo, pending: Counts) -> Arc<TableStats> {
        let counts = self.counts.map(|counts| added(counts, pending)).or(match pending {
            Counts { rows: 0, modified: 0 } => None,
            pending => Some(added(Counts::default(), pending)),
        });
        let rows = counts.map(|counts| counts.rows as f64);
        let known = match (&self.built, &self.stored) {
            (Some((version, stats)), Some(stored))
                if *version == table.version && stats.version == stored.version =>
            {
                Some(Arc::clone(stats))
            }
            (_, Some(stored)) => Some(Arc::new(stored.stats(table))),
            (_, None) => None,
        };
        let stats = match (known, counts) {
            (Some(stats), Some(counts)) => stats.scaled(counts.rows as f64, counts.modified as f64),
            (Some(stats), None) => stats.scaled(stats.analyzed_rows, 0.0),
            (None, _) => TableStats::guess(rows),
        };
        let stats = Arc::new(stats);
        self.built = Some((table.version, Arc::clone(&stats)));
        stats
    }
}

fn added(counts: Counts, change: Counts) -> Counts {
    Counts { rows: (counts.rows + change.rows).max(0), modified: counts.modified + change.modified }
}

impl Statistics {
    /// What is known of a table; guesses if nothing is.
    pub fn of(&self, table: &TableInfo) -> Arc<TableStats> {
        match self.tables.get(&table.id) {
            None => return Arc::new(TableStats::guess(None)),
            Some(entry) => {
                if let Some((version, stats)) = &entry.built
                    && *version == table.version
                {
                    return Arc::clone(stats);
                }
            }
        }
        let pending = self.pending_of(table.id);
        self.tables.entry(table.id).or_default().build(table, pending)
    }

    fn pending_of(&self, table: TableId) -> Counts {
        self.pending.lock().get(&table).copied().unwrap_or_default()
    }

    /// Rows of a table, if they have been counted, and how many of them were changed since it was analyzed.
    pub fn counts(&self, table: TableId) -> Option<Counts> {
        let known = self.tables.get(&table).and_then(|entry| entry.counts);
        let pending = self.pending.lock().get(&table).copied();
        match (known, pending) {
            (None, None) => None,
            (known, pending) => Some(added(known.unwrap_or_default(), pending.unwrap_or_default())),
        }
    }

    /// Different values of an index's first columns up to the one at `position`; 0 if nobody has looked.
    pub fn cardinality(&self, table: &TableInfo, index: &IndexInfo, position: usize) -> u64 {
        let stats = self.of(table);
        stats.indexes.get(&index.id).and_then(|ndvs| ndvs.get(position)).map_or(0, |ndv| ndv.round() as u64)
    }

    /// Grows whenever a table's statistics become others.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Notes what a commit changed.
    pub fn note(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let mut pending = self.pending.lock();
        for change in changes {
            let counts = pending.entry(change.table).or_default();
            counts.rows += change.rows;
            counts.modified += change.modified;
        }
    }

    /// Replaces what is known of a table.
    pub fn install(&self, table: TableId, stored: StoredStats) {
        let mut entry = self.tables.entry(table).or_default();
        entry.counts = Some(Counts { rows: stored.rows.round() as i64, modified: 0 });
        entry.stored = Some(Arc::new(stored));
        entry.built = None;
        drop(entry);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// What was found when a table was analyzed.
    pub fn stored(&self, table: TableId) -> Option<StoredStats> {
        self.tables.get(&table)?.stored.as_deref().cloned()
    }

    /// Replaces what was found, of the same rows.
    pub fn replace(&self, table: TableId, stored: StoredStats) {
        let mut entry = self.tables.entry(table).or_default();
        entry.stored = Some(Arc::new(stored));
        entry.built = None;
        drop(entry);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Learns everything the cluster knows.
    pub async fn load(&self, client: &Client) -> Result<()> {
        let version = store::version(client).await?;
        let snapshot = client.snapshot(client.timestamp().await?);
        let mut others = false;
        for (table, stored) in store::tables(&snapshot).await? {
            let mut entry = self.tables.entry(table).or_default();
            if entry.stored.as_ref().is_none_or(|known| !known.same(&stored)) {
                entry.stored = Some(Arc::new(stored));
                entry.built = None;
                others = true;
            }
        }
        self.version.store(version, Ordering::Release);
        if others {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        self.load_counts(client).await.map(|_| ())
    }

    /// Learns of analyses of other servers, if there were any.
    pub async fn refresh(&self, client: &Client) -> Result<()> {
        match store::version(client).await? == self.version.load(Ordering::Acquire) {
            true => Ok(()),
            false => self.load(client).await,
        }
    }

    /// Learns how many rows tables have; answers for which the cluster knows it.
    pub async fn load_counts(&self, client: &Client) -> Result<Vec<TableId>> {
        let snapshot = client.snapshot(client.timestamp().await?);
        let counts = store::counts(&snapshot).await?;
        for (table, counts) in &counts {
            let mut entry = self.tables.entry(*table).or_default();
            if entry.counts != Some(*counts) {
                entry.counts = Some(*counts);
                self.rescale(&mut entry, *table);
            }
        }
        Ok(counts.into_iter().map(|(table, _)| table).collect())
    }

    /// The known statistics for the present number of rows.
    fn rescale(&self, entry: &mut Entry, table: TableId) {
        let Some((version, stats)) = entry.built.take() else { return };
        let counts = entry.counts.map(|counts| added(counts, self.pending_of(table)));
        let stats = match counts {
            Some(counts) if stats.is_guess() => TableStats::guess(Some(counts.rows as f64)),
            Some(counts) => stats.scaled(counts.rows as f64, counts.modified as f64),
            None => return,
        };
        entry.built = Some((version, Arc::new(stats)));
    }

    /// Takes this server's own changes into account, without telling the cluster.
    pub fn rescale_changed(&self) {
        let changed: Vec<TableId> = self.pending.lock().keys().copied().collect();
        for table in changed {
            let mut entry = self.tables.entry(table).or_default();
            self.rescale(&mut entry, table);
        }
    }

    /// Tells the cluster what this server's commits changed.
    pub async fn flush(&self, client: &Client) -> Result<()> {
        let changes: Vec<(TableId, Counts)> = self.pending.lock().drain().collect();
        if changes.is_empty() {
            return Ok(());
        }
        if let Err(error) = store::add(client, &changes).await {
            // Unless the result is unknown they are told again.
            if error != crate::Error::ResultUndetermined {
                for (table, counts) in changes {
                    let Counts { rows, modified } = counts;
                    self.note(&[Change { table, rows, modified }]);
                }
            }
            return Err(error);
        }
        for (table, change) in changes {
            let mut entry = self.tables.entry(table).or_default();
            entry.counts = Some(added(entry.counts.unwrap_or_default(), change));
        }
        Ok(())
    }

    /// Forgets tables that are gone.
    pub fn forget(&self, tables: &[TableId]) {
        for table in tables {
            self.tables.remove(table);
            self.pending.lock().remove(table);
        }
    }
}
