//! Between types, the way CAST and MySQL's implicit conversions do it: the nearest value, with a warning when it is not exact.

use super::collation::Collation;
use super::datum::Datum;
use super::decimal::Decimal;
use super::duration::Duration;
use super::field_type::{Family, FieldType, LENGTH_UNSPECIFIED, MysqlType, NOT_FIXED_DECIMALS};
use super::format::{to_bytes, to_text};
use super::number::{self, Used};
use super::time::{Parts, Time};
use super::time_parse::{self, DateRules, ParsedTime};
use crate::context::{EvalContext, SqlMode};
use crate::error::{Error, Result};

fn truncated(ctx: &EvalContext, kind: &'static str, value: String) -> Result<()> {
    ctx.bad_value(Error::TruncatedWrong { kind, value })
}

/// The number that the bytes of a hexadecimal literal (or BIT) are.
#[must_use]
pub fn bytes_to_u64(bytes: &[u8]) -> u64 {
    bytes.iter().rev().take(8).rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn is_number_literal(value: &Datum, from: &FieldType) -> bool {
    matches!(value, Datum::Bytes(_)) && from.unsigned
}

fn time_number(value: Time, from: &FieldType) -> Decimal {
    if from.tp == MysqlType::Date {
        return Decimal::from(value.date_number());
    }
    let whole = i128::from(value.datetime_number()) * 1_000_000 + i128::from(value.micros());
    Decimal::from_i128(whole, 6).rescale(from.fsp())
}

fn duration_number(value: Duration, from: &FieldType) -> Decimal {
    let sign = if value.is_negative() { -1 } else { 1 };
    let whole = i128::from(value.to_number()) * 1_000_000 + sign * i128::from(value.micros());
    Decimal::from_i128(whole, 6).rescale(from.fsp())
}

/// The value as a DOUBLE; NULL must be dealt with before.
pub fn to_f64(ctx: &EvalContext, value: &Datum, from: &FieldType) -> Result<f64> {
    Ok(match value {
        Datum::Null => 0.0,
        Datum::Int(v) => *v as f64,
        Datum::UInt(v) => *v as f64,
        Datum::Double(v) => *v,
        Datum::Decimal(v) => v.to_f64(),
        Datum::Time(v) => time_number(*v, from).to_f64(),
        Datum::Duration(v) => duration_number(*v, from).to_f64(),
        Datum::Bytes(b) if is_number_literal(value, from) => bytes_to_u64(b) as f64,
        Datum::String(_) | Datum::Bytes(_) => {
            let text = to_text(value, from);
            let (number, used) = number::parse_f64(&text);
            if used != Used::All {
                truncated(ctx, "DOUBLE", text)?;
            }
            number
        }
    })
}

/// The value as a DECIMAL with the scale it has by itself.
pub fn to_decimal(ctx: &EvalContext, value: &Datum, from: &FieldType) -> Result<Decimal> {
    Ok(match value {
        Datum::Null => Decimal::ZERO,
        Datum::Int(v) => Decimal::from(*v),
        Datum::UInt(v) => Decimal::from(*v),
        Datum::Double(v) => Decimal::from_f64(*v).unwrap_or(if *v > 0.0 {
            Decimal::max(65, 0)
        } else {
            Decimal::max(65, 0).neg()
        }),
        Datum::Decimal(v) => *v,
        Datum::Time(v) => time_number(*v, from),
        Datum::Duration(v) => duration_number(*v, from),
        Datum::Bytes(b) if is_number_literal(value, from) => Decimal::from(bytes_to_u64(b)),
        Datum::String(_) | Datum::Bytes(_) => {
            let text = to_text(value, from);
            let (number, used) = number::parse_decimal(&text);
            if used != Used::All {
                truncated(ctx, "DECIMAL", text)?;
            }
            number
        }
    })
}

/// The value as a signed integer; text is read as digits, numbers are rounded.
pub fn to_i64(ctx: &EvalContext, value: &Datum, from: &FieldType) -> Result<i64> {
    Ok(match value {
        Datum::Null => 0,
        Datum::Int(v) => *v,
        Datum::UInt(v) => *v as i64,
        Datum::Double(v) => {
            let rounded = number::round_half_even(*v);
            if !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded) {
                truncated(ctx, "INTEGER", number::format_f64(*v))?;
            }
            rounded as i64
        }
        Datum::Decimal(v) => {
            let (number, exact) = v.to_i64();
            if !exact {
                truncated(ctx, "DECIMAL", v.to_string())?;
            }
            number
        }
        Datum::Time(v) => time_number(*v, from).to_i64().0,
        Datum::Duration(v) => duration_number(*v, from).to_i64().0,
        Datum::Bytes(b) if is_number_literal(value, from) => bytes_to_u64(b) as i64,
        Datum::String(_) | Datum::Bytes(_) => {
            let text = to_text(value, from);
            let parsed = number::parse_int(&text);
            let limit = if parsed.negative { 1u64 << 63 } else { u64::MAX };
            if parsed.used != Used::All || parsed.overflow || parsed.magnitude > limit {
                truncated(ctx, "INTEGER", text)?;
            }
            let magnitude = parsed.magnitude.min(limit);
            if parsed.negative { (magnitude as i64).wrapping_neg() } else { magnitude as i64 }
        }
    })
}

