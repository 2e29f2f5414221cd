//! Adding to, and differences of, dates and times; between zones, Unix time and calendar time.

use super::registry::{self, Arg, Entry, Typing, ret};
use super::string::int;
use super::time::{as_duration, as_time, unit_of};
use super::time_unit::{Interval, Unit};
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::expr::{Expr, Function, Scope, Volatility};
use crate::types::field_type::Family;
use crate::types::time_parse::{DateRules, datetime_of_number, parse_datetime, parse_duration};
use crate::types::time_zone::UNIX_SECONDS_MAX;
use crate::types::{Collation, Datum, Decimal, Duration, FieldType, MysqlType, Time, TimeZone};

use Arg::{Int, Number, Str, Time as Moment};

/// This family's functions.
pub static ENTRIES: &[Entry] = &[
    Entry::custom(Function::strict("date_add", date_add), 2, 3, resolve_date_add),
    Entry::custom(Function::strict("date_sub", date_add), 2, 3, resolve_date_add),
    Entry::custom(Function::strict("timestampadd", unreachable), 3, 3, resolve_timestampadd),
    Entry::custom(Function::strict("timestampdiff", timestampdiff), 3, 3, resolve_timestampdiff),
    Entry::fixed(Function::strict("datediff", datediff), 2, 2, &[Moment], ret::int),
    Entry::custom(Function::strict("timediff", timediff), 2, 2, resolve_timediff),
    Entry::custom(Function::strict("addtime", addtime), 2, 2, resolve_addtime),
    Entry::custom(Function::strict("subtime", addtime), 2, 2, resolve_addtime),
    Entry::custom(Function::strict("timestamp", timestamp), 1, 2, resolve_timestamp),
    Entry::fixed(Function::strict("makedate", makedate), 2, 2, &[Int], ret::date),
    Entry::fixed(Function::strict("maketime", maketime), 3, 3, &[Int, Int, Number], third_fsp),
    Entry::fixed(Function::strict("sec_to_time", sec_to_time), 1, 1, &[Number], first_fsp),
    Entry::fixed(Function::strict("time_to_sec", time_to_sec), 1, 1, &[Arg::Duration], ret::int),
    Entry::fixed(Function::strict("period_add", period_add), 2, 2, &[Int], ret::int),
    Entry::fixed(Function::strict("period_diff", period_diff), 2, 2, &[Int], ret::int),
    Entry::fixed(Function::strict("convert_tz", convert_tz), 3, 3, &[Moment, Str, Str], ret::datetime),
    Entry::custom(
        Function::strict("unix_timestamp", unix_timestamp).volatility(Volatility::Stable),
        0,
        1,
        resolve_unix_timestamp,
    ),
    Entry::custom(
        Function::strict("from_unixtime", from_unixtime).volatility(Volatility::Stable),
        1,
        2,
        resolve_from_unixtime,
    ),
];

fn unreachable(scope: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    Err(Error::Internal(format!("{} is resolved into other calls", scope.call.func.name)))
}

fn resolve_date_add(ctx: &EvalContext, entry: &'static Entry, mut args: Vec<Expr>) -> Result<Expr> {
    if args.len() == 2 {
        // ADDDATE(d, n) counts days.
        args.push(Expr::string("DAY", Collation::Utf8mb4Bin));
    }
    let [base, amount, unit] = <[Expr; 3]>::try_from(args)
        .map_err(|_| Error::WrongParamCount { function: entry.function.name.into() })?;
    let kind = unit_of(&unit)?;
    let amount = if kind.fields().is_some() {
        registry::to_string(ctx, amount, None)
    } else if kind == Unit::Second {
        let scale = amount.field_type().decimal_scale().min(6);
        registry::cast(amount, FieldType::decimal(30, scale))
    } else {
        registry::to_int(amount)
    };
    let amount_fsp = if kind.has_micros() {
        6
    } else if kind == Unit::Second {
        amount.field_type().decimals
    } else {
        0
    };
    let from = base.field_type();
    let fsp = from.fsp().max(amount_fsp);
    let field_type = match from.family() {
        Family::Time if from.tp == MysqlType::Date && !kind.has_time() => FieldType::date(),
        Family::Time => FieldType::datetime(fsp),
        Family::Duration if kind.has_time() && kind.fields().is_none_or(|f| *f.start() > 2) => {
            FieldType::time(fsp)
        }
        Family::Duration => FieldType::datetime(fsp),
        _ => FieldType::varchar(29, ctx.connection_collation),
    };
    let base = match from.family() {
        Family::Duration if field_type.tp != MysqlType::Time => {
            registry::cast(base, FieldType::datetime(fsp))
        }
        Family::Time | Family::Duration => base,
        _ => registry::to_string(ctx, base, None),
    };
    Ok(entry.call(vec![base, amount, unit], field_type, Collation::Binary))
}

