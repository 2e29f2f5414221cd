//! `rutile-slt check|update [FILE …]`: runs the cases against the server in `MYSQL_PEER=host:port` (root, no password).

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rutile_slt::{Mode, cases_dir, files, run_file};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mode = match args.next().as_deref() {
        Some("check") => Mode::Check,
        Some("update") => Mode::Update,
        _ => bail!("usage: rutile-slt check|update [FILE …], with MYSQL_PEER=host:port"),
    };
    let peer = std::env::var("MYSQL_PEER").context("set MYSQL_PEER=host:port")?;
    let (host, port) = peer.rsplit_once(':').context("MYSQL_PEER is not host:port")?;
    let port = port.parse().context("MYSQL_PEER's port is not a number")?;
    let mut chosen: Vec<PathBuf> = args.map(PathBuf::from).collect();
    if chosen.is_empty() {
        chosen = files(&cases_dir())?;
    }
    let mut failed = 0;
    for file in &chosen {
        match run_file(host, port, file, mode).await {
            Ok(()) => println!("ok    {}", file.display()),
            Err(e) => {
                failed += 1;
                println!("FAIL  {}\n{e}", file.display());
            }
        }
    }
    println!("{} passed, {failed} failed", chosen.len() - failed);
    if failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}
