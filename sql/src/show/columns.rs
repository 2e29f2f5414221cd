//! SHOW COLUMNS, DESCRIBE and SHOW INDEX.

use rutile_expr::types::Datum;

use super::result::ResultSet;
use super::table_of;
use crate::Result;
use crate::catalog::describe;
use crate::catalog::model::TableKind;
use crate::catalog::system_tables::{os, s, u};
use crate::context::StatementContext;
use crate::parser::ast::ObjectName;

/// The columns of a table.
pub fn columns(name: &ObjectName, full: bool, ctx: &StatementContext) -> Result<ResultSet> {
    let (_, table) = table_of(name, ctx)?;
    let mut rows = Vec::new();
    for (offset, column) in table.public_columns() {
        let ty = &column.ty;
        let mut row = vec![s(&column.name), s(describe::column_type(ty))];
        if full {
            let has_collation = ty.has_charset() && !ty.is_binary_string();
            row.push(if has_collation { s(ty.collation.name()) } else { Datum::Null });
        }
        row.extend([
            s(if ty.not_null { "NO" } else { "YES" }),
            s(describe::key(table, offset)),
            os(describe::shown_default(column)),
            s(describe::extra(column)),
        ]);
        if full {
            let system = table.kind == TableKind::System;
            row.push(s(if system { "select" } else { "select,insert,update,references" }));
            row.push(s(&column.comment));
        }
        rows.push(row);
    }
    let titles = match full {
        true => "Field Type Collation Null Key Default Extra Privileges Comment",
        false => "Field Type Null Key Default Extra",
    };
    Ok(ResultSet::empty(titles).with_rows(rows))
}

/// The indexes of a table, a row per column of each.
pub fn indexes(name: &ObjectName, ctx: &StatementContext) -> Result<ResultSet> {
    let (_, table) = table_of(name, ctx)?;
    let mut rows = Vec::new();
    for index in table.indexes.iter().filter(|index| index.state.is_public()) {
        for (position, part) in index.columns.iter().enumerate() {
            let column = &table.columns[part.offset];
            rows.push(vec![
                s(&table.name),
                u(u64::from(!index.unique)),
                s(&index.name),
                u(position as u64 + 1),
                s(&column.name),
                s(if part.desc { "D" } else { "A" }),
                u(ctx.statistics.cardinality(table, index, position)),
                part.prefix.map_or(Datum::Null, |prefix| u(u64::from(prefix))),
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
    let titles = "Table Non_unique:n Key_name Seq_in_index:n Column_name Collation Cardinality:n Sub_part:n Packed Null Index_type \
                  Comment Index_comment Visible Expression";
    Ok(ResultSet::empty(titles).with_rows(rows))
}
