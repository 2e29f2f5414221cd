//! The optimizer's output: which operator and which access path. Expressions refer to columns by their position in the
//! input batch. A physical plan holds no value of an execution, so a prepared statement reuses it.

use std::sync::Arc;

use rutile_expr::Expr;
pub use rutile_expr::store_plan::aggregate::Stage;

use super::logical::{AggregateCall, JoinKind, LimitClause, LockClause, SortKey};
use super::range::AccessConditions;
use super::schema::SchemaRef;
use crate::catalog::model::{IndexInfo, TableInfo};

#[derive(Debug, Clone)]
pub struct PhysicalPlan {
    pub node: PhysicalNode,
    pub schema: SchemaRef,
    /// Estimated number of output rows.
    pub rows: f64,
}

#[derive(Debug, Clone)]
pub enum PhysicalNode {
    PointGet(PointGet),
    BatchPointGet(BatchPointGet),
    TableReader(TableReader),
    IndexReader(IndexReader),
    IndexLookup(IndexLookup),
    /// A table of information_schema.
    MemTable(MemTable),
    Values {
        rows: Vec<Vec<Expr>>,
    },
    Filter {
        input: Box<PhysicalPlan>,
        predicates: Vec<Expr>,
    },
    Project {
        input: Box<PhysicalPlan>,
        exprs: Vec<Expr>,
    },
    HashJoin(HashJoin),
    /// Neither side has an equality to hash.
    LoopJoin(LoopJoin),
    IndexJoin(IndexJoin),
    Aggregate(AggregateNode),
    Sort {
        input: Box<PhysicalPlan>,
        keys: Vec<SortKey>,
        limit: Option<LimitClause>,
    },
    Limit {
        input: Box<PhysicalPlan>,
        limit: LimitClause,
    },
    Union {
        inputs: Vec<PhysicalPlan>,
    },
    Apply(Apply),
    /// Runs its input in the stores that hold the rows, region by region.
    Gather(Gather),
}

/// What a reader takes from a table. Output column i is `table.columns[offsets[i]]`.
#[derive(Debug, Clone)]
pub struct TableAccess {
    pub db: String,
    pub alias: String,
    pub table: Arc<TableInfo>,
    pub offsets: Vec<usize>,
}

/// The row of one primary or unique key: executed without an operator tree.
#[derive(Debug, Clone)]
pub struct PointGet {
    pub access: TableAccess,
    /// The columns of `access`.
    pub columns: SchemaRef,
    pub key: PointKey,
    /// Remaining conditions, over these columns.
    pub filter: Vec<Expr>,
    /// Computed output; `None` when the columns are the output as they are.
    pub project: Option<Vec<Expr>>,
    pub lock: Option<LockClause>,
}

/// Several of them (`IN`).
#[derive(Debug, Clone)]
pub struct BatchPointGet {
    pub access: TableAccess,
    pub keys: Vec<PointKey>,
    pub filter: Vec<Expr>,
    pub lock: Option<LockClause>,
}

/// One key's values: literals or parameters, one per key column.
#[derive(Debug, Clone)]
pub struct PointKey {
    /// `None`: the primary key that is the row's handle.
    pub index: Option<Arc<IndexInfo>>,
    pub values: Vec<Expr>,
}

/// Rows of ranges of handles.
#[derive(Debug, Clone)]
pub struct TableReader {
    pub access: TableAccess,
    pub conditions: AccessConditions,
    pub filter: Vec<Expr>,
    pub desc: bool,
    /// The parent relies on the order of keys.
    pub keep_order: bool,
    pub limit: Option<LimitClause>,
    pub lock: Option<LockClause>,
    /// Estimated number of rows looked at.
    pub scanned: f64,
}

/// Rows restored from an index alone.
#[derive(Debug, Clone)]
pub struct IndexReader {
    pub access: TableAccess,
    pub index: Arc<IndexInfo>,
    pub conditions: AccessConditions,
    pub filter: Vec<Expr>,
    pub desc: bool,
    pub keep_order: bool,
    pub limit: Option<LimitClause>,
    /// Estimated number of entries looked at.
    pub scanned: f64,
}

