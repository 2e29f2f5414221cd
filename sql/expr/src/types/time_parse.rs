//! MySQL's lenient reading of dates and times, from text and from numbers.

use super::duration::{DURATION_MICROS_MAX, Duration};
use super::time::{Parts, Time, days_in_month};
use crate::context::SqlMode;

/// What zeros and impossible days are let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateRules {
    pub no_zero_date: bool,
    pub no_zero_in_date: bool,
    pub allow_invalid: bool,
}

impl DateRules {
    /// As sql_mode says.
    #[must_use]
    pub fn of(mode: SqlMode) -> DateRules {
        DateRules {
            no_zero_date: mode.contains(SqlMode::NO_ZERO_DATE),
            no_zero_in_date: mode.contains(SqlMode::NO_ZERO_IN_DATE),
            allow_invalid: mode.contains(SqlMode::ALLOW_INVALID_DATES),
        }
    }

    /// Zeros are fine: what functions such as MONTH() read.
    #[must_use]
    pub const fn fuzzy() -> DateRules {
        DateRules { no_zero_date: false, no_zero_in_date: false, allow_invalid: false }
    }

    /// Is the date acceptable?
    #[must_use]
    pub fn accept(&self, parts: &Parts) -> bool {
        let is_zero = parts.year == 0 && parts.month == 0 && parts.day == 0;
        if is_zero {
            return !self.no_zero_date;
        }
        if parts.month == 0 || parts.day == 0 {
            return !self.no_zero_in_date && parts.month <= 12 && parts.day <= 31;
        }
        parts.month <= 12
            && parts.day <= if self.allow_invalid { 31 } else { days_in_month(parts.year, parts.month) }
    }
}

/// A date or time read from text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedTime {
    pub parts: Parts,
    /// The seventh fractional digit, for rounding.
    pub seventh_digit: u32,
    /// Fractional digits that were written (up to 6).
    pub fsp: u8,
    /// There was more text than a time.
    pub truncated: bool,
    /// A time of day was written.
    pub has_time: bool,
    /// Seconds east of UTC, when an offset was written.
    pub offset: Option<i32>,
}

impl ParsedTime {
    /// The time rounded to `fsp` digits; `None` beyond the year 9999.
    #[must_use]
    pub fn round(&self, fsp: u8, truncate: bool) -> Option<Time> {
        let time = self.parts.pack();
        if truncate {
            return Some(time.truncate(fsp));
        }
        if fsp >= 6 {
            if self.seventh_digit < 5 || time.has_zero_in_date() {
                return Some(time);
            }
            return time.add_micros(1);
        }
        time.round(fsp)
    }
}

const YEAR: usize = 0;
const DAY: usize = 2;
const SECOND: usize = 5;
const MICROS: usize = 6;

fn digit(byte: Option<&u8>) -> Option<u32> {
    byte.filter(|b| b.is_ascii_digit()).map(|b| u32::from(*b - b'0'))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C)
}

