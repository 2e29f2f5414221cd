//! Scripted transactions through the commands, over one region without replication.

mod async_commit;
mod gc;
mod model;
mod optimistic;
mod pessimistic;
mod status;

use std::sync::Arc;

use bytes::Bytes;
use rutile_proto::kvrpcpb::*;

use super::scheduler::Scheduler;
use super::test_kv::{TestKv, test_scheduler};

/// Commands with short arguments.
pub struct Script {
    pub txns: Scheduler,
    pub kv: Arc<TestKv>,
}

pub fn b(s: &str) -> Bytes {
    Bytes::copy_from_slice(s.as_bytes())
}

pub fn mutation(op: Op, key: &str, value: &str) -> Mutation {
    Mutation { op: op as i32, key: b(key), value: b(value), ..Default::default() }
}

pub fn put(key: &str, value: &str) -> Mutation {
    mutation(Op::Put, key, value)
}

/// An optimistic prewrite with the first key as primary.
pub fn prewrite_request(start_ts: u64, mutations: Vec<Mutation>) -> PrewriteRequest {
    PrewriteRequest {
        primary_lock: mutations[0].key.clone(),
        mutations,
        start_version: start_ts,
        lock_ttl: 10,
        txn_size: 1,
        ..Default::default()
    }
}

pub fn lock_request(start_ts: u64, for_update_ts: u64, keys: &[&str]) -> PessimisticLockRequest {
    PessimisticLockRequest {
        mutations: keys.iter().map(|k| mutation(Op::PessimisticLock, k, "")).collect(),
        primary_lock: b(keys[0]),
        start_version: start_ts,
        for_update_ts,
        lock_ttl: 10,
        wait_timeout: -1,
        ..Default::default()
    }
}

impl Script {
    pub fn new() -> Self {
        let (txns, kv) = test_scheduler();
        Script { txns, kv }
    }

    pub async fn prewrite(&self, req: PrewriteRequest) -> Result<PrewriteResponse, KeyError> {
        match self.txns.prewrite(req).await {
            Ok(mut r) if !r.errors.is_empty() => Err(r.errors.remove(0)),
            Ok(r) => Ok(r),
            Err(e) => Err(e.split().expect("a key error")),
        }
    }

    pub async fn commit(&self, start_ts: u64, commit_ts: u64, keys: &[&str]) -> Result<(), KeyError> {
        let req = CommitRequest {
            start_version: start_ts,
            commit_version: commit_ts,
            keys: keys.iter().map(|k| b(k)).collect(),
            ..Default::default()
        };
        self.txns.commit(&req).await.map(|_| ()).map_err(|e| e.split().unwrap())
    }

    pub async fn rollback(&self, start_ts: u64, keys: &[&str]) -> Result<(), KeyError> {
        let keys = keys.iter().map(|k| b(k)).collect();
        let req = BatchRollbackRequest { start_version: start_ts, keys, ..Default::default() };
        self.txns.batch_rollback(&req).await.map(|_| ()).map_err(|e| e.split().unwrap())
    }

    pub async fn get(&self, key: &str, ts: u64) -> Result<Option<String>, KeyError> {
        let req = GetRequest { key: b(key), version: ts, ..Default::default() };
        match self.txns.get(&req).await {
            Ok(r) if r.not_found => Ok(None),
            Ok(r) => Ok(Some(String::from_utf8(r.value.to_vec()).unwrap())),
            Err(e) => Err(e.split().unwrap()),
        }
    }

    /// Whether a read of the newest version at `ts` yields this.
    pub async fn expect(&self, key: &str, ts: u64, value: Option<&str>) {
        assert_eq!(self.get(key, ts).await.unwrap().as_deref(), value, "{key} at {ts}");
    }

    /// Prewrites and commits.
    pub async fn write(&self, start_ts: u64, commit_ts: u64, mutations: Vec<Mutation>) {
        let keys: Vec<_> = mutations.iter().map(|m| String::from_utf8(m.key.to_vec()).unwrap()).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        self.prewrite(prewrite_request(start_ts, mutations)).await.unwrap();
        self.commit(start_ts, commit_ts, &keys).await.unwrap();
    }

    pub async fn lock(&self, req: PessimisticLockRequest) -> Result<PessimisticLockResponse, KeyError> {
        self.txns.pessimistic_lock(req).await.map_err(|e| e.split().unwrap())
    }

    pub async fn scan(&self, req: ScanRequest) -> Vec<String> {
        let pairs = self.txns.scan(&req).await.unwrap().pairs;
        let text = |b: &Bytes| String::from_utf8(b.to_vec()).unwrap();
        let show = |p: &KvPair| match &p.error {
            Some(e) => format!("locked by {}", e.locked.as_ref().unwrap().lock_version),
            None => format!("{}={}", text(&p.key), text(&p.value)),
        };
        pairs.iter().map(show).collect()
    }

    pub async fn locks(&self, max_ts: u64) -> Vec<LockInfo> {
        let req = ScanLockRequest { max_version: max_ts, ..Default::default() };
        self.txns.scan_lock(&req).await.unwrap().locks
    }
}