/// Handles from an index, then their rows.
#[derive(Debug, Clone)]
pub struct IndexLookup {
    pub access: TableAccess,
    pub index: Arc<IndexInfo>,
    pub conditions: AccessConditions,
    pub filter: Vec<Expr>,
    pub desc: bool,
    pub keep_order: bool,
    pub limit: Option<LimitClause>,
    pub lock: Option<LockClause>,
}

#[derive(Debug, Clone)]
pub struct MemTable {
    pub access: TableAccess,
    pub filter: Vec<Expr>,
}

/// Builds a hash table of the left side. Output: the left columns, then the right ones (semi and anti joins: the left ones).
#[derive(Debug, Clone)]
pub struct HashJoin {
    pub kind: JoinKind,
    pub left: Box<PhysicalPlan>,
    pub right: Box<PhysicalPlan>,
    /// Pairs of expressions over the left and over the right input.
    pub on: Vec<(Expr, Expr)>,
    /// NULL matches NULL (`<=>`).
    pub null_equal: bool,
    /// Over the concatenation of both inputs' columns.
    pub filter: Vec<Expr>,
    /// Of a semi or anti join: the right side is kept in memory, instead of the left one.
    pub build_right: bool,
}

#[derive(Debug, Clone)]
pub struct LoopJoin {
    pub kind: JoinKind,
    pub left: Box<PhysicalPlan>,
    pub right: Box<PhysicalPlan>,
    pub filter: Vec<Expr>,
}

/// Looks the outer rows' keys up in a table, some hundred at a time. Output as of [`HashJoin`], the outer side being the left.
#[derive(Debug, Clone)]
pub struct IndexJoin {
    /// Inner, left, semi or anti.
    pub kind: JoinKind,
    pub outer: Box<PhysicalPlan>,
    /// A reader; its conditions are replaced by the keys of each batch.
    pub inner: Box<PhysicalPlan>,
    /// Over the outer input: the value of the reader's first key column.
    pub key: Expr,
    pub on: Vec<(Expr, Expr)>,
    /// Over the concatenation of both inputs' columns.
    pub filter: Vec<Expr>,
}

/// Output: the group columns, then the calls.
#[derive(Debug, Clone)]
pub struct AggregateNode {
    /// In two stages: a final one over the [`Gather`] of a partial one with the same groups and calls, which are expressions over the
    /// partial one's input in both. What a partial one gives are states: its schema names what they become.
    pub stage: Stage,
    pub input: Box<PhysicalPlan>,
    pub group: Vec<Expr>,
    pub calls: Vec<AggregateCall>,
}

/// A chain over one reader. Where stores cannot do it (own writes of the transaction, the switch `rutile_coprocessor`), the same chain
/// runs here.
#[derive(Debug, Clone)]
pub struct Gather {
    pub input: Box<PhysicalPlan>,
    /// The parent relies on the order of keys.
    pub keep_order: bool,
}

#[derive(Debug, Clone)]
pub struct Apply {
    pub outer: Box<PhysicalPlan>,
    pub inner: Box<PhysicalPlan>,
    pub kind: super::SubqueryKind,
    /// Positions of outer columns and the parameter slots they fill.
    pub bindings: Vec<(usize, usize)>,
}

impl PhysicalPlan {
    /// The node's inputs, left to right.
    pub fn inputs(&self) -> Vec<&PhysicalPlan> {
        match &self.node {
            PhysicalNode::PointGet(_)
            | PhysicalNode::BatchPointGet(_)
            | PhysicalNode::TableReader(_)
            | PhysicalNode::IndexReader(_)
            | PhysicalNode::IndexLookup(_)
            | PhysicalNode::MemTable(_)
            | PhysicalNode::Values { .. } => Vec::new(),
            PhysicalNode::Filter { input, .. }
            | PhysicalNode::Project { input, .. }
            | PhysicalNode::Sort { input, .. }
            | PhysicalNode::Limit { input, .. } => vec![input],
            PhysicalNode::Aggregate(aggregate) => vec![&aggregate.input],
            PhysicalNode::HashJoin(join) => vec![&join.left, &join.right],
            PhysicalNode::LoopJoin(join) => vec![&join.left, &join.right],
            PhysicalNode::IndexJoin(join) => vec![&join.outer, &join.inner],
            PhysicalNode::Gather(gather) => vec![&gather.input],
            PhysicalNode::Union { inputs } => inputs.iter().collect(),
            PhysicalNode::Apply(apply) => vec![&apply.outer, &apply.inner],
        }
    }
}
