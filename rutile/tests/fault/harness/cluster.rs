//! The processes of a cluster, where they are, and what the placement driver knows of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Output};

use mysql_async::prelude::Queryable;
use nix::sys::signal::Signal;
use rutile_client::Client;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::network::{CLIENTS, Network};
use super::process::{Process, Role};
use super::{PATIENCE, holds_within, slow_disk, sql, until};

/// The program under test; `FAULT_BINARY` names another build of it.
fn binary() -> String {
    std::env::var("FAULT_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_rutile").to_owned())
}

/// One cluster at a time: they would starve each other.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Little memory, and news for the placement driver often.
const KV_CONFIG: &str = "[engine]\nblock-cache-size = '32MiB'\nwrite-buffer-size = '8MiB'\n\
    [raft]\nstore-heartbeat-interval = '1s'\nregion-heartbeat-interval = '5s'\n";

/// What a cluster consists of.
pub struct Plan {
    pub pds: usize,
    pub stores: usize,
    pub sqls: usize,
    /// Whether every process has a host of its own.
    pub network: bool,
    /// Whether disks can be made slow.
    pub slow_disks: bool,
    /// More of the section `[raft]` of the stores.
    pub raft_config: &'static str,
}

impl Default for Plan {
    fn default() -> Self {
        Plan { pds: 3, stores: 3, sqls: 2, network: false, slow_disks: false, raft_config: "" }
    }
}

/// A running cluster. Everything ends when it is dropped; the logs are kept if the test fails.
pub struct Cluster {
    pub processes: Vec<Process>,
    pub network: Option<Network>,
    pub has_slow_disks: bool,
    dir: Option<tempfile::TempDir>,
    library: Option<std::path::PathBuf>,
    config: String,
    next_port: u16,
    _one: tokio::sync::MutexGuard<'static, ()>,
}

/// A region as the placement driver tells of it.
#[derive(Debug)]
pub struct RegionInfo {
    pub leader: Option<u64>,
    pub voters: Vec<u64>,
    /// Stores of peers that vote, those that come and go as well.
    pub voting: Vec<u64>,
    /// Whether every peer is a voter that is up and follows.
    pub is_well: bool,
}

impl Cluster {
    /// Starts all processes and waits until SQL works and every region has its replicas.
    pub async fn start(plan: Plan) -> Self {
        let one = ONE.lock().await;
        let dir = tempfile::Builder::new().prefix("rutile-fault-").tempdir().unwrap();
        let library = if plan.slow_disks { slow_disk::library(dir.path()) } else { None };
        let network = if plan.network { Network::open() } else { None };
        let mut cluster = Cluster {
            processes: vec![],
            network,
            has_slow_disks: library.is_some(),
            config: format!("{KV_CONFIG}{}", plan.raft_config),
            library,
            next_port: 10_000 + (std::process::id() % 1000) as u16 * 20,
            dir: Some(dir),
            _one: one,
        };
        cluster.add_pds(plan.pds);
        for _ in 0..plan.stores {
            cluster.add_store();
        }
        for _ in 0..plan.sqls {
            cluster.add_sql();
        }
        cluster.starts(plan.stores).await;
        cluster
    }

    async fn starts(&self, stores: usize) {
        let of = |role| self.of(role).map(|at| &self.processes[at]);
        for process in of(Role::Pd) {
            process.start();
        }
        until("a placement driver leads", || async { self.pd_leader().await.is_some() }).await;
        of(Role::Kv).for_each(Process::start);
        until("the stores are up", || async {
            assert_eq!(self.ended(), None);
            self.stores().await.len() == stores
        })
        .await;
        of(Role::Sql).for_each(Process::start);
        for address in self.sql_addresses() {
            until("a SQL server answers", || async {
                assert_eq!(self.ended(), None);
                sql::connect(address, "").await.is_ok()
            })
            .await;
        }
        self.query("CREATE DATABASE IF NOT EXISTS test").await;
        let replicas = stores.min(3);
        until("every region has its replicas", || self.is_well(replicas)).await;
    }

