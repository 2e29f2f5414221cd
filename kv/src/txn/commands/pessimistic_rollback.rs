//! KVPessimisticRollback.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{PessimisticRollbackRequest, PessimisticRollbackResponse};

use super::keys;
use crate::txn::actions::pessimistic_rollback::pessimistic_rollback;
use crate::txn::error::Result;
use crate::txn::scheduler::Scheduler;

impl Scheduler {
    /// Gives pessimistic locks back: those on `keys`, or all of the transaction in the region.
    pub async fn pessimistic_rollback(
        &self,
        req: &PessimisticRollbackRequest,
    ) -> Result<PessimisticRollbackResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let (start_ts, for_update_ts) = (Timestamp(req.start_version), Timestamp(req.for_update_ts));
        let keys = if req.keys.is_empty() {
            let reader = self.look(&ctx).await?;
            let own = reader.find_locks(b"", b"", 0, |l| l.is_pessimistic() && l.start_ts == start_ts)?;
            own.into_iter().map(|(key, _)| key).collect()
        } else {
            keys(&req.keys)
        };
        self.run(&ctx, &keys, |txn, reader| {
            keys.iter().try_for_each(|key| pessimistic_rollback(txn, reader, key, start_ts, for_update_ts))
        })
        .await?;
        Ok(PessimisticRollbackResponse::default())
    }
}
