//! DATE_FORMAT, TIME_FORMAT, STR_TO_DATE and GET_FORMAT.

use std::fmt::Write as _;

use super::registry::{self, Arg, Entry, ret};
use super::time::{DAY_NAMES, MONTH_NAMES, WeekMode, as_duration, as_time, week_of, weekday_of};
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::expr::{Expr, Function, Scope};
use crate::types::time::{Parts, date_of_day_number, day_number};
use crate::types::time_parse::DateRules;
use crate::types::{Collation, Datum, Duration, FieldType, MysqlType, Time};

/// This family's functions.
pub static ENTRIES: &[Entry] = &[
    Entry::fixed(Function::strict("date_format", date_format), 2, 2, &[Arg::Time, Arg::Str], ret::text),
    Entry::fixed(Function::strict("time_format", time_format), 2, 2, &[Arg::Duration, Arg::Str], ret::text),
    Entry::custom(Function::strict("str_to_date", str_to_date), 2, 2, resolve_str_to_date),
    Entry::fixed(Function::strict("get_format", get_format), 2, 2, &[Arg::Str], ret::text),
];

fn ordinal(day: u32) -> &'static str {
    match (day % 10, day / 10 % 10) {
        (1, t) if t != 1 => "st",
        (2, t) if t != 1 => "nd",
        (3, t) if t != 1 => "rd",
        _ => "th",
    }
}

/// What a date is formatted from; a TIME has hours beyond 23.
struct Fields {
    date: Time,
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
}

impl Fields {
    fn hour12(&self) -> u32 {
        (self.hour % 24 + 11) % 12 + 1
    }

    fn half(&self) -> &'static str {
        if self.hour % 24 < 12 { "AM" } else { "PM" }
    }

    fn week(&self, mode: i64, force_year: bool) -> (u32, u32) {
        week_of(self.date, WeekMode { year: force_year, ..WeekMode::of(mode) })
    }

    /// Writes one specifier; `None` when the date has no such part.
    fn write(&self, specifier: char, out: &mut String) -> Option<()> {
        let d = self.date;
        let needs_month = |m: u32| (m > 0).then_some(m as usize - 1);
        let weekday = || (!d.has_zero_in_date()).then(|| weekday_of(d.day_number()) as usize);
        let _ = match specifier {
            'a' => write!(out, "{}", &DAY_NAMES[weekday()?][..3]),
            'b' => write!(out, "{}", &MONTH_NAMES[needs_month(d.month())?][..3]),
            'c' => write!(out, "{}", d.month()),
            'D' => write!(out, "{}{}", d.day(), ordinal(d.day())),
            'd' => write!(out, "{:02}", d.day()),
            'e' => write!(out, "{}", d.day()),
            'f' => write!(out, "{:06}", self.micros),
            'H' => write!(out, "{:02}", self.hour),
            'h' | 'I' => write!(out, "{:02}", self.hour12()),
            'i' => write!(out, "{:02}", self.minute),
            'j' => write!(out, "{:03}", d.day_number() - day_number(d.year(), 1, 1) + 1),
            'k' => write!(out, "{}", self.hour),
            'l' => write!(out, "{}", self.hour12()),
            'M' => write!(out, "{}", MONTH_NAMES[needs_month(d.month())?]),
            'm' => write!(out, "{:02}", d.month()),
            'p' => write!(out, "{}", self.half()),
            'r' => write!(out, "{:02}:{:02}:{:02} {}", self.hour12(), self.minute, self.second, self.half()),
            'S' | 's' => write!(out, "{:02}", self.second),
            'T' => write!(out, "{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
            'U' => write!(out, "{:02}", self.week(0, false).0),
            'u' => write!(out, "{:02}", self.week(1, false).0),
            'V' => write!(out, "{:02}", self.week(2, true).0),
            'v' => write!(out, "{:02}", self.week(3, true).0),
            'W' => write!(out, "{}", DAY_NAMES[weekday()?]),
            'w' => write!(out, "{}", (weekday()? + 1) % 7),
            'X' => write!(out, "{:04}", self.week(2, true).1),
            'x' => write!(out, "{:04}", self.week(3, true).1),
            'Y' => write!(out, "{:04}", d.year()),
            'y' => write!(out, "{:02}", d.year() % 100),
            other => write!(out, "{other}"),
        };
        Some(())
    }

    fn format(&self, pattern: &str) -> Option<String> {
        let mut out = String::with_capacity(pattern.len() * 2);
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => match chars.next() {
                    Some(specifier) => self.write(specifier, &mut out)?,
                    None => out.push('%'),
                },
                other => out.push(other),
            }
        }
        Some(out)
    }
}

fn text(value: &Datum) -> &str {
    value.as_str().unwrap_or_default()
}

fn date_format(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let date = as_time(&args[0]);
    let p = date.parts();
    let fields = Fields { date, hour: p.hour, minute: p.minute, second: p.second, micros: p.micros };
    if text(&args[1]).is_empty() {
        return Ok(Datum::Null);
    }
    Ok(fields.format(text(&args[1])).into())
}