    fn dir(&self) -> &std::path::Path {
        self.dir.as_ref().expect("kept until dropped").path()
    }

    /// The data directory of a process.
    pub fn data(&self, at: usize) -> std::path::PathBuf {
        self.dir().join(&self.processes[at].name)
    }

    /// A host for a process, and addresses on it: the usual ports, or free ones where all share one host.
    fn place(&mut self, host: u8, ports: &[u16]) -> Vec<SocketAddr> {
        if let Some(network) = &self.network {
            network.add_host(host).unwrap();
            return ports.iter().map(|port| SocketAddr::new(network.address(host), *port)).collect();
        }
        // Below those that the system gives to outgoing connections: free when a process is started again.
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut addresses = vec![];
        while addresses.len() < ports.len() {
            let address = SocketAddr::new(local, self.next_port);
            self.next_port += 1;
            if TcpListener::bind(address).is_ok() {
                addresses.push(address);
            }
        }
        addresses
    }

    fn add(&mut self, role: Role, name: String, host: u8, address: SocketAddr, args: Vec<String>) -> usize {
        let mut process = Process::new(role, name, host, address, self.dir());
        process.command = self.network.as_ref().map_or_else(Vec::new, |network| network.enter(host));
        process.command.push(binary());
        process.command.extend(args);
        if let Some(library) = &self.library {
            process.environment = vec![
                ("LD_PRELOAD".into(), library.display().to_string()),
                (slow_disk::DELAY_FILE.into(), process.sync_ms.display().to_string()),
            ];
        }
        self.processes.push(process);
        self.processes.len() - 1
    }

    fn add_pds(&mut self, count: usize) {
        let places: Vec<_> = (1..=count).map(|i| (i, self.place(i as u8, &[2379, 2380]))).collect();
        let each: Vec<String> = places.iter().map(|(i, at)| format!("pd-{i}=http://{}", at[1])).collect();
        let members = each.join(",");
        for (i, at) in places {
            let name = format!("pd-{i}");
            let data = self.dir().join(&name).display().to_string();
            let flags = [
                ("--name", name.clone()),
                ("--client-addr", at[0].to_string()),
                ("--peer-addr", at[1].to_string()),
                ("--initial-cluster", members.clone()),
                ("--data-dir", data),
            ];
            self.add(Role::Pd, name, i as u8, at[0], args("pd", &flags));
        }
    }

    /// Adds a store without starting it; answers which process it is.
    pub fn add_store(&mut self) -> usize {
        let i = self.of(Role::Kv).count() + 1;
        let name = format!("kv-{i}");
        let at = self.place(10 + i as u8, &[20160, 20180]);
        let config = self.dir().join("kv.toml");
        std::fs::write(&config, &self.config).unwrap();
        let flags = [
            ("--config", config.display().to_string()),
            ("--addr", at[0].to_string()),
            ("--status-addr", at[1].to_string()),
            ("--pd", self.pd_endpoints().join(",")),
            ("--data-dir", self.dir().join(&name).display().to_string()),
        ];
        self.add(Role::Kv, name, 10 + i as u8, at[0], args("kv", &flags))
    }

    fn add_sql(&mut self) -> usize {
        let i = self.of(Role::Sql).count() + 1;
        let at = self.place(20 + i as u8, &[4000, 10080]);
        let flags = [
            ("--addr", at[0].to_string()),
            ("--status-addr", at[1].to_string()),
            ("--pd", self.pd_endpoints().join(",")),
        ];
        self.add(Role::Sql, format!("sql-{i}"), 20 + i as u8, at[0], args("sql", &flags))
    }

