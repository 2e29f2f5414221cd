//! SHOW of what the catalog holds.

use std::sync::Arc;

use super::{INT, Listing, NAME, TEXT, TIME, UINT, table_name};
use crate::catalog::describe;
use crate::catalog::model::{DatabaseEntry, TableInfo, TableKind};
use crate::catalog::system_tables::{i, opt, s, u};
use crate::context::StatementContext;
use crate::parser::ast::{Ident, ObjectName, Show, ShowFilter};
use crate::{Error, Result};

use rutile_expr::types::Datum;

fn database<'a>(ctx: &'a StatementContext, name: &str) -> Result<&'a DatabaseEntry> {
    ctx.schema.database(name).ok_or_else(|| Error::BadDb { db: name.to_string() })
}

fn table<'a>(
    ctx: &'a StatementContext,
    name: &ObjectName,
) -> Result<(&'a DatabaseEntry, &'a Arc<TableInfo>)> {
    let (db, table) = table_name(name, ctx)?;
    let entry = database(ctx, db)?;
    let unknown = || Error::NoSuchTable { db: entry.info.name.clone(), table: table.to_string() };
    Ok((entry, ctx.schema.table(db, table).ok_or_else(unknown)?))
}

pub(super) fn databases(ctx: &StatementContext) -> Listing {
    let rows = ctx.schema.databases().map(|entry| vec![s(&entry.info.name)]).collect();
    Listing::new(&[("Database", NAME)], rows)
}

pub(super) fn tables(ctx: &StatementContext, db: &str, full: bool, show: &Show) -> Result<Listing> {
    let entry = database(ctx, db)?;
    let kind = |table: &TableInfo| if table.kind == TableKind::Base { "BASE TABLE" } else { "SYSTEM VIEW" };
    let mut title = format!("Tables_in_{}", entry.info.name);
    if let Some(ShowFilter::Like(pattern)) = &show.filter {
        title += &format!(" ({})", String::from_utf8_lossy(pattern));
    }
    let listing = if full {
        let rows = entry.tables.values().map(|t| vec![s(&t.name), s(kind(t))]).collect();
        Listing::new(&[("", NAME), ("Table_type", NAME)], rows)
    } else {
        Listing::new(&[("", NAME)], entry.tables.values().map(|t| vec![s(&t.name)]).collect())
    };
    Ok(listing.titled(title))
}

pub(super) fn columns(ctx: &StatementContext, name: &ObjectName, full: bool) -> Result<Listing> {
    let (_, table) = table(ctx, name)?;
    let mut rows = Vec::new();
    for (offset, column) in table.public_columns() {
        let null = s(if column.ty.not_null { "NO" } else { "YES" });
        let key = s(describe::column_key(table, offset));
        let default = opt(describe::default_text(column), s);
        let extra = s(describe::extra(column));
        let mut row = vec![s(&column.name), s(column.ty.sql_name())];
        if full {
            row.push(opt(column.ty.has_charset().then_some(column.ty.collation), |c| s(c.name())));
            row.extend([null, key, default, extra, s("select,insert,update,references"), s(&column.comment)]);
        } else {
            row.extend([null, key, default, extra]);
        }
        rows.push(row);
    }
    Ok(if full {
        Listing::new(
            &[
                ("Field", NAME),
                ("Type", TEXT),
                ("Collation", NAME),
                ("Null", NAME),
                ("Key", NAME),
                ("Default", TEXT),
                ("Extra", NAME),
                ("Privileges", NAME),
                ("Comment", TEXT),
            ],
            rows,
        )
    } else {
        Listing::new(
            &[
                ("Field", NAME),
                ("Type", TEXT),
                ("Null", NAME),
                ("Key", NAME),
                ("Default", TEXT),
                ("Extra", NAME),
            ],
            rows,
        )
    })
}

