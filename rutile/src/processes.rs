//! The long-running commands: start, say so, wait for a signal, stop.

use crate::cli::{KvArgs, PdArgs, PlaygroundArgs, SqlArgs};
use crate::config::{self, PlaygroundConfig};
use crate::error::{Error, Result};
use crate::logging;
use crate::playground::{Playground, prepare_dir};
use crate::ports::Port;
use crate::signals::StopSignals;

/// `rutile [playground]`.
pub async fn playground(args: &PlaygroundArgs) -> Result<()> {
    let config = PlaygroundConfig::load(args)?;
    if args.common.print_config {
        return config::print(&config);
    }
    logging::init(&config.log_level)?;
    let mut signals = StopSignals::install()?;
    let playground = Playground::start(config).await?;
    println!("{}", playground.greeting());
    signals.wait().await;
    signals.stop(playground.shutdown()).await;
    Ok(())
}

/// `rutile pd`.
pub async fn pd(args: &PdArgs) -> Result<()> {
    let config = config::load_pd(args)?;
    if args.common.print_config {
        return config::print(&config);
    }
    logging::init(config::log_level(&args.common))?;
    let mut signals = StopSignals::install()?;
    prepare_dir(&config.data_dir)?;
    let port = Port::claim(&config.client_addr, "placement driver", "--client-addr")?;
    let server = rutile_pd::Server::start(config.clone()).await?;
    let address = server.serve(port.listen()?).await?;
    tracing::info!(%address, cluster = server.service().cluster_id(), "the placement driver is ready");
    signals.wait().await;
    signals.stop(server.shutdown()).await;
    Ok(())
}

/// `rutile kv`.
pub async fn kv(args: &KvArgs) -> Result<()> {
    let config = config::load_kv(args)?;
    if args.common.print_config {
        return config::print(&config);
    }
    Err(Error::Kv("this build has no store process".into()))
}

/// `rutile sql`.
pub async fn sql(_args: &SqlArgs) -> Result<()> {
    Err(Error::Sql("this build has no SQL server process".into()))
}

/// Placement drivers to dial when none are given.
#[must_use]
pub fn endpoints(given: &[String]) -> Vec<String> {
    if given.is_empty() { vec!["127.0.0.1:2379".into()] } else { given.to_vec() }
}
