//! Stored pairs to arrays of the columns asked for.
//!
//! Row keys are `t ‖ table (8 B) ‖ _r ‖ handle`, index keys `t ‖ table (8 B) ‖ _i ‖ index (8 B) ‖ parts [‖ handle]`; an index
//! value is `flags ‖ [handle length (2 B) ‖ handle] ‖ restore`, where `restore` is a row (see [`crate::row`]) of the parts that the
//! key does not give back.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};

use smallvec::SmallVec;

use crate::array::ColumnBuilder;
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::index_key::{self, KeyPart};
use crate::row::{Cell, RowView, push_bytes};
use crate::types::{Datum, FieldType, MysqlType, Time};

/// `t`, the table's id, `_r` or `_i`.
pub const PREFIX_LEN: usize = 1 + 8 + 2;
/// Bytes of an index's id behind the prefix.
pub const INDEX_ID_LEN: usize = 8;
/// In the flags of an index value: the handle follows.
pub const HAS_HANDLE: u8 = 1;

const SIGN: u64 = 1 << 63;

/// What to read of each pair.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanSpec {
    pub source: ScanSource,
    /// The output's columns.
    pub columns: Vec<ScanColumn>,
}

/// What the pairs are.
#[derive(Debug, Clone, PartialEq)]
pub enum ScanSource {
    Rows,
    /// Entries of an index with these parts.
    Entries(Vec<IndexPart>),
}

/// A column of an index.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexPart {
    pub column_id: i64,
    pub field_type: FieldType,
    /// Only so many characters are in the index.
    pub prefix_len: Option<u32>,
    pub descending: bool,
}

impl IndexPart {
    fn key_part(&self) -> KeyPart<'_> {
        KeyPart { field_type: &self.field_type, prefix_len: self.prefix_len, descending: self.descending }
    }
}

/// An output column and where it is found.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanColumn {
    pub field_type: FieldType,
    pub from: ColumnFrom,
}

/// Where a column's values are.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnFrom {
    /// In the row, under a column id; `missing` is what rows from before the column existed read as.
    Stored { id: i64, missing: Datum },
    /// The integer handle.
    Handle,
    /// A part of the index.
    Part(usize),
}

impl ScanSpec {
    /// The schema of the output.
    #[must_use]
    pub fn arrow(&self) -> SchemaRef {
        let field =
            |(i, column): (usize, &ScanColumn)| Field::new(format!("c{i}"), column.field_type.arrow(), true);
        Arc::new(Schema::new(self.columns.iter().enumerate().map(field).collect::<Vec<_>>()))
    }

    /// Refuses what no decoder could follow.
    pub fn check(&self) -> Result<()> {
        let parts = match &self.source {
            ScanSource::Rows => 0,
            ScanSource::Entries(parts) => parts.len(),
        };
        let is_int = |ty: &FieldType| matches!(ty.arrow(), DataType::Int64 | DataType::UInt64);
        for column in &self.columns {
            let fits = match (&column.from, &self.source) {
                (ColumnFrom::Stored { id, .. }, ScanSource::Rows) => u32::try_from(*id).is_ok(),
                (ColumnFrom::Part(part), ScanSource::Entries(_)) => *part < parts,
                (ColumnFrom::Handle, _) => is_int(&column.field_type),
                _ => false,
            };
            if !fits {
                return Err(Error::Internal(format!("a scan cannot give {column:?}")));
            }
        }
        Ok(())
    }
}

/// Decodes some columns of a scan's pairs.
pub struct ScanDecoder {
    spec: Arc<ScanSpec>,
    ctx: Arc<EvalContext>,
    /// The columns decoded: positions in the spec's list.
    selected: Vec<usize>,
    builders: Vec<ColumnBuilder>,
    /// Where each column was found in the row before.
    hints: Vec<usize>,
    /// The builders that each part of an index fills.
    part_places: Vec<SmallVec<[usize; 2]>>,
    /// So many parts are looked at.
    parts_read: usize,
    /// The builders that the handle fills.
    handles: SmallVec<[usize; 2]>,
    rows: usize,
    capacity: usize,
    /// The builders have given their buffers away.
    emptied: bool,
}

