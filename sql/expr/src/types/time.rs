//! DATE, DATETIME and TIMESTAMP: one packed 64-bit number whose order is the order of time.
//!
//! `(((year*13 + month) << 5 | day) << 17 | hour << 12 | minute << 6 | second) << 24 | micros`; the zero date is 0.

use std::fmt::Write as _;

use super::duration::{Duration, push_fraction};

/// A packed point in calendar time, without zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

/// Which of the three calendar types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeKind {
    Date,
    DateTime,
    Timestamp,
}

/// The fields of a calendar time; any of them may be 0 where sql_mode allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Parts {
    pub year: u32,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub micros: u32,
}

impl Parts {
    /// The packed form.
    #[must_use]
    pub fn pack(&self) -> Time {
        let ym = u64::from(self.year) * 13 + u64::from(self.month);
        let date = ym << 5 | u64::from(self.day);
        let clock = u64::from(self.hour) << 12 | u64::from(self.minute) << 6 | u64::from(self.second);
        Time((date << 17 | clock) << 24 | u64::from(self.micros))
    }

    /// Is it a day of the calendar (month and day not 0) and a time of day?
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.month >= 1
            && self.month <= 12
            && self.day >= 1
            && self.day <= days_in_month(self.year, self.month)
            && self.clock_is_valid()
    }

    /// Are hour, minute and second in their ranges?
    #[must_use]
    pub fn clock_is_valid(&self) -> bool {
        self.hour < 24 && self.minute < 60 && self.second < 60 && self.micros < 1_000_000
    }
}

