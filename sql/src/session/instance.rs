//! What all sessions of one SQL server share: the cluster's client, the catalog, global variables, accounts, and the
//! register of connections for SHOW PROCESSLIST and KILL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use rutile_client::Client;
use tokio_util::sync::CancellationToken;

use super::privilege::Accounts;
use super::text_plan::TextPlans;
use super::variables::{Value, Values};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::context::Process;
use crate::statistics::Statistics;
use crate::statistics::worker::AutoAnalyze;
use crate::{Error, Result};

/// The MySQL version whose behaviour this server has, with our own behind it.
pub const VERSION: &str = concat!("8.4.6-rutile-", env!("CARGO_PKG_VERSION"));
/// `@@version_comment`
pub const VERSION_COMMENT: &str = "Rutile, a distributed SQL database (Apache License 2.0)";

/// What all sessions of one SQL server share.
pub struct Instance {
    /// The cluster.
    pub client: Client,
    /// Databases and tables, kept current.
    pub catalog: Arc<Catalog>,
    /// What is known of the tables' values.
    pub statistics: Arc<Statistics>,
    /// Plans of texts.
    pub texts: Arc<TextPlans>,
    /// Settings given at start.
    pub config: Config,
    /// Who may log in.
    pub accounts: Accounts,
    /// Counters of SHOW STATUS.
    pub counters: Counters,
    globals: RwLock<Arc<Values>>,
    connections: DashMap<u64, Arc<Connection>>,
    next_connection_id: AtomicU64,
    started: Instant,
    /// Set when the server stops: no new statements.
    pub shutdown: CancellationToken,
}

/// Counters of SHOW STATUS and `/metrics`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections ever made.
    pub connections: AtomicU64,
    /// Connections refused or broken before log-in.
    pub aborted_connects: AtomicU64,
    /// Statements the clients sent.
    pub questions: AtomicU64,
    /// Statements that failed.
    pub errors: AtomicU64,
    /// Prepared statements open at present.
    pub prepared: AtomicU64,
    /// Rows sent.
    pub rows_sent: AtomicU64,
    /// SELECTs.
    pub com_select: AtomicU64,
    /// INSERTs and REPLACEs.
    pub com_insert: AtomicU64,
    /// UPDATEs.
    pub com_update: AtomicU64,
    /// DELETEs.
    pub com_delete: AtomicU64,
    /// COMMITs.
    pub com_commit: AtomicU64,
    /// ROLLBACKs.
    pub com_rollback: AtomicU64,
    /// Statements run again after a conflict.
    pub retries: AtomicU64,
}

impl Counters {
    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One connection as the others see it.
pub struct Connection {
    /// `CONNECTION_ID()`
    pub id: u64,
    /// `host:port` of the client.
    pub host: String,
    /// Ends the connection.
    pub ended: CancellationToken,
    /// What evaluation polls.
    pub killed: Arc<AtomicBool>,
    now: Mutex<Now>,
}

struct Now {
    user: String,
    database: Option<String>,
    command: &'static str,
    since: Instant,
    statement: Option<Bytes>,
    cancel: CancellationToken,
}

impl Connection {
    /// A statement begins; answers what KILL QUERY will set.
    pub fn begin(&self, command: &'static str, statement: Option<Bytes>) -> CancellationToken {
        let mut now = self.now.lock();
        now.command = command;
        now.since = Instant::now();
        now.statement = statement;
        if now.cancel.is_cancelled() {
            now.cancel = self.ended.child_token();
            self.killed.store(self.ended.is_cancelled(), Ordering::Relaxed);
        }
        now.cancel.clone()
    }

    /// The statement ended.
    pub fn end(&self) {
        let mut now = self.now.lock();
        now.command = "Sleep";
        now.since = Instant::now();
        now.statement = None;
    }

    /// Somebody logged in.
    pub fn set_user(&self, user: &str) {
        self.now.lock().user = user.to_owned();
    }

    /// The current database changed.
    pub fn set_database(&self, database: Option<&str>) {
        self.now.lock().database = database.map(str::to_owned);
    }

    /// The account's name.
    pub fn user(&self) -> String {
        self.now.lock().user.clone()
    }

    /// Stops the running statement.
    pub fn kill_query(&self) {
        let now = self.now.lock();
        if now.command != "Sleep" {
            self.killed.store(true, Ordering::Relaxed);
            now.cancel.cancel();
        }
    }

    /// Stops the running statement and ends the connection.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        self.ended.cancel();
    }

    /// Whether a statement runs.
    pub fn is_busy(&self) -> bool {
        self.now.lock().command != "Sleep"
    }

    fn process(&self) -> Process {
        let now = self.now.lock();
        let busy = now.command != "Sleep";
        Process {
            id: self.id,
            user: now.user.clone(),
            host: self.host.clone(),
            database: now.database.clone(),
            command: now.command,
            seconds: now.since.elapsed().as_secs(),
            state: if busy { "executing" } else { "" },
            info: now.statement.as_ref().map(|text| String::from_utf8_lossy(text).into_owned()),
        }
    }
}

