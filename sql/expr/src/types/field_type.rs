//! A column's or expression's MySQL type, and the Arrow type that holds its values.

use std::sync::Arc;

use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use super::collation::Collation;

/// The most digits a DECIMAL has.
pub const DECIMAL_PRECISION_MAX: u32 = 65;
/// Digits that a computed number may have before it is stored in a column.
pub const DECIMAL_DIGITS_MAX: u32 = 76;
/// The most fractional digits a DECIMAL has.
pub const DECIMAL_SCALE_MAX: u8 = 30;
/// `decimals` of a FLOAT or DOUBLE without a fixed number of fractional digits.
pub const NOT_FIXED_DECIMALS: u8 = 31;
/// Length of a column whose length is not bounded by its declaration.
pub const LENGTH_UNSPECIFIED: u32 = u32::MAX;

/// MySQL's types, with the variants that CREATE TABLE tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MysqlType {
    /// The type of a bare NULL.
    Null,
    Tiny,
    Short,
    Int24,
    Long,
    LongLong,
    Float,
    Double,
    Decimal,
    Year,
    Bit,
    Date,
    DateTime,
    Timestamp,
    /// TIME, a duration.
    Time,
    Char,
    Varchar,
    TinyBlob,
    Blob,
    MediumBlob,
    LongBlob,
    Enum,
    Set,
    Json,
    Geometry,
}

/// Which of the few value families a type belongs to: what `Datum` and Arrow array its values use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    Null,
    /// Int64 or UInt64 (including YEAR and BIT).
    Int,
    Double,
    Decimal,
    /// DATE, DATETIME, TIMESTAMP.
    Time,
    /// TIME.
    Duration,
    /// Character and binary strings.
    String,
    /// ENUM and SET: number and string at once.
    Enum,
    Json,
}

/// A type with its attributes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FieldType {
    pub tp: MysqlType,
    pub unsigned: bool,
    pub not_null: bool,
    pub zerofill: bool,
    /// Characters of a string (bytes if binary), precision of a DECIMAL, bits of a BIT, display width otherwise.
    /// [`LENGTH_UNSPECIFIED`] when unknown.
    pub flen: u32,
    /// Scale of a DECIMAL, fractional seconds digits of a temporal, digits of FLOAT(M,D); else
    /// [`NOT_FIXED_DECIMALS`] for FLOAT and DOUBLE and 0 for the rest.
    pub decimals: u8,
    /// Character set and collation; `Binary` for types without text.
    pub collation: Collation,
    /// The members of an ENUM or SET.
    pub elems: Option<Arc<[String]>>,
}

impl FieldType {
    /// The type with its default attributes: nullable, signed, default length.
    #[must_use]
    pub fn new(tp: MysqlType) -> FieldType {
        use MysqlType as T;
        let (flen, decimals) = match tp {
            T::Null => (0, 0),
            T::Tiny => (4, 0),
            T::Short => (6, 0),
            T::Int24 => (9, 0),
            T::Long => (11, 0),
            T::LongLong => (20, 0),
            T::Float => (12, NOT_FIXED_DECIMALS),
            T::Double => (22, NOT_FIXED_DECIMALS),
            T::Decimal => (10, 0),
            T::Year => (4, 0),
            T::Bit => (1, 0),
            T::Date | T::Time => (10, 0),
            T::DateTime | T::Timestamp => (19, 0),
            T::Char => (1, 0),
            T::Varchar => (LENGTH_UNSPECIFIED, 0),
            T::TinyBlob => (255, 0),
            T::Blob => (65_535, 0),
            T::MediumBlob => (16_777_215, 0),
            T::LongBlob | T::Json | T::Geometry => (LENGTH_UNSPECIFIED, 0),
            T::Enum | T::Set => (LENGTH_UNSPECIFIED, 0),
        };
        FieldType {
            tp,
            unsigned: matches!(tp, T::Year | T::Bit),
            not_null: false,
            zerofill: false,
            flen,
            decimals,
            collation: Collation::Binary,
            elems: None,
        }
    }

    /// The type of a bare NULL.
    #[must_use]
    pub fn null() -> FieldType {
        FieldType::new(MysqlType::Null)
    }

    /// BIGINT.
    #[must_use]
    pub fn bigint() -> FieldType {
        FieldType::new(MysqlType::LongLong)
    }

