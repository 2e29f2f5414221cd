//! Schema changes.
//!
//! Each statement is decided by pure functions from the syntax tree and a snapshot to a list of
//! [`Change`](crate::catalog::model::Change)s, which [`Catalog::change`] writes with the next schema version. Only adding an
//! index takes several versions, after F1: delete-only, write-only, write-reorganization while older rows are filled in,
//! public ([`add_index`]).

mod add_index;
mod alter;
mod alter_columns;
pub mod column;
pub mod create_table;
mod database;
mod default_expr;
mod drop;
mod index;
mod rename;
#[cfg(test)]
mod tests;
pub mod types;

use std::sync::Arc;

use rutile_expr::context::Level;

use crate::catalog::infoschema::Catalog;
use crate::catalog::model::{Change, DatabaseEntry, InfoSchema, TableId, TableInfo, TableKind};
use crate::context::StatementContext;
use crate::parser::ast::{CreateTable, ObjectName, Statement};
use crate::{Error, Result};

/// Runs a statement that changes the schema.
pub async fn execute(statement: &Statement, ctx: &StatementContext, catalog: &Catalog) -> Result<()> {
    match statement {
        Statement::CreateDatabase(create) => database::create(create, ctx, catalog).await,
        Statement::AlterDatabase(alter) => database::alter(alter, ctx, catalog).await,
        Statement::DropDatabase(drop) => database::drop(drop, ctx, catalog).await,
        Statement::CreateTable(create) => execute_create_table(create, ctx, catalog).await,
        Statement::DropTable(drop) => drop::drop_tables(drop, ctx, catalog).await,
        Statement::TruncateTable(name) => drop::truncate(name, ctx, catalog).await,
        Statement::RenameTable(pairs) => rename::rename_tables(pairs, ctx, catalog).await,
        Statement::AlterTable(alter) => alter::execute(alter, ctx, catalog).await,
        Statement::CreateIndex(create) => alter::create_index(create, ctx, catalog).await,
        Statement::DropIndex(drop) => alter::drop_index(drop, ctx, catalog).await,
        Statement::CreateView(_) => Err(Error::not_supported("CREATE VIEW")),
        Statement::DropView(drop) => drop::drop_views(drop, ctx, catalog),
        _ => Err(Error::internal("not a schema change")),
    }
}

async fn execute_create_table(create: &CreateTable, ctx: &StatementContext, catalog: &Catalog) -> Result<()> {
    let database = database_name(&create.name, ctx)?;
    let mut existed = false;
    catalog
        .change(|schema, ids| {
            existed = false;
            let entry = writable_database(schema, &database)?;
            if schema.table(&database, &create.name.name).is_some() {
                if create.if_not_exists {
                    existed = true;
                    return Ok(Vec::new());
                }
                return Err(Error::TableExists { table: create.name.name.clone() });
            }
            let mut table = match &create.like {
                Some(like) => table_like(like, create, schema, ctx)?,
                None => create_table::build(create, entry.info.collation, &ctx.eval)?,
            };
            table.id = TableId(ids.next_id());
            Ok(vec![Change::PutTable(entry.info.id, Arc::new(table))])
        })
        .await?;
    if existed {
        note(ctx, &Error::TableExists { table: create.name.name.clone() });
    }
    Ok(())
}

/// The definition of another table without its data, comment kept and AUTO_INCREMENT begun anew.
fn table_like(
    like: &ObjectName,
    create: &CreateTable,
    schema: &InfoSchema,
    ctx: &StatementContext,
) -> Result<TableInfo> {
    if create.temporary {
        return Err(Error::not_supported("TEMPORARY tables"));
    }
    create_table::check_table_name(&create.name.name)?;
    let database = database_name(like, ctx)?;
    let source = find_table(schema, &database, &like.name)?;
    if source.kind == TableKind::System {
        return Err(Error::WrongObject { name: format!("{database}.{}", like.name), expected: "BASE TABLE" });
    }
    let (mut table, _) = source.without_change();
    table.name = create.name.name.clone();
    table.auto_increment = 0;
    table.create_time_ms = crate::catalog::infoschema::now_ms();
    Ok(table)
}

/// The database a name means: its own or the current one.
fn database_name(name: &ObjectName, ctx: &StatementContext) -> Result<String> {
    match &name.schema {
        Some(schema) => Ok(schema.clone()),
        None => Ok(ctx.current_database()?.to_string()),
    }
}

/// A database in which tables may be created.
fn writable_database<'a>(schema: &'a InfoSchema, name: &str) -> Result<&'a DatabaseEntry> {
    let entry = schema.database(name).ok_or_else(|| Error::BadDb { db: name.into() })?;
    if entry.info.id.0 < 0 {
        return Err(access_denied(&entry.info.name));
    }
    Ok(entry)
}

/// System databases cannot be changed.
fn access_denied(database: &str) -> Error {
    Error::DbAccessDenied { user: "root".into(), host: "%".into(), db: database.into() }
}

/// A table that must be there.
fn find_table<'a>(schema: &'a InfoSchema, database: &str, table: &str) -> Result<&'a Arc<TableInfo>> {
    if schema.database(database).is_none() {
        return Err(Error::BadDb { db: database.into() });
    }
    schema
        .table(database, table)
        .ok_or_else(|| Error::NoSuchTable { db: database.into(), table: table.into() })
}

/// Leaves a note for SHOW WARNINGS.
fn note(ctx: &StatementContext, error: &Error) {
    ctx.eval.warnings.push(Level::Note, error.code(), error.to_string());
}