impl ScanDecoder {
    /// A decoder of all columns, for about `capacity` rows at a time.
    #[must_use]
    pub fn new(spec: Arc<ScanSpec>, ctx: Arc<EvalContext>, capacity: usize) -> ScanDecoder {
        let selected = (0..spec.columns.len()).collect();
        ScanDecoder::of_columns(spec, selected, ctx, capacity)
    }

    /// A decoder of some of the columns.
    #[must_use]
    pub fn of_columns(
        spec: Arc<ScanSpec>,
        selected: Vec<usize>,
        ctx: Arc<EvalContext>,
        capacity: usize,
    ) -> ScanDecoder {
        let builder = |at: &usize| ColumnBuilder::new(&spec.columns[*at].field_type, capacity);
        let builders = selected.iter().map(builder).collect();
        let hints = vec![0; selected.len()];
        let parts = match &spec.source {
            ScanSource::Rows => 0,
            ScanSource::Entries(parts) => parts.len(),
        };
        let mut part_places = vec![SmallVec::new(); parts];
        let mut handles = SmallVec::new();
        for (place, at) in selected.iter().enumerate() {
            match spec.columns[*at].from {
                ColumnFrom::Part(part) => part_places[part].push(place),
                ColumnFrom::Handle => handles.push(place),
                ColumnFrom::Stored { .. } => {}
            }
        }
        let parts_read = part_places
            .iter()
            .rposition(|places: &SmallVec<[usize; 2]>| !places.is_empty())
            .map_or(0, |at| at + 1);
        ScanDecoder {
            builders,
            hints,
            part_places,
            parts_read,
            handles,
            spec,
            ctx,
            selected,
            rows: 0,
            capacity,
            emptied: false,
        }
    }

    /// Whether the pairs' keys are looked at.
    #[must_use]
    pub fn needs_key(&self) -> bool {
        match self.spec.source {
            ScanSource::Rows => !self.handles.is_empty(),
            ScanSource::Entries(_) => !self.selected.is_empty(),
        }
    }

    /// Whether the pairs' values are looked at.
    #[must_use]
    pub fn needs_value(&self) -> bool {
        let is_stored = |at: &usize| matches!(self.spec.columns[*at].from, ColumnFrom::Stored { .. });
        match self.spec.source {
            ScanSource::Rows => self.selected.iter().any(is_stored),
            ScanSource::Entries(_) => !self.selected.is_empty(),
        }
    }

