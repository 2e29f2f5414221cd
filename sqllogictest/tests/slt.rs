//! Every case against a playground with one store.

use anyhow::{Result, ensure};
use rutile_slt::{Mode, cases_dir, files, run_file};
use rutile_tests::process::Playground;

#[tokio::test]
async fn cases_against_one_store() -> Result<()> {
    let mut db = Playground::start()?;
    let mut failures = vec![];
    let files = files(&cases_dir())?;
    ensure!(!files.is_empty(), "no cases found");
    for file in &files {
        match run_file("127.0.0.1", db.ports.sql, file, Mode::Check).await {
            Ok(()) => println!("ok    {}", file.display()),
            Err(e) => failures.push(format!("{}\n{e}", file.display())),
        }
    }
    ensure!(
        failures.is_empty(),
        "{} of {} files differ:\n{}",
        failures.len(),
        files.len(),
        failures.join("\n\n")
    );
    db.stop()
}
