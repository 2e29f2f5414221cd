//! Ids for stores, regions and peers: unique in the cluster, never given out twice.
//!
//! A batch of ids is reserved in the replicated store ahead; a restart skips what was left of it.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::replicated::Replicated;
use crate::replicated::command::SystemBatch;

const RESERVED_KEY: &[u8] = b"id/reserved";
const BATCH: u64 = 128;

/// Gives out ids.
pub struct IdAllocator {
    store: Arc<Replicated>,
    range: Mutex<Range>,
}

/// Ids `last + 1 ..= reserved` may be given out.
struct Range {
    last: u64,
    reserved: u64,
}

impl IdAllocator {
    /// Starts after everything that was reserved.
    #[must_use]
    pub fn open(store: Arc<Replicated>) -> Self {
        let reserved = store.system_get_u64(RESERVED_KEY);
        IdAllocator { store, range: Mutex::new(Range { last: reserved, reserved }) }
    }

    /// `count` ids in a row; the answer is the largest.
    pub async fn allocate(&self, count: u64) -> Result<u64> {
        if count == 0 || count > 1 << 20 {
            return Err(Error::Invalid(format!("cannot allocate {count} ids at once")));
        }
        let mut range = self.range.lock().await;
        if range.last + count > range.reserved {
            let reserved = range.last + count.max(BATCH);
            self.store
                .write_system(SystemBatch::default().put(RESERVED_KEY, reserved.to_be_bytes().to_vec()))
                .await?;
            range.reserved = reserved;
        }
        range.last += count;
        Ok(range.last)
    }

    /// Gives back what was reserved and not used, at a clean stop. No ids after this.
    pub async fn close(&self) -> Result<()> {
        let mut range = self.range.lock().await;
        let last = range.last.to_be_bytes().to_vec();
        self.store.write_system(SystemBatch::default().put(RESERVED_KEY, last)).await?;
        range.reserved = range.last;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ids_are_unique_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = 0;
        for life in 0..4 {
            let store = Arc::new(Replicated::open(dir.path(), 1 << 20).unwrap());
            let ids = IdAllocator::open(store.clone());
            for count in [1, 3, 300, 1] {
                let id = ids.allocate(count).await.unwrap();
                assert!(id >= last + count, "{id} after {last}");
                last = id;
            }
            if life % 2 == 1 {
                ids.close().await.unwrap();
            }
        }
    }
}
