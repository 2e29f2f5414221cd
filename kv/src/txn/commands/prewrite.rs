//! KvPrewrite: first phase, async commit, and one-phase commit.

use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::prewrite_request::PessimisticAction;
use rutile_proto::kvrpcpb::{Context, KeyError, PrewriteRequest, PrewriteResponse};

use crate::mvcc::key::Key;
use crate::mvcc::reader::TxnRecord;
use crate::mvcc::txn::MvccTxn;
use crate::mvcc::write::WriteType;
use crate::txn::actions::prewrite::{
    CommitKind, Mutation, OnePhaseLock, PrewriteOutput, PrewriteProps, commit_one_phase, prewrite,
};
use crate::txn::concurrency::InFlightLocks;
use crate::txn::error::{Error, Result};
use crate::txn::reader::CommandReader;
use crate::txn::scheduler::Scheduler;

/// What a whole request came to.
enum Outcome {
    /// Everything is prewritten, or committed by 1PC; the largest min_commit_ts.
    Prewritten(MvccTxn, InFlightLocks, Timestamp),
    /// A repeated request of a transaction that is committed.
    Committed(Timestamp),
    /// Locks of other transactions are in the way.
    Locked(Vec<KeyError>),
    /// Neither async commit nor 1PC is possible.
    FallBack,
}

impl Scheduler {
    /// Locks the keys with their new values, or commits them at once.
    pub async fn prewrite(&self, req: PrewriteRequest) -> Result<PrewriteResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let wants_async = req.use_async_commit;
        let (mut props, mutations) = read_request(&ctx, req)?;
        if mutations.iter().any(|m| m.checks_absence()) {
            self.observe_ts(props.start_ts)?;
        }
        self.check_safe_point(props.start_ts)?;
        let mut started = self.start(&ctx, mutations.iter().map(|m| &m.key)).await?;
        if props.kind != CommitKind::TwoPhase {
            self.sync_max_ts(&started).await?;
        }
        let mut outcome = self.prewrite_all(&mut started.reader, &props, &mutations)?;
        if matches!(outcome, Outcome::FallBack) {
            props.kind = CommitKind::TwoPhase;
            outcome = self.prewrite_all(&mut started.reader, &props, &mutations)?;
        }
        let mut response = PrewriteResponse::default();
        match outcome {
            Outcome::Prewritten(txn, in_flight, min_commit_ts) => {
                if !txn.is_empty() {
                    self.finish(&ctx, started, txn, Some(in_flight)).await?;
                }
                if props.kind == CommitKind::OnePhase {
                    response.one_pc_commit_ts = min_commit_ts.0;
                }
                if props.kind == CommitKind::Async || (props.kind == CommitKind::OnePhase && wants_async) {
                    response.min_commit_ts = min_commit_ts.0;
                }
            }
            Outcome::Committed(commit_ts) => {
                response.min_commit_ts = commit_ts.0;
                if props.kind == CommitKind::OnePhase {
                    response.one_pc_commit_ts = commit_ts.0;
                }
            }
            Outcome::Locked(errors) => response.errors = errors,
            Outcome::FallBack => return Err(Error::InvalidRequest("two-phase prewrite has no limit".into())),
        }
        Ok(response)
    }

    fn prewrite_all(
        &self,
        reader: &mut CommandReader,
        props: &PrewriteProps,
        mutations: &[Mutation],
    ) -> Result<Outcome> {
        let mut txn = MvccTxn::new();
        let mut in_flight = self.concurrency().in_flight();
        let mut one_phase: Vec<OnePhaseLock> = Vec::new();
        let mut min_commit_ts = Timestamp::ZERO;
        let mut locked = Vec::new();
        for mutation in mutations {
            let mut out =
                PrewriteOutput { txn: &mut txn, in_flight: &mut in_flight, one_phase: &mut one_phase };
            let error = match prewrite(&mut out, reader, props, mutation) {
                Ok(ts) => {
                    min_commit_ts = min_commit_ts.max(ts);
                    continue;
                }
                Err(error) => error,
            };
            if may_be_committed(&error)
                && let TxnRecord::Own { commit_ts, write } =
                    reader.txn_record(&mutation.key, props.start_ts)?
                && write.write_type != WriteType::Rollback
            {
                return Ok(Outcome::Committed(commit_ts));
            }
            match error {
                e if e.lock_info().is_some() => locked.push(e.split()?),
                Error::CommitTsTooLarge { .. } if props.kind != CommitKind::TwoPhase => {
                    return Ok(Outcome::FallBack);
                }
                e => return Err(e),
            }
        }
        if !locked.is_empty() {
            return Ok(Outcome::Locked(locked));
        }
        if props.kind == CommitKind::OnePhase {
            // Without any lock there is nothing to order: any timestamp above start_ts will do.
            min_commit_ts = min_commit_ts.max(props.start_ts.next());
            commit_one_phase(&mut txn, one_phase, min_commit_ts);
        }
        Ok(Outcome::Prewritten(txn, in_flight, min_commit_ts))
    }
}

/// Errors that a repeated request of a committed transaction runs into.
fn may_be_committed(error: &Error) -> bool {
    match error {
        Error::WriteConflict(c) => c.conflict_commit_ts > c.start_ts,
        Error::PessimisticLockNotFound { .. } | Error::CommitTsTooLarge { .. } => true,
        e => e.lock_info().is_some(),
    }
}

fn read_request(ctx: &Context, req: PrewriteRequest) -> Result<(PrewriteProps, Vec<Mutation>)> {
    let kind = match (req.try_one_pc, req.use_async_commit) {
        (true, _) => CommitKind::OnePhase,
        (false, true) => CommitKind::Async,
        (false, false) => CommitKind::TwoPhase,
    };
    let action = |i: usize| -> Result<PessimisticAction> {
        let action = req.pessimistic_actions.get(i).copied().unwrap_or_default();
        PessimisticAction::try_from(action).map_err(|e| Error::InvalidRequest(e.to_string()))
    };
    let mut mutations = Vec::with_capacity(req.mutations.len());
    for (i, m) in req.mutations.iter().enumerate() {
        mutations.push(Mutation {
            key: Key::from_raw(&m.key),
            op: m.op(),
            assertion: m.assertion(),
            value: m.value.clone(),
            action: action(i)?,
            expected_for_update_ts: None,
        });
    }
    for constraint in &req.for_update_ts_constraints {
        let mutation = mutations
            .get_mut(constraint.index as usize)
            .ok_or_else(|| Error::InvalidRequest("for_update_ts_constraints index out of range".into()))?;
        mutation.expected_for_update_ts = Some(Timestamp(constraint.expected_for_update_ts));
    }
    let props = PrewriteProps {
        start_ts: Timestamp(req.start_version),
        ttl: req.lock_ttl,
        txn_size: req.txn_size,
        for_update_ts: Timestamp(req.for_update_ts),
        min_commit_ts: Timestamp(req.min_commit_ts),
        max_commit_ts: Timestamp(req.max_commit_ts),
        kind,
        skip_constraint_check: req.skip_constraint_check,
        assertion_level: req.assertion_level(),
        is_retry: ctx.is_retry_request,
        primary: req.primary_lock,
        secondaries: req.secondaries,
    };
    Ok((props, mutations))
}
