//! From stored rows and index entries to batches of the columns asked for.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use rutile_client::KvPair;
use rutile_expr::EvalContext;
use rutile_expr::store_plan::scan::{ColumnFrom, IndexPart, ScanColumn, ScanDecoder, ScanSource, ScanSpec};
use rutile_expr::types::FieldType;

use super::filter;
use crate::catalog::model::{HandleKind, IndexInfo};
use crate::error::Result;
use crate::plan::logical::ROWID_OFFSET;
use crate::plan::physical::TableAccess;
use crate::table::constraint::{origin_default, to_storage};

/// How the columns that `access` reads are found in the table's rows.
pub fn rows_spec(access: &TableAccess, eval: &EvalContext) -> Result<Arc<ScanSpec>> {
    let table = &access.table;
    let mut columns = Vec::with_capacity(access.offsets.len());
    for &offset in &access.offsets {
        if offset == ROWID_OFFSET {
            columns.push(ScanColumn { field_type: FieldType::bigint(), from: ColumnFrom::Handle });
            continue;
        }
        let column = &table.columns[offset];
        let from = if table.handle == (HandleKind::Int { offset }) {
            ColumnFrom::Handle
        } else {
            let missing = to_storage(eval, &origin_default(eval, column)?, &column.ty);
            ColumnFrom::Stored { id: column.id.0, missing }
        };
        columns.push(ScanColumn { field_type: column.ty.clone(), from });
    }
    Ok(Arc::new(ScanSpec { source: ScanSource::Rows, columns }))
}

/// How the columns that `access` reads are found in the entries of an index that covers them.
pub fn entries_spec(access: &TableAccess, index: &IndexInfo) -> Arc<ScanSpec> {
    let table = &access.table;
    let part = |part: &crate::catalog::model::IndexColumnInfo| IndexPart {
        column_id: part.column.0,
        field_type: table.columns[part.offset].ty.clone(),
        prefix_len: part.prefix,
        descending: part.desc,
    };
    let column = |offset: &usize| {
        let own = index.columns.iter().position(|c| c.offset == *offset && c.prefix.is_none());
        let field_type = match *offset {
            ROWID_OFFSET => FieldType::bigint(),
            offset => table.columns[offset].ty.clone(),
        };
        ScanColumn { field_type, from: own.map_or(ColumnFrom::Handle, ColumnFrom::Part) }
    };
    let source = ScanSource::Entries(index.columns.iter().map(part).collect());
    Arc::new(ScanSpec { source, columns: access.offsets.iter().map(column).collect() })
}

/// Decodes pairs to batches of a schema.
pub struct BatchDecoder {
    decoder: ScanDecoder,
    schema: SchemaRef,
}

impl BatchDecoder {
    /// Of a table's rows; for about `capacity` of them at a time.
    pub fn of_rows(
        access: &TableAccess,
        schema: SchemaRef,
        eval: &Arc<EvalContext>,
        capacity: usize,
    ) -> Result<Self> {
        let decoder = ScanDecoder::new(rows_spec(access, eval)?, Arc::clone(eval), capacity);
        Ok(BatchDecoder { decoder, schema })
    }

    /// Of an index's entries.
    pub fn of_entries(
        access: &TableAccess,
        index: &IndexInfo,
        schema: SchemaRef,
        eval: &Arc<EvalContext>,
    ) -> Self {
        let decoder = ScanDecoder::new(entries_spec(access, index), Arc::clone(eval), 64);
        BatchDecoder { decoder, schema }
    }

    /// Whether the pairs' values are not needed.
    pub fn keys_only(&self) -> bool {
        !self.decoder.needs_value()
    }

    /// The batch of these pairs.
    pub fn decode(&mut self, pairs: &[KvPair]) -> Result<RecordBatch> {
        for pair in pairs {
            self.decoder.push(&pair.key, &pair.value)?;
        }
        let arrays = self.decoder.finish();
        filter::batch(&self.schema, arrays, pairs.len())
    }

    /// The batch of one pair.
    pub fn decode_one(&mut self, key: &[u8], value: &[u8]) -> Result<RecordBatch> {
        self.decoder.push(key, value)?;
        let arrays = self.decoder.finish();
        filter::batch(&self.schema, arrays, 1)
    }
}
