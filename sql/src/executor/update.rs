//! UPDATE of one or several tables.

use std::collections::HashSet;

use rutile_expr::EvalContext;
use rutile_expr::types::Datum;

use super::ExecContext;
use super::dml;
use crate::catalog::model::HandleKind;
use crate::plan::{DmlTarget, InsertValue, UpdatePlan};
use crate::table::constraint::{self, Slot};
use crate::table::{Handle, Row, TableWriter, index};
use crate::{Error, Result};

/// A row that changes.
struct Change {
    old: Row,
    old_handle: Handle,
    new: Row,
    new_handle: Handle,
}

/// Runs an UPDATE; what it did is in the context's effects.
pub async fn execute(plan: &UpdatePlan, ctx: &ExecContext) -> Result<()> {
    let eval = constraint::dml_context(&ctx.eval, plan.ignore);
    let rows = dml::read_all(&plan.reader, ctx).await?;
    let mut matched = 0;
    let mut changes: Vec<Vec<Change>> = plan.targets.iter().map(|_| Vec::new()).collect();
    let mut seen: Vec<HashSet<Handle>> = vec![HashSet::new(); plan.targets.len()];
    for (at, row) in rows.iter().enumerate() {
        let mut changed = row.clone();
        assign(plan, &eval, &mut changed, at + 1)?;
        for (t, target) in plan.targets.iter().enumerate() {
            let Some(handle) = dml::target_handle(&eval, target, row)? else { continue };
            // A join may find a row several times: it is changed once.
            if plan.targets.len() > 1 && !seen[t].insert(handle.clone()) {
                continue;
            }
            if !is_assigned(plan, t) {
                continue;
            }
            matched += 1;
            if let Some(change) = change_of(plan, &eval, t, target, row, &changed, handle)? {
                changes[t].push(change);
            }
        }
    }
    let mut done = 0;
    for (target, changes) in plan.targets.iter().zip(changes) {
        done += apply(plan, ctx, &eval, target, changes).await?;
    }
    ctx.statement.effects.add_affected(if ctx.statement.settings.found_rows { matched } else { done });
    let warnings = eval.warnings.count();
    ctx.statement.effects.set_info(format!("Rows matched: {matched}  Changed: {done}  Warnings: {warnings}"));
    Ok(())
}

fn is_assigned(plan: &UpdatePlan, target: usize) -> bool {
    plan.assignments.iter().any(|a| a.target == target)
}

/// Evaluates the assignments from left to right over the reader's row.
fn assign(plan: &UpdatePlan, eval: &EvalContext, row: &mut Row, number: usize) -> Result<()> {
    for assignment in &plan.assignments {
        let target = &plan.targets[assignment.target];
        let column = &target.table.columns[assignment.column];
        let slot = Slot { column, row: number };
        row[target.first_column + assignment.column] = match &assignment.value {
            InsertValue::Default => constraint::default_value(eval, column)?,
            InsertValue::Expr(expr) => {
                let value = dml::value_of(eval, expr, row)?;
                dml::assigned(eval, value, expr.field_type(), slot, plan.ignore)?
            }
        };
    }
    Ok(())
}

/// `None` if the row stays as it is.
fn change_of(
    plan: &UpdatePlan,
    eval: &EvalContext,
    t: usize,
    target: &DmlTarget,
    row: &[Datum],
    changed: &[Datum],
    old_handle: Handle,
) -> Result<Option<Change>> {
    let old = dml::target_row(target, row);
    let new = dml::target_row(target, changed);
    if old == new {
        return Ok(None);
    }
    let mut new = new.to_vec();
    let assigned = |offset| plan.assignments.iter().any(|a| a.target == t && a.column == offset);
    dml::touch(eval, &target.table, &mut new, assigned)?;
    let new_handle = match target.table.handle {
        HandleKind::Hidden => old_handle.clone(),
        HandleKind::Int { .. } | HandleKind::Common => index::handle_of_row(eval, &target.table, &new)?
            .ok_or_else(|| Error::internal("a row has no primary key"))?,
    };
    Ok(Some(Change { old: old.to_vec(), old_handle, new, new_handle }))
}

/// Writes the changes of one table; answers how many were made.
async fn apply(
    plan: &UpdatePlan,
    ctx: &ExecContext,
    eval: &EvalContext,
    target: &DmlTarget,
    changes: Vec<Change>,
) -> Result<u64> {
    if changes.is_empty() {
        return Ok(0);
    }
    let mut writer = TableWriter::new(&ctx.statement, eval, &target.table).await?;
    let mut moving = Vec::new();
    for c in &changes {
        if writer.takes_unique_key(&c.old, &c.old_handle, &c.new, &c.new_handle)? {
            moving.push((c.new.clone(), c.new_handle.clone()));
        }
    }
    if !moving.is_empty() {
        if changes.len() > 1 || plan.ignore {
            writer.check_now();
        }
        writer.prepare(&moving, false).await?;
    }
    let txn = ctx.statement.txn.transaction().await?;
    let mut done = 0;
    for c in changes {
        let savepoint = txn.savepoint();
        let result = writer.update(&c.old, &c.old_handle, &c.new, &c.new_handle);
        if !plan.ignore {
            result?;
        } else if !dml::ignore_duplicate(eval, result)? {
            txn.rollback_to(savepoint);
            continue;
        }
        done += 1;
    }
    Ok(done)
}
