//! GROUP BY … WITH ROLLUP: the groups by all columns, by all but the last, and so on to the grand total.

use rutile_expr::Expr;

use super::{Binder, column_expr};
use crate::error::Result;
use crate::plan::logical::{Aggregate, LogicalPlan, SortKey};
use crate::plan::schema::{OutputColumn, Schema};

impl Binder<'_> {
    /// The union of the levels under the aggregate's own column ids, and the order MySQL gives it: each total behind its rows.
    pub(super) fn roll_up(
        &mut self,
        aggregate: Aggregate,
        levels: usize,
    ) -> Result<(LogicalPlan, Vec<SortKey>)> {
        let flag_type = Expr::int(0).field_type().clone();
        let mut columns: Vec<OutputColumn> = aggregate.schema.columns.clone();
        columns.iter_mut().take(levels).for_each(|column| column.ty.not_null = false);
        let flags: Vec<OutputColumn> = (0..levels).map(|_| self.output("", flag_type.clone())).collect();
        let mut inputs = Vec::with_capacity(levels + 1);
        for kept in (0..=levels).rev() {
            inputs.push(self.level(&aggregate, &columns, levels, kept)?);
        }
        let mut keys = Vec::with_capacity(levels * 2);
        for (column, flag) in columns.iter().zip(&flags) {
            keys.push(SortKey { expr: column_expr(flag), desc: false });
            keys.push(SortKey { expr: column_expr(column), desc: false });
        }
        columns.extend(flags);
        Ok((LogicalPlan::Union { inputs, schema: Schema::new(columns) }, keys))
    }

    /// The groups by the first `kept` columns; NULL stands for the others.
    fn level(
        &mut self,
        whole: &Aggregate,
        columns: &[OutputColumn],
        levels: usize,
        kept: usize,
    ) -> Result<LogicalPlan> {
        let calls = whole.schema.columns[levels..].to_vec();
        let schema = whole.schema.columns[..kept].iter().chain(&calls).cloned().collect();
        let aggregate = LogicalPlan::Aggregate(Aggregate {
            input: whole.input.clone(),
            group: whole.group[..kept].to_vec(),
            calls: whole.calls.clone(),
            schema: Schema::new(schema),
        });
        let (mut exprs, mut outputs) = (Vec::new(), Vec::new());
        for (place, column) in columns.iter().enumerate() {
            exprs.push(match place {
                rolled if rolled >= kept && rolled < levels => {
                    Expr::literal(rutile_expr::types::Datum::Null, column.ty.clone())
                }
                _ => column_expr(column),
            });
            outputs.push(self.output(&column.name, column.ty.clone()));
        }
        for place in 0..levels {
            let flag = Expr::int(i64::from(place >= kept));
            outputs.push(self.output("", flag.field_type().clone()));
            exprs.push(flag);
        }
        Ok(LogicalPlan::Project { input: Box::new(aggregate), exprs, schema: Schema::new(outputs) })
    }
}
