//! Prewrite of one key: the checks, then a lock with the value.

use bytes::Bytes;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::prewrite_request::PessimisticAction;
use rutile_proto::kvrpcpb::write_conflict::Reason;
use rutile_proto::kvrpcpb::{Assertion, AssertionLevel, LockInfo, Op};

use super::commit::put_commit_record;
use super::{check_not_exists, is_rollback_of};
use crate::mvcc::SHORT_VALUE_LEN_MAX;
use crate::mvcc::key::Key;
use crate::mvcc::lock::{Lock, LockType};
use crate::mvcc::txn::MvccTxn;
use crate::mvcc::write::{Write, WriteType};
use crate::txn::concurrency::InFlightLocks;
use crate::txn::error::{Conflict, Error, Result};
use crate::txn::reader::{CommandReader, FoundLock};

/// How the transaction will commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitKind {
    TwoPhase,
    /// Committed once every key is prewritten.
    Async,
    /// Committed by this very request.
    OnePhase,
}

/// What all mutations of a prewrite have in common.
#[derive(Debug, Clone)]
pub struct PrewriteProps {
    pub start_ts: Timestamp,
    pub primary: Bytes,
    pub ttl: u64,
    pub txn_size: u64,
    /// Zero for an optimistic transaction.
    pub for_update_ts: Timestamp,
    pub min_commit_ts: Timestamp,
    /// Zero for no limit.
    pub max_commit_ts: Timestamp,
    pub kind: CommitKind,
    /// All other keys of an async-commit transaction, for the primary lock.
    pub secondaries: Vec<Bytes>,
    pub skip_constraint_check: bool,
    pub assertion_level: AssertionLevel,
    pub is_retry: bool,
}

impl PrewriteProps {
    fn is_pessimistic(&self) -> bool {
        !self.for_update_ts.is_zero()
    }
}

/// One key of a prewrite.
#[derive(Debug, Clone)]
pub struct Mutation {
    pub key: Key,
    pub op: Op,
    pub value: Bytes,
    pub assertion: Assertion,
    pub action: PessimisticAction,
    pub expected_for_update_ts: Option<Timestamp>,
}

impl Mutation {
    /// Whether the key must not exist: then the prewrite is a read as well.
    #[must_use]
    pub fn checks_absence(&self) -> bool {
        matches!(self.op, Op::Insert | Op::CheckNotExists)
    }
}

/// A lock that a one-phase commit turns into a record at once.
pub struct OnePhaseLock {
    pub key: Key,
    pub lock: Lock,
    /// The own pessimistic lock that it replaces.
    pub replaced: Option<FoundLock>,
}

/// Where a prewrite puts its results.
pub struct PrewriteOutput<'a> {
    pub txn: &'a mut MvccTxn,
    pub in_flight: &'a mut InFlightLocks,
    pub one_phase: &'a mut Vec<OnePhaseLock>,
}

enum LockStatus {
    /// This request was done before; the lock's min_commit_ts if it is an async-commit lock.
    Done(Timestamp),
    /// An own pessimistic lock to replace.
    Replace(FoundLock),
    Free,
}

/// Prewrites one key. Returns the key's min_commit_ts for async commit and 1PC, else zero.
pub fn prewrite(
    out: &mut PrewriteOutput<'_>,
    reader: &mut CommandReader,
    props: &PrewriteProps,
    mutation: &Mutation,
) -> Result<Timestamp> {
    if props.is_pessimistic() && mutation.op == Op::CheckNotExists {
        return Err(Error::InvalidRequest("CheckNotExists in a pessimistic transaction".into()));
    }
    let status = match reader.find_lock(&mutation.key)? {
        Some(found) => check_lock(props, mutation, found)?,
        None => {
            if props.is_pessimistic() && mutation.action == PessimisticAction::DoPessimisticCheck {
                amend_pessimistic_lock(reader, props, mutation)?;
            }
            LockStatus::Free
        }
    };
    if let LockStatus::Done(min_commit_ts) = status {
        if props.kind == CommitKind::OnePhase {
            // Prewritten by an earlier try in two phases: it has to go on that way.
            return Err(Error::CommitTsTooLarge { min_commit_ts });
        }
        return Ok(min_commit_ts);
    }
    let newest = if skips_version_check(props, mutation) {
        None
    } else {
        Some(check_newer_version(reader, props, mutation)?)
    };
    check_assertion(reader, props, mutation, newest)?;
    if mutation.op == Op::CheckNotExists {
        return Ok(Timestamp::ZERO);
    }
    let replaced = match status {
        LockStatus::Replace(found) => Some(found),
        _ => None,
    };
    write_lock(out, props, mutation, replaced)
}

