//! What an expression can see of its session and statement, and where its warnings go.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::types::{Collation, Datum, FieldType, TimeZone};

/// The flags of sql_mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SqlMode(pub u64);

macro_rules! sql_modes {
    ($($name:ident = $bit:literal;)*) => {
        impl SqlMode {
            $(#[doc = stringify!($name)] pub const $name: SqlMode = SqlMode(1 << $bit);)*

            /// Names of the plain modes, in MySQL's order.
            pub const NAMES: &'static [(&'static str, SqlMode)] = &[$((stringify!($name), SqlMode(1 << $bit)),)*];
        }
    };
}

sql_modes! {
    REAL_AS_FLOAT = 0;
    PIPES_AS_CONCAT = 1;
    ANSI_QUOTES = 2;
    IGNORE_SPACE = 3;
    ONLY_FULL_GROUP_BY = 5;
    NO_UNSIGNED_SUBTRACTION = 6;
    NO_DIR_IN_CREATE = 7;
    ANSI = 18;
    NO_AUTO_VALUE_ON_ZERO = 19;
    NO_BACKSLASH_ESCAPES = 20;
    STRICT_TRANS_TABLES = 21;
    STRICT_ALL_TABLES = 22;
    NO_ZERO_IN_DATE = 23;
    NO_ZERO_DATE = 24;
    ALLOW_INVALID_DATES = 25;
    ERROR_FOR_DIVISION_BY_ZERO = 26;
    TRADITIONAL = 27;
    HIGH_NOT_PRECEDENCE = 29;
    NO_ENGINE_SUBSTITUTION = 30;
    PAD_CHAR_TO_FULL_LENGTH = 31;
    TIME_TRUNCATE_FRACTIONAL = 32;
}

impl SqlMode {
    /// MySQL 8.4's default.
    pub const DEFAULT: SqlMode = SqlMode(
        SqlMode::ONLY_FULL_GROUP_BY.0
            | SqlMode::STRICT_TRANS_TABLES.0
            | SqlMode::NO_ZERO_IN_DATE.0
            | SqlMode::NO_ZERO_DATE.0
            | SqlMode::ERROR_FOR_DIVISION_BY_ZERO.0
            | SqlMode::NO_ENGINE_SUBSTITUTION.0,
    );

    /// Are all of `flags` set?
    #[must_use]
    pub const fn contains(self, flags: SqlMode) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// STRICT_TRANS_TABLES or STRICT_ALL_TABLES.
    #[must_use]
    pub const fn is_strict(self) -> bool {
        self.0 & (SqlMode::STRICT_TRANS_TABLES.0 | SqlMode::STRICT_ALL_TABLES.0) != 0
    }

    /// Parses a comma-separated list; `Err` holds the unknown name.
    pub fn parse(text: &str) -> Result<SqlMode, String> {
        let mut mode = SqlMode::default();
        for name in text.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            let found = SqlMode::NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
            mode.0 |= found.ok_or_else(|| name.to_string())?.1.0;
        }
        Ok(mode.expanded())
    }

    /// The combination modes ANSI and TRADITIONAL bring others along.
    fn expanded(mut self) -> SqlMode {
        if self.contains(SqlMode::ANSI) {
            self.0 |= SqlMode::REAL_AS_FLOAT.0
                | SqlMode::PIPES_AS_CONCAT.0
                | SqlMode::ANSI_QUOTES.0
                | SqlMode::IGNORE_SPACE.0
                | SqlMode::ONLY_FULL_GROUP_BY.0;
        }
        if self.contains(SqlMode::TRADITIONAL) {
            self.0 |= SqlMode::STRICT_TRANS_TABLES.0
                | SqlMode::STRICT_ALL_TABLES.0
                | SqlMode::NO_ZERO_IN_DATE.0
                | SqlMode::NO_ZERO_DATE.0
                | SqlMode::ERROR_FOR_DIVISION_BY_ZERO.0
                | SqlMode::NO_ENGINE_SUBSTITUTION.0;
        }
        self
    }
}

impl std::fmt::Display for SqlMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set = SqlMode::NAMES.iter().filter(|(_, flag)| self.contains(*flag)).map(|(name, _)| *name);
        f.write_str(&set.collect::<Vec<_>>().join(","))
    }
}

/// How grave a condition is, as SHOW WARNINGS names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Note,
    Warning,
    Error,
}

/// One line of SHOW WARNINGS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub level: Level,
    pub code: u16,
    pub message: String,
}

/// A bounded list of warnings: all are counted, the first `max_error_count` are kept.
#[derive(Debug)]
pub struct Warnings {
    count: AtomicU64,
    kept_max: usize,
    kept: Mutex<Vec<Warning>>,
}

impl Default for Warnings {
    fn default() -> Warnings {
        Warnings::new(1024)
    }
}

impl Warnings {
    /// Keeps up to `kept_max` warnings (the variable max_error_count).
    #[must_use]
    pub fn new(kept_max: usize) -> Warnings {
        Warnings { count: AtomicU64::new(0), kept_max, kept: Mutex::new(Vec::new()) }
    }

    /// Adds one.
    pub fn push(&self, level: Level, code: u16, message: String) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        if kept.len() < self.kept_max {
            kept.push(Warning { level, code, message });
        }
    }

    /// Counts warnings whose texts are not known any more.
    pub fn add_unkept(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    /// How many were raised.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// A copy of those kept.
    #[must_use]
    pub fn list(&self) -> Vec<Warning> {
        self.kept.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.count.store(0, Ordering::Relaxed);
        self.kept.lock().unwrap_or_else(|e| e.into_inner()).clear();
    }
}

