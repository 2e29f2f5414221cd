//! The regions of a store as every thread sees them.
//!
//! The store threads publish; readers look up a region, check it, take a snapshot and check that nothing changed meanwhile.
//! A region's published state is replaced as a whole, so comparing pointers tells whether it changed.
//!
//! Lock order: the range index before the reserved ranges before any region's state. Neither is held while anything waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use rutile_proto::{errorpb, key, kvrpcpb, metapb};

use super::api::{LockWatch, RegionResult};
use super::clock::Clock;
use super::region_error;
use super::region_snapshot::Flow;

/// A lease that holds as long as the leadership: no other peer can vote.
const FOREVER: u64 = u64::MAX;

/// What readers need to know of a peer; immutable.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) region: Arc<metapb::Region>,
    pub(crate) term: u64,
    pub(crate) is_leader: bool,
    /// Serves nothing: waits to be merged into another region.
    pub(crate) merging: bool,
    /// The leader as far as this peer knows.
    pub(crate) leader: Option<metapb::Peer>,
}

/// A peer of this store, shared by all threads.
pub(crate) struct RegionHandle {
    pub(crate) region_id: u64,
    pub(crate) peer: metapb::Peer,
    published: RwLock<Arc<Published>>,
    applied_index: AtomicU64,
    applied_term: AtomicU64,
    /// The store thread wants to hear when this index is applied; `u64::MAX` for none.
    notice_at: AtomicU64,
    /// Nanoseconds of the store's clock.
    lease_until: AtomicU64,
    /// Bytes written since the region's size was last looked at.
    pub(crate) unchecked_bytes: AtomicU64,
    /// A size check is on its way.
    pub(crate) checking: AtomicBool,
    pub(crate) approximate_size: AtomicU64,
    pub(crate) flow: Flows,
    /// The peer's clock stands still: whoever wants something must wake it.
    pub(crate) asleep: AtomicBool,
    /// Other stores have merged the region.
    pub(crate) merged: Mutex<Option<Box<Merged>>>,
    /// Followers that lag or do not answer, as the leader sees them.
    pub(crate) followers: Mutex<Followers>,
    /// Who hears of changes of locks.
    pub(crate) lock_watch: RwLock<Option<Arc<dyn LockWatch>>>,
}

/// How a region ended on other stores while this one was away.
#[derive(Clone, Debug)]
pub(crate) struct Merged {
    /// What has its range, as it was right after the merge.
    pub(crate) target: metapb::Region,
    /// Of the region's tombstone.
    pub(crate) epoch: metapb::RegionEpoch,
    /// Since when this store knows, by its clock.
    pub(crate) since: Duration,
}

impl Merged {
    /// The target's version right after the merge.
    pub(crate) fn version(&self) -> u64 {
        self.target.region_epoch.unwrap_or_default().version
    }
}

/// Followers that need attention, as the leader sees them.
#[derive(Clone, Default)]
pub(crate) struct Followers {
    /// Still catching up with the log.
    pub(crate) pending: Vec<metapb::Peer>,
    /// Silent since.
    pub(crate) down: Vec<(metapb::Peer, Duration)>,
}

/// What goes through a peer.
#[derive(Default)]
pub(crate) struct Flows {
    pub(crate) written: Flow,
    pub(crate) read: Arc<Flow>,
}

impl RegionHandle {
    pub(crate) fn new(region: Arc<metapb::Region>, peer: metapb::Peer, applied: (u64, u64)) -> Self {
        let published = Published {
            term: 0,
            is_leader: false,
            merging: false,
            leader: None,
            region: Arc::clone(&region),
        };
        Self {
            region_id: region.id,
            peer,
            published: RwLock::new(Arc::new(published)),
            applied_index: AtomicU64::new(applied.0),
            applied_term: AtomicU64::new(applied.1),
            notice_at: AtomicU64::new(u64::MAX),
            lease_until: AtomicU64::new(0),
            unchecked_bytes: AtomicU64::new(0),
            checking: AtomicBool::new(false),
            approximate_size: AtomicU64::new(0),
            flow: Flows::default(),
            asleep: AtomicBool::new(false),
            merged: Mutex::default(),
            followers: Mutex::default(),
            lock_watch: RwLock::default(),
        }
    }

