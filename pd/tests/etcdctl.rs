//! The etcd service as etcd's own tool sees it, against three members of which any may be asked.
//!
//! Needs `etcdctl` (Debian: etcd-client); says so and passes when it is missing.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rutile_pd::{Config, Server};
use tokio::net::TcpListener;

struct Group {
    servers: Vec<Server>,
    endpoints: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Group {
    async fn start(size: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut ports = Vec::new();
        for _ in 0..size {
            let bind = || TcpListener::bind("127.0.0.1:0");
            ports.push((bind().await.unwrap(), bind().await.unwrap()));
        }
        let address = |port: &TcpListener| port.local_addr().unwrap().to_string();
        let endpoints: Vec<String> = ports.iter().map(|(client, _)| address(client)).collect();
        let list: Vec<String> =
            ports.iter().enumerate().map(|(i, (_, peer))| format!("m{i}=http://{}", address(peer))).collect();
        let mut servers = Vec::new();
        for (i, (client, peer)) in ports.into_iter().enumerate() {
            let config = Config {
                name: format!("m{i}"),
                data_dir: dir.path().join(format!("m{i}")),
                client_addr: address(&client),
                peer_addr: address(&peer),
                initial_cluster: list.join(","),
                ..Config::default()
            };
            let server = Server::start(config).await.unwrap();
            server.serve_peers(peer).await.unwrap();
            server.serve(client).await.unwrap();
            servers.push(server);
        }
        let led = async {
            while !servers.iter().any(Server::is_leading) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), led).await.expect("a member leads");
        Group { servers, endpoints, _dir: dir }
    }

    fn command(&self, endpoints: &[String], args: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(endpoints.join(",")).args(args);
        command
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.run_at(&self.endpoints, args).await
    }

