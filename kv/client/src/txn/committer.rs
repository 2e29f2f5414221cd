//! Commit: one-phase where all keys are in one region, async commit for small transactions, else two phases.
//!
//! | path | done when | background |
//! |---|---|---|
//! | one-phase | the only prewrite answered a commit timestamp | nothing |
//! | async commit | all prewrites succeeded; commit_ts = largest min_commit_ts | commit of all keys |
//! | two phases | the primary key is committed | commit of the other keys |
//!
//! Until the deciding request is answered a lost answer makes the result undetermined.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rutile_proto::codec;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::prewrite_request::PessimisticAction;
use rutile_proto::kvrpcpb::{
    BatchRollbackRequest, CommitRequest, KeyError, Mutation, Op, PrewriteRequest, PrewriteResponse,
    WriteConflict, write_conflict,
};

use crate::backoff::{Backoff, BackoffKind};
use crate::error::{Error, Result};
use crate::region_cache::Region;
use crate::sender::Sent;
use crate::txn::resolver::locked;
use crate::txn::transaction::State;
use crate::txn::{Transaction, TxnCore, TxnMode, pessimistic};

const ASYNC_COMMIT_KEYS_MAX: usize = 256;
const ASYNC_COMMIT_KEY_BYTES_MAX: usize = 4 << 10;
/// Keys and values of one prewrite or commit request.
const BATCH_SIZE_BYTES_MAX: usize = 1 << 20;
const TTL_MS_MIN: u64 = 3_000;
const TTL_MS_MAX: u64 = 20_000;
/// Below this size the shortest time to live is enough.
const SMALL_TXN_BYTES: usize = 16 << 10;

/// One key of the transaction.
#[derive(Clone)]
struct Item {
    op: Op,
    key: Bytes,
    value: Bytes,
    action: PessimisticAction,
}

impl Item {
    /// Whether prewriting leaves a lock that commit removes.
    fn is_locked(&self) -> bool {
        self.op != Op::CheckNotExists
    }

    fn size_bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// Drives one commit.
pub(crate) struct Committer {
    core: Arc<TxnCore>,
    start_ts: Timestamp,
    for_update_ts: Timestamp,
    items: Vec<Item>,
    primary: Bytes,
    lock_ttl_ms: u64,
    async_commit: bool,
    autocommit: bool,
    /// Whether prewriting took more than one request, so that a failed one may leave locks of others.
    spread: AtomicBool,
    /// Whether prewriting alone may have committed the transaction: one phase or async commit was asked for.
    deciding: AtomicBool,
}

/// What prewriting came to.
#[derive(Default)]
struct Prewritten {
    /// Committed in one phase.
    one_pc_commit_ts: u64,
    min_commit_ts: u64,
    /// Some batch did not take part in async commit.
    fell_back: bool,
}

impl Prewritten {
    fn add(&mut self, part: &Prewritten) {
        self.one_pc_commit_ts = self.one_pc_commit_ts.max(part.one_pc_commit_ts);
        self.min_commit_ts = self.min_commit_ts.max(part.min_commit_ts);
        self.fell_back |= part.fell_back;
    }
}

impl Committer {
    pub fn new(txn: &Transaction, start_ts: Timestamp, state: &State) -> Self {
        let locks_first = txn.mode() == TxnMode::Pessimistic;
        let items = items_of(state, locks_first);
        let holds = |i: &&Item| i.is_locked() && state.primary.as_ref() == Some(&i.key);
        let primary = items.iter().find(holds).or_else(|| items.iter().find(|i| i.is_locked()));
        let primary = primary.or(items.first()).map(|i| i.key.clone()).unwrap_or_default();
        let size: usize = items.iter().map(Item::size_bytes).sum();
        let key_bytes: usize = items.iter().map(|i| i.key.len()).sum();
        let for_update_ts = if locks_first { state.for_update_ts.max(start_ts) } else { Timestamp::ZERO };
        Committer {
            core: txn.core().clone(),
            start_ts,
            for_update_ts,
            primary,
            lock_ttl_ms: lock_ttl_ms(size) + txn.elapsed_ms(),
            async_commit: items.len() <= ASYNC_COMMIT_KEYS_MAX && key_bytes <= ASYNC_COMMIT_KEY_BYTES_MAX,
            autocommit: txn.options().autocommit,
            spread: AtomicBool::new(false),
            deciding: AtomicBool::new(false),
            items,
        }
    }

