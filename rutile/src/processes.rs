//! The long-running commands: start, say so, wait for a signal, stop.

use std::sync::Arc;

use rutile_client::Client;
use rutile_kv::pd_client::{GrpcPdClient, PdClient};
use rutile_kv::server::node::Node;

use crate::cli::{KvArgs, PdArgs, PlaygroundArgs, SqlArgs};
use crate::config::{self, PlaygroundConfig};
use crate::error::{Error, Result};
use crate::logging;
use crate::playground::{Playground, prepare_dir, store_error};
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
    let failure = tokio::select! {
        () = signals.wait() => None,
        reason = playground.failed() => Some(reason),
    };
    signals.stop(playground.shutdown()).await;
    failure.map_or(Ok(()), |reason| Err(Error::Kv(reason)))
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
    let peer_port = match config.is_group() {
        true => Some(Port::claim(&config.peer_addr, "other placement drivers", "--peer-addr")?),
        false => None,
    };
    let server = rutile_pd::Server::start(config.clone()).await?;
    if let Some(peer_port) = peer_port {
        server.serve_peers(peer_port.listen()?).await?;
    }
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
    logging::init(config::log_level(&args.common))?;
    let mut signals = StopSignals::install()?;
    prepare_dir(&config.data_dir)?;
    let port = Port::claim(&config.addr, "store", "--addr")?;
    let status = match config.status_addr.as_str() {
        "" => None,
        address => Some(Port::claim(address, "HTTP status", "--status-addr")?),
    };
    let endpoints = endpoints(&args.pd);
    let pd = Arc::new(GrpcPdClient::new(endpoints.clone()));
    pd.cluster_id().await.map_err(|error| pd_missing(&endpoints, error.to_string()))?;
    let store = Node::start(config, pd).await.map_err(|error| store_error(&error))?;
    let address = store.serve_grpc(port.listen()?).map_err(|error| store_error(&error))?;
    if let Some(status) = status {
        store.serve_status(status.listen()?).map_err(|error| store_error(&error))?;
    }
    tracing::info!(%address, store = store.store_id(), cluster = store.cluster_id(), "the store is ready");
    let failure = tokio::select! {
        () = signals.wait() => None,
        reason = store.failed() => Some(reason),
    };
    signals.stop(store.shutdown()).await;
    failure.map_or(Ok(()), |reason| Err(Error::Kv(reason)))
}

fn pd_missing(endpoints: &[String], reason: String) -> Error {
    Error::PdMissing { endpoints: endpoints.join(","), reason }
}

/// `rutile sql`.
pub async fn sql(args: &SqlArgs) -> Result<()> {
    let config = config::load_sql(args)?;
    if args.common.print_config {
        return config::print(&config);
    }
    logging::init(config::log_level(&args.common))?;
    let mut signals = StopSignals::install()?;
    let port = Port::claim(&config.addr.to_string(), "MySQL protocol", "--addr")?;
    let status = Port::claim(&config.status_addr.to_string(), "HTTP status", "--status-addr")?;
    let endpoints = endpoints(&args.pd);
    let client =
        Client::connect(&endpoints).await.map_err(|error| pd_missing(&endpoints, error.to_string()))?;
    let server = rutile_sql::server::Server::start_on(config, client, port.listen()?, status.listen()?).await;
    let server = server.map_err(|error| Error::Sql(error.to_string()))?;
    tracing::info!(address = %server.local_addr(), "the SQL server is ready");
    signals.wait().await;
    signals.stop(server.shutdown()).await;
    Ok(())
}

/// Placement drivers to dial when none are given.
#[must_use]
pub fn endpoints(given: &[String]) -> Vec<String> {
    if given.is_empty() { vec!["127.0.0.1:2379".into()] } else { given.to_vec() }
}
