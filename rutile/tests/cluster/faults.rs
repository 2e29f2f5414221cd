//! A network that breaks: a proxy before the store cuts connections in the middle of requests and answers. A commit
//! answers what is true, or that it does not know; reads are repeated.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::support::*;
use bytes::Bytes;
use rutile_client::{Client, Error, KeyRange, LockOptions, ScanOptions, TxnOptions};
use rutile_proto::pdpb;
use rutile_proto::pdpb::pd_client::PdClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Requests,
    Answers,
}

/// When to cut, once.
#[derive(Clone, Copy, Debug)]
struct Cut {
    direction: Direction,
    /// So many chunks of this direction still pass.
    chunks_left: usize,
}

#[derive(Default)]
struct State {
    cut: Option<Cut>,
    cuts: usize,
}

/// Passes everything on to a store until it is told to cut.
#[derive(Clone)]
struct Proxy {
    addr: SocketAddr,
    state: Shared,
}

/// What the proxy's tasks and the test share.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    async fn start(store: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy { addr: listener.local_addr().unwrap(), state: Shared::default() };
        let state = proxy.state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, store, state.clone()));
            }
        });
        proxy
    }

    fn arm(&self, direction: Direction, chunks_left: usize) {
        self.state.lock().cut = Some(Cut { direction, chunks_left });
    }

    /// Whether it has cut since it was armed.
    fn disarm(&self) -> bool {
        self.state.lock().cut.take().is_none()
    }

    fn cuts(&self) -> usize {
        self.state.lock().cuts
    }
}

impl State {
    /// Whether the connection is cut instead of passing a chunk on.
    fn strikes(&mut self, direction: Direction) -> bool {
        let Some(cut) = self.cut.as_mut().filter(|cut| cut.direction == direction) else { return false };
        if cut.chunks_left > 0 {
            cut.chunks_left -= 1;
            return false;
        }
        self.cut = None;
        self.cuts += 1;
        true
    }
}

async fn pass(mut client: TcpStream, store: SocketAddr, state: Shared) -> std::io::Result<()> {
    let mut store = TcpStream::connect(store).await?;
    client.set_nodelay(true)?;
    store.set_nodelay(true)?;
    let (mut requests, mut answers) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut requests) => match read? {
                0 => return Ok(()),
                n if !state.lock().strikes(Direction::Requests) => store.write_all(&requests[..n]).await?,
                _ => return Ok(()),
            },
            read = store.read(&mut answers) => match read? {
                0 => return Ok(()),
                n if !state.lock().strikes(Direction::Answers) => client.write_all(&answers[..n]).await?,
                _ => return Ok(()),
            },
        }
    }
}

/// A playground whose store is known under the proxy's address.
async fn behind_proxy(playground: &rutile::playground::Playground) -> Proxy {
    let proxy = Proxy::start(playground.addresses().kv[0]).await;
    let pd = format!("http://{}", playground.addresses().pd);
    let mut pd = PdClient::connect(pd).await.unwrap();
    let header = Some(pdpb::RequestHeader {
        cluster_id: playground.client().cluster_id().get(),
        ..Default::default()
    });
    let mut store = playground.client().pd().all_stores().await.unwrap().remove(0);
    store.address = proxy.addr.to_string();
    let answer =
        pd.put_store(pdpb::PutStoreRequest { header, store: Some(store) }).await.unwrap().into_inner();
    assert!(answer.header.is_none_or(|h| h.error.is_none()));
    proxy
}

struct Scenario {
    name: &'static str,
    options: TxnOptions,
    keys: Vec<Bytes>,
}

/// One phase, async commit, two phases, and locks before them.
async fn scenarios(client: &Client) -> Vec<Scenario> {
    let autocommit = TxnOptions { autocommit: true, ..optimistic() };
    let all = [
        ("one phase", autocommit, 3, false),
        ("async commit", optimistic(), 3, true),
        ("two phases", optimistic(), 300, true),
        ("pessimistic, one phase", pessimistic(), 3, false),
        ("pessimistic, async commit", pessimistic(), 3, true),
    ];
    let mut scenarios = Vec::new();
    for (name, options, count, split) in all {
        let keys: Vec<Bytes> = (0..count).map(|i| key(name, i)).collect();
        if split {
            client.split_region(&keys[count / 2]).await.unwrap();
        }
        write(client, optimistic(), &keys, "0").await.unwrap();
        scenarios.push(Scenario { name, options, keys });
    }
    scenarios
}

