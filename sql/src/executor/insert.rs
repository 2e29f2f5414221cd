//! INSERT, with IGNORE and ON DUPLICATE KEY UPDATE; REPLACE shares the way to the row.

use std::sync::Arc;

use rutile_expr::types::Datum;
use rutile_expr::{EvalContext, FieldType, SqlMode};

use super::ExecContext;
use super::dml::{self, CHUNK_ROWS};
use super::replace;
use crate::catalog::model::{HandleKind, TableInfo};
use crate::context::StatementContext;
use crate::plan::{InsertPlan, InsertSource, InsertValue};
use crate::table::constraint::{self, Slot};
use crate::table::{Conflict, Handle, Row, TableWriter, auto_id, index};
use crate::{Error, Result};

/// Runs an INSERT or REPLACE; what it did is in the context's effects.
pub async fn execute(plan: &InsertPlan, ctx: &ExecContext) -> Result<()> {
    let eval = constraint::dml_context(&ctx.eval, plan.ignore);
    let mut inserter = Inserter::new(plan, &ctx.statement, &eval).await?;
    match &plan.source {
        InsertSource::Values(rows) => {
            for chunk in rows.chunks(CHUNK_ROWS) {
                let mut news = Vec::with_capacity(chunk.len());
                for values in chunk {
                    news.push(inserter.row_of_values(values, rows.len() == 1).await?);
                }
                inserter.write(news).await?;
            }
            if rows.len() > 1 {
                inserter.set_info();
            }
        }
        InsertSource::Query(query) => {
            let types: Vec<FieldType> = query.schema.columns.iter().map(|c| c.ty.clone()).collect();
            let mut rows = dml::read_all(query, ctx).await?.into_iter().peekable();
            while rows.peek().is_some() {
                ctx.statement.check_cancelled()?;
                let mut news = Vec::with_capacity(CHUNK_ROWS);
                for source in rows.by_ref().take(CHUNK_ROWS) {
                    news.push(inserter.row_of_source(source, &types).await?);
                }
                inserter.write(news).await?;
            }
            inserter.set_info();
        }
    }
    Ok(())
}

/// A row on its way into the table.
pub(super) struct NewRow {
    pub row: Row,
    pub handle: Handle,
    /// The AUTO_INCREMENT value that was generated for it.
    pub generated: Option<u64>,
    /// The AUTO_INCREMENT value that was given.
    given: Option<u64>,
    /// The source query's columns, for ON DUPLICATE KEY UPDATE.
    source: Row,
}

/// Counts for the OK packet's text.
#[derive(Default)]
pub(super) struct Counts {
    pub records: u64,
    pub inserted: u64,
    pub deleted: u64,
    pub updated: u64,
}

pub(super) struct Inserter<'a> {
    plan: &'a InsertPlan,
    ctx: &'a StatementContext,
    pub eval: &'a EvalContext,
    pub writer: TableWriter<'a>,
    /// Defaults of columns that the statement does not name, computed once.
    defaults: Vec<Option<Datum>>,
    pub counts: Counts,
    row_number: usize,
    /// The AUTO_INCREMENT column's largest value was generated.
    at_top: bool,
}

impl<'a> Inserter<'a> {
    pub(super) async fn new(
        plan: &'a InsertPlan,
        ctx: &'a Arc<StatementContext>,
        eval: &'a EvalContext,
    ) -> Result<Self> {
        let writer = TableWriter::new(ctx, eval, &plan.table).await?;
        let defaults = vec![None; plan.table.columns.len()];
        Ok(Inserter {
            plan,
            ctx,
            eval,
            writer,
            defaults,
            counts: Counts::default(),
            row_number: 0,
            at_top: false,
        })
    }

