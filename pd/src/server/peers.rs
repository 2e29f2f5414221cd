//! Messages between the members, over gRPC on the peer addresses.
//!
//! One task per member sends what waits for it on one stream; a snapshot goes on a stream of its own, so that heartbeats
//! overtake it. A member that cannot be reached loses messages: raft repeats what matters.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use rutile_proto::pdpeerpb::peer_client::PeerClient;
use rutile_proto::pdpeerpb::peer_server::{Peer, PeerServer};
use rutile_proto::pdpeerpb::{Chunk, Done, Introduction};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use super::PdService;
use crate::members::Members;
use crate::replicated::{Inbox, Outbox};

/// Messages that may wait for one member.
const QUEUE_MAX: usize = 4096;
/// Bytes of a message in one chunk.
const CHUNK_SIZE_BYTES: usize = 1 << 20;
/// Longer messages are not put together: no state is that large.
const MESSAGE_SIZE_BYTES_MAX: usize = 2 << 30;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(100);
/// A refusal is logged once in so long.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Sends messages of the raft thread to the other members.
pub struct GrpcOutbox {
    queues: HashMap<u64, mpsc::Sender<Message>>,
    inbox: Inbox,
}

/// Messages that wait for the member of this raft id.
pub type Queues = Vec<(u64, mpsc::Receiver<Message>)>;

impl GrpcOutbox {
    /// An outbox, and the queues that tasks must empty.
    pub fn new(members: &Members, inbox: Inbox) -> (Self, Queues) {
        let (mut queues, mut receivers) = (HashMap::new(), Vec::new());
        for member in members.others() {
            let (sender, receiver) = mpsc::channel(QUEUE_MAX);
            queues.insert(member.raft_id, sender);
            receivers.push((member.raft_id, receiver));
        }
        (GrpcOutbox { queues, inbox }, receivers)
    }
}

impl Outbox for GrpcOutbox {
    fn send(&mut self, message: Message) {
        let (to, snapshot) = (message.to, message.get_msg_type() == MessageType::MsgSnapshot);
        let Some(queue) = self.queues.get(&to) else { return };
        if queue.try_send(message).is_err() {
            self.inbox.unreachable(to);
            if snapshot {
                self.inbox.snapshot_sent_now(to, false);
            }
        }
    }
}

/// Sends what waits for a member until the queue closes.
pub async fn run_sender(
    service: Arc<PdService>,
    inbox: Inbox,
    raft_id: u64,
    mut queue: mpsc::Receiver<Message>,
) {
    let Some(url) = service.members.by_raft_id(raft_id).map(|member| member.peer_url.clone()) else { return };
    let mut refused_at: Option<tokio::time::Instant> = None;
    loop {
        let refused = match session(&service, &inbox, raft_id, &url, &mut queue).await {
            Ok(()) => return,
            Err(status) => status,
        };
        inbox.unreachable(raft_id);
        if refused.code() == Code::FailedPrecondition
            && refused_at.is_none_or(|at| at.elapsed() > REFUSAL_LOG_INTERVAL)
        {
            refused_at = Some(tokio::time::Instant::now());
            tracing::error!("{url} refuses this member: {}", refused.message());
        }
        // What waits is old by the time the member can be reached.
        let pause = tokio::time::sleep(RETRY);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                message = queue.recv() => match message {
                    Some(message) => lost(&inbox, &message).await,
                    None => return,
                },
            }
        }
    }
}

async fn lost(inbox: &Inbox, message: &Message) {
    if message.get_msg_type() == MessageType::MsgSnapshot {
        inbox.snapshot_sent(message.to, false).await;
    }
}

/// One connection's life. `Ok`: the queue is closed.
async fn session(
    service: &Arc<PdService>,
    inbox: &Inbox,
    raft_id: u64,
    url: &str,
    queue: &mut mpsc::Receiver<Message>,
) -> Result<(), Status> {
    let mut client = PeerClient::new(connect(url).await?);
    let answer = client.introduce(service.introduction()).await?.into_inner();
    service.check_introduction(&answer)?;
    service.take_introduction(answer);
    let (chunks, receiver) = mpsc::channel(QUEUE_MAX);
    let mut stream_client = client.clone();
    let mut ended =
        tokio::spawn(async move { stream_client.messages(ReceiverStream::new(receiver)).await.map(drop) });
    let first = Chunk { from: Some(service.introduction()), ..Default::default() };
    drop(chunks.send(first).await);
    loop {
        tokio::select! {
            end = &mut ended => {
                return Err(match end {
                    Ok(Err(status)) => status,
                    _ => Status::unavailable("the stream ended"),
                });
            }
            message = queue.recv() => {
                let Some(message) = message else { return Ok(()) };
                if message.get_msg_type() == MessageType::MsgSnapshot {
                    tokio::spawn(send_snapshot(service.clone(), inbox.clone(), raft_id, client.clone(), message));
                    continue;
                }
                for chunk in cut(&message) {
                    if chunks.send(chunk).await.is_err() {
                        return Err(Status::unavailable("the stream ended"));
                    }
                }
            }
        }
    }
}

