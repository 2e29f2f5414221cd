//! The stored form of a row's values.
//!
//! ```text
//! version (1 byte = 1) | flags (1: large) | present count u16 | null count u16
//! | ids of present columns, ascending | ids of NULL columns, ascending | end offsets of the values | values
//! ```
//! Ids are u8 and offsets u16; with flag `large` both are u32. Everything is little-endian. A column that is in neither list was added
//! after the row was written: it reads as its default. Values: integers in the fewest of 1, 2, 4 or 8 bytes; Int64 sign-extended;
//! DOUBLE 8 bytes; DECIMAL scale byte then the two's complement digits in the fewest bytes; DATE, DATETIME and TIMESTAMP the packed 8 bytes;
//! TIME 8 bytes; strings as they are.

use std::collections::HashMap;

use ethnum::I256;

use crate::array::ColumnBuilder;
use crate::error::{Error, Result};
use crate::types::field_type::Family;
use crate::types::{Datum, Decimal, Duration, FieldType, Time};

const VERSION: u8 = 1;
const LARGE: u8 = 1;
const HEADER_SIZE_BYTES: usize = 6;

/// Encodes one row: column ids with their values, in any order. NULLs are listed by id only.
pub fn encode(columns: &[(i64, &Datum)], out: &mut Vec<u8>) {
    let mut present: Vec<(u32, &Datum)> = Vec::with_capacity(columns.len());
    let mut nulls: Vec<u32> = Vec::new();
    for (id, value) in columns {
        let id = u32::try_from(*id).expect("column ids are small positive numbers");
        if value.is_null() { nulls.push(id) } else { present.push((id, value)) }
    }
    present.sort_unstable_by_key(|(id, _)| *id);
    nulls.sort_unstable();
    let mut values = Vec::new();
    let mut ends = Vec::with_capacity(present.len());
    for (_, value) in &present {
        encode_value(value, &mut values);
        ends.push(values.len() as u32);
    }
    let max_id = present.iter().map(|(id, _)| *id).chain(nulls.iter().copied()).max().unwrap_or(0);
    let large = max_id > 0xFF || values.len() > 0xFFFF;
    out.extend_from_slice(&[VERSION, if large { LARGE } else { 0 }]);
    out.extend_from_slice(&(present.len() as u16).to_le_bytes());
    out.extend_from_slice(&(nulls.len() as u16).to_le_bytes());
    for id in present.iter().map(|(id, _)| *id).chain(nulls) {
        if large { out.extend_from_slice(&id.to_le_bytes()) } else { out.push(id as u8) }
    }
    for end in ends {
        if large {
            out.extend_from_slice(&end.to_le_bytes())
        } else {
            out.extend_from_slice(&(end as u16).to_le_bytes())
        }
    }
    out.extend_from_slice(&values);
}

fn push_int(value: i64, out: &mut Vec<u8>) {
    let bytes = value.to_le_bytes();
    let len = [1usize, 2, 4].into_iter().find(|n| value >> (n * 8 - 1) == value >> 63).unwrap_or(8);
    out.extend_from_slice(&bytes[..len]);
}

fn push_uint(value: u64, out: &mut Vec<u8>) {
    let len = [1usize, 2, 4].into_iter().find(|n| value >> (n * 8) == 0).unwrap_or(8);
    out.extend_from_slice(&value.to_le_bytes()[..len]);
}

/// Appends one value's bytes (not NULL).
fn encode_value(value: &Datum, out: &mut Vec<u8>) {
    match value {
        Datum::Null => {}
        Datum::Int(v) => push_int(*v, out),
        Datum::UInt(v) => push_uint(*v, out),
        Datum::Double(v) => out.extend_from_slice(&v.to_le_bytes()),
        Datum::Decimal(v) => {
            out.push(v.scale());
            let bytes = v.unscaled().to_le_bytes();
            let fill = if v.is_negative() { 0xFF } else { 0 };
            let used = bytes.iter().rposition(|b| *b != fill).map_or(1, |at| at + 1);
            // The top bit of the last byte is the sign.
            let used = if (bytes[used - 1] ^ fill) & 0x80 != 0 { (used + 1).min(32) } else { used };
            out.extend_from_slice(&bytes[..used]);
        }
        Datum::String(v) => out.extend_from_slice(v.as_bytes()),
        Datum::Bytes(v) => out.extend_from_slice(v),
        Datum::Time(v) => out.extend_from_slice(&v.0.to_le_bytes()),
        Datum::Duration(v) => out.extend_from_slice(&v.0.to_le_bytes()),
    }
}

