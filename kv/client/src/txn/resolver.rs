//! Other transactions' locks: finds out what became of their owner, and finishes its work if it is gone.
//!
//! The primary key's record decides. A lock's owner is alive while its time to live, counted from its start timestamp
//! in timestamp time, has not passed.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use rutile_proto::ids::Timestamp;
use rutile_proto::key::txn_pd_key;
use rutile_proto::kvrpcpb::{
    Action, CheckSecondaryLocksRequest, CheckTxnStatusRequest, CheckTxnStatusResponse, LockInfo, Op,
    PessimisticRollbackRequest, ResolveLockRequest,
};

use crate::backoff::{Backoff, BackoffKind};
use crate::error::{Error, Result};
use crate::sender::{Cluster, Sent};

/// Transactions whose fate is remembered.
const CACHE_MAX: usize = 4096;
/// From this transaction size on, all its locks in the region are resolved at once.
const LITE_TXN_SIZE_MAX: u64 = 256;

/// What became of a lock's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed(Timestamp),
    RolledBack,
    /// Only this pessimistic lock is void; its transaction may live on.
    LockVoid,
    /// A reader that was given `pushed` may ignore the lock.
    Alive {
        pushed: bool,
        ttl_ms_left: u64,
    },
}

/// What the caller does about locks it met.
#[derive(Debug, Default)]
pub(crate) struct Resolution {
    /// Wait before the next try: a live lock is left.
    pub wait: bool,
    /// Live locks that a reader may ignore, as their owners will commit after it.
    pub ignore: Vec<u64>,
    /// Time in which one of the live locks may expire.
    pub ttl_ms_left: u64,
    /// The oldest transaction among the live ones.
    pub oldest_alive: Option<Timestamp>,
}

/// Resolves locks and remembers fates.
pub(crate) struct LockResolver {
    cluster: Arc<Cluster>,
    fates: DashMap<u64, Fate>,
}

impl LockResolver {
    pub fn new(cluster: Arc<Cluster>) -> Self {
        LockResolver { cluster, fates: DashMap::new() }
    }

    /// Resolves what can be resolved. A reader passes its timestamp, a writer zero.
    pub async fn resolve(
        &self,
        locks: Vec<LockInfo>,
        reader_ts: Timestamp,
        backoff: &mut Backoff,
    ) -> Result<Resolution> {
        let mut resolution = Resolution { ttl_ms_left: u64::MAX, ..Resolution::default() };
        let mut finished: HashMap<u64, (Fate, Vec<LockInfo>)> = HashMap::new();
        for lock in locks {
            let fate = match finished.get(&lock.lock_version) {
                Some((fate @ (Fate::Committed(_) | Fate::RolledBack), _)) => *fate,
                _ => self.fate_of(&lock, reader_ts, backoff).await?,
            };
            match fate {
                Fate::Alive { pushed: true, .. } if !reader_ts.is_zero() => {
                    resolution.ignore.push(lock.lock_version);
                }
                Fate::Alive { ttl_ms_left, .. } => {
                    resolution.wait = true;
                    let start_ts = Timestamp(lock.lock_version);
                    resolution.oldest_alive =
                        Some(resolution.oldest_alive.map_or(start_ts, |ts| ts.min(start_ts)));
                    resolution.ttl_ms_left = resolution.ttl_ms_left.min(ttl_ms_left);
                }
                Fate::LockVoid => self.release_pessimistic(&lock, backoff).await?,
                Fate::Committed(_) | Fate::RolledBack => {
                    let entry = finished.entry(lock.lock_version).or_insert((fate, Vec::new()));
                    entry.1.push(lock);
                }
            }
        }
        for (fate, locks) in finished.into_values() {
            self.finish(fate, locks, backoff).await?;
        }
        Ok(resolution)
    }

