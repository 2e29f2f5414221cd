//! SHOW of what the server around the session knows.

use rutile_expr::context::Level;
use rutile_expr::types::{Charset, Collation, Datum};

use super::{INT, Listing, NAME, TEXT, UINT};
use crate::catalog::system_tables::{i, opt, s, u};
use crate::context::{StatementContext, VariableScope};
use crate::parser::ast::{Account, VarScope};
use crate::{Error, Result};

fn scope(given: Option<VarScope>) -> VariableScope {
    match given {
        Some(VarScope::Global) => VariableScope::Global,
        _ => VariableScope::Session,
    }
}

fn pairs(pairs: Vec<(String, String)>) -> Listing {
    let rows = pairs.into_iter().map(|(name, value)| vec![s(name), s(value)]).collect();
    Listing::new(&[("Variable_name", NAME), ("Value", TEXT)], rows)
}

pub(super) fn variables(ctx: &StatementContext, given: Option<VarScope>) -> Listing {
    pairs(ctx.environment.variables(scope(given)))
}

pub(super) fn status(ctx: &StatementContext, given: Option<VarScope>) -> Listing {
    pairs(ctx.environment.status(scope(given)))
}

pub(super) fn remarks(
    ctx: &StatementContext,
    count: bool,
    limit: Option<(u64, u64)>,
    errors: bool,
) -> Listing {
    let remarks = ctx.environment.remarks().into_iter().filter(|r| !errors || r.level == Level::Error);
    if count {
        let title = if errors { "@@session.error_count" } else { "@@session.warning_count" };
        return Listing::new(&[(title, INT)], vec![vec![i(remarks.count() as i64)]]);
    }
    let (skip, take) = limit.map_or((0, usize::MAX), |(offset, rows)| {
        (usize::try_from(offset).unwrap_or(usize::MAX), usize::try_from(rows).unwrap_or(usize::MAX))
    });
    let rows = remarks
        .skip(skip)
        .take(take)
        .map(|r| {
            let level = match r.level {
                Level::Note => "Note",
                Level::Warning => "Warning",
                Level::Error => "Error",
            };
            vec![s(level), u(u64::from(r.code)), s(r.message)]
        })
        .collect();
    Listing::new(&[("Level", NAME), ("Code", UINT), ("Message", TEXT)], rows)
}

/// Characters of a statement that SHOW PROCESSLIST without FULL prints.
const INFO_CHARS_MAX: usize = 100;

pub(super) fn processes(ctx: &StatementContext, full: bool) -> Listing {
    let row = |p: crate::context::Process| {
        let info = p.info.map(|text| if full { text } else { text.chars().take(INFO_CHARS_MAX).collect() });
        vec![
            u(p.id),
            s(p.user),
            s(p.host),
            opt(p.database, s),
            s(p.command),
            i(p.seconds as i64),
            s(p.state),
            opt(info, s),
        ]
    };
    Listing::new(
        &[
            ("Id", UINT),
            ("User", NAME),
            ("Host", NAME),
            ("db", NAME),
            ("Command", NAME),
            ("Time", INT),
            ("State", NAME),
            ("Info", TEXT),
        ],
        ctx.environment.processes().into_iter().map(row).collect(),
    )
}

pub(super) fn engines() -> Listing {
    let comment = "Supports transactions, row-level locking, and foreign keys";
    Listing::new(
        &[
            ("Engine", NAME),
            ("Support", NAME),
            ("Comment", TEXT),
            ("Transactions", NAME),
            ("XA", NAME),
            ("Savepoints", NAME),
        ],
        vec![vec![s("InnoDB"), s("DEFAULT"), s(comment), s("YES"), s("NO"), s("YES")]],
    )
}

pub(super) fn character_sets() -> Listing {
    let all = [Charset::Ascii, Charset::Binary, Charset::Latin1, Charset::Utf8mb3, Charset::Utf8mb4];
    let row = |c: &Charset| {
        vec![
            s(c.name()),
            s(c.description()),
            s(c.default_collation().name()),
            u(u64::from(c.char_bytes_max())),
        ]
    };
    Listing::new(
        &[("Charset", NAME), ("Description", NAME), ("Default collation", NAME), ("Maxlen", UINT)],
        all.iter().map(row).collect(),
    )
}

pub(super) fn collations() -> Listing {
    let mut all = Collation::ALL.to_vec();
    all.sort_by_key(|c| c.name());
    let row = |c: Collation| {
        let default = if c.is_default() { "Yes" } else { "" };
        let pad = if c.pads_space() { "PAD SPACE" } else { "NO PAD" };
        let sort_len = u64::from(!c.name().contains("0900_ai"));
        vec![
            s(c.name()),
            s(c.charset().name()),
            u(u64::from(c.id())),
            s(default),
            s("Yes"),
            u(sort_len),
            s(pad),
        ]
    };
    Listing::new(
        &[
            ("Collation", NAME),
            ("Charset", NAME),
            ("Id", UINT),
            ("Default", NAME),
            ("Compiled", NAME),
            ("Sortlen", UINT),
            ("Pad_attribute", NAME),
        ],
        all.into_iter().map(row).collect(),
    )
}

pub(super) fn grants(ctx: &StatementContext, account: Option<&Account>) -> Result<Listing> {
    let (user, host) = ctx.environment.current_user();
    if let Some(other) = account.filter(|a| !a.current && (a.user != user || a.host != host)) {
        return Err(Error::not_supported(format!("SHOW GRANTS FOR {other}")));
    }
    let rows = ctx.environment.current_grants().into_iter().map(|grant| vec![s(grant)]).collect();
    Ok(Listing::new(&[("", TEXT)], rows).titled(format!("Grants for {user}@{host}")))
}

pub(super) fn privileges() -> Listing {
    let row = |name: &str, context: &str, comment: &str| vec![s(name), s(context), s(comment)];
    Listing::new(
        &[("Privilege", NAME), ("Context", NAME), ("Comment", TEXT)],
        vec![
            row("Alter", "Tables", "To alter the table"),
            row("Create", "Databases,Tables,Indexes", "To create new databases and tables"),
            row("Delete", "Tables", "To delete existing rows"),
            row("Drop", "Databases,Tables", "To drop databases, tables, and views"),
            row("Index", "Tables", "To create or drop indexes"),
            row("Insert", "Tables", "To insert data into tables"),
            row("Select", "Tables", "To retrieve rows from table"),
            row("Update", "Tables", "To update existing rows"),
            row("Usage", "Server Admin", "No privileges - allow connect only"),
        ],
    )
}

pub(super) fn plugins() -> Listing {
    let row = |name: &str, kind: &str| vec![s(name), s("ACTIVE"), s(kind), Datum::Null, s("Apache-2.0")];
    Listing::new(
        &[("Name", NAME), ("Status", NAME), ("Type", NAME), ("Library", NAME), ("License", NAME)],
        vec![
            row("mysql_native_password", "AUTHENTICATION"),
            row("caching_sha2_password", "AUTHENTICATION"),
            row("InnoDB", "STORAGE ENGINE"),
        ],
    )
}
