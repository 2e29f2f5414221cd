//! The current time, and the parts of dates and times.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{Array, Int64Array, UInt64Array};

use super::registry::{self, Arg, Entry, Typing, ret};
use super::string::int;
use super::time_unit::Unit;
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::eval::Value;
use crate::expr::{Expr, Function, Scope, Volatility};
use crate::types::time::{Parts, day_number};
use crate::types::time_parse::{DateRules, parse_datetime, parse_duration};
use crate::types::{Collation, Datum, Duration, FieldType, Time, TimeZone};

use Arg::{Int, Time as Moment};

const fn now_like(name: &'static str, scalar: crate::expr::ScalarFn, ret: registry::RetFn) -> Entry {
    Entry::fixed(Function::strict(name, scalar).volatility(Volatility::Stable), 0, 1, &[Int], ret)
}

/// This family's functions.
pub static ENTRIES: &[Entry] = &[
    now_like("now", now, fsp_datetime),
    now_like("utc_timestamp", utc_timestamp, fsp_datetime),
    now_like("curtime", curtime, fsp_time),
    now_like("utc_time", utc_time, fsp_time),
    now_like("curdate", curdate, ret::date),
    now_like("utc_date", utc_date, ret::date),
    Entry::fixed(
        Function::strict("sysdate", sysdate).volatility(Volatility::Volatile),
        0,
        1,
        &[Int],
        fsp_datetime,
    ),
    Entry::fixed(
        Function::strict("year", |_, a| part(a, |p| p.year)).vectorized(|_, a, _| bulk(&a[0], Time::year)),
        1,
        1,
        &[Moment],
        ret::int,
    ),
    Entry::fixed(
        Function::strict("month", |_, a| part(a, |p| p.month)).vectorized(|_, a, _| bulk(&a[0], Time::month)),
        1,
        1,
        &[Moment],
        ret::int,
    ),
    Entry::fixed(Function::strict("dayofmonth", |_, a| part(a, |p| p.day)), 1, 1, &[Moment], ret::int),
    Entry::fixed(
        Function::strict("quarter", |_, a| part(a, |p| p.month.div_ceil(3))),
        1,
        1,
        &[Moment],
        ret::int,
    ),
    Entry::custom(Function::strict("hour", |_, a| clock(a, Duration::hours)), 1, 1, resolve_clock),
    Entry::custom(Function::strict("minute", |_, a| clock(a, Duration::minutes)), 1, 1, resolve_clock),
    Entry::custom(Function::strict("second", |_, a| clock(a, Duration::seconds)), 1, 1, resolve_clock),
    Entry::custom(Function::strict("microsecond", |_, a| clock(a, Duration::micros)), 1, 1, resolve_clock),
    Entry::fixed(Function::strict("dayofweek", dayofweek), 1, 1, &[Moment], ret::int),
    Entry::fixed(Function::strict("weekday", weekday), 1, 1, &[Moment], ret::int),
    Entry::fixed(Function::strict("dayofyear", dayofyear), 1, 1, &[Moment], ret::int),
    Entry::fixed(Function::strict("week", week), 1, 2, &[Moment, Int], ret::int),
    Entry::fixed(Function::strict("weekofyear", weekofyear), 1, 1, &[Moment], ret::int),
    Entry::fixed(Function::strict("yearweek", yearweek), 1, 2, &[Moment, Int], ret::int),
    Entry::fixed(Function::strict("to_days", to_days), 1, 1, &[Moment], ret::int),
    Entry::fixed(Function::strict("to_seconds", to_seconds), 1, 1, &[Moment], ret::int),
    Entry::fixed(Function::strict("from_days", from_days), 1, 1, &[Int], ret::date),
    Entry::fixed(Function::strict("last_day", last_day), 1, 1, &[Moment], ret::date),
    Entry::fixed(Function::strict("dayname", dayname), 1, 1, &[Moment], ret::text),
    Entry::fixed(Function::strict("monthname", monthname), 1, 1, &[Moment], ret::text),
    Entry::fixed(Function::strict("date", date), 1, 1, &[Moment], ret::date),
    Entry::fixed(Function::strict("time", time), 1, 1, &[Arg::Duration], ret::time),
    Entry::custom(Function::strict("extract", extract).vectorized(extract_vector), 2, 2, resolve_extract),
    Entry::custom(Function::strict("date_literal", time), 1, 1, resolve_date_literal),
    Entry::custom(Function::strict("time_literal", time), 1, 1, resolve_time_literal),
    Entry::custom(Function::strict("timestamp_literal", time), 1, 1, resolve_timestamp_literal),
];

