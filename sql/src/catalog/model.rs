//! What the catalog knows of databases, tables, columns and indexes, and one immutable snapshot of it all.
//!
//! A statement takes one [`InfoSchema`] and resolves every name in it, so it never sees half of a schema change. Names
//! keep the case they were created with and are looked up without regard to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;
use rutile_expr::types::{Collation, FieldType};
use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// A database. Tables and databases draw from one sequence of ids.
    DatabaseId,
    /// A table; TRUNCATE gives it a new one. Ids of in-memory system tables are negative.
    TableId,
    /// A column, unique within its table for ever.
    ColumnId,
    /// An index, unique within its table for ever.
    IndexId,
}

/// Where a column or index stands in an online change: each state is compatible with its neighbours on other servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum SchemaState {
    /// Invisible to every statement.
    Absent,
    /// Deletes and updates remove its entries; nothing adds any.
    DeleteOnly,
    /// Writes maintain it; reads do not see it.
    WriteOnly,
    /// As write-only, while older rows are being filled in.
    WriteReorganization,
    /// Readable.
    #[default]
    Public,
}

impl SchemaState {
    /// Whether inserts and updates must write it.
    pub fn is_writable(self) -> bool {
        matches!(self, Self::WriteOnly | Self::WriteReorganization | Self::Public)
    }

    /// Whether deletes must remove it.
    pub fn is_deletable(self) -> bool {
        self != Self::Absent
    }

    /// Whether reads may use it.
    pub fn is_public(self) -> bool {
        self == Self::Public
    }
}

/// A database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseInfo {
    pub id: DatabaseId,
    pub name: String,
    pub collation: Collation,
}

/// What kind of table a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TableKind {
    #[default]
    Base,
    /// Computed when read, such as those of information_schema.
    System,
}

/// How the rows of a table are identified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandleKind {
    /// The integer primary key column at this offset is the handle.
    Int { offset: usize },
    /// The encoded values of the primary index are the handle.
    Common,
    /// No primary key: a hidden 64-bit row id.
    Hidden,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableInfo {
    pub id: TableId,
    pub name: String,
    pub kind: TableKind,
    /// In the order of definition. An offset always means a position in this list. Columns that are not public are
    /// at the end.
    pub columns: Vec<ColumnInfo>,
    /// The primary key first if there is one, also when it is the integer handle.
    pub indexes: Vec<Arc<IndexInfo>>,
    pub handle: HandleKind,
    pub collation: Collation,
    pub comment: String,
    /// What `AUTO_INCREMENT = n` asked for; the next value itself is in the KV store.
    pub auto_increment: u64,
    pub checks: Vec<CheckInfo>,
    pub foreign_keys: Vec<ForeignKeyInfo>,
    /// Options that change nothing here and that SHOW CREATE TABLE repeats, such as `ROW_FORMAT`.
    pub options: Vec<(String, String)>,
    pub next_column_id: ColumnId,
    pub next_index_id: IndexId,
    /// Milliseconds since 1970, UTC.
    pub create_time_ms: i64,
    /// The schema version that last changed it.
    pub version: i64,
    /// A change of several steps is going on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<TableChange>,
}

/// A change of a table in several steps: one at a time, carried out by one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableChange {
    /// The server that carries it out. When its lease is over, others undo the change.
    pub server: u64,
    /// Tells the changes of one server apart.
    pub job: u64,
    /// Nobody writes to the table meanwhile: whether it has rows decides how it is changed.
    pub frozen: bool,
}