pub(super) fn indexes(ctx: &StatementContext, name: &ObjectName) -> Result<Listing> {
    let (_, table) = table(ctx, name)?;
    let mut rows = Vec::new();
    for index in describe::shown_indexes(table) {
        for (seq, part) in index.columns.iter().enumerate() {
            let column = &table.columns[part.offset];
            rows.push(vec![
                s(&table.name),
                i(i64::from(!index.unique)),
                s(&index.name),
                u(seq as u64 + 1),
                s(&column.name),
                s(if part.desc { "D" } else { "A" }),
                i(0),
                opt(part.prefix, |len| i(i64::from(len))),
                Datum::Null,
                s(if column.ty.not_null { "" } else { "YES" }),
                s("BTREE"),
                s(""),
                s(&index.comment),
                s(if index.invisible { "NO" } else { "YES" }),
                Datum::Null,
            ]);
        }
    }
    Ok(Listing::new(
        &[
            ("Table", NAME),
            ("Non_unique", INT),
            ("Key_name", NAME),
            ("Seq_in_index", UINT),
            ("Column_name", NAME),
            ("Collation", NAME),
            ("Cardinality", INT),
            ("Sub_part", INT),
            ("Packed", NAME),
            ("Null", NAME),
            ("Index_type", NAME),
            ("Comment", NAME),
            ("Index_comment", TEXT),
            ("Visible", NAME),
            ("Expression", TEXT),
        ],
        rows,
    ))
}

pub(super) fn create_table(ctx: &StatementContext, name: &ObjectName) -> Result<Listing> {
    let (_, table) = table(ctx, name)?;
    let text = describe::create_table(table, table.auto_increment);
    Ok(Listing::new(&[("Table", NAME), ("Create Table", TEXT)], vec![vec![s(&table.name), s(text)]]))
}

pub(super) fn create_database(ctx: &StatementContext, name: &Ident, if_not_exists: bool) -> Result<Listing> {
    let info = &database(ctx, name.as_ref())?.info;
    let condition = if if_not_exists { "/*!32312 IF NOT EXISTS*/ " } else { "" };
    let collation = info.collation;
    let collate = if collation.is_default() && collation != rutile_expr::Collation::DEFAULT {
        String::new()
    } else {
        format!(" COLLATE {}", collation.name())
    };
    let text = format!(
        "CREATE DATABASE {condition}{} /*!40100 DEFAULT CHARACTER SET {}{collate} */ /*!80016 DEFAULT ENCRYPTION='N' */",
        describe::quoted(&info.name),
        collation.charset().name(),
    );
    Ok(Listing::new(&[("Database", NAME), ("Create Database", TEXT)], vec![vec![s(&info.name), s(text)]]))
}

pub(super) fn table_status(ctx: &StatementContext, db: &str) -> Result<Listing> {
    let entry = database(ctx, db)?;
    let row = |table: &Arc<TableInfo>| {
        let base = table.kind == TableKind::Base;
        let auto = if table.auto_column().is_some() { u(table.auto_increment.max(1)) } else { Datum::Null };
        let zero = || if base { u(0) } else { Datum::Null };
        vec![
            s(&table.name),
            if base { s("InnoDB") } else { Datum::Null },
            u(10),
            if base { s("Dynamic") } else { Datum::Null },
            zero(),
            zero(),
            zero(),
            zero(),
            zero(),
            zero(),
            auto,
            Datum::Null,
            Datum::Null,
            Datum::Null,
            if base { s(table.collation.name()) } else { Datum::Null },
            Datum::Null,
            s(""),
            s(&table.comment),
        ]
    };
    Ok(Listing::new(
        &[
            ("Name", NAME),
            ("Engine", NAME),
            ("Version", UINT),
            ("Row_format", NAME),
            ("Rows", UINT),
            ("Avg_row_length", UINT),
            ("Data_length", UINT),
            ("Max_data_length", UINT),
            ("Index_length", UINT),
            ("Data_free", UINT),
            ("Auto_increment", UINT),
            ("Create_time", TIME),
            ("Update_time", TIME),
            ("Check_time", TIME),
            ("Collation", NAME),
            ("Checksum", UINT),
            ("Create_options", NAME),
            ("Comment", TEXT),
        ],
        entry.tables.values().map(row).collect(),
    ))
}