/// The value as an unsigned integer; negative numbers wrap around as in MySQL.
pub fn to_u64(ctx: &EvalContext, value: &Datum, from: &FieldType) -> Result<u64> {
    Ok(match value {
        Datum::Double(v) => {
            let rounded = number::round_half_even(*v);
            if !(-9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0).contains(&rounded) {
                truncated(ctx, "INTEGER", number::format_f64(*v))?;
            }
            if rounded < 0.0 { (rounded as i64) as u64 } else { rounded as u64 }
        }
        Datum::Decimal(v) if v.is_negative() => {
            truncated(ctx, "DECIMAL", v.to_string())?;
            v.to_i64().0 as u64
        }
        Datum::Decimal(v) => {
            let (number, exact) = v.to_u64();
            if !exact {
                truncated(ctx, "DECIMAL", v.to_string())?;
            }
            number
        }
        other => to_i64(ctx, other, from)? as u64,
    })
}

/// Is the value true, as WHERE sees it? `None` for NULL.
pub fn truth(ctx: &EvalContext, value: &Datum, from: &FieldType) -> Result<Option<bool>> {
    Ok(match value {
        Datum::Null => None,
        Datum::Int(v) => Some(*v != 0),
        Datum::UInt(v) => Some(*v != 0),
        Datum::Decimal(v) => Some(!v.is_zero()),
        Datum::Time(v) => Some(v.0 != 0),
        Datum::Duration(v) => Some(v.0 != 0),
        other => Some(to_f64(ctx, other, from)? != 0.0),
    })
}

/// Applies sql_mode's rounding and an offset written in the text.
fn finish_time(ctx: &EvalContext, parsed: &ParsedTime, fsp: u8) -> Option<Time> {
    let cut = ctx.sql_mode.contains(SqlMode::TIME_TRUNCATE_FRACTIONAL);
    let time = parsed.round(fsp, cut)?;
    match parsed.offset {
        None => Some(time),
        Some(offset) => ctx.time_zone.utc_to_local(time.add_micros(-i64::from(offset) * 1_000_000)?).into(),
    }
}

/// The value as a DATE or DATETIME of `fsp` digits. `None`, after a warning, when it is none.
pub fn to_time(
    ctx: &EvalContext,
    value: &Datum,
    from: &FieldType,
    fsp: u8,
    rules: DateRules,
) -> Result<Option<Time>> {
    let refuse = || -> Result<Option<Time>> {
        let value = to_text(value, from);
        ctx.bad_value(Error::IncorrectValue { kind: "datetime", value })?;
        Ok(None)
    };
    match value {
        Datum::Null => Ok(None),
        Datum::Time(v) => {
            let parts = v.parts();
            if !rules.accept(&parts) && !rules.allow_invalid {
                return refuse();
            }
            if from.fsp() <= fsp { Ok(Some(*v)) } else { v.round(fsp).map_or_else(refuse, |t| Ok(Some(t))) }
        }
        Datum::Duration(v) => {
            let today = today(ctx);
            Ok(today.add_micros(v.0).and_then(|t| t.round(fsp)))
        }
        Datum::String(_) | Datum::Bytes(_) if !is_number_literal(value, from) => {
            let text = to_text(value, from);
            let Some(parsed) = time_parse::parse_datetime(&text, rules) else { return refuse() };
            if parsed.truncated {
                truncated(ctx, "datetime", text)?;
            }
            finish_time(ctx, &parsed, fsp).map_or_else(refuse, |t| Ok(Some(t)))
        }
        _ if from.tp == MysqlType::Year => refuse(),
        _ => {
            let number = to_decimal(ctx, value, from)?;
            let Some(mut parsed) = time_parse::datetime_of_number(number.truncate(0).to_i64().0, rules)
            else {
                return refuse();
            };
            parsed.parts.micros = fraction_micros(&number);
            finish_time(ctx, &parsed, fsp).map_or_else(refuse, |t| Ok(Some(t)))
        }
    }
}

