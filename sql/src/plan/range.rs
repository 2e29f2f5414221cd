//! What part of an index or table a reader visits, kept as conditions so that a cached plan computes its key ranges from each
//! execution's parameters.

use rutile_expr::Expr;

/// Conditions on the leading columns of a key. All columns before the last are fixed to points.
#[derive(Debug, Clone, Default)]
pub struct AccessConditions {
    /// `columns[i]` are the conditions (ANDed) on the i-th key column.
    pub columns: Vec<Vec<RangeExpr>>,
}

/// A condition on one key column against values that do not depend on the row.
#[derive(Debug, Clone)]
pub enum RangeExpr {
    Cmp {
        op: RangeOp,
        value: Expr,
    },
    In(Vec<Expr>),
    IsNull,
    IsNotNull,
    /// `LIKE` with a constant pattern: its literal prefix gives the range.
    Like {
        pattern: Expr,
        escape: Option<char>,
    },
    /// Of alternatives, each a conjunction.
    Or(Vec<Vec<RangeExpr>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeOp {
    Eq,
    /// `<=>`: a NULL value means IS NULL.
    NullEq,
    Lt,
    Le,
    Gt,
    Ge,
}

impl AccessConditions {
    /// The whole table or index.
    pub fn is_full(&self) -> bool {
        self.columns.is_empty()
    }
}