/// `+hh:mm` at the end of a text, in seconds.
fn parse_offset(bytes: &[u8]) -> Option<i32> {
    let [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = bytes else { return None };
    let number = |a: u8, b: u8| Some((digit(Some(&a))? * 10 + digit(Some(&b))?) as i32);
    let (hours, minutes) = (number(*h1, *h2)?, number(*m1, *m2)?);
    let seconds = hours * 3600 + minutes * 60;
    if minutes > 59 || seconds > 14 * 3600 {
        return None;
    }
    Some(if *sign == b'-' { -seconds } else { seconds })
}

struct Fields {
    values: [u32; 7],
    lengths: [usize; 7],
    count: usize,
    end: usize,
    offset: Option<i32>,
}

/// Cuts the text into year, month … microseconds.
fn scan_fields(bytes: &[u8], internal: bool, year_length: usize) -> Option<Fields> {
    let mut f = Fields { values: [0; 7], lengths: [0; 7], count: 0, end: 0, offset: None };
    let mut width = year_length;
    let mut at = 0;
    while f.count < 7 && digit(bytes.get(at)).is_some() {
        let field = f.count;
        let start = at;
        let mut value = 0u32;
        let unbounded = !internal && field != MICROS;
        while let Some(d) = digit(bytes.get(at)).filter(|_| unbounded || at - start < width) {
            value = value * 10 + d;
            at += 1;
            if value > 999_999 {
                return None;
            }
        }
        f.values[field] = value;
        f.lengths[field] = at - start;
        f.count += 1;
        width = 2;
        f.end = at;
        if at == bytes.len() {
            break;
        }
        if field == DAY && bytes[at] == b'T' {
            at += 1;
            f.end = at;
            continue;
        }
        if field >= SECOND {
            if let Some(offset) = parse_offset(&bytes[at..]) {
                f.offset = Some(offset);
                f.end = bytes.len();
                break;
            }
            if field == SECOND && bytes[at] == b'.' {
                at += 1;
                f.end = at;
                width = 6;
                continue;
            }
            break;
        }
        let delimiters = at;
        while at < bytes.len() && (bytes[at].is_ascii_punctuation() || (is_space(bytes[at]) && field == DAY))
        {
            at += 1;
        }
        if at == delimiters && !internal {
            break;
        }
        f.end = at;
    }
    Some(f)
}

/// Reads a DATE or DATETIME in any form MySQL knows. `None`: not a date, or one that `rules` refuse.
#[must_use]
pub fn parse_datetime(text: &str, rules: DateRules) -> Option<ParsedTime> {
    let bytes = text.trim_start_matches([' ', '\t', '\n', '\r']).as_bytes();
    digit(bytes.first())?;
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit() || **b == b'T').count();
    let internal = digits == bytes.len() || bytes[digits] == b'.';
    let year_length = if !internal || matches!(digits, 4 | 8) || digits >= 14 { 4 } else { 2 };
    let f = scan_fields(bytes, internal, year_length)?;
    let year_length = if internal { year_length } else { f.lengths[YEAR] };
    let [mut year, month, day, hour, minute, second, mut micros] = f.values;
    if f.count < 3 || year > 9999 {
        return None;
    }
    if year_length <= 2 && f.values.iter().any(|v| *v != 0) {
        year += if year < 70 { 2000 } else { 1900 };
    }
    for _ in f.lengths[MICROS]..6 {
        micros *= 10;
    }
    let parts = Parts { year, month, day, hour, minute, second, micros };
    if hour > 23 || minute > 59 || second > 59 || !rules.accept(&parts) {
        return None;
    }
    let mut end = f.end;
    let seventh_digit = if f.count == 7 { digit(bytes.get(end)).unwrap_or(0) } else { 0 };
    if f.count == 7 {
        end += bytes[end..].iter().take_while(|b| b.is_ascii_digit()).count();
    }
    let offset = f.offset.or_else(|| parse_offset(&bytes[end.min(bytes.len())..]));
    let truncated = offset.is_none() && bytes[end..].iter().any(|b| !is_space(*b));
    let fsp = f.lengths[MICROS].min(6) as u8;
    Some(ParsedTime { parts, seventh_digit, fsp, truncated, has_time: f.count > 3, offset })
}

/// A date given as a number: YYMMDD, YYYYMMDD, YYMMDDhhmmss or YYYYMMDDhhmmss.
#[must_use]
pub fn datetime_of_number(number: i64, rules: DateRules) -> Option<ParsedTime> {
    const DAY_END: i64 = 1_231_235_959;
    let has_time = number > 99_991_231;
    let full = match number {
        0 => 0,
        101..=691_231 => (number + 20_000_000) * 1_000_000,
        700_101..=991_231 => (number + 19_000_000) * 1_000_000,
        10_000_101..=99_991_231 => number * 1_000_000,
        101_000_000.. if number <= 690_000_000_000 + DAY_END => number + 20_000_000_000_000,
        700_101_000_000..=991_231_235_959 => number + 19_000_000_000_000,
        10_000_101_000_000..=99_991_231_235_959 => number,
        _ => return None,
    } as u64;
    let (date, clock) = (full / 1_000_000, full % 1_000_000);
    let parts = Parts {
        year: (date / 10_000) as u32,
        month: (date / 100 % 100) as u32,
        day: (date % 100) as u32,
        hour: (clock / 10_000) as u32,
        minute: (clock / 100 % 100) as u32,
        second: (clock % 100) as u32,
        micros: 0,
    };
    let ok = parts.clock_is_valid() && rules.accept(&parts);
    ok.then_some(ParsedTime { parts, seventh_digit: 0, fsp: 0, truncated: false, has_time, offset: None })
}

/// A TIME read from text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedDuration {
    pub value: Duration,
    pub seventh_digit: u32,
    /// Fractional digits that were written (up to 6).
    pub fsp: u8,
    /// There was more text than a time.
    pub truncated: bool,
    /// It was beyond 838:59:59 and cut to it.
    pub out_of_range: bool,
}

impl ParsedDuration {
    /// Rounded to `fsp` digits.
    #[must_use]
    pub fn round(&self, fsp: u8, truncate: bool) -> Duration {
        if truncate {
            return self.value.truncate(fsp);
        }
        if fsp >= 6 && self.seventh_digit >= 5 {
            return Duration(self.value.0 + if self.value.0 < 0 { -1 } else { 1 }).clamp().0;
        }
        self.value.round(fsp)
    }
}