    /// Appends a pair; parts that are not needed may be empty.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.rows += 1;
        if self.emptied {
            self.emptied = false;
            for (builder, at) in self.builders.iter_mut().zip(&self.selected) {
                *builder = ColumnBuilder::new(&self.spec.columns[*at].field_type, self.capacity);
            }
        }
        match &self.spec.source {
            ScanSource::Rows => self.push_row(key, value),
            ScanSource::Entries(_) => self.push_entry(key, value),
        }
    }

    fn push_row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut row: Option<RowView<'_>> = None;
        for ((at, builder), hint) in self.selected.iter().zip(&mut self.builders).zip(&mut self.hints) {
            let column = &self.spec.columns[*at];
            match &column.from {
                ColumnFrom::Stored { id, missing } => {
                    let view = match &row {
                        Some(view) => view,
                        None => row.insert(RowView::new(value)?),
                    };
                    match view.cell_near(*id, hint)? {
                        Cell::Value(bytes) => push_bytes(builder, bytes, &column.field_type)?,
                        Cell::Null => builder.push_null(),
                        Cell::Missing => builder.push(missing)?,
                    }
                }
                ColumnFrom::Handle => push_handle(builder, key.get(PREFIX_LEN..).unwrap_or_default())?,
                ColumnFrom::Part(_) => return Err(corrupt("an index column in a row")),
            }
        }
        Ok(())
    }

    fn push_entry(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let ScanSource::Entries(parts) = &self.spec.source else { return Err(corrupt("no entry")) };
        if self.selected.is_empty() {
            return Ok(());
        }
        let (stored_handle, restore) = split_value(value)?;
        let mut rest = key.get(PREFIX_LEN + INDEX_ID_LEN..).ok_or_else(|| corrupt("index key length"))?;
        // Where the handle is read from the key, all parts have to be passed.
        let parts_read = match stored_handle {
            None if !self.handles.is_empty() => parts.len(),
            _ => self.parts_read,
        };
        for (part, places) in parts.iter().zip(&self.part_places).take(parts_read) {
            let key_part = part.key_part();
            if places.is_empty() {
                let len = index_key::encoded_len(rest, &key_part)?;
                rest = rest.get(len..).ok_or_else(|| corrupt("index key length"))?;
                continue;
            }
            let value = match index_key::decode(&mut rest, &key_part)? {
                Some(value) => value,
                None if restore.is_empty() => Datum::Null,
                None => RowView::new(restore)?.datum(part.column_id, &part.field_type, &Datum::Null)?,
            };
            for place in places {
                self.builders[*place].push(&value)?;
            }
        }
        for place in &self.handles {
            push_handle(&mut self.builders[*place], stored_handle.unwrap_or(rest))?;
        }
        Ok(())
    }

    /// Pairs since the last `finish`.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The arrays of the selected columns; the decoder is empty again. TIMESTAMPs are in the session's zone.
    pub fn finish(&mut self) -> Vec<ArrayRef> {
        self.rows = 0;
        let mut arrays: Vec<ArrayRef> = self.builders.iter_mut().map(ColumnBuilder::finish).collect();
        for (array, at) in arrays.iter_mut().zip(&self.selected) {
            if self.spec.columns[*at].field_type.tp == MysqlType::Timestamp {
                *array = to_session_zone(array, &self.ctx);
            }
        }
        self.emptied = true;
        arrays
    }
}

fn corrupt(what: &str) -> Error {
    Error::Corrupt { what: what.to_owned() }
}

/// The handle in an entry's value, and the restore part behind it.
pub fn split_value(value: &[u8]) -> Result<(Option<&[u8]>, &[u8])> {
    let malformed = || corrupt("index value");
    let (flags, rest) = value.split_first().ok_or_else(malformed)?;
    if flags & HAS_HANDLE == 0 {
        return Ok((None, rest));
    }
    let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(malformed)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (handle, rest) = rest.split_at_checked(length).ok_or_else(malformed)?;
    Ok((Some(handle), rest))
}

fn push_handle(builder: &mut ColumnBuilder, bytes: &[u8]) -> Result<()> {
    let Ok(bits) = bytes.try_into().map(u64::from_be_bytes) else {
        // The columns of a key of several parts are read from the row.
        builder.push_null();
        return Ok(());
    };
    match builder {
        ColumnBuilder::Int(b) => b.append_value((bits ^ SIGN) as i64),
        ColumnBuilder::UInt(b) => b.append_value(bits),
        other => other.push(&Datum::Int((bits ^ SIGN) as i64))?,
    }
    Ok(())
}

/// TIMESTAMPs as the session sees them.
fn to_session_zone(array: &ArrayRef, ctx: &EvalContext) -> ArrayRef {
    let Some(stored) = array.as_primitive_opt::<UInt64Type>() else { return Arc::clone(array) };
    let local = |value: u64| if value == 0 { 0 } else { ctx.time_zone.utc_to_local(Time(value)).0 };
    let values: UInt64Array = stored.unary(local);
    Arc::new(values)
}
