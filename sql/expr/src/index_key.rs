//! Index values in memcomparable form: the byte order of encoded values is MySQL's order of the values.
//!
//! Each value: a flag byte (`00` NULL, `01` a value), then 8 bytes for integers, doubles and temporals, sign and digits for
//! DECIMAL, the memcomparable bytes of the collation's sort key for strings. A descending part has all its bytes inverted.

use ethnum::I256;
use rutile_proto::codec;

use crate::error::{Error, Result};
use crate::types::decimal::pow10;
use crate::types::field_type::Family;
use crate::types::{Datum, Decimal, Duration, FieldType, Time};

const FLAG_NULL: u8 = 0;
const FLAG_VALUE: u8 = 1;

/// One part of an index.
#[derive(Debug, Clone, Copy)]
pub struct KeyPart<'a> {
    pub field_type: &'a FieldType,
    /// Only the first so many characters (bytes if binary) are indexed: `KEY (name(10))`.
    pub prefix_len: Option<u32>,
    pub descending: bool,
}

impl<'a> KeyPart<'a> {
    /// An ascending part of the whole value.
    #[must_use]
    pub fn new(field_type: &'a FieldType) -> KeyPart<'a> {
        KeyPart { field_type, prefix_len: None, descending: false }
    }
}

/// Appends a value of the part's type.
pub fn encode(value: &Datum, part: &KeyPart<'_>, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    encode_ascending(value, part, out)?;
    if part.descending {
        out[start..].iter_mut().for_each(|b| *b = !*b);
    }
    Ok(())
}

fn encode_ascending(value: &Datum, part: &KeyPart<'_>, out: &mut Vec<u8>) -> Result<()> {
    if value.is_null() {
        out.push(FLAG_NULL);
        return Ok(());
    }
    out.push(FLAG_VALUE);
    match (part.field_type.family(), value) {
        (Family::Int, Datum::Int(v)) if !part.field_type.unsigned => codec::encode_i64(out, *v),
        (Family::Int, Datum::UInt(v)) if !part.field_type.unsigned => codec::encode_i64(out, *v as i64),
        (Family::Int | Family::Enum, Datum::Int(v)) => codec::encode_u64(out, *v as u64),
        (Family::Int | Family::Enum, Datum::UInt(v)) => codec::encode_u64(out, *v),
        (Family::Double, Datum::Double(v)) => codec::encode_f64(out, *v),
        (Family::Decimal, Datum::Decimal(v)) => encode_decimal(v, part.field_type, out),
        (Family::Time, Datum::Time(v)) => codec::encode_u64(out, v.0),
        (Family::Duration, Datum::Duration(v)) => codec::encode_i64(out, v.0),
        (Family::String | Family::Json, Datum::String(_) | Datum::Bytes(_)) => {
            let bytes = prefix(value.as_bytes().unwrap_or_default(), part);
            codec::encode_bytes(out, &part.field_type.collation.sort_key(bytes));
        }
        (_, other) => {
            let what = format!("{other:?} in an index of type {}", part.field_type.sql_name());
            return Err(Error::Internal(what));
        }
    }
    Ok(())
}

fn prefix<'b>(bytes: &'b [u8], part: &KeyPart<'_>) -> &'b [u8] {
    let Some(len) = part.prefix_len.map(|n| n as usize) else { return bytes };
    if part.field_type.is_binary_string() {
        return &bytes[..len.min(bytes.len())];
    }
    match std::str::from_utf8(bytes).ok().and_then(|text| text.char_indices().nth(len)) {
        Some((end, _)) => &bytes[..end],
        None => bytes,
    }
}

/// Bytes that hold every value of a precision, sign included.
fn decimal_size_bytes(precision: u32) -> usize {
    let bits = 256 - pow10(precision).leading_zeros() as usize;
    (bits + 1).div_ceil(8).min(32)
}

/// Big-endian two's complement of the column's scale, sign bit inverted, in as many bytes as the precision needs.
fn encode_decimal(value: &Decimal, field_type: &FieldType, out: &mut Vec<u8>) {
    let bytes = value.rescale(field_type.decimals).unscaled().to_be_bytes();
    let size = decimal_size_bytes(field_type.decimal_precision());
    let start = out.len();
    out.extend_from_slice(&bytes[32 - size..]);
    out[start] ^= 0x80;
}

/// Decodes one value and advances `input`. A string whose collation is not bytewise has only its sort key in the index: `None`, and
/// the value must come from elsewhere (the index value's restore data, or the row).
pub fn decode(input: &mut &[u8], part: &KeyPart<'_>) -> Result<Option<Datum>> {
    let corrupt = || Error::Corrupt { what: "index key".to_string() };
    let turned: Vec<u8>;
    let len = encoded_len(input, part)?;
    let (own, rest) = input.split_at_checked(len).ok_or_else(corrupt)?;
    *input = rest;
    let bytes = if part.descending {
        turned = own.iter().map(|b| !b).collect();
        &turned[..]
    } else {
        own
    };
    let (flag, mut body) = bytes.split_first().ok_or_else(corrupt)?;
    if *flag == FLAG_NULL {
        return Ok(Some(Datum::Null));
    }
    let body = &mut body;
    let wrong = |_| corrupt();
    Ok(Some(match part.field_type.family() {
        Family::Int if !part.field_type.unsigned => Datum::Int(codec::decode_i64(body).map_err(wrong)?),
        Family::Int | Family::Enum => Datum::UInt(codec::decode_u64(body).map_err(wrong)?),
        Family::Double => Datum::Double(codec::decode_f64(body).map_err(wrong)?),
        Family::Decimal => Datum::Decimal(decode_decimal(body, part.field_type)),
        Family::Time => Datum::Time(Time(codec::decode_u64(body).map_err(wrong)?)),
        Family::Duration => Datum::Duration(Duration(codec::decode_i64(body).map_err(wrong)?)),
        Family::String | Family::Json => {
            if !is_restorable(part) {
                return Ok(None);
            }
            let bytes = codec::decode_bytes(body).map_err(wrong)?;
            if part.field_type.is_binary_string() || part.field_type.family() == Family::Json {
                Datum::Bytes(bytes)
            } else {
                Datum::String(String::from_utf8(bytes).map_err(|_| corrupt())?)
            }
        }
        Family::Null => Datum::Null,
    }))
}

/// Can the value be read back from the key?
#[must_use]
pub fn is_restorable(part: &KeyPart<'_>) -> bool {
    part.prefix_len.is_none() && (!part.field_type.is_string() || part.field_type.collation.is_bytewise())
}

fn decode_decimal(body: &[u8], field_type: &FieldType) -> Decimal {
    let mut whole = [if body[0] & 0x80 == 0 { 0xFF } else { 0 }; 32];
    let start = 32 - body.len();
    whole[start..].copy_from_slice(body);
    whole[start] ^= 0x80;
    Decimal::new(I256::from_be_bytes(whole), field_type.decimals)
}

/// Length of the encoded value at the front of `input`.
pub fn encoded_len(input: &[u8], part: &KeyPart<'_>) -> Result<usize> {
    let corrupt = || Error::Corrupt { what: "index key".to_string() };
    let turn = |b: u8| if part.descending { !b } else { b };
    let flag = turn(*input.first().ok_or_else(corrupt)?);
    if flag == FLAG_NULL {
        return Ok(1);
    }
    if flag != FLAG_VALUE {
        return Err(corrupt());
    }
    Ok(1 + match part.field_type.family() {
        Family::Decimal => decimal_size_bytes(part.field_type.decimal_precision()),
        Family::String | Family::Json => {
            let groups = input[1..].chunks(9).position(|group| group.len() < 9 || turn(group[8]) != 0xFF);
            (groups.ok_or_else(corrupt)? + 1) * 9
        }
        Family::Null => 0,
        _ => 8,
    })
}