    async fn fate_of(&self, lock: &LockInfo, reader_ts: Timestamp, backoff: &mut Backoff) -> Result<Fate> {
        if let Some(fate) = self.fates.get(&lock.lock_version) {
            return Ok(*fate);
        }
        let mut request = CheckTxnStatusRequest {
            primary_key: lock.primary_lock.clone(),
            lock_ts: lock.lock_version,
            caller_start_ts: reader_ts.0,
            resolving_pessimistic_lock: lock.lock_type() == Op::PessimisticLock,
            verify_is_primary: true,
            ..Default::default()
        };
        loop {
            let now = self.cluster.timestamp().await?;
            request.current_ts = if lock.lock_ttl == 0 { u64::MAX } else { now.0 };
            let pd_key = txn_pd_key(&request.primary_key);
            let answer = self.cluster.call(&pd_key, &request, |_| (), backoff).await?;
            if let Some(error) = &answer.error {
                if error.primary_mismatch.is_some() && request.resolving_pessimistic_lock {
                    return Ok(Fate::LockVoid);
                }
                if error.txn_not_found.is_none() {
                    return Err(Error::Protocol(format!("transaction status: {error:?}")));
                }
                let ttl_ms_left = ttl_ms_left(lock.lock_version, lock.lock_ttl, now);
                if lock.lock_ttl == 0 || ttl_ms_left == 0 {
                    request.rollback_if_not_exist = true;
                } else if request.resolving_pessimistic_lock {
                    return Ok(Fate::Alive { pushed: false, ttl_ms_left });
                } else {
                    backoff.wait(BackoffKind::TxnLock, locked(lock)).await?;
                }
                continue;
            }
            match self.interpret(&answer, &request, now, backoff).await? {
                Some(fate) => {
                    self.remember(lock.lock_version, fate);
                    return Ok(fate);
                }
                None => request.force_sync_commit = true,
            }
        }
    }

    /// `None` asks to look again as if the transaction had no async commit.
    async fn interpret(
        &self,
        answer: &CheckTxnStatusResponse,
        request: &CheckTxnStatusRequest,
        now: Timestamp,
        backoff: &mut Backoff,
    ) -> Result<Option<Fate>> {
        if answer.lock_ttl > 0 {
            let ttl_ms_left = ttl_ms_left(request.lock_ts, answer.lock_ttl, now);
            let expired = ttl_ms_left == 0 || request.current_ts == u64::MAX;
            return match &answer.lock_info {
                Some(primary) if primary.use_async_commit && expired && !request.force_sync_commit => {
                    self.recover_async_commit(primary, backoff).await
                }
                _ => {
                    let pushed = answer.action() == Action::MinCommitTsPushed;
                    Ok(Some(Fate::Alive { pushed, ttl_ms_left }))
                }
            };
        }
        if answer.commit_version > 0 {
            return Ok(Some(Fate::Committed(Timestamp(answer.commit_version))));
        }
        Ok(Some(match answer.action() {
            Action::TtlExpirePessimisticRollback | Action::LockNotExistDoNothing => Fate::LockVoid,
            _ => Fate::RolledBack,
        }))
    }

    /// The owner is gone: its transaction is committed if all its keys are locked, and rolled back otherwise.
    async fn recover_async_commit(&self, primary: &LockInfo, backoff: &mut Backoff) -> Result<Option<Fate>> {
        let mut pending = primary.secondaries.clone();
        let mut commit_ts = primary.min_commit_ts;
        while !pending.is_empty() {
            let groups = self.cluster.group_by_region(std::mem::take(&mut pending), encode, backoff).await?;
            for (region, keys) in groups {
                let request = CheckSecondaryLocksRequest {
                    keys: keys.clone(),
                    start_version: primary.lock_version,
                    ..Default::default()
                };
                let answer = match self.cluster.send(&region, request, |_| (), backoff).await? {
                    Sent::Answer(answer) => answer,
                    Sent::Relocate => {
                        pending.extend(keys);
                        continue;
                    }
                };
                if let Some(error) = answer.error {
                    return Err(Error::Protocol(format!("secondary locks: {error:?}")));
                }
                if answer.commit_ts > 0 {
                    let fate = Fate::Committed(Timestamp(answer.commit_ts));
                    return self.finish_async_commit(primary, fate, backoff).await;
                }
                if answer.locks.len() < keys.len() {
                    // The key that lacks its lock can get none any more.
                    return self.finish_async_commit(primary, Fate::RolledBack, backoff).await;
                }
                if answer.locks.iter().any(|l| !l.use_async_commit) {
                    return Ok(None);
                }
                commit_ts = answer.locks.iter().map(|l| l.min_commit_ts).fold(commit_ts, u64::max);
            }
        }
        self.finish_async_commit(primary, Fate::Committed(Timestamp(commit_ts)), backoff).await
    }

    async fn finish_async_commit(
        &self,
        primary: &LockInfo,
        fate: Fate,
        backoff: &mut Backoff,
    ) -> Result<Option<Fate>> {
        // The primary first: from now on its record tells.
        self.resolve_keys(primary.lock_version, fate, vec![primary.primary_lock.clone()], backoff).await?;
        self.resolve_keys(primary.lock_version, fate, primary.secondaries.clone(), backoff).await?;
        Ok(Some(fate))
    }

