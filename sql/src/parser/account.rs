//! Accounts, roles and privileges.

use crate::error::Result;

use super::ast::{
    Account, AuthOption, CreateUser, Grant, GrantLevel, ObjectName, Privilege, Revoke, Statement,
};
use super::cursor::Parser;
use super::lexer::Tok;

impl Parser<'_> {
    /// `user[@host]` or `CURRENT_USER[()]`
    pub fn account(&mut self) -> Result<Account> {
        if self.eat_kw("CURRENT_USER") {
            if self.eat(Tok::LParen) {
                self.expect(Tok::RParen)?;
            }
            return Ok(Account { user: String::new(), host: String::new(), current: true });
        }
        let user = self.ident_or_string()?;
        let mut host = "%".to_string();
        if self.is(Tok::UserVar) {
            let token = self.bump();
            host = self.user_var_name(token)?;
            if host.is_empty() && token.end - token.start == 1 {
                host = self.ident_or_string()?;
            }
        }
        Ok(Account { user, host: host.to_lowercase(), current: false })
    }

    /// CREATE USER or ALTER USER, from the word USER on.
    pub fn create_user(&mut self, create: bool) -> Result<Statement> {
        self.expect_kw("USER")?;
        let if_clause = if create { self.eat_if_not_exists()? } else { self.eat_if_exists()? };
        let mut user = CreateUser {
            if_clause,
            users: self.comma_list(|p| {
                let account = p.account()?;
                if !create && p.eat_kw("DEFAULT") {
                    return p.unsupported("ALTER USER DEFAULT ROLE");
                }
                Ok((account, p.auth_option()?))
            })?,
            default_roles: Vec::new(),
            require: Vec::new(),
            limits: Vec::new(),
            password_options: Vec::new(),
            account_locked: None,
            comment: None,
            attribute: None,
        };
        if create && self.eat_kws(&["DEFAULT", "ROLE"]) {
            user.default_roles = self.comma_list(Self::account)?;
        }
        self.user_options(&mut user)?;
        Ok(if create { Statement::CreateUser(user) } else { Statement::AlterUser(user) })
    }

    fn user_options(&mut self, user: &mut CreateUser) -> Result<()> {
        if self.eat_kw("REQUIRE") {
            loop {
                let mut word = self.upper_word()?;
                if matches!(word.as_str(), "CIPHER" | "ISSUER" | "SUBJECT") {
                    word = format!("{word} '{}'", self.string()?);
                }
                user.require.push(word);
                self.eat_kw("AND");
                if !self.is_any(&["SSL", "X509", "CIPHER", "ISSUER", "SUBJECT", "NONE"]) {
                    break;
                }
            }
        }
        if self.eat_kw("WITH") {
            while self.is_any(&[
                "MAX_QUERIES_PER_HOUR",
                "MAX_UPDATES_PER_HOUR",
                "MAX_CONNECTIONS_PER_HOUR",
                "MAX_USER_CONNECTIONS",
            ]) {
                let name = self.upper_word()?;
                user.limits.push((name, self.unsigned()?));
            }
        }
        loop {
            if self.eat_kw("ACCOUNT") {
                user.account_locked = Some(match self.eat_any(&["LOCK", "UNLOCK"]) {
                    Some(word) => word == "LOCK",
                    None => return Err(self.error()),
                });
            } else if self.is_any(&["PASSWORD", "FAILED_LOGIN_ATTEMPTS", "PASSWORD_LOCK_TIME"]) {
                let start = self.tok.start;
                self.bump();
                while !matches!(self.tok.kind, Tok::Eof | Tok::Semicolon)
                    && !self.is_any(&[
                        "PASSWORD",
                        "FAILED_LOGIN_ATTEMPTS",
                        "PASSWORD_LOCK_TIME",
                        "ACCOUNT",
                        "COMMENT",
                        "ATTRIBUTE",
                    ])
                {
                    self.bump();
                }
                user.password_options.push(self.text_from(start).to_uppercase());
            } else {
                break;
            }
        }
        if self.eat_kw("COMMENT") {
            user.comment = Some(self.string()?);
        } else if self.eat_kw("ATTRIBUTE") {
            user.attribute = Some(self.string()?);
        }
        Ok(())
    }

    /// `[IDENTIFIED …]`
    fn auth_option(&mut self) -> Result<AuthOption> {
        let mut auth = AuthOption::default();
        if self.eat_kw("IDENTIFIED") {
            if self.eat_kw("WITH") {
                auth.plugin = Some(self.ident_or_string()?);
            }
            if self.eat_kw("BY") {
                if self.eat_kws(&["RANDOM", "PASSWORD"]) {
                    auth.random_password = true;
                } else {
                    auth.password = Some(self.string()?);
                }
            } else if self.eat_kw("AS") {
                auth.hash = Some(self.string_bytes()?);
            } else if auth.plugin.is_none() {
                return Err(self.error());
            }
            if self.eat_kw("REPLACE") {
                auth.replace = Some(self.string()?);
            }
            auth.retain_current = self.eat_kws(&["RETAIN", "CURRENT", "PASSWORD"]);
            if self.is_kw("AND") || self.is_kw("INITIAL") {
                return self.unsupported("multi-factor authentication");
            }
        } else if self.eat_kws(&["DISCARD", "OLD", "PASSWORD"]) {
            auth.discard_old = true;
        }
        Ok(auth)
    }

    /// After CREATE ROLE.
    pub fn create_role(&mut self) -> Result<Statement> {
        let if_not_exists = self.eat_if_not_exists()?;
        Ok(Statement::CreateRole { if_not_exists, roles: self.comma_list(Self::account)? })
    }

    pub fn grant(&mut self) -> Result<Statement> {
        self.expect_kw("GRANT")?;
        if self.is_kw("PROXY") {
            return self.unsupported("GRANT PROXY");
        }
        if let Some(roles) = self.role_list("TO") {
            let to = self.comma_list(Self::account)?;
            let with_admin = self.eat_kws(&["WITH", "ADMIN", "OPTION"]);
            return Ok(Statement::GrantRoles { roles, to, with_admin });
        }
        let privileges = self.privileges()?;
        self.expect_kw("ON")?;
        let level = self.grant_level()?;
        self.expect_kw("TO")?;
        let to = self.comma_list(|p| Ok((p.account()?, p.auth_option()?)))?;
        let with_grant_option = self.eat_kws(&["WITH", "GRANT", "OPTION"]);
        if self.is_kw("AS") {
            return self.unsupported("GRANT AS");
        }
        Ok(Statement::Grant(Grant { privileges, level, to, with_grant_option }))
    }

    pub fn revoke(&mut self) -> Result<Statement> {
        self.expect_kw("REVOKE")?;
        let if_exists = self.eat_if_exists()?;
        if self.is_kw("PROXY") {
            return self.unsupported("REVOKE PROXY");
        }
        if let Some(roles) = self.role_list("FROM") {
            let from = self.comma_list(Self::account)?;
            let ignore_unknown = self.eat_kws(&["IGNORE", "UNKNOWN", "USER"]);
            return Ok(Statement::RevokeRoles { roles, from, if_exists, ignore_unknown });
        }
        let privileges = self.privileges()?;
        let level = if self.eat_kw("ON") { Some(self.grant_level()?) } else { None };
        self.expect_kw("FROM")?;
        let from = self.comma_list(Self::account)?;
        let ignore_unknown = self.eat_kws(&["IGNORE", "UNKNOWN", "USER"]);
        Ok(Statement::Revoke(Revoke { if_exists, privileges, level, from, ignore_unknown }))
    }

    /// A list of roles up to this keyword; nothing consumed if it is a list of privileges.
    fn role_list(&mut self, end: &str) -> Option<Vec<Account>> {
        let mark = self.mark();
        if let Ok(roles) = self.comma_list(Self::account)
            && self.eat_kw(end)
        {
            return Some(roles);
        }
        self.reset(mark);
        None
    }

    fn privileges(&mut self) -> Result<Vec<Privilege>> {
        self.comma_list(|p| {
            let mut name = p.upper_word()?;
            while p.is(Tok::Word) && !p.is_any(&["ON", "FROM", "TO"]) {
                name.push(' ');
                name.push_str(&p.upper_word()?);
            }
            if name == "ALL PRIVILEGES" {
                name = "ALL".into();
            }
            let columns = if p.is(Tok::LParen) { p.paren_list(Self::ident)? } else { Vec::new() };
            Ok(Privilege { name, columns })
        })
    }

    fn grant_level(&mut self) -> Result<GrantLevel> {
        if let Some(kind) = self.eat_any(&["PROCEDURE", "FUNCTION"]) {
            return Ok(GrantLevel::Routine { kind: kind.into(), name: self.object_name()? });
        }
        self.eat_kw("TABLE");
        if self.eat(Tok::Star) {
            if self.eat(Tok::Dot) {
                self.expect(Tok::Star)?;
                return Ok(GrantLevel::Global);
            }
            return Ok(GrantLevel::CurrentDatabase);
        }
        let first = self.ident()?;
        if !self.eat(Tok::Dot) {
            return Ok(GrantLevel::Table(ObjectName { schema: None, name: first }));
        }
        if self.eat(Tok::Star) {
            return Ok(GrantLevel::Database(first));
        }
        Ok(GrantLevel::Table(ObjectName { schema: Some(first), name: self.ident_any()? }))
    }
}
