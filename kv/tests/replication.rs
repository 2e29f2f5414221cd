//! Regions with several peers: elections, partitions, catching up, changes of members.

mod support;

use std::time::{Duration, Instant};

use raft::eraftpb::{ConfChangeType, MessageType};
use rutile_kv::raftstore::RaftKv;
use rutile_proto::metapb::PeerRole;
use rutile_proto::pdpb;
use support::cluster::{Cluster, wait_until};
use support::net::{Fate, ends, kind};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_has_all_acknowledged_writes() {
    let mut cluster = Cluster::start(3).await;
    cluster.replicate(b"").await;
    for i in 0..100 {
        cluster.put(format!("k{i}").as_bytes(), b"v").await;
    }
    let (leader, _) = cluster.wait_leader(b"").await;
    cluster.crash(leader).await;
    let killed = Instant::now();
    cluster.put(b"after", b"v").await;
    assert!(killed.elapsed() < Duration::from_secs(20));
    for i in 0..100 {
        assert_eq!(cluster.get(format!("k{i}").as_bytes()).await.as_deref(), Some(&b"v"[..]), "k{i}");
    }
    cluster.restart(leader).await;
    cluster.wait_value(leader, b"after", Some(b"v")).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_neither_writes_nor_reads() {
    let cluster = Cluster::start(3).await;
    cluster.replicate(b"").await;
    cluster.put(b"k", b"old").await;
    let (old, _) = cluster.wait_leader(b"k").await;
    cluster.net.isolate(&[cluster.id(old)]);
    let lost = tokio::time::timeout(Duration::from_millis(600), cluster.try_put(old, b"k", b"lost")).await;
    assert!(!matches!(lost, Ok(Ok(()))), "a minority acknowledged a write");
    wait_until("the others elect", || cluster.leader(b"k").is_some_and(|(i, _)| i != old)).await;
    cluster.put(b"k", b"new").await;
    // The old leader's lease is over before another is elected; it cannot confirm its leadership.
    let stale = tokio::time::timeout(Duration::from_secs(1), cluster.try_get(old, b"k", false)).await;
    assert!(!matches!(stale, Ok(Ok(_))), "a minority served a read");
    cluster.net.heal();
    cluster.wait_value(old, b"k", Some(b"new")).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_way_partition_does_not_depose_the_leader() {
    let cluster = Cluster::start(3).await;
    cluster.replicate(b"").await;
    let (leader, region) = cluster.wait_leader(b"").await;
    let term = cluster.store(leader).store.check(&cluster.store(leader).ctx(b"")).unwrap().1;
    let follower = (leader + 1) % 3;
    let to = cluster.id(follower);
    cluster.net.filter("deaf", move |m| if ends(m).1 == to { Fate::Drop } else { Fate::Pass });
    for i in 0..20 {
        cluster.put(format!("k{i}").as_bytes(), b"v").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.net.heal();
    cluster.wait_value(follower, b"k19", Some(b"v")).await;
    let (now, _) = cluster.wait_leader(b"").await;
    let after = cluster.store(now).store.check(&cluster.store(now).ctx(b"")).unwrap().1;
    assert_eq!((now, after), (leader, term), "region {}: a deaf follower disturbed its leader", region.id);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_catch_up_from_the_log_and_from_snapshots() {
    let mut cluster = Cluster::start(3).await;
    cluster.replicate(b"").await;
    let (leader, _) = cluster.wait_leader(b"").await;
    let away = (leader + 1) % 3;
    let snapshots = cluster.net.snapshots();
    cluster.crash(away).await;
    cluster.put(b"log", b"v").await;
    cluster.restart(away).await;
    cluster.wait_value(away, b"log", Some(b"v")).await;
    assert_eq!(cluster.net.snapshots(), snapshots, "a short absence needs no snapshot");

    cluster.put(b"gone", b"v").await;
    cluster.wait_value(away, b"gone", Some(b"v")).await;
    cluster.crash(away).await;
    for i in 0..200 {
        cluster.put(format!("s{i}").as_bytes(), &[b'x'; 1000]).await;
    }
    let (leader, region) = cluster.wait_leader(b"").await;
    let store = &cluster.store(leader).store;
    let delete = rutile_kv::raftstore::Modify::Delete(rutile_kv::engine::Cf::Default, "gone".into());
    let ctx = store.context_of(&region);
    store.write(&ctx, rutile_kv::raftstore::WriteData::new(vec![delete])).await.unwrap();
    for i in cluster.running() {
        cluster.store(i).engine.flush().unwrap();
        cluster.store(i).store.truncate_logs();
    }
    cluster.put(b"cut", b"v").await;
    cluster.restart(away).await;
    cluster.wait_value(away, b"cut", Some(b"v")).await;
    assert!(cluster.net.snapshots() > snapshots, "the log was cut: only a snapshot helps");
    assert_eq!(cluster.local(away, b"gone"), None, "a snapshot replaces what was there");
    assert_eq!(cluster.local(away, b"s199").unwrap().len(), 1000);
    // What came by snapshot survives a crash, and the peer takes part.
    cluster.crash(away).await;
    cluster.restart(away).await;
    cluster.put(b"again", b"v").await;
    cluster.wait_value(away, b"again", Some(b"v")).await;
    assert_eq!(cluster.local(away, b"s0").unwrap().len(), 1000);
    cluster.transfer(b"", away).await;
    assert_eq!(cluster.get(b"s100").await.unwrap().len(), 1000);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_change_under_load() {
    let cluster = Cluster::start(4).await;
    cluster.put(b"first", b"v").await;
    let load = async {
        let mut n = 0;
        loop {
            cluster.put(format!("load{}", n % 50).as_bytes(), n.to_string().as_bytes()).await;
            n += 1;
            if n >= 300 {
                return n;
            }
        }
    };
    let changes = async {
        cluster.replicate(b"").await;
        for i in [3, 2, 1] {
            cluster.transfer(b"", (i + 1) % 4).await;
            cluster.remove_peer(b"", i).await;
            wait_until("the removed peer destroys itself", || cluster.peer(i, b"").is_none()).await;
            wait_until("its data is gone", || cluster.local(i, b"first").is_none()).await;
            cluster.add_peer(b"", i).await;
            cluster.wait_value(i, b"first", Some(b"v")).await;
        }
    };
    let (n, ()) = tokio::join!(load, changes);
    for k in 0..50 {
        let last = (0..n).rev().find(|i| i % 50 == k).unwrap().to_string();
        assert_eq!(cluster.get(format!("load{k}").as_bytes()).await.unwrap(), last);
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_removed_while_away_destroys_itself() {
    let mut cluster = Cluster::start(4).await;
    cluster.replicate(b"").await;
    cluster.transfer(b"", 0).await;
    cluster.crash(3).await;
    cluster.remove_peer(b"", 3).await;
    cluster.put(b"k", b"v").await;
    cluster.restart(3).await;
    wait_until("the peer learns that it is gone", || cluster.peer(3, b"").is_none()).await;
    wait_until("its data is gone", || cluster.local(3, b"replicated").is_none()).await;
    // It stays away after a crash, and a later peer on the same store is a new one.
    cluster.crash(3).await;
    cluster.restart(3).await;
    wait_until("the peer is gone", || cluster.peer(3, b"").is_none()).await;
    let peer = cluster.add_peer(b"", 3).await;
    cluster.wait_value(3, b"k", Some(b"v")).await;
    wait_until("the new peer serves", || cluster.peer(3, b"").is_some_and(|p| p.id == peer.id)).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joint_configuration_outlives_its_leader() {
    let mut cluster = Cluster::start(4).await;
    for i in 1..3 {
        cluster.add_peer(b"", i).await;
    }
    cluster.put(b"k", b"1").await;
    cluster.transfer(b"", 0).await;
    let (_, region) = cluster.wait_leader(b"").await;
    let leaving = region.peers.iter().find(|p| p.store_id == cluster.id(2)).copied().unwrap();
    let coming = cluster.new_peer(3).await;
    cluster.change(b"", &[(ConfChangeType::AddLearnerNode, coming)]).await;
    let changes = [(ConfChangeType::AddNode, coming), (ConfChangeType::AddLearnerNode, leaving)];
    let joint = cluster.change(b"", &changes).await;
    assert!(joint.peers.iter().any(|p| p.role() == PeerRole::IncomingVoter));
    cluster.crash(0).await;
    cluster.put(b"k", b"2").await;
    // A leader does not take the vote from itself.
    cluster.transfer(b"", 1).await;
    let left = cluster.change(b"", &[]).await;
    let role = |id: u64| left.peers.iter().find(|p| p.id == id).unwrap().role();
    assert_eq!((role(coming.id), role(leaving.id)), (PeerRole::Voter, PeerRole::Learner));
    cluster.restart(0).await;
    cluster.wait_value(0, b"k", Some(b"2")).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_placement_driver_changes_members_and_leaders() {
    let cluster = Cluster::start(3).await;
    cluster.put(b"k", b"v").await;
    let (_, region) = cluster.wait_leader(b"").await;
    let id = region.id;
    for i in 1..3 {
        let peer = cluster.new_peer(i).await;
        for change_type in [2, 0] {
            let step = pdpb::ChangePeer { peer: Some(peer), change_type };
            let role = if change_type == 2 { PeerRole::Learner } else { PeerRole::Voter };
            wait_until("the member is there", || {
                let step = Some(step);
                cluster.pd.order(pdpb::RegionHeartbeatResponse {
                    region_id: id,
                    change_peer: step,
                    ..Default::default()
                });
                let region = cluster.leader(b"").map(|(_, region)| region);
                region.is_some_and(|r| r.peers.iter().any(|p| p.id == peer.id && p.role() == role))
            })
            .await;
        }
        cluster.wait_value(i, b"k", Some(b"v")).await;
    }
    let (_, region) = cluster.wait_leader(b"").await;
    let to = region.peers.iter().find(|p| p.store_id == cluster.id(2)).copied().unwrap();
    wait_until("store 2 leads", || {
        let step = pdpb::TransferLeader { peer: Some(to), ..Default::default() };
        cluster.pd.order(pdpb::RegionHeartbeatResponse {
            region_id: id,
            transfer_leader: Some(step),
            ..Default::default()
        });
        cluster.leader(b"").is_some_and(|(i, _)| i == 2)
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_serve_reads_that_the_leader_confirms() {
    let cluster = Cluster::start(3).await;
    cluster.replicate(b"").await;
    let (leader, _) = cluster.wait_leader(b"").await;
    for n in 0..30 {
        let value = n.to_string();
        cluster.put(b"k", value.as_bytes()).await;
        let follower = (leader + 1 + n % 2) % 3;
        let read = tokio::time::timeout(Duration::from_secs(5), cluster.try_get(follower, b"k", true)).await;
        assert_eq!(read.unwrap().unwrap().unwrap(), value, "a follower's read misses an acknowledged write");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_split_on_all_stores() {
    let mut cluster = Cluster::start(3).await;
    cluster.replicate(b"").await;
    // A follower that hears nothing of the split gets the pieces later.
    let (leader, _) = cluster.wait_leader(b"").await;
    let late = (leader + 1) % 3;
    cluster.net.isolate(&[cluster.id(late)]);
    for at in [b"g", b"p"] {
        cluster.store(leader).split(&[at]).await;
    }
    for key in [b"a", b"h", b"q"] {
        cluster.put(key, b"v").await;
    }
    cluster.net.heal();
    for key in [b"a", b"h", b"q"] {
        for i in 0..3 {
            cluster.wait_value(i, key, Some(b"v")).await;
        }
    }
    for i in 0..3 {
        let regions = cluster.store(i).store.regions();
        assert_eq!(regions.len(), 3, "store {i}");
        assert!(regions.windows(2).all(|w| w[0].0.end_key == w[1].0.start_key));
    }
    cluster.crash(leader).await;
    for key in [b"a", b"h", b"q"] {
        cluster.put(key, b"w").await;
    }
    cluster.restart(leader).await;
    for key in [b"a", b"h", b"q"] {
        cluster.wait_value(leader, key, Some(b"w")).await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_repeated_and_late_messages_do_no_harm() {
    let cluster = Cluster::start(3).await;
    cluster.replicate(b"").await;
    let count = std::sync::atomic::AtomicU64::new(0);
    cluster.net.filter("chaos", move |m| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match n % 7 {
            1 if kind(m) != MessageType::MsgSnapshot => Fate::Drop,
            3 => Fate::Twice,
            5 => Fate::After(Duration::from_millis(n % 40)),
            _ => Fate::Pass,
        }
    });
    for n in 0..150 {
        let value = n.to_string();
        cluster.put(b"k", value.as_bytes()).await;
        assert_eq!(cluster.get(b"k").await.unwrap(), value);
    }
    cluster.net.heal();
    for i in 0..3 {
        cluster.wait_value(i, b"k", Some(b"149")).await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_regions_sleep_and_wake() {
    let mut cluster = Cluster::start_with(3, |config| config.raft.hibernate_ticks = 8).await;
    cluster.replicate(b"").await;
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&sent);
    cluster.net.filter("count", move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Fate::Pass
    });
    // Silence for many heartbeat intervals.
    let (mut last, mut since) = (0, Instant::now());
    wait_until("nobody sends", || {
        let now = sent.load(std::sync::atomic::Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_secs(2)
    })
    .await;
    let (leader, _) = cluster.wait_leader(b"").await;
    assert_eq!(cluster.get(b"replicated").await.unwrap(), "yes");
    cluster.put(b"awake", b"v").await;
    for i in 0..3 {
        cluster.wait_value(i, b"awake", Some(b"v")).await;
    }
    let (mut last, mut since) = (0, Instant::now());
    wait_until("nobody sends again", || {
        let now = sent.load(std::sync::atomic::Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_secs(2)
    })
    .await;
    // A dead leader is noticed by those who sleep.
    cluster.crash(leader).await;
    wait_until("another leads", || cluster.leader(b"").is_some_and(|(i, _)| i != leader)).await;
    cluster.put(b"after", b"v").await;
    cluster.restart(leader).await;
    cluster.wait_value(leader, b"after", Some(b"v")).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_differ_are_reported() {
    use rutile_kv::config::Span;
    use rutile_kv::metrics::{CONSISTENCY_CHECKS, CONSISTENCY_ERRORS};
    let cluster =
        Cluster::start_with(3, |config| config.raft.consistency_check_interval = Span::ms(100)).await;
    cluster.replicate(b"").await;
    let checked = CONSISTENCY_CHECKS.get();
    wait_until("replicas were compared", || CONSISTENCY_CHECKS.get() > checked + 6).await;
    assert_eq!(CONSISTENCY_ERRORS.get(), 0, "equal replicas were called different");
    let (leader, _) = cluster.wait_leader(b"").await;
    let engine = &cluster.store((leader + 1) % 3).engine;
    let mut batch = engine.batch();
    batch.put(rutile_kv::engine::Cf::Write, b"zflipped", b"bit");
    engine.write(batch).unwrap();
    wait_until("the difference is found", || CONSISTENCY_ERRORS.get() > 0).await;
    assert_eq!(cluster.get(b"replicated").await.unwrap(), "yes", "a report, not an end");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_a_snapshot_in_may_be_asked_to_lead() {
    let cluster = Cluster::start(3).await;
    for i in 0..200 {
        cluster.put(format!("k{i}").as_bytes(), &[b'x'; 2000]).await;
    }
    for round in 0..10 {
        for i in 1..3 {
            let peer = cluster.new_peer(i).await;
            cluster.change(b"", &[(ConfChangeType::AddNode, peer)]).await;
            // At once, whether its snapshot is there or not.
            for _ in 0..20 {
                let (leader, region) = cluster.wait_leader(b"").await;
                cluster.store(leader).store.transfer_leader(region.id, peer);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        let value = round.to_string();
        cluster.put(b"round", value.as_bytes()).await;
        for i in 0..3 {
            cluster.wait_value(i, b"round", Some(value.as_bytes())).await;
            assert!(cluster.store(i).engine.failure().is_none(), "store {i} failed");
        }
        cluster.transfer(b"", 0).await;
        for i in 1..3 {
            cluster.remove_peer(b"", i).await;
            wait_until("the peer is gone", || cluster.peer(i, b"").is_none()).await;
        }
    }
    cluster.shutdown().await;
}
