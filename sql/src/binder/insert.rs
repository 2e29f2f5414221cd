//! INSERT and REPLACE.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use super::scope::{Clause, Scope, ScopeChain, same};
use super::{Binder, ExprScope};
use crate::catalog::model::{ColumnDefault, TableInfo, TableKind};
use crate::error::{Error, Result};
use crate::parser::ast;
use crate::plan::dml::{Assignment, InsertPlan, InsertSource, InsertValue};
use crate::plan::logical::LogicalPlan;
use crate::plan::schema::OutputColumn;

impl Binder<'_> {
    pub(super) fn bind_insert(&mut self, insert: &ast::Insert) -> Result<InsertPlan<LogicalPlan>> {
        let (db, table) = self.resolve_table(&insert.table)?;
        if table.kind == TableKind::System {
            let (user, host) = self.ctx.statement.environment.current_user();
            let privilege = "INSERT".to_owned();
            return Err(Error::TableAccessDenied { privilege, user, host, table: table.name.clone() });
        }
        if !insert.partitions.is_empty() {
            return Err(Error::not_supported("partitions"));
        }
        // The first ids are the table's columns by offset, the next ones the new row's.
        self.next_id = 2 * table.columns.len();
        let columns = insert_columns(insert, &table)?;
        let source = match &insert.source {
            ast::InsertSource::Values(rows) => {
                InsertSource::Values(self.bind_rows(rows, insert, &columns, &db, &table)?)
            }
            ast::InsertSource::Query(query) => {
                let plan = self.bind_query(query, None)?;
                if plan.schema().len() != columns.len() {
                    return Err(Error::WrongValueCountOnRow { row: 1 });
                }
                InsertSource::Query(Box::new(plan))
            }
        };
        let on_duplicate = self.bind_on_duplicate(insert, &db, &table, &columns, &source)?;
        let defaults = self.defaults_over_row(&db, &table)?;
        Ok(InsertPlan {
            db,
            table,
            defaults,
            columns,
            source,
            on_duplicate,
            ignore: insert.ignore,
            replace: insert.replace,
        })
    }

    fn bind_rows(
        &mut self,
        rows: &[Vec<ast::Expr>],
        insert: &ast::Insert,
        columns: &[usize],
        db: &str,
        table: &Arc<TableInfo>,
    ) -> Result<Vec<Vec<InsertValue>>> {
        let mut scope = Scope::default();
        scope.add_table(db, &table.name, self.row_columns(db, table, &table.name, 0))?;
        let chain = Rc::new(ScopeChain { scope: Rc::new(scope), outer: None });
        let mut names = ExprScope::new(&chain, Clause::FieldList);
        self.assigning = rows.iter().flatten().any(ast::Expr::assigns);
        let mut bound = Vec::with_capacity(rows.len());
        for (i, row) in rows.iter().enumerate() {
            // `VALUES ()` is a row of defaults where no columns were listed.
            let all_default = row.is_empty() && !insert.has_columns;
            if row.len() != columns.len() && !all_default {
                return Err(Error::WrongValueCountOnRow { row: i + 1 });
            }
            let mut values = Vec::with_capacity(columns.len());
            for (value, offset) in row.iter().zip(columns) {
                values.push(match (value, &table.columns[*offset].default) {
                    (ast::Expr::Default(None), ColumnDefault::Expr(text)) => {
                        let row = self.row_columns(db, table, &table.name, 0);
                        InsertValue::Expr(self.bind_default(text, row.into_iter().map(|(c, _)| c))?)
                    }
                    _ => self.bind_value(value, &mut names)?,
                });
            }
            values.resize(columns.len(), InsertValue::Default);
            bound.push(values);
        }
        names.reject_applies("a correlated subquery in VALUES")?;
        Ok(bound)
    }

    pub(super) fn bind_value(&mut self, value: &ast::Expr, names: &mut ExprScope<'_>) -> Result<InsertValue> {
        match value {
            ast::Expr::Default(None) => Ok(InsertValue::Default),
            expr => Ok(InsertValue::Expr(self.bind_expr(expr, names)?)),
        }
    }

    fn bind_on_duplicate(
        &mut self,
        insert: &ast::Insert,
        db: &str,
        table: &Arc<TableInfo>,
        columns: &[usize],
        source: &InsertSource<LogicalPlan>,
    ) -> Result<Vec<Assignment>> {
        if insert.on_duplicate.is_empty() {
            return Ok(Vec::new());
        }
        let width = table.columns.len();
        let mut scope = Scope::default();
        scope.add_table(db, &table.name, self.row_columns(db, table, &table.name, 0))?;
        if let Some((alias, names)) = &insert.row_alias {
            if !names.is_empty() && names.len() != columns.len() {
                return Err(Error::WrongValueCount);
            }
            let mut new_row = self.row_columns("", table, alias, width);
            for (place, name) in names.iter().enumerate() {
                new_row[columns[place]].0.name.clone_from(name);
            }
            scope.add_table("", alias, new_row)?;
        }
        if let InsertSource::Query(plan) = source {
            let known: HashSet<String> = scope.columns.iter().map(|c| c.column.name.to_lowercase()).collect();
            let extra =
                plan.schema().columns.iter().filter(|c| !known.contains(&c.name.to_lowercase())).cloned();
            scope.columns.extend(extra.map(|column| super::scope::ScopeColumn {
                column,
                visible: true,
                merged_away: false,
            }));
        }
        let chain = Rc::new(ScopeChain { scope: Rc::new(scope), outer: None });
        let mut names = ExprScope::new(&chain, Clause::FieldList);
        names.values_row = Some(width);
        let mut assignments = Vec::with_capacity(insert.on_duplicate.len());
        for assignment in &insert.on_duplicate {
            let name = &assignment.column;
            let of_table = name.table.as_ref().is_none_or(|alias| same(alias, &table.name));
            let column = table
                .column(&name.name)
                .filter(|_| of_table)
                .ok_or_else(|| Error::bad_field(name.to_string(), Clause::FieldList.name()))?
                .0;
            let value = match (&assignment.value, &table.columns[column].default) {
                (ast::Expr::Default(None), ColumnDefault::Expr(text)) => {
                    let row = self.row_columns(db, table, &table.name, 0);
                    InsertValue::Expr(self.bind_default(text, row.into_iter().map(|(c, _)| c))?)
                }
                (value, _) => self.bind_value(value, &mut names)?,
            };
            assignments.push(Assignment { target: 0, column, value });
        }
        names.reject_applies("a correlated subquery in ON DUPLICATE KEY UPDATE")?;
        Ok(assignments)
    }

    /// The public columns of a row of the table, with ids by offset from `first`.
    pub(super) fn row_columns(
        &self,
        db: &str,
        table: &TableInfo,
        alias: &str,
        first: usize,
    ) -> Vec<(OutputColumn, bool)> {
        let columns = table.public_columns().map(|(offset, column)| {
            let mut output = OutputColumn::computed(first + offset, &column.name, column.ty.clone());
            output.table = alias.to_owned();
            output.db = db.to_owned();
            output.org_table = table.name.clone();
            output.org_name = column.name.clone();
            (output, true)
        });
        columns.collect()
    }
}

fn insert_columns(insert: &ast::Insert, table: &TableInfo) -> Result<Vec<usize>> {
    if !insert.has_columns {
        return Ok(table.visible_columns().map(|(offset, _)| offset).collect());
    }
    let mut columns: Vec<usize> = Vec::with_capacity(insert.columns.len());
    for name in &insert.columns {
        let (offset, _) =
            table.column(name).ok_or_else(|| Error::bad_field(name.clone(), Clause::FieldList.name()))?;
        if columns.contains(&offset) {
            return Err(Error::FieldSpecifiedTwice { column: name.clone() });
        }
        columns.push(offset);
    }
    Ok(columns)
}
