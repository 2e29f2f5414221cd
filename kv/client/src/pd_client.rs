//! Calls to the placement driver: headers, refusals, and retries while its leader changes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rutile_proto::ids::{RegionId, StoreId, Timestamp};
use rutile_proto::{metapb, pdpb};

use crate::error::{Error, Result, TransportError};
use crate::transport::{PdRequest, PdResponse, Transport};

/// Pauses between failed calls.
const RETRY_DELAYS_MS: [u64; 10] = [10, 50, 100, 200, 400, 500, 1000, 1000, 2000, 2000];

/// A region and who leads it, as the placement driver knows it.
#[derive(Clone, Debug)]
pub struct RegionAndLeader {
    /// Bounds (PD form), epoch and peers.
    pub region: metapb::Region,
    /// `None` while it is unknown.
    pub leader: Option<metapb::Peer>,
}

/// The placement driver. Cheap to clone.
#[derive(Clone)]
pub struct PdClient {
    transport: Arc<dyn Transport>,
}

macro_rules! call {
    ($self:ident, $variant:ident, $request:ident { $($field:ident : $value:expr),* $(,)? }) => {{
        let request = pdpb::$request { header: $self.header(), $($field: $value,)* ..Default::default() };
        match $self.send(PdRequest::$variant(request)).await? {
            PdResponse::$variant(response) => {
                refusal(response.header.as_ref())?;
                response
            }
            _ => return Err(Error::Protocol("wrong answer of the placement driver".to_owned())),
        }
    }};
}

impl PdClient {
    /// Calls through a transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        PdClient { transport }
    }

    /// The region that holds `pd_key`.
    #[allow(clippy::needless_update)]
    pub async fn region(&self, pd_key: &[u8]) -> Result<Option<RegionAndLeader>> {
        let region_key = Bytes::copy_from_slice(pd_key);
        let response = call!(self, GetRegion, GetRegionRequest { region_key: region_key });
        Ok(region_of(response))
    }

    /// The region just before the one that holds `pd_key`.
    #[allow(clippy::needless_update)]
    pub async fn prev_region(&self, pd_key: &[u8]) -> Result<Option<RegionAndLeader>> {
        let region_key = Bytes::copy_from_slice(pd_key);
        let response = call!(self, GetPrevRegion, GetRegionRequest { region_key: region_key });
        Ok(region_of(response))
    }

    /// A region by its id.
    #[allow(clippy::needless_update)]
    pub async fn region_by_id(&self, id: RegionId) -> Result<Option<RegionAndLeader>> {
        let response = call!(self, GetRegionById, GetRegionByIdRequest { region_id: id.get() });
        Ok(region_of(response))
    }

    /// At most `limit` regions (0: all) from `start` to `end` (PD form).
    #[allow(clippy::needless_update)]
    pub async fn scan_regions(&self, start: Bytes, end: Bytes, limit: i32) -> Result<Vec<RegionAndLeader>> {
        let response =
            call!(self, ScanRegions, ScanRegionsRequest { start_key: start, end_key: end, limit: limit });
        let known = |r: pdpb::Region| {
            Some(RegionAndLeader { region: r.region?, leader: r.leader.filter(|p| p.id != 0) })
        };
        Ok(response.regions.into_iter().filter_map(known).collect())
    }

    /// A store.
    #[allow(clippy::needless_update)]
    pub async fn store(&self, id: StoreId) -> Result<Option<metapb::Store>> {
        Ok(call!(self, GetStore, GetStoreRequest { store_id: id.get() }).store)
    }

    /// Every store that is not gone for good.
    #[allow(clippy::needless_update)]
    pub async fn all_stores(&self) -> Result<Vec<metapb::Store>> {
        Ok(call!(self, GetAllStores, GetAllStoresRequest { exclude_tombstone_stores: true }).stores)
    }

    /// A number that the cluster has never given out.
    #[allow(clippy::needless_update)]
    pub async fn alloc_id(&self) -> Result<u64> {
        Ok(call!(self, AllocId, AllocIdRequest {}).id)
    }

    /// Versions below it may be gone.
    #[allow(clippy::needless_update)]
    pub async fn gc_safe_point(&self) -> Result<Timestamp> {
        Ok(Timestamp(call!(self, GetGcSafePoint, GetGcSafePointRequest {}).safe_point))
    }

    /// Moves the safe point up; answers the one in force.
    #[allow(clippy::needless_update)]
    pub async fn update_gc_safe_point(&self, ts: Timestamp) -> Result<Timestamp> {
        let response = call!(self, UpdateGcSafePoint, UpdateGcSafePointRequest { safe_point: ts.0 });
        Ok(Timestamp(response.new_safe_point))
    }

    /// Holds the safe point back for a service: nothing at or above `safe_point` is collected for `ttl_s` seconds (0 and
    /// less: no longer). Answers the smallest safe point of any service; one below it came too late.
    #[allow(clippy::needless_update)]
    pub async fn update_service_safe_point(
        &self,
        id: &str,
        ttl_s: i64,
        safe_point: Timestamp,
    ) -> Result<Timestamp> {
        let response = call!(
            self,
            UpdateServiceGcSafePoint,
            UpdateServiceGcSafePointRequest {
                service_id: Bytes::copy_from_slice(id.as_bytes()),
                ttl: ttl_s,
                safe_point: safe_point.0,
            }
        );
        Ok(Timestamp(response.min_safe_point))
    }

    fn header(&self) -> Option<pdpb::RequestHeader> {
        Some(pdpb::RequestHeader { cluster_id: self.transport.cluster_id().get(), ..Default::default() })
    }

    async fn send(&self, request: PdRequest) -> Result<PdResponse> {
        let mut last = TransportError::not_sent("");
        for delay_ms in [0].into_iter().chain(RETRY_DELAYS_MS) {
            if delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            match self.transport.pd(request.clone()).await {
                Ok(response) => return Ok(response),
                Err(error) => last = error,
            }
        }
        Err(Error::Pd(last.message))
    }
}

/// An error in the header, unless it only says that there is nothing.
fn refusal(header: Option<&pdpb::ResponseHeader>) -> Result<()> {
    match header.and_then(|h| h.error.as_ref()) {
        Some(e) if e.r#type() != pdpb::ErrorType::Ok && e.r#type() != pdpb::ErrorType::RegionNotFound => {
            Err(Error::Pd(e.message.clone()))
        }
        _ => Ok(()),
    }
}

fn region_of(response: pdpb::GetRegionResponse) -> Option<RegionAndLeader> {
    let region = response.region?;
    Some(RegionAndLeader { region, leader: response.leader.filter(|p| p.id != 0) })
}