fn check_lock(props: &PrewriteProps, mutation: &Mutation, found: FoundLock) -> Result<LockStatus> {
    let lock = &found.lock;
    let key = mutation.key.raw();
    if lock.start_ts != props.start_ts {
        if props.is_pessimistic() && mutation.action == PessimisticAction::DoPessimisticCheck {
            return Err(lost_lock(props, key, "another transaction holds the lock"));
        }
        let info = lock.to_info(key.clone());
        // A pessimistic transaction did its waiting before: whoever is in the way is to be resolved now.
        let lock_ttl = if props.is_pessimistic() { 0 } else { info.lock_ttl };
        return Err(Error::locked(LockInfo { lock_ttl, ..info }));
    }
    if lock.is_pessimistic() {
        if !props.is_pessimistic() {
            return Err(Error::LockTypeNotMatch {
                start_ts: props.start_ts,
                key: key.clone(),
                pessimistic: true,
            });
        }
        if mutation.expected_for_update_ts.is_some_and(|ts| ts != lock.for_update_ts) {
            return Err(lost_lock(props, key, "for_update_ts is not the expected one"));
        }
        return Ok(LockStatus::Replace(found));
    }
    let min_commit_ts = if lock.use_async_commit { lock.min_commit_ts } else { Timestamp::ZERO };
    Ok(LockStatus::Done(min_commit_ts))
}

fn lost_lock(props: &PrewriteProps, key: &Bytes, reason: &'static str) -> Error {
    Error::PessimisticLockNotFound { start_ts: props.start_ts, key: key.clone(), reason }
}

/// A pessimistic lock in memory may be lost; that is fine while nothing was written since the transaction began.
fn amend_pessimistic_lock(
    reader: &mut CommandReader,
    props: &PrewriteProps,
    mutation: &Mutation,
) -> Result<()> {
    match reader.seek_write(&mutation.key, Timestamp::MAX)? {
        Some((commit_ts, _)) if commit_ts >= props.start_ts => {
            Err(lost_lock(props, mutation.key.raw(), "it is lost and a newer version exists"))
        }
        _ => Ok(()),
    }
}

fn skips_version_check(props: &PrewriteProps, mutation: &Mutation) -> bool {
    if !props.is_pessimistic() {
        return props.skip_constraint_check;
    }
    match mutation.action {
        PessimisticAction::DoPessimisticCheck => true,
        // A retry must not overwrite what came after the first try.
        PessimisticAction::SkipPessimisticCheck => !props.is_retry,
        PessimisticAction::DoConstraintCheck => false,
    }
}

type Newest = Option<(Timestamp, Write)>;

fn check_newer_version(
    reader: &mut CommandReader,
    props: &PrewriteProps,
    mutation: &Mutation,
) -> Result<Newest> {
    let key = &mutation.key;
    let mut found = reader.seek_write(key, Timestamp::MAX)?;
    while let Some((commit_ts, write)) = found {
        if is_rollback_of(props.start_ts, commit_ts, &write) {
            return Err(conflict(props, key, commit_ts, &write, Reason::SelfRolledBack));
        }
        if !props.is_pessimistic() {
            if commit_ts > props.start_ts {
                return Err(conflict(props, key, commit_ts, &write, Reason::Optimistic));
            }
        } else if mutation.action == PessimisticAction::DoConstraintCheck {
            if commit_ts > props.start_ts {
                return Err(conflict(props, key, commit_ts, &write, Reason::LazyUniquenessCheck));
            }
        } else if commit_ts > props.for_update_ts {
            if write.write_type == WriteType::Rollback {
                found = reader.next_write(key)?;
                continue;
            }
            return Err(lost_lock(props, key.raw(), "a retried key without lock has a newer version"));
        }
        if mutation.checks_absence() {
            check_not_exists(reader, key, commit_ts, &write)?;
        }
        return Ok(Some((commit_ts, write)));
    }
    Ok(None)
}

fn conflict(props: &PrewriteProps, key: &Key, commit_ts: Timestamp, write: &Write, reason: Reason) -> Error {
    Error::WriteConflict(Box::new(Conflict {
        start_ts: props.start_ts,
        conflict_start_ts: write.start_ts,
        conflict_commit_ts: commit_ts,
        key: key.raw().clone(),
        primary: props.primary.clone(),
        reason,
    }))
}

