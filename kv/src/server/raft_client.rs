//! Raft messages and snapshots to other stores, over gRPC.
//!
//! One task per store: it looks up the address, keeps one stream open and sends what has queued up as one batch. A full queue and a
//! broken stream drop messages: raft is told that the peer cannot be reached and sends again what matters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parking_lot::Mutex;
use rutile_proto::raft_serverpb::{RaftMessage, SnapshotChunk};
use rutile_proto::tikvpb::BatchRaftMessage;
use rutile_proto::tikvpb::tikv_client::TikvClient;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::metrics;
use crate::pd_client::PdClient;
use crate::raftstore::{RaftRouter, SnapshotSource, Transport};

/// Messages waiting for one store, at most.
const QUEUE_MAX: usize = 8192;
/// Messages and bytes in one batch.
const BATCH_MAX: usize = 256;
const BATCH_SIZE_BYTES: usize = 4 << 20;
/// Batches handed to one stream and not taken by the network yet.
const BATCHES_IN_FLIGHT_MAX: usize = 16;
/// Snapshots sent at the same time.
const SNAPSHOTS_MAX: usize = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(300);

/// To the other stores of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct GrpcTransport {
    inner: Arc<Inner>,
}

struct Inner {
    pd: Arc<dyn PdClient>,
    runtime: tokio::runtime::Handle,
    router: Mutex<Option<RaftRouter>>,
    stores: Mutex<AHashMap<u64, Connection>>,
    snapshots: Arc<Semaphore>,
}

struct Connection {
    queue: mpsc::Sender<RaftMessage>,
    task: JoinHandle<()>,
}

impl GrpcTransport {
    /// Addresses come from the placement driver. Must be called within a tokio runtime, in which the messages are sent.
    #[must_use]
    pub fn new(pd: Arc<dyn PdClient>) -> Self {
        let inner = Inner {
            pd,
            runtime: tokio::runtime::Handle::current(),
            router: Mutex::default(),
            stores: Mutex::default(),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
        };
        Self { inner: Arc::new(inner) }
    }

    fn queue_to(&self, store_id: u64) -> Option<mpsc::Sender<RaftMessage>> {
        let router = self.inner.router.lock().clone()?;
        let mut stores = self.inner.stores.lock();
        let connection = stores.entry(store_id).or_insert_with(|| {
            let (queue, messages) = mpsc::channel(QUEUE_MAX);
            let sender = Sender { store_id, pd: Arc::clone(&self.inner.pd), router, messages };
            Connection { queue, task: self.inner.runtime.spawn(sender.run()) }
        });
        Some(connection.queue.clone())
    }
}

fn to_peer(message: &RaftMessage) -> (u64, u64) {
    message.to_peer.map_or((0, 0), |peer| (peer.store_id, peer.id))
}

impl Transport for GrpcTransport {
    fn start(&self, router: RaftRouter) {
        *self.inner.router.lock() = Some(router);
    }

    fn send(&self, message: RaftMessage) {
        let (store_id, peer_id) = to_peer(&message);
        let Some(queue) = self.queue_to(store_id) else { return };
        if let Err(refused) = queue.try_send(message) {
            metrics::RAFT_MESSAGES_DROPPED.inc();
            if let Some(router) = &*self.inner.router.lock() {
                router.unreachable(refused.into_inner().region_id, peer_id);
            }
        }
    }

    fn send_snapshot(&self, message: RaftMessage, source: SnapshotSource) {
        let (region_id, (store_id, peer_id)) = (message.region_id, to_peer(&message));
        let Some(router) = self.inner.router.lock().clone() else { return };
        let Ok(permit) = Arc::clone(&self.inner.snapshots).try_acquire_owned() else {
            router.snapshot_sent(region_id, peer_id, false);
            return;
        };
        let pd = Arc::clone(&self.inner.pd);
        self.inner.runtime.spawn(async move {
            let start = Instant::now();
            let sent = send_snapshot(pd, store_id, message, source).await;
            match &sent {
                Ok(()) => {
                    metrics::SNAPSHOTS_SENT.inc();
                    tracing::info!(region_id, store_id, ms = start.elapsed().as_millis(), "snapshot sent");
                }
                Err(error) => tracing::warn!(region_id, store_id, %error, "a snapshot was not sent"),
            }
            router.snapshot_sent(region_id, peer_id, sent.is_ok());
            drop(permit);
        });
    }

    fn stop(&self) {
        *self.inner.router.lock() = None;
        self.inner.stores.lock().drain().for_each(|(_, connection)| connection.task.abort());
    }
}

