//! `kill -9` under load: how long until writes go on, and what the clients notice.
//!
//! `KILLS=10 cargo test --release --workspace --test fault -- kill --nocapture` prints the figures.

use std::time::{Duration, Instant};

use crate::harness::cluster::{Cluster, Plan};
use crate::harness::process::Role;
use crate::harness::{setting, until};
use crate::load::Load;

fn figures(what: &str, mut spans: Vec<Duration>, failures: usize) {
    spans.sort();
    let ms = |at: usize| spans[at].as_millis();
    println!(
        "{what}: writes go on after {} / {} / {} ms (least, median, most of {}); {failures} statements failed",
        ms(0),
        ms(spans.len() / 2),
        ms(spans.len() - 1),
        spans.len(),
    );
    // The goal is 3 s; machines that run tests are slow.
    assert!(spans[spans.len() / 2] < Duration::from_secs(10), "{what}: {spans:?}");
}

/// Waits until a process that was started again answers and every region has three replicas that follow.
async fn is_back(cluster: &Cluster, at: usize) {
    let address = cluster.processes[at].address;
    until("the process is back", || async {
        assert_eq!(cluster.ended(), None);
        tokio::net::TcpStream::connect(address).await.is_ok()
    })
    .await;
    until("all stores are up", || async { cluster.stores().await.len() == cluster.of(Role::Kv).count() })
        .await;
    cluster.recovers(3).await;
}

/// Kills what `choose` finds, again and again.
async fn kills<F: Future<Output = Option<usize>>>(
    what: &str,
    cluster: &Cluster,
    load: &Load,
    choose: impl Fn() -> F,
) {
    let (mut spans, mut failed) = (vec![], 0);
    for _ in 0..setting("KILLS", 2) {
        let mut victim = None;
        while victim.is_none() {
            until("there is a leader", || async { choose().await.is_some() }).await;
            victim = choose().await;
        }
        let victim = victim.expect("found");
        load.take_failures();
        cluster.processes[victim].kill();
        let took = load.goes_on(Instant::now()).await;
        println!("{} killed: {} ms", cluster.processes[victim].name, took.as_millis());
        spans.push(took);
        let failures = load.take_failures();
        failures.iter().for_each(|(w, failure)| println!("writer {w}: {failure}"));
        failed += failures.len();
        cluster.processes[victim].start();
        is_back(cluster, victim).await;
    }
    figures(what, spans, failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_under_load() {
    let cluster = Cluster::start(Plan::default()).await;
    let load = Load::start(&cluster, &cluster.sql_addresses(), 0).await;
    kills("a store that leads is killed", &cluster, &load, || cluster.leader_of("test.written")).await;
    kills("the placement driver that leads is killed", &cluster, &load, || cluster.pd_leader()).await;
    let servers: Vec<usize> = cluster.of(Role::Sql).collect();
    let (mut spans, mut failed) = (vec![], 0);
    for kill in 0..setting("KILLS", 2) as usize {
        load.spread(servers.len()).await;
        load.take_failures();
        let victim = kill % servers.len();
        cluster.processes[servers[victim]].kill();
        spans.push(load.goes_on(Instant::now()).await);
        let failures = load.take_failures();
        let others: Vec<_> = failures.iter().filter(|(w, _)| w % servers.len() != victim).collect();
        assert!(others.is_empty(), "clients of the other server noticed: {others:?}");
        failed += failures.len();
        cluster.processes[servers[victim]].start();
        is_back(&cluster, servers[victim]).await;
    }
    figures("a SQL server is killed", spans, failed);
    load.check(&cluster).await;
    cluster.assert_sound();
}
