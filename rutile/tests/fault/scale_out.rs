//! A cluster that grows by a store and loses it again while clients write: they notice nothing, and no replica is missing.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::harness::cluster::{Cluster, Plan};
use crate::harness::{setting, until};
use crate::load::Load;

const SMALL: &str = "region-size-max = '192KiB'\nregion-split-size = '96KiB'\nsplit-check-diff = '32KiB'\n";
/// Bytes of a row.
const ROW: usize = 2000;

/// Whether every number is within 10 per cent of the average, or next to it.
fn is_even(counts: impl Iterator<Item = i64> + Clone) -> bool {
    let average = counts.clone().sum::<i64>() as f64 / counts.clone().count() as f64;
    counts.into_iter().all(|count| (count as f64 - average).abs() <= (average * 0.1).max(1.0))
}

async fn is_spread(cluster: &Cluster, stores: usize) -> bool {
    let counts = cluster.stores().await;
    counts.len() == stores && is_even(counts.values().map(|c| c.0)) && is_even(counts.values().map(|c| c.1))
}

/// No region has fewer than three replicas that vote, at any time.
async fn assert_none_missing(cluster: &Cluster) {
    for region in cluster.regions().await {
        assert!(region.voting.len() >= 3, "a replica is missing: {region:?}");
    }
}

fn show(what: &str, counts: &BTreeMap<u64, (i64, i64)>, begun: Instant) {
    let each: Vec<String> =
        counts.iter().map(|(id, (l, r))| format!("{id}: {l} leaders, {r} regions")).collect();
    println!("{what} after {:.1} s: {}", begun.elapsed().as_secs_f64(), each.join("; "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_store_takes_its_share_and_leaves_without_a_missing_replica() {
    let mut cluster = Cluster::start(Plan { raft_config: SMALL, ..Plan::default() }).await;
    let load = Load::start(&cluster, &cluster.sql_addresses(), ROW).await;
    let regions = setting("SCALE_OUT_REGIONS", 40) as usize;
    until("there are many regions", || async { cluster.regions().await.len() >= regions }).await;
    load.go_slowly();
    cluster.recovers(3).await;

    let begun = Instant::now();
    let added = cluster.add_store();
    cluster.processes[added].start();
    until("four stores are even", || async {
        assert_none_missing(&cluster).await;
        is_spread(&cluster, 4).await
    })
    .await;
    show("four stores are even", &cluster.stores().await, begun);

    let id = cluster.store_id(added).await.expect("the store is known");
    let begun = Instant::now();
    let answer = cluster.ctl(&["store", "decommission", &id.to_string()]);
    assert!(answer.status.success(), "{answer:?}");
    until("the store is empty", || async {
        assert_none_missing(&cluster).await;
        let progress = cluster.ctl(&["store", "progress", &id.to_string()]);
        String::from_utf8_lossy(&progress.stdout).contains("Tombstone")
    })
    .await;
    cluster.processes[added].kill();
    assert!(cluster.regions().await.iter().all(|region| !region.voting.contains(&id)));
    cluster.recovers(3).await;
    show("the fourth store is gone", &cluster.stores().await, begun);
    load.goes_on(Instant::now()).await;

    let failures = load.take_failures();
    assert!(failures.is_empty(), "clients noticed: {failures:?}");
    // Two stores cannot hold three replicas.
    let first = *cluster.stores().await.keys().next().expect("three stores");
    let refused = cluster.ctl(&["store", "decommission", &first.to_string()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot leave"), "{refused:?}");
    load.check(&cluster).await;
    cluster.assert_sound();
}