async fn dial(pd: &dyn PdClient, store_id: u64) -> Result<TikvClient<Channel>, String> {
    let store = pd.get_store(store_id).await.map_err(|e| e.to_string())?;
    let url = format!("http://{}", store.address);
    let endpoint = Endpoint::from_shared(url).map_err(|e| e.to_string())?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(Some(4 << 20))
        .initial_connection_window_size(Some(16 << 20))
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE * 2)
        .keep_alive_while_idle(true);
    Ok(TikvClient::new(endpoint.connect_lazy()))
}

/// The task of one store.
struct Sender {
    store_id: u64,
    pd: Arc<dyn PdClient>,
    router: RaftRouter,
    messages: mpsc::Receiver<RaftMessage>,
}

impl Sender {
    /// Runs until the transport is gone.
    async fn run(mut self) {
        let mut reported = false;
        loop {
            // Nothing to say: no connection is needed.
            let Some(first) = self.messages.recv().await else { return };
            let ended = match dial(&*self.pd, self.store_id).await {
                Ok(client) => {
                    reported = false;
                    self.stream(client, first).await
                }
                Err(error) => {
                    self.lost([first]);
                    Err(error)
                }
            };
            match ended {
                Ok(()) => return,
                Err(error) if !reported => {
                    reported = true;
                    tracing::info!(store_id = self.store_id, %error, "no stream to a store");
                }
                Err(_) => {}
            }
            self.router.store_unreachable(self.store_id);
            self.drop_for(RETRY).await;
        }
    }

    /// Sends over one stream until it breaks. `Ok` when the transport is gone.
    async fn stream(&mut self, mut client: TikvClient<Channel>, first: RaftMessage) -> Result<(), String> {
        let (batches, rx) = mpsc::channel::<BatchRaftMessage>(BATCHES_IN_FLIGHT_MAX);
        let mut answer = tokio::spawn(async move { client.batch_raft(ReceiverStream::new(rx)).await });
        let mut next = Some(first);
        loop {
            let first = match next.take() {
                Some(first) => first,
                None => tokio::select! {
                    message = self.messages.recv() => match message {
                        Some(message) => message,
                        None => return Ok(()),
                    },
                    ended = &mut answer => return Err(broken(ended)),
                },
            };
            let batch = self.batch(first);
            tokio::select! {
                sent = batches.send(batch) => if let Err(refused) = sent {
                    self.lost(refused.0.msgs);
                    return Err(broken(answer.await));
                },
                ended = &mut answer => return Err(broken(ended)),
            }
        }
    }

    /// What has queued up.
    fn batch(&mut self, first: RaftMessage) -> BatchRaftMessage {
        let mut size = first.message.len();
        let mut msgs = vec![first];
        while msgs.len() < BATCH_MAX && size < BATCH_SIZE_BYTES {
            let Ok(message) = self.messages.try_recv() else { break };
            size += message.message.len();
            msgs.push(message);
        }
        BatchRaftMessage { msgs, ..Default::default() }
    }

    fn lost(&self, messages: impl IntoIterator<Item = RaftMessage>) {
        for message in messages {
            metrics::RAFT_MESSAGES_DROPPED.inc();
            self.router.unreachable(message.region_id, to_peer(&message).1);
        }
    }

    /// Messages for a store that is away are of no use once it is back.
    async fn drop_for(&mut self, span: Duration) {
        let until = tokio::time::Instant::now() + span;
        while let Ok(Some(message)) = tokio::time::timeout_at(until, self.messages.recv()).await {
            self.lost([message]);
        }
    }
}

type Ended =
    Result<Result<tonic::Response<rutile_proto::raft_serverpb::Done>, tonic::Status>, tokio::task::JoinError>;

fn broken(ended: Ended) -> String {
    match ended {
        Ok(Ok(_)) => "the store ended the stream".to_owned(),
        Ok(Err(status)) => status.message().to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Sends a snapshot's chunks as fast as they are taken.
async fn send_snapshot(
    pd: Arc<dyn PdClient>,
    store_id: u64,
    message: RaftMessage,
    source: SnapshotSource,
) -> Result<(), String> {
    let mut client = dial(&*pd, store_id).await?;
    let (tx, rx) = mpsc::channel::<SnapshotChunk>(4);
    let reader = tokio::task::spawn_blocking(move || {
        let head = SnapshotChunk { message: Some(message), ..Default::default() };
        if tx.blocking_send(head).is_err() {
            return Ok::<(), String>(());
        }
        for chunk in source.chunks() {
            let data = chunk.map_err(|e: crate::engine::Error| e.to_string())?;
            if tx.blocking_send(SnapshotChunk { data, ..Default::default() }).is_err() {
                break;
            }
        }
        Ok(())
    });
    let answer = client.snapshot(ReceiverStream::new(rx)).await;
    reader.await.map_err(|e| e.to_string())??;
    answer.map(drop).map_err(|status| status.message().to_owned())
}
