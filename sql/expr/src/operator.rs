//! Running one of DataFusion's operators over a stream of rows.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use datafusion_common::tree_node::TreeNodeRecursion;
use datafusion_common::{DataFusionError, Result as DfResult};
use datafusion_execution::config::SessionConfig;
use datafusion_execution::memory_pool::GreedyMemoryPool;
use datafusion_execution::runtime_env::RuntimeEnv;
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::{EquivalenceProperties, Partitioning};
use datafusion_physical_expr_common::physical_expr::PhysicalExpr;
use datafusion_physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;
use parking_lot::Mutex;

use crate::error::Result;
use crate::store_plan::pipeline::Batches;

/// Rows per batch.
pub const BATCH_ROWS_MAX: usize = 8192;

/// A context for one statement's operators: at most so much memory between them.
pub fn task_context(memory_quota_bytes: usize) -> Arc<TaskContext> {
    static CONFIG: LazyLock<SessionConfig> =
        LazyLock::new(|| SessionConfig::new().with_batch_size(BATCH_ROWS_MAX).with_target_partitions(1));
    static RUNTIME: LazyLock<RuntimeEnv> = LazyLock::new(RuntimeEnv::default);
    let runtime =
        RuntimeEnv { memory_pool: Arc::new(GreedyMemoryPool::new(memory_quota_bytes)), ..RUNTIME.clone() };
    Arc::new(TaskContext::new(
        None,
        String::new(),
        CONFIG.clone(),
        Default::default(),
        Default::default(),
        Default::default(),
        Default::default(),
        Arc::new(runtime),
    ))
}

/// Runs an operator whose inputs were made by [`input`].
pub fn execute(operator: Arc<dyn ExecutionPlan>, task: &Arc<TaskContext>) -> Result<Batches> {
    Ok(operator.execute(0, Arc::clone(task))?.boxed())
}

/// A stream as an operator's input. It can be read once.
#[must_use]
pub fn input(stream: Batches, schema: SchemaRef) -> Arc<dyn ExecutionPlan> {
    let properties = PlanProperties::new(
        EquivalenceProperties::new(Arc::clone(&schema)),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Incremental,
        Boundedness::Bounded,
    );
    Arc::new(Input { stream: Mutex::new(Some(stream)), schema, properties: Arc::new(properties) })
}

struct Input {
    stream: Mutex<Option<Batches>>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Input")
    }
}

impl DisplayAs for Input {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Input")
    }
}

impl ExecutionPlan for Input {
    fn name(&self) -> &str {
        "Input"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let stream = self.stream.lock().take();
        let stream = stream.ok_or_else(|| DataFusionError::Internal("an input was read twice".to_owned()))?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream)))
    }
}
