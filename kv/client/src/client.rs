//! The client: one per process and cluster.

use std::sync::Arc;

use bytes::Bytes;
use rutile_proto::codec;
use rutile_proto::coprocessor;
use rutile_proto::ids::{ClusterId, StoreId, Timestamp};
use rutile_proto::key::txn_pd_key;
use rutile_proto::kvrpcpb::{SplitRegionRequest, UnsafeDestroyRangeRequest};

use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::grpc::GrpcTransport;
use crate::pd_client::PdClient;
use crate::raw::{RawClient, RawOptions};
use crate::region_cache::Region;
use crate::sender::{Cluster, Sent};
use crate::transport::{StoreRequest, StoreResponse, Transport};
use crate::txn::{KeyRange, Snapshot, Transaction, TxnCore, TxnOptions, gc};

/// A client of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    core: Arc<TxnCore>,
}

impl Client {
    /// A client over a transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Client { core: Arc::new(TxnCore::new(Arc::new(Cluster::new(transport)))) }
    }

    /// Connects over gRPC, given addresses of placement drivers (`host:port`).
    pub async fn connect(endpoints: &[String]) -> Result<Self> {
        Ok(Client::new(GrpcTransport::connect(endpoints).await?))
    }

    /// The cluster.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.core.cluster.id()
    }

    /// The placement driver.
    #[must_use]
    pub fn pd(&self) -> &PdClient {
        self.core.cluster.pd()
    }

    /// A fresh timestamp, larger than any given out before.
    pub async fn timestamp(&self) -> Result<Timestamp> {
        self.core.cluster.timestamp().await
    }

    /// The committed data as of `ts`; `Timestamp::MAX` reads the newest version of single keys.
    #[must_use]
    pub fn snapshot(&self, ts: Timestamp) -> Snapshot {
        Snapshot::open(self.core.clone(), ts)
    }

    /// The oldest timestamp that a transaction or snapshot of this client reads at.
    #[must_use]
    pub fn oldest_open_ts(&self) -> Option<Timestamp> {
        self.core.open.oldest()
    }

    /// Finishes all transactions that began at or before `safe_point` and are gone: the first half of garbage
    /// collection. Answers the safe point that this makes possible: `safe_point`, or a timestamp below the oldest of
    /// them that still lives.
    pub async fn finish_transactions(&self, safe_point: Timestamp) -> Result<Timestamp> {
        gc::finish_transactions(&self.core, safe_point).await
    }

    /// Begins a transaction.
    pub async fn begin(&self, options: TxnOptions) -> Result<Transaction> {
        Transaction::begin(self.core.clone(), options).await
    }

    /// Raw access.
    #[must_use]
    pub fn raw(&self, options: RawOptions) -> RawClient {
        RawClient::new(self.core.cluster.clone(), options)
    }

    /// The regions of a range, in key order, and the part of the range in each.
    pub async fn regions(&self, range: &KeyRange) -> Result<Vec<(Arc<Region>, KeyRange)>> {
        let mut backoff = Backoff::new(Backoff::READ_MS);
        let mut parts = Vec::new();
        let mut rest = range.clone();
        while !rest.is_empty() {
            let region = self.core.cluster.locate(&txn_pd_key(&rest.start), &mut backoff).await?;
            let bound = match region.end_key() {
                end if end.is_empty() => Bytes::new(),
                end => codec::decode_bytes_exact(end).map(Bytes::from).map_err(|_| {
                    Error::Protocol(format!("region {} has a bound that is no key", region.id()))
                })?,
            };
            if bound.is_empty() || (!rest.end.is_empty() && rest.end <= bound) {
                parts.push((region, rest));
                break;
            }
            parts.push((region, KeyRange::new(rest.start, bound.clone())));
            rest.start = bound;
        }
        Ok(parts)
    }

    /// One call of pushed-down computation to a region. `None`: the region moved, look the ranges up again. Locks
    /// in the answer are the caller's business (see [`Snapshot`]).
    pub async fn coprocessor(
        &self,
        region: &Arc<Region>,
        request: coprocessor::Request,
        backoff: &mut Backoff,
    ) -> Result<Option<coprocessor::Response>> {
        match self.core.cluster.send(region, request, |_| (), backoff).await? {
            Sent::Answer(answer) => Ok(Some(answer)),
            Sent::Relocate => Ok(None),
        }
    }

    /// Makes `key` the first key of a region.
    pub async fn split_region(&self, key: &[u8]) -> Result<()> {
        let request =
            SplitRegionRequest { split_keys: vec![Bytes::copy_from_slice(key)], ..Default::default() };
        let mut backoff = Backoff::new(Backoff::WRITE_MS);
        self.core.cluster.call(&txn_pd_key(key), &request, |_| (), &mut backoff).await.map(drop)
    }

    /// Deletes every version of a range's keys on every store, at once and without transactions: for data that
    /// nobody reads any more.
    pub async fn unsafe_destroy_range(&self, range: &KeyRange) -> Result<()> {
        for store in self.pd().all_stores().await? {
            let Some(id) = StoreId::new(store.id) else { continue };
            let request = UnsafeDestroyRangeRequest {
                start_key: range.start.clone(),
                end_key: range.end.clone(),
                ..Default::default()
            };
            let call =
                self.core.cluster.transport().store(id, StoreRequest::UnsafeDestroyRange(request)).await;
            let message = match call {
                Ok(StoreResponse::UnsafeDestroyRange(answer)) if answer.error.is_empty() => continue,
                Ok(StoreResponse::UnsafeDestroyRange(answer)) => answer.error,
                Ok(_) => "answered another request".to_owned(),
                Err(error) => error.message,
            };
            return Err(Error::Store { store: id, message });
        }
        Ok(())
    }
}
