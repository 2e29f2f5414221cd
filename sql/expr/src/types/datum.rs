//! One owned value. Its [`FieldType`] travels beside it: the datum alone does not know its collation, scale or fsp.

use super::decimal::Decimal;
use super::duration::Duration;
use super::time::Time;

/// A value. The variants are those of the Arrow representation: every signed integer is `Int`; unsigned integers, YEAR, BIT,
/// ENUM (index) and SET (bits) are `UInt`; FLOAT and DOUBLE are `Double`; DATE, DATETIME and TIMESTAMP are `Time`; TIME is `Duration`;
/// strings with a character set are `String`; binary strings and JSON documents are `Bytes`.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Datum {
    #[default]
    Null,
    Int(i64),
    UInt(u64),
    Double(f64),
    Decimal(Decimal),
    String(String),
    Bytes(Vec<u8>),
    Time(Time),
    Duration(Duration),
}

impl Datum {
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Datum::Null)
    }

    /// The bytes of a string.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Datum::String(s) => Some(s.as_bytes()),
            Datum::Bytes(b) => Some(b),
            _ => None,
        }
    }

    /// The text of a string; `None` for other values and for bytes that are not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Datum::String(s) => Some(s),
            Datum::Bytes(b) => std::str::from_utf8(b).ok(),
            _ => None,
        }
    }

    /// An integer that fits i64.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Datum::Int(v) => Some(*v),
            Datum::UInt(v) => i64::try_from(*v).ok(),
            _ => None,
        }
    }

    /// An integer that fits u64.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Datum::Int(v) => u64::try_from(*v).ok(),
            Datum::UInt(v) => Some(*v),
            _ => None,
        }
    }

    /// 1 or 0.
    #[must_use]
    pub fn bool(v: bool) -> Datum {
        Datum::Int(i64::from(v))
    }
}

impl From<i64> for Datum {
    fn from(v: i64) -> Datum {
        Datum::Int(v)
    }
}

impl From<u64> for Datum {
    fn from(v: u64) -> Datum {
        Datum::UInt(v)
    }
}

impl From<f64> for Datum {
    fn from(v: f64) -> Datum {
        Datum::Double(v)
    }
}

impl From<&str> for Datum {
    fn from(v: &str) -> Datum {
        Datum::String(v.to_string())
    }
}

impl From<String> for Datum {
    fn from(v: String) -> Datum {
        Datum::String(v)
    }
}

impl From<Vec<u8>> for Datum {
    fn from(v: Vec<u8>) -> Datum {
        Datum::Bytes(v)
    }
}

impl From<Decimal> for Datum {
    fn from(v: Decimal) -> Datum {
        Datum::Decimal(v)
    }
}

impl From<Time> for Datum {
    fn from(v: Time) -> Datum {
        Datum::Time(v)
    }
}

impl From<Duration> for Datum {
    fn from(v: Duration) -> Datum {
        Datum::Duration(v)
    }
}

impl<T: Into<Datum>> From<Option<T>> for Datum {
    fn from(v: Option<T>) -> Datum {
        v.map_or(Datum::Null, Into::into)
    }
}
