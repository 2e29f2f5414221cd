//! SHOW and DESCRIBE: result sets in MySQL's words, made from the catalog and the server's own state.

mod columns;
mod result;
mod server;
mod statistics;
mod tables;

use crate::context::{Output, StatementContext, VariableScope};
use crate::parser::ast::{ObjectName, ShowFilter, ShowWhat, Statement, VarScope};
use crate::{Error, Result};

use result::ResultSet;

/// Runs SHOW or DESCRIBE.
pub async fn execute(statement: &Statement, ctx: &StatementContext) -> Result<Output> {
    match statement {
        Statement::Show(show) => {
            let result = rows(&show.what, pattern(&show.filter), ctx).await?;
            result.filtered(show.filter.as_ref(), ctx)?.output()
        }
        Statement::Describe { table, column } => {
            let result = columns::columns(table, false, ctx)?;
            match column {
                None => result.output(),
                Some(column) => {
                    let filter = ShowFilter::Like(column.as_bytes().to_vec());
                    result.filtered(Some(&filter), ctx)?.output()
                }
            }
        }
        _ => Err(Error::internal("not a SHOW statement")),
    }
}

/// The pattern after LIKE, which some titles repeat.
fn pattern(filter: &Option<ShowFilter>) -> Option<String> {
    match filter {
        Some(ShowFilter::Like(pattern)) => Some(String::from_utf8_lossy(pattern).into_owned()),
        _ => None,
    }
}

async fn rows(what: &ShowWhat, pattern: Option<String>, ctx: &StatementContext) -> Result<ResultSet> {
    use ShowWhat as W;
    match what {
        W::Databases => Ok(tables::databases(pattern, ctx)),
        W::Tables { full, schema, .. } => {
            tables::tables(*full, &database_of(schema.as_ref(), ctx)?, pattern, ctx)
        }
        W::TableStatus { schema } => tables::table_status(&database_of(schema.as_ref(), ctx)?, ctx).await,
        W::OpenTables { .. } => Ok(ResultSet::empty("Database Table In_use:n Name_locked:n")),
        W::Columns { full, table, .. } => columns::columns(table, *full, ctx),
        W::Index { table, .. } => columns::indexes(table, ctx),
        W::CreateTable(name) => tables::create_table(name, ctx).await,
        W::CreateView(name) => tables::create_view(name, ctx),
        W::CreateDatabase { if_not_exists, name } => tables::create_database(name, *if_not_exists, ctx),
        W::CreateRoutine { kind, name } => Err(missing_routine(kind, name)),
        W::CreateUser(user) => server::create_user(user.as_ref(), ctx).await,
        W::Variables { scope } => Ok(server::pairs(ctx.environment.variables(scope_of(*scope)))),
        W::Status { scope } => Ok(server::pairs(ctx.environment.status(scope_of(*scope)))),
        W::Warnings { count, limit } => Ok(server::warnings(*count, *limit, false, ctx)),
        W::Errors { count, limit } => Ok(server::warnings(*count, *limit, true, ctx)),
        W::ProcessList { full } => Ok(server::process_list(*full, ctx)),
        W::Grants { user, .. } => server::grants(user.as_ref(), ctx).await,
        W::Engine { name, what } => server::engine(name, what),
        W::CharacterSet | W::Collation | W::Engines | W::Plugins | W::Privileges => Ok(server::list(what)),
        W::StatsMeta => Ok(statistics::meta(ctx)),
        W::StatsHistograms => Ok(statistics::histograms(ctx)),
        W::StatsHealthy => Ok(statistics::healthy(ctx)),
        W::BinaryLogs => Err(Error::Mysql {
            code: 1381,
            state: "HY000",
            message: "You are not using binary logging".into(),
        }),
        W::Triggers { .. }
        | W::Events { .. }
        | W::ProcedureStatus
        | W::FunctionStatus
        | W::BinaryLogStatus
        | W::BinlogEvents
        | W::Replicas
        | W::ReplicaStatus
        | W::Profiles
        | W::Profile => Ok(nothing(what)),
    }
}

/// Result sets of things there are none of.
fn nothing(what: &ShowWhat) -> ResultSet {
    use ShowWhat as W;
    ResultSet::empty(match what {
        W::Triggers { .. } => {
            "Trigger Event Table Statement Timing Created sql_mode Definer character_set_client collation_connection \
             Database~Collation"
        }
        W::Events { .. } => {
            "Db Name Definer Time~zone Type Execute~at Interval~value Interval~field Starts Ends Status Originator:n \
             character_set_client collation_connection Database~Collation"
        }
        W::ProcedureStatus | W::FunctionStatus => {
            "Db Name Type Language Definer Modified Created Security_type Comment character_set_client collation_connection \
             Database~Collation"
        }
        W::BinaryLogStatus => "File Position:n Binlog_Do_DB Binlog_Ignore_DB Executed_Gtid_Set",
        W::BinlogEvents => "Log_name Pos:n Event_type Server_id:n End_log_pos:n Info",
        W::Replicas => "Server_Id:n Host Port:n Source_Id:n Replica_UUID",
        W::Profiles => "Query_ID:n Duration Query",
        W::Profile => "Status Duration",
        _ => "Replica_IO_State Source_Host Source_User Source_Port:n",
    })
}

fn missing_routine(kind: &'static str, name: &ObjectName) -> Error {
    match kind {
        "TRIGGER" => Error::Mysql { code: 1360, state: "HY000", message: "Trigger does not exist".into() },
        "EVENT" => {
            Error::Mysql { code: 1539, state: "HY000", message: format!("Unknown event '{}'", name.name) }
        }
        _ => Error::DoesNotExist { kind, name: name.name.clone() },
    }
}

fn scope_of(scope: Option<VarScope>) -> VariableScope {
    match scope {
        Some(VarScope::Global) => VariableScope::Global,
        _ => VariableScope::Session,
    }
}

/// The database FROM names, or the current one, in the spelling it was created with.
fn database_of(name: Option<&String>, ctx: &StatementContext) -> Result<String> {
    let name = match name {
        Some(name) => name.as_str(),
        None => ctx.current_database()?,
    };
    match ctx.schema.database(name) {
        Some(entry) => Ok(entry.info.name.clone()),
        None => Err(Error::BadDb { db: name.into() }),
    }
}

/// A table that is named.
fn table_of<'a>(
    name: &ObjectName,
    ctx: &'a StatementContext,
) -> Result<(&'a crate::catalog::model::DatabaseEntry, &'a crate::catalog::model::TableInfo)> {
    let database = database_of(name.schema.as_ref(), ctx)?;
    let missing = || Error::NoSuchTable { db: database.clone(), table: name.name.clone() };
    let entry = ctx.schema.database(&database).ok_or_else(missing)?;
    let table = ctx.schema.table(&database, &name.name).ok_or_else(missing)?;
    Ok((entry, table))
}