impl Instance {
    /// The shared state of a server over a cluster.
    pub fn new(config: Config, client: Client, catalog: Arc<Catalog>) -> Arc<Instance> {
        let globals = start_values(&config);
        Arc::new(Instance {
            accounts: Accounts::new(client.clone()),
            client,
            catalog,
            statistics: Arc::default(),
            texts: Arc::default(),
            config,
            counters: Counters::default(),
            globals: RwLock::new(Arc::new(globals)),
            connections: DashMap::new(),
            next_connection_id: AtomicU64::new(1),
            started: Instant::now(),
            shutdown: CancellationToken::new(),
        })
    }

    /// The global variables that differ from their defaults.
    pub fn globals(&self) -> Arc<Values> {
        self.globals.read().clone()
    }

    /// When tables are analyzed without being asked for.
    pub fn auto_analyze(&self) -> AutoAnalyze {
        let globals = self.globals();
        let value = |name: &str| {
            super::variables::lookup(name).ok().map(|known| super::variables::value_in(&globals, known))
        };
        let ratio = match value("rutile_auto_analyze_ratio") {
            Some(Value::Double(ratio)) => ratio,
            _ => 0.5,
        };
        AutoAnalyze {
            enabled: value("rutile_auto_analyze").is_some_and(|on| on.is_on()),
            ratio,
            rows_min: value("rutile_auto_analyze_min_rows").map_or(1, |rows| rows.as_u64()),
        }
    }

    /// Sets a global variable.
    pub fn set_global(&self, name: &'static str, value: Value) {
        let mut globals = self.globals.write();
        Arc::make_mut(&mut globals).insert(name, value);
    }

    /// Registers a new connection; error 1040 when there are too many.
    pub fn connect(&self, host: String) -> Result<Arc<Connection>> {
        let max = match self.globals.read().get("max_connections") {
            Some(value) => value.as_u64(),
            None => u64::from(self.config.max_connections),
        };
        Counters::count(&self.counters.connections);
        // One is kept for whoever must clean up.
        if self.connections.len() as u64 > max {
            return Err(Error::TooManyConnections);
        }
        let ended = CancellationToken::new();
        let id = self.next_connection_id.fetch_add(1, Ordering::Relaxed);
        let now = Now {
            user: "unauthenticated user".to_owned(),
            database: None,
            command: "Connect",
            since: Instant::now(),
            statement: None,
            cancel: ended.child_token(),
        };
        let connection = Arc::new(Connection {
            id,
            host,
            ended,
            killed: Arc::new(AtomicBool::new(false)),
            now: Mutex::new(now),
        });
        self.connections.insert(id, Arc::clone(&connection));
        Ok(connection)
    }

    /// Forgets a connection.
    pub fn disconnect(&self, id: u64) {
        self.connections.remove(&id);
    }

    /// The connection with this id.
    pub fn connection(&self, id: u64) -> Option<Arc<Connection>> {
        self.connections.get(&id).map(|entry| Arc::clone(&entry))
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// How many of them run a statement.
    pub fn running_count(&self) -> usize {
        self.connections.iter().filter(|entry| entry.is_busy()).count()
    }

    /// Ends every connection.
    pub fn kill_all(&self) {
        self.connections.iter().for_each(|entry| entry.kill());
    }

    /// SHOW PROCESSLIST, by id.
    pub fn processes(&self) -> Vec<Process> {
        let mut processes: Vec<_> = self.connections.iter().map(|entry| entry.process()).collect();
        processes.sort_by_key(|process| process.id);
        processes
    }

    /// Seconds since the server started.
    pub fn uptime_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// SHOW STATUS.
    pub fn status(&self) -> Vec<(String, String)> {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let numbers = [
            ("Aborted_clients", 0),
            ("Aborted_connects", get(&counters.aborted_connects)),
            ("Com_commit", get(&counters.com_commit)),
            ("Com_delete", get(&counters.com_delete)),
            ("Com_insert", get(&counters.com_insert)),
            ("Com_rollback", get(&counters.com_rollback)),
            ("Com_select", get(&counters.com_select)),
            ("Com_update", get(&counters.com_update)),
            ("Connections", get(&counters.connections)),
            ("Open_tables", 0),
            ("Opened_tables", 0),
            ("Prepared_stmt_count", get(&counters.prepared)),
            ("Queries", get(&counters.questions)),
            ("Questions", get(&counters.questions)),
            ("Rutile_statement_retries", get(&counters.retries)),
            ("Slow_queries", 0),
            ("Threads_connected", self.connections.len() as u64),
            ("Threads_running", self.running_count() as u64),
            ("Uptime", self.uptime_seconds()),
        ];
        numbers.into_iter().map(|(name, value)| (name.to_owned(), value.to_string())).collect()
    }
}

fn start_values(config: &Config) -> Values {
    let mut values = Values::default();
    values.insert("version", Value::text(VERSION));
    values.insert("version_comment", Value::text(VERSION_COMMENT));
    values.insert("port", Value::UInt(u64::from(config.addr.port())));
    values.insert("bind_address", Value::text(config.addr.ip().to_string()));
    values.insert("max_connections", Value::UInt(u64::from(config.max_connections)));
    values.insert("require_secure_transport", Value::Bool(config.tls.require));
    if let Some(directory) = &config.secure_file_priv {
        values.insert("secure_file_priv", Value::text(directory.as_str()));
    }
    if let Ok(hostname) = std::fs::read_to_string("/etc/hostname") {
        values.insert("hostname", Value::text(hostname.trim()));
    }
    values
}

/// Microseconds since 1970, UTC.
pub fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
