//! Into a column: assignment's conversions and their errors, which name the column and the row.

use super::convert;
use super::datum::Datum;
use super::decimal::Decimal;
use super::duration::{DURATION_MICROS_MAX, Duration};
use super::field_type::{Family, FieldType, LENGTH_UNSPECIFIED, MysqlType, NOT_FIXED_DECIMALS};
use super::format::{to_bytes, to_text};
use super::number::{self, Used};
use super::time::Time;
use super::time_parse::{self, DateRules};
use crate::context::{EvalContext, OnBadValue, SqlMode};
use crate::error::{Error, Result};

/// The column that is assigned, and which row of the statement (from 1).
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub column: &'a str,
    pub row: u64,
    pub field_type: &'a FieldType,
}

impl Target<'_> {
    fn out_of_range(&self) -> Error {
        Error::OutOfRangeColumn { column: self.column.to_string(), row: self.row }
    }

    fn truncated(&self) -> Error {
        Error::DataTruncated { column: self.column.to_string(), row: self.row }
    }

    fn incorrect(&self, kind: &'static str, value: String) -> Error {
        Error::IncorrectColumn { kind, value, column: self.column.to_string(), row: self.row }
    }

    fn too_long(&self) -> Error {
        Error::DataTooLong { column: self.column.to_string(), row: self.row }
    }

    /// Fails with `strict` in a strict statement, else warns with `lenient`.
    fn bad(&self, ctx: &EvalContext, strict: Error, lenient: Error) -> Result<()> {
        match ctx.on_bad_value {
            OnBadValue::Fail => Err(strict),
            OnBadValue::Warn => {
                ctx.warn(&lenient);
                Ok(())
            }
        }
    }

    fn incorrect_temporal(&self, kind: &'static str, value: String) -> Error {
        Error::IncorrectTemporalColumn { kind, value, column: self.column.to_string(), row: self.row }
    }
}

/// Converts a value for a column. In a strict statement ([`EvalContext::on_bad_value`]) what does not fit is an error, else the
/// nearest value and a warning. NULL passes: NOT NULL is the caller's to check (with [`not_null`]), since defaults are its matter.
/// A TIMESTAMP stays in the session's zone: the table layer stores `ctx.time_zone.local_to_utc(t)` and reads `utc_to_local`.
pub fn assign(ctx: &EvalContext, value: Datum, from: &FieldType, target: &Target<'_>) -> Result<Datum> {
    let to = target.field_type;
    match (&value, to.family()) {
        (Datum::Null, _) => Ok(Datum::Null),
        (_, Family::Int) if to.tp == MysqlType::Year => assign_year(ctx, &value, from, target),
        (_, Family::Int) if to.tp == MysqlType::Bit => assign_bit(ctx, &value, from, target),
        (_, Family::Int) => assign_int(ctx, &value, from, target),
        (_, Family::Double) => assign_double(ctx, &value, from, target),
        (_, Family::Decimal) => assign_decimal(ctx, &value, from, target),
        (_, Family::Time) => assign_time(ctx, &value, from, target),
        (_, Family::Duration) => assign_duration(ctx, &value, from, target),
        (_, Family::String) => assign_string(ctx, value, from, target),
        (_, Family::Enum) => assign_enum(ctx, &value, from, target),
        (_, Family::Json) => assign_json(value, from),
        (_, Family::Null) => Ok(Datum::Null),
    }
}

/// Error 1048 for NULL in a NOT NULL column; the caller decides about defaults first.
pub fn not_null(value: &Datum, target: &Target<'_>) -> Result<()> {
    if value.is_null() && target.field_type.not_null {
        return Err(Error::BadNull { column: target.column.to_string() });
    }
    Ok(())
}

fn is_text(value: &Datum, from: &FieldType) -> bool {
    matches!(value, Datum::String(_)) || (matches!(value, Datum::Bytes(_)) && !from.unsigned)
}

/// A number from any value, exact where possible, for integer and decimal columns.
fn exact_number(
    ctx: &EvalContext,
    value: &Datum,
    from: &FieldType,
    target: &Target<'_>,
    kind: &'static str,
) -> Result<Decimal> {
    if !is_text(value, from) {
        return convert::to_decimal(ctx, value, from);
    }
    let text = to_text(value, from);
    let (number, used) = number::parse_decimal(&text);
    match used {
        Used::All => {}
        Used::Nothing => ctx.bad_value(target.incorrect(kind, text))?,
        Used::Prefix if kind == "decimal" => {
            target.bad(ctx, target.incorrect(kind, text), target.truncated())?
        }
        Used::Prefix => ctx.bad_value(target.truncated())?,
    }
    Ok(number)
}

