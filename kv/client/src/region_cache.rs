//! Where regions are, as far as the client knows. Keys and bounds are in PD form.
//!
//! Invariant of [`RegionMap`]: regions never overlap, and of two that would, the one with the larger epoch version stays.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use rutile_proto::ids::{RegionId, StoreId};
use rutile_proto::key::in_range;
use rutile_proto::kvrpcpb::{ApiVersion, Context};
use rutile_proto::metapb;

use crate::error::{Error, Result};
use crate::pd_client::{PdClient, RegionAndLeader};

/// A known region and the peer believed to lead it.
#[derive(Debug)]
pub struct Region {
    id: RegionId,
    meta: metapb::Region,
    epoch: metapb::RegionEpoch,
    leader: AtomicUsize,
}

impl Region {
    /// `None` if the metadata lack what every region has.
    #[must_use]
    pub fn new(meta: metapb::Region, leader: Option<&metapb::Peer>) -> Option<Self> {
        let id = RegionId::new(meta.id)?;
        let epoch = meta.region_epoch?;
        if meta.peers.is_empty() {
            return None;
        }
        let first_voter =
            || meta.peers.iter().position(|p| p.role() == metapb::PeerRole::Voter && !p.is_witness);
        let led_by = leader.and_then(|l| meta.peers.iter().position(|p| p.id == l.id)).or_else(first_voter);
        Some(Region { id, epoch, leader: AtomicUsize::new(led_by.unwrap_or(0)), meta })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> RegionId {
        self.id
    }

    /// First key.
    #[must_use]
    pub fn start_key(&self) -> &Bytes {
        &self.meta.start_key
    }

    /// Just after the last key; empty is unbounded.
    #[must_use]
    pub fn end_key(&self) -> &Bytes {
        &self.meta.end_key
    }

    /// Whether it holds `pd_key`.
    #[must_use]
    pub fn contains(&self, pd_key: &[u8]) -> bool {
        in_range(pd_key, &self.meta.start_key, &self.meta.end_key)
    }

    /// Configuration and range version.
    #[must_use]
    pub fn epoch(&self) -> metapb::RegionEpoch {
        self.epoch
    }

    /// All its peers.
    #[must_use]
    pub fn peers(&self) -> &[metapb::Peer] {
        &self.meta.peers
    }

    /// The peer believed to lead.
    #[must_use]
    pub fn leader(&self) -> &metapb::Peer {
        &self.meta.peers[self.leader.load(Ordering::Relaxed)]
    }

    /// The store of that peer.
    #[must_use]
    pub fn leader_store(&self) -> Option<StoreId> {
        StoreId::new(self.leader().store_id)
    }

    /// Believes that `peer` leads; `false` if the region has no such peer.
    pub fn set_leader(&self, peer: &metapb::Peer) -> bool {
        let position = self.meta.peers.iter().position(|p| p.id == peer.id);
        if let Some(i) = position {
            self.leader.store(i, Ordering::Relaxed);
        }
        position.is_some()
    }

    /// Tries another peer; `false` if there is no other voter.
    pub fn try_next_peer(&self) -> bool {
        let current = self.leader.load(Ordering::Relaxed);
        let count = self.meta.peers.len();
        let votes = |i: &usize| self.meta.peers[*i].role() == metapb::PeerRole::Voter;
        match (1..count).map(|step| (current + step) % count).find(votes) {
            Some(next) => {
                self.leader.store(next, Ordering::Relaxed);
                true
            }
            None => false,
        }
    }

    /// Tries another peer than the one on `store`, unless somebody did so before; `false` if there is no other voter.
    pub fn leave_store(&self, store: StoreId) -> bool {
        self.leader_store() != Some(store) || self.try_next_peer()
    }

    /// The context of a request to the leader.
    #[must_use]
    pub fn context(&self) -> Context {
        Context {
            region_id: self.id.get(),
            region_epoch: Some(self.epoch),
            peer: Some(*self.leader()),
            api_version: ApiVersion::V1 as i32,
            ..Default::default()
        }
    }

    fn overlaps(&self, other: &Region) -> bool {
        let before = |end: &Bytes, start: &Bytes| !end.is_empty() && end <= start;
        !before(self.end_key(), other.start_key()) && !before(other.end_key(), self.start_key())
    }

    fn is_older_than(&self, other: &Region) -> bool {
        (self.epoch.version, self.epoch.conf_ver) < (other.epoch.version, other.epoch.conf_ver)
    }
}

/// Regions by key and by id; no I/O.
#[derive(Debug, Default)]
pub struct RegionMap {
    by_start: BTreeMap<Bytes, Arc<Region>>,
    start_by_id: HashMap<RegionId, Bytes>,
}

impl RegionMap {
    /// The region that holds `pd_key`.
    #[must_use]
    pub fn get(&self, pd_key: &[u8]) -> Option<Arc<Region>> {
        let range = (Bound::Unbounded, Bound::Included(pd_key));
        let (_, region) = self.by_start.range::<[u8], _>(range).next_back()?;
        region.contains(pd_key).then(|| region.clone())
    }

