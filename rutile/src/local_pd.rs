//! The placement driver as a store in the same process sees it: direct calls, no socket, no serialization.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use rutile_kv::pd_client::{Error, PdClient, Result};
use rutile_pd::PdService;
use rutile_proto::ids::{ClusterId, Timestamp};
use rutile_proto::pdpb::ErrorType;
use rutile_proto::{metapb, pdpb};
use tokio::sync::mpsc;
use tonic::Status;

/// Calls a placement driver in this process.
pub struct LocalPd(Arc<PdService>);

impl LocalPd {
    /// Over its service.
    #[must_use]
    pub fn new(service: Arc<PdService>) -> Self {
        LocalPd(service)
    }

    fn header(&self) -> Option<pdpb::RequestHeader> {
        self.0.request_header()
    }
}

/// A timestamp's, region's or store's absence is an answer; an error in the header is not.
fn check(header: Option<pdpb::ResponseHeader>) -> Result<()> {
    match header.and_then(|header| header.error) {
        None => Ok(()),
        Some(error) if error.r#type() == ErrorType::AlreadyBootstrapped => Err(Error::AlreadyBootstrapped),
        Some(error) => Err(Error::Refused(error.message)),
    }
}

fn failed(status: Status) -> Error {
    match status.code() {
        tonic::Code::Unavailable => Error::Unavailable(status.message().to_string()),
        _ => Error::Refused(status.message().to_string()),
    }
}

type Located = Option<(metapb::Region, Option<metapb::Peer>)>;

fn located(response: pdpb::GetRegionResponse) -> Result<Located> {
    check(response.header)?;
    Ok(response.region.map(|region| (region, response.leader)))
}

#[async_trait]
impl PdClient for LocalPd {
    async fn cluster_id(&self) -> Result<ClusterId> {
        ClusterId::new(self.0.cluster_id()).ok_or_else(|| Error::Refused("the cluster id is 0".into()))
    }

    async fn is_bootstrapped(&self) -> Result<bool> {
        let request = pdpb::IsBootstrappedRequest { header: self.header() };
        let response = self.0.is_bootstrapped(request).await.map_err(failed)?;
        check(response.header)?;
        Ok(response.bootstrapped)
    }

    async fn bootstrap(&self, store: metapb::Store, region: metapb::Region) -> Result<()> {
        let request =
            pdpb::BootstrapRequest { header: self.header(), store: Some(store), region: Some(region) };
        check(self.0.bootstrap(request).await.map_err(failed)?.header)
    }

    async fn alloc_ids(&self, count: u32) -> Result<u64> {
        let request = pdpb::AllocIdRequest { header: self.header(), count };
        let response = self.0.alloc_id(request).await.map_err(failed)?;
        check(response.header)?;
        Ok(response.id + 1 - u64::from(response.count))
    }

    async fn put_store(&self, store: metapb::Store) -> Result<()> {
        let request = pdpb::PutStoreRequest { header: self.header(), store: Some(store) };
        check(self.0.put_store(request).await.map_err(failed)?.header)
    }

    async fn get_store(&self, store_id: u64) -> Result<metapb::Store> {
        let request = pdpb::GetStoreRequest { header: self.header(), store_id };
        let response = self.0.get_store(request).await.map_err(failed)?;
        check(response.header)?;
        response.store.ok_or_else(|| Error::Refused(format!("store {store_id} not found")))
    }

    async fn get_all_stores(&self) -> Result<Vec<metapb::Store>> {
        let request = pdpb::GetAllStoresRequest { header: self.header(), exclude_tombstone_stores: true };
        let response = self.0.get_all_stores(request).await.map_err(failed)?;
        check(response.header)?;
        Ok(response.stores)
    }

    async fn get_region(&self, key: &[u8]) -> Result<Located> {
        let region_key = key.to_vec().into();
        let request = pdpb::GetRegionRequest { header: self.header(), region_key, need_buckets: false };
        located(self.0.get_region(request).await.map_err(failed)?)
    }

    async fn get_region_by_id(&self, region_id: u64) -> Result<Located> {
        let request = pdpb::GetRegionByIdRequest { header: self.header(), region_id, need_buckets: false };
        located(self.0.get_region_by_id(request).await.map_err(failed)?)
    }

    async fn timestamps(&self, count: u32) -> Result<Timestamp> {
        self.0.timestamps(count).await.map_err(|error| failed(error.into()))
    }

    async fn store_heartbeat(&self, stats: pdpb::StoreStats) -> Result<()> {
        let request = pdpb::StoreHeartbeatRequest { header: self.header(), stats: Some(stats) };
        check(self.0.store_heartbeat(request).await.map_err(failed)?.header)
    }

    async fn region_heartbeats(
        &self,
        heartbeats: mpsc::Receiver<pdpb::RegionHeartbeatRequest>,
    ) -> Result<BoxStream<'static, Result<pdpb::RegionHeartbeatResponse>>> {
        let header = self.header();
        let requests = stream::unfold(heartbeats, |mut heartbeats| async move {
            let heartbeat = heartbeats.recv().await?;
            Some((heartbeat, heartbeats))
        });
        let requests = requests.map(move |mut heartbeat| {
            heartbeat.header = header.clone();
            Ok(heartbeat)
        });
        let answers = self.0.clone().region_heartbeats(requests);
        Ok(answers.map(|answer| answer.map_err(failed)).boxed())
    }

    async fn ask_batch_split(&self, region: metapb::Region, count: u32) -> Result<Vec<pdpb::SplitId>> {
        let request =
            pdpb::AskBatchSplitRequest { header: self.header(), region: Some(region), split_count: count };
        let response = self.0.ask_batch_split(request).await.map_err(failed)?;
        check(response.header)?;
        Ok(response.ids)
    }

    async fn report_batch_split(&self, regions: Vec<metapb::Region>) -> Result<()> {
        let request = pdpb::ReportBatchSplitRequest { header: self.header(), regions };
        check(self.0.report_batch_split(request).await.map_err(failed)?.header)
    }

    async fn gc_safe_point(&self) -> Result<Timestamp> {
        let request = pdpb::GetGcSafePointRequest { header: self.header() };
        let response = self.0.get_gc_safe_point(request).await.map_err(failed)?;
        check(response.header)?;
        Ok(Timestamp(response.safe_point))
    }
}
