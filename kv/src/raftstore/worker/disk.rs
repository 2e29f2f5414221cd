//! Looks at the room on the disk. When little is left, writes are refused while reads, replication and the removal of data go on: a
//! full disk would end the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::raftstore::context::StoreContext;

const INTERVAL: Duration = Duration::from_secs(1);

/// Looks from time to time.
pub(super) async fn run(ctx: Arc<StoreContext>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        look(&ctx);
    }
}

/// Looks once.
pub(in crate::raftstore) fn look(ctx: &StoreContext) {
    let Ok(available) = fs2::available_space(ctx.engine.dir()) else { return };
    let full = available < ctx.config.disk_reserve.bytes();
    if ctx.disk_full.swap(full, Ordering::Relaxed) != full {
        let store_id = ctx.store_id;
        if full {
            tracing::error!(store_id, available, "too little room on the disk: writes are refused");
        } else {
            tracing::info!(store_id, available, "there is room on the disk again");
        }
    }
}
