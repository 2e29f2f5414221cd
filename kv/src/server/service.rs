//! The service of a store: one function per RPC. None of them fails; errors are inside the responses.
//!
//! Callers in the same process use these functions directly; [`super::grpc`] puts them on the wire.

use std::sync::Arc;

use bytes::Bytes;
use rutile_proto::kvrpcpb::*;
use rutile_proto::{coprocessor, errorpb, key};

use crate::copr::Endpoint;
use crate::pd_client::PdClient;
use crate::raftstore::RaftKv;
use crate::raw::{self, RawStore};
use crate::txn::{self, PdTimestamps, Scheduler, TimestampSource};

struct Inner {
    cluster_id: u64,
    scheduler: Scheduler,
    raw: RawStore,
    coprocessor: Option<Arc<Endpoint>>,
}

/// The RPCs of a store. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

/// Implements transactional RPCs whose response has one `error` field.
macro_rules! transactional {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $response:ident = $verb:ident;)*) => {$(
        $(#[$doc])*
        pub async fn $name(&self, req: $request) -> $response {
            match self.0.scheduler.$verb(&req).await {
                Ok(response) => response,
                Err(e) => match e.split() {
                    Ok(error) => $response { error: Some(error.into()), ..Default::default() },
                    Err(error) => $response { region_error: Some(error), ..Default::default() },
                },
            }
        }
    )*};
}

/// The response of a failed transactional command with an `errors` list.
macro_rules! with_errors {
    ($response:ident, $error:expr) => {
        match $error.split() {
            Ok(error) => $response { errors: vec![error], ..Default::default() },
            Err(error) => $response { region_error: Some(error), ..Default::default() },
        }
    };
}

/// The response of a failed command with a text `error`.
macro_rules! with_text {
    ($response:ident, $error:expr) => {
        match $error {
            raw::Error::Region(error) => $response { region_error: Some(*error), ..Default::default() },
            error => $response { error: error.to_string(), ..Default::default() },
        }
    };
}

fn raw_error_pair(error: &raw::Error) -> KvPair {
    let error = KeyError { abort: error.to_string(), ..KeyError::default() };
    KvPair { error: Some(Box::new(error)), ..KvPair::default() }
}

fn text_of(error: txn::Error) -> Result<String, errorpb::Error> {
    match error {
        txn::Error::Region(e) => Err(*e),
        e => Ok(e.to_string()),
    }
}

impl Service {
    /// The service over replication; fresh timestamps come from the placement driver.
    #[must_use]
    pub fn new(raft: Arc<dyn RaftKv>, pd: Arc<dyn PdClient>, cluster_id: u64) -> Self {
        Self::with_timestamps(raft, Arc::new(PdTimestamps(pd)), cluster_id)
    }

    /// The same with timestamps of another source.
    #[must_use]
    pub fn with_timestamps(
        raft: Arc<dyn RaftKv>,
        timestamps: Arc<dyn TimestampSource>,
        cluster_id: u64,
    ) -> Self {
        let scheduler = Scheduler::new(raft.clone(), timestamps);
        Service(Arc::new(Inner { cluster_id, scheduler, raw: RawStore::new(raft), coprocessor: None }))
    }

    /// Adds a coprocessor; call before the service is cloned.
    #[must_use]
    pub fn with_coprocessor(self, endpoint: Arc<Endpoint>) -> Self {
        let Inner { cluster_id, scheduler, raw, .. } = &*self.0;
        let (cluster_id, scheduler, raw) = (*cluster_id, scheduler.clone(), raw.clone());
        Service(Arc::new(Inner { cluster_id, scheduler, raw, coprocessor: Some(endpoint) }))
    }