fn number_at(bytes: &[u8], at: &mut usize) -> u64 {
    let mut value = 0u64;
    while let Some(d) = digit(bytes.get(*at)) {
        value = value.saturating_mul(10).saturating_add(u64::from(d));
        *at += 1;
    }
    value
}

/// Reads a TIME: `[D ]hh:mm:ss.ffffff`, `hh:mm`, `hhmmss`, `ss`, or the time of a full datetime. `None`: not a time.
#[must_use]
pub fn parse_duration(text: &str) -> Option<ParsedDuration> {
    let trimmed = text.trim_start_matches([' ', '\t', '\n', '\r']);
    let (negative, body) = trimmed.strip_prefix('-').map_or((false, trimmed), |rest| (true, rest));
    let bytes = body.as_bytes();
    digit(bytes.first()).or_else(|| digit(bytes.get(1)).filter(|_| bytes[0] == b'.'))?;
    if bytes.len() >= 12
        && !negative
        && let Some(full) = parse_datetime(body, DateRules::fuzzy()).filter(|p| p.has_time && !p.truncated)
    {
        let value = full.parts.pack().time_of_day();
        let ParsedTime { seventh_digit, fsp, truncated, .. } = full;
        return Some(ParsedDuration { value, seventh_digit, fsp, truncated, out_of_range: false });
    }
    let mut at = 0;
    let [days, hours, minutes, seconds] = clock_fields(bytes, &mut at);
    let (mut micros, mut fsp, mut seventh_digit) = (0, 0, 0);
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        while let Some(d) = digit(bytes.get(at)) {
            match fsp {
                0..=5 => micros = micros * 10 + d,
                6 => seventh_digit = d,
                _ => {}
            }
            fsp += 1;
            at += 1;
        }
        micros *= 10u32.pow(6 - fsp.min(6));
    }
    if minutes > 59 || seconds > 59 {
        return None;
    }
    let truncated = bytes[at..].iter().any(|b| !is_space(*b));
    let hours = days.saturating_mul(24).saturating_add(hours);
    let whole = Duration::from_parts(negative, hours, minutes as u32, seconds as u32, micros);
    let limit = Duration(if negative { -DURATION_MICROS_MAX } else { DURATION_MICROS_MAX });
    let out_of_range = whole.is_none();
    let value = whole.unwrap_or(limit);
    Some(ParsedDuration { value, seventh_digit, fsp: fsp.min(6) as u8, truncated, out_of_range })
}

/// Days, hours, minutes and seconds at the front of a TIME text.
fn clock_fields(bytes: &[u8], at: &mut usize) -> [u64; 4] {
    let first = number_at(bytes, at);
    let after_first = *at;
    while bytes.get(*at).is_some_and(|b| is_space(*b)) {
        *at += 1;
    }
    let colon = |at: usize| bytes.get(at) == Some(&b':') && digit(bytes.get(at + 1)).is_some();
    let mut fields = [0u64; 4];
    let mut state;
    if *at > after_first && digit(bytes.get(*at)).is_some() {
        fields[0] = first;
        fields[1] = number_at(bytes, at);
        state = 2;
    } else if *at == after_first && colon(*at) {
        fields[1] = first;
        state = 2;
    } else {
        *at = after_first;
        return [0, first / 10_000, first / 100 % 100, first % 100];
    }
    while state < 4 && colon(*at) {
        *at += 1;
        fields[state] = number_at(bytes, at);
        state += 1;
    }
    fields
}

/// A TIME given as a number: hhmmss. `None`: minutes or seconds above 59.
#[must_use]
pub fn duration_of_number(number: i64) -> Option<ParsedDuration> {
    let magnitude = number.unsigned_abs();
    let negative = number < 0;
    if magnitude > 8_385_959 && !negative && magnitude >= 10_000_000_000 {
        let full = datetime_of_number(number, DateRules::fuzzy())?;
        let value = full.parts.pack().time_of_day();
        return Some(ParsedDuration {
            value,
            seventh_digit: 0,
            fsp: 0,
            truncated: false,
            out_of_range: false,
        });
    }
    let (minutes, seconds) = (magnitude / 100 % 100, magnitude % 100);
    if magnitude <= 8_385_959 && (minutes > 59 || seconds > 59) {
        return None;
    }
    let limit = Duration(if negative { -DURATION_MICROS_MAX } else { DURATION_MICROS_MAX });
    let whole = Duration::from_parts(negative, magnitude / 10_000, minutes as u32, seconds as u32, 0);
    let out_of_range = whole.is_none();
    let value = whole.unwrap_or(limit);
    Some(ParsedDuration { value, seventh_digit: 0, fsp: 0, truncated: false, out_of_range })
}
