//! KvResolveLock.

use std::collections::HashMap;

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{Context, ResolveLockRequest, ResolveLockResponse};

use super::{check_commit_ts, keys};
use crate::mvcc::key::Key;
use crate::txn::actions::resolve_lock::resolve_lock;
use crate::txn::error::Result;
use crate::txn::scheduler::Scheduler;

/// Keys resolved by one write.
const BATCH_KEYS_MAX: usize = 256;

impl Scheduler {
    /// Finishes locks of transactions whose fate is known: on the keys named, or in the whole region.
    pub async fn resolve_lock(&self, req: &ResolveLockRequest) -> Result<ResolveLockResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let fates: HashMap<Timestamp, Timestamp> = if req.start_version == 0 {
            req.txn_infos.iter().map(|t| (Timestamp(t.txn), Timestamp(t.status))).collect()
        } else {
            HashMap::from([(Timestamp(req.start_version), Timestamp(req.commit_version))])
        };
        for (start_ts, commit_ts) in fates.iter().filter(|(_, commit_ts)| !commit_ts.is_zero()) {
            check_commit_ts(*start_ts, *commit_ts)?;
        }
        // As with every rollback, no later commit may land on the start_ts.
        for start_ts in fates.keys() {
            self.observe_ts(*start_ts)?;
        }
        let found: Vec<(Key, Timestamp)> = if !req.keys.is_empty() && req.start_version != 0 {
            let start_ts = Timestamp(req.start_version);
            keys(&req.keys).into_iter().map(|key| (key, start_ts)).collect()
        } else {
            let reader = self.look(&ctx).await?;
            let locks = reader.find_locks(b"", b"", 0, |l| fates.contains_key(&l.start_ts))?;
            locks.into_iter().map(|(key, found)| (key, found.lock.start_ts)).collect()
        };
        for batch in found.chunks(BATCH_KEYS_MAX) {
            self.resolve_batch(&ctx, batch, &fates).await?;
        }
        Ok(ResolveLockResponse::default())
    }

    async fn resolve_batch(
        &self,
        ctx: &Context,
        batch: &[(Key, Timestamp)],
        fates: &HashMap<Timestamp, Timestamp>,
    ) -> Result<()> {
        let keys: Vec<Key> = batch.iter().map(|(key, _)| key.clone()).collect();
        self.run(ctx, &keys, |txn, reader| {
            batch
                .iter()
                .try_for_each(|(key, start_ts)| resolve_lock(txn, reader, key, *start_ts, fates[start_ts]))
        })
        .await
    }
}
