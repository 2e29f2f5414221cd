//! Runs of faults while clients work, and whether the checks find mistakes.
//!
//! `FAULTS=200 FAULT_SEED=7 cargo test --release --workspace --test fault -- clients_see --nocapture`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::cluster::{Cluster, Plan};
use crate::harness::process::Role;
use crate::harness::setting;
use crate::nemesis::{Fault, Nemesis};
use crate::workload::{Mistake, Work};

/// Small regions, so that they split while faults happen; logs are short, so that stores that were away need snapshots.
const SMALL: &str = "region-size-max = '256KiB'\nregion-split-size = '128KiB'\nsplit-check-diff = '32KiB'\n\
    log-gc-interval = '1s'\nlog-gc-keep = 32\nlog-gc-lag-max = 512\n";

fn plan() -> Plan {
    Plan { network: true, slow_disks: true, raft_config: SMALL, ..Plan::default() }
}

/// The seed of a run: each run has another, unless one is given.
fn seed() -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.subsec_nanos());
    setting("FAULT_SEED", u64::from(clock))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_see_no_fault() {
    let (faults, seed) = (setting("FAULTS", 8), seed());
    let cluster = Cluster::start(plan()).await;
    let work = Work::start(&cluster, Mistake::None).await;
    println!("{faults} faults, FAULT_SEED={seed}");
    let mut nemesis = Nemesis::new(&cluster, seed);
    work.goes_on().await;
    for fault in 1..=faults {
        nemesis.strike(&cluster).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        // In long runs now and then: nothing stays broken.
        if fault % 8 == 0 {
            work.goes_on().await;
        }
    }
    cluster.heal().await;
    let healed = std::time::Instant::now();
    work.goes_on().await;
    println!("all clients go on {} ms after the last fault", healed.elapsed().as_millis());
    cluster.recovers(3).await;
    let wrong = work.check().await;
    assert!(wrong.is_empty(), "FAULT_SEED={seed}: {wrong:#?}");
    cluster.assert_sound();
}

/// A run with a mistake in it; answers what was found.
async fn found(mistake: Mistake, faults: &[Fault]) -> Vec<String> {
    let cluster = Cluster::start(Plan { pds: 1, raft_config: SMALL, ..Plan::default() }).await;
    let work = Work::start(&cluster, mistake).await;
    let mut nemesis = Nemesis::new(&cluster, 1).only(faults);
    for _ in faults {
        nemesis.strike(&cluster).await;
        work.goes_on().await;
    }
    // Long enough to meet the mistake.
    for _ in 0..5 {
        work.goes_on().await;
    }
    work.check().await
}

fn assert_found(wrong: &[String], what: &str) {
    assert!(wrong.iter().any(|text| text.contains(what)), "not found: {what}, but {wrong:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checks_find_mistakes_of_clients() {
    let wrong = found(Mistake::TornTransfers, &[]).await;
    assert_found(&wrong, "a reader saw the total");
    let wrong = found(Mistake::StaleReads, &[]).await;
    assert_found(&wrong, "no register behaves like");
    let wrong = found(Mistake::EarlyAcknowledgement, &[Fault::KillSql, Fault::KillSql]).await;
    assert_found(&wrong, "acknowledged rows are lost");
}

/// Disks that lie about their syncs: after a power loss two stores have the state of some time before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checks_find_disks_that_lose_what_was_synced() {
    let cluster = Cluster::start(Plan { pds: 1, ..Plan::default() }).await;
    let work = Work::start(&cluster, Mistake::None).await;
    work.goes_on().await;
    let victims: Vec<usize> = cluster.of(Role::Kv).take(2).collect();
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        drop(std::fs::remove_dir_all(to));
        let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status();
        assert!(copied.expect("cp runs").success());
    };
    let stash = |at: usize| cluster.data(at).with_extension("stash");
    let kill_stores = || cluster.of(Role::Kv).for_each(|at| cluster.processes[at].kill());
    kill_stores();
    victims.iter().for_each(|at| copy(&cluster.data(*at), &stash(*at)));
    cluster.heal().await;
    work.goes_on().await;
    kill_stores();
    victims.iter().for_each(|at| copy(&stash(*at), &cluster.data(*at)));
    // The store that lost nothing would still lead them to the right state.
    let third = cluster.of(Role::Kv).nth(2).expect("three stores");
    victims.iter().for_each(|at| cluster.processes[*at].start());
    work.goes_on().await;
    cluster.processes[third].start();
    let wrong = work.check().await;
    assert_found(&wrong, "acknowledged");
}
