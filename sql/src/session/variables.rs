//! System variables: their values, scopes and conversions, and the settings derived from them that every statement reads.

use std::sync::Arc;

use ahash::AHashMap;
use rutile_client::ReadFrom;
use rutile_expr::SqlMode;
use rutile_expr::types::{Charset, Collation, Datum, FieldType, TimeZone};

use super::variable_table::{Kind, Scopes, VARIABLES, Variable, find};
use crate::context::{Isolation, VariableScope};
use crate::parser::ParseOptions;
use crate::{Error, Result};

/// A variable's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Only of `CharsetOrNull`.
    Null,
    /// ON or OFF.
    Bool(bool),
    /// A number.
    UInt(u64),
    /// A floating point number.
    Double(f64),
    /// Everything else.
    Text(Arc<str>),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<Arc<str>>) -> Value {
        Value::Text(text.into())
    }

    /// As SHOW VARIABLES prints it.
    pub fn show(&self) -> String {
        match self {
            Value::Null => String::new(),
            Value::Bool(on) => if *on { "ON" } else { "OFF" }.to_owned(),
            Value::UInt(number) => number.to_string(),
            Value::Double(number) => format!("{number:.6}"),
            Value::Text(text) => text.to_string(),
        }
    }

    /// As `SELECT @@x` gives it, with its type.
    pub fn datum(&self) -> (Datum, FieldType) {
        let text = |text: &str| FieldType::varchar(text.chars().count() as u32, Collation::DEFAULT);
        match self {
            Value::Null => (Datum::Null, text("")),
            Value::Bool(on) => (Datum::Int(i64::from(*on)), FieldType::bigint().with_flen(1)),
            Value::UInt(number) => (Datum::UInt(*number), FieldType::bigint_unsigned()),
            Value::Double(number) => (Datum::Double(*number), FieldType::double().with_decimals(6)),
            Value::Text(value) => (Datum::String(value.to_string()), text(value)),
        }
    }

    /// The number of a `UInt`, 0 of anything else.
    pub fn as_u64(&self) -> u64 {
        match self {
            Value::UInt(number) => *number,
            Value::Bool(on) => u64::from(*on),
            Value::Null | Value::Double(_) | Value::Text(_) => 0,
        }
    }

    /// Whether it is ON.
    pub fn is_on(&self) -> bool {
        matches!(self, Value::Bool(true))
    }

    /// The text, empty for what is none.
    pub fn as_str(&self) -> &str {
        if let Value::Text(text) = self { text } else { "" }
    }
}

/// The values that differ from the table's defaults.
pub type Values = AHashMap<&'static str, Value>;

/// The variable of this name, or error 1193.
pub fn lookup(name: &str) -> Result<&'static Variable> {
    find(name).ok_or_else(|| Error::UnknownVariable { name: name.to_owned() })
}

fn default_of(variable: &Variable) -> Value {
    let text = variable.default;
    match variable.kind {
        Kind::Bool | Kind::FixedBool => Value::Bool(matches!(text, "ON" | "YES")),
        Kind::UInt(..) => Value::UInt(text.parse().expect("the table's defaults are numbers")),
        Kind::Double(..) => Value::Double(text.parse().expect("the table's defaults are numbers")),
        Kind::CharsetOrNull if text == "NULL" => Value::Null,
        _ => Value::text(text),
    }
}

/// The value of a variable among `values`.
pub fn value_in(values: &Values, variable: &'static Variable) -> Value {
    values.get(variable.name).cloned().unwrap_or_else(|| default_of(variable))
}

fn show_datum(datum: &Datum) -> String {
    match datum {
        Datum::Null => "NULL".to_owned(),
        Datum::Int(number) => number.to_string(),
        Datum::UInt(number) => number.to_string(),
        Datum::Double(number) => number.to_string(),
        Datum::Decimal(number) => number.to_string(),
        Datum::String(text) => text.clone(),
        Datum::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Datum::Time(time) => time.format_datetime(6),
        Datum::Duration(duration) => duration.format(6),
    }
}