fn time_format(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let d = as_duration(&args[0]);
    let fields = Fields {
        date: Time::ZERO,
        hour: d.hours(),
        minute: d.minutes(),
        second: d.seconds(),
        micros: d.micros(),
    };
    let formatted = fields.format(text(&args[1]));
    Ok(formatted.map(|f| if d.is_negative() { format!("-{f}") } else { f }).into())
}

fn get_format(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let kind = text(&args[0]).to_ascii_uppercase();
    let region = text(&args[1]).to_ascii_uppercase();
    let found = match (kind.as_str(), region.as_str()) {
        ("DATE", "USA") => "%m.%d.%Y",
        ("DATE", "JIS" | "ISO") => "%Y-%m-%d",
        ("DATE", "EUR") => "%d.%m.%Y",
        ("DATE", "INTERNAL") => "%Y%m%d",
        ("DATETIME" | "TIMESTAMP", "USA" | "EUR") => "%Y-%m-%d %H.%i.%s",
        ("DATETIME" | "TIMESTAMP", "JIS" | "ISO") => "%Y-%m-%d %H:%i:%s",
        ("DATETIME" | "TIMESTAMP", "INTERNAL") => "%Y%m%d%H%i%s",
        ("TIME", "USA") => "%h:%i:%s %p",
        ("TIME", "JIS" | "ISO") => "%H:%i:%s",
        ("TIME", "EUR") => "%H.%i.%s",
        ("TIME", "INTERNAL") => "%H%i%s",
        _ => return Ok(Datum::Null),
    };
    Ok(found.into())
}

/// The result's type follows from the pattern: DATE, TIME or DATETIME, with a fraction when it has %f.
fn resolve_str_to_date(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let pattern = match &args[1] {
        Expr::Literal { value, .. } => value.as_str().map(str::to_string),
        _ => None,
    };
    let field_type = match pattern {
        None => FieldType::datetime(6),
        Some(pattern) => {
            let specifiers: Vec<char> =
                pattern.split('%').skip(1).filter_map(|part| part.chars().next()).collect();
            let has = |set: &str| specifiers.iter().any(|c| set.contains(*c));
            let fsp = if has("f") { 6 } else { 0 };
            match (has("MVUXYWabcjmvuxyweDd"), has("fHIShiklprsT")) {
                (true, false) => FieldType::date(),
                (false, true) => FieldType::time(fsp),
                _ => FieldType::datetime(fsp),
            }
        }
    };
    let args = args.into_iter().map(|a| registry::to_string(ctx, a, None)).collect();
    Ok(entry.call(args, field_type, Collation::Binary))
}

/// A cursor over the text that is read.
struct Input<'a> {
    rest: &'a str,
}

impl Input<'_> {
    fn number(&mut self, width: usize) -> Option<u32> {
        let digits = self.rest.bytes().take(width).take_while(u8::is_ascii_digit).count();
        let value = self.rest[..digits].parse().ok()?;
        self.rest = &self.rest[digits..];
        Some(value)
    }

    /// Index of the name that the text begins with.
    fn name(&mut self, names: &[&str], len: Option<usize>) -> Option<u32> {
        let found = names.iter().position(|name| {
            let name = &name[..len.unwrap_or(name.len())];
            self.rest.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name))
        })?;
        let used = len.unwrap_or(names[found].len());
        self.rest = &self.rest[used..];
        Some(found as u32)
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

#[derive(Default)]
struct Collected {
    parts: Parts,
    afternoon: Option<bool>,
    twelve_hours: bool,
    day_of_year: Option<u32>,
    weekday: Option<u32>,
    week: Option<(u32, bool)>,
    week_year: Option<u32>,
}

fn two_digit_year(input: &mut Input<'_>, width: usize) -> Option<u32> {
    let before = input.rest.len();
    let year = input.number(width)?;
    let digits = before - input.rest.len();
    Some(if digits <= 2 { year + if year < 70 { 2000 } else { 1900 } } else { year })
}

