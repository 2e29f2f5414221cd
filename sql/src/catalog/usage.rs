//! Who in this server still works with which definition of a table.
//!
//! A statement holds the snapshot in which it resolved its names; a transaction holds on to the definition of each table it has
//! touched until it ends. A schema change takes its next step only when nobody here, and no other server
//! ([`super::servers`]), works with anything older than the step before.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use parking_lot::Mutex;

use super::model::{Change, IndexInfo, InfoSchema, SchemaState, TableId, TableInfo, TableKind};

/// Versions of snapshots that a transaction made for itself: negative, so that no plan made under one serves elsewhere.
static PRIVATE_VERSION: AtomicI64 = AtomicI64::new(-1);

/// A version that no other snapshot has.
pub fn private_version() -> i64 {
    PRIVATE_VERSION.fetch_sub(1, Ordering::Relaxed)
}

/// The statements and transactions of one server.
#[derive(Default)]
pub struct Usage {
    /// Earlier snapshots that statements may still use.
    old: Mutex<Vec<Weak<InfoSchema>>>,
    transactions: DashMap<u64, Arc<Touched>>,
    next_id: AtomicU64,
}

/// The tables a transaction has touched, as they were at its first touch.
#[derive(Default)]
struct Touched {
    tables: Mutex<Vec<Arc<TableInfo>>>,
}

impl Usage {
    /// A snapshot is replaced by a newer one.
    pub fn retire(&self, snapshot: &Arc<InfoSchema>) {
        let mut old = self.old.lock();
        old.retain(|weak| weak.strong_count() > 0);
        old.push(Arc::downgrade(snapshot));
    }

    /// The oldest version that is in use while `current` is the newest: of statements' snapshots, and of tables that a
    /// transaction has touched and that have changed since.
    pub fn oldest(&self, current: &InfoSchema) -> i64 {
        let snapshots = self.old.lock().iter().filter_map(Weak::upgrade).map(|old| old.version()).min();
        let mut oldest = snapshots.unwrap_or(i64::MAX).min(current.version());
        for transaction in &self.transactions {
            for table in transaction.tables.lock().iter() {
                if let Some((_, now)) = current.table_by_id(table.id)
                    && now.version > table.version
                {
                    oldest = oldest.min(now.version - 1);
                }
            }
        }
        oldest
    }

    /// Whether a statement uses a snapshot before `version`, or a transaction a definition of the table before it.
    pub fn uses_older(&self, table: TableId, version: i64) -> bool {
        let statement =
            self.old.lock().iter().filter_map(Weak::upgrade).any(|schema| schema.version() < version);
        statement
            || self.transactions.iter().any(|transaction| {
                transaction.tables.lock().iter().any(|used| used.id == table && used.version < version)
            })
    }

    /// A transaction begins to use the schema.
    pub fn begin(self: &Arc<Self>, current: &InfoSchema) -> TransactionSchema {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let touched = Arc::<Touched>::default();
        self.transactions.insert(id, Arc::clone(&touched));
        TransactionSchema {
            usage: Arc::clone(self),
            id,
            touched,
            began_version: current.version(),
            view: Mutex::new(None),
        }
    }
}

/// What one transaction sees of the schema; ends with it.
pub struct TransactionSchema {
    usage: Arc<Usage>,
    id: u64,
    touched: Arc<Touched>,
    /// The version when it began: its reads may be as old.
    began_version: i64,
    /// The last view made, of this version.
    view: Mutex<Option<(i64, Arc<InfoSchema>)>>,
}

impl TransactionSchema {
    /// Holds on to these definitions until the transaction ends.
    pub fn touch(&self, tables: &[Arc<TableInfo>]) {
        let mut touched = self.touched.tables.lock();
        for table in tables {
            if table.kind == TableKind::Base && !touched.iter().any(|other| other.id == table.id) {
                touched.push(Arc::clone(table));
                // Views made before know it as it is now.
                if touched.len() > 1 || table.version > self.began_version {
                    *self.view.lock() = None;
                }
            }
        }
    }

    /// The schema of the transaction's next statement: tables it has touched stay as they were; of tables that have changed
    /// since it began it writes every index and reads none, as entries filled in meanwhile are newer than what it reads.
    pub fn view(&self, current: &Arc<InfoSchema>) -> Arc<InfoSchema> {
        if current.version() == self.began_version {
            return Arc::clone(current);
        }
        let mut view = self.view.lock();
        if let Some((version, schema)) = &*view
            && *version == current.version()
        {
            return Arc::clone(schema);
        }
        let schema = self.overlay(current);
        *view = Some((current.version(), Arc::clone(&schema)));
        schema
    }

    fn overlay(&self, current: &Arc<InfoSchema>) -> Arc<InfoSchema> {
        let touched = self.touched.tables.lock();
        let mut changes = Vec::new();
        for (database, table) in current.all_tables() {
            if let Some(used) = touched.iter().find(|used| used.id == table.id) {
                if used.version != table.version {
                    changes.push(Change::PutTable(database.id, Arc::clone(used)));
                }
            } else if table.version > self.began_version {
                changes.push(Change::PutTable(database.id, Arc::new(without_reads(table))));
            }
        }
        // Even an unchanged view is one of its own: plans of this transaction must not serve others.
        let version = private_version();
        Arc::new(current.with_changes(version, &changes))
    }
}

impl Drop for TransactionSchema {
    fn drop(&mut self) {
        self.usage.transactions.remove(&self.id);
    }
}

/// The table with its secondary indexes written and not read.
fn without_reads(table: &TableInfo) -> TableInfo {
    let mut table = table.clone();
    for position in 0..table.indexes.len() {
        let index = &table.indexes[position];
        if index.state.is_public() && !table.is_clustered(index) {
            let state = SchemaState::WriteReorganization;
            table.indexes[position] = Arc::new(IndexInfo { state, ..IndexInfo::clone(index) });
        }
    }
    table
}