fn interval_of(scope: &Scope<'_>, amount: &Datum) -> Result<Interval> {
    let unit = unit_of(&scope.call.args[2])?;
    let interval = match (unit.fields(), amount) {
        (Some(fields), text) => Interval::parse(text.as_str().unwrap_or_default(), fields),
        (None, Datum::Decimal(seconds)) => {
            let micros = seconds.rescale(6).unscaled_i128().unwrap_or(i128::MAX / 4);
            Interval { months: 0, micros }
        }
        (None, Datum::UInt(n)) => Interval::of(i64::try_from(*n).unwrap_or(i64::MAX), unit),
        (None, n) => Interval::of(int(n), unit),
    };
    Ok(if scope.call.func.name == "date_sub" { interval.negate() } else { interval })
}

fn overflow(scope: &Scope<'_>) -> Result<Datum> {
    scope.ctx.bad_value(Error::DatetimeOverflow { function: "datetime" })?;
    Ok(Datum::Null)
}

fn date_add(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let interval = interval_of(scope, &args[1])?;
    match &args[0] {
        Datum::Time(time) if time.has_zero_in_date() => Ok(Datum::Null),
        Datum::Time(time) => match interval.add_to(*time) {
            Some(sum) => Ok(sum.into()),
            None => overflow(scope),
        },
        Datum::Duration(d) => {
            let sum = i64::try_from(i128::from(d.0) + interval.micros).map(Duration);
            match sum.map(Duration::clamp) {
                Ok((sum, true)) => Ok(sum.into()),
                _ => overflow(scope),
            }
        }
        text => add_to_text(scope, text, interval),
    }
}

/// A text stays a text: a date when neither it nor the unit has a time of day.
fn add_to_text(scope: &Scope<'_>, base: &Datum, interval: Interval) -> Result<Datum> {
    let text = base.as_str().unwrap_or_default();
    let number = || text.parse::<i64>().ok().and_then(|n| datetime_of_number(n, DateRules::fuzzy()));
    let parsed = parse_datetime(text, DateRules::fuzzy()).or_else(number);
    let Some(parsed) = parsed.filter(|p| !p.parts.pack().has_zero_in_date()) else {
        scope.ctx.bad_value(Error::IncorrectValue { kind: "datetime", value: text.to_string() })?;
        return Ok(Datum::Null);
    };
    if parsed.truncated {
        scope.ctx.bad_value(Error::TruncatedWrong { kind: "datetime", value: text.to_string() })?;
    }
    let Some(sum) = interval.add_to(parsed.parts.pack()) else { return overflow(scope) };
    let has_time = parsed.has_time || unit_of(&scope.call.args[2])?.has_time();
    let fsp = if sum.micros() == 0 { 0 } else { 6 };
    Ok(Datum::String(if has_time { sum.format_datetime(fsp) } else { sum.format_date() }))
}

/// TIMESTAMPADD(unit, n, d) is DATE_ADD(d, INTERVAL n unit).
fn resolve_timestampadd(ctx: &EvalContext, _: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let [unit, amount, base] = <[Expr; 3]>::try_from(args)
        .map_err(|_| Error::WrongParamCount { function: "timestampadd".into() })?;
    registry::resolve(ctx, "date_add", vec![base, amount, unit])
}

