//! ALTER TABLE, CREATE INDEX and DROP INDEX.
//!
//! What changes only the description of a table (columns added with a constant default or dropped, names, defaults, options,
//! indexes dropped) is one schema version. Indexes are added online afterwards, one at a time ([`add_index`]). What would
//! change how rows are stored is allowed on an empty table, which gets a new id, and refused on others.

use std::sync::Arc;

use crate::catalog::infoschema::Catalog;
use crate::catalog::model::{Change, HandleKind, IndexId, InfoSchema, TableId, TableInfo, TableKind};
use crate::context::StatementContext;
use crate::parser::ast::{
    AlterAction, AlterTable, CreateIndex, DropIndex, IndexDef, IndexKind, ObjectName, TableConstraint,
    TableOption,
};
use crate::{Error, Result};

use super::{
    access_denied, add_index, alter_columns, create_table, database_name, find_table, index, rename, types,
};

/// A table as an ALTER leaves it before indexes are filled.
pub struct Altered {
    pub table: TableInfo,
    pub old: Arc<TableInfo>,
    pub dropped_indexes: Vec<IndexId>,
    /// To be added online.
    pub added_indexes: Vec<IndexDef>,
    /// Rows would have to be stored anew, for this reason.
    pub rewrites: Option<&'static str>,
    pub renamed: Option<(String, String)>,
}

pub async fn execute(alter: &AlterTable, ctx: &StatementContext, catalog: &Catalog) -> Result<()> {
    run(&alter.table, &alter.actions, ctx, catalog).await
}

pub async fn create_index(create: &CreateIndex, ctx: &StatementContext, catalog: &Catalog) -> Result<()> {
    let action = AlterAction::AddConstraint(TableConstraint::Index(create.index.clone()));
    run(&create.table, &[action], ctx, catalog).await
}

pub async fn drop_index(drop: &DropIndex, ctx: &StatementContext, catalog: &Catalog) -> Result<()> {
    let action = match drop.name.eq_ignore_ascii_case(index::PRIMARY) {
        true => AlterAction::DropPrimaryKey,
        false => AlterAction::DropIndex(drop.name.clone()),
    };
    run(&drop.table, &[action], ctx, catalog).await
}

async fn run(
    name: &ObjectName,
    actions: &[AlterAction],
    ctx: &StatementContext,
    catalog: &Catalog,
) -> Result<()> {
    let database = database_name(name, ctx)?;
    let table = base_table(&catalog.snapshot(), &database, &name.name)?;
    let is_empty = add_index::is_empty(catalog.client(), &table).await?;
    let id = table.id;
    let mut added = Vec::new();
    let mut result_id = id;
    catalog
        .change(|schema, ids| {
            let table = base_table(schema, &database, &name.name)?;
            if table.id != id {
                return Err(Error::SchemaChanged);
            }
            let mut altered = alter_table(&table, actions, is_empty, ctx)?;
            if let (Some(what), false) = (altered.rewrites, is_empty) {
                return Err(Error::not_supported(format!("ALTER TABLE: {what} of a table that has rows")));
            }
            let changes = changes(schema, &database, &mut altered, is_empty, ids)?;
            result_id = altered.table.id;
            added = altered.added_indexes;
            Ok(changes)
        })
        .await?;
    for def in &added {
        add_index::add(result_id, def, ctx, catalog).await?;
    }
    ctx.effects.set_info("Records: 0  Duplicates: 0  Warnings: 0".into());
    Ok(())
}

fn base_table(schema: &InfoSchema, database: &str, name: &str) -> Result<Arc<TableInfo>> {
    let table = find_table(schema, database, name)?;
    if table.kind == TableKind::System {
        return Err(access_denied(database));
    }
    Ok(Arc::clone(table))
}

/// Applies the actions in order to a copy of the table.
fn alter_table(
    table: &Arc<TableInfo>,
    actions: &[AlterAction],
    is_empty: bool,
    ctx: &StatementContext,
) -> Result<Altered> {
    let mut altered = Altered {
        table: TableInfo::clone(table),
        old: Arc::clone(table),
        dropped_indexes: Vec::new(),
        added_indexes: Vec::new(),
        rewrites: None,
        renamed: None,
    };
    for action in actions {
        apply(&mut altered, action, ctx)?;
    }
    check_added(&altered)?;
    if is_empty {
        build_added(&mut altered)?;
    }
    create_table::check_table(&with_added(&altered)?)?;
    Ok(altered)
}

