//! kill -9 under load: acknowledged commits stay, half transactions are never seen, money is neither made nor lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rutile_tests::process::Playground;
use tokio::task::JoinHandle;

const ACCOUNTS: u32 = 20;
const BALANCE: i64 = 1000;
const INSERTERS: u32 = 4;
const TRANSFERRERS: u64 = 4;

fn rounds() -> u32 {
    std::env::var("RUTILE_CRASH_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(20)
}

async fn prepare(db: &Playground) -> Result<()> {
    let mut conn = db.connect("").await?;
    conn.query_drop("CREATE DATABASE bank").await?;
    conn.query_drop("USE bank").await?;
    conn.query_drop("CREATE TABLE accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL)").await?;
    conn.query_drop(
        "CREATE TABLE inserts (w INT, n INT, note VARCHAR(40), PRIMARY KEY (w, n), KEY note (note))",
    )
    .await?;
    for id in 0..ACCOUNTS {
        conn.exec_drop("INSERT INTO accounts VALUES (?, ?)", (id, BALANCE)).await?;
    }
    Ok(())
}

/// Inserts rows (w, from), (w, from + 1), … until the connection breaks; answers the first number not acknowledged.
async fn insert_until_broken(mut conn: mysql_async::Conn, w: u32, from: u32) -> Result<u32> {
    let mut n = from;
    loop {
        let note = format!("writer {w} row {n}");
        match conn.exec_drop("INSERT INTO inserts VALUES (?, ?, ?)", (w, n, note)).await {
            Ok(()) => n += 1,
            Err(e @ mysql_async::Error::Server(_)) => return Err(e.into()),
            Err(_) => return Ok(n),
        }
    }
}

async fn transfer(conn: &mut mysql_async::Conn, rng: &mut StdRng) -> mysql_async::Result<()> {
    let (from, to) = (rng.random_range(0..ACCOUNTS), rng.random_range(0..ACCOUNTS));
    if from == to {
        return Ok(());
    }
    let amount: i64 = rng.random_range(1..50);
    conn.query_drop("BEGIN").await?;
    for (id, change) in [(from, -amount), (to, amount)] {
        let step =
            conn.exec_drop("UPDATE accounts SET balance = balance + ? WHERE id = ?", (change, id)).await;
        if let Err(mysql_async::Error::Server(e)) = &step
            && [1205, 1213].contains(&e.code)
        {
            return conn.query_drop("ROLLBACK").await;
        }
        step?;
    }
    conn.query_drop("COMMIT").await
}

async fn transfer_until_broken(mut conn: mysql_async::Conn, seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    loop {
        match transfer(&mut conn, &mut rng).await {
            Ok(()) => {}
            Err(e @ mysql_async::Error::Server(_)) => return Err(e.into()),
            Err(_) => return Ok(()),
        }
    }
}

/// Reads the total again and again; answers how often.
async fn watch_total(mut conn: mysql_async::Conn, stop: Arc<AtomicBool>) -> Result<u32> {
    let mut seen = 0;
    while !stop.load(Ordering::Relaxed) {
        match conn.query_first::<i64, _>("SELECT SUM(balance) FROM accounts").await {
            Ok(total) => {
                ensure!(total == Some(BALANCE * i64::from(ACCOUNTS)), "a reader saw the total {total:?}");
                seen += 1;
            }
            Err(e @ mysql_async::Error::Server(_)) => return Err(e.into()),
            Err(_) => break,
        }
    }
    Ok(seen)
}

/// What is there after a restart: every acknowledged row, at most one more per writer, the old total.
async fn check(db: &Playground, next: &mut BTreeMap<u32, u32>) -> Result<()> {
    let mut conn = db.connect("bank").await?;
    let total: Option<i64> = conn.query_first("SELECT SUM(balance) FROM accounts").await?;
    ensure!(total == Some(BALANCE * i64::from(ACCOUNTS)), "the total is {total:?}");
    for (w, n) in next.iter_mut() {
        let (count, max): (u32, Option<u32>) = conn
            .exec_first("SELECT COUNT(*), MAX(n) FROM inserts WHERE w = ?", (*w,))
            .await?
            .context("no row")?;
        let rows = max.map_or(0, |m| m + 1);
        ensure!(count == rows, "writer {w}: {count} rows but the last is {max:?}");
        ensure!(rows == *n || rows == *n + 1, "writer {w}: {n} acknowledged, {rows} found");
        let pattern = format!("writer {w} row %");
        let by_index: Option<u32> = conn
            .exec_first("SELECT COUNT(*) FROM inserts FORCE INDEX (note) WHERE note LIKE ?", (pattern,))
            .await?;
        ensure!(by_index == Some(rows), "writer {w}: {rows} rows, {by_index:?} index entries");
        *n = rows;
    }
    Ok(())
}

/// Runs the load, kills the process in the middle of it, and answers how many totals were seen.
async fn run_and_kill(db: &mut Playground, next: &mut BTreeMap<u32, u32>, round: u32) -> Result<u32> {
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(watch_total(db.connect("bank").await?, stop.clone()));
    let mut inserters: Vec<(u32, JoinHandle<Result<u32>>)> = vec![];
    for (w, n) in next.iter() {
        inserters.push((*w, tokio::spawn(insert_until_broken(db.connect("bank").await?, *w, *n))));
    }
    let mut transferrers = vec![];
    for t in 0..TRANSFERRERS {
        let seed = u64::from(round) * TRANSFERRERS + t;
        transferrers.push(tokio::spawn(transfer_until_broken(db.connect("bank").await?, seed)));
    }
    tokio::time::sleep(Duration::from_millis(200 + u64::from(round % 7) * 37)).await;
    db.kill()?;
    stop.store(true, Ordering::Relaxed);
    for (w, task) in inserters {
        next.insert(w, task.await??);
    }
    for task in transferrers {
        task.await?.context("a transfer failed")?;
    }
    watcher.await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_nine_loses_nothing() -> Result<()> {
    let mut db = Playground::start()?;
    prepare(&db).await?;
    let mut next: BTreeMap<u32, u32> = (0..INSERTERS).map(|w| (w, 0)).collect();
    let mut watched = 0;
    for round in 0..rounds() {
        let context = || format!("round {round}");
        watched += run_and_kill(&mut db, &mut next, round).await.with_context(context)?;
        let ready = db.spawn().with_context(context)?;
        check(&db, &mut next).await.with_context(context)?;
        println!("round {round}: ready after {ready:?}, {} rows", next.values().sum::<u32>());
    }
    ensure!(watched > 0 && next.values().all(|n| *n > 0), "the load did nothing");
    db.stop()
}
