//! Transactions, settings, SHOW, accounts and the other statements about the server.

use super::{Expr, Ident, ObjectName, Statement, VarScope};

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Begin {
    /// `READ ONLY` (true) or `READ WRITE` (false)
    pub read_only: Option<bool>,
    pub consistent_snapshot: bool,
    /// `READ ONLY AS OF TIMESTAMP expr`
    pub as_of: Option<Expr>,
}

/// `COMMIT | ROLLBACK [WORK] [AND [NO] CHAIN] [[NO] RELEASE]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndTransaction {
    pub chain: Option<bool>,
    pub release: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableLock {
    Read,
    ReadLocal,
    Write,
}

/// One assignment of SET.
#[derive(Debug, Clone, PartialEq)]
pub enum SetItem {
    /// `@name = expr`
    User { name: String, value: Expr },
    /// `[GLOBAL | SESSION | …] name = expr`. A bare word on the right (`SET sql_mode = ansi`) is a string literal
    /// unless it is a keyword of its own; `DEFAULT` is `None`.
    System { scope: Option<VarScope>, name: String, value: Option<Expr> },
    /// `NAMES charset [COLLATE c]`; `None` is DEFAULT.
    Names { charset: Option<String>, collate: Option<String> },
    /// `CHARACTER SET charset`
    CharacterSet(Option<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetTransaction {
    pub scope: Option<VarScope>,
    pub isolation: Option<Isolation>,
    pub read_only: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    /// As the variable `transaction_isolation` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "READ-UNCOMMITTED",
            Self::ReadCommitted => "READ-COMMITTED",
            Self::RepeatableRead => "REPEATABLE-READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetPassword {
    /// Nothing: the current user.
    pub user: Option<Account>,
    /// Nothing: `TO RANDOM`.
    pub password: Option<String>,
    pub replace: Option<String>,
    pub retain_current: bool,
}

/// `ANALYZE TABLE …`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analyze {
    pub local: bool,
    pub tables: Vec<ObjectName>,
    pub histogram: Option<HistogramClause>,
}

/// `UPDATE HISTOGRAM ON columns WITH n BUCKETS`, `DROP HISTOGRAM ON columns`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramClause {
    pub columns: Vec<Ident>,
    /// `None`: drop.
    pub buckets: Option<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Show {
    pub what: ShowWhat,
    pub filter: Option<ShowFilter>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ShowFilter {
    Like(Vec<u8>),
    Where(Expr),
}

#[derive(Debug, Clone, PartialEq)]
pub enum ShowWhat {
    Databases,
    Tables {
        full: bool,
        extended: bool,
        schema: Option<Ident>,
    },
    TableStatus {
        schema: Option<Ident>,
    },
    OpenTables {
        schema: Option<Ident>,
    },
    Columns {
        full: bool,
        extended: bool,
        table: ObjectName,
    },
    Index {
        extended: bool,
        table: ObjectName,
    },
    CreateTable(ObjectName),
    CreateView(ObjectName),
    CreateDatabase {
        if_not_exists: bool,
        name: Ident,
    },
    CreateUser(Option<Account>),
    /// PROCEDURE, FUNCTION, TRIGGER, EVENT (upper case) and its name.
    CreateRoutine {
        kind: &'static str,
        name: ObjectName,
    },
    Variables {
        scope: Option<VarScope>,
    },
    Status {
        scope: Option<VarScope>,
    },
    Warnings {
        count: bool,
        limit: Option<(u64, u64)>,
    },
    Errors {
        count: bool,
        limit: Option<(u64, u64)>,
    },
    ProcessList {
        full: bool,
    },
    Engines,
    /// `SHOW ENGINE name STATUS | MUTEX | LOGS`
    Engine {
        name: Ident,
        what: String,
    },
    CharacterSet,
    Collation,
    /// Nothing: the current user.
    Grants {
        user: Option<Account>,
        using: Vec<Account>,
    },
    Privileges,
    Plugins,
    Triggers {
        schema: Option<Ident>,
    },
    Events {
        schema: Option<Ident>,
    },
    ProcedureStatus,
    FunctionStatus,
    /// `SHOW MASTER STATUS` and `SHOW BINARY LOG STATUS`
    BinaryLogStatus,
    BinaryLogs,
    BinlogEvents,
    Replicas,
    ReplicaStatus,
    Profiles,
    Profile,
    /// `STATS_META`: rows of tables, and how many of them changed.
    StatsMeta,
    /// `STATS_HISTOGRAMS`: what is known of columns.
    StatsHistograms,
    /// `STATS_HEALTHY`: how far that still holds.
    StatsHealthy,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    pub analyze: bool,
    /// In upper case: TRADITIONAL, JSON, TREE …
    pub format: Option<String>,
    pub target: ExplainTarget,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ExplainTarget {
    Statement(Statement),
    Connection(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareSource {
    Text(Vec<u8>),
    UserVar(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Kill {
    /// `KILL QUERY` rather than the connection.
    pub query: bool,
    pub id: Expr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlushWhat {
    Privileges,
    Status,
    /// `FLUSH TABLES [names] [WITH READ LOCK | FOR EXPORT]`
    Tables {
        names: Vec<ObjectName>,
        read_lock: bool,
    },
    /// `[kind] LOGS`, and the other things that have no meaning here: the text in upper case.
    Other(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaintenanceVerb {
    Check,
    Checksum,
    Optimize,
    Repair,
}

impl MaintenanceVerb {
    /// In the lower case of the result column `Op`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Checksum => "checksum",
            Self::Optimize => "optimize",
            Self::Repair => "repair",
        }
    }
}

/// `'user'@'host'`; without a host, `%`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    pub user: String,
    pub host: String,
    /// `CURRENT_USER[()]` was written: user and host are empty.
    pub current: bool,
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "'{}'@'{}'", self.user, self.host)
    }
}

/// How an account proves itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthOption {
    pub plugin: Option<String>,
    /// `BY 'password'`
    pub password: Option<String>,
    /// `AS 'hash'`
    pub hash: Option<Vec<u8>>,
    pub random_password: bool,
    pub replace: Option<String>,
    pub retain_current: bool,
    pub discard_old: bool,
}

/// CREATE USER and ALTER USER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateUser {
    /// IF NOT EXISTS for CREATE, IF EXISTS for ALTER.
    pub if_clause: bool,
    pub users: Vec<(Account, AuthOption)>,
    pub default_roles: Vec<Account>,
    /// `NONE`, `SSL`, `X509` or `CIPHER …` in upper case.
    pub require: Vec<String>,
    /// `(MAX_QUERIES_PER_HOUR, n)` …
    pub limits: Vec<(String, u64)>,
    /// `PASSWORD EXPIRE`, `PASSWORD HISTORY …` and the like: the text in upper case.
    pub password_options: Vec<String>,
    pub account_locked: Option<bool>,
    pub comment: Option<String>,
    pub attribute: Option<String>,
}

/// What a grant is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantLevel {
    /// `*.*`
    Global,
    /// `*`
    CurrentDatabase,
    /// `db.*`
    Database(Ident),
    Table(ObjectName),
    /// PROCEDURE or FUNCTION
    Routine {
        kind: String,
        name: ObjectName,
    },
}

/// One privilege: its name in upper case (`SELECT`, `ALL`, `CREATE TEMPORARY TABLES`, a dynamic one) and its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privilege {
    pub name: String,
    pub columns: Vec<Ident>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub privileges: Vec<Privilege>,
    pub level: GrantLevel,
    pub to: Vec<(Account, AuthOption)>,
    pub with_grant_option: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoke {
    pub if_exists: bool,
    /// `ALL` with `GRANT OPTION` and no level: everything.
    pub privileges: Vec<Privilege>,
    pub level: Option<GrantLevel>,
    pub from: Vec<Account>,
    pub ignore_unknown: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetRole {
    Default,
    None,
    All,
    AllExcept(Vec<Account>),
    Roles(Vec<Account>),
}
