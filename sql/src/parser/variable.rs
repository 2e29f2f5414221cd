//! User and system variables in expressions.

use crate::error::Result;

use super::ast::Expr;
use super::cursor::Parser;
use super::lexer::{Tok, Token};

impl Parser<'_> {
    /// The name in a user variable's token, without `@` and quotes; empty for a lone `@`.
    pub fn user_var_name(&self, token: Token) -> Result<String> {
        let bytes = &self.bytes(token)[1..];
        let name = match bytes.first() {
            Some(quote @ (b'\'' | b'"')) => {
                super::lexer::unescape(&bytes[1..bytes.len() - 1], *quote, !self.options.no_backslash_escapes)
            }
            Some(b'`') => super::lexer::unescape(&bytes[1..bytes.len() - 1], b'`', false),
            _ => bytes.to_vec(),
        };
        String::from_utf8(name).map_err(|_| self.error_at(token.start))
    }

    #[inline(never)]
    pub fn user_var(&mut self) -> Result<Expr> {
        let token = self.bump();
        let name = self.user_var_name(token)?;
        if self.eat(Tok::Assign) {
            let value = Box::new(self.expr()?);
            return Ok(Expr::Assign { var: name, value });
        }
        Ok(Expr::UserVar(name))
    }

    #[inline(never)]
    pub fn system_var(&mut self) -> Result<Expr> {
        self.bump();
        let mut scope = None;
        if self.peek().kind == Tok::Dot {
            scope = self.var_scope();
            if scope.is_some() {
                self.expect(Tok::Dot)?;
            }
        }
        let mut name = self.ident_any()?;
        while self.eat(Tok::Dot) {
            name.push('.');
            name.push_str(&self.ident_any()?);
        }
        Ok(Expr::SystemVar { scope, name })
    }
}
