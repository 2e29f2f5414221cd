//! UPDATE, and what it shares with DELETE: a reader whose output begins with whole rows of the targets.

use std::rc::Rc;
use std::sync::Arc;

use super::from::From;
use super::query::limited;
use super::scope::{Clause, ScopeChain, same};
use super::{Binder, ExprScope, column_expr};
use crate::catalog::model::{ColumnDefault, HandleKind, TableKind};
use crate::error::{Error, Result};
use crate::parser::ast;
use crate::plan::dml::{Assignment, DmlTarget, InsertValue, UpdatePlan};
use crate::plan::logical::{JoinKind, LogicalPlan, Scan, SortKey};
use crate::plan::schema::{ColumnId, OutputColumn, Schema};

/// The rows a statement changes, before they are put in the targets' order.
pub(super) struct Source {
    pub plan: LogicalPlan,
    pub chain: Rc<ScopeChain>,
    /// The scans of the FROM clause, and whether each is on an outer join's inner side.
    pub scans: Vec<(Scan, bool)>,
}

impl Binder<'_> {
    pub(super) fn bind_update(&mut self, update: &ast::Update) -> Result<UpdatePlan<LogicalPlan>> {
        if let Some(with) = &update.with {
            self.add_ctes(with)?;
        }
        let mut source = self.bind_source(&update.from, update.where_.as_ref())?;
        let mut targets: Vec<usize> = Vec::new();
        let mut assignments = Vec::with_capacity(update.assignments.len());
        let chain = Rc::clone(&source.chain);
        let mut names = ExprScope::new(&chain, Clause::FieldList);
        self.assigning = update.assignments.iter().any(|assignment| assignment.value.assigns());
        for assignment in &update.assignments {
            let column = chain.scope.find(&assignment.column, Clause::FieldList)?;
            let column = column
                .ok_or_else(|| Error::bad_field(assignment.column.to_string(), Clause::FieldList.name()))?;
            let (scan, offset) = owner(&source.scans, column.id).ok_or_else(|| Error::NonUpdatableTable {
                table: column.table.clone(),
                statement: "UPDATE",
            })?;
            check_writable(&source.scans[scan].0, "UPDATE")?;
            let target = targets.iter().position(|known| *known == scan).unwrap_or_else(|| {
                targets.push(scan);
                targets.len() - 1
            });
            let info = &source.scans[scan].0;
            let value = match (&assignment.value, &info.table.columns[offset].default) {
                (ast::Expr::Default(None), ColumnDefault::Expr(text)) => {
                    let columns = info.schema.columns.iter();
                    let public = columns
                        .zip(&info.offsets)
                        .filter(|(_, at)| info.table.columns.get(**at).is_some_and(|c| c.state.is_public()));
                    let row: Vec<_> = public.map(|(column, _)| column.clone()).collect();
                    InsertValue::Expr(self.bind_default(text, row)?)
                }
                (value, _) => self.bind_value(value, &mut names)?,
            };
            assignments.push(Assignment { target, column: offset, value });
        }
        for apply in std::mem::take(&mut names.applies) {
            source.plan = self.apply(source.plan, apply)?;
        }
        self.sort_and_limit(&mut source, &update.order_by, update.limit.as_ref())?;
        let mut used: Vec<ColumnId> = Vec::new();
        for assignment in &assignments {
            if let InsertValue::Expr(expr) = &assignment.value {
                used.extend(expr.columns());
            }
        }
        let (reader, targets) = self.reader(source, &targets, &used);
        Ok(UpdatePlan { reader, targets, assignments, ignore: update.ignore })
    }

    /// FROM and WHERE of a statement that changes rows.
    pub(super) fn bind_source(
        &mut self,
        from: &[ast::TableRef],
        condition: Option<&ast::Expr>,
    ) -> Result<Source> {
        self.scans_for_write = true;
        let bound = self.bind_from(from, None);
        self.scans_for_write = false;
        let From { mut plan, scope } = bound?;
        super::select::lock_for_write(&mut plan);
        let mut scans = Vec::new();
        collect_scans(&plan, false, &mut scans);
        let chain = Rc::new(ScopeChain { scope: Rc::new(scope), outer: None });
        if let Some(condition) = condition {
            plan = self.bind_where(plan, condition, &chain)?;
        }
        Ok(Source { plan, chain, scans })
    }

    pub(super) fn sort_and_limit(
        &mut self,
        source: &mut Source,
        order_by: &[ast::OrderItem],
        limit: Option<&ast::Limit>,
    ) -> Result<()> {
        let mut plan = std::mem::replace(&mut source.plan, LogicalPlan::dual());
        let mut names = ExprScope::new(&source.chain, Clause::OrderBy);
        let mut keys = Vec::with_capacity(order_by.len());
        for item in order_by {
            keys.push(SortKey { expr: self.bind_expr(&item.expr, &mut names)?, desc: item.desc });
        }
        for apply in std::mem::take(&mut names.applies) {
            plan = self.apply(plan, apply)?;
        }
        if !keys.is_empty() {
            plan = LogicalPlan::Sort { input: Box::new(plan), keys };
        }
        source.plan = limited(plan, self.bind_limit(limit)?);
        Ok(())
    }

    /// Puts the targets' whole rows first, then the other columns the assignments use.
    pub(super) fn reader(
        &mut self,
        source: Source,
        targets: &[usize],
        used: &[ColumnId],
    ) -> (LogicalPlan, Vec<DmlTarget>) {
        let mut columns: Vec<OutputColumn> = Vec::new();
        let mut bound = Vec::with_capacity(targets.len());
        for &target in targets {
            let (scan, nullable) = &source.scans[target];
            let first_column = columns.len();
            columns.extend(scan.schema.columns.iter().cloned());
            let rowid = scan.table.handle == HandleKind::Hidden;
            bound.push(DmlTarget {
                db: scan.db.clone(),
                table: Arc::clone(&scan.table),
                first_column,
                rowid_column: rowid.then(|| columns.len() - 1),
                nullable: *nullable,
            });
        }
        let all = source.plan.schema();
        for &id in used {
            if let Some(place) = all.position(id).filter(|_| !columns.iter().any(|column| column.id == id)) {
                columns.push(all.columns[place].clone());
            }
        }
        let exprs = columns.iter().map(column_expr).collect();
        let reader =
            LogicalPlan::Project { input: Box::new(source.plan), exprs, schema: Schema::new(columns) };
        (reader, bound)
    }
}