    pub(super) fn table(&self) -> &'a TableInfo {
        &self.plan.table
    }

    /// `Records: 3  Duplicates: 0  Warnings: 0`
    pub(super) fn set_info(&self) {
        let Counts { records, inserted, deleted, updated } = self.counts;
        let duplicates = if self.plan.ignore { records - inserted } else { deleted + updated };
        let warnings = self.eval.warnings.count();
        self.ctx
            .effects
            .set_info(format!("Records: {records}  Duplicates: {duplicates}  Warnings: {warnings}"));
    }

    /// The row that one list of VALUES makes.
    async fn row_of_values(&mut self, values: &[InsertValue], single: bool) -> Result<NewRow> {
        self.row_number += 1;
        let mut row = self.default_row()?;
        let mut auto_given = false;
        let mut late = Vec::new();
        for (offset, value) in self.plan.columns.iter().zip(values) {
            let slot = Slot { column: &self.table().columns[*offset], row: self.row_number };
            let InsertValue::Expr(expr) = value else {
                if self.has_expression(*offset) {
                    late.push(*offset);
                    continue;
                }
                row[*offset] = self.default_of(*offset)?;
                continue;
            };
            let value = dml::value_of(self.eval, expr, &row)?;
            auto_given |= slot.column.auto_increment;
            row[*offset] = self.accept(value, expr.field_type(), slot, single)?;
        }
        self.compute_defaults(&mut row, &late, single)?;
        self.finish(row, auto_given, Vec::new()).await
    }

    /// Whether the column's default is an expression.
    fn has_expression(&self, offset: usize) -> bool {
        self.plan.defaults.iter().any(|(other, _)| *other == offset)
    }

    /// Expression defaults of the columns that the statement gives no value, in the table's order; `late`: of these, too.
    fn compute_defaults(&self, row: &mut Row, late: &[usize], single: bool) -> Result<()> {
        for (offset, expr) in &self.plan.defaults {
            if self.plan.columns.contains(offset) && !late.contains(offset) {
                continue;
            }
            let slot = Slot { column: &self.table().columns[*offset], row: self.row_number };
            let value = dml::value_of(self.eval, expr, row)?;
            row[*offset] = self.accept(value, expr.field_type(), slot, single)?;
        }
        Ok(())
    }

    /// The row that a source query's row, or a line of a file, makes.
    pub(super) async fn row_of_source(&mut self, source: Row, types: &[FieldType]) -> Result<NewRow> {
        self.row_number += 1;
        let mut row = self.default_row()?;
        let mut auto_given = false;
        for ((offset, value), ty) in self.plan.columns.iter().zip(&source).zip(types) {
            let slot = Slot { column: &self.table().columns[*offset], row: self.row_number };
            auto_given |= slot.column.auto_increment;
            row[*offset] = self.accept(value.clone(), ty, slot, false)?;
        }
        self.compute_defaults(&mut row, &[], false)?;
        let source = if self.plan.on_duplicate.is_empty() { Vec::new() } else { source };
        self.finish(row, auto_given, source).await
    }

    /// Converts a value; NULL for the AUTO_INCREMENT column asks for a generated one.
    fn accept(&self, value: Datum, from: &FieldType, slot: Slot<'_>, single: bool) -> Result<Datum> {
        if value.is_null() && slot.column.auto_increment {
            return Ok(Datum::Null);
        }
        let value = constraint::convert(self.eval, value, from, slot)?;
        constraint::check_null(self.eval, value, slot, single, self.plan.ignore)
    }

    /// Every column's default; columns that the statement names get NULL until they are assigned.
    fn default_row(&mut self) -> Result<Row> {
        let mut row = Vec::with_capacity(self.table().columns.len());
        for offset in 0..self.table().columns.len() {
            let named = self.plan.columns.contains(&offset);
            let quiet = self.table().columns[offset].auto_increment;
            row.push(if quiet || self.has_expression(offset) {
                Datum::Null
            } else if named {
                // What an expression to its left reads; no default is no error here.
                self.defaults[offset].clone().unwrap_or_default()
            } else {
                self.default_of(offset)?
            });
        }
        Ok(row)
    }

    fn default_of(&mut self, offset: usize) -> Result<Datum> {
        let column = &self.table().columns[offset];
        if column.auto_increment {
            return Ok(Datum::Null);
        }
        if let Some(value) = &self.defaults[offset] {
            return Ok(value.clone());
        }
        let value = if column.state.is_public() {
            constraint::default_value(self.eval, column)?
        } else {
            constraint::origin_default(self.eval, column)?
        };
        self.defaults[offset] = Some(value.clone());
        Ok(value)
    }

    /// Settles the AUTO_INCREMENT value and the handle.
    async fn finish(&mut self, mut row: Row, auto_given: bool, source: Row) -> Result<NewRow> {
        let table = self.table();
        let (mut generated, mut given) = (None, None);
        if let Some((offset, column)) = table.auto_column() {
            let zero_is_a_value = self.eval.sql_mode.contains(SqlMode::NO_AUTO_VALUE_ON_ZERO);
            let number = auto_number(&row[offset]);
            if number.is_none() || (number == Some(0) && !(zero_is_a_value && auto_given)) {
                let (increment, first) = self.ctx.settings.auto_increment;
                let value = auto_id::next_increment(&self.ctx.client, table, increment, first).await?;
                let value = self.capped(value, &column.ty)?;
                row[offset] = auto_datum(value, &column.ty)?;
                generated = Some(value);
            } else if let Some(value) = number.filter(|v| *v > 0) {
                auto_id::rebase(&self.ctx.client, table.id, value as u64).await?;
                given = Some(value as u64);
            }
        }
        let handle = match table.handle {
            HandleKind::Hidden => Handle::of_i64(auto_id::next_row_id(&self.ctx.client, table.id).await?),
            HandleKind::Int { .. } | HandleKind::Common => index::handle_of_row(self.eval, table, &row)?
                .ok_or_else(|| Error::internal("a row has no primary key"))?,
        };
        Ok(NewRow { row, handle, generated, given, source })
    }

    /// At its type's top a counter stays: the value is given out once more, and is a duplicate where it is a unique key; but
    /// no statement gets it twice, nor a table that was told to begin above it.
    fn capped(&mut self, value: u64, ty: &FieldType) -> Result<u64> {
        let top = auto_id::top_of(ty);
        if value == u64::MAX || (value > top && (self.at_top || self.table().auto_increment > top)) {
            return Err(Error::AutoIncrementFailed);
        }
        self.at_top |= value >= top;
        Ok(value.min(top))
    }

    /// Writes rows, in order.
    pub(super) async fn write(&mut self, news: Vec<NewRow>) -> Result<()> {
        let resolves = self.plan.ignore || self.plan.replace || !self.plan.on_duplicate.is_empty();
        let (keys, rest): (Vec<(Row, Handle)>, Vec<_>) =
            news.into_iter().map(|n| ((n.row, n.handle), (n.generated, n.given, n.source))).unzip();
        self.writer.prepare(&keys, resolves).await?;
        for ((row, handle), (generated, given, source)) in keys.into_iter().zip(rest) {
            self.counts.records += 1;
            let new = NewRow { row, handle, generated, given, source };
            if self.plan.replace {
                replace::write(self, &new).await?;
            } else if !self.plan.on_duplicate.is_empty() {
                self.write_or_update(&new).await?;
            } else if self.plan.ignore
                && let Some(conflict) = self.writer.conflict(&new.row, &new.handle)?
            {
                let duplicate = index::duplicate(self.table(), conflict.index, &new.row);
                dml::ignore_duplicate(self.eval, Err(duplicate))?;
            } else {
                self.insert(&new)?;
            }
        }
        Ok(())
    }

    /// Inserts a row that is believed to be no duplicate.
    pub(super) fn insert(&mut self, new: &NewRow) -> Result<()> {
        self.writer.insert(&new.row, &new.handle)?;
        self.counts.inserted += 1;
        self.ctx.effects.add_affected(1);
        if let Some(id) = new.generated {
            self.ctx.effects.set_generated_id(id);
        }
        if let Some(id) = new.given {
            self.ctx.effects.set_stored_id(id);
        }
        Ok(())
    }

    /// Rows deleted or changed in place of inserting.
    pub(super) fn add_affected(&self, rows: u64) {
        self.ctx.effects.add_affected(rows);
    }

    async fn write_or_update(&mut self, new: &NewRow) -> Result<()> {
        match self.writer.conflict(&new.row, &new.handle)? {
            Some(conflict) => self.update_existing(new, conflict).await,
            None => self.insert(new),
        }
    }

    /// ON DUPLICATE KEY UPDATE of the row in the way: 2 affected rows if it changes, else none (1 if the client counts
    /// rows found).
    async fn update_existing(&mut self, new: &NewRow, conflict: Conflict<'a>) -> Result<()> {
        let table = self.table();
        let old = self.writer.row_of(&conflict.handle).await?;
        let old = old.ok_or_else(|| Error::internal("an index entry has no row"))?;
        let columns = table.columns.len();
        let mut input: Row = old.iter().chain(&new.row).chain(&new.source).cloned().collect();
        for assignment in &self.plan.on_duplicate {
            let slot = Slot { column: &table.columns[assignment.column], row: self.row_number };
            input[assignment.column] = match &assignment.value {
                InsertValue::Default => self.default_of(assignment.column)?,
                InsertValue::Expr(expr) => {
                    let value = dml::value_of(self.eval, expr, &input)?;
                    dml::assigned(self.eval, value, expr.field_type(), slot, self.plan.ignore)?
                }
            };
        }
        let mut changed = input;
        changed.truncate(columns);
        if let Some((offset, _)) = table.auto_column()
            && let Some(id) = auto_number(&changed[offset])
        {
            self.ctx.effects.set_stored_id(id as u64);
        }
        if changed == old {
            self.add_affected(u64::from(self.ctx.settings.found_rows));
            return Ok(());
        }
        let assigned = |offset| self.plan.on_duplicate.iter().any(|a| a.column == offset);
        dml::touch(self.eval, table, &mut changed, assigned)?;
        let handle = match table.handle {
            HandleKind::Hidden => conflict.handle.clone(),
            HandleKind::Int { .. } | HandleKind::Common => index::handle_of_row(self.eval, table, &changed)?
                .ok_or_else(|| Error::internal("a row has no primary key"))?,
        };
        if self.writer.takes_unique_key(&old, &conflict.handle, &changed, &handle)? {
            self.writer.prepare(&[(changed.clone(), handle.clone())], true).await?;
        }
        let txn = self.ctx.txn.transaction().await?;
        let savepoint = txn.savepoint();
        let result = self.writer.update(&old, &conflict.handle, &changed, &handle);
        if self.plan.ignore {
            if !dml::ignore_duplicate(self.eval, result)? {
                txn.rollback_to(savepoint);
                return Ok(());
            }
        } else {
            result?;
        }
        self.counts.updated += 1;
        self.add_affected(2);
        Ok(())
    }
}

/// The AUTO_INCREMENT column's value as a whole number; `None` for NULL.
fn auto_number(value: &Datum) -> Option<i128> {
    match value {
        Datum::Int(v) => Some(i128::from(*v)),
        Datum::UInt(v) => Some(i128::from(*v)),
        Datum::Double(v) => Some(*v as i128),
        _ => None,
    }
}

/// A generated value in its column's type.
fn auto_datum(value: u64, ty: &FieldType) -> Result<Datum> {
    let datum = match ty {
        ty if !ty.is_integer() => Some(Datum::Double(value as f64)),
        ty if ty.unsigned => (value <= ty.unsigned_max()).then_some(Datum::UInt(value)),
        ty => i64::try_from(value).ok().filter(|v| *v <= ty.signed_range().1).map(Datum::Int),
    };
    datum.ok_or(Error::AutoIncrementFailed)
}