/// Who is connected, and to what.
#[derive(Debug, Clone, Default)]
pub struct ConnectionInfo {
    pub connection_id: u64,
    /// `user@host` as the client came: USER().
    pub user: String,
    /// `user@host` of the account that was matched: CURRENT_USER().
    pub current_user: String,
    /// The current database: DATABASE().
    pub database: Option<String>,
    /// VERSION().
    pub version: String,
    /// CURRENT_ROLE().
    pub current_role: Option<String>,
}

/// Session user variables (`@a`); names are case-insensitive and stored in lower case.
#[derive(Debug, Default)]
pub struct UserVars(Mutex<HashMap<String, (Datum, FieldType)>>);

impl UserVars {
    /// The variable's value and type, if it was ever set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<(Datum, FieldType)> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).get(&name.to_lowercase()).cloned()
    }

    /// Sets the variable.
    pub fn set(&self, name: &str, value: Datum, field_type: FieldType) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).insert(name.to_lowercase(), (value, field_type));
    }

    /// Forgets all variables (COM_RESET_CONNECTION).
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).clear();
    }
}

/// What a value that does not convert cleanly leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBadValue {
    /// A warning, and the nearest value (SELECT; INSERT without strict mode; IGNORE).
    Warn,
    /// The statement fails (INSERT, UPDATE and DELETE in strict mode).
    Fail,
}

/// Everything an expression may look at besides its row. One per statement execution, shared by `Arc`.
#[derive(Debug)]
pub struct EvalContext {
    pub sql_mode: SqlMode,
    pub time_zone: TimeZone,
    /// The statement's start in microseconds since 1970 UTC: NOW() is the same all through a statement.
    pub now_micros: i64,
    /// Values of the `?` of a prepared statement or normalized text.
    pub params: Vec<Datum>,
    pub on_bad_value: OnBadValue,
    pub warnings: Arc<Warnings>,
    pub user_vars: Arc<UserVars>,
    pub connection: Arc<ConnectionInfo>,
    pub connection_collation: Collation,
    /// LAST_INSERT_ID(): as the previous statement left it. LAST_INSERT_ID(expr) stores into it.
    pub last_insert_id: Arc<AtomicU64>,
    /// FOUND_ROWS() of the previous statement.
    pub found_rows: u64,
    /// ROW_COUNT() of the previous statement.
    pub row_count: i64,
    pub div_precision_increment: u8,
    pub group_concat_max_len: u64,
    pub max_allowed_packet: u64,
    pub default_week_format: u8,
    /// System variables as `@@name` reads them, when the binder leaves them to evaluation.
    pub killed: Arc<AtomicBool>,
    /// State of RAND() with a constant seed and of UUID_SHORT(): a counter per statement.
    pub sequence: AtomicU64,
}

impl Default for EvalContext {
    fn default() -> EvalContext {
        EvalContext {
            sql_mode: SqlMode::DEFAULT,
            time_zone: TimeZone::utc(),
            now_micros: 0,
            params: Vec::new(),
            on_bad_value: OnBadValue::Warn,
            warnings: Arc::default(),
            user_vars: Arc::default(),
            connection: Arc::default(),
            connection_collation: Collation::DEFAULT,
            last_insert_id: Arc::default(),
            found_rows: 0,
            row_count: -1,
            div_precision_increment: 4,
            group_concat_max_len: 1024,
            max_allowed_packet: 64 << 20,
            default_week_format: 0,
            killed: Arc::default(),
            sequence: AtomicU64::new(0),
        }
    }
}

impl EvalContext {
    /// Raises `error` as a warning.
    pub fn warn(&self, error: &Error) {
        self.warnings.push(Level::Warning, error.code(), error.to_string());
    }

    /// Raises `error` as a note.
    pub fn note(&self, error: &Error) {
        self.warnings.push(Level::Note, error.code(), error.to_string());
    }

    /// A value did not convert cleanly: an error in a strict DML statement, else a warning.
    pub fn bad_value(&self, error: Error) -> Result<()> {
        match self.on_bad_value {
            OnBadValue::Fail => Err(error),
            OnBadValue::Warn => {
                self.warn(&error);
                Ok(())
            }
        }
    }

    /// A division by zero: NULL, with a warning or (in strict DML) an error when sql_mode says so.
    pub fn division_by_zero(&self) -> Result<()> {
        if self.sql_mode.contains(SqlMode::ERROR_FOR_DIVISION_BY_ZERO) {
            return self.bad_value(Error::DivisionByZero);
        }
        Ok(())
    }

    /// Fails when the statement was killed.
    pub fn check_killed(&self) -> Result<()> {
        if self.killed.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

impl EvalContext {
    /// A copy without the parameters and with its own warnings, for evaluating constants aside.
    #[must_use]
    pub fn for_folding(&self) -> EvalContext {
        EvalContext {
            sql_mode: self.sql_mode,
            time_zone: self.time_zone.clone(),
            now_micros: self.now_micros,
            params: Vec::new(),
            on_bad_value: self.on_bad_value,
            warnings: Arc::default(),
            user_vars: self.user_vars.clone(),
            connection: self.connection.clone(),
            connection_collation: self.connection_collation,
            last_insert_id: self.last_insert_id.clone(),
            found_rows: self.found_rows,
            row_count: self.row_count,
            div_precision_increment: self.div_precision_increment,
            group_concat_max_len: self.group_concat_max_len,
            max_allowed_packet: self.max_allowed_packet,
            default_week_format: self.default_week_format,
            killed: self.killed.clone(),
            sequence: AtomicU64::new(0),
        }
    }
}
