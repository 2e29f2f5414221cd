//! KvBatchGet.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{BatchGetRequest, BatchGetResponse, KvPair};

use super::keys;
use crate::mvcc::point_getter::PointGetter;
use crate::mvcc::{Error as MvccError, ReadOptions};
use crate::txn::error::{Error, Result};
use crate::txn::replica_read::ReadScope;
use crate::txn::scheduler::{Scheduler, key_not_in_region};

impl Scheduler {
    /// Several keys at one timestamp; those found, in request order, and those locked.
    pub async fn batch_get(&self, req: &BatchGetRequest) -> Result<BatchGetResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let options = ReadOptions::from_context(&ctx, Timestamp(req.version));
        let keys = keys(&req.keys);
        let snapshot = self.read_snapshot(&ctx, &options, ReadScope::Keys(&keys)).await?;
        self.check_safe_point(options.ts)?;
        let mut getter = PointGetter::new(&snapshot, &options);
        let mut pairs = Vec::with_capacity(keys.len());
        for key in &keys {
            if !snapshot.contains(key.encoded()) {
                return Err(key_not_in_region(key.raw(), snapshot.region()).into());
            }
            match getter.get(key) {
                Ok(None) => {}
                Ok(Some(version)) => pairs.push(KvPair {
                    key: key.raw().clone(),
                    value: version.value,
                    commit_ts: if req.need_commit_ts { version.commit_ts.0 } else { 0 },
                    error: None,
                }),
                Err(e @ (MvccError::KeyIsLocked(_) | MvccError::RcCheckTs(_))) => {
                    let error = Some(Box::new(Error::from(e).split()?));
                    pairs.push(KvPair { key: key.raw().clone(), error, ..KvPair::default() });
                }
                Err(e) => return Err(e.into()),
            }
        }
        snapshot.count_read(keys.len(), pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum());
        Ok(BatchGetResponse { pairs, ..BatchGetResponse::default() })
    }
}
