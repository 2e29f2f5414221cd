//! Pessimistic locks: taking them, keeping them alive, releasing them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rutile_proto::codec;
use rutile_proto::ids::Timestamp;
use rutile_proto::key::txn_pd_key;
use rutile_proto::kvrpcpb::{
    KeyError, Mutation, Op, PessimisticLockRequest, PessimisticLockResponse, PessimisticRollbackRequest,
    TxnHeartBeatRequest,
};

use crate::backoff::{Backoff, BackoffKind};
use crate::error::{Error, Result};
use crate::region_cache::Region;
use crate::sender::Sent;
use crate::txn::committer::conflict;
use crate::txn::resolver::locked;
use crate::txn::transaction::LockedKey;
use crate::txn::{LockOptions, LockWait, Transaction, TxnCore};

/// A lock lives so long beyond the last sign of its owner.
const LOCK_TTL_MS: u64 = 20_000;
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Keys of one request.
const KEYS_MAX: usize = 2048;

/// Locks `keys` and records their state in the transaction.
pub(crate) async fn lock_keys(txn: &Transaction, keys: &[Bytes], options: LockOptions) -> Result<()> {
    txn.start_ts().await?;
    let mut wanted: Vec<Bytes> = txn.with_state(|state| {
        let known = |key: &&Bytes| {
            let lock = state.locked.get(*key).filter(|l| !l.uncertain);
            lock.is_some_and(|l| l.value_known || !options.return_values)
        };
        keys.iter().filter(|key| !known(key)).cloned().collect()
    });
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(());
    }
    let (primary, first_lock) = txn.with_state(|state| {
        let first = state.locked.is_empty();
        (state.primary.get_or_insert_with(|| wanted[0].clone()).clone(), first)
    });
    let locker = Locker { txn, options, primary, deadline: deadline(options.wait) };
    let result = locker.lock(wanted, first_lock).await;
    txn.with_state(|state| {
        if state.locked.is_empty() {
            // Nothing holds the primary: the next statement may choose another.
            state.primary = None;
        } else if state.heartbeat.is_none() && result.is_ok() {
            state.heartbeat = Some(spawn_heartbeat(txn, locker.primary.clone()));
        }
    });
    result
}

/// `None` is no waiting at all.
fn deadline(wait: LockWait) -> Option<Instant> {
    match wait {
        LockWait::NoWait => None,
        LockWait::TimeoutMs(ms) => Some(Instant::now() + Duration::from_millis(ms)),
    }
}

struct Locker<'a> {
    txn: &'a Transaction,
    options: LockOptions,
    primary: Bytes,
    deadline: Option<Instant>,
}

