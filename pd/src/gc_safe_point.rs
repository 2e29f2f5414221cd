//! Safe points: garbage older than the GC safe point may be collected, transactions older than the transaction safe point
//! are refused. Both only grow. Services (backups, change feeds) hold them back for a time.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::replicated::Replicated;
use crate::replicated::command::SystemBatch;

const GC_KEY: &[u8] = b"gc/safe_point";
const TXN_KEY: &[u8] = b"gc/txn_safe_point";
const SERVICE_PREFIX: &[u8] = b"gc/service/";
/// The collector itself; it always has a safe point.
const GC_WORKER: &[u8] = b"gc_worker";

/// A service that holds the safe point back.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ServiceSafePoint {
    /// Its name.
    #[prost(bytes = "bytes", tag = "1")]
    pub service_id: Bytes,
    /// Unix seconds at which it stops to count.
    #[prost(int64, tag = "2")]
    pub expires_at_s: i64,
    /// Nothing at or above this may be collected.
    #[prost(uint64, tag = "3")]
    pub safe_point: u64,
}

/// All safe points of the cluster.
pub struct SafePoints {
    store: Arc<Replicated>,
    writing: Mutex<()>,
}

/// The answer to a change of the transaction safe point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advanced {
    /// Before.
    pub old: u64,
    /// Now.
    pub new: u64,
    /// Who held it back; empty = nobody.
    pub blocker: String,
}

impl SafePoints {
    /// Over the replicated store.
    #[must_use]
    pub fn new(store: Arc<Replicated>) -> Self {
        SafePoints { store, writing: Mutex::new(()) }
    }

    /// The GC safe point.
    #[must_use]
    pub fn gc(&self) -> u64 {
        self.store.system_get_u64(GC_KEY)
    }

    /// The transaction safe point, never below the GC safe point.
    #[must_use]
    pub fn txn(&self) -> u64 {
        self.store.system_get_u64(TXN_KEY).max(self.gc())
    }

    /// Raises the GC safe point; the answer is the larger of the old and the requested one.
    pub async fn update_gc(&self, safe_point: u64) -> Result<u64> {
        let _writing = self.writing.lock().await;
        let old = self.gc();
        if safe_point > old {
            self.put(GC_KEY, safe_point).await?;
        }
        Ok(old.max(safe_point))
    }

    /// Raises the transaction safe point as far as the services let it.
    pub async fn advance_txn(&self, target: u64, now_s: i64) -> Result<Advanced> {
        let _writing = self.writing.lock().await;
        let old = self.txn();
        if target < old {
            return Err(Error::Invalid(format!("the txn safe point cannot go back from {old} to {target}")));
        }
        let holder = self
            .services(now_s)
            .into_iter()
            .filter(|service| service.service_id.as_ref() != GC_WORKER && service.safe_point < target)
            .min_by_key(|service| service.safe_point);
        let (new, blocker) = match holder {
            Some(service) => {
                let name = String::from_utf8_lossy(&service.service_id).into_owned();
                (service.safe_point.max(old), format!("service {name} holds {}", service.safe_point))
            }
            None => (target, String::new()),
        };
        if new > old {
            self.put(TXN_KEY, new).await?;
        }
        Ok(Advanced { old, new, blocker })
    }

    /// Registers, renews or removes (`ttl_s` ≤ 0) a service. The answer is the service with the smallest safe point.
    /// A safe point below that smallest one comes too late and is not registered.
    pub async fn update_service(
        &self,
        id: Bytes,
        ttl_s: i64,
        safe_point: u64,
        now_s: i64,
    ) -> Result<ServiceSafePoint> {
        let _writing = self.writing.lock().await;
        let key = [SERVICE_PREFIX, &id].concat();
        if ttl_s <= 0 {
            self.store.write_system(SystemBatch::default().delete(key)).await?;
        } else {
            let smallest = self.smallest(now_s);
            let known = self.services(now_s).iter().any(|service| service.service_id == id);
            if safe_point >= smallest.safe_point || (known && safe_point >= self.gc()) {
                let expires_at_s = now_s.saturating_add(ttl_s);
                let record = ServiceSafePoint { service_id: id, expires_at_s, safe_point };
                self.store.write_system(SystemBatch::default().put(key, record.encode_to_vec())).await?;
            }
        }
        Ok(self.smallest(now_s))
    }

    /// The services that count now.
    #[must_use]
    pub fn services(&self, now_s: i64) -> Vec<ServiceSafePoint> {
        let records = self.store.read().system_scan(SERVICE_PREFIX);
        records
            .into_iter()
            .filter_map(|(_, value)| ServiceSafePoint::decode(value).ok())
            .filter(|service| service.expires_at_s > now_s)
            .collect()
    }

    fn smallest(&self, now_s: i64) -> ServiceSafePoint {
        let worker = || ServiceSafePoint {
            service_id: Bytes::from_static(GC_WORKER),
            expires_at_s: i64::MAX,
            safe_point: self.gc(),
        };
        let mut services = self.services(now_s);
        if !services.iter().any(|service| service.service_id.as_ref() == GC_WORKER) {
            services.push(worker());
        }
        services.into_iter().min_by_key(|service| service.safe_point).unwrap_or_else(worker)
    }

    async fn put(&self, key: &'static [u8], value: u64) -> Result<()> {
        self.store.write_system(SystemBatch::default().put(key, value.to_be_bytes().to_vec())).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn safe_points_only_grow_and_services_hold_them() {
        let dir = tempfile::tempdir().unwrap();
        let points = SafePoints::new(Arc::new(Replicated::open(dir.path(), 1 << 20).unwrap()));
        assert_eq!(points.update_gc(10).await.unwrap(), 10);
        assert_eq!(points.update_gc(5).await.unwrap(), 10);
        assert_eq!(points.txn(), 10);

        let smallest = points.update_service("br".into(), 60, 20, 1000).await.unwrap();
        assert_eq!((smallest.service_id.as_ref(), smallest.safe_point), (GC_WORKER, 10));
        let advanced = points.advance_txn(30, 1001).await.unwrap();
        assert_eq!((advanced.old, advanced.new), (10, 20));
        assert!(advanced.blocker.contains("br"));
        assert_eq!(points.advance_txn(30, 2000).await.unwrap().new, 30, "the service expired");
        assert!(points.advance_txn(29, 2000).await.is_err());

        points.update_service("br".into(), 60, 40, 2000).await.unwrap();
        points.update_service("br".into(), 0, 0, 2000).await.unwrap();
        assert!(points.services(2000).is_empty());
        points.update_service("late".into(), 60, 3, 2000).await.unwrap();
        assert!(points.services(2000).is_empty(), "below the smallest safe point: not registered");
    }
}