impl TableInfo {
    /// The offset of the column with this name, whatever its state.
    pub fn column_offset(&self, name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|column| column.name.eq_ignore_ascii_case(name) || lower_eq(&column.name, name))
    }

    /// The public column with this name.
    pub fn column(&self, name: &str) -> Option<(usize, &ColumnInfo)> {
        let offset = self.column_offset(name)?;
        let column = &self.columns[offset];
        column.state.is_public().then_some((offset, column))
    }

    /// Public columns with their offsets, invisible ones included.
    pub fn public_columns(&self) -> impl Iterator<Item = (usize, &ColumnInfo)> {
        self.columns.iter().enumerate().filter(|(_, column)| column.state.is_public())
    }

    /// The columns `SELECT *` and an INSERT without a list mean.
    pub fn visible_columns(&self) -> impl Iterator<Item = (usize, &ColumnInfo)> {
        self.public_columns().filter(|(_, column)| !column.invisible)
    }

    /// The index with this name, whatever its state.
    pub fn index(&self, name: &str) -> Option<&Arc<IndexInfo>> {
        self.indexes.iter().find(|index| index.name.eq_ignore_ascii_case(name) || lower_eq(&index.name, name))
    }

    /// The primary key.
    pub fn primary(&self) -> Option<&Arc<IndexInfo>> {
        self.indexes.iter().find(|index| index.primary)
    }

    /// Whether this index has no entries of its own because its columns are the handle.
    pub fn is_clustered(&self, index: &IndexInfo) -> bool {
        index.primary && self.handle != HandleKind::Hidden
    }

    /// The table without what an unfinished change has added, and the indexes that go with it.
    pub fn without_change(&self) -> (TableInfo, Vec<IndexId>) {
        let mut table = self.clone();
        table.change = None;
        let unfinished = |index: &&Arc<IndexInfo>| !index.state.is_public();
        let dropped = table.indexes.iter().filter(unfinished).map(|index| index.id).collect();
        table.indexes.retain(|index| index.state.is_public());
        (table, dropped)
    }

    /// The AUTO_INCREMENT column.
    pub fn auto_column(&self) -> Option<(usize, &ColumnInfo)> {
        self.columns.iter().enumerate().find(|(_, column)| column.auto_increment)
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnInfo {
    pub id: ColumnId,
    pub name: String,
    pub ty: FieldType,
    pub default: ColumnDefault,
    /// The value of rows written before the column existed: `Null` or `Value`.
    pub origin_default: ColumnDefault,
    pub auto_increment: bool,
    /// `ON UPDATE CURRENT_TIMESTAMP`
    pub on_update_now: bool,
    pub generated: Option<GeneratedColumn>,
    pub comment: String,
    pub invisible: bool,
    /// A character set or collation was written for it: SHOW CREATE TABLE repeats it even if it is the table's.
    #[serde(default)]
    pub explicit_collation: bool,
    pub state: SchemaState,
}

/// What a column gets when an INSERT does not name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnDefault {
    /// No default: an error in strict mode, the type's implicit default otherwise. A column that may be NULL gets there by
    /// DROP DEFAULT only.
    None,
    Null,
    /// A constant in the form SELECT would print it (bytes for BIT and binary types); convert it to the column's type.
    Value(Vec<u8>),
    /// `CURRENT_TIMESTAMP` with the column's own fractional digits.
    CurrentTimestamp,
    /// `DEFAULT (expression)`: its source text without the outer parentheses.
    Expr(String),
}

/// How a generated column is computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedColumn {
    /// The expression's source text.
    pub expr: String,
    pub stored: bool,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexInfo {
    pub id: IndexId,
    /// `PRIMARY` for the primary key.
    pub name: String,
    pub columns: Vec<IndexColumnInfo>,
    pub unique: bool,
    pub primary: bool,
    pub invisible: bool,
    pub comment: String,
    /// `USING …` was written: BTREE or HASH.
    pub using: Option<String>,
    pub state: SchemaState,
}

/// One column of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexColumnInfo {
    pub column: ColumnId,
    /// Position in `TableInfo::columns`, kept in step when columns move.
    pub offset: usize,
    /// Only so many characters (bytes of a binary column) are indexed.
    pub prefix: Option<u32>,
    pub desc: bool,
}

/// A CHECK constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckInfo {
    pub name: String,
    /// The expression's source text.
    pub expr: String,
    pub enforced: bool,
}

/// A foreign key: kept and shown, and not enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKeyInfo {
    pub name: String,
    pub columns: Vec<String>,
    pub ref_schema: String,
    pub ref_table: String,
    pub ref_columns: Vec<String>,
    pub on_delete: Option<String>,
    pub on_update: Option<String>,
}

/// One difference between two schema versions.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new database, or new options of one with the same id.
    PutDatabase(DatabaseInfo),
    /// The database and its tables; their data is to be removed.
    DropDatabase(DatabaseId),
    /// A new table, or a new form of one with the same id.
    PutTable(DatabaseId, Arc<TableInfo>),
    /// The table; its data is to be removed.
    DropTable(DatabaseId, TableId),
    /// The table leaves this database but its data stays (RENAME to another one).
    ForgetTable(DatabaseId, TableId),
    /// The entries of an index are to be removed.
    DropIndexData(TableId, IndexId),
}

