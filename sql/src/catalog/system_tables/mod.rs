//! The tables of information_schema: their definitions, and their rows, made anew whenever they are read.

mod definitions;
mod rows;

use std::sync::Arc;

use arrow::datatypes::Schema as ArrowSchema;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use rutile_expr::array::ColumnBuilder;
use rutile_expr::types::{Collation, Datum, FieldType, MysqlType};

use self::definitions::{Definition, Kind};
use super::model::{
    ColumnDefault, ColumnId, ColumnInfo, DatabaseId, DatabaseInfo, HandleKind, SchemaState, TableId, TableInfo, TableKind,
};
use crate::context::StatementContext;
use crate::{Error, Result};

/// The schema's name as it is shown.
pub const NAME: &str = "information_schema";
/// Ids of the schema and its tables are negative: no stored object has such an id.
const DATABASE_ID: i64 = -1;
const FIRST_TABLE_ID: i64 = -1000;

/// The text of system tables compares without regard to case.
const COLLATION: Collation = Collation::Utf8mb3GeneralCi;

fn field_type(kind: Kind) -> FieldType {
    match kind {
        Kind::Name => FieldType::varchar(64, COLLATION),
        Kind::Text => FieldType::new(MysqlType::LongBlob).with_collation(COLLATION),
        Kind::Int => FieldType::bigint(),
        Kind::UInt => FieldType::bigint_unsigned(),
        Kind::Time => FieldType::datetime(0),
    }
}

fn column(position: usize, name: &str, kind: Kind) -> ColumnInfo {
    ColumnInfo {
        id: ColumnId(position as i64 + 1),
        name: name.to_string(),
        ty: field_type(kind),
        default: ColumnDefault::Null,
        origin_default: ColumnDefault::Null,
        auto_increment: false,
        on_update_now: false,
        generated: None,
        comment: String::new(),
        invisible: false,
        state: SchemaState::Public,
    }
}

/// A table that exists only while it is read.
pub fn virtual_table(id: i64, name: &str, columns: impl IntoIterator<Item = (String, FieldType)>) -> TableInfo {
    let columns: Vec<ColumnInfo> = columns
        .into_iter()
        .enumerate()
        .map(|(i, (name, ty))| ColumnInfo { ty, ..column(i, &name, Kind::Text) })
        .collect();
    TableInfo {
        id: TableId(id),
        name: name.to_string(),
        kind: TableKind::System,
        next_column_id: ColumnId(columns.len() as i64 + 1),
        columns,
        indexes: Vec::new(),
        handle: HandleKind::Hidden,
        collation: COLLATION,
        comment: String::new(),
        auto_increment: 0,
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        options: Vec::new(),
        next_index_id: super::model::IndexId(1),
        create_time_ms: 0,
        version: 0,
    }
}

fn table(position: usize, definition: &Definition) -> Arc<TableInfo> {
    let columns = definition.columns.iter().map(|(name, kind)| ((*name).to_string(), field_type(*kind)));
    Arc::new(virtual_table(FIRST_TABLE_ID - position as i64, definition.name, columns))
}

/// The schemas that are computed, with all their tables, to be part of every snapshot of the catalog.
pub fn databases() -> impl Iterator<Item = (DatabaseInfo, Vec<Arc<TableInfo>>)> {
    let info = DatabaseInfo { id: DatabaseId(DATABASE_ID), name: NAME.to_string(), collation: COLLATION };
    let tables = definitions::ALL.iter().enumerate().map(|(i, definition)| table(i, definition)).collect();
    std::iter::once((info, tables))
}

/// All rows of a table, every column.
pub fn read(db: &str, table: &TableInfo, ctx: &StatementContext) -> Result<RecordBatch> {
    let definition = definitions::ALL.iter().find(|d| d.name.eq_ignore_ascii_case(&table.name));
    let unknown = || Error::NoSuchTable { db: db.to_string(), table: table.name.clone() };
    let definition = definition.ok_or_else(unknown)?;
    batch(&table.columns.iter().map(|c| (c.name.clone(), c.ty.clone())).collect::<Vec<_>>(), &(definition.rows)(ctx))
}

/// Rows as a batch of the given columns.
pub fn batch(columns: &[(String, FieldType)], rows: &[Vec<Datum>]) -> Result<RecordBatch> {
    let mut arrays = Vec::with_capacity(columns.len());
    for (i, (_, ty)) in columns.iter().enumerate() {
        let mut builder = ColumnBuilder::new(ty, rows.len());
        for row in rows {
            builder.push(&row[i])?;
        }
        arrays.push(builder.finish());
    }
    let fields: Vec<_> = columns.iter().map(|(name, ty)| ty.arrow_field(name)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::new(ArrowSchema::new(fields)), arrays, &options)
        .map_err(|e| Error::internal(format!("a system table's batch: {e}")))
}

pub use self::rows::{i, opt, s, u};
