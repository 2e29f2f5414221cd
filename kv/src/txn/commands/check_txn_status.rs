//! KvCheckTxnStatus.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{CheckTxnStatusRequest, CheckTxnStatusResponse};

use crate::mvcc::key::Key;
use crate::txn::actions::check_txn_status::{CheckTxnStatus, TxnStatus, check_txn_status};
use crate::txn::error::Result;
use crate::txn::scheduler::Scheduler;

impl Scheduler {
    /// The fate of a transaction by its primary key.
    pub async fn check_txn_status(&self, req: &CheckTxnStatusRequest) -> Result<CheckTxnStatusResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let ask = CheckTxnStatus {
            primary: Key::from_raw(&req.primary_key),
            lock_ts: Timestamp(req.lock_ts),
            caller_start_ts: Timestamp(req.caller_start_ts),
            current_ts: Timestamp(req.current_ts),
            rollback_if_not_exist: req.rollback_if_not_exist,
            force_sync_commit: req.force_sync_commit,
            resolving_pessimistic_lock: req.resolving_pessimistic_lock,
            verify_is_primary: req.verify_is_primary,
        };
        for ts in [ask.lock_ts, ask.caller_start_ts, ask.current_ts] {
            self.observe_ts(ts)?;
        }
        let keys = std::slice::from_ref(&ask.primary);
        let status = self.run(&ctx, keys, |txn, reader| check_txn_status(txn, reader, &ask)).await?;
        let mut response = CheckTxnStatusResponse::default();
        match status {
            TxnStatus::Committed(commit_ts) => response.commit_version = commit_ts.0,
            TxnStatus::RolledBack(action) => response.action = action as i32,
            TxnStatus::Locked(info, action) => {
                response.lock_ttl = info.lock_ttl;
                response.lock_info = Some(info);
                response.action = action as i32;
            }
        }
        Ok(response)
    }
}