    /// BIGINT UNSIGNED.
    #[must_use]
    pub fn bigint_unsigned() -> FieldType {
        FieldType::bigint().with_unsigned(true)
    }

    /// What a comparison gives: BIGINT of one digit.
    #[must_use]
    pub fn boolean() -> FieldType {
        FieldType::bigint().with_flen(1)
    }

    /// DOUBLE.
    #[must_use]
    pub fn double() -> FieldType {
        FieldType::new(MysqlType::Double)
    }

    /// DECIMAL(precision, scale), clamped to what MySQL allows.
    #[must_use]
    pub fn decimal(precision: u32, scale: u8) -> FieldType {
        let scale = scale.min(DECIMAL_SCALE_MAX);
        let precision = precision.clamp(u32::from(scale).max(1), DECIMAL_PRECISION_MAX);
        let mut ft = FieldType::new(MysqlType::Decimal).with_flen(precision);
        ft.decimals = scale;
        ft
    }

    /// VARCHAR of a collation (VARBINARY when it is `Binary`).
    #[must_use]
    pub fn varchar(flen: u32, collation: Collation) -> FieldType {
        FieldType::new(MysqlType::Varchar).with_flen(flen).with_collation(collation)
    }

    /// DATE.
    #[must_use]
    pub fn date() -> FieldType {
        FieldType::new(MysqlType::Date)
    }

    /// DATETIME(fsp).
    #[must_use]
    pub fn datetime(fsp: u8) -> FieldType {
        FieldType::new(MysqlType::DateTime).with_decimals(fsp)
    }

    /// TIMESTAMP(fsp).
    #[must_use]
    pub fn timestamp(fsp: u8) -> FieldType {
        FieldType::new(MysqlType::Timestamp).with_decimals(fsp)
    }

    /// TIME(fsp).
    #[must_use]
    pub fn time(fsp: u8) -> FieldType {
        FieldType::new(MysqlType::Time).with_decimals(fsp)
    }

    #[must_use]
    pub fn with_unsigned(mut self, unsigned: bool) -> FieldType {
        self.unsigned = unsigned;
        self
    }

    #[must_use]
    pub fn with_not_null(mut self, not_null: bool) -> FieldType {
        self.not_null = not_null;
        self
    }

    #[must_use]
    pub fn with_flen(mut self, flen: u32) -> FieldType {
        self.flen = flen;
        self
    }

    #[must_use]
    pub fn with_decimals(mut self, decimals: u8) -> FieldType {
        self.decimals = decimals;
        self
    }

    #[must_use]
    pub fn with_collation(mut self, collation: Collation) -> FieldType {
        self.collation = collation;
        self
    }

    #[must_use]
    pub fn with_elems(mut self, elems: impl Into<Arc<[String]>>) -> FieldType {
        self.elems = Some(elems.into());
        self
    }

    /// The value family.
    #[must_use]
    pub fn family(&self) -> Family {
        use MysqlType as T;
        match self.tp {
            T::Null => Family::Null,
            T::Tiny | T::Short | T::Int24 | T::Long | T::LongLong | T::Year | T::Bit => Family::Int,
            T::Float | T::Double => Family::Double,
            T::Decimal => Family::Decimal,
            T::Date | T::DateTime | T::Timestamp => Family::Time,
            T::Time => Family::Duration,
            T::Char | T::Varchar | T::TinyBlob | T::Blob | T::MediumBlob | T::LongBlob | T::Geometry => {
                Family::String
            }
            T::Enum | T::Set => Family::Enum,
            T::Json => Family::Json,
        }
    }

    /// The Arrow type of a column of this type.
    #[must_use]
    pub fn arrow(&self) -> DataType {
        match self.family() {
            Family::Null => DataType::Null,
            Family::Int if self.unsigned => DataType::UInt64,
            Family::Int => DataType::Int64,
            Family::Double => DataType::Float64,
            Family::Decimal if self.decimal_precision() <= 38 => {
                DataType::Decimal128(self.decimal_precision() as u8, self.decimals as i8)
            }
            Family::Decimal => DataType::Decimal256(self.decimal_precision() as u8, self.decimals as i8),
            Family::Time | Family::Enum => DataType::UInt64,
            Family::Duration => DataType::Int64,
            Family::String if self.collation == Collation::Binary => DataType::Binary,
            Family::String => DataType::Utf8,
            Family::Json => DataType::Binary,
        }
    }

