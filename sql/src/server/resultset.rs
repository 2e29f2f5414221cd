//! Rows out of Arrow columns into the out buffer, as text (COM_QUERY) or binary (COM_STMT_EXECUTE). A column's array and type
//! are matched once per batch; cells are written without an allocation of their own.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Decimal256Array, Float64Array, Int64Array,
    StringArray, UInt64Array,
};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Float64Type, Int64Type, UInt64Type, i256};
use arrow::record_batch::RecordBatch;
use rutile_expr::types::field_type::NOT_FIXED_DECIMALS;
use rutile_expr::types::{Charset, Duration, FieldType, MysqlType, Time, number};

use super::codec::{put_lenenc_bytes, put_lenenc_int};
use crate::plan::OutputColumn;
use crate::{Error, Result};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFormat {
    /// Every cell a length-encoded string.
    Text,
    /// Every cell in its type's own form.
    Binary,
}

pub(super) const NULL_CELL: u8 = 0xfb;
const NO_ELEMS: &[String] = &[];

/// One column of a batch, ready to write cells.
enum Cells<'a> {
    Null,
    Int(&'a Int64Array, IntWidth),
    UInt(&'a UInt64Array, IntWidth),
    /// UNSIGNED ZEROFILL: padded to a width in text.
    ZeroFilled(&'a UInt64Array, IntWidth, usize),
    Bit(&'a UInt64Array, usize),
    Double(&'a Float64Array, u8),
    Float(&'a Float64Array, u8),
    Decimal128(&'a Decimal128Array, u32),
    Decimal256(&'a Decimal256Array, u32),
    /// Text in UTF-8, to be sent in a character set.
    Text(&'a StringArray, Charset),
    Bytes(&'a BinaryArray),
    Date(&'a UInt64Array),
    DateTime(&'a UInt64Array, u8),
    Time(&'a Int64Array, u8),
    Enum(&'a UInt64Array, &'a [String], Charset),
    Set(&'a UInt64Array, &'a [String], Charset),
}

/// Bytes of an integer in a binary row.
#[derive(Clone, Copy)]
enum IntWidth {
    One,
    Two,
    Four,
    Eight,
}

fn int_width(tp: MysqlType) -> IntWidth {
    match tp {
        MysqlType::Tiny => IntWidth::One,
        MysqlType::Short | MysqlType::Year => IntWidth::Two,
        MysqlType::Long | MysqlType::Int24 => IntWidth::Four,
        _ => IntWidth::Eight,
    }
}

/// Writes the rows of one batch.
pub struct BatchWriter<'a> {
    cells: Vec<(Option<&'a dyn Array>, Cells<'a>)>,
    format: RowFormat,
}

/// Brings arrays that an operator left in another form (views, large offsets, dictionaries) to the one their type has.
/// `None` when all are as they should be.
pub fn normalize(batch: &RecordBatch, columns: &[OutputColumn]) -> Result<Option<Vec<ArrayRef>>> {
    let wanted = |column: &OutputColumn| column.ty.arrow();
    let fits = |array: &ArrayRef, column: &OutputColumn| same_form(array.data_type(), &wanted(column));
    if batch.columns().iter().zip(columns).all(|(array, column)| fits(array, column)) {
        return Ok(None);
    }
    let convert = |(array, column): (&ArrayRef, &OutputColumn)| match fits(array, column) {
        true => Ok(array.clone()),
        false => Ok(arrow::compute::cast(array, &wanted(column))?),
    };
    batch.columns().iter().zip(columns).map(convert).collect::<Result<Vec<_>>>().map(Some)
}

/// Decimals need not agree in precision, and a scale is taken from the array; a column of NULLs fits every type.
fn same_form(have: &DataType, want: &DataType) -> bool {
    match (have, want) {
        (
            DataType::Decimal128(..) | DataType::Decimal256(..),
            DataType::Decimal128(..) | DataType::Decimal256(..),
        ) => true,
        (DataType::Null, _) => true,
        // What a cell's type calls text may come as bytes and the other way round.
        (DataType::Utf8 | DataType::Binary, DataType::Utf8 | DataType::Binary) => true,
        (DataType::Int64 | DataType::UInt64, DataType::Int64 | DataType::UInt64) => true,
        _ => have == want,
    }
}

impl<'a> BatchWriter<'a> {
    /// Prepares `arrays` (see [`normalize`]) for writing; `charset` is `character_set_results`.
    pub fn new(
        arrays: &'a [ArrayRef],
        columns: &'a [OutputColumn],
        format: RowFormat,
        charset: Option<Charset>,
    ) -> Result<BatchWriter<'a>> {
        if arrays.len() != columns.len() {
            let message = format!("{} arrays for {} result columns", arrays.len(), columns.len());
            return Err(Error::internal(message));
        }
        let prepare = |(array, column): (&'a ArrayRef, &'a OutputColumn)| {
            let nulls = (array.null_count() > 0).then_some(array.as_ref());
            Ok((nulls, cells(array, &column.ty, charset)?))
        };
        let cells = arrays.iter().zip(columns).map(prepare).collect::<Result<Vec<_>>>()?;
        Ok(BatchWriter { cells, format })
    }

    /// Appends row `row`'s payload.
    pub fn write_row(&self, row: usize, out: &mut Vec<u8>) {
        match self.format {
            RowFormat::Text => self.write_text(row, out),
            RowFormat::Binary => self.write_binary(row, out),
        }
    }

    fn is_null(&self, column: usize, row: usize) -> bool {
        let (nulls, cells) = &self.cells[column];
        matches!(cells, Cells::Null) || nulls.is_some_and(|array| array.is_null(row))
    }

    fn write_text(&self, row: usize, out: &mut Vec<u8>) {
        for (column, (_, cells)) in self.cells.iter().enumerate() {
            if self.is_null(column, row) {
                out.push(NULL_CELL);
            } else {
                put_text_cell(cells, row, out);
            }
        }
    }

    fn write_binary(&self, row: usize, out: &mut Vec<u8>) {
        out.push(0);
        let bitmap = out.len();
        out.resize(bitmap + (self.cells.len() + 9) / 8, 0);
        for (column, (_, cells)) in self.cells.iter().enumerate() {
            if self.is_null(column, row) {
                out[bitmap + (column + 2) / 8] |= 1 << ((column + 2) % 8);
            } else {
                put_binary_cell(cells, row, out);
            }
        }
    }
}

fn cells<'a>(array: &'a ArrayRef, ty: &'a FieldType, charset: Option<Charset>) -> Result<Cells<'a>> {
    use MysqlType as T;
    let target = charset.unwrap_or_else(|| ty.collation.charset());
    let elems = ty.elems.as_deref().unwrap_or(NO_ELEMS);
    let digits = ty.decimals;
    let width = int_width(ty.tp);
    Ok(match (array.data_type(), ty.tp) {
        (DataType::Null, _) => Cells::Null,
        (DataType::UInt64, T::Bit) => {
            Cells::Bit(array.as_primitive::<UInt64Type>(), (ty.flen.clamp(1, 64) as usize).div_ceil(8))
        }
        (DataType::UInt64, T::Year) => Cells::ZeroFilled(array.as_primitive::<UInt64Type>(), width, 4),
        (DataType::UInt64, T::Enum) => Cells::Enum(array.as_primitive::<UInt64Type>(), elems, target),
        (DataType::UInt64, T::Set) => Cells::Set(array.as_primitive::<UInt64Type>(), elems, target),
        (DataType::UInt64, T::Date) => Cells::Date(array.as_primitive::<UInt64Type>()),
        (DataType::UInt64, T::DateTime | T::Timestamp) => {
            Cells::DateTime(array.as_primitive::<UInt64Type>(), digits.min(6))
        }
        (DataType::UInt64, _) if ty.zerofill => {
            Cells::ZeroFilled(array.as_primitive::<UInt64Type>(), width, ty.flen.min(255) as usize)
        }
        (DataType::UInt64, _) => Cells::UInt(array.as_primitive::<UInt64Type>(), width),
        (DataType::Int64, T::Time) => Cells::Time(array.as_primitive::<Int64Type>(), digits.min(6)),
        (DataType::Int64, _) => Cells::Int(array.as_primitive::<Int64Type>(), width),
        (DataType::Float64, T::Float) => Cells::Float(array.as_primitive::<Float64Type>(), digits),
        (DataType::Float64, _) => Cells::Double(array.as_primitive::<Float64Type>(), digits),
        (DataType::Decimal128(_, scale), _) => {
            Cells::Decimal128(array.as_primitive::<Decimal128Type>(), (*scale).max(0) as u32)
        }
        (DataType::Decimal256(_, scale), _) => {
            Cells::Decimal256(array.as_primitive::<Decimal256Type>(), (*scale).max(0) as u32)
        }
        (DataType::Utf8, _) => Cells::Text(array.as_string::<i32>(), target),
        (DataType::Binary, _) => Cells::Bytes(array.as_binary::<i32>()),
        (other, tp) => return Err(Error::internal(format!("no way to send {other} as {tp:?}"))),
    })
}

fn put_text_cell(cells: &Cells<'_>, row: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    match cells {
        Cells::Null => out.push(NULL_CELL),
        Cells::Int(array, _) => put_short(out, buffer.format(array.value(row)).as_bytes()),
        Cells::UInt(array, _) => put_short(out, buffer.format(array.value(row)).as_bytes()),
        Cells::ZeroFilled(array, _, width) => {
            let digits = buffer.format(array.value(row)).as_bytes();
            let padding = width.saturating_sub(digits.len());
            put_lenenc_int(out, (padding + digits.len()) as u64);
            out.resize(out.len() + padding, b'0');
            out.extend_from_slice(digits);
        }
        Cells::Date(array) => with_length(out, |out| put_date(out, Time(array.value(row)))),
        Cells::DateTime(array, fsp) => with_length(out, |out| {
            let time = Time(array.value(row));
            put_date(out, time);
            out.push(b' ');
            put_clock(out, time.hour(), time.minute(), time.second(), time.micros(), *fsp);
        }),
        Cells::Time(array, fsp) => with_length(out, |out| {
            let time = Duration(array.value(row));
            if time.is_negative() {
                out.push(b'-');
            }
            put_clock(out, time.hours(), time.minutes(), time.seconds(), time.micros(), *fsp);
        }),
        Cells::Double(array, digits) => {
            put_lenenc_bytes(out, double_text(array.value(row), *digits).as_bytes())
        }
        Cells::Float(array, digits) => {
            put_lenenc_bytes(out, float_text(array.value(row), *digits).as_bytes())
        }
        _ => put_string_cell(cells, row, out),
    }
}

/// Cells that are length-encoded strings in both formats.
fn put_string_cell(cells: &Cells<'_>, row: usize, out: &mut Vec<u8>) {
    match cells {
        Cells::Bit(array, bytes) => put_lenenc_bytes(out, &array.value(row).to_be_bytes()[8 - bytes..]),
        Cells::Decimal128(array, scale) => with_length(out, |out| {
            let value = array.value(row);
            let mut digits = itoa::Buffer::new();
            put_decimal(out, value < 0, digits.format(value.unsigned_abs()).as_bytes(), *scale as usize);
        }),
        Cells::Decimal256(array, scale) => with_length(out, |out| {
            let value = array.value(row);
            let negative = value < i256::ZERO;
            let digits = value.wrapping_abs().to_string();
            put_decimal(out, negative, digits.as_bytes(), *scale as usize);
        }),
        Cells::Text(array, charset) => put_text(out, array.value(row), *charset),
        Cells::Bytes(array) => put_lenenc_bytes(out, array.value(row)),
        Cells::Enum(array, elems, charset) => {
            let index = array.value(row) as usize;
            put_text(
                out,
                index.checked_sub(1).and_then(|i| elems.get(i)).map_or("", String::as_str),
                *charset,
            );
        }
        Cells::Set(array, elems, charset) => {
            let bits = array.value(row);
            let members = elems.iter().enumerate().filter(|(i, _)| *i < 64 && bits & (1 << i) != 0);
            let joined = members.map(|(_, elem)| elem.as_str()).collect::<Vec<_>>().join(",");
            put_text(out, &joined, *charset);
        }
        _ => unreachable!("cells of other kinds are written by their own format"),
    }
}

fn put_binary_cell(cells: &Cells<'_>, row: usize, out: &mut Vec<u8>) {
    match cells {
        Cells::Int(array, width) => put_int(out, array.value(row) as u64, *width),
        Cells::UInt(array, width) | Cells::ZeroFilled(array, width, _) => {
            put_int(out, array.value(row), *width)
        }
        Cells::Double(array, _) => out.extend_from_slice(&array.value(row).to_le_bytes()),
        Cells::Float(array, _) => out.extend_from_slice(&(array.value(row) as f32).to_le_bytes()),
        Cells::Date(array) => put_binary_datetime(out, Time(array.value(row)), true),
        Cells::DateTime(array, _) => put_binary_datetime(out, Time(array.value(row)), false),
        Cells::Time(array, _) => put_binary_time(out, Duration(array.value(row))),
        _ => put_string_cell(cells, row, out),
    }
}

/// Writes an integer as wide as its type is in binary rows.
pub(super) fn put_binary_int(out: &mut Vec<u8>, value: u64, tp: MysqlType) {
    put_int(out, value, int_width(tp));
}

fn put_int(out: &mut Vec<u8>, value: u64, width: IntWidth) {
    let bytes = match width {
        IntWidth::One => 1,
        IntWidth::Two => 2,
        IntWidth::Four => 4,
        IntWidth::Eight => 8,
    };
    out.extend_from_slice(&value.to_le_bytes()[..bytes]);
}

fn put_binary_datetime(out: &mut Vec<u8>, time: Time, date_only: bool) {
    let has_clock = !date_only && (time.hour() | time.minute() | time.second()) != 0;
    let micros = if date_only { 0 } else { time.micros() };
    let length = match (time.0, has_clock, micros) {
        (0, ..) => 0,
        (_, _, 1..) => 11,
        (_, true, 0) => 7,
        (_, false, 0) => 4,
    };
    out.push(length);
    if length >= 4 {
        out.extend_from_slice(&(time.year() as u16).to_le_bytes());
        out.extend_from_slice(&[time.month() as u8, time.day() as u8]);
    }
    if length >= 7 {
        out.extend_from_slice(&[time.hour() as u8, time.minute() as u8, time.second() as u8]);
    }
    if length == 11 {
        out.extend_from_slice(&micros.to_le_bytes());
    }
}

fn put_binary_time(out: &mut Vec<u8>, time: Duration) {
    if time.0 == 0 {
        out.push(0);
        return;
    }
    let micros = time.micros();
    out.push(if micros == 0 { 8 } else { 12 });
    out.push(u8::from(time.is_negative()));
    out.extend_from_slice(&(time.hours() / 24).to_le_bytes());
    out.extend_from_slice(&[(time.hours() % 24) as u8, time.minutes() as u8, time.seconds() as u8]);
    if micros != 0 {
        out.extend_from_slice(&micros.to_le_bytes());
    }
}

/// A string known to be shorter than 251 bytes.
fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

/// Writes a string of less than 251 bytes behind its length.
fn with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    write(out);
    out[at] = (out.len() - at - 1) as u8;
}

/// Writes text as a length-encoded string in a character set.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str, charset: Charset) {
    match charset {
        Charset::Utf8mb4 | Charset::Binary => put_lenenc_bytes(out, text.as_bytes()),
        _ => put_lenenc_bytes(out, &charset.encode(text)),
    }
}

fn put_two(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&[b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]);
}

fn put_date(out: &mut Vec<u8>, time: Time) {
    let year = time.year();
    put_two(out, year / 100);
    put_two(out, year % 100);
    out.push(b'-');
    put_two(out, time.month());
    out.push(b'-');
    put_two(out, time.day());
}

fn put_clock(out: &mut Vec<u8>, hours: u32, minutes: u32, seconds: u32, micros: u32, fsp: u8) {
    if hours >= 100 {
        out.push(b'0' + (hours / 100) as u8);
    }
    put_two(out, hours % 100);
    out.push(b':');
    put_two(out, minutes);
    out.push(b':');
    put_two(out, seconds);
    if fsp > 0 {
        out.push(b'.');
        let mut unit = 100_000;
        for _ in 0..fsp {
            out.push(b'0' + (micros / unit % 10) as u8);
            unit = (unit / 10).max(1);
        }
    }
}

fn put_decimal(out: &mut Vec<u8>, negative: bool, digits: &[u8], scale: usize) {
    if negative {
        out.push(b'-');
    }
    if scale == 0 {
        out.extend_from_slice(digits);
    } else if digits.len() > scale {
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        out.extend_from_slice(whole);
        out.push(b'.');
        out.extend_from_slice(fraction);
    } else {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + scale - digits.len(), b'0');
        out.extend_from_slice(digits);
    }
}

fn double_text(value: f64, decimals: u8) -> String {
    match decimals < NOT_FIXED_DECIMALS {
        true => number::format_fixed(value, decimals),
        false => number::format_f64(value),
    }
}

fn float_text(value: f64, decimals: u8) -> String {
    match decimals < NOT_FIXED_DECIMALS {
        true => number::format_fixed(value, decimals),
        false => number::format_f32(value as f32),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn rows(columns: Vec<(FieldType, ArrayRef)>, format: RowFormat) -> Vec<Vec<u8>> {
        let (types, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let columns: Vec<_> = types.into_iter().map(|ty| OutputColumn::computed(0, "c", ty)).collect();
        let writer = BatchWriter::new(&arrays, &columns, format, Some(Charset::Utf8mb4)).unwrap();
        let row = |row| {
            let mut out = Vec::new();
            writer.write_row(row, &mut out);
            out
        };
        (0..arrays[0].len()).map(row).collect()
    }

    fn text(ty: FieldType, array: ArrayRef) -> Vec<String> {
        let cell = |row: Vec<u8>| match row[0] {
            NULL_CELL => "NULL".to_owned(),
            length => {
                assert_eq!(usize::from(length), row.len() - 1);
                String::from_utf8(row[1..].to_vec()).unwrap()
            }
        };
        rows(vec![(ty, array)], RowFormat::Text).into_iter().map(cell).collect()
    }

    #[test]
    fn numbers_are_written_as_mysql_writes_them() {
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(0)]));
        assert_eq!(text(FieldType::bigint(), ints), ["-9223372036854775808", "NULL", "0"]);
        let decimals =
            Decimal128Array::from(vec![5, -5, 12345, -100]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(text(FieldType::decimal(10, 2), Arc::new(decimals)), ["0.05", "-0.05", "123.45", "-1.00"]);
        let wide = Decimal256Array::from(vec![i256::from_i128(-7)]).with_precision_and_scale(65, 3).unwrap();
        assert_eq!(text(FieldType::decimal(65, 3), Arc::new(wide)), ["-0.007"]);
        let mut filled = FieldType::new(MysqlType::Long).with_unsigned(true).with_flen(5);
        filled.zerofill = true;
        assert_eq!(text(filled, Arc::new(UInt64Array::from(vec![42, 1234567]))), ["00042", "1234567"]);
        let doubles: ArrayRef = Arc::new(Float64Array::from(vec![1.5, -0.25]));
        assert_eq!(text(FieldType::double(), doubles.clone()), ["1.5", "-0.25"]);
        assert_eq!(text(FieldType::double().with_decimals(3), doubles), ["1.500", "-0.250"]);
    }

    #[test]
    fn temporal_values_are_written_in_both_formats() {
        let moment = Time::datetime(2026, 11, 23, 4, 5, 6, 70_000);
        let array: ArrayRef = Arc::new(UInt64Array::from(vec![moment.0, 0]));
        let ty = FieldType::datetime(3);
        assert_eq!(text(ty.clone(), array.clone()), ["2026-11-23 04:05:06.070", "0000-00-00 00:00:00.000"]);
        let binary = rows(vec![(ty, array)], RowFormat::Binary);
        assert_eq!(binary[0], [0, 0, 11, 0xea, 7, 11, 23, 4, 5, 6, 0x70, 0x11, 1, 0]);
        assert_eq!(binary[1], [0, 0, 0]);
        let span: ArrayRef = Arc::new(Int64Array::from(vec![-((25 * 3600 + 61) * 1_000_000)]));
        assert_eq!(text(FieldType::time(0), span.clone()), ["-25:01:01"]);
        assert_eq!(
            rows(vec![(FieldType::time(0), span)], RowFormat::Binary)[0],
            [0, 0, 8, 1, 1, 0, 0, 0, 1, 1, 1]
        );
    }

    #[test]
    fn enums_sets_bits_and_nulls() {
        let elems = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let ty = |tp| {
            FieldType::new(tp)
                .with_collation(rutile_expr::types::Collation::DEFAULT)
                .with_elems(elems.clone())
        };
        let array: ArrayRef = Arc::new(UInt64Array::from(vec![Some(0), Some(3), None]));
        assert_eq!(text(ty(MysqlType::Enum), array.clone()), ["", "c", "NULL"]);
        assert_eq!(text(ty(MysqlType::Set), array), ["", "a,b", "NULL"]);
        let bits: ArrayRef = Arc::new(UInt64Array::from(vec![0x102]));
        let bit = FieldType::new(MysqlType::Bit).with_flen(9);
        assert_eq!(rows(vec![(bit, bits)], RowFormat::Text)[0], [2, 1, 2]);
        let columns =
            (0..7).map(|_| (FieldType::bigint(), Arc::new(Int64Array::from(vec![None])) as ArrayRef));
        assert_eq!(rows(columns.collect(), RowFormat::Binary)[0], [0, 0b1111_1100, 1]);
    }
}
