//! String functions: concatenation, parts, search, padding. Binary strings are counted in bytes, all others in characters.

use super::registry::{Arg, Entry, MANY, ret};
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::expr::{Expr, Function, Scope};
use crate::types::{Collation, Datum, FieldType};

pub(super) const ENTRIES: &[Entry] = &[
    Entry::fixed(Function::strict("concat", concat), 1, MANY, &[Arg::Str], ret::string),
    Entry::fixed(Function::with_nulls("concat_ws", concat_ws), 2, MANY, &[Arg::Str], ret::string),
    Entry::fixed(Function::strict("length", length), 1, 1, &[Arg::Str], ret::int),
    Entry::fixed(Function::strict("bit_length", bit_length), 1, 1, &[Arg::Str], ret::int),
    Entry::fixed(Function::strict("char_length", char_length), 1, 1, &[Arg::Str], ret::int),
    Entry::fixed(Function::strict("upper", upper), 1, 1, &[Arg::Str], ret::first_string),
    Entry::fixed(Function::strict("lower", lower), 1, 1, &[Arg::Str], ret::first_string),
    Entry::fixed(Function::strict("left", left), 2, 2, &[Arg::Str, Arg::Int], ret::first_string),
    Entry::fixed(Function::strict("right", right), 2, 2, &[Arg::Str, Arg::Int], ret::first_string),
    Entry::fixed(
        Function::strict("substring", substring),
        2,
        3,
        &[Arg::Str, Arg::Int, Arg::Int],
        ret::first_string,
    ),
    Entry::fixed(
        Function::strict("substring_index", substring_index),
        3,
        3,
        &[Arg::Str, Arg::Str, Arg::Int],
        ret::first_string,
    ),
    Entry::fixed(Function::strict("ltrim", ltrim), 1, 1, &[Arg::Str], ret::first_string),
    Entry::fixed(Function::strict("rtrim", rtrim), 1, 1, &[Arg::Str], ret::first_string),
    Entry::custom(Function::strict("trim", trim), 1, 3, resolve_trim),
    Entry::fixed(Function::strict("lpad", lpad), 3, 3, &[Arg::Str, Arg::Int, Arg::Str], ret::string),
    Entry::fixed(Function::strict("rpad", rpad), 3, 3, &[Arg::Str, Arg::Int, Arg::Str], ret::string),
    Entry::fixed(Function::strict("replace", replace), 3, 3, &[Arg::Str], ret::string),
    Entry::fixed(
        Function::strict("insert", insert),
        4,
        4,
        &[Arg::Str, Arg::Int, Arg::Int, Arg::Str],
        ret::string,
    ),
    Entry::fixed(Function::strict("instr", instr), 2, 2, &[Arg::Str], ret::int),
    Entry::fixed(Function::strict("locate", locate), 2, 3, &[Arg::Str, Arg::Str, Arg::Int], ret::int),
    Entry::fixed(Function::strict("reverse", reverse), 1, 1, &[Arg::Str], ret::first_string),
    Entry::fixed(Function::strict("repeat", repeat), 2, 2, &[Arg::Str, Arg::Int], ret::string),
    Entry::fixed(Function::strict("space", space), 1, 1, &[Arg::Int], ret::text),
    Entry::fixed(Function::strict("find_in_set", find_in_set), 2, 2, &[Arg::Str], ret::int),
    Entry::custom(Function::with_nulls("field", field), 2, MANY, resolve_field),
    Entry::fixed(Function::with_nulls("elt", elt), 2, MANY, &[Arg::Int, Arg::Str], ret::string),
    Entry::fixed(Function::with_nulls("make_set", make_set), 2, MANY, &[Arg::Int, Arg::Str], ret::string),
    Entry::fixed(
        Function::strict("export_set", export_set),
        3,
        5,
        &[Arg::Int, Arg::Str, Arg::Str, Arg::Str, Arg::Int],
        ret::string,
    ),
];

/// Converts arguments to strings of one collation.
pub(super) fn agree(ctx: &EvalContext, args: Vec<Expr>, operation: &str) -> Result<(Vec<Expr>, Collation)> {
    let all: Vec<&Expr> = args.iter().collect();
    let collation = super::coercion::aggregate(ctx, &all, operation)?.collation;
    let args = args.into_iter().map(|arg| super::registry::to_string(ctx, arg, Some(collation))).collect();
    Ok((args, collation))
}

/// The bytes of an argument that was converted to a string.
pub(super) fn bytes(value: &Datum) -> &[u8] {
    value.as_bytes().unwrap_or_default()
}