/// The scan that computes a column, and the column's offset in its table.
fn owner(scans: &[(Scan, bool)], id: ColumnId) -> Option<(usize, usize)> {
    scans.iter().enumerate().find_map(|(i, (scan, _))| Some((i, scan.offsets[scan.schema.position(id)?])))
}

pub(super) fn check_writable(scan: &Scan, statement: &'static str) -> Result<()> {
    if scan.table.kind == TableKind::System {
        return Err(Error::NonUpdatableTable { table: scan.alias.clone(), statement });
    }
    Ok(())
}

fn collect_scans(plan: &LogicalPlan, nullable: bool, found: &mut Vec<(Scan, bool)>) {
    match plan {
        LogicalPlan::Scan(scan) => found.push((scan.clone(), nullable)),
        LogicalPlan::Join(join) => {
            collect_scans(&join.left, nullable || join.kind == JoinKind::Right, found);
            collect_scans(&join.right, nullable || join.kind == JoinKind::Left, found);
        }
        _ => {}
    }
}

/// The scan with a name, as DELETE's target lists give it.
pub(super) fn scan_named(scans: &[(Scan, bool)], name: &ast::ObjectName) -> Option<usize> {
    scans.iter().position(|(scan, _)| {
        same(&scan.alias, &name.name) && name.schema.as_ref().is_none_or(|db| same(db, &scan.db))
    })
}