/// A value of SET brought to the variable's type. Numbers out of bounds are cut and reported in `cut`.
pub fn coerce(variable: &'static Variable, datum: &Datum, cut: &mut bool) -> Result<Value> {
    let wrong_value =
        || Error::WrongValueForVariable { name: variable.name.to_owned(), value: show_datum(datum) };
    let wrong_type = || Error::WrongTypeForVariable { name: variable.name.to_owned() };
    match variable.kind {
        Kind::Bool => as_bool(datum).map(Value::Bool).ok_or_else(wrong_value),
        Kind::FixedBool => {
            let on = as_bool(datum).ok_or_else(wrong_value)?;
            refuse_change(variable, Value::Bool(on))
        }
        Kind::FixedText => refuse_change(variable, Value::text(show_datum(datum))),
        Kind::UInt(low, high) => {
            let number = match datum {
                Datum::UInt(number) => *number,
                Datum::Int(number) => u64::try_from(*number).unwrap_or_else(|_| {
                    *cut = true;
                    low
                }),
                _ => return Err(wrong_type()),
            };
            *cut |= number < low || number > high;
            Ok(Value::UInt(number.clamp(low, high)))
        }
        Kind::Double(low, high) => {
            let number = match datum {
                Datum::UInt(number) => *number as f64,
                Datum::Int(number) => *number as f64,
                Datum::Double(number) => *number,
                Datum::Decimal(number) => number.to_f64(),
                _ => return Err(wrong_type()),
            };
            *cut |= number < low || number > high;
            Ok(Value::Double(number.clamp(low, high)))
        }
        Kind::Enum(words) => as_word(datum, words).map(Value::text).ok_or_else(wrong_value),
        Kind::Text => match datum {
            Datum::Null => Err(wrong_value()),
            _ => Ok(Value::text(show_datum(datum))),
        },
        Kind::Charset | Kind::CharsetOrNull => match datum {
            Datum::Null if variable.kind == Kind::CharsetOrNull => Ok(Value::Null),
            Datum::Null => Err(wrong_value()),
            _ => as_charset(datum).map(|charset| Value::text(charset.name())),
        },
        Kind::Collation => match datum {
            Datum::Null => Err(wrong_value()),
            _ => as_collation(datum).map(|collation| Value::text(collation.name())),
        },
        Kind::SqlMode => as_sql_mode(datum).map(|mode| Value::text(mode.to_string())).ok_or_else(wrong_value),
        Kind::TimeZone => {
            let text = show_datum(datum);
            let zone = TimeZone::parse(&text).map_err(|_| Error::UnknownTimeZone { zone: text.clone() })?;
            Ok(Value::text(if text.eq_ignore_ascii_case("SYSTEM") { "SYSTEM" } else { zone.name() }))
        }
        Kind::Isolation => {
            const LEVELS: &[&str] =
                &["READ-UNCOMMITTED", "READ-COMMITTED", "REPEATABLE-READ", "SERIALIZABLE"];
            as_word(datum, LEVELS).map(Value::text).ok_or_else(wrong_value)
        }
    }
}

fn refuse_change(variable: &'static Variable, value: Value) -> Result<Value> {
    let default = default_of(variable);
    let same = value.show().eq_ignore_ascii_case(&default.show());
    match same {
        true => Ok(default),
        false => Err(Error::not_supported(format!("SET {} = {}", variable.name, value.show()))),
    }
}

fn as_bool(datum: &Datum) -> Option<bool> {
    match datum {
        Datum::Int(0) | Datum::UInt(0) => Some(false),
        Datum::Int(1) | Datum::UInt(1) => Some(true),
        Datum::String(text) if ["ON", "TRUE", "1"].iter().any(|w| w.eq_ignore_ascii_case(text)) => Some(true),
        Datum::String(text) if ["OFF", "FALSE", "0"].iter().any(|w| w.eq_ignore_ascii_case(text)) => {
            Some(false)
        }
        _ => None,
    }
}

