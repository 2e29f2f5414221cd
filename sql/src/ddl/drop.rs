//! DROP TABLE, DROP VIEW and TRUNCATE.

use std::sync::Arc;

use crate::catalog::infoschema::Catalog;
use crate::catalog::model::{Change, TableId, TableInfo, TableKind};
use crate::context::StatementContext;
use crate::parser::ast::{DropTable, ObjectName};
use crate::{Error, Result};

use super::{access_denied, database_name, find_table, note};

/// Drops all of the tables or, if one is missing, none.
pub async fn drop_tables(drop: &DropTable, ctx: &StatementContext, catalog: &Catalog) -> Result<()> {
    let mut names = Vec::with_capacity(drop.names.len());
    for name in &drop.names {
        let database = database_name(name, ctx)?;
        let repeated = names.iter().any(|(db, table): &(String, String)| {
            db.eq_ignore_ascii_case(&database) && table.eq_ignore_ascii_case(&name.name)
        });
        if repeated {
            return Err(Error::NonUniqTable { table: name.name.clone() });
        }
        names.push((database, name.name.clone()));
    }
    if drop.temporary {
        return missing(drop, names.iter().map(|(db, table)| format!("{db}.{table}")).collect(), ctx);
    }
    let mut absent = Vec::new();
    catalog
        .change(|schema, _| {
            absent.clear();
            let mut changes = Vec::new();
            for (database, table) in &names {
                if schema.database(database).is_none() && !drop.if_exists {
                    return Err(Error::BadDb { db: database.clone() });
                }
                match schema.table(database, table) {
                    Some(info) if info.kind == TableKind::System => return Err(access_denied(database)),
                    Some(info) => {
                        let entry =
                            schema.database(database).ok_or_else(|| Error::BadDb { db: database.clone() })?;
                        changes.push(Change::DropTable(entry.info.id, info.id));
                    }
                    None => absent.push(format!("{database}.{table}")),
                }
            }
            if !absent.is_empty() && !drop.if_exists {
                return Err(Error::BadTable { table: absent.join(",") });
            }
            Ok(changes)
        })
        .await?;
    missing(drop, absent, ctx)
}

/// An error for what is not there, or a note each under IF EXISTS.
fn missing(drop: &DropTable, absent: Vec<String>, ctx: &StatementContext) -> Result<()> {
    if !drop.if_exists && !absent.is_empty() {
        return Err(Error::BadTable { table: absent.join(",") });
    }
    for table in absent {
        note(ctx, &Error::BadTable { table });
    }
    Ok(())
}

/// There are no views yet: each name is either missing or a table.
pub fn drop_views(drop: &DropTable, ctx: &StatementContext, catalog: &Catalog) -> Result<()> {
    let schema = catalog.snapshot();
    let mut absent = Vec::new();
    for name in &drop.names {
        let database = database_name(name, ctx)?;
        if schema.table(&database, &name.name).is_some() {
            return Err(Error::WrongObject { name: format!("{database}.{}", name.name), expected: "VIEW" });
        }
        absent.push(format!("{database}.{}", name.name));
    }
    missing(drop, absent, ctx)
}

/// Replaces the table by an empty one with a new id.
pub async fn truncate(name: &ObjectName, ctx: &StatementContext, catalog: &Catalog) -> Result<()> {
    let database = database_name(name, ctx)?;
    catalog
        .change(|schema, ids| {
            let table = find_table(schema, &database, &name.name)?;
            if table.kind == TableKind::System {
                return Err(access_denied(&database));
            }
            if table.change.is_some() {
                return Err(Error::TableChanging);
            }
            let entry = schema.database(&database).ok_or_else(|| Error::BadDb { db: database.clone() })?;
            let mut fresh = TableInfo::clone(table);
            fresh.id = TableId(ids.next_id());
            fresh.auto_increment = 0;
            Ok(vec![
                Change::DropTable(entry.info.id, table.id),
                Change::PutTable(entry.info.id, Arc::new(fresh)),
            ])
        })
        .await?;
    Ok(())
}
