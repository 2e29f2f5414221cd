//! Tables that are computed when they are read: `information_schema`, and what clients read of `performance_schema`.
//!
//! Names and types of their columns are in `definitions.txt`, taken from MySQL: a line `database.table`, then the columns
//! as `name:type`, with `!` before those that are NOT NULL. A table without rows here is empty because we have nothing
//! of its kind (views, routines, triggers, partitions, events).

mod databases;
mod processes;
pub mod server;
mod tables;

pub use tables::{next_auto_id, row_count};

use std::sync::{Arc, LazyLock};

use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use rutile_expr::array::array_of;
use rutile_expr::types::{Collation, Datum, FieldType, MysqlType};

use super::model::{
    ColumnDefault, ColumnId, ColumnInfo, DatabaseId, DatabaseInfo, HandleKind, IndexId, SchemaState, TableId,
    TableInfo, TableKind,
};
use crate::context::StatementContext;
use crate::{Error, Result};

/// The collation of everything that is text here.
const COLLATION: Collation = Collation::Utf8mb3GeneralCi;
/// The name of the one catalog.
const CATALOG: &str = "def";

/// One row: a value per column, in the order of definition.
type Row = Vec<Datum>;

static DATABASES: LazyLock<Vec<(DatabaseInfo, Vec<Arc<TableInfo>>)>> =
    LazyLock::new(|| parse(include_str!("definitions.txt")));

/// The databases of system tables and their tables. Their ids are negative.
pub fn databases() -> impl Iterator<Item = (DatabaseInfo, Vec<Arc<TableInfo>>)> {
    DATABASES.iter().cloned()
}

fn parse(text: &str) -> Vec<(DatabaseInfo, Vec<Arc<TableInfo>>)> {
    let mut databases: Vec<(DatabaseInfo, Vec<TableInfo>)> = Vec::new();
    let mut next_id = -1;
    for line in text.lines() {
        if let Some((database, table)) = line.split_once('.').filter(|_| !line.starts_with(' ')) {
            if databases.last().is_none_or(|(info, _)| info.name != database) {
                let info =
                    DatabaseInfo { id: DatabaseId(next_id), name: database.into(), collation: COLLATION };
                next_id -= 1;
                databases.push((info, Vec::new()));
            }
            if let Some((_, tables)) = databases.last_mut() {
                tables.push(empty_table(TableId(next_id), table));
                next_id -= 1;
            }
        } else if let Some(table) = databases.last_mut().and_then(|(_, tables)| tables.last_mut()) {
            for word in line.split_ascii_whitespace() {
                let column = column(word, ColumnId(table.columns.len() as i64 + 1));
                table.columns.push(column);
            }
        }
    }
    let freeze = |tables: Vec<TableInfo>| tables.into_iter().map(Arc::new).collect();
    databases.into_iter().map(|(info, tables)| (info, freeze(tables))).collect()
}

fn empty_table(id: TableId, name: &str) -> TableInfo {
    TableInfo {
        id,
        name: name.into(),
        kind: TableKind::System,
        columns: Vec::new(),
        indexes: Vec::new(),
        handle: HandleKind::Hidden,
        collation: COLLATION,
        comment: String::new(),
        auto_increment: 0,
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        options: Vec::new(),
        next_column_id: ColumnId(1),
        next_index_id: IndexId(1),
        create_time_ms: 0,
        version: 0,
        change: None,
    }
}

/// `[!]name:type`
fn column(word: &str, id: ColumnId) -> ColumnInfo {
    let (name, ty) = word.split_once(':').expect("a column definition is name:type");
    let not_null = name.starts_with('!');
    let ty = match ty.strip_prefix("Text(").and_then(|rest| rest.strip_suffix(')')) {
        Some(length) => text(length.parse().expect("a length is a number")),
        None => match ty {
            "LongText" => FieldType::new(MysqlType::LongBlob).with_collation(COLLATION),
            "DateTime" => FieldType::datetime(0),
            "Int" => FieldType::bigint(),
            "UInt" => FieldType::bigint_unsigned(),
            "Float" => FieldType::double(),
            other => unreachable!("no such type of a system table's column: {other}"),
        },
    };
    ColumnInfo {
        id,
        name: name.trim_start_matches('!').into(),
        ty: ty.with_not_null(not_null),
        default: if not_null { ColumnDefault::None } else { ColumnDefault::Null },
        origin_default: ColumnDefault::Null,
        auto_increment: false,
        on_update_now: false,
        generated: None,
        comment: String::new(),
        invisible: false,
        explicit_collation: false,
        state: SchemaState::Public,
    }
}

