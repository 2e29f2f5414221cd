//! A written type to a [`FieldType`], with MySQL's limits.

use std::sync::Arc;

use rutile_expr::types::field_type::{DECIMAL_PRECISION_MAX, DECIMAL_SCALE_MAX, LENGTH_UNSPECIFIED};
use rutile_expr::types::{Charset, Collation, FieldType, MysqlType};

use crate::parser::ast::{DataType, TypeName};
use crate::{Error, Result};

const CHAR_LENGTH_MAX: u64 = 255;
const VARCHAR_BYTES_MAX: u64 = 65_535;
const BIT_LENGTH_MAX: u64 = 64;
const DISPLAY_WIDTH_MAX: u64 = 255;
const FRACTION_DIGITS_MAX: u64 = 6;
/// FLOAT(p) with more bits than this is a DOUBLE.
const FLOAT_BITS_MAX: u64 = 24;
const DOUBLE_BITS_MAX: u64 = 53;

/// The character set's default collation, or the given one if it belongs to the set.
pub fn collation_of(charset: Option<&str>, collate: Option<&str>, default: Collation) -> Result<Collation> {
    let charset = match charset {
        None => None,
        Some("default") => Some(default.charset()),
        Some(name) => Some(Charset::from_name(name)?),
    };
    let collation = match collate {
        None | Some("default") => None,
        Some(name) => Some(Collation::from_name(name)?),
    };
    match (charset, collation) {
        (None, None) => Ok(default),
        (Some(charset), None) => Ok(charset.default_collation()),
        (None, Some(collation)) => Ok(collation),
        (Some(charset), Some(collation)) if collation.charset() == charset => Ok(collation),
        (Some(charset), Some(collation)) => Err(Error::CollationCharsetMismatch {
            collation: collation.name().into(),
            charset: charset.name().into(),
        }),
    }
}

/// The type of a column. `collate` is a COLLATE written among the column's attributes.
pub fn field_type(column: &str, ty: &DataType, collate: Option<&str>, table: Collation) -> Result<FieldType> {
    use TypeName as T;
    let mut ft = match ty.name {
        T::TinyInt | T::Bool => integer(column, ty, MysqlType::Tiny, if ty.unsigned { 3 } else { 4 })?,
        T::SmallInt => integer(column, ty, MysqlType::Short, if ty.unsigned { 5 } else { 6 })?,
        T::MediumInt => integer(column, ty, MysqlType::Int24, if ty.unsigned { 8 } else { 9 })?,
        T::Int => integer(column, ty, MysqlType::Long, if ty.unsigned { 10 } else { 11 })?,
        T::BigInt => integer(column, ty, MysqlType::LongLong, 20)?,
        T::Serial => FieldType::bigint_unsigned().with_not_null(true),
        T::Decimal => decimal(column, ty)?,
        T::Float | T::Double => float(column, ty)?,
        T::Bit => bit(column, ty)?,
        T::Year => match ty.length {
            None | Some(4) => FieldType::new(MysqlType::Year),
            Some(_) => {
                return Err(Error::Mysql {
                    code: 1818,
                    state: "HY000",
                    message: "Invalid display width. Use YEAR instead.".into(),
                });
            }
        },
        T::Date => FieldType::date(),
        T::Time => temporal(column, ty, MysqlType::Time, 10)?,
        T::DateTime => temporal(column, ty, MysqlType::DateTime, 19)?,
        T::Timestamp => temporal(column, ty, MysqlType::Timestamp, 19)?,
        T::Json => FieldType::new(MysqlType::Json),
        T::Char
        | T::VarChar
        | T::TinyText
        | T::Text
        | T::MediumText
        | T::LongText
        | T::Binary
        | T::VarBinary
        | T::TinyBlob
        | T::Blob
        | T::MediumBlob
        | T::LongBlob => string(column, ty, collate, table)?,
        T::Enum | T::Set => members(column, ty, collate, table)?,
        T::Vector => return Err(Error::not_supported("VECTOR")),
        T::Geometry(_) => return Err(Error::not_supported("spatial data types")),
        T::Signed | T::Unsigned => return Err(Error::internal("SIGNED is no column type")),
    };
    if ft.is_numeric() {
        ft.zerofill = ty.zerofill;
        ft.unsigned |= ty.unsigned || ty.zerofill;
    }
    Ok(ft)
}