fn corrupt(what: &str) -> Error {
    Error::Corrupt { what: format!("row: {what}") }
}

/// A stored signed integer.
pub fn int_of(bytes: &[u8]) -> Result<i64> {
    Ok(match bytes {
        [a] => i64::from(*a as i8),
        [a, b] => i64::from(i16::from_le_bytes([*a, *b])),
        [a, b, c, d] => i64::from(i32::from_le_bytes([*a, *b, *c, *d])),
        _ => i64::from_le_bytes(bytes.try_into().map_err(|_| corrupt("integer length"))?),
    })
}

/// A stored unsigned integer.
pub fn uint_of(bytes: &[u8]) -> Result<u64> {
    Ok(match bytes {
        [a] => u64::from(*a),
        [a, b] => u64::from(u16::from_le_bytes([*a, *b])),
        [a, b, c, d] => u64::from(u32::from_le_bytes([*a, *b, *c, *d])),
        _ => u64::from_le_bytes(bytes.try_into().map_err(|_| corrupt("integer length"))?),
    })
}

fn decimal_of(bytes: &[u8]) -> Result<Decimal> {
    let (scale, digits) = bytes.split_first().ok_or_else(|| corrupt("empty decimal"))?;
    let last = digits.last().ok_or_else(|| corrupt("empty decimal"))?;
    if digits.len() > 32 {
        return Err(corrupt("decimal length"));
    }
    let mut whole = [if last & 0x80 != 0 { 0xFF } else { 0 }; 32];
    whole[..digits.len()].copy_from_slice(digits);
    Ok(Decimal::new(I256::from_le_bytes(whole), *scale))
}

/// Decodes one stored value.
fn decode_value(bytes: &[u8], field_type: &FieldType) -> Result<Datum> {
    Ok(match field_type.family() {
        Family::Null => Datum::Null,
        Family::Int if !field_type.unsigned => Datum::Int(int_of(bytes)?),
        Family::Int | Family::Enum => Datum::UInt(uint_of(bytes)?),
        Family::Double => {
            Datum::Double(f64::from_le_bytes(bytes.try_into().map_err(|_| corrupt("double length"))?))
        }
        Family::Decimal => Datum::Decimal(decimal_of(bytes)?),
        Family::Time => Datum::Time(Time(uint_of(bytes)?)),
        Family::Duration => Datum::Duration(Duration(int_of(bytes)?)),
        Family::String if !field_type.is_binary_string() => {
            Datum::String(std::str::from_utf8(bytes).map_err(|_| corrupt("text is not UTF-8"))?.to_string())
        }
        Family::String | Family::Json => Datum::Bytes(bytes.to_vec()),
    })
}

/// A stored row, opened: finds columns without decoding the rest.
#[derive(Clone, Copy)]
pub struct RowView<'a> {
    large: bool,
    present: &'a [u8],
    nulls: &'a [u8],
    ends: &'a [u8],
    values: &'a [u8],
}

/// What a row holds for a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Not in the row: it was written before the column existed.
    Missing,
    Null,
    Value(&'a [u8]),
}

impl<'a> RowView<'a> {
    /// Opens an encoded row.
    pub fn new(row: &'a [u8]) -> Result<RowView<'a>> {
        if row.len() < HEADER_SIZE_BYTES || row[0] != VERSION {
            return Err(corrupt("header"));
        }
        let large = row[1] & LARGE != 0;
        let present = usize::from(u16::from_le_bytes([row[2], row[3]]));
        let nulls = usize::from(u16::from_le_bytes([row[4], row[5]]));
        let (id_size, end_size) = if large { (4, 4) } else { (1, 2) };
        let nulls_at = HEADER_SIZE_BYTES + present * id_size;
        let ends_at = nulls_at + nulls * id_size;
        let values_at = ends_at + present * end_size;
        if row.len() < values_at {
            return Err(corrupt("length"));
        }
        Ok(RowView {
            large,
            present: &row[HEADER_SIZE_BYTES..nulls_at],
            nulls: &row[nulls_at..ends_at],
            ends: &row[ends_at..values_at],
            values: &row[values_at..],
        })
    }

    fn find(&self, ids: &[u8], id: u32) -> Option<usize> {
        if self.large {
            let ids = ids.as_chunks::<4>().0;
            ids.binary_search_by_key(&id, |bytes| u32::from_le_bytes(*bytes)).ok()
        } else {
            // Rows are short: a scan beats a search.
            ids.iter().position(|x| u32::from(*x) == id)
        }
    }

    fn end(&self, index: usize) -> usize {
        if self.large {
            let at = index * 4;
            u32::from_le_bytes([self.ends[at], self.ends[at + 1], self.ends[at + 2], self.ends[at + 3]])
                as usize
        } else {
            usize::from(u16::from_le_bytes([self.ends[index * 2], self.ends[index * 2 + 1]]))
        }
    }

    /// What the row holds for a column id.
    pub fn cell(&self, column_id: i64) -> Result<Cell<'a>> {
        let id = u32::try_from(column_id).map_err(|_| corrupt("column id"))?;
        if let Some(index) = self.find(self.present, id) {
            let start = if index == 0 { 0 } else { self.end(index - 1) };
            let bytes = self.values.get(start..self.end(index)).ok_or_else(|| corrupt("offsets"))?;
            return Ok(Cell::Value(bytes));
        }
        Ok(if self.find(self.nulls, id).is_some() { Cell::Null } else { Cell::Missing })
    }

