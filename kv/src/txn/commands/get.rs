//! KvGet.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{GetRequest, GetResponse};

use crate::mvcc::ReadOptions;
use crate::mvcc::key::Key;
use crate::mvcc::point_getter::PointGetter;
use crate::txn::error::Result;
use crate::txn::replica_read::ReadScope;
use crate::txn::scheduler::{Scheduler, key_not_in_region};

impl Scheduler {
    /// One key at one timestamp.
    pub async fn get(&self, req: &GetRequest) -> Result<GetResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let options = ReadOptions::from_context(&ctx, Timestamp(req.version));
        let key = Key::from_raw(&req.key);
        let scope = ReadScope::Keys(std::slice::from_ref(&key));
        let snapshot = self.read_snapshot(&ctx, &options, scope).await?;
        if !snapshot.contains(key.encoded()) {
            return Err(key_not_in_region(key.raw(), snapshot.region()).into());
        }
        self.check_safe_point(options.ts)?;
        let found = PointGetter::new(&snapshot, &options).get(&key)?;
        snapshot.count_read(1, key.raw().len() + found.as_ref().map_or(0, |version| version.value.len()));
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