fn integer(column: &str, ty: &DataType, tp: MysqlType, default_width: u32) -> Result<FieldType> {
    let width = match (ty.name, ty.length) {
        (TypeName::Bool, _) => 1,
        (_, None) => default_width,
        (_, Some(width)) if width <= DISPLAY_WIDTH_MAX => width as u32,
        _ => return Err(Error::TooBigDisplayWidth { column: column.into(), max: DISPLAY_WIDTH_MAX }),
    };
    Ok(FieldType::new(tp).with_flen(width))
}

fn decimal(column: &str, ty: &DataType) -> Result<FieldType> {
    let scale = ty.decimals.unwrap_or(0);
    let precision = match ty.length {
        None | Some(0) => 10,
        Some(precision) => precision,
    };
    if scale > u64::from(DECIMAL_SCALE_MAX) {
        return Err(Error::TooBigScale { scale, column: column.into(), max: u64::from(DECIMAL_SCALE_MAX) });
    }
    if precision > u64::from(DECIMAL_PRECISION_MAX) {
        return Err(Error::TooBigPrecision {
            precision,
            column: column.into(),
            max: u64::from(DECIMAL_PRECISION_MAX),
        });
    }
    if scale > precision {
        return Err(Error::MBiggerThanD { column: column.into() });
    }
    Ok(FieldType::decimal(precision as u32, scale as u8))
}

fn float(column: &str, ty: &DataType) -> Result<FieldType> {
    let single = ty.name == TypeName::Float;
    match (ty.length, ty.decimals) {
        (None, _) => Ok(FieldType::new(if single { MysqlType::Float } else { MysqlType::Double })),
        (Some(bits), None) if single => match bits {
            0..=FLOAT_BITS_MAX => Ok(FieldType::new(MysqlType::Float)),
            _ if bits <= DOUBLE_BITS_MAX => Ok(FieldType::new(MysqlType::Double)),
            _ => Err(Error::WrongFieldSpec { column: column.into() }),
        },
        (Some(_), None) => Err(Error::WrongFieldSpec { column: column.into() }),
        (Some(digits), Some(scale)) => {
            if scale > u64::from(DECIMAL_SCALE_MAX) {
                return Err(Error::TooBigScale {
                    scale,
                    column: column.into(),
                    max: u64::from(DECIMAL_SCALE_MAX),
                });
            }
            if digits > DISPLAY_WIDTH_MAX {
                return Err(Error::TooBigDisplayWidth { column: column.into(), max: DISPLAY_WIDTH_MAX });
            }
            if scale > digits {
                return Err(Error::MBiggerThanD { column: column.into() });
            }
            let tp = if single { MysqlType::Float } else { MysqlType::Double };
            Ok(FieldType::new(tp).with_flen(digits as u32).with_decimals(scale as u8))
        }
    }
}

fn bit(column: &str, ty: &DataType) -> Result<FieldType> {
    match ty.length.unwrap_or(1) {
        0 => Ok(FieldType::new(MysqlType::Bit).with_flen(1)),
        length if length <= BIT_LENGTH_MAX => Ok(FieldType::new(MysqlType::Bit).with_flen(length as u32)),
        _ => Err(Error::TooBigDisplayWidth { column: column.into(), max: BIT_LENGTH_MAX }),
    }
}

fn temporal(column: &str, ty: &DataType, tp: MysqlType, width: u32) -> Result<FieldType> {
    let fsp = ty.length.unwrap_or(0);
    if fsp > FRACTION_DIGITS_MAX {
        return Err(Error::TooBigPrecision {
            precision: fsp,
            column: column.into(),
            max: FRACTION_DIGITS_MAX,
        });
    }
    let width = if fsp > 0 { width + 1 + fsp as u32 } else { width };
    Ok(FieldType::new(tp).with_decimals(fsp as u8).with_flen(width))
}

/// The collation of a column with a character set.
fn column_collation(ty: &DataType, collate: Option<&str>, table: Collation) -> Result<Collation> {
    let collate = collate.or(ty.collate.as_deref());
    let collation = collation_of(ty.charset.as_deref(), collate, table)?;
    Ok(if ty.binary && collate.is_none() { collation.charset().bin_collation() } else { collation })
}

