//! Reads of followers.
//!
//! The follower asks its leader (ReadIndex), which does what it would do for a read of its own: it raises `max_ts`, so that later
//! commits come after the read, waits for writes in flight, and confirms its leadership. Everything the read must see is applied at
//! the leader then: the follower waits until it has applied as much, and reads its own data.

use std::time::Duration;

use bytes::Bytes;
use rutile_proto::errorpb;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{self, Context, KeyRange, ReadIndexRequest, ReadIndexResponse};

use super::commands::encoded_bound;
use super::error::{Error, Result};
use super::scheduler::Scheduler;
use crate::mvcc::ReadOptions;
use crate::mvcc::key::Key;
use crate::raftstore::{PeerState, RegionSnapshot, region_error};

/// How long a follower may lag behind its leader before the read is sent elsewhere.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);
/// How long the leader may take to answer.
const ANSWER_MAX: Duration = Duration::from_millis(1500);

/// What a read looks at.
pub enum ReadScope<'a> {
    /// These keys.
    Keys(&'a [Key]),
    /// `[start, end)` in request form, empty end = unbounded.
    Range(&'a Bytes, &'a Bytes),
}

impl ReadScope<'_> {
    fn ranges(&self) -> Vec<KeyRange> {
        match self {
            ReadScope::Keys(keys) => keys.iter().map(|key| point(key.raw())).collect(),
            ReadScope::Range(start, end) => {
                vec![KeyRange { start_key: (*start).clone(), end_key: (*end).clone() }]
            }
        }
    }
}

fn point(key: &Bytes) -> KeyRange {
    KeyRange { start_key: key.clone(), end_key: [&key[..], &[0]].concat().into() }
}

/// The key, if a range holds no other.
fn only_key(range: &KeyRange) -> Option<Key> {
    let is_point = range.end_key.strip_suffix(&[0]).is_some_and(|key| *key == range.start_key[..]);
    is_point.then(|| Key::from_raw(&range.start_key))
}

fn not_ready(region_id: u64, reason: impl Into<String>) -> Error {
    let reason = reason.into();
    let read_index_not_ready = Some(errorpb::ReadIndexNotReady { reason: reason.clone(), region_id });
    errorpb::Error { message: reason, read_index_not_ready, ..errorpb::Error::default() }.into()
}

impl Scheduler {
    /// What a read at `options.ts` sees, wherever this peer stands and whatever the request asks of it.
    pub async fn read_snapshot(
        &self,
        ctx: &Context,
        options: &ReadOptions,
        scope: ReadScope<'_>,
    ) -> Result<RegionSnapshot> {
        if ctx.stale_read {
            return self.stale_snapshot(ctx, options.ts);
        }
        if ctx.replica_read
            && let Some(state) = self.raft().peer_state(ctx.region_id)
            && !state.is_leader
        {
            return self.replica_snapshot(ctx, options, &scope, &state).await;
        }
        match scope {
            ReadScope::Keys(keys) => self.begin_read(keys, options).await?,
            ReadScope::Range(start, end) => {
                self.begin_range_read(&encoded_bound(start), &encoded_bound(end), options).await?;
            }
        }
        self.snapshot(ctx).await
    }

    async fn replica_snapshot(
        &self,
        ctx: &Context,
        options: &ReadOptions,
        scope: &ReadScope<'_>,
        state: &PeerState,
    ) -> Result<RegionSnapshot> {
        let region_id = ctx.region_id;
        // What is wrong with the request is said here already.
        self.raft().check(ctx)?;
        let leader = state.leader.ok_or_else(|| region_error::not_leader(region_id, None))?;
        let request = ReadIndexRequest {
            context: Some(Context {
                region_id,
                region_epoch: ctx.region_epoch,
                peer: Some(leader),
                isolation_level: ctx.isolation_level,
                resolved_locks: ctx.resolved_locks.clone(),
                committed_locks: ctx.committed_locks.clone(),
                ..Context::default()
            }),
            start_ts: options.ts.0,
            ranges: scope.ranges(),
        };
        let others = self.other_stores().ok_or_else(|| not_ready(region_id, "no way to the leader"))?;
        let asked = tokio::time::timeout(ANSWER_MAX, others.read_index(leader.store_id, request)).await;
        let answer = match asked {
            Ok(Ok(answer)) => answer,
            failed => {
                let reason = failed.map_or_else(|_| "no answer".to_owned(), |f| f.err().unwrap_or_default());
                // Its leader may be gone: as a request that it refuses, this one must wake a sleeping peer.
                let _ = self.raft().check(&Context { replica_read: false, ..ctx.clone() });
                return Err(not_ready(region_id, format!("the leader does not answer: {reason}")));
            }
        };
        if let Some(error) = answer.region_error {
            return Err(error.into());
        }
        if let Some(lock) = answer.locked {
            return Err(Error::locked(lock));
        }
        let caught_up = self.raft().await_applied(region_id, answer.read_index);
        match tokio::time::timeout(CATCH_UP_MAX, caught_up).await {
            Ok(result) => result?,
            Err(_) => return Err(not_ready(region_id, "this peer lags behind")),
        }
        Ok(self.raft().local_snapshot(ctx)?)
    }

    /// As the leader: up to where a follower must have applied before it serves a read.
    pub async fn read_index(&self, req: &ReadIndexRequest) -> Result<ReadIndexResponse> {
        let ctx = req.context.clone().unwrap_or_default();
        let ctx = Context { replica_read: false, stale_read: false, ..ctx };
        if req.start_ts > 0 {
            let options = ReadOptions::from_context(&ctx, Timestamp(req.start_ts));
            // All of `max_ts` and the locks come before the index.
            for range in &req.ranges {
                let ready = match only_key(range) {
                    Some(key) => self.begin_read(&[key], &options).await,
                    None => {
                        let (start, end) = (encoded_bound(&range.start_key), encoded_bound(&range.end_key));
                        self.begin_range_read(&start, &end, &options).await
                    }
                };
                if let Err(error) = ready {
                    let Some(lock) = error.lock_info() else { return Err(error) };
                    let locked = Some(kvrpcpb::LockInfo::clone(lock));
                    return Ok(ReadIndexResponse { locked, ..ReadIndexResponse::default() });
                }
            }
        }
        let snapshot = self.snapshot(&ctx).await?;
        let region_id = snapshot.region().id;
        let state = self.raft().peer_state(region_id);
        let state = state.ok_or_else(|| region_error::region_not_found(region_id))?;
        Ok(ReadIndexResponse { read_index: state.applied_index, ..ReadIndexResponse::default() })
    }
}
