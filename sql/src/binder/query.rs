//! Query expressions: WITH, set operations, VALUES, and the ORDER BY and LIMIT around them.

use std::rc::Rc;

use rutile_expr::Expr;

use super::scope::{Clause, Scope, ScopeChain, same};
use super::{Binder, ExprScope, QUERY_DEPTH_MAX, column_expr};
use crate::error::{Error, Result};
use crate::parser::ast;
use crate::plan::logical::{Join, JoinKind, LimitClause, LogicalPlan, SortKey};
use crate::plan::schema::{OutputColumn, Schema};

/// A common table expression in scope, bound anew wherever it is used.
pub(super) struct CteScope {
    pub name: String,
    pub columns: Vec<String>,
    query: ast::Query,
    /// How many expressions precede it and are visible in it.
    visible: usize,
}

impl Binder<'_> {
    /// Binds a query with everything around it.
    pub(super) fn bind_query(
        &mut self,
        query: &ast::Query,
        outer: Option<&Rc<ScopeChain>>,
    ) -> Result<LogicalPlan> {
        if self.depth >= QUERY_DEPTH_MAX {
            return Err(Error::TooDeep);
        }
        // The session takes the rows of an outermost INTO.
        if query.into.is_some() && (self.depth > 0 || outer.is_some()) {
            return Err(Error::WrongUsage { left: "INTO".to_owned(), right: "subquery".to_owned() });
        }
        let ctes_before = self.ctes.len();
        if let Some(with) = &query.with {
            self.add_ctes(with)?;
        }
        self.depth += 1;
        let plan = self.bind_body(query, outer);
        self.depth -= 1;
        self.ctes.truncate(ctes_before);
        plan
    }

    pub(super) fn add_ctes(&mut self, with: &ast::With) -> Result<()> {
        let first = self.ctes.len();
        for cte in &with.ctes {
            if self.ctes[first..].iter().any(|other| same(&other.name, &cte.name)) {
                return Err(Error::NonUniqTable { table: cte.name.clone() });
            }
            if with.recursive && mentions(&cte.query.body, &cte.name) {
                return Err(Error::not_supported("WITH RECURSIVE"));
            }
            let visible = self.ctes.len();
            let (name, columns) = (cte.name.clone(), cte.columns.clone());
            self.ctes.push(Rc::new(CteScope { name, columns, query: cte.query.clone(), visible }));
        }
        Ok(())
    }

    pub(super) fn find_cte(&self, name: &str) -> Option<Rc<CteScope>> {
        self.ctes.iter().rev().find(|cte| same(&cte.name, name)).cloned()
    }

    pub(super) fn bind_cte(&mut self, cte: &CteScope) -> Result<LogicalPlan> {
        let hidden = self.ctes.split_off(cte.visible);
        let writes = std::mem::replace(&mut self.scans_for_write, false);
        let plan = self.bind_query(&cte.query, None);
        self.scans_for_write = writes;
        self.ctes.truncate(cte.visible);
        self.ctes.extend(hidden);
        plan
    }

    fn bind_body(&mut self, query: &ast::Query, outer: Option<&Rc<ScopeChain>>) -> Result<LogicalPlan> {
        let limit = self.bind_limit(query.limit.as_ref())?;
        if let ast::SetExpr::Select(select) = &query.body {
            return self.bind_select(select, &query.order_by, limit, &query.locking, outer);
        }
        let plan = self.bind_set_expr(&query.body, outer)?;
        self.order_and_limit(plan, &query.order_by, limit, outer)
    }

    fn bind_set_expr(&mut self, body: &ast::SetExpr, outer: Option<&Rc<ScopeChain>>) -> Result<LogicalPlan> {
        match body {
            ast::SetExpr::Select(select) => self.bind_select(select, &[], LimitClause::default(), &[], outer),
            ast::SetExpr::Query(query) => self.bind_query(query, outer),
            ast::SetExpr::Values(rows) => self.bind_values(rows, outer),
            ast::SetExpr::Table(name) => {
                let factor = ast::TableFactor {
                    name: name.clone(),
                    alias: None,
                    partitions: Vec::new(),
                    index_hints: Vec::new(),
                };
                let select = ast::Select {
                    items: vec![ast::SelectItem::Wildcard],
                    from: vec![ast::TableRef::Table(factor)],
                    ..ast::Select::default()
                };
                self.bind_select(&select, &[], LimitClause::default(), &[], outer)
            }
            ast::SetExpr::SetOp { op: ast::SetOp::Union, all, left, right } => {
                self.bind_union(*all, left, right, outer)
            }
            ast::SetExpr::SetOp { all: true, .. } => {
                Err(Error::not_supported("INTERSECT ALL and EXCEPT ALL"))
            }
            ast::SetExpr::SetOp { op, left, right, .. } => {
                let kind = if *op == ast::SetOp::Intersect { JoinKind::Semi } else { JoinKind::Anti };
                self.bind_set_join(kind, left, right, outer)
            }
        }
    }

    /// INTERSECT and EXCEPT: the distinct left rows with (without) an equal right one, NULL being equal to NULL.
    fn bind_set_join(
        &mut self,
        kind: JoinKind,
        left: &ast::SetExpr,
        right: &ast::SetExpr,
        outer: Option<&Rc<ScopeChain>>,
    ) -> Result<LogicalPlan> {
        let (left, right, _) = self.bind_sides(left, right, outer)?;
        let left = LogicalPlan::Distinct { input: Box::new(left) };
        let pairs = left.schema().columns.iter().zip(&right.schema().columns);
        let filter = pairs
            .map(|(l, r)| self.call("<=>", vec![column_expr(l), column_expr(r)]))
            .collect::<Result<_>>()?;
        let schema = left.schema().clone();
        let (left, right) = (Box::new(left), Box::new(right));
        Ok(LogicalPlan::Join(Join { kind, left, right, filter, schema, straight: false }))
    }

    fn bind_union(
        &mut self,
        all: bool,
        left: &ast::SetExpr,
        right: &ast::SetExpr,
        outer: Option<&Rc<ScopeChain>>,
    ) -> Result<LogicalPlan> {
        let (left, right, columns) = self.bind_sides(left, right, outer)?;
        let union = LogicalPlan::Union { inputs: vec![left, right], schema: Schema::new(columns) };
        Ok(if all { union } else { LogicalPlan::Distinct { input: Box::new(union) } })
    }

    /// Both sides of a set operation brought to common types, and the columns of the result.
    fn bind_sides(
        &mut self,
        left: &ast::SetExpr,
        right: &ast::SetExpr,
        outer: Option<&Rc<ScopeChain>>,
    ) -> Result<(LogicalPlan, LogicalPlan, Vec<OutputColumn>)> {
        let left = self.bind_set_expr(left, outer)?;
        let right = self.bind_set_expr(right, outer)?;
        if left.schema().len() != right.schema().len() {
            return Err(Error::WrongNumberOfColumns);
        }
        let mut columns = Vec::with_capacity(left.schema().len());
        for (l, r) in left.schema().columns.iter().zip(&right.schema().columns) {
            let ty = self.unify(&l.ty, &r.ty)?;
            columns.push(OutputColumn::computed(self.new_id(), l.name.clone(), ty));
        }
        Ok((self.cast_to(left, &columns)?, self.cast_to(right, &columns)?, columns))
    }

    /// Brings a plan's columns to the types of `columns`.
    fn cast_to(&mut self, plan: LogicalPlan, columns: &[OutputColumn]) -> Result<LogicalPlan> {
        let schema = plan.schema().clone();
        let same_types = schema
            .columns
            .iter()
            .zip(columns)
            .all(|(have, want)| super::types::same_representation(&have.ty, &want.ty));
        if same_types {
            return Ok(plan);
        }
        let (mut exprs, mut outputs) = (Vec::new(), Vec::new());
        for (have, want) in schema.columns.iter().zip(columns) {
            let cast = self.cast(column_expr(have), &want.ty)?;
            outputs.push(OutputColumn::computed(self.new_id(), want.name.clone(), want.ty.clone()));
            exprs.push(cast);
        }
        Ok(LogicalPlan::Project { input: Box::new(plan), exprs, schema: Schema::new(outputs) })
    }

    fn bind_values(
        &mut self,
        rows: &[Vec<ast::Expr>],
        outer: Option<&Rc<ScopeChain>>,
    ) -> Result<LogicalPlan> {
        let chain = Rc::new(ScopeChain { scope: Rc::new(Scope::default()), outer: outer.cloned() });
        let mut names = ExprScope::new(&chain, Clause::FieldList);
        let mut bound: Vec<Vec<Expr>> = Vec::with_capacity(rows.len());
        for (i, row) in rows.iter().enumerate() {
            if row.len() != rows[0].len() {
                return Err(Error::WrongValueCountOnRow { row: i + 1 });
            }
            bound.push(row.iter().map(|expr| self.bind_expr(expr, &mut names)).collect::<Result<_>>()?);
        }
        names.reject_applies("a correlated subquery in VALUES")?;
        let mut columns = Vec::new();
        for i in 0..bound[0].len() {
            let mut ty = bound[0][i].field_type().clone();
            for row in &bound[1..] {
                ty = self.unify(&ty, row[i].field_type())?;
            }
            columns.push(self.output(&format!("column_{i}"), ty));
        }
        for row in &mut bound {
            for (value, column) in row.iter_mut().zip(&columns) {
                *value = self.cast(value.clone(), &column.ty)?;
            }
        }
        Ok(LogicalPlan::Values { rows: bound, schema: Schema::new(columns) })
    }

    /// `DO expr, …`: evaluates and shows nothing.
    pub(super) fn bind_do(&mut self, exprs: &[ast::Expr]) -> Result<LogicalPlan> {
        self.bind_values(&[exprs.to_vec()], None)
    }

    /// ORDER BY and LIMIT over a set operation: names and numbers of its output columns.
    fn order_and_limit(
        &mut self,
        mut plan: LogicalPlan,
        order_by: &[ast::OrderItem],
        limit: LimitClause,
        outer: Option<&Rc<ScopeChain>>,
    ) -> Result<LogicalPlan> {
        if !order_by.is_empty() {
            let schema = plan.schema().clone();
            let mut scope = Scope::default();
            scope.add_table("", "", schema.columns.iter().cloned().map(|column| (column, true)))?;
            let chain = Rc::new(ScopeChain { scope: Rc::new(scope), outer: outer.cloned() });
            let mut names = ExprScope::new(&chain, Clause::OrderBy);
            let mut keys = Vec::with_capacity(order_by.len());
            for item in order_by {
                let expr = match ordinal(&item.expr) {
                    Some(number) => column_expr(at_ordinal(&schema.columns, number, Clause::OrderBy)?),
                    None => self.bind_expr(&item.expr, &mut names)?,
                };
                keys.push(SortKey { expr, desc: item.desc });
            }
            names.reject_applies("a correlated subquery in ORDER BY of a UNION")?;
            plan = LogicalPlan::Sort { input: Box::new(plan), keys };
        }
        Ok(limited(plan, limit))
    }

    pub(super) fn bind_limit(&mut self, limit: Option<&ast::Limit>) -> Result<LimitClause> {
        let Some(limit) = limit else { return Ok(LimitClause::default()) };
        let chain = Rc::new(ScopeChain::default());
        let mut names = ExprScope::new(&chain, Clause::Values);
        let count = Some(self.bind_expr(&limit.count, &mut names)?);
        let offset = limit.offset.as_ref().map(|offset| self.bind_expr(offset, &mut names)).transpose()?;
        Ok(LimitClause { offset, count })
    }
}

