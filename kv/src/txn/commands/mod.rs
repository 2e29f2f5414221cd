//! One file per RPC: the request becomes actions, their results the response.

mod batch_get;
mod batch_rollback;
mod check_secondary_locks;
mod check_txn_status;
mod cleanup;
mod commit;
mod delete_range;
mod get;
mod mvcc_get_by_key;
mod pessimistic_lock;
mod pessimistic_rollback;
mod prewrite;
mod resolve_lock;
mod scan;
mod scan_lock;
mod txn_heart_beat;

use std::time::Duration;

use bytes::Bytes;
use rutile_proto::codec;
use rutile_proto::ids::Timestamp;

use super::error::{Error, Result};
use super::scheduler::Scheduler;
use crate::mvcc::ReadOptions;
use crate::mvcc::key::Key;

/// How long a read waits for an in-flight write before it answers "locked".
const IN_FLIGHT_WAIT: Duration = Duration::from_secs(1);

/// Scans of more pairs than this leave the async threads.
const INLINE_SCAN_LIMIT: u32 = 512;

fn keys(raw: &[Bytes]) -> Vec<Key> {
    raw.iter().map(Key::from_raw).collect()
}

/// PD form of a bound; an empty bound stays empty.
pub(super) fn encoded_bound(raw: &[u8]) -> Vec<u8> {
    if raw.is_empty() { Vec::new() } else { codec::encoded_bytes(raw) }
}

fn check_commit_ts(start_ts: Timestamp, commit_ts: Timestamp) -> Result<()> {
    if commit_ts > start_ts {
        return Ok(());
    }
    Err(Error::InvalidRequest(format!("commit_ts {commit_ts} is not above start_ts {start_ts}")))
}

/// Whether a read looks at in-flight locks: a latest read may order itself before writes that are not applied.
fn heeds_in_flight(options: &ReadOptions) -> bool {
    options.ts != Timestamp::MAX && options.isolation != rutile_proto::kvrpcpb::IsolationLevel::Rc
}

/// Locks that do not block a read, known from its options.
fn ignored_locks(options: &ReadOptions) -> Vec<u64> {
    options.bypass_locks.iter().chain(&options.access_locks).copied().collect()
}

impl Scheduler {
    /// The first half of a read: later commits come after it, and writes in flight that it must see are waited for.
    pub(super) async fn begin_read(&self, keys: &[Key], options: &ReadOptions) -> Result<()> {
        self.observe_ts(options.ts)?;
        if !heeds_in_flight(options) {
            return Ok(());
        }
        let bypass = &options.bypass_locks;
        for key in keys {
            let Some(info) = self.concurrency().blocking_lock(key, options.ts, bypass) else { continue };
            let released = self.concurrency().wait_released(key, options.ts, bypass);
            if tokio::time::timeout(IN_FLIGHT_WAIT, released).await.is_err() {
                return Err(Error::locked(info));
            }
        }
        Ok(())
    }

    /// As `begin_read`, for the range `[lower, upper)` in PD form.
    pub(super) async fn begin_range_read(
        &self,
        lower: &[u8],
        upper: &[u8],
        options: &ReadOptions,
    ) -> Result<()> {
        self.observe_ts(options.ts)?;
        if !heeds_in_flight(options) {
            return Ok(());
        }
        let ignored = ignored_locks(options);
        let concurrency = self.concurrency();
        while let Some((key, info)) = concurrency.blocking_lock_in_range(lower, upper, options.ts, &ignored) {
            let released = concurrency.wait_released(&key, options.ts, &ignored);
            if tokio::time::timeout(IN_FLIGHT_WAIT, released).await.is_err() {
                return Err(Error::locked(info));
            }
        }
        Ok(())
    }
}