fn assign_int(ctx: &EvalContext, value: &Datum, from: &FieldType, target: &Target<'_>) -> Result<Datum> {
    let to = target.field_type;
    let (low, high) = to.signed_range();
    match value {
        Datum::Int(v) if !to.unsigned && (low..=high).contains(v) => return Ok(Datum::Int(*v)),
        Datum::Int(v) if to.unsigned && *v >= 0 && *v as u64 <= to.unsigned_max() => {
            return Ok(Datum::UInt(*v as u64));
        }
        Datum::UInt(v) if from.family() == Family::Int && to.unsigned && *v <= to.unsigned_max() => {
            return Ok(Datum::UInt(*v));
        }
        _ => {}
    }
    let rounded = match value {
        Datum::Double(v) => {
            let rounded = number::round_half_even(*v);
            Decimal::from_f64(rounded).unwrap_or(Decimal::max(65, 0)).rescale(0)
        }
        other => {
            let exact = exact_number(ctx, other, from, target, "integer")?;
            if to.unsigned && exact.is_negative() {
                // Even what would round to zero.
                ctx.bad_value(target.out_of_range())?;
                return Ok(Datum::UInt(0));
            }
            exact.rescale(0)
        }
    };
    if to.unsigned {
        let (number, exact) = rounded.to_u64();
        let limited = number.min(to.unsigned_max());
        if !exact || limited != number {
            ctx.bad_value(target.out_of_range())?;
        }
        return Ok(Datum::UInt(limited));
    }
    let (number, exact) = rounded.to_i64();
    let limited = number.clamp(low, high);
    if !exact || limited != number {
        ctx.bad_value(target.out_of_range())?;
    }
    Ok(Datum::Int(limited))
}

/// YEAR of a number: 1 to 69 are 2001 to 2069, 70 to 99 are 1970 to 1999; 0 as text is 2000.
#[must_use]
pub fn year_of_number(number: i64, zero_is_2000: bool) -> Option<u64> {
    match number {
        0 if zero_is_2000 => Some(2000),
        0 => Some(0),
        1..=69 => Some(number as u64 + 2000),
        70..=99 => Some(number as u64 + 1900),
        1901..=2155 => Some(number as u64),
        _ => None,
    }
}

fn assign_year(ctx: &EvalContext, value: &Datum, from: &FieldType, target: &Target<'_>) -> Result<Datum> {
    let text = is_text(value, from).then(|| to_text(value, from));
    let number = match value {
        Datum::Time(v) => i64::from(v.year()),
        other => exact_number(ctx, other, from, target, "integer")?.to_i64().0,
    };
    let is_number = |t: &str| t.starts_with(|c: char| c.is_ascii_digit());
    let zero_is_2000 = text.as_deref().map(str::trim).is_some_and(|t| t.len() != 4 && is_number(t));
    match year_of_number(number, zero_is_2000) {
        Some(year) => Ok(Datum::UInt(year)),
        None => {
            ctx.bad_value(target.out_of_range())?;
            Ok(Datum::UInt(0))
        }
    }
}

fn assign_bit(ctx: &EvalContext, value: &Datum, from: &FieldType, target: &Target<'_>) -> Result<Datum> {
    let max = target.field_type.unsigned_max();
    let (number, fits) = match value {
        Datum::String(s) => bits_of_bytes(s.as_bytes()),
        Datum::Bytes(b) => bits_of_bytes(b),
        Datum::Int(v) => (*v as u64, true),
        Datum::UInt(v) => (*v, true),
        other => (convert::to_u64(ctx, other, from)?, true),
    };
    if !fits || number > max {
        target.bad(ctx, target.too_long(), target.out_of_range())?;
        return Ok(Datum::UInt(max));
    }
    Ok(Datum::UInt(number))
}

fn bits_of_bytes(bytes: &[u8]) -> (u64, bool) {
    let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
    (convert::bytes_to_u64(&bytes[first..]), bytes.len() - first <= 8)
}

