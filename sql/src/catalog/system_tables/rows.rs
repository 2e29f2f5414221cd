//! The rows of the tables of information_schema.

use std::sync::Arc;

use rutile_expr::types::{Charset, Collation, Datum, FieldType, convert};

use crate::catalog::describe;
use crate::catalog::model::{DatabaseInfo, TableInfo, TableKind};
use crate::context::StatementContext;

type Row = Vec<Datum>;

/// Text.
pub fn s(text: impl Into<String>) -> Datum {
    Datum::String(text.into())
}

/// An unsigned number.
pub fn u(value: u64) -> Datum {
    Datum::UInt(value)
}

/// A signed number.
pub fn i(value: i64) -> Datum {
    Datum::Int(value)
}

/// NULL where there is nothing.
pub fn opt<T>(value: Option<T>, make: impl FnOnce(T) -> Datum) -> Datum {
    value.map_or(Datum::Null, make)
}

fn def() -> Datum {
    s("def")
}

const CHARSETS: [Charset; 5] =
    [Charset::Ascii, Charset::Binary, Charset::Latin1, Charset::Utf8mb3, Charset::Utf8mb4];

pub(super) fn character_sets(_: &StatementContext) -> Vec<Row> {
    let row = |c: &Charset| {
        vec![
            s(c.name()),
            s(c.default_collation().name()),
            s(c.description()),
            u(u64::from(c.char_bytes_max())),
        ]
    };
    CHARSETS.iter().map(row).collect()
}

fn sorted_collations() -> Vec<Collation> {
    let mut all = Collation::ALL.to_vec();
    all.sort_by_key(|c| (c.charset().name(), c.id()));
    all
}

pub(super) fn collations(_: &StatementContext) -> Vec<Row> {
    let row = |c: Collation| {
        let default = if c.is_default() { "Yes" } else { "" };
        let pad = if c.pads_space() { "PAD SPACE" } else { "NO PAD" };
        let sort_len = if c.name().contains("0900_ai") { 0 } else { 1 };
        vec![
            s(c.name()),
            s(c.charset().name()),
            u(u64::from(c.id())),
            s(default),
            s("Yes"),
            u(sort_len),
            s(pad),
        ]
    };
    sorted_collations().into_iter().map(row).collect()
}

pub(super) fn applicability(_: &StatementContext) -> Vec<Row> {
    sorted_collations().into_iter().map(|c| vec![s(c.name()), s(c.charset().name())]).collect()
}

fn each_table<'a>(
    ctx: &'a StatementContext,
) -> impl Iterator<Item = (&'a Arc<DatabaseInfo>, &'a Arc<TableInfo>)> {
    ctx.schema.databases().flat_map(|entry| entry.tables.values().map(move |table| (&entry.info, table)))
}

/// Every table that keeps rows.
fn each_base<'a>(
    ctx: &'a StatementContext,
) -> impl Iterator<Item = (&'a Arc<DatabaseInfo>, &'a Arc<TableInfo>)> {
    each_table(ctx).filter(|(_, table)| table.kind == TableKind::Base)
}

pub(super) fn schemata(ctx: &StatementContext) -> Vec<Row> {
    let row = |info: &DatabaseInfo| {
        let charset = info.collation.charset().name();
        vec![def(), s(&info.name), s(charset), s(info.collation.name()), Datum::Null, s("NO")]
    };
    ctx.schema.databases().map(|entry| row(&entry.info)).collect()
}

