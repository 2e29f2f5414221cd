//! Does harm to a cluster and undoes it. What it does follows from a seed.

use std::time::Duration;

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::harness::cluster::Cluster;
use crate::harness::network::CLIENTS;
use crate::harness::process::Role;

/// One kind of harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    KillStore,
    KillPd,
    KillPdLeader,
    KillSql,
    /// Power loss of everything.
    KillAll,
    PauseStore,
    PausePdLeader,
    PauseSql,
    /// A store reaches nobody of the cluster, but the clients reach it.
    CutStore,
    /// A store reaches nobody at all.
    IsolateStore,
    /// What a store sends does not arrive at the others.
    MuteStore,
    /// What the others send does not arrive at a store.
    DeafStore,
    /// Two stores cannot reach each other, the third reaches both.
    CutTwoStores,
    /// A store reaches the other stores but no placement driver.
    CutStoreFromPd,
    /// The placement driver that leads reaches nobody.
    CutPdLeader,
    /// A SQL server does not reach one of the stores.
    CutSqlFromStore,
    /// Packets get lost everywhere.
    Loss,
    /// What a store sends comes late.
    Delay,
    /// A store's disk is slow.
    SlowDisk,
}

use Fault::*;

const EVERYWHERE: [Fault; 8] =
    [KillStore, KillPd, KillPdLeader, KillSql, KillAll, PauseStore, PausePdLeader, PauseSql];
const NETWORK: [Fault; 10] = [
    CutStore,
    IsolateStore,
    MuteStore,
    DeafStore,
    CutTwoStores,
    CutStoreFromPd,
    CutPdLeader,
    CutSqlFromStore,
    Loss,
    Delay,
];

/// The source of harm.
pub struct Nemesis {
    rng: StdRng,
    kinds: Vec<Fault>,
    /// Those still to come before any comes again.
    deck: Vec<Fault>,
}

impl Nemesis {
    /// With all faults that are possible here.
    pub fn new(cluster: &Cluster, seed: u64) -> Self {
        let mut kinds = EVERYWHERE.to_vec();
        if cluster.network.is_some() {
            kinds.extend(NETWORK);
        }
        if cluster.has_slow_disks {
            kinds.push(SlowDisk);
        }
        Nemesis { rng: StdRng::seed_from_u64(seed), kinds, deck: vec![] }
    }

    /// Only with these.
    pub fn only(mut self, kinds: &[Fault]) -> Self {
        self.kinds = kinds.to_vec();
        self
    }

    /// The next fault: every kind once before any comes again.
    fn draw(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = self.kinds.clone();
        }
        let at = self.rng.random_range(0..self.deck.len());
        self.deck.swap_remove(at)
    }

    /// One fault for a while, now and then another one with it, and their end.
    pub async fn strike(&mut self, cluster: &Cluster) -> String {
        let mut what = self.begin(cluster).await;
        if self.kinds.len() > 2 && self.rng.random_bool(0.25) {
            what = format!("{what} and {}", self.begin(cluster).await);
        }
        let ms = self.rng.random_range(300..3500);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        cluster.heal().await;
        what = format!("{what} for {ms} ms");
        println!("  {what}");
        what
    }

    /// Begins a fault; answers what it is.
    async fn begin(&mut self, cluster: &Cluster) -> String {
        let fault = self.draw();
        let of = |role| cluster.of(role).collect::<Vec<_>>();
        let (stores, pds, sqls) = (of(Role::Kv), of(Role::Pd), of(Role::Sql));
        let store = *stores.choose(&mut self.rng).expect("there are stores");
        let other = stores.iter().copied().find(|at| *at != store).unwrap_or(store);
        let pd = *pds.choose(&mut self.rng).expect("there are placement drivers");
        let sql = *sqls.choose(&mut self.rng).expect("there are SQL servers");
        let pd_leader = match fault {
            KillPdLeader | PausePdLeader | CutPdLeader => cluster.pd_leader().await.unwrap_or(pd),
            _ => pd,
        };
        let victim = match fault {
            KillPd => pd,
            KillPdLeader | PausePdLeader | CutPdLeader => pd_leader,
            KillSql | PauseSql | CutSqlFromStore => sql,
            _ => store,
        };
        let how = match fault {
            KillStore | KillPd | KillPdLeader | KillSql => {
                cluster.processes[victim].kill();
                "killed"
            }
            KillAll => {
                cluster.processes.iter().for_each(|process| process.kill());
                "everything killed"
            }
            PauseStore | PausePdLeader | PauseSql => {
                cluster.processes[victim].signal(Signal::SIGSTOP);
                "paused"
            }
            SlowDisk => {
                std::fs::write(&cluster.processes[victim].sync_ms, "150").expect("a file is written");
                "slow disk"
            }
            _ => self.harm_network(cluster, fault, victim, other),
        };
        format!("{fault:?} ({}, {how})", cluster.processes[victim].name)
    }

    fn harm_network(&mut self, cluster: &Cluster, fault: Fault, victim: usize, other: usize) -> &'static str {
        let network = cluster.network.as_ref().expect("chosen only with a network");
        let host = |at: usize| cluster.processes[at].host;
        let hosts = || cluster.processes.iter().map(|process| process.host).filter(|h| *h != host(victim));
        match fault {
            CutStore => cluster.isolate(host(victim), false),
            IsolateStore | CutPdLeader => cluster.isolate(host(victim), true),
            MuteStore => hosts().for_each(|to| network.cut(host(victim), to)),
            DeafStore => hosts().for_each(|from| network.cut(from, host(victim))),
            CutTwoStores | CutSqlFromStore => network.cut_both(host(victim), host(other)),
            CutStoreFromPd => cluster.of(Role::Pd).for_each(|at| network.cut_both(host(victim), host(at))),
            Loss => {
                let percent = self.rng.random_range(2..15);
                cluster.processes.iter().for_each(|process| network.lose(process.host, percent));
                return "packets lost";
            }
            Delay => return network.delay(host(victim), self.rng.random_range(10..80)),
            _ => unreachable!("{fault:?} is no fault of the network"),
        }
        if fault == MuteStore {
            network.cut(host(victim), CLIENTS);
        }
        "cut off"
    }
}
