//! A cluster of processes seen through SQL: deadlocks over stores, reads of followers and of the past.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rutile_tests::cluster::{Cluster, until};

/// Tables `d.a` and `d.b` with rows 1 to 3, led from different stores.
async fn two_tables(cluster: &Cluster, conn: &mut Conn) -> Result<()> {
    conn.query_drop("CREATE DATABASE d").await?;
    for table in ["a", "b"] {
        conn.query_drop(format!("CREATE TABLE d.{table} (id INT PRIMARY KEY, v INT)")).await?;
        conn.query_drop(format!("INSERT INTO d.{table} VALUES (1, 10), (2, 20), (3, 30)")).await?;
    }
    until("the tables are in regions of their own", || {
        let region = cluster.region_of_table("d.b")?;
        if region.id != cluster.region_of_table("d.a")?.id {
            return Ok(true);
        }
        cluster.ctl(&["operators", "add", "split", &region.id.to_string(), "table:d.b"]).map(|_| false)
    })?;
    // Nobody moves them while we look.
    for name in cluster.ctl(&["scheduler", "list"])?.lines() {
        cluster.ctl(&["scheduler", "off", name])?;
    }
    let (a, b) = (cluster.region_of_table("d.a")?, cluster.region_of_table("d.b")?);
    let leader = a.leader.context("the region of d.a has no leader")?;
    let other = b.stores.iter().copied().find(|store| *store != leader).context("one store only")?;
    cluster.lead(b.id, other)
}

fn code(error: &mysql_async::Error) -> u16 {
    match error {
        mysql_async::Error::Server(error) => error.code,
        other => panic!("no answer of the server: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_over_stores_is_error_1213() -> Result<()> {
    let mut cluster = Cluster::with_stores(3)?;
    cluster.add_sql()?;
    let (mut first, mut second) = (cluster.connect("").await?, cluster.connect("").await?);
    two_tables(&cluster, &mut first).await?;
    for round in 0..4 {
        if round == 2 {
            // Another store is the detector: the one that leads the region of the first key.
            let region = cluster.region_of("0x00")?;
            let other =
                region.stores.iter().find(|store| Some(**store) != region.leader).context("one store")?;
            cluster.lead(region.id, *other)?;
        }
        first.query_drop("BEGIN").await?;
        second.query_drop("BEGIN").await?;
        first.query_drop("UPDATE d.a SET v = v + 1 WHERE id = 1").await?;
        second.query_drop("UPDATE d.b SET v = v + 1 WHERE id = 1").await?;
        let begun = Instant::now();
        let crosswise = async |conn: &mut Conn, table: &str| {
            let result = conn.query_drop(format!("UPDATE d.{table} SET v = v + 1 WHERE id = 1")).await;
            // The victim's transaction is gone; the other one ends and is done.
            conn.query_drop("COMMIT").await?;
            Ok::<_, mysql_async::Error>(result.err().map(|error| code(&error)))
        };
        let (one, two) = tokio::join!(crosswise(&mut first, "b"), crosswise(&mut second, "a"));
        let codes = [one?, two?];
        ensure!(codes.contains(&Some(1213)) && codes.contains(&None), "round {round}: {codes:?}");
        let took = begun.elapsed();
        println!("round {round}: told after {took:?}");
        ensure!(took < Duration::from_secs(20), "round {round}: after {took:?}, the lock wait lasts 50 s");
    }
    // Each round one of them has changed both.
    let sums: Vec<(i64, i64)> =
        first.query("SELECT a.v, b.v FROM d.a JOIN d.b USING (id) WHERE id = 1").await?;
    ensure!(sums == [(14, 14)], "{sums:?}");
    drop((first, second));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_followers_and_of_the_past() -> Result<()> {
    let mut cluster = Cluster::with_stores(3)?;
    cluster.add_sql()?;
    cluster.add_sql()?;
    let mut writer = cluster.connect("").await?;
    two_tables(&cluster, &mut writer).await?;
    // Through the other server, whose cache of regions knows nothing of what was written.
    let mut reader = rutile_tests::process::connect(cluster.sql[1].port, "d").await?;
    let all = "SELECT a.v, b.v FROM a JOIN b USING (id) ORDER BY id";
    for kind in ["follower", "leader-and-follower", "leader"] {
        reader.query_drop(format!("SET rutile_replica_read = '{kind}'")).await?;
        for round in 0..10 {
            writer.query_drop(format!("UPDATE d.a SET v = {round} WHERE id <= 3")).await?;
            writer.query_drop(format!("UPDATE d.b SET v = {round} WHERE id <= 3")).await?;
            let rows: Vec<(i64, i64)> = reader.query(all).await?;
            ensure!(rows == [(round, round); 3], "{kind}, round {round}: {rows:?}");
            let row: Option<i64> = reader.exec_first("SELECT v FROM b WHERE id = ?", (2,)).await?;
            ensure!(row == Some(round), "{kind}, round {round}: {row:?}");
            reader.query_drop("BEGIN").await?;
            let rows: Vec<i64> = reader.query("SELECT v FROM a WHERE id = 3 FOR UPDATE").await?;
            ensure!(rows == [round], "{kind}, round {round}: {rows:?}");
            reader.query_drop("ROLLBACK").await?;
        }
    }
    let refused = reader.query_drop("SET rutile_replica_read = 'nearest'").await.unwrap_err();
    ensure!(code(&refused) == 1231, "{refused}");

    // The past.
    let then: String = writer.query_first("SELECT CAST(NOW(6) AS CHAR)").await?.context("no time")?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    writer.query_drop("UPDATE d.a SET v = 77").await?;
    let begin = format!("START TRANSACTION READ ONLY AS OF TIMESTAMP '{then}'");
    for _ in 0..3 {
        reader.query_drop(&begin).await?;
        let rows: Vec<(i64, i64)> = reader.query(all).await?;
        ensure!(rows == [(9, 9); 3], "{rows:?}");
        let refused = reader.query_drop("UPDATE a SET v = 0").await.unwrap_err();
        ensure!(code(&refused) == 1792, "{refused}");
        reader.query_drop("COMMIT").await?;
    }
    let rows: Vec<(i64, i64)> = reader.query(all).await?;
    ensure!(rows == [(77, 9); 3], "{rows:?}");
    for (bad, why) in [("NOW() + INTERVAL 1 HOUR", "future"), ("'yesterday'", "not a date")] {
        let statement = format!("START TRANSACTION READ ONLY AS OF TIMESTAMP {bad}");
        let refused = reader.query_drop(statement).await.unwrap_err();
        ensure!(code(&refused) == 8135 && refused.to_string().contains(why), "{bad}: {refused}");
    }
    // With a staleness of a second, a statement sees what was there a second ago, at most a little more.
    reader.query_drop("SET rutile_read_staleness = 1").await?;
    let begun = Instant::now();
    writer.query_drop("UPDATE d.a SET v = 78").await?;
    let mut waited = Duration::ZERO;
    loop {
        let rows: Vec<i64> = reader.query("SELECT v FROM a WHERE id = 1").await?;
        if rows == [78] {
            break;
        }
        ensure!(rows[0] <= 77 && waited < Duration::from_secs(60), "{rows:?} after {waited:?}");
        waited = begun.elapsed();
    }
    ensure!(begun.elapsed() >= Duration::from_millis(900), "too fresh: after {:?}", begun.elapsed());
    reader.query_drop("SET rutile_read_staleness = 0").await?;
    let rows: Vec<i64> = reader.query("SELECT v FROM a WHERE id = 1").await?;
    ensure!(rows == [78], "{rows:?}");
    drop((writer, reader));
    Ok(())
}
