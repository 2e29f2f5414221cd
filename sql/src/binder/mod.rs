//! Names, types and collations: syntax tree to logical plan.
//!
//! A query block is bound in MySQL's order: FROM, WHERE, the select list, GROUP BY, HAVING, ORDER BY, LIMIT. Every column a node
//! computes has an id unique in the statement, and expressions refer to ids, so that a subquery refers to an outer column like to
//! its own, and the optimizer moves nodes freely. A subquery that depends on nothing outside is run once, before the statement
//! ([`crate::plan::SubqueryPlan`]); the others become semi joins or an Apply.

mod aggregate;
mod default;
mod delete;
mod expr;
mod from;
#[cfg(test)]
mod golden;
mod hints;
mod insert;
mod query;
mod rollup;
mod scope;
mod select;
mod subquery;
mod types;
mod update;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use rutile_expr::Expr;
use rutile_expr::types::FieldType;

use crate::catalog::model::TableInfo;
use crate::context::StatementContext;
use crate::error::{Error, Result};
use crate::optimizer;
use crate::parser::ast;
use crate::plan::explain::titles;
use crate::plan::logical::{Bound, LimitClause, LogicalPlan, LogicalStatement, LogicalSubquery};
use crate::plan::schema::{ColumnId, OutputColumn, Schema};
use crate::plan::{ExplainPlan, Plan, PlanBody};
use scope::{Clause, ScopeChain};

pub use default::bind_defaults;

/// What names and literals are bound against.
#[derive(Clone, Copy)]
pub struct BindContext<'a> {
    pub statement: &'a StatementContext,
    /// Types of the parameters' values; empty while a statement is only prepared.
    pub param_types: &'a [FieldType],
}

/// The types of an execution's parameter values: what a client binds decides, not the place where it is used.
pub fn param_types(eval: &rutile_expr::EvalContext) -> Vec<FieldType> {
    use rutile_expr::types::field_type::LENGTH_UNSPECIFIED;
    use rutile_expr::types::{Collation, Datum, MysqlType};
    let ty = |value: &Datum| match value {
        Datum::Null => FieldType::null(),
        Datum::Int(_) => FieldType::bigint(),
        Datum::UInt(_) => FieldType::bigint_unsigned(),
        Datum::Double(_) => FieldType::double(),
        Datum::Decimal(value) => FieldType::decimal(value.precision(), value.scale()),
        Datum::String(_) => FieldType::varchar(LENGTH_UNSPECIFIED, eval.connection_collation),
        Datum::Bytes(_) => FieldType::varchar(LENGTH_UNSPECIFIED, Collation::Binary),
        Datum::Time(_) => FieldType::new(MysqlType::DateTime).with_decimals(6),
        Datum::Duration(_) => FieldType::time(6),
    };
    eval.params.iter().map(ty).collect()
}

/// The plan of a statement that has one: queries, statements that change rows, EXPLAIN of them.
pub fn plan(statement: &ast::Statement, params: usize, ctx: BindContext<'_>) -> Result<Plan> {
    let ast::Statement::Explain(explain) = statement else {
        return optimizer::optimize(bind(statement, params, ctx)?, &ctx.statement.eval);
    };
    let ast::ExplainTarget::Statement(target) = &explain.target else {
        return Err(Error::not_supported("EXPLAIN FOR CONNECTION"));
    };
    if let Some(format) = explain
        .format
        .as_deref()
        .filter(|format| !matches!(*format, "TRADITIONAL" | "TREE" | "ROW" | "BRIEF"))
    {
        return Err(Error::not_supported(format!("EXPLAIN FORMAT={format}")));
    }
    let target = Box::new(plan(target, params, ctx)?);
    let text = || {
        FieldType::varchar(
            rutile_expr::types::field_type::LENGTH_UNSPECIFIED,
            rutile_expr::types::Collation::DEFAULT,
        )
    };
    let columns = titles(explain.analyze)
        .iter()
        .enumerate()
        .map(|(id, title)| OutputColumn::computed(id, *title, text()));
    let schema = Schema::new(columns.collect());
    let body = PlanBody::Explain(ExplainPlan { analyze: explain.analyze, target, schema });
    let params = ctx.param_types.to_vec();
    Ok(Plan { body, subqueries: Vec::new(), params, cacheable: false, tables: Vec::new() })
}

/// Binds a query or a statement that changes rows.
pub fn bind(statement: &ast::Statement, params: usize, ctx: BindContext<'_>) -> Result<Bound> {
    let mut binder = Binder::new(ctx, params);
    let statement = match statement {
        ast::Statement::Query(query) => {
            let plan = binder.bind_query(query, None)?;
            let rows_max = ctx.statement.settings.select_limit_rows;
            let limit = (rows_max != u64::MAX && query.limit.is_none()).then(|| Expr::int(rows_max as i64));
            LogicalStatement::Query(query::limited(plan, LimitClause { offset: None, count: limit }))
        }
        ast::Statement::Insert(insert) => LogicalStatement::Insert(binder.bind_insert(insert)?),
        ast::Statement::Update(update) => LogicalStatement::Update(binder.bind_update(update)?),
        ast::Statement::Delete(delete) => LogicalStatement::Delete(binder.bind_delete(delete)?),
        ast::Statement::Do(exprs) => LogicalStatement::Query(binder.bind_do(exprs)?),
        other => return Err(Error::internal(format!("no plan for {other:?}"))),
    };
    let params = ctx.param_types.to_vec();
    let tables = binder.tables.into_inner();
    Ok(Bound { statement, subqueries: binder.subqueries, params, cacheable: binder.cacheable, tables })
}