pub(super) fn columns(ctx: &StatementContext) -> Vec<Row> {
    let mut rows = Vec::new();
    for (db, table) in each_table(ctx) {
        for (position, (offset, column)) in table.public_columns().enumerate() {
            let ty = &column.ty;
            let lengths = describe::string_lengths(ty);
            let numeric = describe::numeric_precision(ty);
            let text = ty.has_charset().then_some(ty.collation);
            rows.push(vec![
                def(),
                s(&db.name),
                s(&table.name),
                s(&column.name),
                u(position as u64 + 1),
                opt(describe::default_text(column), s),
                s(if ty.not_null { "NO" } else { "YES" }),
                s(describe::data_type(ty)),
                opt(lengths, |l| i(l.0 as i64)),
                opt(lengths, |l| i(l.1 as i64)),
                opt(numeric, |n| u(n.0)),
                opt(numeric.and_then(|n| n.1), u),
                opt(describe::datetime_precision(ty), u),
                opt(text, |c| s(c.charset().name())),
                opt(text, |c| s(c.name())),
                s(ty.sql_name()),
                s(describe::column_key(table, offset)),
                s(describe::extra(column)),
                s("select,insert,update,references"),
                s(&column.comment),
                s(column.generated.as_ref().map_or("", |g| g.expr.as_str())),
                Datum::Null,
            ]);
        }
    }
    rows
}

pub(super) fn engines(_: &StatementContext) -> Vec<Row> {
    let comment = "Supports transactions, row-level locking, and foreign keys";
    vec![vec![s("InnoDB"), s("DEFAULT"), s(comment), s("YES"), s("NO"), s("YES")]]
}

pub(super) fn plugins(_: &StatementContext) -> Vec<Row> {
    let plugin = |name: &str, kind: &str| {
        vec![
            s(name),
            s("1.0"),
            s("ACTIVE"),
            s(kind),
            s("1.0"),
            Datum::Null,
            Datum::Null,
            s("Rutile"),
            s(""),
            s("Apache-2.0"),
            s("FORCE"),
        ]
    };
    vec![
        plugin("mysql_native_password", "AUTHENTICATION"),
        plugin("caching_sha2_password", "AUTHENTICATION"),
        plugin("InnoDB", "STORAGE ENGINE"),
    ]
}

pub(super) fn processlist(ctx: &StatementContext) -> Vec<Row> {
    let row = |p: crate::context::Process| {
        vec![
            u(p.id),
            s(p.user),
            s(p.host),
            opt(p.database, s),
            s(p.command),
            i(p.seconds as i64),
            s(p.state),
            opt(p.info, s),
        ]
    };
    ctx.environment.processes().into_iter().map(row).collect()
}

/// A point in time in the session's zone; NULL for the tables that are only read.
fn local_time(ctx: &StatementContext, ms: i64) -> Datum {
    if ms == 0 {
        return Datum::Null;
    }
    let seconds = rutile_expr::types::Decimal::from_i128(i128::from(ms / 1000), 0);
    let moment = FieldType::decimal(20, 0);
    match rutile_expr::registry::resolve(
        &ctx.eval,
        "from_unixtime",
        vec![rutile_expr::Expr::literal(Datum::Decimal(seconds), moment)],
    ) {
        Ok(expr) => {
            let target = FieldType::datetime(0);
            let value = expr.eval_scalar(&ctx.eval).unwrap_or(Datum::Null);
            convert::cast(&ctx.eval, &value, expr.field_type(), &target).unwrap_or(Datum::Null)
        }
        Err(_) => Datum::Null,
    }
}

pub(super) fn tables(ctx: &StatementContext) -> Vec<Row> {
    let row = |db: &DatabaseInfo, table: &TableInfo| {
        let base = table.kind == TableKind::Base;
        let known = |value: u64| if base { u(value) } else { Datum::Null };
        vec![
            def(),
            s(&db.name),
            s(&table.name),
            s(if base { "BASE TABLE" } else { "SYSTEM VIEW" }),
            if base { s("InnoDB") } else { Datum::Null },
            i(10),
            if base { s("Dynamic") } else { Datum::Null },
            u(0),
            u(0),
            u(0),
            u(0),
            u(0),
            u(0),
            if table.auto_column().is_some() { known(table.auto_increment.max(1)) } else { Datum::Null },
            local_time(ctx, table.create_time_ms),
            Datum::Null,
            Datum::Null,
            if base { s(table.collation.name()) } else { Datum::Null },
            Datum::Null,
            s(table
                .options
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect::<Vec<_>>()
                .join(" ")
                .to_lowercase()),
            s(&table.comment),
        ]
    };
    each_table(ctx).map(|(db, table)| row(db, table)).collect()
}

