//! DELETE from one or several tables.

use std::collections::HashSet;

use super::ExecContext;
use super::dml;
use crate::Result;
use crate::plan::DeletePlan;
use crate::table::{TableWriter, constraint};

/// Runs a DELETE; what it did is in the context's effects.
pub async fn execute(plan: &DeletePlan, ctx: &ExecContext) -> Result<()> {
    let eval = constraint::dml_context(&ctx.eval, plan.ignore);
    let rows = dml::read_all(&plan.reader, ctx).await?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut deleted = 0;
    for target in &plan.targets {
        let writer = TableWriter::new(&ctx.statement, &eval, &target.table).await?;
        let mut seen = HashSet::new();
        for row in &rows {
            let Some(handle) = dml::target_handle(&eval, target, row)? else { continue };
            // A join may find a row several times.
            if plan.targets.len() > 1 && !seen.insert(handle.clone()) {
                continue;
            }
            writer.delete(dml::target_row(target, row), &handle)?;
            deleted += 1;
        }
    }
    ctx.statement.effects.add_affected(deleted);
    Ok(())
}
