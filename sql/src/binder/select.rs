//! One SELECT block.

use std::rc::Rc;

use rutile_expr::Expr;
use rutile_expr::SqlMode;

use super::aggregate::Aggregates;
use super::query::{at_ordinal, limited, ordinal};
use super::scope::{Clause, ScopeChain, same};
use super::{Binder, ExprScope, column_expr, filtered};
use crate::error::{Error, Result};
use crate::parser::ast;
use crate::plan::exprs::same_expr;
use crate::plan::logical::{AggregateCall, LimitClause, LockClause, LockWait, LogicalPlan, SortKey};
use crate::plan::schema::{OutputColumn, Schema};

/// One bound item of a select list.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub title: String,
    /// An alias was written.
    pub aliased: bool,
    pub expr: Expr,
    /// The column, where the item is nothing but one.
    pub column: Option<OutputColumn>,
}

/// The clauses after FROM, bound.
struct Block {
    items: Vec<Item>,
    group: Vec<Expr>,
    having: Vec<Expr>,
    order: Vec<SortKey>,
    aggregates: Aggregates,
    applies: Vec<super::subquery::PendingApply>,
    rollup: bool,
}

impl Binder<'_> {
    /// Binds a SELECT with the ORDER BY, LIMIT and FOR UPDATE written after it.
    pub(super) fn bind_select(
        &mut self,
        select: &ast::Select,
        order_by: &[ast::OrderItem],
        limit: LimitClause,
        locking: &[ast::Locking],
        outer: Option<&Rc<ScopeChain>>,
    ) -> Result<LogicalPlan> {
        if select.calc_found_rows {
            return Err(Error::not_supported("SQL_CALC_FOUND_ROWS"));
        }
        let assigns = assigns_variables(select, order_by);
        let outside = std::mem::replace(&mut self.assigning, assigns);
        let bound = self.bind_select_block(select, order_by, limit, locking, outer);
        self.assigning = outside;
        bound
    }

    fn bind_select_block(
        &mut self,
        select: &ast::Select,
        order_by: &[ast::OrderItem],
        limit: LimitClause,
        locking: &[ast::Locking],
        outer: Option<&Rc<ScopeChain>>,
    ) -> Result<LogicalPlan> {
        let from = self.bind_from(&select.from, outer)?;
        let mut plan = super::hints::apply(from.plan, select);
        for lock in locking {
            lock_scans(&mut plan, lock)?;
        }
        let chain = Rc::new(ScopeChain { scope: Rc::new(from.scope), outer: outer.cloned() });
        if let Some(condition) = &select.where_ {
            plan = self.bind_where(plan, condition, &chain)?;
        }
        let block = self.bind_block(select, order_by, &chain)?;
        self.finish_block(plan, block, select.distinct, limit)
    }

    /// WHERE: subqueries among its conjuncts become joins, the rest a filter.
    pub(super) fn bind_where(
        &mut self,
        plan: LogicalPlan,
        condition: &ast::Expr,
        chain: &Rc<ScopeChain>,
    ) -> Result<LogicalPlan> {
        let mut plan = plan;
        let mut predicates = Vec::new();
        let mut names = ExprScope::new(chain, Clause::Where);
        let mut joins = Vec::new();
        for part in super::expr::conjuncts(condition) {
            match self.try_subquery_join(part, &mut names)? {
                Some(join) => joins.push(join),
                None => predicates.push(self.bind_condition(part, &mut names)?),
            }
        }
        let applies = std::mem::take(&mut names.applies);
        let (plain, on_applies): (Vec<_>, Vec<_>) = predicates.into_iter().partition(|predicate| {
            predicate.columns().iter().all(|id| applies.iter().all(|a| a.output.id != *id))
        });
        plan = filtered(plan, plain);
        for join in joins {
            plan = self.join_subquery(plan, join)?;
        }
        for apply in applies {
            plan = self.apply(plan, apply)?;
        }
        Ok(filtered(plan, on_applies))
    }

    fn bind_block(
        &mut self,
        select: &ast::Select,
        order_by: &[ast::OrderItem],
        chain: &Rc<ScopeChain>,
    ) -> Result<Block> {
        let mut aggregates = Aggregates::default();
        let mut applies = Vec::new();
        let mut items = Vec::with_capacity(select.items.len());
        {
            let mut names = ExprScope::new(chain, Clause::FieldList).with_aggregates(&mut aggregates);
            for item in &select.items {
                self.bind_item(item, &mut names, &mut items)?;
            }
            applies.append(&mut names.applies);
        }
        let group = self.bind_group_by(select, chain, &items, &aggregates, &mut applies)?;
        let mut having = Vec::new();
        if let Some(condition) = &select.having {
            aggregates.group_ids = group.iter().filter_map(plain_column).collect();
            let mut names =
                ExprScope::new(chain, Clause::Having).with_aggregates(&mut aggregates).with_items(&items);
            for part in super::expr::conjuncts(condition) {
                having.push(self.bind_condition(part, &mut names)?);
            }
            applies.append(&mut names.applies);
        }
        let mut order = Vec::with_capacity(order_by.len());
        let mut names =
            ExprScope::new(chain, Clause::OrderBy).with_aggregates(&mut aggregates).with_items(&items);
        for key in order_by {
            let expr = self.bind_order_key(&key.expr, &mut names, &items)?;
            order.push(SortKey { expr, desc: key.desc });
        }
        applies.append(&mut names.applies);
        let grouped = !select.group_by.is_empty();
        aggregates.is_grouped = grouped || !aggregates.calls.is_empty();
        aggregates.has_group_by = grouped;
        Ok(Block { items, group, having, order, aggregates, applies, rollup: select.with_rollup })
    }

    fn bind_item(
        &mut self,
        item: &ast::SelectItem,
        names: &mut ExprScope<'_>,
        items: &mut Vec<Item>,
    ) -> Result<()> {
        let scope = Rc::clone(&names.chain.scope);
        let whole = |column: &OutputColumn| Item {
            title: column.name.clone(),
            aliased: false,
            expr: column_expr(column),
            column: Some(column.clone()),
        };
        match item {
            ast::SelectItem::Wildcard => {
                if scope.tables.is_empty() {
                    return Err(Error::NoTablesUsed);
                }
                let shown = scope.columns.iter().filter(|c| c.visible && !c.merged_away);
                items.extend(shown.map(|c| whole(&c.column)));
            }
            ast::SelectItem::TableWildcard(table) => {
                if !scope.has_table(table.schema.as_deref(), &table.name) {
                    return Err(Error::BadTable { table: table.to_string() });
                }
                let of_table = scope.columns.iter().filter(|c| {
                    c.visible
                        && same(&c.column.table, &table.name)
                        && table.schema.as_ref().is_none_or(|db| same(&c.column.db, db))
                });
                items.extend(of_table.map(|c| whole(&c.column)));
            }
            ast::SelectItem::Expr { expr, alias, title } => {
                let bound = self.bind_expr(expr, names)?;
                let column = match (&bound, expr) {
                    (Expr::Column { .. }, ast::Expr::Column(name)) => {
                        names.chain.resolve(name, names.clause).ok().cloned()
                    }
                    _ => None,
                };
                // Tables of information_schema are views, which give their columns' names.
                let view = column.as_ref().filter(|c| alias.is_none() && same(&c.db, "information_schema"));
                let title = view.map_or(title, |column| &column.name).clone();
                items.push(Item { title, aliased: alias.is_some(), expr: bound, column });
            }
        }
        Ok(())
    }

    fn bind_group_by(
        &mut self,
        select: &ast::Select,
        chain: &Rc<ScopeChain>,
        items: &[Item],
        aggregates: &Aggregates,
        applies: &mut Vec<super::subquery::PendingApply>,
    ) -> Result<Vec<Expr>> {
        let mut group: Vec<Expr> = Vec::with_capacity(select.group_by.len());
        for key in &select.group_by {
            let mut names = ExprScope::new(chain, Clause::GroupBy);
            let by_item = match (&key.expr, ordinal(&key.expr)) {
                (_, Some(number)) => Some(at_ordinal(items, number, Clause::GroupBy)?),
                (ast::Expr::Column(name), None) if chain.scope.find(name, Clause::GroupBy)?.is_none() => {
                    find_item(items, name, Clause::GroupBy)?
                }
                _ => None,
            };
            let is_call = |id: &usize| aggregates.calls.iter().any(|call| call.output.id == *id);
            let expr = match by_item {
                Some(item) if item.expr.columns().iter().any(is_call) => {
                    return Err(Error::WrongGroupField { column: item.title.clone() });
                }
                Some(item) => item.expr.clone(),
                None => self.bind_expr(&key.expr, &mut names)?,
            };
            applies.append(&mut names.applies);
            if !group.iter().any(|other| same_expr(other, &expr)) {
                group.push(expr);
            }
        }
        Ok(group)
    }

    /// A name is an item's title first, a number an item's place; anything else is an expression over the table's columns.
    fn bind_order_key(&mut self, key: &ast::Expr, names: &mut ExprScope<'_>, items: &[Item]) -> Result<Expr> {
        if let Some(number) = ordinal(key) {
            return Ok(at_ordinal(items, number, Clause::OrderBy)?.expr.clone());
        }
        if let ast::Expr::Column(name) = key
            && let Some(item) = find_item(items, name, Clause::OrderBy)?
        {
            return Ok(item.expr.clone());
        }
        self.bind_expr(key, names)
    }

    /// Aggregation, HAVING, the select list, DISTINCT, ORDER BY and LIMIT on top of what FROM and WHERE give.
    fn finish_block(
        &mut self,
        mut plan: LogicalPlan,
        block: Block,
        distinct: bool,
        limit: LimitClause,
    ) -> Result<LogicalPlan> {
        let Block { mut items, group, mut having, mut order, aggregates, mut applies, rollup } = block;
        if aggregates.is_grouped {
            let inside = aggregates.applied_inside.clone();
            let by: Vec<usize> = group.iter().flat_map(Expr::columns).collect();
            let (before, after): (Vec<_>, Vec<_>) = applies
                .into_iter()
                .partition(|apply| inside.contains(&apply.output.id) || by.contains(&apply.output.id));
            applies = after;
            for apply in before {
                plan = self.apply(plan, apply)?;
            }
            let levels = rollup.then_some(group.len());
            plan = self.aggregate(plan, group, aggregates, &mut items, &mut having, &mut order, &applies)?;
            if let (Some(levels), LogicalPlan::Aggregate(aggregate)) = (levels, &plan) {
                let (rolled, keys) = self.roll_up(aggregate.clone(), levels)?;
                plan = rolled;
                if order.is_empty() {
                    order = keys;
                }
            }
        }
        for apply in applies {
            plan = self.apply(plan, apply)?;
        }
        plan = filtered(plan, having);
        self.project_and_sort(plan, items, order, distinct, limit)
    }

    fn project_and_sort(
        &mut self,
        plan: LogicalPlan,
        items: Vec<Item>,
        order: Vec<SortKey>,
        distinct: bool,
        limit: LimitClause,
    ) -> Result<LogicalPlan> {
        let plain_order = order.iter().all(|key| key.expr.volatility() < rutile_expr::Volatility::Volatile);
        let (plan, order, limit) = match self.assigning && !distinct && plain_order {
            // Variables are assigned row by row in the order and number of the rows that are sent.
            true => (sorted(plan, order, limit), Vec::new(), LimitClause::default()),
            false => (plan, order, limit),
        };
        let mut exprs = Vec::with_capacity(items.len());
        let mut outputs = Vec::with_capacity(items.len());
        for item in items {
            outputs.push(match (&item.column, &item.expr) {
                (Some(column), Expr::Column { index, field_type, .. }) => {
                    OutputColumn { id: *index, name: item.title, ty: field_type.clone(), ..column.clone() }
                }
                (None, Expr::Column { index, field_type, .. }) => {
                    OutputColumn::computed(*index, item.title, field_type.clone())
                }
                (_, expr) => OutputColumn::computed(self.new_id(), item.title, expr.field_type().clone()),
            });
            exprs.push(item.expr);
        }
        let shown = outputs.len();
        let mut keys = Vec::with_capacity(order.len());
        for (number, key) in order.into_iter().enumerate() {
            // A constant orders nothing.
            if key.expr.is_constant() {
                continue;
            }
            let place = match exprs.iter().position(|expr| same_expr(expr, &key.expr)) {
                Some(place) => place,
                None if distinct => {
                    let column = first_column(&key.expr, &plan);
                    return Err(Error::DistinctOrderBy { number: number + 1, column });
                }
                None => {
                    outputs.push(match &key.expr {
                        Expr::Column { index, field_type, .. } => {
                            OutputColumn::computed(*index, "", field_type.clone())
                        }
                        expr => OutputColumn::computed(self.new_id(), "", expr.field_type().clone()),
                    });
                    exprs.push(key.expr);
                    exprs.len() - 1
                }
            };
            keys.push(SortKey { expr: column_expr(&outputs[place]), desc: key.desc });
        }
        let mut plan =
            LogicalPlan::Project { input: Box::new(plan), exprs, schema: Schema::new(outputs.clone()) };
        if distinct {
            plan = LogicalPlan::Distinct { input: Box::new(plan) };
        }
        if !keys.is_empty() {
            plan = LogicalPlan::Sort { input: Box::new(plan), keys };
        }
        plan = limited(plan, limit);
        if outputs.len() > shown {
            outputs.truncate(shown);
            let exprs = outputs.iter().map(column_expr).collect();
            plan = LogicalPlan::Project { input: Box::new(plan), exprs, schema: Schema::new(outputs) };
        }
        Ok(plan)
    }

    /// Puts an Aggregate below the clauses that see groups, and checks that they see nothing else.
    #[allow(clippy::too_many_arguments)]
    fn aggregate(
        &mut self,
        plan: LogicalPlan,
        group: Vec<Expr>,
        aggregates: Aggregates,
        items: &mut [Item],
        having: &mut [Expr],
        order: &mut [SortKey],
        applies: &[super::subquery::PendingApply],
    ) -> Result<LogicalPlan> {
        let mut outputs = Vec::with_capacity(group.len());
        for expr in &group {
            outputs.push(match expr {
                Expr::Column { index, name, field_type } => {
                    OutputColumn::computed(*index, &**name, field_type.clone())
                }
                expr => self.output("", expr.field_type().clone()),
            });
        }
        let replace = |expr: &mut Expr| crate::plan::exprs::replace(expr, &group, &outputs);
        items.iter_mut().for_each(|item| replace(&mut item.expr));
        having.iter_mut().for_each(replace);
        order.iter_mut().for_each(|key| replace(&mut key.expr));

        let strict = self.ctx.statement.eval.sql_mode.contains(SqlMode::ONLY_FULL_GROUP_BY);
        let determined = strict.then(|| self.determined_columns(&plan, &group));
        let input = plan.schema().clone();
        let mut calls = aggregates.calls;
        let mut any_row = |expr: &Expr, number: usize, list: &str| -> Result<()> {
            for id in expr.columns() {
                let known =
                    outputs.iter().any(|c| c.id == id) || calls.iter().any(|call| call.output.id == id);
                let Some(place) = input.position(id).filter(|_| !known) else { continue };
                let column = &input.columns[place];
                if determined.as_ref().is_some_and(|ids| !ids.contains(&id))
                    && !aggregates.any_value.contains(&id)
                {
                    return Err(not_grouped(column, number, list, aggregates.has_group_by));
                }
                let args = vec![column_expr(column)];
                calls.push(AggregateCall::new("first_row", args, column.clone()));
            }
            Ok(())
        };
        for (i, item) in items.iter().enumerate() {
            any_row(&item.expr, i + 1, "SELECT list")?;
        }
        for (i, expr) in having.iter().enumerate() {
            any_row(expr, i + 1, "HAVING clause")?;
        }
        for (i, key) in order.iter().enumerate() {
            any_row(&key.expr, i + 1, "ORDER BY clause")?;
        }
        for apply in applies {
            for column in crate::plan::exprs::free_columns(&apply.plan) {
                any_row(&column, 1, "SELECT list")?;
            }
        }
        outputs.extend(calls.iter().map(|call| call.output.clone()));
        Ok(LogicalPlan::Aggregate(crate::plan::logical::Aggregate {
            input: Box::new(plan),
            group,
            calls,
            schema: Schema::new(outputs),
        }))
    }
}

