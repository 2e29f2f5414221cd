//! Network namespaces, one per process, joined by a bridge; links are cut by dropping packets, so that connections stay
//! open and silent as they do between machines. The test itself is one more host of the network.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::skip;

/// The number of the test itself, where the clients are.
pub const CLIENTS: u8 = 254;

/// Sources whose packets are dropped, destinations whose packets are dropped, and a share of all packets.
const RULES: &str = "table ip fault {
  set from { type ipv4_addr; }
  set to { type ipv4_addr; }
  chain lossy { }
  chain in { type filter hook input priority 0; policy accept; ip saddr @from drop; jump lossy; }
  chain out { type filter hook output priority 0; policy accept; ip daddr @to drop; }
}";

static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// A network of hosts with numbers from 1 to 253.
pub struct Network {
    prefix: String,
    subnet: [u8; 2],
    hosts: Mutex<BTreeSet<u8>>,
}

/// Runs a command; an error is what it said.
fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
        }
    }
}

fn ip(args: &str) -> Result<String, String> {
    run("ip", &args.split(' ').collect::<Vec<_>>())
}

impl Network {
    /// A network, or nothing if the system does not permit one; says so loudly.
    pub fn open() -> Option<Self> {
        if std::env::var("FAULT_NETWORK").as_deref() == Ok("0") {
            skip("faults of the network", "FAULT_NETWORK=0");
            return None;
        }
        remove_left_over();
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let used = ip("-4 addr").unwrap_or_default();
        let free = (0..4096).map(|i| [64 + ((pid + i) % 128) as u8, (i / 128 + number) as u8]);
        let network = Network {
            prefix: format!("rutile-{pid}-{number}"),
            subnet: free.into_iter().find(|[a, b]| !used.contains(&format!("10.{a}.{b}.")))?,
            hosts: Mutex::default(),
        };
        match network.build(&format!("rt{pid}x{number}")) {
            Ok(()) => Some(network),
            Err(reason) => {
                skip("faults of the network", &reason);
                None
            }
        }
    }

    fn build(&self, link: &str) -> Result<(), String> {
        run("nft", &["--version"])?;
        let hub = self.hub();
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link add br0 type bridge forward_delay 0"))?;
        ip(&format!("-n {hub} link set br0 up"))?;
        ip(&format!("link add {link} type veth peer name clients netns {hub}"))?;
        ip(&format!("-n {hub} link set clients master br0 up"))?;
        ip(&format!("addr add {}/24 dev {link}", self.address(CLIENTS)))?;
        ip(&format!("link set {link} up"))?;
        // Whether rules are possible is known before anything runs.
        self.add_host(253)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn namespace(&self, host: u8) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Adds a host.
    pub fn add_host(&self, host: u8) -> Result<(), String> {
        let (hub, name) = (self.hub(), self.namespace(host));
        ip(&format!("netns add {name}"))?;
        self.hosts.lock().unwrap().insert(host);
        ip(&format!("link add eth0 netns {name} type veth peer name h{host} netns {hub}"))?;
        ip(&format!("-n {hub} link set h{host} master br0 up"))?;
        ip(&format!("-n {name} addr add {}/24 dev eth0", self.address(host)))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        self.nft(host, RULES).map(drop)
    }

    /// The address of a host.
    pub fn address(&self, host: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, self.subnet[0], self.subnet[1], host))
    }

    /// What to put before a command so that it runs on a host; the process keeps its id.
    pub fn enter(&self, host: u8) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace(host)].map(str::to_owned).to_vec()
    }

    fn nft(&self, host: u8, rules: &str) -> Result<String, String> {
        run("ip", &["netns", "exec", &self.namespace(host), "nft", rules])
    }

    /// From now on nothing arrives from `from` at `to`.
    pub fn cut(&self, from: u8, to: u8) {
        let (at, set, other) = if to == CLIENTS { (from, "to", to) } else { (to, "from", from) };
        self.nft(at, &format!("add element ip fault {set} {{ {} }}", self.address(other))).unwrap();
    }

    /// From now on nothing arrives either way.
    pub fn cut_both(&self, a: u8, b: u8) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// A share of what arrives at a host is lost.
    pub fn lose(&self, at: u8, percent: u32) {
        self.nft(at, &format!("add rule ip fault lossy numgen random mod 100 < {percent} drop")).unwrap();
    }

    /// What a host sends comes late: after `ms` where the kernel can do it, else through a narrow link.
    pub fn delay(&self, at: u8, ms: u32) -> &'static str {
        let add = format!("-n {} qdisc replace dev eth0 root", self.namespace(at));
        let words = |text: String| run("tc", &text.split(' ').collect::<Vec<_>>());
        if words(format!("{add} netem delay {ms}ms {}ms", ms / 2)).is_ok() {
            return "delayed";
        }
        words(format!("{add} tbf rate 400kbit burst 4kb latency {}ms", 4 * ms)).unwrap();
        "narrow link"
    }

    /// Everything is as at first.
    pub fn heal(&self) {
        for host in self.hosts.lock().unwrap().iter() {
            for what in ["set ip fault from", "set ip fault to", "chain ip fault lossy"] {
                self.nft(*host, &format!("flush {what}")).unwrap();
            }
            // There is none to remove if none was added.
            drop(run("tc", &["-n", &self.namespace(*host), "qdisc", "del", "dev", "eth0", "root"]));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in self.hosts.lock().unwrap().iter() {
            drop(ip(&format!("netns del {}", self.namespace(*host))));
        }
        drop(ip(&format!("netns del {}", self.hub())));
    }
}

/// Removes what tests left that were killed.
fn remove_left_over() {
    for line in ip("netns list").unwrap_or_default().lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let pid = name.strip_prefix("rutile-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            drop(ip(&format!("netns del {name}")));
        }
    }
}