impl Locker<'_> {
    async fn lock(&self, keys: Vec<Bytes>, first_lock: bool) -> Result<()> {
        let cluster = &self.txn.core().cluster;
        let mut backoff = Backoff::new(Backoff::WRITE_MS);
        let mut pending = keys;
        let mut attempt = 0u32;
        while !pending.is_empty() {
            let encode = |key: &Bytes, out: &mut Vec<u8>| codec::encode_bytes(out, key);
            let groups = cluster.group_by_region(std::mem::take(&mut pending), encode, &mut backoff).await?;
            let mut batches: Vec<(Arc<Region>, Vec<Bytes>)> = Vec::new();
            for (region, keys) in groups {
                batches.extend(keys.chunks(KEYS_MAX).map(|chunk| (region.clone(), chunk.to_vec())));
            }
            // The primary's batch goes first: the other locks refer to it.
            if let Some(at) = batches.iter().position(|(_, keys)| keys.contains(&self.primary)) {
                batches.swap(0, at);
            }
            let alone = batches.len() == 1 && first_lock && attempt == 0;
            let mut batches = batches.into_iter();
            if let Some((region, keys)) = batches.next() {
                pending.extend(self.lock_batch(region, keys, alone, &mut backoff).await?);
            }
            let others = batches.map(|(region, keys)| {
                let mut backoff = backoff.clone();
                async move { self.lock_batch(region, keys, false, &mut backoff).await }
            });
            for left in futures::future::join_all(others).await {
                pending.extend(left?);
            }
            attempt += 1;
        }
        Ok(())
    }

    /// Locks keys of one region, waiting as allowed; answers keys whose region moved.
    async fn lock_batch(
        &self,
        region: Arc<Region>,
        keys: Vec<Bytes>,
        is_first_lock: bool,
        backoff: &mut Backoff,
    ) -> Result<Vec<Bytes>> {
        let core = self.txn.core();
        let start_ts = self.txn.start_ts().await?;
        loop {
            let request = self.request(&keys, start_ts, is_first_lock);
            let asked = request.for_update_ts;
            let sent = core.cluster.send(&region, request, |_| (), backoff).await;
            if backoff.maybe_executed() {
                self.note_uncertain(&keys);
            }
            let mut answer = match sent? {
                Sent::Answer(answer) => answer,
                Sent::Relocate => return Ok(keys),
            };
            let errors = std::mem::take(&mut answer.errors);
            if errors.is_empty() {
                self.note(&keys, answer)?;
                return Ok(Vec::new());
            }
            for error in errors {
                self.on_error(error, start_ts, Timestamp(asked), backoff).await?;
            }
        }
    }

    fn request(&self, keys: &[Bytes], start_ts: Timestamp, is_first_lock: bool) -> PessimisticLockRequest {
        let for_update_ts = self.txn.for_update_ts();
        let mutation =
            |key: &Bytes| Mutation { op: Op::PessimisticLock as i32, key: key.clone(), ..Default::default() };
        let wait_ms = match self.deadline {
            None => -1,
            Some(at) => (at.saturating_duration_since(Instant::now()).as_millis() as i64).max(1),
        };
        PessimisticLockRequest {
            mutations: keys.iter().map(mutation).collect(),
            primary_lock: self.primary.clone(),
            start_version: start_ts.0,
            lock_ttl: self.txn.elapsed_ms() + LOCK_TTL_MS,
            for_update_ts: for_update_ts.0,
            is_first_lock,
            wait_timeout: wait_ms,
            return_values: self.options.return_values,
            check_existence: true,
            min_commit_ts: for_update_ts.0 + 1,
            ..Default::default()
        }
    }

    /// Records what the store answered about the keys it locked.
    fn note(&self, keys: &[Bytes], answer: PessimisticLockResponse) -> Result<()> {
        let with_values = self.options.return_values;
        if answer.not_founds.len() != keys.len() || (with_values && answer.values.len() != keys.len()) {
            return Err(Error::Protocol("wrong number of values for locked keys".to_owned()));
        }
        let mut values = answer.values.into_iter();
        self.txn.with_state(|state| {
            for (key, not_found) in keys.iter().zip(answer.not_founds) {
                let value = values.next().filter(|_| with_values && !not_found);
                let lock =
                    LockedKey { exists: Some(!not_found), value, value_known: with_values, uncertain: false };
                state.locked.insert(key.clone(), lock);
            }
        });
        Ok(())
    }

    /// The keys may be locked: rollback has to look after them.
    fn note_uncertain(&self, keys: &[Bytes]) {
        self.txn.with_state(|state| {
            for key in keys {
                let uncertain = || LockedKey { uncertain: true, ..LockedKey::default() };
                state.locked.entry(key.clone()).or_insert_with(uncertain);
            }
        });
    }

    /// Waits, resolves or refreshes so that another try makes sense; otherwise fails.
    async fn on_error(
        &self,
        error: KeyError,
        start_ts: Timestamp,
        asked: Timestamp,
        backoff: &mut Backoff,
    ) -> Result<()> {
        if let Some(lock) = error.locked {
            let resolution =
                self.txn.core().resolver.resolve(vec![lock.clone()], Timestamp::ZERO, backoff).await?;
            if !resolution.wait {
                return Ok(());
            }
            let lock_ts = Timestamp(lock.lock_version);
            return match self.deadline {
                None => Err(Error::LockNoWait { key: lock.key, lock_ts }),
                Some(at) if Instant::now() >= at => Err(Error::LockWaitTimeout { key: lock.key }),
                // The store has waited already; it keeps the queue fair, so ask again at once.
                Some(_) => {
                    let mut pause = Backoff::new(Backoff::WRITE_MS);
                    pause.wait(BackoffKind::TxnLock, locked(&lock)).await
                }
            };
        }
        if let Some(conflicting) = &error.conflict {
            if !self.options.refresh_on_conflict {
                return Err(conflict(conflicting));
            }
            // Another lock of this call may have refreshed it meanwhile.
            if self.txn.for_update_ts() <= asked {
                self.txn.refresh_for_update_ts().await?;
            }
            // A commit without a timestamp of its own (one phase, async) may be one ahead of the latest.
            let commit_ts = Timestamp(conflicting.conflict_commit_ts);
            self.txn.with_state(|state| state.for_update_ts = state.for_update_ts.max(commit_ts));
            return Ok(());
        }
        if let Some(deadlock) = error.deadlock {
            return Err(Error::Deadlock { key: deadlock.lock_key, lock_ts: Timestamp(deadlock.lock_ts) });
        }
        if let Some(exists) = error.already_exist {
            return Err(Error::AlreadyExists { key: exists.key });
        }
        let message = if error.abort.is_empty() { error.retryable } else { error.abort };
        Err(Error::Aborted { start_ts, message })
    }
}

