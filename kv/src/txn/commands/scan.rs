//! KvScan.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{KvPair, ScanRequest, ScanResponse};

use super::{INLINE_SCAN_LIMIT, encoded_bound};
use crate::mvcc::ReadOptions;
use crate::mvcc::scanner::Scanner;
use crate::raftstore::RegionSnapshot;
use crate::txn::error::{Error, Result};
use crate::txn::scheduler::Scheduler;

impl Scheduler {
    /// A range at one timestamp. A page shorter than `limit` says that the region's part of the range is exhausted.
    pub async fn scan(&self, req: &ScanRequest) -> Result<ScanResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let mut options = ReadOptions::from_context(&ctx, Timestamp(req.version));
        options.key_only = req.key_only;
        let (start, end) = (encoded_bound(&req.start_key), encoded_bound(&req.end_key));
        let (lower, upper) = if req.reverse { (end, start) } else { (start, end) };
        self.begin_range_read(&lower, &upper, &options).await?;
        let snapshot = self.snapshot(&ctx).await?;
        self.check_safe_point(options.ts)?;
        let limit = req.limit as usize;
        let reverse = req.reverse;
        let pairs = if req.limit <= INLINE_SCAN_LIMIT {
            scan_pairs(&snapshot, &lower, &upper, reverse, options, limit)?
        } else {
            let work = move || scan_pairs(&snapshot, &lower, &upper, reverse, options, limit);
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|e| Error::InvalidRequest(format!("scan stopped: {e}")))??
        };
        Ok(ScanResponse { pairs, ..ScanResponse::default() })
    }
}

fn scan_pairs(
    snapshot: &RegionSnapshot,
    lower: &[u8],
    upper: &[u8],
    reverse: bool,
    options: ReadOptions,
    limit: usize,
) -> Result<Vec<KvPair>> {
    let mut pairs = Vec::with_capacity(limit.min(1024));
    if limit == 0 {
        return Ok(pairs);
    }
    let mut scanner = Scanner::new(snapshot, lower, upper, reverse, options);
    while pairs.len() < limit
        && let Some((key, item)) = scanner.next()?
    {
        pairs.push(match item {
            Ok(version) => KvPair { key, value: version.value, ..KvPair::default() },
            Err(e) => KvPair { error: Some(Box::new(Error::from(e).split()?)), ..KvPair::default() },
        });
    }
    Ok(pairs)
}
