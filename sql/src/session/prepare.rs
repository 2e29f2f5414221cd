//! Preparing statements: by COM_STMT_PREPARE and by SQL's PREPARE.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rutile_client::TxnMode;
use tokio_util::sync::CancellationToken;

use super::prepared::{Prepared, is_preparable};
use super::{Request, Session};
use crate::context::StatementTxn;
use crate::parser::ast::{PrepareSource, Statement};
use crate::parser::{Parsed, parse_first};
use crate::plan::{Schema, SchemaRef};
use crate::{Error, Result};

/// The most `?` one statement has: the protocol counts them in 16 bits.
const PARAMS_MAX: usize = 65_535;

impl Session {
    /// Parses a text that must be one statement.
    pub fn parse_one(&self, text: &[u8]) -> Result<Parsed> {
        let parsed = parse_first(text, self.settings().parse)?;
        if parsed.end < text.len() {
            let near = String::from_utf8_lossy(&text[parsed.end..]).chars().take(80).collect();
            let line = memchr::memchr_iter(b'\n', &text[..parsed.end]).count() + 1;
            return Err(Error::Parse { near, line });
        }
        Ok(parsed)
    }

    /// Prepares a text; answers the statement's number.
    pub async fn prepare(&mut self, text: Bytes) -> Result<u32> {
        self.clear_warnings();
        let mut prepared = self.make_prepared(text.clone());
        if let Err(error) = &prepared
            && self.may_be_known_elsewhere(error).await
        {
            prepared = self.make_prepared(text);
        }
        let prepared = prepared?;
        self.count_prepared()?;
        Ok(self.prepared.add(prepared))
    }

    /// Forgets a prepared statement, if there is one of this number.
    pub fn close_prepared(&mut self, id: u32) {
        if self.prepared.remove(id) {
            self.instance.counters.prepared.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn count_prepared(&self) -> Result<()> {
        let max = match self.instance.globals().get("max_prepared_stmt_count") {
            Some(value) => value.as_u64(),
            None => 16_382,
        };
        if self.instance.counters.prepared.fetch_add(1, Ordering::Relaxed) >= max {
            self.instance.counters.prepared.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::TooManyPrepared { max });
        }
        Ok(())
    }

    fn make_prepared(&self, text: Bytes) -> Result<Prepared> {
        let parsed = self.parse_one(&text)?;
        if !is_preparable(&parsed.statement) {
            return Err(Error::NotPreparable);
        }
        if parsed.params > PARAMS_MAX {
            return Err(Error::TooManyPlaceholders);
        }
        let columns = self.columns_of(&parsed.statement, parsed.params)?;
        let statement = Arc::new(parsed.statement);
        Ok(Prepared { statement, text, params: parsed.params, columns, plan: None })
    }

    /// The result columns, as far as they are known without values. What cannot be resolved is refused now, as MySQL does.
    fn columns_of(&self, statement: &Statement, params: usize) -> Result<SchemaRef> {
        let planned = matches!(
            statement,
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_)
        );
        if !planned {
            return Ok(Schema::empty());
        }
        let txn = StatementTxn::autocommit(self.instance.client.clone(), TxnMode::Optimistic, true);
        let ctx = self.context(txn, &Request::default(), false, CancellationToken::new());
        let into = matches!(statement, Statement::Query(query) if query.into.is_some());
        match super::glue::plan(statement, params, &ctx) {
            Ok(_) if into => Ok(Schema::empty()),
            Ok(plan) => Ok(plan.schema()),
            Err(error) => Err(error),
        }
    }

    /// `PREPARE name FROM 'text' | @var`
    pub(super) fn prepare_named(&mut self, name: &str, source: &PrepareSource) -> Result<()> {
        let text = match source {
            PrepareSource::Text(text) => Bytes::copy_from_slice(text),
            PrepareSource::UserVar(variable) => match self.user_vars.get(variable) {
                Some((datum, _)) => Bytes::from(datum.as_bytes().unwrap_or_default().to_vec()),
                None => Bytes::from_static(b"NULL"),
            },
        };
        let prepared = self.make_prepared(text)?;
        self.count_prepared()?;
        if self.prepared.add_named(name, prepared) {
            self.instance.counters.prepared.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
