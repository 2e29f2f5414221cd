//! Three placement drivers as processes: killed, paused, started again, and refused when they do not belong together.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rutile_client::Client;
use rutile_proto::ids::Timestamp;

const BINARY: &str = env!("CARGO_BIN_EXE_rutile");

struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Members `pd-1` to `pd-3`.
struct Group {
    dir: tempfile::TempDir,
    clients: Vec<String>,
    peers: Vec<String>,
    processes: Vec<Option<Process>>,
}

impl Group {
    fn start() -> Self {
        let held: Vec<TcpListener> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let address = |i: usize| held[i].local_addr().unwrap().to_string();
        let mut group = Group {
            dir: tempfile::tempdir().unwrap(),
            clients: (0..3).map(address).collect(),
            peers: (3..6).map(address).collect(),
            processes: (0..3).map(|_| None).collect(),
        };
        drop(held);
        for at in 0..3 {
            group.start_member(at);
        }
        group
    }

    fn members(&self) -> String {
        let each: Vec<String> =
            (1..).zip(&self.peers).map(|(i, peer)| format!("pd-{i}=http://{peer}")).collect();
        each.join(",")
    }

    fn data(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("pd-{}", at + 1))
    }

    fn command(&self, at: usize, data: &Path, members: &str) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(["pd", "--name", &format!("pd-{}", at + 1), "--initial-cluster", members])
            .args(["--client-addr", &self.clients[at], "--peer-addr", &self.peers[at]])
            .args(["--log-level", "warn", "--data-dir"])
            .arg(data);
        command
    }

    fn start_member(&mut self, at: usize) {
        let mut command = self.command(at, &self.data(at), &self.members());
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        self.processes[at] = Some(Process(child));
    }

    fn kill_member(&mut self, at: usize) {
        self.processes[at] = None;
    }

    fn ctl(&self, args: &[&str]) -> Output {
        Command::new(BINARY).args(["ctl", "--pd", &self.clients.join(",")]).args(args).output().unwrap()
    }

    /// Index of the member that leads, as the members that run say.
    async fn leader(&self) -> usize {
        let mut leader = None;
        wait_until("a member leads", || {
            let text = String::from_utf8(self.ctl(&["members"]).stdout).unwrap();
            let named = text.lines().find(|line| line.contains("\tleader\t")).map(str::to_owned);
            leader = named.and_then(|line| self.clients.iter().position(|client| line.contains(client)));
            leader.is_some_and(|at| self.processes[at].is_some())
        })
        .await;
        leader.unwrap()
    }

    async fn client(&self) -> Client {
        let connected = async {
            loop {
                match Client::connect(&self.clients).await {
                    Ok(client) => return client,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), connected).await.expect("a member can be reached")
    }
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_costs_less_than_three_seconds() {
    let mut group = Group::start();
    let client = Arc::new(group.client().await);
    let mut last = client.timestamp().await.unwrap();
    for round in 0..3 {
        let leader = group.leader().await;
        let begin = Instant::now();
        group.kill_member(leader);
        let next = client.timestamp().await.unwrap();
        let took = begin.elapsed();
        println!("round {round}: timestamps again after {} ms", took.as_millis());
        assert!(took < Duration::from_secs(3), "round {round}: {took:?}");
        assert!(next > last, "round {round}: {next} after {last}");
        last = next;
        group.start_member(leader);
        let client_address = group.clients[leader].clone();
        wait_until("the member is back", || std::net::TcpStream::connect(&client_address).is_ok()).await;
    }
}

/// Many clients ask while leaders are killed and paused; every timestamp is larger than all that were answered before it
/// was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamps_increase_over_killed_and_paused_leaders() {
    let mut group = Group::start();
    let newest = Arc::new(newest::Newest::default());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut askers = Vec::new();
    for _ in 0..3 {
        let (client, newest, stop) = (group.client().await, newest.clone(), stop.clone());
        askers.push(tokio::spawn(async move {
            let mut count = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let before = newest.get();
                if let Ok(ts) = client.timestamp().await {
                    assert!(ts > before, "{ts} was given out after {before}");
                    newest.raise(ts);
                    count += 1;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            count
        }));
    }
    for round in 0..4 {
        let leader = group.leader().await;
        let seen = newest.get();
        if round % 2 == 0 {
            group.kill_member(leader);
        } else {
            group.processes[leader].as_ref().unwrap().signal(Signal::SIGSTOP);
        }
        wait_until("timestamps go on", || newest.get() > Timestamp(seen.0 + (1 << 18))).await;
        if round % 2 == 0 {
            group.start_member(leader);
        } else {
            group.processes[leader].as_ref().unwrap().signal(Signal::SIGCONT);
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for asker in askers {
        assert!(asker.await.unwrap() > 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_do_not_belong_are_refused_with_one_line() {
    let mut group = Group::start();
    group.client().await.timestamp().await.unwrap();
    let refused = |output: Output| {
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    };
    let victim = (group.leader().await + 1) % 3;
    group.kill_member(victim);
    // Another list than the directory was made for.
    let other = group.members().replace(&group.peers[(victim + 1) % 3], "127.0.0.1:1");
    let text = refused(group.command(victim, &group.data(victim), &other).output().unwrap());
    assert!(text.contains("127.0.0.1:1") && text.contains("was made for"), "{text}");
    // Another list than the other members have.
    let fresh = group.dir.path().join("fresh");
    let text = refused(group.command(victim, &fresh, &other).output().unwrap());
    assert!(text.contains("initial-cluster"), "{text}");
    // The member lost its directory.
    let lost = group.dir.path().join("lost");
    let text = refused(group.command(victim, &lost, &group.members()).output().unwrap());
    assert!(text.contains("another data directory"), "{text}");
    // Not one of them at all, and with its own directory it comes back.
    let two = group.members().rsplit_once(',').unwrap().0.to_owned();
    let text = refused(group.command(0, &fresh, &two).output().unwrap());
    assert!(text.contains("1, 3 or 5"), "{text}");
    group.start_member(victim);
    let address = group.clients[victim].clone();
    wait_until("the member is back", || std::net::TcpStream::connect(&address).is_ok()).await;
}

/// The largest timestamp that any task saw.
mod newest {
    use std::sync::atomic::{AtomicU64, Ordering};

    use rutile_proto::ids::Timestamp;

    #[derive(Default)]
    pub struct Newest(AtomicU64);

    impl Newest {
        pub fn get(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::SeqCst))
        }

        pub fn raise(&self, ts: Timestamp) {
            self.0.fetch_max(ts.0, Ordering::SeqCst);
        }
    }
}