    /// Finishes the locks of one transaction.
    async fn finish(&self, fate: Fate, locks: Vec<LockInfo>, backoff: &mut Backoff) -> Result<()> {
        let lock_ts = locks[0].lock_version;
        let (pessimistic, prewritten): (Vec<_>, Vec<_>) =
            locks.into_iter().partition(|l| l.lock_type() == Op::PessimisticLock);
        for lock in &pessimistic {
            self.release_pessimistic(lock, backoff).await?;
        }
        if prewritten.iter().any(|l| l.txn_size >= LITE_TXN_SIZE_MAX) {
            return self.resolve_regions(lock_ts, fate, prewritten, backoff).await;
        }
        let keys = prewritten.into_iter().map(|l| l.key).collect();
        self.resolve_keys(lock_ts, fate, keys, backoff).await
    }

    async fn resolve_keys(
        &self,
        lock_ts: u64,
        fate: Fate,
        mut keys: Vec<Bytes>,
        backoff: &mut Backoff,
    ) -> Result<()> {
        while !keys.is_empty() {
            let groups = self.cluster.group_by_region(std::mem::take(&mut keys), encode, backoff).await?;
            for (region, group) in groups {
                let mut request = resolve_request(lock_ts, fate);
                request.keys = group.clone();
                match self.cluster.send(&region, request, |_| (), backoff).await? {
                    Sent::Answer(answer) => resolved(answer.error)?,
                    Sent::Relocate => keys.extend(group),
                }
            }
        }
        Ok(())
    }

    /// Resolves all locks of a large transaction in the regions of `locks`.
    async fn resolve_regions(
        &self,
        lock_ts: u64,
        fate: Fate,
        mut locks: Vec<LockInfo>,
        backoff: &mut Backoff,
    ) -> Result<()> {
        let pd_key = |l: &LockInfo, out: &mut Vec<u8>| encode(&l.key, out);
        while !locks.is_empty() {
            for (region, group) in
                self.cluster.group_by_region(std::mem::take(&mut locks), pd_key, backoff).await?
            {
                match self.cluster.send(&region, resolve_request(lock_ts, fate), |_| (), backoff).await? {
                    Sent::Answer(answer) => resolved(answer.error)?,
                    Sent::Relocate => locks.extend(group),
                }
            }
        }
        Ok(())
    }

    async fn release_pessimistic(&self, lock: &LockInfo, backoff: &mut Backoff) -> Result<()> {
        let request = PessimisticRollbackRequest {
            start_version: lock.lock_version,
            for_update_ts: if lock.lock_for_update_ts == 0 { u64::MAX } else { lock.lock_for_update_ts },
            keys: vec![lock.key.clone()],
            ..Default::default()
        };
        let answer = self.cluster.call(&txn_pd_key(&lock.key), &request, |_| (), backoff).await?;
        resolved(answer.errors.into_iter().next())
    }

    fn remember(&self, lock_ts: u64, fate: Fate) {
        if matches!(fate, Fate::Committed(_) | Fate::RolledBack) {
            if self.fates.len() >= CACHE_MAX {
                self.fates.clear();
            }
            self.fates.insert(lock_ts, fate);
        }
    }
}

/// The error of giving up on a lock.
pub(crate) fn locked(lock: &LockInfo) -> Error {
    Error::KeyIsLocked { key: lock.key.clone(), lock_ts: Timestamp(lock.lock_version) }
}

fn encode(key: &Bytes, out: &mut Vec<u8>) {
    rutile_proto::codec::encode_bytes(out, key);
}

fn resolve_request(lock_ts: u64, fate: Fate) -> ResolveLockRequest {
    let commit_version = match fate {
        Fate::Committed(ts) => ts.0,
        _ => 0,
    };
    ResolveLockRequest { start_version: lock_ts, commit_version, ..Default::default() }
}

fn resolved(error: Option<rutile_proto::kvrpcpb::KeyError>) -> Result<()> {
    match error {
        Some(error) => Err(Error::Protocol(format!("resolving a lock: {error:?}"))),
        None => Ok(()),
    }
}

/// Milliseconds until a lock expires; 0 once it has.
fn ttl_ms_left(lock_ts: u64, ttl_ms: u64, now: Timestamp) -> u64 {
    let expires_ms = Timestamp(lock_ts).physical_ms().saturating_add(ttl_ms);
    expires_ms.saturating_add(1).saturating_sub(now.physical_ms())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_lives_through_its_last_millisecond() {
        let lock_ts = Timestamp::compose(1000, 5).0;
        assert_eq!(ttl_ms_left(lock_ts, 10, Timestamp::compose(1000, 0)), 11);
        assert_eq!(ttl_ms_left(lock_ts, 10, Timestamp::compose(1010, 0)), 1);
        assert_eq!(ttl_ms_left(lock_ts, 10, Timestamp::compose(1011, 0)), 0);
        assert_eq!(ttl_ms_left(lock_ts, u64::MAX, Timestamp::compose(1011, 0)), u64::MAX - 1011);
    }
}
