//! One page of a plan: its source, the steps over it, and the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use datafusion_common::DataFusionError;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use prost::Message;
use rutile_expr::operator::task_context;
use rutile_expr::store_plan::{Step, StorePlan, pipeline, wire};
use rutile_expr::{Error as ExprError, EvalContext};
use rutile_proto::copr;

use super::source::{Error, Input, PageBounds, Progress, Source};

/// Bytes of rows in a page.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// How long a page of rows may take.
const ROWS_TIME: Duration = Duration::from_millis(100);
/// How long a page of groups or of first rows may take: each page gives all its groups.
const COLLECT_TIME: Duration = Duration::from_secs(1);
/// Memory of the steps of one page.
pub const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// A plan ready to run.
pub struct PageTask {
    pub plan: StorePlan,
    pub ctx: Arc<EvalContext>,
    pub input: Input,
    /// Rows asked for at most; 0 for no wish.
    pub rows_max: u64,
    pub memory_max_bytes: u64,
    /// The caller does not wait any more.
    pub cancelled: Arc<AtomicBool>,
}

/// The answer's message and what was read for it.
pub struct Page {
    pub data: Bytes,
    pub progress: Progress,
    /// Nothing of it depended on warnings or failed.
    pub clean: bool,
}

/// Runs a page to its end.
pub fn run(task: PageTask) -> Result<Page, Error> {
    let started = Instant::now();
    let PageTask { plan, ctx, mut input, rows_max, memory_max_bytes, cancelled } = task;
    let (filter, steps) = split_filter(plan.steps);
    input.filter = filter;
    let collects = steps.iter().any(Step::collects);
    let bounds = PageBounds {
        rows: if collects || rows_max == 0 { usize::MAX } else { rows_max as usize },
        bytes: if collects { usize::MAX } else { PAGE_BYTES_MAX },
        time: if collects { COLLECT_TIME } else { ROWS_TIME },
    };
    let source = Source::new(input, bounds);
    let schema = Arc::clone(source.schema());
    // Read while the steps run, and looked at when they are done.
    let source = Arc::new(Mutex::new(source));
    let failure = Arc::new(Mutex::new(None));
    let rows = rows(&source, &failure, cancelled);
    let memory = if memory_max_bytes == 0 { MEMORY_BYTES_MAX } else { memory_max_bytes };
    let memory = memory.min(MEMORY_BYTES_MAX) as usize;
    let run = || -> Result<(Vec<RecordBatch>, SchemaRef), ExprError> {
        let context = task_context(memory);
        let (output, schema) = pipeline::run(&steps, rows, schema, &ctx, &context)?;
        let batches = futures::executor::block_on(output.try_collect::<Vec<_>>())?;
        Ok((batches, schema))
    };
    let result = run();
    if let Some(error) = failure.lock().take() {
        return Err(error);
    }
    let progress = source.lock().progress().clone();
    let (kept, count) = wire::encode_warnings(&ctx.warnings);
    let mut answer = copr::Answer { warnings: kept, warning_count: count, ..copr::Answer::default() };
    match result {
        Ok((batches, schema)) => {
            let batches: Vec<_> = batches.into_iter().filter(|batch| batch.num_rows() > 0).collect();
            let sizes = batches.iter().map(|batch| {
                batch.columns().iter().map(|array| array.get_array_memory_size() as u64).sum::<u64>()
            });
            answer.summary = Some(copr::Summary {
                scanned_keys: progress.scanned_keys,
                scanned_bytes: progress.scanned_bytes,
                returned_rows: batches.iter().map(|batch| batch.num_rows() as u64).sum(),
                time_ns: started.elapsed().as_nanos() as u64,
                memory_max_bytes: sizes.sum(),
            });
            answer.rows = wire::encode_batches(&schema, &batches)?;
        }
        Err(error) => answer.error = Some(wire::encode_error(&error)),
    }
    let clean = answer.error.is_none() && answer.warning_count == 0;
    Ok(Page { data: answer.encode_to_vec().into(), progress, clean })
}

/// Conditions right behind the scan go into it.
fn split_filter(steps: Vec<Step>) -> (Vec<rutile_expr::Expr>, Vec<Step>) {
    let mut filter = Vec::new();
    let mut rest = Vec::with_capacity(steps.len());
    for step in steps {
        match step {
            Step::Filter(predicates) if rest.is_empty() => filter.extend(predicates),
            step => rest.push(step),
        }
    }
    (filter, rest)
}

/// The source's batches as a stream; what is not the evaluation's fault goes into `failure`.
fn rows(
    source: &Arc<Mutex<Source>>,
    failure: &Arc<Mutex<Option<Error>>>,
    cancelled: Arc<AtomicBool>,
) -> pipeline::Batches {
    let (source, failure) = (Arc::clone(source), Arc::clone(failure));
    let next = move || -> Option<Result<RecordBatch, DataFusionError>> {
        let read = match cancelled.load(Ordering::Relaxed) {
            true => Err(Error::Cancelled),
            false => source.lock().next(),
        };
        match read {
            Ok(batch) => batch.map(Ok),
            Err(Error::Expr(error)) => Some(Err(error.into())),
            Err(error) => {
                *failure.lock() = Some(error);
                Some(Err(ExprError::Interrupted.into()))
            }
        }
    };
    futures::stream::iter(std::iter::from_fn(next)).boxed()
}
