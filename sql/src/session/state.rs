//! The part of a session that its running statement may look at: what `@@x`, SHOW and information_schema read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use rutile_expr::context::{Level, Warning};
use rutile_expr::types::{Datum, FieldType};

use super::instance::{Connection, Instance, now_micros};
use super::privilege::Account;
use super::variable_table::{Scopes, Variable};
use super::variables::{self, SessionVariables, Value, lookup, value_in};
use crate::context::{AccountWords, Environment, Process, VariableScope};
use crate::{Error, Result};

/// What a session shares with its running statement.
pub struct SessionState {
    /// The server around it.
    pub instance: Arc<Instance>,
    /// Its entry in the register.
    pub connection: Arc<Connection>,
    /// Its system variables.
    pub variables: RwLock<SessionVariables>,
    /// `LAST_INSERT_ID()`
    pub last_insert_id: Arc<AtomicU64>,
    /// The account it runs as.
    pub account: RwLock<Account>,
    /// TLS version and cipher.
    pub tls: Option<(String, String)>,
    /// The running statement's plan was made for another one.
    pub plan_from_cache: AtomicBool,
    /// The same of the statement before it.
    pub last_plan_from_cache: AtomicBool,
    /// What the statement before the running one remarked.
    pub previous_remarks: Mutex<Vec<Warning>>,
}

impl SessionState {
    /// A statement begins.
    pub fn begin_statement(&self) {
        let last = self.plan_from_cache.swap(false, Ordering::Relaxed);
        self.last_plan_from_cache.store(last, Ordering::Relaxed);
    }

    /// A variable whose value is computed when read.
    fn computed(&self, name: &str) -> Option<Value> {
        let count = |errors: bool| {
            let remarks = self.previous_remarks.lock();
            remarks.iter().filter(|r| !errors || r.level == Level::Error).count() as u64
        };
        Some(match name {
            "last_insert_id" | "identity" => Value::UInt(self.last_insert_id.load(Ordering::Relaxed)),
            "pseudo_thread_id" => Value::UInt(self.connection.id),
            "last_plan_from_cache" => Value::Bool(self.last_plan_from_cache.load(Ordering::Relaxed)),
            "warning_count" => Value::UInt(count(false)),
            "error_count" => Value::UInt(count(true)),
            "timestamp" => match self.variables.read().derived.timestamp_micros {
                Some(micros) => Value::Double(micros as f64 / 1e6),
                None => Value::Double(now_micros() as f64 / 1e6),
            },
            _ => return None,
        })
    }

    fn session_value(&self, variable: &'static Variable) -> Value {
        match variable.scopes {
            Scopes::Global => value_in(&self.instance.globals(), variable),
            Scopes::Session => {
                self.computed(variable.name).unwrap_or_else(|| self.variables.read().get(variable))
            }
            Scopes::Both => self.variables.read().get(variable),
        }
    }

    /// The value of `@@[scope.]name`.
    pub fn value(&self, scope: Option<VariableScope>, name: &str) -> Result<Value> {
        let variable = lookup(name)?;
        let wrong_scope = |scope| Error::IncorrectVariableScope { name: variable.name.to_owned(), scope };
        match (scope, variable.scopes) {
            (Some(VariableScope::Global), Scopes::Session) => Err(wrong_scope("SESSION")),
            (Some(VariableScope::Session), Scopes::Global) => Err(wrong_scope("GLOBAL")),
            (Some(VariableScope::Global), _) => Ok(value_in(&self.instance.globals(), variable)),
            _ => Ok(self.session_value(variable)),
        }
    }
}

impl Environment for SessionState {
    fn variable(&self, scope: Option<VariableScope>, name: &str) -> Result<(Datum, FieldType)> {
        Ok(self.value(scope, name)?.datum())
    }

    fn variables(&self, scope: VariableScope) -> Vec<(String, String)> {
        match scope {
            VariableScope::Global => {
                let globals = self.instance.globals();
                variables::list(scope, |variable| value_in(&globals, variable))
            }
            VariableScope::Session => variables::list(scope, |variable| self.session_value(variable)),
        }
    }

    fn status(&self, _scope: VariableScope) -> Vec<(String, String)> {
        let mut status = self.instance.status();
        let (version, cipher) = self.tls.clone().unwrap_or_default();
        status.push(("Ssl_cipher".to_owned(), cipher));
        status.push(("Ssl_version".to_owned(), version));
        status.sort();
        status
    }

    fn processes(&self) -> Vec<Process> {
        let mut processes = self.instance.processes();
        let account = self.account.read();
        if !account.is_super() {
            processes.retain(|process| process.user == account.user);
        }
        processes
    }

    fn remarks(&self) -> Vec<Warning> {
        self.previous_remarks.lock().clone()
    }

    fn current_user(&self) -> (String, String) {
        let account = self.account.read();
        (account.user.clone(), account.host.clone())
    }

    fn current_grants(&self) -> Vec<String> {
        self.account.read().grants()
    }

    fn account<'a>(&'a self, user: &'a str, host: &'a str) -> BoxFuture<'a, Result<Option<AccountWords>>> {
        Box::pin(async move {
            let own = self.account.read().clone();
            let is_own = own.user == user && own.host.eq_ignore_ascii_case(host);
            if !is_own && !own.is_super() {
                return Err(Error::DbAccessDenied { user: own.user, host: own.host, db: "mysql".to_owned() });
            }
            let all = self.instance.accounts.all().await?;
            let found = all.into_iter().find(|a| a.user == user && a.host.eq_ignore_ascii_case(host));
            Ok(found
                .map(|account| AccountWords { grants: account.grants(), create: account.create_statement() }))
        })
    }
}
