//! Pessimistic locks that live only on the leader: they cost no replication and no fsync.
//!
//! They are lost with the leadership; prewrite then checks that nothing was written since (see the amend rule in
//! `actions/prewrite.rs`). Locks of a region are valid for one term: another term starts with none. When the leader's region is
//! split, they go with their keys: they hold in the first term of a new region, before which nobody can have led it. Access to one key
//! is ordered by its latch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use rutile_proto::{key::in_range, metapb};

use crate::raftstore::{FIRST_TERM, RegionEvent, RegionObserver};

use crate::mvcc::key::Key;
use crate::mvcc::lock::Lock;

/// Above this many bytes new pessimistic locks are replicated instead.
const MEMORY_BYTES_MAX: usize = 256 << 20;
/// Rough cost of one lock beside its keys, in bytes.
const LOCK_OVERHEAD_BYTES: usize = 256;

#[derive(Default)]
struct RegionLocks {
    term: u64,
    version: u64,
    locks: BTreeMap<Vec<u8>, Lock>,
}

#[derive(Default)]
struct Inner {
    regions: DashMap<u64, Arc<Mutex<RegionLocks>>, ahash::RandomState>,
    bytes: AtomicUsize,
}

/// The pessimistic locks in memory, by region. Cheap to clone.
#[derive(Clone, Default)]
pub struct MemoryLocks(Arc<Inner>);

/// The memory locks of one region as seen at one term and epoch.
#[derive(Clone)]
pub struct RegionView {
    inner: Arc<Inner>,
    locks: Option<Arc<Mutex<RegionLocks>>>,
    region_id: u64,
    term: u64,
    version: u64,
}

fn cost(key: &[u8], lock: &Lock) -> usize {
    LOCK_OVERHEAD_BYTES + key.len() + lock.primary.len()
}

impl MemoryLocks {
    /// The view of a command whose snapshot has this region and term. Drops what is no longer valid.
    #[must_use]
    pub fn view(&self, region: &metapb::Region, term: u64) -> RegionView {
        let version = region.region_epoch.as_ref().map_or(0, |e| e.version);
        let locks = self.0.regions.get(&region.id).map(|l| l.value().clone());
        if let Some(locks) = &locks {
            let mut state = locks.lock();
            if state.term < term {
                self.0.release(std::mem::take(&mut state.locks));
                state.term = term;
                state.version = version;
            } else if state.term == term && state.version < version {
                let (keep, gone) = std::mem::take(&mut state.locks)
                    .into_iter()
                    .partition(|(k, _)| in_range(k, &region.start_key, &region.end_key));
                state.locks = keep;
                state.version = version;
                self.0.release(gone);
            }
        }
        RegionView { inner: self.0.clone(), locks, region_id: region.id, term, version }
    }

    /// Moves the locks of a region that this store leads in `term` to the regions that it was split into.
    fn split(&self, region_id: u64, regions: &[Arc<metapb::Region>], term: u64) {
        let Some(parent) = self.0.regions.get(&region_id).map(|l| Arc::clone(l.value())) else { return };
        let mut parent = parent.lock();
        if parent.term != term {
            return;
        }
        for region in regions {
            let version = region.region_epoch.as_ref().map_or(0, |e| e.version);
            if region.id == region_id {
                parent.version = parent.version.max(version);
                continue;
            }
            let (moved, kept) = std::mem::take(&mut parent.locks)
                .into_iter()
                .partition::<BTreeMap<_, _>, _>(|(k, _)| in_range(k, &region.start_key, &region.end_key));
            parent.locks = kept;
            if !moved.is_empty() {
                let state = RegionLocks { term: FIRST_TERM, version, locks: moved };
                self.0.regions.insert(region.id, Arc::new(Mutex::new(state)));
            }
        }
    }

    /// A region's locks hold no longer.
    fn forget(&self, region_id: u64) {
        if let Some((_, locks)) = self.0.regions.remove(&region_id) {
            let mut state = locks.lock();
            // Views that are still around must not add any.
            state.term = u64::MAX;
            self.0.release(std::mem::take(&mut state.locks));
        }
    }

