//! KvPessimisticLock, with the wait for other transactions' locks.

use std::time::Duration;

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{
    Assertion, Context, LockInfo, Op, PessimisticLockKeyResult, PessimisticLockKeyResultType,
    PessimisticLockRequest, PessimisticLockResponse, PessimisticLockWakeUpMode,
};

use crate::mvcc::key::Key;
use crate::mvcc::txn::MvccTxn;
use crate::txn::actions::acquire_pessimistic_lock::{LockProps, LockedKey, acquire_pessimistic_lock};
use crate::txn::error::{Error, Result};
use crate::txn::lock_wait::{WAIT_MS_MAX, WaitHandle, WaitRequest, Wake, WakeToken};
use crate::txn::scheduler::Scheduler;

/// A request in the making.
struct LockCommand {
    ctx: Context,
    props: LockProps,
    keys: Vec<Key>,
    must_not_exist: Vec<bool>,
    /// False for a transaction's first lock.
    detect_deadlock: bool,
}

/// How one try ended.
enum Attempt {
    Locked(Vec<LockedKey>),
    /// Queued up behind the lock described.
    Waiting(WaitHandle, LockInfo),
}

impl Scheduler {
    /// Locks all keys, or none.
    pub async fn pessimistic_lock(&self, req: PessimisticLockRequest) -> Result<PessimisticLockResponse> {
        let deadline = wait_deadline(req.wait_timeout);
        let force = req.wake_up_mode() == PessimisticLockWakeUpMode::WakeUpModeForceLock;
        let command = read_request(req)?;
        self.check_safe_point(command.props.start_ts)?;
        if command.props.return_value || force {
            self.observe_ts(command.props.for_update_ts)?;
        }
        let mut token: Option<WakeToken> = None;
        let mut place: Option<(usize, u64)> = None;
        loop {
            match self.try_lock(&command, deadline.is_some(), &mut place).await {
                Ok(Attempt::Locked(locked)) => {
                    if let Some(token) = token {
                        token.consume();
                    }
                    for (key, result) in command.keys.iter().zip(&locked) {
                        if result.exists || !command.props.lock_only_if_exists {
                            self.lock_wait().locked_by(key, command.props.start_ts);
                        }
                    }
                    return Ok(respond(&command.props, locked));
                }
                Ok(Attempt::Waiting(mut handle, info)) => {
                    if let Some(token) = token.take() {
                        token.consume();
                    }
                    let deadline = deadline.unwrap_or_else(tokio::time::Instant::now);
                    match handle.wait(deadline).await {
                        Some(Wake::Released(woken)) => token = Some(woken),
                        Some(Wake::Deadlock(deadlock)) => return Err(Error::Deadlock(deadlock)),
                        None => {
                            let duration_to_last_update_ms = handle.holder_age_ms().max(1);
                            return Err(Error::locked(LockInfo { duration_to_last_update_ms, ..info }));
                        }
                    }
                }
                Err(e) => {
                    if let Some(token) = token {
                        match e {
                            Error::WriteConflict(_) => token.pass_on_later(),
                            _ => drop(token),
                        }
                    }
                    return Err(e);
                }
            }
        }
    }

    /// One try. On a lock of another transaction queues up (if `may_wait`) before the latches go.
    async fn try_lock(
        &self,
        command: &LockCommand,
        may_wait: bool,
        place: &mut Option<(usize, u64)>,
    ) -> Result<Attempt> {
        let LockCommand { ctx, props, keys, must_not_exist, detect_deadlock } = command;
        let mut started = self.start(ctx, keys.iter()).await?;
        let mut txn = MvccTxn::new();
        let mut locked = Vec::with_capacity(keys.len());
        for (i, (key, absent)) in keys.iter().zip(must_not_exist).enumerate() {
            match acquire_pessimistic_lock(&mut txn, &mut started.reader, props, key, *absent) {
                Ok(result) => locked.push(result),
                Err(e) => {
                    let Some(info) = e.lock_info().filter(|_| may_wait) else { return Err(e) };
                    let request = WaitRequest {
                        key,
                        start_ts: props.start_ts,
                        holder: Timestamp(info.lock_version),
                        ticket: place.filter(|(index, _)| *index == i).map(|(_, ticket)| ticket),
                        detect_deadlock: *detect_deadlock,
                    };
                    let handle =
                        self.lock_wait().enqueue(&request).map_err(|d| Error::Deadlock(Box::new(d)))?;
                    *place = Some((i, handle.ticket()));
                    return Ok(Attempt::Waiting(handle, info.clone()));
                }
            }
        }
        if !txn.is_empty() {
            self.finish(ctx, started, txn, None).await?;
        }
        Ok(Attempt::Locked(locked))
    }
}

/// `None`: do not wait.
fn wait_deadline(wait_timeout_ms: i64) -> Option<tokio::time::Instant> {
    let ms = match wait_timeout_ms {
        ..0 => return None,
        0 => WAIT_MS_MAX,
        ms => (ms as u64).min(WAIT_MS_MAX),
    };
    Some(tokio::time::Instant::now() + Duration::from_millis(ms))
}

fn read_request(req: PessimisticLockRequest) -> Result<LockCommand> {
    let force = req.wake_up_mode() == PessimisticLockWakeUpMode::WakeUpModeForceLock;
    if force && req.mutations.len() > 1 {
        return Err(Error::InvalidRequest("force lock takes one key".into()));
    }
    if let Some(m) = req.mutations.iter().find(|m| m.op() != Op::PessimisticLock) {
        return Err(Error::InvalidRequest(format!("{:?} in a pessimistic lock request", m.op())));
    }
    Ok(LockCommand {
        keys: req.mutations.iter().map(|m| Key::from_raw(&m.key)).collect(),
        must_not_exist: req.mutations.iter().map(|m| m.assertion() == Assertion::NotExist).collect(),
        detect_deadlock: !req.is_first_lock,
        props: LockProps {
            start_ts: Timestamp(req.start_version),
            primary: req.primary_lock,
            ttl: req.lock_ttl,
            for_update_ts: Timestamp(req.for_update_ts),
            min_commit_ts: Timestamp(req.min_commit_ts),
            return_value: req.return_values,
            check_existence: req.check_existence,
            lock_only_if_exists: req.lock_only_if_exists,
            force,
        },
        ctx: req.context.unwrap_or_default(),
    })
}

fn respond(props: &LockProps, locked: Vec<LockedKey>) -> PessimisticLockResponse {
    let mut response = PessimisticLockResponse::default();
    if props.force {
        response.results = locked.into_iter().map(key_result).collect();
        return response;
    }
    if props.return_value || props.check_existence {
        response.not_founds = locked.iter().map(|l| !l.exists).collect();
    }
    if props.return_value {
        response.values = locked.into_iter().map(|l| l.value.unwrap_or_default()).collect();
    }
    response
}

fn key_result(locked: LockedKey) -> PessimisticLockKeyResult {
    let kind = match locked.conflict_ts {
        Some(_) => PessimisticLockKeyResultType::LockResultLockedWithConflict,
        None => PessimisticLockKeyResultType::LockResultNormal,
    };
    PessimisticLockKeyResult {
        r#type: kind as i32,
        value: locked.value.unwrap_or_default(),
        existence: locked.exists,
        locked_with_conflict_ts: locked.conflict_ts.map_or(0, |ts| ts.0),
        ..PessimisticLockKeyResult::default()
    }
}