fn resolve_timestampdiff(_: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let [unit, a, b] = <[Expr; 3]>::try_from(args)
        .map_err(|_| Error::WrongParamCount { function: "timestampdiff".into() })?;
    unit_of(&unit)?;
    let args = vec![unit, registry::to_fuzzy_time(a), registry::to_fuzzy_time(b)];
    Ok(entry.call(args, FieldType::bigint(), Collation::Binary))
}

/// Whole months from `a` to `b`.
fn months_between(a: Time, b: Time) -> i64 {
    let (early, late, sign) = if a <= b { (a, b, 1) } else { (b, a, -1) };
    let index = |t: Time| i64::from(t.year()) * 12 + i64::from(t.month());
    let day_and_clock = |t: Time| (t.day(), t.time_of_day());
    let incomplete = i64::from(day_and_clock(late) < day_and_clock(early));
    sign * (index(late) - index(early) - incomplete)
}

fn timestampdiff(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let unit = unit_of(&scope.call.args[0])?;
    let (a, b) = (as_time(&args[1]), as_time(&args[2]));
    if a.has_zero_in_date() || b.has_zero_in_date() {
        return Ok(Datum::Null);
    }
    Ok(Datum::Int(match unit {
        Unit::Year => months_between(a, b) / 12,
        Unit::Quarter => months_between(a, b) / 3,
        Unit::Month => months_between(a, b),
        unit => (i128::from(b.to_micros() - a.to_micros()) / unit.micros()) as i64,
    }))
}

fn datediff(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let (a, b) = (as_time(&args[0]), as_time(&args[1]));
    if a.has_zero_in_date() || b.has_zero_in_date() {
        return Ok(Datum::Null);
    }
    Ok(Datum::Int(a.day_number() - b.day_number()))
}

/// Does a text hold a full datetime rather than a TIME?
fn is_datetime_text(text: &str) -> bool {
    parse_datetime(text, DateRules::fuzzy())
        .is_some_and(|p| text.trim().len() >= 10 && (p.has_time || text.contains('-')))
}

fn resolve_timediff(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let fsp = args.iter().map(registry::fsp_of).max().unwrap_or(0);
    let keep =
        |arg: Expr| if arg.field_type().is_temporal() { arg } else { registry::to_string(ctx, arg, None) };
    let args = args.into_iter().map(keep).collect();
    Ok(entry.call(args, FieldType::time(fsp), Collation::Binary))
}

/// Microseconds of a TIME, or of a datetime since day 0 (true).
fn micros_of(scope: &Scope<'_>, value: &Datum) -> Result<Option<(i64, bool)>> {
    Ok(match value {
        Datum::Duration(d) => Some((d.0, false)),
        Datum::Time(t) => Some((t.to_micros(), true)),
        other => {
            let text = other.as_str().unwrap_or_default();
            if is_datetime_text(text) {
                parse_datetime(text, DateRules::fuzzy()).map(|p| (p.parts.pack().to_micros(), true))
            } else if let Some(parsed) = parse_duration(text) {
                Some((parsed.value.0, false))
            } else {
                scope.ctx.bad_value(Error::TruncatedWrong { kind: "time", value: text.to_string() })?;
                None
            }
        }
    })
}

fn clamp_duration(scope: &Scope<'_>, micros: i64) -> Result<Datum> {
    let (value, exact) = Duration(micros).clamp();
    if !exact {
        scope.ctx.bad_value(Error::TruncatedWrong { kind: "time", value: Duration(micros).format(0) })?;
    }
    Ok(value.into())
}

fn timediff(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let (Some((a, a_date)), Some((b, b_date))) = (micros_of(scope, &args[0])?, micros_of(scope, &args[1])?)
    else {
        return Ok(Datum::Null);
    };
    if a_date != b_date { Ok(Datum::Null) } else { clamp_duration(scope, a - b) }
}

