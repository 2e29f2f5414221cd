//! From stored rows and index entries to batches of the columns asked for.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt64Array};
use arrow::datatypes::{SchemaRef, UInt64Type};
use arrow::record_batch::RecordBatch;
use rutile_client::KvPair;
use rutile_expr::EvalContext;
use rutile_expr::array::ColumnBuilder;
use rutile_expr::row::{BatchDecoder, ReadColumn};
use rutile_expr::types::{Datum, FieldType, MysqlType, Time};

use super::filter;
use crate::catalog::model::{HandleKind, IndexInfo, TableInfo};
use crate::error::Result;
use crate::plan::logical::ROWID_OFFSET;
use crate::plan::physical::TableAccess;
use crate::table::constraint::{from_storage, origin_default, to_storage};
use crate::table::index::{handle_of_entry, values_of_entry};
use crate::table::row::{Handle, handle_of_row_key};

/// Decodes rows of a table.
pub struct RowDecoder {
    table: Arc<TableInfo>,
    decoder: BatchDecoder,
    /// Output columns that are the handle, with whether it is unsigned.
    handles: Vec<(usize, bool)>,
    /// Output columns kept in UTC.
    timestamps: Vec<usize>,
    /// No column of the row's value is read.
    keys_only: bool,
    schema: SchemaRef,
    eval: Arc<EvalContext>,
}

impl RowDecoder {
    /// A decoder of what `access` reads, for about so many rows.
    pub fn new(
        access: &TableAccess,
        schema: SchemaRef,
        eval: &Arc<EvalContext>,
        capacity: usize,
    ) -> Result<Self> {
        let table = &access.table;
        let (mut columns, mut handles, mut timestamps) =
            (Vec::with_capacity(access.offsets.len()), Vec::new(), Vec::new());
        for (place, &offset) in access.offsets.iter().enumerate() {
            if offset == ROWID_OFFSET {
                handles.push((place, false));
                columns.push(ReadColumn { id: 0, field_type: FieldType::bigint(), missing: Datum::Null });
                continue;
            }
            let column = &table.columns[offset];
            if table.handle == (HandleKind::Int { offset }) {
                handles.push((place, column.ty.unsigned));
            }
            if column.ty.tp == MysqlType::Timestamp {
                timestamps.push(place);
            }
            let missing = to_storage(eval, &origin_default(eval, column)?, &column.ty);
            columns.push(ReadColumn { id: column.id.0, field_type: column.ty.clone(), missing });
        }
        let keys_only = handles.len() == columns.len();
        let decoder = BatchDecoder::new(columns, capacity);
        let eval = Arc::clone(eval);
        Ok(RowDecoder { table: Arc::clone(table), decoder, handles, timestamps, keys_only, schema, eval })
    }

    /// Whether the rows' values are not needed.
    pub fn keys_only(&self) -> bool {
        self.keys_only
    }

    /// The batch of rows given by their keys and values.
    pub fn decode(&mut self, pairs: &[KvPair]) -> Result<RecordBatch> {
        if self.keys_only {
            return self.decode_keys(pairs.iter().map(|pair| handle_of_row_key(&self.table, &pair.key)));
        }
        for pair in pairs {
            if self.handles.is_empty() {
                self.decoder.push(&pair.value)?;
            } else {
                let handle = handle_of_row_key(&self.table, &pair.key)?;
                self.push(&handle, &pair.value)?;
            }
        }
        self.finish(pairs.len())
    }

    /// The batch of one row.
    pub fn decode_one(&mut self, handle: &Handle, value: &[u8]) -> Result<RecordBatch> {
        if self.keys_only {
            return self.decode_keys(std::iter::once(Ok(handle.clone())));
        }
        self.push(handle, value)?;
        self.finish(1)
    }

    fn push(&mut self, handle: &Handle, value: &[u8]) -> Result<()> {
        let handles = &self.handles;
        let known = |place: usize| {
            let (_, unsigned) = handles.iter().find(|(known, _)| *known == place)?;
            handle.to_datum(*unsigned)
        };
        Ok(self.decoder.push_with(value, known)?)
    }

