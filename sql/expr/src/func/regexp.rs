//! Regular expressions. Patterns are those of the `regex` crate, which covers ICU's syntax but for look-around and back-references.

use std::cell::RefCell;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::registry::{Arg, Entry, ret};
use super::string::{int, text};
use crate::error::{Error, Result};
use crate::expr::{Function, Scope};
use crate::types::{Collation, Datum};

pub(super) const ENTRIES: &[Entry] = &[
    Entry::fixed(Function::strict("regexp", like), 2, 2, &[Arg::Str], ret::boolean),
    Entry::fixed(Function::strict("regexp_like", like), 2, 3, &[Arg::Str], ret::boolean),
    Entry::fixed(
        Function::strict("regexp_instr", instr),
        2,
        6,
        &[Arg::Str, Arg::Str, Arg::Int, Arg::Int, Arg::Int, Arg::Str],
        ret::int,
    ),
    Entry::fixed(
        Function::strict("regexp_substr", substr),
        2,
        5,
        &[Arg::Str, Arg::Str, Arg::Int, Arg::Int, Arg::Str],
        ret::string,
    ),
    Entry::fixed(
        Function::strict("regexp_replace", replace),
        3,
        6,
        &[Arg::Str, Arg::Str, Arg::Str, Arg::Int, Arg::Int, Arg::Str],
        ret::string,
    ),
];

const CACHE_ENTRIES_MAX: usize = 64;
const PROGRAM_SIZE_BYTES_MAX: usize = 1 << 20;

thread_local! {
    /// Compiled patterns, the last used at the end.
    static CACHE: RefCell<Vec<(String, Arc<Regex>)>> = const { RefCell::new(Vec::new()) };
}

fn syntax_error(error: &regex::Error) -> Error {
    let message = error.to_string();
    let (code, words) = if message.contains("unclosed group") || message.contains("unopened group") {
        (3691, "Mismatched parenthesis in regular expression.")
    } else if message.contains("unclosed character class") {
        (3696, "The regular expression contains an unclosed bracket expression.")
    } else if message.contains("repetition quantifier") || message.contains("counted repetition") {
        (3689, "Syntax error in a {min,max} interval of the regular expression.")
    } else {
        (3685, "Illegal argument to a regular expression.")
    };
    Error::Regexp { code, message: words.to_string() }
}

/// The pattern compiled with MySQL's match type letters: c i m n u.
fn compile(collation: Collation, pattern: &str, match_type: &str) -> Result<Arc<Regex>> {
    if pattern.is_empty() {
        return Err(Error::Regexp {
            code: 3685,
            message: "Illegal argument to a regular expression.".to_string(),
        });
    }
    let mut insensitive = !collation.is_bin() && collation != Collation::Binary;
    let (mut lines, mut dot_all) = (false, false);
    for flag in match_type.chars() {
        match flag {
            'c' => insensitive = false,
            'i' => insensitive = true,
            'm' => lines = true,
            'n' => dot_all = true,
            'u' => {}
            _ => return Err(Error::WrongArguments { function: "regexp_like".to_string() }),
        }
    }
    let key = format!("{}{}{}{pattern}", u8::from(insensitive), u8::from(lines), u8::from(dot_all));
    CACHE.with_borrow_mut(|cache| {
        if let Some(at) = cache.iter().position(|(k, _)| *k == key) {
            let hit = cache.remove(at);
            let regex = hit.1.clone();
            cache.push(hit);
            return Ok(regex);
        }
        let built = RegexBuilder::new(pattern)
            .case_insensitive(insensitive)
            .multi_line(lines)
            .dot_matches_new_line(dot_all)
            .size_limit(PROGRAM_SIZE_BYTES_MAX)
            .build();
        let regex = Arc::new(built.map_err(|e| syntax_error(&e))?);
        if cache.len() == CACHE_ENTRIES_MAX {
            cache.remove(0);
        }
        cache.push((key, regex.clone()));
        Ok(regex)
    })
}

fn regex_of(scope: &Scope<'_>, args: &[Datum], match_type: usize) -> Result<Arc<Regex>> {
    compile(scope.collation(), text(&args[1]), args.get(match_type).map_or("", text))
}

fn like(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let regex = regex_of(scope, args, 2)?;
    Ok(Datum::Int(i64::from(regex.is_match(text(&args[0])))))
}

/// Byte offset of a 1-based character position.
fn offset(subject: &str, position: Option<&Datum>) -> Result<usize> {
    let position = position.map_or(1, int);
    let out_of_bounds = || Error::Regexp {
        code: 3686,
        message: "Index out of bounds in regular expression search.".to_string(),
    };
    let skip = usize::try_from(position - 1).map_err(|_| out_of_bounds())?;
    let mut starts = subject.char_indices().map(|(i, _)| i).chain([subject.len()]);
    starts.nth(skip).ok_or_else(out_of_bounds)
}

fn occurrence(value: Option<&Datum>) -> usize {
    usize::try_from(value.map_or(1, int)).unwrap_or(1).max(1)
}

fn instr(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let regex = regex_of(scope, args, 5)?;
    let subject = text(&args[0]);
    let from = offset(subject, args.get(2))?;
    let after = args.get(4).is_some_and(|a| int(a) == 1);
    let hit = regex.find_iter(&subject[from..]).nth(occurrence(args.get(3)) - 1);
    let at = hit.map(|m| from + if after { m.end() } else { m.start() });
    Ok(Datum::Int(at.map_or(0, |at| subject[..at].chars().count() as i64 + 1)))
}

fn substr(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let regex = regex_of(scope, args, 4)?;
    let subject = text(&args[0]);
    let from = offset(subject, args.get(2))?;
    let hit = regex.find_iter(&subject[from..]).nth(occurrence(args.get(3)) - 1);
    Ok(hit.map_or(Datum::Null, |m| super::string::output(scope, m.as_str().as_bytes().to_vec())))
}

fn replace(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let regex = regex_of(scope, args, 5)?;
    let (subject, with) = (text(&args[0]), text(&args[2]));
    let from = offset(subject, args.get(3))?;
    let wanted = args.get(4).map_or(0, int);
    let mut out = subject[..from].to_string();
    let mut last = from;
    for (i, groups) in regex.captures_iter(&subject[from..]).enumerate() {
        let Some(whole) = groups.get(0) else { continue };
        if wanted > 0 && i as i64 + 1 != wanted {
            continue;
        }
        out.push_str(&subject[last..from + whole.start()]);
        groups.expand(&braced(with), &mut out);
        last = from + whole.end();
    }
    out.push_str(&subject[last..]);
    Ok(super::string::output(scope, out.into_bytes()))
}

/// `$1` becomes `${1}`, so that letters after it are no part of a group's name; `\$` is a dollar sign.
fn braced(with: &str) -> String {
    let mut out = String::with_capacity(with.len());
    let mut chars = with.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('$') => out.push_str("$$"),
                Some(other) => out.push(other),
                None => {}
            },
            '$' => {
                let mut digits = String::new();
                while let Some(d) = chars.next_if(char::is_ascii_digit) {
                    digits.push(d);
                }
                if digits.is_empty() { out.push_str("$$") } else { out.push_str(&format!("${{{digits}}}")) }
            }
            other => out.push(other),
        }
    }
    out
}