    pub(crate) fn peer_id(&self) -> u64 {
        self.peer.id
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.read())
    }

    pub(crate) fn is_current(&self, seen: &Arc<Published>) -> bool {
        Arc::ptr_eq(&self.published.read(), seen)
    }

    pub(crate) fn applied_index(&self) -> u64 {
        self.applied_index.load(Ordering::Acquire)
    }

    pub(crate) fn applied_term(&self) -> u64 {
        self.applied_term.load(Ordering::Acquire)
    }

    /// Asks the apply thread for a message once `index` is applied. Returns `false` when it is already.
    pub(crate) fn want_notice(&self, index: u64) -> bool {
        self.notice_at.fetch_min(index, Ordering::SeqCst);
        self.applied_index.load(Ordering::SeqCst) < index
    }

    /// Whether the store thread wants to hear that `index` is applied.
    pub(crate) fn take_notice(&self, index: u64) -> bool {
        let due = |at: u64| (at <= index).then_some(u64::MAX);
        self.notice_at.fetch_update(Ordering::SeqCst, Ordering::SeqCst, due).is_ok()
    }

    /// Told by the apply thread after the effects are visible.
    pub(crate) fn set_applied(&self, index: u64, term: u64) {
        self.applied_index.store(index, Ordering::SeqCst);
        self.applied_term.store(term, Ordering::Release);
    }
}

/// All regions of a store.
pub(crate) struct Registry {
    store_id: u64,
    clock: Clock,
    regions: DashMap<u64, Arc<RegionHandle>, ahash::RandomState>,
    /// Data form of the end key → region.
    ranges: RwLock<BTreeMap<Vec<u8>, u64>>,
    /// Data ranges whose contents are being replaced or removed, by region.
    reserved: Mutex<Vec<(u64, Bytes, Bytes)>>,
}