/// Puts a limit on a plan, unless there is none.
pub(super) fn limited(plan: LogicalPlan, limit: LimitClause) -> LogicalPlan {
    if limit.count.is_none() && limit.offset.is_none() {
        return plan;
    }
    LogicalPlan::Limit { input: Box::new(plan), limit }
}

/// `ORDER BY 2`: a bare integer literal is the number of a select item.
pub(super) fn ordinal(expr: &ast::Expr) -> Option<u64> {
    match expr {
        ast::Expr::Literal(ast::Literal::Int(number)) => Some(*number),
        _ => None,
    }
}

/// The item with a number, from 1.
pub(super) fn at_ordinal<T>(items: &[T], number: u64, clause: Clause) -> Result<&T> {
    usize::try_from(number)
        .ok()
        .and_then(|number| items.get(number.checked_sub(1)?))
        .ok_or_else(|| Error::bad_field(number.to_string(), clause.name()))
}

/// Whether a table reference of this name occurs in a query body.
fn mentions(body: &ast::SetExpr, name: &str) -> bool {
    fn in_ref(table_ref: &ast::TableRef, name: &str) -> bool {
        match table_ref {
            ast::TableRef::Table(factor) => factor.name.schema.is_none() && same(&factor.name.name, name),
            ast::TableRef::Derived { query, .. } => mentions(&query.body, name),
            ast::TableRef::Join(join) => in_ref(&join.left, name) || in_ref(&join.right, name),
            ast::TableRef::List(refs) => refs.iter().any(|r| in_ref(r, name)),
        }
    }
    match body {
        ast::SetExpr::Select(select) => select.from.iter().any(|table_ref| in_ref(table_ref, name)),
        ast::SetExpr::Values(_) => false,
        ast::SetExpr::Table(table) => table.schema.is_none() && same(&table.name, name),
        ast::SetExpr::Query(query) => mentions(&query.body, name),
        ast::SetExpr::SetOp { left, right, .. } => mentions(left, name) || mentions(right, name),
    }
}