fn fraction_micros(number: &Decimal) -> u32 {
    let fraction = number.rescale(6).unscaled() % Decimal::from_i128(1_000_000, 0).unscaled();
    u32::try_from(fraction.abs()).unwrap_or(0)
}

/// The date on which the statement started, in the session's zone.
#[must_use]
pub fn today(ctx: &EvalContext) -> Time {
    ctx.time_zone.from_unix_micros(ctx.now_micros).unwrap_or(Time::ZERO).to_date()
}

/// The value as a TIME of `fsp` digits. `None`, after a warning, when it is none.
pub fn to_duration(ctx: &EvalContext, value: &Datum, from: &FieldType, fsp: u8) -> Result<Option<Duration>> {
    let cut = ctx.sql_mode.contains(SqlMode::TIME_TRUNCATE_FRACTIONAL);
    let parsed = match value {
        Datum::Null => return Ok(None),
        Datum::Duration(v) if from.fsp() <= fsp => return Ok(Some(*v)),
        Datum::Duration(v) => return Ok(Some(if cut { v.truncate(fsp) } else { v.round(fsp) })),
        Datum::Time(v) => {
            let v = v.time_of_day();
            return Ok(Some(if cut { v.truncate(fsp) } else { v.round(fsp) }));
        }
        Datum::String(_) | Datum::Bytes(_) if !is_number_literal(value, from) => {
            time_parse::parse_duration(&to_text(value, from))
        }
        _ => {
            let number = to_decimal(ctx, value, from)?;
            let mut parsed =
                time_parse::duration_of_number(number.truncate(0).to_i64().0).filter(|p| !p.out_of_range);
            if let Some(p) = parsed.as_mut() {
                let micros = i64::from(fraction_micros(&number));
                p.value.0 += if number.is_negative() { -micros } else { micros };
            }
            parsed
        }
    };
    let Some(parsed) = parsed else {
        truncated(ctx, "time", to_text(value, from))?;
        return Ok(None);
    };
    if parsed.truncated || parsed.out_of_range {
        truncated(ctx, "time", to_text(value, from))?;
    }
    Ok(Some(parsed.round(fsp, cut)))
}

/// CAST: the value as `to`, NULL where MySQL gives NULL.
pub fn cast(ctx: &EvalContext, value: &Datum, from: &FieldType, to: &FieldType) -> Result<Datum> {
    if value.is_null() {
        return Ok(Datum::Null);
    }
    match to.family() {
        Family::Null => Ok(Datum::Null),
        Family::Int if to.tp == MysqlType::Year => cast_year(ctx, value, from),
        Family::Int if to.unsigned => to_u64(ctx, value, from).map(Datum::UInt),
        Family::Int => to_i64(ctx, value, from).map(Datum::Int),
        Family::Double => cast_double(ctx, value, from, to),
        Family::Decimal => cast_decimal(ctx, value, from, to),
        Family::Time => cast_time(ctx, value, from, to),
        Family::Duration => Ok(to_duration(ctx, value, from, to.fsp())?.into()),
        Family::String => cast_string(ctx, value, from, to),
        Family::Enum if from == to => Ok(value.clone()),
        Family::Enum => super::store::to_enum(value, from, to).map_or_else(
            || truncated(ctx, "ENUM", to_text(value, from)).map(|()| Datum::UInt(0)),
            |v| Ok(Datum::UInt(v)),
        ),
        Family::Json => Ok(Datum::Bytes(to_bytes(value, from))),
    }
}

