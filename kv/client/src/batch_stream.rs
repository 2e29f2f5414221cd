//! One BatchCommands stream to a store: concurrent requests share messages, answers come back by id in any order.
//!
//! A request is in one of three states when the stream breaks: not yet written (certainly not executed), written (its
//! result is unknown), or answered. A stream that broke stays broken; the owner opens another on a new connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message as _;
use rutile_proto::tikvpb::batch_commands_request::Request;
use rutile_proto::tikvpb::batch_commands_request::request::Cmd as Ask;
use rutile_proto::tikvpb::batch_commands_response::response::Cmd as Answer;
use rutile_proto::tikvpb::tikv_client::TikvClient;
use rutile_proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::error::TransportError;
use crate::transport::{StoreRequest, StoreResponse};

/// Requests of one message.
const REQUESTS_PER_MESSAGE_MAX: usize = 128;
/// A message that has grown to this size takes no further request.
const MESSAGE_SIZE_BYTES_MAX: usize = 4 << 20;
/// Requests waiting to be written; beyond it callers wait.
const QUEUE_MAX: usize = 1024;
/// Messages handed to the connection but not yet written.
const MESSAGES_MAX: usize = 4;

type Waiter = oneshot::Sender<Result<Answer, TransportError>>;

/// Who waits, until the stream breaks.
#[derive(Default)]
struct Waiting {
    by_id: HashMap<u64, Waiter>,
    /// Why the stream broke.
    broken: Option<String>,
}

/// An open stream. Dropping it lets requests under way finish.
pub(crate) struct BatchStream {
    queue: mpsc::Sender<(u64, Ask)>,
    waiting: Arc<Mutex<Waiting>>,
    next_id: AtomicU64,
}

/// Forgets a request whose caller is gone.
struct Forget<'a> {
    stream: &'a BatchStream,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.stream.waiting.lock().by_id.remove(&self.id);
    }
}

impl BatchStream {
    /// Opens a stream on a connection; a failure shows at the first call.
    pub fn open(client: TikvClient<Channel>) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let (messages, outgoing) = mpsc::channel(MESSAGES_MAX);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        tokio::spawn(write_messages(requests, messages, Arc::clone(&waiting)));
        tokio::spawn(read_answers(client, outgoing, Arc::clone(&waiting)));
        BatchStream { queue, waiting, next_id: AtomicU64::new(1) }
    }

    /// Whether calls can no longer succeed.
    pub fn is_broken(&self) -> bool {
        self.waiting.lock().broken.is_some()
    }

    /// One request and its answer. Dropping the future leaves the request running in the store.
    pub async fn call(&self, ask: Ask, timeout: Duration) -> Result<Answer, TransportError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (waiter, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if let Some(reason) = &waiting.broken {
                return Err(TransportError::not_sent(reason.clone()));
            }
            waiting.by_id.insert(id, waiter);
        }
        let _forget = Forget { stream: self, id };
        if self.queue.send((id, ask)).await.is_err() {
            return Err(TransportError::not_sent("the stream to the store is closed"));
        }
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(TransportError::unknown("the stream to the store is closed")),
            Err(_) => Err(TransportError::unknown(format!("no answer of the store in {timeout:?}"))),
        }
    }
}

/// Puts requests that come together into one message.
async fn write_messages(
    mut requests: mpsc::Receiver<(u64, Ask)>,
    messages: mpsc::Sender<BatchCommandsRequest>,
    waiting: Arc<Mutex<Waiting>>,
) {
    while let Some(first) = requests.recv().await {
        let mut message = BatchCommandsRequest::default();
        let mut size_bytes = 0;
        let mut next = Some(first);
        while let Some((id, ask)) = next {
            let request = Request { cmd: Some(ask) };
            size_bytes += request.encoded_len();
            message.request_ids.push(id);
            message.requests.push(request);
            let full =
                message.requests.len() >= REQUESTS_PER_MESSAGE_MAX || size_bytes >= MESSAGE_SIZE_BYTES_MAX;
            next = if full { None } else { requests.try_recv().ok() };
        }
        if let Err(unsent) = messages.send(message).await {
            // The connection never saw these.
            let mut waiting = waiting.lock();
            let reason =
                waiting.broken.clone().unwrap_or_else(|| "the stream to the store is closed".to_owned());
            for id in unsent.0.request_ids {
                if let Some(waiter) = waiting.by_id.remove(&id) {
                    let _ = waiter.send(Err(TransportError::not_sent(reason.clone())));
                }
            }
        }
    }
}

/// Hands answers to their waiters until the stream ends; then fails everybody who still waits.
async fn read_answers(
    mut client: TikvClient<Channel>,
    outgoing: mpsc::Receiver<BatchCommandsRequest>,
    waiting: Arc<Mutex<Waiting>>,
) {
    let reason = match client.batch_commands(ReceiverStream::new(outgoing)).await {
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
        Ok(answers) => {
            let mut answers = answers.into_inner();
            loop {
                match answers.message().await {
                    Ok(Some(message)) => hand_out(message, &waiting),
                    Ok(None) => break "the store closed the stream".to_owned(),
                    Err(status) => break format!("{:?}: {}", status.code(), status.message()),
                }
            }
        }
    };
    let mut waiting = waiting.lock();
    for (_, waiter) in waiting.by_id.drain() {
        let _ = waiter.send(Err(TransportError::unknown(reason.clone())));
    }
    waiting.broken = Some(reason);
}

fn hand_out(message: BatchCommandsResponse, waiting: &Mutex<Waiting>) {
    let mut waiting = waiting.lock();
    for (id, response) in message.request_ids.into_iter().zip(message.responses) {
        // Nobody waits for an answer that came too late.
        let Some(waiter) = waiting.by_id.remove(&id) else { continue };
        let _ =
            waiter.send(response.cmd.ok_or_else(|| TransportError::unknown("an empty answer of the store")));
    }
}

macro_rules! batched {
    ($($variant:ident),* $(,)?) => {
        /// The request in its form for the stream; those that only exist as calls of their own come back.
        #[allow(clippy::result_large_err)]
        pub(crate) fn to_batched(request: StoreRequest) -> Result<Ask, StoreRequest> {
            match request {
                $(StoreRequest::$variant(request) => Ok(Ask::$variant(Box::new(request))),)*
                other => Err(other),
            }
        }

        /// `None` for an answer of another kind than any request of this client.
        pub(crate) fn from_batched(answer: Answer) -> Option<StoreResponse> {
            match answer {
                $(Answer::$variant(answer) => Some(StoreResponse::$variant(*answer)),)*
                _ => None,
            }
        }
    };
}

batched! {
    Get, BatchGet, Scan, Prewrite, Commit, BatchRollback, PessimisticLock, PessimisticRollback, TxnHeartBeat,
    CheckTxnStatus, CheckSecondaryLocks, ResolveLock, ScanLock, DeleteRange, Coprocessor, RawGet, RawBatchGet, RawPut,
    RawBatchPut, RawDelete, RawBatchDelete, RawScan, RawDeleteRange,
}