    /// Answers the commit timestamp.
    pub async fn run(self) -> Result<Timestamp> {
        let mut backoff = Backoff::new(Backoff::WRITE_MS);
        let all: Vec<usize> = (0..self.items.len()).collect();
        let floor = self.min_commit_ts_floor().await?;
        let prewritten = match self.prewrite(all, true, floor, &mut backoff).await {
            Ok(prewritten) => prewritten,
            Err(error) => return Err(self.on_prewrite_failure(error, &backoff).await),
        };
        if prewritten.one_pc_commit_ts > 0 {
            return Ok(Timestamp(prewritten.one_pc_commit_ts));
        }
        if !self.items.iter().any(Item::is_locked) {
            return Ok(self.start_ts);
        }
        if self.async_commit && !prewritten.fell_back && prewritten.min_commit_ts > 0 {
            let commit_ts = Timestamp(prewritten.min_commit_ts);
            self.commit_in_background(commit_ts, None);
            return Ok(commit_ts);
        }
        self.commit_in_two_phases().await
    }

    /// The commit must come after every commit that ended before it began; a single statement's transaction began
    /// after all of them, so that its start timestamp is enough.
    async fn min_commit_ts_floor(&self) -> Result<u64> {
        if self.autocommit { Ok(0) } else { Ok(self.core.cluster.timestamp().await?.0 + 1) }
    }

