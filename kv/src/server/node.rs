//! Start and stop order of a store.
//!
//! Start: lock the directory → open and verify the raft logs → open and verify the table files → identity and bootstrap →
//! register with the placement driver → raft threads (single-voter regions lead when this is done) → bounds of the keyspace DEFAULT → ports.
//! Stop: ports → raft threads → flush → close the raft logs, with a note that they are complete.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fs2::FileExt;
use futures::StreamExt;
use parking_lot::Mutex;
use rutile_proto::deadlock::deadlock_server::DeadlockServer;
use rutile_proto::health::health_server::HealthServer;
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::{Done, RaftMessage, SnapshotChunk};
use rutile_proto::tikvpb::BatchRaftMessage;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Status, Streaming};

use super::deadlock::{self, DeadlockService};
use super::grpc::{GrpcService, RaftReceiver};
use super::health::HealthService;
use super::raft_client::GrpcTransport;
use super::service::Service;
use super::status;
use super::store_client::StoreClient;
use crate::config::{Config, ConfigError};
use crate::copr;
use crate::engine::{self, Engine, RaftLog};
use crate::pd_client::{self, PdClient};
use crate::raftstore::{RaftKv, RaftStore, StoreOptions, bootstrap};
use crate::txn::gc::GcWorker;

/// How long open requests may take to end when the store stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a start waits for the placement driver to hear of the regions led here.
const KNOWN_TIMEOUT: Duration = Duration::from_millis(500);
const KNOWN_POLL: Duration = Duration::from_millis(2);

/// Why a store cannot start or serve; one line for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See the text.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// See the engine's error.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// See the bootstrap's error.
    #[error(transparent)]
    Bootstrap(#[from] bootstrap::Error),
    /// See the placement driver's error.
    #[error(transparent)]
    Pd(#[from] pd_client::Error),
    /// A port cannot be used.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address asked for.
        addr: String,
        /// Why not.
        source: std::io::Error,
    },
}

struct Ports {
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

/// A running store.
pub struct Node {
    config: Config,
    cluster_id: u64,
    raft: Arc<RaftStore>,
    engine: Engine,
    raft_log: RaftLog,
    service: Service,
    deadlocks: DeadlockServer<DeadlockService>,
    health: HealthService,
    failed: watch::Receiver<Option<String>>,
    ports: Mutex<Ports>,
    /// Locked as long as this node lives.
    _lock: File,
}

/// What is open on disk, before anything runs.
struct Disk {
    lock: File,
    raft_log: RaftLog,
    engine: Engine,
}

impl Disk {
    fn open(config: &Config) -> Result<Self, Error> {
        let dir = &config.data_dir;
        std::fs::create_dir_all(dir).map_err(|e| engine::Error::io(dir, &e))?;
        let lock = lock_dir(dir)?;
        let raft_log = RaftLog::open(&dir.join("raft"), &config.raft_log)?;
        let engine = Engine::open(&dir.join("db"), &config.engine)?;
        if !engine.verify(config.engine.verify_at_start_max.bytes())? {
            tracing::debug!("table files are verified as they are read: they are too large to read at start");
        }
        Ok(Self { lock, raft_log, engine })
    }
}

fn lock_dir(dir: &Path) -> Result<File, engine::Error> {
    let path = dir.join("LOCK");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| engine::Error::io(&path, &e))?;
    file.try_lock_exclusive().map_err(|_| engine::Error::Locked { dir: dir.to_owned() })?;
    Ok(file)
}

