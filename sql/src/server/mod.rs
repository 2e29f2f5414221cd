//! The MySQL protocol: listener, handshake, authentication, commands, result sets.
//!
//! One task per connection, one in buffer and one out buffer each; rows are encoded straight from Arrow columns into the out
//! buffer, which is written once per answer. A connection that misbehaves ends alone.

mod auth;
mod codec;
mod command;
mod connection;
mod handshake;
mod login;
mod packet;
mod params;
mod point_read;
mod response;
mod resultset;
mod run;
mod status;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rutile_client::Client;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::session::gc::Collector;
use crate::session::instance::Instance;
use crate::statistics::worker::Worker;
use auth::AuthState;

/// Why a server does not start: one line for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// What all connections of a server share.
pub(crate) struct Shared {
    instance: Arc<Instance>,
    tls: Option<TlsAcceptor>,
    auth: Arc<AuthState>,
}

/// A running SQL server.
pub struct Server {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    status_addr: SocketAddr,
    accepting: Vec<JoinHandle<()>>,
    connections: TaskTracker,
    collector: JoinHandle<()>,
    statistics: JoinHandle<()>,
    /// Ends what runs until the last connection has ended.
    ended: CancellationToken,
}

impl Server {
    /// Binds both ports, loads the catalog, and serves.
    pub async fn start(config: Config, client: Client) -> Result<Server, StartError> {
        config.validate().map_err(StartError)?;
        let bind = |addr: SocketAddr, key: &'static str| async move {
            let listener = TcpListener::bind(addr).await;
            listener.map_err(|e| {
                StartError(format!("{key}: cannot listen on {addr}: {e}; choose another address"))
            })
        };
        let listener = bind(config.addr, "sql addr").await?;
        let status_listener = bind(config.status_addr, "sql status_addr").await?;
        Server::start_on(config, client, listener, status_listener).await
    }

    /// As [`Server::start`], on listeners bound before.
    pub async fn start_on(
        mut config: Config,
        client: Client,
        listener: TcpListener,
        status_listener: TcpListener,
    ) -> Result<Server, StartError> {
        let io = |e: std::io::Error| StartError(format!("sql listener: {e}"));
        let local_addr = listener.local_addr().map_err(io)?;
        let status_addr = status_listener.local_addr().map_err(io)?;
        config.addr = local_addr;
        let tls = tls::acceptor(&config.tls).map_err(StartError)?;
        let catalog = Catalog::start(client.clone()).await;
        let catalog = catalog.map_err(|e| StartError(format!("cannot read the catalog: {e}")))?;
        let instance = Instance::new(config, client, catalog);
        let statistics = instance.statistics.load(&instance.client).await;
        statistics.map_err(|e| StartError(format!("cannot read the statistics: {e}")))?;
        let shared = Arc::new(Shared { instance, tls, auth: Arc::default() });
        let connections = TaskTracker::new();
        let accepting = vec![
            tokio::spawn(accept(Arc::clone(&shared), listener, connections.clone())),
            tokio::spawn(status::serve(Arc::clone(&shared.instance), status_listener)),
        ];
        let instance = &shared.instance;
        let life_time = Duration::from_secs(instance.config.gc_life_time_seconds);
        let collector = Collector::new(instance.client.clone(), life_time);
        let collector = tokio::spawn(collector.run(instance.shutdown.clone()));
        let ended = CancellationToken::new();
        let worker = Worker {
            client: instance.client.clone(),
            catalog: Arc::clone(&instance.catalog),
            statistics: Arc::clone(&instance.statistics),
            server: rand::random_range(1..=u64::MAX),
            analyzed: HashMap::new(),
        };
        let settings = Arc::clone(instance);
        let statistics = tokio::spawn(worker.run(move || settings.auto_analyze(), ended.clone()));
        Ok(Server { shared, local_addr, status_addr, accepting, connections, collector, statistics, ended })
    }

    /// Where MySQL clients connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where `/status` and `/metrics` are served.
    pub fn status_addr(&self) -> SocketAddr {
        self.status_addr
    }

    /// What its sessions share.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.shared.instance
    }

    /// Takes no new connections and statements, waits for the running ones up to the configured time, then ends them.
    pub async fn shutdown(self) {
        let instance = &self.shared.instance;
        instance.shutdown.cancel();
        self.accepting.iter().for_each(JoinHandle::abort);
        self.connections.close();
        let patience = Duration::from_secs(instance.config.graceful_shutdown_seconds);
        if tokio::time::timeout(patience, self.connections.wait()).await.is_err() {
            tracing::info!(
                connections = instance.connection_count(),
                "ending connections that are still busy"
            );
            instance.kill_all();
            let _ = tokio::time::timeout(Duration::from_secs(2), self.connections.wait()).await;
        }
        let _ = self.collector.await;
        self.ended.cancel();
        let _ = self.statistics.await;
        instance.catalog.stop();
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, connections: TaskTracker) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                connections.spawn(connection::serve(Arc::clone(&shared), stream, peer));
            }
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
