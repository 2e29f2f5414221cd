//! KvDeleteRange and UnsafeDestroyRange.

use bytes::Bytes;
use rutile_proto::kvrpcpb::{DeleteRangeRequest, DeleteRangeResponse};

use super::encoded_bound;
use crate::engine::Cf;
use crate::raftstore::{Modify, WriteData};
use crate::txn::error::Result;
use crate::txn::scheduler::Scheduler;

impl Scheduler {
    /// Removes all versions and locks of a range within the region, without any check.
    pub async fn delete_range(&self, req: &DeleteRangeRequest) -> Result<DeleteRangeResponse> {
        if req.notify_only {
            return Ok(DeleteRangeResponse::default());
        }
        let ctx = req.context.clone().unwrap_or_default();
        let (region, _) = self.raft().check(&ctx)?;
        let start = region.start_key.clone().max(Bytes::from(encoded_bound(&req.start_key)));
        let end = match (&region.end_key, Bytes::from(encoded_bound(&req.end_key))) {
            (bound, end) if end.is_empty() => bound.clone(),
            (bound, end) if bound.is_empty() => end,
            (bound, end) => end.min(bound.clone()),
        };
        if end.is_empty() || start < end {
            let remove = |cf| Modify::DeleteRange(cf, start.clone(), end.clone());
            let modifies = Cf::DATA.into_iter().map(remove).collect();
            self.raft().write(&ctx, WriteData::new(modifies)).await?;
        }
        Ok(DeleteRangeResponse::default())
    }
}