    /// An Arrow field of this type.
    #[must_use]
    pub fn arrow_field(&self, name: &str) -> arrow::datatypes::Field {
        arrow::datatypes::Field::new(name, self.arrow(), !self.not_null)
    }

    /// Is this a character or binary string (not ENUM or SET)?
    #[must_use]
    pub fn is_string(&self) -> bool {
        self.family() == Family::String
    }

    /// A string without character set?
    #[must_use]
    pub fn is_binary_string(&self) -> bool {
        self.is_string() && self.collation == Collation::Binary
    }

    /// Does text of this type come with a character set (strings, ENUM, SET)?
    #[must_use]
    pub fn has_charset(&self) -> bool {
        matches!(self.family(), Family::String | Family::Enum)
    }

    /// TEXT and BLOB types.
    #[must_use]
    pub fn is_blob(&self) -> bool {
        use MysqlType as T;
        matches!(self.tp, T::TinyBlob | T::Blob | T::MediumBlob | T::LongBlob)
    }

    #[must_use]
    pub fn is_integer(&self) -> bool {
        self.family() == Family::Int
    }

    #[must_use]
    pub fn is_numeric(&self) -> bool {
        matches!(self.family(), Family::Int | Family::Double | Family::Decimal)
    }

    /// DATE, DATETIME, TIMESTAMP or TIME.
    #[must_use]
    pub fn is_temporal(&self) -> bool {
        matches!(self.family(), Family::Time | Family::Duration)
    }

    /// A temporal with a date part.
    #[must_use]
    pub fn is_temporal_with_date(&self) -> bool {
        self.family() == Family::Time
    }

    /// Decimal digits before and after the point that values can have.
    #[must_use]
    pub fn decimal_precision(&self) -> u32 {
        use MysqlType as T;
        match self.tp {
            T::Decimal => self.flen.clamp(u32::from(self.decimals).max(1), DECIMAL_PRECISION_MAX),
            T::Tiny => 3,
            T::Short => 5,
            T::Int24 => 7 + u32::from(self.unsigned),
            T::Long => 10,
            T::LongLong => 19 + u32::from(self.unsigned),
            T::Year => 4,
            T::Bit => 20,
            T::Date => 8,
            T::DateTime | T::Timestamp => 14 + u32::from(self.decimals),
            T::Time => 7 + u32::from(self.decimals),
            T::Null => 1,
            T::Enum | T::Set => 20,
            _ => DECIMAL_PRECISION_MAX,
        }
    }

    /// Digits after the decimal point when a value becomes a DECIMAL.
    #[must_use]
    pub fn decimal_scale(&self) -> u8 {
        match self.family() {
            Family::Decimal | Family::Time | Family::Duration => self.decimals,
            Family::Int | Family::Enum | Family::Null => 0,
            Family::Double if self.decimals < NOT_FIXED_DECIMALS => self.decimals,
            Family::Double | Family::String | Family::Json => DECIMAL_SCALE_MAX,
        }
    }

    /// Fractional seconds digits when a value becomes a temporal.
    #[must_use]
    pub fn fsp(&self) -> u8 {
        match self.family() {
            Family::Time | Family::Duration | Family::Decimal => self.decimals.min(6),
            Family::Int | Family::Enum | Family::Null => 0,
            Family::Double | Family::String | Family::Json => 6,
        }
    }

    /// The most characters the value's text takes: what a client is told as the column's length, in characters.
    #[must_use]
    pub fn display_length(&self) -> u32 {
        use MysqlType as T;
        let fraction = if self.decimals > 0 && self.is_temporal() { u32::from(self.decimals) + 1 } else { 0 };
        match self.tp {
            T::Decimal => {
                let point = u32::from(self.decimals > 0);
                let leading_zero = u32::from(self.flen == u32::from(self.decimals) && self.decimals > 0);
                self.flen + point + leading_zero + u32::from(!self.unsigned)
            }
            T::Date => 10,
            T::DateTime | T::Timestamp => 19 + fraction,
            T::Time => 10 + fraction,
            T::Enum | T::Set if self.flen == LENGTH_UNSPECIFIED => self.enum_display_length(),
            _ => self.flen,
        }
    }

