//! What one connection holds — variables, transaction, prepared statements — and the life of a statement.
//!
//! The connection hands over parsed statements one by one ([`Session::execute`]). The answer is either OK or rows; rows are
//! computed while they are sent, so the statement ends, and an autocommit one commits, in [`Session::finish_rows`].

mod access;
mod accounts;
mod analyze;
mod as_of;
mod execution;
pub(crate) mod gc;
pub mod glue;
pub mod instance;
pub mod point_read;
mod prepare;
pub mod prepared;
pub mod privilege;
mod run;
mod set;
pub mod state;
pub mod text_plan;
pub mod transaction;
pub mod variable_table;
pub mod variables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use mysql_common::constants::StatusFlags;
use parking_lot::{Mutex, RwLock};
use rutile_expr::context::{ConnectionInfo, Level, UserVars, Warnings};
use rutile_expr::types::{Collation, Datum};
use rutile_expr::{EvalContext, OnBadValue, SqlMode};
use tokio_util::sync::CancellationToken;

use crate::catalog::model::InfoSchema;
use crate::context::{Effects, LocalFiles, Rows, Settings, StatementContext, StatementTxn};
use crate::parser::ast::Statement;
use crate::plan::SchemaRef;
use crate::{Error, Result};
use instance::{Connection, Counters, Instance, VERSION, now_micros};
use prepared::PreparedStatements;
use privilege::Account;
use state::SessionState;
use transaction::OpenTransaction;
use variables::{Derived, SessionVariables, Value};

/// What a statement changed in the session that the client wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateChange {
    /// A system variable has a new value.
    Variable {
        /// Its name.
        name: &'static str,
        /// Its value as SHOW VARIABLES prints it.
        value: String,
    },
    /// The current database.
    Schema(String),
}

/// The numbers of an OK answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OkInfo {
    /// Rows inserted, changed, deleted.
    pub affected_rows: u64,
    /// Of the AUTO_INCREMENT column.
    pub insert_id: u64,
    /// In transaction, autocommit …
    pub status: StatusFlags,
    /// How many warnings the statement raised.
    pub warnings: u16,
    /// `Records: 3  Duplicates: 0  Warnings: 0`
    pub info: String,
    /// What the statement changed in the session.
    pub state_changes: Vec<StateChange>,
}

/// What a statement answers.
pub enum QueryResult {
    /// It is done.
    Ok(OkInfo),
    /// Rows, still to be computed; then [`Session::finish_rows`].
    Rows(ResultSet),
}

/// A result set on its way to the client.
pub struct ResultSet {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub rows: Rows,
    /// The execution they come from.
    pub context: Arc<StatementContext>,
}

/// How a statement came in.
#[derive(Default)]
pub struct Request {
    /// Its text.
    pub text: Bytes,
    /// Values of its `?`.
    pub params: Vec<Datum>,
    /// The prepared statement it is.
    pub prepared: Option<u32>,
    /// What was known of its text, so that it was not parsed.
    pub planned: Option<Arc<text_plan::TextPlan>>,
    /// How LOAD DATA LOCAL asks the client for a file.
    pub local_files: Option<LocalFiles>,
}

/// What one connection holds.
pub struct Session {
    /// What a running statement may look at.
    pub state: Arc<SessionState>,
    instance: Arc<Instance>,
    connection: Arc<Connection>,
    database: Option<String>,
    info: Arc<ConnectionInfo>,
    user_vars: Arc<UserVars>,
    warnings: Arc<Warnings>,
    open: Option<OpenTransaction>,
    /// SET TRANSACTION without a scope: isolation and READ ONLY of the next transaction only.
    next_transaction: (Option<crate::context::Isolation>, Option<bool>),
    /// The prepared statements.
    pub prepared: PreparedStatements,
    found_rows: u64,
    row_count: i64,
    /// The client counts found rows (CLIENT_FOUND_ROWS).
    count_found: bool,
    user: String,
    state_changes: Vec<StateChange>,
    limit: Option<execution::TimeLimit>,
    /// The client asked for the connection's end: COMMIT RELEASE, KILL of itself.
    pub released: bool,
}

/// Who logs in, and how.
pub struct Login {
    /// The name the client gave.
    pub user: String,
    /// The account that was matched.
    pub account: Account,
    /// The client's collation, by id.
    pub collation_id: u16,
    /// CLIENT_FOUND_ROWS
    pub count_found: bool,
    /// CLIENT_INTERACTIVE
    pub interactive: bool,
    /// TLS version and cipher.
    pub tls: Option<(String, String)>,
}

