//! What stores compute is what the SQL server would: over many regions, while they split, with own writes, and when it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use rutile_client::Client;
use rutile_proto::codec;
use rutile_tests::process::Playground;

const ROWS: i64 = 20_000;

/// Filters, groups, first rows and orders, over rows and over an index.
const QUERIES: [&str; 14] = [
    "SELECT COUNT(*), COUNT(n), SUM(v), MIN(s), MAX(d) FROM t",
    "SELECT COUNT(*) FROM t WHERE v > 500 AND s LIKE 'name 1%'",
    "SELECT g, COUNT(*), SUM(v), AVG(v), MIN(id), MAX(s) FROM t GROUP BY g ORDER BY g",
    "SELECT s, COUNT(*) FROM t WHERE id % 7 = 3 GROUP BY s ORDER BY s",
    "SELECT DISTINCT g, n FROM t ORDER BY g, n",
    "SELECT id, v FROM t ORDER BY v DESC, id LIMIT 7, 11",
    "SELECT id, s FROM t WHERE g = 3 ORDER BY id LIMIT 25",
    "SELECT id, s FROM t ORDER BY id DESC LIMIT 300",
    "SELECT STDDEV(v), BIT_XOR(id), BIT_OR(g) FROM t WHERE d >= '2021-03-01'",
    "SELECT YEAR(d), COUNT(DISTINCT g) FROM t GROUP BY YEAR(d) ORDER BY 1",
    "SELECT COUNT(*), SUM(g) FROM t FORCE INDEX (g) WHERE g BETWEEN 2 AND 40",
    "SELECT g, COUNT(*) FROM t FORCE INDEX (g) GROUP BY g ORDER BY g DESC LIMIT 5",
    "SELECT COUNT(*) FROM t a JOIN t b ON a.id = b.id + 1 WHERE a.v < b.v",
    "SELECT UPPER(s), LENGTH(long_text), long_text LIKE '%x19%' FROM t WHERE id IN (19, 119, 12345) OR v = 3.25 ORDER BY id",
];

async fn answers(conn: &mut Conn, in_stores: bool) -> Result<Vec<String>> {
    conn.query_drop(format!("SET rutile_coprocessor = {}", u8::from(in_stores))).await?;
    let mut all = Vec::new();
    for query in QUERIES {
        let rows: Vec<Row> = conn.query(query).await.with_context(|| query.to_owned())?;
        let text: Vec<_> = rows.into_iter().map(|row| format!("{:?}", row.unwrap())).collect();
        all.push(text.join("\n"));
    }
    Ok(all)
}

async fn compare(conn: &mut Conn) -> Result<()> {
    conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let here = answers(conn, false).await?;
    let there = answers(conn, true).await?;
    conn.query_drop("COMMIT").await?;
    for ((query, here), there) in QUERIES.iter().zip(&here).zip(&there) {
        ensure!(here == there, "{query}:\nhere\n{here}\nin the stores\n{there}");
    }
    Ok(())
}

async fn fill(conn: &mut Conn) -> Result<()> {
    conn.query_drop("CREATE DATABASE c").await?;
    conn.query_drop("USE c").await?;
    let columns =
        "id BIGINT PRIMARY KEY, g INT, v DECIMAL(10,2), s VARCHAR(30), d DATE, n INT, long_text TEXT";
    conn.query_drop(format!("CREATE TABLE t ({columns}, KEY g (g))")).await?;
    for first in (0..ROWS).step_by(2000) {
        let row = |id: i64| {
            let n = if id % 5 == 0 { "NULL".to_owned() } else { (id % 3).to_string() };
            let (year, month) = (2020 + id % 4, 1 + id % 12);
            let long = format!("x{id} ").repeat((id % 100) as usize);
            format!(
                "({id}, {}, {}.25, 'Name {}', '{year}-{month}-11', {n}, '{long}')",
                id % 50,
                id * 37 % 1000,
                id % 30
            )
        };
        let rows: Vec<_> = (first..first + 2000).map(row).collect();
        conn.query_drop(format!("INSERT INTO t VALUES {}", rows.join(","))).await?;
    }
    Ok(())
}

/// Finds the table by what its keys look like: the id is not shown.
async fn row_key_prefix(client: &Client) -> Result<Vec<u8>> {
    let snapshot = client.snapshot(client.timestamp().await?);
    let mut best = (0, Vec::new());
    for id in 1..400i64 {
        let mut prefix = b"t".to_vec();
        codec::encode_i64(&mut prefix, id);
        prefix.extend_from_slice(b"_r");
        let mut scanner = snapshot.scan(rutile_client::KeyRange::prefix(&prefix), Default::default());
        let mut rows = 0;
        while rows < 5000
            && let Some(page) = scanner.next_page().await?
        {
            rows += page.len();
        }
        if rows > best.0 {
            best = (rows, prefix);
        }
    }
    ensure!(best.0 >= 5000, "the table is not found");
    Ok(best.1)
}

