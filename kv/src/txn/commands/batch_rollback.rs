//! KvBatchRollback.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{BatchRollbackRequest, BatchRollbackResponse};

use super::keys;
use crate::txn::actions::rollback::cleanup;
use crate::txn::error::Result;
use crate::txn::scheduler::Scheduler;

impl Scheduler {
    /// Rolls the keys of a transaction back, whatever their locks' age.
    pub async fn batch_rollback(&self, req: &BatchRollbackRequest) -> Result<BatchRollbackResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let start_ts = Timestamp(req.start_version);
        // No later 1PC or async commit may land on the rollback record's timestamp.
        self.observe_ts(start_ts)?;
        let keys = keys(&req.keys);
        self.run(&ctx, &keys, |txn, reader| {
            keys.iter().try_for_each(|key| cleanup(txn, reader, key, start_ts, Timestamp::ZERO, false))
        })
        .await?;
        Ok(BatchRollbackResponse::default())
    }
}
