//! Courses of events that must be met for certain.

use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
use rand::Rng;
use rutile_proto::metapb::{self, PeerRole};

use super::clients::key_of;
use super::world::{MS, World};
use crate::raftstore::RaftKv;

/// In the left and in the right half.
const LEFT: usize = 50;
const RIGHT: usize = 150;

fn middle() -> Bytes {
    key_of(100)
}

impl World {
    /// A world whose first region has a leader.
    fn awake(seed: u64) -> Self {
        let mut world = World::new(seed, 4, None);
        world.until("the first region has a leader", |w| w.leader(b"").is_some());
        world.pass(60);
        world
    }

    fn region_id(&self, key: &[u8]) -> Option<u64> {
        self.leader(key).map(|(_, region)| region.id)
    }

    /// Two regions that meet in the middle.
    fn in_halves(seed: u64) -> Self {
        let mut world = World::awake(seed);
        world.split_at(&middle());
        world.until("there are two regions", |w| {
            let ids = (w.region_id(&key_of(LEFT)), w.region_id(&key_of(RIGHT)));
            ids.0.is_some() && ids.1.is_some() && ids.0 != ids.1
        });
        world.pass(30);
        world
    }

    /// Lets a store lead the region of a key.
    fn let_lead(&mut self, key: &Bytes, to: usize) {
        let deadline = self.now + 20_000 * MS;
        while self.leader(key).is_none_or(|(i, _)| i != to) {
            assert!(self.now < deadline, "store {to} does not come to lead");
            self.transfer_to(key, to);
            self.pass(20);
        }
    }

    /// Asks for a change of members until it is done.
    fn change(&mut self, key: &Bytes, kind: raft::eraftpb::ConfChangeType, peer: metapb::Peer) {
        let done = |w: &World| {
            let role = w
                .leader(key)
                .and_then(|(_, r)| r.peers.iter().find(|p| p.id == peer.id).map(metapb::Peer::role));
            match kind {
                AddNode => role == Some(PeerRole::Voter),
                AddLearnerNode => role == Some(PeerRole::Learner),
                RemoveNode => role.is_none() && w.leader(key).is_some(),
            }
        };
        let deadline = self.now + 20_000 * MS;
        while !done(self) {
            assert!(self.now < deadline, "the members do not change");
            if let Some((i, region)) = self.leader(key) {
                self.propose_members(i, &region, vec![(kind, peer)]);
            }
            self.pass(30);
        }
    }
}

#[test]
fn the_regions_of_a_split_lead_at_once() {
    for seed in 1..=5 {
        let mut world = World::awake(seed);
        world.clients = 0;
        world.until("nobody waits", |w| !w.is_busy());
        world.pass(5);
        let (asked, (_, region)) = (world.now, world.leader(b"").unwrap());
        world.split_at(&middle());
        world.until("both halves have leaders that have applied an entry of their term", |w| {
            let serves = |key: &[u8]| {
                let (i, region) = w.leader(key)?;
                let registry = &w.store(i)?.ctx.registry;
                let handle = registry.get(region.id)?;
                (handle.applied_term() == handle.published().term).then_some(region.id)
            };
            let halves = (serves(&key_of(LEFT)), serves(&key_of(RIGHT)));
            halves.1 == Some(region.id) && halves.0.is_some_and(|id| id != region.id)
        });
        let took = (world.now - asked) / MS;
        // An election timeout is 100 ms and a heartbeat 20 ms; each step on the way waits for turns of 1 ms.
        assert!(took < 60, "seed {seed}: {took} ms until a split's regions are led");
        world.finish_and_check();
    }
}

#[test]
fn a_merge_is_rolled_back_when_its_target_changes() {
    let mut world = World::in_halves(3);
    world.let_lead(&key_of(LEFT), 0);
    world.let_lead(&key_of(RIGHT), 1);
    world.pass(50);
    let (_, source) = world.leader(&key_of(LEFT)).unwrap();
    // Store 2 leads the target but does not hear of the prepare; the target changes meanwhile.
    world.net.cut.push((world.nodes[0].id, world.nodes[1].id));
    world.merge_into(&key_of(LEFT), &key_of(RIGHT));
    let merging = |w: &World| {
        let handle = w.store(0).and_then(|s| s.ctx.registry.get(source.id));
        handle.is_some_and(|h| h.published().merging)
    };
    world.until("the source waits", merging);
    world.split_at(&key_of(170));
    let version = |r: &metapb::Region| r.region_epoch.unwrap_or_default().version;
    world.until("the target has changed", |w| w.region_id(&key_of(RIGHT)) != w.region_id(&key_of(190)));
    world.net.cut.clear();
    world.until("the source goes on", |w| {
        w.leader(&key_of(LEFT)).is_some_and(|(_, r)| r.id == source.id && version(&r) == version(&source) + 2)
    });
    world.pass(100);
    world.finish_and_check();
    assert!(world.region_id(&key_of(LEFT)) == Some(source.id), "the merge happened all the same");
}

