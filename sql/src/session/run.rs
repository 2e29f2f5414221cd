//! From a syntax tree to an answer: which statements the session runs itself, which go to the planner, which to schema
//! change. Transactions begin and end here.

use std::sync::Arc;

use rutile_client::{Transaction, TxnMode};
use tokio_util::sync::CancellationToken;

use super::instance::Counters;
use super::transaction::OpenTransaction;
use super::{OkInfo, QueryResult, Request, Session, StateChange};
use crate::catalog::model::InfoSchema;
use crate::context::{StatementContext, StatementTxn};
use crate::parser::ast::{self, Begin, EndTransaction, Statement};
use crate::{Error, Result};

impl Session {
    /// Runs one statement up to its answer. What is rare runs in a box of its own: the future of a point read stays small,
    /// and futures are moved more than once.
    pub(super) async fn dispatch(
        &mut self,
        statement: Arc<Statement>,
        request: Request,
        cancel: CancellationToken,
    ) -> Result<QueryResult> {
        if statement.commits_implicitly() {
            Box::pin(self.commit_open()).await?;
        }
        match &*statement {
            Statement::Query(_)
            | Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::LoadData(_)
            | Statement::Explain(_)
            | Statement::Do(_) => self.run(statement, request, cancel).await,
            Statement::Execute { name, using } => {
                let id = self.prepared.id_of(name, "EXECUTE")?;
                let values = using.iter().map(|name| self.user_vars.get(name).map(|(datum, _)| datum));
                let params: Vec<_> = values.map(Option::unwrap_or_default).collect();
                let prepared = self.prepared.get(id, "EXECUTE")?;
                if params.len() != prepared.params {
                    return Err(Error::WrongArguments { to: "EXECUTE".to_owned() });
                }
                let inner = Arc::clone(&prepared.statement);
                let request = Request { text: prepared.text.clone(), params, prepared: Some(id), ..request };
                Box::pin(self.dispatch(inner, request, cancel)).await
            }
            Statement::Show(_) | Statement::Describe { .. } => {
                self.check_statement(&statement)?;
                let ctx = self.statement_context(&request, false, cancel);
                let mut output = Box::pin(crate::show::execute(&statement, &ctx)).await;
                if let Err(error) = &output
                    && self.may_be_known_elsewhere(error).await
                {
                    let ctx = self.statement_context(&request, false, ctx.cancel.clone());
                    output = Box::pin(crate::show::execute(&statement, &ctx)).await;
                }
                Ok(self.answer(output?, ctx))
            }
            _ => {
                let mut ctx = self.context(self.lone_txn(), &request, false, cancel);
                if statement.commits_implicitly() {
                    // What changes the schema waits for those who use it: not for itself.
                    ctx.schema = Arc::new(InfoSchema::clone(&ctx.schema));
                }
                Box::pin(self.control(&statement, &Arc::new(ctx))).await
            }
        }
    }