    /// The region that holds the keys just below `pd_end` (empty: the last region).
    #[must_use]
    pub fn get_before(&self, pd_end: &[u8]) -> Option<Arc<Region>> {
        let below = if pd_end.is_empty() { Bound::Unbounded } else { Bound::Excluded(pd_end) };
        let (_, region) = self.by_start.range::<[u8], _>((Bound::Unbounded, below)).next_back()?;
        let end = region.end_key();
        let reaches = end.is_empty() || (!pd_end.is_empty() && pd_end <= &end[..]);
        reaches.then(|| region.clone())
    }

    /// A region by its id.
    #[must_use]
    pub fn get_by_id(&self, id: RegionId) -> Option<Arc<Region>> {
        self.by_start.get(self.start_by_id.get(&id)?).cloned()
    }

    /// Adds a region and removes the older ones it overlaps. Answers what is now known: `region` itself, or `None` if
    /// something newer is there already.
    pub fn insert(&mut self, region: Region) -> Option<Arc<Region>> {
        if self.get_by_id(region.id).is_some_and(|known| region.is_older_than(&known)) {
            return None;
        }
        let overlapping = self.overlapping(&region);
        let stale = |known: &Arc<Region>| known.id != region.id && known.epoch.version > region.epoch.version;
        if overlapping.iter().any(stale) {
            return None;
        }
        self.remove(region.id);
        for known in overlapping {
            self.remove(known.id);
        }
        let region = Arc::new(region);
        self.start_by_id.insert(region.id, region.start_key().clone());
        self.by_start.insert(region.start_key().clone(), region.clone());
        Some(region)
    }

    /// Forgets a region.
    pub fn remove(&mut self, id: RegionId) {
        if let Some(start) = self.start_by_id.remove(&id) {
            self.by_start.remove(&start);
        }
    }

    fn overlapping(&self, region: &Region) -> Vec<Arc<Region>> {
        let below = if region.end_key().is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(&region.end_key()[..])
        };
        let known = self.by_start.range::<[u8], _>((Bound::Unbounded, below)).rev().map(|(_, r)| r);
        known.take_while(|r| r.overlaps(region)).cloned().collect()
    }
}

/// The region map, filled from the placement driver as needed.
pub struct RegionCache {
    map: RwLock<RegionMap>,
    pd: PdClient,
}

impl RegionCache {
    /// An empty cache.
    #[must_use]
    pub fn new(pd: PdClient) -> Self {
        RegionCache { map: RwLock::default(), pd }
    }

    /// The region that holds `pd_key`, if it is known.
    #[must_use]
    pub fn cached(&self, pd_key: &[u8]) -> Option<Arc<Region>> {
        self.map.read().get(pd_key)
    }

    /// The region that holds `pd_key`. `RegionUnavailable` while the placement driver knows none.
    pub async fn locate(&self, pd_key: &[u8]) -> Result<Arc<Region>> {
        if let Some(region) = self.cached(pd_key) {
            return Ok(region);
        }
        let answer = self.pd.region(pd_key).await?;
        self.learn(answer, |map| map.get(pd_key))
    }

    /// The region that holds the keys just below `pd_end` (empty: the last region).
    pub async fn locate_before(&self, pd_end: &[u8]) -> Result<Arc<Region>> {
        if let Some(region) = self.map.read().get_before(pd_end) {
            return Ok(region);
        }
        // No key of ours begins with nine bytes of 0xFF.
        let at: &[u8] = if pd_end.is_empty() { &[0xFF; 9] } else { pd_end };
        let mut answer = self.pd.region(at).await?;
        if answer.as_ref().is_some_and(|a| a.region.start_key == at) {
            answer = self.pd.prev_region(at).await?;
        }
        self.learn(answer, |map| map.get_before(pd_end))
    }

    fn learn(
        &self,
        answer: Option<RegionAndLeader>,
        known: impl Fn(&RegionMap) -> Option<Arc<Region>>,
    ) -> Result<Arc<Region>> {
        let missing =
            || Error::RegionUnavailable { region: None, message: "no region holds the key yet".to_owned() };
        let answer = answer.ok_or_else(missing)?;
        let region = Region::new(answer.region, answer.leader.as_ref()).ok_or_else(missing)?;
        let mut map = self.map.write();
        let inserted = map.insert(region);
        inserted
            .filter(|r| known(&map).is_some_and(|k| Arc::ptr_eq(&k, r)))
            .or_else(|| known(&map))
            .ok_or_else(missing)
    }

    /// Forgets a region, unless it was replaced by newer metadata since.
    pub fn invalidate(&self, region: &Arc<Region>) {
        let mut map = self.map.write();
        if map.get_by_id(region.id()).is_some_and(|known| Arc::ptr_eq(&known, region)) {
            map.remove(region.id());
        }
    }

