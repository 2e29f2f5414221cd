//! A request from its checks to its answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rutile_expr::store_plan::wire;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::CommandPri;
use rutile_proto::{codec, coprocessor, errorpb, key};
use tokio::sync::oneshot;

use super::page::{self, PageTask};
use super::pool::{Full, Pool};
use super::source::{Error, Input, Range};
use crate::mvcc::ReadOptions;
use crate::raftstore::RegionSnapshot;
use crate::txn::replica_read::ReadScope;
use crate::txn::scheduler::key_not_in_region;
use crate::txn::{self, Scheduler};

/// Pages of so few rows run where they are asked for: a thread's wake-up would cost more than the page.
const INLINE_ROWS_MAX: u64 = 64;
/// How long a caller waits before it asks a busy store again.
const BUSY_PAUSE_MS: u64 = 20;

/// Answers coprocessor requests that hold plans (kind [`wire::REQUEST_KIND`]).
pub struct Endpoint {
    scheduler: Scheduler,
    pool: Pool,
}

/// Tells a job that nobody waits for it any more.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Endpoint {
    /// With so many threads of its own.
    pub fn start(scheduler: Scheduler, threads: usize) -> std::io::Result<Endpoint> {
        Ok(Endpoint { scheduler, pool: Pool::start(threads)? })
    }

    /// Runs a plan; `None` when the request's `tp` is unknown.
    pub async fn handle(&self, request: coprocessor::Request) -> Option<coprocessor::Response> {
        if request.tp != wire::REQUEST_KIND {
            return None;
        }
        let failed = match self.run(request).await {
            Ok(response) => return Some(response),
            Err(failed) => failed,
        };
        let mut response = coprocessor::Response::default();
        match failed {
            Error::Txn(error) => match (error.lock_info().cloned(), error) {
                (Some(lock), _) => response.locked = Some(lock),
                (None, error) => match error.split() {
                    Ok(error) => {
                        let texts = [error.abort, error.retryable];
                        response.other_error = texts.into_iter().find(|t| !t.is_empty()).unwrap_or_default();
                    }
                    Err(error) => response.region_error = Some(error),
                },
            },
            Error::Expr(error) => response.other_error = error.to_string(),
            Error::Cancelled => response.other_error = "cancelled".to_owned(),
        }
        Some(response)
    }

    async fn run(&self, request: coprocessor::Request) -> Result<coprocessor::Response, Error> {
        let ctx = request.context.clone().unwrap_or_default();
        let (plan, eval, memory_max_bytes) = wire::decode_plan(&request.data)?;
        let ranges = ranges(&request, plan.desc)?;
        let options = ReadOptions::from_context(&ctx, Timestamp(request.start_ts));
        let (lowest, highest) = bounds(&ranges);
        let scope = ReadScope::Range(&lowest, &highest);
        let snapshot = self.scheduler.read_snapshot(&ctx, &options, scope).await?;
        self.scheduler.check_safe_point(options.ts)?;
        check_ranges(&ranges, &snapshot)?;
        let version = match request.is_cache_enabled {
            true => snapshot.applied_index().map_err(txn::Error::from)?,
            false => 0,
        };
        if request.is_cache_enabled && version > 0 && version == request.cache_if_match_version {
            return Ok(coprocessor::Response {
                is_cache_hit: true,
                can_be_cached: true,
                cache_last_version: version,
                ..coprocessor::Response::default()
            });
        }
        let covered = (lowest, highest);
        let (desc, read_ts) = (plan.desc, options.ts);
        let (spec, eval) = (Arc::clone(&plan.scan), Arc::new(eval));
        let input =
            Input { snapshot, options, ranges, desc, spec, ctx: Arc::clone(&eval), filter: Vec::new() };
        let cancel = Cancel(Arc::default());
        let task = PageTask {
            plan,
            ctx: eval,
            input,
            rows_max: request.paging_size,
            memory_max_bytes,
            cancelled: Arc::clone(&cancel.0),
        };
        let page = if (1..=INLINE_ROWS_MAX).contains(&request.paging_size) {
            guarded(task)?
        } else {
            self.in_pool(ctx.priority(), task).await?
        };
        drop(cancel);
        let stopped_at = page.progress.stopped_at;
        // At the newest timestamp the next read may see more although nothing has been applied in between.
        let cacheable = page.clean && !page.progress.newer_seen && read_ts != Timestamp::MAX;
        Ok(coprocessor::Response {
            data: page.data,
            can_be_cached: version > 0 && stopped_at.is_none() && cacheable,
            cache_last_version: version,
            range: stopped_at.map(|at| consumed(covered, at, desc)),
            ..coprocessor::Response::default()
        })
    }

    async fn in_pool(&self, priority: CommandPri, task: PageTask) -> Result<page::Page, Error> {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let _ = answer.send(guarded(task));
        };
        self.pool.run(priority, job).map_err(|Full| busy("too many plans are waiting"))?;
        match answered.await {
            Ok(page) => page,
            Err(_) => Err(busy("the store stops")),
        }
    }
}

