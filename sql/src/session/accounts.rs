//! CREATE USER, ALTER USER, DROP USER, RENAME USER, SET PASSWORD, GRANT, REVOKE, and KILL.

use crate::context::StatementContext;
use crate::parser::ast::{
    self, AuthOption, CreateUser, Grant, GrantLevel, Kill, Privilege, Revoke, SetPassword, Statement,
};
use crate::{Error, Result};

use super::Session;
use super::privilege::{Account, AuthPlugin, hash_password};

impl Session {
    fn require_super(&self, privilege: &str) -> Result<()> {
        match self.state.account.read().is_super() {
            true => Ok(()),
            false => Err(Error::SpecificAccessDenied { privilege: privilege.to_owned() }),
        }
    }

    /// `(user, host)` an account name stands for.
    fn named(&self, account: &ast::Account) -> (String, String) {
        if account.current {
            let own = self.state.account.read();
            return (own.user.clone(), own.host.clone());
        }
        (account.user.clone(), account.host.clone())
    }

    /// Runs one of the statements about accounts.
    pub(super) async fn change_accounts(&mut self, statement: &Statement) -> Result<()> {
        if let Statement::SetPassword(set) = statement {
            return self.set_password(set).await;
        }
        self.require_super("CREATE USER")?;
        match statement {
            Statement::CreateUser(create) => self.create_users(create).await,
            Statement::AlterUser(alter) => self.alter_users(alter).await,
            Statement::DropUser { if_exists, users } => self.drop_users(*if_exists, users).await,
            Statement::RenameUser(pairs) => self.rename_users(pairs).await,
            Statement::Grant(grant) => self.grant(grant).await,
            Statement::Revoke(revoke) => self.revoke(revoke).await,
            _ => Err(Error::internal("not a statement about accounts")),
        }
    }

    async fn create_users(&self, create: &CreateUser) -> Result<()> {
        refuse_options(create)?;
        let names: Vec<_> = create.users.iter().map(|(account, _)| self.named(account)).collect();
        let mut options = create.users.iter().map(|(_, option)| option);
        let change = |name: &(String, String), existing: Option<Account>| {
            let option = options.next().expect("one option per user");
            if existing.is_some() {
                return match create.if_clause {
                    true => Ok(existing),
                    false => Err(failed("CREATE USER", name)),
                };
            }
            let mut account = Account::new(&name.0, &name.1);
            apply_auth(&mut account, option)?;
            account.locked = create.account_locked.unwrap_or(false);
            Ok(Some(account))
        };
        self.instance.accounts.change(&names, change).await
    }

    async fn alter_users(&self, alter: &CreateUser) -> Result<()> {
        refuse_options(alter)?;
        let names: Vec<_> = alter.users.iter().map(|(account, _)| self.named(account)).collect();
        let mut options = alter.users.iter().map(|(_, option)| option);
        let change = |name: &(String, String), existing: Option<Account>| {
            let option = options.next().expect("one option per user");
            let Some(mut account) = existing else {
                return match alter.if_clause {
                    true => Ok(None),
                    false => Err(failed("ALTER USER", name)),
                };
            };
            apply_auth(&mut account, option)?;
            account.locked = alter.account_locked.unwrap_or(account.locked);
            Ok(Some(account))
        };
        self.instance.accounts.change(&names, change).await
    }

    async fn drop_users(&self, if_exists: bool, users: &[ast::Account]) -> Result<()> {
        let names: Vec<_> = users.iter().map(|account| self.named(account)).collect();
        let change = |name: &(String, String), existing: Option<Account>| match existing {
            None if !if_exists => Err(failed("DROP USER", name)),
            _ => Ok(None),
        };
        self.instance.accounts.change(&names, change).await
    }

    async fn rename_users(&self, pairs: &[(ast::Account, ast::Account)]) -> Result<()> {
        for (from, to) in pairs {
            let (from, to) = (self.named(from), self.named(to));
            let mut taken = None;
            let change = |name: &(String, String), existing: Option<Account>| {
                if *name == from {
                    taken = Some(existing.ok_or_else(|| failed("RENAME USER", name))?);
                    return Ok(None);
                }
                match (existing, taken.take()) {
                    (None, Some(account)) => {
                        Ok(Some(Account { user: to.0.clone(), host: to.1.clone(), ..account }))
                    }
                    _ => Err(failed("RENAME USER", &from)),
                }
            };
            self.instance.accounts.change(&[from.clone(), to.clone()], change).await?;
        }
        Ok(())
    }

    async fn set_password(&self, set: &SetPassword) -> Result<()> {
        let own = self.state.account.read().clone();
        let name =
            set.user.as_ref().map_or_else(|| (own.user.clone(), own.host.clone()), |user| self.named(user));
        if name != (own.user.clone(), own.host.clone()) {
            self.require_super("CREATE USER")?;
        }
        let Some(password) = &set.password else {
            return Err(Error::not_supported("SET PASSWORD TO RANDOM"));
        };
        let change = |name: &(String, String), existing: Option<Account>| {
            let mut account = existing.ok_or_else(|| failed("SET PASSWORD", name))?;
            account.auth = hash_password(account.plugin, password.as_bytes());
            Ok(Some(account))
        };
        self.instance.accounts.change(&[name], change).await
    }

