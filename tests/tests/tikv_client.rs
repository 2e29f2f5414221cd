//! The public clients of TiKV (Rust, Go, Java), unmodified, against our stores.

use std::process::Command;

use anyhow::{Result, ensure};
use rutile_tests::process::Playground;
use rutile_tests::tools::{clients_dir, have, run};
use tikv_client::{RawClient, TransactionClient, TransactionOptions};

fn pd(db: &Playground) -> Vec<String> {
    vec![format!("127.0.0.1:{}", db.ports.pd)]
}

#[tokio::test(flavor = "multi_thread")]
async fn raw() -> Result<()> {
    let mut db = Playground::start()?;
    let client = RawClient::new(pd(&db)).await?;
    client.put("k1".to_owned(), "v1".to_owned()).await?;
    client.batch_put(vec![("k2".to_owned(), "v2".to_owned()), ("k3".to_owned(), "v3".to_owned())]).await?;
    ensure!(client.get("k1".to_owned()).await? == Some(b"v1".to_vec()));
    ensure!(client.get("none".to_owned()).await?.is_none());
    let pairs = client.scan("k1".to_owned().."k9".to_owned(), 10).await?;
    ensure!(pairs.len() == 3, "{pairs:?}");
    let cas = client.with_atomic_for_cas();
    let (previous, swapped) =
        cas.compare_and_swap("k1".to_owned(), Some(b"v1".to_vec()), "v1b".to_owned()).await?;
    ensure!(swapped && previous == Some(b"v1".to_vec()), "{previous:?}");
    let (previous, swapped) =
        cas.compare_and_swap("k1".to_owned(), Some(b"v1".to_vec()), "no".to_owned()).await?;
    ensure!(!swapped && previous == Some(b"v1b".to_vec()), "{previous:?}");
    client.delete_range("k1".to_owned().."k3".to_owned()).await?;
    let left = client.batch_get(vec!["k1".to_owned(), "k2".to_owned(), "k3".to_owned()]).await?;
    ensure!(left.len() == 1, "{left:?}");
    db.stop()
}

async fn transfer(client: &TransactionClient, options: TransactionOptions) -> Result<()> {
    let mut txn = client.begin_with_options(options.clone()).await?;
    txn.put("a".to_owned(), "100".to_owned()).await?;
    txn.put("b".to_owned(), "0".to_owned()).await?;
    txn.commit().await?;

    let mut txn = client.begin_with_options(options.clone()).await?;
    ensure!(txn.get("a".to_owned()).await? == Some(b"100".to_vec()));
    txn.put("a".to_owned(), "60".to_owned()).await?;
    txn.put("b".to_owned(), "40".to_owned()).await?;
    txn.rollback().await?;

    let mut txn = client.begin_with_options(options.clone()).await?;
    ensure!(txn.get("b".to_owned()).await? == Some(b"0".to_vec()), "a rollback left its writes");
    txn.put("a".to_owned(), "60".to_owned()).await?;
    txn.put("b".to_owned(), "40".to_owned()).await?;
    let ts = txn.commit().await?;
    ensure!(ts.is_some(), "no commit timestamp");

    let mut txn = client.begin_with_options(options).await?;
    let pairs: Vec<_> = txn.scan("a".to_owned().."c".to_owned(), 10).await?.collect();
    ensure!(pairs.len() == 2 && pairs[1].value() == b"40", "{pairs:?}");
    txn.delete("a".to_owned()).await?;
    txn.delete("b".to_owned()).await?;
    txn.commit().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions() -> Result<()> {
    let mut db = Playground::start()?;
    let client = TransactionClient::new(pd(&db)).await?;
    for options in [
        TransactionOptions::new_optimistic(),
        TransactionOptions::new_pessimistic(),
        TransactionOptions::new_optimistic().try_one_pc(),
        TransactionOptions::new_optimistic().use_async_commit(),
        TransactionOptions::new_pessimistic().use_async_commit(),
    ] {
        transfer(&client, options).await?;
    }
    let safe_point = client.current_timestamp().await?;
    ensure!(client.gc(safe_point).await?, "the safe point did not move");
    db.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicting_writers() -> Result<()> {
    let mut db = Playground::start()?;
    let client = TransactionClient::new(pd(&db)).await?;
    let mut first = client.begin_optimistic().await?;
    let mut second = client.begin_optimistic().await?;
    first.put("x".to_owned(), "1".to_owned()).await?;
    second.put("x".to_owned(), "2".to_owned()).await?;
    second.commit().await?;
    ensure!(first.commit().await.is_err(), "a write conflict was not seen");
    let mut reader = client.begin_optimistic().await?;
    ensure!(reader.get("x".to_owned()).await? == Some(b"2".to_vec()));
    reader.rollback().await?;
    db.stop()
}

#[test]
fn go_client() -> Result<()> {
    if !have("go") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let program = dir.path().join("tikv");
    run(Command::new("go")
        .arg("build")
        .arg("-o")
        .arg(&program)
        .arg(".")
        .current_dir(clients_dir().join("go/tikv")))?;
    // The program waits until the store knows its safe point.
    let settings = dir.path().join("rutile.toml");
    std::fs::write(&settings, "[kv.gc]\npoll-interval = '50ms'\n")?;
    let mut db = Playground::start_with(&["--config", &settings.display().to_string()])?;
    let printed = run(Command::new(&program).arg(format!("127.0.0.1:{}", db.ports.pd)))?;
    ensure!(printed.contains("garbage ok"), "{printed}");
    db.stop()
}

#[test]
fn java_client() -> Result<()> {
    if !have("mvn") || !have("javac") {
        return Ok(());
    }
    let target = tempfile::tempdir()?;
    let project = clients_dir().join("tikv-java");
    let jars = target.path().join("classpath");
    run(Command::new("mvn")
        .args(["-q", "-B", "dependency:build-classpath"])
        .arg(format!("-Dmdep.outputFile={}", jars.display()))
        .current_dir(&project))?;
    let jars = std::fs::read_to_string(jars)?;
    let source = project.join("src/main/java/rutile/TikvWork.java");
    run(Command::new("javac").arg("-cp").arg(&jars).arg("-d").arg(target.path()).arg(source))?;
    let mut db = Playground::start()?;
    let class_path = format!("{}:{jars}", target.path().display());
    let printed = run(Command::new("java")
        .args(["-cp", &class_path, "rutile.TikvWork"])
        .arg(format!("127.0.0.1:{}", db.ports.pd)))?;
    ensure!(printed.contains("java ok"), "{printed}");
    db.stop()
}