fn read(specifier: char, input: &mut Input<'_>, c: &mut Collected) -> Option<()> {
    let p = &mut c.parts;
    match specifier {
        'Y' => p.year = two_digit_year(input, 4)?,
        'y' => p.year = two_digit_year(input, 2)?,
        'm' | 'c' => p.month = input.number(2)?,
        'M' => p.month = input.name(&MONTH_NAMES, None)? + 1,
        'b' => p.month = input.name(&MONTH_NAMES, Some(3))? + 1,
        'd' | 'e' => p.day = input.number(2)?,
        'D' => {
            p.day = input.number(2)?;
            input.rest = input.rest.get(2..)?;
        }
        'H' | 'k' => p.hour = input.number(2)?,
        'h' | 'I' | 'l' => {
            p.hour = input.number(2).filter(|h| (1..=12).contains(h))?;
            c.twelve_hours = true;
        }
        'i' => p.minute = input.number(2)?,
        's' | 'S' => p.second = input.number(2)?,
        'f' => {
            let before = input.rest.len();
            let value = input.number(6)?;
            p.micros = value * 10u32.pow(6 - (before - input.rest.len()) as u32);
        }
        'p' => {
            let half = input.name(&["AM", "PM"], None)?;
            c.afternoon = Some(half == 1);
        }
        'r' => {
            "h:i:s ".chars().chain(['p']).try_for_each(|s| read_or_match(s, s.is_alphabetic(), input, c))?;
        }
        'T' => "H:i:s".chars().try_for_each(|s| read_or_match(s, s.is_alphabetic(), input, c))?,
        'W' => c.weekday = Some(input.name(&DAY_NAMES, None)?),
        'a' => c.weekday = Some(input.name(&DAY_NAMES, Some(3))?),
        'w' => c.weekday = Some((input.number(1).filter(|d| *d < 7)? + 6) % 7),
        'j' => c.day_of_year = Some(input.number(3).filter(|d| (1..=366).contains(d))?),
        'U' | 'V' => c.week = Some((input.number(2).filter(|w| *w <= 53)?, false)),
        'u' | 'v' => c.week = Some((input.number(2).filter(|w| *w <= 53)?, true)),
        'X' | 'x' => c.week_year = Some(input.number(4)?),
        '%' => input.rest = input.rest.strip_prefix('%')?,
        '.' => input.rest = input.rest.trim_start_matches(|c: char| c.is_ascii_punctuation()),
        '@' => input.rest = input.rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()),
        '#' => input.rest = input.rest.trim_start_matches(|c: char| c.is_ascii_digit()),
        _ => return None,
    }
    Some(())
}

fn read_or_match(c: char, is_specifier: bool, input: &mut Input<'_>, into: &mut Collected) -> Option<()> {
    if is_specifier {
        return read(c, input, into);
    }
    if c.is_whitespace() {
        input.skip_spaces();
        return Some(());
    }
    input.rest = input.rest.strip_prefix(c)?;
    Some(())
}

/// Reads a text by a pattern; true when text was left over.
fn parse(text: &str, pattern: &str) -> Option<(Parts, bool)> {
    let mut input = Input { rest: text };
    let mut c = Collected::default();
    let mut chars = pattern.chars();
    while let Some(p) = chars.next() {
        input.skip_spaces();
        if input.rest.is_empty() {
            break;
        }
        match p {
            '%' => read(chars.next()?, &mut input, &mut c)?,
            other => read_or_match(other, false, &mut input, &mut c)?,
        }
    }
    if c.twelve_hours {
        c.parts.hour = c.parts.hour % 12 + if c.afternoon == Some(true) { 12 } else { 0 };
    } else if c.afternoon.is_some() {
        return None;
    }
    if let Some(day) = c.day_of_year.filter(|_| c.parts.year > 0) {
        let (_, month, date) = date_of_day_number(day_number(c.parts.year, 1, 1) + i64::from(day) - 1);
        (c.parts.month, c.parts.day) = (month, date);
    }
    if let (Some((week, monday_first)), Some(weekday)) = (c.week, c.weekday) {
        let year = c.week_year.unwrap_or(c.parts.year);
        let (y, month, day) = date_of_day_number(day_of_week(year, week, monday_first, weekday));
        (c.parts.year, c.parts.month, c.parts.day) = (y, month, day);
    }
    Some((c.parts, !input.rest.trim_start().is_empty()))
}

/// Day number of a weekday (0 is Monday) in a week of a year.
fn day_of_week(year: u32, week: u32, monday_first: bool, weekday: u32) -> i64 {
    let first = day_number(year, 1, 1);
    let begin = weekday_of(first);
    let week = i64::from(week);
    if monday_first {
        first + if begin <= 3 { 0 } else { 7 } - begin + (week - 1) * 7 + i64::from(weekday)
    } else {
        let sunday_based = (begin + 1) % 7;
        let offset = i64::from((weekday + 1) % 7);
        first + if sunday_based == 0 { 0 } else { 7 } - sunday_based + (week - 1) * 7 + offset
    }
}

fn str_to_date(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let source = text(&args[0]);
    let wrong = |kind: &'static str| -> Result<Datum> {
        let value = source.to_string();
        scope.ctx.bad_value(Error::WrongValueForFunction { kind, value, function: "str_to_date" })?;
        Ok(Datum::Null)
    };
    let Some((parts, leftover)) = parse(source, text(&args[1])) else { return wrong("datetime") };
    if leftover {
        let kind = if scope.ret().tp == MysqlType::Date { "date" } else { "datetime" };
        scope.ctx.bad_value(Error::TruncatedWrong { kind, value: source.to_string() })?;
    }
    if scope.ret().tp == MysqlType::Time {
        let d = Duration::from_parts(false, u64::from(parts.hour), parts.minute, parts.second, parts.micros);
        return match d.filter(|_| parts.clock_is_valid()) {
            Some(d) => Ok(d.into()),
            None => wrong("time"),
        };
    }
    if !parts.clock_is_valid() || !DateRules::of(scope.ctx.sql_mode).accept(&parts) {
        return wrong("datetime");
    }
    let time = parts.pack();
    Ok(if scope.ret().tp == MysqlType::Date { time.to_date() } else { time }.into())
}
