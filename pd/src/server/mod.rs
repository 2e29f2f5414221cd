//! The server: opens everything in order, serves gRPC and HTTP on one port, stops in the opposite order.

mod etcd_api;
mod forward;
mod grpc;
mod header;
mod http;
mod http_admin;
mod leading;
mod listener;
mod peers;
mod presplit;
mod regions;
mod scheduling;
mod service;
mod watch;

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fs2::FileExt;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::members::Members;
use crate::metrics::Metrics;
use crate::replicated::{Inbox, Options, Replicated};
use crate::tso::{Clock, SystemClock, Tso};

use self::listener::Listener;
pub use self::service::PdService;

/// How long a leader that stops waits for another one.
const HAND_OVER: Duration = Duration::from_secs(1);

/// A running placement driver.
pub struct Server {
    service: Arc<PdService>,
    inbox: Inbox,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    listeners: tokio::sync::Mutex<Vec<Listener>>,
    /// Held until everything is written.
    lock: Mutex<Option<File>>,
}

impl Server {
    /// Opens the data directory. A single member leads when this returns; one of several joins the others, which needs
    /// [`Server::serve_peers`]. Serves in process; [`Server::serve`] opens it to the network.
    pub async fn start(config: Config) -> Result<Self> {
        Self::start_with_clock(config, Arc::new(SystemClock)).await
    }

    /// The same with a given clock.
    pub async fn start_with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        config.validate()?;
        let lock = lock_dir(&config)?;
        let mut members = Members::parse(&config)?;
        members.claim(&config.data_dir)?;
        let (inbox, receiver) = Replicated::channel();
        let (outbox, queues) = peers::GrpcOutbox::new(&members, inbox.clone());
        let options = Options {
            raft_id: members.me().raft_id,
            voters: members.all().iter().map(|member| member.raft_id).collect(),
            log_size_bytes_max: config.log_size_bytes_max,
            election_timeout: Duration::from_millis(config.election_timeout_ms),
            outbox: Box::new(outbox),
        };
        let (dir, channel) = (config.data_dir.join("raft"), (inbox.clone(), receiver));
        let store = tokio::task::spawn_blocking(move || Replicated::open_member(&dir, channel, options))
            .await
            .map_err(|e| Error::Undetermined(format!("opening the log: {e}")))??;
        let store = Arc::new(store);
        let service = Arc::new(PdService {
            tso: Tso::new(store.clone(), clock.clone(), config.tso_window_ms),
            config,
            members,
            store,
            leading: Default::default(),
            introductions: Default::default(),
            introduced: Default::default(),
            cluster_id: Default::default(),
            channels: Default::default(),
            metrics: Metrics::new().map_err(|e| Error::Config(e.to_string()))?,
            clock,
        });
        let mut tasks = Vec::new();
        if service.members.is_group() {
            peers::ask_all(&service).await.map_err(Error::Refused)?;
            for (raft_id, queue) in queues {
                tasks.push(tokio::spawn(peers::run_sender(service.clone(), inbox.clone(), raft_id, queue)));
            }
            tasks.push(tokio::spawn(service.clone().follow_role()));
        } else {
            service.begin(service.store.role().term).await?;
        }
        Ok(Server {
            service,
            inbox,
            tasks: Mutex::new(tasks),
            listeners: tokio::sync::Mutex::default(),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// The service, for callers in the same process.
    #[must_use]
    pub fn service(&self) -> Arc<PdService> {
        self.service.clone()
    }

    /// Serves gRPC and HTTP/1.1 on a bound socket until [`Server::shutdown`].
    pub async fn serve(&self, listener: TcpListener) -> Result<SocketAddr> {
        let address = listener.local_addr().map_err(Error::io("client address"))?;
        let listener = Listener::spawn(listener, grpc::router(self.service.clone()), self.service.clone());
        self.listeners.lock().await.push(listener);
        Ok(address)
    }

    /// Takes messages of the other members on a bound socket until [`Server::shutdown`].
    pub async fn serve_peers(&self, listener: TcpListener) -> Result<SocketAddr> {
        let address = listener.local_addr().map_err(Error::io("peer address"))?;
        let router = peers::router(self.service.clone(), self.inbox.clone());
        self.listeners.lock().await.push(Listener::spawn(listener, router, self.service.clone()));
        Ok(address)
    }

    /// Whether this member leads and serves.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.service.leading().is_ok()
    }

    /// Writes what is known, hands the lead over, ends connections, stops. Calling it again does nothing.
    pub async fn shutdown(&self) {
        if self.lock.lock().is_none() {
            return;
        }
        let service = &self.service;
        if let Ok(leading) = service.leading() {
            leading.close().await;
            if let Err(error) = service.tso.close().await {
                tracing::warn!(%error, "the timestamp window was not given back; the next start recovers it");
            }
            if service.members.is_group() && !service.store.transfer_leader(0, HAND_OVER).await {
                tracing::info!("no other member took the lead in time");
            }
        }
        for listener in self.listeners.lock().await.drain(..) {
            listener.shutdown().await;
        }
        for task in std::mem::take(&mut *self.tasks.lock()) {
            task.abort();
        }
        drop(service.end());
        let store = service.store.clone();
        if tokio::task::spawn_blocking(move || store.shutdown()).await.is_err() {
            tracing::error!("stopping the log failed");
        }
        self.lock.lock().take();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

/// Makes the data directory ours; the lock goes with the process.
fn lock_dir(config: &Config) -> Result<File> {
    let dir = &config.data_dir;
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let path = dir.join("LOCK");
    let file =
        File::options().create(true).write(true).truncate(false).open(&path).map_err(Error::io(&path))?;
    file.try_lock_exclusive().map_err(|_| Error::Locked { path: dir.clone() })?;
    Ok(file)
}
