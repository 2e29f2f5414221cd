//! CREATE, ALTER and DROP DATABASE.

use crate::catalog::infoschema::Catalog;
use crate::catalog::model::{Change, DatabaseId, DatabaseInfo};
use crate::context::StatementContext;
use crate::parser::ast::{AlterDatabase, CreateDatabase, DatabaseOptions, DropDatabase};
use crate::{Error, Result};
use rutile_expr::types::Collation;

use super::{note, types, writable_database};

fn refuse_unsupported(options: &DatabaseOptions) -> Result<()> {
    if options.encryption.as_deref().is_some_and(|value| !value.eq_ignore_ascii_case("n")) {
        return Err(Error::not_supported("ENCRYPTION"));
    }
    if options.read_only == Some(true) {
        return Err(Error::not_supported("READ ONLY databases"));
    }
    Ok(())
}

pub async fn create(create: &CreateDatabase, ctx: &StatementContext, catalog: &Catalog) -> Result<()> {
    let name = &create.name;
    if name.is_empty() || name.ends_with(' ') {
        return Err(Error::WrongDbName { db: name.clone() });
    }
    refuse_unsupported(&create.options)?;
    let options = &create.options;
    let collation =
        types::collation_of(options.charset.as_deref(), options.collate.as_deref(), Collation::DEFAULT)?;
    let mut existed = false;
    catalog
        .change(|schema, ids| {
            existed = schema.database(name).is_some();
            match existed {
                true if create.if_not_exists => Ok(Vec::new()),
                true => Err(Error::DbCreateExists { db: name.clone() }),
                false => {
                    let id = DatabaseId(ids.next_id());
                    Ok(vec![Change::PutDatabase(DatabaseInfo { id, name: name.clone(), collation })])
                }
            }
        })
        .await?;
    if existed {
        note(ctx, &Error::DbCreateExists { db: name.clone() });
    }
    ctx.effects.add_affected(1);
    Ok(())
}

pub async fn alter(alter: &AlterDatabase, ctx: &StatementContext, catalog: &Catalog) -> Result<()> {
    let name = match &alter.name {
        Some(name) => name.clone(),
        None => ctx.current_database()?.to_string(),
    };
    refuse_unsupported(&alter.options)?;
    catalog
        .change(|schema, _| {
            let entry = writable_database(schema, &name)?;
            let mut info = DatabaseInfo::clone(&entry.info);
            let options = &alter.options;
            info.collation =
                types::collation_of(options.charset.as_deref(), options.collate.as_deref(), info.collation)?;
            Ok(vec![Change::PutDatabase(info)])
        })
        .await?;
    ctx.effects.add_affected(1);
    Ok(())
}

pub async fn drop(drop: &DropDatabase, ctx: &StatementContext, catalog: &Catalog) -> Result<()> {
    let mut tables = None;
    catalog
        .change(|schema, _| {
            tables = None;
            let Some(entry) = schema.database(&drop.name) else {
                return match drop.if_exists {
                    true => Ok(Vec::new()),
                    false => Err(Error::DbDropExists { db: drop.name.clone() }),
                };
            };
            writable_database(schema, &drop.name)?;
            tables = Some(entry.tables.len() as u64);
            Ok(vec![Change::DropDatabase(entry.info.id)])
        })
        .await?;
    match tables {
        Some(tables) => ctx.effects.add_affected(tables),
        None => note(ctx, &Error::DbDropExists { db: drop.name.clone() }),
    }
    Ok(())
}
