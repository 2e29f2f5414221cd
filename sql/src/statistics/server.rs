//! The statistics one server knows.

use std::sync::Arc;

use dashmap::DashMap;

use crate::catalog::model::{TableId, TableInfo};

use super::TableStats;

/// One server's statistics of all tables.
#[derive(Debug, Default)]
pub struct Statistics {
    tables: DashMap<TableId, Arc<TableStats>>,
}

impl Statistics {
    /// What is known of a table; guesses if nothing is.
    pub fn of(&self, table: &TableInfo) -> Arc<TableStats> {
        match self.tables.get(&table.id) {
            Some(stats) => Arc::clone(&stats),
            None => Arc::new(TableStats::guess(None)),
        }
    }

    /// Replaces what is known of a table.
    pub fn put(&self, table: TableId, stats: Arc<TableStats>) {
        self.tables.insert(table, stats);
    }
}