fn resolve_addtime(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let [base, amount] = <[Expr; 2]>::try_from(args)
        .map_err(|_| Error::WrongParamCount { function: entry.function.name.into() })?;
    let amount_fsp = registry::fsp_of(&amount);
    let amount = registry::cast(amount, FieldType::time(6));
    let from = base.field_type();
    let fsp = from.fsp().max(amount_fsp);
    let field_type = match from.family() {
        Family::Time => FieldType::datetime(fsp),
        Family::Duration => FieldType::time(fsp),
        _ => FieldType::varchar(29, ctx.connection_collation),
    };
    let base = if from.is_temporal() { base } else { registry::to_string(ctx, base, None) };
    Ok(entry.call(vec![base, amount], field_type, Collation::Binary))
}

fn addtime(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let Some((base, is_date)) = micros_of(scope, &args[0])? else { return Ok(Datum::Null) };
    let amount = as_duration(&args[1]).0;
    let sum = if scope.call.func.name == "subtime" { base - amount } else { base + amount };
    let as_text = scope.ret().is_string();
    if is_date {
        let Some(time) = Time::from_micros(sum) else { return overflow(scope) };
        let fsp = if time.micros() == 0 { 0 } else { 6 };
        return Ok(if as_text { Datum::String(time.format_datetime(fsp)) } else { time.into() });
    }
    let value = clamp_duration(scope, sum)?;
    Ok(match value {
        Datum::Duration(d) if as_text => Datum::String(d.format(if d.micros() == 0 { 0 } else { 6 })),
        other => other,
    })
}

fn resolve_timestamp(_: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let fsp = args.iter().map(registry::fsp_of).max().unwrap_or(0);
    let mut args = args.into_iter();
    let base = args.next().unwrap_or_else(Expr::null);
    let mut converted = vec![registry::cast(base, FieldType::datetime(6))];
    converted.extend(args.map(|a| registry::cast(a, FieldType::time(6))));
    Ok(entry.call(converted, FieldType::datetime(fsp), Collation::Binary))
}

fn timestamp(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let base = as_time(&args[0]);
    let amount = args.get(1).map_or(0, |a| as_duration(a).0);
    Ok(if amount == 0 { base.into() } else { base.add_micros(amount).into() })
}

fn makedate(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let (year, day) = (int(&args[0]), int(&args[1]));
    if day < 1 || !(0..=9999).contains(&year) {
        return Ok(Datum::Null);
    }
    let year = match year {
        0..=69 => year + 2000,
        70..=99 => year + 1900,
        other => other,
    };
    let number = crate::types::time::day_number(year as u32, 1, 1) + day - 1;
    let (y, m, d) = crate::types::time::date_of_day_number(number);
    Ok(if m == 0 { Datum::Null } else { Time::date(y, m, d).into() })
}

fn first_fsp(t: &Typing<'_>) -> FieldType {
    FieldType::time(t.args[0].field_type().fsp())
}

fn third_fsp(t: &Typing<'_>) -> FieldType {
    FieldType::time(t.args[2].field_type().fsp())
}

fn seconds_as_micros(value: &Datum) -> i64 {
    let decimal = match value {
        Datum::Int(v) => Decimal::from(*v),
        Datum::UInt(v) => Decimal::from(*v),
        Datum::Decimal(v) => *v,
        Datum::Double(v) => Decimal::from_f64(*v).unwrap_or(Decimal::ZERO),
        _ => Decimal::ZERO,
    };
    let limit = 4_000_000_000_000_000;
    decimal
        .rescale(6)
        .unscaled_i128()
        .map_or(limit, |v| v.clamp(-i128::from(limit), i128::from(limit)) as i64)
}

