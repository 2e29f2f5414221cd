//! Statements that change rows.

use super::{ColumnName, Expr, Ident, Limit, ObjectName, OrderItem, Query, TableRef, With};

/// `INSERT` and `REPLACE`.
#[derive(Debug, Clone, PartialEq)]
pub struct Insert {
    pub replace: bool,
    pub ignore: bool,
    pub priority: Priority,
    pub table: ObjectName,
    pub partitions: Vec<Ident>,
    /// Empty: all columns in order. The `SET a = 1` form is turned into one row of values.
    pub columns: Vec<Ident>,
    /// Whether a column list was written (`INSERT INTO t () VALUES ()` has an empty one).
    pub has_columns: bool,
    pub source: InsertSource,
    /// `AS row [(columns)]` before ON DUPLICATE KEY UPDATE.
    pub row_alias: Option<(Ident, Vec<Ident>)>,
    pub on_duplicate: Vec<Assignment>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum InsertSource {
    /// A value `DEFAULT` is `Expr::Default(None)`.
    Values(Vec<Vec<Expr>>),
    Query(Box<Query>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    #[default]
    Normal,
    Low,
    High,
    Delayed,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    pub column: ColumnName,
    pub value: Expr,
}

/// `UPDATE`, of one or several tables.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    pub with: Option<With>,
    pub ignore: bool,
    pub low_priority: bool,
    pub from: Vec<TableRef>,
    pub assignments: Vec<Assignment>,
    pub where_: Option<Expr>,
    pub order_by: Vec<OrderItem>,
    pub limit: Option<Limit>,
}

/// `DELETE`, of one table or several.
#[derive(Debug, Clone, PartialEq)]
pub struct Delete {
    pub with: Option<With>,
    pub ignore: bool,
    pub low_priority: bool,
    pub quick: bool,
    /// The tables or aliases rows are deleted from; empty in the single-table form, where it is `from`'s only table.
    pub targets: Vec<ObjectName>,
    pub from: Vec<TableRef>,
    pub where_: Option<Expr>,
    pub order_by: Vec<OrderItem>,
    pub limit: Option<Limit>,
}

/// `LOAD DATA [LOCAL] INFILE`
#[derive(Debug, Clone, PartialEq)]
pub struct LoadData {
    pub local: bool,
    pub path: String,
    pub on_conflict: LoadConflict,
    pub table: ObjectName,
    pub partitions: Vec<Ident>,
    pub format: LoadFormat,
    /// `IGNORE n LINES`
    pub skip_lines: u64,
    pub columns: Vec<LoadTarget>,
    pub assignments: Vec<Assignment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadConflict {
    /// Nothing written: an error (or, with LOCAL, as IGNORE).
    Error,
    Replace,
    Ignore,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadTarget {
    Column(Ident),
    UserVar(String),
}

/// `CHARACTER SET`, `FIELDS …` and `LINES …` of LOAD DATA and SELECT INTO OUTFILE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadFormat {
    pub charset: Option<String>,
    pub fields_terminated: Vec<u8>,
    /// Empty: no enclosing character.
    pub enclosed: Vec<u8>,
    pub optionally_enclosed: bool,
    /// Empty: no escape character.
    pub escaped: Vec<u8>,
    pub lines_starting: Vec<u8>,
    pub lines_terminated: Vec<u8>,
}

impl Default for LoadFormat {
    fn default() -> Self {
        Self {
            charset: None,
            fields_terminated: b"\t".to_vec(),
            enclosed: Vec::new(),
            optionally_enclosed: false,
            escaped: b"\\".to_vec(),
            lines_starting: Vec::new(),
            lines_terminated: b"\n".to_vec(),
        }
    }
}