/// The text of an argument; a binary string that is not UTF-8 has none.
pub(super) fn text(value: &Datum) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn int(value: &Datum) -> i64 {
    match value {
        Datum::Int(v) => *v,
        Datum::UInt(v) => i64::try_from(*v).unwrap_or(i64::MAX),
        _ => 0,
    }
}

/// A result of the call's type.
pub(super) fn output(scope: &Scope<'_>, value: Vec<u8>) -> Datum {
    if scope.ret().is_binary_string() {
        return Datum::Bytes(value);
    }
    match String::from_utf8(value) {
        Ok(text) => Datum::String(text),
        Err(e) => Datum::String(String::from_utf8_lossy(e.as_bytes()).into_owned()),
    }
}

/// The result, or NULL with a warning when it is over max_allowed_packet.
pub(super) fn limited(
    scope: &Scope<'_>,
    function: &'static str,
    len: usize,
    make: impl FnOnce() -> Vec<u8>,
) -> Result<Datum> {
    let limit = scope.ctx.max_allowed_packet;
    if len as u64 > limit {
        scope.ctx.bad_value(Error::ResultTooLarge { function, limit })?;
        return Ok(Datum::Null);
    }
    Ok(output(scope, make()))
}

/// Length in characters, or in bytes for a binary string.
fn count(value: &Datum) -> usize {
    match value {
        Datum::String(s) if s.is_ascii() => s.len(),
        Datum::String(s) => s.chars().count(),
        other => bytes(other).len(),
    }
}

/// `len` characters from position `from` (0-based).
fn part(value: &Datum, from: usize, len: usize) -> &[u8] {
    match value {
        Datum::String(s) if !s.is_ascii() => {
            let at = |n: usize| s.char_indices().nth(n).map_or(s.len(), |(i, _)| i);
            let start = at(from);
            let rest = &s[start..];
            let end = rest.char_indices().nth(len).map_or(rest.len(), |(i, _)| i);
            &rest.as_bytes()[..end]
        }
        other => {
            let all = bytes(other);
            let start = from.min(all.len());
            &all[start..start.saturating_add(len).min(all.len())]
        }
    }
}

fn size(value: &Datum) -> usize {
    usize::try_from(int(value).max(0)).unwrap_or(usize::MAX)
}

fn concat(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let len = args.iter().map(|a| bytes(a).len()).sum();
    limited(scope, "concat", len, || args.iter().flat_map(bytes).copied().collect())
}

fn concat_ws(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    if args[0].is_null() {
        return Ok(Datum::Null);
    }
    let parts: Vec<&[u8]> = args[1..].iter().filter(|a| !a.is_null()).map(bytes).collect();
    let joined = parts.join(bytes(&args[0]));
    limited(scope, "concat_ws", joined.len(), || joined)
}

fn length(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let charset = scope.arg_type(0).collation.charset();
    let len = match &args[0] {
        Datum::String(s) => charset.encode(s).len(),
        other => bytes(other).len(),
    };
    Ok(Datum::Int(len as i64))
}

fn bit_length(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(int(&length(scope, args)?) * 8))
}

fn char_length(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(count(&args[0]) as i64))
}

/// Case changes keep one character for one, as MySQL does: 'ß' stays.
fn change_case(value: &Datum, change: fn(char) -> Option<char>) -> Datum {
    match value {
        Datum::String(s) => Datum::String(s.chars().map(|c| change(c).unwrap_or(c)).collect()),
        other => other.clone(),
    }
}

fn only<I: Iterator<Item = char>>(mut chars: I) -> Option<char> {
    let first = chars.next();
    if chars.next().is_none() { first } else { None }
}

fn upper(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(change_case(&args[0], |c| only(c.to_uppercase())))
}

fn lower(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(change_case(&args[0], |c| only(c.to_lowercase())))
}

fn left(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(output(scope, part(&args[0], 0, size(&args[1])).to_vec()))
}

fn right(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let len = size(&args[1]);
    let from = count(&args[0]).saturating_sub(len);
    Ok(output(scope, part(&args[0], from, len).to_vec()))
}

fn substring(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let total = count(&args[0]);
    let position = int(&args[1]);
    let len = args.get(2).map_or(usize::MAX, size);
    let from = match position {
        0 => return Ok(output(scope, Vec::new())),
        p if p > 0 => usize::try_from(p - 1).unwrap_or(usize::MAX),
        p => match usize::try_from(p.unsigned_abs()) {
            Ok(back) if back <= total => total - back,
            _ => return Ok(output(scope, Vec::new())),
        },
    };
    if from >= total {
        return Ok(output(scope, Vec::new()));
    }
    Ok(output(scope, part(&args[0], from, len).to_vec()))
}