impl Registry {
    pub(crate) fn new(store_id: u64, clock: Clock) -> Self {
        Self {
            store_id,
            clock,
            regions: DashMap::default(),
            ranges: RwLock::default(),
            reserved: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, region_id: u64) -> Option<Arc<RegionHandle>> {
        self.regions.get(&region_id).map(|h| Arc::clone(&h))
    }

    pub(crate) fn insert(&self, handle: Arc<RegionHandle>) {
        let end = key::data_end_key(&handle.published().region.end_key);
        let region_id = handle.region_id;
        self.regions.insert(region_id, handle);
        self.ranges.write().insert(end, region_id);
    }

    /// The region is no longer served here.
    pub(crate) fn remove(&self, handle: &RegionHandle) {
        let end = key::data_end_key(&handle.published().region.end_key);
        let mut ranges = self.ranges.write();
        if ranges.get(&end) == Some(&handle.region_id) {
            ranges.remove(&end);
        }
        self.regions.remove(&handle.region_id);
    }

    /// Whether a range touches that of a region of this store, or one that is being replaced or removed. `except` does not count, nor
    /// what was merged into it.
    pub(crate) fn overlaps(&self, start: &[u8], end: &[u8], except: u64) -> bool {
        let ranges = self.ranges.read();
        let counts = |handle: &RegionHandle| {
            handle.region_id != except && self.merged_at_last(handle).is_none_or(|m| m.target.id != except)
        };
        self.overlaps_locked(&ranges, &self.reserved.lock(), (start, end), except, counts)
    }

    fn overlaps_locked(
        &self,
        ranges: &BTreeMap<Vec<u8>, u64>,
        reserved: &[(u64, Bytes, Bytes)],
        (start, end): (&[u8], &[u8]),
        except: u64,
        counts: impl Fn(&RegionHandle) -> bool,
    ) -> bool {
        let (from, to) = (key::data_key(start), key::data_end_key(end));
        if reserved.iter().any(|(id, s, e)| *id != except && s[..] < to[..] && from[..] < e[..]) {
            return true;
        }
        let after = (std::ops::Bound::Excluded(from), std::ops::Bound::Unbounded);
        for (_, id) in ranges.range::<Vec<u8>, _>(after) {
            let Some(handle) = self.get(*id) else { continue };
            if key::data_key(&handle.published().region.start_key) >= to {
                return false;
            }
            if counts(&handle) {
                return true;
            }
        }
        false
    }

    /// Keeps a range free of other regions until [`Registry::unreserve`]. `false` when another region is there already.
    pub(crate) fn reserve(&self, region_id: u64, start: &[u8], end: &[u8]) -> bool {
        let ranges = self.ranges.write();
        let mut reserved = self.reserved.lock();
        let others = |handle: &RegionHandle| handle.region_id != region_id;
        if self.overlaps_locked(&ranges, &reserved, (start, end), region_id, others) {
            return false;
        }
        reserved.push((region_id, key::data_key(start).into(), key::data_end_key(end).into()));
        true
    }

    /// What other stores have merged a region into; where they have merged that, too, as far as is known here, its successor.
    fn merged_at_last(&self, handle: &RegionHandle) -> Option<Merged> {
        const STEPS_MAX: usize = 64;
        let merged_of = |handle: &RegionHandle| handle.merged.lock().as_deref().cloned();
        let mut last = merged_of(handle)?;
        for _ in 0..STEPS_MAX {
            let next = self.get(last.target.id).and_then(|target| merged_of(&target));
            match next.filter(|next| next.version() > last.version()) {
                Some(next) => last = next,
                None => break,
            }
        }
        Some(last)
    }

    /// Regions in a range that other stores have merged, and into what at last.
    pub(crate) fn merged_in(&self, start: &[u8], end: &[u8]) -> Vec<(u64, Merged)> {
        let overlaps = |h: &RegionHandle| {
            let region = Arc::clone(&h.published().region);
            let (from, to) = data_range(&region);
            from[..] < key::data_end_key(end)[..] && key::data_key(start)[..] < to[..]
        };
        let merged = |h: Arc<RegionHandle>| {
            let merged = self.merged_at_last(&h)?;
            overlaps(&h).then_some((h.region_id, merged))
        };
        self.all().into_iter().filter_map(merged).collect()
    }

    /// The reserved ranges.
    #[cfg(test)]
    pub(crate) fn reserved(&self) -> Vec<(u64, Bytes, Bytes)> {
        self.reserved.lock().clone()
    }

    /// Lets other regions have a region's reserved ranges.
    pub(crate) fn unreserve(&self, region_id: u64) {
        self.reserved.lock().retain(|(id, ..)| *id != region_id);
    }

    /// Publishes a peer's new state. A changed range moves in the index, too.
    pub(crate) fn publish(&self, handle: &RegionHandle, state: Published) {
        let (old_end, new_end) = (handle.published().region.end_key.clone(), state.region.end_key.clone());
        if old_end == new_end {
            *handle.published.write() = Arc::new(state);
            return;
        }
        let mut ranges = self.ranges.write();
        let old = key::data_end_key(&old_end);
        if ranges.get(&old) == Some(&handle.region_id) {
            ranges.remove(&old);
        }
        ranges.insert(key::data_end_key(&new_end), handle.region_id);
        *handle.published.write() = Arc::new(state);
    }

    /// In key order.
    pub(crate) fn all(&self) -> Vec<Arc<RegionHandle>> {
        let ids: Vec<u64> = self.ranges.read().values().copied().collect();
        ids.into_iter().filter_map(|id| self.get(id)).collect()
    }

    pub(crate) fn by_key(&self, pd_key: &[u8]) -> Option<Arc<RegionHandle>> {
        let data_key = key::data_key(pd_key);
        let after = (std::ops::Bound::Excluded(data_key), std::ops::Bound::Unbounded);
        let id = self.ranges.read().range::<Vec<u8>, _>(after).next().map(|(_, id)| *id)?;
        let handle = self.get(id)?;
        let contains = pd_key >= &handle.published().region.start_key[..];
        contains.then_some(handle)
    }

    /// The region first, then those that were split off it since `version`: its neighbours on the left.
    fn current_regions(&self, region: &metapb::Region, version: u64) -> Vec<metapb::Region> {
        const SIBLINGS_MAX: u64 = 16;
        let mut found = vec![region.clone()];
        let newer = region.region_epoch.unwrap_or_default().version.saturating_sub(version);
        let ids: Vec<u64> = {
            let ranges = self.ranges.read();
            let before = ranges.range(..key::data_end_key(&region.end_key)).rev();
            before.take(newer.min(SIBLINGS_MAX) as usize).map(|(_, id)| *id).collect()
        };
        found.extend(ids.into_iter().filter_map(|id| self.get(id)).map(|h| (*h.published().region).clone()));
        found
    }

    /// Finds the addressed region and checks the request against it, in TiKV's order.
    pub(crate) fn check(&self, ctx: &kvrpcpb::Context) -> RegionResult<(Arc<RegionHandle>, Arc<Published>)> {
        let handle = self.get(ctx.region_id).ok_or_else(|| region_error::region_not_found(ctx.region_id))?;
        let published = handle.published();
        self.check_published(ctx, &handle, &published)?;
        Ok((handle, published))
    }

    fn check_published(
        &self,
        ctx: &kvrpcpb::Context,
        handle: &RegionHandle,
        published: &Published,
    ) -> Result<(), errorpb::Error> {
        if let Some(peer) = &ctx.peer {
            if peer.store_id != self.store_id {
                return Err(region_error::store_not_match(peer.store_id, self.store_id));
            }
            if peer.id != handle.peer.id {
                return Err(region_error::mismatch_peer_id(peer.id, handle.peer.id));
            }
        }
        if !published.is_leader && !ctx.replica_read && !ctx.stale_read {
            return Err(region_error::not_leader(ctx.region_id, published.leader));
        }
        if ctx.term != 0 && published.term > ctx.term + 1 {
            return Err(region_error::stale_command());
        }
        self.check_version(ctx.region_epoch.unwrap_or_default().version, &published.region)?;
        if published.merging { Err(region_error::merging(ctx.region_id)) } else { Ok(()) }
    }

    /// Whether a request's epoch is that of the region.
    pub(crate) fn check_version(&self, version: u64, region: &metapb::Region) -> Result<(), errorpb::Error> {
        if version == region.region_epoch.unwrap_or_default().version {
            return Ok(());
        }
        Err(region_error::epoch_not_match(region.id, self.current_regions(region, version)))
    }

    /// Whether the peer may serve reads of its leadership without asking others.
    pub(crate) fn lease_holds(&self, handle: &RegionHandle, published: &Published) -> bool {
        if !published.is_leader || published.merging || handle.applied_term() != published.term {
            return false;
        }
        match handle.lease_until.load(Ordering::Acquire) {
            FOREVER => true,
            until => (self.clock.now().as_nanos() as u64) < until,
        }
    }

    /// The lease of the only voter of a region.
    pub(crate) fn lease_forever(&self, handle: &RegionHandle) {
        handle.lease_until.store(FOREVER, Ordering::Release);
    }

    /// Others vote now: the lease must be earned.
    pub(crate) fn end_lease_forever(&self, handle: &RegionHandle) {
        let _ = handle.lease_until.compare_exchange(FOREVER, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// A quorum confirmed the leadership as of `at`.
    pub(crate) fn extend_lease(&self, handle: &RegionHandle, at: Duration, lease: Duration) {
        let until = (at + lease).as_nanos() as u64;
        let _ = handle.lease_until.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
            (old == FOREVER || old < until).then_some(until)
        });
    }

    /// Ends the lease.
    pub(crate) fn end_lease(&self, handle: &RegionHandle) {
        handle.lease_until.store(0, Ordering::Release);
    }
}

/// A region's bounds as data keys.
pub(crate) fn data_range(region: &metapb::Region) -> (Bytes, Bytes) {
    (key::data_key(&region.start_key).into(), key::data_end_key(&region.end_key).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(id: u64, start: &'static str, end: &'static str, version: u64) -> Arc<metapb::Region> {
        Arc::new(metapb::Region {
            id,
            start_key: start.into(),
            end_key: end.into(),
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version }),
            peers: vec![metapb::Peer { id: id + 100, store_id: 1, ..Default::default() }],
            ..Default::default()
        })
    }

