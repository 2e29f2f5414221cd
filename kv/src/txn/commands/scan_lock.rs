//! KvScanLock.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{ScanLockRequest, ScanLockResponse};

use super::encoded_bound;
use crate::mvcc::ReadOptions;
use crate::txn::error::Result;
use crate::txn::scheduler::Scheduler;

impl Scheduler {
    /// The locks of transactions that began at or before `max_version`, of every kind.
    pub async fn scan_lock(&self, req: &ScanLockRequest) -> Result<ScanLockResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let max_ts = Timestamp(req.max_version);
        let (lower, upper) = (encoded_bound(&req.start_key), encoded_bound(&req.end_key));
        self.begin_range_read(&lower, &upper, &ReadOptions::at(max_ts)).await?;
        let reader = self.look(&ctx).await?;
        let found = reader.find_locks(&lower, &upper, req.limit as usize, |l| l.start_ts <= max_ts)?;
        let locks = found.into_iter().map(|(key, f)| f.lock.to_info(key.raw().clone())).collect();
        Ok(ScanLockResponse { locks, ..ScanLockResponse::default() })
    }
}