    fn enum_display_length(&self) -> u32 {
        let elems = self.elems.as_deref().unwrap_or_default();
        let lengths = elems.iter().map(|e| e.chars().count() as u32);
        match self.tp {
            MysqlType::Enum => lengths.max().unwrap_or(0),
            _ => lengths.sum::<u32>() + (elems.len() as u32).saturating_sub(1),
        }
    }

    /// The smallest and largest signed value of an integer type.
    #[must_use]
    pub fn signed_range(&self) -> (i64, i64) {
        use MysqlType as T;
        match self.tp {
            T::Tiny => (-(1 << 7), (1 << 7) - 1),
            T::Short => (-(1 << 15), (1 << 15) - 1),
            T::Int24 => (-(1 << 23), (1 << 23) - 1),
            T::Long => (-(1 << 31), (1 << 31) - 1),
            _ => (i64::MIN, i64::MAX),
        }
    }

    /// The largest unsigned value of an integer type.
    #[must_use]
    pub fn unsigned_max(&self) -> u64 {
        use MysqlType as T;
        match self.tp {
            T::Tiny => u64::from(u8::MAX),
            T::Short => u64::from(u16::MAX),
            T::Int24 => (1 << 24) - 1,
            T::Long => u64::from(u32::MAX),
            T::Bit if self.flen < 64 => (1u64 << self.flen) - 1,
            _ => u64::MAX,
        }
    }

    /// The type as SHOW CREATE TABLE writes it, without character set and collation: `int unsigned`, `varchar(20)`.
    #[must_use]
    pub fn sql_name(&self) -> String {
        use MysqlType as T;
        let binary = self.collation == Collation::Binary;
        let fsp =
            |name: &str| if self.decimals > 0 { format!("{name}({})", self.decimals) } else { name.into() };
        let text = |text: &str, blob: &str| if binary { blob.to_string() } else { text.to_string() };
        let int =
            |name: &str| if self.zerofill { format!("{name}({})", self.flen) } else { name.to_string() };
        let mut name = match self.tp {
            T::Null => "null".into(),
            T::Tiny if self.flen == 1 && !self.unsigned && !self.zerofill => "tinyint(1)".into(),
            T::Tiny => int("tinyint"),
            T::Short => int("smallint"),
            T::Int24 => int("mediumint"),
            T::Long => int("int"),
            T::LongLong => int("bigint"),
            T::Float if self.decimals < NOT_FIXED_DECIMALS => {
                format!("float({},{})", self.flen, self.decimals)
            }
            T::Float => "float".into(),
            T::Double if self.decimals < NOT_FIXED_DECIMALS => {
                format!("double({},{})", self.flen, self.decimals)
            }
            T::Double => "double".into(),
            T::Decimal => format!("decimal({},{})", self.flen, self.decimals),
            T::Year => "year".into(),
            T::Bit => format!("bit({})", self.flen),
            T::Date => "date".into(),
            T::DateTime => fsp("datetime"),
            T::Timestamp => fsp("timestamp"),
            T::Time => fsp("time"),
            T::Char => format!("{}({})", text("char", "binary"), self.flen),
            T::Varchar => format!("{}({})", text("varchar", "varbinary"), self.flen),
            T::TinyBlob => text("tinytext", "tinyblob"),
            T::Blob => text("text", "blob"),
            T::MediumBlob => text("mediumtext", "mediumblob"),
            T::LongBlob => text("longtext", "longblob"),
            T::Enum => self.elems_sql("enum"),
            T::Set => self.elems_sql("set"),
            T::Json => "json".into(),
            T::Geometry => "geometry".into(),
        };
        if self.unsigned && self.is_numeric() && !matches!(self.tp, T::Year | T::Bit) {
            name.push_str(" unsigned");
        }
        if self.zerofill {
            name.push_str(" zerofill");
        }
        name
    }

    fn elems_sql(&self, name: &str) -> String {
        let elems = self.elems.as_deref().unwrap_or_default();
        let quoted: Vec<String> = elems.iter().map(|e| format!("'{}'", e.replace('\'', "''"))).collect();
        format!("{name}({})", quoted.join(","))
    }
}