/// `newest` is the newest record when the version check loaded it.
fn check_assertion(
    reader: &mut CommandReader,
    props: &PrewriteProps,
    mutation: &Mutation,
    newest: Option<Newest>,
) -> Result<()> {
    if mutation.assertion == Assertion::None || props.assertion_level == AssertionLevel::Off {
        return Ok(());
    }
    let is_data = |w: &Write| matches!(w.write_type, WriteType::Put | WriteType::Delete);
    let newest_data = match newest {
        Some(None) => None,
        Some(Some((commit_ts, write))) if is_data(&write) => Some((commit_ts, write)),
        _ if props.assertion_level == AssertionLevel::Fast => return Ok(()),
        _ => reader.visible_write(&mutation.key, Timestamp::MAX)?,
    };
    let exists = newest_data.as_ref().is_some_and(|(_, w)| w.write_type == WriteType::Put);
    if exists == (mutation.assertion == Assertion::Exist) {
        return Ok(());
    }
    let (existing_commit_ts, existing_start_ts) =
        newest_data.map_or((Timestamp::ZERO, Timestamp::ZERO), |(c, w)| (c, w.start_ts));
    Err(Error::AssertionFailed {
        start_ts: props.start_ts,
        key: mutation.key.raw().clone(),
        assertion: mutation.assertion,
        existing_start_ts,
        existing_commit_ts,
    })
}

/// The lock without its value.
fn new_lock(
    lock_type: LockType,
    props: &PrewriteProps,
    mutation: &Mutation,
    replaced: Option<&FoundLock>,
) -> Lock {
    let mut lock = Lock::new(lock_type, props.primary.clone(), props.start_ts, props.ttl);
    lock.txn_size = props.txn_size;
    lock.for_update_ts = props.for_update_ts;
    lock.min_commit_ts = props.min_commit_ts;
    if let Some(FoundLock { lock: old, .. }) = replaced {
        lock.ttl = lock.ttl.max(old.ttl);
        lock.min_commit_ts = lock.min_commit_ts.max(old.min_commit_ts);
        lock.for_update_ts = lock.for_update_ts.max(old.for_update_ts);
        lock.rollback_ts.clone_from(&old.rollback_ts);
    }
    // A 1PC lock is only seen in flight; like an async-commit lock it must not be ignored by latest reads.
    lock.use_async_commit = props.kind != CommitKind::TwoPhase;
    if props.kind == CommitKind::Async && props.primary == mutation.key.raw() {
        lock.secondaries.clone_from(&props.secondaries);
    }
    lock
}

fn write_lock(
    out: &mut PrewriteOutput<'_>,
    props: &PrewriteProps,
    mutation: &Mutation,
    replaced: Option<FoundLock>,
) -> Result<Timestamp> {
    let key = &mutation.key;
    let (lock_type, value) = match mutation.op {
        Op::Put | Op::Insert => (LockType::Put, Some(&mutation.value)),
        Op::Del => (LockType::Delete, None),
        Op::Lock => (LockType::Lock, None),
        op => return Err(Error::InvalidRequest(format!("{op:?} in a prewrite"))),
    };
    let mut lock = new_lock(lock_type, props, mutation, replaced.as_ref());
    if let Some(value) = value {
        if value.len() <= SHORT_VALUE_LEN_MAX {
            lock.short_value = Some(value.clone());
        } else {
            out.txn.put_value(key, props.start_ts, value.clone());
        }
    }
    let mut min_commit_ts = Timestamp::ZERO;
    if props.kind != CommitKind::TwoPhase {
        out.in_flight.add(key, &mut lock);
        min_commit_ts = lock.min_commit_ts;
        if !props.max_commit_ts.is_zero() && min_commit_ts > props.max_commit_ts {
            return Err(Error::CommitTsTooLarge { min_commit_ts });
        }
    }
    if props.kind == CommitKind::OnePhase {
        out.one_phase.push(OnePhaseLock { key: key.clone(), lock, replaced });
        return Ok(min_commit_ts);
    }
    if replaced.is_some_and(|found| found.in_memory) {
        out.txn.replace_memory_lock(key);
    }
    out.txn.put_lock(key, &lock);
    Ok(min_commit_ts)
}

/// Turns the locks of a one-phase commit into records.
pub fn commit_one_phase(txn: &mut MvccTxn, locks: Vec<OnePhaseLock>, commit_ts: Timestamp) {
    for OnePhaseLock { key, lock, replaced } in locks {
        put_commit_record(txn, &key, &lock, commit_ts);
        if let Some(found) = replaced {
            txn.unlock(&key, found.in_memory);
        }
    }
}
