//! What keeps a server's statistics current: one task that writes down what was counted, learns what other servers found, and
//! analyzes tables of which much has changed; and analysis itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rutile_client::Client;
use tokio_util::sync::CancellationToken;

use super::build::{self, ShownBuckets};
use super::sample;
use super::server::Statistics;
use super::store::{self, StoredStats};
use crate::catalog::Catalog;
use crate::catalog::model::{ColumnId, TableId, TableInfo, TableKind};
use crate::{Error, Result};

/// How often a server looks whether another one analyzed a table.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two writes of what was counted.
const FLUSH_TICKS: u32 = 5;
/// Ticks between two looks at what others counted.
const COUNTS_TICKS: u32 = 10;
/// A table is not analyzed by itself more often.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How long the right to analyze tables is kept without being renewed.
const OWNER_LEASE_MS: u64 = 30_000;
/// Time the last write takes, at most, when the server stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// When tables are analyzed without being asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AutoAnalyze {
    pub enabled: bool,
    /// Rows changed since the last time, as a share of those there were.
    pub ratio: f64,
    /// Smaller tables are left alone.
    pub rows_min: u64,
}

/// Looks at a table and keeps what is found. `shown` adds histograms for people to those that columns already have.
pub async fn analyze(
    client: &Client,
    statistics: &Statistics,
    table: &Arc<TableInfo>,
    shown: &ShownBuckets,
) -> Result<()> {
    // What was counted before is not to be added to what is counted now.
    statistics.flush(client).await?;
    let known = statistics.of(table);
    let mut wanted: ShownBuckets =
        known.columns.iter().filter_map(|(id, column)| Some((*id, column.shown.as_ref()?.buckets))).collect();
    wanted.extend(shown);
    let counted = statistics.counts(table.id).map(|counts| counts.rows as f64);
    let sample = sample::read(client, table, counted).await?;
    let info = Arc::clone(table);
    let built = tokio::task::spawn_blocking(move || build::table(&info, &sample, &wanted));
    let stats = built.await.map_err(|error| Error::internal(format!("statistics: {error}")))??;
    let stored = StoredStats::of(&stats);
    store::put(client, table.id, &stored, true).await?;
    statistics.install(table.id, stored);
    Ok(())
}

/// Takes columns' histograms for people away; answers for which there were some.
pub async fn drop_histograms(
    client: &Client,
    statistics: &Statistics,
    table: &TableInfo,
    columns: &[ColumnId],
) -> Result<Vec<ColumnId>> {
    let Some(mut stored) = statistics.stored(table.id) else { return Ok(Vec::new()) };
    let dropped: Vec<ColumnId> =
        columns.iter().copied().filter(|column| stored.drop_histogram(*column)).collect();
    if !dropped.is_empty() {
        store::put(client, table.id, &stored, false).await?;
        statistics.replace(table.id, stored);
    }
    Ok(dropped)
}

/// The task.
pub struct Worker {
    pub client: Client,
    pub catalog: Arc<Catalog>,
    pub statistics: Arc<Statistics>,
    /// This server among the others.
    pub server: u64,
    /// When each table was last analyzed here.
    pub analyzed: HashMap<TableId, Instant>,
}

impl Worker {
    /// Works until the server stops; then writes what is left to be written.
    pub async fn run(mut self, settings: impl Fn() -> AutoAnalyze, stop: CancellationToken) {
        let mut tick = 0u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(TICK) => {}
            }
            tick = tick.wrapping_add(1);
            tokio::select! {
                () = stop.cancelled() => break,
                done = self.turn(tick, settings()) => {
                    if let Err(error) = done {
                        tracing::info!(%error, "statistics wait for their next turn");
                    }
                }
            }
        }
        let _ = tokio::time::timeout(FAREWELL, self.statistics.flush(&self.client)).await;
    }

    async fn turn(&mut self, tick: u32, settings: AutoAnalyze) -> Result<()> {
        self.statistics.refresh(&self.client).await?;
        self.statistics.rescale_changed();
        if tick.is_multiple_of(FLUSH_TICKS) {
            self.statistics.flush(&self.client).await?;
        }
        if tick.is_multiple_of(COUNTS_TICKS) {
            let counted = self.statistics.load_counts(&self.client).await?;
            self.forget_dropped(counted).await?;
        }
        if settings.enabled {
            self.analyze_changed(settings).await?;
        }
        Ok(())
    }

    /// Forgets tables that were counted and are no longer there.
    async fn forget_dropped(&self, counted: Vec<TableId>) -> Result<()> {
        let gone = |catalog: &Catalog, tables: &[TableId]| -> Vec<TableId> {
            let schema = catalog.snapshot();
            tables.iter().copied().filter(|id| schema.table_by_id(*id).is_none()).collect()
        };
        if gone(&self.catalog, &counted).is_empty() {
            return Ok(());
        }
        // Whatever was counted was created before: the newest schema has it, or it was dropped.
        self.catalog.refresh().await?;
        let gone = gone(&self.catalog, &counted);
        if !gone.is_empty() {
            store::forget(&self.client, &gone).await?;
            self.statistics.forget(&gone);
        }
        Ok(())
    }

    async fn analyze_changed(&mut self, settings: AutoAnalyze) -> Result<()> {
        let schema = self.catalog.snapshot();
        let due = schema.all_tables().map(|(_, table)| table).filter(|table| {
            let recently = self.analyzed.get(&table.id).is_some_and(|then| then.elapsed() < AGAIN_AFTER);
            table.kind == TableKind::Base && !recently && self.is_due(table, settings)
        });
        let due: Vec<Arc<TableInfo>> = due.cloned().collect();
        if due.is_empty() || !store::own(&self.client, self.server, OWNER_LEASE_MS).await? {
            return Ok(());
        }
        for table in due {
            self.analyzed.insert(table.id, Instant::now());
            match analyze(&self.client, &self.statistics, &table, &ShownBuckets::new()).await {
                Ok(()) => tracing::info!(table = table.name, "analyzed, since much of it has changed"),
                Err(error) => tracing::info!(table = table.name, %error, "not analyzed"),
            }
            if !store::own(&self.client, self.server, OWNER_LEASE_MS).await? {
                break;
            }
        }
        Ok(())
    }

    fn is_due(&self, table: &TableInfo, settings: AutoAnalyze) -> bool {
        let Some(counts) = self.statistics.counts(table.id) else { return false };
        let stats = self.statistics.of(table);
        let rows = stats.analyzed_rows.max(counts.rows as f64);
        if rows < settings.rows_min as f64 {
            return false;
        }
        stats.is_guess() || counts.modified as f64 > settings.ratio * stats.analyzed_rows
    }
}
