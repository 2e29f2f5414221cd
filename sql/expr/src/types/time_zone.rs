//! Time zones: 'SYSTEM', '+05:30' and names of the tz database; between UTC and a zone's calendar time.

use std::sync::OnceLock;

use chrono::{NaiveDate, NaiveDateTime, Offset, TimeZone as _};

use super::time::{Time, date_of_day_number, day_number};
use crate::error::{Error, Result};

/// Day number of 1970-01-01.
const EPOCH_DAY: i64 = 719_528;
/// The largest Unix time that UNIX_TIMESTAMP and FROM_UNIXTIME know: 3001-01-18 23:59:59 UTC.
pub const UNIX_SECONDS_MAX: i64 = 32_536_771_199;

/// A zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeZone {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Seconds east of UTC.
    Fixed(i32),
    Named(chrono_tz::Tz),
    System,
}

/// The tz database's name of the operating system's zone, if it has one that we know.
fn system_zone_name() -> Option<String> {
    static NAME: OnceLock<Option<String>> = OnceLock::new();
    let find = || {
        let name = iana_time_zone::get_timezone().ok()?;
        TimeZone::parse(&name).ok().map(|zone| zone.name)
    };
    NAME.get_or_init(find).clone()
}

impl TimeZone {
    /// UTC, named '+00:00'.
    #[must_use]
    pub fn utc() -> TimeZone {
        TimeZone { name: "+00:00".into(), kind: Kind::Fixed(0) }
    }

    /// The operating system's zone.
    #[must_use]
    pub fn system() -> TimeZone {
        TimeZone { name: "SYSTEM".into(), kind: Kind::System }
    }

    /// 'SYSTEM', an offset from '-13:59' to '+14:00', or a name.
    pub fn parse(name: &str) -> Result<TimeZone> {
        let unknown = || Error::UnknownTimeZone { name: name.to_string() };
        if name.eq_ignore_ascii_case("SYSTEM") {
            return Ok(TimeZone::system());
        }
        if let Some(sign) = name.chars().next().filter(|c| matches!(c, '+' | '-')) {
            let (hours, minutes) = name[1..].split_once(':').ok_or_else(unknown)?;
            let number = |text: &str| match text.len() {
                1 | 2 if text.bytes().all(|b| b.is_ascii_digit()) => text.parse::<i32>().ok(),
                _ => None,
            };
            let (hours, minutes) = (number(hours).ok_or_else(unknown)?, number(minutes).ok_or_else(unknown)?);
            let seconds = (hours * 60 + minutes) * 60 * if sign == '-' { -1 } else { 1 };
            if minutes > 59 || !(-(14 * 3600 - 60)..=14 * 3600).contains(&seconds) {
                return Err(unknown());
            }
            let name = format!("{sign}{hours:02}:{minutes:02}");
            return Ok(TimeZone { name, kind: Kind::Fixed(seconds) });
        }
        let tz = chrono_tz::TZ_VARIANTS
            .iter()
            .find(|tz| tz.name().eq_ignore_ascii_case(name))
            .ok_or_else(unknown)?;
        Ok(TimeZone { name: tz.name().to_string(), kind: Kind::Named(*tz) })
    }

    /// The name, as `@@time_zone` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A name by which another machine finds the same zone: that of the operating system's zone is looked up.
    #[must_use]
    pub fn portable_name(&self) -> String {
        match &self.kind {
            Kind::System => system_zone_name().unwrap_or_else(|| self.name.clone()),
            _ => self.name.clone(),
        }
    }

    /// Seconds east of UTC at a UTC time.
    #[must_use]
    pub fn offset_at(&self, unix_seconds: i64) -> i32 {
        let utc = || chrono::DateTime::from_timestamp(unix_seconds, 0).unwrap_or_default().naive_utc();
        match &self.kind {
            Kind::Fixed(seconds) => *seconds,
            Kind::Named(tz) => tz.offset_from_utc_datetime(&utc()).fix().local_minus_utc(),
            Kind::System => chrono::Local.offset_from_utc_datetime(&utc()).fix().local_minus_utc(),
        }
    }

