//! KvGet.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{GetRequest, GetResponse};

use crate::mvcc::ReadOptions;
use crate::mvcc::key::Key;
use crate::mvcc::point_getter::PointGetter;
use crate::txn::error::Result;
use crate::txn::scheduler::{Scheduler, key_not_in_region};

impl Scheduler {
    /// One key at one timestamp.
    pub async fn get(&self, req: &GetRequest) -> Result<GetResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let options = ReadOptions::from_context(&ctx, Timestamp(req.version));
        let key = Key::from_raw(&req.key);
        self.begin_read(std::slice::from_ref(&key), &options).await?;
        let snapshot = self.snapshot(&ctx).await?;
        if !snapshot.contains(key.encoded()) {
            return Err(key_not_in_region(key.raw(), snapshot.region()).into());
        }
        self.check_safe_point(options.ts)?;
        let found = PointGetter::new(&snapshot, &options).get(&key)?;
        Ok(match found {
            Some(version) => GetResponse {
                value: version.value,
                commit_ts: if req.need_commit_ts { version.commit_ts.0 } else { 0 },
                ..GetResponse::default()
            },
            None => GetResponse { not_found: true, ..GetResponse::default() },
        })
    }
}
