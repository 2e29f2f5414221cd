//! SET in all its forms.

use crate::error::Result;

use super::ast::{
    Account, Expr, Isolation, Literal, SetItem, SetPassword, SetRole, SetTransaction, Statement, VarScope,
};
use super::cursor::Parser;
use super::lexer::Tok;

impl Parser<'_> {
    pub fn set(&mut self) -> Result<Statement> {
        self.expect_kw("SET")?;
        if self.is_kw("PASSWORD") && !matches!(self.peek().kind, Tok::Dot) {
            return self.set_password();
        }
        if self.is_kw("ROLE") && !matches!(self.peek().kind, Tok::Eq | Tok::Assign) {
            self.bump();
            return Ok(Statement::SetRole(self.role_set()?));
        }
        if self.is_kw("DEFAULT") && self.next_is("ROLE") {
            self.bump();
            self.bump();
            let roles = self.role_set()?;
            self.expect_kw("TO")?;
            return Ok(Statement::SetDefaultRole { roles, users: self.comma_list(Self::account)? });
        }
        if self.is_kw("RESOURCE") && self.next_is("GROUP") {
            return self.unsupported("SET RESOURCE GROUP");
        }
        let mark = self.mark();
        let scope = self.var_scope();
        if self.is_kw("TRANSACTION") && matches!(self.peek().kind, Tok::Word) {
            self.bump();
            return self.set_transaction(scope);
        }
        self.reset(mark);
        Ok(Statement::Set(self.comma_list(Self::set_item)?))
    }

    /// `GLOBAL`, `SESSION`, `LOCAL`, `PERSIST`, `PERSIST_ONLY`; consumed if there.
    pub fn var_scope(&mut self) -> Option<VarScope> {
        Some(match self.eat_any(&["GLOBAL", "SESSION", "LOCAL", "PERSIST", "PERSIST_ONLY"])? {
            "GLOBAL" => VarScope::Global,
            "PERSIST" => VarScope::Persist,
            "PERSIST_ONLY" => VarScope::PersistOnly,
            _ => VarScope::Session,
        })
    }

    fn set_item(&mut self) -> Result<SetItem> {
        if self.is(Tok::UserVar) {
            let token = self.bump();
            let name = self.user_var_name(token)?;
            self.assign()?;
            return Ok(SetItem::User { name, value: self.expr()? });
        }
        if self.is_kw("NAMES") && !matches!(self.peek().kind, Tok::Eq | Tok::Assign) {
            self.bump();
            return self.set_names();
        }
        if self.is_any(&["CHARACTER", "CHAR", "CHARSET"]) {
            self.eat_charset_keyword();
            self.eat(Tok::Eq);
            let charset = if self.eat_kw("DEFAULT") { None } else { Some(self.charset_name()?) };
            return Ok(SetItem::CharacterSet(charset));
        }
        let scope = if self.eat(Tok::AtAt) {
            let mark = self.mark();
            let scope = self.var_scope();
            if scope.is_some() && !self.eat(Tok::Dot) {
                self.reset(mark);
                None
            } else {
                scope
            }
        } else if matches!(self.peek().kind, Tok::Eq | Tok::Assign | Tok::Dot) {
            None
        } else {
            self.var_scope()
        };
        let mut name = self.ident()?;
        while self.eat(Tok::Dot) {
            name.push('.');
            name.push_str(&self.ident_any()?);
        }
        self.assign()?;
        Ok(SetItem::System { scope, name, value: self.set_value()? })
    }

    fn assign(&mut self) -> Result<()> {
        if !self.eat(Tok::Assign) {
            self.expect(Tok::Eq)?;
        }
        Ok(())
    }

    /// A value: an expression, DEFAULT, or a bare word that is taken as a string.
    fn set_value(&mut self) -> Result<Option<Expr>> {
        let next = self.peek().kind;
        if matches!(self.tok.kind, Tok::Word | Tok::QuotedIdent)
            && matches!(next, Tok::Comma | Tok::Semicolon | Tok::Eof)
        {
            if self.eat_kw("DEFAULT") {
                return Ok(None);
            }
            if !self.is_any(&["NULL", "TRUE", "FALSE", "CURRENT_TIMESTAMP", "CURRENT_USER"]) {
                let is_name = self.is_ident() || self.is_any(&["ON", "ALL", "BINARY", "ROW", "SYSTEM"]);
                if !is_name {
                    return Err(self.error());
                }
                let word = self.ident_any()?;
                return Ok(Some(Expr::Literal(Literal::str(word))));
            }
        }
        Ok(Some(self.expr()?))
    }

    fn set_names(&mut self) -> Result<SetItem> {
        if self.eat_kw("DEFAULT") {
            return Ok(SetItem::Names { charset: None, collate: None });
        }
        let charset = Some(self.charset_name()?);
        let collate = if self.eat_kw("COLLATE") { Some(self.charset_name()?) } else { None };
        Ok(SetItem::Names { charset, collate })
    }

    fn set_transaction(&mut self, scope: Option<VarScope>) -> Result<Statement> {
        let mut set = SetTransaction { scope, isolation: None, read_only: None };
        loop {
            if set.isolation.is_none() && self.eat_kw("ISOLATION") {
                self.expect_kw("LEVEL")?;
                set.isolation = Some(if self.eat_kw("SERIALIZABLE") {
                    Isolation::Serializable
                } else if self.eat_kws(&["REPEATABLE", "READ"]) {
                    Isolation::RepeatableRead
                } else if self.eat_kws(&["READ", "COMMITTED"]) {
                    Isolation::ReadCommitted
                } else if self.eat_kws(&["READ", "UNCOMMITTED"]) {
                    Isolation::ReadUncommitted
                } else {
                    return Err(self.error());
                });
            } else if set.read_only.is_none() && self.eat_kw("READ") {
                set.read_only = Some(match self.eat_any(&["ONLY", "WRITE"]) {
                    Some(word) => word == "ONLY",
                    None => return Err(self.error()),
                });
            } else {
                return Err(self.error());
            }
            if !self.eat(Tok::Comma) {
                return Ok(Statement::SetTransaction(set));
            }
        }
    }

    /// `PASSWORD [FOR user] = 'p' | TO RANDOM [REPLACE 'old'] [RETAIN CURRENT PASSWORD]`
    fn set_password(&mut self) -> Result<Statement> {
        self.bump();
        let user = if self.eat_kw("FOR") { Some(self.account()?) } else { None };
        let password = if self.eat_kws(&["TO", "RANDOM"]) {
            None
        } else {
            self.assign()?;
            Some(self.string()?)
        };
        let replace = if self.eat_kw("REPLACE") { Some(self.string()?) } else { None };
        let retain_current = self.eat_kws(&["RETAIN", "CURRENT", "PASSWORD"]);
        let user = user.filter(|account: &Account| !account.current);
        Ok(Statement::SetPassword(SetPassword { user, password, replace, retain_current }))
    }

    /// `DEFAULT | NONE | ALL [EXCEPT roles] | roles`
    fn role_set(&mut self) -> Result<SetRole> {
        if self.eat_kw("DEFAULT") {
            return Ok(SetRole::Default);
        }
        if self.eat_kw("NONE") {
            return Ok(SetRole::None);
        }
        if self.eat_kw("ALL") {
            return Ok(match self.eat_kw("EXCEPT") {
                true => SetRole::AllExcept(self.comma_list(Self::account)?),
                false => SetRole::All,
            });
        }
        Ok(SetRole::Roles(self.comma_list(Self::account)?))
    }
}