    /// Takes the current regions that a store sent because `region` is out of date. Its store is believed to lead
    /// them. Answers whether anything new was learnt.
    pub fn on_epoch_not_match(&self, region: &Arc<Region>, current: Vec<metapb::Region>) -> bool {
        let store_id = region.leader().store_id;
        let mut map = self.map.write();
        let mut learnt = false;
        for meta in current {
            let leader = meta.peers.iter().find(|p| p.store_id == store_id).copied();
            let newer = |r: &Region| map.get_by_id(r.id()).is_none_or(|known| known.is_older_than(r));
            if let Some(new) = Region::new(meta, leader.as_ref()).filter(newer) {
                learnt |= map.insert(new).is_some();
            }
        }
        learnt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(id: u64, version: u64, start: u8, end: u8) -> metapb::Region {
        let bound = |b: u8| if b == 0 { Bytes::new() } else { Bytes::from(vec![b]) };
        metapb::Region {
            id,
            start_key: bound(start),
            end_key: bound(end),
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version }),
            peers: (1..=3)
                .map(|store_id| metapb::Peer { id: id * 10 + store_id, store_id, ..Default::default() })
                .collect(),
            ..Default::default()
        }
    }

    fn region(id: u64, version: u64, start: u8, end: u8) -> Region {
        Region::new(meta(id, version, start, end), None).unwrap()
    }

    #[test]
    fn a_split_replaces_its_parent_and_late_news_are_ignored() {
        let mut map = RegionMap::default();
        map.insert(region(1, 1, 0, 0));
        assert_eq!(map.get(b"x").unwrap().id().get(), 1);
        map.insert(region(2, 2, 0, 50));
        assert!(map.get(&[60]).is_none(), "the parent is gone");
        map.insert(region(1, 2, 50, 0));
        assert_eq!(map.get(&[60]).unwrap().id().get(), 1);
        assert!(map.insert(region(1, 1, 0, 0)).is_none());
        assert_eq!(map.get(&[10]).unwrap().id().get(), 2);
    }

    #[test]
    fn lookup_from_above() {
        let mut map = RegionMap::default();
        map.insert(region(1, 1, 0, 50));
        map.insert(region(2, 1, 50, 0));
        assert_eq!(map.get_before(&[50]).unwrap().id().get(), 1);
        assert_eq!(map.get_before(&[51]).unwrap().id().get(), 2);
        assert_eq!(map.get_before(b"").unwrap().id().get(), 2);
        map.remove(RegionId::new(2).unwrap());
        assert!(map.get_before(b"").is_none());
        assert!(map.get_before(&[60]).is_none());
    }

    #[test]
    fn leaders_change() {
        let region =
            Region::new(meta(1, 1, 0, 0), Some(&metapb::Peer { id: 12, ..Default::default() })).unwrap();
        assert_eq!(region.leader().store_id, 2);
        assert!(region.set_leader(&metapb::Peer { id: 13, ..Default::default() }));
        assert!(!region.set_leader(&metapb::Peer { id: 99, ..Default::default() }));
        assert_eq!(region.leader().store_id, 3);
        assert!(region.try_next_peer());
        assert_eq!(region.leader().store_id, 1);
        // Many requests that fail together leave a store once.
        let lost = StoreId::new(1).unwrap();
        assert!(region.leave_store(lost) && region.leave_store(lost) && region.leave_store(lost));
        assert_eq!(region.leader().store_id, 2);
    }

    proptest::proptest! {
        /// Whatever arrives in whatever order: no overlaps, both indexes agree, and a region is only displaced by one
        /// that is at least as new.
        #[test]
        fn never_overlaps(news in proptest::collection::vec((1u64..6, 1u64..8, 0u8..20, 0u8..20), 1..40)) {
            let mut map = RegionMap::default();
            for (id, version, a, b) in news {
                let (start, end) = if b == 0 { (a, 0) } else { (a.min(b), a.max(b)) };
                if start == end && end != 0 {
                    continue;
                }
                let before: Vec<Arc<Region>> = map.by_start.values().cloned().collect();
                let new = region(id, version, start, end);
                let conflicts: Vec<&Arc<Region>> = before.iter().filter(|r| r.overlaps(&new) || r.id() == new.id()).collect();
                let wins = conflicts.iter().all(|r| r.epoch().version <= version);
                let inserted = map.insert(new).is_some();
                assert_eq!(inserted, wins);
                let expected = if wins { before.len() - conflicts.len() + 1 } else { before.len() };
                assert_eq!(map.by_start.len(), expected);
                assert_eq!(map.start_by_id.len(), expected);
                let all: Vec<&Arc<Region>> = map.by_start.values().collect();
                assert!(all.windows(2).all(|w| !w[0].overlaps(w[1])));
                for probe in 0..=21u8 {
                    let holder = all.iter().find(|r| r.contains(&[probe])).map(|r| r.id());
                    assert_eq!(map.get(&[probe]).map(|r| r.id()), holder);
                }
            }
        }
    }
}
