//! ALTER TABLE's actions on columns.

use std::sync::Arc;

use rutile_expr::types::store::implicit_default;
use rutile_expr::types::{FieldType, MysqlType, format};

use crate::catalog::model::{ColumnDefault, ColumnId, ColumnInfo, HandleKind, TableInfo};
use crate::context::StatementContext;
use crate::parser::ast::{
    AlterAction, ColumnDef, ColumnPosition, IndexColumn, IndexDef, IndexKind, IndexOptions, IndexPart,
};
use crate::{Error, Result};

use super::alter::Altered;
use super::column::{self, BuiltColumn};

pub fn apply(altered: &mut Altered, action: &AlterAction, ctx: &StatementContext) -> Result<()> {
    use AlterAction as A;
    match action {
        A::AddColumn { column, position } => add(altered, column, position.as_ref(), ctx),
        A::DropColumn(name) => drop(altered, name),
        A::ModifyColumn { column, position } => change(altered, &column.name, column, position.as_ref(), ctx),
        A::ChangeColumn { old, column, position } => change(altered, old, column, position.as_ref(), ctx),
        A::RenameColumn { old, new } => rename(altered, old, new),
        A::SetDefault { column, expr, text, parenthesized } => {
            let offset = offset_of(&altered.table, column)?;
            let info = &mut altered.table.columns[offset];
            info.default = column::default_of(info, expr, text, *parenthesized, &ctx.eval)?;
            Ok(())
        }
        A::DropDefault(name) => {
            let offset = offset_of(&altered.table, name)?;
            altered.table.columns[offset].default = ColumnDefault::None;
            Ok(())
        }
        A::ColumnVisibility { column, visible } => {
            let offset = offset_of(&altered.table, column)?;
            altered.table.columns[offset].invisible = !visible;
            match altered.table.columns.iter().all(|column| column.invisible) {
                true => Err(Error::TableMustHaveVisibleColumn),
                false => Ok(()),
            }
        }
        _ => Err(Error::internal("not an action on a column")),
    }
}

fn offset_of(table: &TableInfo, name: &str) -> Result<usize> {
    table.column_offset(name).ok_or_else(|| Error::bad_field(name, table.name.clone()))
}

/// Key attributes written at the column become indexes.
fn key_attributes(altered: &mut Altered, built: &BuiltColumn) -> Result<()> {
    let def = |kind| IndexDef {
        kind,
        name: None,
        columns: vec![IndexColumn {
            part: IndexPart::Column { name: built.info.name.clone(), length: None },
            desc: false,
        }],
        options: IndexOptions::default(),
    };
    if built.primary {
        if altered.table.primary().is_some() {
            return Err(Error::MultiplePrimaryKey);
        }
        altered.rewrites = Some("adding a primary key");
        altered.added_indexes.push(def(IndexKind::Primary));
    }
    if built.unique {
        altered.added_indexes.push(def(IndexKind::Unique));
    }
    Ok(())
}

fn add(
    altered: &mut Altered,
    def: &ColumnDef,
    position: Option<&ColumnPosition>,
    ctx: &StatementContext,
) -> Result<()> {
    let table = &mut altered.table;
    if table.column_offset(&def.name).is_some() {
        return Err(Error::DupFieldName { column: def.name.clone() });
    }
    let id = table.next_column_id;
    table.next_column_id = ColumnId(id.0 + 1);
    let mut built = column::build(def, id, table.collation, &ctx.eval)?;
    let info = &mut built.info;
    if info.auto_increment {
        altered.rewrites = Some("adding an AUTO_INCREMENT column");
    }
    info.origin_default = match &info.default {
        ColumnDefault::Value(value) => ColumnDefault::Value(value.clone()),
        ColumnDefault::Null => ColumnDefault::Null,
        ColumnDefault::None if !info.ty.not_null => ColumnDefault::Null,
        ColumnDefault::None => ColumnDefault::Value(format::to_bytes(&implicit_default(&info.ty), &info.ty)),
        ColumnDefault::CurrentTimestamp => {
            let now = ctx.eval.time_zone.from_unix_micros(ctx.eval.now_micros);
            let now = now.ok_or_else(|| Error::internal("the clock is outside the range of DATETIME"))?;
            ColumnDefault::Value(now.format_datetime(info.ty.decimals).into_bytes())
        }
        // The rows there are would each have a value of their own.
        ColumnDefault::Expr(_) => {
            altered.rewrites = Some("adding a column whose default is an expression");
            ColumnDefault::Null
        }
    };
    table.columns.push(built.info.clone());
    let last = table.columns.len() - 1;
    place(table, last, position)?;
    key_attributes(altered, &built)
}

/// Moves a column to where FIRST or AFTER says, and everything that counts columns with it.
fn place(table: &mut TableInfo, from: usize, position: Option<&ColumnPosition>) -> Result<()> {
    let Some(position) = position else { return Ok(()) };
    let handle = handle_column(table);
    let column = table.columns.remove(from);
    let to = match position {
        ColumnPosition::First => 0,
        ColumnPosition::After(name) => match table.column_offset(name) {
            Some(offset) => offset + 1,
            None => {
                table.columns.insert(from, column);
                return Err(Error::bad_field(name, table.name.clone()));
            }
        },
    };
    table.columns.insert(to, column);
    renumber(table, handle);
    Ok(())
}

/// The id of the column that is the handle.
fn handle_column(table: &TableInfo) -> Option<ColumnId> {
    match table.handle {
        HandleKind::Int { offset } => Some(table.columns[offset].id),
        HandleKind::Common | HandleKind::Hidden => None,
    }
}

