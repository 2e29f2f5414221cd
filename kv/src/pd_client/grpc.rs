//! The placement driver over gRPC.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use rutile_proto::ids::{ClusterId, Timestamp};
use rutile_proto::pdpb::pd_client::PdClient as Stub;
use rutile_proto::{metapb, pdpb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::{Error, PdClient, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS_MAX: usize = 10;
const BACKOFF: Duration = Duration::from_millis(200);

/// Finds the leader among some endpoints and follows it.
pub struct GrpcPdClient {
    endpoints: Vec<String>,
    leader: Mutex<Option<(ClusterId, Stub<Channel>)>>,
}

impl GrpcPdClient {
    /// For endpoints like `host:port` or `http://host:port`.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        let with_scheme = |e: String| if e.contains("://") { e } else { format!("http://{e}") };
        Self { endpoints: endpoints.into_iter().map(with_scheme).collect(), leader: Mutex::new(None) }
    }

    async fn dial(url: &str) -> Result<Stub<Channel>> {
        let endpoint =
            Endpoint::from_shared(url.to_owned()).map_err(|e| Error::Refused(format!("{url}: {e}")))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|e| Error::Unavailable(format!("{url}: {e}")))?;
        Ok(Stub::new(channel).max_decoding_message_size(64 << 20))
    }

    /// A connection to the leader; looked for when there is none.
    async fn leader(&self) -> Result<(ClusterId, Stub<Channel>)> {
        if let Some(leader) = self.leader.lock().clone() {
            return Ok(leader);
        }
        let mut last = Error::Unavailable("no endpoint given".to_owned());
        for endpoint in &self.endpoints {
            match Self::leader_by(endpoint).await {
                Ok(leader) => {
                    *self.leader.lock() = Some(leader.clone());
                    return Ok(leader);
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    async fn leader_by(endpoint: &str) -> Result<(ClusterId, Stub<Channel>)> {
        let mut stub = Self::dial(endpoint).await?;
        let members =
            stub.get_members(pdpb::GetMembersRequest::default()).await.map_err(unavailable)?.into_inner();
        let cluster_id = members.header.and_then(|h| ClusterId::new(h.cluster_id));
        let cluster_id = cluster_id.ok_or_else(|| Error::Refused(format!("{endpoint}: no cluster id")))?;
        let leader = members.leader.and_then(|m| m.client_urls.into_iter().next());
        match leader {
            Some(url) if url.trim_end_matches('/') != endpoint => Ok((cluster_id, Self::dial(&url).await?)),
            Some(_) => Ok((cluster_id, stub)),
            None => Err(Error::Unavailable(format!("{endpoint}: no leader"))),
        }
    }

    fn forget_leader(&self) {
        *self.leader.lock() = None;
    }

    /// Calls the leader, looking for it again a few times when it does not answer.
    async fn call<T, F>(&self, mut rpc: impl FnMut(Stub<Channel>, pdpb::RequestHeader) -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let answer = match self.leader().await {
                Ok((cluster_id, stub)) => {
                    match tokio::time::timeout(CALL_TIMEOUT, rpc(stub, header(cluster_id))).await {
                        Ok(Ok(response)) => return Ok(response.into_inner()),
                        Ok(Err(status)) => unavailable(status),
                        Err(_) => Error::Unavailable("no answer in time".to_owned()),
                    }
                }
                Err(e) => e,
            };
            if attempt == ATTEMPTS_MAX || !matches!(answer, Error::Unavailable(_)) {
                return Err(answer);
            }
            self.forget_leader();
            tokio::time::sleep(BACKOFF).await;
        }
    }
}

fn header(cluster_id: ClusterId) -> pdpb::RequestHeader {
    pdpb::RequestHeader { cluster_id: cluster_id.get(), ..Default::default() }
}

fn unavailable(status: tonic::Status) -> Error {
    match status.code() {
        tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument | tonic::Code::Unimplemented => {
            Error::Refused(status.message().to_owned())
        }
        _ => Error::Unavailable(status.message().to_owned()),
    }
}

fn check(header: Option<pdpb::ResponseHeader>) -> Result<()> {
    match header.and_then(|h| h.error) {
        None => Ok(()),
        Some(e) if e.r#type() == pdpb::ErrorType::Ok => Ok(()),
        Some(e) if e.r#type() == pdpb::ErrorType::AlreadyBootstrapped => Err(Error::AlreadyBootstrapped),
        Some(e) => Err(Error::Refused(e.message)),
    }
}

fn found(response: pdpb::GetRegionResponse) -> Option<(metapb::Region, Option<metapb::Peer>)> {
    let leader = response.leader.filter(|p| p.id != 0);
    response.region.map(|region| (region, leader))
}

#[async_trait]
impl PdClient for GrpcPdClient {
    async fn cluster_id(&self) -> Result<ClusterId> {
        let response = self
            .call(|mut stub, _| async move { stub.get_members(pdpb::GetMembersRequest::default()).await })
            .await?;
        let id = response.header.and_then(|h| ClusterId::new(h.cluster_id));
        id.ok_or_else(|| Error::Refused("no cluster id".to_owned()))
    }

    async fn is_bootstrapped(&self) -> Result<bool> {
        let response = self
            .call(|mut stub, header| async move {
                stub.is_bootstrapped(pdpb::IsBootstrappedRequest { header: Some(header) }).await
            })
            .await?;
        check(response.header)?;
        Ok(response.bootstrapped)
    }

    async fn bootstrap(&self, store: metapb::Store, region: metapb::Region) -> Result<()> {
        let response = self
            .call(|mut stub, header| {
                let request = pdpb::BootstrapRequest {
                    header: Some(header),
                    store: Some(store.clone()),
                    region: Some(region.clone()),
                };
                async move { stub.bootstrap(request).await }
            })
            .await?;
        check(response.header)
    }

    async fn alloc_ids(&self, count: u32) -> Result<u64> {
        let response = self
            .call(|mut stub, header| async move {
                stub.alloc_id(pdpb::AllocIdRequest { header: Some(header), count }).await
            })
            .await?;
        check(response.header)?;
        Ok(response.id + 1 - u64::from(count.max(1)))
    }

    async fn put_store(&self, store: metapb::Store) -> Result<()> {
        let response = self
            .call(|mut stub, header| {
                let request = pdpb::PutStoreRequest { header: Some(header), store: Some(store.clone()) };
                async move { stub.put_store(request).await }
            })
            .await?;
        check(response.header)
    }

    async fn get_store(&self, store_id: u64) -> Result<metapb::Store> {
        let response = self
            .call(|mut stub, header| async move {
                stub.get_store(pdpb::GetStoreRequest { header: Some(header), store_id }).await
            })
            .await?;
        check(response.header)?;
        response.store.ok_or_else(|| Error::Refused(format!("store {store_id} is unknown")))
    }

    async fn get_all_stores(&self) -> Result<Vec<metapb::Store>> {
        let response = self
            .call(|mut stub, header| async move {
                let header = Some(header);
                stub.get_all_stores(pdpb::GetAllStoresRequest { header, exclude_tombstone_stores: true })
                    .await
            })
            .await?;
        check(response.header)?;
        Ok(response.stores)
    }

    async fn get_region(&self, key: &[u8]) -> Result<Option<(metapb::Region, Option<metapb::Peer>)>> {
        let response = self
            .call(|mut stub, header| {
                let region_key = bytes::Bytes::copy_from_slice(key);
                let request =
                    pdpb::GetRegionRequest { header: Some(header), region_key, need_buckets: false };
                async move { stub.get_region(request).await }
            })
            .await?;
        check(response.header.clone())?;
        Ok(found(response))
    }

    async fn get_region_by_id(
        &self,
        region_id: u64,
    ) -> Result<Option<(metapb::Region, Option<metapb::Peer>)>> {
        let response = self
            .call(|mut stub, header| async move {
                let header = Some(header);
                stub.get_region_by_id(pdpb::GetRegionByIdRequest { header, region_id, need_buckets: false })
                    .await
            })
            .await?;
        check(response.header.clone())?;
        Ok(found(response))
    }

    async fn timestamps(&self, count: u32) -> Result<Timestamp> {
        let response = self
            .call(|mut stub, header| async move {
                let request = pdpb::TsoRequest { header: Some(header), count, dc_location: String::new() };
                let mut answers = stub.tso(futures::stream::iter([request])).await?.into_inner();
                let answer = answers.message().await?;
                answer.map(tonic::Response::new).ok_or_else(|| tonic::Status::unavailable("no timestamp"))
            })
            .await?;
        check(response.header)?;
        let timestamp = response.timestamp.ok_or_else(|| Error::Refused("no timestamp".to_owned()))?;
        Ok(Timestamp::from(&timestamp))
    }

    async fn store_heartbeat(&self, stats: pdpb::StoreStats) -> Result<()> {
        let response = self
            .call(|mut stub, header| {
                let request = pdpb::StoreHeartbeatRequest { header: Some(header), stats: Some(stats) };
                async move { stub.store_heartbeat(request).await }
            })
            .await?;
        check(response.header)
    }

    async fn region_heartbeats(
        &self,
        heartbeats: mpsc::Receiver<pdpb::RegionHeartbeatRequest>,
    ) -> Result<BoxStream<'static, Result<pdpb::RegionHeartbeatResponse>>> {
        let (cluster_id, mut stub) = self.leader().await?;
        let requests = ReceiverStream::new(heartbeats).map(move |mut request| {
            request.header = Some(header(cluster_id));
            request
        });
        match stub.region_heartbeat(requests).await {
            Ok(answers) => Ok(answers.into_inner().map(|a| a.map_err(unavailable)).boxed()),
            Err(status) => {
                self.forget_leader();
                Err(unavailable(status))
            }
        }
    }

    async fn ask_batch_split(&self, region: metapb::Region, count: u32) -> Result<Vec<pdpb::SplitId>> {
        let response = self
            .call(|mut stub, header| {
                let (header, region) = (Some(header), Some(region.clone()));
                let request = pdpb::AskBatchSplitRequest { header, region, split_count: count };
                async move { stub.ask_batch_split(request).await }
            })
            .await?;
        check(response.header)?;
        Ok(response.ids)
    }

    async fn report_batch_split(&self, regions: Vec<metapb::Region>) -> Result<()> {
        let response = self
            .call(|mut stub, header| {
                let request =
                    pdpb::ReportBatchSplitRequest { header: Some(header), regions: regions.clone() };
                async move { stub.report_batch_split(request).await }
            })
            .await?;
        check(response.header)
    }

    async fn gc_safe_point(&self) -> Result<Timestamp> {
        let response = self
            .call(|mut stub, header| async move {
                stub.get_gc_safe_point(pdpb::GetGcSafePointRequest { header: Some(header) }).await
            })
            .await?;
        check(response.header)?;
        Ok(Timestamp(response.safe_point))
    }
}
