//! The driver: which rule reads a statement, and the statements too small for a file of their own.

use crate::error::Result;

use super::ast::{
    Analyze, Begin, EndTransaction, FlushWhat, HistogramClause, Kill, MaintenanceVerb, PrepareSource, Query,
    Statement, TableLock,
};
use super::cursor::Parser;
use super::lexer::Tok;

/// Buckets of a histogram when the statement does not say how many.
const HISTOGRAM_BUCKETS: u32 = 100;
const HISTOGRAM_BUCKETS_MAX: u64 = 1024;

impl Parser<'_> {
    /// One statement, without its semicolon.
    pub fn statement(&mut self) -> Result<Statement> {
        if self.is(Tok::LParen) {
            return Ok(Statement::Query(Box::new(self.query()?)));
        }
        if !self.is(Tok::Word) {
            return Err(self.error());
        }
        let word = self.bytes(self.tok);
        let mut upper = [0u8; 12];
        if word.len() > upper.len() {
            return Err(self.error());
        }
        let upper = &mut upper[..word.len()];
        upper.copy_from_slice(word);
        upper.make_ascii_uppercase();
        match &*upper {
            b"SELECT" | b"VALUES" | b"TABLE" => self.query_statement(None),
            b"INSERT" | b"REPLACE" => self.insert(),
            b"UPDATE" => self.update(None),
            b"DELETE" => self.delete(None),
            b"WITH" => self.with_statement(),
            b"SET" => self.set(),
            b"BEGIN" | b"START" => self.begin(),
            b"COMMIT" | b"ROLLBACK" | b"SAVEPOINT" | b"RELEASE" => self.transaction_end(),
            b"SHOW" => self.show(),
            b"EXPLAIN" | b"DESCRIBE" | b"DESC" => self.explain(),
            b"USE" => {
                self.bump();
                Ok(Statement::Use(self.ident()?))
            }
            b"CREATE" => self.create(),
            b"ALTER" => self.alter(),
            b"DROP" => self.drop(),
            b"RENAME" => self.rename(),
            b"TRUNCATE" => {
                self.bump();
                self.eat_kw("TABLE");
                Ok(Statement::TruncateTable(self.object_name()?))
            }
            b"LOAD" => self.load_data(),
            b"GRANT" => self.grant(),
            b"REVOKE" => self.revoke(),
            _ => self.rare_statement(&String::from_utf8_lossy(upper)),
        }
    }

    fn query_statement(&mut self, with: Option<super::ast::With>) -> Result<Statement> {
        let query: Query = self.query_after_with(with)?;
        Ok(Statement::Query(Box::new(query)))
    }

    /// `WITH … SELECT | UPDATE | DELETE`
    fn with_statement(&mut self) -> Result<Statement> {
        let with = Some(self.with_clause()?);
        if self.is_kw("UPDATE") {
            self.update(with)
        } else if self.is_kw("DELETE") {
            self.delete(with)
        } else {
            self.query_statement(with)
        }
    }

    fn rare_statement(&mut self, word: &str) -> Result<Statement> {
        match word {
            "PREPARE" | "EXECUTE" | "DEALLOCATE" => self.prepared(word),
            "DO" => {
                self.bump();
                Ok(Statement::Do(self.comma_list(|p| {
                    let expr = p.expr()?;
                    if p.eat_kw("AS") {
                        p.ident_or_string()?;
                    }
                    Ok(expr)
                })?))
            }
            "KILL" => {
                self.bump();
                let query = self.eat_any(&["CONNECTION", "QUERY"]) == Some("QUERY");
                Ok(Statement::Kill(Kill { query, id: self.expr()? }))
            }
            "LOCK" | "UNLOCK" => self.lock_tables(word == "LOCK"),
            "FLUSH" => self.flush(),
            "ANALYZE" | "CHECK" | "CHECKSUM" | "OPTIMIZE" | "REPAIR" => self.maintenance(word),
            "HELP" => {
                self.bump();
                Ok(Statement::Help(self.ident_or_string()?))
            }
            "SHUTDOWN" => {
                self.bump();
                Ok(Statement::Shutdown)
            }
            "CALL" | "HANDLER" | "XA" | "INSTALL" | "UNINSTALL" | "CHANGE" | "RESET" | "STOP" | "PURGE"
            | "BINLOG" | "CACHE" | "CLONE" | "IMPORT" | "SIGNAL" | "RESIGNAL" | "GET" | "RESTART" => {
                self.unsupported(word)
            }
            _ => Err(self.error()),
        }
    }

    fn begin(&mut self) -> Result<Statement> {
        let mut begin = Begin::default();
        if self.eat_kw("BEGIN") {
            self.eat_kw("WORK");
            return Ok(Statement::Begin(begin));
        }
        self.bump();
        if self.is_any(&["REPLICA", "SLAVE", "GROUP_REPLICATION"]) {
            return self.unsupported("START REPLICA");
        }
        self.expect_kw("TRANSACTION")?;
        while self.is_any(&["READ", "WITH"]) {
            if self.eat_kw("READ") {
                begin.read_only = Some(match self.eat_any(&["ONLY", "WRITE"]) {
                    Some(word) => word == "ONLY",
                    None => return Err(self.error()),
                });
                if begin.read_only == Some(true) && self.eat_kw("AS") {
                    self.expect_kws(&["OF", "TIMESTAMP"])?;
                    begin.as_of = Some(self.expr()?);
                }
            } else {
                self.expect_kws(&["WITH", "CONSISTENT", "SNAPSHOT"])?;
                begin.consistent_snapshot = true;
            }
            if !self.eat(Tok::Comma) {
                break;
            }
        }
        Ok(Statement::Begin(begin))
    }

    fn transaction_end(&mut self) -> Result<Statement> {
        if self.eat_kw("SAVEPOINT") {
            return Ok(Statement::Savepoint(self.ident()?));
        }
        if self.eat_kw("RELEASE") {
            self.expect_kw("SAVEPOINT")?;
            return Ok(Statement::ReleaseSavepoint(self.ident()?));
        }
        let commit = self.upper_word()? == "COMMIT";
        self.eat_kw("WORK");
        if !commit && self.eat_kw("TO") {
            self.eat_kw("SAVEPOINT");
            return Ok(Statement::RollbackTo(self.ident()?));
        }
        let mut end = EndTransaction::default();
        if self.eat_kw("AND") {
            let no = self.eat_kw("NO");
            self.expect_kw("CHAIN")?;
            end.chain = Some(!no);
        }
        if self.is_kw("NO") || self.is_kw("RELEASE") {
            let no = self.eat_kw("NO");
            self.expect_kw("RELEASE")?;
            end.release = Some(!no);
        }
        Ok(if commit { Statement::Commit(end) } else { Statement::Rollback(end) })
    }

    fn prepared(&mut self, word: &str) -> Result<Statement> {
        self.bump();
        if word == "DEALLOCATE" {
            self.expect_kw("PREPARE")?;
            return Ok(Statement::Deallocate { name: self.ident()? });
        }
        let name = self.ident()?;
        if word == "PREPARE" {
            self.expect_kw("FROM")?;
            let source = match self.tok.kind {
                Tok::UserVar => {
                    let token = self.bump();
                    PrepareSource::UserVar(self.user_var_name(token)?)
                }
                Tok::Str => PrepareSource::Text(self.string_bytes()?),
                _ => return Err(self.error()),
            };
            return Ok(Statement::Prepare { name, source });
        }
        let using = if self.eat_kw("USING") {
            self.comma_list(|p| {
                let token = p.expect(Tok::UserVar)?;
                p.user_var_name(token)
            })?
        } else {
            Vec::new()
        };
        Ok(Statement::Execute { name, using })
    }

    fn lock_tables(&mut self, lock: bool) -> Result<Statement> {
        self.bump();
        if self.eat_kw("INSTANCE") {
            if lock {
                self.expect_kws(&["FOR", "BACKUP"])?;
            }
            return Ok(Statement::LockInstance { lock });
        }
        if self.eat_any(&["TABLES", "TABLE"]).is_none() {
            return Err(self.error());
        }
        if !lock {
            return Ok(Statement::UnlockTables);
        }
        Ok(Statement::LockTables(self.comma_list(|p| {
            let name = p.object_name()?;
            let alias = if p.is_kw("LOW_PRIORITY") { None } else { p.table_alias()? };
            p.eat_kw("LOW_PRIORITY");
            let lock = match p.eat_any(&["READ", "WRITE"]) {
                Some("READ") if p.eat_kw("LOCAL") => TableLock::ReadLocal,
                Some("READ") => TableLock::Read,
                Some(_) => TableLock::Write,
                None => return Err(p.error()),
            };
            Ok((name, alias, lock))
        })?))
    }

    fn flush(&mut self) -> Result<Statement> {
        self.bump();
        let local = self.eat_any(&["NO_WRITE_TO_BINLOG", "LOCAL"]).is_some();
        if self.eat_any(&["TABLES", "TABLE"]).is_some() {
            let at_name = self.is_ident();
            let names = if at_name { self.object_names()? } else { Vec::new() };
            let read_lock = self.eat_kws(&["WITH", "READ", "LOCK"]) || self.eat_kws(&["FOR", "EXPORT"]);
            return Ok(Statement::Flush { local, what: vec![FlushWhat::Tables { names, read_lock }] });
        }
        let what = self.comma_list(|p| {
            let mut text = p.upper_word()?;
            while p.is(Tok::Word) {
                text.push(' ');
                text.push_str(&p.upper_word()?);
            }
            Ok(match text.as_str() {
                "PRIVILEGES" => FlushWhat::Privileges,
                "STATUS" => FlushWhat::Status,
                _ => FlushWhat::Other(text),
            })
        })?;
        Ok(Statement::Flush { local, what })
    }

    /// `UPDATE HISTOGRAM ON columns [WITH n BUCKETS] [AUTO | MANUAL UPDATE] | DROP HISTOGRAM ON columns`
    fn histogram_clause(&mut self) -> Result<Option<HistogramClause>> {
        let Some(verb) = self.eat_any(&["UPDATE", "DROP"]) else { return Ok(None) };
        self.expect_kws(&["HISTOGRAM", "ON"])?;
        let columns = self.comma_list(Self::ident)?;
        if verb == "DROP" {
            return Ok(Some(HistogramClause { columns, buckets: None }));
        }
        if self.is_kw("USING") {
            return self.unsupported("UPDATE HISTOGRAM … USING DATA");
        }
        let mut buckets = HISTOGRAM_BUCKETS;
        if self.eat_kw("WITH") {
            let number = self.unsigned()?;
            self.expect_kw("BUCKETS")?;
            if !(1..=HISTOGRAM_BUCKETS_MAX).contains(&number) {
                return Err(crate::Error::Mysql {
                    code: 1690,
                    state: "22003",
                    message: "Number of buckets value is out of range in 'ANALYZE TABLE'".to_owned(),
                });
            }
            buckets = number as u32;
        }
        if self.eat_any(&["AUTO", "MANUAL"]).is_some() {
            self.expect_kw("UPDATE")?;
        }
        Ok(Some(HistogramClause { columns, buckets: Some(buckets) }))
    }

    fn maintenance(&mut self, word: &str) -> Result<Statement> {
        self.bump();
        let local = self.eat_any(&["NO_WRITE_TO_BINLOG", "LOCAL"]).is_some();
        if self.eat_any(&["TABLE", "TABLES"]).is_none() {
            return Err(self.error());
        }
        let tables = self.object_names()?;
        if word == "ANALYZE" {
            let histogram = self.histogram_clause()?;
            return Ok(Statement::Analyze(Analyze { local, tables, histogram }));
        }
        while self.eat_any(&["QUICK", "FAST", "MEDIUM", "EXTENDED", "CHANGED", "USE_FRM"]).is_some()
            || self.eat_kws(&["FOR", "UPGRADE"])
        {}
        let verb = match word {
            "CHECK" => MaintenanceVerb::Check,
            "CHECKSUM" => MaintenanceVerb::Checksum,
            "OPTIMIZE" => MaintenanceVerb::Optimize,
            _ => MaintenanceVerb::Repair,
        };
        Ok(Statement::TableMaintenance { verb, tables })
    }
}
