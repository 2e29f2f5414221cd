//! A value's text, as a client sees it.

use super::collation::Collation;
use super::datum::Datum;
use super::field_type::{FieldType, MysqlType, NOT_FIXED_DECIMALS};
use super::number;

/// The word of an ENUM's index; index 0 is the empty string.
#[must_use]
pub fn enum_name(field_type: &FieldType, index: u64) -> &str {
    let elems = field_type.elems.as_deref().unwrap_or_default();
    (index as usize).checked_sub(1).and_then(|i| elems.get(i)).map_or("", String::as_str)
}

/// The words of a SET's bits.
#[must_use]
pub fn set_names(field_type: &FieldType, bits: u64) -> String {
    let elems = field_type.elems.as_deref().unwrap_or_default();
    let chosen = elems.iter().enumerate().filter(|(i, _)| *i < 64 && bits >> i & 1 == 1);
    chosen.map(|(_, e)| e.as_str()).collect::<Vec<_>>().join(",")
}

/// Bytes of a BIT(n) value: big-endian, ceil(n / 8) of them.
#[must_use]
pub fn bit_bytes(field_type: &FieldType, value: u64) -> Vec<u8> {
    let len = (field_type.flen.clamp(1, 64) as usize).div_ceil(8);
    value.to_be_bytes()[8 - len..].to_vec()
}

/// The text of a value; NULL gives an empty text. Binary strings are read as UTF-8 leniently: use [`to_bytes`] for those.
#[must_use]
pub fn to_text(value: &Datum, field_type: &FieldType) -> String {
    match value {
        Datum::Null => String::new(),
        Datum::Int(v) => int_text(i128::from(*v), field_type),
        Datum::UInt(v) => match field_type.tp {
            MysqlType::Enum => enum_name(field_type, *v).to_string(),
            MysqlType::Set => set_names(field_type, *v),
            MysqlType::Year => format!("{v:04}"),
            MysqlType::Bit => String::from_utf8_lossy(&bit_bytes(field_type, *v)).into_owned(),
            _ => int_text(i128::from(*v), field_type),
        },
        Datum::Double(v) => double_text(*v, field_type),
        Datum::Decimal(v) if field_type.zerofill => {
            let width = (field_type.flen + u32::from(field_type.decimals > 0)) as usize;
            format!("{:0>width$}", v.to_string())
        }
        Datum::Decimal(v) => v.to_string(),
        Datum::String(v) => v.clone(),
        Datum::Bytes(v) => String::from_utf8_lossy(v).into_owned(),
        Datum::Time(v) if field_type.tp == MysqlType::Date => v.format_date(),
        Datum::Time(v) => v.format_datetime(field_type.fsp()),
        Datum::Duration(v) => v.format(field_type.fsp()),
    }
}

fn int_text(value: i128, field_type: &FieldType) -> String {
    if field_type.zerofill {
        let width = field_type.flen as usize;
        return format!("{value:0>width$}");
    }
    value.to_string()
}

fn double_text(value: f64, field_type: &FieldType) -> String {
    let text = if field_type.decimals < NOT_FIXED_DECIMALS {
        number::format_fixed(value, field_type.decimals)
    } else if field_type.tp == MysqlType::Float {
        number::format_f32(value as f32)
    } else {
        number::format_f64(value)
    };
    if field_type.zerofill {
        let width = field_type.flen as usize;
        return format!("{text:0>width$}");
    }
    text
}

/// The bytes of a value's text in its own form: what binary strings and BIT hold, and UTF-8 for the rest.
#[must_use]
pub fn to_bytes(value: &Datum, field_type: &FieldType) -> Vec<u8> {
    match value {
        Datum::Bytes(v) => v.clone(),
        Datum::UInt(v) if field_type.tp == MysqlType::Bit => bit_bytes(field_type, *v),
        Datum::String(v) => v.clone().into_bytes(),
        other => to_text(other, field_type).into_bytes(),
    }
}

/// The type of a value's text: strings keep their collation, the rest takes `connection`.
#[must_use]
pub fn text_type(field_type: &FieldType, connection: Collation) -> FieldType {
    let collation = if field_type.has_charset() { field_type.collation } else { connection };
    let length = match field_type.tp {
        MysqlType::Float => 12,
        MysqlType::Double => 23,
        _ => field_type.display_length(),
    };
    FieldType::varchar(length, collation).with_not_null(field_type.not_null)
}
