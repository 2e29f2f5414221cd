//! SHOW of databases and tables, and the statements that create them.

use rutile_expr::types::{Datum, FieldType};

use super::result::ResultSet;
use super::table_of;
use crate::catalog::model::TableKind;
use crate::catalog::system_tables::{s, text, time_of, u};
use crate::catalog::{show_create, system_tables};
use crate::context::StatementContext;
use crate::parser::ast::ObjectName;
use crate::{Error, Result};

/// A title that repeats the pattern after LIKE.
fn title(base: String, pattern: Option<String>) -> String {
    match pattern {
        Some(pattern) => format!("{base} ({pattern})"),
        None => base,
    }
}

pub fn databases(pattern: Option<String>, ctx: &StatementContext) -> ResultSet {
    let columns = vec![(title("Database".into(), pattern), text(64))];
    ResultSet { columns, rows: ctx.schema.databases().map(|entry| vec![s(&entry.info.name)]).collect() }
}

pub fn tables(
    full: bool,
    database: &str,
    pattern: Option<String>,
    ctx: &StatementContext,
) -> Result<ResultSet> {
    let entry = ctx.schema.database(database).ok_or_else(|| Error::BadDb { db: database.into() })?;
    let mut columns = vec![(title(format!("Tables_in_{database}"), pattern), text(64))];
    if full {
        columns.push(("Table_type".into(), text(11)));
    }
    let rows = entry.tables.values().map(|table| {
        let mut row = vec![s(&table.name)];
        if full {
            row.push(s(if table.kind == TableKind::System { "SYSTEM VIEW" } else { "BASE TABLE" }));
        }
        row
    });
    Ok(ResultSet { columns, rows: rows.collect() })
}

pub async fn table_status(database: &str, ctx: &StatementContext) -> Result<ResultSet> {
    let entry = ctx.schema.database(database).ok_or_else(|| Error::BadDb { db: database.into() })?;
    let mut rows = Vec::new();
    for table in entry.tables.values() {
        let system = table.kind == TableKind::System;
        let next_auto_id = match table.auto_column() {
            Some(_) => u(system_tables::next_auto_id(table, ctx).await?.max(1)),
            None => Datum::Null,
        };
        let options: Vec<String> =
            table.options.iter().map(|(name, value)| format!("{}={value}", name.to_lowercase())).collect();
        let known = |value: Datum| if system { Datum::Null } else { value };
        rows.push(vec![
            s(&table.name),
            known(s("InnoDB")),
            u(10),
            known(s("Dynamic")),
            u(if system { 0 } else { system_tables::row_count(table, ctx).await? }),
            u(0),
            u(if system { 0 } else { 16_384 }),
            u(0),
            u(0),
            u(0),
            next_auto_id,
            known(time_of(table.create_time_ms, ctx)),
            Datum::Null,
            Datum::Null,
            known(s(table.collation.name())),
            Datum::Null,
            s(options.join(" ")),
            s(&table.comment),
        ]);
    }
    let titles = "Name Engine Version:n Row_format Rows:n Avg_row_length:n Data_length:n Max_data_length:n Index_length:n Data_free:n \
                  Auto_increment:n Create_time Update_time Check_time Collation Checksum:n Create_options Comment";
    let mut result = ResultSet::empty(titles).with_rows(rows);
    for (_, ty) in &mut result.columns[11..14] {
        *ty = FieldType::datetime(0);
    }
    Ok(result)
}

pub async fn create_table(name: &ObjectName, ctx: &StatementContext) -> Result<ResultSet> {
    let (_, table) = table_of(name, ctx)?;
    let next_auto_id = match table.auto_column() {
        Some(_) => system_tables::next_auto_id(table, ctx).await?,
        None => 0,
    };
    let row = vec![s(&table.name), s(show_create::table(table, next_auto_id))];
    Ok(ResultSet::empty("Table Create~Table").with_rows(vec![row]))
}

/// There are no views.
pub fn create_view(name: &ObjectName, ctx: &StatementContext) -> Result<ResultSet> {
    let (entry, table) = table_of(name, ctx)?;
    Err(Error::WrongObject { name: format!("{}.{}", entry.info.name, table.name), expected: "VIEW" })
}

pub fn create_database(name: &str, if_not_exists: bool, ctx: &StatementContext) -> Result<ResultSet> {
    let entry = ctx.schema.database(name).ok_or_else(|| Error::BadDb { db: name.into() })?;
    let row = vec![s(&entry.info.name), s(show_create::database(&entry.info, if_not_exists))];
    Ok(ResultSet::empty("Database Create~Database").with_rows(vec![row]))
}