    fn decode_keys(&self, handles: impl Iterator<Item = Result<Handle>>) -> Result<RecordBatch> {
        let ty = |unsigned: bool| FieldType::bigint().with_unsigned(unsigned);
        let mut builders: Vec<_> =
            self.handles.iter().map(|(_, unsigned)| ColumnBuilder::new(&ty(*unsigned), 64)).collect();
        let mut rows = 0;
        for handle in handles {
            let handle = handle?;
            rows += 1;
            for (builder, (_, unsigned)) in builders.iter_mut().zip(&self.handles) {
                builder.push(&handle.to_datum(*unsigned).unwrap_or_default())?;
            }
        }
        let arrays = builders.iter_mut().map(ColumnBuilder::finish).collect();
        filter::batch(&self.schema, arrays, rows)
    }

    fn finish(&mut self, rows: usize) -> Result<RecordBatch> {
        let mut arrays = self.decoder.finish();
        for &place in &self.timestamps {
            arrays[place] = to_session_zone(&arrays[place], &self.eval);
        }
        filter::batch(&self.schema, arrays, rows)
    }
}

/// TIMESTAMPs as the session sees them.
fn to_session_zone(array: &ArrayRef, eval: &EvalContext) -> ArrayRef {
    let stored = array.as_primitive::<UInt64Type>();
    let local = |value: u64| if value == 0 { 0 } else { eval.time_zone.utc_to_local(Time(value)).0 };
    let values: UInt64Array = stored.iter().map(|value| value.map(local)).collect();
    Arc::new(values)
}

/// Restores rows from the entries of a covering index.
pub struct EntryDecoder {
    table: Arc<TableInfo>,
    index: Arc<IndexInfo>,
    /// Where each output column comes from: the index's column of this place, or the handle.
    sources: Vec<Option<usize>>,
    types: Vec<FieldType>,
    schema: SchemaRef,
    eval: Arc<EvalContext>,
}

impl EntryDecoder {
    /// A decoder of what `access` reads from an index that covers it.
    pub fn new(
        access: &TableAccess,
        index: &Arc<IndexInfo>,
        schema: SchemaRef,
        eval: &Arc<EvalContext>,
    ) -> Self {
        let table = &access.table;
        let source =
            |offset: &usize| index.columns.iter().position(|c| c.offset == *offset && c.prefix.is_none());
        let ty = |offset: &usize| match *offset {
            ROWID_OFFSET => FieldType::bigint(),
            offset => table.columns[offset].ty.clone(),
        };
        EntryDecoder {
            table: Arc::clone(table),
            index: Arc::clone(index),
            sources: access.offsets.iter().map(source).collect(),
            types: access.offsets.iter().map(ty).collect(),
            schema,
            eval: Arc::clone(eval),
        }
    }

    /// The batch of entries given by their keys and values.
    pub fn decode(&self, pairs: &[KvPair]) -> Result<RecordBatch> {
        if self.types.is_empty() {
            return filter::batch(&self.schema, Vec::new(), pairs.len());
        }
        let mut builders: Vec<_> = self.types.iter().map(|ty| ColumnBuilder::new(ty, pairs.len())).collect();
        let by_handle = self.sources.iter().any(Option::is_none);
        for pair in pairs {
            let mut values = values_of_entry(&self.table, &self.index, &pair.key, &pair.value)?;
            let handle = match by_handle {
                true => Some(handle_of_entry(&self.table, &self.index, &pair.key, &pair.value)?),
                false => None,
            };
            for ((source, ty), builder) in self.sources.iter().zip(&self.types).zip(&mut builders) {
                let value = match source {
                    // A column is read once, so it may be taken.
                    Some(place) => from_storage(&self.eval, std::mem::take(&mut values[*place]), ty),
                    None => {
                        handle.as_ref().and_then(|handle| handle.to_datum(ty.unsigned)).unwrap_or_default()
                    }
                };
                builder.push(&value)?;
            }
        }
        let arrays = builders.iter_mut().map(ColumnBuilder::finish).collect();
        filter::batch(&self.schema, arrays, pairs.len())
    }
}