/// Is it a leap year of the Gregorian calendar?
#[must_use]
pub fn is_leap(year: u32) -> bool {
    // Year 0 stands before the calendar: it is a common year.
    year != 0 && year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Days of a month (1 to 12).
#[must_use]
pub fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Day number counted from year 0, as TO_DAYS counts; month and day may be 0.
#[must_use]
pub fn day_number(year: u32, month: u32, day: u32) -> i64 {
    if year == 0 && month == 0 {
        return 0;
    }
    let (mut y, m) = (i64::from(year), i64::from(month));
    let mut days = 365 * y + 31 * (m - 1) + i64::from(day);
    if m <= 2 {
        y -= 1;
    } else {
        days -= (m * 4 + 23) / 10;
    }
    let leap = (y / 100 + 1) * 3 / 4;
    days + y / 4 - leap
}

/// The date of a day number; 0000-00-00 outside 0000-01-01 … 9999-12-31.
#[must_use]
pub fn date_of_day_number(number: i64) -> (u32, u32, u32) {
    if !(1..=3_652_424).contains(&number) {
        return (0, 0, 0);
    }
    let mut year = (number * 100 / 36_525) as u32;
    let leap = ((i64::from(year) - 1) / 100 + 1) * 3 / 4;
    let mut day_of_year = number - i64::from(year) * 365 - (i64::from(year) - 1) / 4 + leap;
    loop {
        let days = if is_leap(year) { 366 } else { 365 };
        if day_of_year <= days {
            break;
        }
        day_of_year -= days;
        year += 1;
    }
    let mut month = 1;
    let mut day = day_of_year as u32;
    while day > days_in_month(year, month) {
        day -= days_in_month(year, month);
        month += 1;
    }
    (year, month, day)
}

impl Time {
    /// 0000-00-00 00:00:00.
    pub const ZERO: Time = Time(0);
    /// 9999-12-31 23:59:59.999999.
    pub const MAX: Time =
        Time(((9999 * 13 + 12) << 5 | 31) << 41 | (23 << 12 | 59 << 6 | 59) << 24 | 999_999);

    /// A date at midnight.
    #[must_use]
    pub fn date(year: u32, month: u32, day: u32) -> Time {
        Parts { year, month, day, ..Parts::default() }.pack()
    }

    /// A date and a time of day.
    #[must_use]
    pub fn datetime(
        year: u32,
        month: u32,
        day: u32,
        hour: u32,
        minute: u32,
        second: u32,
        micros: u32,
    ) -> Time {
        Parts { year, month, day, hour, minute, second, micros }.pack()
    }

    /// The fields.
    #[must_use]
    pub fn parts(self) -> Parts {
        Parts {
            year: self.year(),
            month: self.month(),
            day: self.day(),
            hour: self.hour(),
            minute: self.minute(),
            second: self.second(),
            micros: self.micros(),
        }
    }

    #[must_use]
    pub fn year(self) -> u32 {
        ((self.0 >> 46) / 13) as u32
    }

    #[must_use]
    pub fn month(self) -> u32 {
        ((self.0 >> 46) % 13) as u32
    }

    #[must_use]
    pub fn day(self) -> u32 {
        (self.0 >> 41 & 31) as u32
    }

    #[must_use]
    pub fn hour(self) -> u32 {
        (self.0 >> 36 & 31) as u32
    }

    #[must_use]
    pub fn minute(self) -> u32 {
        (self.0 >> 30 & 63) as u32
    }

    #[must_use]
    pub fn second(self) -> u32 {
        (self.0 >> 24 & 63) as u32
    }

    #[must_use]
    pub fn micros(self) -> u32 {
        (self.0 & 0xFF_FFFF) as u32
    }

    /// 0000-00-00, whatever the time of day.
    #[must_use]
    pub fn is_zero_date(self) -> bool {
        self.0 >> 41 == 0
    }

    /// Is the month or the day 0?
    #[must_use]
    pub fn has_zero_in_date(self) -> bool {
        self.month() == 0 || self.day() == 0
    }

    /// The same day at midnight.
    #[must_use]
    pub fn to_date(self) -> Time {
        Time(self.0 >> 41 << 41)
    }

    /// The time of day.
    #[must_use]
    pub fn time_of_day(self) -> Duration {
        let seconds =
            i64::from(self.hour()) * 3600 + i64::from(self.minute()) * 60 + i64::from(self.second());
        Duration(seconds * 1_000_000 + i64::from(self.micros()))
    }

    /// Day number as TO_DAYS gives it.
    #[must_use]
    pub fn day_number(self) -> i64 {
        day_number(self.year(), self.month(), self.day())
    }

    /// Microseconds since day number 0.
    #[must_use]
    pub fn to_micros(self) -> i64 {
        self.day_number() * 86_400_000_000 + self.time_of_day().0
    }

    /// From microseconds since day number 0; `None` outside the years 0 to 9999.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Time> {
        let (day, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
        let (year, month, date) = date_of_day_number(day);
        if month == 0 {
            return None;
        }
        let seconds = (rest / 1_000_000) as u32;
        let micros = (rest % 1_000_000) as u32;
        Some(Time::datetime(year, month, date, seconds / 3600, seconds / 60 % 60, seconds % 60, micros))
    }

    /// Moves by a number of microseconds.
    #[must_use]
    pub fn add_micros(self, micros: i64) -> Option<Time> {
        Time::from_micros(self.to_micros().checked_add(micros)?)
    }

    /// Rounded to `fsp` fractional digits; `None` when this passes the year 9999.
    #[must_use]
    pub fn round(self, fsp: u8) -> Option<Time> {
        let unit = 10u32.pow(6 - u32::from(fsp.min(6)));
        let rounded = (self.micros() + unit / 2) / unit * unit;
        if rounded == self.micros() {
            return Some(self);
        }
        let base = Time(self.0 & !0xFF_FFFF);
        if rounded < 1_000_000 {
            return Some(Time(base.0 | u64::from(rounded)));
        }
        if base.has_zero_in_date() {
            return Some(base);
        }
        base.add_micros(1_000_000)
    }

    /// Cut to `fsp` fractional digits.
    #[must_use]
    pub fn truncate(self, fsp: u8) -> Time {
        let unit = 10u32.pow(6 - u32::from(fsp.min(6)));
        Time(self.0 & !0xFF_FFFF | u64::from(self.micros() / unit * unit))
    }

    /// YYYYMMDD.
    #[must_use]
    pub fn date_number(self) -> i64 {
        i64::from(self.year()) * 10_000 + i64::from(self.month()) * 100 + i64::from(self.day())
    }

    /// YYYYMMDDhhmmss.
    #[must_use]
    pub fn datetime_number(self) -> i64 {
        let clock =
            i64::from(self.hour()) * 10_000 + i64::from(self.minute()) * 100 + i64::from(self.second());
        self.date_number() * 1_000_000 + clock
    }

    /// `YYYY-MM-DD`.
    #[must_use]
    pub fn format_date(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year(), self.month(), self.day())
    }

    /// `YYYY-MM-DD hh:mm:ss[.ffffff]` with `fsp` fractional digits.
    #[must_use]
    pub fn format_datetime(self, fsp: u8) -> String {
        let mut out = self.format_date();
        let _ = write!(out, " {:02}:{:02}:{:02}", self.hour(), self.minute(), self.second());
        push_fraction(&mut out, self.micros(), fsp);
        out
    }
}
