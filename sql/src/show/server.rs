//! SHOW of what the server is and does.

use rutile_expr::context::Level;
use rutile_expr::types::{Datum, FieldType};

use super::result::ResultSet;
use crate::catalog::system_tables::{os, s, server, text, u};
use crate::context::StatementContext;
use crate::parser::ast::{Account, ShowWhat};
use crate::{Error, Result};

/// Characters of a statement in SHOW PROCESSLIST without FULL.
const INFO_LENGTH_MAX: usize = 100;

/// Variables and status.
pub fn pairs(pairs: Vec<(String, String)>) -> ResultSet {
    let rows = pairs.into_iter().map(|(name, value)| vec![s(name), s(value)]).collect();
    ResultSet::empty("Variable_name Value").with_rows(rows)
}

/// Warnings, or only the errors among them, or their number.
pub fn warnings(
    count: bool,
    limit: Option<(u64, u64)>,
    errors_only: bool,
    ctx: &StatementContext,
) -> ResultSet {
    let remarks = ctx.environment.remarks();
    let remarks = remarks.into_iter().filter(|remark| !errors_only || remark.level == Level::Error);
    if count {
        let title = if errors_only { "@@session.error_count" } else { "@@session.warning_count" };
        let columns = vec![(title.to_string(), FieldType::bigint_unsigned())];
        return ResultSet { columns, rows: vec![vec![u(remarks.count() as u64)]] };
    }
    let (offset, limit) = limit.unwrap_or((0, u64::MAX));
    let level = |level| match level {
        Level::Note => "Note",
        Level::Warning => "Warning",
        Level::Error => "Error",
    };
    let rows = remarks
        .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .map(|remark| vec![s(level(remark.level)), u(u64::from(remark.code)), s(remark.message)])
        .collect();
    ResultSet::empty("Level Code:n Message").with_rows(rows)
}

pub fn process_list(full: bool, ctx: &StatementContext) -> ResultSet {
    let rows = ctx.environment.processes().into_iter().map(|process| {
        let info = process.info.map(|info| match full {
            true => info,
            false => info.chars().take(INFO_LENGTH_MAX).collect(),
        });
        vec![
            u(process.id),
            s(process.user),
            s(process.host),
            os(process.database),
            s(process.command),
            u(process.seconds),
            s(process.state),
            os(info),
        ]
    });
    ResultSet::empty("Id:n User Host db Command Time:n State Info").with_rows(rows.collect())
}

/// The grants of an account, or the session's own.
pub async fn grants(user: Option<&Account>, ctx: &StatementContext) -> Result<ResultSet> {
    let (name, host) = named(user, ctx);
    let account = ctx.environment.account(&name, &host).await?.ok_or_else(|| Error::Mysql {
        code: 1141,
        state: "42000",
        message: format!("There is no such grant defined for user '{name}' on host '{host}'"),
    })?;
    let columns = vec![(format!("Grants for {name}@{host}"), text(1024))];
    Ok(ResultSet { columns, rows: account.grants.into_iter().map(|grant| vec![s(grant)]).collect() })
}

/// `SHOW CREATE USER`
pub async fn create_user(user: Option<&Account>, ctx: &StatementContext) -> Result<ResultSet> {
    let (name, host) = named(user, ctx);
    let account = ctx.environment.account(&name, &host).await?;
    let account = account.ok_or_else(|| Error::UserOperationFailed {
        operation: "SHOW CREATE USER",
        users: format!("'{name}'@'{host}'"),
    })?;
    let columns = vec![(format!("CREATE USER for {name}@{host}"), text(1024))];
    Ok(ResultSet { columns, rows: vec![vec![s(account.create)]] })
}

fn named(user: Option<&Account>, ctx: &StatementContext) -> (String, String) {
    match user.filter(|user| !user.current) {
        Some(user) => (user.user.clone(), user.host.clone()),
        None => ctx.environment.current_user(),
    }
}

/// `SHOW ENGINE name STATUS`
pub fn engine(name: &str, what: &str) -> Result<ResultSet> {
    if !name.eq_ignore_ascii_case("innodb") {
        return Err(Error::UnknownStorageEngine { engine: name.into() });
    }
    let rows = match what {
        "STATUS" => vec![vec![
            s("InnoDB"),
            s(""),
            s("Rutile keeps its data in a replicated key-value store; see its status port"),
        ]],
        _ => Vec::new(),
    };
    Ok(ResultSet::empty("Type Name Status").with_rows(rows))
}

/// Lists of what the server offers; some as in information_schema with the columns in another order.
pub fn list(what: &ShowWhat) -> ResultSet {
    match what {
        ShowWhat::CharacterSet => {
            let rows = server::character_sets().into_iter().map(|row| pick(&row, &[0, 2, 1, 3])).collect();
            ResultSet::empty("Charset Description Default~collation Maxlen:n").with_rows(rows)
        }
        ShowWhat::Collation => {
            ResultSet::empty("Collation Charset Id:n Default Compiled Sortlen:n Pad_attribute")
                .with_rows(server::collations())
        }
        ShowWhat::Engines => {
            ResultSet::empty("Engine Support Comment Transactions XA Savepoints").with_rows(server::engines())
        }
        ShowWhat::Plugins => {
            let rows = server::plugins().into_iter().map(|row| pick(&row, &[0, 2, 3, 5, 9])).collect();
            ResultSet::empty("Name Status Type Library License").with_rows(rows)
        }
        _ => privileges(),
    }
}

fn pick(row: &[Datum], positions: &[usize]) -> Vec<Datum> {
    positions.iter().map(|position| row[*position].clone()).collect()
}

fn privileges() -> ResultSet {
    const LIST: &[(&str, &str, &str)] = &[
        ("Alter", "Tables", "To alter the table"),
        ("Create", "Databases,Tables,Indexes", "To create new databases and tables"),
        ("Create user", "Server Admin", "To create new users"),
        ("Delete", "Tables", "To delete existing rows"),
        ("Drop", "Databases,Tables", "To drop databases, tables, and views"),
        (
            "Grant option",
            "Databases,Tables,Functions,Procedures",
            "To give to other users those privileges you possess",
        ),
        ("Index", "Tables", "To create or drop indexes"),
        ("Insert", "Tables", "To insert data into tables"),
        ("Process", "Server Admin", "To view the plain text of currently executing queries"),
        ("Select", "Tables", "To retrieve rows from table"),
        ("Show databases", "Server Admin", "To see all databases with SHOW DATABASES"),
        ("Super", "Server Admin", "To use KILL thread, SET GLOBAL, CHANGE MASTER, etc."),
        ("Update", "Tables", "To update existing rows"),
        ("Usage", "Server Admin", "No privileges - allow connect only"),
    ];
    let rows = LIST.iter().map(|(name, context, comment)| vec![s(*name), s(*context), s(*comment)]).collect();
    ResultSet::empty("Privilege Context Comment").with_rows(rows)
}
