//! A whole database in one process: placement driver, stores and SQL server, joined by direct calls.
//!
//! Start: claim all ports, then placement driver, stores, SQL server; a port accepts connections once what is behind
//! it is ready. Stop: the opposite order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::{join_all, select_all};
use rutile_client::Client;
use rutile_kv::server::node::{self, Node};
use rutile_proto::ids::StoreId;

use crate::config::PlaygroundConfig;
use crate::error::{Error, Result};
use crate::local_pd::LocalPd;
use crate::local_transport::LocalTransport;
use crate::ports::Port;

/// A running playground.
pub struct Playground {
    pd: rutile_pd::Server,
    stores: Vec<Node>,
    sql: rutile_sql::server::Server,
    client: Client,
    addresses: Addresses,
    data_dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

/// Where a playground listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// MySQL protocol.
    pub sql: SocketAddr,
    /// HTTP status.
    pub status: SocketAddr,
    /// Placement driver.
    pub pd: SocketAddr,
    /// Stores.
    pub kv: Vec<SocketAddr>,
}

/// Ports that are ours but do not accept connections yet.
struct Ports {
    sql: Port,
    status: Port,
    pd: Port,
    kv: Vec<Port>,
}

impl Ports {
    fn claim(config: &PlaygroundConfig, stores: usize) -> Result<Self> {
        let claim = |port: u16, what, flag| Port::claim(&join(&config.host, port), what, flag);
        let kv_port = |i: usize| if config.kv_port == 0 { 0 } else { config.kv_port + i as u16 };
        Ok(Ports {
            sql: claim(config.sql_port, "MySQL protocol", "--sql-port")?,
            status: claim(config.status_port, "HTTP status", "--status-port")?,
            pd: claim(config.pd_port, "placement driver", "--pd-port")?,
            kv: (0..stores).map(|i| claim(kv_port(i), "store", "--kv-port")).collect::<Result<_>>()?,
        })
    }

    fn addresses(&self) -> Result<Addresses> {
        Ok(Addresses {
            sql: self.sql.local_addr()?,
            status: self.status.local_addr()?,
            pd: self.pd.local_addr()?,
            kv: self.kv.iter().map(Port::local_addr).collect::<Result<_>>()?,
        })
    }
}

impl Playground {
    /// Starts everything; ready when this returns.
    pub async fn start(config: PlaygroundConfig) -> Result<Self> {
        let (data_dir, temporary) = data_dir(&config)?;
        let stores = config.stores.max(stores_on_disk(&data_dir));
        let ports = Ports::claim(&config, stores)?;
        let addresses = ports.addresses()?;

        let pd_config = rutile_pd::Config {
            data_dir: data_dir.join("pd"),
            client_addr: reachable(addresses.pd).to_string(),
            replicas_max: config.pd.replicas_max.min(stores as u32),
            ..config.pd.clone()
        };
        let pd = rutile_pd::Server::start(pd_config).await.map_err(|error| pd_error(error, &data_dir))?;
        pd.serve(ports.pd.listen()?).await?;
        let stores = start_stores(&config, &data_dir, &pd, ports.kv).await?;
        let client = local_client(&pd, &stores)?;
        let sql_config = rutile_sql::config::Config {
            addr: addresses.sql,
            status_addr: addresses.status,
            ..config.sql.clone()
        };
        let (sql_port, status_port) = (ports.sql.listen()?, ports.status.listen()?);
        let sql =
            rutile_sql::server::Server::start_on(sql_config, client.clone(), sql_port, status_port).await;
        let sql = sql.map_err(|error| Error::Sql(error.to_string()))?;
        Ok(Playground { pd, stores, sql, client, addresses, data_dir, _temporary: temporary })
    }

    /// Ends when a store has failed and everything must be stopped; says why.
    pub async fn failed(&self) -> String {
        let (reason, ..) = select_all(self.stores.iter().map(|store| Box::pin(store.failed()))).await;
        reason
    }

