//! Cuts raft logs off where their effects are safely in table files, and removes raft-engine's old files.
//!
//! Invariant: a log is never cut above its region's flushed applied index, because RocksDB has no write-ahead log: a crash takes
//! the memtables, and what they held is applied again from the raft log.

use std::sync::Arc;

use ahash::AHashMap;
use prost::Message as _;
use rutile_proto::raft_serverpb::RaftApplyState;

use crate::engine::{Cf, Error, Result};
use crate::raftstore::context::StoreContext;
use crate::raftstore::keys;
use crate::raftstore::messages::StoreMsg;

/// Looks at all logs from time to time.
pub(super) async fn run(ctx: Arc<StoreContext>) {
    let mut ticks = tokio::time::interval(ctx.config.log_gc_interval.0);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut cut = AHashMap::new();
    loop {
        ticks.tick().await;
        let ctx = Arc::clone(&ctx);
        let work = tokio::task::spawn_blocking(move || {
            let result = collect(&ctx, &mut cut);
            if let Err(error) = result {
                ctx.engine.fail(error);
            }
            cut
        });
        match work.await {
            Ok(back) => cut = back,
            Err(_) => return,
        }
    }
}

fn collect(ctx: &StoreContext, cut: &mut AHashMap<u64, u64>) -> Result<()> {
    let keep = ctx.config.log_gc_keep;
    for handle in ctx.registry.all() {
        let last = cut.entry(handle.region_id).or_default();
        if handle.applied_index() < *last + 2 * keep.max(1) {
            continue;
        }
        let flushed = flushed_index(ctx, handle.region_id)?;
        if flushed >= *last + 2 * keep.max(1) {
            *last = flushed - keep;
            truncate(ctx, handle.region_id, flushed - keep, false);
        }
    }
    let in_the_way = ctx.raft_log.purge()?;
    if !in_the_way.is_empty() {
        // Their oldest entries are not flushed, or are kept for followers that no longer matter.
        ctx.engine.flush()?;
        for region_id in in_the_way {
            truncate(ctx, region_id, flushed_index(ctx, region_id)?, true);
        }
    }
    Ok(())
}

/// Cuts every log off, `keep` entries below what is flushed; `force`: even where a follower needs more.
pub(in crate::raftstore) fn truncate_all(ctx: &StoreContext, keep: u64, force: bool) {
    for handle in ctx.registry.all() {
        match flushed_index(ctx, handle.region_id) {
            Ok(flushed) => truncate(ctx, handle.region_id, flushed.saturating_sub(keep), force),
            Err(error) => ctx.engine.fail(error),
        }
    }
}

fn truncate(ctx: &StoreContext, region_id: u64, index: u64, force: bool) {
    let _ = ctx.store_of(region_id).send(StoreMsg::Truncate { region_id, index, force });
}

/// The index up to which a crash now would lose nothing.
fn flushed_index(ctx: &StoreContext, region_id: u64) -> Result<u64> {
    let Some(state) = ctx.engine.get_flushed(Cf::Raft, &keys::apply_state(region_id))? else { return Ok(0) };
    let state = RaftApplyState::decode(state).map_err(|_| {
        Error::Corruption(format!(
            "{}: the apply state of region {region_id} cannot be decoded",
            ctx.engine.dir().display()
        ))
    })?;
    Ok(state.applied_index)
}
