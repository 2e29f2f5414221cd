//! CREATE: databases, tables, indexes, views.

use crate::error::Result;

use super::ast::{
    AlterDatabase, ColumnDef, ColumnOption, CreateDatabase, CreateIndex, CreateSelect, CreateTable,
    CreateView, DatabaseOptions, Expr, Function, Ident, IndexColumn, IndexDef, IndexKind, IndexOptions,
    IndexPart, Literal, Reference, ReferenceAction, Statement, TableConstraint, UnaryOp,
};
use super::cursor::Parser;
use super::lexer::Tok;

impl Parser<'_> {
    /// CREATE of anything.
    pub fn create(&mut self) -> Result<Statement> {
        self.expect_kw("CREATE")?;
        if self.eat_kw("DATABASE") || self.eat_kw("SCHEMA") {
            return self.create_database();
        }
        if self.is_kw("USER") {
            return self.create_user(true);
        }
        if self.eat_kw("ROLE") {
            return self.create_role();
        }
        if self.is_kw("TABLE") || (self.is_kw("TEMPORARY") && self.next_is("TABLE")) {
            let temporary = self.eat_kw("TEMPORARY");
            self.bump();
            return self.create_table(temporary);
        }
        if self.is_any(&["INDEX", "UNIQUE", "FULLTEXT", "SPATIAL"]) {
            return self.create_index();
        }
        let or_replace = self.eat_kws(&["OR", "REPLACE"]);
        if self.eat_kw("ALGORITHM") {
            self.expect(Tok::Eq)?;
            self.upper_word()?;
        }
        self.definer()?;
        if self.eat_kws(&["SQL", "SECURITY"]) && self.eat_any(&["DEFINER", "INVOKER"]).is_none() {
            return Err(self.error());
        }
        if self.eat_kw("VIEW") {
            return self.create_view(or_replace);
        }
        const UNSUPPORTED: &[&str] = &[
            "PROCEDURE",
            "FUNCTION",
            "TRIGGER",
            "EVENT",
            "AGGREGATE",
            "SERVER",
            "TABLESPACE",
            "LOGFILE",
            "UNDO",
            "RESOURCE",
        ];
        match self.eat_any(UNSUPPORTED) {
            Some(word) => self.unsupported(&format!("CREATE {word}")),
            None if self.is_kw("SPATIAL") => self.unsupported("CREATE SPATIAL REFERENCE SYSTEM"),
            None => Err(self.error()),
        }
    }

    /// `DEFINER = user`, read and dropped.
    fn definer(&mut self) -> Result<()> {
        if self.eat_kw("DEFINER") {
            self.expect(Tok::Eq)?;
            self.account()?;
        }
        Ok(())
    }

    fn create_database(&mut self) -> Result<Statement> {
        let if_not_exists = self.eat_if_not_exists()?;
        let name = self.ident()?;
        let options = self.database_options()?;
        Ok(Statement::CreateDatabase(CreateDatabase { if_not_exists, name, options }))
    }

    /// After ALTER DATABASE.
    pub fn alter_database(&mut self) -> Result<Statement> {
        let options_next =
            self.is_kw("DEFAULT") || self.is_kw("CHARACTER") || self.is_kw("COLLATE") || self.is_kw("READ");
        let name = if self.is_ident() && !(self.is_any(&["CHARSET", "ENCRYPTION"]) || options_next) {
            Some(self.ident()?)
        } else {
            None
        };
        let at = self.tok.start;
        let options = self.database_options()?;
        if options == DatabaseOptions::default() {
            return Err(self.error_at(at));
        }
        Ok(Statement::AlterDatabase(AlterDatabase { name, options }))
    }

    fn database_options(&mut self) -> Result<DatabaseOptions> {
        let mut options = DatabaseOptions::default();
        loop {
            let default = self.eat_kw("DEFAULT");
            if self.eat_charset_keyword() {
                self.eat(Tok::Eq);
                options.charset = Some(self.charset_name()?);
            } else if self.eat_kw("COLLATE") {
                self.eat(Tok::Eq);
                options.collate = Some(self.charset_name()?);
            } else if self.eat_kw("ENCRYPTION") {
                self.eat(Tok::Eq);
                options.encryption = Some(self.string()?);
            } else if !default && self.eat_kws(&["READ", "ONLY"]) {
                self.eat(Tok::Eq);
                options.read_only = Some(!self.eat_kw("DEFAULT") && self.unsigned()? != 0);
            } else if default {
                return Err(self.error());
            } else {
                return Ok(options);
            }
        }
    }

    fn create_table(&mut self, temporary: bool) -> Result<Statement> {
        let if_not_exists = self.eat_if_not_exists()?;
        let mut table = CreateTable {
            temporary,
            if_not_exists,
            name: self.object_name()?,
            columns: Vec::new(),
            constraints: Vec::new(),
            options: Vec::new(),
            partition: None,
            like: None,
            select: None,
        };
        if self.eat_kw("LIKE") {
            table.like = Some(self.object_name()?);
            return Ok(Statement::CreateTable(Box::new(table)));
        }
        if self.is(Tok::LParen) && !self.at_paren_query() {
            self.bump();
            if self.eat_kw("LIKE") {
                table.like = Some(self.object_name()?);
                self.expect(Tok::RParen)?;
                return Ok(Statement::CreateTable(Box::new(table)));
            }
            self.table_elements(&mut table)?;
            self.expect(Tok::RParen)?;
        }
        table.options = self.table_options()?;
        if self.is_kw("PARTITION") {
            table.partition = Some(self.partition_clause()?);
        }
        let ignore = self.eat_kw("IGNORE");
        let replace = !ignore && self.eat_kw("REPLACE");
        let as_ = self.eat_kw("AS");
        if self.at_query() {
            table.select = Some(CreateSelect { ignore, replace, query: Box::new(self.query()?) });
        } else if ignore || replace || as_ {
            return Err(self.error());
        }
        Ok(Statement::CreateTable(Box::new(table)))
    }

    /// The text of PARTITION BY up to the query or the end.
    fn partition_clause(&mut self) -> Result<String> {
        let start = self.tok.start;
        self.expect_kws(&["PARTITION", "BY"])?;
        let mut depth = 0;
        while !matches!(self.tok.kind, Tok::Eof | Tok::Semicolon) {
            match self.tok.kind {
                Tok::LParen => depth += 1,
                Tok::RParen => depth -= 1,
                Tok::Error => return Err(self.error()),
                _ if depth == 0 && self.is_any(&["AS", "SELECT", "IGNORE", "REPLACE", "WITH"]) => break,
                _ => {}
            }
            if depth < 0 {
                return Err(self.error());
            }
            self.bump();
        }
        Ok(self.text_from(start))
    }

    fn table_elements(&mut self, table: &mut CreateTable) -> Result<()> {
        loop {
            match self.table_constraint()? {
                Some(constraint) => table.constraints.push(constraint),
                None => table.columns.push(self.column_def()?),
            }
            if !self.eat(Tok::Comma) {
                return Ok(());
            }
        }
    }

    pub fn column_def(&mut self) -> Result<ColumnDef> {
        let mut name = self.ident()?;
        // A column may be written with its table.
        while self.eat(Tok::Dot) {
            name = self.ident_any()?;
        }
        self.column_def_after(name)
    }

    pub fn column_def_after(&mut self, name: Ident) -> Result<ColumnDef> {
        let ty = self.data_type()?;
        let mut options = Vec::new();
        while let Some(option) = self.column_option()? {
            options.push(option);
        }
        Ok(ColumnDef { name, ty, options })
    }

    fn column_option(&mut self) -> Result<Option<ColumnOption>> {
        if !self.is(Tok::Word) {
            return Ok(None);
        }
        let word = String::from_utf8_lossy(self.bytes(self.tok)).to_ascii_uppercase();
        let option = match word.as_str() {
            "NULL" => self.word_option(ColumnOption::Null),
            "NOT" => {
                self.bump();
                if self.eat_kw("SECONDARY") {
                    return self.column_option();
                }
                self.expect_kw("NULL")?;
                ColumnOption::NotNull
            }
            "DEFAULT" => {
                self.bump();
                let (expr, text, parenthesized) = self.default_value()?;
                ColumnOption::Default { expr, text, parenthesized }
            }
            "AUTO_INCREMENT" => self.word_option(ColumnOption::AutoIncrement),
            "SERIAL" => {
                self.bump();
                self.expect_kws(&["DEFAULT", "VALUE"])?;
                ColumnOption::AutoIncrement
            }
            "PRIMARY" => {
                self.bump();
                self.eat_kw("KEY");
                ColumnOption::PrimaryKey
            }
            "KEY" => self.word_option(ColumnOption::Key),
            "UNIQUE" => {
                self.bump();
                self.eat_kw("KEY");
                ColumnOption::Unique
            }
            "COMMENT" => {
                self.bump();
                ColumnOption::Comment(self.string()?)
            }
            "COLLATE" => {
                self.bump();
                ColumnOption::Collate(self.charset_name()?)
            }
            "ON" => {
                self.bump();
                self.expect_kw("UPDATE")?;
                ColumnOption::OnUpdate(self.now_function()?)
            }
            "GENERATED" | "AS" => self.generated()?,
            "REFERENCES" => ColumnOption::References(self.reference()?),
            "CONSTRAINT" | "CHECK" => {
                let name = if self.eat_kw("CONSTRAINT") {
                    if self.is_kw("CHECK") { None } else { Some(self.ident()?) }
                } else {
                    None
                };
                let (expr, text, enforced) = self.check()?;
                ColumnOption::Check { name, expr: Box::new(expr), text, enforced }
            }
            "INVISIBLE" => self.word_option(ColumnOption::Invisible),
            "VISIBLE" => self.word_option(ColumnOption::Visible),
            "COLUMN_FORMAT" => {
                self.bump();
                ColumnOption::ColumnFormat(self.upper_word()?)
            }
            "STORAGE" => {
                self.bump();
                ColumnOption::Storage(self.upper_word()?)
            }
            "ENGINE_ATTRIBUTE" | "SECONDARY_ENGINE_ATTRIBUTE" => {
                self.bump();
                self.eat(Tok::Eq);
                ColumnOption::EngineAttribute(self.string()?)
            }
            "SRID" => {
                self.bump();
                ColumnOption::Srid(self.unsigned()?)
            }
            _ => return Ok(None),
        };
        Ok(Some(option))
    }

    fn word_option(&mut self, option: ColumnOption) -> ColumnOption {
        self.bump();
        option
    }

    /// What follows DEFAULT: a literal, a form of NOW, or an expression in parentheses; with its text.
    pub fn default_value(&mut self) -> Result<(Expr, String, bool)> {
        if self.eat(Tok::LParen) {
            let start = self.tok.start;
            let expr = self.expr()?;
            let text = self.text_from(start);
            self.expect(Tok::RParen)?;
            return Ok((expr, text, true));
        }
        let start = self.tok.start;
        let expr = match self.tok.kind {
            Tok::Minus | Tok::Plus => {
                let op = if self.bump().kind == Tok::Minus { UnaryOp::Neg } else { UnaryOp::Plus };
                if !matches!(self.tok.kind, Tok::Int | Tok::Decimal | Tok::Float) {
                    return Err(self.error());
                }
                Expr::Unary { op, expr: Box::new(Expr::Literal(self.literal(None)?)) }
            }
            Tok::Word => match self.eat_any(&["NULL", "TRUE", "FALSE"]) {
                Some("NULL") => Expr::Literal(Literal::Null),
                Some(word) => Expr::Literal(Literal::Bool(word == "TRUE")),
                None if self.is_any(&["DATE", "TIME", "TIMESTAMP"]) || self.bytes(self.tok)[0] == b'_' => {
                    self.simple_expr()?
                }
                None => self.now_function()?,
            },
            _ => Expr::Literal(self.literal(None)?),
        };
        Ok((expr, self.text_from(start), false))
    }

    /// `CURRENT_TIMESTAMP[(n)]` and its synonyms.
    fn now_function(&mut self) -> Result<Expr> {
        let names = ["CURRENT_TIMESTAMP", "NOW", "LOCALTIME", "LOCALTIMESTAMP"];
        let Some(name) = self.eat_any(&names) else { return Err(self.error()) };
        let mut args = Vec::new();
        if name == "NOW" || self.is(Tok::LParen) {
            self.expect(Tok::LParen)?;
            if !self.is(Tok::RParen) {
                args.push(Expr::Literal(Literal::Int(self.unsigned()?)));
            }
            self.expect(Tok::RParen)?;
        }
        Ok(Function::call("CURRENT_TIMESTAMP", args))
    }

    fn generated(&mut self) -> Result<ColumnOption> {
        if self.eat_kw("GENERATED") {
            self.expect_kw("ALWAYS")?;
        }
        self.expect_kw("AS")?;
        self.expect(Tok::LParen)?;
        let start = self.tok.start;
        let expr = Box::new(self.expr()?);
        let text = self.text_from(start);
        self.expect(Tok::RParen)?;
        let stored = self.eat_any(&["STORED", "VIRTUAL"]) == Some("STORED");
        Ok(ColumnOption::Generated { expr, text, stored })
    }

    /// `CHECK (expr) [[NOT] ENFORCED]`
    fn check(&mut self) -> Result<(Expr, String, bool)> {
        self.expect_kw("CHECK")?;
        self.expect(Tok::LParen)?;
        let start = self.tok.start;
        let expr = self.expr()?;
        let text = self.text_from(start);
        self.expect(Tok::RParen)?;
        let enforced = if self.is_kw("NOT") && self.next_is("ENFORCED") {
            self.bump();
            self.bump();
            false
        } else {
            self.eat_kw("ENFORCED");
            true
        };
        Ok((expr, text, enforced))
    }

    fn reference(&mut self) -> Result<Reference> {
        self.expect_kw("REFERENCES")?;
        let table = self.object_name()?;
        let columns = if self.is(Tok::LParen) { self.paren_list(Self::index_column)? } else { Vec::new() };
        let match_ = if self.eat_kw("MATCH") { Some(self.upper_word()?) } else { None };
        let mut reference = Reference { table, columns, match_, on_delete: None, on_update: None };
        while self.is_kw("ON") && (self.next_is("DELETE") || self.next_is("UPDATE")) {
            self.bump();
            let delete = self.upper_word()? == "DELETE";
            let action = match self.eat_any(&["RESTRICT", "CASCADE", "SET", "NO"]) {
                Some("RESTRICT") => ReferenceAction::Restrict,
                Some("CASCADE") => ReferenceAction::Cascade,
                Some("SET") if self.eat_kw("NULL") => ReferenceAction::SetNull,
                Some("SET") if self.eat_kw("DEFAULT") => ReferenceAction::SetDefault,
                Some("NO") if self.eat_kw("ACTION") => ReferenceAction::NoAction,
                _ => return Err(self.error()),
            };
            if delete {
                reference.on_delete = Some(action);
            } else {
                reference.on_update = Some(action);
            }
        }
        Ok(reference)
    }

    /// An index or constraint of a table; nothing consumed when a column comes.
    pub fn table_constraint(&mut self) -> Result<Option<TableConstraint>> {
        if !self.is(Tok::Word) {
            return Ok(None);
        }
        let mut name = None;
        if self.eat_kw("CONSTRAINT") && !self.is_any(&["PRIMARY", "UNIQUE", "FOREIGN", "CHECK"]) {
            name = Some(self.ident()?);
        }
        match self.eat_any(&["PRIMARY", "UNIQUE", "FOREIGN", "FULLTEXT", "SPATIAL", "INDEX", "KEY"]) {
            Some("PRIMARY") => {
                self.expect_kw("KEY")?;
                self.index_def(IndexKind::Primary, name).map(|index| Some(TableConstraint::Index(index)))
            }
            Some("FOREIGN") => {
                self.expect_kw("KEY")?;
                let index = if self.is(Tok::LParen) { None } else { Some(self.ident()?) };
                let columns = self.paren_list(Self::index_column)?;
                let reference = self.reference()?;
                Ok(Some(TableConstraint::ForeignKey { name, index, columns, reference }))
            }
            Some(word) => {
                let kind = match word {
                    "UNIQUE" => IndexKind::Unique,
                    "FULLTEXT" => IndexKind::Fulltext,
                    "SPATIAL" => IndexKind::Spatial,
                    _ => IndexKind::Plain,
                };
                if !matches!(word, "INDEX" | "KEY") {
                    self.eat_any(&["INDEX", "KEY"]);
                }
                self.index_def(kind, name).map(|index| Some(TableConstraint::Index(index)))
            }
            None if self.is_kw("CHECK") => {
                let (expr, text, enforced) = self.check()?;
                Ok(Some(TableConstraint::Check { name, expr, text, enforced }))
            }
            None if name.is_some() => Err(self.error()),
            None => Ok(None),
        }
    }

    /// `[name] [USING …] (columns) options`
    fn index_def(&mut self, kind: IndexKind, constraint: Option<Ident>) -> Result<IndexDef> {
        let mut options = IndexOptions::default();
        let mut name = None;
        let is_type = self.is_kw("TYPE") && self.peek().kind == Tok::Word;
        if !(self.is(Tok::LParen) || self.is_kw("USING") || is_type) {
            name = Some(self.ident()?);
        }
        if self.is_kw("USING") || self.is_kw("TYPE") {
            self.bump();
            options.using = Some(self.upper_word()?);
        }
        let columns = self.paren_list(Self::index_column)?;
        self.index_options(&mut options)?;
        Ok(IndexDef { kind, name: name.or(constraint), columns, options })
    }

    /// `name[(n)] | (expr)` with ASC or DESC.
    pub fn index_column(&mut self) -> Result<IndexColumn> {
        let part = if self.eat(Tok::LParen) {
            let start = self.tok.start;
            let expr = Box::new(self.expr()?);
            let text = self.text_from(start);
            self.expect(Tok::RParen)?;
            IndexPart::Expr { expr, text }
        } else {
            let name = self.ident()?;
            let length = if self.eat(Tok::LParen) {
                let length = self.unsigned()?;
                self.expect(Tok::RParen)?;
                Some(length)
            } else {
                None
            };
            IndexPart::Column { name, length }
        };
        let desc = self.eat_any(&["ASC", "DESC"]) == Some("DESC");
        Ok(IndexColumn { part, desc })
    }

    pub fn index_options(&mut self, options: &mut IndexOptions) -> Result<()> {
        loop {
            match self.eat_any(&[
                "USING",
                "TYPE",
                "COMMENT",
                "VISIBLE",
                "INVISIBLE",
                "KEY_BLOCK_SIZE",
                "ENGINE_ATTRIBUTE",
                "SECONDARY_ENGINE_ATTRIBUTE",
            ]) {
                Some("USING" | "TYPE") => options.using = Some(self.upper_word()?),
                Some("COMMENT") => options.comment = Some(self.string()?),
                Some("VISIBLE") => options.invisible = Some(false),
                Some("INVISIBLE") => options.invisible = Some(true),
                Some("KEY_BLOCK_SIZE") => {
                    self.eat(Tok::Eq);
                    options.key_block_size = Some(self.unsigned()?);
                }
                Some(_) => {
                    self.eat(Tok::Eq);
                    self.string()?;
                }
                None if self.is_kw("WITH") && self.next_is("PARSER") => {
                    self.bump();
                    self.bump();
                    options.parser = Some(self.ident()?);
                }
                None => return Ok(()),
            }
        }
    }

    fn create_index(&mut self) -> Result<Statement> {
        let kind = match self.eat_any(&["UNIQUE", "FULLTEXT", "SPATIAL"]) {
            Some("UNIQUE") => IndexKind::Unique,
            Some("FULLTEXT") => IndexKind::Fulltext,
            Some(_) => IndexKind::Spatial,
            None => IndexKind::Plain,
        };
        self.expect_kw("INDEX")?;
        let name = self.ident()?;
        let mut options = IndexOptions::default();
        if self.is_kw("USING") || self.is_kw("TYPE") {
            self.bump();
            options.using = Some(self.upper_word()?);
        }
        self.expect_kw("ON")?;
        let table = self.object_name()?;
        let columns = self.paren_list(Self::index_column)?;
        self.index_options(&mut options)?;
        self.algorithm_and_lock()?;
        Ok(Statement::CreateIndex(CreateIndex {
            table,
            index: IndexDef { kind, name: Some(name), columns, options },
        }))
    }

    /// `ALGORITHM = …` and `LOCK = …` after CREATE and DROP INDEX.
    pub fn algorithm_and_lock(&mut self) -> Result<()> {
        while self.eat_any(&["ALGORITHM", "LOCK"]).is_some() {
            self.eat(Tok::Eq);
            self.upper_word()?;
        }
        Ok(())
    }

    fn create_view(&mut self, or_replace: bool) -> Result<Statement> {
        let name = self.object_name()?;
        let columns = if self.is(Tok::LParen) { self.paren_list(Self::ident)? } else { Vec::new() };
        self.expect_kw("AS")?;
        let start = self.tok.start;
        let query = self.query()?;
        let text = self.text_from(start);
        if self.eat_kw("WITH") {
            self.eat_any(&["CASCADED", "LOCAL"]);
            self.expect_kws(&["CHECK", "OPTION"])?;
        }
        Ok(Statement::CreateView(Box::new(CreateView { or_replace, name, columns, query, text })))
    }
}
