//! Queries.

use super::{Expr, Ident, LoadFormat, ObjectName, OrderItem};

/// A query expression with what surrounds it: `[WITH …] body [ORDER BY …] [LIMIT …] [INTO …] [FOR UPDATE …]`.
/// For a single `SELECT` the order and limit written after it are here, never inside `Select`.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub with: Option<With>,
    pub body: SetExpr,
    pub order_by: Vec<OrderItem>,
    pub limit: Option<Limit>,
    pub locking: Vec<Locking>,
    pub into: Option<IntoClause>,
}

impl Query {
    /// A query that is nothing but this body.
    pub fn plain(body: SetExpr) -> Self {
        Self { with: None, body, order_by: Vec::new(), limit: None, locking: Vec::new(), into: None }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct With {
    pub recursive: bool,
    pub ctes: Vec<Cte>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Cte {
    pub name: Ident,
    pub columns: Vec<Ident>,
    pub query: Query,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SetExpr {
    Select(Box<Select>),
    /// `VALUES ROW(…), ROW(…)`
    Values(Vec<Vec<Expr>>),
    /// `TABLE name`
    Table(ObjectName),
    /// A parenthesised query, whose own ORDER BY and LIMIT stay inside.
    Query(Box<Query>),
    SetOp {
        op: SetOp,
        all: bool,
        left: Box<SetExpr>,
        right: Box<SetExpr>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOp {
    Union,
    Intersect,
    Except,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Select {
    pub distinct: bool,
    pub straight_join: bool,
    /// `SQL_CALC_FOUND_ROWS`
    pub calc_found_rows: bool,
    /// The text inside `/*+ … */`.
    pub hints: Option<String>,
    pub items: Vec<SelectItem>,
    /// Comma-separated table references; empty without FROM (or with FROM DUAL).
    pub from: Vec<TableRef>,
    pub where_: Option<Expr>,
    pub group_by: Vec<OrderItem>,
    pub with_rollup: bool,
    pub having: Option<Expr>,
    pub windows: Vec<(Ident, Window)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SelectItem {
    /// `*`
    Wildcard,
    /// `[schema.]table.*`
    TableWildcard(ObjectName),
    /// An expression. `title` is the result column's name: the alias if there is one, else what MySQL derives
    /// from the source text (a column's last name part, a string's content, otherwise the text itself).
    Expr { expr: Expr, alias: Option<Ident>, title: String },
}

#[derive(Debug, Clone, PartialEq)]
pub enum TableRef {
    Table(TableFactor),
    /// `[LATERAL] (query) [AS] alias [(columns)]`
    Derived {
        query: Box<Query>,
        alias: Ident,
        columns: Vec<Ident>,
        lateral: bool,
    },
    Join(Box<Join>),
    /// `(a, b, …)`: a cross join of a parenthesised list.
    List(Vec<TableRef>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct TableFactor {
    pub name: ObjectName,
    pub alias: Option<Ident>,
    pub partitions: Vec<Ident>,
    pub index_hints: Vec<IndexHint>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct IndexHint {
    pub kind: IndexHintKind,
    pub scope: IndexHintScope,
    pub indexes: Vec<Ident>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexHintKind {
    Use,
    Ignore,
    Force,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexHintScope {
    All,
    Join,
    OrderBy,
    GroupBy,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    pub kind: JoinKind,
    pub left: TableRef,
    pub right: TableRef,
    pub constraint: JoinConstraint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// `JOIN`, `INNER JOIN`, `CROSS JOIN`: all the same in MySQL.
    Inner,
    /// `STRAIGHT_JOIN`
    Straight,
    Left,
    Right,
}

#[derive(Debug, Clone, PartialEq)]
pub enum JoinConstraint {
    None,
    On(Expr),
    Using(Vec<Ident>),
    Natural,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// A literal, parameter or (in routines) variable.
    pub count: Expr,
    pub offset: Option<Expr>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Locking {
    pub strength: LockStrength,
    pub of: Vec<ObjectName>,
    pub wait: LockWait,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockStrength {
    Update,
    Share,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockWait {
    Wait,
    NoWait,
    SkipLocked,
}

#[derive(Debug, Clone, PartialEq)]
pub enum IntoClause {
    Outfile {
        path: String,
        format: Box<LoadFormat>,
    },
    Dumpfile(String),
    /// `INTO @a, @b`
    Vars(Vec<String>),
}

/// A window specification.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Window {
    pub base: Option<Ident>,
    pub partition_by: Vec<Expr>,
    pub order_by: Vec<OrderItem>,
    pub frame: Option<Frame>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    pub unit: FrameUnit,
    pub start: FrameBound,
    /// Without `BETWEEN … AND …` the end is `CurrentRow`.
    pub end: FrameBound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameUnit {
    Rows,
    Range,
}

#[derive(Debug, Clone, PartialEq)]
pub enum FrameBound {
    UnboundedPreceding,
    Preceding(Expr),
    CurrentRow,
    Following(Expr),
    UnboundedFollowing,
}
