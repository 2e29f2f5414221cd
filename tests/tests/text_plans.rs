//! Texts whose values alone differ share a plan, and answer as if each had been planned alone.

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use rutile_tests::process::Playground;

/// Rows as text, and whether the plan was there before.
async fn answer(conn: &mut Conn, sql: &str) -> Result<(Vec<String>, bool)> {
    let rows: Vec<Row> = conn.query(sql).await?;
    let cached: Option<i64> = conn.query_first("SELECT @@last_plan_from_cache").await?;
    let shown = |row: Row| -> String {
        let cells: Vec<String> = row.unwrap().iter().map(|value| value.as_sql(false)).collect();
        cells.join(", ")
    };
    let shown = rows.into_iter().map(shown).collect();
    Ok((shown, cached == Some(1)))
}

/// A text that was never seen, one seen before, and one with other values.
async fn three(conn: &mut Conn, sqls: [&str; 3]) -> Result<Vec<(Vec<String>, bool)>> {
    let mut answers = Vec::new();
    for sql in sqls {
        answers.push(answer(conn, sql).await?);
    }
    Ok(answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_that_differ_in_values_share_a_plan() -> Result<()> {
    let mut db = Playground::start()?;
    let mut conn = db.connect("").await?;
    for sql in [
        "CREATE DATABASE d",
        "USE d",
        "CREATE TABLE t (id INT PRIMARY KEY, c VARCHAR(20), n INT, u BIGINT UNSIGNED, KEY kn (n))",
        "INSERT INTO t VALUES (1, 'one', 10, 1), (2, 'two', 20, 2), (3, NULL, 10, 18446744073709551615)",
    ] {
        conn.query_drop(sql).await?;
    }
    let points = three(
        &mut conn,
        ["SELECT c, u FROM t WHERE id=1", "SELECT c, u FROM t WHERE id=3", "SELECT c, u FROM t WHERE id=9"],
    )
    .await?;
    let cached: Vec<bool> = points.iter().map(|(_, cached)| *cached).collect();
    ensure!(cached == [false, true, true], "{points:?}");
    ensure!(points[0].0 == ["'one', '1'"], "{points:?}");
    ensure!(points[1].0 == ["NULL, '18446744073709551615'"] && points[2].0.is_empty(), "{points:?}");

    let ranges = three(
        &mut conn,
        [
            "SELECT SUM(n) FROM t WHERE id BETWEEN 1 AND 2",
            "SELECT SUM(n) FROM t WHERE id BETWEEN 2 AND 3",
            "SELECT SUM(n) FROM t WHERE id BETWEEN 5 AND 3",
        ],
    )
    .await?;
    let sums: Vec<&str> = ranges.iter().map(|(rows, _)| rows[0].as_str()).collect();
    ensure!(sums == ["'30'", "'30'", "NULL"] && ranges[2].1, "{ranges:?}");

    // A string is no integer, and a text with another LIMIT another text.
    ensure!(answer(&mut conn, "SELECT c FROM t WHERE id='2'").await?.0 == ["'two'"]);
    ensure!(answer(&mut conn, "SELECT c FROM t WHERE id='2'").await?.0 == ["'two'"]);
    ensure!(answer(&mut conn, "SELECT id FROM t WHERE id>0 LIMIT 1").await?.0.len() == 1);
    ensure!(answer(&mut conn, "SELECT id FROM t WHERE id>0 LIMIT 2").await?.0.len() == 2);
    ensure!(answer(&mut conn, "SELECT id FROM t WHERE id>1 LIMIT 2").await?.0.len() == 2);
    // What depends on the values is planned for them.
    for n in [10, 20, 10] {
        ensure!(!answer(&mut conn, &format!("SELECT id FROM t WHERE n={n}")).await?.1, "n={n}");
    }

    // Changes of rows.
    for (id, n) in [(1, 11), (2, 21), (3, 31)] {
        conn.query_drop(format!("UPDATE t SET n={n} WHERE id={id}")).await?;
    }
    for id in 4..8 {
        conn.query_drop(format!("INSERT INTO t (id, c, n) VALUES ({id}, 'v{id}', {id})")).await?;
    }
    conn.query_drop("DELETE FROM t WHERE id=1").await?;
    conn.query_drop("DELETE FROM t WHERE id=2").await?;
    let duplicate = conn.query_drop("INSERT INTO t (id, c, n) VALUES (7, 'x', 0)").await.unwrap_err();
    ensure!(duplicate.to_string().contains("Duplicate entry '7' for key 't.PRIMARY'"), "{duplicate}");
    let all: Vec<(i32, Option<String>, i32)> = conn.query("SELECT id, c, n FROM t ORDER BY id").await?;
    let ids: Vec<(i32, i32)> = all.iter().map(|(id, _, n)| (*id, *n)).collect();
    ensure!(ids == [(3, 31), (4, 4), (5, 5), (6, 6), (7, 7)] && all[1].1.as_deref() == Some("v4"), "{all:?}");

    // A plan is not used under another schema, database or sql_mode.
    conn.query_drop("ALTER TABLE t DROP COLUMN u, ADD COLUMN w INT DEFAULT 5").await?;
    let sql = "SELECT * FROM t WHERE id=4";
    let first = answer(&mut conn, sql).await?;
    conn.query_drop("ALTER TABLE t DROP COLUMN w").await?;
    ensure!(answer(&mut conn, sql).await?.0 == ["'4', 'v4', '4'"], "{first:?}");
    conn.query_drop("CREATE DATABASE e").await?;
    conn.query_drop("CREATE TABLE e.t (id INT PRIMARY KEY)").await?;
    conn.query_drop("USE e").await?;
    ensure!(answer(&mut conn, sql).await?.0.is_empty());
    conn.query_drop("USE d").await?;

    // Within a transaction own writes are seen.
    conn.query_drop("BEGIN").await?;
    conn.query_drop("UPDATE t SET n=99 WHERE id=4").await?;
    for _ in 0..3 {
        ensure!(answer(&mut conn, "SELECT n FROM t WHERE id=4").await?.0 == ["'99'"]);
    }
    conn.query_drop("ROLLBACK").await?;
    ensure!(answer(&mut conn, "SELECT n FROM t WHERE id=4").await?.0 == ["'4'"]);
    conn.query_drop("SET rutile_text_plan_cache = OFF").await?;
    ensure!(!answer(&mut conn, "SELECT n FROM t WHERE id=4").await?.1);
    drop(conn);
    db.stop()
}