/// The fsp that a literal argument asks for.
fn fsp_of(t: &Typing<'_>) -> u8 {
    match t.args.first() {
        Some(Expr::Literal { value, .. }) => int(value).clamp(0, 6) as u8,
        _ => 0,
    }
}

fn fsp_datetime(t: &Typing<'_>) -> FieldType {
    FieldType::datetime(fsp_of(t))
}

fn fsp_time(t: &Typing<'_>) -> FieldType {
    FieldType::time(fsp_of(t))
}

fn moment(scope: &Scope<'_>, zone: &TimeZone, micros: i64) -> Time {
    zone.from_unix_micros(micros).unwrap_or(Time::ZERO).truncate(scope.ret().fsp())
}

fn local_now(scope: &Scope<'_>) -> Time {
    moment(scope, &scope.ctx.time_zone, scope.ctx.now_micros)
}

fn utc_now(scope: &Scope<'_>) -> Time {
    moment(scope, &TimeZone::utc(), scope.ctx.now_micros)
}

fn now(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(local_now(scope).into())
}

fn utc_timestamp(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(utc_now(scope).into())
}

fn curtime(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(local_now(scope).time_of_day().into())
}

fn utc_time(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(utc_now(scope).time_of_day().into())
}

fn curdate(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(local_now(scope).to_date().into())
}

fn utc_date(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Ok(utc_now(scope).to_date().into())
}

/// The time at which it is called, not the statement's.
fn sysdate(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(moment(scope, &scope.ctx.time_zone, elapsed.as_micros() as i64).into())
}

pub(super) fn as_time(value: &Datum) -> Time {
    if let Datum::Time(t) = value { *t } else { Time::ZERO }
}

pub(super) fn as_duration(value: &Datum) -> Duration {
    match value {
        Datum::Duration(d) => *d,
        Datum::Time(t) => t.time_of_day(),
        _ => Duration::default(),
    }
}

fn part(args: &[Datum], get: fn(Parts) -> u32) -> Result<Datum> {
    Ok(Datum::Int(i64::from(get(as_time(&args[0]).parts()))))
}

/// One field of a column of dates.
fn bulk(value: &Value, get: fn(Time) -> u32) -> Option<Result<Value>> {
    let Value::Array(array) = value else { return None };
    let times = array.as_any().downcast_ref::<UInt64Array>()?;
    let fields: Vec<i64> = times.values().iter().map(|v| i64::from(get(Time(*v)))).collect();
    Some(Ok(Value::Array(Arc::new(Int64Array::new(fields.into(), times.nulls().cloned())))))
}

fn extract_vector(scope: &Scope<'_>, args: &[Value], _: usize) -> Option<Result<Value>> {
    match unit_of(&scope.call.args[0]).ok()? {
        Unit::Year => bulk(&args[1], Time::year),
        Unit::Month => bulk(&args[1], Time::month),
        Unit::Day => bulk(&args[1], Time::day),
        _ => None,
    }
}

fn clock(args: &[Datum], get: fn(Duration) -> u32) -> Result<Datum> {
    Ok(Datum::Int(i64::from(get(as_duration(&args[0])))))
}

/// HOUR and its like read a TIME; of a datetime the time of day.
fn resolve_clock(_: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let arg = args.into_iter().next().unwrap_or_else(Expr::null);
    let arg = if arg.field_type().is_temporal() { arg } else { registry::cast(arg, FieldType::time(6)) };
    Ok(entry.call(vec![arg], FieldType::bigint(), Collation::Binary))
}

/// A date with a zero month or day has no place in the week.
fn whole_date(args: &[Datum]) -> Option<Time> {
    Some(as_time(&args[0])).filter(|t| !t.has_zero_in_date())
}

/// 0 is Monday.
pub(super) fn weekday_of(day: i64) -> i64 {
    (day + 5).rem_euclid(7)
}

fn dayofweek(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(whole_date(args).map(|t| (weekday_of(t.day_number()) + 1) % 7 + 1).into())
}

fn weekday(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(whole_date(args).map(|t| weekday_of(t.day_number())).into())
}

fn dayofyear(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(whole_date(args).map(|t| t.day_number() - day_number(t.year(), 1, 1) + 1).into())
}

