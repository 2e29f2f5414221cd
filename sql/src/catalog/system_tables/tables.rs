//! TABLES, COLUMNS, STATISTICS and the tables of constraints.

use rutile_expr::types::{Datum, FieldType};

use super::super::describe;
use super::super::model::{DatabaseInfo, IndexColumnInfo, IndexInfo, TableInfo, TableKind};
use super::{CATALOG, Row, all_tables, oi, os, ou, s, time_of, u, yes_no};
use crate::Result;
use crate::context::StatementContext;

pub async fn tables(ctx: &StatementContext) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (database, table) in all_tables(ctx) {
        rows.push(table_row(database, table, ctx).await?);
    }
    Ok(rows)
}

async fn table_row(database: &DatabaseInfo, table: &TableInfo, ctx: &StatementContext) -> Result<Row> {
    if table.kind == TableKind::System {
        let mut row = vec![
            s(CATALOG),
            s(&database.name),
            s(&table.name),
            s("SYSTEM VIEW"),
            Datum::Null,
            Datum::Int(10),
        ];
        row.extend(vec![Datum::Null, u(0), u(0), u(0), u(0), u(0), u(0), Datum::Null]);
        row.push(time_of(crate::catalog::infoschema::now_ms(), ctx));
        row.extend(vec![Datum::Null; 4]);
        row.extend([s(""), s("")]);
        return Ok(row);
    }
    let next_auto_id = match table.auto_column() {
        Some(_) => Some(next_auto_id(table, ctx).await?.max(1)),
        None => None,
    };
    let options: Vec<String> =
        table.options.iter().map(|(name, value)| format!("{}={value}", name.to_lowercase())).collect();
    Ok(vec![
        s(CATALOG),
        s(&database.name),
        s(&table.name),
        s("BASE TABLE"),
        s("InnoDB"),
        Datum::Int(10),
        s("Dynamic"),
        u(row_count(table, ctx).await?),
        u(0),
        u(16_384),
        u(0),
        u(0),
        u(0),
        ou(next_auto_id),
        time_of(table.create_time_ms, ctx),
        Datum::Null,
        Datum::Null,
        s(table.collation.name()),
        Datum::Null,
        s(options.join(" ")),
        s(&table.comment),
    ])
}

/// The next AUTO_INCREMENT value of a table.
pub async fn next_auto_id(table: &TableInfo, ctx: &StatementContext) -> Result<u64> {
    crate::table::auto_id::peek(&ctx.client, table).await
}

pub fn columns(ctx: &StatementContext) -> Vec<Row> {
    let mut rows = Vec::new();
    for (database, table) in all_tables(ctx) {
        for (position, (offset, column)) in table.public_columns().enumerate() {
            let ty = &column.ty;
            let (chars, bytes) = describe::character_lengths(ty);
            let (precision, scale) = describe::numeric_precision(ty);
            let (charset, collation) = collation_of(ty);
            rows.push(vec![
                s(CATALOG),
                s(&database.name),
                s(&table.name),
                s(&column.name),
                u(position as u64 + 1),
                os(describe::shown_default(column)),
                yes_no(!ty.not_null),
                s(describe::data_type(ty)),
                oi(chars),
                oi(bytes),
                ou(precision),
                ou(scale),
                ou(describe::datetime_precision(ty)),
                charset,
                collation,
                s(describe::column_type(ty)),
                s(describe::key(table, offset)),
                s(describe::extra(column)),
                s(if table.kind == TableKind::System { "select" } else { "select,insert,update,references" }),
                s(&column.comment),
                os(column.generated.as_ref().map(|generated| generated.expr.as_str()).or(Some(""))),
                Datum::Null,
            ]);
        }
    }
    rows
}

/// Character set and collation of a column that has them.
fn collation_of(ty: &FieldType) -> (Datum, Datum) {
    if !ty.has_charset() || ty.is_binary_string() {
        return (Datum::Null, Datum::Null);
    }
    (s(ty.collation.charset().name()), s(ty.collation.name()))
}

