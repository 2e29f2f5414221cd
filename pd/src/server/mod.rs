//! The server: opens everything in order, serves gRPC and HTTP on one port, stops in the opposite order.

mod etcd_api;
mod grpc;
mod header;
mod http;
mod listener;
mod regions;
mod service;
mod watch;

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;

use fs2::FileExt;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::gc_safe_point::SafePoints;
use crate::id_alloc::IdAllocator;
use crate::lease::Leases;
use crate::metrics::Metrics;
use crate::replicated::Replicated;
use crate::tso::{Clock, SystemClock, Tso};

use self::listener::Listener;
pub use self::service::PdService;

/// A running placement driver.
pub struct Server {
    service: Arc<PdService>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    listeners: tokio::sync::Mutex<Vec<Listener>>,
    /// Held until everything is written.
    lock: Mutex<Option<File>>,
}

impl Server {
    /// Opens the data directory and leads. Serves in process; [`Server::serve`] opens it to the network.
    pub async fn start(config: Config) -> Result<Self> {
        Self::start_with_clock(config, Arc::new(SystemClock)).await
    }

    /// The same with a given clock.
    pub async fn start_with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        config.validate()?;
        let lock = lock_dir(&config)?;
        let (dir, log_size_bytes_max) = (config.data_dir.join("raft"), config.log_size_bytes_max);
        let store = tokio::task::spawn_blocking(move || Replicated::open(&dir, log_size_bytes_max))
            .await
            .map_err(|e| Error::Undetermined(format!("opening the log: {e}")))??;
        let store = Arc::new(store);
        let cluster = Cluster::open(store.clone()).await?;
        let tso = Tso::open(store.clone(), clock.clone(), config.tso_window_ms).await?;
        let leases = Leases::open(store.clone());
        let metrics = Metrics::new().map_err(|e| Error::Config(e.to_string()))?;
        let tasks = vec![tokio::spawn(cluster.clone().run_flush()), tokio::spawn(leases.clone().run())];
        let service = Arc::new(PdService {
            ids: IdAllocator::open(store.clone()),
            safe_points: SafePoints::new(store.clone()),
            config,
            store,
            cluster,
            tso,
            leases,
            metrics,
            clock,
        });
        Ok(Server {
            service,
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

    /// Ends connections, writes what is known, stops. Calling it again does nothing.
    pub async fn shutdown(&self) {
        for listener in self.listeners.lock().await.drain(..) {
            listener.shutdown().await;
        }
        let tasks = std::mem::take(&mut *self.tasks.lock());
        if tasks.is_empty() {
            return;
        }
        for task in tasks {
            task.abort();
        }
        let service = &self.service;
        for result in [service.cluster.flush().await, service.tso.close().await, service.ids.close().await] {
            if let Err(error) = result {
                tracing::warn!(%error, "not everything was written at the stop; the next start recovers it");
            }
        }
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
