//! What each checker and scheduler proposes for small clusters: `golden/<scheduler>.txt`.
//!
//! A case is a comment, stores and regions, `----`, and what is proposed. `UPDATE_GOLDENFILES=1` writes anew what follows the line.
//!
//! ```text
//! set max-replicas 5
//! store 1 zone=a host=h1 [silent 40] [offline] [full]
//! region 1 a..m 1L 2 3l 4^ 5v [down 3] [pending 2] [size 64] [written 1000] [read 1000] [young]
//! ```
//! A peer is its store: `L` leads, `l` is a learner, `^` and `v` are voters that come and go in a joint state. Sizes are in MiB, flows in
//! KiB per second, times in seconds.

use std::path::Path;

use rutile_pd::cluster::region_tree::{RegionInfo, RegionTree};
use rutile_pd::cluster::stores::Stores;
use rutile_pd::schedule::config::ScheduleConfig;
use rutile_pd::schedule::hot_region::{self, Flow};
use rutile_pd::schedule::proposal::Proposal;
use rutile_pd::schedule::scatter::{self, Group};
use rutile_pd::schedule::view::{ClusterView, Influence};
use rutile_pd::schedule::{balance_leader, balance_region, merge_checker, replica_checker};
use rutile_proto::metapb::{Peer, PeerRole, Region, RegionEpoch, Store, StoreLabel, StoreState};
use rutile_proto::pdpb::{PeerStats, StoreStats};

const NOW_MS: u64 = 100_000_000;

#[derive(Default)]
struct Case {
    config: ScheduleConfig,
    stores: Stores,
    regions: RegionTree,
}

/// `[name value]` among the words of a line.
fn options(line: &str) -> Vec<(&str, &str)> {
    let parts = line.split('[').skip(1).filter_map(|part| part.split(']').next());
    parts.map(|part| part.split_once(' ').unwrap_or((part, ""))).collect()
}

impl Case {
    fn parse(text: &str) -> Self {
        let mut case = Case::default();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            let words: Vec<&str> = line.split('[').next().unwrap().split_whitespace().collect();
            match words[0] {
                "set" => case.config = case.config.set(words[1], words[2]).unwrap(),
                "store" => case.store(&words[1..], &options(line)),
                "region" => case.region(&words[1..], &options(line)),
                other => panic!("\"{other}\" in a golden file"),
            }
        }
        case
    }

    fn store(&mut self, words: &[&str], options: &[(&str, &str)]) {
        let id: u64 = words[0].parse().unwrap();
        let labels = words[1..].iter().map(|word| {
            let (key, value) = word.split_once('=').unwrap();
            StoreLabel { key: key.into(), value: value.into() }
        });
        let mut store =
            Store { id, address: format!("s{id}"), labels: labels.collect(), ..Default::default() };
        let mut stats = StoreStats { store_id: id, capacity: 100, available: 50, ..Default::default() };
        let mut heard_ms = NOW_MS;
        for (name, value) in options {
            match *name {
                "offline" => store.state = StoreState::Offline as i32,
                "full" => stats.available = 1,
                "silent" => heard_ms -= value.parse::<u64>().unwrap() * 1000,
                other => panic!("store [{other}]"),
            }
        }
        self.stores.put(store, heard_ms);
        self.stores.heartbeat(stats, heard_ms);
    }

    fn region(&mut self, words: &[&str], options: &[(&str, &str)]) {
        let id: u64 = words[0].parse().unwrap();
        let (start, end) = words[1].split_once("..").unwrap();
        let mut region = RegionInfo { since_ms: 1, ..Default::default() };
        region.meta = Region {
            id,
            start_key: start.to_owned().into(),
            end_key: end.to_owned().into(),
            region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
            ..Default::default()
        };
        for word in &words[2..] {
            let store_id = word.trim_end_matches(['L', 'l', '^', 'v']).parse().unwrap();
            let role = match word.chars().last().unwrap() {
                'l' => PeerRole::Learner,
                '^' => PeerRole::IncomingVoter,
                'v' => PeerRole::DemotingVoter,
                _ => PeerRole::Voter,
            };
            let peer = Peer { id: id * 100 + store_id, store_id, role: role as i32, is_witness: false };
            region.meta.peers.push(peer);
            if word.ends_with('L') {
                region.leader = Some(peer);
            }
        }
        let peer_on = |text: &str| {
            let store_id: u64 = text.parse().unwrap();
            *region.meta.peers.iter().find(|peer| peer.store_id == store_id).unwrap()
        };
        let down_seconds = self.config.max_store_down_time_s;
        let (mut down, mut pending) = (Vec::new(), Vec::new());
        for (name, value) in options {
            match *name {
                "down" => down.push(PeerStats { peer: Some(peer_on(value)), down_seconds }),
                "pending" => pending.push(peer_on(value)),
                "size" => region.approximate_size_bytes = value.parse::<u64>().unwrap() << 20,
                "written" => region.flow.written_bytes_per_s = value.parse::<u64>().unwrap() << 10,
                "read" => region.flow.read_bytes_per_s = value.parse::<u64>().unwrap() << 10,
                "young" => region.split_ms = NOW_MS,
                other => panic!("region [{other}]"),
            }
        }
        let hot = self.config.hot_region_bytes_per_s;
        region.flow.hot_write_heartbeats = if region.flow.written_bytes_per_s >= hot { 9 } else { 0 };
        region.flow.hot_read_heartbeats = if region.flow.read_bytes_per_s >= hot { 9 } else { 0 };
        region.down_peers = down;
        region.pending_peers = pending;
        self.regions.update(region);
    }

    fn propose(&self, scheduler: &str) -> Vec<Proposal> {
        let influence = Influence::default();
        let view = ClusterView::new(&self.regions, &self.stores, &self.config, &influence, NOW_MS);
        let regions = || self.regions.iter();
        match scheduler {
            "replica_checker" => regions().filter_map(|r| replica_checker::check(&view, r)).collect(),
            "merge_checker" => regions().filter_map(|r| merge_checker::check(&view, r, &[0])).collect(),
            "balance_region" => balance_region::schedule(&view, 0, 8),
            "balance_leader" => balance_leader::schedule(&view, 0, 8),
            "hot_region" => {
                [Flow::Write, Flow::Read].into_iter().filter_map(|f| hot_region::schedule(&view, f)).collect()
            }
            "scatter" => {
                let mut group = Group::default();
                regions().filter_map(|region| scatter::scatter(&view, region, &mut group)).collect()
            }
            other => panic!("no scheduler {other}"),
        }
    }
}

fn check(scheduler: &str) {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let path = Path::new(&folder).join(format!("tests/golden/{scheduler}.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut found = String::new();
    for case in text.split("\n\n").filter(|case| !case.trim().is_empty()) {
        let input = case.split("----").next().unwrap().trim_end();
        found.push_str(input.trim_start());
        found.push_str("\n----\n");
        let proposals = Case::parse(input).propose(scheduler);
        if proposals.is_empty() {
            found.push_str("nothing\n");
        }
        for proposal in proposals {
            found.push_str(&format!("{proposal}\n"));
        }
        found.push('\n');
    }
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::write(&path, found).unwrap();
    } else {
        assert_eq!(found, text, "{}", path.display());
    }
}

macro_rules! golden {
    ($($scheduler:ident)*) => {
        $(
            #[test]
            fn $scheduler() {
                check(stringify!($scheduler));
            }
        )*
    };
}

golden!(replica_checker merge_checker balance_region balance_leader hot_region scatter);
