//! Telling few rows from many before an operator is built for them.

use arrow::record_batch::RecordBatch;
use futures::StreamExt;

use super::RowStream;
use crate::error::Result;

/// Up to so many rows are few.
const ROWS_MAX: usize = 1024;

/// What an input turned out to be.
pub enum Read {
    /// Few rows, all of them.
    All(Vec<RecordBatch>),
    /// All rows, from the first.
    Many(RowStream),
}

/// Reads until it is clear which of both an input is.
pub async fn read(mut input: RowStream) -> Result<Read> {
    let (mut batches, mut rows) = (Vec::new(), 0);
    while let Some(batch) = input.next().await {
        let batch = batch?;
        rows += batch.num_rows();
        batches.push(batch);
        if rows > ROWS_MAX {
            let read = futures::stream::iter(batches.into_iter().map(Ok));
            return Ok(Read::Many(read.chain(input).boxed()));
        }
    }
    Ok(Read::All(batches))
}