    fn leading(registry: &Registry, region: Arc<metapb::Region>) -> Arc<RegionHandle> {
        let peer = region.peers[0];
        let handle = Arc::new(RegionHandle::new(Arc::clone(&region), peer, (5, 6)));
        registry.insert(Arc::clone(&handle));
        registry.publish(
            &handle,
            Published { region, term: 6, is_leader: true, merging: false, leader: Some(peer) },
        );
        handle
    }

    fn ctx(region: &metapb::Region) -> kvrpcpb::Context {
        kvrpcpb::Context {
            region_id: region.id,
            region_epoch: region.region_epoch,
            peer: Some(region.peers[0]),
            ..Default::default()
        }
    }

    #[test]
    fn checks_come_in_order() {
        let registry = Registry::new(1, Clock::system());
        let r = region(1, "", "", 3);
        let handle = leading(&registry, Arc::clone(&r));
        let good = ctx(&r);
        assert!(registry.check(&good).is_ok());
        let with = |change: fn(&mut kvrpcpb::Context)| {
            let mut ctx = good.clone();
            change(&mut ctx);
            registry.check(&ctx).err().unwrap()
        };
        assert!(with(|c| c.region_id = 9).region_not_found.is_some());
        assert!(
            with(|c| c.peer = Some(metapb::Peer { id: 7, store_id: 2, ..Default::default() }))
                .store_not_match
                .is_some()
        );
        assert!(
            with(|c| c.peer = Some(metapb::Peer { id: 7, store_id: 1, ..Default::default() }))
                .mismatch_peer_id
                .is_some()
        );
        assert!(with(|c| c.term = 4).stale_command.is_some());
        for version in [2, 4] {
            let mut ctx = good.clone();
            ctx.region_epoch = Some(metapb::RegionEpoch { conf_ver: 1, version });
            assert!(registry.check(&ctx).err().unwrap().epoch_not_match.is_some());
        }
        registry.publish(
            &handle,
            Published { region: r, term: 7, is_leader: false, merging: false, leader: None },
        );
        assert!(with(|c| c.region_epoch = None).not_leader.is_some(), "leadership comes before the epoch");
    }

