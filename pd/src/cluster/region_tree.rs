//! The regions by start key and by id, as heartbeats tell them.
//!
//! Invariant: regions in the tree never overlap; of two that do, the one with the larger version stays.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use rutile_proto::metapb::{Peer, PeerRole, Region, RegionEpoch};
use rutile_proto::pdpb::PeerStats;

/// What is known of a region.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionInfo {
    /// Range, epoch, peers.
    pub meta: Region,
    /// The peer that leads, once known.
    pub leader: Option<Peer>,
    /// Raft term of the leader that told us.
    pub term: u64,
    /// Unix milliseconds since when range, epoch and peers are what they are; 0 = no heartbeat told yet.
    pub since_ms: u64,
    /// Peers that do not answer the leader.
    pub down_peers: Vec<PeerStats>,
    /// Peers that are catching up.
    pub pending_peers: Vec<Peer>,
    /// Estimated bytes of data.
    pub approximate_size_bytes: u64,
    /// Estimated number of keys.
    pub approximate_keys: u64,
    /// Bytes written in the last heartbeat interval.
    pub written_bytes: u64,
    /// Bytes read in the last heartbeat interval.
    pub read_bytes: u64,
    /// Unix milliseconds of the last heartbeat.
    pub heard_ms: u64,
    /// Unix milliseconds when its range changed last, as far as is known.
    pub split_ms: u64,
    /// How much is read and written, on average.
    pub flow: Flow,
}

/// What a region reads and writes, as an average that follows the last heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes per second.
    pub written_bytes_per_s: u64,
    /// Bytes per second.
    pub read_bytes_per_s: u64,
    /// Heartbeats in a row with more writing than the bound for hot regions.
    pub hot_write_heartbeats: u32,
    /// Heartbeats in a row with more reading than the bound for hot regions.
    pub hot_read_heartbeats: u32,
}

impl Flow {
    /// The flow after one more heartbeat.
    #[must_use]
    pub fn after(self, written_bytes: u64, read_bytes: u64, interval_ms: u64, hot_bytes_per_s: u64) -> Self {
        let interval_ms = interval_ms.max(1);
        let average = |old: u64, bytes: u64| {
            let new = bytes.saturating_mul(1000) / interval_ms;
            if old == 0 { new } else { (old + new) / 2 }
        };
        let written_bytes_per_s = average(self.written_bytes_per_s, written_bytes);
        let read_bytes_per_s = average(self.read_bytes_per_s, read_bytes);
        let count = |old: u32, rate: u64| if rate >= hot_bytes_per_s { old.saturating_add(1) } else { 0 };
        Flow {
            written_bytes_per_s,
            read_bytes_per_s,
            hot_write_heartbeats: count(self.hot_write_heartbeats, written_bytes_per_s),
            hot_read_heartbeats: count(self.hot_read_heartbeats, read_bytes_per_s),
        }
    }
}

impl RegionInfo {
    /// Conf version and version.
    #[must_use]
    pub fn epoch(&self) -> RegionEpoch {
        self.meta.region_epoch.unwrap_or_default()
    }

    /// Whether a change of several members was begun and is not finished.
    #[must_use]
    pub fn is_in_joint_state(&self) -> bool {
        let joint = |peer: &Peer| matches!(peer.role(), PeerRole::IncomingVoter | PeerRole::DemotingVoter);
        self.meta.peers.iter().any(joint)
    }
}

/// What an update did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// The news were older than what is known.
    Stale,
    /// Only statistics changed.
    Statistics,
    /// Range, epoch, peers or leader changed; these regions were pushed out.
    Changed {
        /// Ids of the regions that are no longer in the tree.
        removed: Vec<u64>,
    },
}

/// All regions.
#[derive(Debug, Default)]
pub struct RegionTree {
    by_start: BTreeMap<Bytes, Arc<RegionInfo>>,
    start_of: HashMap<u64, Bytes>,
}

impl RegionTree {
    /// How many regions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// Whether no region is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// By id.
    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<&Arc<RegionInfo>> {
        self.by_start.get(self.start_of.get(&id)?)
    }

    /// The region that holds a key (PD form).
    #[must_use]
    pub fn by_key(&self, key: &[u8]) -> Option<&Arc<RegionInfo>> {
        let (_, region) =
            self.by_start.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        (region.meta.end_key.is_empty() || key < region.meta.end_key.as_ref()).then_some(region)
    }

    /// The region before the one that holds a key.
    #[must_use]
    pub fn before_key(&self, key: &[u8]) -> Option<&Arc<RegionInfo>> {
        let start = &self.by_key(key)?.meta.start_key;
        let (_, region) = self
            .by_start
            .range::<[u8], _>((Bound::Unbounded, Bound::Excluded(start.as_ref())))
            .next_back()?;
        (region.meta.end_key == *start).then_some(region)
    }