fn cast_double(ctx: &EvalContext, value: &Datum, from: &FieldType, to: &FieldType) -> Result<Datum> {
    let mut number = to_f64(ctx, value, from)?;
    if to.tp == MysqlType::Float {
        let single = number as f32;
        if single.is_infinite() {
            return Err(Error::DataOutOfRange {
                kind: "DOUBLE",
                expr: format!("cast({} as float)", number::format_f64(number)),
            });
        }
        number = f64::from(single);
    }
    if to.decimals < NOT_FIXED_DECIMALS {
        let factor = 10f64.powi(i32::from(to.decimals));
        let rounded = number::round_half_even(number * factor) / factor;
        number = if rounded.is_finite() { rounded } else { number };
    }
    Ok(Datum::Double(number))
}

fn cast_decimal(ctx: &EvalContext, value: &Datum, from: &FieldType, to: &FieldType) -> Result<Datum> {
    let number = to_decimal(ctx, value, from)?;
    let fitted = number.rescale(to.decimals);
    if fitted.fits(to.flen) {
        return Ok(Datum::Decimal(fitted));
    }
    ctx.bad_value(Error::OutOfRangeColumn { column: to_text(value, from), row: 1 })?;
    let max = Decimal::max(to.flen, to.decimals);
    Ok(Datum::Decimal(if fitted.is_negative() { max.neg() } else { max }))
}

fn cast_time(ctx: &EvalContext, value: &Datum, from: &FieldType, to: &FieldType) -> Result<Datum> {
    let rules = DateRules::of(ctx.sql_mode);
    if to.tp == MysqlType::Date {
        // A date is the day of the datetime: its time of day is cut, not rounded.
        return Ok(to_time(ctx, value, from, 6, rules)?.map(Time::to_date).into());
    }
    Ok(to_time(ctx, value, from, to.fsp(), rules)?.into())
}

fn cast_year(ctx: &EvalContext, value: &Datum, from: &FieldType) -> Result<Datum> {
    let number = match value {
        Datum::Time(v) => i64::from(v.year()),
        Datum::Duration(_) => i64::from(today(ctx).year()),
        other => to_i64(ctx, other, from)?,
    };
    let is_text = value.as_bytes().is_some();
    let Some(year) = super::store::year_of_number(number, is_text && to_text(value, from).trim().len() != 4)
    else {
        truncated(ctx, "YEAR", to_text(value, from))?;
        return Ok(Datum::Null);
    };
    Ok(Datum::UInt(year))
}

fn cast_string(ctx: &EvalContext, value: &Datum, from: &FieldType, to: &FieldType) -> Result<Datum> {
    if to.collation == Collation::Binary {
        let mut bytes = to_bytes(value, from);
        if to.flen != LENGTH_UNSPECIFIED && !to.is_blob() {
            let length = to.flen as usize;
            if bytes.len() > length {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                ctx.bad_value(Error::TruncatedWrong { kind: "BINARY", value: text })?;
                bytes.truncate(length);
            } else if to.tp == MysqlType::Char {
                bytes.resize(length, 0);
            }
        }
        return Ok(Datum::Bytes(bytes));
    }
    let text = match value {
        Datum::String(v) => v.clone(),
        Datum::Bytes(v) => match to.collation.charset().decode(v) {
            Some(text) => text.into_owned(),
            None => {
                let shown = v.iter().take(6).map(|b| format!("\\x{b:02X}")).collect::<String>();
                let charset = to.collation.charset().name();
                ctx.bad_value(Error::InvalidCharacterString { charset, value: shown })?;
                return Ok(Datum::Null);
            }
        },
        other => to_text(other, from),
    };
    let text = convert_charset(text, to.collation);
    if to.flen != LENGTH_UNSPECIFIED && !to.is_blob() {
        let length = to.flen as usize;
        if text.len() > length
            && let Some((end, _)) = text.char_indices().nth(length)
        {
            let cut = text[..end].to_string();
            ctx.bad_value(Error::TruncatedWrong { kind: "CHAR", value: text })?;
            return Ok(Datum::String(cut));
        }
    }
    Ok(Datum::String(text))
}

/// Replaces what the character set cannot hold by `?`.
#[must_use]
pub fn convert_charset(text: String, collation: Collation) -> String {
    let charset = collation.charset();
    if text.is_ascii() || text.chars().all(|c| charset.can_hold(c)) {
        return text;
    }
    text.chars().map(|c| if charset.can_hold(c) { c } else { '?' }).collect()
}

/// The fields of a date made of numbers.
#[must_use]
pub fn date_parts(year: u32, month: u32, day: u32) -> Parts {
    Parts { year, month, day, ..Parts::default() }
}
