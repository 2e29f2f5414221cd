//! Subqueries in expressions.
//!
//! One that refers to nothing outside runs once before the statement and becomes a parameter. `IN` and `EXISTS` among WHERE's
//! conjuncts become semi and anti joins, with the conditions on outer columns pulled up into the join. What is left runs
//! per row (Apply): `x op ANY (…)` as a count of its comparisons' outcomes, which keeps SQL's three values.

use std::rc::Rc;

use rutile_expr::{Expr, Volatility};

use super::scope::ScopeChain;
use super::{Binder, ExprScope, column_expr, filtered};
use crate::error::{Error, Result};
use crate::optimizer::rules::pull_up::pull_up;
use crate::parser::ast;
use crate::plan::SubqueryKind;
use crate::plan::exprs::{bind_outer, free_columns};
use crate::plan::logical::{Aggregate, Apply, Join, JoinKind, LimitClause, LogicalPlan, LogicalSubquery};
use crate::plan::schema::{ColumnId, OutputColumn, Schema};

/// A subquery to run per row of the clause's input; expressions refer to `output`.
#[derive(Debug, Clone)]
pub(crate) struct PendingApply {
    pub plan: LogicalPlan,
    pub kind: SubqueryKind,
    pub output: OutputColumn,
}

/// A subquery that becomes a join.
pub(super) struct SubqueryJoin {
    plan: LogicalPlan,
    kind: JoinKind,
    conditions: Vec<Expr>,
}