    /// Regions that touch `[start, end)`, in order; an empty end is unbounded.
    pub fn scan<'a>(
        &'a self,
        start: &'a [u8],
        end: &'a [u8],
    ) -> impl Iterator<Item = &'a Arc<RegionInfo>> + 'a {
        let first = self.by_key(start).map_or(start, |region| region.meta.start_key.as_ref());
        self.by_start
            .range::<[u8], _>((Bound::Included(first), Bound::Unbounded))
            .map(|(_, region)| region)
            .take_while(move |region| end.is_empty() || region.meta.start_key.as_ref() < end)
    }

    /// All regions in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RegionInfo>> {
        self.by_start.values()
    }

    /// Takes what a leader tells.
    pub fn update(&mut self, mut region: RegionInfo) -> Update {
        let epoch = region.epoch();
        let known = self.by_id(region.meta.id).cloned();
        if let Some(known) = &known {
            let old = known.epoch();
            let older_epoch = epoch.version < old.version || epoch.conf_ver < old.conf_ver;
            let older_term = epoch == old && region.term != 0 && region.term < known.term;
            if older_epoch || older_term {
                return Update::Stale;
            }
        }
        let overlapping: Vec<Arc<RegionInfo>> = self
            .scan(&region.meta.start_key, &region.meta.end_key)
            .filter(|other| other.meta.id != region.meta.id)
            .cloned()
            .collect();
        if overlapping.iter().any(|other| epoch.version < other.epoch().version) {
            return Update::Stale;
        }
        let same = known.as_ref().is_some_and(|known| {
            known.meta == region.meta && known.leader == region.leader && overlapping.is_empty()
        });
        if let Some(known) = known {
            if known.meta == region.meta && known.since_ms != 0 {
                region.since_ms = known.since_ms;
            }
            if known.epoch().version == epoch.version {
                region.split_ms = known.split_ms;
            }
            self.by_start.remove(&known.meta.start_key);
        }
        let removed: Vec<u64> = overlapping.iter().map(|other| other.meta.id).collect();
        for other in overlapping {
            self.by_start.remove(&other.meta.start_key);
            self.start_of.remove(&other.meta.id);
        }
        self.start_of.insert(region.meta.id, region.meta.start_key.clone());
        self.by_start.insert(region.meta.start_key.clone(), Arc::new(region));
        if same { Update::Statistics } else { Update::Changed { removed } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(id: u64, start: &'static str, end: &'static str, version: u64) -> RegionInfo {
        let meta = Region {
            id,
            start_key: start.into(),
            end_key: end.into(),
            region_epoch: Some(RegionEpoch { conf_ver: 1, version }),
            peers: vec![Peer { id: id * 10, store_id: 1, ..Default::default() }],
            ..Default::default()
        };
        RegionInfo { leader: meta.peers.first().copied(), meta, term: 5, ..Default::default() }
    }

    fn ids<'a>(regions: impl Iterator<Item = &'a Arc<RegionInfo>>) -> Vec<u64> {
        regions.map(|region| region.meta.id).collect()
    }

    #[test]
    fn look_ups() {
        let mut tree = RegionTree::default();
        for r in [region(1, "", "b", 1), region(2, "b", "d", 1), region(3, "d", "", 1)] {
            assert_eq!(tree.update(r), Update::Changed { removed: vec![] });
        }
        let by_key = |key: &str| tree.by_key(key.as_bytes()).map(|r| r.meta.id);
        assert_eq!(
            (by_key(""), by_key("b"), by_key("cz"), by_key("zz")),
            (Some(1), Some(2), Some(2), Some(3))
        );
        assert_eq!(tree.before_key(b"c").map(|r| r.meta.id), Some(1));
        assert_eq!(tree.before_key(b"a").map(|r| r.meta.id), None);
        assert_eq!(ids(tree.scan(b"c", b"")), [2, 3]);
        assert_eq!(ids(tree.scan(b"", b"b")), [1]);
        assert_eq!(ids(tree.scan(b"a", b"bb")), [1, 2]);
        assert_eq!(tree.by_id(3).map(|r| r.meta.start_key.clone()), Some("d".into()));
        assert_eq!(tree.update(region(2, "b", "d", 1)), Update::Statistics);
    }

    #[test]
    fn a_split_told_in_any_order_leaves_no_overlap() {
        for order in [[0, 1], [1, 0]] {
            let mut tree = RegionTree::default();
            tree.update(region(1, "", "", 1));
            let halves = [region(1, "m", "", 2), region(2, "", "m", 2)];
            for at in order {
                assert!(matches!(tree.update(halves[at].clone()), Update::Changed { .. }));
            }
            assert_eq!(ids(tree.iter()), [2, 1], "order {order:?}");
            assert_eq!(tree.update(region(1, "", "", 1)), Update::Stale);
            assert_eq!(tree.len(), 2);
        }
    }

    #[test]
    fn a_merge_pushes_the_neighbour_out() {
        let mut tree = RegionTree::default();
        tree.update(region(1, "", "m", 2));
        tree.update(region(2, "m", "", 2));
        assert_eq!(tree.update(region(1, "", "", 3)), Update::Changed { removed: vec![2] });
        assert_eq!(tree.update(region(2, "m", "", 2)), Update::Stale);
        assert_eq!(tree.by_id(2), None);
        let mut old_leader = region(1, "", "", 3);
        old_leader.term = 4;
        assert_eq!(tree.update(old_leader), Update::Stale);
    }
}