/// What WEEK's mode says.
#[derive(Debug, Clone, Copy)]
pub struct WeekMode {
    pub monday_first: bool,
    /// Weeks count from 1: days before the first week belong to the last year.
    pub year: bool,
    /// Week 1 is the first that begins in the year, not the first with four days in it.
    pub first_weekday: bool,
}

impl WeekMode {
    /// Of a number from 0 to 7.
    #[must_use]
    pub fn of(mode: i64) -> WeekMode {
        let monday_first = mode & 1 != 0;
        let first_weekday = (mode & 4 != 0) == monday_first;
        WeekMode { monday_first, year: mode & 2 != 0, first_weekday }
    }
}

/// Week number and the year it belongs to.
#[must_use]
pub fn week_of(time: Time, mode: WeekMode) -> (u32, u32) {
    let day = time.day_number();
    let mut year = time.year();
    let mut first = day_number(year, 1, 1);
    let weekday_from = |day: i64| if mode.monday_first { weekday_of(day) } else { (weekday_of(day) + 1) % 7 };
    let mut weekday = weekday_from(first);
    let mut week_year = mode.year;
    let not_in_first = |weekday: i64| if mode.first_weekday { weekday != 0 } else { weekday >= 4 };
    if time.month() == 1 && i64::from(time.day()) <= 7 - weekday {
        if !week_year && not_in_first(weekday) {
            return (0, year);
        }
        week_year = true;
        if not_in_first(weekday) {
            year = year.saturating_sub(1);
            let days = if crate::types::time::is_leap(year) { 366 } else { 365 };
            first -= days;
            weekday = (weekday + 53 * 7 - days).rem_euclid(7);
        }
    }
    let days = if not_in_first(weekday) { day - (first + 7 - weekday) } else { day - (first - weekday) };
    if week_year && days >= 52 * 7 {
        let year_days = if crate::types::time::is_leap(year) { 366 } else { 365 };
        let next = (weekday + year_days) % 7;
        if !not_in_first(next) {
            return (1, year + 1);
        }
    }
    ((days / 7 + 1) as u32, year)
}

fn week(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let mode = args.get(1).map_or(i64::from(scope.ctx.default_week_format), int);
    Ok(whole_date(args).map(|t| i64::from(week_of(t, WeekMode::of(mode)).0)).into())
}

fn weekofyear(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(whole_date(args).map(|t| i64::from(week_of(t, WeekMode::of(3)).0)).into())
}

fn yearweek(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let mode = WeekMode { year: true, ..WeekMode::of(args.get(1).map_or(0, int)) };
    Ok(whole_date(args)
        .map(|t| {
            let (week, year) = week_of(t, mode);
            i64::from(year) * 100 + i64::from(week)
        })
        .into())
}

fn to_days(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(whole_date(args).map(Time::day_number).into())
}

fn to_seconds(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(whole_date(args).map(|t| t.to_micros() / 1_000_000).into())
}

fn from_days(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let (year, month, day) = crate::types::time::date_of_day_number(int(&args[0]));
    Ok(Time::date(year, month, day).into())
}

fn last_day(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let time = as_time(&args[0]);
    if time.month() == 0 {
        return Ok(Datum::Null);
    }
    let day = crate::types::time::days_in_month(time.year(), time.month());
    Ok(Time::date(time.year(), time.month(), day).into())
}

/// English names, from Monday.
pub(super) const DAY_NAMES: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// English names, from January.
pub(super) const MONTH_NAMES: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

fn dayname(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(whole_date(args).map(|t| DAY_NAMES[weekday_of(t.day_number()) as usize].to_string()).into())
}

fn monthname(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let month = as_time(&args[0]).month() as usize;
    Ok(month.checked_sub(1).map(|m| MONTH_NAMES[m].to_string()).into())
}

fn date(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(as_time(&args[0]).to_date().into())
}

fn time(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(as_duration(&args[0]).into())
}

/// The unit that a literal argument names.
pub(super) fn unit_of(expr: &Expr) -> Result<Unit> {
    let name = if let Expr::Literal { value, .. } = expr { value.as_str() } else { None };
    name.and_then(Unit::parse).ok_or_else(|| Error::WrongArguments { function: "INTERVAL".into() })
}

