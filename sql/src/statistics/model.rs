//! Statistics of one table, immutable once made.
//!
//! Fractions are of the table's rows and lie in 0..=1. Values are kept twice: as themselves, for people, and as the ascending
//! memcomparable bytes of an index key (cut to [`KEY_BYTES_MAX`]), which order as the values do, whatever the collation.

use std::collections::HashMap;
use std::sync::Arc;

use rutile_expr::index_key::{self, KeyPart};
use rutile_expr::types::{Datum, FieldType};
use serde::{Deserialize, Serialize};

use crate::catalog::model::{ColumnId, IndexId, TableInfo};

/// Rows a table is taken to have when nothing is known of it.
pub const ROWS_GUESS: f64 = 10_000.0;
/// A table that was never analyzed counts as no smaller, however few rows it had when somebody looked.
pub const ROWS_GUESS_MIN: f64 = 1_000.0;
/// Rows that share one value of a column, when nothing is known of it.
pub const ROWS_PER_VALUE_GUESS: f64 = 10.0;
/// From this share of different values on a column's new rows have new values.
const NEARLY_UNIQUE: f64 = 0.2;
/// Keys are cut to so many bytes: what is longer is told apart by its beginning.
pub const KEY_BYTES_MAX: usize = 128;

/// What is known of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableStats {
    /// Rows at present, as far as known.
    pub rows: f64,
    /// When it was analyzed, as a timestamp; 0 for guesses.
    pub version: u64,
    /// Rows when it was analyzed.
    pub analyzed_rows: f64,
    /// Rows inserted, changed and deleted since.
    pub modified: f64,
    pub columns: Arc<HashMap<ColumnId, ColumnStats>>,
    /// For each index: how many different values its first column has, its first two together, and so on.
    pub indexes: Arc<HashMap<IndexId, Vec<f64>>>,
}

/// What is known of a column's values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ColumnStats {
    /// Different values, NULL not counted; at least 1 if there is any value.
    pub ndv: f64,
    /// NULLs among the rows.
    pub null_fraction: f64,
    /// Bytes of a value as it is stored, NULLs counted as 0.
    pub average_bytes: f64,
    /// The most frequent values, the most frequent first. They are not in the histogram.
    pub top_n: Vec<TopValue>,
    /// The other values.
    pub histogram: Histogram,
    /// How the order of the values agrees with that of the handles: 1 is the same order, -1 the opposite, 0 none.
    pub correlation: f64,
    /// The histogram that ANALYZE TABLE … UPDATE HISTOGRAM asked for.
    pub shown: Option<ShownHistogram>,
}

/// A histogram as information_schema.COLUMN_STATISTICS shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownHistogram {
    /// As many as were asked for.
    pub buckets: u32,
    /// MySQL's JSON document.
    pub json: String,
}

/// A frequent value.
#[derive(Debug, Clone, PartialEq)]
pub struct TopValue {
    pub value: Datum,
    pub key: Vec<u8>,
    /// Of the rows.
    pub fraction: f64,
}

/// Equal-depth buckets in the order of values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    pub buckets: Vec<Bucket>,
}

/// Values from `low` to `high`, both included.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    pub low: Datum,
    pub high: Datum,
    pub low_key: Vec<u8>,
    pub high_key: Vec<u8>,
    /// Of the rows.
    pub fraction: f64,
    /// Of the rows: those equal to `high`.
    pub high_fraction: f64,
    /// Different values.
    pub ndv: f64,
}

impl TableStats {
    /// What to assume of a table that was never analyzed: `rows` if somebody has counted them, roughly.
    pub fn guess(rows: Option<f64>) -> TableStats {
        let rows = rows.map_or(ROWS_GUESS, |rows| rows.max(ROWS_GUESS_MIN));
        TableStats {
            rows,
            version: 0,
            analyzed_rows: rows,
            modified: 0.0,
            columns: Arc::default(),
            indexes: Arc::default(),
        }
    }

    /// Whether nobody has looked at the values.
    pub fn is_guess(&self) -> bool {
        self.version == 0
    }

    /// The same knowledge of a table that has grown or shrunk meanwhile.
    #[must_use]
    pub fn scaled(&self, rows: f64, modified: f64) -> TableStats {
        TableStats { rows: rows.max(0.0), modified, ..self.clone() }
    }

    /// How far the knowledge still holds, in percent of the rows that did not change since.
    pub fn healthy_percent(&self) -> f64 {
        match self.is_guess() {
            true => 0.0,
            false if self.analyzed_rows < 1.0 => {
                if self.modified > 0.0 {
                    0.0
                } else {
                    100.0
                }
            }
            false => (100.0 * (1.0 - self.modified / self.analyzed_rows)).max(0.0),
        }
    }

    /// What a column's number of values is to be multiplied by: a column of (nearly) unique values has gained some with each new
    /// row, another one has not.
    pub(super) fn growth(&self, column: &ColumnStats) -> f64 {
        let nearly_unique = column.ndv > NEARLY_UNIQUE * self.analyzed_rows;
        if nearly_unique { (self.rows / self.analyzed_rows.max(1.0)).max(1.0) } else { 1.0 }
    }

    /// What is known of the column at an offset.
    pub fn column(&self, table: &TableInfo, offset: usize) -> Option<&ColumnStats> {
        self.columns.get(&table.columns.get(offset)?.id)
    }

    /// How many different values a column has, NULL not counted; at least 1.
    pub fn ndv(&self, table: &TableInfo, offset: usize) -> f64 {
        let rows = self.rows.max(1.0);
        if let Some(column) = self.column(table, offset) {
            return (column.ndv * self.growth(column)).clamp(1.0, rows);
        }
        let alone = |index: &&Arc<crate::catalog::model::IndexInfo>| {
            index.unique && index.columns.len() == 1 && index.columns[0].offset == offset
        };
        if table.indexes.iter().any(|index| alone(&index)) {
            return rows;
        }
        (rows / ROWS_PER_VALUE_GUESS).max(1.0)
    }

    /// Bytes of a row that a reader of these columns handles.
    pub fn row_bytes(&self, table: &TableInfo, offsets: &[usize]) -> f64 {
        let bytes = |offset: &usize| self.column(table, *offset).map_or(8.0, |column| column.average_bytes);
        offsets.iter().map(bytes).sum()
    }
}

impl ColumnStats {
    /// Rows, of all, that have a frequent value.
    pub fn top_fraction(&self) -> f64 {
        self.top_n.iter().map(|top| top.fraction).sum()
    }

    /// Rows, of all, with one value, if it is none of the frequent ones.
    pub fn other_fraction(&self) -> f64 {
        let others = (self.ndv - self.top_n.len() as f64).max(1.0);
        ((1.0 - self.null_fraction - self.top_fraction()).max(0.0) / others).clamp(0.0, 1.0)
    }

    /// Rows, of all, with any one value.
    pub fn average_fraction(&self) -> f64 {
        ((1.0 - self.null_fraction) / self.ndv.max(1.0)).clamp(0.0, 1.0)
    }
}

/// A value of a column as bytes that order as the values do; `None` for what has no place there.
pub fn key_of(value: &Datum, ty: &FieldType) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(16);
    index_key::encode(value, &KeyPart::new(ty), &mut key).ok()?;
    key.truncate(KEY_BYTES_MAX);
    Some(key)
}