    async fn grant(&self, grant: &Grant) -> Result<()> {
        let level = self.level(&grant.level)?;
        let usage_only = all_or_usage(&grant.privileges)?;
        let names: Vec<_> = grant.to.iter().map(|(account, _)| self.named(account)).collect();
        let change = |name: &(String, String), existing: Option<Account>| {
            // NO_AUTO_CREATE_USER has been the rule since MySQL 8.
            let mut account = existing.ok_or_else(|| Error::Mysql {
                code: 1410,
                state: "42000",
                message: "You are not allowed to create a user with GRANT".to_owned(),
            })?;
            let _ = name;
            if !usage_only {
                let grantable = account.all_on.entry(level.clone()).or_default();
                *grantable |= grant.with_grant_option;
            }
            Ok(Some(account))
        };
        self.instance.accounts.change(&names, change).await
    }

    async fn revoke(&self, revoke: &Revoke) -> Result<()> {
        let level = match &revoke.level {
            Some(level) => Some(self.level(level)?),
            None => None,
        };
        if level.is_some() {
            all_or_usage(&revoke.privileges)?;
        }
        let names: Vec<_> = revoke.from.iter().map(|account| self.named(account)).collect();
        let change = |name: &(String, String), existing: Option<Account>| {
            let Some(mut account) = existing else {
                return if revoke.if_exists { Ok(None) } else { Err(failed("REVOKE", name)) };
            };
            match &level {
                Some(level) => drop(account.all_on.remove(level)),
                None => account.all_on.clear(),
            }
            Ok(Some(account))
        };
        self.instance.accounts.change(&names, change).await
    }

    /// The key of [`Account::all_on`] that a level is.
    fn level(&self, level: &GrantLevel) -> Result<String> {
        match level {
            GrantLevel::Global => Ok("*".to_owned()),
            GrantLevel::CurrentDatabase => self.database().map(str::to_lowercase).ok_or(Error::NoDatabase),
            GrantLevel::Database(name) => Ok(name.to_lowercase()),
            GrantLevel::Table(_) => Err(Error::not_supported("GRANT on a table")),
            GrantLevel::Routine { .. } => Err(Error::not_supported("GRANT on a routine")),
        }
    }

    /// `KILL [QUERY | CONNECTION] id`
    pub(super) fn kill(&mut self, kill: &Kill, ctx: &StatementContext) -> Result<()> {
        let (datum, _) = self.constant(&kill.id, ctx)?;
        let id = datum.as_u64().or_else(|| datum.as_i64().and_then(|id| u64::try_from(id).ok()));
        let id = id.ok_or(Error::NoSuchThread { id: 0 })?;
        self.kill_connection(id, kill.query)
    }

    /// Stops a connection's statement, or the connection.
    pub fn kill_connection(&mut self, id: u64, query_only: bool) -> Result<()> {
        let target = self.instance.connection(id).ok_or(Error::NoSuchThread { id })?;
        let own = self.state.account.read();
        if !own.is_super() && target.user() != own.user {
            return Err(Error::KillDenied { id });
        }
        if target.id == self.connection.id {
            self.released |= !query_only;
            return Err(Error::QueryInterrupted);
        }
        match query_only {
            true => target.kill_query(),
            false => target.kill(),
        }
        Ok(())
    }
}

fn failed(operation: &'static str, name: &(String, String)) -> Error {
    Error::UserOperationFailed { operation, users: format!("'{}'@'{}'", name.0, name.1) }
}

fn apply_auth(account: &mut Account, option: &AuthOption) -> Result<()> {
    if option.random_password {
        return Err(Error::not_supported("IDENTIFIED BY RANDOM PASSWORD"));
    }
    if option.retain_current || option.discard_old {
        return Err(Error::not_supported("a second password"));
    }
    if let Some(plugin) = &option.plugin {
        account.plugin = AuthPlugin::from_name(plugin)?;
        account.auth.clear();
    }
    if let Some(password) = &option.password {
        account.auth = hash_password(account.plugin, password.as_bytes());
    }
    if let Some(hash) = &option.hash {
        account.auth = hash.clone();
    }
    Ok(())
}

/// What CREATE and ALTER USER can say that we would not keep to.
fn refuse_options(statement: &CreateUser) -> Result<()> {
    if !statement.default_roles.is_empty() {
        return Err(Error::not_supported("roles"));
    }
    if statement.require.iter().any(|requirement| requirement != "NONE") {
        return Err(Error::not_supported("REQUIRE"));
    }
    if statement.limits.iter().any(|(_, limit)| *limit != 0) {
        return Err(Error::not_supported("resource limits of an account"));
    }
    match statement
        .password_options
        .iter()
        .find(|option| !option.ends_with("NEVER") && !option.ends_with("DEFAULT"))
    {
        Some(option) => Err(Error::not_supported(option.clone())),
        None => Ok(()),
    }
}

/// Whether the privileges are only USAGE; an error for anything finer than ALL.
fn all_or_usage(privileges: &[Privilege]) -> Result<bool> {
    let is =
        |privilege: &Privilege, name: &str| privilege.name.starts_with(name) && privilege.columns.is_empty();
    if privileges.iter().all(|privilege| is(privilege, "USAGE")) {
        return Ok(true);
    }
    match privileges.iter().all(|privilege| is(privilege, "ALL") || is(privilege, "GRANT OPTION")) {
        true => Ok(false),
        false => Err(Error::not_supported("GRANT and REVOKE of anything but ALL")),
    }
}
