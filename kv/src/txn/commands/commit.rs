//! KvCommit.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{CommitRequest, CommitResponse};

use super::{check_commit_ts, keys};
use crate::txn::actions::commit::commit;
use crate::txn::error::Result;
use crate::txn::scheduler::Scheduler;

impl Scheduler {
    /// Second phase: all keys of the request together.
    pub async fn commit(&self, req: &CommitRequest) -> Result<CommitResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let (start_ts, commit_ts) = (Timestamp(req.start_version), Timestamp(req.commit_version));
        check_commit_ts(start_ts, commit_ts)?;
        let keys = keys(&req.keys);
        self.run(&ctx, &keys, |txn, reader| {
            keys.iter().try_for_each(|key| commit(txn, reader, key, start_ts, commit_ts))
        })
        .await?;
        Ok(CommitResponse { commit_version: commit_ts.0, ..CommitResponse::default() })
    }
}
