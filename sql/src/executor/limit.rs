//! LIMIT.

use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use rutile_expr::types::Datum;
use rutile_expr::{EvalContext, Expr};

use super::RowStream;
use crate::error::{Error, Result};
use crate::plan::logical::LimitClause;

/// How many rows to skip, then how many to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub skip: usize,
    pub count: usize,
}

impl Bounds {
    /// How many rows the input has to give.
    pub fn fetch(self) -> usize {
        self.skip.saturating_add(self.count)
    }
}

/// A clause's numbers in this execution.
pub fn bounds(limit: &LimitClause, eval: &EvalContext) -> Result<Bounds> {
    let number = |expr: &Option<Expr>, default: usize| match expr {
        None => Ok(default),
        Some(expr) => rows(&expr.eval_scalar(eval)?),
    };
    Ok(Bounds { skip: number(&limit.offset, 0)?, count: number(&limit.count, usize::MAX)? })
}

fn rows(value: &Datum) -> Result<usize> {
    let number = match value {
        Datum::Null => Some(0),
        Datum::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    let number = number.ok_or_else(|| Error::WrongArguments { to: "LIMIT".to_owned() })?;
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}

/// The rows within the bounds; the input is dropped once there are enough.
pub fn limited(input: RowStream, bounds: Bounds) -> RowStream {
    let state = (input, bounds.skip, bounds.count);
    futures::stream::try_unfold(state, |(mut input, mut skip, mut left)| async move {
        while left > 0 {
            let Some(batch) = input.next().await else { break };
            let batch: RecordBatch = batch?;
            let rows = batch.num_rows();
            if skip >= rows {
                skip -= rows;
                continue;
            }
            let taken = (rows - skip).min(left);
            let part = batch.slice(skip, taken);
            left -= taken;
            skip = 0;
            return Ok(Some((part, (input, skip, left))));
        }
        Ok(None)
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[tokio::test]
    async fn rows_are_skipped_and_cut_across_batches() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let batch = |values: Vec<i64>| {
            RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(values))])
                .map_err(Error::from)
        };
        let batches = vec![batch(vec![1, 2]), batch(vec![3, 4, 5]), batch(vec![6])];
        let input = futures::stream::iter(batches).boxed();
        let out: Vec<_> = limited(input, Bounds { skip: 1, count: 3 }).collect().await;
        let values: Vec<i64> = out
            .into_iter()
            .flat_map(|b| {
                let b = b.expect("a batch");
                let array = b.column(0).as_any().downcast_ref::<Int64Array>().expect("integers").clone();
                array.values().to_vec()
            })
            .collect();
        assert_eq!(values, [2, 3, 4]);
    }
}
