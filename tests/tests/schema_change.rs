//! Schema changes while others write: no row is lost, and no index misses one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rutile_tests::process::{Playground, SqlServer};

/// Waits until a query's first cell is this.
async fn wait_until(conn: &mut Conn, query: &str, wanted: i64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let found: Option<i64> = conn.query_first(query).await?;
        if found == Some(wanted) {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(30), "{query}: {found:?} and not {wanted}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Compares an index with the rows it is of, as of one moment.
async fn check_index(conn: &mut Conn, table: &str, index: &str, column: &str) -> Result<()> {
    let sums = format!(
        "SELECT COUNT({column}), CAST(SUM({column}) AS SIGNED), CAST(SUM(id) AS SIGNED) FROM {table}"
    );
    let with_index = format!("{sums} FORCE INDEX ({index}) WHERE {column} >= 0");
    let without = format!("{sums} IGNORE INDEX ({index}) WHERE {column} + 0 >= 0");
    conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let by_index: Option<(i64, i64, i64)> = conn.query_first(&with_index).await?;
    let by_rows: Option<(i64, i64, i64)> = conn.query_first(&without).await?;
    let plan: Vec<(String, String, String, String, String)> =
        conn.query(format!("EXPLAIN {with_index}")).await?;
    conn.query_drop("COMMIT").await?;
    ensure!(by_index == by_rows, "{index}: {by_index:?} by the index, {by_rows:?} by the rows");
    ensure!(plan.iter().any(|line| line.3.contains(index)), "the index is not read: {plan:?}");
    Ok(())
}

/// The state of the change that waits: what the processlist says of it.
const WAITING: &str = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'ALTER TABLE%'";

/// A transaction that was open before the index was begun commits its rows, and they are in the index, whichever server it ran on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_waits_for_transactions_that_do_not_know_it() -> Result<()> {
    let mut db = Playground::start()?;
    let second = SqlServer::start(&db)?;
    let mut conn = db.connect("").await?;
    conn.query_drop("CREATE DATABASE s").await?;
    conn.query_drop("CREATE TABLE s.t (id INT PRIMARY KEY, k INT, u INT, KEY (u))").await?;
    conn.query_drop("CREATE TABLE s.other (id INT PRIMARY KEY)").await?;
    conn.query_drop("INSERT INTO s.t VALUES (1, 10, 100), (2, 20, 200)").await?;
    for (place, server) in [db.ports.sql, second.port].into_iter().enumerate() {
        let first = 10 * (place as i64 + 1);
        let mut writer = rutile_tests::process::connect(server, "s").await?;
        writer.query_drop("BEGIN").await?;
        writer.query_drop(format!("INSERT INTO t VALUES ({first}, {first}, {first})")).await?;
        // Somebody who works on other tables is not waited for.
        let mut idle = rutile_tests::process::connect(server, "s").await?;
        idle.query_drop("BEGIN").await?;
        idle.query_drop(format!("INSERT INTO other VALUES ({first})")).await?;
        let mut changer = db.connect("s").await?;
        let statement = format!("ALTER TABLE t ADD INDEX k{place} (k)");
        let change = tokio::spawn(async move { changer.query_drop(statement).await });
        let changing =
            format!("SELECT COUNT(*) FROM information_schema.statistics WHERE index_name = 'k{place}'");
        wait_until(&mut conn, WAITING, 1).await?;
        writer.query_drop(format!("INSERT INTO t VALUES ({}, 7, 7)", first + 1)).await?;
        writer.query_drop(format!("UPDATE t SET k = k + 1 WHERE id = {first}")).await?;
        ensure!(!change.is_finished(), "the change did not wait for the transaction");
        wait_until(&mut conn, &changing, 0).await?;
        writer.query_drop("COMMIT").await?;
        change.await??;
        wait_until(&mut conn, &changing, 1).await?;
        check_index(&mut conn, "s.t", &format!("k{place}"), "k").await?;
        idle.query_drop("COMMIT").await?;
    }
    drop(second);
    db.stop()
}

/// What was created through one server is there on every other, in whatever way it is asked for first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_creates_another_can_use_at_once() -> Result<()> {
    let mut db = Playground::start()?;
    let second = SqlServer::start(&db)?;
    let mut maker = db.connect("").await?;
    let mut user = rutile_tests::process::connect(second.port, "").await?;
    for round in 0..4 {
        let database = format!("made{round}");
        maker.query_drop(format!("CREATE DATABASE {database}")).await?;
        user.query_drop(format!("USE {database}")).await?;
        maker.query_drop(format!("CREATE TABLE {database}.a (id INT PRIMARY KEY)")).await?;
        user.query_drop("INSERT INTO a VALUES (1)").await?;
        maker.query_drop(format!("CREATE TABLE {database}.b (id INT PRIMARY KEY)")).await?;
        user.exec_drop("INSERT INTO b VALUES (?)", (2,)).await?;
        maker.query_drop(format!("ALTER TABLE {database}.b ADD COLUMN c INT DEFAULT 5")).await?;
        let c: Option<i64> = user.query_first("SELECT c FROM b").await?;
        ensure!(c == Some(5), "the new column holds {c:?}");
        maker.query_drop(format!("CREATE TABLE {database}.d (id INT PRIMARY KEY)")).await?;
        let columns: Vec<mysql_async::Row> = user.query("SHOW COLUMNS FROM d").await?;
        ensure!(columns.len() == 1, "{columns:?}");
        maker.query_drop(format!("CREATE TABLE {database}.e (id INT PRIMARY KEY)")).await?;
        user.query_drop("BEGIN").await?;
        user.query_drop("INSERT INTO e VALUES (3)").await?;
        user.query_drop("COMMIT").await?;
        maker.query_drop(format!("CREATE DATABASE {database}_2")).await?;
        let third = rutile_tests::process::connect(second.port, &format!("{database}_2")).await?;
        third.disconnect().await?;
    }
    let missing = user.query_drop("SELECT * FROM nowhere").await;
    ensure!(matches!(&missing, Err(mysql_async::Error::Server(e)) if e.code == 1146), "{missing:?}");
    drop(second);
    db.stop()
}

