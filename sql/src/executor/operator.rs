//! Running one of DataFusion's operators over streams of ours.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_common::DataFusionError;
use datafusion_execution::TaskContext;
use datafusion_physical_plan::ExecutionPlan;
use futures::StreamExt;
pub use rutile_expr::operator::{BATCH_ROWS_MAX, task_context};

use super::RowStream;
use crate::error::{Error, Result};

/// Runs an operator whose inputs were made by [`input`].
pub fn run(operator: Arc<dyn ExecutionPlan>, task: Arc<TaskContext>) -> Result<RowStream> {
    let stream = rutile_expr::operator::execute(operator, &task)?;
    Ok(stream.map(|batch| batch.map_err(Error::from)).boxed())
}

/// A stream as an operator's input. It can be read once.
pub fn input(stream: RowStream, schema: SchemaRef) -> Arc<dyn ExecutionPlan> {
    let stream = stream.map(|batch| batch.map_err(DataFusionError::from)).boxed();
    rutile_expr::operator::input(stream, schema)
}