/// The item a name in ORDER BY or GROUP BY stands for: by its title, or as the same column.
fn find_item<'i>(items: &'i [Item], name: &ast::ColumnName, clause: Clause) -> Result<Option<&'i Item>> {
    let mut found: Option<&Item> = None;
    for item in items {
        let by_title =
            name.table.is_none() && same(&item.title, &name.name) && (item.aliased || item.column.is_some());
        let by_column = !by_title
            && !item.aliased
            && item.column.as_ref().is_some_and(|column| {
                same(&column.name, &name.name)
                    && name.table.as_ref().is_none_or(|table| same(table, &column.table))
                    && name.schema.as_ref().is_none_or(|schema| same(schema, &column.db))
            });
        if !by_title && !by_column {
            continue;
        }
        match found {
            Some(other) if !same_expr(&other.expr, &item.expr) => {
                return Err(Error::AmbiguousColumn {
                    column: name.to_string(),
                    clause: clause.name().to_owned(),
                });
            }
            _ => found = Some(item),
        }
    }
    Ok(found)
}

fn plain_column(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Column { index, .. } => Some(*index),
        _ => None,
    }
}

fn not_grouped(column: &OutputColumn, number: usize, list: &str, has_group_by: bool) -> Error {
    let mut name = column.name.clone();
    for prefix in [&column.table, &column.db] {
        if !prefix.is_empty() {
            name = format!("{prefix}.{name}");
        }
    }
    let clause = list.to_owned();
    if has_group_by {
        Error::WrongFieldWithGroup { number, clause, column: name }
    } else {
        Error::MixOfGroupFuncAndFields { number, clause, column: name }
    }
}

