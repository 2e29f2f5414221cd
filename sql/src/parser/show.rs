//! SHOW, DESCRIBE, EXPLAIN, HELP.

use crate::error::Result;

use super::ast::{Explain, ExplainTarget, Ident, ObjectName, Show, ShowFilter, ShowWhat, Statement};
use super::cursor::Parser;
use super::lexer::Tok;

impl Parser<'_> {
    pub fn show(&mut self) -> Result<Statement> {
        self.expect_kw("SHOW")?;
        let what = self.show_what()?;
        let filter = self.show_filter()?;
        Ok(Statement::Show(Show { what, filter }))
    }

    fn show_filter(&mut self) -> Result<Option<ShowFilter>> {
        if self.eat_kw("LIKE") {
            if !self.is(Tok::Str) {
                return Err(self.error());
            }
            return Ok(Some(ShowFilter::Like(self.string_bytes()?)));
        }
        if self.eat_kw("WHERE") {
            return Ok(Some(ShowFilter::Where(self.expr()?)));
        }
        Ok(None)
    }

    fn show_what(&mut self) -> Result<ShowWhat> {
        let extended = self.eat_kw("EXTENDED");
        let full = self.eat_kw("FULL");
        if full || extended {
            return match self.eat_any(&[
                "TABLES",
                "COLUMNS",
                "FIELDS",
                "PROCESSLIST",
                "INDEX",
                "INDEXES",
                "KEYS",
            ]) {
                Some("TABLES") => Ok(ShowWhat::Tables { full, extended, schema: self.from_schema()? }),
                Some("PROCESSLIST") if !extended => Ok(ShowWhat::ProcessList { full }),
                Some("INDEX" | "INDEXES" | "KEYS") if !full => {
                    Ok(ShowWhat::Index { extended, table: self.from_table()? })
                }
                Some("COLUMNS" | "FIELDS") => {
                    Ok(ShowWhat::Columns { full, extended, table: self.from_table()? })
                }
                _ => Err(self.error()),
            };
        }
        if let Some(scope) = self.eat_any(&["GLOBAL", "SESSION", "LOCAL"]) {
            let scope = Some(if scope == "GLOBAL" {
                super::ast::VarScope::Global
            } else {
                super::ast::VarScope::Session
            });
            return match self.eat_any(&["VARIABLES", "STATUS"]) {
                Some("VARIABLES") => Ok(ShowWhat::Variables { scope }),
                Some(_) => Ok(ShowWhat::Status { scope }),
                None => Err(self.error()),
            };
        }
        if self.is_kw("COUNT") {
            return self.show_count();
        }
        let at = self.tok.start;
        let word = self.upper_word()?;
        self.show_word(&word, at)
    }

    /// `COUNT(*) WARNINGS | ERRORS`
    fn show_count(&mut self) -> Result<ShowWhat> {
        self.bump();
        self.expect(Tok::LParen)?;
        self.expect(Tok::Star)?;
        self.expect(Tok::RParen)?;
        match self.eat_any(&["WARNINGS", "ERRORS"]) {
            Some("WARNINGS") => Ok(ShowWhat::Warnings { count: true, limit: None }),
            Some(_) => Ok(ShowWhat::Errors { count: true, limit: None }),
            None => Err(self.error()),
        }
    }

    fn show_word(&mut self, word: &str, at: usize) -> Result<ShowWhat> {
        Ok(match word {
            "DATABASES" | "SCHEMAS" => ShowWhat::Databases,
            "TABLES" => ShowWhat::Tables { full: false, extended: false, schema: self.from_schema()? },
            "TABLE" => {
                self.expect_kw("STATUS")?;
                ShowWhat::TableStatus { schema: self.from_schema()? }
            }
            "OPEN" => {
                self.expect_kw("TABLES")?;
                ShowWhat::OpenTables { schema: self.from_schema()? }
            }
            "COLUMNS" | "FIELDS" => {
                ShowWhat::Columns { full: false, extended: false, table: self.from_table()? }
            }
            "INDEX" | "INDEXES" | "KEYS" => ShowWhat::Index { extended: false, table: self.from_table()? },
            "CREATE" => return self.show_create(),
            "VARIABLES" => ShowWhat::Variables { scope: None },
            "STATUS" => ShowWhat::Status { scope: None },
            "WARNINGS" => ShowWhat::Warnings { count: false, limit: self.show_limit()? },
            "ERRORS" => ShowWhat::Errors { count: false, limit: self.show_limit()? },
            "PROCESSLIST" => ShowWhat::ProcessList { full: false },
            "ENGINES" => ShowWhat::Engines,
            "STORAGE" => {
                self.expect_kw("ENGINES")?;
                ShowWhat::Engines
            }
            "ENGINE" => {
                let name = self.ident_or_string()?;
                ShowWhat::Engine { name, what: self.upper_word()? }
            }
            "CHARSET" => ShowWhat::CharacterSet,
            "CHARACTER" | "CHAR" => {
                self.expect_kw("SET")?;
                ShowWhat::CharacterSet
            }
            "COLLATION" => ShowWhat::Collation,
            "GRANTS" => self.show_grants()?,
            "PRIVILEGES" => ShowWhat::Privileges,
            "PLUGINS" => ShowWhat::Plugins,
            "TRIGGERS" => ShowWhat::Triggers { schema: self.from_schema()? },
            "EVENTS" => ShowWhat::Events { schema: self.from_schema()? },
            "PROCEDURE" | "FUNCTION" => {
                if self.eat_kw("CODE") {
                    return self.unsupported("SHOW PROCEDURE CODE");
                }
                self.expect_kw("STATUS")?;
                if word == "PROCEDURE" { ShowWhat::ProcedureStatus } else { ShowWhat::FunctionStatus }
            }
            "MASTER" => match self.eat_any(&["STATUS", "LOGS"]) {
                Some("STATUS") => ShowWhat::BinaryLogStatus,
                Some(_) => ShowWhat::BinaryLogs,
                None => return Err(self.error()),
            },
            "BINARY" => {
                if self.eat_kws(&["LOG", "STATUS"]) {
                    ShowWhat::BinaryLogStatus
                } else {
                    self.expect_kw("LOGS")?;
                    ShowWhat::BinaryLogs
                }
            }
            "BINLOG" => {
                self.expect_kw("EVENTS")?;
                self.rest()?;
                ShowWhat::BinlogEvents
            }
            "REPLICAS" => ShowWhat::Replicas,
            "SLAVE" | "REPLICA" => match self.eat_any(&["STATUS", "HOSTS"]) {
                Some("STATUS") => {
                    self.rest()?;
                    ShowWhat::ReplicaStatus
                }
                Some(_) => ShowWhat::Replicas,
                None => return Err(self.error()),
            },
            "PROFILES" => ShowWhat::Profiles,
            "STATS_META" => ShowWhat::StatsMeta,
            "STATS_HISTOGRAMS" => ShowWhat::StatsHistograms,
            "STATS_HEALTHY" => ShowWhat::StatsHealthy,
            "PROFILE" => {
                self.rest()?;
                ShowWhat::Profile
            }
            "RELAYLOG" => return self.unsupported("SHOW RELAYLOG EVENTS"),
            "PARSE_TREE" => return self.unsupported("SHOW PARSE_TREE"),
            _ => return Err(self.error_at(at)),
        })
    }

    fn show_create(&mut self) -> Result<ShowWhat> {
        let at = self.tok.start;
        let word = self.upper_word()?;
        Ok(match word.as_str() {
            "TABLE" => ShowWhat::CreateTable(self.object_name()?),
            "VIEW" => ShowWhat::CreateView(self.object_name()?),
            "DATABASE" | "SCHEMA" => {
                let if_not_exists = self.eat_if_not_exists()?;
                ShowWhat::CreateDatabase { if_not_exists, name: self.ident()? }
            }
            "USER" => ShowWhat::CreateUser(Some(self.account()?)),
            "PROCEDURE" => ShowWhat::CreateRoutine { kind: "PROCEDURE", name: self.object_name()? },
            "FUNCTION" => ShowWhat::CreateRoutine { kind: "FUNCTION", name: self.object_name()? },
            "TRIGGER" => ShowWhat::CreateRoutine { kind: "TRIGGER", name: self.object_name()? },
            "EVENT" => ShowWhat::CreateRoutine { kind: "EVENT", name: self.object_name()? },
            _ => return Err(self.error_at(at)),
        })
    }

    fn show_grants(&mut self) -> Result<ShowWhat> {
        if !self.eat_kw("FOR") {
            return Ok(ShowWhat::Grants { user: None, using: Vec::new() });
        }
        let account = self.account()?;
        let using = if self.eat_kw("USING") { self.comma_list(Self::account)? } else { Vec::new() };
        Ok(ShowWhat::Grants { user: (!account.current).then_some(account), using })
    }

    /// `[LIMIT [offset,] count]` as (offset, count).
    fn show_limit(&mut self) -> Result<Option<(u64, u64)>> {
        if !self.eat_kw("LIMIT") {
            return Ok(None);
        }
        let first = self.unsigned()?;
        if self.eat(Tok::Comma) {
            return Ok(Some((first, self.unsigned()?)));
        }
        let offset = if self.eat_kw("OFFSET") { self.unsigned()? } else { 0 };
        Ok(Some((offset, first)))
    }

    /// `[FROM | IN schema]`
    fn from_schema(&mut self) -> Result<Option<Ident>> {
        if self.eat_any(&["FROM", "IN"]).is_some() { Ok(Some(self.ident()?)) } else { Ok(None) }
    }

    /// `FROM table [FROM schema]`
    fn from_table(&mut self) -> Result<ObjectName> {
        if self.eat_any(&["FROM", "IN"]).is_none() {
            return Err(self.error());
        }
        let mut table = self.object_name()?;
        if let Some(schema) = self.from_schema()? {
            table.schema = Some(schema);
        }
        Ok(table)
    }

    /// EXPLAIN and DESCRIBE.
    pub fn explain(&mut self) -> Result<Statement> {
        self.bump();
        let mut explain = Explain { analyze: false, format: None, target: ExplainTarget::Connection(0) };
        if self.eat_kw("ANALYZE") {
            explain.analyze = true;
        } else if self.eat_kw("EXTENDED") || self.eat_kw("PARTITIONS") {
            // Old spellings that mean the same.
        }
        if self.is_kw("FORMAT") && self.peek().kind == Tok::Eq {
            self.bump();
            self.bump();
            explain.format = Some(self.ident_or_string()?.to_ascii_uppercase());
        }
        if self.eat_kw("INTO") {
            return self.unsupported("EXPLAIN INTO");
        }
        if self.eat_kws(&["FOR", "CONNECTION"]) {
            explain.target = ExplainTarget::Connection(self.unsigned()?);
            return Ok(Statement::Explain(Box::new(explain)));
        }
        let explainable = self.at_query() || self.is_any(&["INSERT", "REPLACE", "UPDATE", "DELETE"]);
        // TABLE starts a query, but `DESC t` names a table.
        if explainable {
            explain.target = ExplainTarget::Statement(self.nested(Self::statement)?);
            return Ok(Statement::Explain(Box::new(explain)));
        }
        if explain.analyze || explain.format.is_some() {
            return Err(self.error());
        }
        let table = self.object_name()?;
        let column = match self.tok.kind {
            Tok::Str => Some(self.string()?),
            _ if self.is_ident() => Some(self.ident_any()?),
            _ => None,
        };
        Ok(Statement::Describe { table, column })
    }
}