#[test]
fn a_snapshot_is_taken_in_while_its_region_splits() {
    for seed in 1..=4 {
        let mut world = World::awake(seed);
        let (leader, _) = world.leader(b"").unwrap();
        let away = (leader + 1) % 3;
        world.isolate(away, true, true);
        world.pass(150);
        world.split_at(&middle());
        world.pass(150);
        for i in 0..3 {
            let live = world.nodes[i].live.as_ref().unwrap();
            live.engine.flush().unwrap();
            world.cut_logs_of(i);
        }
        world.pass(30);
        world.net.cut.clear();
        world.until("a snapshot is on its way", |w| w.net.parcels.iter().any(|p| p.snapshot.is_some()));
        for at in [30, 70, 130, 170] {
            world.split_at(&key_of(at));
            let turns = world.rng.random_range(0..4);
            (0..turns).for_each(|_| world.turn());
        }
        world.pass(100);
        world.finish_and_check();
        assert!(world.snapshots > 0, "seed {seed}: no snapshot arrived");
    }
}

#[test]
fn members_change_while_one_is_cut_off() {
    for seed in 1..=4 {
        let mut world = World::awake(seed);
        let (leader, region) = world.leader(b"").unwrap();
        let lost = (leader + 1) % 3;
        world.isolate(lost, seed % 2 == 0, true);
        let coming = metapb::Peer { id: world.pd.id(), store_id: world.nodes[3].id, ..Default::default() };
        let leaving = *region.peers.iter().find(|p| p.store_id == world.nodes[lost].id).unwrap();
        world.change(&key_of(0), AddLearnerNode, coming);
        world.change(&key_of(0), AddNode, coming);
        world.change(&key_of(0), RemoveNode, leaving);
        world.pass(50);
        world.net.cut.clear();
        world.until("the lost peer is gone", |w| w.store(lost).is_some_and(|s| s.regions().is_empty()));
        world.finish_and_check();
    }
}

#[test]
fn regions_merge_while_their_leaders_change() {
    let mut merged = 0;
    for seed in 1..=6 {
        let mut world = World::in_halves(seed);
        let (source, target) = (key_of(LEFT), key_of(RIGHT));
        for _ in 0..3 {
            world.merge_into(&source, &target);
            let turns = world.rng.random_range(0..12);
            (0..turns).for_each(|_| world.turn());
            for key in [&source, &target] {
                let to = world.rng.random_range(0..3);
                world.transfer_to(key, to);
            }
            if seed % 2 == 0
                && let Some((leader, _)) = world.leader(&source)
            {
                world.crash(leader, 120 * MS);
            }
            world.pass(150);
        }
        world.finish_and_check();
        merged += u64::from(world.region_id(&source) == world.region_id(&target));
    }
    assert!(merged > 2, "only {merged} of 6 merges came about");
}

/// A course of events with something of everything; a store may crash on the way. Also returns how many edges there are before all
/// faults end.
pub(super) fn course(seed: u64, crash_at: Option<u64>) -> (World, u64) {
    let mut world = World::in_halves(seed);
    let before = super::edges();
    super::crash_in(crash_at);
    world.merge_into(&key_of(LEFT), &key_of(RIGHT));
    world.pass(100);
    let (leader, region) = world.leader(b"").map_or((0, None), |(i, r)| (i, Some(r)));
    if let Some(region) = region {
        let peer = metapb::Peer { id: world.pd.id(), store_id: world.nodes[3].id, ..Default::default() };
        world.propose_members(leader, &region, vec![(AddLearnerNode, peer)]);
    }
    (0..4).for_each(|i| world.cut_logs_of(i));
    world.pass(100);
    world.split_at(&key_of(70));
    world.pass(60);
    world.transfer_to(&key_of(LEFT), (leader + 1) % 3);
    let removed = world.leader(&key_of(RIGHT)).and_then(|(i, region): (usize, Arc<metapb::Region>)| {
        let id = world.nodes[i].id;
        let peer = region.peers.iter().find(|p| p.store_id != id && p.role() == PeerRole::Voter).copied()?;
        Some((i, region, peer))
    });
    if let Some((i, region, peer)) = removed {
        world.propose_members(i, &region, vec![(RemoveNode, peer)]);
    }
    world.pass(150);
    let edges = super::edges() - before;
    world.finish_and_check();
    (world, edges)
}
