//! Statements that have a plan: planned, run, tried again after a lost conflict, and brought to their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use rutile_client::{Savepoint, TxnMode};
use rutile_expr::types::FieldType;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::instance::Counters;
use super::prepared::CachedPlan;
use super::transaction::OpenTransaction;
use super::{OkInfo, QueryResult, Request, ResultSet, Session};
use crate::binder::BindContext;
use crate::context::{Output, Rows, StatementContext, StatementTxn};
use crate::parser::ast::{IntoClause, LoadConflict, Query, SetExpr, Statement};
use crate::plan::{Plan, SchemaRef};
use crate::{Error, Result};

/// How often a statement is tried again after it lost against another transaction.
const TRIES_MAX: u32 = 30;
/// From this try on, a lone statement locks what it writes, so that it cannot lose any more.
const TRIES_OPTIMISTIC: u32 = 3;

impl Session {
    /// Runs a statement that has a plan, up to its answer.
    pub(super) async fn run(
        &mut self,
        statement: Arc<Statement>,
        request: Request,
        cancel: CancellationToken,
    ) -> Result<QueryResult> {
        self.count_statement(&statement);
        if uses_tables(&statement) {
            self.open_implicitly();
        }
        if let Some(open) = &mut self.open {
            open.pin(&self.instance.catalog);
        }
        self.limit = self.time_limit(&statement, &cancel);
        let writes = writes(&statement);
        let strict = is_strict_when_asked(&statement);
        let lone_read_only = self.lone_read_only();
        let begun = Instant::now();
        let mut tries = 0;
        let mut learned = false;
        loop {
            tries += 1;
            // Whoever changes the schema sees that this statement may use it so.
            let current = self.instance.catalog.snapshot();
            let txn = self.statement_txn(tries, lone_read_only);
            let ctx = Arc::new(self.context(txn, &request, strict, cancel.clone()));
            let savepoint = match &self.open {
                Some(open) if writes => Some(open.statement_savepoint(&self.instance.client).await?),
                _ => None,
            };
            let error = match self.plan_and_run(&statement, &request, &ctx).await {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            Box::pin(self.undo(&ctx, savepoint, &error)).await;
            if error == Error::TableChanging && !cancel.is_cancelled() {
                let version = current.version();
                drop((ctx, current));
                self.await_schema(version, begun).await?;
                tries -= 1;
                continue;
            }
            if !learned && self.may_be_known_elsewhere(&error).await {
                learned = true;
                self.warnings.clear();
                continue;
            }
            if !self.may_retry(&error, tries) || cancel.is_cancelled() {
                return Err(error);
            }
            Counters::count(&self.instance.counters.retries);
            self.warnings.clear();
            tokio::time::sleep(pause(tries)).await;
        }
    }

    /// Waits for the next version of the schema, as long as for a lock.
    async fn await_schema(&self, version: i64, begun: Instant) -> Result<()> {
        let limit = Duration::from_millis(self.settings().lock_wait_timeout_ms);
        while self.instance.catalog.snapshot().version() == version {
            if begun.elapsed() > limit {
                return Err(Error::TableChanging);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    fn count_statement(&self, statement: &Statement) {
        let counters = &self.instance.counters;
        match statement {
            Statement::Query(_) => Counters::count(&counters.com_select),
            Statement::Insert(_) | Statement::LoadData(_) => Counters::count(&counters.com_insert),
            Statement::Update(_) => Counters::count(&counters.com_update),
            Statement::Delete(_) => Counters::count(&counters.com_delete),
            _ => {}
        }
    }

    /// Whether a lone statement runs as a READ ONLY transaction; takes what SET TRANSACTION said of the next one.
    fn lone_read_only(&mut self) -> bool {
        if self.open.is_some() {
            return false;
        }
        let (_, read_only) = std::mem::take(&mut self.next_transaction);
        read_only.unwrap_or_else(|| self.settings().read_only)
    }

    fn statement_txn(&self, tries: u32, lone_read_only: bool) -> StatementTxn {
        let client = &self.instance.client;
        match &self.open {
            Some(open) => open.statement(client),
            None => {
                let mode = if tries > TRIES_OPTIMISTIC { TxnMode::Pessimistic } else { TxnMode::Optimistic };
                let txn = StatementTxn::autocommit(client.clone(), mode, lone_read_only);
                let settings = self.settings();
                // Data of before the schema's last change are not what it says.
                let known_s = self.instance.catalog.unchanged_for().as_secs();
                let fits = known_s > settings.read_staleness_s;
                txn.read_from(settings.read_from, if fits { settings.read_staleness_s } else { 0 })
            }
        }
    }

    async fn plan_and_run(
        &mut self,
        statement: &Arc<Statement>,
        request: &Request,
        ctx: &Arc<StatementContext>,
    ) -> Result<QueryResult> {
        if let Statement::LoadData(load) = &**statement {
            self.check_statement(statement)?;
            let table = crate::executor::load_data::table_of(load, ctx)?;
            if let Some(open) = &self.open {
                open.touch(std::slice::from_ref(&table));
            }
            let names = BindContext { statement: ctx, param_types: &[] };
            let defaults = crate::binder::bind_defaults("", &table, names)?;
            Box::pin(crate::executor::load_data::execute(load, defaults, ctx)).await?;
            self.end_execution(ctx).await?;
            return Ok(QueryResult::Ok(self.effects_ok(ctx)));
        }
        let plan = self.plan(statement, request, ctx)?;
        if let Some(open) = &self.open {
            open.touch(&plan.tables);
        }
        self.check_plan(&plan)?;
        let output = match may_block(statement, &request.text) {
            true => run_blocking(&plan, ctx)?,
            false => tokio::select! {
                biased;
                output = crate::executor::execute(&plan, ctx) => output?,
                () = ctx.cancel.cancelled() => return Err(Error::QueryInterrupted),
            },
        };
        let (schema, rows) = match output {
            Output::Rows { schema, rows } => (schema, rows),
            Output::Done => {
                self.end_execution(ctx).await?;
                return Ok(QueryResult::Ok(self.effects_ok(ctx)));
            }
        };
        match &**statement {
            Statement::Query(query) if query.into.is_some() => {
                Box::pin(self.select_into(query, &schema, rows, ctx)).await?;
                self.end_execution(ctx).await?;
                Ok(QueryResult::Ok(self.effects_ok(ctx)))
            }
            Statement::Do(_) => {
                collect(rows).await?;
                self.end_execution(ctx).await?;
                Ok(QueryResult::Ok(self.ok()))
            }
            _ => Ok(QueryResult::Rows(ResultSet { schema, rows, context: Arc::clone(ctx) })),
        }
    }

    /// What goes to the client at once, without being computed while it is sent.
    pub(super) fn answer(&mut self, output: Output, ctx: Arc<StatementContext>) -> QueryResult {
        match output {
            Output::Done => QueryResult::Ok(self.effects_ok(&ctx)),
            Output::Rows { schema, rows } => QueryResult::Rows(ResultSet { schema, rows, context: ctx }),
        }
    }

    /// The statement's plan: the prepared one if it still holds, else a new one.
    fn plan(
        &mut self,
        statement: &Statement,
        request: &Request,
        ctx: &StatementContext,
    ) -> Result<Arc<Plan>> {
        if let Some(plan) = self.planned(request, ctx) {
            self.note_cached_plan();
            return Ok(plan);
        }
        let Some(id) = request.prepared else {
            return Ok(Arc::new(super::glue::plan(statement, request.params.len(), ctx)?));
        };
        let in_transaction = self.open.is_some();
        let prepared = self.prepared.get(id, "mysqld_stmt_execute")?;
        if let Some(cached) = &prepared.plan
            && cached.key.holds(ctx, in_transaction)
            && cached.plan.accepts(&ctx.eval.params)
        {
            let plan = Arc::clone(&cached.plan);
            self.note_cached_plan();
            return Ok(plan);
        }
        let plan = Arc::new(super::glue::plan(statement, prepared.params, ctx)?);
        prepared.plan = plan.cacheable.then(|| CachedPlan::new(&plan, ctx, in_transaction));
        Ok(plan)
    }

    /// A statement ran to its end: makes a lone one durable.
    pub(super) async fn end_execution(&mut self, ctx: &StatementContext) -> Result<()> {
        if !ctx.txn.is_explicit()
            && let Some(txn) = ctx.txn.begun_transaction()
        {
            if self.lease_is_over(Some(txn)) {
                return Err(Error::SchemaOutOfDate);
            }
            if let Err(error) = Box::pin(txn.commit()).await {
                self.released |= matches!(error, rutile_client::Error::ResultUndetermined(_));
                let client = &self.instance.client;
                return Err(super::glue::commit_error(error, &ctx.schema, client, &ctx.eval, Some(txn)).await);
            }
        }
        let changes = ctx.effects.take_changes();
        match &mut self.open {
            Some(open) if ctx.txn.is_explicit() => open.note(changes),
            _ => self.instance.statistics.note(&changes),
        }
        if ctx.effects.generated_id() != 0 {
            let id = ctx.effects.generated_id();
            self.state.last_insert_id.store(id, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A statement failed while its rows were sent.
    pub(super) async fn abandon_execution(&mut self, ctx: &StatementContext, error: &Error) {
        Box::pin(self.undo(ctx, None, error)).await;
    }

    /// Undoes what a failed statement did.
    async fn undo(&mut self, ctx: &StatementContext, savepoint: Option<Savepoint>, error: &Error) {
        if ctx.txn.is_explicit() {
            match (&self.open, savepoint) {
                // The victim of a deadlock loses its whole transaction.
                (Some(_), _) if *error == Error::Deadlock => {
                    if let Err(error) = self.rollback_open().await {
                        tracing::debug!(%error, "rollback after a deadlock");
                    }
                }
                (Some(open), Some(savepoint)) => open.undo_statement(savepoint),
                _ => {}
            }
        } else if let Some(txn) = ctx.txn.begun_transaction() {
            // A commit whose result is unknown must not be rolled back.
            if *error != Error::ResultUndetermined
                && let Err(error) = txn.rollback().await
            {
                tracing::debug!(%error, "rollback of a failed statement");
            }
        }
    }

    /// Whether the statement is tried again: it lost against another transaction or a schema change, and nothing that the
    /// client has seen depends on it.
    fn may_retry(&self, error: &Error, tries: u32) -> bool {
        let lost = matches!(error, Error::WriteConflict { .. } | Error::SchemaChanged);
        let alone = self.open.as_ref().is_none_or(OpenTransaction::is_pessimistic);
        lost && alone && tries < TRIES_MAX
    }

    /// The OK answer of a statement that changed rows.
    fn effects_ok(&mut self, ctx: &StatementContext) -> OkInfo {
        self.found_rows = ctx.effects.found_rows().unwrap_or(self.found_rows);
        OkInfo {
            affected_rows: ctx.effects.affected_rows(),
            insert_id: ctx.effects.insert_id(),
            info: ctx.effects.info(),
            ..self.ok()
        }
    }

    /// `max_execution_time`: cancels a SELECT that takes longer.
    fn time_limit(&self, statement: &Statement, cancel: &CancellationToken) -> Option<TimeLimit> {
        let limit_ms = self.settings().max_execution_ms;
        if limit_ms == 0 || !matches!(statement, Statement::Query(_)) {
            return None;
        }
        let connection = Arc::clone(&self.connection);
        let cancel = cancel.clone();
        let exceeded = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&exceeded);
        let task = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(limit_ms)).await;
            flag.store(true, Ordering::Relaxed);
            connection.kill_query();
            cancel.cancel();
        });
        Some(TimeLimit { task, exceeded })
    }

    /// `SELECT … INTO @a, @b`
    async fn select_into(
        &mut self,
        query: &Query,
        schema: &SchemaRef,
        rows: Rows,
        ctx: &StatementContext,
    ) -> Result<()> {
        let Some(IntoClause::Vars(names)) = &query.into else {
            return Err(Error::not_supported("SELECT … INTO OUTFILE"));
        };
        if names.len() != schema.len() {
            return Err(Error::WrongNumberOfColumns);
        }
        let batches = collect(rows).await?;
        let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
        match count {
            0 => {
                let message = "No data - zero rows fetched, selected, or processed";
                ctx.eval.warnings.push(rutile_expr::context::Level::Warning, 1329, message.to_owned());
            }
            1 => {
                let batch = batches.iter().find(|batch| batch.num_rows() == 1).expect("one row is somewhere");
                for ((name, column), array) in names.iter().zip(&schema.columns).zip(batch.columns()) {
                    let datum = rutile_expr::array::datum_at(array, &column.ty, 0);
                    self.user_vars.set(name, datum, FieldType { not_null: false, ..column.ty.clone() });
                }
            }
            _ => {
                let message = "Result consisted of more than one row".to_owned();
                return Err(Error::Mysql { code: 1172, state: "42000", message });
            }
        }
        ctx.effects.add_affected(count as u64);
        Ok(())
    }
}

/// The running time limit of a statement; none once dropped.
pub(super) struct TimeLimit {
    task: JoinHandle<()>,
    exceeded: Arc<AtomicBool>,
}

impl TimeLimit {
    /// Whether the statement took longer.
    pub(super) fn is_exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }
}

impl Drop for TimeLimit {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a statement may hold its thread for long without using it: SLEEP does.
fn may_block(statement: &Statement, text: &[u8]) -> bool {
    const SLEEP: &[u8] = b"sleep";
    matches!(statement, Statement::Query(_) | Statement::Do(_))
        && text.windows(SLEEP.len()).any(|word| word.eq_ignore_ascii_case(SLEEP))
}

/// Runs a plan to its last row on this thread, which the others are told not to wait for.
fn run_blocking(plan: &Plan, ctx: &Arc<StatementContext>) -> Result<Output> {
    let all = async {
        match crate::executor::execute(plan, ctx).await? {
            Output::Done => Ok(Output::Done),
            Output::Rows { schema, rows } => {
                Ok(Output::Rows { schema, rows: Rows::Batches(collect(rows).await?) })
            }
        }
    };
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(all))
}

/// All rows of a result.
async fn collect(rows: Rows) -> Result<Vec<RecordBatch>> {
    match rows {
        Rows::Batches(batches) => Ok(batches),
        Rows::Stream(mut stream) => {
            let mut batches = Vec::new();
            while let Some(batch) = stream.next().await {
                batches.push(batch?);
            }
            Ok(batches)
        }
    }
}

/// How long to wait before the next try.
fn pause(tries: u32) -> Duration {
    Duration::from_micros(200 << tries.min(8))
}

/// Whether a statement may change rows or lock them.
fn writes(statement: &Statement) -> bool {
    match statement {
        Statement::Query(query) => !query.locking.is_empty(),
        Statement::Do(_) | Statement::Explain(_) => false,
        _ => true,
    }
}

/// Whether a statement opens a transaction when autocommit is off.
fn uses_tables(statement: &Statement) -> bool {
    match statement {
        Statement::Query(query) => match &query.body {
            SetExpr::Select(select) => !select.from.is_empty(),
            SetExpr::Values(_) => false,
            SetExpr::Table(_) | SetExpr::Query(_) | SetExpr::SetOp { .. } => true,
        },
        Statement::Do(_) | Statement::Explain(_) => false,
        _ => true,
    }
}

/// Whether strict sql_mode turns bad values into errors: in statements that store them, unless they say IGNORE.
fn is_strict_when_asked(statement: &Statement) -> bool {
    match statement {
        Statement::Insert(insert) => !insert.ignore,
        Statement::Update(update) => !update.ignore,
        Statement::Delete(delete) => !delete.ignore,
        Statement::LoadData(load) => !load.local && load.on_conflict != LoadConflict::Ignore,
        _ => false,
    }
}