pub(super) fn statistics(ctx: &StatementContext) -> Vec<Row> {
    let mut rows = Vec::new();
    for (db, table) in each_base(ctx) {
        for index in describe::shown_indexes(table) {
            for (seq, part) in index.columns.iter().enumerate() {
                let column = &table.columns[part.offset];
                rows.push(vec![
                    def(),
                    s(&db.name),
                    s(&table.name),
                    i(i64::from(!index.unique)),
                    s(&db.name),
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
    }
    rows
}

pub(super) fn key_column_usage(ctx: &StatementContext) -> Vec<Row> {
    let mut rows = Vec::new();
    for (db, table) in each_base(ctx) {
        let head = |name: &str| vec![def(), s(&db.name), s(name), def(), s(&db.name), s(&table.name)];
        for index in describe::shown_indexes(table).into_iter().filter(|index| index.unique) {
            for (seq, part) in index.columns.iter().enumerate() {
                let mut row = head(&index.name);
                row.extend([s(&table.columns[part.offset].name), u(seq as u64 + 1)]);
                row.extend([const { Datum::Null }; 4]);
                rows.push(row);
            }
        }
        for key in &table.foreign_keys {
            for (seq, (column, target)) in key.columns.iter().zip(&key.ref_columns).enumerate() {
                let position = u(seq as u64 + 1);
                let mut row = head(&key.name);
                row.extend([s(column), position.clone(), position]);
                row.extend([s(&key.ref_schema), s(&key.ref_table), s(target)]);
                rows.push(row);
            }
        }
    }
    rows
}

pub(super) fn table_constraints(ctx: &StatementContext) -> Vec<Row> {
    let mut rows = Vec::new();
    for (db, table) in each_base(ctx) {
        let row = |name: &str, kind: &str, enforced: bool| {
            let enforced = if enforced { "YES" } else { "NO" };
            vec![def(), s(&db.name), s(name), s(&db.name), s(&table.name), s(kind), s(enforced)]
        };
        for index in describe::shown_indexes(table).into_iter().filter(|index| index.unique) {
            rows.push(row(&index.name, if index.primary { "PRIMARY KEY" } else { "UNIQUE" }, true));
        }
        rows.extend(table.foreign_keys.iter().map(|key| row(&key.name, "FOREIGN KEY", true)));
        rows.extend(table.checks.iter().map(|check| row(&check.name, "CHECK", check.enforced)));
    }
    rows
}

pub(super) fn referential_constraints(ctx: &StatementContext) -> Vec<Row> {
    let mut rows = Vec::new();
    for (db, table) in each_base(ctx) {
        for key in &table.foreign_keys {
            let action = |action: &Option<String>| s(action.as_deref().unwrap_or("NO ACTION"));
            rows.push(vec![
                def(),
                s(&db.name),
                s(&key.name),
                def(),
                s(&key.ref_schema),
                s("PRIMARY"),
                s("NONE"),
                action(&key.on_update),
                action(&key.on_delete),
                s(&table.name),
                s(&key.ref_table),
            ]);
        }
    }
    rows
}

pub(super) fn check_constraints(ctx: &StatementContext) -> Vec<Row> {
    each_base(ctx)
        .flat_map(|(db, table)| {
            table
                .checks
                .iter()
                .map(move |check| vec![def(), s(&db.name), s(&check.name), s(format!("({})", check.expr))])
        })
        .collect()
}

pub(super) fn user_privileges(ctx: &StatementContext) -> Vec<Row> {
    let (user, host) = ctx.environment.current_user();
    vec![vec![s(format!("'{user}'@'{host}'")), def(), s("USAGE"), s("NO")]]
}
