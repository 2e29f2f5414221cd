//! Texts that differ in literals only, brought to one form.
//!
//! [`parameters`] finds literals that are mere values: those that a WHERE clause compares something with, those that UPDATE assigns
//! and INSERT lists; and gives the text with a `?` in their places. Nothing else is replaced: a literal in the select list is its
//! title, one in LIMIT or ORDER BY has a meaning of its own, and one beside an operator, a type or a character set's name belongs to
//! that.

use rutile_expr::types::Datum;

use super::ParseOptions;
use super::lexer::{Lexer, Tok, Token};

/// A text whose literals became parameters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters {
    /// The text with `?`.
    pub text: Vec<u8>,
    /// Their values: integers and strings.
    pub values: Vec<Datum>,
}

/// Texts with more literals are left alone: they are seldom sent twice.
const VALUES_MAX: usize = 64;
/// Longer texts are left alone.
const TEXT_BYTES_MAX: usize = 4096;

/// Words behind which literals are no mere values any more.
const ENDS: &[&[u8]] = &[
    b"GROUP",
    b"HAVING",
    b"ORDER",
    b"LIMIT",
    b"UNION",
    b"EXCEPT",
    b"INTERSECT",
    b"WINDOW",
    b"INTO",
    b"FOR",
    b"LOCK",
    b"SELECT",
    b"CASE",
    b"MATCH",
    b"ON",
    b"AS",
];

/// Which literals are values here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// None.
    Verbatim,
    /// `SET column = value`
    Set,
    /// `VALUES (value, …), …`
    Values,
    /// `WHERE something = value`
    Where,
}

struct Scan<'a> {
    sql: &'a [u8],
    stage: Stage,
    is_insert: bool,
    depth: usize,
    /// The depth of the `IN (…)` list we are in.
    list: Option<usize>,
    /// BETWEEN came, and its AND did not.
    between: bool,
    /// The last token was the AND of a BETWEEN.
    upper: bool,
    /// The last token was IN.
    after_in: bool,
    before: Tok,
    out: Parameters,
    /// Up to here the text was copied.
    copied: usize,
}

/// `None`: a text of another kind, or of several statements, or one that has parameters of its own.
pub fn parameters(sql: &[u8], options: ParseOptions) -> Option<Parameters> {
    if sql.len() > TEXT_BYTES_MAX || memchr::memmem::find(sql, b"/*").is_some() {
        return None;
    }
    let mut lexer = Lexer::new(sql, options.ansi_quotes, !options.no_backslash_escapes);
    let mut token = lexer.next_token();
    let verbs: [&[u8]; 4] = [b"SELECT", b"UPDATE", b"DELETE", b"INSERT"];
    let verb = verbs.iter().position(|verb| is_word(sql, token, verb))?;
    let mut scan = Scan {
        sql,
        stage: Stage::Verbatim,
        is_insert: verb == 3,
        depth: 0,
        list: None,
        between: false,
        upper: false,
        after_in: false,
        before: Tok::Word,
        out: Parameters { text: Vec::with_capacity(sql.len()), values: Vec::new() },
        copied: 0,
    };
    token = lexer.next_token();
    let mut ended = false;
    while !ended {
        let next = lexer.next_token();
        match token.kind {
            Tok::Eof => break,
            Tok::Semicolon if next.kind == Tok::Eof => break,
            Tok::Semicolon | Tok::Error | Tok::Param => return None,
            Tok::Int | Tok::Str if scan.is_value(next) => {
                let escapes = !options.no_backslash_escapes;
                if let Some(value) = value_of(token.kind, &sql[token.start..token.end], escapes) {
                    scan.replace(token, value)?;
                }
            }
            _ => {}
        }
        ended = scan.pass(token);
        token = next;
    }
    if scan.out.values.is_empty() {
        return None;
    }
    scan.out.text.extend_from_slice(&sql[scan.copied..]);
    Some(scan.out)
}

