//! What the connections of one server do not do to each other.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use rutile_tests::process::Playground;

const SLEEPERS: usize = 20;

/// Ids of the connections in which a statement like this runs.
async fn running(conn: &mut mysql_async::Conn, pattern: &str) -> Result<Vec<u64>> {
    let query = "SELECT id FROM information_schema.processlist WHERE info LIKE ? AND id <> CONNECTION_ID()";
    Ok(conn.exec(query, (pattern,)).await?)
}

/// Waits until so many connections run such a statement, answering others all the while.
async fn wait_for_running(conn: &mut mysql_async::Conn, pattern: &str, count: usize) -> Result<Vec<u64>> {
    let begun = Instant::now();
    loop {
        let ids = running(conn, pattern).await?;
        if ids.len() == count {
            return Ok(ids);
        }
        ensure!(begun.elapsed() < Duration::from_secs(20), "{} of {count} run {pattern}", ids.len());
    }
}

/// Sleeping connections stop nobody, and KILL QUERY wakes each of them: its SLEEP answers 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sleepers_sleep_together_and_wake_when_killed() -> Result<()> {
    let mut db = Playground::start()?;
    let mut other = db.connect("").await?;
    let mut conns = Vec::new();
    for _ in 0..SLEEPERS {
        conns.push(db.connect("").await?);
    }
    let sleepers: Vec<_> = conns
        .into_iter()
        .map(|mut conn| tokio::spawn(async move { conn.query_first::<u8, _>("SELECT SLEEP(1000)").await }))
        .collect();
    // All of them sleep at the same time, and this connection is answered.
    let ids = wait_for_running(&mut other, "SELECT SLEEP%", SLEEPERS).await?;
    for id in ids {
        other.query_drop(format!("KILL QUERY {id}")).await?;
    }
    for sleeper in sleepers {
        ensure!(sleeper.await?? == Some(1), "a SLEEP that was killed answers 1");
    }
    // Left alone, they all end after their second, not one after the other.
    let mut conns = Vec::new();
    for _ in 0..SLEEPERS {
        conns.push(db.connect("").await?);
    }
    let begun = Instant::now();
    let sleepers: Vec<_> = conns
        .into_iter()
        .map(|mut conn| tokio::spawn(async move { conn.query_first::<u8, _>("SELECT SLEEP(1)").await }))
        .collect();
    for sleeper in sleepers {
        ensure!(sleeper.await?? == Some(0), "a SLEEP left alone answers 0");
    }
    ensure!(begun.elapsed() < Duration::from_secs(SLEEPERS as u64 / 2), "{:?}", begun.elapsed());
    db.stop()
}
