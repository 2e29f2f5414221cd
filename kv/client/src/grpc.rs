//! The transport over gRPC: finds the placement driver's leader, keeps one connection per store, with one
//! BatchCommands stream on it, and one timestamp stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dashmap::DashMap;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use rutile_proto::ids::{ClusterId, StoreId, Timestamp};
use rutile_proto::pdpb::pd_client::PdClient;
use rutile_proto::tikvpb::tikv_client::TikvClient;
use rutile_proto::{coprocessor, kvrpcpb, metapb, pdpb};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::batch_stream::{BatchStream, from_batched, to_batched};
use crate::error::{Error, Result, TransportError};
use crate::transport::{PdRequest, PdResponse, StoreRequest, StoreResponse, Transport};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection is asked for a sign of life so often,
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// and given up after so long without one: by then another store may lead. No longer than that do requests hang on a store
/// that is cut off.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
const PD_TIMEOUT: Duration = Duration::from_secs(2);
/// A new cluster elects its first leader within it.
const ELECTION_MAX: Duration = Duration::from_secs(10);
/// Within it a member says who leads.
const PD_PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const STORE_TIMEOUT: Duration = Duration::from_secs(60);
const MESSAGE_SIZE_BYTES_MAX: usize = 1 << 30;
const TSO_QUEUE_MAX: usize = 1024;

type TsoWaiter = oneshot::Sender<Result<Timestamp, TransportError>>;

/// A connection to a store, and the stream on it that most requests use.
struct Store {
    client: TikvClient<Channel>,
    stream: BatchStream,
}

/// gRPC connections to one cluster.
pub struct GrpcTransport {
    cluster_id: ClusterId,
    endpoints: Mutex<Vec<String>>,
    leader: tokio::sync::Mutex<Option<PdClient<Channel>>>,
    stores: DashMap<StoreId, Arc<Store>>,
    tso: Mutex<Option<mpsc::Sender<(u32, TsoWaiter)>>>,
}