impl Session {
    /// The session of somebody who has logged in.
    pub fn new(instance: Arc<Instance>, connection: Arc<Connection>, login: Login) -> Session {
        let mut variables = SessionVariables::new(instance.globals());
        let collation = Collation::from_id(login.collation_id).unwrap_or(Collation::DEFAULT);
        set::set_names(&mut variables, collation);
        if login.interactive {
            let timeout = variables.get_known("interactive_timeout");
            variables.set([("wait_timeout", timeout)]);
        }
        connection.set_user(&login.account.user);
        let state = Arc::new(SessionState {
            instance: Arc::clone(&instance),
            connection: Arc::clone(&connection),
            variables: RwLock::new(variables),
            last_insert_id: Arc::new(AtomicU64::new(0)),
            account: RwLock::new(login.account),
            tls: login.tls,
            plan_from_cache: AtomicBool::new(false),
            last_plan_from_cache: AtomicBool::new(false),
            previous_remarks: Mutex::new(Vec::new()),
        });
        let mut session = Session {
            state,
            instance,
            connection,
            database: None,
            info: Arc::default(),
            user_vars: Arc::default(),
            warnings: Arc::default(),
            open: None,
            next_transaction: (None, None),
            prepared: PreparedStatements::default(),
            found_rows: 0,
            row_count: -1,
            count_found: login.count_found,
            user: login.user,
            state_changes: Vec::new(),
            limit: None,
            released: false,
        };
        session.describe_connection();
        session
    }

    /// What statements read of the variables.
    pub fn settings(&self) -> Arc<Derived> {
        Arc::clone(&self.state.variables.read().derived)
    }