/// Writers on two servers go on while indexes come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_added_under_load_have_every_row() -> Result<()> {
    let mut db = Playground::start()?;
    let second = SqlServer::start(&db)?;
    let mut conn = db.connect("").await?;
    conn.query_drop("CREATE DATABASE s").await?;
    conn.query_drop("CREATE TABLE s.t (id INT AUTO_INCREMENT PRIMARY KEY, k INT, v INT)").await?;
    let rows: Vec<String> = (0..2000).map(|i| format!("({i}, {i})")).collect();
    conn.query_drop(format!("INSERT INTO s.t (k, v) VALUES {}", rows.join(","))).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(10_000));
    let mut writers = Vec::new();
    for number in 0..6 {
        let server = if number % 2 == 0 { db.ports.sql } else { second.port };
        let mut conn = rutile_tests::process::connect(server, "").await?;
        let (stop, next) = (Arc::clone(&stop), Arc::clone(&next));
        writers.push(tokio::spawn(async move { write(&mut conn, number, &stop, &next).await }));
    }
    for round in 0..4 {
        conn.query_drop("ALTER TABLE s.t ADD INDEX plain (k)").await.context("plain")?;
        check_index(&mut conn, "s.t", "plain", "k").await?;
        conn.query_drop("ALTER TABLE s.t ADD UNIQUE INDEX single (v)").await.context("unique")?;
        check_index(&mut conn, "s.t", "single", "v").await?;
        if round < 3 {
            conn.query_drop("ALTER TABLE s.t DROP INDEX plain, DROP INDEX single").await.context("drop")?;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await??;
    }
    ensure!(written > 0, "nobody wrote");
    check_index(&mut conn, "s.t", "plain", "k").await?;
    check_index(&mut conn, "s.t", "single", "v").await?;
    drop(second);
    db.stop()
}