fn as_word(datum: &Datum, words: &'static [&'static str]) -> Option<&'static str> {
    match datum {
        Datum::Int(number) => usize::try_from(*number).ok().and_then(|index| words.get(index).copied()),
        Datum::UInt(number) => usize::try_from(*number).ok().and_then(|index| words.get(index).copied()),
        Datum::String(text) => words.iter().copied().find(|word| word.eq_ignore_ascii_case(text)),
        _ => None,
    }
}

fn as_charset(datum: &Datum) -> Result<Charset> {
    match datum {
        Datum::Int(id) => collation_of_id(*id).map(Collation::charset),
        _ => Ok(Charset::from_name(&show_datum(datum))?),
    }
}

fn as_collation(datum: &Datum) -> Result<Collation> {
    match datum {
        Datum::Int(id) => collation_of_id(*id),
        _ => Ok(Collation::from_name(&show_datum(datum))?),
    }
}

fn collation_of_id(id: i64) -> Result<Collation> {
    let known = u16::try_from(id).ok().and_then(Collation::from_id);
    known.ok_or_else(|| Error::UnknownCollation { collation: id.to_string() })
}

fn as_sql_mode(datum: &Datum) -> Option<SqlMode> {
    match datum {
        Datum::Int(bits) => Some(SqlMode(u64::try_from(*bits).ok()?)),
        Datum::UInt(bits) => Some(SqlMode(*bits)),
        Datum::String(text) => SqlMode::parse(text).ok(),
        _ => None,
    }
}

/// The variables of one session, over the globals as they were when it began.
#[derive(Debug, Clone)]
pub struct SessionVariables {
    globals: Arc<Values>,
    own: Values,
    /// What statements read.
    pub derived: Arc<Derived>,
}

/// What statements read of the variables, decoded.
#[derive(Debug, Clone)]
pub struct Derived {
    /// `sql_mode`
    pub sql_mode: SqlMode,
    /// What of it the parser reads.
    pub parse: ParseOptions,
    /// `time_zone`
    pub time_zone: TimeZone,
    /// `timestamp`, if SET gave one: microseconds.
    pub timestamp_micros: Option<i64>,
    /// `autocommit`
    pub autocommit: bool,
    /// `transaction_isolation`
    pub isolation: Isolation,
    /// `transaction_read_only`
    pub read_only: bool,
    /// `rutile_txn_mode` is optimistic.
    pub optimistic: bool,
    /// `rutile_coprocessor`
    pub coprocessor: bool,
    /// `rutile_scan_concurrency`
    pub scan_concurrency: usize,
    /// `rutile_replica_read`
    pub read_from: ReadFrom,
    /// `rutile_read_staleness`; 0 is none.
    pub read_staleness_s: u64,
    /// `character_set_client`
    pub client_charset: Charset,
    /// `collation_connection`
    pub connection_collation: Collation,
    /// `character_set_results` with the collation id column definitions carry; `None` sends everything as it is.
    pub results: Option<(Charset, u16)>,
    /// `max_execution_time`; 0 is no limit.
    pub max_execution_ms: u64,
    /// `max_allowed_packet`
    pub max_allowed_packet: u64,
    /// `group_concat_max_len`
    pub group_concat_max_len: u64,
    /// `div_precision_increment`
    pub div_precision_increment: u8,
    /// `default_week_format`
    pub default_week_format: u8,
    /// `max_error_count`
    pub max_error_count: usize,
    /// `innodb_lock_wait_timeout`
    pub lock_wait_timeout_ms: u64,
    /// `sql_select_limit`
    pub select_limit_rows: u64,
    /// `sql_safe_updates`
    pub safe_updates: bool,
    /// `auto_increment_increment`, `auto_increment_offset`
    pub auto_increment: (u64, u64),
    /// `foreign_key_checks`
    pub foreign_key_checks: bool,
    /// `unique_checks`
    pub unique_checks: bool,
    /// `wait_timeout`
    pub wait_timeout_s: u64,
    /// `completion_type`: CHAIN or RELEASE.
    pub completion: (bool, bool),
    /// `rutile_text_plan_cache`
    pub text_plan_cache: bool,
    /// `session_track_schema`
    pub track_schema: bool,
    /// `session_track_system_variables`
    pub track_variables: Arc<str>,
}