    /// As [`RowView::cell`]; `hint` is where the column stood in the row before, which it most likely does here, too.
    pub fn cell_near(&self, column_id: i64, hint: &mut usize) -> Result<Cell<'a>> {
        if !self.large && self.present.get(*hint).is_some_and(|id| i64::from(*id) == column_id) {
            let start = if *hint == 0 { 0 } else { self.end(*hint - 1) };
            let bytes = self.values.get(start..self.end(*hint)).ok_or_else(|| corrupt("offsets"))?;
            return Ok(Cell::Value(bytes));
        }
        if !self.large
            && let Some(index) = self.present.iter().position(|id| i64::from(*id) == column_id)
        {
            *hint = index;
        }
        self.cell(column_id)
    }

    /// A column's value; `missing` is what a row from before the column existed reads as.
    pub fn datum(&self, column_id: i64, field_type: &FieldType, missing: &Datum) -> Result<Datum> {
        match self.cell(column_id)? {
            Cell::Missing => Ok(missing.clone()),
            Cell::Null => Ok(Datum::Null),
            Cell::Value(bytes) => decode_value(bytes, field_type),
        }
    }
}

/// Decodes columns of one row to datums; `missing` as for [`RowView::datum`].
pub fn decode(row: &[u8], columns: &[(i64, FieldType)], missing: &HashMap<i64, Datum>) -> Result<Vec<Datum>> {
    let view = RowView::new(row)?;
    let value = |(id, field_type): &(i64, FieldType)| {
        view.datum(*id, field_type, missing.get(id).unwrap_or(&Datum::Null))
    };
    columns.iter().map(value).collect()
}

/// Up to 16 bytes of two's complement.
fn i128_of(digits: &[u8]) -> Result<i128> {
    let last = digits.last().ok_or_else(|| corrupt("empty decimal"))?;
    let mut whole = [if last & 0x80 != 0 { 0xFF } else { 0 }; 16];
    whole[..digits.len()].copy_from_slice(digits);
    Ok(i128::from_le_bytes(whole))
}

/// Appends a stored value without making a datum of it where that saves an allocation.
pub(crate) fn push_bytes(builder: &mut ColumnBuilder, bytes: &[u8], field_type: &FieldType) -> Result<()> {
    match builder {
        ColumnBuilder::Int(b) => b.append_value(int_of(bytes)?),
        ColumnBuilder::UInt(b) => b.append_value(uint_of(bytes)?),
        ColumnBuilder::Double(b) => {
            b.append_value(f64::from_le_bytes(bytes.try_into().map_err(|_| corrupt("double length"))?));
        }
        ColumnBuilder::String(b) => {
            b.append_value(std::str::from_utf8(bytes).map_err(|_| corrupt("text is not UTF-8"))?)
        }
        ColumnBuilder::Bytes(b) => b.append_value(bytes),
        ColumnBuilder::Null(_) => builder.push_null(),
        ColumnBuilder::Decimal128(b, _, scale) if bytes.first() == Some(scale) && bytes.len() <= 17 => {
            b.append_value(i128_of(&bytes[1..])?);
        }
        ColumnBuilder::Decimal128(..) | ColumnBuilder::Decimal256(..) => {
            builder.push(&decode_value(bytes, field_type)?)?;
        }
    }
    Ok(())
}
