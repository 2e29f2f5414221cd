//! Merges of regions with several peers.

mod support;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rutile_kv::raftstore::RaftKv;
use rutile_proto::metapb;
use support::cluster::{Cluster, wait_until};

/// Merges the region of one key into that of another, when both leaders are where they can.
async fn merge(cluster: &Cluster, source: &[u8], target: &[u8]) {
    for _ in 0..400 {
        let (leader, region) = cluster.wait_leader(source).await;
        let (_, into) = cluster.wait_leader(target).await;
        if region.id == into.id {
            return;
        }
        let _ = cluster.store(leader).store.merge(region.id, into).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the regions do not merge");
}

fn regions(cluster: &Cluster, i: usize) -> Vec<metapb::Region> {
    cluster.store(i).store.regions().into_iter().map(|(r, _)| (*r).clone()).collect()
}

async fn wait_regions(cluster: &Cluster, stores: &[usize], count: usize) {
    for i in stores {
        wait_until(&format!("store {i} has {count} regions"), || {
            let regions = regions(cluster, *i);
            let tiled = regions.windows(2).all(|w| w[0].end_key == w[1].start_key);
            regions.len() == count && tiled
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_become_one_on_all_stores() {
    let mut cluster = Cluster::start(3).await;
    cluster.replicate(b"").await;
    let (leader, _) = cluster.wait_leader(b"").await;
    cluster.store(leader).split(&[b"g", b"p"]).await;
    for key in [b"a", b"h", b"q"] {
        cluster.put(key, b"1").await;
    }
    wait_regions(&cluster, &[0, 1, 2], 3).await;
    merge(&cluster, b"a", b"h").await;
    wait_regions(&cluster, &[0, 1, 2], 2).await;
    merge(&cluster, b"q", b"h").await;
    wait_regions(&cluster, &[0, 1, 2], 1).await;
    for key in [b"a", b"h", b"q"] {
        assert_eq!(cluster.get(key).await.unwrap(), "1");
        cluster.put(key, b"2").await;
    }
    for i in 0..3 {
        cluster.crash(i).await;
        cluster.restart(i).await;
        for key in [b"a", b"h", b"q"] {
            cluster.wait_value(i, key, Some(b"2")).await;
        }
        assert_eq!(regions(&cluster, i).len(), 1);
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_missed_a_merge_follows() {
    for cut in [false, true] {
        let cluster = Cluster::start(3).await;
        cluster.replicate(b"").await;
        let (leader, _) = cluster.wait_leader(b"").await;
        cluster.store(leader).split(&[b"m"]).await;
        for key in [b"a", b"z"] {
            cluster.put(key, b"1").await;
        }
        wait_regions(&cluster, &[0, 1, 2], 2).await;
        for key in [b"a", b"z"] {
            cluster.transfer(key, leader).await;
            for i in 0..3 {
                cluster.wait_value(i, key, Some(b"1")).await;
            }
        }
        let late = (leader + 1) % 3;
        let others = [leader, (leader + 2) % 3];
        cluster.net.isolate(&[cluster.id(late)]);
        cluster.put(b"a", b"2").await;
        merge(&cluster, b"a", b"z").await;
        wait_regions(&cluster, &others, 1).await;
        for key in [b"a", b"b", b"z"] {
            cluster.put(key, b"3").await;
        }
        if cut {
            for i in others {
                cluster.store(i).engine.flush().unwrap();
                cluster.store(i).store.truncate_logs();
            }
            cluster.put(b"c", b"3").await;
        }
        cluster.net.heal();
        for key in [b"a", b"b", b"z"] {
            cluster.wait_value(late, key, Some(b"3")).await;
        }
        wait_regions(&cluster, &[late], 1).await;
        cluster.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_and_merges_under_load_and_faults_lose_nothing() {
    let cluster = Cluster::start(3).await;
    cluster.replicate(b"").await;
    let mut rng = StdRng::seed_from_u64(7);
    let load = async {
        for n in 0..240u32 {
            let key = format!("{:02}", n % 40);
            cluster.put(key.as_bytes(), n.to_string().as_bytes()).await;
            assert_eq!(cluster.get(key.as_bytes()).await.unwrap(), n.to_string(), "key {key}");
        }
    };
    let changes = async {
        for _ in 0..10 {
            let at = format!("{:02}", rng.random_range(1..40));
            let (leader, region) = cluster.wait_leader(at.as_bytes()).await;
            let store = &cluster.store(leader).store;
            let _ = store.split(&store.context_of(&region), vec![at.clone().into()]).await;
            if rng.random_bool(0.3) {
                let victim = rng.random_range(0..3);
                cluster.net.isolate(&[cluster.id(victim)]);
                tokio::time::sleep(Duration::from_millis(rng.random_range(50..400))).await;
                cluster.net.heal();
            }
            let (one, two) = (format!("{:02}", rng.random_range(0..40)), at);
            let (from, into) = if rng.random_bool(0.5) { (&one, &two) } else { (&two, &one) };
            let (leader, region) = cluster.wait_leader(from.as_bytes()).await;
            let (_, target) = cluster.wait_leader(into.as_bytes()).await;
            if region.id != target.id {
                let _ = cluster.store(leader).store.merge(region.id, target).await;
            }
        }
    };
    tokio::join!(load, changes);
    for n in 200..240u32 {
        let key = format!("{:02}", n % 40);
        assert_eq!(cluster.get(key.as_bytes()).await.unwrap(), n.to_string());
        for i in 0..3 {
            cluster.wait_value(i, key.as_bytes(), Some(n.to_string().as_bytes())).await;
        }
    }
    wait_until("all stores have the same regions", || {
        let all: Vec<_> = (0..3).map(|i| regions(&cluster, i)).collect();
        let tiled = all[0].windows(2).all(|w| w[0].end_key == w[1].start_key);
        tiled && all.windows(2).all(|w| w[0] == w[1])
    })
    .await;
    cluster.shutdown().await;
}