impl Binder<'_> {
    /// `(SELECT …)` as a value.
    pub(super) fn bind_scalar_subquery(
        &mut self,
        query: &ast::Query,
        names: &mut ExprScope<'_>,
    ) -> Result<Expr> {
        let plan = self.bind_inner(query, names.chain)?;
        if plan.schema().len() != 1 {
            return Err(Error::OperandColumns { columns: 1 });
        }
        Ok(self.value_of(plan, SubqueryKind::Scalar, names))
    }

    /// `(SELECT a, b …)` as a row: one value per column.
    pub(super) fn bind_row_subquery(
        &mut self,
        query: &ast::Query,
        names: &mut ExprScope<'_>,
    ) -> Result<Vec<Expr>> {
        let plan = self.bind_inner(query, names.chain)?;
        let columns = plan.schema().columns.clone();
        let mut values = Vec::with_capacity(columns.len());
        for column in columns {
            let exprs = vec![column_expr(&column)];
            let one = LogicalPlan::Project {
                input: Box::new(plan.clone()),
                exprs,
                schema: Schema::new(vec![column]),
            };
            values.push(self.value_of(one, SubqueryKind::Scalar, names));
        }
        Ok(values)
    }

    /// `EXISTS (…)` as a value.
    pub(super) fn bind_exists(&mut self, query: &ast::Query, names: &mut ExprScope<'_>) -> Result<Expr> {
        let plan = self.bind_inner(query, names.chain)?;
        Ok(self.value_of(plan, SubqueryKind::Exists, names))
    }

    /// `left op ANY|ALL (SELECT …)` as a value; `IN` is `= ANY`, `NOT IN` is `<> ALL`.
    pub(super) fn bind_quantified(
        &mut self,
        left: &ast::Expr,
        op: &'static str,
        all: bool,
        query: &ast::Query,
        names: &mut ExprScope<'_>,
    ) -> Result<Expr> {
        let left = self.bind_row(left, names)?;
        let plan = self.bind_inner(query, names.chain)?;
        let right: Vec<Expr> = plan.schema().columns.iter().map(column_expr).collect();
        if left.len() != right.len() {
            return Err(Error::OperandColumns { columns: left.len() });
        }
        let by_equality = matches!((op, all), ("=", false) | ("<>", true));
        if left.len() > 1 && !by_equality {
            return Err(Error::OperandColumns { columns: 1 });
        }
        if let ([left], [_]) = (left.as_slice(), right.as_slice())
            && is_single_row(&plan)
        {
            let value = self.value_of(plan, SubqueryKind::Scalar, names);
            return self.call(op, vec![left.clone(), value]);
        }
        let volatile = is_volatile(&plan) || left.iter().any(|l| l.volatility() == Volatility::Volatile);
        match (left.as_slice(), right.as_slice()) {
            ([left], [right]) if !volatile && by_equality => self.in_value(left, right, plan, all, names),
            ([left], [right]) if !volatile && ordered_alike(left, right) => {
                self.compare_extremes(left, right, plan, op, all, names)
            }
            _ => {
                let outcome = self.outcome(&left, &right, op)?;
                let plan = self.count_outcomes(plan, outcome, all)?;
                Ok(self.value_of(plan, SubqueryKind::Scalar, names))
            }
        }
    }

    /// `left op right`, rows being equal when all their values are.
    fn outcome(&mut self, left: &[Expr], right: &[Expr], op: &'static str) -> Result<Expr> {
        let mut matches: Option<Expr> = None;
        for (l, r) in left.iter().zip(right) {
            let pair = vec![l.clone(), r.clone()];
            let one = self.call(if op == "<>" { "=" } else { op }, pair)?;
            matches = Some(match matches {
                None => one,
                Some(before) => self.call("and", vec![before, one])?,
            });
        }
        let outcome = matches.ok_or_else(|| Error::internal("a subquery without columns"))?;
        if op == "<>" { self.call("not", vec![outcome]) } else { Ok(outcome) }
    }

    /// `left IN (plan)` as a value: 1 with an equal row; else NULL when a NULL could be equal; else 0. Each question is an EXISTS.
    fn in_value(
        &mut self,
        left: &Expr,
        right: &Expr,
        plan: LogicalPlan,
        negated: bool,
        names: &mut ExprScope<'_>,
    ) -> Result<Expr> {
        let equal = self.call("=", vec![left.clone(), right.clone()])?;
        let found = self.value_of(filtered(plan.clone(), vec![equal]), SubqueryKind::Exists, names);
        let mut whens = vec![(found, Expr::bool(!negated))];
        if !right.field_type().not_null {
            let is_null = self.call("is_null", vec![right.clone()])?;
            let unknown = self.value_of(filtered(plan.clone(), vec![is_null]), SubqueryKind::Exists, names);
            whens.push((unknown, Expr::null()));
        }
        if !left.field_type().not_null {
            let any = self.value_of(plan, SubqueryKind::Exists, names);
            let is_null = self.call("is_null", vec![left.clone()])?;
            whens.push((self.call("and", vec![is_null, any])?, Expr::null()));
        }
        self.case(whens, Some(Expr::bool(negated)))
    }

    /// `left op ANY|ALL (plan)` for an order or `= ALL`, `<> ANY`: by the least and the greatest value, whether there is a NULL,
    /// and whether there is anything.
    fn compare_extremes(
        &mut self,
        left: &Expr,
        right: &Expr,
        plan: LogicalPlan,
        op: &'static str,
        all: bool,
        names: &mut ExprScope<'_>,
    ) -> Result<Expr> {
        let extremes: &[&str] = match (op, all) {
            ("<" | "<=", true) | (">" | ">=", false) => &["min"],
            ("<" | "<=", false) | (">" | ">=", true) => &["max"],
            _ => &["min", "max"],
        };
        let mut outcome: Option<Expr> = None;
        let mut extreme = Expr::null();
        for name in extremes {
            let call = self.simple_aggregate(name, vec![right.clone()])?;
            let schema = Schema::new(vec![call.output.clone()]);
            let (input, group) = (Box::new(plan.clone()), Vec::new());
            let aggregate = LogicalPlan::Aggregate(Aggregate { input, group, calls: vec![call], schema });
            extreme = self.value_of(aggregate, SubqueryKind::Scalar, names);
            let one = self.call(op, vec![left.clone(), extreme.clone()])?;
            outcome = Some(match outcome {
                None => one,
                Some(before) => self.call(if all { "and" } else { "or" }, vec![before, one])?,
            });
        }
        let outcome = outcome.ok_or_else(|| Error::internal("no extreme to compare with"))?;
        let decides = self.call(if all { "is_false" } else { "is_true" }, vec![outcome.clone()])?;
        let mut whens = vec![(decides, Expr::bool(!all))];
        if !right.field_type().not_null {
            let is_null = self.call("is_null", vec![right.clone()])?;
            let unknown = self.value_of(filtered(plan, vec![is_null]), SubqueryKind::Exists, names);
            whens.push((unknown, Expr::null()));
        }
        // No value at all.
        whens.push((self.call("is_null", vec![extreme])?, Expr::bool(all)));
        self.case(whens, Some(outcome))
    }

    /// One row: whether the outcome is true for any (all) rows of the plan; NULL when only unknown ones could decide.
    fn count_outcomes(&mut self, plan: LogicalPlan, outcome: Expr, all: bool) -> Result<LogicalPlan> {
        let truth = if all { self.call("not", vec![outcome])? } else { outcome };
        let known = self.simple_aggregate("count", vec![truth.clone()])?;
        let decisive = self.simple_aggregate("max", vec![truth])?;
        let total = self.simple_aggregate("count", Vec::new())?;
        let (known_column, decisive_column, total_column) =
            (column_expr(&known.output), column_expr(&decisive.output), column_expr(&total.output));
        let schema = Schema::new(vec![known.output.clone(), decisive.output.clone(), total.output.clone()]);
        let counted = LogicalPlan::Aggregate(Aggregate {
            input: Box::new(plan),
            group: Vec::new(),
            calls: vec![known, decisive, total],
            schema,
        });
        let decided = self.call("=", vec![decisive_column, Expr::int(1)])?;
        let unknown = self.call("<", vec![known_column, total_column])?;
        let value =
            self.case(vec![(decided, Expr::bool(!all)), (unknown, Expr::null())], Some(Expr::bool(all)))?;
        let output = self.output("", value.field_type().clone());
        Ok(LogicalPlan::Project {
            input: Box::new(counted),
            exprs: vec![value],
            schema: Schema::new(vec![output]),
        })
    }

    fn bind_inner(&mut self, query: &ast::Query, chain: &Rc<ScopeChain>) -> Result<LogicalPlan> {
        let writes = std::mem::replace(&mut self.scans_for_write, false);
        let plan = self.bind_query(query, Some(chain));
        self.scans_for_write = writes;
        plan
    }

    /// The value of a subquery: a parameter when it is the same for all rows, else a column an Apply computes.
    fn value_of(&mut self, plan: LogicalPlan, kind: SubqueryKind, names: &mut ExprScope<'_>) -> Expr {
        let ty = match kind {
            SubqueryKind::Exists => rutile_expr::types::FieldType::boolean().with_not_null(true),
            SubqueryKind::Scalar => plan.schema().columns[0].ty.clone().with_not_null(false),
        };
        if free_columns(&plan).is_empty() && !is_volatile(&plan) {
            let slot = self.new_slot();
            self.subqueries.push(LogicalSubquery { kind, plan, slot });
            return Expr::Param { index: slot, field_type: ty };
        }
        let output = self.output("", ty);
        let expr = column_expr(&output);
        names.applies.push(PendingApply { plan, kind, output });
        expr
    }

    /// A WHERE conjunct that is a semi or anti join: `[NOT] EXISTS`, `IN`, `NOT IN`.
    pub(super) fn try_subquery_join(
        &mut self,
        part: &ast::Expr,
        names: &mut ExprScope<'_>,
    ) -> Result<Option<SubqueryJoin>> {
        match part {
            ast::Expr::Exists(query) => self.exists_join(query, false, names),
            ast::Expr::Unary { op: ast::UnaryOp::Not, expr } => match &**expr {
                ast::Expr::Exists(query) => self.exists_join(query, true, names),
                ast::Expr::InSubquery { expr, query, negated } => self.in_join(expr, query, !negated, names),
                _ => Ok(None),
            },
            ast::Expr::InSubquery { expr, query, negated } => self.in_join(expr, query, *negated, names),
            ast::Expr::Quantified { left, op: ast::BinaryOp::Eq, all: false, query } => {
                self.in_join(left, query, false, names)
            }
            _ => Ok(None),
        }
    }

    fn exists_join(
        &mut self,
        query: &ast::Query,
        negated: bool,
        names: &mut ExprScope<'_>,
    ) -> Result<Option<SubqueryJoin>> {
        let saved = self.mark();
        let plan = self.bind_inner(query, names.chain)?;
        let kind = if negated { JoinKind::Anti } else { JoinKind::Semi };
        if free_columns(&plan).is_empty() || self.subqueries.len() > saved {
            // Run once, or not worth untangling: the caller binds it as a value.
            self.subqueries.truncate(saved);
            return Ok(None);
        }
        let (plan, conditions) = pull_up(plan, false);
        Ok(free_columns(&plan).is_empty().then_some(SubqueryJoin { plan, kind, conditions }))
    }

    fn in_join(
        &mut self,
        left: &ast::Expr,
        query: &ast::Query,
        negated: bool,
        names: &mut ExprScope<'_>,
    ) -> Result<Option<SubqueryJoin>> {
        let saved = self.mark();
        let applies = names.applies.len();
        let left = self.bind_row(left, names)?;
        let plan = self.bind_inner(query, names.chain)?;
        if left.len() != plan.schema().len() {
            return Err(Error::OperandColumns { columns: left.len() });
        }
        if names.applies.len() > applies || left.iter().any(Expr::is_constant) || is_single_row(&plan) {
            names.applies.truncate(applies);
            self.subqueries.truncate(saved);
            return Ok(None);
        }
        let right: Vec<OutputColumn> = plan.schema().columns.clone();
        let nullable = left.iter().any(|l| !l.field_type().not_null) || right.iter().any(|r| !r.ty.not_null);
        let mut conditions = Vec::new();
        for (l, r) in left.into_iter().zip(&right) {
            conditions.push(self.call("=", vec![l, column_expr(r)])?);
        }
        let (plan, pulled) = pull_up(plan, false);
        let kind = match (negated, nullable) {
            (false, _) => JoinKind::Semi,
            (true, false) => JoinKind::Anti,
            (true, true) if pulled.is_empty() && conditions.len() == 1 => JoinKind::NullAwareAnti,
            (true, true) => {
                self.subqueries.truncate(saved);
                return Ok(None);
            }
        };
        if !free_columns(&plan).is_empty() {
            self.subqueries.truncate(saved);
            return Ok(None);
        }
        conditions.extend(pulled);
        Ok(Some(SubqueryJoin { plan, kind, conditions }))
    }

    fn mark(&self) -> usize {
        self.subqueries.len()
    }

    /// Joins a plan with the subquery of one of its conditions.
    pub(super) fn join_subquery(&mut self, plan: LogicalPlan, join: SubqueryJoin) -> Result<LogicalPlan> {
        let schema = plan.schema().clone();
        Ok(LogicalPlan::Join(Join {
            kind: join.kind,
            left: Box::new(plan),
            right: Box::new(join.plan),
            filter: join.conditions,
            schema,
            straight: false,
        }))
    }

    /// Puts an Apply on a plan.
    pub(super) fn apply(&mut self, plan: LogicalPlan, pending: PendingApply) -> Result<LogicalPlan> {
        let PendingApply { plan: mut inner, kind, output } = pending;
        let mut bindings: Vec<(ColumnId, usize)> = Vec::new();
        for column in free_columns(&inner) {
            if let Expr::Column { index, .. } = column
                && plan.schema().contains(index)
            {
                bindings.push((index, self.new_slot()));
            }
        }
        bind_outer(&mut inner, &bindings);
        if kind == SubqueryKind::Exists {
            let limit = LimitClause { offset: None, count: Some(Expr::int(1)) };
            inner = LogicalPlan::Limit { input: Box::new(inner), limit };
        }
        let mut columns = plan.schema().columns.clone();
        columns.push(output);
        let (outer, inner) = (Box::new(plan), Box::new(inner));
        Ok(LogicalPlan::Apply(Apply { outer, inner, kind, bindings, schema: Schema::new(columns) }))
    }
}

/// Whether a plan gives exactly one row: an aggregate of all rows, without HAVING.
fn is_single_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Project { input, .. } => is_single_row(input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group.is_empty(),
        _ => false,
    }
}

/// Whether the greatest of some values decides a comparison with all of them: both are ordered the same way.
fn ordered_alike(left: &Expr, right: &Expr) -> bool {
    use rutile_expr::types::field_type::Family;
    let (l, r) = (left.field_type(), right.field_type());
    match (l.family(), r.family()) {
        (Family::Int | Family::Decimal, Family::Int | Family::Decimal) => true,
        (Family::Double, Family::Int | Family::Decimal | Family::Double)
        | (Family::Int | Family::Decimal, Family::Double)
        | (Family::Time, Family::Time)
        | (Family::Duration, Family::Duration) => true,
        (Family::String, Family::String) => l.collation == r.collation,
        _ => false,
    }
}

/// Whether a plan computes something new each time it runs.
fn is_volatile(plan: &LogicalPlan) -> bool {
    let mut volatile = false;
    crate::plan::exprs::for_each_expr(plan, &mut |expr| {
        volatile |= expr.volatility() == Volatility::Volatile;
    });
    volatile || crate::plan::exprs::children(plan).into_iter().any(is_volatile)
}
