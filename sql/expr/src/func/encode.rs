//! Numbers and bytes written in other ways: HEX, CONV, CHAR, FORMAT, BASE64, QUOTE, SOUNDEX.

use super::registry::{self, Arg, Entry, MANY, ret};
use super::string::{bytes, int, limited, output, text};
use crate::context::EvalContext;
use crate::error::Result;
use crate::expr::{Expr, Function, Scope};
use crate::types::field_type::Family;
use crate::types::{Datum, FieldType};

pub(super) const ENTRIES: &[Entry] = &[
    Entry::custom(Function::strict("hex", hex), 1, 1, resolve_hex),
    Entry::fixed(Function::strict("unhex", unhex), 1, 1, &[Arg::Str], ret::binary),
    Entry::fixed(Function::strict("bin", |s, a| radix(s, a, 2)), 1, 1, &[Arg::Int], ret::text),
    Entry::fixed(Function::strict("oct", |s, a| radix(s, a, 8)), 1, 1, &[Arg::Int], ret::text),
    Entry::fixed(Function::strict("conv", conv), 3, 3, &[Arg::Str, Arg::Int, Arg::Int], ret::text),
    Entry::fixed(Function::strict("ascii", ascii), 1, 1, &[Arg::Str], ret::int),
    Entry::fixed(Function::strict("ord", ord), 1, 1, &[Arg::Str], ret::int),
    Entry::fixed(Function::with_nulls("char", char_of), 1, MANY, &[Arg::Int], ret::binary),
    Entry::custom(Function::strict("format", format), 2, 3, resolve_format),
    Entry::fixed(Function::strict("to_base64", to_base64), 1, 1, &[Arg::Str], ret::text),
    Entry::fixed(Function::strict("from_base64", from_base64), 1, 1, &[Arg::Str], ret::binary),
    Entry::fixed(Function::with_nulls("quote", quote), 1, 1, &[Arg::Str], ret::string),
    Entry::fixed(Function::strict("soundex", soundex), 1, 1, &[Arg::Str], ret::string),
];

fn resolve_hex(ctx: &EvalContext, entry: &'static Entry, mut args: Vec<Expr>) -> Result<Expr> {
    let arg = args.swap_remove(0);
    let arg = match arg.field_type().family() {
        Family::Int | Family::Decimal | Family::Double => registry::to_int(arg),
        _ => registry::to_string(ctx, arg, None),
    };
    let collation = ctx.connection_collation;
    let flen = arg.field_type().flen.saturating_mul(2);
    Ok(entry.call(vec![arg], FieldType::varchar(flen, collation), collation))
}

fn hex(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::String(match &args[0] {
        Datum::Int(v) => format!("{v:X}"),
        Datum::UInt(v) => format!("{v:X}"),
        Datum::String(s) => hex::encode_upper(scope.arg_type(0).collation.charset().encode(s)),
        other => hex::encode_upper(bytes(other)),
    }))
}

fn unhex(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let digits = bytes(&args[0]);
    let padded = if digits.len() % 2 == 1 { [b"0", digits].concat() } else { digits.to_vec() };
    Ok(hex::decode(padded).map_or(Datum::Null, Datum::Bytes))
}

fn in_base(mut value: u64, base: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((value % base) as u32, base as u32).unwrap_or('0').to_ascii_uppercase());
        value /= base;
        if value == 0 {
            return digits.iter().rev().collect();
        }
    }
}

fn radix(_: &Scope<'_>, args: &[Datum], base: u64) -> Result<Datum> {
    let value = match &args[0] {
        Datum::UInt(v) => *v,
        other => int(other) as u64,
    };
    Ok(Datum::String(in_base(value, base)))
}

fn conv(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let (from, to) = (int(&args[1]), int(&args[2]));
    let in_range = |base: i64| (2..=36).contains(&base.abs());
    if !in_range(from) || !in_range(to) {
        return Ok(Datum::Null);
    }
    let trimmed = text(&args[0]).trim_start();
    let (negative, digits) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed),
    };
    let base = from.unsigned_abs();
    let valid = digits.chars().map_while(|c| c.to_digit(base as u32));
    let value = valid.fold(0u64, |sum, d| sum.saturating_mul(base).saturating_add(u64::from(d)));
    let value = if negative { value.wrapping_neg() } else { value };
    if to < 0 {
        let signed = value as i64;
        let sign = if signed < 0 { "-" } else { "" };
        return Ok(Datum::String(format!("{sign}{}", in_base(signed.unsigned_abs(), to.unsigned_abs()))));
    }
    Ok(Datum::String(in_base(value, to as u64)))
}

