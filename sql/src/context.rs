//! What one execution of a statement knows: the session made it, the binder and the executor read it.
//!
//! A context lives for one execution. It is shared (`Arc`) with every operator of the plan, so everything that an operator
//! changes sits behind an atomic or a lock: counters in [`Effects`], warnings in the [`EvalContext`], writes in the
//! transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use rutile_client::{Client, ReadFrom, ReadView, Timestamp, Transaction, TxnMode, TxnOptions};
use rutile_expr::EvalContext;
use rutile_expr::context::Warning;
use rutile_expr::types::{Datum, FieldType};
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::catalog::model::{InfoSchema, TableId};
use crate::plan::SchemaRef;
use crate::statistics::{Change, Statistics};
use crate::{Error, Result};

/// What one execution of a statement knows.
pub struct StatementContext {
    /// `CONNECTION_ID()`
    pub connection_id: u64,
    /// The cluster.
    pub client: Client,
    /// Every name of the statement is resolved in this snapshot.
    pub schema: Arc<InfoSchema>,
    /// The current database in the spelling of USE, if one is selected.
    pub database: Option<String>,
    /// For expressions: sql_mode, time zone, clock, parameters, user variables, warnings.
    pub eval: Arc<EvalContext>,
    /// The transaction the statement runs in, and what it reads through.
    pub txn: StatementTxn,
    /// What is known of the tables' values.
    pub statistics: Arc<Statistics>,
    /// Variables, processes, accounts: what the server around the session knows.
    pub environment: Arc<dyn Environment>,
    /// What session variables ask of the executor.
    pub settings: Settings,
    /// What the OK packet will say.
    pub effects: Effects,
    /// Set by KILL, a time-out or a client that went away: stop with [`Error::QueryInterrupted`].
    pub cancel: CancellationToken,
    /// How LOAD DATA LOCAL asks the client for a file.
    pub local_files: Option<LocalFiles>,
}

/// What session variables ask of the executor.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `innodb_lock_wait_timeout`
    pub lock_wait_timeout_ms: u64,
    /// `sql_select_limit`; `u64::MAX` is none.
    pub select_limit_rows: u64,
    /// `sql_safe_updates`
    pub safe_updates: bool,
    /// `auto_increment_increment` and `auto_increment_offset`
    pub auto_increment: (u64, u64),
    /// `foreign_key_checks`
    pub foreign_key_checks: bool,
    /// `unique_checks`
    pub unique_checks: bool,
    /// `rutile_coprocessor`
    pub coprocessor: bool,
    /// `rutile_scan_concurrency`
    pub scan_concurrency: usize,
    /// Memory one statement may take.
    pub memory_quota_bytes: usize,
    /// The client counts rows found by UPDATE, not rows changed.
    pub found_rows: bool,
    /// `secure_file_priv`: where LOAD DATA INFILE may read; `None` is nowhere, empty is anywhere.
    pub secure_file_priv: Option<String>,
    /// `local_infile`
    pub local_infile: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            lock_wait_timeout_ms: 50_000,
            select_limit_rows: u64::MAX,
            safe_updates: false,
            auto_increment: (1, 1),
            foreign_key_checks: true,
            unique_checks: true,
            coprocessor: true,
            scan_concurrency: 8,
            memory_quota_bytes: 1 << 30,
            found_rows: false,
            secure_file_priv: None,
            local_infile: true,
        }
    }
}

/// What a statement did, for its OK packet and for `ROW_COUNT()`, `LAST_INSERT_ID()`, `FOUND_ROWS()`.
#[derive(Debug, Default)]
pub struct Effects {
    affected_rows: AtomicU64,
    found_rows: AtomicI64,
    /// The first generated AUTO_INCREMENT value: `LAST_INSERT_ID()` from now on. 0 is none.
    generated_id: AtomicU64,
    /// The last value stored in an AUTO_INCREMENT column, given or generated: the OK packet's, if nothing was generated.
    stored_id: AtomicU64,
    info: Mutex<String>,
    changes: Mutex<Vec<Change>>,
}