    /// Calendar time in the zone of microseconds since 1970 UTC; `None` outside the calendar.
    #[must_use]
    pub fn from_unix_micros(&self, micros: i64) -> Option<Time> {
        let offset = i64::from(self.offset_at(micros.div_euclid(1_000_000)));
        Time::from_micros(micros.checked_add((EPOCH_DAY * 86_400 + offset) * 1_000_000)?)
    }

    /// Microseconds since 1970 UTC of a calendar time in the zone. In a gap (clocks moved forward) it is the end of the gap, as in
    /// MySQL; of two possible times the earlier.
    #[must_use]
    pub fn to_unix_micros(&self, time: Time) -> i64 {
        let local_micros = time.to_micros() - EPOCH_DAY * 86_400_000_000;
        match &self.kind {
            Kind::Fixed(seconds) => local_micros - i64::from(*seconds) * 1_000_000,
            Kind::Named(tz) => local_to_utc(tz, local_micros),
            Kind::System => local_to_utc(&chrono::Local, local_micros),
        }
    }

    /// From a time in UTC to the same moment in the zone. The zero date stays as it is.
    #[must_use]
    pub fn utc_to_local(&self, utc: Time) -> Time {
        if utc.has_zero_in_date() || matches!(self.kind, Kind::Fixed(0)) {
            return utc;
        }
        let micros = utc.to_micros() - EPOCH_DAY * 86_400_000_000;
        self.from_unix_micros(micros).unwrap_or(utc)
    }

    /// From a time in the zone to the same moment in UTC. The zero date stays as it is.
    #[must_use]
    pub fn local_to_utc(&self, local: Time) -> Time {
        if local.has_zero_in_date() || matches!(self.kind, Kind::Fixed(0)) {
            return local;
        }
        Time::from_micros(self.to_unix_micros(local) + EPOCH_DAY * 86_400_000_000).unwrap_or(local)
    }
}

fn local_to_utc<Z: chrono::TimeZone>(zone: &Z, local_micros: i64) -> i64 {
    let Some(local) = chrono::DateTime::from_timestamp_micros(local_micros).map(|t| t.naive_utc()) else {
        return local_micros;
    };
    let offset_of = |at: &NaiveDateTime| match zone.offset_from_local_datetime(at) {
        chrono::LocalResult::Single(o) => Some(o.fix().local_minus_utc()),
        // The earlier of two moments is the one with the larger offset.
        chrono::LocalResult::Ambiguous(a, b) => {
            Some(a.fix().local_minus_utc().max(b.fix().local_minus_utc()))
        }
        chrono::LocalResult::None => None,
    };
    if let Some(offset) = offset_of(&local) {
        return local_micros - i64::from(offset) * 1_000_000;
    }
    // In the gap: the moment at which it ends, which is when the clock showed its begin.
    let mut seconds = local_micros.div_euclid(1_000_000);
    let before = zone.offset_from_utc_datetime(&(local - chrono::Duration::days(1))).fix().local_minus_utc();
    seconds -= i64::from(before);
    let (mut low, mut high) = (seconds - 86_400, seconds + 1);
    let offset_at = |unix: i64| {
        let utc = chrono::DateTime::from_timestamp(unix, 0).unwrap_or_default().naive_utc();
        zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()
    };
    let old = offset_at(low);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if offset_at(middle) == old { low = middle } else { high = middle }
    }
    high * 1_000_000
}

/// The chrono date of a day number, for what chrono computes better (ISO weeks are ours).
#[must_use]
pub fn naive_date(day: i64) -> Option<NaiveDate> {
    let (y, m, d) = date_of_day_number(day);
    debug_assert!(m == 0 || day_number(y, m, d) == day);
    NaiveDate::from_ymd_opt(y as i32, m, d)
}