    /// A client of its key-value store, by direct calls.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where the data is.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What to type to use it.
    #[must_use]
    pub fn greeting(&self) -> String {
        let Addresses { sql, status, pd, kv } = &self.addresses;
        let sql = reachable(*sql);
        let kv: Vec<String> = kv.iter().map(|addr| reachable(*addr).to_string()).collect();
        format!(
            "Rutile {} is ready.\n  SQL      mysql -h {} -P {} -u root\n  KV       PD at {}, stores at {}\n  Status   http://{}/status\n  Data     {}\nCtrl-C stops it.",
            env!("CARGO_PKG_VERSION"),
            sql.ip(),
            sql.port(),
            reachable(*pd),
            kv.join(", "),
            reachable(*status),
            self.data_dir.display(),
        )
    }

    /// Stops everything and writes what is known.
    pub async fn shutdown(self) {
        self.sql.shutdown().await;
        join_all(self.stores.iter().map(Node::shutdown)).await;
        self.pd.shutdown().await;
    }
}

/// Starts the stores one after the other: the first one of an empty cluster bootstraps it.
async fn start_stores(
    config: &PlaygroundConfig,
    data_dir: &Path,
    pd: &rutile_pd::Server,
    ports: Vec<Port>,
) -> Result<Vec<Node>> {
    let mut stores = Vec::with_capacity(ports.len());
    for (i, port) in ports.into_iter().enumerate() {
        let kv_config = rutile_kv::Config {
            data_dir: store_dir(data_dir, i + 1),
            addr: port.local_addr()?.to_string(),
            advertise_addr: reachable(port.local_addr()?).to_string(),
            status_addr: String::new(),
            ..config.kv.clone()
        };
        let client = Arc::new(LocalPd::new(pd.service()));
        let store = Node::start(kv_config, client).await.map_err(|error| store_error(&error))?;
        store.serve_grpc(port.listen()?).map_err(|error| store_error(&error))?;
        stores.push(store);
    }
    Ok(stores)
}

/// A client that calls placement driver and stores of this process directly.
fn local_client(pd: &rutile_pd::Server, stores: &[Node]) -> Result<Client> {
    let services = stores.iter().filter_map(|store| Some((StoreId::new(store.store_id())?, store.service())));
    let transport = LocalTransport::new(pd.service(), services);
    let transport = transport.ok_or_else(|| Error::Sql("the cluster has no id".into()))?;
    Ok(Client::new(Arc::new(transport)))
}

/// What the user is told when a store does not start.
pub fn store_error(error: &node::Error) -> Error {
    match error {
        node::Error::Engine(rutile_kv::engine::Error::Locked { dir }) => {
            unusable(dir, "another rutile process uses it")
        }
        other => Error::Kv(other.to_string()),
    }
}

/// The data directory, made if it is missing.
fn data_dir(config: &PlaygroundConfig) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    if config.ephemeral {
        let temporary = tempfile::Builder::new().prefix("rutile-").tempdir();
        let temporary = temporary.map_err(|e| unusable(&std::env::temp_dir(), &e.to_string()))?;
        return Ok((temporary.path().to_path_buf(), Some(temporary)));
    }
    prepare_dir(&config.data_dir)?;
    Ok((config.data_dir.clone(), None))
}

/// Makes a data directory if it is missing, and makes sure that we can write to it.
pub fn prepare_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| unusable(dir, &e.to_string()))?;
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&probe, b"").map_err(|e| unusable(dir, &e.to_string()))?;
    std::fs::remove_file(&probe).map_err(|e| unusable(dir, &e.to_string()))
}

fn unusable(dir: &Path, reason: &str) -> Error {
    Error::DataDir { path: dir.display().to_string(), reason: reason.to_string() }
}

fn pd_error(error: rutile_pd::Error, data_dir: &Path) -> Error {
    match error {
        rutile_pd::Error::Locked { .. } => unusable(data_dir, "another rutile process uses it"),
        other => Error::Pd(other),
    }
}

/// Stores that an earlier playground left here: all of them are needed again.
fn stores_on_disk(data_dir: &Path) -> usize {
    (1..).take_while(|i| store_dir(data_dir, *i).is_dir()).count()
}

/// Where store `i` (from 1) keeps its data.
fn store_dir(data_dir: &Path, i: usize) -> PathBuf {
    data_dir.join(format!("kv-{i}"))
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What to dial to reach an address that is listened on: "any address" is not one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
