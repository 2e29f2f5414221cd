//! What readers and async-commit or 1PC writers must know of each other (facts: every later commit is above every
//! read that was served).
//!
//! A reader first raises `max_ts`, then looks for in-flight locks, then takes its snapshot. A writer first makes its
//! lock visible, then derives min_commit_ts from `max_ts`, and keeps the lock visible until its write is applied.
//! So either the reader sees the lock, or the writer sees the reader's timestamp.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::LockInfo;
use tokio::sync::Notify;

use crate::mvcc::key::Key;
use crate::mvcc::lock::Lock;

const SHARD_COUNT: usize = 64;

struct Entry {
    key: Key,
    lock: Lock,
}

#[derive(Default)]
struct Shard {
    locks: Mutex<HashMap<Vec<u8>, Entry, ahash::RandomState>>,
    released: Notify,
}

struct Inner {
    max_ts: AtomicU64,
    /// Locks in all shards; raised before and lowered after the lock is in its shard.
    lock_count: AtomicUsize,
    shards: Vec<Shard>,
    hasher: RandomState,
}

/// `max_ts` and the in-flight locks of a store. Cheap to clone.
#[derive(Clone)]
pub struct ConcurrencyManager(Arc<Inner>);

/// Keeps in-flight locks visible until dropped.
#[must_use]
pub struct InFlightLocks {
    manager: ConcurrencyManager,
    keys: Vec<Vec<u8>>,
}

impl Default for ConcurrencyManager {
    fn default() -> Self {
        ConcurrencyManager(Arc::new(Inner {
            max_ts: AtomicU64::new(0),
            lock_count: AtomicUsize::new(0),
            shards: (0..SHARD_COUNT).map(|_| Shard::default()).collect(),
            hasher: RandomState::new(),
        }))
    }
}

impl ConcurrencyManager {
    /// The largest timestamp any read was served at.
    #[must_use]
    pub fn max_ts(&self) -> Timestamp {
        Timestamp(self.0.max_ts.load(Ordering::SeqCst))
    }

    /// Notes a read at `ts`; a read of the newest version (`MAX`) does not count.
    pub fn update_max_ts(&self, ts: Timestamp) {
        if ts != Timestamp::MAX && self.0.max_ts.load(Ordering::SeqCst) < ts.0 {
            self.0.max_ts.fetch_max(ts.0, Ordering::SeqCst);
        }
    }

    fn shard(&self, encoded: &[u8]) -> &Shard {
        &self.0.shards[self.0.hasher.hash_one(encoded) as usize % SHARD_COUNT]
    }

    /// An empty set of in-flight locks.
    pub fn in_flight(&self) -> InFlightLocks {
        InFlightLocks { manager: self.clone(), keys: Vec::new() }
    }

    /// The in-flight lock that blocks a read of `key` at `read_ts`.
    #[must_use]
    pub fn blocking_lock(&self, key: &Key, read_ts: Timestamp, bypass: &[u64]) -> Option<LockInfo> {
        if self.0.lock_count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let locks = self.shard(key.encoded()).locks.lock();
        let entry = locks.get(key.encoded())?;
        entry.lock.blocks_read(key.raw(), read_ts, bypass).then(|| entry.lock.to_info(key.raw().clone()))
    }

    /// The first found in-flight lock that blocks a read of `[start, end)` (PD form, empty end = unbounded).
    #[must_use]
    pub fn blocking_lock_in_range(
        &self,
        start: &[u8],
        end: &[u8],
        read_ts: Timestamp,
        bypass: &[u64],
    ) -> Option<(Key, LockInfo)> {
        if self.0.lock_count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        self.0.shards.iter().find_map(|shard| {
            let locks = shard.locks.lock();
            let blocking = |e: &&Entry| {
                rutile_proto::key::in_range(e.key.encoded(), start, end)
                    && e.lock.blocks_read(e.key.raw(), read_ts, bypass)
            };
            let entry = locks.values().find(blocking)?;
            Some((entry.key.clone(), entry.lock.to_info(entry.key.raw().clone())))
        })
    }

