//! SQL text to our own syntax tree.
//!
//! A hand-written lexer over bytes and a recursive-descent parser with a precedence climber for expressions. It reads one
//! statement at a time, keeps no token list, and reports errors as MySQL does, from the first token it could not use.

pub mod ast;

use crate::error::{Error, Result};
use ast::Statement;

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
    let _ = (sql, options);
    Err(Error::not_supported("parsing"))
}
