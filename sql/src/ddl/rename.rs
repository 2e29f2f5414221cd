//! RENAME TABLE.

use std::sync::Arc;

use crate::catalog::infoschema::Catalog;
use crate::catalog::model::{Change, InfoSchema, TableId, TableInfo, TableKind};
use crate::context::StatementContext;
use crate::parser::ast::ObjectName;
use crate::{Error, Result};

use super::{access_denied, create_table, database_name, find_table, writable_database};

/// Renames one after the other, so that tables can change places through a third name; all or none.
pub async fn rename_tables(
    pairs: &[(ObjectName, ObjectName)],
    ctx: &StatementContext,
    catalog: &Catalog,
) -> Result<()> {
    let mut names = Vec::with_capacity(pairs.len());
    for (from, to) in pairs {
        names.push((database_name(from, ctx)?, from.name.clone(), database_name(to, ctx)?, to.name.clone()));
    }
    catalog
        .change(|schema, _| {
            let mut seen = schema.clone();
            let mut all = Vec::new();
            for (from_db, from, to_db, to) in &names {
                let changes = rename(&seen, (from_db, from), (to_db, to))?;
                seen = seen.with_changes(seen.version(), &changes);
                all.extend(changes);
            }
            Ok(all)
        })
        .await?;
    Ok(())
}

/// One renaming.
pub fn rename(schema: &InfoSchema, from: (&str, &str), to: (&str, &str)) -> Result<Vec<Change>> {
    let table = find_table(schema, from.0, from.1)?;
    if table.kind == TableKind::System {
        return Err(access_denied(from.0));
    }
    create_table::check_table_name(to.1)?;
    let target = writable_database(schema, to.0)?;
    let source = writable_database(schema, from.0)?;
    if schema.table(to.0, to.1).is_some() {
        return Err(Error::TableExists { table: to.1.into() });
    }
    let mut renamed = TableInfo::clone(table);
    renamed.name = to.1.into();
    let mut changes = Vec::new();
    if source.info.id != target.info.id {
        changes.push(Change::ForgetTable(source.info.id, table.id));
    }
    changes.push(Change::PutTable(target.info.id, Arc::new(renamed)));
    Ok(changes)
}

/// Whether another table has this name.
pub fn taken(schema: &InfoSchema, database: &str, name: &str, table: TableId) -> bool {
    schema.table(database, name).is_some_and(|other| other.id != table)
}