fn first_column(expr: &Expr, plan: &LogicalPlan) -> String {
    let schema = plan.schema();
    let column =
        expr.columns().first().and_then(|&id| schema.position(id)).map(|place| &schema.columns[place]);
    column.map_or_else(String::new, |c| match (c.db.as_str(), c.table.as_str()) {
        ("", "") => c.name.clone(),
        ("", table) => format!("{table}.{}", c.name),
        (db, table) => format!("{db}.{table}.{}", c.name),
    })
}

/// Marks the scans of a FROM clause that `FOR UPDATE [OF …]` names.
fn lock_scans(plan: &mut LogicalPlan, locking: &ast::Locking) -> Result<()> {
    let clause = LockClause {
        exclusive: locking.strength == ast::LockStrength::Update,
        wait: match locking.wait {
            ast::LockWait::Wait => LockWait::Default,
            ast::LockWait::NoWait => LockWait::NoWait,
            ast::LockWait::SkipLocked => LockWait::SkipLocked,
        },
    };
    if clause.wait == LockWait::SkipLocked {
        return Err(Error::not_supported("SKIP LOCKED"));
    }
    let mut found = vec![false; locking.of.len()];
    mark(plan, clause, &locking.of, &mut found);
    match found.iter().position(|found| !found) {
        Some(missing) => Err(Error::Mysql {
            code: 3568,
            state: "HY000",
            message: format!("Unresolved table name `{}` in locking clause.", locking.of[missing].name),
        }),
        None => Ok(()),
    }
}