/// A database with its tables.
#[derive(Debug, Clone)]
pub struct DatabaseEntry {
    pub info: Arc<DatabaseInfo>,
    /// By name in lower case, hence in the order SHOW TABLES prints.
    pub tables: BTreeMap<String, Arc<TableInfo>>,
}

/// The whole catalog at one schema version.
#[derive(Debug, Clone, Default)]
pub struct InfoSchema {
    version: i64,
    databases: BTreeMap<String, DatabaseEntry>,
    by_id: AHashMap<TableId, (Arc<DatabaseInfo>, Arc<TableInfo>)>,
}

impl InfoSchema {
    /// A snapshot of these databases.
    pub fn new(version: i64, entries: impl IntoIterator<Item = (DatabaseInfo, Vec<Arc<TableInfo>>)>) -> Self {
        let mut schema = Self { version, ..Self::default() };
        for (info, tables) in entries {
            let info = Arc::new(info);
            let mut entry = DatabaseEntry { info: Arc::clone(&info), tables: BTreeMap::new() };
            for table in tables {
                schema.by_id.insert(table.id, (Arc::clone(&info), Arc::clone(&table)));
                entry.tables.insert(table.name.to_lowercase(), table);
            }
            schema.databases.insert(info.name.to_lowercase(), entry);
        }
        schema
    }

    /// This snapshot with changes applied.
    pub fn with_changes(&self, version: i64, changes: &[Change]) -> Self {
        let mut schema = Self { version, ..self.clone() };
        for change in changes {
            schema.apply(change);
        }
        schema
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::PutDatabase(info) => {
                let info = Arc::new(info.clone());
                let tables = match self.remove_database(info.id) {
                    Some(old) => old.tables,
                    None => BTreeMap::new(),
                };
                for table in tables.values() {
                    self.by_id.insert(table.id, (Arc::clone(&info), Arc::clone(table)));
                }
                self.databases.insert(info.name.to_lowercase(), DatabaseEntry { info, tables });
            }
            Change::DropDatabase(id) => {
                for table in self.remove_database(*id).iter().flat_map(|entry| entry.tables.values()) {
                    self.by_id.remove(&table.id);
                }
            }
            Change::PutTable(database, table) => {
                let Some(entry) = self.databases.values_mut().find(|entry| entry.info.id == *database) else {
                    return;
                };
                entry.tables.retain(|_, old| old.id != table.id);
                entry.tables.insert(table.name.to_lowercase(), Arc::clone(table));
                self.by_id.insert(table.id, (Arc::clone(&entry.info), Arc::clone(table)));
            }
            Change::DropTable(database, table) | Change::ForgetTable(database, table) => {
                if let Some(entry) = self.databases.values_mut().find(|entry| entry.info.id == *database) {
                    entry.tables.retain(|_, old| old.id != *table);
                }
                self.by_id.retain(|id, (info, _)| id != table || info.id != *database);
            }
            Change::DropIndexData(..) => {}
        }
    }

    fn remove_database(&mut self, id: DatabaseId) -> Option<DatabaseEntry> {
        let name = self.databases.iter().find(|(_, entry)| entry.info.id == id)?.0.clone();
        self.databases.remove(&name)
    }

    /// The schema version this is.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The database with this name.
    pub fn database(&self, name: &str) -> Option<&DatabaseEntry> {
        self.databases.get(name).or_else(|| self.databases.get(&name.to_lowercase()))
    }

    /// The table with this name.
    pub fn table(&self, database: &str, table: &str) -> Option<&Arc<TableInfo>> {
        let tables = &self.database(database)?.tables;
        tables.get(table).or_else(|| tables.get(&table.to_lowercase()))
    }

    /// The table with this id and its database.
    pub fn table_by_id(&self, id: TableId) -> Option<&(Arc<DatabaseInfo>, Arc<TableInfo>)> {
        self.by_id.get(&id)
    }

    /// All tables with their databases, in no order.
    pub fn all_tables(&self) -> impl Iterator<Item = (&Arc<DatabaseInfo>, &Arc<TableInfo>)> {
        self.by_id.values().map(|(database, table)| (database, table))
    }

    /// All databases in the order of their lower-case names.
    pub fn databases(&self) -> impl Iterator<Item = &DatabaseEntry> {
        self.databases.values()
    }
}

/// Whether two names are the same without regard to case beyond ASCII.
fn lower_eq(a: &str, b: &str) -> bool {
    (!a.is_ascii() || !b.is_ascii()) && a.to_lowercase() == b.to_lowercase()
}
