//! Stores that do not belong where they are started: refused with one line that says what is wrong and what to do.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_rutile");
const PATIENCE: Duration = Duration::from_secs(60);

/// Addresses that nobody listens on now.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

/// A process; killed when dropped.
struct Process(Child);

impl Process {
    /// Starts it and waits until it listens.
    fn start(mut command: Command, address: SocketAddr) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut process = Process(child);
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(process.0.try_wait().unwrap().is_none(), "it ended at once");
            assert!(begun.elapsed() < PATIENCE, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A placement driver, and stores that are started as needed.
struct Cluster {
    dir: PathBuf,
    pd: SocketAddr,
    _pd: Process,
}

impl Cluster {
    fn start(dir: &Path) -> Self {
        let [pd, peer] = free_addresses();
        let mut command = Command::new(BINARY);
        let members = format!("pd-1=http://{peer}");
        command
            .args(["pd", "--log-level", "error", "--initial-cluster", &members, "--data-dir"])
            .arg(dir.join("pd"))
            .args(["--client-addr", &pd.to_string(), "--peer-addr", &peer.to_string()]);
        Cluster { dir: dir.to_owned(), pd, _pd: Process::start(command, pd) }
    }

    fn data(&self, store: &str) -> PathBuf {
        self.dir.join(store)
    }

    fn command(&self, data: &Path, address: SocketAddr) -> Command {
        let mut command = Command::new(BINARY);
        command.args(["kv", "--log-level", "error", "--addr", &address.to_string()]);
        command.args(["--pd", &self.pd.to_string(), "--data-dir"]).arg(data);
        command
    }

    fn store(&self, name: &str, address: SocketAddr) -> Process {
        Process::start(self.command(&self.data(name), address), address)
    }

    /// The one line with which a store is refused.
    fn refused(&self, data: &Path, address: SocketAddr) -> String {
        let output = self.command(data, address).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

#[test]
fn a_store_that_runs_is_not_started_twice() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let [address, other] = free_addresses();
    let _store = cluster.store("kv-1", address);
    let text = cluster.refused(&cluster.data("kv-1"), other);
    assert!(
        text.contains("kv-1") && text.contains("another rutile process") && text.contains("--data-dir"),
        "{text}"
    );
    let text = cluster.refused(&cluster.data("kv-2"), address);
    assert!(text.contains(&address.to_string()) && text.contains("--addr"), "{text}");
}

#[test]
fn an_address_belongs_to_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let [address] = free_addresses();
    drop(cluster.store("kv-1", address));
    let text = cluster.refused(&cluster.data("kv-2"), address);
    assert!(
        text.contains(&address.to_string()) && text.contains("store") && text.contains("--addr"),
        "{text}"
    );
    // Its owner may have it.
    drop(cluster.store("kv-1", address));
}

#[test]
fn a_store_belongs_to_one_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let (one, two) = (Cluster::start(&one), Cluster::start(&two));
    let [address] = free_addresses();
    drop(one.store("kv-1", address));
    let text = two.refused(&one.data("kv-1"), address);
    assert!(
        text.contains("kv-1") && text.contains("belongs to cluster") && text.contains("another directory"),
        "{text}"
    );
    drop(one.store("kv-1", address));
}

/// Logs and data of different stores: of one cluster, and of two clusters, where the stores' ids are the same.
#[test]
fn logs_and_data_belong_together() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let (one, two) = (Cluster::start(&one), Cluster::start(&two));
    let [first, second] = free_addresses();
    drop(one.store("kv-1", first));
    drop(one.store("kv-2", second));
    drop(two.store("kv-1", first));
    for (name, logs, data) in
        [("mixed", one.data("kv-1"), one.data("kv-2")), ("foreign", one.data("kv-1"), two.data("kv-1"))]
    {
        let mixed = one.data(name);
        std::fs::create_dir(&mixed).unwrap();
        copy(&logs.join("raft"), &mixed);
        copy(&data.join("db"), &mixed);
        let text = one.refused(&mixed, first);
        assert!(text.contains(name) && text.contains("does not belong together"), "{text}");
    }
    for (name, lost, what) in [("no-logs", "raft", "no raft logs"), ("no-data", "db", "no data")] {
        let half = one.data(name);
        copy(&one.data("kv-1"), &half);
        std::fs::remove_dir_all(half.join(lost)).unwrap();
        let text = one.refused(&half, first);
        assert!(text.contains(name) && text.contains(what), "{text}");
    }
}