/// The changes that make a table what it has become.
fn changes(
    schema: &InfoSchema,
    database: &str,
    altered: &mut Altered,
    is_empty: bool,
    ids: &mut crate::catalog::infoschema::Ids,
) -> Result<Vec<Change>> {
    let entry = super::writable_database(schema, database)?;
    let old = &altered.old;
    let mut changes = Vec::new();
    if is_empty && (altered.rewrites.is_some() || altered.table.indexes.len() > old.indexes.len()) {
        altered.table.id = TableId(ids.next_id());
        changes.push(Change::DropTable(entry.info.id, old.id));
    } else {
        changes.extend(altered.dropped_indexes.iter().map(|index| Change::DropIndexData(old.id, *index)));
    }
    if let Some((to_database, to)) = &altered.renamed {
        let target = super::writable_database(schema, to_database)?;
        if rename::taken(schema, to_database, to, old.id) {
            return Err(Error::TableExists { table: to.clone() });
        }
        altered.table.name = to.clone();
        if target.info.id != entry.info.id {
            if altered.table.id == old.id {
                changes.push(Change::ForgetTable(entry.info.id, old.id));
            }
            changes.push(Change::PutTable(target.info.id, Arc::new(altered.table.clone())));
            return Ok(changes);
        }
    }
    changes.push(Change::PutTable(entry.info.id, Arc::new(altered.table.clone())));
    Ok(changes)
}

fn apply(altered: &mut Altered, action: &AlterAction, ctx: &StatementContext) -> Result<()> {
    use AlterAction as A;
    match action {
        A::AddColumn { .. }
        | A::DropColumn(_)
        | A::ModifyColumn { .. }
        | A::ChangeColumn { .. }
        | A::RenameColumn { .. }
        | A::SetDefault { .. }
        | A::DropDefault(_)
        | A::ColumnVisibility { .. } => alter_columns::apply(altered, action, ctx),
        A::AddConstraint(TableConstraint::Index(def)) => {
            if def.kind == IndexKind::Primary {
                if altered.table.primary().is_some() {
                    return Err(Error::MultiplePrimaryKey);
                }
                altered.rewrites = Some("adding a primary key");
            }
            altered.added_indexes.push(def.clone());
            Ok(())
        }
        A::AddConstraint(TableConstraint::ForeignKey { .. }) => Err(Error::not_supported("FOREIGN KEY")),
        A::AddConstraint(TableConstraint::Check { .. }) | A::AlterCheck { .. } => {
            Err(Error::not_supported("CHECK constraints"))
        }
        A::DropIndex(name) => drop_one(altered, name),
        A::DropPrimaryKey => drop_one(altered, index::PRIMARY),
        A::DropConstraint(name) => match altered.table.index(name).is_some_and(|index| index.unique) {
            true => drop_one(altered, name),
            false => Err(Error::Mysql {
                code: 3940,
                state: "HY000",
                message: format!("Constraint '{name}' does not exist."),
            }),
        },
        A::DropForeignKey(name) => Err(Error::CantDropFieldOrKey { name: name.clone() }),
        A::DropCheck(name) => Err(Error::Mysql {
            code: 3821,
            state: "HY000",
            message: format!("Check constraint '{name}' is not found in the table."),
        }),
        A::RenameIndex { old, new } => rename_index(altered, old, new),
        A::IndexVisibility { index, visible } => {
            if index.eq_ignore_ascii_case(index::PRIMARY) {
                return Err(Error::DropPrimaryInvisible);
            }
            edit_index(altered, index, |info| info.invisible = !visible)
        }
        A::RenameTable(to) => {
            create_table::check_table_name(&to.name)?;
            let database = match &to.schema {
                Some(schema) => schema.clone(),
                None => ctx.schema.table_by_id(altered.old.id).map_or_else(
                    || ctx.current_database().map(str::to_owned),
                    |(info, _)| Ok(info.name.clone()),
                )?,
            };
            altered.renamed = Some((database, to.name.clone()));
            Ok(())
        }
        A::ConvertCharset { charset, collate } => convert(altered, charset, collate.as_deref()),
        A::Option(option) => set_option(altered, option),
        A::Partition(_) => Err(Error::not_supported("ALTER TABLE ... PARTITION")),
        // These ask for how it is done, or for what is always so.
        A::OrderBy(_) | A::Keys { .. } | A::Force | A::Algorithm(_) | A::Lock(_) | A::Validation(_) => Ok(()),
    }
}

