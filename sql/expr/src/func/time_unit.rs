//! Units of time, and intervals: what INTERVAL n unit adds.

use crate::types::{Time, time::days_in_month};

/// A unit as INTERVAL, EXTRACT and TIMESTAMPDIFF name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Microsecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    SecondMicrosecond,
    MinuteMicrosecond,
    MinuteSecond,
    HourMicrosecond,
    HourSecond,
    HourMinute,
    DayMicrosecond,
    DaySecond,
    DayMinute,
    DayHour,
    YearMonth,
}

const NAMES: &[(&str, Unit)] = &[
    ("MICROSECOND", Unit::Microsecond),
    ("SECOND", Unit::Second),
    ("MINUTE", Unit::Minute),
    ("HOUR", Unit::Hour),
    ("DAY", Unit::Day),
    ("WEEK", Unit::Week),
    ("MONTH", Unit::Month),
    ("QUARTER", Unit::Quarter),
    ("YEAR", Unit::Year),
    ("SECOND_MICROSECOND", Unit::SecondMicrosecond),
    ("MINUTE_MICROSECOND", Unit::MinuteMicrosecond),
    ("MINUTE_SECOND", Unit::MinuteSecond),
    ("HOUR_MICROSECOND", Unit::HourMicrosecond),
    ("HOUR_SECOND", Unit::HourSecond),
    ("HOUR_MINUTE", Unit::HourMinute),
    ("DAY_MICROSECOND", Unit::DayMicrosecond),
    ("DAY_SECOND", Unit::DaySecond),
    ("DAY_MINUTE", Unit::DayMinute),
    ("DAY_HOUR", Unit::DayHour),
    ("YEAR_MONTH", Unit::YearMonth),
];

/// Fields of a composite unit, largest first, by index into `[year, month, day, hour, minute, second, micros]`.
const FIELD_RANGES: &[(Unit, std::ops::RangeInclusive<usize>)] = &[
    (Unit::SecondMicrosecond, 5..=6),
    (Unit::MinuteMicrosecond, 4..=6),
    (Unit::MinuteSecond, 4..=5),
    (Unit::HourMicrosecond, 3..=6),
    (Unit::HourSecond, 3..=5),
    (Unit::HourMinute, 3..=4),
    (Unit::DayMicrosecond, 2..=6),
    (Unit::DaySecond, 2..=5),
    (Unit::DayMinute, 2..=4),
    (Unit::DayHour, 2..=3),
    (Unit::YearMonth, 0..=1),
];

impl Unit {
    /// Finds a unit by name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Unit> {
        NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, unit)| *unit)
    }

    /// The fields of a composite unit.
    #[must_use]
    pub fn fields(self) -> Option<std::ops::RangeInclusive<usize>> {
        FIELD_RANGES.iter().find(|(unit, _)| *unit == self).map(|(_, range)| range.clone())
    }

    /// Does it touch the time of day?
    #[must_use]
    pub fn has_time(self) -> bool {
        !matches!(self, Unit::Day | Unit::Week | Unit::Month | Unit::Quarter | Unit::Year | Unit::YearMonth)
    }

    /// Does it count months?
    #[must_use]
    pub fn is_months(self) -> bool {
        matches!(self, Unit::Month | Unit::Quarter | Unit::Year | Unit::YearMonth)
    }

    /// Does it reach down to microseconds?
    #[must_use]
    pub fn has_micros(self) -> bool {
        self == Unit::Microsecond || self.fields().is_some_and(|f| *f.end() == 6)
    }

    /// Microseconds of one simple unit below a month.
    #[must_use]
    pub fn micros(self) -> i128 {
        match self {
            Unit::Microsecond => 1,
            Unit::Second => 1_000_000,
            Unit::Minute => 60_000_000,
            Unit::Hour => 3_600_000_000,
            Unit::Week => 7 * 86_400_000_000,
            _ => 86_400_000_000,
        }
    }
}

/// A span: months, which have no fixed length, and microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interval {
    pub months: i64,
    pub micros: i128,
}

impl Interval {
    /// `n` of a simple unit.
    #[must_use]
    pub fn of(n: i64, unit: Unit) -> Interval {
        match unit {
            Unit::Month => Interval { months: n, micros: 0 },
            Unit::Quarter => Interval { months: n.saturating_mul(3), micros: 0 },
            Unit::Year => Interval { months: n.saturating_mul(12), micros: 0 },
            unit => Interval { months: 0, micros: i128::from(n) * unit.micros() },
        }
    }

    /// A composite unit's text: groups of digits with anything between; when there are too few, the largest fields are missing.
    #[must_use]
    pub fn parse(text: &str, fields: std::ops::RangeInclusive<usize>) -> Interval {
        let text = text.trim_start();
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let wanted = fields.end() - fields.start() + 1;
        let groups: Vec<&str> =
            text.split(|c: char| !c.is_ascii_digit()).filter(|g| !g.is_empty()).take(wanted).collect();
        let mut parts = [0i128; 7];
        for (group, field) in groups.iter().rev().zip(fields.clone().rev()) {
            let digits = if field == 6 {
                format!("{:0<6}", &group[..group.len().min(6)])
            } else {
                (*group).to_string()
            };
            parts[field] = digits.parse().unwrap_or(i128::from(i64::MAX));
        }
        let sign = if negative { -1 } else { 1 };
        let months = (parts[0] * 12 + parts[1]) * sign;
        let seconds = ((parts[2] * 24 + parts[3]) * 60 + parts[4]) * 60 + parts[5];
        Interval {
            months: i64::try_from(months).unwrap_or(i64::MAX),
            micros: (seconds * 1_000_000 + parts[6]) * sign,
        }
    }

    #[must_use]
    pub fn negate(self) -> Interval {
        Interval { months: self.months.saturating_neg(), micros: -self.micros }
    }

    /// Adds to a date; `None` outside the calendar.
    #[must_use]
    pub fn add_to(self, time: Time) -> Option<Time> {
        if self.months != 0 {
            let parts = time.parts();
            let total = i64::from(parts.year) * 12 + i64::from(parts.month) - 1;
            let total = total.checked_add(self.months).filter(|t| (0..120_000).contains(t))?;
            let (year, month) = ((total / 12) as u32, (total % 12) as u32 + 1);
            let day = parts.day.min(days_in_month(year, month));
            return Some(crate::types::time::Parts { year, month, day, ..parts }.pack());
        }
        let micros = i64::try_from(self.micros).ok()?;
        time.add_micros(micros)
    }
}