/// Indexes that can be seen, with the columns of each.
fn public_indexes(table: &TableInfo) -> impl Iterator<Item = &IndexInfo> {
    table.indexes.iter().map(|index| &**index).filter(|index| index.state.is_public())
}

fn parts(index: &IndexInfo) -> impl Iterator<Item = (u64, &IndexColumnInfo)> {
    index.columns.iter().enumerate().map(|(position, part)| (position as u64 + 1, part))
}

/// `COLUMN_STATISTICS`: the histograms that were asked for.
pub fn column_statistics(ctx: &StatementContext) -> Vec<Row> {
    let mut rows = Vec::new();
    for (database, table) in all_tables(ctx).filter(|(_, table)| table.kind == TableKind::Base) {
        let stats = ctx.statistics.of(table);
        for (_, column) in table.public_columns() {
            if let Some(shown) = stats.columns.get(&column.id).and_then(|known| known.shown.as_ref()) {
                rows.push(vec![s(&database.name), s(&table.name), s(&column.name), s(&shown.json)]);
            }
        }
    }
    rows
}

/// TABLE_ROWS and Rows: exact for small tables, else what the statistics say, else an estimate.
pub async fn row_count(table: &TableInfo, ctx: &StatementContext) -> Result<u64> {
    let seen = crate::table::estimate::rows(&ctx.client, table).await?;
    let stats = ctx.statistics.of(table);
    Ok(if seen < crate::table::estimate::SAMPLE_ROWS as u64 || stats.is_guess() {
        seen
    } else {
        stats.rows as u64
    })
}

pub fn statistics(ctx: &StatementContext) -> Vec<Row> {
    let mut rows = Vec::new();
    for (database, table) in all_tables(ctx) {
        for index in public_indexes(table) {
            for (position, part) in parts(index) {
                let column = &table.columns[part.offset];
                rows.push(vec![
                    s(CATALOG),
                    s(&database.name),
                    s(&table.name),
                    Datum::Int(i64::from(!index.unique)),
                    s(&database.name),
                    s(&index.name),
                    u(position),
                    s(&column.name),
                    s(if part.desc { "D" } else { "A" }),
                    Datum::Int(ctx.statistics.cardinality(table, index, position as usize - 1) as i64),
                    oi(part.prefix.map(i64::from)),
                    Datum::Null,
                    s(if column.ty.not_null { "" } else { "YES" }),
                    s("BTREE"),
                    s(""),
                    s(&index.comment),
                    yes_no(!index.invisible),
                    Datum::Null,
                ]);
            }
        }
    }
    rows
}

pub fn key_column_usage(ctx: &StatementContext) -> Vec<Row> {
    let mut rows = Vec::new();
    for (database, table) in all_tables(ctx) {
        for index in public_indexes(table).filter(|index| index.unique) {
            for (position, part) in parts(index) {
                rows.push(vec![
                    s(CATALOG),
                    s(&database.name),
                    s(&index.name),
                    s(CATALOG),
                    s(&database.name),
                    s(&table.name),
                    s(&table.columns[part.offset].name),
                    u(position),
                    Datum::Null,
                    Datum::Null,
                    Datum::Null,
                    Datum::Null,
                ]);
            }
        }
    }
    rows
}

pub fn table_constraints(ctx: &StatementContext) -> Vec<Row> {
    let mut rows = Vec::new();
    for (database, table) in all_tables(ctx) {
        for index in public_indexes(table).filter(|index| index.unique) {
            rows.push(vec![
                s(CATALOG),
                s(&database.name),
                s(&index.name),
                s(&database.name),
                s(&table.name),
                s(if index.primary { "PRIMARY KEY" } else { "UNIQUE" }),
                s("YES"),
            ]);
        }
    }
    rows
}
