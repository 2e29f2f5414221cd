//! Registers under random faults: every history that clients see must be one of a register.
//!
//! A run follows from its seed as far as threads allow; `LINEAR_SEEDS=17,42` replays seeds.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rutile_linear::{Kind, NEVER, Op, is_linearizable};
use rutile_proto::metapb::PeerRole;
use support::cluster::Cluster;
use support::net::{Fate, ends};
use tokio::sync::RwLock;

const STORES: usize = 3;
const KEYS: usize = 12;
const CLIENTS: usize = 4;
const OPS_PER_KEY_MAX: usize = 120;
const FAULTS: usize = 10;

struct Run {
    cluster: RwLock<Cluster>,
    histories: Mutex<BTreeMap<usize, Vec<Op>>>,
    epoch: Instant,
    over: std::sync::atomic::AtomicBool,
}

impl Run {
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// One operation at a store that may or may not lead.
    async fn operate(&self, key: usize, store: usize, write: Option<u64>, replica: bool) {
        let cluster = self.cluster.read().await;
        if !cluster.running().contains(&store) {
            return;
        }
        let name = format!("r{key}");
        let start = self.now();
        let limit = Duration::from_millis(400);
        let kind = match write {
            Some(value) => {
                let text = value.to_string();
                let put = cluster.try_put(store, name.as_bytes(), text.as_bytes());
                match tokio::time::timeout(limit, put).await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) if e.undetermined_result.is_none() => return,
                    _ => return self.record(key, Op { kind: Kind::Write(value), start, end: NEVER }),
                }
                Kind::Write(value)
            }
            None => match tokio::time::timeout(limit, cluster.try_get(store, name.as_bytes(), replica)).await
            {
                Ok(Ok(value)) => {
                    let value = value.map_or(0, |v| String::from_utf8_lossy(&v).parse().unwrap());
                    Kind::Read(value)
                }
                _ => return,
            },
        };
        self.record(key, Op { kind, start, end: self.now() });
    }

    fn record(&self, key: usize, op: Op) {
        self.histories.lock().entry(key).or_default().push(op);
    }

    async fn client(self: Arc<Self>, id: u64, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1009) + id);
        let mut next = id + 1;
        while !self.over.load(std::sync::atomic::Ordering::Relaxed) {
            let key = rng.random_range(0..KEYS);
            let full = |h: &BTreeMap<usize, Vec<Op>>| h.get(&key).map_or(0, Vec::len) >= OPS_PER_KEY_MAX;
            if full(&self.histories.lock()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            let store = match rng.random_range(0..4) {
                0 => rng.random_range(0..STORES),
                _ => self.cluster.read().await.leader(b"r").map_or(0, |(i, _)| i),
            };
            let write = rng.random_bool(0.4).then_some(next);
            next += CLIENTS as u64;
            self.operate(key, store, write, rng.random_bool(0.3)).await;
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..12))).await;
        }
    }

    /// One fault, and its end.
    async fn fault(&self, rng: &mut StdRng) -> &'static str {
        let victim = rng.random_range(0..STORES);
        let span = Duration::from_millis(rng.random_range(50..600));
        let id = self.cluster.read().await.id(victim);
        match rng.random_range(0..6) {
            0 => {
                self.cluster.read().await.net.isolate(&[id]);
                tokio::time::sleep(span).await;
                self.cluster.read().await.net.heal();
                "isolated"
            }
            1 => {
                let deaf = rng.random_bool(0.5);
                self.cluster.read().await.net.filter("one way", move |m| {
                    let (from, to) = ends(m);
                    if (if deaf { to } else { from }) == id { Fate::Drop } else { Fate::Pass }
                });
                tokio::time::sleep(span).await;
                self.cluster.read().await.net.heal();
                "one way"
            }
            2 => {
                let noise = Mutex::new(StdRng::seed_from_u64(rng.random()));
                self.cluster.read().await.net.filter("noise", move |_| {
                    let mut noise = noise.lock();
                    match noise.random_range(0..10) {
                        0 => Fate::Drop,
                        1 => Fate::Twice,
                        2 | 3 => Fate::After(Duration::from_millis(noise.random_range(1..80))),
                        _ => Fate::Pass,
                    }
                });
                tokio::time::sleep(span).await;
                self.cluster.read().await.net.heal();
                "noise"
            }
            3 => {
                let cluster = self.cluster.read().await;
                if let Some((leader, region)) = cluster.leader(b"r") {
                    let to = region.peers.iter().find(|p| p.store_id == id && p.role() == PeerRole::Voter);
                    to.into_iter().for_each(|to| cluster.store(leader).store.transfer_leader(region.id, *to));
                }
                "transfer"
            }
            _ => {
                // Whoever waits for this store hears of its end at once.
                self.cluster.read().await.store(victim).store.stop().await;
                self.cluster.write().await.crash(victim).await;
                tokio::time::sleep(span).await;
                self.cluster.write().await.restart(victim).await;
                "crash"
            }
        }
    }
}

async fn run(seed: u64) {
    let cluster = Cluster::start(STORES).await;
    cluster.replicate(b"").await;
    let run = Arc::new(Run {
        cluster: RwLock::new(cluster),
        histories: Mutex::default(),
        epoch: Instant::now(),
        over: std::sync::atomic::AtomicBool::new(false),
    });
    let clients: Vec<_> =
        (0..CLIENTS as u64).map(|id| tokio::spawn(Arc::clone(&run).client(id, seed))).collect();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut faults = Vec::new();
    for _ in 0..FAULTS {
        faults.push(run.fault(&mut rng).await);
        tokio::time::sleep(Duration::from_millis(rng.random_range(10..300))).await;
    }
    run.over.store(true, std::sync::atomic::Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let run = Arc::into_inner(run).expect("all clients ended");
    let cluster = run.cluster.into_inner();
    for key in 0..KEYS {
        let start = run.epoch.elapsed().as_nanos() as u64;
        let value = cluster.get(format!("r{key}").as_bytes()).await;
        let value = value.map_or(0, |v| String::from_utf8_lossy(&v).parse().unwrap());
        let end = run.epoch.elapsed().as_nanos() as u64;
        run.histories.lock().entry(key).or_default().push(Op { kind: Kind::Read(value), start, end });
    }
    let histories = run.histories.into_inner();
    let total: usize = histories.values().map(Vec::len).sum();
    assert!(total > 100, "only {total} operations came through with seed {seed}");
    for (key, ops) in &histories {
        assert!(
            is_linearizable(ops),
            "seed {seed} (faults {faults:?}): no register r{key} behaves so; replay with LINEAR_SEEDS={seed}\n{ops:#?}"
        );
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_are_linearizable_under_faults() {
    let seeds = std::env::var("LINEAR_SEEDS").unwrap_or_else(|_| "1,2,3,4,5,6,7,8,9,10".to_owned());
    for seed in seeds.split(',').filter_map(|s| s.trim().parse().ok()) {
        run(seed).await;
    }
}