fn assign_double(ctx: &EvalContext, value: &Datum, from: &FieldType, target: &Target<'_>) -> Result<Datum> {
    let to = target.field_type;
    let mut number = if is_text(value, from) {
        let text = to_text(value, from);
        let (number, used) = number::parse_f64(&text);
        if used == Used::Prefix && number.abs() == f64::MAX {
            ctx.bad_value(target.out_of_range())?;
        } else if used != Used::All {
            let kind = if to.tp == MysqlType::Float { "FLOAT" } else { "DOUBLE" };
            ctx.bad_value(target.incorrect(kind, text))?;
        }
        number
    } else {
        convert::to_f64(ctx, value, from)?
    };
    if to.unsigned && number < 0.0 {
        ctx.bad_value(target.out_of_range())?;
        number = 0.0;
    }
    let mut limit = if to.tp == MysqlType::Float { f64::from(f32::MAX) } else { f64::MAX };
    if to.decimals < NOT_FIXED_DECIMALS {
        let factor = 10f64.powi(i32::from(to.decimals));
        number = number::round_half_even(number * factor) / factor;
        limit = limit.min(10f64.powi((to.flen as i32) - i32::from(to.decimals)) - 1.0 / factor);
    }
    if number.abs() > limit {
        ctx.bad_value(target.out_of_range())?;
        number = limit.copysign(number);
    }
    Ok(Datum::Double(if to.tp == MysqlType::Float { f64::from(number as f32) } else { number }))
}

fn assign_decimal(ctx: &EvalContext, value: &Datum, from: &FieldType, target: &Target<'_>) -> Result<Datum> {
    let to = target.field_type;
    let number = exact_number(ctx, value, from, target, "decimal")?;
    let fitted = number.rescale(to.decimals);
    if to.unsigned && fitted.is_negative() {
        ctx.bad_value(target.out_of_range())?;
        return Ok(Datum::Decimal(Decimal::ZERO.rescale(to.decimals)));
    }
    if !fitted.fits(to.flen) {
        ctx.bad_value(target.out_of_range())?;
        let max = Decimal::max(to.flen, to.decimals);
        return Ok(Datum::Decimal(if fitted.is_negative() { max.neg() } else { max }));
    }
    if fitted != number && !matches!(value, Datum::Double(_)) {
        ctx.note(&target.truncated());
    }
    Ok(Datum::Decimal(fitted))
}

fn assign_time(ctx: &EvalContext, value: &Datum, from: &FieldType, target: &Target<'_>) -> Result<Datum> {
    let to = target.field_type;
    let kind = if to.tp == MysqlType::Date { "date" } else { "datetime" };
    let rules = DateRules::of(ctx.sql_mode);
    let incorrect = || target.incorrect_temporal(kind, to_text(value, from));
    let refuse = |lenient: Error| -> Result<Datum> {
        target.bad(ctx, incorrect(), lenient)?;
        Ok(Datum::Time(Time::ZERO))
    };
    match value {
        Datum::Time(v) if !rules.accept(&v.parts()) => return refuse(target.truncated()),
        text if is_text(text, from) => match time_parse::parse_datetime(&to_text(text, from), rules) {
            // A day that no calendar has is out of range, what is no date at all is cut.
            None if is_date_shaped(&to_text(text, from)) => return refuse(target.out_of_range()),
            None => return refuse(target.truncated()),
            Some(parsed) if parsed.truncated => target.bad(ctx, incorrect(), target.truncated())?,
            Some(_) => {}
        },
        _ => {}
    }
    // What is left is to convert it, quietly.
    let quiet = EvalContext { on_bad_value: OnBadValue::Warn, ..ctx.for_folding() };
    let fsp = if to.tp == MysqlType::Date { 6 } else { to.fsp() };
    let Some(time) = convert::to_time(&quiet, value, from, fsp, rules)? else {
        return refuse(target.truncated());
    };
    if to.tp == MysqlType::Date {
        if time.to_date() != time {
            ctx.note(&if ctx.on_bad_value == OnBadValue::Fail { incorrect() } else { target.truncated() });
        }
        return Ok(Datum::Time(time.to_date()));
    }
    if to.tp == MysqlType::Timestamp && !time.is_zero_date() && !timestamp_in_range(ctx, time) {
        return refuse(target.out_of_range());
    }
    Ok(Datum::Time(time))
}

