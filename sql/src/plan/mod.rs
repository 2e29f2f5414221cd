//! Plans as data: what the binder and the optimizer produce, the executor runs and EXPLAIN prints. No logic that reads or writes.

pub mod dml;
pub mod explain;
pub mod exprs;
pub mod logical;
pub mod physical;
pub mod range;
pub mod schema;

pub use dml::{Assignment, DeletePlan, DmlTarget, InsertPlan, InsertSource, InsertValue, UpdatePlan};
pub use logical::LogicalPlan;
pub use physical::{PhysicalNode, PhysicalPlan};
pub use schema::{ColumnId, OutputColumn, Schema, SchemaRef};

use std::sync::Arc;

use rutile_expr::types::field_type::Family;
use rutile_expr::types::{Datum, FieldType};

use crate::catalog::model::TableInfo;

/// A bound and optimized statement: immutable, shared between the executions of a prepared statement.
#[derive(Debug, Clone)]
pub struct Plan {
    pub body: PlanBody,
    /// Run in this order before the body; each stores its value in a parameter slot the body's expressions read.
    pub subqueries: Vec<SubqueryPlan>,
    /// The types the parameters (`?`) had when it was made; the slots of `subqueries` follow them.
    pub params: Vec<FieldType>,
    /// False when the plan embeds something of this very execution (a folded `NOW()`, a user variable): it must not be cached.
    pub cacheable: bool,
    /// The tables it names.
    pub tables: Vec<Arc<TableInfo>>,
}

#[derive(Debug, Clone)]
pub enum PlanBody {
    Query(PhysicalPlan),
    Insert(InsertPlan),
    Update(UpdatePlan),
    Delete(DeletePlan),
    Explain(ExplainPlan),
}

/// `EXPLAIN [ANALYZE] [FORMAT = …]`.
#[derive(Debug, Clone)]
pub struct ExplainPlan {
    pub analyze: bool,
    pub target: Box<Plan>,
    pub schema: SchemaRef,
}

/// An uncorrelated subquery, run once at the start of the statement.
#[derive(Debug, Clone)]
pub struct SubqueryPlan {
    pub kind: SubqueryKind,
    pub plan: PhysicalPlan,
    /// The parameter slot which receives the value.
    pub slot: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubqueryKind {
    /// The single value of at most one row (error 1242 for more), else NULL.
    Scalar,
    /// 1 when there is a row, else 0.
    Exists,
}

impl Plan {
    /// Whether the plan serves these parameter values: they are of the kinds it was made for.
    pub fn accepts(&self, values: &[Datum]) -> bool {
        let fits = |(ty, value): (&FieldType, &Datum)| match value {
            Datum::Null => true,
            Datum::Int(_) => ty.family() == Family::Int && !ty.unsigned,
            Datum::UInt(_) => ty.family() == Family::Int && ty.unsigned,
            Datum::Double(_) => ty.family() == Family::Double,
            Datum::Decimal(value) => *ty == FieldType::decimal(value.precision(), value.scale()),
            Datum::String(_) => ty.is_string() && !ty.is_binary_string(),
            Datum::Bytes(_) => ty.is_binary_string(),
            Datum::Time(_) => ty.family() == Family::Time,
            Datum::Duration(_) => ty.family() == Family::Duration,
        };
        self.params.len() == values.len() && self.params.iter().zip(values).all(fits)
    }

    /// The result set's columns; empty for statements that answer OK.
    pub fn schema(&self) -> SchemaRef {
        match &self.body {
            PlanBody::Query(plan) => plan.schema.clone(),
            PlanBody::Explain(plan) => plan.schema.clone(),
            PlanBody::Insert(_) | PlanBody::Update(_) | PlanBody::Delete(_) => Schema::empty(),
        }
    }
}
