//! Plans of statements, as scripts: a statement, then what EXPLAIN prints of it or the error it gets. `UPDATE_GOLDENFILES=1` writes
//! what the scripts answer now; read the diff.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use rutile_client::{
    Client, PdRequest, PdResponse, StoreRequest, StoreResponse, Timestamp, Transport, TransportError, TxnMode,
};
use rutile_expr::EvalContext;
use rutile_expr::types::{Collation, Datum, FieldType};
use rutile_proto::ids::{ClusterId, StoreId};
use tokio_util::sync::CancellationToken;

use super::{BindContext, plan};
use crate::catalog::model::{DatabaseId, DatabaseInfo, InfoSchema, TableId, TableInfo};
use crate::context::{
    Effects, Environment, Process, Settings, StatementContext, StatementTxn, VariableScope,
};
use crate::error::{Error, Result};
use crate::parser::{ParseOptions, ast, parse_first};
use crate::plan::explain::describe;

struct NoCluster;

#[async_trait]
impl Transport for NoCluster {
    fn cluster_id(&self) -> ClusterId {
        ClusterId::new(1).expect("not zero")
    }

    async fn tso(&self, _: u32) -> Result<Timestamp, TransportError> {
        Err(TransportError::not_sent("no cluster"))
    }

    async fn pd(&self, _: PdRequest) -> Result<PdResponse, TransportError> {
        Err(TransportError::not_sent("no cluster"))
    }

    async fn store(&self, _: StoreId, _: StoreRequest) -> Result<StoreResponse, TransportError> {
        Err(TransportError::not_sent("no cluster"))
    }
}

struct NoServer;

impl Environment for NoServer {
    fn variable(&self, _: Option<VariableScope>, name: &str) -> Result<(Datum, FieldType)> {
        match name {
            "autocommit" => Ok((Datum::Int(1), FieldType::bigint())),
            name => Err(Error::UnknownVariable { name: name.to_owned() }),
        }
    }

    fn variables(&self, _: VariableScope) -> Vec<(String, String)> {
        Vec::new()
    }

    fn status(&self, _: VariableScope) -> Vec<(String, String)> {
        Vec::new()
    }

    fn processes(&self) -> Vec<Process> {
        Vec::new()
    }

    fn remarks(&self) -> Vec<rutile_expr::context::Warning> {
        Vec::new()
    }

    fn account<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
    ) -> futures::future::BoxFuture<'a, Result<Option<crate::context::AccountWords>>> {
        Box::pin(async { Ok(None) })
    }

    fn current_grants(&self) -> Vec<String> {
        Vec::new()
    }

    fn current_user(&self) -> (String, String) {
        ("root".to_owned(), "%".to_owned())
    }
}

fn parse(sql: &str) -> Result<(ast::Statement, usize)> {
    parse_first(sql.as_bytes(), ParseOptions::default()).map(|parsed| (parsed.statement, parsed.params))
}

fn context(tables: &[Arc<TableInfo>]) -> StatementContext {
    let client = Client::new(Arc::new(NoCluster));
    let db = DatabaseInfo { id: DatabaseId(1), name: "test".to_owned(), collation: Collation::DEFAULT };
    StatementContext {
        connection_id: 1,
        client: client.clone(),
        schema: Arc::new(InfoSchema::new(1, [(db, tables.to_vec())])),
        database: Some("test".to_owned()),
        eval: Arc::new(EvalContext::default()),
        txn: StatementTxn::autocommit(client, TxnMode::Optimistic, false),
        environment: Arc::new(NoServer),
        settings: Settings::default(),
        effects: Effects::default(),
        cancel: CancellationToken::new(),
        local_files: None,
        statistics: Arc::default(),
    }
}

/// One statement's answer.
fn answer(sql: &str, tables: &mut Vec<Arc<TableInfo>>) -> String {
    let (statement, params) = match parse(sql) {
        Ok(parsed) => parsed,
        Err(error) => return format!("ERROR {}: {error}\n", error.code()),
    };
    let ctx = context(tables);
    if let ast::Statement::CreateTable(create) = &statement {
        let mut table =
            crate::ddl::create_table::build(create, Collation::DEFAULT, &ctx.eval).expect("a table");
        table.id = TableId(100 + tables.len() as i64);
        tables.push(Arc::new(table));
        return String::new();
    }
    let types = vec![FieldType::bigint(); params];
    match plan(&statement, params, BindContext { statement: &ctx, param_types: &types }) {
        Err(error) => format!("ERROR {}: {error}\n", error.code()),
        Ok(plan) => {
            let mut out = String::new();
            for line in describe(&plan, &|_| None) {
                let _ = writeln!(out, "{}", line.join(" | ").trim_end_matches([' ', '|']));
            }
            out
        }
    }
}

fn run(name: &str) {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo"))
        .join("src/binder/goldens")
        .join(name);
    let script = std::fs::read_to_string(&path).expect("the script");
    let mut tables = Vec::new();
    let mut out = String::new();
    for block in script.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        let sql: Vec<&str> = block.lines().take_while(|line| *line != "----").collect();
        let sql = sql.join("\n");
        let statement: Vec<&str> = sql.lines().filter(|line| !line.starts_with('#')).collect();
        let answer =
            if statement.is_empty() { String::new() } else { answer(&statement.join("\n"), &mut tables) };
        let _ = match answer.is_empty() {
            true => write!(out, "{sql}\n\n"),
            false => write!(out, "{sql}\n----\n{answer}\n"),
        };
    }
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::write(&path, out).expect("the script is writable");
        return;
    }
    assert!(script == out, "{name} answers differently; UPDATE_GOLDENFILES=1 shows it as a diff:\n{out}");
}

#[test]
fn access_paths() {
    run("access_paths.txt");
}

#[test]
fn rules() {
    run("rules.txt");
}

#[test]
fn names() {
    run("names.txt");
}

#[test]
fn changes() {
    run("changes.txt");
}

#[test]
fn tpch() {
    run("tpch.txt");
}
