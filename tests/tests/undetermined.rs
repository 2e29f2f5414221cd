//! A commit whose answer is lost: the client hears the truth, or that it is not known; and nothing happens twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rutile_tests::cluster::Cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a proxy does, shared with the test.
#[derive(Default)]
struct Rules {
    /// Requests pass, answers do not; set by the first request that contains the needle.
    swallow: AtomicBool,
    /// Nobody gets through, and connections are refused.
    down: AtomicBool,
    /// Requests with the needle that passed.
    seen: AtomicUsize,
    /// Pieces of answers that did not.
    swallowed: AtomicUsize,
    /// Swallow from the first request on that contains this.
    needle: std::sync::Mutex<Option<Vec<u8>>>,
}

impl Rules {
    fn arm(&self, needle: &str) {
        *self.needle.lock().unwrap() = Some(needle.as_bytes().to_vec());
    }

    fn reset(&self) {
        *self.needle.lock().unwrap() = None;
        self.swallow.store(false, Ordering::SeqCst);
        self.down.store(false, Ordering::SeqCst);
        self.seen.store(0, Ordering::SeqCst);
        self.swallowed.store(0, Ordering::SeqCst);
    }

    fn look(&self, request: &[u8]) {
        let needle = self.needle.lock().unwrap();
        let found = |needle: &Vec<u8>| request.windows(needle.len()).any(|window| window == needle);
        if needle.as_ref().is_some_and(found) {
            self.seen.fetch_add(1, Ordering::SeqCst);
            self.swallow.store(true, Ordering::SeqCst);
        }
    }
}

/// Between SQL servers and a store.
async fn proxy(listener: TcpListener, store: SocketAddr, rules: Arc<Rules>) {
    while let Ok((client, _)) = listener.accept().await {
        if rules.down.load(Ordering::SeqCst) {
            continue;
        }
        tokio::spawn(pass(client, store, Arc::clone(&rules)));
    }
}

async fn pass(mut client: TcpStream, store: SocketAddr, rules: Arc<Rules>) -> std::io::Result<()> {
    let mut store = TcpStream::connect(store).await?;
    client.set_nodelay(true)?;
    store.set_nodelay(true)?;
    let (mut requests, mut answers) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut look = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            read = client.read(&mut requests) => {
                let n = read?;
                if n == 0 {
                    return Ok(());
                }
                rules.look(&requests[..n]);
                store.write_all(&requests[..n]).await?;
            }
            read = store.read(&mut answers) => match read? {
                0 => return Ok(()),
                _ if rules.swallow.load(Ordering::SeqCst) => {
                    rules.swallowed.fetch_add(1, Ordering::SeqCst);
                }
                n => client.write_all(&answers[..n]).await?,
            },
            _ = look.tick() => if rules.down.load(Ordering::SeqCst) {
                return Ok(());
            },
        }
    }
}

/// One store that all others know under the address of a proxy, and a SQL server with a table.
async fn behind_proxy() -> Result<(Cluster, Arc<Rules>, Conn)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (port, rules) = (listener.local_addr()?.port(), Arc::new(Rules::default()));
    let mut cluster = Cluster::start()?;
    cluster.add_store(|_| port)?;
    let store = SocketAddr::from(([127, 0, 0, 1], cluster.stores[0].port));
    tokio::spawn(proxy(listener, store, Arc::clone(&rules)));
    cluster.add_sql()?;
    let mut conn = cluster.connect("").await?;
    conn.query_drop("CREATE DATABASE d").await?;
    conn.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY, n INT, note VARCHAR(400), KEY (note))").await?;
    conn.query_drop("INSERT INTO d.t VALUES (1, 0, ''), (2, 0, '')").await?;
    Ok((cluster, rules, conn))
}

/// Waits until the request that carries the needle has passed, and an answer of the store has not.
async fn swallowed(rules: &Rules) -> Result<()> {
    let begun = Instant::now();
    while rules.seen.load(Ordering::SeqCst) == 0 || rules.swallowed.load(Ordering::SeqCst) == 0 {
        ensure!(begun.elapsed() < Duration::from_secs(60), "the commit was not sent");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_comes_is_not_taken_for_a_failure() -> Result<()> {
    let (cluster, rules, mut conn) = behind_proxy().await?;
    let mut explicit = cluster.connect("d").await?;
    let mut lone = cluster.connect("d").await?;
    explicit.query_drop("BEGIN").await?;
    explicit.query_drop("UPDATE t SET n = n + 1, note = 'needle in a transaction' WHERE id = 1").await?;
    rules.arm("needle");
    let commits = tokio::spawn(async move { (explicit.query_drop("COMMIT").await, explicit) });
    let lone = tokio::spawn(async move {
        (lone.query_drop("UPDATE t SET n = n + 1, note = 'needle of its own' WHERE id = 2").await, lone)
    });
    swallowed(&rules).await?;
    rules.down.store(true, Ordering::SeqCst);
    for (what, task) in [("COMMIT", commits), ("a lone UPDATE", lone)] {
        let (result, mut conn) = task.await?;
        let error = result.err().with_context(|| format!("{what} was answered with success"))?;
        let mysql_async::Error::Server(said) = &error else { anyhow::bail!("{what}: {error}") };
        // What was still reading when the answers ceased has not sent anything, and says so.
        let unsent = what != "COMMIT" && said.code == 9005;
        if unsent {
            continue;
        }
        ensure!(said.code == 1105 && said.message.contains("result undetermined"), "{what}: {error}");
        // The connection is closed.
        let next = conn.query_drop("SELECT 1").await;
        ensure!(
            next.as_ref().is_err_and(|e| !matches!(e, mysql_async::Error::Server(_))),
            "{what}: {next:?}"
        );
    }
    // The network is back: the truth can be seen, and nothing happened twice.
    rules.reset();
    let rows: Vec<i64> = conn.query("SELECT n FROM d.t ORDER BY id").await?;
    println!("what came of the two: {rows:?}");
    ensure!(rows.len() == 2 && rows.iter().all(|n| *n == 0 || *n == 1), "{rows:?}");
    drop(conn);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_comes_back_brings_the_true_result() -> Result<()> {
    let (cluster, rules, mut conn) = behind_proxy().await?;
    let mut sum = 0;
    for round in 0..6 {
        rules.arm("needle");
        let mut other = cluster.connect("d").await?;
        let lone = round % 2 == 0;
        let update = format!("UPDATE t SET n = n + 1, note = 'needle {round}' WHERE id = 1");
        let task = tokio::spawn(async move {
            if lone {
                return (other.query_drop(update).await, other);
            }
            let result = async {
                other.query_drop("BEGIN").await?;
                other.query_drop(update).await?;
                other.query_drop("COMMIT").await
            };
            (result.await, other)
        });
        swallowed(&rules).await?;
        rules.down.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        rules.reset();
        let (result, mut other) = task.await?;
        // It may have to repeat the commit; each time it was the same one.
        result.with_context(|| format!("round {round}"))?;
        sum += 1;
        let n: Option<i64> = conn.query_first("SELECT n FROM d.t WHERE id = 1").await?;
        ensure!(n == Some(sum), "round {round}: {n:?}, and {sum} were acknowledged");
        let n: Option<i64> = other.query_first("SELECT n FROM t WHERE id = 1").await?;
        ensure!(n == Some(sum), "round {round}: {n:?} on the connection itself");
    }
    drop(conn);
    Ok(())
}
