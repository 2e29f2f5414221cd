//! The placement driver of a simulation: gives ids, and knows the regions as their leaders told it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use rutile_proto::ids::{ClusterId, Timestamp};
use rutile_proto::{metapb, pdpb};
use tokio::sync::mpsc;

use crate::pd_client::{Error, PdClient, Result};

/// Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct SimPd {
    ids: Arc<AtomicU64>,
    regions: Arc<Mutex<BTreeMap<u64, metapb::Region>>>,
}

fn epoch(region: &metapb::Region) -> (u64, u64) {
    let epoch = region.region_epoch.unwrap_or_default();
    (epoch.version, epoch.conf_ver)
}

fn overlap(a: &metapb::Region, b: &metapb::Region) -> bool {
    (b.end_key.is_empty() || a.start_key < b.end_key) && (a.end_key.is_empty() || b.start_key < a.end_key)
}

impl SimPd {
    pub(super) fn id(&self) -> u64 {
        1000 + self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// A leader has told of its region.
    pub(super) fn heard(&self, region: &metapb::Region) {
        let mut regions = self.regions.lock();
        let stale = |known: &metapb::Region| {
            if known.id == region.id {
                epoch(known) > epoch(region)
            } else {
                epoch(known).0 > epoch(region).0
            }
        };
        if regions.values().any(|known| overlap(known, region) && stale(known)) {
            return;
        }
        regions.retain(|_, known| !overlap(known, region));
        regions.insert(region.id, region.clone());
    }

    pub(super) fn region(&self, id: u64) -> Option<metapb::Region> {
        self.regions.lock().get(&id).cloned()
    }
}

fn unused<T>() -> Result<T> {
    Err(Error::Unavailable("not in a simulation".to_owned()))
}

#[async_trait]
impl PdClient for SimPd {
    async fn cluster_id(&self) -> Result<ClusterId> {
        unused()
    }
    async fn is_bootstrapped(&self) -> Result<bool> {
        unused()
    }
    async fn bootstrap(&self, _: metapb::Store, _: metapb::Region) -> Result<()> {
        unused()
    }
    async fn alloc_ids(&self, _: u32) -> Result<u64> {
        unused()
    }
    async fn put_store(&self, _: metapb::Store) -> Result<()> {
        unused()
    }
    async fn get_store(&self, _: u64) -> Result<metapb::Store> {
        unused()
    }
    async fn get_all_stores(&self) -> Result<Vec<metapb::Store>> {
        unused()
    }
    async fn get_region(&self, _: &[u8]) -> Result<Option<(metapb::Region, Option<metapb::Peer>)>> {
        unused()
    }
    async fn get_region_by_id(&self, id: u64) -> Result<Option<(metapb::Region, Option<metapb::Peer>)>> {
        Ok(self.region(id).map(|region| (region, None)))
    }
    async fn timestamps(&self, _: u32) -> Result<Timestamp> {
        unused()
    }
    async fn store_heartbeat(&self, _: pdpb::StoreStats) -> Result<()> {
        unused()
    }
    async fn region_heartbeats(
        &self,
        _: mpsc::Receiver<pdpb::RegionHeartbeatRequest>,
    ) -> Result<BoxStream<'static, Result<pdpb::RegionHeartbeatResponse>>> {
        unused()
    }
    async fn ask_batch_split(&self, region: metapb::Region, count: u32) -> Result<Vec<pdpb::SplitId>> {
        let ids = |_| pdpb::SplitId {
            new_region_id: self.id(),
            new_peer_ids: region.peers.iter().map(|_| self.id()).collect(),
        };
        Ok((0..count).map(ids).collect())
    }
    async fn report_batch_split(&self, _: Vec<metapb::Region>) -> Result<()> {
        Ok(())
    }
    async fn gc_safe_point(&self) -> Result<Timestamp> {
        unused()
    }
}
