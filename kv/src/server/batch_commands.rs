//! The BatchCommands stream: many unary requests on one stream, each answered as it finishes.
//!
//! A request is polled once where it arrives: reads under a valid lease finish right there. What does not (waiting for
//! replication, locks or an election) goes on in its own task and delays nobody.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use rutile_proto::tikvpb::batch_commands_request::request::Cmd as Ask;
use rutile_proto::tikvpb::batch_commands_response::Response;
use rutile_proto::tikvpb::batch_commands_response::response::Cmd as Answer;
use rutile_proto::tikvpb::{BatchCommandsEmptyResponse, BatchCommandsRequest, BatchCommandsResponse};
use tokio::sync::{Semaphore, mpsc};
use tonic::{Status, Streaming};

use super::grpc::check_cluster;
use super::service::Service;

/// Answers put into one message.
const ANSWERS_PER_MESSAGE_MAX: usize = 128;
/// Requests of one stream in progress; beyond it no more are read.
const IN_PROGRESS_MAX: usize = 4096;

type Finished = Result<(u64, Response), Status>;

/// Answers the requests of one stream until it ends.
pub fn serve(
    service: Service,
    requests: Streaming<BatchCommandsRequest>,
) -> impl Stream<Item = Result<BatchCommandsResponse, Status>> + Send {
    let (answers, mut finished) = mpsc::channel(1024);
    tokio::spawn(read_requests(service, requests, answers));
    async_stream::stream! {
        let mut batch: Vec<Finished> = Vec::with_capacity(ANSWERS_PER_MESSAGE_MAX);
        while finished.recv_many(&mut batch, ANSWERS_PER_MESSAGE_MAX).await > 0 {
            let mut message = BatchCommandsResponse::default();
            let mut failure = None;
            for answer in batch.drain(..) {
                match answer {
                    Ok((id, response)) => {
                        message.request_ids.push(id);
                        message.responses.push(response);
                    }
                    Err(status) => failure = Some(status),
                }
            }
            if !message.responses.is_empty() {
                yield Ok(message);
            }
            if let Some(status) = failure {
                yield Err(status);
                return;
            }
        }
    }
}

async fn read_requests(
    service: Service,
    mut requests: Streaming<BatchCommandsRequest>,
    answers: mpsc::Sender<Finished>,
) {
    let in_progress = Arc::new(Semaphore::new(IN_PROGRESS_MAX));
    while let Ok(Some(batch)) = requests.message().await {
        for (id, request) in batch.request_ids.into_iter().zip(batch.requests) {
            let mut work = match start(&service, request.cmd) {
                Ok(work) => work,
                Err(status) => {
                    let _ = answers.send(Err(status)).await;
                    return;
                }
            };
            if let Some(cmd) = (&mut work).now_or_never() {
                if answers.send(Ok((id, Response { cmd }))).await.is_err() {
                    return;
                }
                continue;
            }
            let Ok(permit) = in_progress.clone().acquire_owned().await else { return };
            let answers = answers.clone();
            tokio::spawn(async move {
                let cmd = work.await;
                drop(permit);
                let _ = answers.send(Ok((id, Response { cmd }))).await;
            });
        }
    }
}

type Work = BoxFuture<'static, Option<Answer>>;

macro_rules! dispatch {
    ($service:expr, $ask:expr, { $($arm:ident => $method:ident,)* }) => {
        match $ask {
            $(Some(Ask::$arm(request)) => {
                check_cluster($service, request.context.as_ref())?;
                let service = $service.clone();
                Box::pin(async move { Some(Answer::$arm(Box::new(service.$method(*request).await))) })
            })*
            Some(Ask::Gc(_)) => {
                let error = rutile_proto::kvrpcpb::KeyError { abort: "KvGC is not supported".into(), ..Default::default() };
                let response = rutile_proto::kvrpcpb::GcResponse { error: Some(error), ..Default::default() };
                Box::pin(async move { Some(Answer::Gc(Box::new(response))) })
            }
            Some(Ask::Empty(request)) => Box::pin(async move {
                if request.delay_time > 0 {
                    tokio::time::sleep(Duration::from_millis(request.delay_time)).await;
                }
                Some(Answer::Empty(Box::new(BatchCommandsEmptyResponse { test_id: request.test_id })))
            }),
            None => Box::pin(async { None }),
        }
    };
}

fn start(service: &Service, ask: Option<Ask>) -> Result<Work, Status> {
    let work: Work = dispatch!(service, ask, {
        Get => kv_get,
        Scan => kv_scan,
        Prewrite => kv_prewrite,
        Commit => kv_commit,
        Cleanup => kv_cleanup,
        BatchGet => kv_batch_get,
        BatchRollback => kv_batch_rollback,
        ScanLock => kv_scan_lock,
        ResolveLock => kv_resolve_lock,
        DeleteRange => kv_delete_range,
        RawGet => raw_get,
        RawBatchGet => raw_batch_get,
        RawPut => raw_put,
        RawBatchPut => raw_batch_put,
        RawDelete => raw_delete,
        RawBatchDelete => raw_batch_delete,
        RawScan => raw_scan,
        RawDeleteRange => raw_delete_range,
        RawBatchScan => raw_batch_scan,
        Coprocessor => coprocessor,
        PessimisticLock => kv_pessimistic_lock,
        PessimisticRollback => kv_pessimistic_rollback,
        CheckTxnStatus => kv_check_txn_status,
        TxnHeartBeat => kv_txn_heart_beat,
        CheckSecondaryLocks => kv_check_secondary_locks,
        RawCoprocessor => raw_coprocessor,
        GetHealthFeedback => get_health_feedback,
    });
    Ok(work)
}