    /// The smallest of what `bound` says of the locks in flight. A lock that comes later takes its `min_commit_ts` from `max_ts` as
    /// it is now, or above.
    #[must_use]
    pub fn smallest_in_flight(&self, bound: impl Fn(&Lock) -> Timestamp) -> Option<Timestamp> {
        if self.0.lock_count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let smallest = |shard: &Shard| shard.locks.lock().values().map(|entry| bound(&entry.lock)).min();
        self.0.shards.iter().filter_map(smallest).min()
    }

    /// Waits until `key` has no in-flight lock that blocks a read at `read_ts`. Cancel-safe.
    pub async fn wait_released(&self, key: &Key, read_ts: Timestamp, bypass: &[u64]) {
        let shard = self.shard(key.encoded());
        loop {
            let released = shard.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if self.blocking_lock(key, read_ts, bypass).is_none() {
                return;
            }
            released.await;
        }
    }
}

impl InFlightLocks {
    /// Makes `lock` visible to readers and gives it the smallest min_commit_ts no served read has seen.
    pub fn add(&mut self, key: &Key, lock: &mut Lock) {
        let inner = &self.manager.0;
        inner.lock_count.fetch_add(1, Ordering::SeqCst);
        let mut locks = self.manager.shard(key.encoded()).locks.lock();
        let floor = self.manager.max_ts().max(lock.start_ts).max(lock.for_update_ts).next();
        lock.min_commit_ts = lock.min_commit_ts.max(floor);
        let visible = Lock { short_value: None, ..lock.clone() };
        let previous = locks.insert(key.encoded().to_vec(), Entry { key: key.clone(), lock: visible });
        drop(locks);
        match previous {
            None => self.keys.push(key.encoded().to_vec()),
            // A request that names a key twice.
            Some(entry) => {
                let same = entry.lock.start_ts == lock.start_ts;
                assert!(same, "two transactions hold the latch of one key");
                inner.lock_count.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Whether there is nothing in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Takes all locks back.
    pub fn clear(&mut self) {
        for key in self.keys.drain(..) {
            let shard = self.manager.shard(&key);
            shard.locks.lock().remove(&key);
            self.manager.0.lock_count.fetch_sub(1, Ordering::SeqCst);
            shard.released.notify_waiters();
        }
    }
}

impl Drop for InFlightLocks {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::lock::LockType;
    use bytes::Bytes;
    use futures::FutureExt;

    fn lock(start_ts: u64) -> Lock {
        Lock {
            use_async_commit: true,
            ..Lock::new(LockType::Put, Bytes::from_static(b"k"), Timestamp(start_ts), 0)
        }
    }

    #[test]
    fn commits_come_after_served_reads() {
        let manager = ConcurrencyManager::default();
        let key = Key::from_raw(&Bytes::from_static(b"k"));
        manager.update_max_ts(Timestamp(50));
        manager.update_max_ts(Timestamp::MAX);
        let mut in_flight = manager.in_flight();
        let mut l = lock(10);
        in_flight.add(&key, &mut l);
        assert_eq!(l.min_commit_ts, Timestamp(51));
        assert!(manager.blocking_lock(&key, Timestamp(50), &[]).is_none());
        assert!(manager.blocking_lock(&key, Timestamp(51), &[10]).is_none());
        let info = manager.blocking_lock(&key, Timestamp(51), &[]).unwrap();
        assert_eq!((info.lock_version, info.min_commit_ts), (10, 51));
        assert!(manager.blocking_lock_in_range(b"", b"", Timestamp(51), &[]).is_some());
        assert!(manager.blocking_lock_in_range(b"", b"a", Timestamp(51), &[]).is_none());
        drop(in_flight);
        assert!(manager.blocking_lock(&key, Timestamp(51), &[]).is_none());
    }

    #[tokio::test]
    async fn readers_wait_for_in_flight_writes() {
        let manager = ConcurrencyManager::default();
        let key = Key::from_raw(&Bytes::from_static(b"k"));
        let mut in_flight = manager.in_flight();
        in_flight.add(&key, &mut lock(10));
        let mut waiting = Box::pin(manager.wait_released(&key, Timestamp(100), &[]));
        assert!((&mut waiting).now_or_never().is_none());
        in_flight.clear();
        waiting.now_or_never().unwrap();
    }
}