    /// Forgets the locks in `[start, end)` (PD form, empty end = unbounded) of all regions.
    pub fn remove_range(&self, start: &[u8], end: &[u8]) {
        for region in &self.0.regions {
            let mut state = region.lock();
            let (gone, keep) =
                std::mem::take(&mut state.locks).into_iter().partition(|(k, _)| in_range(k, start, end));
            state.locks = keep;
            self.0.release(gone);
        }
    }

    /// Bytes held by all locks.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

impl RegionObserver for MemoryLocks {
    fn on_region_event(&self, event: &RegionEvent) {
        match event {
            RegionEvent::Split { region_id, regions, term: Some(term) } => {
                self.split(*region_id, regions, *term);
            }
            RegionEvent::LostLeader { region, .. } | RegionEvent::Destroyed { region } => {
                self.forget(region.id);
            }
            _ => {}
        }
    }
}

impl Inner {
    /// Removes a lock wherever a split has taken it.
    fn remove_moved(&self, encoded: &[u8]) {
        for region in &self.regions {
            if let Some(lock) = region.lock().locks.remove(encoded) {
                self.bytes.fetch_sub(cost(encoded, &lock), Ordering::Relaxed);
                return;
            }
        }
    }

    fn release(&self, locks: BTreeMap<Vec<u8>, Lock>) {
        let freed = locks.iter().map(|(k, l)| cost(k, l)).sum();
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
    }
}

impl RegionView {
    fn with<R>(&self, f: impl FnOnce(&mut BTreeMap<Vec<u8>, Lock>) -> R) -> Option<R> {
        let mut state = self.locks.as_ref()?.lock();
        (state.term == self.term && state.version == self.version).then(|| f(&mut state.locks))
    }

    /// The lock on `encoded`.
    #[must_use]
    pub fn get(&self, encoded: &[u8]) -> Option<Lock> {
        self.with(|locks| locks.get(encoded).cloned()).flatten()
    }

    /// Puts a lock; false when it has to be replicated: memory is short or the view is outdated.
    #[must_use]
    pub fn put(&mut self, key: &Key, lock: Lock) -> bool {
        let cost = cost(key.encoded(), &lock);
        if self.inner.bytes.load(Ordering::Relaxed) + cost > MEMORY_BYTES_MAX {
            return false;
        }
        if self.locks.is_none() {
            let fresh = || {
                let state = RegionLocks { term: self.term, version: self.version, ..RegionLocks::default() };
                Arc::new(Mutex::new(state))
            };
            self.locks = Some(self.inner.regions.entry(self.region_id).or_insert_with(fresh).clone());
        }
        let inserted = self.with(|locks| locks.insert(key.encoded().to_vec(), lock).is_none());
        if inserted == Some(true) {
            self.inner.bytes.fetch_add(cost, Ordering::Relaxed);
        }
        inserted.is_some()
    }

    /// Removes the lock on `encoded`, if there is one; the caller holds the key's latch.
    pub fn remove(&self, encoded: &[u8]) {
        match self.with(|locks| locks.remove(encoded)) {
            Some(Some(lock)) => drop(self.inner.bytes.fetch_sub(cost(encoded, &lock), Ordering::Relaxed)),
            Some(None) => {}
            None if self.locks.is_some() => self.inner.remove_moved(encoded),
            None => {}
        }
    }

    /// Copies the locks in `[start, end)` (PD form, empty end = unbounded) that `want` accepts, in key order.
    #[must_use]
    pub fn scan(&self, start: &[u8], end: &[u8], want: impl Fn(&Lock) -> bool) -> Vec<(Vec<u8>, Lock)> {
        self.with(|locks| {
            let range = locks.range::<[u8], _>((
                std::ops::Bound::Included(start),
                if end.is_empty() { std::ops::Bound::Unbounded } else { std::ops::Bound::Excluded(end) },
            ));
            range.filter(|(_, l)| want(l)).map(|(k, l)| (k.clone(), l.clone())).collect()
        })
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::lock::LockType;
    use bytes::Bytes;
    use rutile_proto::ids::Timestamp;

    fn region(version: u64, end: &'static [u8]) -> metapb::Region {
        metapb::Region {
            id: 1,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version }),
            end_key: Bytes::from_static(end),
            ..Default::default()
        }
    }

