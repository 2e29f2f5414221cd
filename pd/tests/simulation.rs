//! A simulated cluster under the real schedulers: stores that carry out operators, join, leave and die. Time is a number, and
//! everything follows from the seed.

use std::collections::{BTreeMap, BTreeSet};

use rutile_pd::cluster::region_tree::{RegionInfo, RegionTree};
use rutile_pd::cluster::stores::Stores;
use rutile_pd::schedule::config::ScheduleConfig;
use rutile_pd::schedule::controller::Controller;
use rutile_pd::schedule::operator::{Operator, Step};
use rutile_pd::schedule::proposal::Goal;
use rutile_pd::schedule::view::ClusterView;
use rutile_pd::schedule::{builder, patrol};
use rutile_proto::metapb::{Peer, PeerRole, Region, RegionEpoch, Store, StoreLabel, StoreState};
use rutile_proto::pdpb::{PeerStats, RegionHeartbeatResponse, StoreStats};

const TICK_MS: u64 = 1_000;
/// Ticks until a new peer has caught up.
const CATCH_UP_TICKS: u64 = 3;

struct Cluster {
    stores: Stores,
    dead: BTreeSet<u64>,
    regions: BTreeMap<u64, RegionInfo>,
    /// Peers that are catching up, and until when.
    catching_up: BTreeMap<u64, u64>,
    /// What the placement driver knows.
    known: RegionTree,
    controller: Controller,
    config: ScheduleConfig,
    now_ms: u64,
    next_id: u64,
    operators: usize,
}

impl Cluster {
    fn new(stores: u64, regions: u64, config: ScheduleConfig) -> Self {
        let mut cluster = Cluster {
            stores: Stores::default(),
            dead: BTreeSet::new(),
            regions: BTreeMap::new(),
            catching_up: BTreeMap::new(),
            known: RegionTree::default(),
            controller: Controller::default(),
            config,
            now_ms: 1_000_000,
            next_id: 10_000,
            operators: 0,
        };
        for id in 1..=stores {
            cluster.add_store(id, &[]);
        }
        for id in 1..=regions {
            let key = |at: u64| if at == 0 || at == regions { String::new() } else { format!("k{at:06}") };
            let peers: Vec<Peer> =
                (1..=stores.min(3)).map(|store| cluster.peer(store, PeerRole::Voter)).collect();
            let meta = Region {
                id,
                start_key: key(id - 1).into(),
                end_key: key(id).into(),
                region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
                peers: peers.clone(),
                ..Default::default()
            };
            let region = RegionInfo {
                meta,
                leader: Some(peers[0]),
                approximate_size_bytes: 64 << 20,
                since_ms: cluster.now_ms,
                split_ms: cluster.now_ms,
                ..Default::default()
            };
            cluster.regions.insert(id, region);
        }
        cluster
    }

    fn peer(&mut self, store_id: u64, role: PeerRole) -> Peer {
        self.next_id += 1;
        Peer { id: self.next_id, store_id, role: role as i32, is_witness: false }
    }

    fn add_store(&mut self, id: u64, labels: &[(&str, &str)]) {
        let label = |(key, value): &(&str, &str)| StoreLabel { key: (*key).into(), value: (*value).into() };
        let store = Store {
            id,
            address: format!("s{id}:1"),
            labels: labels.iter().map(label).collect(),
            ..Default::default()
        };
        self.stores.put(store, self.now_ms);
    }

    fn set_state(&mut self, id: u64, state: StoreState) {
        let mut meta = self.stores.get(id).unwrap().meta.clone();
        meta.state = state as i32;
        self.stores.put(meta, self.now_ms);
    }

    /// One second: heartbeats, what the schedulers make of it, and what the stores do.
    fn tick(&mut self, seed: u64) {
        self.now_ms += TICK_MS;
        let ids: Vec<u64> = self.stores.iter().map(|store| store.meta.id).collect();
        for store_id in ids.into_iter().filter(|id| !self.dead.contains(id)) {
            self.stores.heartbeat(StoreStats { store_id, ..Default::default() }, self.now_ms);
        }
        self.elect();
        for id in self.regions.keys().copied().collect::<Vec<_>>() {
            let region = self.heartbeat_of(id);
            if self.is_dead(region.leader) {
                continue;
            }
            self.known.update(region.clone());
            if let Some(answer) = self.controller.on_heartbeat(&region, self.now_ms) {
                self.carry_out(&answer);
            }
        }
        self.schedule(seed);
        for answer in self.controller.tick(&self.known, self.now_ms) {
            self.carry_out(&answer);
        }
        self.check_safety();
    }

