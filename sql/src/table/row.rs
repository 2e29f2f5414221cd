//! Keys of rows, and the handles that tell the rows of a table apart.
//!
//! Row key: `t ‖ table_id (8 B) ‖ _r ‖ handle`. An integer handle takes 8 bytes, so that such a key has 19; a common handle
//! is the memcomparable encoding of the primary key's columns. A row's value holds every column except the one that is an
//! integer handle, which the key already tells.

use bytes::Bytes;
use rutile_client::KeyRange;
use rutile_expr::EvalContext;
use rutile_expr::row::{Cell, RowView};
pub use rutile_expr::store_plan::scan::PREFIX_LEN;
use rutile_expr::types::{Datum, MysqlType};
use rutile_proto::codec;

use super::constraint::{from_storage, origin_default, to_storage};
use crate::catalog::model::{HandleKind, TableId, TableInfo};
use crate::{Error, Result};

/// First byte of every key of a table.
pub const TABLE_PREFIX: u8 = b't';
/// Between the table's id and a handle.
pub const ROW_MARK: &[u8; 2] = b"_r";
/// Between the table's id and an index's id.
pub const INDEX_MARK: &[u8; 2] = b"_i";

const SIGN: u64 = 1 << 63;

/// What identifies a row within its table; ordered as the keys are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Handle {
    /// An integer primary key or a hidden row id, as bits that order like the value: signed values have the sign bit flipped.
    Int(u64),
    /// The encoded columns of a primary key.
    Common(Bytes),
}

impl Handle {
    /// Of a hidden row id or a signed integer primary key.
    pub fn of_i64(value: i64) -> Handle {
        Handle::Int(value as u64 ^ SIGN)
    }

    /// Of an integer primary key; `None` for what is no integer.
    pub fn of_datum(value: &Datum) -> Option<Handle> {
        match value {
            Datum::Int(v) => Some(Handle::of_i64(*v)),
            Datum::UInt(v) => Some(Handle::Int(*v)),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn to_datum(&self, unsigned: bool) -> Option<Datum> {
        match self {
            Handle::Int(bits) if unsigned => Some(Datum::UInt(*bits)),
            Handle::Int(bits) => Some(Datum::Int((bits ^ SIGN) as i64)),
            Handle::Common(_) => None,
        }
    }

    /// The hidden row id, or a signed integer primary key.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Handle::Int(bits) => Some((bits ^ SIGN) as i64),
            Handle::Common(_) => None,
        }
    }