impl SessionVariables {
    /// A new session's.
    pub fn new(globals: Arc<Values>) -> SessionVariables {
        let derived =
            Arc::new(derive(&|name| value_in(&globals, lookup(name).expect("a name of the table"))));
        SessionVariables { globals, own: Values::default(), derived }
    }

    /// The value in this session: its own, or the global it began with.
    pub fn get(&self, variable: &'static Variable) -> Value {
        self.own.get(variable.name).cloned().unwrap_or_else(|| value_in(&self.globals, variable))
    }

    /// The value of a variable that is known to exist.
    pub fn get_known(&self, name: &'static str) -> Value {
        self.get(lookup(name).expect("a name of the table"))
    }

    /// Sets values together, then derives settings from them.
    pub fn set(&mut self, values: impl IntoIterator<Item = (&'static str, Value)>) {
        self.own.extend(values);
        self.derived = Arc::new(derive(&|name| self.get_known(name)));
    }

    /// The value `SET x = DEFAULT` gives: the global one.
    pub fn default_value(&self, variable: &'static Variable, globals: &Values) -> Value {
        match variable.scopes {
            Scopes::Both => value_in(globals, variable),
            Scopes::Global | Scopes::Session => default_of(variable),
        }
    }
}

/// The compiled-in default: what `SET GLOBAL x = DEFAULT` gives.
pub fn compiled_default(variable: &'static Variable) -> Value {
    default_of(variable)
}

fn derive(get: &dyn Fn(&'static str) -> Value) -> Derived {
    let sql_mode = SqlMode::parse(get("sql_mode").as_str()).unwrap_or(SqlMode::DEFAULT);
    let charset = |name| Charset::from_name(get(name).as_str()).unwrap_or(Charset::Utf8mb4);
    let results = match get("character_set_results") {
        Value::Null => None,
        value => Charset::from_name(value.as_str()).ok().filter(|charset| *charset != Charset::Binary),
    };
    let timestamp = match get("timestamp") {
        Value::Double(seconds) if seconds > 0.0 => Some((seconds * 1e6).round() as i64),
        _ => None,
    };
    let number = |name| get(name).as_u64();
    let completion = get("completion_type");
    Derived {
        sql_mode,
        parse: ParseOptions {
            ansi_quotes: sql_mode.contains(SqlMode::ANSI_QUOTES),
            pipes_as_concat: sql_mode.contains(SqlMode::PIPES_AS_CONCAT),
            no_backslash_escapes: sql_mode.contains(SqlMode::NO_BACKSLASH_ESCAPES),
            high_not_precedence: sql_mode.contains(SqlMode::HIGH_NOT_PRECEDENCE),
            ignore_space: sql_mode.contains(SqlMode::IGNORE_SPACE),
        },
        time_zone: TimeZone::parse(get("time_zone").as_str()).unwrap_or_else(|_| TimeZone::system()),
        timestamp_micros: timestamp,
        autocommit: get("autocommit").is_on(),
        isolation: match get("transaction_isolation").as_str() {
            "READ-COMMITTED" => Isolation::ReadCommitted,
            _ => Isolation::RepeatableRead,
        },
        read_only: get("transaction_read_only").is_on(),
        optimistic: get("rutile_txn_mode").as_str() == "optimistic",
        coprocessor: get("rutile_coprocessor").is_on(),
        scan_concurrency: number("rutile_scan_concurrency") as usize,
        read_from: match get("rutile_replica_read").as_str() {
            "follower" => ReadFrom::Follower,
            "leader-and-follower" => ReadFrom::Any,
            _ => ReadFrom::Leader,
        },
        read_staleness_s: number("rutile_read_staleness"),
        client_charset: charset("character_set_client"),
        connection_collation: Collation::from_name(get("collation_connection").as_str())
            .unwrap_or(Collation::DEFAULT),
        results: results.map(|charset| (charset, charset.default_collation().id())),
        max_execution_ms: number("max_execution_time"),
        max_allowed_packet: number("max_allowed_packet"),
        group_concat_max_len: number("group_concat_max_len"),
        div_precision_increment: number("div_precision_increment") as u8,
        default_week_format: number("default_week_format") as u8,
        max_error_count: number("max_error_count") as usize,
        lock_wait_timeout_ms: number("innodb_lock_wait_timeout").saturating_mul(1000),
        select_limit_rows: number("sql_select_limit"),
        safe_updates: get("sql_safe_updates").is_on(),
        auto_increment: (number("auto_increment_increment"), number("auto_increment_offset")),
        foreign_key_checks: get("foreign_key_checks").is_on(),
        unique_checks: get("unique_checks").is_on(),
        text_plan_cache: get("rutile_text_plan_cache").is_on(),
        wait_timeout_s: number("wait_timeout"),
        completion: (completion.as_str() == "CHAIN", completion.as_str() == "RELEASE"),
        track_schema: get("session_track_schema").is_on(),
        track_variables: get("session_track_system_variables").as_str().into(),
    }
}

/// All variables of a scope by name, as SHOW VARIABLES prints them.
pub fn list(scope: VariableScope, get: impl Fn(&'static Variable) -> Value) -> Vec<(String, String)> {
    let in_scope =
        |variable: &&Variable| scope == VariableScope::Session || variable.scopes != Scopes::Session;
    VARIABLES
        .iter()
        .filter(in_scope)
        .map(|variable| (variable.name.to_owned(), get(variable).show()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, datum: Datum) -> Result<Value> {
        coerce(lookup(name).unwrap(), &datum, &mut false)
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_of_their_types() {
        let names: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names.len(), sorted.len());
        VARIABLES.iter().for_each(|variable| drop(default_of(variable)));
        let variables = SessionVariables::new(Arc::default());
        assert!(variables.derived.autocommit);
        assert_eq!(variables.derived.sql_mode, SqlMode::DEFAULT);
    }

    #[test]
    fn values_are_converted_or_refused_as_mysql_does() {
        assert_eq!(set("autocommit", Datum::from("off")), Ok(Value::Bool(false)));
        assert_eq!(set("autocommit", Datum::Int(2)).unwrap_err().code(), 1231);
        assert_eq!(set("max_error_count", Datum::from("x")).unwrap_err().code(), 1232);
        let mut cut = false;
        let value = coerce(lookup("div_precision_increment").unwrap(), &Datum::Int(99), &mut cut);
        assert_eq!((value, cut), (Ok(Value::UInt(30)), true));
        assert_eq!(set("sql_mode", Datum::from("nonsense")).unwrap_err().code(), 1231);
        assert_eq!(set("character_set_client", Datum::from("klingon")).unwrap_err().code(), 1115);
        assert_eq!(
            set("transaction_isolation", Datum::from("read-committed")),
            Ok(Value::text("READ-COMMITTED"))
        );
        assert_eq!(set("sql_auto_is_null", Datum::Int(0)), Ok(Value::Bool(false)));
        assert_eq!(set("sql_auto_is_null", Datum::Int(1)).unwrap_err().code(), 1235);
        assert_eq!(lookup("no_such_thing").unwrap_err().code(), 1193);
    }
}
