//! KvTxnHeartBeat.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{TxnHeartBeatRequest, TxnHeartBeatResponse};

use crate::mvcc::key::Key;
use crate::txn::actions::txn_heart_beat::txn_heart_beat;
use crate::txn::error::Result;
use crate::txn::scheduler::Scheduler;

impl Scheduler {
    /// Keeps a transaction alive.
    pub async fn txn_heart_beat(&self, req: &TxnHeartBeatRequest) -> Result<TxnHeartBeatResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let primary = Key::from_raw(&req.primary_lock);
        let (start_ts, min_commit_ts) = (Timestamp(req.start_version), Timestamp(req.min_commit_ts));
        let ttl = req.advise_lock_ttl;
        let beat = self.run(&ctx, std::slice::from_ref(&primary), |txn, reader| {
            txn_heart_beat(txn, reader, &primary, start_ts, ttl, min_commit_ts)
        });
        Ok(TxnHeartBeatResponse { lock_ttl: beat.await?, ..TxnHeartBeatResponse::default() })
    }
}
