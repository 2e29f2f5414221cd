//! Between datums and Arrow arrays.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, Decimal128Array, Decimal128Builder, Decimal256Array,
    Decimal256Builder, Float64Array, Float64Builder, Int64Array, Int64Builder, NullArray, StringArray,
    StringBuilder, UInt64Array, UInt64Builder,
};
use arrow::datatypes::{DataType, i256};
use ethnum::I256;

use crate::error::{Error, Result};
use crate::types::field_type::{DECIMAL_PRECISION_MAX, Family};
use crate::types::{Datum, Decimal, Duration, FieldType, Time};

/// Arrow's 256-bit integer of ours.
#[must_use]
pub fn to_arrow_i256(value: I256) -> i256 {
    i256::from_le_bytes(value.to_le_bytes())
}

/// Our 256-bit integer of Arrow's.
#[must_use]
pub fn from_arrow_i256(value: i256) -> I256 {
    I256::from_le_bytes(value.to_le_bytes())
}

/// Reads datums out of an array whose type was looked at once.
pub enum Reader<'a> {
    Null,
    Int(&'a Int64Array),
    Duration(&'a Int64Array),
    UInt(&'a UInt64Array),
    Time(&'a UInt64Array),
    Double(&'a Float64Array),
    Decimal128(&'a Decimal128Array, u8),
    Decimal256(&'a Decimal256Array, u8),
    String(&'a StringArray),
    Bytes(&'a BinaryArray),
}

fn cast<'a, T: 'static>(array: &'a dyn Array, field_type: &FieldType) -> &'a T {
    let found = array.as_any().downcast_ref::<T>();
    found.unwrap_or_else(|| panic!("array of {:?} where {field_type:?} was promised", array.data_type()))
}

impl<'a> Reader<'a> {
    /// A reader of an array that holds values of `field_type`.
    #[must_use]
    pub fn new(array: &'a dyn Array, field_type: &FieldType) -> Reader<'a> {
        match (array.data_type(), field_type.family()) {
            (DataType::Null, _) => Reader::Null,
            (DataType::Int64, Family::Duration) => Reader::Duration(cast(array, field_type)),
            (DataType::Int64, _) => Reader::Int(cast(array, field_type)),
            (DataType::UInt64, Family::Time) => Reader::Time(cast(array, field_type)),
            (DataType::UInt64, _) => Reader::UInt(cast(array, field_type)),
            (DataType::Float64, _) => Reader::Double(cast(array, field_type)),
            (DataType::Decimal128(_, scale), _) => Reader::Decimal128(cast(array, field_type), *scale as u8),
            (DataType::Decimal256(_, scale), _) => Reader::Decimal256(cast(array, field_type), *scale as u8),
            (DataType::Utf8, _) => Reader::String(cast(array, field_type)),
            _ => Reader::Bytes(cast(array, field_type)),
        }
    }

    /// The value at a row.
    #[must_use]
    pub fn get(&self, row: usize) -> Datum {
        fn at<T, A: Array>(
            array: &A,
            row: usize,
            get: impl FnOnce(&A) -> T,
            make: impl FnOnce(T) -> Datum,
        ) -> Datum {
            if array.is_null(row) { Datum::Null } else { make(get(array)) }
        }
        match self {
            Reader::Null => Datum::Null,
            Reader::Int(a) => at(*a, row, |a| a.value(row), Datum::Int),
            Reader::Duration(a) => at(*a, row, |a| a.value(row), |v| Datum::Duration(Duration(v))),
            Reader::UInt(a) => at(*a, row, |a| a.value(row), Datum::UInt),
            Reader::Time(a) => at(*a, row, |a| a.value(row), |v| Datum::Time(Time(v))),
            Reader::Double(a) => at(*a, row, |a| a.value(row), Datum::Double),
            Reader::Decimal128(a, scale) => {
                at(*a, row, |a| a.value(row), |v| Datum::Decimal(Decimal::from_i128(v, *scale)))
            }
            Reader::Decimal256(a, scale) => {
                at(*a, row, |a| a.value(row), |v| Datum::Decimal(Decimal::new(from_arrow_i256(v), *scale)))
            }
            Reader::String(a) => at(*a, row, |a| a.value(row).to_string(), Datum::String),
            Reader::Bytes(a) => at(*a, row, |a| a.value(row).to_vec(), Datum::Bytes),
        }
    }
}

/// One value of an array.
#[must_use]
pub fn datum_at(array: &dyn Array, field_type: &FieldType, row: usize) -> Datum {
    Reader::new(array, field_type).get(row)
}

/// Builds the array of a type, value by value.
pub enum ColumnBuilder {
    Null(usize),
    Int(Int64Builder),
    UInt(UInt64Builder),
    Double(Float64Builder),
    Decimal128(Decimal128Builder, u32, u8),
    Decimal256(Decimal256Builder, u32, u8),
    String(StringBuilder),
    Bytes(BinaryBuilder),
}

impl ColumnBuilder {
    /// A builder for values of `field_type`.
    #[must_use]
    pub fn new(field_type: &FieldType, capacity: usize) -> ColumnBuilder {
        match field_type.arrow() {
            DataType::Null => ColumnBuilder::Null(0),
            DataType::Int64 => ColumnBuilder::Int(Int64Builder::with_capacity(capacity)),
            DataType::UInt64 => ColumnBuilder::UInt(UInt64Builder::with_capacity(capacity)),
            DataType::Float64 => ColumnBuilder::Double(Float64Builder::with_capacity(capacity)),
            dt @ DataType::Decimal128(p, s) => ColumnBuilder::Decimal128(
                Decimal128Builder::with_capacity(capacity).with_data_type(dt),
                u32::from(p),
                s as u8,
            ),
            dt @ DataType::Decimal256(p, s) => ColumnBuilder::Decimal256(
                Decimal256Builder::with_capacity(capacity).with_data_type(dt),
                u32::from(p),
                s as u8,
            ),
            DataType::Utf8 => ColumnBuilder::String(StringBuilder::with_capacity(capacity, capacity * 16)),
            _ => ColumnBuilder::Bytes(BinaryBuilder::with_capacity(capacity, capacity * 16)),
        }
    }

    /// Appends NULL.
    pub fn push_null(&mut self) {
        match self {
            ColumnBuilder::Null(rows) => *rows += 1,
            ColumnBuilder::Int(b) => b.append_null(),
            ColumnBuilder::UInt(b) => b.append_null(),
            ColumnBuilder::Double(b) => b.append_null(),
            ColumnBuilder::Decimal128(b, ..) => b.append_null(),
            ColumnBuilder::Decimal256(b, ..) => b.append_null(),
            ColumnBuilder::String(b) => b.append_null(),
            ColumnBuilder::Bytes(b) => b.append_null(),
        }
    }

    /// Appends a value of the builder's type. Integers, decimals' scales and string kinds are adapted; anything else is a fault of the caller.
    pub fn push(&mut self, value: &Datum) -> Result<()> {
        match (self, value) {
            (ColumnBuilder::Null(rows), _) => *rows += 1,
            (builder, Datum::Null) => builder.push_null(),
            (ColumnBuilder::Int(b), Datum::Int(v)) => b.append_value(*v),
            (ColumnBuilder::Int(b), Datum::UInt(v)) => b.append_value(*v as i64),
            (ColumnBuilder::Int(b), Datum::Duration(v)) => b.append_value(v.0),
            (ColumnBuilder::UInt(b), Datum::UInt(v)) => b.append_value(*v),
            (ColumnBuilder::UInt(b), Datum::Int(v)) => b.append_value(*v as u64),
            (ColumnBuilder::UInt(b), Datum::Time(v)) => b.append_value(v.0),
            (ColumnBuilder::Double(b), Datum::Double(v)) => b.append_value(*v),
            (ColumnBuilder::Double(b), Datum::Int(v)) => b.append_value(*v as f64),
            (ColumnBuilder::Double(b), Datum::UInt(v)) => b.append_value(*v as f64),
            (ColumnBuilder::Double(b), Datum::Decimal(v)) => b.append_value(v.to_f64()),
            (ColumnBuilder::Decimal128(b, precision, scale), v) => {
                let fitted = fit_decimal(v, *precision, *scale)?;
                b.append_value(fitted.unscaled_i128().unwrap_or_default());
            }
            (ColumnBuilder::Decimal256(b, precision, scale), v) => {
                b.append_value(to_arrow_i256(fit_decimal(v, *precision, *scale)?.unscaled()));
            }
            (ColumnBuilder::String(b), Datum::String(v)) => b.append_value(v),
            (ColumnBuilder::String(b), Datum::Bytes(v)) => b.append_value(String::from_utf8_lossy(v)),
            (ColumnBuilder::Bytes(b), Datum::Bytes(v)) => b.append_value(v),
            (ColumnBuilder::Bytes(b), Datum::String(v)) => b.append_value(v),
            (_, value) => return Err(Error::Internal(format!("{value:?} does not fit the column's type"))),
        }
        Ok(())
    }

    /// Rows so far.
    #[must_use]
    pub fn len(&self) -> usize {
        use arrow::array::ArrayBuilder as _;
        match self {
            ColumnBuilder::Null(rows) => *rows,
            ColumnBuilder::Int(b) => b.len(),
            ColumnBuilder::UInt(b) => b.len(),
            ColumnBuilder::Double(b) => b.len(),
            ColumnBuilder::Decimal128(b, ..) => b.len(),
            ColumnBuilder::Decimal256(b, ..) => b.len(),
            ColumnBuilder::String(b) => b.len(),
            ColumnBuilder::Bytes(b) => b.len(),
        }
    }

    /// No rows yet?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The array; the builder is empty again.
    pub fn finish(&mut self) -> ArrayRef {
        match self {
            ColumnBuilder::Null(rows) => Arc::new(NullArray::new(std::mem::take(rows))),
            ColumnBuilder::Int(b) => Arc::new(b.finish()),
            ColumnBuilder::UInt(b) => Arc::new(b.finish()),
            ColumnBuilder::Double(b) => Arc::new(b.finish()),
            ColumnBuilder::Decimal128(b, ..) => Arc::new(b.finish()),
            ColumnBuilder::Decimal256(b, ..) => Arc::new(b.finish()),
            ColumnBuilder::String(b) => Arc::new(b.finish()),
            ColumnBuilder::Bytes(b) => Arc::new(b.finish()),
        }
    }
}

fn fit_decimal(value: &Datum, precision: u32, scale: u8) -> Result<Decimal> {
    let decimal = match value {
        Datum::Decimal(v) => v.rescale(scale),
        Datum::Int(v) => Decimal::from(*v).rescale(scale),
        Datum::UInt(v) => Decimal::from(*v).rescale(scale),
        other => return Err(Error::Internal(format!("{other:?} does not fit a decimal column"))),
    };
    // A type of the largest precision stands for longer results, too.
    if decimal.fits(precision) || precision == DECIMAL_PRECISION_MAX {
        return Ok(decimal);
    }
    // MySQL keeps a result in the precision its type was given, as far as that goes.
    let max = Decimal::max(precision, scale);
    Ok(if decimal.is_negative() { max.neg() } else { max })
}

/// The array of a list of datums.
pub fn array_of<'a>(field_type: &FieldType, values: impl IntoIterator<Item = &'a Datum>) -> Result<ArrayRef> {
    let values = values.into_iter();
    let mut builder = ColumnBuilder::new(field_type, values.size_hint().0);
    for value in values {
        builder.push(value)?;
    }
    Ok(builder.finish())
}

/// An array of one value repeated.
pub fn repeat(field_type: &FieldType, value: &Datum, rows: usize) -> Result<ArrayRef> {
    let mut builder = ColumnBuilder::new(field_type, rows);
    for _ in 0..rows {
        builder.push(value)?;
    }
    Ok(builder.finish())
}