fn is_word(sql: &[u8], token: Token, word: &[u8]) -> bool {
    token.kind == Tok::Word && sql[token.start..token.end].eq_ignore_ascii_case(word)
}

impl Scan<'_> {
    /// Whether a literal at this place is a value, when `next` comes behind it.
    fn is_value(&self, next: Token) -> bool {
        let word = |word: &[u8]| is_word(self.sql, next, word);
        let ends = match next.kind {
            Tok::Eof | Tok::Semicolon | Tok::RParen | Tok::Comma => true,
            Tok::Word => word(b"AND") || word(b"OR") || word(b"WHERE") || ENDS.iter().any(|end| word(end)),
            _ => false,
        };
        let listed = self.list == Some(self.depth) && matches!(self.before, Tok::LParen | Tok::Comma);
        ends && match self.stage {
            Stage::Verbatim => false,
            Stage::Set => self.depth == 0 && self.before == Tok::Eq,
            Stage::Values => self.depth == 1 && matches!(self.before, Tok::LParen | Tok::Comma),
            Stage::Where => {
                let compared = matches!(
                    self.before,
                    Tok::Eq | Tok::NullSafeEq | Tok::Ne | Tok::Lt | Tok::Le | Tok::Gt | Tok::Ge
                );
                compared || listed || self.upper || (self.between && self.before == Tok::Word && word(b"AND"))
            }
        }
    }

    fn replace(&mut self, token: Token, value: Datum) -> Option<()> {
        if self.out.values.len() == VALUES_MAX {
            return None;
        }
        self.out.text.extend_from_slice(&self.sql[self.copied..token.start]);
        self.out.text.push(b'?');
        self.copied = token.end;
        self.out.values.push(value);
        Some(())
    }

    /// Goes past a token; true when nothing behind it is a value.
    fn pass(&mut self, token: Token) -> bool {
        let (mut upper, mut after_in) = (false, false);
        match token.kind {
            Tok::LParen => {
                self.depth += 1;
                if self.after_in {
                    self.list = Some(self.depth);
                }
            }
            Tok::RParen => {
                if self.list == Some(self.depth) {
                    self.list = None;
                }
                self.depth = self.depth.saturating_sub(1);
            }
            Tok::Word => {
                let word = |word: &[u8]| is_word(self.sql, token, word);
                let inside = self.stage != Stage::Verbatim;
                if self.depth == 0 && word(b"WHERE") {
                    self.stage = Stage::Where;
                } else if self.depth == 0 && word(b"SET") && !inside {
                    self.stage = Stage::Set;
                } else if self.depth == 0 && self.is_insert && !inside && (word(b"VALUES") || word(b"VALUE"))
                {
                    self.stage = Stage::Values;
                } else if inside && ENDS.iter().any(|end| word(end)) {
                    return true;
                } else if word(b"BETWEEN") {
                    self.between = true;
                } else if word(b"AND") {
                    upper = std::mem::take(&mut self.between);
                } else if word(b"IN") {
                    after_in = true;
                }
            }
            _ => {}
        }
        (self.upper, self.after_in, self.before) = (upper, after_in, token.kind);
        false
    }
}