impl Effects {
    /// Counts rows that were inserted, changed or deleted, as MySQL counts them.
    pub fn add_affected(&self, rows: u64) {
        self.affected_rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Rows counted so far.
    pub fn affected_rows(&self) -> u64 {
        self.affected_rows.load(Ordering::Relaxed)
    }

    /// `SQL_CALC_FOUND_ROWS` counted so many rows.
    pub fn set_found_rows(&self, rows: u64) {
        self.found_rows.store(rows as i64 + 1, Ordering::Relaxed);
    }

    /// What [`Effects::set_found_rows`] said, if anything.
    pub fn found_rows(&self) -> Option<u64> {
        (self.found_rows.load(Ordering::Relaxed) as u64).checked_sub(1)
    }

    /// An AUTO_INCREMENT value was generated; only the first of a statement counts.
    pub fn set_generated_id(&self, id: u64) {
        let _ = self.generated_id.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The first generated value; 0 is none.
    pub fn generated_id(&self) -> u64 {
        self.generated_id.load(Ordering::Relaxed)
    }

    /// A value was given for the AUTO_INCREMENT column; the last one counts.
    pub fn set_stored_id(&self, id: u64) {
        self.stored_id.store(id, Ordering::Relaxed);
    }

    /// What the OK packet carries as its insert id.
    pub fn insert_id(&self) -> u64 {
        match self.generated_id() {
            0 => self.stored_id.load(Ordering::Relaxed),
            id => id,
        }
    }

    /// The text of the OK packet: `Records: 3  Duplicates: 0  Warnings: 0`.
    pub fn set_info(&self, info: String) {
        *self.info.lock() = info;
    }

    /// The text of the OK packet.
    pub fn info(&self) -> String {
        self.info.lock().clone()
    }

    /// A row of a table was inserted (1), deleted (-1) or changed (0).
    pub fn changed_row(&self, table: TableId, rows: i64) {
        let mut changes = self.changes.lock();
        match changes.iter_mut().find(|change| change.table == table) {
            Some(change) => {
                change.rows += rows;
                change.modified += 1;
            }
            None => changes.push(Change { table, rows, modified: 1 }),
        }
    }

    /// What was done to tables, once.
    pub fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock())
    }

    /// Forgets everything: the statement is run again after a conflict.
    pub fn reset(&self) {
        self.affected_rows.store(0, Ordering::Relaxed);
        self.found_rows.store(0, Ordering::Relaxed);
        self.generated_id.store(0, Ordering::Relaxed);
        self.stored_id.store(0, Ordering::Relaxed);
        self.info.lock().clear();
        self.changes.lock().clear();
    }
}

/// Transaction isolation levels that exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement reads what is committed when it starts.
    ReadCommitted,
    /// All statements read one snapshot: snapshot isolation.
    RepeatableRead,
}

/// The transaction one statement runs in. Timestamps and transactions are taken when first asked for, never before: a
/// SELECT of constants costs nothing, a point read outside a transaction no timestamp.
pub struct StatementTxn {
    client: Client,
    /// The open transaction of a session inside BEGIN or with autocommit off; for a lone statement, its own.
    txn: Arc<OnceCell<Transaction>>,
    options: TxnOptions,
    isolation: Isolation,
    /// Whether the transaction outlives the statement.
    explicit: bool,
    read_only: bool,
    /// How old the data may be that a lone SELECT reads, in seconds.
    staleness_s: u64,
    view: OnceCell<ReadView>,
    current_view: OnceCell<ReadView>,
}

impl StatementTxn {
    /// A lone statement's: its transaction is begun on the first write and committed by the session when it ends.
    pub fn autocommit(client: Client, mode: TxnMode, read_only: bool) -> StatementTxn {
        StatementTxn {
            client,
            txn: Arc::default(),
            options: TxnOptions { mode, autocommit: true, ..TxnOptions::default() },
            isolation: Isolation::RepeatableRead,
            explicit: false,
            read_only,
            staleness_s: 0,
            view: OnceCell::new(),
            current_view: OnceCell::new(),
        }
    }