fn string(column: &str, ty: &DataType, collate: Option<&str>, table: Collation) -> Result<FieldType> {
    use TypeName as T;
    let collation = match ty.name {
        T::Binary | T::VarBinary | T::TinyBlob | T::Blob | T::MediumBlob | T::LongBlob => Collation::Binary,
        _ => column_collation(ty, collate, table)?,
    };
    let char_bytes = u64::from(collation.charset().char_bytes_max());
    let too_long = |max| Error::TooBigFieldLength { column: column.into(), max };
    let (tp, flen) = match ty.name {
        T::Char | T::Binary => match ty.length.unwrap_or(1) {
            length if length <= CHAR_LENGTH_MAX => (MysqlType::Char, length as u32),
            _ => return Err(too_long(CHAR_LENGTH_MAX)),
        },
        T::VarChar | T::VarBinary => match ty.length.unwrap_or(1) {
            length if length <= VARCHAR_BYTES_MAX / char_bytes => (MysqlType::Varchar, length as u32),
            _ => return Err(too_long(VARCHAR_BYTES_MAX / char_bytes)),
        },
        T::Text | T::Blob => match ty.length {
            Some(length) if length > 0 => {
                blob_for(length.saturating_mul(char_bytes)).ok_or_else(|| too_long(u64::from(u32::MAX)))?
            }
            _ => (MysqlType::Blob, 65_535),
        },
        T::TinyText | T::TinyBlob => (MysqlType::TinyBlob, 255),
        T::MediumText | T::MediumBlob => (MysqlType::MediumBlob, 16_777_215),
        _ => (MysqlType::LongBlob, LENGTH_UNSPECIFIED),
    };
    Ok(FieldType::new(tp).with_flen(flen).with_collation(collation))
}

/// The smallest TEXT or BLOB type that holds so many bytes.
fn blob_for(bytes: u64) -> Option<(MysqlType, u32)> {
    match bytes {
        0..=255 => Some((MysqlType::TinyBlob, 255)),
        256..=65_535 => Some((MysqlType::Blob, 65_535)),
        65_536..=16_777_215 => Some((MysqlType::MediumBlob, 16_777_215)),
        16_777_216..=4_294_967_295 => Some((MysqlType::LongBlob, LENGTH_UNSPECIFIED)),
        _ => None,
    }
}

/// ENUM and SET.
fn members(column: &str, ty: &DataType, collate: Option<&str>, table: Collation) -> Result<FieldType> {
    let collation = column_collation(ty, collate, table)?;
    let (tp, name) = match ty.name {
        TypeName::Enum => (MysqlType::Enum, "ENUM"),
        _ => (MysqlType::Set, "SET"),
    };
    let mut elems: Vec<String> = Vec::with_capacity(ty.elems.len());
    for elem in &ty.elems {
        // Trailing blanks of members do not count.
        let elem = String::from_utf8_lossy(elem).trim_end_matches(' ').to_string();
        if let Some(first) = elems.iter().find(|other| collation.equal(other.as_bytes(), elem.as_bytes())) {
            return Err(Error::DuplicatedValueInType {
                column: column.into(),
                value: first.clone(),
                tp: name,
            });
        }
        elems.push(elem);
    }
    if tp == MysqlType::Set {
        if elems.len() > 64 {
            return Err(Error::Mysql {
                code: 1097,
                state: "HY000",
                message: format!("Too many strings for column {column} and SET"),
            });
        }
        if let Some(elem) = elems.iter().find(|elem| elem.contains(',')) {
            return Err(Error::Mysql {
                code: 1367,
                state: "22007",
                message: format!("Illegal set '{elem}' value found during parsing"),
            });
        }
    }
    let chars = |elem: &String| elem.chars().count() as u32;
    let flen = match tp {
        MysqlType::Enum => elems.iter().map(chars).max().unwrap_or(0),
        _ => elems.iter().map(chars).sum::<u32>() + elems.len().saturating_sub(1) as u32,
    };
    let elems: Arc<[String]> = elems.into();
    Ok(FieldType::new(tp).with_flen(flen).with_collation(collation).with_elems(elems))
}