    /// Which processes have a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = usize> {
        (0..self.processes.len()).filter(move |at| self.processes[*at].role == role)
    }

    pub fn pd_endpoints(&self) -> Vec<String> {
        self.of(Role::Pd).map(|at| self.processes[at].address.to_string()).collect()
    }

    pub fn sql_addresses(&self) -> Vec<SocketAddr> {
        self.of(Role::Sql).map(|at| self.processes[at].address).collect()
    }

    /// A client of the key-value stores.
    pub async fn client(&self) -> Client {
        let mut client = None;
        until("a client connects", || async { Client::connect(&self.pd_endpoints()).await.is_ok() }).await;
        while client.is_none() {
            client = Client::connect(&self.pd_endpoints()).await.ok();
        }
        client.expect("connected")
    }

    /// A statement that must work, at the first server.
    pub async fn query(&self, statement: &str) {
        let mut conn = sql::connect(self.sql_addresses()[0], "").await.unwrap();
        conn.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }

    /// Waits until every server knows a table that was just made.
    pub async fn is_known(&self, table: &str) {
        for address in self.sql_addresses() {
            let mut conn = sql::connect(address, "").await.unwrap();
            let question = format!("SELECT 1 FROM {table} LIMIT 1");
            let mut known = false;
            while !known {
                known = conn.query_drop(&question).await.is_ok();
            }
        }
    }

    /// `rutile ctl`.
    pub fn ctl(&self, args: &[&str]) -> Output {
        let output =
            Command::new(binary()).args(["ctl", "--pd", &self.pd_endpoints().join(",")]).args(args).output();
        output.unwrap()
    }

    /// Lines of one of its tables without the heading, as fields.
    pub fn table(&self, args: &[&str]) -> Vec<Vec<String>> {
        let text = String::from_utf8(self.ctl(args).stdout).unwrap();
        text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// What any member answers to a path below `/pd/api/v1`.
    pub async fn pd(&self, path: &str) -> Option<Value> {
        for at in self.of(Role::Pd) {
            let asked = http_get(self.processes[at].address, path);
            if let Ok(Ok(value)) = tokio::time::timeout(std::time::Duration::from_secs(2), asked).await {
                return Some(value);
            }
        }
        None
    }

    /// The process of the placement driver that leads.
    pub async fn pd_leader(&self) -> Option<usize> {
        let leader = self.pd("/leader").await?;
        let url = leader["client_urls"][0].as_str()?.to_owned();
        self.of(Role::Pd).find(|at| url.ends_with(&format!("//{}", self.processes[*at].address)))
    }

    /// Leaders and regions by store, of the stores that are up.
    pub async fn stores(&self) -> BTreeMap<u64, (i64, i64)> {
        let answer = self.pd("/stores").await.unwrap_or_default();
        let stores = answer["stores"].as_array().cloned().unwrap_or_default();
        let up = stores.iter().filter(|store| store["store"]["state_name"] == "Up");
        up.filter_map(|store| {
            let status = &store["status"];
            let counts = (status["leader_count"].as_i64()?, status["region_count"].as_i64()?);
            Some((store["store"]["id"].as_u64()?, counts))
        })
        .collect()
    }

    /// The id of a store's process, once the placement driver knows it.
    pub async fn store_id(&self, at: usize) -> Option<u64> {
        let answer = self.pd("/stores").await?;
        let address = self.processes[at].address.to_string();
        let store =
            answer["stores"].as_array()?.iter().find(|s| s["store"]["address"] == address.as_str())?;
        store["store"]["id"].as_u64()
    }

    /// The process of a store.
    pub async fn store_process(&self, id: u64) -> Option<usize> {
        let store = self.pd(&format!("/store/{id}")).await?;
        let address = store["store"]["address"].as_str()?.to_owned();
        self.of(Role::Kv).find(|at| self.processes[*at].address.to_string() == address)
    }

    pub async fn regions(&self) -> Vec<RegionInfo> {
        let answer = self.pd("/regions").await.unwrap_or_default();
        let regions = answer["regions"].as_array().cloned().unwrap_or_default();
        regions.iter().map(region_info).collect()
    }

    /// Whether every region has so many voters, and all of them follow.
    pub async fn is_well(&self, replicas: usize) -> bool {
        let regions = self.regions().await;
        !regions.is_empty()
            && regions.iter().all(|r| r.is_well && r.voters.len() == replicas && r.leader.is_some())
    }

    /// The process of the store that leads the first region of a table.
    pub async fn leader_of(&self, table: &str) -> Option<usize> {
        let id = self.table(&["region", "table", table]).first()?.first()?.clone();
        let region = region_info(&self.pd(&format!("/region/id/{id}")).await?);
        self.store_process(region.leader?).await
    }

    /// The first process that ended by itself.
    pub fn ended(&self) -> Option<String> {
        self.processes.iter().find_map(Process::ended)
    }

    /// The links are whole, disks are quick, and all processes run: the placement drivers first, for the others end when
    /// they find none.
    pub async fn heal(&self) {
        if let Some(network) = &self.network {
            network.heal();
        }
        for process in &self.processes {
            drop(std::fs::remove_file(&process.sync_ms));
            process.signal(Signal::SIGCONT);
        }
        let of = |role| self.of(role).map(|at| &self.processes[at]);
        of(Role::Pd).for_each(Process::start);
        if of(Role::Kv).chain(of(Role::Sql)).any(|process| !process.runs()) {
            until("a placement driver leads", || async { self.pd_leader().await.is_some() }).await;
        }
        self.processes.iter().for_each(Process::start);
    }

    /// Cuts the links of a host to hosts of the cluster, and to the clients if asked for.
    pub fn isolate(&self, host: u8, from_clients: bool) {
        let Some(network) = &self.network else { return };
        for other in self.processes.iter().map(|process| process.host).filter(|other| *other != host) {
            network.cut_both(host, other);
        }
        if from_clients {
            network.cut_both(host, CLIENTS);
        }
    }

    /// Fails if a process ended by itself or panicked.
    pub fn assert_sound(&self) {
        assert_eq!(self.ended(), None);
        let panics: Vec<String> = self.processes.iter().flat_map(Process::complaints).collect();
        let panics: Vec<&String> = panics.iter().filter(|line| line.contains("panicked at")).collect();
        assert!(panics.is_empty(), "{panics:#?}");
    }

    /// Waits until every region has its replicas again.
    pub async fn recovers(&self, replicas: usize) {
        if holds_within(PATIENCE, || self.is_well(replicas)).await {
            return;
        }
        let show = |args: &[&str]| String::from_utf8_lossy(&self.ctl(args).stdout).into_owned();
        panic!(
            "regions do not recover\n{}\n{}\n{}\n{:#?}",
            show(&["stores"]),
            show(&["regions"]),
            show(&["operators"]),
            self.regions().await
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        // `FAULT_KEEP=1` keeps them in any case.
        if !std::thread::panicking() && std::env::var_os("FAULT_KEEP").is_none() {
            return;
        }
        for process in &self.processes {
            process.kill();
            process.complaints().iter().rev().take(5).for_each(|line| eprintln!("{line}"));
        }
        eprintln!("logs and data are kept in {}", dir.keep().display());
    }
}

fn args(command: &str, flags: &[(&str, String)]) -> Vec<String> {
    let flags = flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]);
    [command.to_owned()].into_iter().chain(flags).collect()
}

fn region_info(region: &Value) -> RegionInfo {
    let peers = region["peers"].as_array().cloned().unwrap_or_default();
    let none = |name: &str| region[name].as_array().is_none_or(Vec::is_empty);
    let stores = |is: &dyn Fn(&Value) -> bool| -> Vec<u64> {
        peers
            .iter()
            .filter(|peer| is(&peer["role_name"]))
            .filter_map(|peer| peer["store_id"].as_u64())
            .collect()
    };
    let voters = stores(&|role| role == "Voter");
    RegionInfo {
        leader: region["leader"]["store_id"].as_u64(),
        is_well: voters.len() == peers.len() && none("down_peers") && none("pending_peers"),
        voting: stores(&|role| role != "Learner"),
        voters,
    }
}

async fn http_get(address: SocketAddr, path: &str) -> std::io::Result<Value> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /pd/api/v1{path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![];
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let bad = || std::io::Error::other(answer.lines().next().unwrap_or("no answer").to_owned());
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    if head.split_whitespace().nth(1) != Some("200") {
        return Err(bad());
    }
    serde_json::from_str(body).map_err(std::io::Error::other)
}
