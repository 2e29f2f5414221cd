//! What ANALYZE TABLE finds decides plans, in every SQL server of a cluster, and survives restarts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use rutile_tests::process::{Playground, SqlServer, connect};

const PATIENCE: Duration = Duration::from_secs(90);
const RARE: &str = "SELECT n FROM d.t WHERE flag = 'rare'";
const COMMON: &str = "SELECT n FROM d.t WHERE flag = 'common'";

/// The operators of a plan, the deepest last, with their access objects.
async fn plan(conn: &mut Conn, sql: &str) -> Result<String> {
    let rows: Vec<Row> = conn.query(format!("EXPLAIN {sql}")).await?;
    let line = |row: &Row| {
        let cell = |name: &str| row.get::<String, _>(name).unwrap_or_default();
        format!("{} {}", cell("id"), cell("access object"))
    };
    Ok(rows.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn by_index(plan: &str) -> bool {
    plan.contains("IndexLookUp") && plan.contains("kf")
}

/// Whether the rare value is looked up and the common one is not.
async fn plans_differ(conn: &mut Conn) -> Result<bool> {
    Ok(by_index(&plan(conn, RARE).await?) && plan(conn, COMMON).await?.contains("FullScan"))
}

/// 8,000 rows, 10 of them rare.
async fn fill(conn: &mut Conn) -> Result<()> {
    conn.query_drop("CREATE DATABASE d").await?;
    let columns =
        "id INT PRIMARY KEY, flag VARCHAR(20), n INT, e ENUM('x', 'y'), KEY kf (flag), KEY kn (n, flag)";
    conn.query_drop(format!("CREATE TABLE d.t ({columns})")).await?;
    for start in (0..8000).step_by(2000) {
        let row = |id: i32| {
            let flag = if id % 800 == 3 { "rare" } else { "common" };
            format!("({id}, '{flag}', {}, '{}')", id % 50, if id % 4 == 0 { "x" } else { "y" })
        };
        let rows: Vec<String> = (start..start + 2000).map(row).collect();
        conn.query_drop(format!("INSERT INTO d.t VALUES {}", rows.join(", "))).await?;
    }
    Ok(())
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !holds().await? {
        ensure!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skewed_values_get_plans_of_their_own_everywhere() -> Result<()> {
    let mut db = Playground::start()?;
    let mut conn = db.connect("").await?;
    conn.query_drop("SET GLOBAL rutile_auto_analyze = OFF").await?;
    let other = SqlServer::start(&db)?;
    let mut elsewhere = connect(other.port, "").await?;
    elsewhere.query_drop("SET GLOBAL rutile_auto_analyze = OFF").await?;
    fill(&mut conn).await?;
    // Without statistics every value is looked up.
    ensure!(by_index(&plan(&mut conn, COMMON).await?));

    let answer: Vec<(String, String, String, String)> = conn.query("ANALYZE TABLE d.t, d.nope").await?;
    let words: Vec<&str> =
        answer.iter().flat_map(|(_, _, kind, text)| [kind.as_str(), text.as_str()]).collect();
    ensure!(
        words == ["status", "OK", "Error", "Table 'd.nope' doesn't exist", "status", "Operation failed"],
        "{answer:?}"
    );
    ensure!(plans_differ(&mut conn).await?, "{}", plan(&mut conn, COMMON).await?);
    until("the other server knows it", async || plans_differ(&mut elsewhere).await).await?;

    let cardinality = "SELECT index_name, seq_in_index, cardinality FROM information_schema.statistics \
                       WHERE table_schema = 'd' ORDER BY 1, 2";
    let found: Vec<(String, u32, u64)> = conn.query(cardinality).await?;
    let found: Vec<u64> = found.into_iter().map(|(_, _, cardinality)| cardinality).collect();
    ensure!(found == [2, 50, 51, 8000], "{found:?}");
    let rows: Option<u64> =
        conn.query_first("SELECT table_rows FROM information_schema.tables WHERE table_schema = 'd'").await?;
    ensure!(rows == Some(8000), "{rows:?}");
    Box::pin(histograms(&mut conn)).await?;

    // What one server changes the other one counts.
    elsewhere.query_drop("DELETE FROM d.t WHERE id < 500").await?;
    until("the first server knows of the change", async || {
        let meta: Vec<Row> = conn.query("SHOW STATS_META WHERE Table_name = 't'").await?;
        let meta = meta.first().context("a table that was analyzed")?;
        let cell = |name: &str| meta.get::<u64, _>(name);
        Ok(cell("Modify_count") == Some(500) && cell("Row_count") == Some(7500))
    })
    .await?;
    let health: Vec<(String, String, String, u64)> = conn.query("SHOW STATS_HEALTHY").await?;
    ensure!(health == [("d".to_owned(), "t".to_owned(), String::new(), 93)], "{health:?}");

    drop((conn, elsewhere, other));
    db.stop()?;
    db.spawn()?;
    let mut conn = db.connect("").await?;
    ensure!(plans_differ(&mut conn).await?, "{}", plan(&mut conn, COMMON).await?);
    drop(conn);
    db.stop()
}

async fn histograms(conn: &mut Conn) -> Result<()> {
    let text = async |conn: &mut Conn, sql: &str| -> Result<Vec<String>> {
        let rows: Vec<(String, String, String, String)> = conn.query(sql).await?;
        Ok(rows.into_iter().map(|(table, op, kind, text)| format!("{table} {op} {kind} {text}")).collect())
    };
    let made = text(conn, "ANALYZE TABLE d.t UPDATE HISTOGRAM ON n, flag, nope WITH 10 BUCKETS").await?;
    ensure!(
        made == [
            "d.t histogram Error The column 'nope' does not exist.",
            "d.t histogram status Histogram statistics created for column 'n'.",
            "d.t histogram status Histogram statistics created for column 'flag'."
        ],
        "{made:?}"
    );
    let documents: Vec<(String, String)> = conn
        .query("SELECT column_name, histogram FROM information_schema.column_statistics ORDER BY 1")
        .await?;
    ensure!(documents.len() == 2 && documents[0].0 == "flag", "{documents:?}");
    ensure!(documents[0].1.contains("\"singleton\"") && documents[0].1.contains("base64:type254:cmFyZQ=="));
    ensure!(
        documents[1].1.contains("\"equi-height\"") && documents[1].1.contains("[0,4,0.1"),
        "{documents:?}"
    );
    let dropped = text(conn, "ANALYZE TABLE d.t DROP HISTOGRAM ON n, e").await?;
    ensure!(
        dropped
            == [
                "d.t histogram status Histogram statistics removed for column 'n'.",
                "d.t histogram Error No histogram statistics found for column 'e'."
            ],
        "{dropped:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_change_are_analyzed_unasked() -> Result<()> {
    let mut db = Playground::start()?;
    let mut conn = db.connect("").await?;
    fill(&mut conn).await?;
    until("the plans differ", async || plans_differ(&mut conn).await).await?;
    drop(conn);
    db.stop()
}