impl Node {
    /// Starts a store on its data directory. No port is open yet.
    pub async fn start(config: Config, pd: Arc<dyn PdClient>) -> Result<Self, Error> {
        config.validate()?;
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || Disk::open(&opening)).await;
        let Disk { lock, raft_log, engine } =
            opened.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
        let (failed_tx, failed) = watch::channel(None);
        engine.on_failure(move |error| drop(failed_tx.send_replace(Some(error.to_string()))));
        let ident = bootstrap::identify(&engine, &raft_log, &*pd).await?;
        let start_time_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let meta = store_meta(&config, ident.store_id, start_time_s as i64);
        bootstrap::bootstrap(&engine, &*pd, &meta).await?;
        let options = StoreOptions {
            store_id: ident.store_id,
            config: config.raft.clone(),
            engine: engine.clone(),
            raft_log: raft_log.clone(),
            pd: Arc::clone(&pd),
            transport: Arc::new(GrpcTransport::new(Arc::clone(&pd))),
            start_time_s: start_time_s as u32,
        };
        // Before the threads start: their heartbeats are refused for a store that nobody knows.
        pd.put_store(meta).await?;
        let raft = RaftStore::start(options).await?;
        if config.raft.split_at_bootstrap {
            bootstrap::split_keyspace(&raft).await;
        }
        wait_until_known(&raft, &*pd).await;
        let service = Service::new(Arc::clone(&raft) as Arc<dyn RaftKv>, Arc::clone(&pd), ident.cluster_id);
        let scheduler = service.scheduler().clone();
        let endpoint = copr::Endpoint::start(scheduler.clone(), config.copr.threads())
            .map_err(|e| engine::Error::io(&config.data_dir, &e))?;
        let service = service.with_coprocessor(Arc::new(endpoint));
        scheduler.raise_safe_point(pd.gc_safe_point().await?);
        let stop = watch::channel(false).0;
        scheduler.connect(Arc::new(StoreClient::new(Arc::clone(&pd))));
        let (deadlocks, mut tasks) = deadlock::start(
            Arc::clone(&raft) as Arc<dyn RaftKv>,
            Arc::clone(&pd),
            scheduler.lock_wait(),
            &stop,
        );
        if !config.resolved_ts.advance_interval.0.is_zero() {
            let interval = config.resolved_ts.advance_interval.0;
            tasks.push(tokio::spawn(scheduler.clone().advance_resolved_ts(interval, stop.subscribe())));
        }
        let garbage = GcWorker::new(scheduler, pd, config.gc.poll_interval.0).run(stop.subscribe());
        tasks.push(tokio::spawn(garbage));
        let ports = Mutex::new(Ports { tasks, stop });
        let (cluster_id, health) = (ident.cluster_id, HealthService::default());
        tracing::info!(
            store_id = ident.store_id,
            cluster_id,
            regions = raft.regions().len(),
            "store started"
        );
        Ok(Self {
            config,
            cluster_id,
            raft,
            engine,
            raft_log,
            service,
            deadlocks,
            health,
            failed,
            ports,
            _lock: lock,
        })
    }

    /// The RPCs, for callers in this process.
    #[must_use]
    pub fn service(&self) -> Service {
        self.service.clone()
    }

    /// The replication beneath.
    #[must_use]
    pub fn raft(&self) -> &Arc<RaftStore> {
        &self.raft
    }

    /// The id of this store.
    #[must_use]
    pub fn store_id(&self) -> u64 {
        self.raft.store_id()
    }

    /// The cluster that this store belongs to.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// Serves gRPC on a listener until the node stops.
    pub fn serve_grpc(&self, listener: TcpListener) -> Result<SocketAddr, Error> {
        let addr = listener
            .local_addr()
            .map_err(|source| Error::Listen { addr: self.config.addr.clone(), source })?;
        let mut ports = self.ports.lock();
        let mut stop = ports.stop.subscribe();
        let receiver = Arc::new(Receiver { raft: Arc::clone(&self.raft), stop: ports.stop.subscribe() });
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(Some(2 << 20))
            .initial_connection_window_size(Some(16 << 20))
            .add_service(GrpcService::server(self.service.clone(), receiver))
            .add_service(self.deadlocks.clone())
            .add_service(HealthServer::new(self.health.clone()));
        ports.tasks.push(tokio::spawn(async move {
            let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
            let incoming = TcpListenerStream::new(listener).inspect(|connection| {
                if let Ok(connection) = connection {
                    let _ = connection.set_nodelay(true);
                }
            });
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped).await {
                tracing::error!(%error, "the gRPC port failed");
            }
        }));
        Ok(addr)
    }

    /// Serves HTTP on a listener until the node stops.
    pub fn serve_status(&self, listener: TcpListener) -> Result<SocketAddr, Error> {
        let addr = listener
            .local_addr()
            .map_err(|source| Error::Listen { addr: self.config.status_addr.clone(), source })?;
        let router = status::router(self.config.clone(), self.cluster_id, Arc::clone(&self.raft));
        let mut ports = self.ports.lock();
        let mut stop = ports.stop.subscribe();
        ports.tasks.push(tokio::spawn(async move {
            let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
                tracing::error!(%error, "the status port failed");
            }
        }));
        Ok(addr)
    }

    /// Ends when the store has failed (corruption or I/O) and must be stopped; says why.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops in order and leaves everything on disk. Safe to call twice.
    pub async fn shutdown(&self) {
        self.health.set_serving(false);
        let tasks = {
            let mut ports = self.ports.lock();
            ports.stop.send_replace(true);
            std::mem::take(&mut ports.tasks)
        };
        for mut task in tasks {
            if tokio::time::timeout(DRAIN_TIMEOUT, &mut task).await.is_err() {
                task.abort();
            }
        }
        self.raft.stop().await;
        let (engine, raft_log) = (self.engine.clone(), self.raft_log.clone());
        let closed = tokio::task::spawn_blocking(move || match engine.failure() {
            Some(_) => Ok(()),
            None => engine.flush().and_then(|()| raft_log.close()),
        });
        match closed.await {
            Ok(Ok(())) => tracing::info!(store_id = self.store_id(), "store stopped"),
            Ok(Err(error)) => tracing::error!(%error, "the store did not stop cleanly"),
            Err(error) => tracing::error!(%error, "the store did not stop cleanly"),
        }
    }
}

