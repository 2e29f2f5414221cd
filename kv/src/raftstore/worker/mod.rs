//! Work beside the raft threads: the placement driver, size checks, log GC.

mod consistency;
pub(super) mod disk;
pub(super) mod log_gc;
pub(super) mod pd;
mod split_check;

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use super::context::StoreContext;
use super::messages::PdEvent;
use crate::engine::Result;
use crate::pd_client::PdClient;

/// The running workers.
pub(super) struct Workers {
    tasks: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(super) fn start(
        ctx: &Arc<StoreContext>,
        pd: &Arc<dyn PdClient>,
        events: UnboundedReceiver<PdEvent>,
        size_checks: UnboundedReceiver<u64>,
        start_time_s: u32,
    ) -> Result<Self> {
        let tasks = vec![
            tokio::spawn(pd::store_heartbeats(Arc::clone(ctx), Arc::clone(pd), start_time_s)),
            tokio::spawn(pd::region_heartbeats(Arc::clone(ctx), Arc::clone(pd), events)),
            tokio::spawn(split_check::run(Arc::clone(ctx), Arc::clone(pd), size_checks)),
            tokio::spawn(log_gc::run(Arc::clone(ctx))),
            tokio::spawn(disk::run(Arc::clone(ctx))),
            tokio::spawn(consistency::run(Arc::clone(ctx))),
        ];
        Ok(Self { tasks })
    }

    /// Returns when they are gone, and with them their hold on the engines.
    pub(super) async fn stop(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}
