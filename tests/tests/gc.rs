//! Removal of old row versions under SQL sessions.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use rutile_tests::process::Playground;
use tikv_client::{Timestamp, TransactionClient, TransactionOptions};

const SETTINGS: &str = "[sql]\ngc_life_time_seconds = 1\n[kv.gc]\npoll-interval = '50ms'\n";
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether stores refuse to read at `ts`.
async fn is_gone(kv: &TransactionClient, ts: &Timestamp) -> bool {
    let mut snapshot = kv.snapshot(ts.clone(), TransactionOptions::new_optimistic());
    snapshot.get("no such key".to_owned()).await.is_err()
}

async fn until_gone(kv: &TransactionClient, ts: &Timestamp) -> Result<()> {
    let begun = Instant::now();
    while !is_gone(kv, ts).await {
        ensure!(begun.elapsed() < PATIENCE, "the safe point does not move");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_its_snapshot_as_long_as_it_wants() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let settings = dir.path().join("rutile.toml");
    std::fs::write(&settings, SETTINGS)?;
    let mut db = Playground::start_with(&["--config", &settings.display().to_string()])?;
    let kv = TransactionClient::new(vec![format!("127.0.0.1:{}", db.ports.pd)]).await?;
    let (mut reader, mut writer) = (db.connect("").await?, db.connect("").await?);
    writer.query_drop("CREATE DATABASE g").await?;
    writer.query_drop("CREATE TABLE g.t (id INT PRIMARY KEY, v INT)").await?;
    writer.query_drop("INSERT INTO g.t VALUES (1, 10), (2, 20), (3, 30)").await?;
    let before = kv.current_timestamp().await?;
    reader.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    writer.query_drop("UPDATE g.t SET v = v + 1").await?;
    writer.query_drop("DELETE FROM g.t WHERE id = 2").await?;
    let after = kv.current_timestamp().await?;

    until_gone(&kv, &before).await?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        ensure!(!is_gone(&kv, &after).await, "the safe point passed an open transaction");
        let rows: Vec<(i32, i32)> = reader.query("SELECT id, v FROM g.t ORDER BY id").await?;
        ensure!(rows == [(1, 10), (2, 20), (3, 30)], "{rows:?}");
    }
    reader.query_drop("COMMIT").await?;
    // The session lives on without a transaction, and holds nothing back.
    until_gone(&kv, &after).await?;
    let rows: Vec<(i32, i32)> = reader.query("SELECT id, v FROM g.t ORDER BY id").await?;
    ensure!(rows == [(1, 11), (3, 31)], "{rows:?}");
    drop((reader, writer));
    db.stop()
}