/// Clients find regions through the placement driver: waits until it knows who leads, but not for long.
async fn wait_until_known(raft: &RaftStore, pd: &dyn PdClient) {
    let deadline = Instant::now() + KNOWN_TIMEOUT;
    for (region, _) in raft.regions().into_iter().filter(|(_, leads)| *leads) {
        while Instant::now() < deadline {
            match pd.get_region_by_id(region.id).await {
                Ok(Some((known, Some(_)))) if known.region_epoch == region.region_epoch => break,
                _ => tokio::time::sleep(KNOWN_POLL).await,
            }
        }
    }
}

fn store_meta(config: &Config, store_id: u64, start_timestamp: i64) -> metapb::Store {
    let label =
        |(key, value): (&String, &String)| metapb::StoreLabel { key: key.clone(), value: value.clone() };
    metapb::Store {
        id: store_id,
        address: config.advertised().to_owned(),
        labels: config.labels.iter().map(label).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        status_address: config.status_addr.clone(),
        start_timestamp,
        deploy_path: config.data_dir.to_string_lossy().into_owned(),
        node_state: metapb::NodeState::Serving.into(),
        ..Default::default()
    }
}

/// Takes raft messages of other stores.
struct Receiver {
    raft: Arc<RaftStore>,
    stop: watch::Receiver<bool>,
}

impl Receiver {
    /// The next message of a stream; `None` at its end or when this store stops.
    async fn next<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
        let mut stop = self.stop.clone();
        tokio::select! {
            message = stream.message() => message,
            _ = stop.wait_for(|stop| *stop) => Ok(None),
        }
    }
}

#[tonic::async_trait]
impl RaftReceiver for Receiver {
    async fn raft(&self, mut messages: Streaming<RaftMessage>) -> Result<Done, Status> {
        while let Some(message) = self.next(&mut messages).await? {
            self.raft.step(message);
        }
        Ok(Done {})
    }

    async fn batch_raft(&self, mut messages: Streaming<BatchRaftMessage>) -> Result<Done, Status> {
        while let Some(batch) = self.next(&mut messages).await? {
            batch.msgs.into_iter().for_each(|message| self.raft.step(message));
        }
        Ok(Done {})
    }

    async fn snapshot(&self, mut chunks: Streaming<SnapshotChunk>) -> Result<Done, Status> {
        let head = self.next(&mut chunks).await?.and_then(|chunk| chunk.message);
        let head = head.ok_or_else(|| Status::invalid_argument("a snapshot begins with its message"))?;
        let (tx, mut rx) = tokio::sync::mpsc::channel(4);
        let router = self.raft.router();
        let writer = tokio::task::spawn_blocking(move || {
            router.receive_snapshot(head, std::iter::from_fn(|| rx.blocking_recv()))
        });
        while let Some(chunk) = self.next(&mut chunks).await? {
            if tx.send(chunk.data).await.is_err() {
                break;
            }
        }
        drop(tx);
        match writer.await {
            Ok(Ok(())) => Ok(Done {}),
            Ok(Err(error)) => Err(Status::data_loss(error)),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }
}
