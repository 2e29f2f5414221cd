//! A cluster of processes: a placement driver, stores, SQL servers. All are killed when dropped.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::binary;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A store tells of itself and of its regions often, so that tests are quick.
const KV_SETTINGS: &str = "[raft]\nstore-heartbeat-interval = '500ms'\nregion-heartbeat-interval = '1s'\n";

/// One process; killed when dropped.
pub struct Process {
    child: Child,
    /// The port of its service.
    pub port: u16,
    log: PathBuf,
}

impl Process {
    fn start(dir: &Path, name: &str, port: u16, args: &[String]) -> Result<Process> {
        let log = dir.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(binary()?)
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let mut process = Process { child, port, log };
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = process.child.try_wait()? {
                bail!("{name} ended with {status}:\n{}", process.log());
            }
            ensure!(begun.elapsed() < START_TIMEOUT, "{name} is not ready:\n{}", process.log());
            std::thread::sleep(POLL);
        }
        Ok(process)
    }

    /// What it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The running cluster.
pub struct Cluster {
    pub pd: Process,
    pub stores: Vec<Process>,
    pub sql: Vec<Process>,
    dir: tempfile::TempDir,
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
    Ok(held.iter().map(|l| l.local_addr().map(|a| a.port())).collect::<std::io::Result<_>>()?)
}

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(ToString::to_string).collect()
}

impl Cluster {
    /// A placement driver alone.
    pub fn start() -> Result<Cluster> {
        let dir = tempfile::tempdir()?;
        let ports = free_ports(2)?;
        let (client, peer) = (format!("127.0.0.1:{}", ports[0]), format!("127.0.0.1:{}", ports[1]));
        let data = dir.path().join("pd").display().to_string();
        let mut args = words(&["pd", "--name", "pd1", "--data-dir", &data]);
        args.extend(words(&["--client-addr", &client, "--peer-addr", &peer]));
        args.extend(words(&["--initial-cluster", &format!("pd1=http://{peer}")]));
        let pd = Process::start(dir.path(), "pd", ports[0], &args)?;
        Ok(Cluster { pd, stores: Vec::new(), sql: Vec::new(), dir })
    }

    /// With stores; returns when every region has as many replicas as there are stores, three at most.
    pub fn with_stores(count: usize) -> Result<Cluster> {
        let mut cluster = Cluster::start()?;
        for _ in 0..count {
            cluster.add_store(|port| port)?;
        }
        let replicas = count.min(3);
        until("every region has its replicas", || {
            let regions = cluster.regions()?;
            Ok(!regions.is_empty() && regions.iter().all(|region| region.stores.len() == replicas))
        })?;
        Ok(cluster)
    }

    fn pd_address(&self) -> String {
        format!("127.0.0.1:{}", self.pd.port)
    }

    /// One more store. `advertise`: the port that others are told, given its own.
    pub fn add_store(&mut self, advertise: impl FnOnce(u16) -> u16) -> Result<()> {
        let ports = free_ports(2)?;
        let name = format!("kv{}", self.stores.len() + 1);
        let settings = self.dir.path().join("kv.toml");
        std::fs::write(&settings, KV_SETTINGS)?;
        let data = self.dir.path().join(&name).display().to_string();
        let mut args = words(&["kv", "--config", &settings.display().to_string(), "--data-dir", &data]);
        args.extend(words(&["--addr", &format!("127.0.0.1:{}", ports[0])]));
        args.extend(words(&["--advertise-addr", &format!("127.0.0.1:{}", advertise(ports[0]))]));
        args.extend(words(&["--status-addr", &format!("127.0.0.1:{}", ports[1])]));
        args.extend(words(&["--pd", &self.pd_address()]));
        let store = Process::start(self.dir.path(), &name, ports[0], &args)?;
        self.stores.push(store);
        Ok(())
    }

    /// One more SQL server.
    pub fn add_sql(&mut self) -> Result<()> {
        let ports = free_ports(2)?;
        let name = format!("sql{}", self.sql.len() + 1);
        let mut args = words(&["sql", "--addr", &format!("127.0.0.1:{}", ports[0])]);
        args.extend(words(&["--status-addr", &format!("127.0.0.1:{}", ports[1])]));
        args.extend(words(&["--pd", &self.pd_address()]));
        let sql = Process::start(self.dir.path(), &name, ports[0], &args)?;
        self.sql.push(sql);
        Ok(())
    }

