//! KvScan.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{IsolationLevel, KvPair, ScanRequest, ScanResponse};

use super::{INLINE_SCAN_LIMIT, encoded_bound};
use crate::mvcc::pair::{Arena, PairKey};
use crate::mvcc::scanner::Scanner;
use crate::mvcc::{self, ReadOptions};
use crate::raftstore::RegionSnapshot;
use crate::txn::error::{Error, Result};
use crate::txn::replica_read::ReadScope;
use crate::txn::scheduler::Scheduler;

impl Scheduler {
    /// A range at one timestamp. A page shorter than `limit` says that the region's part of the range is exhausted.
    pub async fn scan(&self, req: &ScanRequest) -> Result<ScanResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let mut options = ReadOptions::from_context(&ctx, Timestamp(req.version));
        options.key_only = req.key_only;
        let bounds = (&req.start_key, &req.end_key);
        let (start, end) = if req.reverse { (bounds.1, bounds.0) } else { bounds };
        let snapshot = self.read_snapshot(&ctx, &options, ReadScope::Range(start, end)).await?;
        let (lower, upper) = (encoded_bound(start), encoded_bound(end));
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

/// The pairs of a page without locks; the error of one of the locks otherwise.
fn visited_pairs(
    snapshot: &RegionSnapshot,
    lower: &[u8],
    upper: &[u8],
    options: ReadOptions,
    limit: usize,
) -> Result<Vec<KvPair>> {
    let mut pairs = Vec::with_capacity(limit.min(1024));
    let mut bytes = 0;
    let mut arena = Arena::default();
    let mut scanner = Scanner::new(snapshot, lower, upper, false, options);
    scanner.visit(&mut |key: PairKey<'_>, value: &[u8]| {
        let (key, value) = (arena.key(key)?, arena.value(value));
        bytes += key.len() + value.len();
        pairs.push(KvPair { key, value, ..KvPair::default() });
        Ok::<bool, Error>(pairs.len() < limit)
    })?;
    snapshot.count_read(pairs.len(), bytes);
    Ok(pairs)
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
    if !reverse && options.isolation == IsolationLevel::Si {
        match visited_pairs(snapshot, lower, upper, options.clone(), limit) {
            Err(Error::Mvcc(mvcc::Error::KeyIsLocked(_))) => {}
            done => return done,
        }
    }
    let mut bytes = 0;
    let mut scanner = Scanner::new(snapshot, lower, upper, reverse, options);
    while pairs.len() < limit
        && let Some((key, item)) = scanner.next()?
    {
        bytes += key.len();
        pairs.push(match item {
            Ok(version) => KvPair { key, value: version.value, ..KvPair::default() },
            Err(e) => KvPair { error: Some(Box::new(Error::from(e).split()?)), ..KvPair::default() },
        });
    }
    bytes += pairs.iter().map(|pair| pair.value.len()).sum::<usize>();
    snapshot.count_read(pairs.len(), bytes);
    Ok(pairs)
}
