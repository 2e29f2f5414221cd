//! KvCheckSecondaryLocks.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{CheckSecondaryLocksRequest, CheckSecondaryLocksResponse};

use super::keys;
use crate::txn::actions::check_secondary_locks::{SecondaryLocks, check_secondary_locks};
use crate::txn::error::Result;
use crate::txn::scheduler::Scheduler;

impl Scheduler {
    /// Whether an async-commit transaction prewrote these keys.
    pub async fn check_secondary_locks(
        &self,
        req: &CheckSecondaryLocksRequest,
    ) -> Result<CheckSecondaryLocksResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let start_ts = Timestamp(req.start_version);
        self.observe_ts(start_ts)?;
        let keys = keys(&req.keys);
        let found =
            self.run(&ctx, &keys, |txn, reader| check_secondary_locks(txn, reader, &keys, start_ts)).await?;
        Ok(match found {
            SecondaryLocks::Locked(locks) => CheckSecondaryLocksResponse { locks, ..Default::default() },
            SecondaryLocks::Committed(ts) => {
                CheckSecondaryLocksResponse { commit_ts: ts.0, ..Default::default() }
            }
            SecondaryLocks::RolledBack => CheckSecondaryLocksResponse::default(),
        })
    }
}
