//! An expression as a DataFusion `PhysicalExpr`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion_common::Result as DfResult;
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr_common::physical_expr::PhysicalExpr;

use crate::context::EvalContext;
use crate::expr::{Expr, Volatility};
use crate::types::FieldType;

/// An expression with the context it runs in. Equality looks at the expression only: plans of one statement share one context.
#[derive(Clone)]
pub struct PhysicalExpression {
    expr: Arc<Expr>,
    ctx: Arc<EvalContext>,
    /// Answer truth as `Boolean` instead of 1 and 0.
    predicate: bool,
}

impl PhysicalExpression {
    /// A value. A bare column becomes DataFusion's own column expression, which its operators know to optimize.
    #[must_use]
    pub fn value(expr: Expr, ctx: &Arc<EvalContext>) -> Arc<dyn PhysicalExpr> {
        if let Expr::Column { index, name, .. } = &expr {
            return Arc::new(datafusion_physical_expr::expressions::Column::new(name, *index));
        }
        Arc::new(PhysicalExpression { expr: Arc::new(expr), ctx: ctx.clone(), predicate: false })
    }

    /// A value over an input of this schema, whose names bare columns take.
    #[must_use]
    pub fn over(expr: Expr, input: &Schema, ctx: &Arc<EvalContext>) -> Arc<dyn PhysicalExpr> {
        match &expr {
            Expr::Column { index, .. } if *index < input.fields().len() => {
                let name = input.field(*index).name();
                Arc::new(datafusion_physical_expr::expressions::Column::new(name, *index))
            }
            _ => PhysicalExpression::value(expr, ctx),
        }
    }

    /// A condition: `Boolean`.
    #[must_use]
    pub fn predicate(expr: Expr, ctx: &Arc<EvalContext>) -> Arc<dyn PhysicalExpr> {
        Arc::new(PhysicalExpression { expr: Arc::new(expr), ctx: ctx.clone(), predicate: true })
    }

    /// What to group, join or sort by: the value itself where its Arrow type compares as MySQL does, else its sort key.
    #[must_use]
    pub fn key(expr: Expr, ctx: &Arc<EvalContext>) -> Arc<dyn PhysicalExpr> {
        PhysicalExpression::value(crate::registry::sort_key(expr), ctx)
    }

    /// The expression.
    #[must_use]
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// The MySQL type of its values.
    #[must_use]
    pub fn field_type(&self) -> &FieldType {
        self.expr.field_type()
    }
}

impl fmt::Debug for PhysicalExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expr)
    }
}

impl fmt::Display for PhysicalExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expr)
    }
}

impl PartialEq for PhysicalExpression {
    fn eq(&self, other: &PhysicalExpression) -> bool {
        self.predicate == other.predicate
            && self.expr == other.expr
            && self.expr.volatility() < Volatility::Volatile
    }
}

impl Eq for PhysicalExpression {}

impl Hash for PhysicalExpression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expr.hash(state);
    }
}

impl PhysicalExpr for PhysicalExpression {
    fn data_type(&self, _input_schema: &Schema) -> DfResult<DataType> {
        Ok(if self.predicate { DataType::Boolean } else { self.expr.field_type().arrow() })
    }

    fn nullable(&self, _input_schema: &Schema) -> DfResult<bool> {
        // Outer joins and lenient conversions make NULLs of what was declared NOT NULL: promise nothing.
        Ok(true)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        if self.predicate {
            return Ok(ColumnarValue::Array(Arc::new(self.expr.eval_predicate(&self.ctx, batch)?)));
        }
        Ok(ColumnarValue::Array(self.expr.eval(&self.ctx, batch)?))
    }

    fn return_field(&self, input_schema: &Schema) -> DfResult<FieldRef> {
        let data_type = self.data_type(input_schema)?;
        let nullable = self.nullable(input_schema)?;
        Ok(Arc::new(arrow::datatypes::Field::new(self.expr.to_string(), data_type, nullable)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> DfResult<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expr)
    }

    fn is_volatile_node(&self) -> bool {
        self.expr.volatility() == Volatility::Volatile
    }
}