/// Keeps the primary alive until the transaction ends.
fn spawn_heartbeat(txn: &Transaction, primary: Bytes) -> tokio::task::AbortHandle {
    let core = txn.core().clone();
    let start_ts = txn.start_ts_now().unwrap_or_default();
    let begun_ms_ago = txn.elapsed_ms();
    let started = Instant::now();
    let beat = async move {
        loop {
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            let elapsed_ms = begun_ms_ago + started.elapsed().as_millis() as u64;
            let request = TxnHeartBeatRequest {
                primary_lock: primary.clone(),
                start_version: start_ts.0,
                advise_lock_ttl: elapsed_ms + LOCK_TTL_MS,
                ..Default::default()
            };
            let mut backoff = Backoff::new(Backoff::READ_MS);
            let pd_key = txn_pd_key(&primary);
            match core.cluster.call(&pd_key, &request, |_| (), &mut backoff).await {
                Ok(answer) if answer.error.is_some() => return,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, %start_ts, "heartbeat of a transaction failed"),
            }
        }
    };
    tokio::spawn(beat).abort_handle()
}

/// Releases pessimistic locks; keys without a lock are no error.
pub(crate) async fn release(core: &Arc<TxnCore>, start_ts: Timestamp, keys: Vec<Bytes>) -> Result<()> {
    let mut backoff = Backoff::new(Backoff::WRITE_MS);
    let mut pending = keys;
    while !pending.is_empty() {
        let encode = |key: &Bytes, out: &mut Vec<u8>| codec::encode_bytes(out, key);
        let groups = core.cluster.group_by_region(std::mem::take(&mut pending), encode, &mut backoff).await?;
        for (region, keys) in groups {
            for chunk in keys.chunks(KEYS_MAX) {
                let request = PessimisticRollbackRequest {
                    start_version: start_ts.0,
                    for_update_ts: u64::MAX,
                    keys: chunk.to_vec(),
                    ..Default::default()
                };
                match core.cluster.send(&region, request, |_| (), &mut backoff).await? {
                    Sent::Relocate => pending.extend_from_slice(chunk),
                    Sent::Answer(answer) => {
                        if let Some(error) = answer.errors.first() {
                            return Err(Error::Protocol(format!("releasing locks: {error:?}")));
                        }
                    }
                }
            }
        }
    }
    Ok(())
}
