//! The session's open transaction: BEGIN, COMMIT, ROLLBACK, savepoints, and what each statement sees of it.

use std::sync::Arc;

use rutile_client::{Client, ReadFrom, Savepoint, Timestamp, Transaction, TxnMode, TxnOptions};
use tokio::sync::OnceCell;

use crate::catalog::Catalog;
use crate::catalog::model::{InfoSchema, TableInfo};
use crate::catalog::usage::TransactionSchema;
use crate::context::{Isolation, StatementTxn};
use crate::statistics::Change;
use crate::{Error, Result};

/// A transaction that outlives its statements.
pub struct OpenTransaction {
    /// Filled when the first statement needs it (its timestamp is asked for later still).
    cell: Arc<OnceCell<Transaction>>,
    options: TxnOptions,
    isolation: Isolation,
    read_only: bool,
    /// BEGIN was said; else autocommit is off.
    begun: bool,
    /// What it sees of the schema, from its first statement on.
    schema: Option<TransactionSchema>,
    /// It sees the schema as it was.
    past: Option<Arc<InfoSchema>>,
    /// What its statements did to tables.
    changes: Vec<Change>,
    /// By name in lower case, oldest first.
    savepoints: Vec<(String, Savepoint)>,
}

impl OpenTransaction {
    /// A transaction that asks for nothing yet.
    pub fn new(optimistic: bool, isolation: Isolation, read_only: bool, begun: bool) -> OpenTransaction {
        let mode = if optimistic { TxnMode::Optimistic } else { TxnMode::Pessimistic };
        OpenTransaction {
            cell: Arc::default(),
            options: TxnOptions { mode, lazy: true, ..TxnOptions::default() },
            isolation,
            read_only,
            begun,
            schema: None,
            past: None,
            changes: Vec::new(),
            savepoints: Vec::new(),
        }
    }

    /// The same, with reads of these peers.
    #[must_use]
    pub fn read_from(mut self, from: ReadFrom) -> OpenTransaction {
        self.options.read_from = from;
        self
    }

    /// A READ ONLY transaction that sees data and schema as they were at a timestamp, from any replica that has them.
    pub fn as_of(ts: Timestamp, schema: Arc<InfoSchema>) -> OpenTransaction {
        let mut open = OpenTransaction::new(true, Isolation::RepeatableRead, true, true);
        open.options.start_ts = Some(ts);
        open.past = Some(schema);
        open.read_from(ReadFrom::Stale)
    }

    /// Its first statement begins.
    pub fn pin(&mut self, catalog: &Catalog) {
        self.schema.get_or_insert_with(|| catalog.begin_transaction());
    }

    /// What its next statement sees when this is the newest schema.
    pub fn schema(&self, current: Arc<InfoSchema>) -> Arc<InfoSchema> {
        match (&self.past, &self.schema) {
            (Some(past), _) => Arc::clone(past),
            (None, Some(schema)) => schema.view(&current),
            (None, None) => current,
        }
    }

    /// Tables that it uses stay as they are until it ends.
    pub fn touch(&self, tables: &[Arc<TableInfo>]) {
        if let Some(schema) = &self.schema
            && self.past.is_none()
        {
            schema.touch(tables);
        }
    }

    /// Whether the client is told that it is in a transaction.
    pub fn is_visible(&self) -> bool {
        self.begun || self.cell.get().is_some()
    }

    /// Whether BEGIN was said, rather than autocommit being off.
    pub fn is_begun(&self) -> bool {
        self.begun
    }

    /// What its statements read.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Whether it is READ ONLY.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether writes lock their keys at once.
    pub fn is_pessimistic(&self) -> bool {
        self.options.mode == TxnMode::Pessimistic
    }

    /// What the next chained transaction inherits.
    pub fn chained(&self) -> OpenTransaction {
        let optimistic = self.options.mode == TxnMode::Optimistic;
        let next = OpenTransaction::new(optimistic, self.isolation, self.read_only, true);
        match self.options.read_from {
            // The next one is of now.
            ReadFrom::Stale => next,
            from => next.read_from(from),
        }
    }

    /// What the next statement runs in.
    pub fn statement(&self, client: &Client) -> StatementTxn {
        let cell = Arc::clone(&self.cell);
        StatementTxn::within(client.clone(), cell, self.options.clone(), self.isolation, self.read_only)
    }

    async fn transaction(&self, client: &Client) -> Result<&Transaction> {
        self.cell.get_or_try_init(|| async { Ok(client.begin(self.options.clone()).await?) }).await
    }

    /// WITH CONSISTENT SNAPSHOT: reads are of this moment.
    pub async fn take_snapshot(&self, client: &Client) -> Result<()> {
        self.transaction(client).await?.start_ts().await?;
        Ok(())
    }

    /// Marks the point a failing statement goes back to.
    pub async fn statement_savepoint(&self, client: &Client) -> Result<Savepoint> {
        Ok(self.transaction(client).await?.savepoint())
    }

    /// A statement failed: undoes its writes. Its locks stay.
    pub fn undo_statement(&self, savepoint: Savepoint) {
        if let Some(txn) = self.cell.get() {
            txn.rollback_to(savepoint);
        }
    }

    /// The begun transaction.
    pub fn begun_transaction(&self) -> Option<&Transaction> {
        self.cell.get()
    }

    /// `SAVEPOINT name`: replaces an older one of the same name.
    pub async fn add_savepoint(&mut self, client: &Client, name: &str) -> Result<()> {
        let savepoint = self.transaction(client).await?.savepoint();
        let name = name.to_lowercase();
        self.savepoints.retain(|(other, _)| *other != name);
        self.savepoints.push((name, savepoint));
        Ok(())
    }

    fn position(&self, name: &str) -> Result<usize> {
        let lower = name.to_lowercase();
        let found = self.savepoints.iter().position(|(other, _)| *other == lower);
        found.ok_or_else(|| no_savepoint(name))
    }

    /// `ROLLBACK TO name`: later savepoints vanish.
    pub fn rollback_to(&mut self, name: &str) -> Result<()> {
        let position = self.position(name)?;
        self.savepoints.truncate(position + 1);
        if let Some(txn) = self.cell.get() {
            txn.rollback_to(self.savepoints[position].1);
        }
        Ok(())
    }

    /// `RELEASE SAVEPOINT name`: it and later ones vanish, the writes stay.
    pub fn release_savepoint(&mut self, name: &str) -> Result<()> {
        let position = self.position(name)?;
        self.savepoints.truncate(position);
        Ok(())
    }

    /// A statement of it ran to its end.
    pub fn note(&mut self, changes: Vec<Change>) {
        for change in changes {
            match self.changes.iter_mut().find(|known| known.table == change.table) {
                Some(known) => {
                    known.rows += change.rows;
                    known.modified += change.modified;
                }
                None => self.changes.push(change),
            }
        }
    }

    /// What its statements did to tables. Work undone by ROLLBACK TO is counted, too.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Makes everything durable and visible.
    pub async fn commit_all(&self) -> rutile_client::Result<()> {
        if let Some(txn) = self.cell.get() {
            txn.commit().await?;
        }
        Ok(())
    }

    /// Gives everything up.
    pub async fn rollback(self) -> Result<()> {
        if let Some(txn) = self.cell.get() {
            txn.rollback().await?;
        }
        Ok(())
    }
}

/// Error 1305 for a savepoint.
pub fn no_savepoint(name: &str) -> Error {
    Error::DoesNotExist { kind: "SAVEPOINT", name: name.to_owned() }
}