/// The value of a literal that means itself: an integer of 64 bits, a string in UTF-8 without escapes.
fn value_of(kind: Tok, text: &[u8], escapes: bool) -> Option<Datum> {
    let text = std::str::from_utf8(text).ok()?;
    if kind == Tok::Int {
        return text.parse().ok().map(Datum::Int);
    }
    let quote = text.chars().next()?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let plain = !(inner.contains(quote) || escapes && inner.contains('\\'));
    plain.then(|| Datum::String(inner.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(sql: &str) -> Option<(String, Vec<String>)> {
        let found = parameters(sql.as_bytes(), ParseOptions::default())?;
        let values = found.values.iter().map(|value| match value {
            Datum::Int(number) => number.to_string(),
            other => format!("{:?}", other.as_str().unwrap_or_default()),
        });
        Some((String::from_utf8(found.text).expect("UTF-8"), values.collect()))
    }

    fn becomes(sql: &str, text: &str, values: &[&str]) {
        let (found, found_values) = normal(sql).unwrap_or_else(|| panic!("nothing in {sql}"));
        assert_eq!(found, text);
        assert_eq!(found_values, values, "{sql}");
    }

    #[test]
    fn values_that_are_compared_become_parameters() {
        becomes("SELECT c FROM t WHERE id=5043", "SELECT c FROM t WHERE id=?", &["5043"]);
        becomes(
            "select 'x', 1 from t where a >= 7 and b in (1, 'y') or c between 'k' and 9 limit 10",
            "select 'x', 1 from t where a >= ? and b in (?, ?) or c between ? and ? limit 10",
            &["7", "1", "\"y\"", "\"k\"", "9"],
        );
        becomes("DELETE FROM t WHERE (a = 1) ORDER BY 1;", "DELETE FROM t WHERE (a = ?) ORDER BY 1;", &["1"]);
        becomes(
            "UPDATE t SET a = a + 1, c = 'z' WHERE id = 4",
            "UPDATE t SET a = a + 1, c = ? WHERE id = ?",
            &["\"z\"", "4"],
        );
        becomes(
            "INSERT INTO t (a, b) VALUES (1, 'x'), (2 + 1, NULL)",
            "INSERT INTO t (a, b) VALUES (?, ?), (2 + 1, NULL)",
            &["1", "\"x\""],
        );
    }

    #[test]
    fn what_belongs_to_something_stays() {
        for sql in [
            "SELECT 1",
            "SELECT a = 1 FROM t",
            "SELECT (SELECT b FROM t WHERE a = 1) FROM u",
            "SELECT a FROM t WHERE a = -1",
            "SELECT a FROM t WHERE a = 1 + b",
            "SELECT a FROM t WHERE d = DATE '2020-01-01'",
            "SELECT a FROM t WHERE a = _latin1'x'",
            "SELECT a FROM t WHERE a = 'x' COLLATE utf8mb4_bin",
            "SELECT a FROM t WHERE a = 'x' 'y'",
            "SELECT a FROM t WHERE a = 'it''s'",
            "SELECT a FROM t WHERE a = 'a\\nb'",
            "SELECT a FROM t WHERE a LIKE 'x%'",
            "SELECT a FROM t WHERE a > 1.5 AND b = 99999999999999999999",
            "SELECT a FROM t WHERE (a, b) = (1, 2)",
            "SELECT a FROM t WHERE (a, b) IN ((1, 2), (3, 4))",
            "SELECT a FROM t GROUP BY a HAVING a = 1",
            "SELECT a FROM t WHERE a IN (SELECT b FROM u WHERE c = 1)",
            "SELECT a FROM t ORDER BY 1 LIMIT 5",
            "INSERT INTO t SELECT 1",
        ] {
            assert_eq!(normal(sql), None, "{sql}");
        }
    }

    #[test]
    fn other_texts_are_left_alone() {
        for sql in [
            "SELECT a FROM t WHERE a = 1; SELECT 2",
            "SELECT /*+ NO_INDEX */ a FROM t WHERE a = 1",
            "SELECT a FROM t WHERE a = ?",
            "SET x = 1",
        ] {
            assert_eq!(normal(sql), None, "{sql}");
        }
        let ansi = ParseOptions { ansi_quotes: true, ..ParseOptions::default() };
        assert_eq!(parameters(b"SELECT a FROM t WHERE a = \"b\"", ansi), None);
        let plain = ParseOptions { no_backslash_escapes: true, ..ParseOptions::default() };
        let found = parameters(b"SELECT a FROM t WHERE a = 'b\\n'", plain).expect("a value");
        assert_eq!(found.values, [Datum::String("b\\n".to_owned())]);
    }
}