fn maketime(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let (hour, minute, micros) = (int(&args[0]), int(&args[1]), seconds_as_micros(&args[2]));
    if !(0..60).contains(&minute) || !(0..60_000_000).contains(&micros) {
        return Ok(Datum::Null);
    }
    let hour_micros = hour.clamp(-10_000, 10_000) * 3_600_000_000;
    let rest = minute * 60_000_000 + micros;
    clamp_duration(scope, if hour < 0 { hour_micros - rest } else { hour_micros + rest })
}

fn sec_to_time(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    clamp_duration(scope, seconds_as_micros(&args[0]))
}

fn time_to_sec(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(as_duration(&args[0]).0 / 1_000_000))
}

/// Months since year 0 of YYMM or YYYYMM.
fn period_months(period: i64) -> Result<i64> {
    let (mut year, month) = (period / 100, period % 100);
    if period <= 0 || !(1..=12).contains(&month) {
        return Err(Error::WrongArguments { function: "period_add".into() });
    }
    year += match year {
        0..=69 => 2000,
        70..=99 => 1900,
        _ => 0,
    };
    Ok(year * 12 + month - 1)
}

fn period_add(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let months = period_months(int(&args[0]))? + int(&args[1]);
    Ok(Datum::Int(months / 12 * 100 + months % 12 + 1))
}

fn period_diff(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(period_months(int(&args[0]))? - period_months(int(&args[1]))?))
}

fn convert_tz(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let time = as_time(&args[0]);
    let zone = |value: &Datum| TimeZone::parse(value.as_str().unwrap_or_default()).ok();
    let (Some(from), Some(to)) = (zone(&args[1]), zone(&args[2])) else { return Ok(Datum::Null) };
    if time.has_zero_in_date() {
        return Ok(Datum::Null);
    }
    let micros = from.to_unix_micros(time);
    if !(0..=UNIX_SECONDS_MAX * 1_000_000).contains(&micros) {
        return Ok(time.into());
    }
    Ok(to.from_unix_micros(micros).into())
}

fn resolve_unix_timestamp(_: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let Some(arg) = args.into_iter().next() else {
        return Ok(entry.call(Vec::new(), FieldType::bigint(), Collation::Binary));
    };
    let fsp = registry::fsp_of(&arg);
    let arg = registry::to_fuzzy_time(arg);
    let field_type =
        if fsp == 0 { FieldType::bigint() } else { FieldType::decimal(12 + u32::from(fsp), fsp) };
    Ok(entry.call(vec![arg], field_type, Collation::Binary))
}

fn unix_timestamp(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let micros = match args.first() {
        None => scope.ctx.now_micros,
        Some(value) if as_time(value).has_zero_in_date() => 0,
        Some(value) => scope.ctx.time_zone.to_unix_micros(as_time(value)),
    };
    let micros = if (0..=UNIX_SECONDS_MAX * 1_000_000 + 999_999).contains(&micros) { micros } else { 0 };
    if scope.ret().family() == Family::Int {
        return Ok(Datum::Int(micros / 1_000_000));
    }
    Ok(Decimal::from_i128(i128::from(micros), 6).truncate(i64::from(scope.ret().decimals)).into())
}

fn resolve_from_unixtime(ctx: &EvalContext, entry: &'static Entry, args: Vec<Expr>) -> Result<Expr> {
    let mut args = args.into_iter();
    let seconds = registry::to_number(args.next().unwrap_or_else(Expr::null));
    let fsp = seconds.field_type().fsp();
    let time = entry.call(vec![seconds], FieldType::datetime(fsp), Collation::Binary);
    match args.next() {
        None => Ok(time),
        Some(pattern) => registry::resolve(ctx, "date_format", vec![time, pattern]),
    }
}

fn from_unixtime(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let micros = seconds_as_micros(&args[0]);
    if !(0..=UNIX_SECONDS_MAX * 1_000_000 + 999_999).contains(&micros) {
        return Ok(Datum::Null);
    }
    let time = scope.ctx.time_zone.from_unix_micros(micros).and_then(|t| t.round(scope.ret().fsp()));
    Ok(time.into())
}