    /// A statement's within the session's open transaction.
    pub fn within(
        client: Client,
        txn: Arc<OnceCell<Transaction>>,
        options: TxnOptions,
        isolation: Isolation,
        read_only: bool,
    ) -> StatementTxn {
        StatementTxn {
            client,
            txn,
            options,
            isolation,
            explicit: true,
            read_only,
            staleness_s: 0,
            view: OnceCell::new(),
            current_view: OnceCell::new(),
        }
    }

    /// The same for a lone statement, with reads of these peers, and of data that may be so old.
    #[must_use]
    pub fn read_from(mut self, from: ReadFrom, staleness_s: u64) -> StatementTxn {
        self.options.read_from = from;
        self.staleness_s = staleness_s;
        self
    }

    /// Whether the transaction outlives the statement (BEGIN, or autocommit off).
    pub fn is_explicit(&self) -> bool {
        self.explicit
    }

    /// Whether writes lock the keys first.
    pub fn is_pessimistic(&self) -> bool {
        self.options.mode == TxnMode::Pessimistic
    }

    /// The transaction, begun if it is not yet. Writes and locks go through it; refused when it is READ ONLY.
    pub async fn transaction(&self) -> Result<&Transaction> {
        if self.read_only {
            return Err(Error::ReadOnlyTransaction);
        }
        self.begun().await
    }

    async fn begun(&self) -> Result<&Transaction> {
        self.txn.get_or_try_init(|| async { Ok(self.client.begin(self.options.clone()).await?) }).await
    }

    /// The transaction if it has begun.
    pub fn begun_transaction(&self) -> Option<&Transaction> {
        self.txn.get()
    }

    /// What a plain SELECT reads: one consistent view for the whole statement, own writes over it.
    pub async fn read_view(&self) -> Result<ReadView> {
        let view = self.view.get_or_try_init(|| async {
            if !self.explicit && self.txn.get().is_none() {
                let now = self.client.timestamp().await?;
                if self.staleness_s > 0 {
                    let past = now.physical_ms().saturating_sub(self.staleness_s * 1000);
                    let past = self.client.snapshot(Timestamp::compose(past, 0));
                    return Ok(past.read_from(ReadFrom::Stale).into());
                }
                return Ok::<_, Error>(self.client.snapshot(now).read_from(self.options.read_from).into());
            }
            let txn = self.begun().await?;
            let ts = match self.isolation {
                Isolation::RepeatableRead => txn.start_ts().await?,
                Isolation::ReadCommitted => self.client.timestamp().await?,
            };
            Ok(txn.view(ts))
        });
        Ok(view.await?.clone())
    }

    /// What a read of one single key may use instead of [`StatementTxn::read_view`] when the statement is nothing but
    /// that read: the newest committed version, without asking for a timestamp. `None` inside a transaction.
    pub fn newest_view(&self) -> Option<ReadView> {
        let lone = !self.explicit && self.txn.get().is_none() && self.staleness_s == 0;
        lone.then(|| self.client.snapshot(Timestamp::MAX).read_from(self.options.read_from).into())
    }

    /// What UPDATE, DELETE and SELECT … FOR UPDATE read: the newest committed data in a pessimistic transaction (a
    /// fresh for_update_ts, taken once per statement), the transaction's snapshot in an optimistic one; own writes over it.
    pub async fn current_view(&self) -> Result<ReadView> {
        let view = self.current_view.get_or_try_init(|| async {
            let txn = self.begun().await?;
            let ts = match self.is_pessimistic() {
                true => txn.refresh_for_update_ts().await?,
                false => txn.start_ts().await?,
            };
            Ok::<_, Error>(txn.view(ts).read_from(ReadFrom::Leader))
        });
        Ok(view.await?.clone())
    }
}

/// A scope of system variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VariableScope {
    /// `@@global.x`
    Global,
    /// `@@session.x`, `@@local.x`
    Session,
}

