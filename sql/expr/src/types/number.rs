//! Numbers in text: MySQL's reading of number-like strings and its writing of DOUBLE and FLOAT.

use super::decimal::Decimal;

/// How much of a text was a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// All of it, but for surrounding white space.
    All,
    /// A beginning of it.
    Prefix,
    /// Nothing.
    Nothing,
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r', '\x0B', '\x0C'])
}

fn used(rest: &str) -> Used {
    if trim_start(rest).is_empty() { Used::All } else { Used::Prefix }
}

/// Length of the longest beginning that is a floating point number.
fn float_prefix_len(bytes: &[u8]) -> usize {
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let whole = digits(at);
    at += whole;
    let mut fraction = 0;
    if bytes.get(at) == Some(&b'.') {
        fraction = digits(at + 1);
        at += 1 + fraction;
    }
    if whole + fraction == 0 {
        return 0;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits((at + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            at += 1 + sign + exponent;
        }
    }
    at
}

/// Reads a DOUBLE; values beyond its range become the largest.
#[must_use]
pub fn parse_f64(text: &str) -> (f64, Used) {
    let text = trim_start(text);
    let len = float_prefix_len(text.as_bytes());
    if len == 0 {
        return (0.0, Used::Nothing);
    }
    let value: f64 = text[..len].parse().unwrap_or(0.0);
    if value.is_infinite() {
        return (if value > 0.0 { f64::MAX } else { f64::MIN }, Used::Prefix);
    }
    (value, used(&text[len..]))
}

/// Reads a DECIMAL.
#[must_use]
pub fn parse_decimal(text: &str) -> (Decimal, Used) {
    let text = trim_start(text);
    match Decimal::parse_prefix(text) {
        None => (Decimal::ZERO, Used::Nothing),
        Some((value, len)) => (value, used(&text[len..])),
    }
}

/// An integer read from text, before it is fitted to a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedInt {
    pub negative: bool,
    /// The digits' value, at most u64::MAX.
    pub magnitude: u64,
    /// The digits did not fit u64.
    pub overflow: bool,
    pub used: Used,
}

/// Reads digits only, as CAST(… AS SIGNED) does: `1.9` and `1e3` are 1, with the rest unused.
#[must_use]
pub fn parse_int(text: &str) -> ParsedInt {
    let text = trim_start(text);
    let bytes = text.as_bytes();
    let sign = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let digits = bytes[sign..].iter().take_while(|b| b.is_ascii_digit()).count();
    let negative = bytes.first() == Some(&b'-');
    if digits == 0 {
        return ParsedInt { negative: false, magnitude: 0, overflow: false, used: Used::Nothing };
    }
    let parsed = text[sign..sign + digits].parse::<u64>();
    ParsedInt {
        negative,
        magnitude: parsed.unwrap_or(u64::MAX),
        overflow: parsed_overflow(&text[sign..sign + digits]),
        used: used(&text[sign + digits..]),
    }
}

fn parsed_overflow(digits: &str) -> bool {
    digits.parse::<u64>().is_err()
}

/// Shortest digits of a finite positive number and the exponent of the first: `(“15”, 0)` is 1.5.
fn shortest_digits(text: &str) -> (String, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    (digits, exponent.parse().unwrap_or(0))
}

fn format_digits(digits: &str, exponent: i32, negative: bool) -> String {
    let mut out = String::with_capacity(24);
    if negative {
        out.push('-');
    }
    let count = digits.len() as i32;
    // MySQL's my_gcvt writes scientific form where the plain form would take more room.
    if !(-15..15).contains(&exponent) {
        out.push_str(&digits[..1]);
        if count > 1 {
            out.push('.');
            out.push_str(&digits[1..]);
        }
        out.push_str(&format!("e{exponent}"));
    } else if exponent < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
        out.push_str(digits);
    } else if exponent + 1 >= count {
        out.push_str(digits);
        out.extend(std::iter::repeat_n('0', (exponent + 1 - count) as usize));
    } else {
        let (whole, fraction) = digits.split_at((exponent + 1) as usize);
        out.push_str(whole);
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// A DOUBLE as MySQL prints it.
#[must_use]
pub fn format_f64(value: f64) -> String {
    if value == 0.0 {
        return if value.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    let (digits, exponent) = shortest_digits(&format!("{:e}", value.abs()));
    format_digits(&digits, exponent, value < 0.0)
}

/// A FLOAT as MySQL prints it: at most six significant digits.
#[must_use]
pub fn format_f32(value: f32) -> String {
    if value == 0.0 {
        return if value.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    let shortest = format!("{:e}", value.abs());
    let (mut digits, mut exponent) = shortest_digits(&shortest);
    if digits.len() > 6 {
        (digits, exponent) = shortest_digits(&format!("{:.5e}", value.abs()));
    }
    let trimmed = digits.trim_end_matches('0');
    let digits = if trimmed.is_empty() { "0" } else { trimmed };
    format_digits(digits, exponent, value < 0.0)
}

/// A FLOAT(M,D) or DOUBLE(M,D): exactly `decimals` digits behind the point.
#[must_use]
pub fn format_fixed(value: f64, decimals: u8) -> String {
    format!("{value:.*}", usize::from(decimals))
}

/// Rounds half to even to an integer, as a DOUBLE becomes an integer.
#[must_use]
pub fn round_half_even(value: f64) -> f64 {
    value.round_ties_even()
}