fn ascii(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(bytes(&args[0]).first().map_or(0, |b| i64::from(*b))))
}

fn ord(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let first = match &args[0] {
        Datum::String(s) => {
            let first: String = s.chars().take(1).collect();
            scope.arg_type(0).collation.charset().encode(&first).into_owned()
        }
        other => bytes(other).iter().take(1).copied().collect(),
    };
    Ok(Datum::Int(first.iter().fold(0, |sum, b| sum << 8 | i64::from(*b))))
}

fn char_of(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let mut out = Vec::new();
    for arg in args.iter().filter(|a| !a.is_null()) {
        let code = (int(arg) as u32).to_be_bytes();
        let skip = code.iter().take_while(|b| **b == 0).count().min(3);
        out.extend_from_slice(&code[skip..]);
    }
    Ok(Datum::Bytes(out))
}

fn resolve_format(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let mut args = args.into_iter();
    let value = registry::to_number(args.next().unwrap_or_else(Expr::null));
    let digits = registry::to_int(args.next().unwrap_or_else(Expr::null));
    let locale = args.next().map(|l| registry::to_string(ctx, l, None));
    let collation = ctx.connection_collation;
    let args = [value, digits].into_iter().chain(locale).collect();
    Ok(entry.call(
        args,
        FieldType::varchar(crate::types::field_type::LENGTH_UNSPECIFIED, collation),
        collation,
    ))
}

fn format(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let digits = int(&args[1]).clamp(0, 30) as u8;
    let plain = match &args[0] {
        Datum::Double(v) => crate::types::number::format_fixed(*v, digits),
        other => {
            let value = crate::types::convert::to_decimal(scope.ctx, other, scope.arg_type(0))?;
            value.round(i64::from(digits)).rescale(digits).to_string()
        }
    };
    let (sign, plain) = plain.strip_prefix('-').map_or(("", plain.as_str()), |rest| ("-", rest));
    let (whole, fraction) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut grouped = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(c);
    }
    Ok(Datum::String(format!("{sign}{grouped}{fraction}")))
}

const BASE64_LINE: usize = 76;

fn to_base64(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(bytes(&args[0]));
    let lines: Vec<&[u8]> = encoded.as_bytes().chunks(BASE64_LINE).collect();
    let joined = lines.join(&b"\n"[..]);
    limited(scope, "to_base64", joined.len(), || joined)
}

fn from_base64(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    use base64::Engine;
    let compact: Vec<u8> = bytes(&args[0]).iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let decoded = base64::engine::general_purpose::STANDARD.decode(compact);
    Ok(decoded.map_or(Datum::Null, Datum::Bytes))
}

fn quote(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    if args[0].is_null() {
        return Ok(output(scope, b"NULL".to_vec()));
    }
    let mut out = vec![b'\''];
    for b in bytes(&args[0]) {
        match b {
            b'\'' | b'\\' => out.extend_from_slice(&[b'\\', *b]),
            0 => out.extend_from_slice(b"\\0"),
            0x1A => out.extend_from_slice(b"\\Z"),
            _ => out.push(*b),
        }
    }
    out.push(b'\'');
    Ok(output(scope, out))
}

fn soundex_code(c: char) -> Option<char> {
    Some(match c {
        'B' | 'F' | 'P' | 'V' => '1',
        'C' | 'G' | 'J' | 'K' | 'Q' | 'S' | 'X' | 'Z' => '2',
        'D' | 'T' => '3',
        'L' => '4',
        'M' | 'N' => '5',
        'R' => '6',
        _ => return None,
    })
}

/// MySQL's SOUNDEX: vowels are dropped before repeats are, and the code is not cut to 4 characters.
fn soundex(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let mut letters = text(&args[0]).chars().filter(|c| c.is_alphabetic()).map(|c| c.to_ascii_uppercase());
    let Some(first) = letters.next() else { return Ok(output(scope, Vec::new())) };
    let mut out = String::from(first);
    let mut last = soundex_code(first);
    for c in letters {
        let code = soundex_code(c);
        if let Some(digit) = code
            && code != last
        {
            out.push(digit);
        }
        if code.is_some() {
            last = code;
        }
    }
    while out.chars().count() < 4 {
        out.push('0');
    }
    Ok(output(scope, out.into_bytes()))
}
