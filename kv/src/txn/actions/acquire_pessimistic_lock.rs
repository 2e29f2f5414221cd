//! A pessimistic lock on one key: the key will not change until the transaction ends.

use bytes::Bytes;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::write_conflict::Reason;

use super::{check_not_exists, is_rollback_of};
use crate::mvcc::key::Key;
use crate::mvcc::lock::{Lock, LockType};
use crate::mvcc::txn::MvccTxn;
use crate::mvcc::write::{Write, WriteType};
use crate::txn::error::{Conflict, Error, Result};
use crate::txn::reader::{CommandReader, FoundLock};

/// What all keys of a lock request have in common.
#[derive(Debug, Clone)]
pub struct LockProps {
    pub start_ts: Timestamp,
    pub primary: Bytes,
    pub ttl: u64,
    pub for_update_ts: Timestamp,
    pub min_commit_ts: Timestamp,
    pub return_value: bool,
    pub check_existence: bool,
    pub lock_only_if_exists: bool,
    /// Lock although a version newer than for_update_ts exists, and report it.
    pub force: bool,
}

/// What the client learns about a locked key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockedKey {
    /// When the value was asked for, or the lock was forced.
    pub value: Option<Bytes>,
    pub exists: bool,
    /// commit_ts of the newer version when the lock was forced.
    pub conflict_ts: Option<Timestamp>,
}

/// Locks `key`; with `must_not_exist` a present key is an error.
pub fn acquire_pessimistic_lock(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    props: &LockProps,
    key: &Key,
    must_not_exist: bool,
) -> Result<LockedKey> {
    if props.lock_only_if_exists && !props.return_value {
        return Err(Error::InvalidRequest("lock_only_if_exists without return_values".into()));
    }
    if let Some(found) = reader.find_lock(key)? {
        return relock(txn, reader, props, key, must_not_exist, found);
    }
    let newest = reader.seek_write(key, Timestamp::MAX)?;
    let mut for_update_ts = props.for_update_ts;
    let mut conflict_ts = None;
    if let Some((commit_ts, write)) = &newest {
        if *commit_ts > props.for_update_ts {
            if !props.force {
                return Err(newer_version(props, key, *commit_ts, write));
            }
            conflict_ts = Some(*commit_ts);
            for_update_ts = *commit_ts;
        }
        check_not_rolled_back(reader, props, key, *commit_ts, write)?;
        if must_not_exist {
            check_not_exists(reader, key, *commit_ts, write)?;
        }
    }
    let mut locked = look(reader, props, key, newest, conflict_ts.is_some())?;
    locked.conflict_ts = conflict_ts;
    if props.lock_only_if_exists && !locked.exists {
        return Ok(locked);
    }
    let mut lock = Lock::new(LockType::Pessimistic, props.primary.clone(), props.start_ts, props.ttl);
    lock.for_update_ts = for_update_ts;
    lock.min_commit_ts = props.min_commit_ts;
    lock.locked_with_conflict = conflict_ts.is_some();
    txn.put_memory_lock(key, lock);
    Ok(locked)
}

/// The key is locked already: by us, then the answer is given again; or by another.
fn relock(
    txn: &mut MvccTxn,
    reader: &mut CommandReader,
    props: &LockProps,
    key: &Key,
    must_not_exist: bool,
    found: FoundLock,
) -> Result<LockedKey> {
    let FoundLock { mut lock, in_memory } = found;
    if lock.start_ts != props.start_ts {
        return Err(Error::locked(lock.to_info(key.raw().clone())));
    }
    if !lock.is_pessimistic() {
        return Err(Error::LockTypeNotMatch {
            start_ts: props.start_ts,
            key: key.raw().clone(),
            pessimistic: false,
        });
    }
    let newest = reader.seek_write(key, Timestamp::MAX)?;
    if must_not_exist && let Some((commit_ts, write)) = &newest {
        check_not_exists(reader, key, *commit_ts, write)?;
    }
    let conflict_ts = newest.as_ref().map(|(c, _)| *c).filter(|c| *c > props.for_update_ts && props.force);
    let newest = reader.seek_write(key, Timestamp::MAX)?;
    let mut locked = look(reader, props, key, newest, conflict_ts.is_some())?;
    locked.conflict_ts = conflict_ts;
    if props.for_update_ts > lock.for_update_ts {
        lock.for_update_ts = props.for_update_ts;
        lock.ttl = lock.ttl.max(props.ttl);
        lock.min_commit_ts = lock.min_commit_ts.max(props.min_commit_ts);
        txn.update_lock(key, &lock, in_memory);
    }
    Ok(locked)
}

fn newer_version(props: &LockProps, key: &Key, commit_ts: Timestamp, write: &Write) -> Error {
    Error::WriteConflict(Box::new(Conflict {
        start_ts: props.start_ts,
        conflict_start_ts: write.start_ts,
        conflict_commit_ts: commit_ts,
        key: key.raw().clone(),
        primary: props.primary.clone(),
        reason: Reason::PessimisticRetry,
    }))
}

fn check_not_rolled_back(
    reader: &mut CommandReader,
    props: &LockProps,
    key: &Key,
    commit_ts: Timestamp,
    write: &Write,
) -> Result<()> {
    let mut rolled_back = is_rollback_of(props.start_ts, commit_ts, write);
    if commit_ts > props.start_ts
        && let Some((older_ts, older)) = reader.seek_write(key, props.start_ts)?
    {
        rolled_back = is_rollback_of(props.start_ts, older_ts, &older);
    }
    if rolled_back {
        return Err(Error::PessimisticLockRolledBack { start_ts: props.start_ts, key: key.raw().clone() });
    }
    Ok(())
}

/// Value and existence of the newest version, as far as asked for.
fn look(
    reader: &mut CommandReader,
    props: &LockProps,
    key: &Key,
    newest: Option<(Timestamp, Write)>,
    forced: bool,
) -> Result<LockedKey> {
    let wants_value = props.return_value || forced;
    if !wants_value && !props.check_existence {
        return Ok(LockedKey::default());
    }
    let data = match newest {
        Some((commit_ts, write)) if matches!(write.write_type, WriteType::Lock | WriteType::Rollback) => {
            reader.visible_write(key, commit_ts)?
        }
        other => other,
    };
    let Some((_, write)) = data.filter(|(_, w)| w.write_type == WriteType::Put) else {
        return Ok(LockedKey::default());
    };
    let value = if wants_value { reader.value_of(key, &write)? } else { None };
    Ok(LockedKey { value, exists: true, conflict_ts: None })
}
