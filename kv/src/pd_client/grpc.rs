//! The placement driver over gRPC.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::ready;
use futures::stream::{self, BoxStream, FuturesUnordered};
use parking_lot::Mutex;
use rutile_proto::ids::{ClusterId, Timestamp};
use rutile_proto::pdpb::pd_client::PdClient as Stub;
use rutile_proto::{metapb, pdpb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::{Error, PdClient, Result};

/// Within it a member says who leads.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS_MAX: usize = 20;
const BACKOFF: Duration = Duration::from_millis(200);

/// Finds the leader among some endpoints and follows it.
pub struct GrpcPdClient {
    endpoints: Mutex<Vec<String>>,
    leader: Arc<Mutex<Option<(ClusterId, Stub<Channel>)>>>,
}

impl GrpcPdClient {
    /// For endpoints like `host:port` or `http://host:port`.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        let with_scheme = |e: String| if e.contains("://") { e } else { format!("http://{e}") };
        let endpoints = endpoints.into_iter().map(with_scheme).collect();
        Self { endpoints: Mutex::new(endpoints), leader: Arc::default() }
    }

    async fn dial(url: &str) -> Result<Stub<Channel>> {
        let endpoint =
            Endpoint::from_shared(url.to_owned()).map_err(|e| Error::Refused(format!("{url}: {e}")))?;
        // A stream of heartbeats to a member that is gone is given up soon.
        let endpoint = endpoint
            .connect_timeout(PROBE_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2));
        let channel = endpoint.connect().await.map_err(|e| Error::Unavailable(format!("{url}: {e}")))?;
        Ok(Stub::new(channel).max_decoding_message_size(64 << 20))
    }

    /// A connection to the leader; looked for when there is none.
    async fn leader(&self) -> Result<(ClusterId, Stub<Channel>)> {
        if let Some(leader) = self.leader.lock().clone() {
            return Ok(leader);
        }
        let endpoints = self.endpoints.lock().clone();
        let mut last = Error::Unavailable("no endpoint given".to_owned());
        // All are asked at once: one that does not answer costs nothing.
        let mut answers: FuturesUnordered<_> = endpoints.iter().map(|e| Self::members_of(e)).collect();
        while let Some(answer) = answers.next().await {
            let (members, _) = match answer {
                Ok(answer) => answer,
                Err(e) => {
                    last = e;
                    continue;
                }
            };
            self.learn_endpoints(&members);
            match Self::leader_of(members).await {
                Ok(leader) => {
                    *self.leader.lock() = Some(leader.clone());
                    return Ok(leader);
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    async fn members_of(url: &str) -> Result<(pdpb::GetMembersResponse, Stub<Channel>)> {
        let asked = async {
            let mut stub = Self::dial(url).await?;
            let members = stub.get_members(pdpb::GetMembersRequest::default()).await.map_err(unavailable)?;
            Ok((members.into_inner(), stub))
        };
        let answer = tokio::time::timeout(PROBE_TIMEOUT, asked).await;
        answer.unwrap_or_else(|_| Err(Error::Unavailable(format!("{url} does not answer"))))
    }

    /// A connection to the member that is named as the leader, if it says so itself.
    async fn leader_of(members: pdpb::GetMembersResponse) -> Result<(ClusterId, Stub<Channel>)> {
        let no_leader = || Error::Unavailable("the placement driver has no leader".to_owned());
        let url = members.leader.and_then(|m| m.client_urls.into_iter().next()).ok_or_else(no_leader)?;
        let (members, stub) = Self::members_of(&url).await?;
        let cluster_id = members.header.and_then(|h| ClusterId::new(h.cluster_id));
        let cluster_id = cluster_id.ok_or_else(|| Error::Unavailable(format!("{url}: no cluster id yet")))?;
        let leads = members.leader.is_some_and(|m| m.client_urls.contains(&url));
        if leads { Ok((cluster_id, stub)) } else { Err(no_leader()) }
    }

    /// Adds members that were not known; those that were given stay.
    fn learn_endpoints(&self, members: &pdpb::GetMembersResponse) {
        let mut endpoints = self.endpoints.lock();
        for url in members.members.iter().flat_map(|member| &member.client_urls) {
            if !endpoints.contains(url) {
                endpoints.push(url.clone());
            }
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
            Ok(answers) => {
                // When the stream ends, the next one goes to the leader of then.
                let (failed, ended) = (Arc::clone(&self.leader), Arc::clone(&self.leader));
                let forget = move |status| {
                    *failed.lock() = None;
                    unavailable(status)
                };
                let end = stream::once(async move { *ended.lock() = None }).filter_map(|()| ready(None));
                Ok(answers.into_inner().map(move |answer| answer.map_err(&forget)).chain(end).boxed())
            }
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
