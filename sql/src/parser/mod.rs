//! SQL text to our own syntax tree.
//!
//! A hand-written lexer over bytes and a recursive-descent parser with a precedence climber for expressions. It reads one
//! statement at a time, keeps no token list, and reports errors as MySQL does, from the first token it could not use.

mod account;
mod alter;
pub mod ast;
mod create;
mod cursor;
mod dml;
mod expr;
mod from;
mod function;
mod interval;
mod keywords;
mod lexer;
pub mod normalize;
mod query;
mod set;
mod show;
mod statement;
mod table_option;
mod types;
mod variable;

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use ast::{Expr, Statement};
use cursor::Parser;
use lexer::Tok;

/// What of `sql_mode` changes how text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ParseOptions {
    /// `"x"` is an identifier.
    pub ansi_quotes: bool,
    /// `||` joins strings.
    pub pipes_as_concat: bool,
    /// `\` in a string is an ordinary character.
    pub no_backslash_escapes: bool,
    /// `NOT a BETWEEN b AND c` is `(NOT a) BETWEEN b AND c`.
    pub high_not_precedence: bool,
    /// Spaces are allowed between a built-in function's name and its parenthesis.
    pub ignore_space: bool,
}

/// One statement of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    pub statement: Statement,
    /// How many `?` it has.
    pub params: usize,
    /// Where the next statement's text begins: after the semicolon, or the end of the text. When only blanks and comments
    /// are left, the end of the text.
    pub end: usize,
}

/// Parses the first statement of a text in the connection's character set (utf8mb4 or one where ASCII is ASCII).
pub fn parse_first(sql: &[u8], options: ParseOptions) -> Result<Parsed> {
    let mut parser = Parser::new(sql, options);
    while parser.eat(Tok::Semicolon) {}
    if parser.is(Tok::Eof) {
        return Err(Error::EmptyQuery);
    }
    let statement = parser.statement()?;
    if !parser.is(Tok::Eof) && !parser.is(Tok::Semicolon) {
        return Err(parser.error());
    }
    let params = parser.params;
    let mut end = parser.tok.end;
    // Blanks and comments after the last semicolon are no statement.
    while parser.eat(Tok::Semicolon) {
        if parser.is(Tok::Eof) {
            end = sql.len();
        }
    }
    Ok(Parsed { statement, params, end })
}

/// Parses a text that must be a single statement (a trailing semicolon is allowed).
pub fn parse_one(sql: &[u8], options: ParseOptions) -> Result<Parsed> {
    let parsed = parse_first(sql, options)?;
    if parsed.end < sql.len() {
        let mut parser = Parser::new(sql, options);
        while parser.tok.start < parsed.end {
            parser.bump();
        }
        return Err(parser.error());
    }
    Ok(parsed)
}

/// Parses a stored expression, such as a default or a generated column's.
pub fn parse_expr(text: &str) -> Result<Expr> {
    let mut parser = Parser::new(text.as_bytes(), ParseOptions::default());
    let expr = parser.expr()?;
    if parser.is(Tok::Eof) { Ok(expr) } else { Err(parser.error()) }
}