fn split_key(prefix: &[u8], handle: i64) -> Vec<u8> {
    let mut key = prefix.to_vec();
    codec::encode_i64(&mut key, handle);
    key
}

/// The execution info of the gathering node of EXPLAIN ANALYZE.
async fn gathered(conn: &mut Conn, query: &str) -> Result<String> {
    let lines: Vec<Row> = conn.query(format!("EXPLAIN ANALYZE {query}")).await?;
    let cell = |row: &Row, at: usize| row.get::<String, _>(at).unwrap_or_default();
    let line = lines.iter().find(|row| cell(row, 0).contains("Gather"));
    let line = line.with_context(|| format!("nothing is gathered for {query}"))?;
    Ok((0..line.len()).map(|at| cell(line, at)).find(|text| text.contains("regions:")).unwrap_or_default())
}

fn number(info: &str, name: &str) -> Result<u64> {
    let at = info.find(name).with_context(|| format!("no {name} in {info}"))? + name.len();
    let digits: String = info[at..].chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_compute_what_the_server_would() -> Result<()> {
    let db = Playground::start_with(&["--kv", "3"])?;
    let mut conn = db.connect("").await?;
    fill(&mut conn).await?;
    compare(&mut conn).await.context("in one region")?;

    // Regions are cut while the queries run.
    let client = Client::connect(&[format!("127.0.0.1:{}", db.ports.pd)]).await?;
    let prefix = row_key_prefix(&client).await?;
    let cutting = Arc::new(AtomicBool::new(true));
    let cutter = tokio::spawn({
        let (client, prefix, cutting) = (client.clone(), prefix.clone(), Arc::clone(&cutting));
        async move {
            for step in 1..40 {
                client.split_region(&split_key(&prefix, step * 500)).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            cutting.store(false, Ordering::Relaxed);
            anyhow::Ok(())
        }
    });
    while cutting.load(Ordering::Relaxed) && !cutter.is_finished() {
        compare(&mut conn).await.context("while regions are cut")?;
    }
    cutter.await??;
    compare(&mut conn).await.context("in many regions")?;

    let groups = "SELECT g, SUM(v) FROM t GROUP BY g";
    let info = gathered(&mut conn, groups).await?;
    ensure!(number(&info, "regions:")? >= 20, "{info}");
    ensure!(number(&info, "scanned keys:")? == ROWS as u64, "{info}");
    let rows = gathered(&mut conn, "SELECT * FROM t WHERE id >= 0 AND v >= 0").await?;
    let (few, all) = (number(&info, "bytes:")?, number(&rows, "bytes:")?);
    println!("{few} bytes for the groups, {all} for the rows");

    // What the transaction has written itself counts.
    conn.query_drop("BEGIN").await?;
    conn.query_drop("INSERT INTO t (id, g, v) VALUES (1000000, 7, 1.5)").await?;
    conn.query_drop("DELETE FROM t WHERE id = 7").await?;
    let counted: Option<(i64, i64)> = conn.query_first("SELECT COUNT(*), MAX(id) FROM t").await?;
    ensure!(counted == Some((ROWS, 1_000_000)), "{counted:?}");
    conn.query_drop("ROLLBACK").await?;
    let counted: Option<i64> = conn.query_first("SELECT COUNT(*) FROM t").await?;
    ensure!(counted == Some(ROWS), "{counted:?}");
    drop(conn);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_query_stops_in_the_stores() -> Result<()> {
    let db = Playground::start()?;
    let mut conn = db.connect("").await?;
    fill(&mut conn).await?;
    let id: Option<u64> = conn.query_first("SELECT CONNECTION_ID()").await?;
    let id = id.context("no connection id")?;
    let mut killer = db.connect("").await?;
    let long = "SELECT COUNT(*) FROM t a, t b, t c WHERE MD5(CONCAT(a.s, b.s, c.s)) = 'x'";
    let begun = Instant::now();
    let (killed, answer) = tokio::join!(
        async {
            loop {
                let running: Option<i64> = killer
                    .query_first("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT COUNT(*) FROM t a%'")
                    .await?;
                if running == Some(1) {
                    return killer.query_drop(format!("KILL QUERY {id}")).await;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        },
        conn.query_drop(long)
    );
    killed?;
    match answer {
        Err(mysql_async::Error::Server(error)) => ensure!(error.code == 1317, "{error}"),
        other => anyhow::bail!("the query was not killed: {other:?}"),
    }
    ensure!(begun.elapsed() < Duration::from_secs(60), "killed after {:?}", begun.elapsed());
    let counted: Option<i64> = conn.query_first("SELECT COUNT(*) FROM t").await?;
    ensure!(counted == Some(ROWS), "{counted:?}");
    Ok(())
}
