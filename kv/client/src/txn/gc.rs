//! The first half of garbage collection: no lock of an old transaction may be left, since what became of its owner is
//! written in records that are about to be removed.

use bytes::Bytes;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::ScanLockRequest;

use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::sender::Sent;
use crate::txn::TxnCore;

/// Locks of one request.
const LOCKS_MAX: u32 = 1024;

/// Finishes all transactions that began at or before `safe_point` and are gone. Answers the safe point that this makes
/// possible: `safe_point` itself, or a timestamp below the oldest of them that still lives.
pub(crate) async fn finish_transactions(core: &TxnCore, safe_point: Timestamp) -> Result<Timestamp> {
    let mut possible = safe_point;
    let mut pd_key = Bytes::new();
    loop {
        let mut backoff = Backoff::new(Backoff::WRITE_MS);
        let region = core.cluster.locate(&pd_key, &mut backoff).await?;
        let mut start = Bytes::new();
        let moved = loop {
            let request = ScanLockRequest {
                max_version: safe_point.0,
                start_key: start,
                limit: LOCKS_MAX,
                ..Default::default()
            };
            let answer = match core.cluster.send(&region, request, |_| (), &mut backoff).await? {
                Sent::Answer(answer) => answer,
                Sent::Relocate => break true,
            };
            if let Some(error) = answer.error {
                return Err(Error::Protocol(format!("looking for old locks: {error:?}")));
            }
            let last = answer.locks.last().map(|lock| lock.key.clone());
            let full = answer.locks.len() >= LOCKS_MAX as usize;
            let resolution = core.resolver.resolve(answer.locks, Timestamp::ZERO, &mut backoff).await?;
            if let Some(oldest) = resolution.oldest_alive {
                possible = possible.min(Timestamp(oldest.0 - 1));
            }
            match last.filter(|_| full) {
                Some(last) => start = [&last[..], &[0]].concat().into(),
                None => break false,
            }
        };
        if moved {
            continue;
        }
        if region.end_key().is_empty() {
            return Ok(possible);
        }
        pd_key = region.end_key().clone();
    }
}
