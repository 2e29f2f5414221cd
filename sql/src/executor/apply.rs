//! A subquery that depends on the row: run once per row of the outer input.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use parking_lot::Mutex;
use rutile_expr::array::{ColumnBuilder, datum_at};
use rutile_expr::types::Datum;

use super::{ExecContext, RowStream, builder, filter, subquery_value};
use crate::error::Result;
use crate::plan::SchemaRef;
use crate::plan::physical::Apply;

/// Answers that are remembered.
const ANSWERS_MAX: usize = 4096;

pub(super) fn open(apply: &Apply, schema: &SchemaRef, ctx: &ExecContext) -> Result<RowStream> {
    let outer = builder::open(&apply.outer, ctx)?;
    let apply = Arc::new(apply.clone());
    let (schema, ctx) = (Arc::clone(schema), ctx.clone());
    // Rows with the same outer values get the same answer: by what the values look like.
    let known: Arc<Mutex<HashMap<String, Datum>>> = Arc::default();
    let rows = outer.then(move |batch| {
        let (apply, schema, ctx) = (Arc::clone(&apply), Arc::clone(&schema), ctx.clone());
        let known = Arc::clone(&known);
        async move {
            let batch = batch?;
            let ty = &schema.columns[schema.len() - 1].ty;
            let mut values = ColumnBuilder::new(ty, batch.num_rows());
            for row in 0..batch.num_rows() {
                ctx.statement.check_cancelled()?;
                let outer = apply.bindings.iter().map(|(place, _)| {
                    let ty = &apply.outer.schema.columns[*place].ty;
                    datum_at(batch.column(*place), ty, row)
                });
                let outer: Vec<Datum> = outer.collect();
                let key = format!("{outer:?}");
                let before = known.lock().get(&key).cloned();
                if let Some(value) = before {
                    values.push(&value)?;
                    continue;
                }
                let slots = apply.bindings.iter().map(|(_, slot)| *slot);
                let inner = ctx.with_params(slots.zip(outer));
                let value = Box::pin(subquery_value(&apply.inner, apply.kind, &inner)).await?;
                values.push(&value)?;
                let mut known = known.lock();
                if known.len() >= ANSWERS_MAX {
                    known.clear();
                }
                known.insert(key, value);
            }
            let mut columns = batch.columns().to_vec();
            columns.push(values.finish());
            filter::batch(&schema.arrow(), columns, batch.num_rows())
        }
    });
    Ok(rows.boxed())
}
