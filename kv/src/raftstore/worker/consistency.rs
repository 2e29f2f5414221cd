//! Lets the replicas of the regions led here be compared, a few regions at a time.

use std::sync::Arc;
use std::time::Duration;

use crate::raftstore::context::StoreContext;
use crate::raftstore::messages::StoreMsg;

/// Between two regions, so that reading them does not disturb.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks at all regions from time to time.
pub(super) async fn run(ctx: Arc<StoreContext>) {
    let interval = ctx.config.consistency_check_interval.0;
    if interval.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(interval).await;
        for handle in ctx.registry.all() {
            let published = handle.published();
            if published.is_leader && published.region.peers.len() > 1 {
                let region_id = handle.region_id;
                let _ = ctx.store_of(region_id).send(StoreMsg::CheckConsistency { region_id });
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