fn find(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(haystack.get(from..)?, needle).map(|at| at + from)
}

fn substring_index(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let (all, delimiter, wanted) = (bytes(&args[0]), bytes(&args[1]), int(&args[2]));
    if delimiter.is_empty() || wanted == 0 {
        return Ok(output(scope, Vec::new()));
    }
    let steps = wanted.unsigned_abs();
    let mut found = 0;
    if wanted > 0 {
        let mut from = 0;
        while let Some(at) = find(all, delimiter, from) {
            found += 1;
            if found == steps {
                return Ok(output(scope, all[..at].to_vec()));
            }
            from = at + delimiter.len();
        }
    } else {
        let mut end = all.len();
        while let Some(at) = memchr::memmem::rfind(&all[..end], delimiter) {
            found += 1;
            if found == steps {
                return Ok(output(scope, all[at + delimiter.len()..].to_vec()));
            }
            end = at;
        }
    }
    Ok(output(scope, all.to_vec()))
}

fn trim_bytes<'a>(mut value: &'a [u8], what: &[u8], leading: bool, trailing: bool) -> &'a [u8] {
    if what.is_empty() {
        return value;
    }
    while leading && value.starts_with(what) {
        value = &value[what.len()..];
    }
    while trailing && value.ends_with(what) {
        value = &value[..value.len() - what.len()];
    }
    value
}

fn ltrim(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(output(scope, trim_bytes(bytes(&args[0]), b" ", true, false).to_vec()))
}

fn rtrim(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(output(scope, trim_bytes(bytes(&args[0]), b" ", false, true).to_vec()))
}

fn trim(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let what = args.get(1).map_or(&b" "[..], bytes);
    let mode = args.get(2).map_or("BOTH", text);
    let trimmed = trim_bytes(bytes(&args[0]), what, mode != "TRAILING", mode != "LEADING");
    Ok(output(scope, trimmed.to_vec()))
}

/// The mode stays out of the collation that the strings agree on.
fn resolve_trim(ctx: &EvalContext, entry: &'static Entry, mut args: Vec<Expr>) -> Result<Expr> {
    let mode = (args.len() == 3).then(|| args.pop()).flatten();
    let (mut args, collation) = agree(ctx, args, "trim")?;
    let flen = args[0].field_type().flen;
    args.extend(mode);
    Ok(entry.call(args, FieldType::varchar(flen, collation), collation))
}

/// Characters that fill `missing` places, repeating `with`.
fn filling(with: &Datum, missing: usize) -> Vec<u8> {
    let period = count(with);
    let mut fill = bytes(with).repeat(missing / period);
    fill.extend_from_slice(part(with, 0, missing % period));
    fill
}

fn pad(scope: &Scope<'_>, args: &[Datum], function: &'static str, before: bool) -> Result<Datum> {
    let wanted = int(&args[1]);
    if wanted < 0 {
        return Ok(Datum::Null);
    }
    let (wanted, have) = (size(&args[1]), count(&args[0]));
    if wanted <= have {
        return Ok(output(scope, part(&args[0], 0, wanted).to_vec()));
    }
    if count(&args[2]) == 0 {
        return Ok(output(scope, bytes(&args[0]).to_vec()));
    }
    limited(scope, function, wanted, || {
        let (fill, value) = (filling(&args[2], wanted - have), bytes(&args[0]));
        if before { [&fill, value].concat() } else { [value, &fill].concat() }
    })
}

fn lpad(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    pad(scope, args, "lpad", true)
}

fn rpad(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    pad(scope, args, "rpad", false)
}

fn replace(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let (all, from, to) = (bytes(&args[0]), bytes(&args[1]), bytes(&args[2]));
    if from.is_empty() {
        return Ok(output(scope, all.to_vec()));
    }
    let mut out = Vec::with_capacity(all.len());
    let mut at = 0;
    while let Some(hit) = find(all, from, at) {
        out.extend_from_slice(&all[at..hit]);
        out.extend_from_slice(to);
        at = hit + from.len();
    }
    out.extend_from_slice(&all[at..]);
    limited(scope, "replace", out.len(), || out)
}

fn insert(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let (position, len, total) = (int(&args[1]), int(&args[2]), count(&args[0]));
    if position < 1 || position as u64 > total as u64 {
        return Ok(output(scope, bytes(&args[0]).to_vec()));
    }
    let from = position as usize - 1;
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(total - from);
    let pieces = [part(&args[0], 0, from), bytes(&args[3]), part(&args[0], from + len, usize::MAX)];
    let out = pieces.concat();
    limited(scope, "insert", out.len(), || out)
}

