//! Plans that change rows. Positions in expressions are stated per field; `offset` always means an index into `TableInfo::columns`.
//! Each plan is generic in its reader: logical out of the binder, physical out of the optimizer.

use std::sync::Arc;

use rutile_expr::Expr;

use super::physical::PhysicalPlan;
use crate::catalog::model::TableInfo;

/// INSERT and REPLACE, with VALUES, SET or a query.
#[derive(Debug, Clone)]
pub struct InsertPlan<P = PhysicalPlan> {
    pub db: String,
    pub table: Arc<TableInfo>,
    /// Offsets of the columns the source gives, in the source's order. The other columns take their defaults.
    pub columns: Vec<usize>,
    pub source: InsertSource<P>,
    /// Expression defaults: offset of the column, and the expression over the new row (`Expr::Column(offset)`).
    pub defaults: Vec<(usize, Expr)>,
    /// `ON DUPLICATE KEY UPDATE`. Columns of the expressions, with n = `table.columns.len()`: `0..n` the existing row,
    /// `n..2n` the row that was to be inserted (`VALUES(c)` or the row alias), `2n..` the source query's columns.
    pub on_duplicate: Vec<Assignment>,
    pub ignore: bool,
    pub replace: bool,
}

#[derive(Debug, Clone)]
pub enum InsertSource<P = PhysicalPlan> {
    Values(Vec<Vec<InsertValue>>),
    /// Its output columns match `InsertPlan::columns` one to one.
    Query(Box<P>),
}

#[derive(Debug, Clone)]
pub enum InsertValue {
    /// `Expr::Column(offset)` reads what the row has so far: defaults, then what was assigned to its left. Not yet cast to the column.
    Expr(Expr),
    /// `DEFAULT`, or nothing in `VALUES ()`.
    Default,
}

/// `column = expr`.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Which of the plan's targets; 0 for INSERT.
    pub target: usize,
    /// Offset of the column within the target's table.
    pub column: usize,
    /// `Default` for `SET c = DEFAULT`.
    pub value: InsertValue,
}

/// A table whose rows an UPDATE or DELETE changes, and where its row stands in the reader's output.
#[derive(Debug, Clone)]
pub struct DmlTarget {
    pub db: String,
    pub table: Arc<TableInfo>,
    /// `table.columns[i]` is column `first_column + i` of the reader's output, for all columns of the table.
    pub first_column: usize,
    /// Where the hidden row id (Int64) of a table without a primary key stands.
    pub rowid_column: Option<usize>,
    /// The target is on the inner side of an outer join: a row of nothing but NULLs is no row.
    pub nullable: bool,
}

/// UPDATE of one or several tables.
#[derive(Debug, Clone)]
pub struct UpdatePlan<P = PhysicalPlan> {
    /// Reads the rows to change with every column of the targets, locking them where the transaction is pessimistic.
    pub reader: P,
    pub targets: Vec<DmlTarget>,
    /// In the order written: an expression sees what an assignment to its left has stored. Columns are the reader's output positions
    /// (column ids while `P` is logical).
    pub assignments: Vec<Assignment>,
    pub ignore: bool,
}

/// DELETE from one or several tables.
#[derive(Debug, Clone)]
pub struct DeletePlan<P = PhysicalPlan> {
    pub reader: P,
    pub targets: Vec<DmlTarget>,
    pub ignore: bool,
}
