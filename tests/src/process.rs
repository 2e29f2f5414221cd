//! A playground as a process of its own: started on free ports, killed, restarted, stopped.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// The four ports of a playground with one store.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub sql: u16,
    pub status: u16,
    pub pd: u16,
    pub kv: u16,
}

impl Ports {
    /// Ports that were free a moment ago.
    pub fn free() -> Result<Ports> {
        let held: Vec<TcpListener> =
            (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        let port = |i: usize| held[i].local_addr().map(|a: SocketAddr| a.port());
        Ok(Ports { sql: port(0)?, status: port(1)?, pd: port(2)?, kv: port(3)? })
    }
}

/// Path of the `rutile` binary that was built with this test.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("RUTILE_BIN") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe()?;
    let folder = exe.parent().and_then(Path::parent).context("test binary has no target folder")?;
    let binary = folder.join("rutile");
    if !binary.exists() {
        bail!("{} is missing: run `cargo build --release --workspace` first", binary.display());
    }
    Ok(binary)
}

/// A running playground; killed when dropped.
pub struct Playground {
    pub ports: Ports,
    data_dir: PathBuf,
    _temp: Option<tempfile::TempDir>,
    child: Option<Child>,
    args: Vec<String>,
}

impl Playground {
    /// Starts a playground with an empty data directory of its own and waits until it accepts connections.
    pub fn start() -> Result<Playground> {
        Self::start_with(&[])
    }

    /// The same with more arguments.
    pub fn start_with(args: &[&str]) -> Result<Playground> {
        let temp = tempfile::tempdir()?;
        let mut playground = Playground {
            ports: Ports::free()?,
            data_dir: temp.path().join("data"),
            _temp: Some(temp),
            child: None,
            args: args.iter().map(ToString::to_string).collect(),
        };
        playground.spawn()?;
        Ok(playground)
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.arg("playground").arg("--data-dir").arg(&self.data_dir);
        for (flag, port) in [
            ("--sql-port", self.ports.sql),
            ("--status-port", self.ports.status),
            ("--pd-port", self.ports.pd),
            ("--kv-port", self.ports.kv),
        ] {
            command.arg(flag).arg(port.to_string());
        }
        command.args(&self.args);
        Ok(command)
    }

    /// Starts the process again on the same directory and ports; answers how long it took to be ready.
    pub fn spawn(&mut self) -> Result<Duration> {
        assert!(self.child.is_none(), "the playground runs already");
        let log = self.log_path();
        let log_file = File::options().create(true).append(true).open(&log)?;
        let begun = Instant::now();
        let child = self
            .command()?
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()
            .context("start rutile")?;
        self.child = Some(child);
        loop {
            if TcpStream::connect(("127.0.0.1", self.ports.sql)).is_ok() {
                return Ok(begun.elapsed());
            }
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                self.child = None;
                bail!("rutile ended with {status}:\n{}", self.log());
            }
            if begun.elapsed() > START_TIMEOUT {
                bail!("rutile is not ready after {START_TIMEOUT:?}:\n{}", self.log());
            }
            std::thread::sleep(POLL);
        }
    }

    /// What the process printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends the process with SIGKILL, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).map(drop)
    }

    /// Ends the process with SIGTERM and expects a clean exit.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.end(Signal::SIGTERM)?;
        if !status.success() {
            bail!("rutile ended with {status} after SIGTERM:\n{}", self.log());
        }
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<std::process::ExitStatus> {
        let mut child = self.child.take().context("the playground does not run")?;
        kill(Pid::from_raw(child.id() as i32), signal)?;
        Ok(child.wait()?)
    }

    /// A mysql_async URL without a database.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/", self.ports.sql)
    }

    /// A new connection, as root, in `database` when it is not empty.
    pub async fn connect(&self, database: &str) -> Result<mysql_async::Conn> {
        connect(self.ports.sql, database).await
    }
}

/// A new connection to the SQL server on a port, as root, in `database` when it is not empty.
pub async fn connect(port: u16, database: &str) -> Result<mysql_async::Conn> {
    let builder = mysql_async::OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some("root"))
        .prefer_socket(Some(false))
        .db_name((!database.is_empty()).then_some(database));
    Ok(mysql_async::Conn::new(builder).await?)
}

/// One more SQL server of a playground's cluster; killed when dropped.
pub struct SqlServer {
    pub port: u16,
    child: Child,
}

impl SqlServer {
    /// Starts it and waits until it accepts connections.
    pub fn start(cluster: &Playground) -> Result<SqlServer> {
        let ports = Ports::free()?;
        let child = Command::new(binary()?)
            .arg("sql")
            .args(["--addr", &format!("127.0.0.1:{}", ports.sql)])
            .args(["--status-addr", &format!("127.0.0.1:{}", ports.status)])
            .args(["--pd", &format!("127.0.0.1:{}", cluster.ports.pd)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start rutile sql")?;
        let mut server = SqlServer { port: ports.sql, child };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", server.port)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("rutile sql ended with {status}");
            }
            if begun.elapsed() > START_TIMEOUT {
                bail!("rutile sql is not ready after {START_TIMEOUT:?}");
            }
            std::thread::sleep(POLL);
        }
        Ok(server)
    }
}

impl Drop for SqlServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill().ok();
        }
    }
}
