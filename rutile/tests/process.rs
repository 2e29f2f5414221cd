//! The binary as a user meets it: starts, stops, and what it says when something is wrong.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BINARY: &str = env!("CARGO_BIN_EXE_rutile");

struct Ports {
    sql: u16,
    status: u16,
    pd: u16,
    kv: u16,
}

impl Ports {
    fn free() -> Self {
        let held: Vec<TcpListener> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |i: usize| held[i].local_addr().unwrap().port();
        Ports { sql: port(0), status: port(1), pd: port(2), kv: port(3) }
    }

    fn args(&self) -> Vec<String> {
        let flags = [
            ("--sql-port", self.sql),
            ("--status-port", self.status),
            ("--pd-port", self.pd),
            ("--kv-port", self.kv),
        ];
        flags.into_iter().flat_map(|(flag, port)| [flag.to_string(), port.to_string()]).collect()
    }
}

/// A playground; killed when dropped.
struct Playground {
    child: Child,
    ports: Ports,
}

impl Playground {
    fn start(dir: &Path) -> Self {
        let ports = Ports::free();
        let mut child = Command::new(BINARY)
            .args(["--data-dir", dir.to_str().unwrap()])
            .args(ports.args())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let greeting = lines.next().and_then(Result::ok).unwrap_or_default();
        if !greeting.contains("is ready") {
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            panic!("no greeting but \"{greeting}\", and: {text}");
        }
        // The rest of the greeting is read so that the process never meets a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Playground { child, ports }
    }

    fn ctl(&self, args: &[&str]) -> String {
        let pd = format!("127.0.0.1:{}", self.ports.pd);
        let output = Command::new(BINARY).args(["ctl", "--pd", &pd]).args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn stop(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        let status = self.child.wait().unwrap();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(status.success(), "{status}: {text}");
        assert_eq!(text, "", "a quiet start and stop");
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

/// Exit code 1 and one line on stderr, which is the answer.
fn refused(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn a_playground_keeps_its_cluster_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Playground::start(&data);
    let members = first.ctl(&["members"]);
    let ts: u64 = first.ctl(&["tso"]).split('\t').next().unwrap().parse().unwrap();
    let cluster = members.lines().next().unwrap().to_string();
    assert!(
        cluster.starts_with("cluster ") && members.contains(&format!("http://127.0.0.1:{}", first.ports.pd))
    );
    assert!(first.ctl(&["config"]).contains("tso-window-ms"));
    first.stop();

    let second = Playground::start(&data);
    assert_eq!(second.ctl(&["members"]).lines().next().unwrap(), cluster);
    assert!(second.ctl(&["tso"]).split('\t').next().unwrap().parse::<u64>().unwrap() > ts);
    assert!(second.ctl(&["stores"]).contains(" Up") || second.ctl(&["stores"]).contains("\tUp\t"));
    assert!(second.ctl(&["regions"]).contains("+inf"));
    assert!(second.ctl(&["region", "key", "abc"]).contains("ID\tSTART"));
    second.stop();
}

#[test]
fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port();
    for flag in ["--sql-port", "--status-port", "--pd-port", "--kv-port"] {
        let mut args: Vec<String> = Ports::free().args();
        let at = args.iter().position(|arg| arg == flag).unwrap();
        args[at + 1] = taken.to_string();
        let output = Command::new(BINARY)
            .args(["--data-dir", dir.path().to_str().unwrap()])
            .args(args)
            .output()
            .unwrap();
        let text = refused(&output);
        assert!(text.contains(&taken.to_string()) && text.contains(flag), "{text}");
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let text = refused(&run(&["--data-dir", file.to_str().unwrap()]));
    assert!(text.contains(file.to_str().unwrap()) && text.contains("--data-dir"), "{text}");

    let data = dir.path().join("data");
    let running = Playground::start(&data);
    let ports = Ports::free();
    let output = Command::new(BINARY)
        .args(["--data-dir", data.to_str().unwrap()])
        .args(ports.args())
        .output()
        .unwrap();
    let text = refused(&output);
    assert!(text.contains(data.to_str().unwrap()) && text.contains("another rutile process"), "{text}");
    running.stop();
}

#[test]
fn configuration_is_strict_and_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rutile.toml");
    std::fs::write(&file, "sql-port = 4001\nsql-prot = 1\n").unwrap();
    let text = refused(&run(&["--config", file.to_str().unwrap()]));
    assert!(text.contains("sql-prot") && text.contains("line 2"), "{text}");
    for process in ["playground", "pd", "kv", "sql"] {
        let printed = run(&[process, "--print-config"]);
        assert!(printed.status.success());
        std::fs::write(&file, &printed.stdout).unwrap();
        let again = run(&[process, "--config", file.to_str().unwrap(), "--print-config"]);
        assert_eq!(again.stdout, printed.stdout, "{process}");
    }
}

#[test]
fn a_missing_placement_driver_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let free = format!("127.0.0.1:{}", Ports::free().pd);
    let text = refused(&run(&["ctl", "--pd", &free, "members"]));
    assert!(text.contains(&free) && text.contains("rutile pd"), "{text}");
    let data = dir.path().to_str().unwrap();
    let address = format!("127.0.0.1:{}", Ports::free().kv);
    let text = refused(&run(&["kv", "--data-dir", data, "--addr", &address, "--pd", &free]));
    assert!(text.contains(&free), "{text}");
    let text = refused(&run(&["sql", "--addr", &address, "--pd", &free]));
    assert!(text.contains(&free), "{text}");
}