/// Adds 1 to the number under every key.
async fn add_one(client: &Client, options: TxnOptions, keys: &[Bytes]) -> Result<(), Error> {
    let txn = client.begin(options).await?;
    if txn.mode() == rutile_client::TxnMode::Pessimistic {
        txn.lock_keys(keys.to_vec(), LockOptions::default()).await?;
    }
    let before = txn.get(&keys[0]).await?.unwrap();
    let after: u64 = std::str::from_utf8(&before).unwrap().parse::<u64>().unwrap() + 1;
    for key in keys {
        txn.put(key.clone(), after.to_string())?;
    }
    txn.commit().await.map(drop)
}

/// The one number under all keys.
async fn number(client: &Client, keys: &[Bytes], case: &str) -> u64 {
    let view = client.snapshot(client.timestamp().await.unwrap());
    let found = view.batch_get(keys.to_vec()).await.unwrap();
    assert_eq!(found.len(), keys.len(), "{case}");
    let first = found[&keys[0]].clone();
    assert!(found.values().all(|value| *value == first), "{case}: half of a transaction is visible");
    std::str::from_utf8(&first).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_whose_answer_is_lost_tell_the_truth() {
    let playground = playground(|_| ()).await;
    let direct = playground.client();
    let proxy = behind_proxy(&playground).await;
    let client = grpc_client(&playground).await;
    let mut unknown = 0;
    for Scenario { name, options, keys } in scenarios(&direct).await {
        for direction in [Direction::Requests, Direction::Answers] {
            let before = proxy.cuts();
            for chunks in 0..10 {
                let case = format!("{name}, {direction:?} cut after {chunks} chunks");
                let old = number(&direct, &keys, &case).await;
                proxy.arm(direction, chunks);
                let result = add_one(&client, options.clone(), &keys).await;
                proxy.disarm();
                let new = number(&direct, &keys, &case).await;
                match result {
                    Ok(()) => assert_eq!(new, old + 1, "{case}: success"),
                    Err(Error::ResultUndetermined(_)) => {
                        unknown += 1;
                        assert!(new == old || new == old + 1, "{case}: {old} became {new}");
                    }
                    Err(error) => assert_eq!(new, old, "{case}: {error}"),
                }
            }
            assert!(proxy.cuts() >= before + 2, "{name}: {} cuts of {direction:?}", proxy.cuts() - before);
        }
    }
    println!("{} cuts, {unknown} results unknown", proxy.cuts());
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_repeated() {
    let playground = playground(|_| ()).await;
    let direct = playground.client();
    let keys: Vec<Bytes> = (0..3000).map(|i| key("read", i)).collect();
    write(&direct, optimistic(), &keys, "a value").await.unwrap();
    direct.split_region(&keys[1500]).await.unwrap();
    let proxy = behind_proxy(&playground).await;
    let client = grpc_client(&playground).await;
    for direction in [Direction::Requests, Direction::Answers] {
        for chunks in 0..6 {
            proxy.arm(direction, chunks);
            let view = client.snapshot(client.timestamp().await.unwrap());
            assert_eq!(view.get(&keys[7]).await.unwrap().as_deref(), Some(&b"a value"[..]));
            let found = view.batch_get(keys[1000..2000].to_vec()).await.unwrap();
            assert_eq!(found.len(), 1000);
            let pairs = view.scan(KeyRange::prefix(b"read"), ScanOptions::default()).collect().await.unwrap();
            assert!(pairs.iter().map(|p| &p.key).eq(&keys), "{} pairs", pairs.len());
            assert!(proxy.disarm(), "the proxy did not cut");
        }
    }
    playground.shutdown().await;
}

/// Many requests share the stream that breaks: each ends, and each with the truth.
#[tokio::test(flavor = "multi_thread")]
async fn everybody_on_a_broken_stream_goes_on() {
    let playground = playground(|_| ()).await;
    let proxy = behind_proxy(&playground).await;
    let client = grpc_client(&playground).await;
    for chunks in 0..2 {
        let name = format!("many{chunks}");
        proxy.arm(Direction::Answers, chunks);
        let writers = (0..200).map(|i| {
            let (client, k) = (client.clone(), key(&name, i));
            async move {
                let result = write(&client, optimistic(), std::slice::from_ref(&k), "v").await;
                let seen = read(&client, &k).await;
                match result {
                    Ok(()) => assert_eq!(seen.as_deref(), Some("v")),
                    Err(Error::ResultUndetermined(_)) => {}
                    Err(error) => assert_eq!(seen, None, "{error}"),
                }
            }
        });
        futures::future::join_all(writers).await;
        assert!(proxy.disarm(), "the proxy did not cut");
    }
    playground.shutdown().await;
}