fn resolve_extract(_: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let [unit, arg] =
        <[Expr; 2]>::try_from(args).map_err(|_| Error::WrongParamCount { function: "extract".into() })?;
    let kind = unit_of(&unit)?;
    let date_only = !kind.has_time();
    let arg = if date_only {
        registry::to_fuzzy_time(arg)
    } else if arg.field_type().is_temporal() {
        arg
    } else if kind.fields().is_some_and(|f| *f.start() == 2) && looks_like_datetime(&arg) {
        registry::to_fuzzy_time(arg)
    } else {
        registry::cast(arg, FieldType::time(6))
    };
    Ok(entry.call(vec![unit, arg], FieldType::bigint(), Collation::Binary))
}

/// DAY_HOUR and the like of a text: a full datetime has a day of the month, a TIME a number of days.
fn looks_like_datetime(arg: &Expr) -> bool {
    match arg {
        Expr::Literal { value, .. } => value.as_str().is_some_and(|t| {
            parse_datetime(t, DateRules::fuzzy()).is_some_and(|p| p.has_time || t.len() >= 8)
        }),
        _ => true,
    }
}

fn extract(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let unit = unit_of(&scope.call.args[0])?;
    let (sign, fields) = match &args[1] {
        Datum::Duration(d) => {
            let sign = if d.is_negative() { -1 } else { 1 };
            let (h, m, s) = (i64::from(d.hours()), i64::from(d.minutes()), i64::from(d.seconds()));
            (sign, [0, 0, 0, h, m, s, i64::from(d.micros())])
        }
        other => {
            let p = as_time(other).parts();
            let all = [p.year, p.month, p.day, p.hour, p.minute, p.second, p.micros];
            (1, all.map(i64::from))
        }
    };
    let value = match unit {
        Unit::Year => fields[0],
        Unit::Quarter => (fields[1] + 2) / 3,
        Unit::Month => fields[1],
        Unit::Week => match whole_date(&args[1..]) {
            Some(t) => i64::from(week_of(t, WeekMode::of(i64::from(scope.ctx.default_week_format))).0),
            None => return Ok(Datum::Null),
        },
        Unit::Day => fields[2],
        Unit::Hour => fields[3],
        Unit::Minute => fields[4],
        Unit::Second => fields[5],
        Unit::Microsecond => fields[6],
        composite => {
            let range = composite.fields().unwrap_or(0..=0);
            range.fold(0, |n, i| n * if i == 6 { 1_000_000 } else { 100 } + fields[i])
        }
    };
    Ok(Datum::Int(value * sign))
}

/// The text of DATE'…' and its like; it must be whole and valid (error 1525).
fn literal_text(args: &[Expr]) -> &str {
    match args.first() {
        Some(Expr::Literal { value, .. }) => value.as_str().unwrap_or_default(),
        _ => "",
    }
}

fn resolve_date_literal(ctx: &EvalContext, _: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let text = literal_text(&args);
    let parsed = parse_datetime(text, DateRules::of(ctx.sql_mode)).filter(|p| !p.truncated && !p.has_time);
    let wrong = || Error::WrongLiteral { kind: "DATE", value: text.to_string() };
    let value = parsed.ok_or_else(wrong)?.parts.pack();
    Ok(Expr::literal(value.into(), FieldType::date().with_not_null(true)))
}

fn resolve_time_literal(_: &EvalContext, _: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let text = literal_text(&args);
    let parsed = parse_duration(text).filter(|p| !p.truncated && !p.out_of_range);
    let parsed = parsed.ok_or_else(|| Error::WrongLiteral { kind: "TIME", value: text.to_string() })?;
    Ok(Expr::literal(parsed.round(6, false).into(), FieldType::time(parsed.fsp).with_not_null(true)))
}

fn resolve_timestamp_literal(ctx: &EvalContext, _: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let text = literal_text(&args);
    let wrong = || Error::WrongLiteral { kind: "DATETIME", value: text.to_string() };
    let parsed = parse_datetime(text, DateRules::of(ctx.sql_mode)).filter(|p| !p.truncated && p.has_time);
    let parsed = parsed.ok_or_else(wrong)?;
    let time = parsed.round(6, false).ok_or_else(wrong)?;
    let time = match parsed.offset {
        Some(offset) => {
            let utc = time.add_micros(-i64::from(offset) * 1_000_000).ok_or_else(wrong)?;
            ctx.time_zone.utc_to_local(utc)
        }
        None => time,
    };
    Ok(Expr::literal(time.into(), FieldType::datetime(parsed.fsp).with_not_null(true)))
}
