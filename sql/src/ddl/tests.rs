//! CREATE TABLE against what a real MySQL prints and refuses.

use rutile_expr::EvalContext;
use rutile_expr::types::Collation;

use super::create_table;
use crate::Result;
use crate::catalog::model::TableInfo;
use crate::catalog::show_create;
use crate::parser::ast::Statement;
use crate::parser::{ParseOptions, parse_one};

fn build(sql: &str) -> Result<TableInfo> {
    match parse_one(sql.as_bytes(), ParseOptions::default())?.statement {
        Statement::CreateTable(create) => {
            create_table::build(&create, Collation::DEFAULT, &EvalContext::default())
        }
        other => panic!("not CREATE TABLE: {other:?}"),
    }
}

/// Blocks of a statement and what SHOW CREATE TABLE prints, with an empty line between.
#[test]
fn shows_tables_as_mysql_does() {
    for block in include_str!("testdata/create_table.txt").split("\n\n") {
        let (sql, expected) = block.trim_end().split_once('\n').expect("a statement and its answer");
        let table = build(sql).unwrap_or_else(|error| panic!("{sql}\n{error}"));
        assert_eq!(show_create::table(&table, table.auto_increment), expected, "{sql}");
    }
}

/// Pairs of lines: a statement, and the error's number and text.
#[test]
fn refuses_tables_as_mysql_does() {
    let mut lines = include_str!("testdata/refused.txt").lines();
    let mut wrong = Vec::new();
    while let (Some(sql), Some(expected)) = (lines.next(), lines.next()) {
        let answer = match build(sql) {
            Ok(_) => "accepted".to_string(),
            Err(error) => format!("{} {error}", error.code()),
        };
        if answer != expected {
            wrong.push(format!("{sql}\n  ours  {answer}\n  MySQL {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A table survives being stored.
#[test]
fn stored_form_gives_the_table_back() {
    for block in include_str!("testdata/create_table.txt").split("\n\n") {
        let sql = block.lines().next().expect("a statement");
        let table = build(sql).unwrap_or_else(|error| panic!("{sql}\n{error}"));
        let text = serde_json::to_string(&table).expect("a table can be written");
        assert_eq!(serde_json::from_str::<TableInfo>(&text).expect("and read"), table, "{sql}");
    }
}