    /// Statements that are no plan: transactions, settings, accounts, schema changes.
    async fn control(&mut self, statement: &Statement, ctx: &Arc<StatementContext>) -> Result<QueryResult> {
        match statement {
            Statement::Begin(begin) => self.begin(begin, ctx).await?,
            Statement::Commit(end) => self.end_transaction(*end, true).await?,
            Statement::Rollback(end) => self.end_transaction(*end, false).await?,
            Statement::Savepoint(name) => {
                self.open_implicitly();
                let client = self.instance.client.clone();
                if let Some(open) = &mut self.open {
                    open.add_savepoint(&client, name).await?;
                }
            }
            Statement::RollbackTo(name) => match &mut self.open {
                Some(open) => open.rollback_to(name)?,
                None => return Err(super::transaction::no_savepoint(name)),
            },
            Statement::ReleaseSavepoint(name) => match &mut self.open {
                Some(open) => open.release_savepoint(name)?,
                None => return Err(super::transaction::no_savepoint(name)),
            },
            Statement::Set(items) => self.set(items, ctx).await?,
            Statement::SetTransaction(set) => self.set_transaction(set)?,
            Statement::Use(name) => self.use_database(name).await?,
            Statement::Prepare { name, source } => self.prepare_named(name, source)?,
            Statement::Deallocate { name } => {
                self.prepared.remove_named(name)?;
                self.instance.counters.prepared.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            }
            Statement::Kill(kill) => self.kill(kill, ctx)?,
            Statement::UnlockTables | Statement::Flush { .. } => self.flush(statement)?,
            Statement::LockTables(_) => {
                // Dumps lock the tables they fill. Nothing is lost by not doing so: what they do is transactional.
                let message = "LOCK TABLES is accepted and locks nothing";
                self.warnings.push(rutile_expr::context::Level::Warning, 1235, message.to_owned());
            }
            Statement::SetPassword(_)
            | Statement::CreateUser(_)
            | Statement::AlterUser(_)
            | Statement::DropUser { .. }
            | Statement::RenameUser(_)
            | Statement::Grant(_)
            | Statement::Revoke(_) => self.change_accounts(statement).await?,
            Statement::Analyze(analyze) => return self.analyze(analyze, ctx).await,
            Statement::CreateDatabase(_)
            | Statement::AlterDatabase(_)
            | Statement::DropDatabase(_)
            | Statement::CreateTable(_)
            | Statement::AlterTable(_)
            | Statement::DropTable(_)
            | Statement::RenameTable(_)
            | Statement::TruncateTable(_)
            | Statement::CreateIndex(_)
            | Statement::DropIndex(_)
            | Statement::CreateView(_)
            | Statement::DropView(_) => return self.schema_change(statement, ctx).await,
            other => return Err(Error::not_supported(name_of(other))),
        }
        Ok(QueryResult::Ok(self.ok()))
    }

    async fn schema_change(
        &mut self,
        statement: &Statement,
        ctx: &Arc<StatementContext>,
    ) -> Result<QueryResult> {
        self.check_statement(statement)?;
        if self.settings().read_only {
            return Err(Error::ReadOnlyTransaction);
        }
        crate::ddl::execute(statement, ctx, &self.instance.catalog).await?;
        if let Statement::DropDatabase(drop) = statement
            && self.database.as_ref().is_some_and(|current| current.eq_ignore_ascii_case(&drop.name))
        {
            self.database = None;
            self.connection.set_database(None);
            self.describe_connection();
            self.state_changes.push(StateChange::Schema(String::new()));
        }
        let affected_rows = ctx.effects.affected_rows();
        Ok(QueryResult::Ok(OkInfo { affected_rows, info: ctx.effects.info(), ..self.ok() }))
    }

    fn flush(&mut self, statement: &Statement) -> Result<()> {
        let Statement::Flush { what, .. } = statement else { return Ok(()) };
        let refused = what.iter().find(|what| matches!(what, ast::FlushWhat::Tables { read_lock: true, .. }));
        match refused {
            Some(_) => Err(Error::not_supported("FLUSH TABLES WITH READ LOCK")),
            None => Ok(()),
        }
    }

    // Transactions.

    async fn begin(&mut self, begin: &Begin, ctx: &StatementContext) -> Result<()> {
        if let Some(expr) = &begin.as_of {
            self.next_transaction = (None, None);
            let ts = self.past_timestamp(expr, ctx).await?;
            let schema = self.instance.catalog.past(ts).await?;
            self.open = Some(OpenTransaction::as_of(ts, schema));
            return Ok(());
        }
        let settings = self.settings();
        let (isolation, read_only) = std::mem::take(&mut self.next_transaction);
        let isolation = isolation.unwrap_or(settings.isolation);
        let read_only = begin.read_only.or(read_only).unwrap_or(settings.read_only);
        let open = OpenTransaction::new(settings.optimistic, isolation, read_only, true);
        let mut open = open.read_from(settings.read_from);
        if begin.consistent_snapshot {
            open.pin(&self.instance.catalog);
            open.take_snapshot(&self.instance.client).await?;
        }
        self.open = Some(open);
        Ok(())
    }