    async fn run_at(&self, endpoints: &[String], args: &[&str]) -> Output {
        let mut command = self.command(endpoints, args);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// What a command that succeeds prints.
    async fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that fails says.
    async fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(!output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    async fn shutdown(self) {
        for server in self.servers {
            server.shutdown().await;
        }
    }
}

fn has_etcdctl() -> bool {
    let found =
        Command::new("etcdctl").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIPPED: etcdctl is not installed; scripts/setup.sh installs it");
    }
    found
}

fn revision(json: &str) -> i64 {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    value["header"]["revision"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_older_revisions() {
    if !has_etcdctl() {
        return;
    }
    let group = Group::start(3).await;
    // Every member is asked: those that do not lead send requests on.
    for (i, endpoint) in group.endpoints.iter().enumerate() {
        let (key, value) = (format!("key{i}"), format!("v{i}"));
        let put = group.run_at(std::slice::from_ref(endpoint), &["put", &key, &value]).await;
        assert!(put.status.success(), "{put:?}");
    }
    assert_eq!(group.ok(&["get", "--prefix", "key"]).await, "key0\nv0\nkey1\nv1\nkey2\nv2\n");
    assert_eq!(
        group.ok(&["get", "--prefix", "key", "--keys-only", "--order=DESCEND", "--limit=2"]).await,
        "key2\n\nkey1\n\n"
    );
    assert_eq!(group.ok(&["get", "key0", "key2", "--print-value-only"]).await, "v0\nv1\n");

    let before = revision(&group.ok(&["get", "key0", "-w", "json"]).await);
    assert_eq!(group.ok(&["put", "key0", "new", "--prev-kv"]).await, "OK\nkey0\nv0\n");
    assert_eq!(group.ok(&["del", "key1"]).await, "1\n");
    let at = format!("--rev={before}");
    assert_eq!(group.ok(&["get", "--prefix", "key", &at]).await, "key0\nv0\nkey1\nv1\nkey2\nv2\n");
    assert_eq!(group.ok(&["get", "--prefix", "key"]).await, "key0\nnew\nkey2\nv2\n");
    let future = group.refused(&["get", "key0", "--rev=99999"]).await;
    assert!(future.contains("future revision"), "{future}");

    let now = (before + 2).to_string();
    assert!(group.ok(&["compact", &now]).await.contains("compacted revision"));
    let gone = group.refused(&["get", "key0", &at]).await;
    assert!(gone.contains("has been compacted"), "{gone}");
    let gone = group.refused(&["compact", &now]).await;
    assert!(gone.contains("has been compacted"), "{gone}");
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_watches_and_leases() {
    if !has_etcdctl() {
        return;
    }
    let group = Group::start(3).await;
    group.ok(&["put", "a", "1"]).await;
    let script = "value(\"a\") = \"1\"\n\nput a 2\nget a\n\nput a 3\n\n";
    let mut txn = group.command(&group.endpoints, &["txn"]);
    let output = tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let mut child = txn.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    let output = String::from_utf8(output.await.unwrap().stdout).unwrap();
    assert!(output.contains("SUCCESS") && output.contains("a\n2"), "{output}");

    // A watch from the past through each member gets all of it, in order.
    let start = revision(&group.ok(&["get", "a", "-w", "json"]).await) - 1;
    for endpoint in &group.endpoints {
        let at = format!("--rev={start}");
        let args = ["watch", &at, "a"];
        let mut watch = group.command(std::slice::from_ref(endpoint), &args);
        let seen = tokio::task::spawn_blocking(move || {
            use std::io::BufRead as _;
            let mut child = watch.stdout(Stdio::piped()).spawn().unwrap();
            let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
            let seen: Vec<String> = lines.take(6).map(Result::unwrap).collect();
            child.kill().unwrap();
            child.wait().unwrap();
            seen
        });
        let seen = tokio::time::timeout(Duration::from_secs(30), seen).await.expect("events come").unwrap();
        assert_eq!(seen, ["PUT", "a", "1", "PUT", "a", "2"]);
    }

    let granted = group.ok(&["lease", "grant", "60"]).await;
    let lease = granted.split(' ').nth(1).unwrap().to_owned();
    group.ok(&["put", "--lease", &lease, "held", "x"]).await;
    assert!(group.ok(&["lease", "timetolive", "--keys", &lease]).await.contains("attached keys([held])"));
    assert!(group.ok(&["lease", "list"]).await.contains(&lease));
    assert!(group.ok(&["lease", "keep-alive", "--once", &lease]).await.contains("keepalived with TTL(60)"));
    group.ok(&["lease", "revoke", &lease]).await;
    assert_eq!(group.ok(&["get", "held"]).await, "");
    let unknown = group.refused(&["put", "--lease", &lease, "held", "x"]).await;
    assert!(unknown.contains("lease not found"), "{unknown}");
    // What clients build from these: a lock.
    assert!(group.ok(&["lock", "mutex", "echo", "held"]).await.contains("held"));
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_and_their_status() {
    if !has_etcdctl() {
        return;
    }
    let group = Group::start(3).await;
    let all_known = async {
        loop {
            let list = group.ok(&["member", "list"]).await;
            if group.endpoints.iter().all(|endpoint| list.contains(&format!("http://{endpoint}"))) {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let list = tokio::time::timeout(Duration::from_secs(30), all_known).await.expect("all members are known");
    assert_eq!(list.lines().filter(|line| line.contains("started")).count(), 3);
    let health = group.run(&["endpoint", "health"]).await;
    assert!(health.status.success(), "{health:?}");
    let status = group.ok(&["endpoint", "status", "-w", "json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let each = status.as_array().unwrap();
    let leader = each[0]["Status"]["leader"].as_u64().unwrap();
    assert!(each.len() == 3 && each.iter().all(|s| s["Status"]["leader"].as_u64() == Some(leader)));

    // The lead moves where it is told to.
    let led = each.iter().position(|s| s["Status"]["header"]["member_id"].as_u64() == Some(leader)).unwrap();
    let other = each.iter().find(|s| s["Status"]["header"]["member_id"].as_u64() != Some(leader)).unwrap();
    let other = format!("{:x}", other["Status"]["header"]["member_id"].as_u64().unwrap());
    let at = [each[led]["Endpoint"].as_str().unwrap().to_owned()];
    let moved = group.run_at(&at, &["move-leader", &other]).await;
    assert!(moved.status.success(), "{moved:?}");
    group.shutdown().await;
}