fn mark(plan: &mut LogicalPlan, clause: LockClause, of: &[ast::ObjectName], found: &mut [bool]) {
    match plan {
        LogicalPlan::Scan(scan) if !scan.is_virtual => {
            let named = of.iter().position(|name| same(&name.name, &scan.alias));
            if let Some(named) = named {
                found[named] = true;
            }
            if of.is_empty() || named.is_some() {
                scan.lock = Some(clause);
            }
        }
        LogicalPlan::Join(join) => {
            mark(&mut join.left, clause, of, found);
            mark(&mut join.right, clause, of, found);
        }
        _ => {}
    }
}

/// Marks every scan of a FROM clause as read for a change.
pub(super) fn lock_for_write(plan: &mut LogicalPlan) {
    mark(plan, LockClause { exclusive: true, wait: LockWait::Default }, &[], &mut []);
}

/// Whether a block assigns user variables.
fn assigns_variables(select: &ast::Select, order_by: &[ast::OrderItem]) -> bool {
    let in_items = select.items.iter().any(|item| match item {
        ast::SelectItem::Expr { expr, .. } => expr.assigns(),
        ast::SelectItem::Wildcard | ast::SelectItem::TableWildcard(_) => false,
    });
    in_items
        || select.where_.as_ref().is_some_and(ast::Expr::assigns)
        || order_by.iter().any(|key| key.expr.assigns())
}

/// Rows in an order, and so many of them.
fn sorted(plan: LogicalPlan, mut keys: Vec<SortKey>, limit: LimitClause) -> LogicalPlan {
    keys.retain(|key| !key.expr.is_constant());
    let plan = match keys.is_empty() {
        true => plan,
        false => LogicalPlan::Sort { input: Box::new(plan), keys },
    };
    limited(plan, limit)
}
