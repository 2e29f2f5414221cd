//! What runs and how it is set: PROCESSLIST, variables, status, privileges.

use rutile_expr::types::Datum;

use super::{CATALOG, Row, os, s, u};
use crate::context::{StatementContext, VariableScope};

pub fn process_list(ctx: &StatementContext) -> Vec<Row> {
    let row = |process: crate::context::Process| {
        vec![
            u(process.id),
            s(process.user),
            s(process.host),
            os(process.database),
            s(process.command),
            Datum::Int(process.seconds as i64),
            s(process.state),
            os(process.info),
        ]
    };
    ctx.environment.processes().into_iter().map(row).collect()
}

/// The tables of performance_schema with names and values.
pub fn variables(ctx: &StatementContext, table: &str) -> Vec<Row> {
    let pairs = match table {
        "global_variables" => ctx.environment.variables(VariableScope::Global),
        "session_variables" => ctx.environment.variables(VariableScope::Session),
        "global_status" => ctx.environment.status(VariableScope::Global),
        _ => ctx.environment.status(VariableScope::Session),
    };
    pairs.into_iter().map(|(name, value)| vec![s(name), s(value)]).collect()
}

/// The session's own account: USAGE, or ALL for one that may do everything.
pub fn user_privileges(ctx: &StatementContext) -> Vec<Row> {
    const ALL: &[&str] = &[
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "CREATE",
        "DROP",
        "RELOAD",
        "SHUTDOWN",
        "PROCESS",
        "FILE",
        "REFERENCES",
        "INDEX",
        "ALTER",
        "SHOW DATABASES",
        "SUPER",
        "LOCK TABLES",
        "CREATE USER",
    ];
    let (user, host) = ctx.environment.current_user();
    let grants = ctx.environment.current_grants();
    let everything = grants.iter().any(|grant| grant.starts_with("GRANT ALL PRIVILEGES ON *.*"));
    let grantable =
        if grants.iter().any(|grant| grant.ends_with("WITH GRANT OPTION")) { "YES" } else { "NO" };
    let privileges = if everything { ALL } else { &["USAGE"] };
    let row =
        |privilege: &&str| vec![s(format!("'{user}'@'{host}'")), s(CATALOG), s(*privilege), s(grantable)];
    privileges.iter().map(row).collect()
}
