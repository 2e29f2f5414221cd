//! ALTER TABLE, CREATE INDEX and DROP INDEX.
//!
//! What changes only the description of a table (columns added with a constant default or dropped, names, defaults, options,
//! table options) is one schema version. Indexes are dropped and added in steps, one at a time ([`add_index`]). What would
//! change how rows are stored is allowed on an empty table, which gets a new id, and refused on others; whether it is empty is
//! found out while every server keeps its statements from writing to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalog::infoschema::{Catalog, Ids};
use crate::catalog::model::{
    Change, HandleKind, IndexId, InfoSchema, SchemaState, TableChange, TableId, TableInfo, TableKind,
};
use crate::context::StatementContext;
use crate::parser::ast::{
    AlterAction, AlterTable, CreateIndex, DropIndex, IndexDef, IndexKind, ObjectName, TableConstraint,
    TableOption,
};
use crate::{Error, Result};

use super::{
    access_denied, add_index, alter_columns, create_table, database_name, find_table, index, rename, types,
};

/// How often a change looks whether the one before it is through.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

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
    // What is wrong with the statement itself is said before anything is changed.
    let wanted = alter_table(&without_change(&table), actions, false, ctx)?;
    let by_rows = wanted.rewrites.is_some() || !wanted.added_indexes.is_empty();
    let looks_empty = by_rows && add_index::is_empty(catalog.client(), &table).await?;
    refuse_rewrite(&wanted, looks_empty)?;
    let target = Target { database: &database, name: &name.name, actions, ctx, catalog };
    if by_rows || !wanted.dropped_indexes.is_empty() {
        target.in_steps(looks_empty).await?;
    } else {
        target.at_once(None, false).await?;
    }
    ctx.effects.set_info("Records: 0  Duplicates: 0  Warnings: 0".into());
    Ok(())
}

/// What would store rows anew is for tables without rows.
fn refuse_rewrite(altered: &Altered, is_empty: bool) -> Result<()> {
    match altered.rewrites {
        Some(what) if !is_empty => {
            Err(Error::not_supported(format!("ALTER TABLE: {what} of a table that has rows")))
        }
        _ => Ok(()),
    }
}

/// The table as it would be if the change that is going on were given up.
fn without_change(table: &Arc<TableInfo>) -> Arc<TableInfo> {
    match table.change {
        Some(_) => Arc::new(table.without_change().0),
        None => Arc::clone(table),
    }
}

/// A table and what an ALTER does to it.
struct Target<'a> {
    database: &'a str,
    name: &'a str,
    actions: &'a [AlterAction],
    ctx: &'a StatementContext,
    catalog: &'a Catalog,
}

