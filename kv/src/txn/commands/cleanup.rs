//! KvCleanup.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{CleanupRequest, CleanupResponse};

use crate::mvcc::key::Key;
use crate::txn::actions::rollback::cleanup;
use crate::txn::error::{Error, Result};
use crate::txn::scheduler::Scheduler;

impl Scheduler {
    /// Rolls one key back when its lock is expired; tells the commit timestamp when it is too late.
    pub async fn cleanup(&self, req: &CleanupRequest) -> Result<CleanupResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let (start_ts, current_ts) = (Timestamp(req.start_version), Timestamp(req.current_ts));
        self.observe_ts(start_ts)?;
        let key = Key::from_raw(&req.key);
        let keys = std::slice::from_ref(&key);
        let done = self.run(&ctx, keys, |txn, reader| cleanup(txn, reader, &key, start_ts, current_ts, true));
        match done.await {
            Ok(()) => Ok(CleanupResponse::default()),
            Err(Error::Committed { commit_ts, .. }) => {
                Ok(CleanupResponse { commit_version: commit_ts.0, ..CleanupResponse::default() })
            }
            Err(e) => Err(e),
        }
    }
}