fn drop_one(altered: &mut Altered, name: &str) -> Result<()> {
    // An index added by the same statement may be dropped again only in a later one.
    let position = altered.table.indexes.iter().position(|index| index.name.eq_ignore_ascii_case(name));
    let Some(position) = position else { return Err(Error::CantDropFieldOrKey { name: name.into() }) };
    let dropped = altered.table.indexes.remove(position);
    if altered.old.is_clustered(&dropped) {
        altered.table.handle = HandleKind::Hidden;
        altered.rewrites = Some("dropping the primary key");
    } else {
        altered.dropped_indexes.push(dropped.id);
    }
    Ok(())
}

fn edit_index(
    altered: &mut Altered,
    name: &str,
    edit: impl FnOnce(&mut crate::catalog::model::IndexInfo),
) -> Result<()> {
    let table = altered.table.name.clone();
    match altered.table.indexes.iter_mut().find(|index| index.name.eq_ignore_ascii_case(name)) {
        Some(index) => {
            edit(Arc::make_mut(index));
            Ok(())
        }
        None => Err(Error::KeyDoesNotExist { key: name.into(), table }),
    }
}

fn rename_index(altered: &mut Altered, old: &str, new: &str) -> Result<()> {
    if altered.table.index(old).is_none() {
        return Err(Error::KeyDoesNotExist { key: old.into(), table: altered.table.name.clone() });
    }
    if !old.eq_ignore_ascii_case(new) && altered.table.index(new).is_some() {
        return Err(Error::DupKeyName { key: new.into() });
    }
    if [old, new].iter().any(|name| name.eq_ignore_ascii_case(index::PRIMARY)) {
        return Err(Error::WrongNameForIndex { key: index::PRIMARY.into() });
    }
    edit_index(altered, old, |info| info.name = new.into())
}

fn set_option(altered: &mut Altered, option: &TableOption) -> Result<()> {
    let options = create_table::options(std::slice::from_ref(option))?;
    let table = &mut altered.table;
    if let Some(comment) = options.comment {
        table.comment = comment;
    }
    if let Some(value) = options.auto_increment {
        table.auto_increment = value;
    }
    if options.charset.is_some() || options.collate.is_some() {
        let (charset, collate) = (options.charset.as_deref(), options.collate.as_deref());
        // Text columns keep theirs: only columns added later get the new one.
        table.collation = types::collation_of(charset, collate, table.collation)?;
    }
    for (name, value) in options.others {
        table.options.retain(|(other, _)| *other != name);
        table.options.push((name, value));
    }
    Ok(())
}

fn convert(altered: &mut Altered, charset: &str, collate: Option<&str>) -> Result<()> {
    let table = &mut altered.table;
    let collation = types::collation_of(Some(charset), collate, table.collation)?;
    table.collation = collation;
    for column in &mut table.columns {
        if column.ty.has_charset() && !column.ty.is_binary_string() && column.ty.collation != collation {
            column.ty.collation = collation;
            column.explicit_collation = false;
            altered.rewrites = Some("converting the character set");
        }
    }
    Ok(())
}

/// Names and columns of indexes to be added must be right before anything is changed.
fn check_added(altered: &Altered) -> Result<()> {
    with_added(altered).map(|_| ())
}

/// The table with the added indexes as if they were there.
fn with_added(altered: &Altered) -> Result<TableInfo> {
    let mut table = altered.table.clone();
    for def in &altered.added_indexes {
        push_index(&mut table, def)?;
    }
    Ok(table)
}

/// Builds the added indexes at once, as there are no rows to fill them from.
fn build_added(altered: &mut Altered) -> Result<()> {
    for def in std::mem::take(&mut altered.added_indexes) {
        push_index(&mut altered.table, &def)?;
    }
    let primary = altered.table.primary().cloned();
    altered.table.handle = index::handle_kind(primary.as_deref(), &altered.table.columns);
    Ok(())
}

/// Adds an index to a table's description.
pub fn push_index(table: &mut TableInfo, def: &IndexDef) -> Result<IndexId> {
    if table.indexes.len() >= index::KEYS_MAX {
        return Err(Error::TooManyKeys { max: index::KEYS_MAX });
    }
    let id = table.next_index_id;
    let taken = |name: &str| table.indexes.iter().any(|index| index.name.eq_ignore_ascii_case(name));
    let built = index::build(def, id, &table.columns, taken)?;
    if built.primary {
        for part in &built.columns {
            table.columns[part.offset].ty.not_null = true;
        }
    }
    table.next_index_id = IndexId(id.0 + 1);
    table.indexes.push(Arc::new(built));
    index::sort(&mut table.indexes, &table.columns);
    Ok(id)
}