    /// A connection to the first SQL server.
    pub async fn connect(&self, database: &str) -> Result<mysql_async::Conn> {
        crate::process::connect(self.sql[0].port, database).await
    }

    /// What `rutile ctl` prints; an error with what it says when it refuses.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(binary()?).args(["ctl", "--pd", &self.pd_address()]).args(args).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        ensure!(output.status.success(), "{}", text(&output.stderr));
        Ok(text(&output.stdout))
    }

    /// What `rutile ctl` says when nobody reads what it prints.
    pub fn ctl_unread(&self, args: &[&str]) -> Result<(ExitStatus, String)> {
        let mut command = Command::new(binary()?);
        command.args(["ctl", "--pd", &self.pd_address()]).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        drop(child.stdout.take());
        let output = child.wait_with_output()?;
        Ok((output.status, String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// All regions as `rutile ctl regions` shows them.
    pub fn regions(&self) -> Result<Vec<RegionLine>> {
        self.ctl(&["regions"])?.lines().skip(1).map(RegionLine::parse).collect()
    }

    /// The region that holds a key (text, or hexadecimal after 0x).
    pub fn region_of(&self, key: &str) -> Result<RegionLine> {
        let shown = self.ctl(&["region", "key", key])?;
        RegionLine::parse(shown.lines().nth(1).context("no region")?)
    }

    /// The region that holds the beginning of a table.
    pub fn region_of_table(&self, table: &str) -> Result<RegionLine> {
        let shown = self.ctl(&["region", "table", table])?;
        RegionLine::parse(shown.lines().nth(1).context("no region")?)
    }

    /// Hands a region's leadership to a store, and waits until that is done.
    pub fn lead(&self, region: u64, store: u64) -> Result<()> {
        until(&format!("region {region} is led from store {store}"), || {
            let leader = self.region(region)?.leader;
            if leader != Some(store) {
                // An operator that is under way has to end first.
                let args = ["operators", "add", "transfer-leader", &region.to_string(), &store.to_string()];
                self.ctl(&args).ok();
            }
            Ok(leader == Some(store))
        })
    }

    /// One region.
    pub fn region(&self, id: u64) -> Result<RegionLine> {
        let shown = self.ctl(&["region", "id", &id.to_string()])?;
        RegionLine::parse(shown.lines().nth(1).context("no region")?)
    }
}

/// One line of `rutile ctl regions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionLine {
    pub id: u64,
    /// As shown: text in quotation marks, or hexadecimal after 0x.
    pub start: String,
    /// The store of the leader.
    pub leader: Option<u64>,
    /// Of its peers, in the order of their ids.
    pub stores: Vec<u64>,
    /// Bytes per second.
    pub written: u64,
    /// Bytes per second.
    pub read: u64,
}

impl RegionLine {
    fn parse(line: &str) -> Result<RegionLine> {
        let columns: Vec<&str> = line.split('\t').collect();
        ensure!(columns.len() >= 10, "a region of {} columns: {line}", columns.len());
        let store = |peer: &str| peer.split('@').nth(1)?.split(' ').next()?.parse().ok();
        Ok(RegionLine {
            id: columns[0].parse()?,
            start: columns[1].to_owned(),
            leader: store(columns[4]),
            stores: columns[5].split(',').filter_map(store).collect(),
            written: columns[8].parse()?,
            read: columns[9].parse()?,
        })
    }
}

/// Waits until something holds; fails with its name when that takes too long.
pub fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    loop {
        match holds() {
            Ok(true) => return Ok(()),
            Ok(false) => ensure!(begun.elapsed() < START_TIMEOUT, "in vain waited until {what}"),
            // The placement driver or a region may be away for a moment.
            Err(error) if begun.elapsed() >= START_TIMEOUT => return Err(error.context(what.to_owned())),
            Err(_) => {}
        }
        std::thread::sleep(POLL);
    }
}
