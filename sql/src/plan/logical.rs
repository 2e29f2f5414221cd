//! The binder's output: relational algebra over column ids (see [`ColumnId`]).

use std::sync::Arc;

use rutile_expr::types::FieldType;
use rutile_expr::{Expr, agg};

use super::schema::{ColumnId, OutputColumn, Schema, SchemaRef};
use crate::catalog::model::TableInfo;
use crate::statistics::{TableStats, selectivity};

/// A node of the logical tree. Expressions refer to columns by id, so a node can move without renumbering.
#[derive(Debug, Clone)]
pub enum LogicalPlan {
    Scan(Scan),
    /// Rows of expressions; one row of no columns is `DUAL`.
    Values {
        rows: Vec<Vec<Expr>>,
        schema: SchemaRef,
    },
    Filter {
        input: Box<LogicalPlan>,
        predicates: Vec<Expr>,
    },
    /// `exprs[i]` computes `schema.columns[i]`; a bare column keeps its id.
    Project {
        input: Box<LogicalPlan>,
        exprs: Vec<Expr>,
        schema: SchemaRef,
    },
    Join(Join),
    Aggregate(Aggregate),
    /// One row of each set of equal rows.
    Distinct {
        input: Box<LogicalPlan>,
    },
    Sort {
        input: Box<LogicalPlan>,
        keys: Vec<SortKey>,
    },
    Limit {
        input: Box<LogicalPlan>,
        limit: LimitClause,
    },
    /// `UNION ALL`: the inputs' columns in order are `schema`'s; a distinct union has a `Distinct` above.
    Union {
        inputs: Vec<LogicalPlan>,
        schema: SchemaRef,
    },
    /// Runs `inner` once per row of `outer`, for subqueries that depend on the row.
    Apply(Apply),
}

/// Reading a stored or a virtual table.
#[derive(Debug, Clone)]
pub struct Scan {
    pub db: String,
    pub alias: String,
    pub table: Arc<TableInfo>,
    /// The columns read; `offsets[i]` is where `schema.columns[i]` stands in `table.columns`, [`ROWID_OFFSET`] for the hidden row id.
    pub offsets: Vec<usize>,
    pub schema: SchemaRef,
    /// Conditions pushed down to the table, ANDed.
    pub filters: Vec<Expr>,
    pub lock: Option<LockClause>,
    /// A table of information_schema.
    pub is_virtual: bool,
    pub hints: Vec<IndexHint>,
    /// Rows wanted at most, in any order.
    pub limit: Option<LimitClause>,
    /// How a hint wants it joined, where it is the inner side.
    pub join_method: Option<JoinMethod>,
    /// What is known of the table's values.
    pub stats: Arc<TableStats>,
}

impl Scan {
    /// Where a column of the scan stands in the table.
    pub fn offset_of(&self, id: ColumnId) -> Option<usize> {
        let place = self.schema.position(id)?;
        self.offsets.get(place).copied().filter(|offset| *offset != ROWID_OFFSET)
    }

    /// What part of the table's rows passes these conditions; they may be about the scan's columns only.
    pub fn selectivity(&self, filters: &[Expr]) -> f64 {
        selectivity::of(&self.stats, &self.table, &|id| self.offset_of(id), filters)
    }

    /// Rows that pass the scan's own conditions; at least 1.
    pub fn rows(&self) -> f64 {
        (self.stats.rows * self.selectivity(&self.filters)).max(1.0)
    }

    /// Different values of a column among all the table's rows; `None` if the scan does not read it.
    pub fn ndv(&self, id: ColumnId) -> Option<f64> {
        Some(self.stats.ndv(&self.table, self.offset_of(id)?))
    }
}

/// `Scan::offsets` entry of the hidden row id.
pub const ROWID_OFFSET: usize = usize::MAX;

/// `INL_JOIN(t)`, `HASH_JOIN(t)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinMethod {
    Index,
    Hash,
}

/// `USE | FORCE | IGNORE INDEX (…)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexHint {
    pub kind: IndexHintKind,
    pub indexes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexHintKind {
    Use,
    Force,
    Ignore,
}

/// `FOR UPDATE`, `FOR SHARE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockClause {
    pub exclusive: bool,
    pub wait: LockWait,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockWait {
    /// For `innodb_lock_wait_timeout`.
    Default,
    NoWait,
    SkipLocked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    /// Left rows with a match.
    Semi,
    /// Left rows without a match.
    Anti,
    /// `NOT IN`: nothing passes when the right side holds a NULL, nor does a left NULL unless the right side is empty.
    NullAwareAnti,
    /// All left rows, each with a last column that is 1 where it has a match, else 0.
    Mark,
}