/// Does it read as a date but for its day of the month?
fn is_date_shaped(text: &str) -> bool {
    let lax = DateRules { no_zero_date: false, no_zero_in_date: false, allow_invalid: true };
    time_parse::parse_datetime(text, lax).is_some()
}

/// 1970-01-01 00:00:01 to 2038-01-19 03:14:07 UTC.
fn timestamp_in_range(ctx: &EvalContext, time: Time) -> bool {
    let seconds = ctx.time_zone.to_unix_micros(time).div_euclid(1_000_000);
    (1..=i64::from(i32::MAX)).contains(&seconds) && !time.has_zero_in_date()
}

fn assign_duration(ctx: &EvalContext, value: &Datum, from: &FieldType, target: &Target<'_>) -> Result<Datum> {
    let incorrect = || target.incorrect_temporal("time", to_text(value, from));
    let fsp = target.field_type.fsp();
    if is_text(value, from) {
        let text = to_text(value, from);
        let Some(parsed) = time_parse::parse_duration(&text) else {
            let shaped = text.trim_start().starts_with(|c: char| c.is_ascii_digit());
            target.bad(ctx, incorrect(), if shaped { target.out_of_range() } else { target.truncated() })?;
            return Ok(Datum::Duration(Duration::default()));
        };
        if parsed.out_of_range {
            target.bad(ctx, incorrect(), target.out_of_range())?;
        } else if parsed.truncated {
            target.bad(ctx, incorrect(), target.truncated())?;
        }
        let cut = ctx.sql_mode.contains(SqlMode::TIME_TRUNCATE_FRACTIONAL);
        return Ok(Datum::Duration(parsed.round(fsp, cut)));
    }
    let quiet = EvalContext { on_bad_value: OnBadValue::Warn, ..ctx.for_folding() };
    if let Some(converted) = convert::to_duration(&quiet, value, from, fsp)? {
        return Ok(Datum::Duration(converted));
    }
    target.bad(ctx, incorrect(), target.out_of_range())?;
    let number = convert::to_f64(&quiet, value, from)?;
    let nearest = if number.abs() > 8_385_959.0 { DURATION_MICROS_MAX } else { 0 };
    Ok(Datum::Duration(Duration(if number < 0.0 { -nearest } else { nearest })))
}

fn assign_string(ctx: &EvalContext, value: Datum, from: &FieldType, target: &Target<'_>) -> Result<Datum> {
    let to = target.field_type;
    if to.is_binary_string() {
        let mut bytes = match value {
            Datum::Bytes(b) => b,
            Datum::String(s) => s.into_bytes(),
            other => to_bytes(&other, from),
        };
        let length = to.flen as usize;
        if to.flen != LENGTH_UNSPECIFIED && bytes.len() > length {
            target.bad(ctx, target.too_long(), target.truncated())?;
            bytes.truncate(length);
        }
        if to.tp == MysqlType::Char {
            bytes.resize(length, 0);
        }
        return Ok(Datum::Bytes(bytes));
    }
    let charset = to.collation.charset();
    let mut text = match value {
        Datum::String(s) => s,
        Datum::Bytes(b) => match charset.decode(&b) {
            Some(text) => text.into_owned(),
            None => {
                ctx.bad_value(target.incorrect("string", escaped(&b)))?;
                String::from_utf8_lossy(&b).chars().take_while(|c| *c != '\u{FFFD}').collect()
            }
        },
        other => to_text(&other, from),
    };
    if !text.is_ascii()
        && let Some((at, _)) = text.char_indices().find(|(_, c)| !charset.can_hold(*c))
    {
        ctx.bad_value(target.incorrect("string", escaped(&text.as_bytes()[at..])))?;
        text = convert::convert_charset(text, to.collation);
    }
    if to.flen != LENGTH_UNSPECIFIED && text.len() > to.flen as usize {
        text = cut_text(ctx, text, target)?;
    }
    if to.tp == MysqlType::Char {
        // CHAR is stored without its trailing spaces and shown without them.
        text.truncate(text.trim_end_matches(' ').len());
    }
    Ok(Datum::String(text))
}

