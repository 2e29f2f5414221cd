//! Locking the rows a statement reads to change, or under FOR UPDATE.

use bytes::Bytes;
use rutile_client::{KvPair, LockOptions, LockWait as ClientWait, ReadView};

use super::ExecContext;
use crate::error::Result;
use crate::plan::logical::{LockClause, LockWait};

/// What a read goes through: the statement's snapshot, or current data where rows are read to be changed.
pub async fn view(lock: Option<LockClause>, ctx: &ExecContext) -> Result<ReadView> {
    match lock {
        Some(_) => ctx.statement.txn.current_view().await,
        None => ctx.statement.txn.read_view().await,
    }
}

/// Whether reading under a lock clause takes locks at all: a lone optimistic statement checks its writes when it commits.
pub fn takes_locks(lock: Option<LockClause>, ctx: &ExecContext) -> bool {
    lock.is_some() && (ctx.statement.txn.is_pessimistic() || ctx.statement.txn.is_explicit())
}

/// Locks keys and answers their current values, in the keys' order; `None` for those that are gone.
pub async fn lock_values(
    keys: Vec<Bytes>,
    lock: LockClause,
    ctx: &ExecContext,
) -> Result<Vec<Option<Bytes>>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let wait = match lock.wait {
        LockWait::NoWait => ClientWait::NoWait,
        LockWait::Default | LockWait::SkipLocked => {
            ClientWait::TimeoutMs(ctx.statement.settings.lock_wait_timeout_ms)
        }
    };
    let txn = ctx.statement.txn.transaction().await?;
    let options = LockOptions { wait, return_values: true, ..LockOptions::default() };
    let locked = txn.lock_keys(keys, options).await?;
    Ok(locked.into_iter().map(|value| value.value).collect())
}

/// Locks the keys of pairs and brings their values up to date; pairs that are gone are left out.
pub async fn lock_pairs(pairs: Vec<KvPair>, lock: LockClause, ctx: &ExecContext) -> Result<Vec<KvPair>> {
    let keys: Vec<Bytes> = pairs.into_iter().map(|pair| pair.key).collect();
    let values = lock_values(keys.clone(), lock, ctx).await?;
    let current = keys.into_iter().zip(values).filter_map(|(key, value)| Some(KvPair { key, value: value? }));
    Ok(current.collect())
}