#[derive(Debug, Clone)]
pub struct Join {
    pub kind: JoinKind,
    pub left: Box<LogicalPlan>,
    pub right: Box<LogicalPlan>,
    /// The ON clause, ANDed; the optimizer takes the equalities to hash out of it.
    pub filter: Vec<Expr>,
    pub schema: SchemaRef,
    /// `STRAIGHT_JOIN`: the left side is read first.
    pub straight: bool,
}

#[derive(Debug, Clone)]
pub struct Aggregate {
    pub input: Box<LogicalPlan>,
    /// `group[i]` computes `schema.columns[i]`; the calls follow.
    pub group: Vec<Expr>,
    pub calls: Vec<AggregateCall>,
    pub schema: SchemaRef,
}

/// One aggregate function of a query block.
#[derive(Debug, Clone)]
pub struct AggregateCall {
    /// Lower case: `count`, `sum`, `first_row` (any value of the group), …
    pub name: String,
    /// Empty for `COUNT(*)`.
    pub args: Vec<Expr>,
    pub distinct: bool,
    /// `GROUP_CONCAT(… ORDER BY …)`.
    pub order_by: Vec<SortKey>,
    /// `GROUP_CONCAT(… SEPARATOR '…')`.
    pub separator: Option<String>,
    pub output: OutputColumn,
}

impl AggregateCall {
    /// The call as the expression library knows it.
    pub fn resolvable(&self) -> agg::AggregateCall {
        let name = if self.name == "first_row" { "any_value" } else { &self.name };
        agg::AggregateCall {
            name: name.to_owned(),
            args: self.args.clone(),
            distinct: self.distinct,
            order_by: self.order_by.iter().map(|key| (key.expr.clone(), key.desc)).collect(),
            separator: self.separator.clone(),
        }
    }

    /// A call without DISTINCT or an order.
    pub fn new(name: &str, args: Vec<Expr>, output: OutputColumn) -> Self {
        let name = name.to_owned();
        AggregateCall { name, args, distinct: false, order_by: Vec::new(), separator: None, output }
    }
}

#[derive(Debug, Clone)]
pub struct SortKey {
    pub expr: Expr,
    pub desc: bool,
}

/// `LIMIT`: literals or parameters.
#[derive(Debug, Clone, Default)]
pub struct LimitClause {
    pub offset: Option<Expr>,
    pub count: Option<Expr>,
}

#[derive(Debug, Clone)]
pub struct Apply {
    pub outer: Box<LogicalPlan>,
    pub inner: Box<LogicalPlan>,
    pub kind: super::SubqueryKind,
    /// Outer columns the inner plan reads, each with the parameter slot that stands for it there.
    pub bindings: Vec<(ColumnId, usize)>,
    /// The outer columns and the subquery's value.
    pub schema: SchemaRef,
}

impl LogicalPlan {
    /// The columns this node outputs.
    pub fn schema(&self) -> &SchemaRef {
        match self {
            LogicalPlan::Scan(scan) => &scan.schema,
            LogicalPlan::Values { schema, .. }
            | LogicalPlan::Project { schema, .. }
            | LogicalPlan::Union { schema, .. } => schema,
            LogicalPlan::Filter { input, .. }
            | LogicalPlan::Distinct { input }
            | LogicalPlan::Sort { input, .. }
            | LogicalPlan::Limit { input, .. } => input.schema(),
            LogicalPlan::Join(join) => &join.schema,
            LogicalPlan::Aggregate(aggregate) => &aggregate.schema,
            LogicalPlan::Apply(apply) => &apply.schema,
        }
    }

    /// One row without columns.
    pub fn dual() -> Self {
        LogicalPlan::Values { rows: vec![Vec::new()], schema: Schema::empty() }
    }
}

/// An uncorrelated subquery: see [`super::SubqueryPlan`].
#[derive(Debug, Clone)]
pub struct LogicalSubquery {
    pub kind: super::SubqueryKind,
    pub plan: LogicalPlan,
    pub slot: usize,
}

/// A bound statement, before optimization.
#[derive(Debug, Clone)]
pub enum LogicalStatement {
    Query(LogicalPlan),
    Insert(super::dml::InsertPlan<LogicalPlan>),
    Update(super::dml::UpdatePlan<LogicalPlan>),
    Delete(super::dml::DeletePlan<LogicalPlan>),
}

/// A bound statement with the subqueries to run before it.
#[derive(Debug, Clone)]
pub struct Bound {
    pub statement: LogicalStatement,
    pub subqueries: Vec<LogicalSubquery>,
    pub params: Vec<FieldType>,
    /// See [`super::Plan::cacheable`].
    pub cacheable: bool,
    /// The tables it names.
    pub tables: Vec<Arc<crate::catalog::model::TableInfo>>,
}
