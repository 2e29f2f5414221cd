//! One process of a cluster.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Pd,
    Kv,
    Sql,
}

/// A process that is started, killed and started again with the same arguments.
pub struct Process {
    pub role: Role,
    /// Such as `kv-2`.
    pub name: String,
    /// Where it is in the network.
    pub host: u8,
    /// Where its clients find it.
    pub address: SocketAddr,
    pub log: PathBuf,
    /// How many milliseconds its disk takes for a sync.
    pub sync_ms: PathBuf,
    /// Program and arguments.
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    child: Mutex<Option<Child>>,
}

impl Process {
    pub fn new(role: Role, name: String, host: u8, address: SocketAddr, dir: &std::path::Path) -> Self {
        let (log, sync_ms) = (dir.join(format!("{name}.log")), dir.join(format!("{name}.sync-ms")));
        let child = Mutex::default();
        Process { role, name, host, address, log, sync_ms, command: vec![], environment: vec![], child }
    }

    /// Starts it, if it does not run.
    pub fn start(&self) {
        let mut child = self.child.lock().unwrap();
        if child.is_some() {
            return;
        }
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        // The process goes with the thread that starts it, whatever becomes of the test.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(&self.command);
        command.envs(self.environment.iter().cloned()).env("RUST_BACKTRACE", "1");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        *child = Some(command.spawn().unwrap_or_else(|e| panic!("{}: {e}", self.name)));
    }

    /// Sends a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = self.child.lock().unwrap().as_ref() {
            kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        }
    }

    /// `kill -9`, if it runs; gone when this returns.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Whether it was started and not killed.
    pub fn runs(&self) -> bool {
        self.child.lock().unwrap().is_some()
    }

    /// Why it ended by itself, if it did.
    pub fn ended(&self) -> Option<String> {
        let mut child = self.child.lock().unwrap();
        let status = child.as_mut()?.try_wait().unwrap()?;
        Some(format!("{} ended with {status}", self.name))
    }

    /// Lines of its log that a person must look at.
    pub fn complaints(&self) -> Vec<String> {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let bad = |line: &&str| line.contains("panicked at") || line.contains(" ERROR ");
        log.lines().filter(bad).map(|line| format!("{}: {line}", self.name)).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