    /// Appends it as it stands in keys.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Handle::Int(bits) => out.extend_from_slice(&bits.to_be_bytes()),
            Handle::Common(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// Reads what is left of a key as a handle of this kind.
    pub fn decode(kind: &HandleKind, bytes: &[u8]) -> Result<Handle> {
        match kind {
            HandleKind::Common => Ok(Handle::Common(Bytes::copy_from_slice(bytes))),
            HandleKind::Int { .. } | HandleKind::Hidden => {
                let bits: [u8; 8] = bytes
                    .try_into()
                    .map_err(|_| Error::internal("a row key has a handle of a wrong length"))?;
                Ok(Handle::Int(u64::from_be_bytes(bits)))
            }
        }
    }
}

fn prefix(table: TableId, mark: &[u8; 2], capacity: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(PREFIX_LEN + capacity);
    key.push(TABLE_PREFIX);
    codec::encode_i64(&mut key, table.0);
    key.extend_from_slice(mark);
    key
}

/// What the keys of a table's rows begin with.
pub fn row_prefix(table: TableId) -> Vec<u8> {
    prefix(table, ROW_MARK, 8)
}

/// What the keys of all a table's indexes begin with.
pub(super) fn indexes_prefix(table: TableId, capacity: usize) -> Vec<u8> {
    prefix(table, INDEX_MARK, capacity)
}

/// The key of a row.
pub fn row_key(table: TableId, handle: &Handle) -> Bytes {
    let mut key = row_prefix(table);
    handle.encode(&mut key);
    key.into()
}

/// All rows of a table.
pub fn row_range(table: TableId) -> KeyRange {
    KeyRange::prefix(&row_prefix(table))
}

/// Everything of a table: rows and indexes.
pub fn table_range(table: TableId) -> KeyRange {
    KeyRange::prefix(&prefix(table, ROW_MARK, 0)[..PREFIX_LEN - 2])
}

/// The handle in a row's key.
pub fn handle_of_row_key(table: &TableInfo, key: &[u8]) -> Result<Handle> {
    let handle = key.get(PREFIX_LEN..).ok_or_else(|| Error::internal("a row key is too short"))?;
    Handle::decode(&table.handle, handle)
}

/// The value of a row: every writable column but the integer handle. `row` has one datum per column of the table, in the
/// session's time zone.
pub fn encode_row(eval: &EvalContext, table: &TableInfo, row: &[Datum]) -> Result<Bytes> {
    let handle = int_handle(table);
    let mut utc = Vec::new();
    let mut columns: Vec<(i64, &Datum)> = Vec::with_capacity(row.len());
    for (offset, column) in table.columns.iter().enumerate() {
        if !column.state.is_writable() || handle == Some(offset) {
            continue;
        }
        if column.ty.tp == MysqlType::Timestamp {
            utc.push((column.id.0, to_storage(eval, &row[offset], &column.ty)));
        } else {
            columns.push((column.id.0, &row[offset]));
        }
    }
    columns.extend(utc.iter().map(|(id, datum)| (*id, datum)));
    let mut value = Vec::with_capacity(64);
    rutile_expr::row::encode(&columns, &mut value);
    Ok(value.into())
}

/// The row of a key's handle and its value: one datum per column of the table, in the session's time zone. Columns
/// that the row was written without have what the column's addition said.
pub fn decode_row(
    eval: &EvalContext,
    table: &TableInfo,
    handle: &Handle,
    value: &[u8],
) -> Result<Vec<Datum>> {
    let int_handle = int_handle(table);
    let stored = RowView::new(value)?;
    let mut row = Vec::with_capacity(table.columns.len());
    for (offset, column) in table.columns.iter().enumerate() {
        if int_handle == Some(offset) {
            row.push(handle.to_datum(column.ty.unsigned).unwrap_or_default());
            continue;
        }
        row.push(match stored.cell(column.id.0)? {
            Cell::Missing => origin_default(eval, column)?,
            Cell::Null => Datum::Null,
            Cell::Value(_) => {
                from_storage(eval, stored.datum(column.id.0, &column.ty, &Datum::Null)?, &column.ty)
            }
        });
    }
    Ok(row)
}

/// The offset of the column that is the handle, if one is.
fn int_handle(table: &TableInfo) -> Option<usize> {
    match table.handle {
        HandleKind::Int { offset } => Some(offset),
        HandleKind::Common | HandleKind::Hidden => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_as_handles_do() {
        let table = TableId(7);
        let keys: Vec<Bytes> =
            [i64::MIN, -1, 0, 1, i64::MAX].into_iter().map(|v| row_key(table, &Handle::of_i64(v))).collect();
        assert!(keys.windows(2).all(|w| w[0] < w[1]));
        assert!(keys.iter().all(|k| k.len() == 19 && row_range(table).contains(k)));
        assert!(table_range(table).contains(&keys[0]));
        assert!(!row_range(TableId(8)).contains(&keys[0]));
        let unsigned = |v| row_key(table, &Handle::of_datum(&Datum::UInt(v)).unwrap());
        assert!(unsigned(1) < unsigned(u64::MAX));
    }

    #[test]
    fn a_handle_comes_back_out_of_its_key() {
        let handle = Handle::of_i64(-5);
        let key = row_key(TableId(7), &handle);
        let back = Handle::decode(&HandleKind::Hidden, &key[PREFIX_LEN..]).unwrap();
        assert_eq!((back.as_i64(), back.to_datum(false)), (Some(-5), Some(Datum::Int(-5))));
        assert!(Handle::decode(&HandleKind::Hidden, b"short").is_err());
    }
}