    fn is_dead(&self, peer: Option<Peer>) -> bool {
        peer.is_none_or(|peer| self.dead.contains(&peer.store_id))
    }

    fn heartbeat_of(&mut self, id: u64) -> RegionInfo {
        let now_ms = self.now_ms;
        self.catching_up.retain(|_, until| *until > now_ms);
        let mut region = self.regions[&id].clone();
        region.pending_peers =
            region.meta.peers.iter().filter(|p| self.catching_up.contains_key(&p.id)).copied().collect();
        let silent_s = |store: u64| (now_ms - self.stores.get(store).unwrap().heard_ms) / 1000;
        let down = region.meta.peers.iter().filter(|peer| self.dead.contains(&peer.store_id));
        region.down_peers =
            down.map(|p| PeerStats { peer: Some(*p), down_seconds: silent_s(p.store_id) }).collect();
        region
    }

    /// A region whose leader is dead elects another one, if a majority lives.
    fn elect(&mut self) {
        for region in self.regions.values_mut() {
            let lives = |peer: &&Peer| !self.dead.contains(&peer.store_id);
            if region.leader.as_ref().filter(lives).is_none() {
                region.leader =
                    region.meta.peers.iter().filter(lives).find(|p| p.role() == PeerRole::Voter).copied();
            }
        }
    }

    fn schedule(&mut self, seed: u64) {
        let influence = self.controller.influence(&self.known);
        let config = self.config.clone();
        let mut view = ClusterView::new(&self.known, &self.stores, &config, &influence, self.now_ms);
        for proposal in patrol::propose(&mut view, &self.controller, &[], seed) {
            let region = self.known.by_id(proposal.region_id).unwrap().clone();
            if let Goal::MergeInto { .. } = proposal.goal {
                continue;
            }
            let ids = self.next_id + 1..;
            self.next_id += 10;
            if let Ok(steps) = builder::build(&view, &region, &proposal.goal, ids) {
                let operator = Operator::new(&region, proposal.reason, proposal.kind, steps, self.now_ms);
                self.operators += usize::from(self.controller.add(operator).is_ok());
            }
        }
    }

    /// What a region's leader does when it is told to.
    fn carry_out(&mut self, answer: &RegionHeartbeatResponse) {
        let Some(region) = self.regions.get_mut(&answer.region_id) else { return };
        if region.leader.is_none_or(|leader| self.dead.contains(&leader.store_id))
            || answer.region_epoch != region.meta.region_epoch
        {
            return;
        }
        if let Some(transfer) = &answer.transfer_leader {
            let to = transfer.peer.unwrap();
            let to = region.meta.peers.iter().find(|peer| peer.id == to.id).unwrap();
            assert!(matches!(to.role(), PeerRole::Voter | PeerRole::IncomingVoter), "a learner cannot lead");
            if !self.dead.contains(&to.store_id) {
                region.leader = Some(*to);
            }
            return;
        }
        if answer.change_peer.is_none() && answer.change_peer_v2.is_none() {
            return;
        }
        let joint = answer.change_peer_v2.as_ref();
        let changes: Vec<_> =
            answer.change_peer.iter().chain(joint.iter().flat_map(|j| &j.changes)).collect();
        let epoch = region.meta.region_epoch.as_mut().unwrap();
        epoch.conf_ver += changes.len().max(1) as u64;
        if let Some(joint) = joint.filter(|joint| joint.changes.is_empty()) {
            assert!(joint.changes.is_empty());
            for peer in &mut region.meta.peers {
                peer.role = match peer.role() {
                    PeerRole::IncomingVoter => PeerRole::Voter,
                    PeerRole::DemotingVoter => PeerRole::Learner,
                    other => other,
                } as i32;
            }
        }
        let in_joint = joint.is_some();
        for change in changes {
            let wanted = change.peer.unwrap();
            let known = region.meta.peers.iter_mut().find(|peer| peer.id == wanted.id);
            match (change.change_type, known) {
                (0, Some(peer)) => {
                    assert!(!self.catching_up.contains_key(&peer.id), "a vote for a peer that is behind");
                    peer.role = if in_joint { PeerRole::IncomingVoter } else { PeerRole::Voter } as i32;
                }
                (2, Some(peer)) => peer.role = PeerRole::DemotingVoter as i32,
                (2, None) => {
                    assert!(region.meta.peers.iter().all(|peer| peer.store_id != wanted.store_id));
                    self.catching_up.insert(wanted.id, self.now_ms + CATCH_UP_TICKS * TICK_MS);
                    region.meta.peers.push(wanted);
                }
                (1, Some(peer)) => {
                    let gone = *peer;
                    assert_ne!(region.leader.map(|leader| leader.id), Some(gone.id), "the leader is removed");
                    region.meta.peers.retain(|peer| peer.id != gone.id);
                }
                other => panic!("a change that makes no sense: {other:?}"),
            }
        }
        let leader = region.leader.unwrap();
        region.leader = region.meta.peers.iter().find(|peer| peer.id == leader.id).copied();
        region.since_ms = self.now_ms;
    }