/// Position (1-based, in characters) of `needle` at or after `from` (0-based); 0 when it is not there.
fn position(collation: Collation, needle: &Datum, haystack: &Datum, from: usize) -> i64 {
    let total = count(haystack);
    if from > total {
        return 0;
    }
    let width = count(needle);
    if width == 0 {
        return from as i64 + 1;
    }
    if collation.is_bin() || collation == Collation::Binary {
        let start = part(haystack, 0, from).len();
        let Some(at) = find(bytes(haystack), bytes(needle), start) else { return 0 };
        let before = &bytes(haystack)[..at];
        let chars = if haystack.as_str().is_some() && matches!(haystack, Datum::String(_)) {
            String::from_utf8_lossy(before).chars().count()
        } else {
            at
        };
        return chars as i64 + 1;
    }
    let wanted = bytes(needle);
    let hit =
        (from..=total.saturating_sub(width)).find(|at| collation.equal(part(haystack, *at, width), wanted));
    hit.map_or(0, |at| at as i64 + 1)
}

fn instr(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(position(scope.collation(), &args[1], &args[0], 0)))
}

fn locate(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let from = args.get(2).map_or(1, int);
    if from < 1 {
        return Ok(Datum::Int(0));
    }
    Ok(Datum::Int(position(scope.collation(), &args[0], &args[1], from as usize - 1)))
}

fn reverse(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(match &args[0] {
        Datum::String(s) => Datum::String(s.chars().rev().collect()),
        other => output(scope, bytes(other).iter().rev().copied().collect()),
    })
}

fn repeat(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let times = size(&args[1]);
    let len = bytes(&args[0]).len().saturating_mul(times);
    limited(scope, "repeat", len, || bytes(&args[0]).repeat(times))
}

fn space(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let times = size(&args[0]);
    limited(scope, "space", times, || vec![b' '; times])
}

fn find_in_set(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let (wanted, list) = (bytes(&args[0]), bytes(&args[1]));
    if list.is_empty() {
        return Ok(Datum::Int(0));
    }
    let at = list.split(|b| *b == b',').position(|item| scope.collation().equal(item, wanted));
    Ok(Datum::Int(at.map_or(0, |i| i as i64 + 1)))
}

fn resolve_field(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    if args.iter().all(|a| a.field_type().is_string()) {
        let (args, collation) = agree(ctx, args, "field")?;
        return Ok(entry.call(args, FieldType::bigint(), collation));
    }
    let all_int = args.iter().all(|a| a.field_type().is_integer() && !a.field_type().unsigned);
    let convert = if all_int { super::registry::to_int } else { super::registry::to_double };
    Ok(entry.call(args.into_iter().map(convert).collect(), FieldType::bigint(), Collation::Binary))
}

fn field(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let wanted = &args[0];
    if wanted.is_null() {
        return Ok(Datum::Int(0));
    }
    let same = |other: &Datum| match (wanted.as_bytes(), other.as_bytes()) {
        (Some(a), Some(b)) => scope.collation().equal(a, b),
        _ => wanted == other,
    };
    let at = args[1..].iter().position(same);
    Ok(Datum::Int(at.map_or(0, |i| i as i64 + 1)))
}

fn elt(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let chosen = usize::try_from(int(&args[0])).ok().filter(|n| *n >= 1 && !args[0].is_null());
    Ok(chosen.and_then(|n| args.get(n)).cloned().unwrap_or_default())
}

fn make_set(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    if args[0].is_null() {
        return Ok(Datum::Null);
    }
    let bits = int(&args[0]) as u64;
    let chosen = args[1..].iter().take(64).enumerate().filter(|(i, a)| bits >> i & 1 == 1 && !a.is_null());
    let parts: Vec<&[u8]> = chosen.map(|(_, a)| bytes(a)).collect();
    Ok(output(scope, parts.join(&b","[..])))
}

fn export_set(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let bits = int(&args[0]) as u64;
    let (on, off) = (bytes(&args[1]), bytes(&args[2]));
    let separator = args.get(3).map_or(&b","[..], bytes);
    let wanted = args.get(4).map_or(64, int);
    let wanted = if (0..=64).contains(&wanted) { wanted as usize } else { 64 };
    let parts: Vec<&[u8]> = (0..wanted).map(|i| if bits >> i & 1 == 1 { on } else { off }).collect();
    Ok(output(scope, parts.join(separator)))
}
