//! Index entries.
//!
//! Key: `t ‖ table_id ‖ _i ‖ index_id ‖ columns [‖ handle]`. The handle follows unless the entry is *distinct*: of a unique index
//! and without NULL, so that the key alone must be unique. Strings stand there as their collation's sort keys, cut to
//! the index's prefix length.
//!
//! Value: `flags ‖ [handle length (2 B) ‖ handle] ‖ restore`. A distinct entry keeps its handle there; `restore` is a row
//! value (see `rutile_expr::row`) of the columns which the sort key does not give back, so that a covering read has them.

use bytes::Bytes;
use rutile_client::KeyRange;
use rutile_expr::EvalContext;
use rutile_expr::index_key::{self, KeyPart};
use rutile_expr::row::RowView;
use rutile_expr::store_plan::scan::{HAS_HANDLE, split_value};
use rutile_expr::types::format::to_text;
use rutile_expr::types::{Datum, FieldType};
use rutile_proto::codec;

use super::constraint::to_storage;
use super::row::{self, Handle, PREFIX_LEN};
use crate::catalog::model::{HandleKind, IndexColumnInfo, IndexInfo, TableInfo};
use crate::{Error, Result};

/// One index entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// Whether no other row may have this key.
    pub distinct: bool,
}

/// What the keys of an index begin with.
pub fn index_prefix(table: &TableInfo, index: &IndexInfo) -> Vec<u8> {
    let mut key = row::indexes_prefix(table.id, 64);
    codec::encode_i64(&mut key, index.id.0);
    key
}

/// All entries of an index.
pub fn index_range(table: &TableInfo, index: &IndexInfo) -> KeyRange {
    KeyRange::prefix(&index_prefix(table, index))
}

/// Appends one value as it stands in an index's key. `value` is as stored: TIMESTAMP in UTC.
pub fn encode_value(out: &mut Vec<u8>, value: &Datum, ty: &FieldType, part: &IndexColumnInfo) -> Result<()> {
    Ok(index_key::encode(value, &key_part(ty, part), out)?)
}

/// How the expression library sees a column of an index.
pub fn key_part<'a>(ty: &'a FieldType, part: &IndexColumnInfo) -> KeyPart<'a> {
    KeyPart { field_type: ty, prefix_len: part.prefix, descending: part.desc }
}

/// The key that a distinct entry with these column values has; `None` if one is NULL. Values are as stored.
pub fn unique_key(table: &TableInfo, index: &IndexInfo, values: &[Datum]) -> Result<Option<Bytes>> {
    if values.iter().any(Datum::is_null) {
        return Ok(None);
    }
    let mut key = index_prefix(table, index);
    for (part, value) in index.columns.iter().zip(values) {
        encode_value(&mut key, value, &table.columns[part.offset].ty, part)?;
    }
    Ok(Some(key.into()))
}

/// The handle that these values of the primary key's columns stand for. Values are as stored; `None` if one is NULL.
pub fn handle_of_values(table: &TableInfo, values: &[Datum]) -> Result<Option<Handle>> {
    if values.iter().any(Datum::is_null) {
        return Ok(None);
    }
    match &table.handle {
        HandleKind::Int { .. } => Ok(values.first().and_then(Handle::of_datum)),
        HandleKind::Hidden => Ok(None),
        HandleKind::Common => {
            let primary =
                table.primary().ok_or_else(|| Error::internal("a clustered table has no primary key"))?;
            let mut out = Vec::with_capacity(32);
            for (part, value) in primary.columns.iter().zip(values) {
                encode_value(&mut out, value, &table.columns[part.offset].ty, part)?;
            }
            Ok(Some(Handle::Common(out.into())))
        }
    }
}

/// The handle of a row, from its primary key's columns; `None` if the table has a hidden row id.
pub fn handle_of_row(eval: &EvalContext, table: &TableInfo, row: &[Datum]) -> Result<Option<Handle>> {
    match &table.handle {
        HandleKind::Int { offset } => Ok(Handle::of_datum(&row[*offset])),
        HandleKind::Hidden => Ok(None),
        HandleKind::Common => {
            let primary =
                table.primary().ok_or_else(|| Error::internal("a clustered table has no primary key"))?;
            handle_of_values(table, &stored_values(eval, table, primary, row))
        }
    }
}