    /// No region ever has fewer replicas that caught up than it can have.
    fn check_safety(&self) {
        for region in self.regions.values() {
            let votes = |peer: &&Peer| peer.role() != PeerRole::Learner;
            let well =
                region.meta.peers.iter().filter(votes).filter(|p| !self.catching_up.contains_key(&p.id));
            let wanted = 3.min(self.stores.iter().count());
            let dead = self.dead.len();
            assert!(
                well.filter(|peer| !self.dead.contains(&peer.store_id)).count() + dead >= wanted,
                "region {} lost a replica: {:?}",
                region.meta.id,
                region.meta.peers
            );
        }
    }

    fn peers_on(&self, store: u64) -> usize {
        self.regions.values().filter(|r| r.meta.peers.iter().any(|p| p.store_id == store)).count()
    }

    fn leaders_on(&self, store: u64) -> usize {
        self.regions.values().filter(|r| r.leader.is_some_and(|leader| leader.store_id == store)).count()
    }

    /// Runs until nothing was to do for a while; returns the seconds it took.
    fn run_until_quiet(&mut self) -> u64 {
        let begin = self.now_ms;
        let mut quiet = 0;
        for seed in 0..20_000 {
            let before = self.operators;
            self.tick(seed * 7919);
            quiet = if self.operators == before && self.controller.running().count() == 0 {
                quiet + 1
            } else {
                0
            };
            if quiet > 20 {
                return (self.now_ms - begin) / 1000;
            }
        }
        panic!("the schedulers never come to rest: {:?}", self.controller.running().next());
    }

    fn assert_even(&self, stores: impl Iterator<Item = u64> + Clone) {
        for (what, counts) in [
            ("peers", stores.clone().map(|id| self.peers_on(id)).collect::<Vec<_>>()),
            ("leaders", stores.clone().map(|id| self.leaders_on(id)).collect()),
        ] {
            let (min, max) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
            let average = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
            assert!((max - min) as f64 <= (average * 0.1).max(2.0), "{what} are uneven: {counts:?}");
        }
    }
}

#[test]
fn a_fourth_store_evens_out_and_is_decommissioned_again() {
    for regions in [1, 7, 100, 1000] {
        let mut cluster = Cluster::new(3, regions, ScheduleConfig::default());
        cluster.run_until_quiet();
        cluster.assert_even(1..=3);
        cluster.add_store(4, &[]);
        let took = cluster.run_until_quiet();
        cluster.assert_even(1..=4);
        println!("{regions} regions: even after {took} s and {} operators", cluster.operators);
        cluster.set_state(4, StoreState::Offline);
        cluster.run_until_quiet();
        assert_eq!(cluster.peers_on(4), 0, "the store is empty");
        cluster.set_state(4, StoreState::Tombstone);
        assert!(cluster.regions.values().all(|region| region.meta.peers.len() == 3));
        cluster.assert_even(1..=3);
    }
}

#[test]
fn a_dead_store_is_replaced_where_another_one_is_left() {
    let mut cluster = Cluster::new(4, 60, ScheduleConfig::default());
    cluster.run_until_quiet();
    cluster.dead.insert(2);
    for seed in 0..100 {
        cluster.tick(seed);
    }
    assert!(cluster.peers_on(2) > 0, "a short silence moves nothing");
    cluster.now_ms += 1_800_000;
    cluster.run_until_quiet();
    assert_eq!(cluster.peers_on(2), 0);
    assert!(cluster.regions.values().all(|region| region.meta.peers.len() == 3));

    // With three stores left, the next dead one cannot be replaced: its replicas stay where they are.
    cluster.dead.insert(3);
    cluster.now_ms += 1_800_000;
    cluster.run_until_quiet();
    assert_eq!(cluster.peers_on(3), 60);
}