/// A fault in the evaluation of one plan ends that plan only.
fn guarded(task: PageTask) -> Result<page::Page, Error> {
    let run = std::panic::AssertUnwindSafe(|| page::run(task));
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = text.unwrap_or_else(|| "a plan failed".to_owned());
        Err(rutile_expr::Error::Internal(text).into())
    })
}

fn busy(reason: &str) -> Error {
    let server_is_busy = Some(errorpb::ServerIsBusy {
        reason: reason.to_owned(),
        backoff_ms: BUSY_PAUSE_MS,
        ..errorpb::ServerIsBusy::default()
    });
    let message = reason.to_owned();
    Error::Txn(errorpb::Error { message, server_is_busy, ..errorpb::Error::default() }.into())
}

/// The ranges in scan order.
fn ranges(request: &coprocessor::Request, desc: bool) -> Result<VecDeque<Range>, Error> {
    let invalid = |what: &str| Error::Txn(txn::Error::InvalidRequest(what.to_owned()));
    if request.ranges.is_empty() {
        return Err(invalid("no ranges"));
    }
    let mut ranges = VecDeque::with_capacity(request.ranges.len());
    for range in &request.ranges {
        if range.start.is_empty() || range.end.is_empty() || range.start > range.end {
            return Err(invalid("a range without bounds, or with bounds that cross"));
        }
        ranges.push_back(Range { start: range.start.clone(), end: range.end.clone() });
    }
    if ranges.iter().zip(ranges.iter().skip(1)).any(|(a, b)| a.end > b.start) {
        return Err(invalid("ranges are not in order"));
    }
    if desc {
        ranges.make_contiguous().reverse();
    }
    Ok(ranges)
}

/// The least and the greatest bound.
fn bounds(ranges: &VecDeque<Range>) -> (Bytes, Bytes) {
    let lowest = ranges.iter().map(|range| &range.start).min().cloned().unwrap_or_default();
    let highest = ranges.iter().map(|range| &range.end).max().cloned().unwrap_or_default();
    (lowest, highest)
}

fn check_ranges(ranges: &VecDeque<Range>, snapshot: &RegionSnapshot) -> Result<(), Error> {
    let region = snapshot.region();
    for range in ranges {
        let (start, end) = (codec::encoded_bytes(&range.start), codec::encoded_bytes(&range.end));
        let fits = key::in_range(&start, &region.start_key, &region.end_key)
            && (region.end_key.is_empty() || end[..] <= region.end_key[..]);
        if !fits && range.start < range.end {
            return Err(Error::Txn(key_not_in_region(&range.start, region).into()));
        }
    }
    Ok(())
}

/// The part of the ranges that an answer covers.
fn consumed((lowest, highest): (Bytes, Bytes), at: Bytes, desc: bool) -> coprocessor::KeyRange {
    match desc {
        false => coprocessor::KeyRange { start: lowest, end: at },
        true => coprocessor::KeyRange { start: at, end: highest },
    }
}
