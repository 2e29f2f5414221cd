//! LIKE: `%`, `_` and an escape character, compared character by character in the collation.

use std::sync::Arc;

use arrow::array::{Array, Int64Array};

use super::compare::Bytes;
use super::registry::{Arg, Entry, ret};
use crate::error::{Error, Result};
use crate::eval::Value;
use crate::expr::{Function, Scope};
use crate::types::{Collation, Datum};

/// This family's functions.
pub static ENTRIES: &[Entry] =
    &[Entry::fixed(Function::strict("like", like).vectorized(vector), 2, 3, &[Arg::Str], ret::boolean)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Many,
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    tokens: Vec<Token>,
    collation: Collation,
    /// The pattern is `%text%`, `text%`, `%text` or `text`, of letters that only equal themselves.
    literal: Option<(bool, Vec<u8>, bool)>,
}

/// Characters of a text; a binary string's characters are its bytes.
fn characters(text: &[u8], collation: Collation) -> Vec<char> {
    if collation == Collation::Binary {
        return text.iter().map(|b| char::from(*b)).collect();
    }
    String::from_utf8_lossy(text).chars().collect()
}

impl Pattern {
    /// Compiles a pattern.
    #[must_use]
    pub fn new(pattern: &[u8], escape: Option<char>, collation: Collation) -> Pattern {
        let mut tokens = Vec::new();
        let mut chars = characters(pattern, collation).into_iter().peekable();
        while let Some(c) = chars.next() {
            let token = match c {
                c if Some(c) == escape && chars.peek().is_some() => Token::Char(chars.next().unwrap_or(c)),
                '%' => Token::Many,
                '_' => Token::One,
                c => Token::Char(c),
            };
            if token != Token::Many || tokens.last() != Some(&Token::Many) {
                tokens.push(token);
            }
        }
        let literal = if collation.is_bin() { Pattern::literal_of(&tokens, collation) } else { None };
        Pattern { tokens, collation, literal }
    }

    fn literal_of(tokens: &[Token], collation: Collation) -> Option<(bool, Vec<u8>, bool)> {
        let (open_start, tokens) = match tokens {
            [Token::Many, rest @ ..] => (true, rest),
            all => (false, all),
        };
        let (tokens, open_end) = match tokens {
            [rest @ .., Token::Many] => (rest, true),
            all => (all, false),
        };
        let mut text = Vec::new();
        for token in tokens {
            let Token::Char(c) = token else { return None };
            if collation == Collation::Binary {
                text.push(*c as u32 as u8);
            } else {
                text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        Some((open_start, text, open_end))
    }

    /// The text that every match begins with, for index ranges; only for bytewise collations.
    #[must_use]
    pub fn prefix(&self) -> String {
        let chars = self.tokens.iter().map_while(|t| if let Token::Char(c) = t { Some(*c) } else { None });
        chars.collect()
    }

    /// Does the text match?
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        if let Some((open_start, literal, open_end)) = &self.literal {
            return match (open_start, open_end) {
                (false, false) => text == literal,
                (false, true) => text.starts_with(literal),
                (true, false) => text.ends_with(literal),
                (true, true) => memchr::memmem::find(text, literal).is_some(),
            };
        }
        if text.is_ascii() && self.collation != Collation::Binary {
            // Indexing bytes saves decoding.
            return self.run(text.len(), |at| char::from(text[at]));
        }
        let chars = characters(text, self.collation);
        self.run(chars.len(), |at| chars[at])
    }

    /// Backtracks to the last `%` only, which is enough.
    fn run(&self, len: usize, char_at: impl Fn(usize) -> char) -> bool {
        let (mut at, mut token) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let matched = match self.tokens.get(token) {
                Some(Token::Many) => {
                    token += 1;
                    if token == self.tokens.len() {
                        return true;
                    }
                    retry = Some((at, token));
                    continue;
                }
                Some(Token::One) => at < len,
                Some(Token::Char(c)) => at < len && self.equal(*c, char_at(at)),
                None if at == len => return true,
                None => false,
            };
            if matched {
                at += 1;
                token += 1;
                continue;
            }
            match retry {
                Some((from, after)) if from < len => {
                    retry = Some((from + 1, after));
                    (at, token) = (from + 1, after);
                }
                _ => return false,
            }
        }
    }

    fn equal(&self, a: char, b: char) -> bool {
        if a == b {
            return true;
        }
        if a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric() {
            return !self.collation.is_bin()
                && !self.collation.is_case_sensitive()
                && a.eq_ignore_ascii_case(&b);
        }
        self.collation.chars_equal(a, b)
    }
}

fn escape_of(value: Option<&Datum>) -> Result<Option<char>> {
    let Some(value) = value else { return Ok(Some('\\')) };
    let text = value.as_str().unwrap_or_default();
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (first, None) => Ok(first),
        _ => Err(Error::WrongArguments { function: "ESCAPE".to_string() }),
    }
}

fn pattern_of(scope: &Scope<'_>, pattern: &Datum, escape: Option<&Datum>) -> Result<Pattern> {
    Ok(Pattern::new(pattern.as_bytes().unwrap_or_default(), escape_of(escape)?, scope.collation()))
}

fn like(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let pattern = pattern_of(scope, &args[1], args.get(2))?;
    Ok(Datum::bool(pattern.matches(args[0].as_bytes().unwrap_or_default())))
}

/// A constant pattern is compiled once.
fn vector(scope: &Scope<'_>, args: &[Value], rows: usize) -> Option<Result<Value>> {
    let Value::Array(array) = &args[0] else { return None };
    let pattern = args[1].as_scalar().filter(|p| !p.is_null())?;
    let escape = match args.get(2) {
        None => None,
        Some(value) => Some(value.as_scalar().filter(|e| !e.is_null())?),
    };
    let texts = Bytes::of(array)?;
    let pattern = match pattern_of(scope, pattern, escape) {
        Ok(pattern) => pattern,
        Err(e) => return Some(Err(e)),
    };
    let values: Vec<i64> = (0..rows).map(|row| i64::from(pattern.matches(texts.get(row)))).collect();
    Some(Ok(Value::Array(Arc::new(Int64Array::new(values.into(), array.nulls().cloned())))))
}