/// VARCHAR of so many characters.
pub fn text(length: u32) -> FieldType {
    FieldType::varchar(length, COLLATION)
}

/// All rows of a system table, its columns in the order of definition.
pub async fn read(database: &str, table: &str, ctx: &StatementContext) -> Result<RecordBatch> {
    let missing = || Error::NoSuchTable { db: database.into(), table: table.into() };
    let info = ctx
        .schema
        .table(database, table)
        .filter(|info| info.kind == TableKind::System)
        .ok_or_else(missing)?;
    let rows = match info.name.as_str() {
        "SCHEMATA" => databases::schemata(ctx),
        "CHARACTER_SETS" => server::character_sets(),
        "COLLATIONS" => server::collations(),
        "COLLATION_CHARACTER_SET_APPLICABILITY" => server::collation_applicability(),
        "ENGINES" => server::engines(),
        "PLUGINS" => server::plugins(),
        "TABLES" => tables::tables(ctx).await?,
        "COLUMNS" => tables::columns(ctx),
        "STATISTICS" => tables::statistics(ctx),
        "COLUMN_STATISTICS" => tables::column_statistics(ctx),
        "KEY_COLUMN_USAGE" => tables::key_column_usage(ctx),
        "TABLE_CONSTRAINTS" => tables::table_constraints(ctx),
        "PROCESSLIST" => processes::process_list(ctx),
        "USER_PRIVILEGES" => processes::user_privileges(ctx),
        "global_variables" | "session_variables" | "global_status" | "session_status" => {
            processes::variables(ctx, &info.name)
        }
        _ => Vec::new(),
    };
    let types: Vec<(&str, &FieldType)> =
        info.columns.iter().map(|column| (column.name.as_str(), &column.ty)).collect();
    batch(&types, &rows)
}

/// A batch of rows.
pub fn batch(columns: &[(&str, &FieldType)], rows: &[Row]) -> Result<RecordBatch> {
    let fields: Vec<_> = columns.iter().map(|(name, ty)| ty.arrow_field(name).with_nullable(true)).collect();
    let mut arrays = Vec::with_capacity(columns.len());
    for (position, (_, ty)) in columns.iter().enumerate() {
        arrays.push(array_of(ty, rows.iter().map(|row| &row[position]))?);
    }
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema, arrays, &options)
        .map_err(|error| Error::internal(format!("rows of a system table do not fit its columns: {error}")))
}

/// Text.
pub fn s(text: impl Into<String>) -> Datum {
    Datum::String(text.into())
}

/// Text or NULL.
pub fn os(text: Option<impl Into<String>>) -> Datum {
    text.map_or(Datum::Null, s)
}

/// An unsigned number.
pub fn u(number: u64) -> Datum {
    Datum::UInt(number)
}

fn ou(number: Option<u64>) -> Datum {
    number.map_or(Datum::Null, Datum::UInt)
}

fn oi(number: Option<i64>) -> Datum {
    number.map_or(Datum::Null, Datum::Int)
}

fn yes_no(yes: bool) -> Datum {
    s(if yes { "YES" } else { "NO" })
}

/// A point in time in the session's zone.
pub fn time_of(ms: i64, ctx: &StatementContext) -> Datum {
    ctx.eval.time_zone.from_unix_micros(ms / 1000 * 1_000_000).map_or(Datum::Null, Datum::Time)
}

/// The tables a session sees, with their databases.
fn all_tables(ctx: &StatementContext) -> impl Iterator<Item = (&DatabaseInfo, &TableInfo)> {
    ctx.schema.databases().flat_map(|entry| entry.tables.values().map(|table| (&*entry.info, &**table)))
}