/// Binds an expression that sees no column: the value of SET, of a DEFAULT, of a LIMIT.
pub fn bind_constant(expr: &ast::Expr, ctx: BindContext<'_>) -> Result<Expr> {
    let mut binder = Binder::new(ctx, 0);
    let chain = Rc::new(ScopeChain::default());
    let mut names = ExprScope::new(&chain, Clause::Values);
    let bound = binder.bind_expr(expr, &mut names)?;
    if !binder.subqueries.is_empty() {
        return Err(Error::not_supported("a subquery here"));
    }
    Ok(bound)
}

/// Binds an expression over the columns of one table: `Expr::Column(offset)`. For generated columns and checks.
pub fn bind_over_table(
    expr: &ast::Expr,
    db: &str,
    table: &Arc<TableInfo>,
    ctx: BindContext<'_>,
) -> Result<Expr> {
    let mut binder = Binder::new(ctx, 0);
    let scan = binder.scan_table(db, table, &table.name);
    let mut scope = scope::Scope::default();
    scope.add_table(db, &table.name, scan.schema.columns.iter().cloned().map(|column| (column, true)))?;
    let chain = Rc::new(ScopeChain { scope: Rc::new(scope), outer: None });
    binder.bind_expr(expr, &mut ExprScope::new(&chain, Clause::FieldList))
}

/// The state of binding one statement.
pub(crate) struct Binder<'a> {
    ctx: BindContext<'a>,
    next_id: ColumnId,
    next_slot: usize,
    subqueries: Vec<LogicalSubquery>,
    ctes: Vec<Rc<query::CteScope>>,
    /// Keys of the tables in the statement, for functional dependencies.
    keys: Vec<aggregate::TableKeys>,
    cacheable: bool,
    /// The block being bound assigns user variables: reading one gives its value as of that row.
    assigning: bool,
    /// Types of the variables assigned so far, by name in lower case.
    assigned: HashMap<String, FieldType>,
    /// Scans read what a change of the row needs, too.
    scans_for_write: bool,
    depth: usize,
    /// The tables that were named.
    tables: RefCell<Vec<Arc<TableInfo>>>,
}

/// How deep queries may nest.
const QUERY_DEPTH_MAX: usize = 61;

impl<'a> Binder<'a> {
    fn new(ctx: BindContext<'a>, params: usize) -> Self {
        Binder {
            ctx,
            next_id: 0,
            next_slot: params,
            subqueries: Vec::new(),
            ctes: Vec::new(),
            keys: Vec::new(),
            cacheable: true,
            assigning: false,
            assigned: HashMap::new(),
            scans_for_write: false,
            depth: 0,
            tables: RefCell::default(),
        }
    }

    fn new_id(&mut self) -> ColumnId {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn new_slot(&mut self) -> usize {
        let slot = self.next_slot;
        self.next_slot += 1;
        slot
    }

    /// A computed output column.
    fn output(&mut self, name: &str, ty: FieldType) -> OutputColumn {
        OutputColumn::computed(self.new_id(), name, ty)
    }
}

/// What the names of one clause mean while its expressions are bound, and what binding them asks of the query block.
pub(crate) struct ExprScope<'s> {
    chain: &'s Rc<ScopeChain>,
    clause: Clause,
    /// Aggregate calls met; `None` where they are an error.
    aggregates: Option<&'s mut aggregate::Aggregates>,
    in_aggregate: bool,
    /// The select list, for names in HAVING and ORDER BY.
    items: &'s [select::Item],
    /// Subqueries that need the clause's row.
    applies: Vec<subquery::PendingApply>,
    /// In ON DUPLICATE KEY UPDATE: the id of the new row's first column, for `VALUES(c)`.
    values_row: Option<ColumnId>,
}

impl<'s> ExprScope<'s> {
    fn new(chain: &'s Rc<ScopeChain>, clause: Clause) -> Self {
        ExprScope {
            chain,
            clause,
            aggregates: None,
            in_aggregate: false,
            items: &[],
            applies: Vec::new(),
            values_row: None,
        }
    }

    fn with_aggregates(mut self, aggregates: &'s mut aggregate::Aggregates) -> Self {
        self.aggregates = Some(aggregates);
        self
    }

    fn with_items(mut self, items: &'s [select::Item]) -> Self {
        self.items = items;
        self
    }

    /// For places where a subquery depending on the row has nowhere to run.
    fn reject_applies(self, place: &str) -> Result<()> {
        if self.applies.is_empty() { Ok(()) } else { Err(Error::not_supported(place)) }
    }
}

/// A reference to a column.
fn column_expr(column: &OutputColumn) -> Expr {
    Expr::column(column.id, &column.name, column.ty.clone())
}

/// Puts a filter on a plan, unless there is nothing to filter by.
fn filtered(plan: LogicalPlan, predicates: Vec<Expr>) -> LogicalPlan {
    if predicates.is_empty() { plan } else { LogicalPlan::Filter { input: Box::new(plan), predicates } }
}
