//! What must be true of a simulation in the end, and of its logs at any time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prost::Message as _;
use rutile_linear::is_linearizable;
use rutile_proto::raft_serverpb::{PeerState, RegionLocalState};
use rutile_proto::{key, metapb};

use super::world::{MS, World};
use crate::engine::{Cf, IterOptions};
use crate::raftstore::RaftKv;
use crate::raftstore::apply::members::is_joint;
use crate::raftstore::messages::HashTask;
use crate::raftstore::{keys, region_worker};

impl World {
    /// Two logs that have the same term at an index have the same entry there.
    pub(super) fn check_logs(&self) {
        let mut known: BTreeMap<(u64, u64, u64), (u64, Vec<u8>)> = BTreeMap::new();
        for i in self.running() {
            let Some(live) = &self.nodes[i].live else { continue };
            self.be_another();
            for region_id in live.log.regions().expect("the log can be read") {
                let last = live.log.last_index(region_id).expect("the log can be read").unwrap_or(0);
                let truncated = live.log.truncated(region_id).expect("the log can be read");
                let first = truncated.map_or(6, |t| t.index + 1);
                if last < first {
                    continue;
                }
                for entry in live.log.entries(region_id, first, last + 1, None).expect("the log can be read")
                {
                    let at = (region_id, entry.index, entry.term);
                    let id = self.nodes[i].id;
                    let (other, data) = known.entry(at).or_insert_with(|| (id, entry.data.to_vec()));
                    assert!(
                        data[..] == entry.data[..],
                        "the logs of stores {other} and {id} differ at {at:?}"
                    );
                }
            }
        }
    }

    /// The regions in key order as their leaders know them, when all members have everything and nothing is going on.
    fn settled(&self) -> Result<Vec<(usize, Arc<metapb::Region>)>, String> {
        if self.is_busy() || self.running().len() < self.nodes.len() {
            let asked: Vec<_> = self.admin.iter().map(|(_, what, _)| what).collect();
            return Err(format!("{} clients wait, and {asked:?}", self.pending.len()));
        }
        let mut regions = Vec::new();
        let mut start = bytes::Bytes::new();
        loop {
            let Some((i, region)) = self.leader(&start) else {
                return Err(format!("{start:?} has no leader"));
            };
            if region.start_key != start {
                return Err(format!("region {} does not begin at {start:?}", region.id));
            }
            if is_joint(&region) {
                return Err(format!("region {} changes its members", region.id));
            }
            self.members_agree(i, &region)?;
            start = region.end_key.clone();
            regions.push((i, region));
            if start.is_empty() {
                break;
            }
        }
        for i in self.running() {
            let id = self.nodes[i].id;
            let expected = regions.iter().filter(|(_, r)| r.peers.iter().any(|p| p.store_id == id)).count();
            let there = self.store(i).map_or(0, |s| s.regions().len());
            if expected != there {
                return Err(format!("store {id} has {there} regions instead of {expected}"));
            }
        }
        Ok(regions)
    }

    fn members_agree(&self, leader: usize, region: &metapb::Region) -> Result<(), String> {
        let handle = |i: usize| self.store(i).and_then(|s| s.ctx.registry.get(region.id));
        let applied = handle(leader).map_or(0, |h| h.applied_index());
        // What a leader that crashed has left in the log may come about yet.
        let logged = self.nodes[leader].live.as_ref().and_then(|live| live.log.last_index(region.id).ok()?);
        if logged.is_some_and(|last| last > applied) {
            return Err(format!("region {} is not at the end of its log", region.id));
        }
        for peer in &region.peers {
            let Some(handle) = handle(self.index_of(peer.store_id)) else {
                return Err(format!("store {} lacks region {}", peer.store_id, region.id));
            };
            let known = handle.published();
            if *known.region != *region || known.merging || handle.applied_index() != applied {
                return Err(format!("store {} lags in region {}", peer.store_id, region.id));
            }
        }
        Ok(())
    }

