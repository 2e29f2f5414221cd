//! Prepared statements of a session: parsed once, planned when first run, planned again when the schema or the variables a
//! plan depends on have changed.

use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use rutile_expr::SqlMode;
use rutile_expr::types::Collation;

use super::variables::Derived;
use crate::context::StatementContext;
use crate::executor::point_read::PointRead;
use crate::parser::ast::Statement;
use crate::plan::{Plan, SchemaRef};
use crate::{Error, Result};

/// What a plan was made under; it serves only executions under the same.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanKey {
    /// The schema's version.
    pub schema_version: i64,
    /// The generation of the statistics.
    pub statistics: u64,
    /// The current database.
    pub database: Option<String>,
    /// `sql_mode`
    pub sql_mode: SqlMode,
    /// `collation_connection`: the collation of literals and parameters.
    pub collation: Collation,
    /// `sql_select_limit`
    pub select_limit_rows: u64,
    /// Whether a transaction is open: it decides where locks are taken.
    pub in_transaction: bool,
}

impl PlanKey {
    /// What a plan made now is made under.
    pub fn of(ctx: &StatementContext, in_transaction: bool) -> PlanKey {
        PlanKey {
            schema_version: ctx.schema.version(),
            statistics: ctx.statistics.generation(),
            database: ctx.database.clone(),
            sql_mode: ctx.eval.sql_mode,
            collation: ctx.eval.connection_collation,
            select_limit_rows: ctx.settings.select_limit_rows,
            in_transaction,
        }
    }

    /// Whether a plan made under this key serves this execution.
    pub fn holds(&self, ctx: &StatementContext, in_transaction: bool) -> bool {
        self.schema_version == ctx.schema.version()
            && self.statistics == ctx.statistics.generation()
            && self.in_transaction == in_transaction
            && self.sql_mode == ctx.eval.sql_mode
            && self.collation == ctx.eval.connection_collation
            && self.select_limit_rows == ctx.settings.select_limit_rows
            && self.database == ctx.database
    }

    /// As [`PlanKey::holds`], for an execution that has no context: under this version of the schema and generation of the
    /// statistics.
    pub fn holds_under(
        &self,
        (schema_version, statistics): (i64, u64),
        database: Option<&str>,
        settings: &Derived,
        in_transaction: bool,
    ) -> bool {
        self.schema_version == schema_version
            && self.statistics == statistics
            && self.in_transaction == in_transaction
            && self.sql_mode == settings.sql_mode
            && self.collation == settings.connection_collation
            && self.select_limit_rows == settings.select_limit_rows
            && self.database.as_deref() == database
    }
}

/// One prepared statement.
pub struct Prepared {
    /// Its tree.
    pub statement: Arc<Statement>,
    /// Its text, for the process list.
    pub text: Bytes,
    /// How many `?` it has.
    pub params: usize,
    /// The result set's columns as far as known when it was prepared.
    pub columns: SchemaRef,
    /// The plan of the last execution.
    pub plan: Option<CachedPlan>,
}

/// A plan kept for the next execution.
pub struct CachedPlan {
    /// What it was made under.
    pub key: PlanKey,
    /// The plan.
    pub plan: Arc<Plan>,
    /// Its short path, if it has one.
    pub point: Option<Arc<PointRead>>,
}

impl CachedPlan {
    /// Of a plan made now.
    pub fn new(plan: &Arc<Plan>, ctx: &StatementContext, in_transaction: bool) -> CachedPlan {
        let point = PointRead::of(plan).map(Arc::new);
        CachedPlan { key: PlanKey::of(ctx, in_transaction), plan: Arc::clone(plan), point }
    }
}

/// The prepared statements of a session.
#[derive(Default)]
pub struct PreparedStatements {
    by_id: AHashMap<u32, Prepared>,
    /// Statements of SQL's PREPARE, by name in lower case.
    by_name: AHashMap<String, u32>,
    last_id: u32,
}

impl PreparedStatements {
    /// Keeps a statement and gives it a number.
    pub fn add(&mut self, prepared: Prepared) -> u32 {
        self.last_id = self.last_id.wrapping_add(1).max(1);
        self.by_id.insert(self.last_id, prepared);
        self.last_id
    }

    /// The statement with this number; error 1243 names the command that asked.
    pub fn get(&mut self, id: u32, operation: &'static str) -> Result<&mut Prepared> {
        self.by_id.get_mut(&id).ok_or_else(|| unknown(id.to_string(), operation))
    }

    /// The statement with this number, if there is one.
    pub fn peek(&self, id: u32) -> Option<&Prepared> {
        self.by_id.get(&id)
    }

    /// Forgets a statement; answers whether there was one.
    pub fn remove(&mut self, id: u32) -> bool {
        self.by_id.remove(&id).is_some()
    }

    /// `PREPARE name FROM …`: replaces an older one of the same name; answers whether there was one.
    pub fn add_named(&mut self, name: &str, prepared: Prepared) -> bool {
        let replaced = self.remove_named(name).is_ok();
        let id = self.add(prepared);
        self.by_name.insert(name.to_lowercase(), id);
        replaced
    }

    /// The number of a named statement.
    pub fn id_of(&self, name: &str, operation: &'static str) -> Result<u32> {
        let id = self.by_name.get(&name.to_lowercase()).copied();
        id.ok_or_else(|| unknown(name.to_owned(), operation))
    }

    /// `DEALLOCATE PREPARE name`
    pub fn remove_named(&mut self, name: &str) -> Result<()> {
        let id = self.by_name.remove(&name.to_lowercase());
        let id = id.ok_or_else(|| unknown(name.to_owned(), "DEALLOCATE PREPARE"))?;
        self.by_id.remove(&id);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Forgets all; answers how many there were.
    pub fn clear(&mut self) -> usize {
        self.by_name.clear();
        let count = self.by_id.len();
        self.by_id = AHashMap::new();
        count
    }
}

fn unknown(handler: String, operation: &'static str) -> Error {
    Error::UnknownStatement { handler, operation }
}

/// Whether a statement can be prepared.
pub fn is_preparable(statement: &Statement) -> bool {
    !matches!(
        statement,
        Statement::Prepare { .. }
            | Statement::Execute { .. }
            | Statement::Deallocate { .. }
            | Statement::LoadData(_)
    )
}