    /// Prewrites items (by index). `whole`: they are the entire transaction, so that one phase may do.
    ///
    /// Goes round by round, not by recursion: a store that is away for long is asked hundreds of times.
    async fn prewrite(
        &self,
        items: Vec<usize>,
        mut whole: bool,
        floor: u64,
        backoff: &mut Backoff,
    ) -> Result<Prewritten> {
        let mut all = Prewritten::default();
        let mut pending = items;
        loop {
            let batches = self.batches(std::mem::take(&mut pending), backoff).await?;
            whole &= batches.len() == 1;
            if let [(region, items)] = &batches[..] {
                match self.prewrite_batch(region, items, whole, floor, backoff).await? {
                    Some(one) => all.add(&one),
                    None => pending.clone_from(items),
                }
            } else {
                pending = self.prewrite_batches(&batches, floor, &mut all, backoff).await?;
            }
            if pending.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Several batches at once; answers the items whose regions moved.
    async fn prewrite_batches(
        &self,
        batches: &[(Arc<Region>, Vec<usize>)],
        floor: u64,
        all: &mut Prewritten,
        backoff: &mut Backoff,
    ) -> Result<Vec<usize>> {
        self.spread.store(true, Ordering::Relaxed);
        let calls = batches.iter().map(|(region, items)| {
            let mut backoff = backoff.clone();
            async move {
                let result = self.prewrite_batch(region, items, false, floor, &mut backoff).await;
                (result, items, backoff)
            }
        });
        let mut left = Vec::new();
        let mut failure: Option<Error> = None;
        let mut maybe_executed = backoff.maybe_executed();
        for (result, items, spent) in futures::future::join_all(calls).await {
            maybe_executed |= spent.maybe_executed();
            match result {
                Ok(Some(one)) => all.add(&one),
                Ok(None) => {
                    left.extend_from_slice(items);
                    *backoff = spent;
                }
                // A definite refusal tells more than a lost answer.
                Err(error) if failure.as_ref().is_none_or(|known| !is_definite(known)) => {
                    failure = Some(error);
                }
                Err(_) => {}
            }
        }
        if maybe_executed {
            backoff.set_maybe_executed();
        }
        failure.map_or(Ok(left), Err)
    }

    /// Regions of items, in requests of bounded size; the primary's first.
    async fn batches(
        &self,
        items: Vec<usize>,
        backoff: &mut Backoff,
    ) -> Result<Vec<(Arc<Region>, Vec<usize>)>> {
        let pd_key = |i: &usize, out: &mut Vec<u8>| codec::encode_bytes(out, &self.items[*i].key);
        let groups = self.core.cluster.group_by_region(items, pd_key, backoff).await?;
        let mut batches = Vec::with_capacity(groups.len());
        for (region, items) in groups {
            let mut batch = Vec::with_capacity(items.len());
            let mut size = 0;
            for i in items {
                if size >= BATCH_SIZE_BYTES_MAX {
                    batches.push((region.clone(), std::mem::take(&mut batch)));
                    size = 0;
                }
                size += self.items[i].size_bytes();
                batch.push(i);
            }
            batches.push((region, batch));
        }
        let has_primary =
            |(_, items): &(_, Vec<usize>)| items.iter().any(|i| self.items[*i].key == self.primary);
        if let Some(at) = batches.iter().position(has_primary) {
            batches.swap(0, at);
        }
        Ok(batches)
    }

    /// One request's worth. `None`: the items may belong to several regions by now.
    async fn prewrite_batch(
        &self,
        region: &Arc<Region>,
        items: &[usize],
        one_pc: bool,
        floor: u64,
        backoff: &mut Backoff,
    ) -> Result<Option<Prewritten>> {
        let mut request = self.prewrite_request(items, one_pc, floor);
        if one_pc || request.use_async_commit {
            self.deciding.store(true, Ordering::Relaxed);
        }
        let mut is_retry = false;
        loop {
            let retry = is_retry || backoff.maybe_executed();
            let adjust = |context: &mut rutile_proto::kvrpcpb::Context| context.is_retry_request = retry;
            let answer = match self.core.cluster.send(region, request.clone(), adjust, backoff).await? {
                Sent::Answer(answer) => answer,
                Sent::Relocate => return Ok(None),
            };
            if answer.errors.is_empty() {
                return Ok(Some(self.prewritten(&answer, one_pc)));
            }
            self.on_prewrite_errors(answer.errors, backoff).await?;
            request.lock_ttl = self.lock_ttl_ms;
            is_retry = true;
        }
    }

    fn prewritten(&self, answer: &PrewriteResponse, one_pc: bool) -> Prewritten {
        let fell_back = self.async_commit && answer.min_commit_ts == 0;
        let one_pc_commit_ts = if one_pc { answer.one_pc_commit_ts } else { 0 };
        Prewritten { one_pc_commit_ts, min_commit_ts: answer.min_commit_ts, fell_back }
    }

    fn prewrite_request(&self, items: &[usize], one_pc: bool, floor: u64) -> PrewriteRequest {
        let batch = || items.iter().map(|i| &self.items[*i]);
        let mutation = |i: &Item| Mutation {
            op: i.op as i32,
            key: i.key.clone(),
            value: i.value.clone(),
            ..Default::default()
        };
        let pessimistic = !self.for_update_ts.is_zero();
        let holds_primary = batch().any(|i| i.key == self.primary);
        let secondaries = if self.async_commit && holds_primary && !one_pc {
            let others = self.items.iter().filter(|i| i.is_locked() && i.key != self.primary);
            others.map(|i| i.key.clone()).collect()
        } else {
            Vec::new()
        };
        PrewriteRequest {
            mutations: batch().map(mutation).collect(),
            primary_lock: self.primary.clone(),
            start_version: self.start_ts.0,
            lock_ttl: self.lock_ttl_ms,
            pessimistic_actions: if pessimistic {
                batch().map(|i| i.action as i32).collect()
            } else {
                Vec::new()
            },
            txn_size: items.len() as u64,
            for_update_ts: self.for_update_ts.0,
            min_commit_ts: floor.max(self.start_ts.0 + 1).max(self.for_update_ts.0 + 1),
            // One phase that falls back leaves ordinary locks, for which the two phases are there.
            use_async_commit: self.async_commit && !one_pc,
            secondaries,
            try_one_pc: one_pc,
            ..Default::default()
        }
    }

    /// Resolves or waits for locks; anything else fails.
    async fn on_prewrite_errors(&self, errors: Vec<KeyError>, backoff: &mut Backoff) -> Result<()> {
        let mut locks = Vec::new();
        for error in errors {
            match error.locked {
                Some(lock) => locks.push(lock),
                None => return Err(self.key_error(error)),
            }
        }
        let Some(first) = locks.first().cloned() else { return Ok(()) };
        let resolution = self.core.resolver.resolve(locks, Timestamp::ZERO, backoff).await?;
        if resolution.wait {
            backoff.wait(BackoffKind::TxnLock, locked(&first)).await?;
        }
        Ok(())
    }

    fn key_error(&self, error: KeyError) -> Error {
        if let Some(exists) = error.already_exist {
            return Error::AlreadyExists { key: exists.key };
        }
        if let Some(c) = &error.conflict {
            return conflict(c);
        }
        let message = match &error {
            e if !e.abort.is_empty() => e.abort.clone(),
            e if !e.retryable.is_empty() => e.retryable.clone(),
            _ => format!("{error:?}"),
        };
        Error::Aborted { start_ts: self.start_ts, message }
    }

    /// Cleans up, unless the transaction may be committed.
    async fn on_prewrite_failure(&self, error: Error, backoff: &Backoff) -> Error {
        if backoff.maybe_executed() && self.deciding.load(Ordering::Relaxed) && !is_definite(&error) {
            return Error::ResultUndetermined(error.to_string());
        }
        // One refused request has written nothing: only locks taken before it are there.
        let nothing_written = !self.spread.load(Ordering::Relaxed) && !backoff.maybe_executed();
        let cleanup = if nothing_written { self.release_locks().await } else { self.roll_back().await };
        if let Err(failure) = cleanup {
            tracing::warn!(error = %failure, start_ts = %self.start_ts, "locks of a failed commit are left to expire");
        }
        error
    }

    /// Releases pessimistic locks.
    async fn release_locks(&self) -> Result<()> {
        if self.for_update_ts.is_zero() {
            return Ok(());
        }
        let keys = self.locked_items().map(|i| self.items[i].key.clone()).collect();
        pessimistic::release(&self.core, self.start_ts, keys).await
    }

    async fn roll_back(&self) -> Result<()> {
        let mut backoff = Backoff::new(Backoff::READ_MS);
        let mut pending: Vec<usize> = self.locked_items().collect();
        while !pending.is_empty() {
            for (region, items) in self.batches(std::mem::take(&mut pending), &mut backoff).await? {
                let request = BatchRollbackRequest {
                    start_version: self.start_ts.0,
                    keys: self.keys(&items),
                    ..Default::default()
                };
                match self.core.cluster.send(&region, request, |_| (), &mut backoff).await? {
                    Sent::Relocate => pending.extend(items),
                    Sent::Answer(answer) => {
                        if let Some(error) = answer.error {
                            return Err(Error::Protocol(format!("rollback: {error:?}")));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn commit_in_two_phases(self) -> Result<Timestamp> {
        let mut backoff = Backoff::new(Backoff::WRITE_MS);
        let mut commit_ts = self.core.cluster.timestamp().await?;
        loop {
            match self.commit_primary(commit_ts, &mut backoff).await {
                Ok(None) => break,
                Ok(Some(_)) => commit_ts = self.core.cluster.timestamp().await?,
                Err(error) if backoff.maybe_executed() && !is_definite(&error) => {
                    return Err(Error::ResultUndetermined(error.to_string()));
                }
                Err(error) => {
                    if let Err(failure) = self.roll_back().await {
                        tracing::warn!(error = %failure, "locks of a failed commit are left to expire");
                    }
                    return Err(error);
                }
            }
        }
        let primary = self.primary.clone();
        self.commit_in_background(commit_ts, Some(primary));
        Ok(commit_ts)
    }

    /// `Some(min_commit_ts)` asks for a later commit timestamp: a reader was promised that nothing commits before it.
    async fn commit_primary(&self, commit_ts: Timestamp, backoff: &mut Backoff) -> Result<Option<u64>> {
        let request = self.commit_request(vec![self.primary.clone()], commit_ts);
        let pd_key = codec::encoded_bytes(&self.primary);
        let answer = self.core.cluster.call(&pd_key, &request, |_| (), backoff).await?;
        match answer.error {
            None => Ok(None),
            Some(error) => match error.commit_ts_expired {
                Some(expired) => Ok(Some(expired.min_commit_ts)),
                None => Err(self.key_error(error)),
            },
        }
    }

    /// Commits all keys but `done`. Nobody waits: readers that meet the locks finish the work as well.
    fn commit_in_background(self, commit_ts: Timestamp, done: Option<Bytes>) {
        let left = |i: &usize| done.as_ref() != Some(&self.items[*i].key);
        let pending: Vec<usize> = self.locked_items().filter(left).collect();
        if pending.is_empty() {
            return;
        }
        tokio::spawn(async move {
            if let Err(error) = self.commit_keys(pending, commit_ts).await {
                tracing::warn!(%error, start_ts = %self.start_ts, "locks of a committed transaction are left to readers");
            }
        });
    }

    async fn commit_keys(&self, mut pending: Vec<usize>, commit_ts: Timestamp) -> Result<()> {
        let mut backoff = Backoff::new(Backoff::WRITE_MS);
        while !pending.is_empty() {
            for (region, items) in self.batches(std::mem::take(&mut pending), &mut backoff).await? {
                let request = self.commit_request(self.keys(&items), commit_ts);
                match self.core.cluster.send(&region, request, |_| (), &mut backoff).await? {
                    Sent::Relocate => pending.extend(items),
                    Sent::Answer(answer) => {
                        if let Some(error) = answer.error {
                            return Err(self.key_error(error));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn commit_request(&self, keys: Vec<Bytes>, commit_ts: Timestamp) -> CommitRequest {
        CommitRequest {
            start_version: self.start_ts.0,
            keys,
            commit_version: commit_ts.0,
            primary_key: self.primary.clone(),
            use_async_commit: self.async_commit,
            ..Default::default()
        }
    }

    fn locked_items(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.items.len()).filter(|i| self.items[*i].is_locked())
    }

    fn keys(&self, items: &[usize]) -> Vec<Bytes> {
        items.iter().map(|i| self.items[*i].key.clone()).collect()
    }
}

/// Writes, and locked keys that were not written.
fn items_of(state: &State, pessimistic: bool) -> Vec<Item> {
    let action = |key: &Bytes, must_not_exist: bool| match state.locked.get(key) {
        Some(lock) if pessimistic && !lock.uncertain => PessimisticAction::DoPessimisticCheck,
        _ if must_not_exist => PessimisticAction::DoConstraintCheck,
        _ => PessimisticAction::SkipPessimisticCheck,
    };
    let mut items = Vec::with_capacity(state.buffer.iter().count() + state.locked.len());
    for (key, entry) in state.buffer.iter() {
        let op = match (&entry.value, entry.must_not_exist) {
            (Some(_), true) => Op::Insert,
            (Some(_), false) => Op::Put,
            // Pessimistic prewrites know no such check: the store takes a lock instead.
            (None, true) if !pessimistic => Op::CheckNotExists,
            (None, _) => Op::Del,
        };
        items.push(Item {
            op,
            key: key.clone(),
            value: entry.value.clone().unwrap_or_default(),
            action: action(key, entry.must_not_exist),
        });
    }
    let unwritten = state.locked.iter().filter(|(key, _)| state.buffer.get(key).is_none());
    for (key, lock) in unwritten {
        // An uncertain lock that is not written need not be taken now.
        if !(pessimistic && lock.uncertain) {
            let action = action(key, false);
            items.push(Item { op: Op::Lock, key: key.clone(), value: Bytes::new(), action });
        }
    }
    items
}

/// Grows with the square root of the size: larger transactions take longer to commit.
fn lock_ttl_ms(size_bytes: usize) -> u64 {
    if size_bytes <= SMALL_TXN_BYTES {
        return TTL_MS_MIN;
    }
    let mib = size_bytes as f64 / f64::from(1 << 20);
    ((6000.0 * mib.sqrt()) as u64).clamp(TTL_MS_MIN, TTL_MS_MAX)
}

/// Whether the store said for certain that nothing was committed.
fn is_definite(error: &Error) -> bool {
    matches!(
        error,
        Error::WriteConflict { .. }
            | Error::AlreadyExists { .. }
            | Error::Aborted { .. }
            | Error::EntryTooLarge { .. }
    )
}

pub(crate) fn conflict(c: &WriteConflict) -> Error {
    let reason = match c.reason() {
        write_conflict::Reason::Unknown => "unknown",
        write_conflict::Reason::Optimistic => "optimistic",
        write_conflict::Reason::PessimisticRetry => "pessimistic retry",
        write_conflict::Reason::SelfRolledBack => "rolled back by others",
        write_conflict::Reason::RcCheckTs => "read committed check",
        write_conflict::Reason::LazyUniquenessCheck => "lazy uniqueness check",
        _ => "not locked",
    };
    Error::WriteConflict {
        key: c.key.clone(),
        start_ts: Timestamp(c.start_ts),
        conflict_start_ts: Timestamp(c.conflict_ts),
        conflict_commit_ts: Timestamp(c.conflict_commit_ts),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_to_live_grows_with_size() {
        assert_eq!(lock_ttl_ms(100), TTL_MS_MIN);
        assert_eq!(lock_ttl_ms(1 << 20), 6000);
        assert_eq!(lock_ttl_ms(1 << 30), TTL_MS_MAX);
    }

    #[test]
    fn operations_of_items() {
        let mut state = State::default();
        let b = |s: &'static str| Bytes::from_static(s.as_bytes());
        state.buffer.put(b("put"), b("v"));
        state.buffer.insert(b("insert"), b("v"), false).unwrap();
        state.buffer.insert(b("undone"), b("v"), false).unwrap();
        state.buffer.delete(b("undone"));
        state.locked.insert(b("locked"), Default::default());
        let ops = |pessimistic| {
            items_of(&state, pessimistic).iter().map(|i| (i.key.clone(), i.op)).collect::<Vec<_>>()
        };
        let expected = [
            (b("insert"), Op::Insert),
            (b("put"), Op::Put),
            (b("undone"), Op::CheckNotExists),
            (b("locked"), Op::Lock),
        ];
        assert_eq!(ops(false), expected);
        assert_eq!(ops(true)[2].1, Op::Del);
    }
}