/// Sets offsets anew after columns moved.
fn renumber(table: &mut TableInfo, handle: Option<ColumnId>) {
    let offset_of = |id: ColumnId| table.columns.iter().position(|column| column.id == id);
    if let Some(offset) = handle.and_then(offset_of) {
        table.handle = HandleKind::Int { offset };
    }
    for index in &mut table.indexes {
        let parts =
            index.columns.iter().map(|part| table.columns.iter().position(|column| column.id == part.column));
        let offsets: Vec<usize> = parts.flatten().collect();
        let index = Arc::make_mut(index);
        for (part, offset) in index.columns.iter_mut().zip(offsets) {
            part.offset = offset;
        }
    }
}

fn drop(altered: &mut Altered, name: &str) -> Result<()> {
    let table = &mut altered.table;
    let Some(offset) = table.column_offset(name) else {
        return Err(Error::CantDropFieldOrKey { name: name.into() });
    };
    super::default_expr::check_unreferenced(table, name)?;
    if table.columns.len() == 1 {
        return Err(Error::CantRemoveAllFields);
    }
    let id = table.columns[offset].id;
    let mut kept = Vec::with_capacity(table.indexes.len());
    for index in std::mem::take(&mut table.indexes) {
        if !index.columns.iter().any(|part| part.column == id) {
            kept.push(index);
        } else if index.primary {
            altered.rewrites = Some("dropping a column of the primary key");
            let mut rest = (*index).clone();
            rest.columns.retain(|part| part.column != id);
            if !rest.columns.is_empty() {
                kept.push(Arc::new(rest));
            }
        } else {
            altered.dropped_indexes.push(index.id);
            if index.columns.len() > 1 {
                altered.rewrites = Some("dropping a column of an index over several columns");
                let mut rest = (*index).clone();
                rest.columns.retain(|part| part.column != id);
                kept.push(Arc::new(rest));
            }
        }
    }
    table.indexes = kept;
    let handle = handle_column(table).filter(|handle| *handle != id);
    table.columns.remove(offset);
    renumber(table, handle);
    if altered.rewrites.is_some() {
        let primary = table.primary().cloned();
        table.handle = super::index::handle_kind(primary.as_deref(), &table.columns);
    }
    Ok(())
}

fn rename(altered: &mut Altered, old: &str, new: &str) -> Result<()> {
    let table = &mut altered.table;
    let offset = offset_of(table, old)?;
    super::default_expr::check_unreferenced(table, old)?;
    if table.column_offset(new).is_some_and(|other| other != offset) {
        return Err(Error::DupFieldName { column: new.into() });
    }
    column::check_name(new)?;
    table.columns[offset].name = new.into();
    Ok(())
}

/// MODIFY and CHANGE: a new definition for a column that stays the same column.
fn change(
    altered: &mut Altered,
    old: &str,
    def: &ColumnDef,
    position: Option<&ColumnPosition>,
    ctx: &StatementContext,
) -> Result<()> {
    let table = &mut altered.table;
    let offset = offset_of(table, old)?;
    if table.column_offset(&def.name).is_some_and(|other| other != offset) {
        return Err(Error::DupFieldName { column: def.name.clone() });
    }
    let before = table.columns[offset].clone();
    let mut built = column::build(def, before.id, table.collation, &ctx.eval)?;
    if table.primary().is_some_and(|primary| primary.columns.iter().any(|part| part.offset == offset)) {
        if built.explicit_null {
            return Err(Error::PrimaryCantHaveNull);
        }
        built.info.ty.not_null = true;
        if built.info.default == ColumnDefault::Null {
            built.info.default = ColumnDefault::None;
        }
    }
    built.info.origin_default = before.origin_default.clone();
    let indexed = table.indexes.iter().any(|index| index.columns.iter().any(|part| part.offset == offset));
    if !keeps_stored_form(&before, &built.info, indexed) {
        altered.rewrites = Some("changing the type of a column");
    }
    table.columns[offset] = built.info.clone();
    place(table, offset, position)?;
    key_attributes(altered, &built)
}

/// Whether rows and index entries stay as they are, and every value of the old type is one of the new type.
fn keeps_stored_form(old: &ColumnInfo, new: &ColumnInfo, indexed: bool) -> bool {
    if new.ty.not_null && !old.ty.not_null {
        return false;
    }
    let (a, b) = (&old.ty, &new.ty);
    let rank = |ty: &FieldType| {
        use MysqlType as T;
        [T::Tiny, T::Short, T::Int24, T::Long, T::LongLong].iter().position(|tp| *tp == ty.tp)
    };
    if let (Some(from), Some(to)) = (rank(a), rank(b)) {
        return a.unsigned == b.unsigned && from <= to;
    }
    if a.is_string() && b.is_string() {
        let fixed = |ty: &FieldType| ty.tp == MysqlType::Char;
        return a.collation == b.collation
            && a.flen <= b.flen
            && fixed(a) == fixed(b)
            && (!fixed(a) || a.flen == b.flen || !indexed);
    }
    match (a.elems.as_deref(), b.elems.as_deref()) {
        (Some(from), Some(to)) => a.tp == b.tp && a.collation == b.collation && to.starts_with(from),
        (None, None) => {
            a.tp == b.tp && a.decimals == b.decimals && a.flen == b.flen && a.unsigned == b.unsigned
        }
        _ => false,
    }
}