    /// The regions of all stores, for whoever looks for a mistake.
    fn what_stores_have(&self) -> String {
        let mut text = String::new();
        for i in self.running() {
            let Some(live) = &self.nodes[i].live else { continue };
            let registry = &live.store.ctx.registry;
            let _ = write!(text, "\nstore {}, reserved {:?}:", self.nodes[i].id, registry.reserved());
            for handle in registry.all() {
                let known = handle.published();
                let epoch = known.region.region_epoch.unwrap_or_default();
                let peers: Vec<_> = known.region.peers.iter().map(|p| (p.store_id, p.id, p.role())).collect();
                let _ = write!(
                    text,
                    "\n  region {} {:?}..{:?} version {} conf_ver {} term {} leads {} merging {} into {} applied {} asleep {} {peers:?}",
                    known.region.id,
                    known.region.start_key,
                    known.region.end_key,
                    epoch.version,
                    epoch.conf_ver,
                    known.term,
                    known.is_leader,
                    known.merging,
                    handle.merged.lock().as_ref().map_or(0, |m| m.target.id),
                    handle.applied_index(),
                    handle.asleep.load(Ordering::Acquire),
                );
            }
            let states = IterOptions::default();
            let mut iter = Arc::new(live.engine.snapshot()).iter(Cf::Raft, states);
            let mut valid = iter.seek_to_first().expect("the engine can be read");
            while valid {
                if keys::region_of_state(iter.key()).is_some()
                    && let Ok(state) = RegionLocalState::decode(iter.value())
                    && state.state() != PeerState::Normal
                {
                    let _ = write!(text, "\n  state {state:?}");
                }
                valid = iter.next().expect("the engine can be read");
            }
        }
        text
    }

    /// Ends all faults, waits until nothing is going on any more, and checks everything.
    pub(super) fn finish_and_check(&mut self) {
        self.heal();
        super::crash_in(None);
        self.clients = 0;
        let deadline = self.now + 60_000 * MS;
        let mut turns = 0u64;
        let regions = loop {
            match self.settled() {
                Ok(regions) => break regions,
                Err(why) => {
                    assert!(self.now < deadline, "it does not settle: {why}{}", self.what_stores_have())
                }
            }
            for _ in 0..20 {
                self.turn();
            }
            turns += 1;
            if turns.is_multiple_of(10) {
                self.leave_joint();
            }
        };
        let registers: Vec<usize> = self.histories.keys().copied().collect();
        for register in &registers {
            self.read_last(*register);
        }
        for register in registers {
            let ops = &self.histories[&register];
            assert!(is_linearizable(ops), "no register {register} behaves so:\n{ops:#?}");
        }
        self.check_logs();
        self.check_replicas(&regions);
        self.check_strays();
    }

    fn check_replicas(&self, regions: &[(usize, Arc<metapb::Region>)]) {
        for (_, region) in regions {
            let hash = |store_id: u64| {
                let live = self.nodes[self.index_of(store_id)].live.as_ref().expect("runs");
                let snapshot = Arc::new(live.engine.snapshot());
                let task = HashTask { region: Arc::clone(region), index: 0, snapshot };
                region_worker::hash(&task).expect("the engine can be read")
            };
            let hashes: Vec<(u64, u64)> =
                region.peers.iter().map(|p| (p.store_id, hash(p.store_id))).collect();
            if hashes.windows(2).any(|w| w[0].1 != w[1].1) {
                let values: Vec<_> = region.peers.iter().map(|p| self.values(p.store_id, region)).collect();
                panic!("replicas of {region:?} differ: {hashes:?}\n{values:#?}");
            }
        }
    }

    /// What a store has of a region's registers.
    fn values(&self, store_id: u64, region: &metapb::Region) -> String {
        let live = self.nodes[self.index_of(store_id)].live.as_ref().expect("runs");
        let options = IterOptions {
            lower: key::data_key(&region.start_key),
            upper: key::data_end_key(&region.end_key),
            ..Default::default()
        };
        let mut iter = Arc::new(live.engine.snapshot()).iter(Cf::Default, options);
        let mut text = format!("store {store_id}:");
        let mut valid = iter.seek_to_first().expect("the engine can be read");
        while valid {
            let (key, value) = (iter.key()[1..].escape_ascii(), iter.value().escape_ascii());
            let _ = write!(text, " {key}={value}");
            valid = iter.next().expect("the engine can be read");
        }
        text
    }

    /// No store holds data that belongs to none of its regions.
    fn check_strays(&self) {
        for i in self.running() {
            let Some(live) = &self.nodes[i].live else { continue };
            let mut iter = Arc::new(live.engine.snapshot()).iter(Cf::Default, IterOptions::default());
            let mut valid = iter.seek_to_first().expect("the engine can be read");
            while valid {
                let pd_key = &iter.key()[1..];
                let own = live.store.ctx.registry.by_key(pd_key).is_some();
                assert!(
                    own && iter.key()[0] == key::DATA_PREFIX,
                    "store {i} has a stray key {:?}",
                    iter.key()
                );
                valid = iter.next().expect("the engine can be read");
            }
        }
    }
}