async fn send_snapshot(
    service: Arc<PdService>,
    inbox: Inbox,
    raft_id: u64,
    mut client: PeerClient<Channel>,
    message: Message,
) {
    let first = Chunk { from: Some(service.introduction()), ..Default::default() };
    let chunks = futures::stream::iter(std::iter::once(first).chain(cut(&message)));
    let sent = client.messages(chunks).await;
    if let Err(status) = &sent {
        tracing::warn!(to = raft_id, error = status.message(), "a snapshot did not go out");
    }
    inbox.snapshot_sent(raft_id, sent.is_ok()).await;
}

fn cut(message: &Message) -> Vec<Chunk> {
    let bytes = Bytes::from(message.write_to_bytes().expect("raft messages always encode"));
    let count = bytes.len().div_ceil(CHUNK_SIZE_BYTES).max(1);
    (0..count)
        .map(|at| {
            let end = ((at + 1) * CHUNK_SIZE_BYTES).min(bytes.len());
            Chunk { from: None, data: bytes.slice(at * CHUNK_SIZE_BYTES..end), last: at + 1 == count }
        })
        .collect()
}

async fn connect(url: &str) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| Status::internal(e.to_string()))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2));
    endpoint.connect().await.map_err(|e| Status::unavailable(e.to_string()))
}

/// Asks every member that can be reached whether it accepts this one; the first refusal is the answer.
pub async fn ask_all(service: &PdService) -> Result<(), String> {
    let ask = |url: String| async move {
        let asked = async {
            let mut client = PeerClient::new(connect(&url).await?);
            let answer = client.introduce(service.introduction()).await?.into_inner();
            service.check_introduction(&answer)
        };
        match tokio::time::timeout(2 * CONNECT_TIMEOUT, asked).await {
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => Err(status.message().to_owned()),
            _ => Ok(()), // it is not there, or not ready
        }
    };
    let asked = service.members.others().map(|member| ask(member.peer_url.clone()));
    futures::future::join_all(asked).await.into_iter().collect()
}

/// The service on the peer address.
pub fn router(service: Arc<PdService>, inbox: Inbox) -> axum::Router {
    let server = PeerServer::new(Api { service, inbox }).max_decoding_message_size(4 * CHUNK_SIZE_BYTES);
    tonic::service::Routes::new(server).prepare().into_axum_router()
}

struct Api {
    service: Arc<PdService>,
    inbox: Inbox,
}

#[tonic::async_trait]
impl Peer for Api {
    async fn introduce(&self, request: Request<Introduction>) -> Result<Response<Introduction>, Status> {
        let other = request.into_inner();
        self.service.check_introduction(&other)?;
        self.service.take_introduction(other);
        Ok(Response::new(self.service.introduction()))
    }

    async fn messages(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Done>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.next().await.ok_or_else(|| Status::invalid_argument("an empty stream"))??;
        let from =
            first.from.ok_or_else(|| Status::invalid_argument("the sender did not introduce itself"))?;
        self.service.check_introduction(&from)?;
        let sender = self.service.members.all().iter().find(|member| member.name == from.name);
        let sender = sender.map_or(0, |member| member.raft_id);
        let mut data = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if data.len() + chunk.data.len() > MESSAGE_SIZE_BYTES_MAX {
                return Err(Status::resource_exhausted("a raft message is too large"));
            }
            data.extend_from_slice(&chunk.data);
            if !chunk.last {
                continue;
            }
            let message = Message::parse_from_bytes(&data)
                .map_err(|e| Status::invalid_argument(format!("not a raft message: {e}")))?;
            data.clear();
            if message.from != sender {
                return Err(Status::invalid_argument("a raft message in another member's name"));
            }
            self.inbox.step(message);
        }
        Ok(Response::new(Done {}))
    }
}

impl PdService {
    /// What this member says of itself.
    pub(super) fn introduction(&self) -> Introduction {
        Introduction {
            name: self.members.me().name.clone(),
            members: self.members.list(),
            cluster_id: self.cluster_id(),
            incarnation: self.members.incarnation,
            client_url: self.config.client_url(),
            version: format!("v{}", env!("CARGO_PKG_VERSION")),
        }
    }

    pub(super) fn check_introduction(&self, other: &Introduction) -> Result<(), Status> {
        let known = self.member_record(&other.name);
        let checked = self.members.check(other, self.cluster_id(), known.as_ref());
        checked.map_err(Status::failed_precondition)
    }

    pub(super) fn take_introduction(&self, other: Introduction) {
        let mut introductions = self.introductions.lock();
        if introductions.get(&other.name) != Some(&other) {
            introductions.insert(other.name.clone(), other);
            self.introduced.notify_one();
        }
    }
}