    #[test]
    fn ranges_follow_splits_and_siblings_are_told() {
        let registry = Registry::new(1, Clock::system());
        let parent = leading(&registry, region(1, "", "", 1));
        let new = Published {
            region: region(1, "m", "", 2),
            term: 6,
            is_leader: true,
            merging: false,
            leader: None,
        };
        registry.publish(&parent, new);
        leading(&registry, region(2, "", "m", 2));
        assert_eq!(registry.by_key(b"a").unwrap().region_id, 2);
        assert_eq!(registry.by_key(b"m").unwrap().region_id, 1);
        assert_eq!(registry.by_key(b"").unwrap().region_id, 2);
        let error = registry.check_version(1, &parent.published().region).unwrap_err();
        let ids: Vec<u64> = error.epoch_not_match.unwrap().current_regions.iter().map(|r| r.id).collect();
        assert_eq!(ids, [1, 2]);
        assert_eq!(registry.all().len(), 2);
    }

    #[test]
    fn leases_need_leadership_and_an_applied_entry_of_the_term() {
        let registry = Registry::new(1, Clock::system());
        let handle = leading(&registry, region(1, "", "", 1));
        assert!(!registry.lease_holds(&handle, &handle.published()));
        registry.lease_forever(&handle);
        assert!(registry.lease_holds(&handle, &handle.published()));
        handle.set_applied(9, 5);
        assert!(!registry.lease_holds(&handle, &handle.published()), "not applied in this term yet");
        handle.set_applied(9, 6);
        registry.extend_lease(&handle, registry.clock.now(), Duration::from_secs(60));
        assert!(registry.lease_holds(&handle, &handle.published()));
        registry.end_lease(&handle);
        assert!(!registry.lease_holds(&handle, &handle.published()));
    }
}
