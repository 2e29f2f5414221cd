//! The syntax tree of one SQL statement, exactly as written: no name is resolved, no type is inferred.
//!
//! Identifiers keep the case they were written in; who looks them up folds case. Everything the source text decides
//! (titles of unnamed result columns, texts of default expressions) is stored here, so nobody needs the source again.

mod admin;
mod ddl;
mod dml;
mod expr;
mod print;
mod query;
mod walk;

pub use admin::*;
pub use ddl::*;
pub use dml::*;
pub use expr::*;
pub use query::*;

/// An identifier as written, without its quotes.
pub type Ident = String;

/// `[schema.]name` of a table, view or routine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectName {
    pub schema: Option<Ident>,
    pub name: Ident,
}

impl ObjectName {
    /// A name without a schema.
    pub fn bare(name: impl Into<String>) -> Self {
        Self { schema: None, name: name.into() }
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// One statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    Query(Box<Query>),
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
    LoadData(Box<LoadData>),
    /// `DO expr, …`
    Do(Vec<Expr>),

    CreateDatabase(CreateDatabase),
    AlterDatabase(AlterDatabase),
    DropDatabase(DropDatabase),
    CreateTable(Box<CreateTable>),
    AlterTable(AlterTable),
    DropTable(DropTable),
    RenameTable(Vec<(ObjectName, ObjectName)>),
    TruncateTable(ObjectName),
    CreateIndex(CreateIndex),
    DropIndex(DropIndex),
    CreateView(Box<CreateView>),
    DropView(DropTable),

    Begin(Begin),
    Commit(EndTransaction),
    Rollback(EndTransaction),
    Savepoint(Ident),
    RollbackTo(Ident),
    ReleaseSavepoint(Ident),
    LockTables(Vec<(ObjectName, Option<Ident>, TableLock)>),
    UnlockTables,
    /// `LOCK INSTANCE FOR BACKUP` and `UNLOCK INSTANCE`.
    LockInstance {
        lock: bool,
    },

    Set(Vec<SetItem>),
    SetTransaction(SetTransaction),
    SetPassword(SetPassword),
    Use(Ident),
    Show(Show),
    Explain(Box<Explain>),
    /// `DESCRIBE table [column | 'pattern']`
    Describe {
        table: ObjectName,
        column: Option<String>,
    },
    Help(String),

    Prepare {
        name: Ident,
        source: PrepareSource,
    },
    Execute {
        name: Ident,
        using: Vec<String>,
    },
    Deallocate {
        name: Ident,
    },

    Kill(Kill),
    Flush {
        local: bool,
        what: Vec<FlushWhat>,
    },
    Analyze(Analyze),
    /// `CHECK | CHECKSUM | OPTIMIZE | REPAIR TABLE …`
    TableMaintenance {
        verb: MaintenanceVerb,
        tables: Vec<ObjectName>,
    },
    Shutdown,

    CreateUser(CreateUser),
    AlterUser(CreateUser),
    DropUser {
        if_exists: bool,
        users: Vec<Account>,
    },
    RenameUser(Vec<(Account, Account)>),
    CreateRole {
        if_not_exists: bool,
        roles: Vec<Account>,
    },
    DropRole {
        if_exists: bool,
        roles: Vec<Account>,
    },
    Grant(Grant),
    Revoke(Revoke),
    GrantRoles {
        roles: Vec<Account>,
        to: Vec<Account>,
        with_admin: bool,
    },
    RevokeRoles {
        roles: Vec<Account>,
        from: Vec<Account>,
        if_exists: bool,
        ignore_unknown: bool,
    },
    SetRole(SetRole),
    SetDefaultRole {
        roles: SetRole,
        users: Vec<Account>,
    },
}

impl Statement {
    /// Whether MySQL commits the open transaction before this statement runs.
    pub fn commits_implicitly(&self) -> bool {
        use Statement as S;
        match self {
            S::CreateTable(create) => !create.temporary,
            S::DropTable(drop) => !drop.temporary,
            S::CreateDatabase(_)
            | S::AlterDatabase(_)
            | S::DropDatabase(_)
            | S::AlterTable(_)
            | S::RenameTable(_)
            | S::TruncateTable(_)
            | S::CreateIndex(_)
            | S::DropIndex(_)
            | S::CreateView(_)
            | S::DropView(_)
            | S::Begin(_)
            | S::LockTables(_)
            | S::UnlockTables
            | S::SetPassword(_)
            | S::Flush { .. }
            | S::Analyze(_)
            | S::TableMaintenance { .. }
            | S::CreateUser(_)
            | S::AlterUser(_)
            | S::DropUser { .. }
            | S::RenameUser(_)
            | S::CreateRole { .. }
            | S::DropRole { .. }
            | S::Grant(_)
            | S::Revoke(_)
            | S::GrantRoles { .. }
            | S::RevokeRoles { .. }
            | S::SetDefaultRole { .. } => true,
            S::Query(_)
            | S::Insert(_)
            | S::Update(_)
            | S::Delete(_)
            | S::LoadData(_)
            | S::Do(_)
            | S::Commit(_)
            | S::Rollback(_)
            | S::Savepoint(_)
            | S::RollbackTo(_)
            | S::ReleaseSavepoint(_)
            | S::LockInstance { .. }
            | S::Set(_)
            | S::SetTransaction(_)
            | S::Use(_)
            | S::Show(_)
            | S::Explain(_)
            | S::Describe { .. }
            | S::Help(_)
            | S::Prepare { .. }
            | S::Execute { .. }
            | S::Deallocate { .. }
            | S::Kill(_)
            | S::Shutdown
            | S::SetRole(_) => false,
        }
    }
}