impl Target<'_> {
    /// Writes what the actions make of the table as one version; gives the table's id and the indexes still to be added.
    /// `own`: the change this belongs to, during which `is_empty` was found out.
    async fn at_once(&self, own: Option<TableChange>, is_empty: bool) -> Result<(TableId, Vec<IndexDef>)> {
        let mut result = (TableId(0), Vec::new());
        self.when_free(own, |schema, table, ids| {
            let mut base = TableInfo::clone(table);
            base.change = None;
            let mut altered = alter_table(&Arc::new(base), self.actions, is_empty, self.ctx)?;
            refuse_rewrite(&altered, is_empty)?;
            let rest = std::mem::take(&mut altered.added_indexes);
            altered.table.change =
                own.filter(|_| !rest.is_empty()).map(|change| TableChange { frozen: false, ..change });
            let changes = changes(schema, self.database, &mut altered, is_empty, ids)?;
            result = (altered.table.id, rest);
            Ok(changes)
        })
        .await?;
        Ok(result)
    }

    /// Changes the catalog once no other change of the table is going on.
    async fn when_free(
        &self,
        own: Option<TableChange>,
        mut decide: impl FnMut(&InfoSchema, &Arc<TableInfo>, &mut Ids) -> Result<Vec<Change>>,
    ) -> Result<()> {
        let begun = Instant::now();
        loop {
            let changed = self.catalog.change(|schema, ids| {
                let table = base_table(schema, self.database, self.name)?;
                if table.change.is_some() && !same_change(table.change, own) {
                    return Err(Error::TableChanging);
                }
                decide(schema, &table, ids)
            });
            match changed.await {
                Err(Error::TableChanging) if begun.elapsed() < self.timeout() => {
                    self.ctx.check_cancelled()?;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                result => return result.map(drop),
            }
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.ctx.settings.lock_wait_timeout_ms)
    }

    /// Indexes are dropped after nobody reads and then nobody writes them; whether a table is empty is found out while nobody
    /// writes to it; indexes are added to the others afterwards.
    async fn in_steps(&self, looks_empty: bool) -> Result<()> {
        let own = self.catalog.new_change(looks_empty);
        let mut id = TableId(0);
        let mut dropped = Vec::new();
        self.when_free(None, |schema, table, _| {
            let (database, _) = schema.table_by_id(table.id).ok_or(Error::SchemaChanged)?;
            dropped = alter_table(table, self.actions, false, self.ctx)?.dropped_indexes;
            id = table.id;
            let mut info = TableInfo::clone(table);
            info.change = Some(own);
            set_states(&mut info, &dropped, SchemaState::WriteOnly);
            Ok(vec![Change::PutTable(database.id, Arc::new(info))])
        })
        .await?;
        match self.steps(own, id, &dropped, looks_empty).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.give_up(own, &dropped).await?;
                Err(error)
            }
        }
    }

    async fn steps(
        &self,
        own: TableChange,
        id: TableId,
        dropped: &[IndexId],
        looks_empty: bool,
    ) -> Result<()> {
        self.catalog.wait_for_users(id, self.timeout()).await?;
        if !dropped.is_empty() {
            self.when_free(Some(own), |schema, table, _| {
                let (database, _) = schema.table_by_id(table.id).ok_or(Error::SchemaChanged)?;
                let mut info = TableInfo::clone(table);
                set_states(&mut info, dropped, SchemaState::DeleteOnly);
                Ok(vec![Change::PutTable(database.id, Arc::new(info))])
            })
            .await?;
            self.catalog.wait_for_users(id, self.timeout()).await?;
        }
        let is_empty = match looks_empty {
            true => {
                let table = base_table(&self.catalog.snapshot(), self.database, self.name)?;
                add_index::is_empty(self.catalog.client(), &table).await?
            }
            false => false,
        };
        let (id, added) = self.at_once(Some(own), is_empty).await?;
        for (position, def) in added.iter().enumerate() {
            let last = position + 1 == added.len();
            add_index::add(id, def, last, self.ctx, self.catalog).await?;
        }
        Ok(())
    }

    /// Undoes what is undone yet of a change that failed: an index that everybody still writes is as it was before.
    async fn give_up(&self, own: TableChange, dropped: &[IndexId]) -> Result<()> {
        self.catalog
            .change(|schema, _| {
                let mut tables = schema.all_tables();
                let Some((database, table)) = tables.find(|(_, table)| same_change(table.change, Some(own)))
                else {
                    return Ok(Vec::new());
                };
                let mut kept = TableInfo::clone(table);
                for index in &mut kept.indexes {
                    if dropped.contains(&index.id) && index.state == SchemaState::WriteOnly {
                        Arc::make_mut(index).state = SchemaState::Public;
                    }
                }
                let (info, gone) = kept.without_change();
                let mut changes = vec![Change::PutTable(database.id, Arc::new(info))];
                changes.extend(gone.into_iter().map(|index| Change::DropIndexData(table.id, index)));
                Ok(changes)
            })
            .await?;
        Ok(())
    }
}

fn same_change(a: Option<TableChange>, b: Option<TableChange>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if (a.server, a.job) == (b.server, b.job))
}

fn set_states(table: &mut TableInfo, indexes: &[IndexId], state: SchemaState) {
    for index in &mut table.indexes {
        if indexes.contains(&index.id) {
            Arc::make_mut(index).state = state;
        }
    }
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
    ids: &mut Ids,
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