    /// The cluster that the store belongs to; 0 when unknown.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.0.cluster_id
    }

    /// What runs the transactional commands.
    #[must_use]
    pub fn scheduler(&self) -> &Scheduler {
        &self.0.scheduler
    }

    fn raft(&self) -> &Arc<dyn RaftKv> {
        self.0.scheduler.raft()
    }

    transactional! {
        /// One key at one timestamp.
        kv_get(GetRequest) -> GetResponse = get;
        /// Second phase of a commit.
        kv_commit(CommitRequest) -> CommitResponse = commit;
        /// Rolls keys of a transaction back.
        kv_batch_rollback(BatchRollbackRequest) -> BatchRollbackResponse = batch_rollback;
        /// Rolls one key back when its lock is expired.
        kv_cleanup(CleanupRequest) -> CleanupResponse = cleanup;
        /// The fate of a transaction by its primary key.
        kv_check_txn_status(CheckTxnStatusRequest) -> CheckTxnStatusResponse = check_txn_status;
        /// Whether an async-commit transaction prewrote these keys.
        kv_check_secondary_locks(CheckSecondaryLocksRequest) -> CheckSecondaryLocksResponse = check_secondary_locks;
        /// Keeps a transaction alive.
        kv_txn_heart_beat(TxnHeartBeatRequest) -> TxnHeartBeatResponse = txn_heart_beat;
        /// The locks of old transactions.
        kv_scan_lock(ScanLockRequest) -> ScanLockResponse = scan_lock;
        /// Finishes locks of transactions whose fate is known.
        kv_resolve_lock(ResolveLockRequest) -> ResolveLockResponse = resolve_lock;
    }

    /// Several keys at one timestamp.
    pub async fn kv_batch_get(&self, req: BatchGetRequest) -> BatchGetResponse {
        match self.0.scheduler.batch_get(&req).await {
            Ok(response) => response,
            Err(e) => match e.split() {
                Err(error) => BatchGetResponse { region_error: Some(error), ..Default::default() },
                Ok(error) => {
                    let pair = KvPair { error: Some(Box::new(error.clone())), ..KvPair::default() };
                    BatchGetResponse { error: Some(error), pairs: vec![pair], ..Default::default() }
                }
            },
        }
    }

    /// A range at one timestamp.
    pub async fn kv_scan(&self, req: ScanRequest) -> ScanResponse {
        match self.0.scheduler.scan(&req).await {
            Ok(response) => response,
            Err(e) => match e.split() {
                Err(error) => ScanResponse { region_error: Some(error), ..Default::default() },
                Ok(error) => {
                    let pair = KvPair { error: Some(Box::new(error.clone())), ..KvPair::default() };
                    ScanResponse { error: Some(error), pairs: vec![pair], ..Default::default() }
                }
            },
        }
    }

    /// First phase of a commit, or all of it.
    pub async fn kv_prewrite(&self, req: PrewriteRequest) -> PrewriteResponse {
        match self.0.scheduler.prewrite(req).await {
            Ok(response) => response,
            Err(e) => with_errors!(PrewriteResponse, e),
        }
    }

    /// Locks keys until the transaction ends.
    pub async fn kv_pessimistic_lock(&self, req: PessimisticLockRequest) -> PessimisticLockResponse {
        match self.0.scheduler.pessimistic_lock(req).await {
            Ok(response) => response,
            Err(e) => with_errors!(PessimisticLockResponse, e),
        }
    }

    /// Gives pessimistic locks back.
    pub async fn kv_pessimistic_rollback(
        &self,
        req: PessimisticRollbackRequest,
    ) -> PessimisticRollbackResponse {
        match self.0.scheduler.pessimistic_rollback(&req).await {
            Ok(response) => response,
            Err(e) => with_errors!(PessimisticRollbackResponse, e),
        }
    }

    /// Removes all versions and locks of a range within a region.
    pub async fn kv_delete_range(&self, req: DeleteRangeRequest) -> DeleteRangeResponse {
        match self.0.scheduler.delete_range(&req).await {
            Ok(response) => response,
            Err(e) => match text_of(e) {
                Ok(error) => DeleteRangeResponse { error, ..Default::default() },
                Err(error) => DeleteRangeResponse { region_error: Some(error), ..Default::default() },
            },
        }
    }

    /// Everything stored under one key.
    pub async fn mvcc_get_by_key(&self, req: MvccGetByKeyRequest) -> MvccGetByKeyResponse {
        match self.0.scheduler.mvcc_get_by_key(&req).await {
            Ok(response) => response,
            Err(e) => match text_of(e) {
                Ok(error) => MvccGetByKeyResponse { error, ..Default::default() },
                Err(error) => MvccGetByKeyResponse { region_error: Some(error), ..Default::default() },
            },
        }
    }

    /// Removes a range of transactional keys from this store, in all regions, without replication.
    pub async fn unsafe_destroy_range(&self, req: UnsafeDestroyRangeRequest) -> UnsafeDestroyRangeResponse {
        let bound = |raw: &[u8]| if raw.is_empty() { Vec::new() } else { key::txn_pd_key(raw) };
        let (start, end) = (bound(&req.start_key), bound(&req.end_key));
        self.0.scheduler.memory_locks().remove_range(&start, &end);
        let raft = self.raft().clone();
        let done = tokio::task::spawn_blocking(move || raft.unsafe_destroy_range(&start, &end)).await;
        self.0.scheduler.resolved().forget_locks();
        let error = match done {
            Ok(Ok(())) => String::new(),
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        };
        UnsafeDestroyRangeResponse { error, ..Default::default() }
    }

    /// Splits a region.
    #[allow(deprecated)]
    pub async fn split_region(&self, req: SplitRegionRequest) -> SplitRegionResponse {
        let ctx = req.context.unwrap_or_default();
        let mut keys = req.split_keys;
        if keys.is_empty() && !req.split_key.is_empty() {
            keys.push(req.split_key);
        }
        if !req.is_raw_kv {
            keys = keys.iter().map(|k| Bytes::from(key::txn_pd_key(k))).collect();
        }
        match self.raft().split(&ctx, keys).await {
            Ok(regions) => SplitRegionResponse {
                left: regions.first().cloned(),
                right: regions.get(1).cloned(),
                regions,
                ..Default::default()
            },
            Err(error) => SplitRegionResponse { region_error: Some(error), ..Default::default() },
        }
    }

    /// Runs a pushed-down plan.
    pub async fn coprocessor(&self, req: coprocessor::Request) -> coprocessor::Response {
        let tp = req.tp;
        let answer = match &self.0.coprocessor {
            Some(endpoint) => endpoint.handle(req).await,
            None => None,
        };
        answer.unwrap_or_else(|| coprocessor::Response {
            other_error: format!("unknown coprocessor request type {tp}"),
            ..Default::default()
        })
    }

    /// Coprocessor plug-ins are not supported.
    pub async fn raw_coprocessor(&self, req: RawCoprocessorRequest) -> RawCoprocessorResponse {
        let error = format!("coprocessor plug-in \"{}\" is not there", req.copr_name);
        RawCoprocessorResponse { error, ..Default::default() }
    }

    /// Up to where stale reads are served of all regions of a range.
    pub async fn get_store_safe_ts(&self, req: StoreSafeTsRequest) -> StoreSafeTsResponse {
        StoreSafeTsResponse { safe_ts: self.0.scheduler.store_safe_ts(&req) }
    }

    /// A follower's question before it serves a read.
    pub async fn read_index(&self, req: ReadIndexRequest) -> ReadIndexResponse {
        match self.0.scheduler.read_index(&req).await {
            Ok(response) => response,
            Err(e) => match e.split() {
                Err(error) => ReadIndexResponse { region_error: Some(error), ..Default::default() },
                Ok(error) => {
                    let error = errorpb::Error { message: error.abort, ..Default::default() };
                    ReadIndexResponse { region_error: Some(error), ..Default::default() }
                }
            },
        }
    }

    /// What leaders tell of their regions.
    pub async fn check_leader(&self, req: CheckLeaderRequest) -> CheckLeaderResponse {
        self.0.scheduler.check_leader(&req)
    }

    /// A healthy store.
    pub async fn get_health_feedback(&self, _: GetHealthFeedbackRequest) -> GetHealthFeedbackResponse {
        let store_id = self.raft().store_id();
        let feedback = HealthFeedback { store_id, feedback_seq_no: 1, slow_score: 1 };
        GetHealthFeedbackResponse { health_feedback: Some(feedback), ..Default::default() }
    }

    /// The value of a raw key.
    pub async fn raw_get(&self, req: RawGetRequest) -> RawGetResponse {
        let ctx = req.context.unwrap_or_default();
        match self.0.raw.get(&ctx, &req.cf, &req.key).await {
            Ok(Some(found)) => RawGetResponse { value: found.value, ..Default::default() },
            Ok(None) => RawGetResponse { not_found: true, ..Default::default() },
            Err(e) => with_text!(RawGetResponse, e),
        }
    }

    /// Several raw keys.
    pub async fn raw_batch_get(&self, req: RawBatchGetRequest) -> RawBatchGetResponse {
        let ctx = req.context.unwrap_or_default();
        match self.0.raw.batch_get(&ctx, &req.cf, &req.keys).await {
            Ok(pairs) => RawBatchGetResponse { pairs, ..Default::default() },
            Err(raw::Error::Region(e)) => {
                RawBatchGetResponse { region_error: Some(*e), ..Default::default() }
            }
            Err(e) => RawBatchGetResponse { pairs: vec![raw_error_pair(&e)], ..Default::default() },
        }
    }

    /// Sets a raw key.
    pub async fn raw_put(&self, req: RawPutRequest) -> RawPutResponse {
        let ctx = req.context.unwrap_or_default();
        match self.0.raw.put(&ctx, &req.cf, [(req.key, req.value, req.ttl)], req.for_cas).await {
            Ok(()) => RawPutResponse::default(),
            Err(e) => with_text!(RawPutResponse, e),
        }
    }

    /// Sets several raw keys together.
    #[allow(deprecated)]
    pub async fn raw_batch_put(&self, req: RawBatchPutRequest) -> RawBatchPutResponse {
        let ctx = req.context.unwrap_or_default();
        let (count, ttls, ttl) = (req.pairs.len(), req.ttls, req.ttl);
        if ttls.len() > 1 && ttls.len() != count {
            let error = format!("{} ttls for {count} pairs", ttls.len());
            return RawBatchPutResponse { error, ..Default::default() };
        }
        let ttl_of = |i: usize| match ttls.len() {
            0 => ttl,
            1 => ttls[0],
            _ => ttls[i],
        };
        let pairs = req.pairs.into_iter().enumerate().map(|(i, p)| (p.key, p.value, ttl_of(i)));
        let pairs: Vec<_> = pairs.collect();
        match self.0.raw.put(&ctx, &req.cf, pairs, req.for_cas).await {
            Ok(()) => RawBatchPutResponse::default(),
            Err(e) => with_text!(RawBatchPutResponse, e),
        }
    }

    /// Removes a raw key.
    pub async fn raw_delete(&self, req: RawDeleteRequest) -> RawDeleteResponse {
        let ctx = req.context.unwrap_or_default();
        match self.0.raw.delete(&ctx, &req.cf, &[req.key], req.for_cas).await {
            Ok(()) => RawDeleteResponse::default(),
            Err(e) => with_text!(RawDeleteResponse, e),
        }
    }

    /// Removes several raw keys together.
    pub async fn raw_batch_delete(&self, req: RawBatchDeleteRequest) -> RawBatchDeleteResponse {
        let ctx = req.context.unwrap_or_default();
        match self.0.raw.delete(&ctx, &req.cf, &req.keys, req.for_cas).await {
            Ok(()) => RawBatchDeleteResponse::default(),
            Err(e) => with_text!(RawBatchDeleteResponse, e),
        }
    }

    /// Removes a range of raw keys.
    pub async fn raw_delete_range(&self, req: RawDeleteRangeRequest) -> RawDeleteRangeResponse {
        let ctx = req.context.unwrap_or_default();
        match self.0.raw.delete_range(&ctx, &req.cf, &req.start_key, &req.end_key).await {
            Ok(()) => RawDeleteRangeResponse::default(),
            Err(e) => with_text!(RawDeleteRangeResponse, e),
        }
    }

    /// A range of raw keys.
    pub async fn raw_scan(&self, req: RawScanRequest) -> RawScanResponse {
        match self.0.raw.scan(&req).await {
            Ok(kvs) => RawScanResponse { kvs, ..Default::default() },
            Err(raw::Error::Region(e)) => RawScanResponse { region_error: Some(*e), ..Default::default() },
            Err(e) => RawScanResponse { kvs: vec![raw_error_pair(&e)], ..Default::default() },
        }
    }

    /// Several ranges of raw keys.
    pub async fn raw_batch_scan(&self, req: RawBatchScanRequest) -> RawBatchScanResponse {
        match self.0.raw.batch_scan(&req).await {
            Ok(kvs) => RawBatchScanResponse { kvs, ..Default::default() },
            Err(raw::Error::Region(e)) => {
                RawBatchScanResponse { region_error: Some(*e), ..Default::default() }
            }
            Err(e) => RawBatchScanResponse { kvs: vec![raw_error_pair(&e)], ..Default::default() },
        }
    }

    /// Seconds a raw key has left; 0 without TTL.
    pub async fn raw_get_key_ttl(&self, req: RawGetKeyTtlRequest) -> RawGetKeyTtlResponse {
        let ctx = req.context.unwrap_or_default();
        match self.0.raw.get(&ctx, &req.cf, &req.key).await {
            Ok(Some(found)) => {
                let now = self.0.raw.now_secs();
                let ttl = found.expires_at.map_or(0, |at| at.saturating_sub(now).max(1));
                RawGetKeyTtlResponse { ttl, ..Default::default() }
            }
            Ok(None) => RawGetKeyTtlResponse { not_found: true, ..Default::default() },
            Err(e) => with_text!(RawGetKeyTtlResponse, e),
        }
    }

    /// Compare and swap.
    pub async fn raw_compare_and_swap(&self, req: RawCasRequest) -> RawCasResponse {
        match self.0.raw.compare_and_swap(&req).await {
            Ok((succeed, before)) => RawCasResponse {
                succeed,
                previous_not_exist: before.is_none(),
                previous_value: before.unwrap_or_default(),
                ..Default::default()
            },
            Err(e) => with_text!(RawCasResponse, e),
        }
    }

    /// Checksum over ranges of raw keys.
    pub async fn raw_checksum(&self, req: RawChecksumRequest) -> RawChecksumResponse {
        match self.0.raw.checksum(&req).await {
            Ok((checksum, total_kvs, total_bytes)) => {
                RawChecksumResponse { checksum, total_kvs, total_bytes, ..Default::default() }
            }
            Err(e) => with_text!(RawChecksumResponse, e),
        }
    }
}
