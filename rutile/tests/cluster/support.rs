//! What tests of whole clusters share: a playground in this process and clients of it over both transports.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rutile::config::PlaygroundConfig;
use rutile::playground::Playground;
use rutile_client::{Client, KeyRange, Transaction, TxnMode, TxnOptions};

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// A playground on free ports with its data in a temporary folder.
pub async fn playground(adjust: impl FnOnce(&mut PlaygroundConfig)) -> Playground {
    let mut config = PlaygroundConfig {
        ephemeral: true,
        sql_port: 0,
        status_port: 0,
        pd_port: 0,
        kv_port: 0,
        ..PlaygroundConfig::default()
    };
    adjust(&mut config);
    Playground::start(config).await.unwrap()
}

/// A client by direct calls, and one over gRPC.
pub async fn clients(playground: &Playground) -> [(&'static str, Client); 2] {
    [("in process", playground.client()), ("gRPC", grpc_client(playground).await)]
}

pub async fn grpc_client(playground: &Playground) -> Client {
    Client::connect(&[playground.addresses().pd.to_string()]).await.unwrap()
}

pub fn optimistic() -> TxnOptions {
    TxnOptions { mode: TxnMode::Optimistic, ..TxnOptions::default() }
}

pub fn pessimistic() -> TxnOptions {
    TxnOptions { mode: TxnMode::Pessimistic, ..TxnOptions::default() }
}

pub fn key(name: &str, i: usize) -> Bytes {
    format!("{name}{i:05}").into()
}

/// Commits one value under all keys.
pub async fn write(
    client: &Client,
    options: TxnOptions,
    keys: &[Bytes],
    value: &str,
) -> rutile_client::Result<()> {
    let txn = client.begin(options).await?;
    if txn.mode() == TxnMode::Pessimistic {
        txn.lock_keys(keys.to_vec(), Default::default()).await?;
    }
    for key in keys {
        txn.put(key.clone(), value.to_owned())?;
    }
    txn.commit().await.map(drop)
}

/// What a new transaction sees.
pub async fn read(client: &Client, key: &Bytes) -> Option<String> {
    let txn: Transaction = client.begin(optimistic()).await.unwrap();
    let value = txn.get(key).await.unwrap();
    value.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

/// Waits until a condition is true.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many regions hold the keys with this prefix, asked afresh.
pub async fn regions(playground: &Playground, prefix: &str) -> usize {
    let fresh = grpc_client(playground).await;
    fresh.regions(&KeyRange::prefix(prefix.as_bytes())).await.unwrap().len()
}

/// A generator of numbers that look random, the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}