    /// With autocommit off, the first statement opens a transaction.
    pub(super) fn open_implicitly(&mut self) {
        let settings = self.settings();
        if self.open.is_none() && !settings.autocommit {
            let (isolation, read_only) = std::mem::take(&mut self.next_transaction);
            let isolation = isolation.unwrap_or(settings.isolation);
            let read_only = read_only.unwrap_or(settings.read_only);
            let open = OpenTransaction::new(settings.optimistic, isolation, read_only, false);
            self.open = Some(open.read_from(settings.read_from));
        }
    }

    async fn end_transaction(&mut self, end: EndTransaction, commit: bool) -> Result<()> {
        let (chain_default, release_default) = self.settings().completion;
        let next = self.open.as_ref().map(OpenTransaction::chained);
        let counters = &self.instance.counters;
        Counters::count(if commit { &counters.com_commit } else { &counters.com_rollback });
        match commit {
            true => self.commit_open().await?,
            false => self.rollback_open().await?,
        }
        if end.chain.unwrap_or(chain_default) {
            self.open = next;
        }
        if end.release.unwrap_or(release_default) {
            self.released = true;
        }
        Ok(())
    }

    /// Commits what is open.
    pub(super) async fn commit_open(&mut self) -> Result<()> {
        match self.open.take() {
            Some(open) if self.lease_is_over(open.begun_transaction()) => {
                open.rollback().await?;
                Err(Error::SchemaOutOfDate)
            }
            Some(open) => match open.commit_all().await {
                Ok(()) => {
                    self.instance.statistics.note(open.changes());
                    Ok(())
                }
                Err(error) => {
                    self.released |= matches!(error, rutile_client::Error::ResultUndetermined(_));
                    let (schema, client) = (self.instance.catalog.snapshot(), &self.instance.client);
                    Err(super::glue::commit_error(
                        error,
                        &schema,
                        client,
                        &rutile_expr::EvalContext::default(),
                        open.begun_transaction(),
                    )
                    .await)
                }
            },
            None => Ok(()),
        }
    }

    /// Whether a transaction has written something that this server may not commit any more.
    pub(super) fn lease_is_over(&self, txn: Option<&Transaction>) -> bool {
        txn.is_some_and(Transaction::is_dirty) && self.instance.catalog.check_lease().is_err()
    }

    /// A context of a statement that is tried once.
    fn statement_context(
        &self,
        request: &Request,
        strict: bool,
        cancel: CancellationToken,
    ) -> Arc<StatementContext> {
        Arc::new(self.context(self.lone_txn(), request, strict, cancel))
    }

    /// What a statement that is tried once runs in.
    fn lone_txn(&self) -> StatementTxn {
        match &self.open {
            Some(open) => open.statement(&self.instance.client),
            None => StatementTxn::autocommit(self.instance.client.clone(), TxnMode::Optimistic, false),
        }
    }
}

/// A statement's name, for "not supported".
fn name_of(statement: &Statement) -> &'static str {
    match statement {
        Statement::LockInstance { .. } => "LOCK INSTANCE",
        Statement::Help(_) => "HELP",
        Statement::TableMaintenance { .. } => "CHECK, CHECKSUM, OPTIMIZE and REPAIR TABLE",
        Statement::Shutdown => "SHUTDOWN",
        Statement::CreateRole { .. }
        | Statement::DropRole { .. }
        | Statement::GrantRoles { .. }
        | Statement::RevokeRoles { .. }
        | Statement::SetRole(_)
        | Statement::SetDefaultRole { .. } => "roles",
        _ => "this statement",
    }
}