/// Inserts, changes and deletes rows until told to stop; v stays unique.
async fn write(conn: &mut Conn, number: u64, stop: &AtomicBool, next: &AtomicU64) -> Result<u64> {
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let v = next.fetch_add(1, Ordering::Relaxed);
        let statements = match (v + number) % 4 {
            0 => vec![format!("INSERT INTO s.t (k, v) VALUES ({v}, {v})")],
            1 => vec![format!("UPDATE s.t SET k = {v}, v = {v} WHERE id = {}", v % 2000 + 1)],
            2 => vec![format!("DELETE FROM s.t WHERE id = {}", v % 2000 + 1)],
            _ => vec![
                "BEGIN".to_owned(),
                format!("INSERT INTO s.t (k, v) VALUES ({v}, {v})"),
                format!("UPDATE s.t SET k = k + 1 WHERE id = {}", v % 2000 + 1),
                "COMMIT".to_owned(),
            ],
        };
        for statement in statements {
            match conn.query_drop(&statement).await {
                Ok(()) => {}
                // Deadlocks and lost conflicts end the transaction.
                Err(mysql_async::Error::Server(e)) if matches!(e.code, 1213 | 9007 | 8028) => {
                    conn.query_drop("ROLLBACK").await?;
                    break;
                }
                Err(error) => return Err(error).context(statement),
            }
        }
        done += 1;
    }
    Ok(done)
}

/// A table that looks empty gets a primary key while others insert: every row that was acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_inserted_while_an_empty_table_changes_is_kept() -> Result<()> {
    let mut db = Playground::start()?;
    let second = SqlServer::start(&db)?;
    let mut conn = db.connect("").await?;
    conn.query_drop("CREATE DATABASE s").await?;
    for round in 0..15 {
        conn.query_drop(format!("CREATE TABLE s.t{round} (id INT NOT NULL, k INT)")).await?;
        let server = if round % 2 == 0 { db.ports.sql } else { second.port };
        let mut writer = rutile_tests::process::connect(server, "").await?;
        let known = format!("SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 't{round}'");
        wait_until(&mut writer, &known, 1).await?;
        let writing = tokio::spawn(async move {
            for id in 0..40 {
                writer.query_drop(format!("INSERT INTO s.t{round} VALUES ({id}, {id})")).await?;
            }
            Ok::<_, mysql_async::Error>(())
        });
        match conn.query_drop(format!("ALTER TABLE s.t{round} ADD PRIMARY KEY (id)")).await {
            // It came late and found rows.
            Ok(()) | Err(mysql_async::Error::Server(_)) => {}
            Err(error) => return Err(error.into()),
        }
        writing.await??;
        wait_until(&mut conn, &format!("SELECT COUNT(*) FROM s.t{round}"), 40).await?;
    }
    drop(second);
    db.stop()
}

/// The server that adds an index is killed: another one takes the half-made index away, and the table is as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_server_is_gone_is_undone() -> Result<()> {
    let mut db = Playground::start()?;
    let second = SqlServer::start(&db)?;
    let mut conn = db.connect("").await?;
    conn.query_drop("CREATE DATABASE s").await?;
    conn.query_drop("CREATE TABLE s.t (id INT PRIMARY KEY, k INT)").await?;
    conn.query_drop("INSERT INTO s.t VALUES (1, 1)").await?;
    let mut changer = rutile_tests::process::connect(second.port, "").await?;
    wait_until(&mut changer, "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 's'", 1)
        .await?;
    conn.query_drop("BEGIN").await?;
    conn.query_drop("INSERT INTO s.t VALUES (2, 2)").await?;
    let change = tokio::spawn(async move { changer.query_drop("ALTER TABLE s.t ADD INDEX k (k)").await });
    let mut other = rutile_tests::process::connect(second.port, "").await?;
    wait_until(&mut other, WAITING, 1).await?;
    drop(second);
    ensure!(change.await?.is_err(), "the server was killed");
    conn.query_drop("COMMIT").await?;
    // Another change of the same table goes ahead once the lease of the dead server is over.
    conn.query_drop("ALTER TABLE s.t ADD INDEX k (k)").await?;
    check_index(&mut conn, "s.t", "k", "k").await?;
    db.stop()
}
