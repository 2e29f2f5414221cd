//! MvccGetByKey: everything stored under one key, for people who debug.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{
    MvccGetByKeyRequest, MvccGetByKeyResponse, MvccInfo, MvccLock, MvccValue, MvccWrite,
};

use crate::mvcc::key::Key;
use crate::mvcc::write::WriteType;
use crate::txn::error::Result;
use crate::txn::scheduler::{Scheduler, key_not_in_region};

impl Scheduler {
    /// Lock, versions (newest first) and values of a key.
    pub async fn mvcc_get_by_key(&self, req: &MvccGetByKeyRequest) -> Result<MvccGetByKeyResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let key = Key::from_raw(&req.key);
        let mut reader = self.look(&ctx).await?;
        if !reader.snapshot().contains(key.encoded()) {
            return Err(key_not_in_region(key.raw(), reader.snapshot().region()).into());
        }
        let mut info = MvccInfo::default();
        if let Some(found) = reader.find_lock(&key)? {
            let lock = found.lock;
            info.lock = Some(MvccLock {
                r#type: lock.lock_type.to_op() as i32,
                start_ts: lock.start_ts.0,
                primary: lock.primary,
                short_value: lock.short_value.unwrap_or_default(),
            });
        }
        let mut found = reader.seek_write(&key, Timestamp::MAX)?;
        while let Some((commit_ts, write)) = found {
            if write.write_type == WriteType::Put && write.short_value.is_none() {
                let value = reader.value_of(&key, &write)?.unwrap_or_default();
                info.values.push(MvccValue { start_ts: write.start_ts.0, value });
            }
            info.writes.push(MvccWrite {
                r#type: write.write_type.to_op() as i32,
                start_ts: write.start_ts.0,
                commit_ts: commit_ts.0,
                short_value: write.short_value.unwrap_or_default(),
            });
            found = reader.next_write(&key)?;
        }
        Ok(MvccGetByKeyResponse { info: Some(info), ..MvccGetByKeyResponse::default() })
    }
}