/// The values of an index's columns in a row, as stored.
pub fn stored_values(eval: &EvalContext, table: &TableInfo, index: &IndexInfo, row: &[Datum]) -> Vec<Datum> {
    let stored = |part: &IndexColumnInfo| to_storage(eval, &row[part.offset], &table.columns[part.offset].ty);
    index.columns.iter().map(stored).collect()
}

/// The key of a row's entry, and whether it is distinct.
pub fn entry_key(
    eval: &EvalContext,
    table: &TableInfo,
    index: &IndexInfo,
    row: &[Datum],
    handle: &Handle,
) -> Result<(Bytes, bool)> {
    let mut key = index_prefix(table, index);
    let mut has_null = false;
    for part in &index.columns {
        let ty = &table.columns[part.offset].ty;
        let value = to_storage(eval, &row[part.offset], ty);
        has_null |= value.is_null();
        encode_value(&mut key, &value, ty, part)?;
    }
    let distinct = index.unique && !has_null;
    if !distinct {
        handle.encode(&mut key);
    }
    Ok((key.into(), distinct))
}

/// A row's entry.
pub fn entry(
    eval: &EvalContext,
    table: &TableInfo,
    index: &IndexInfo,
    row: &[Datum],
    handle: &Handle,
) -> Result<Entry> {
    let (key, distinct) = entry_key(eval, table, index, row, handle)?;
    let mut value = vec![if distinct { HAS_HANDLE } else { 0 }];
    if distinct {
        let at = value.len();
        value.extend_from_slice(&[0, 0]);
        handle.encode(&mut value);
        let length =
            u16::try_from(value.len() - at - 2).map_err(|_| Error::internal("a handle is too long"))?;
        value[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
    let restored = index.columns.iter().filter(|part| is_restored(table, part));
    let columns: Vec<(i64, &Datum)> = restored.map(|p| (p.column.0, &row[p.offset])).collect();
    if !columns.is_empty() {
        rutile_expr::row::encode(&columns, &mut value);
    }
    Ok(Entry { key, value: value.into(), distinct })
}

/// Whether the index keeps this column's value in the entry's value, as its key does not give it back.
pub fn is_restored(table: &TableInfo, part: &IndexColumnInfo) -> bool {
    part.prefix.is_none() && !index_key::is_restorable(&key_part(&table.columns[part.offset].ty, part))
}

/// The handle of the row that an entry belongs to.
pub fn handle_of_entry(table: &TableInfo, index: &IndexInfo, key: &[u8], value: &[u8]) -> Result<Handle> {
    if let (Some(handle), _) = split_value(value)? {
        return Handle::decode(&table.handle, handle);
    }
    let mut rest = key.get(PREFIX_LEN + 8..).ok_or_else(|| Error::internal("an index key is too short"))?;
    for part in &index.columns {
        index_key::decode(&mut rest, &key_part(&table.columns[part.offset].ty, part))?;
    }
    Handle::decode(&table.handle, rest)
}

/// The values of an index's columns in an entry, in the index's order and as stored; NULL for prefix columns,
/// which an entry does not give back.
pub fn values_of_entry(table: &TableInfo, index: &IndexInfo, key: &[u8], value: &[u8]) -> Result<Vec<Datum>> {
    let mut rest = key.get(PREFIX_LEN + 8..).ok_or_else(|| Error::internal("an index key is too short"))?;
    let (_, restore) = split_value(value)?;
    let mut values = Vec::with_capacity(index.columns.len());
    for part in &index.columns {
        let ty = &table.columns[part.offset].ty;
        values.push(match index_key::decode(&mut rest, &key_part(ty, part))? {
            Some(value) => value,
            None if restore.is_empty() => Datum::Null,
            None => RowView::new(restore)?.datum(part.column.0, ty, &Datum::Null)?,
        });
    }
    Ok(values)
}

/// `Duplicate entry '1-a' for key 't.u'`, for a row's values in the session's zone.
pub fn duplicate(table: &TableInfo, index: &IndexInfo, row: &[Datum]) -> Error {
    let text = |part: &IndexColumnInfo| {
        let value = &row[part.offset];
        let mut text = match value {
            Datum::Null => "NULL".to_owned(),
            value => to_text(value, &table.columns[part.offset].ty),
        };
        if let Some(length) = part.prefix
            && let Some((at, _)) = text.char_indices().nth(length as usize)
        {
            text.truncate(at);
        }
        text
    };
    let entry = index.columns.iter().map(text).collect::<Vec<_>>().join("-");
    Error::DupEntry { entry, key: format!("{}.{}", table.name, index.name) }
}
