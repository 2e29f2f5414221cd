//! SET: system and user variables, NAMES, CHARACTER SET, TRANSACTION.

use rutile_expr::context::Level;
use rutile_expr::types::{Charset, Collation, Datum, FieldType};

use super::variable_table::{Scopes, Variable};
use super::variables::{SessionVariables, Value, coerce, compiled_default, lookup};
use super::{Session, StateChange};
use crate::binder::{BindContext, bind_constant};
use crate::context::{Isolation, StatementContext};
use crate::parser::ast::{self, Expr, Literal, SetItem, SetTransaction, VarScope};
use crate::{Error, Result};

/// What SET NAMES sets.
pub(super) fn set_names(variables: &mut SessionVariables, collation: Collation) {
    let charset = collation.charset().name();
    variables.set([
        ("character_set_client", Value::text(charset)),
        ("character_set_connection", Value::text(charset)),
        ("character_set_results", Value::text(charset)),
        ("collation_connection", Value::text(collation.name())),
    ]);
}

/// One assignment, ready to be made.
enum Change {
    User(String, Datum, FieldType),
    Session(Vec<(&'static str, Value)>),
    Global(&'static str, Value),
}

impl Session {
    /// Runs SET: all values are computed and checked before the first is assigned.
    pub(super) async fn set(&mut self, items: &[SetItem], ctx: &StatementContext) -> Result<()> {
        let mut changes = Vec::with_capacity(items.len());
        for item in items {
            changes.push(match item {
                SetItem::User { name, value } => {
                    let (datum, field_type) = self.constant(value, ctx)?;
                    Change::User(name.clone(), datum, field_type)
                }
                SetItem::System { scope, name, value } => {
                    self.system_change(*scope, name, value.as_ref(), ctx)?
                }
                SetItem::Names { charset, collate } => names_change(charset.as_deref(), collate.as_deref())?,
                SetItem::CharacterSet(charset) => self.character_set_change(charset.as_deref())?,
            });
        }
        for change in changes {
            match change {
                Change::User(name, datum, field_type) => self.user_vars.set(&name, datum, field_type),
                Change::Global(name, value) => self.instance.set_global(name, value),
                Change::Session(values) => self.assign(values).await?,
            }
        }
        Ok(())
    }

    async fn assign(&mut self, values: Vec<(&'static str, Value)>) -> Result<()> {
        let before = self.settings();
        let tracked = before.track_variables.clone();
        for (name, value) in &values {
            let is_tracked = &*tracked == "*" || tracked.split(',').any(|other| other.trim() == *name);
            if is_tracked {
                self.state_changes.push(StateChange::Variable { name, value: value.show() });
            }
            if matches!(*name, "last_insert_id" | "identity") {
                self.state.last_insert_id.store(value.as_u64(), std::sync::atomic::Ordering::Relaxed);
            }
        }
        self.state.variables.write().set(values);
        // Turning autocommit on ends the transaction that its absence held open.
        if !before.autocommit && self.settings().autocommit {
            self.commit_open().await?;
        }
        Ok(())
    }

    fn system_change(
        &self,
        scope: Option<VarScope>,
        name: &str,
        value: Option<&Expr>,
        ctx: &StatementContext,
    ) -> Result<Change> {
        let variable = lookup(name)?;
        if variable.read_only {
            return Err(Error::IncorrectVariableScope { name: variable.name.to_owned(), scope: "read only" });
        }
        let global = matches!(scope, Some(VarScope::Global | VarScope::Persist | VarScope::PersistOnly));
        match (global, variable.scopes) {
            (true, Scopes::Session) => return Err(Error::SessionVariable { name: variable.name.to_owned() }),
            (false, Scopes::Global) => return Err(Error::GlobalVariable { name: variable.name.to_owned() }),
            _ => {}
        }
        if matches!(scope, Some(VarScope::Persist | VarScope::PersistOnly)) {
            return Err(Error::not_supported("SET PERSIST"));
        }
        if global && !self.state.account.read().is_super() {
            return Err(Error::SpecificAccessDenied {
                privilege: "SUPER or SYSTEM_VARIABLES_ADMIN".to_owned(),
            });
        }
        let value = match value {
            Some(expr) => self.variable_value(variable, expr, ctx)?,
            None if global => compiled_default(variable),
            None => self.state.variables.read().default_value(variable, &self.instance.globals()),
        };
        if variable.name.ends_with("isolation") {
            self.check_isolation(value.as_str())?;
        }
        match global {
            true => Ok(Change::Global(canonical(variable.name), value)),
            false => Ok(Change::Session(with_dependents(variable.name, value))),
        }
    }

    fn variable_value(
        &self,
        variable: &'static Variable,
        expr: &Expr,
        ctx: &StatementContext,
    ) -> Result<Value> {
        let (datum, _) = match expr {
            // `SET sql_mode = ansi`, `SET character_set_results = binary`: a bare word is its own text.
            Expr::Column(name) if name.table.is_none() => {
                (Datum::from(name.name.as_str()), FieldType::null())
            }
            _ => self.constant(expr, ctx)?,
        };
        let mut cut = false;
        let value = coerce(variable, &datum, &mut cut)?;
        if cut {
            let shown = match &datum {
                Datum::Int(number) => number.to_string(),
                Datum::UInt(number) => number.to_string(),
                other => format!("{other:?}"),
            };
            let message = format!("Truncated incorrect {} value: '{shown}'", variable.name);
            self.warnings.push(Level::Warning, 1292, message);
        }
        Ok(value)
    }

    fn check_isolation(&self, level: &str) -> Result<()> {
        let skip = self.state.variables.read().get_known("rutile_skip_isolation_level_check").is_on();
        match level {
            "SERIALIZABLE" | "READ-UNCOMMITTED" if !skip => {
                Err(Error::UnsupportedIsolation { level: level.to_owned() })
            }
            "SERIALIZABLE" | "READ-UNCOMMITTED" => {
                let error = Error::UnsupportedIsolation { level: level.to_owned() };
                self.warnings.push(Level::Warning, error.code(), error.to_string());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn character_set_change(&self, charset: Option<&str>) -> Result<Change> {
        let charset = charset.map_or(Ok(Charset::Utf8mb4), Charset::from_name)?;
        let variables = self.state.variables.read();
        Ok(Change::Session(vec![
            ("character_set_client", Value::text(charset.name())),
            ("character_set_results", Value::text(charset.name())),
            ("character_set_connection", variables.get_known("character_set_database")),
            ("collation_connection", variables.get_known("collation_database")),
        ]))
    }

    /// `SET [GLOBAL | SESSION] TRANSACTION …`
    pub(super) fn set_transaction(&mut self, statement: &SetTransaction) -> Result<()> {
        if let Some(isolation) = statement.isolation {
            self.check_isolation(isolation.name())?;
        }
        let mut values = Vec::new();
        if let Some(isolation) = statement.isolation {
            values.extend(with_dependents("transaction_isolation", Value::text(isolation.name())));
        }
        if let Some(read_only) = statement.read_only {
            values.extend(with_dependents("transaction_read_only", Value::Bool(read_only)));
        }
        match statement.scope {
            None => {
                if self.open.as_ref().is_some_and(|open| open.is_begun()) {
                    return Err(Error::TransactionInProgress);
                }
                self.next_transaction = (statement.isolation.map(isolation_of), statement.read_only);
            }
            Some(VarScope::Session) => self.state.variables.write().set(values),
            Some(VarScope::Global) => {
                values.into_iter().for_each(|(name, value)| self.instance.set_global(name, value));
            }
            Some(VarScope::Persist | VarScope::PersistOnly) => {
                return Err(Error::not_supported("SET PERSIST TRANSACTION"));
            }
        }
        Ok(())
    }

    /// The value of an expression that sees no table.
    pub(super) fn constant(&self, expr: &Expr, ctx: &StatementContext) -> Result<(Datum, FieldType)> {
        if let Expr::Literal(literal) = expr
            && let Some(simple) = simple_literal(literal, ctx.eval.connection_collation)
        {
            return Ok(simple);
        }
        let bound = bind_constant(expr, BindContext { statement: ctx, param_types: &[] })?;
        Ok((bound.eval_scalar(&ctx.eval)?, bound.field_type().clone()))
    }
}

/// Literals that need no binder; what clients send when they connect is nearly always one.
fn simple_literal(literal: &Literal, collation: Collation) -> Option<(Datum, FieldType)> {
    match literal {
        Literal::Null => Some((Datum::Null, FieldType::null())),
        Literal::Bool(value) => Some((Datum::bool(*value), FieldType::bigint())),
        Literal::Int(value) => Some(match i64::try_from(*value) {
            Ok(value) => (Datum::Int(value), FieldType::bigint()),
            Err(_) => (Datum::UInt(*value), FieldType::bigint_unsigned()),
        }),
        Literal::Str { value, charset: None } => {
            let text = std::str::from_utf8(value).ok()?;
            Some((Datum::from(text), FieldType::varchar(text.chars().count() as u32, collation)))
        }
        _ => None,
    }
}

/// Old names of variables that are one with a new one.
fn canonical(name: &'static str) -> &'static str {
    match name {
        "tx_isolation" => "transaction_isolation",
        "tx_read_only" => "transaction_read_only",
        _ => name,
    }
}

/// A variable with those that change together with it.
fn with_dependents(name: &'static str, value: Value) -> Vec<(&'static str, Value)> {
    let collation_of = |value: &Value| Charset::from_name(value.as_str()).map(Charset::default_collation);
    let charset_of = |value: &Value| Collation::from_name(value.as_str()).map(Collation::charset);
    let mut values = vec![(name, value.clone())];
    match name {
        "transaction_isolation" => values.push(("tx_isolation", value)),
        "tx_isolation" => values.push(("transaction_isolation", value)),
        "transaction_read_only" => values.push(("tx_read_only", value)),
        "tx_read_only" => values.push(("transaction_read_only", value)),
        "character_set_connection" => {
            values.extend(collation_of(&value).map(|c| ("collation_connection", Value::text(c.name()))));
        }
        "collation_connection" => {
            values.extend(charset_of(&value).map(|c| ("character_set_connection", Value::text(c.name()))));
        }
        "character_set_server" => {
            values.extend(collation_of(&value).map(|c| ("collation_server", Value::text(c.name()))));
        }
        "collation_server" => {
            values.extend(charset_of(&value).map(|c| ("character_set_server", Value::text(c.name()))));
        }
        _ => {}
    }
    values
}

fn names_change(charset: Option<&str>, collate: Option<&str>) -> Result<Change> {
    let charset = charset.map_or(Ok(Charset::Utf8mb4), Charset::from_name)?;
    let collation = match collate {
        None => charset.default_collation(),
        Some(name) => {
            let collation = Collation::from_name(name)?;
            if collation.charset() != charset {
                let charset = charset.name().to_owned();
                return Err(Error::CollationCharsetMismatch {
                    collation: collation.name().to_owned(),
                    charset,
                });
            }
            collation
        }
    };
    Ok(Change::Session(vec![
        ("character_set_client", Value::text(charset.name())),
        ("character_set_connection", Value::text(charset.name())),
        ("character_set_results", Value::text(charset.name())),
        ("collation_connection", Value::text(collation.name())),
    ]))
}

/// What a level means here; the ones we lack are refused before, or stand for the next one we have.
pub(super) fn isolation_of(isolation: ast::Isolation) -> Isolation {
    match isolation {
        ast::Isolation::ReadCommitted => Isolation::ReadCommitted,
        ast::Isolation::ReadUncommitted | ast::Isolation::RepeatableRead | ast::Isolation::Serializable => {
            Isolation::RepeatableRead
        }
    }
}