    #[test]
    fn locks_live_for_one_term() {
        let table = MemoryLocks::default();
        let key = Key::from_raw(&Bytes::from_static(b"k"));
        let lock = Lock::new(LockType::Pessimistic, Bytes::from_static(b"k"), Timestamp(1), 10);
        let mut old = table.view(&region(1, b""), 5);
        assert!(old.put(&key, lock.clone()));
        assert_eq!(table.view(&region(1, b""), 5).get(key.encoded()), Some(lock.clone()));
        assert_eq!(table.view(&region(1, b""), 5).scan(b"", b"", |_| true).len(), 1);
        assert!(table.bytes() > 0);
        assert_eq!(table.view(&region(1, b""), 6).get(key.encoded()), None);
        assert_eq!(table.bytes(), 0);
        assert!(!old.put(&key, lock), "an outdated view must not add locks");
    }

    #[test]
    fn a_split_keeps_the_locks_that_stay() {
        let table = MemoryLocks::default();
        let (a, z) = (Key::from_raw(&Bytes::from_static(b"a")), Key::from_raw(&Bytes::from_static(b"z")));
        let lock = Lock::new(LockType::Pessimistic, Bytes::from_static(b"a"), Timestamp(1), 10);
        let mut view = table.view(&region(1, b""), 5);
        assert!(view.put(&a, lock.clone()) && view.put(&z, lock));
        let view = table.view(&region(2, b"m"), 5);
        assert!(view.get(a.encoded()).is_some());
        assert!(view.get(z.encoded()).is_none());
        view.remove(a.encoded());
        assert_eq!(table.bytes(), 0);
    }

    #[test]
    fn locks_follow_a_split_into_the_first_term_of_the_new_region() {
        let table = MemoryLocks::default();
        let (a, z) = (Key::from_raw(&Bytes::from_static(b"a")), Key::from_raw(&Bytes::from_static(b"z")));
        let lock = Lock::new(LockType::Pessimistic, Bytes::from_static(b"a"), Timestamp(1), 10);
        let mut old = table.view(&region(1, b""), 9);
        assert!(old.put(&a, lock.clone()) && old.put(&z, lock.clone()));
        let left = Arc::new(metapb::Region { id: 2, ..region(2, b"m") });
        let right = Arc::new(metapb::Region { start_key: Bytes::from_static(b"m"), ..region(2, b"") });
        let split = |term| {
            let regions = vec![Arc::clone(&left), Arc::clone(&right)];
            table.on_region_event(&RegionEvent::Split { region_id: 1, regions, term });
        };
        split(None);
        split(Some(8));
        assert!(table.view(&left, FIRST_TERM).get(a.encoded()).is_none(), "not of this leadership");
        split(Some(9));
        assert_eq!(table.view(&left, FIRST_TERM).get(a.encoded()), Some(lock.clone()));
        assert_eq!(table.view(&right, 9).get(z.encoded()), Some(lock.clone()));
        assert!(!old.put(&a, lock.clone()), "a view from before the split adds nothing");
        // The command that held the lock began before the split and ends behind it.
        old.remove(a.encoded());
        assert!(table.view(&left, FIRST_TERM).get(a.encoded()).is_none());
        // Another leader may have given the key to another transaction.
        let mut view = table.view(&left, FIRST_TERM);
        assert!(view.put(&a, lock));
        assert!(table.view(&left, FIRST_TERM + 1).get(a.encoded()).is_none());
        table.on_region_event(&RegionEvent::LostLeader { region: right, term: 10 });
        assert_eq!(table.bytes(), 0);
    }
}
