//! Runs `.slt` files against a MySQL-compatible server, each file in an empty database of its own.
//!
//! A cell is printed as the `mysql` client would print it, with `NULL` for NULL, `(empty)` for an empty string, and
//! bytes that are not printable UTF-8 in hexadecimal. Errors are compared by their number: `statement error 1062`.

use std::path::{Path, PathBuf};

use mysql_async::consts::ColumnType as MysqlColumnType;
use mysql_async::prelude::*;
use mysql_async::{Conn, OptsBuilder, Row, Value};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};

/// An error of the server or of the connection to it.
#[derive(Debug)]
pub struct Error(mysql_async::Error);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            mysql_async::Error::Server(e) => write!(f, "{}", e.code),
            other => write!(f, "{other}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<mysql_async::Error> for Error {
    fn from(e: mysql_async::Error) -> Self {
        Error(e)
    }
}

/// One connection of a test file.
pub struct Connection {
    conn: Option<Conn>,
    verbose_errors: bool,
}

impl Connection {
    /// Connects as root without a password.
    pub async fn open(host: &str, port: u16, database: Option<&str>) -> Result<Connection, Error> {
        let builder = OptsBuilder::default()
            .ip_or_hostname(host)
            .tcp_port(port)
            .user(Some("root"))
            .prefer_socket(Some(false))
            .db_name(database);
        let conn = Conn::new(builder).await?;
        Ok(Connection { conn: Some(conn), verbose_errors: std::env::var_os("SLT_VERBOSE").is_some() })
    }

    fn conn(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("connection used after shutdown")
    }
}

fn cell(value: Value) -> String {
    match value {
        Value::NULL => "NULL".to_string(),
        Value::Bytes(b) if b.is_empty() => "(empty)".to_string(),
        Value::Bytes(b) => match String::from_utf8(b) {
            Ok(s) if !s.chars().any(|c| c.is_control()) => s,
            Ok(s) => format!("0x{}", hex(s.as_bytes())),
            Err(e) => format!("0x{}", hex(e.as_bytes())),
        },
        other => other.as_sql(true),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

fn kind(column: MysqlColumnType) -> DefaultColumnType {
    use MysqlColumnType::*;
    match column {
        MYSQL_TYPE_TINY | MYSQL_TYPE_SHORT | MYSQL_TYPE_LONG | MYSQL_TYPE_LONGLONG | MYSQL_TYPE_INT24
        | MYSQL_TYPE_YEAR => DefaultColumnType::Integer,
        MYSQL_TYPE_FLOAT | MYSQL_TYPE_DOUBLE | MYSQL_TYPE_DECIMAL | MYSQL_TYPE_NEWDECIMAL => {
            DefaultColumnType::FloatingPoint
        }
        _ => DefaultColumnType::Text,
    }
}

#[async_trait::async_trait]
impl AsyncDB for Connection {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        let verbose = self.verbose_errors;
        let mut result = self.conn().query_iter(sql).await.inspect_err(|e| {
            if verbose {
                eprintln!("{sql}\n  {e}");
            }
        })?;
        let columns = result.columns().filter(|c| !c.is_empty());
        let Some(columns) = columns else {
            let affected = result.affected_rows();
            result.drop_result().await?;
            return Ok(DBOutput::StatementComplete(affected));
        };
        let types = columns.iter().map(|c| kind(c.column_type())).collect();
        let rows: Vec<Row> = result.collect().await?;
        result.drop_result().await?;
        let rows = rows.into_iter().map(|r| r.unwrap().into_iter().map(cell).collect()).collect();
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {
        if let Some(conn) = self.conn.take() {
            conn.disconnect().await.ok();
        }
    }

    fn engine_name(&self) -> &str {
        "mysql"
    }

    async fn sleep(dur: std::time::Duration) {
        tokio::time::sleep(dur).await;
    }
}

/// Every `.slt` file below `dir`, in order.
pub fn files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|e| e == "slt") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The folder of the cases: of the package that cargo runs, else below the folder this is run in.
#[must_use]
pub fn cases_dir() -> PathBuf {
    match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(package) => PathBuf::from(package).join("cases"),
        None => PathBuf::from("sqllogictest/cases"),
    }
}

/// What to do with a file's expected results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Compare them.
    Check,
    /// Replace them by what the server answers.
    Update,
}

/// Runs one file in a fresh database; the error says which record differs and how.
pub async fn run_file(host: &str, port: u16, file: &Path, mode: Mode) -> anyhow::Result<()> {
    let stem = file.file_stem().and_then(|s| s.to_str()).unwrap_or("case");
    let database = format!("slt_{stem}");
    let mut admin = Connection::open(host, port, None).await?;
    for statement in
        [format!("DROP DATABASE IF EXISTS `{database}`"), format!("CREATE DATABASE `{database}`")]
    {
        admin.run(&statement).await?;
    }
    let (host, db) = (host.to_string(), database.clone());
    let mut runner = sqllogictest::Runner::new(move || {
        let (host, db) = (host.clone(), db.clone());
        async move { Connection::open(&host, port, Some(&db)).await }
    });
    let outcome = match mode {
        Mode::Check => runner.run_file_async(file).await.map_err(|e| anyhow::anyhow!("{e}")),
        Mode::Update => runner
            .update_test_file(
                file,
                " ",
                sqllogictest::default_validator,
                sqllogictest::default_normalizer,
                sqllogictest::default_column_validator,
            )
            .await
            .map_err(|e| anyhow::anyhow!("{e}")),
    };
    runner.shutdown_async().await;
    admin.run(&format!("DROP DATABASE `{database}`")).await?;
    admin.shutdown().await;
    outcome
}
