//! INSERT, REPLACE, UPDATE, DELETE, LOAD DATA.

use crate::error::Result;

use super::ast::{
    Assignment, ColumnName, Delete, Expr, Ident, Insert, InsertSource, LoadConflict, LoadData, LoadFormat,
    LoadTarget, ObjectName, Priority, Statement, Update, With,
};
use super::cursor::Parser;
use super::lexer::Tok;

impl Parser<'_> {
    /// INSERT or REPLACE.
    pub fn insert(&mut self) -> Result<Statement> {
        let replace = self.upper_word()? == "REPLACE";
        let priority = match self.eat_any(&["LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED"]) {
            Some("LOW_PRIORITY") => Priority::Low,
            Some("HIGH_PRIORITY") => Priority::High,
            Some(_) => Priority::Delayed,
            None => Priority::Normal,
        };
        let ignore = !replace && self.eat_kw("IGNORE");
        self.eat_kw("INTO");
        let table = self.object_name()?;
        let partitions = self.partition_names()?;
        let mut insert = Insert {
            replace,
            ignore,
            priority,
            table,
            partitions,
            columns: Vec::new(),
            has_columns: false,
            source: InsertSource::Values(Vec::new()),
            row_alias: None,
            on_duplicate: Vec::new(),
        };
        if self.is(Tok::LParen) && !self.at_paren_query() && self.peek().kind != Tok::LParen {
            insert.has_columns = true;
            self.bump();
            if !self.is(Tok::RParen) {
                insert.columns = self.comma_list(|p| Ok(p.column_name()?.name))?;
            }
            self.expect(Tok::RParen)?;
        }
        self.insert_source(&mut insert)?;
        if !insert.replace {
            if self.eat_kw("AS") {
                let name = self.ident()?;
                let columns = if self.is(Tok::LParen) { self.paren_list(Self::ident)? } else { Vec::new() };
                insert.row_alias = Some((name, columns));
            }
            if self.eat_kw("ON") {
                self.expect_kws(&["DUPLICATE", "KEY", "UPDATE"])?;
                insert.on_duplicate = self.assignments()?;
            }
        }
        Ok(Statement::Insert(Box::new(insert)))
    }

    fn insert_source(&mut self, insert: &mut Insert) -> Result<()> {
        if self.is_kw("VALUES") || self.is_kw("VALUE") {
            self.bump();
            insert.source = InsertSource::Values(self.comma_list(Self::value_row)?);
        } else if !insert.has_columns && self.eat_kw("SET") {
            let mut row = Vec::new();
            for Assignment { column, value } in self.assignments()? {
                insert.columns.push(column.name);
                row.push(value);
            }
            insert.has_columns = true;
            insert.source = InsertSource::Values(vec![row]);
        } else {
            insert.source = InsertSource::Query(Box::new(self.query()?));
        }
        Ok(())
    }

    /// `(a, b)` or `ROW(a, b)`; it may be empty.
    fn value_row(&mut self) -> Result<Vec<Expr>> {
        self.eat_kw("ROW");
        self.expect(Tok::LParen)?;
        let mut row = Vec::new();
        if !self.is(Tok::RParen) {
            row.push(self.expr()?);
            while self.eat(Tok::Comma) {
                row.push(self.expr()?);
            }
        }
        self.expect(Tok::RParen)?;
        Ok(row)
    }

    pub fn assignments(&mut self) -> Result<Vec<Assignment>> {
        self.comma_list(|p| {
            let column = p.column_name()?;
            if !p.eat(Tok::Eq) {
                p.expect(Tok::Assign)?;
            }
            Ok(Assignment { column, value: p.expr()? })
        })
    }

    pub fn update(&mut self, with: Option<With>) -> Result<Statement> {
        self.expect_kw("UPDATE")?;
        let low_priority = self.eat_kw("LOW_PRIORITY");
        let ignore = self.eat_kw("IGNORE");
        let from = self.table_refs()?;
        self.expect_kw("SET")?;
        let assignments = self.assignments()?;
        let where_ = if self.eat_kw("WHERE") { Some(self.expr()?) } else { None };
        let order_by = self.order_by()?;
        let limit = self.delete_limit()?;
        Ok(Statement::Update(Box::new(Update {
            with,
            ignore,
            low_priority,
            from,
            assignments,
            where_,
            order_by,
            limit,
        })))
    }

    /// `LIMIT n`, without an offset.
    fn delete_limit(&mut self) -> Result<Option<super::ast::Limit>> {
        if !self.is_kw("LIMIT") {
            return Ok(None);
        }
        let limit = self.limit()?;
        if limit.as_ref().is_some_and(|limit| limit.offset.is_some()) {
            return Err(self.error());
        }
        Ok(limit)
    }

    pub fn delete(&mut self, with: Option<With>) -> Result<Statement> {
        self.expect_kw("DELETE")?;
        let mut delete = Delete {
            with,
            ignore: false,
            low_priority: false,
            quick: false,
            targets: Vec::new(),
            from: Vec::new(),
            where_: None,
            order_by: Vec::new(),
            limit: None,
        };
        loop {
            if self.eat_kw("LOW_PRIORITY") {
                delete.low_priority = true;
            } else if self.is_kw("QUICK") && !matches!(self.peek().kind, Tok::Comma | Tok::Dot) {
                self.bump();
                delete.quick = true;
            } else if self.eat_kw("IGNORE") {
                delete.ignore = true;
            } else {
                break;
            }
        }
        if !self.eat_kw("FROM") {
            delete.targets = self.delete_targets()?;
            self.expect_kw("FROM")?;
            delete.from = self.table_refs()?;
        } else if self.multi_delete_ahead() {
            delete.targets = self.delete_targets()?;
            self.expect_kw("USING")?;
            delete.from = self.table_refs()?;
        } else {
            delete.from = vec![self.table_ref()?];
        }
        if self.eat_kw("WHERE") {
            delete.where_ = Some(self.expr()?);
        }
        if delete.targets.is_empty() {
            delete.order_by = self.order_by()?;
            delete.limit = self.delete_limit()?;
        }
        Ok(Statement::Delete(Box::new(delete)))
    }

    /// Whether `DELETE FROM` is followed by `t[.*], … USING`.
    fn multi_delete_ahead(&mut self) -> bool {
        let mark = self.mark();
        let found = self.delete_targets().is_ok() && self.is_kw("USING");
        self.reset(mark);
        found
    }

    /// `[schema.]table[.*], …`
    fn delete_targets(&mut self) -> Result<Vec<ObjectName>> {
        self.comma_list(|p| {
            let mut name = ObjectName { schema: None, name: p.ident()? };
            while p.eat(Tok::Dot) {
                if p.eat(Tok::Star) {
                    break;
                }
                let next = p.ident_any()?;
                name.schema = Some(std::mem::replace(&mut name.name, next));
            }
            Ok(name)
        })
    }

    /// LOAD DATA.
    pub fn load_data(&mut self) -> Result<Statement> {
        self.expect_kw("LOAD")?;
        if self.is_kw("XML") || self.is_kw("INDEX") {
            return self.unsupported(if self.is_kw("XML") { "LOAD XML" } else { "LOAD INDEX INTO CACHE" });
        }
        self.expect_kw("DATA")?;
        let _ = self.eat_kw("LOW_PRIORITY") || self.eat_kw("CONCURRENT");
        let local = self.eat_kw("LOCAL");
        self.expect_kw("INFILE")?;
        let path = self.string()?;
        let on_conflict = match self.eat_any(&["REPLACE", "IGNORE"]) {
            Some("REPLACE") => LoadConflict::Replace,
            Some(_) => LoadConflict::Ignore,
            None => LoadConflict::Error,
        };
        self.expect_kws(&["INTO", "TABLE"])?;
        let table = self.object_name()?;
        let partitions = self.partition_names()?;
        let format = self.load_format()?;
        let mut skip_lines = 0;
        if self.eat_kw("IGNORE") {
            skip_lines = self.unsigned()?;
            if self.eat_any(&["LINES", "ROWS"]).is_none() {
                return Err(self.error());
            }
        }
        let columns = if self.is(Tok::LParen) { self.load_columns()? } else { Vec::new() };
        let assignments = if self.eat_kw("SET") { self.assignments()? } else { Vec::new() };
        Ok(Statement::LoadData(Box::new(LoadData {
            local,
            path,
            on_conflict,
            table,
            partitions,
            format,
            skip_lines,
            columns,
            assignments,
        })))
    }

    fn load_columns(&mut self) -> Result<Vec<LoadTarget>> {
        self.expect(Tok::LParen)?;
        if self.eat(Tok::RParen) {
            return Ok(Vec::new());
        }
        let columns = self.comma_list(|p| match p.is(Tok::UserVar) {
            true => {
                let token = p.bump();
                Ok(LoadTarget::UserVar(p.user_var_name(token)?))
            }
            false => {
                let ColumnName { name, .. } = p.column_name()?;
                Ok(LoadTarget::Column(name as Ident))
            }
        })?;
        self.expect(Tok::RParen)?;
        Ok(columns)
    }

    /// `[CHARACTER SET c] [FIELDS …] [LINES …]`
    pub fn load_format(&mut self) -> Result<LoadFormat> {
        let mut format = LoadFormat::default();
        if self.eat_charset_keyword() {
            format.charset = Some(self.charset_name()?);
        }
        if self.eat_any(&["FIELDS", "COLUMNS"]).is_some() {
            let start = self.prev_end;
            loop {
                if self.eat_kw("TERMINATED") {
                    self.expect_kw("BY")?;
                    format.fields_terminated = self.string_bytes()?;
                } else if self.is_kw("OPTIONALLY") || self.is_kw("ENCLOSED") {
                    format.optionally_enclosed = self.eat_kw("OPTIONALLY");
                    self.expect_kws(&["ENCLOSED", "BY"])?;
                    format.enclosed = self.string_bytes()?;
                } else if self.eat_kw("ESCAPED") {
                    self.expect_kw("BY")?;
                    format.escaped = self.string_bytes()?;
                } else if self.prev_end == start {
                    return Err(self.error());
                } else {
                    break;
                }
            }
        }
        if self.eat_kw("LINES") {
            let start = self.prev_end;
            loop {
                if self.eat_kw("TERMINATED") {
                    self.expect_kw("BY")?;
                    format.lines_terminated = self.string_bytes()?;
                } else if self.eat_kw("STARTING") {
                    self.expect_kw("BY")?;
                    format.lines_starting = self.string_bytes()?;
                } else if self.prev_end == start {
                    return Err(self.error());
                } else {
                    break;
                }
            }
        }
        Ok(format)
    }
}