/// One line of SHOW PROCESSLIST.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Connection id.
    pub id: u64,
    /// Account name.
    pub user: String,
    /// `host:port` of the client.
    pub host: String,
    /// Current database.
    pub database: Option<String>,
    /// `Sleep`, `Query`, `Execute` …
    pub command: &'static str,
    /// Seconds in this state.
    pub seconds: u64,
    /// What the thread is doing.
    pub state: &'static str,
    /// The running statement.
    pub info: Option<String>,
}

/// An account in the words of SHOW.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountWords {
    /// `GRANT …` lines.
    pub grants: Vec<String>,
    /// The statement that creates it.
    pub create: String,
}

/// What the server around a statement knows, for `@@x`, SHOW and information_schema.
pub trait Environment: Send + Sync {
    /// The value of `@@[scope.]name` and its type. Without a scope: the session's value if it has one, else the global.
    fn variable(&self, scope: Option<VariableScope>, name: &str) -> Result<(Datum, FieldType)>;
    /// All variables of a scope, by name, as SHOW VARIABLES prints them.
    fn variables(&self, scope: VariableScope) -> Vec<(String, String)>;
    /// All status counters, by name, as SHOW STATUS prints them.
    fn status(&self, scope: VariableScope) -> Vec<(String, String)>;
    /// The connections.
    fn processes(&self) -> Vec<Process>;
    /// What the statement before this one remarked.
    fn remarks(&self) -> Vec<Warning>;
    /// `GRANT …` lines of the session's account.
    fn current_grants(&self) -> Vec<String>;
    /// What is kept of an account that is there: the session's own, or any for those who may change accounts.
    fn account<'a>(&'a self, user: &'a str, host: &'a str) -> BoxFuture<'a, Result<Option<AccountWords>>>;
    /// `CURRENT_USER()` as user and host.
    fn current_user(&self) -> (String, String);
}

/// How LOAD DATA LOCAL asks the client for a file.
#[derive(Clone)]
pub struct LocalFiles {
    requests: mpsc::Sender<LocalFileRequest>,
}

/// The connection's side of [`LocalFiles::open`].
pub struct LocalFileRequest {
    /// The file the client is asked for.
    pub path: String,
    /// Where its contents go, piece by piece; answered once the client has been asked.
    pub reply: oneshot::Sender<mpsc::Receiver<Bytes>>,
}

impl LocalFiles {
    /// A pair: the statement's side and the connection's.
    pub fn channel() -> (LocalFiles, mpsc::Receiver<LocalFileRequest>) {
        let (requests, receiver) = mpsc::channel(1);
        (LocalFiles { requests }, receiver)
    }

    /// Asks the client for a file; its contents come in pieces until the channel closes. Dropping the receiver early
    /// discards the rest.
    pub async fn open(&self, path: &str) -> Result<mpsc::Receiver<Bytes>> {
        let (reply, answer) = oneshot::channel();
        let request = LocalFileRequest { path: path.to_owned(), reply };
        self.requests.send(request).await.map_err(|_| Error::LocalInfileDisabled)?;
        answer.await.map_err(|_| Error::LocalInfileDisabled)
    }
}

/// The rows of a result set.
pub enum Rows {
    /// They are all here.
    Batches(Vec<RecordBatch>),
    /// They come as they are computed.
    Stream(BoxStream<'static, Result<RecordBatch>>),
}

/// What a statement answers.
pub enum Output {
    /// OK; the numbers are in [`StatementContext::effects`].
    Done,
    /// A result set.
    Rows {
        /// Its columns.
        schema: SchemaRef,
        /// Its rows.
        rows: Rows,
    },
}

impl StatementContext {
    /// The database that an unqualified name means.
    pub fn current_database(&self) -> Result<&str> {
        self.database.as_deref().ok_or(Error::NoDatabase)
    }

    /// Fails once the statement is to stop.
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::QueryInterrupted) } else { Ok(()) }
    }
}
