//! TIME: a signed span of up to 838 hours, in microseconds.

use std::fmt::Write as _;

/// 838:59:59, the largest TIME, in microseconds.
pub const DURATION_MICROS_MAX: i64 = (838 * 3600 + 59 * 60 + 59) * 1_000_000;

/// A TIME value in signed microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(pub i64);

impl Duration {
    /// From its parts; `None` above 838:59:59.
    #[must_use]
    pub fn from_parts(
        negative: bool,
        hours: u64,
        minutes: u32,
        seconds: u32,
        micros: u32,
    ) -> Option<Duration> {
        if hours > 838 {
            return None;
        }
        let seconds = hours as i64 * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
        let total = seconds * 1_000_000 + i64::from(micros);
        (total <= DURATION_MICROS_MAX).then_some(Duration(if negative { -total } else { total }))
    }

    #[must_use]
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// Hours, up to 838.
    #[must_use]
    pub fn hours(self) -> u32 {
        (self.0.unsigned_abs() / 3_600_000_000) as u32
    }

    #[must_use]
    pub fn minutes(self) -> u32 {
        (self.0.unsigned_abs() / 60_000_000 % 60) as u32
    }

    #[must_use]
    pub fn seconds(self) -> u32 {
        (self.0.unsigned_abs() / 1_000_000 % 60) as u32
    }

    #[must_use]
    pub fn micros(self) -> u32 {
        (self.0.unsigned_abs() % 1_000_000) as u32
    }

    /// Cut to the TIME range; `false` when it was cut.
    #[must_use]
    pub fn clamp(self) -> (Duration, bool) {
        let clamped = self.0.clamp(-DURATION_MICROS_MAX, DURATION_MICROS_MAX);
        (Duration(clamped), clamped == self.0)
    }

    /// Rounded to `fsp` fractional digits (half away from zero).
    #[must_use]
    pub fn round(self, fsp: u8) -> Duration {
        let unit = 10i64.pow(6 - u32::from(fsp.min(6)));
        let half = if self.0 < 0 { -unit / 2 } else { unit / 2 };
        Duration((self.0 + half) / unit * unit).clamp().0
    }

    /// Cut to `fsp` fractional digits.
    #[must_use]
    pub fn truncate(self, fsp: u8) -> Duration {
        let unit = 10i64.pow(6 - u32::from(fsp.min(6)));
        Duration(self.0 / unit * unit)
    }

    /// `[-]hhmmss` as an integer, without the fraction.
    #[must_use]
    pub fn to_number(self) -> i64 {
        let number =
            i64::from(self.hours()) * 10_000 + i64::from(self.minutes()) * 100 + i64::from(self.seconds());
        if self.is_negative() { -number } else { number }
    }

    /// `[-]hh:mm:ss[.ffffff]` with `fsp` fractional digits.
    #[must_use]
    pub fn format(self, fsp: u8) -> String {
        let mut out = String::with_capacity(18);
        if self.is_negative() {
            out.push('-');
        }
        let _ = write!(out, "{:02}:{:02}:{:02}", self.hours(), self.minutes(), self.seconds());
        push_fraction(&mut out, self.micros(), fsp);
        out
    }
}

/// Appends `.ffffff` cut to `fsp` digits; nothing when fsp is 0.
pub(crate) fn push_fraction(out: &mut String, micros: u32, fsp: u8) {
    if fsp > 0 {
        let fsp = usize::from(fsp.min(6));
        let digits = format!("{micros:06}");
        out.push('.');
        out.push_str(&digits[..fsp]);
    }
}