impl GrpcTransport {
    /// Connects to the first placement driver of `endpoints` (`host:port`, scheme optional) that answers.
    pub async fn connect(endpoints: &[String]) -> Result<Arc<Self>> {
        let deadline = tokio::time::Instant::now() + ELECTION_MAX;
        let mut last = "no address given".to_owned();
        loop {
            let mut electing = false;
            for endpoint in endpoints {
                let id = match members_of(endpoint).await {
                    Ok(members) => members.header.as_ref().map_or(0, |h| h.cluster_id),
                    Err(error) => {
                        last = format!("{endpoint}: {}", error.message);
                        continue;
                    }
                };
                if let Some(cluster_id) = ClusterId::new(id) {
                    return Ok(Arc::new(GrpcTransport {
                        cluster_id,
                        endpoints: Mutex::new(endpoints.to_vec()),
                        leader: tokio::sync::Mutex::new(None),
                        stores: DashMap::new(),
                        tso: Mutex::new(None),
                    }));
                }
                electing = true;
                last = format!("{endpoint} answered without a cluster id");
            }
            // A new cluster has no id until its first leader is elected.
            if !electing || tokio::time::Instant::now() > deadline {
                return Err(Error::Pd(format!("cannot reach any of {}: {last}", endpoints.join(", "))));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A client of the leader, looked for if not known.
    async fn leader(&self) -> Result<PdClient<Channel>, TransportError> {
        let mut leader = self.leader.lock().await;
        if let Some(client) = leader.as_ref() {
            return Ok(client.clone());
        }
        let client = self.find_leader().await?;
        *leader = Some(client.clone());
        Ok(client)
    }

    /// Asks all members at once who leads, so that one that does not answer costs nothing, and takes the first that is
    /// named and says so itself.
    async fn find_leader(&self) -> Result<PdClient<Channel>, TransportError> {
        let endpoints = self.endpoints.lock().clone();
        let mut last = TransportError::not_sent("no placement driver");
        let mut answers: FuturesUnordered<_> = endpoints.iter().map(|e| members_of(e)).collect();
        let mut asked: Vec<String> = Vec::new();
        while let Some(answer) = answers.next().await {
            let members = match answer {
                Ok(members) => members,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            if members.header.as_ref().map(|h| h.cluster_id) != Some(self.cluster_id.get()) {
                last = TransportError::not_sent("the placement driver belongs to another cluster");
                continue;
            }
            self.learn_endpoints(&members);
            let Some(url) = members.leader.and_then(|leader| leader.client_urls.into_iter().next()) else {
                last = TransportError::not_sent("the placement driver has no leader");
                continue;
            };
            if asked.contains(&url) {
                continue;
            }
            match leader_at(&url).await {
                Ok(client) => return Ok(client),
                Err(error) => last = error,
            }
            asked.push(url);
        }
        Err(last)
    }

    /// Adds members that were not known; those that were given stay, for they were reachable once.
    fn learn_endpoints(&self, members: &pdpb::GetMembersResponse) {
        let mut endpoints = self.endpoints.lock();
        for url in members.members.iter().flat_map(|member| &member.client_urls) {
            let bare = |text: &str| text.trim_start_matches("http://").to_owned();
            if !endpoints.iter().any(|known| bare(known) == bare(url)) {
                endpoints.push(url.clone());
            }
        }
    }

    async fn forget_leader(&self) {
        *self.leader.lock().await = None;
    }

    /// A connection to a store, made anew if there is none or its stream broke.
    async fn connection(&self, store: StoreId) -> Result<Arc<Store>, TransportError> {
        let known = self.stores.get(&store).map(|connection| Arc::clone(&connection));
        if let Some(connection) = known.filter(|connection| !connection.stream.is_broken()) {
            return Ok(connection);
        }
        let header = Some(pdpb::RequestHeader { cluster_id: self.cluster_id.get(), ..Default::default() });
        let request = pdpb::GetStoreRequest { header, store_id: store.get() };
        let PdResponse::GetStore(response) = self.pd(PdRequest::GetStore(request)).await? else {
            return Err(TransportError::not_sent("wrong answer to GetStore"));
        };
        let meta = response.store.unwrap_or_default();
        if meta.address.is_empty() || meta.state() == metapb::StoreState::Tombstone {
            return Err(TransportError::not_sent(format!("store {store} is gone")));
        }
        let client = TikvClient::new(channel(&meta.address, STORE_TIMEOUT).await?)
            .max_decoding_message_size(MESSAGE_SIZE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_SIZE_BYTES_MAX);
        let connection = Arc::new(Store { stream: BatchStream::open(client.clone()), client });
        self.stores.insert(store, Arc::clone(&connection));
        Ok(connection)
    }

    /// The queue of the timestamp stream, opened anew if the last one broke.
    async fn tso_queue(&self) -> Result<mpsc::Sender<(u32, TsoWaiter)>, TransportError> {
        if let Some(queue) = self.tso.lock().as_ref().filter(|q| !q.is_closed()) {
            return Ok(queue.clone());
        }
        let mut client = self.leader().await?;
        let (requests, stream) = mpsc::channel(TSO_QUEUE_MAX);
        let responses = client.tso(ReceiverStream::new(stream)).await.map_err(not_executed)?.into_inner();
        let (queue, waiters) = mpsc::channel(TSO_QUEUE_MAX);
        tokio::spawn(run_tso_stream(self.cluster_id, waiters, requests, responses));
        *self.tso.lock() = Some(queue.clone());
        Ok(queue)
    }
}

/// Connects lazily: an unreachable address shows at the first call.
async fn channel(address: &str, timeout: Duration) -> Result<Channel, TransportError> {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|e| TransportError::not_sent(format!("{address}: {e}")))?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_connection_window_size(16 << 20)
        .initial_stream_window_size(4 << 20);
    endpoint.connect().await.map_err(|e| TransportError::not_sent(format!("{address}: {}", chain(&e))))
}

/// The whole chain of causes: tonic's own text is only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

async fn members_of(endpoint: &str) -> Result<pdpb::GetMembersResponse, TransportError> {
    let mut client = PdClient::new(pd_channel(endpoint).await?);
    ask_members(&mut client, endpoint).await
}

/// A connection to a member that says it leads.
async fn leader_at(url: &str) -> Result<PdClient<Channel>, TransportError> {
    let mut client = PdClient::new(pd_channel(url).await?);
    let members = ask_members(&mut client, url).await?;
    let leads = members.leader.is_some_and(|leader| leader.client_urls.iter().any(|known| known == url));
    if leads { Ok(client) } else { Err(TransportError::not_sent(format!("{url} does not lead any more"))) }
}

async fn ask_members(
    client: &mut PdClient<Channel>,
    endpoint: &str,
) -> Result<pdpb::GetMembersResponse, TransportError> {
    let asked = client.get_members(pdpb::GetMembersRequest::default());
    match tokio::time::timeout(PD_PROBE_TIMEOUT, asked).await {
        Ok(answer) => Ok(answer.map_err(not_executed)?.into_inner()),
        Err(_) => Err(TransportError::not_sent(format!("{endpoint} does not answer"))),
    }
}

/// To a placement driver: given up sooner, for another member may answer.
async fn pd_channel(address: &str) -> Result<Channel, TransportError> {
    let connected = tokio::time::timeout(PD_PROBE_TIMEOUT, channel(address, PD_TIMEOUT)).await;
    connected.unwrap_or_else(|_| Err(TransportError::not_sent(format!("{address} does not answer"))))
}

fn not_executed(status: Status) -> TransportError {
    TransportError::not_sent(format!("{:?}: {}", status.code(), status.message()))
}

/// What a failed store call means: refused before execution, or unknown.
fn store_failure(status: &Status) -> TransportError {
    let message = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::Unimplemented | Code::ResourceExhausted | Code::FailedPrecondition | Code::InvalidArgument => {
            TransportError::not_sent(message)
        }
        _ => TransportError::unknown(message),
    }
}

/// Sends requests in order and hands the answers, which come in the same order, to their waiters.
async fn run_tso_stream(
    cluster_id: ClusterId,
    mut queue: mpsc::Receiver<(u32, TsoWaiter)>,
    requests: mpsc::Sender<pdpb::TsoRequest>,
    mut responses: tonic::Streaming<pdpb::TsoResponse>,
) {
    let mut waiting: VecDeque<(u32, TsoWaiter)> = VecDeque::new();
    let failure = loop {
        tokio::select! {
            next = queue.recv() => {
                let Some((count, waiter)) = next else { return };
                let header = Some(pdpb::RequestHeader { cluster_id: cluster_id.get(), ..Default::default() });
                waiting.push_back((count, waiter));
                if requests.send(pdpb::TsoRequest { header, count, ..Default::default() }).await.is_err() {
                    break "the timestamp stream was closed".to_owned();
                }
            }
            answer = responses.message() => {
                let answer = match answer {
                    Ok(Some(answer)) => answer,
                    Ok(None) => break "the timestamp stream ended".to_owned(),
                    Err(status) => break format!("timestamp stream: {}", status.message()),
                };
                let Some((count, waiter)) = waiting.pop_front() else { break "unasked timestamp".to_owned() };
                match answer.timestamp {
                    Some(ts) if answer.count == count => drop(waiter.send(Ok(Timestamp::from(&ts)))),
                    _ => {
                        waiting.push_front((count, waiter));
                        break "wrong number of timestamps".to_owned();
                    }
                }
            }
        }
    };
    queue.close();
    for (_, waiter) in waiting {
        let _ = waiter.send(Err(TransportError::not_sent(failure.clone())));
    }
    while let Ok((_, waiter)) = queue.try_recv() {
        let _ = waiter.send(Err(TransportError::not_sent(failure.clone())));
    }
}

macro_rules! dispatch_pd {
    ($(($variant:ident, $request:ty, $response:ty, $method:ident),)*) => {
        async fn dispatch_pd(mut client: PdClient<Channel>, request: PdRequest) -> Result<PdResponse, Status> {
            Ok(match request {
                $(PdRequest::$variant(r) => PdResponse::$variant(client.$method(r).await?.into_inner()),)*
            })
        }
    };
}

macro_rules! dispatch_store {
    ($(($variant:ident, $request:ty, $response:ty, $method:ident),)*) => {
        async fn dispatch_store(mut client: TikvClient<Channel>, request: StoreRequest) -> Result<StoreResponse, Status> {
            Ok(match request {
                $(StoreRequest::$variant(r) => {
                    let _: &$request = &r;
                    let response: $response = client.$method(r).await?.into_inner();
                    StoreResponse::$variant(response)
                })*
            })
        }
    };
}

crate::for_each_pd_rpc!(dispatch_pd);
crate::for_each_store_rpc!(dispatch_store);

#[async_trait]
impl Transport for GrpcTransport {
    fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    async fn tso(&self, count: u32) -> Result<Timestamp, TransportError> {
        let (waiter, answer) = oneshot::channel();
        let queue = self.tso_queue().await;
        let queue = match queue {
            Ok(queue) => queue,
            Err(error) => {
                self.forget_leader().await;
                return Err(error);
            }
        };
        let lost = || TransportError::not_sent("the timestamp stream was closed");
        queue.send((count, waiter)).await.map_err(|_| lost())?;
        let result = match tokio::time::timeout(PD_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(lost()),
            Err(_) => Err(TransportError::not_sent("no timestamp in time")),
        };
        if result.is_err() {
            *self.tso.lock() = None;
            self.forget_leader().await;
        }
        result
    }

    async fn pd(&self, request: PdRequest) -> Result<PdResponse, TransportError> {
        let client = self.leader().await?;
        match dispatch_pd(client, request).await {
            Ok(response) => Ok(response),
            Err(status) => {
                self.forget_leader().await;
                Err(store_failure(&status))
            }
        }
    }

    async fn store(&self, store: StoreId, request: StoreRequest) -> Result<StoreResponse, TransportError> {
        let connection = self.connection(store).await?;
        match to_batched(request) {
            Ok(ask) => {
                let answer = connection.stream.call(ask, STORE_TIMEOUT).await?;
                from_batched(answer).ok_or_else(|| TransportError::unknown("an answer of an unknown kind"))
            }
            Err(request) => {
                let call = dispatch_store(connection.client.clone(), request);
                call.await.map_err(|status| store_failure(&status))
            }
        }
    }

    fn forget_store(&self, store: StoreId) {
        self.stores.remove(&store);
    }
}
