//! Puts and gets from many clients at once, against a cluster of Rutile or of etcd: the load of `scripts/bench-raw.sh`.
//!
//! Every client is a task that asks, waits for the answer and asks again. Keys are drawn from one set for all clients; gets only ask
//! for keys that were put, and an answer without the value counts as an error. Gets are linearizable on both systems.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rutile_client::{Client, RawClient, RawOptions};
use rutile_proto::etcdserverpb::kv_client::KvClient;
use rutile_proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::transport::{Channel, Endpoint};

const USAGE: &str = "usage: raw-load rutile|etcd ADDRESS,… put|get CLIENTS SECONDS [KEYS [VALUE-BYTES]]

Prints operations per second and the latencies that 50, 99 and 100 of 100 operations do not exceed, in ms.";

/// This key is there once every other one is.
const FILLED: &[u8] = b"rload-filled";

/// One of the two systems under load; cheap to clone.
#[derive(Clone)]
enum Store {
    Rutile(RawClient),
    Etcd(KvClient<Channel>),
}

impl Store {
    /// Connections to the system at `addresses`: as many as its own clients hold.
    async fn connect(system: &str, addresses: &str) -> Result<Vec<Store>> {
        let addresses: Vec<String> = addresses.split(',').map(str::to_owned).collect();
        match system {
            "rutile" => {
                let client = Client::connect(&addresses).await?;
                Ok(vec![Store::Rutile(client.raw(RawOptions::default()))])
            }
            "etcd" => {
                let mut stores = Vec::new();
                for address in addresses {
                    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
                    stores.push(Store::Etcd(KvClient::new(channel)));
                }
                Ok(stores)
            }
            other => bail!("unknown system {other}\n{USAGE}"),
        }
    }

    async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        match self {
            Store::Rutile(client) => client.put(key, value, 0).await?,
            Store::Etcd(client) => {
                client.put(PutRequest { key: key.into(), value: value.into(), ..Default::default() }).await?;
            }
        }
        Ok(())
    }

    /// The length of the value of `key`, bytes.
    async fn get(&mut self, key: Vec<u8>) -> Result<usize> {
        let length = match self {
            Store::Rutile(client) => client.get(&key).await?.map(|value| value.len()),
            Store::Etcd(client) => {
                let answer = client.range(RangeRequest { key: key.into(), ..Default::default() }).await?;
                answer.into_inner().kvs.first().map(|pair| pair.value.len())
            }
        };
        length.context("a key that was put is not there")
    }
}

/// What a run does.
struct Load {
    put: bool,
    clients: usize,
    seconds: u64,
    keys: u64,
    value_bytes: usize,
}

fn key(number: u64) -> Vec<u8> {
    format!("rload-{number:012}").into_bytes()
}

/// A cheap generator of key numbers (splitmix64), one per client.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB)
}

async fn client(mut store: Store, load: Arc<Load>, number: usize, stop: Arc<AtomicBool>) -> Result<Vec<u32>> {
    let mut state = number as u64 + 1;
    let mut micros = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let key = key(next(&mut state) % load.keys);
        let started = Instant::now();
        if load.put {
            store.put(key, vec![b'v'; load.value_bytes]).await?;
        } else {
            let length = store.get(key).await?;
            ensure!(length == load.value_bytes, "a value of {length} bytes instead of {}", load.value_bytes);
        }
        micros.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(micros)
}

/// Puts every key once, so that gets find them.
async fn fill(stores: &[Store], load: &Load) -> Result<()> {
    const WRITERS: u64 = 64;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let mut store = stores[writer as usize % stores.len()].clone();
        let (keys, bytes) = (load.keys, load.value_bytes);
        tasks.spawn(async move {
            for number in (writer..keys).step_by(WRITERS as usize) {
                store.put(key(number), vec![b'v'; bytes]).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn run(stores: Vec<Store>, load: Load) -> Result<()> {
    if !load.put && stores[0].clone().get(FILLED.to_vec()).await.is_err() {
        fill(&stores, &load).await?;
        stores[0].clone().put(FILLED.to_vec(), Vec::new()).await?;
    }
    let load = Arc::new(load);
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let tasks: Vec<_> = (0..load.clients)
        .map(|n| tokio::spawn(client(stores[n % stores.len()].clone(), load.clone(), n, stop.clone())))
        .collect();
    tokio::time::sleep(Duration::from_secs(load.seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut micros = Vec::new();
    for task in tasks {
        micros.extend(task.await??);
    }
    let seconds = started.elapsed().as_secs_f64();
    micros.sort_unstable();
    ensure!(!micros.is_empty(), "no operation ended");
    let at = |share: f64| f64::from(micros[((micros.len() - 1) as f64 * share) as usize]) / 1000.0;
    println!("{:.0} {:.2} {:.2} {:.2}", micros.len() as f64 / seconds, at(0.5), at(0.99), at(1.0));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [system, addresses, operation, clients, seconds, rest @ ..] = &arguments[..] else { bail!(USAGE) };
    let load = Load {
        put: match operation.as_str() {
            "put" => true,
            "get" => false,
            other => bail!("unknown operation {other}\n{USAGE}"),
        },
        clients: clients.parse().context("CLIENTS")?,
        seconds: seconds.parse().context("SECONDS")?,
        keys: rest.first().map_or(Ok(100_000), |n| n.parse()).context("KEYS")?,
        value_bytes: rest.get(1).map_or(Ok(128), |n| n.parse()).context("VALUE-BYTES")?,
    };
    ensure!(load.clients > 0 && load.keys > 0, "CLIENTS and KEYS must be at least 1");
    run(Store::connect(system, addresses).await?, load).await
}
