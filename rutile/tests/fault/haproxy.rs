//! HAProxy in front of two SQL servers, with its own MySQL check: one of them is killed, and clients that connect again go on.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::harness::cluster::{Cluster, Plan};
use crate::harness::process::Role;
use crate::harness::{setting, skip, sql, until};
use crate::load::Load;

/// A running HAProxy; killed when dropped.
struct Proxy {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Proxy {
    fn start(servers: &[SocketAddr]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let each = (1..).zip(servers).map(|(i, at)| format!("  server sql-{i} {at} check\n"));
        let config = format!(
            "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  retries 3\n  option redispatch\n\
             listen mysql\n  bind {address}\n  balance leastconn\n  option mysql-check user haproxy_check\n  \
             default-server inter 300ms fall 2 rise 2 on-marked-down shutdown-sessions\n{}",
            each.collect::<String>()
        );
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        Proxy { child: command.spawn().unwrap(), address, _dir: dir }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_behind_haproxy_go_on_when_a_server_dies() {
    if let Err(error) = Command::new("haproxy").arg("-v").output() {
        return skip("SQL servers behind HAProxy", &format!("haproxy: {error}; `make setup` installs it"));
    }
    let cluster = Cluster::start(Plan { pds: 1, ..Plan::default() }).await;
    cluster.query("CREATE USER 'haproxy_check'@'%'").await;
    let proxy = Proxy::start(&cluster.sql_addresses());
    until("the proxy lets clients in", || async { sql::connect(proxy.address, "test").await.is_ok() }).await;
    let load = Load::start(&cluster, &[proxy.address], 0).await;
    let servers: Vec<usize> = cluster.of(Role::Sql).collect();
    for round in 0..setting("KILLS", 2) as usize {
        let victim = servers[round % servers.len()];
        cluster.processes[victim].kill();
        let took = load.goes_on(Instant::now()).await;
        let failures = load.take_failures();
        println!(
            "a server behind HAProxy is killed: all clients go on after {} ms; {} statements failed",
            took.as_millis(),
            failures.len()
        );
        cluster.processes[victim].start();
        let address = cluster.processes[victim].address;
        until("the server is back", || async { sql::connect(address, "").await.is_ok() }).await;
    }
    load.check(&cluster).await;
    cluster.assert_sound();
}