    /// The server around the session.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Its entry in the register.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The current database.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    fn describe_connection(&mut self) {
        let account = self.state.account.read();
        let host =
            self.connection.host.rsplit_once(':').map_or(self.connection.host.as_str(), |(host, _)| host);
        self.info = Arc::new(ConnectionInfo {
            connection_id: self.connection.id,
            user: format!("{}@{host}", self.user),
            current_user: format!("{}@{}", account.user, account.host),
            database: self.database.clone(),
            version: VERSION.to_owned(),
            current_role: Some("NONE".to_owned()),
        });
    }

    /// The status flags of every answer.
    pub fn status(&self) -> StatusFlags {
        let settings = self.settings();
        let mut status = StatusFlags::empty();
        status.set(StatusFlags::SERVER_STATUS_AUTOCOMMIT, settings.autocommit);
        let open = self.open.as_ref().filter(|open| open.is_visible());
        status.set(StatusFlags::SERVER_STATUS_IN_TRANS, open.is_some());
        status.set(
            StatusFlags::SERVER_STATUS_IN_TRANS_READONLY,
            open.is_some_and(OpenTransaction::is_read_only),
        );
        let no_escapes = settings.sql_mode.contains(SqlMode::NO_BACKSLASH_ESCAPES);
        status.set(StatusFlags::SERVER_STATUS_NO_BACKSLASH_ESCAPES, no_escapes);
        status
    }

    /// An OK answer of a statement that counts nothing.
    fn ok(&mut self) -> OkInfo {
        OkInfo {
            status: self.status(),
            warnings: self.warning_count(),
            state_changes: std::mem::take(&mut self.state_changes),
            ..OkInfo::default()
        }
    }

    /// An OK answer for a command that is no statement.
    pub fn command_ok(&mut self) -> OkInfo {
        OkInfo { warnings: 0, ..self.ok() }
    }

    fn warning_count(&self) -> u16 {
        u16::try_from(self.warnings.count()).unwrap_or(u16::MAX)
    }

    /// Runs a statement.
    pub async fn execute(&mut self, statement: Arc<Statement>, request: Request) -> Result<QueryResult> {
        let command = if request.prepared.is_some() { "Execute" } else { "Query" };
        let cancel = self.connection.begin(command, Some(request.text.clone()));
        Counters::count(&self.instance.counters.questions);
        self.state.begin_statement();
        if is_diagnostic(&statement) {
            // It reads what its predecessor remarked, and leaves that as it is.
            *self.state.previous_remarks.lock() = self.warnings.list();
        } else {
            self.clear_warnings();
        }
        match self.dispatch(statement, request, cancel).await {
            Ok(QueryResult::Ok(ok)) => {
                self.row_count = ok.affected_rows as i64;
                self.end_statement();
                Ok(QueryResult::Ok(ok))
            }
            Ok(rows) => Ok(rows),
            Err(error) => {
                self.row_count = -1;
                let error = self.timed(error);
                self.fail(&error);
                Err(error)
            }
        }
    }

    /// Whether what `error` misses may have been made through another server a moment ago: a newer schema was there, and is now
    /// known. Whoever creates a table through one server can then use it through any other at once.
    pub(super) async fn may_be_known_elsewhere(&self, error: &Error) -> bool {
        let missing = matches!(
            error,
            Error::BadDb { .. }
                | Error::NoSuchTable { .. }
                | Error::BadField { .. }
                | Error::UnknownTable { .. }
        );
        missing && self.instance.catalog.learn().await.unwrap_or(false)
    }

    /// An interruption by `max_execution_time` has an error of its own.
    fn timed(&self, error: Error) -> Error {
        let exceeded = self.limit.as_ref().is_some_and(execution::TimeLimit::is_exceeded);
        if exceeded && error == Error::QueryInterrupted { Error::QueryTimeout } else { error }
    }

    /// A statement could not even be parsed.
    pub fn refuse(&mut self, error: &Error) {
        Counters::count(&self.instance.counters.questions);
        self.clear_warnings();
        self.row_count = -1;
        self.fail(error);
    }

    fn fail(&mut self, error: &Error) {
        Counters::count(&self.instance.counters.errors);
        self.warnings.push(Level::Error, error.code(), error.to_string());
        self.state_changes.clear();
        self.end_statement();
    }

    fn end_statement(&mut self) {
        self.limit = None;
        self.connection.end();
    }

    fn clear_warnings(&mut self) {
        let mut previous = self.state.previous_remarks.lock();
        if !previous.is_empty() || self.warnings.count() > 0 {
            *previous = self.warnings.list();
        }
        drop(previous);
        match Arc::strong_count(&self.warnings) {
            1 => self.warnings.clear(),
            _ => self.warnings = Arc::new(Warnings::new(self.settings().max_error_count)),
        }
    }

    /// The rows were sent, or `result` says why not: commits an autocommit statement.
    pub async fn finish_rows(
        &mut self,
        context: Arc<StatementContext>,
        rows: u64,
        result: Result<()>,
    ) -> Result<OkInfo> {
        let result = match result {
            Ok(()) => self.end_execution(&context).await,
            Err(error) => {
                self.abandon_execution(&context, &error).await;
                Err(error)
            }
        };
        self.instance.counters.rows_sent.fetch_add(rows, Ordering::Relaxed);
        self.found_rows = context.effects.found_rows().unwrap_or(rows);
        self.row_count = -1;
        match result {
            Ok(()) => {
                let ok = self.ok();
                self.end_statement();
                Ok(ok)
            }
            Err(error) => {
                let error = self.timed(error);
                self.fail(&error);
                Err(error)
            }
        }
    }

    /// What one execution of a statement knows.
    fn context(
        &self,
        txn: StatementTxn,
        request: &Request,
        strict: bool,
        cancel: CancellationToken,
    ) -> StatementContext {
        let settings = self.settings();
        let strict = strict && settings.sql_mode.is_strict();
        let eval = EvalContext {
            sql_mode: settings.sql_mode,
            time_zone: settings.time_zone.clone(),
            now_micros: settings.timestamp_micros.unwrap_or_else(now_micros),
            params: request.params.clone(),
            on_bad_value: if strict { OnBadValue::Fail } else { OnBadValue::Warn },
            warnings: Arc::clone(&self.warnings),
            user_vars: Arc::clone(&self.user_vars),
            connection: Arc::clone(&self.info),
            connection_collation: settings.connection_collation,
            last_insert_id: Arc::clone(&self.state.last_insert_id),
            found_rows: self.found_rows,
            row_count: self.row_count,
            div_precision_increment: settings.div_precision_increment,
            group_concat_max_len: settings.group_concat_max_len,
            max_allowed_packet: settings.max_allowed_packet,
            default_week_format: settings.default_week_format,
            killed: Arc::clone(&self.connection.killed),
            sequence: AtomicU64::new(0),
        };
        StatementContext {
            connection_id: self.connection.id,
            client: self.instance.client.clone(),
            schema: self.schema(),
            database: self.database.clone(),
            eval: Arc::new(eval),
            txn,
            environment: Arc::clone(&self.state) as _,
            settings: self.executor_settings(&settings),
            effects: Effects::default(),
            cancel,
            local_files: request.local_files.clone(),
            statistics: Arc::clone(&self.instance.statistics),
        }
    }

    /// The schema of the next statement.
    fn schema(&self) -> Arc<InfoSchema> {
        let current = self.instance.catalog.snapshot();
        match &self.open {
            Some(open) => open.schema(current),
            None => current,
        }
    }

    fn executor_settings(&self, settings: &Derived) -> Settings {
        Settings {
            lock_wait_timeout_ms: settings.lock_wait_timeout_ms,
            select_limit_rows: settings.select_limit_rows,
            safe_updates: settings.safe_updates,
            auto_increment: settings.auto_increment,
            foreign_key_checks: settings.foreign_key_checks,
            unique_checks: settings.unique_checks,
            coprocessor: settings.coprocessor,
            scan_concurrency: settings.scan_concurrency,
            memory_quota_bytes: self.instance.config.memory_quota_query_bytes,
            found_rows: self.count_found,
            secure_file_priv: self.instance.config.secure_file_priv.clone(),
            local_infile: true,
        }
    }

    /// The database that the client named when it logged in, if any.
    pub async fn enter(&mut self, database: Option<String>) -> Result<()> {
        match database {
            Some(name) => self.use_database(&name).await,
            None => Ok(()),
        }
    }

    /// USE and COM_INIT_DB.
    pub async fn use_database(&mut self, name: &str) -> Result<()> {
        let mut schema = self.instance.catalog.snapshot();
        let missing = Error::BadDb { db: name.to_owned() };
        if schema.database(name).is_none() && self.may_be_known_elsewhere(&missing).await {
            schema = self.instance.catalog.snapshot();
        }
        let Some(entry) = schema.database(name) else {
            return Err(missing);
        };
        let account = self.state.account.read().clone();
        if !account.may_use(name) {
            return Err(Error::DbAccessDenied {
                user: account.user,
                host: account.host,
                db: name.to_owned(),
            });
        }
        let collation = entry.info.collation;
        self.database = Some(entry.info.name.clone());
        self.connection.set_database(Some(&entry.info.name));
        self.state.variables.write().set([
            ("character_set_database", Value::text(collation.charset().name())),
            ("collation_database", Value::text(collation.name())),
        ]);
        self.describe_connection();
        if self.settings().track_schema {
            self.state_changes.push(StateChange::Schema(name.to_owned()));
        }
        Ok(())
    }

    /// COM_RESET_CONNECTION: as after log-in, with the same user and no current transaction.
    pub async fn reset(&mut self) -> Result<()> {
        self.rollback_open().await?;
        let closed = self.prepared.clear() as u64;
        self.instance.counters.prepared.fetch_sub(closed, Ordering::Relaxed);
        *self.state.variables.write() = SessionVariables::new(self.instance.globals());
        self.user_vars = Arc::default();
        self.state.last_insert_id.store(0, Ordering::Relaxed);
        self.next_transaction = (None, None);
        self.clear_warnings();
        (self.found_rows, self.row_count) = (0, -1);
        Ok(())
    }

    /// COM_CHANGE_USER, once the new user is authenticated.
    pub async fn change_user(&mut self, login: Login) -> Result<()> {
        self.reset().await?;
        self.user = login.user;
        self.connection.set_user(&login.account.user);
        *self.state.account.write() = login.account;
        let collation = Collation::from_id(login.collation_id).unwrap_or(Collation::DEFAULT);
        set::set_names(&mut self.state.variables.write(), collation);
        self.database = None;
        self.connection.set_database(None);
        self.describe_connection();
        Ok(())
    }

    /// The connection ends: gives up what is open.
    pub async fn close(mut self) {
        if let Err(error) = self.rollback_open().await {
            tracing::debug!(connection = self.connection.id, %error, "rollback at the connection's end");
        }
        let closed = self.prepared.clear() as u64;
        self.instance.counters.prepared.fetch_sub(closed, Ordering::Relaxed);
        self.instance.disconnect(self.connection.id);
    }

    async fn rollback_open(&mut self) -> Result<()> {
        match self.open.take() {
            Some(open) => open.rollback().await,
            None => Ok(()),
        }
    }
}

/// Whether a statement reads the warnings of the one before it, and so keeps them.
fn is_diagnostic(statement: &Statement) -> bool {
    use crate::parser::ast::ShowWhat;
    match statement {
        Statement::Show(show) => matches!(show.what, ShowWhat::Warnings { .. } | ShowWhat::Errors { .. }),
        _ => false,
    }
}
