//! Timestamps, batched: requests that come while one call is on its way share the next one.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rutile_proto::ids::Timestamp;
use tokio::sync::oneshot;

use crate::error::{Error, Result, TransportError};
use crate::transport::Transport;

/// Most timestamps of one call.
const BATCH_MAX: usize = 10_000;
/// Pauses between failed calls; together longer than a leader election of the placement driver.
const RETRY_DELAYS_MS: [u64; 12] = [5, 20, 50, 100, 200, 400, 500, 1000, 1000, 1000, 2000, 2000];

type Waiter = oneshot::Sender<Result<Timestamp>>;

#[derive(Default)]
struct State {
    waiting: Vec<Waiter>,
    running: bool,
}

/// Gives out timestamps. Cheap to clone.
#[derive(Clone)]
pub struct TsoBatcher {
    transport: Arc<dyn Transport>,
    state: Arc<Mutex<State>>,
}

impl TsoBatcher {
    /// A batcher over a transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        TsoBatcher { transport, state: Arc::default() }
    }

    /// A fresh timestamp. Cancel-safe: an abandoned request only wastes a number.
    pub async fn get(&self) -> Result<Timestamp> {
        if let Some(ts) = self.transport.try_tso(1) {
            return Ok(ts);
        }
        let (waiter, answer) = oneshot::channel();
        let start = {
            let mut state = self.state.lock();
            state.waiting.push(waiter);
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            tokio::spawn(self.clone().run());
        }
        answer.await.unwrap_or_else(|_| Err(Error::Pd("the client is shutting down".to_owned())))
    }

    /// Serves batches until nobody waits.
    async fn run(self) {
        loop {
            let batch = {
                let mut state = self.state.lock();
                if state.waiting.is_empty() {
                    state.running = false;
                    return;
                }
                let count = state.waiting.len().min(BATCH_MAX);
                state.waiting.drain(..count).collect::<Vec<_>>()
            };
            match self.call(batch.len() as u32).await {
                Ok(largest) => {
                    let first = largest.0 - (batch.len() as u64 - 1);
                    for (ts, waiter) in (first..).zip(batch) {
                        let _ = waiter.send(Ok(Timestamp(ts)));
                    }
                }
                Err(error) => {
                    for waiter in batch {
                        let _ = waiter.send(Err(Error::Pd(error.message.clone())));
                    }
                }
            }
        }
    }

    async fn call(&self, count: u32) -> Result<Timestamp, TransportError> {
        let mut result = self.transport.tso(count).await;
        for delay_ms in RETRY_DELAYS_MS {
            if result.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            result = self.transport.tso(count).await;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use rutile_proto::ids::{ClusterId, StoreId};

    use super::*;
    use crate::transport::{PdRequest, PdResponse, StoreRequest, StoreResponse};

    #[derive(Default)]
    struct Counting {
        calls: AtomicU64,
        last: AtomicU64,
        failures_left: AtomicU64,
    }

    #[async_trait]
    impl Transport for Counting {
        fn cluster_id(&self) -> ClusterId {
            ClusterId::new(1).unwrap()
        }

        async fn tso(&self, count: u32) -> Result<Timestamp, TransportError> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            let failing = |left: u64| left.checked_sub(1);
            if self.failures_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, failing).is_ok() {
                return Err(TransportError::not_sent("not leader"));
            }
            Ok(Timestamp(self.last.fetch_add(u64::from(count), Ordering::SeqCst) + u64::from(count)))
        }

        async fn pd(&self, _request: PdRequest) -> Result<PdResponse, TransportError> {
            Err(TransportError::not_sent("no placement driver here"))
        }

        async fn store(&self, _: StoreId, _: StoreRequest) -> Result<StoreResponse, TransportError> {
            Err(TransportError::not_sent("no store here"))
        }
    }

    #[tokio::test]
    async fn concurrent_requests_share_calls_and_never_a_timestamp() {
        let transport = Arc::new(Counting::default());
        let tso = TsoBatcher::new(transport.clone());
        let all = futures::future::join_all((0..500).map(|_| tso.get())).await;
        let distinct: HashSet<Timestamp> = all.into_iter().map(|ts| ts.unwrap()).collect();
        assert_eq!(distinct.len(), 500);
        assert!(transport.calls.load(Ordering::SeqCst) < 10);
        let next = tso.get().await.unwrap();
        assert!(distinct.iter().all(|ts| *ts < next));
    }

    #[tokio::test]
    async fn a_failed_call_is_repeated() {
        let transport = Arc::new(Counting { failures_left: AtomicU64::new(2), ..Counting::default() });
        assert_eq!(TsoBatcher::new(transport).get().await.unwrap(), Timestamp(1));
    }
}