/// Cuts a text to its column: TEXT counts bytes, CHAR and VARCHAR characters. Spaces that are lost are only noted.
fn cut_text(ctx: &EvalContext, mut text: String, target: &Target<'_>) -> Result<String> {
    let to = target.field_type;
    let length = to.flen as usize;
    let end = if to.is_blob() {
        (0..=length).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
    } else {
        match text.char_indices().nth(length) {
            Some((end, _)) => end,
            None => return Ok(text),
        }
    };
    if text[end..].bytes().all(|b| b == b' ') {
        if to.tp == MysqlType::Varchar {
            ctx.note(&target.truncated());
        }
    } else {
        target.bad(ctx, target.too_long(), target.truncated())?;
    }
    text.truncate(end);
    Ok(text)
}

fn escaped(bytes: &[u8]) -> String {
    let shown = bytes.iter().take(6);
    let mut out = String::new();
    for byte in shown {
        if (0x20..0x7F).contains(byte) {
            out.push(char::from(*byte))
        } else {
            out.push_str(&format!("\\x{byte:02X}"))
        }
    }
    if bytes.len() > 6 {
        out.push_str("...");
    }
    out
}

/// The index (ENUM) or bits (SET) of a text or number; `None` when it is no member.
#[must_use]
pub fn to_enum(value: &Datum, from: &FieldType, to: &FieldType) -> Option<u64> {
    let elems = to.elems.as_deref().unwrap_or_default();
    if value.as_bytes().is_none() && from.family() != Family::Enum {
        let number = match value {
            Datum::Int(v) => u64::try_from(*v).ok()?,
            Datum::UInt(v) => *v,
            Datum::Double(v) => *v as u64,
            Datum::Decimal(v) => v.to_u64().0,
            _ => return None,
        };
        let in_range = match to.tp {
            MysqlType::Enum => number >= 1 && number <= elems.len() as u64,
            _ => elems.len() >= 64 || number < 1 << elems.len(),
        };
        return in_range.then_some(number);
    }
    let text = to_text(value, from);
    let find = |word: &str| {
        let word = word.trim_end_matches(' ');
        elems.iter().position(|e| to.collation.equal(e.as_bytes(), word.as_bytes()))
    };
    if to.tp == MysqlType::Enum {
        let by_name = find(&text).map(|i| i as u64 + 1);
        return by_name.or_else(|| text.parse::<u64>().ok().filter(|n| *n >= 1 && *n <= elems.len() as u64));
    }
    if text.is_empty() {
        return Some(0);
    }
    let by_name = text.split(',').try_fold(0u64, |bits, word| Some(bits | 1 << find(word)?));
    by_name.or_else(|| text.parse::<u64>().ok().filter(|n| elems.len() >= 64 || *n < 1 << elems.len()))
}

fn assign_enum(ctx: &EvalContext, value: &Datum, from: &FieldType, target: &Target<'_>) -> Result<Datum> {
    match to_enum(value, from, target.field_type) {
        Some(number) => Ok(Datum::UInt(number)),
        None => {
            ctx.bad_value(target.truncated())?;
            let known = |word: &str| {
                to_enum(&Datum::from(word), &FieldType::varchar(0, from.collation), target.field_type)
            };
            let kept = match target.field_type.tp {
                MysqlType::Set => {
                    to_text(value, from).split(',').filter_map(known).fold(0, |bits, b| bits | b)
                }
                _ => 0,
            };
            Ok(Datum::UInt(kept))
        }
    }
}

fn assign_json(value: Datum, from: &FieldType) -> Result<Datum> {
    if from.family() == Family::Json {
        return Ok(value);
    }
    Err(Error::NotSupported { what: "JSON".to_string() })
}

/// The value a NOT NULL column without default takes when strict mode is off.
#[must_use]
pub fn implicit_default(field_type: &FieldType) -> Datum {
    match field_type.family() {
        Family::Null | Family::Json => Datum::Null,
        Family::Int if field_type.unsigned => Datum::UInt(0),
        Family::Int => Datum::Int(0),
        Family::Double => Datum::Double(0.0),
        Family::Decimal => Datum::Decimal(Decimal::ZERO.rescale(field_type.decimals)),
        Family::Time => Datum::Time(Time::ZERO),
        Family::Duration => Datum::Duration(Default::default()),
        Family::String if field_type.is_binary_string() => Datum::Bytes(Vec::new()),
        Family::String => Datum::String(String::new()),
        Family::Enum if field_type.tp == MysqlType::Enum => Datum::UInt(1),
        Family::Enum => Datum::UInt(0),
    }
}