#[test]
fn one_store_is_left_alone_and_more_stores_get_replicas() {
    let mut cluster = Cluster::new(1, 20, ScheduleConfig::default());
    cluster.run_until_quiet();
    assert_eq!(cluster.operators, 0, "nothing to do for one store");
    for (stores, replicas) in [(2, 2), (3, 3), (5, 3)] {
        for id in 2..=stores {
            if cluster.stores.get(id).is_none() {
                cluster.add_store(id, &[]);
            }
        }
        // Of replicas that must come first, so that the safety check counts them.
        let mut waited = 0;
        while cluster.regions.values().any(|r| r.meta.peers.len() < replicas) {
            waited += 1;
            assert!(waited < 1_000, "replicas never come");
            cluster.tick_unchecked(waited);
        }
        cluster.run_until_quiet_unchecked();
        assert!(cluster.regions.values().all(|region| region.meta.peers.len() == replicas));
        cluster.assert_even(1..=stores);
    }
}

#[test]
fn replicas_are_spread_over_zones() {
    let config = ScheduleConfig { location_labels: vec!["zone".into()], ..ScheduleConfig::default() };
    let mut cluster = Cluster::new(3, 50, config);
    for (id, zone) in [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "c"), (6, "c")] {
        cluster.add_store(id, &[("zone", zone)]);
    }
    cluster.run_until_quiet();
    let zone = |peer: &Peer| cluster.stores.get(peer.store_id).unwrap().meta.labels[0].value.clone();
    for region in cluster.regions.values() {
        let zones: BTreeSet<String> = region.meta.peers.iter().map(zone).collect();
        assert_eq!(zones.len(), 3, "region {}: {:?}", region.meta.id, region.meta.peers);
    }
}

#[test]
fn an_unfinished_change_of_members_is_finished() {
    let mut cluster = Cluster::new(4, 3, ScheduleConfig::default());
    let learner = cluster.peer(4, PeerRole::IncomingVoter);
    let region = cluster.regions.get_mut(&1).unwrap();
    // As a placement driver that died left it: store 1 leads and loses its vote.
    region.meta.peers[0].role = PeerRole::DemotingVoter as i32;
    region.meta.peers.push(learner);
    region.leader = Some(region.meta.peers[0]);
    cluster.run_until_quiet();
    let region = &cluster.regions[&1];
    assert!(region.meta.peers.iter().all(|peer| peer.role() == PeerRole::Voter));
    assert_eq!(region.meta.peers.len(), 3);
}

#[test]
fn a_hot_region_leaves_the_hottest_store() {
    let mut cluster = Cluster::new(3, 30, ScheduleConfig::default());
    cluster.run_until_quiet();
    let led_by_1: Vec<u64> = cluster
        .regions
        .values()
        .filter(|r| r.leader.is_some_and(|leader| leader.store_id == 1))
        .map(|r| r.meta.id)
        .collect();
    for id in &led_by_1 {
        let flow = &mut cluster.regions.get_mut(id).unwrap().flow;
        flow.written_bytes_per_s = 10 << 20;
        flow.hot_write_heartbeats = 10;
    }
    // Leaders are even, so only the flow gives reason to move one.
    for seed in 0..200 {
        cluster.tick(seed);
    }
    let hot_on = |store: u64| {
        let led =
            led_by_1.iter().filter(|id| cluster.regions[id].leader.is_some_and(|l| l.store_id == store));
        led.count()
    };
    assert!(hot_on(1) <= 5 && hot_on(2) >= 2 && hot_on(3) >= 2, "{} {} {}", hot_on(1), hot_on(2), hot_on(3));
}

impl Cluster {
    fn tick_unchecked(&mut self, seed: u64) {
        let dead = self.dead.clone();
        // Replicas that are still missing count as dead.
        self.dead.extend([u64::MAX, u64::MAX - 1, u64::MAX - 2]);
        self.tick(seed);
        self.dead = dead;
    }

    fn run_until_quiet_unchecked(&mut self) {
        let dead = self.dead.clone();
        self.dead.extend([u64::MAX, u64::MAX - 1, u64::MAX - 2]);
        self.run_until_quiet();
        self.dead = dead;
    }
}

#[test]
fn steps_are_told_in_the_words_of_the_protocol() {
    let cluster = Cluster::new(3, 1, ScheduleConfig::default());
    let region = &cluster.regions[&1];
    let split = Step::Split(vec!["k".into()]).instruct(region).unwrap();
    assert_eq!(split.split_region.unwrap().keys, ["k"]);
    assert_eq!((split.region_id, split.target_peer), (1, region.leader));
}
