//! ALTER TABLE, and DROP, RENAME and TRUNCATE of things.

use crate::error::Result;

use super::ast::{
    AlterAction, AlterAlgorithm, AlterTable, ColumnPosition, DropDatabase, DropIndex, DropTable, Statement,
};
use super::cursor::Parser;
use super::lexer::Tok;

impl Parser<'_> {
    /// ALTER of anything.
    pub fn alter(&mut self) -> Result<Statement> {
        self.expect_kw("ALTER")?;
        if self.eat_kw("TABLE") {
            return self.alter_table();
        }
        if self.eat_kw("DATABASE") || self.eat_kw("SCHEMA") {
            return self.alter_database();
        }
        if self.is_kw("USER") {
            return self.create_user(false);
        }
        const UNSUPPORTED: &[&str] = &[
            "VIEW",
            "PROCEDURE",
            "FUNCTION",
            "EVENT",
            "SERVER",
            "TABLESPACE",
            "INSTANCE",
            "LOGFILE",
            "UNDO",
            "RESOURCE",
            "ALGORITHM",
            "DEFINER",
            "SQL",
        ];
        match self.eat_any(UNSUPPORTED) {
            Some("ALGORITHM" | "DEFINER" | "SQL") => self.unsupported("ALTER VIEW"),
            Some(word) => self.unsupported(&format!("ALTER {word}")),
            None => Err(self.error()),
        }
    }

    fn alter_table(&mut self) -> Result<Statement> {
        let table = self.object_name()?;
        let mut actions = Vec::new();
        if !matches!(self.tok.kind, Tok::Eof | Tok::Semicolon) {
            loop {
                if self.is_kw("PARTITION") || (self.is_kw("REMOVE") && self.next_is("PARTITIONING")) {
                    actions.push(AlterAction::Partition(self.rest()?));
                    break;
                }
                self.alter_actions(&mut actions)?;
                if self.at_table_option() && !self.is_kw("INDEX") {
                    continue;
                }
                if self.is_kw("PARTITION") {
                    continue;
                }
                if !self.eat(Tok::Comma) {
                    break;
                }
            }
        }
        Ok(Statement::AlterTable(AlterTable { table, actions }))
    }

    /// One action, or the several of `ADD (column, index, …)`.
    fn alter_actions(&mut self, actions: &mut Vec<AlterAction>) -> Result<()> {
        let mark = self.mark();
        if self.eat_kw("ADD") {
            self.eat_kw("COLUMN");
            if self.eat(Tok::LParen) {
                actions.extend(self.comma_list(Self::alter_add)?);
                self.expect(Tok::RParen)?;
                return Ok(());
            }
            self.reset(mark);
        }
        actions.push(self.alter_action()?);
        Ok(())
    }

    fn alter_action(&mut self) -> Result<AlterAction> {
        const PARTITION_VERBS: &[&str] = &[
            "TRUNCATE",
            "COALESCE",
            "REORGANIZE",
            "EXCHANGE",
            "REBUILD",
            "REPAIR",
            "DISCARD",
            "IMPORT",
            "OPTIMIZE",
            "ANALYZE",
            "CHECK",
        ];
        if self.is_any(PARTITION_VERBS)
            || ((self.is_kw("ADD") || self.is_kw("DROP")) && self.next_is("PARTITION"))
        {
            return Ok(AlterAction::Partition(self.rest()?));
        }
        match self.eat_any(&[
            "ADD",
            "DROP",
            "MODIFY",
            "CHANGE",
            "ALTER",
            "RENAME",
            "CONVERT",
            "ORDER",
            "DISABLE",
            "ENABLE",
            "FORCE",
            "ALGORITHM",
            "LOCK",
            "WITH",
            "WITHOUT",
        ]) {
            Some("ADD") => self.alter_add(),
            Some("DROP") => self.alter_drop(),
            Some("MODIFY") => {
                self.eat_kw("COLUMN");
                let column = self.column_def()?;
                let position = self.column_position()?;
                Ok(AlterAction::ModifyColumn { column, position })
            }
            Some("CHANGE") => {
                self.eat_kw("COLUMN");
                let old = self.ident()?;
                let column = self.column_def()?;
                let position = self.column_position()?;
                Ok(AlterAction::ChangeColumn { old, column, position })
            }
            Some("ALTER") => self.alter_alter(),
            Some("RENAME") => self.alter_rename(),
            Some("CONVERT") => {
                self.expect_kw("TO")?;
                if !self.eat_charset_keyword() {
                    return Err(self.error());
                }
                let charset = if self.eat_kw("DEFAULT") { "default".into() } else { self.charset_name()? };
                let collate = if self.eat_kw("COLLATE") {
                    self.eat(Tok::Eq);
                    Some(self.charset_name()?)
                } else {
                    None
                };
                Ok(AlterAction::ConvertCharset { charset, collate })
            }
            Some("ORDER") => {
                self.expect_kw("BY")?;
                let columns = self.comma_list(|p| {
                    let column = p.column_name()?;
                    p.eat_any(&["ASC", "DESC"]);
                    Ok(column)
                })?;
                Ok(AlterAction::OrderBy(columns))
            }
            Some(word @ ("DISABLE" | "ENABLE")) => {
                self.expect_kw("KEYS")?;
                Ok(AlterAction::Keys { enable: word == "ENABLE" })
            }
            Some("FORCE") => Ok(AlterAction::Force),
            Some("ALGORITHM") => self.alter_algorithm(),
            Some("LOCK") => {
                self.eat(Tok::Eq);
                Ok(AlterAction::Lock(self.upper_word()?))
            }
            Some(word) => {
                self.expect_kw("VALIDATION")?;
                Ok(AlterAction::Validation(word == "WITH"))
            }
            None => match self.table_option()? {
                Some(option) => Ok(AlterAction::Option(option)),
                None => Err(self.error()),
            },
        }
    }

    fn alter_algorithm(&mut self) -> Result<AlterAction> {
        self.eat(Tok::Eq);
        Ok(AlterAction::Algorithm(match self.eat_any(&["DEFAULT", "INSTANT", "INPLACE", "COPY"]) {
            Some("DEFAULT") => AlterAlgorithm::Default,
            Some("INSTANT") => AlterAlgorithm::Instant,
            Some("INPLACE") => AlterAlgorithm::Inplace,
            Some(_) => AlterAlgorithm::Copy,
            None => return Err(self.error()),
        }))
    }

    fn alter_add(&mut self) -> Result<AlterAction> {
        if let Some(constraint) = self.table_constraint()? {
            return Ok(AlterAction::AddConstraint(constraint));
        }
        self.eat_kw("COLUMN");
        let column = self.column_def()?;
        let position = self.column_position()?;
        Ok(AlterAction::AddColumn { column, position })
    }

    fn column_position(&mut self) -> Result<Option<ColumnPosition>> {
        if self.eat_kw("FIRST") {
            return Ok(Some(ColumnPosition::First));
        }
        if self.eat_kw("AFTER") {
            return Ok(Some(ColumnPosition::After(self.ident()?)));
        }
        Ok(None)
    }

    fn alter_drop(&mut self) -> Result<AlterAction> {
        if self.eat_kw("PRIMARY") {
            self.expect_kw("KEY")?;
            return Ok(AlterAction::DropPrimaryKey);
        }
        if self.eat_kw("FOREIGN") {
            self.expect_kw("KEY")?;
            return Ok(AlterAction::DropForeignKey(self.ident()?));
        }
        if self.eat_kw("INDEX") || self.eat_kw("KEY") {
            return Ok(AlterAction::DropIndex(self.ident()?));
        }
        if self.eat_kw("CHECK") {
            return Ok(AlterAction::DropCheck(self.ident()?));
        }
        if self.eat_kw("CONSTRAINT") {
            return Ok(AlterAction::DropConstraint(self.ident()?));
        }
        self.eat_kw("COLUMN");
        let name = self.ident()?;
        self.eat_any(&["RESTRICT", "CASCADE"]);
        Ok(AlterAction::DropColumn(name))
    }

    fn alter_alter(&mut self) -> Result<AlterAction> {
        if self.eat_kw("INDEX") {
            let index = self.ident()?;
            let visible = self.visibility()?;
            return Ok(AlterAction::IndexVisibility { index, visible });
        }
        if self.is_kw("CHECK") || self.is_kw("CONSTRAINT") {
            self.bump();
            let name = self.ident()?;
            let enforced = !self.eat_kw("NOT");
            self.expect_kw("ENFORCED")?;
            return Ok(AlterAction::AlterCheck { name, enforced });
        }
        self.eat_kw("COLUMN");
        let column = self.ident()?;
        if self.eat_kw("DROP") {
            self.expect_kw("DEFAULT")?;
            return Ok(AlterAction::DropDefault(column));
        }
        self.expect_kw("SET")?;
        if self.eat_kw("DEFAULT") {
            let (expr, text, parenthesized) = self.default_value()?;
            return Ok(AlterAction::SetDefault { column, expr, text, parenthesized });
        }
        let visible = self.visibility()?;
        Ok(AlterAction::ColumnVisibility { column, visible })
    }

    fn visibility(&mut self) -> Result<bool> {
        match self.eat_any(&["VISIBLE", "INVISIBLE"]) {
            Some(word) => Ok(word == "VISIBLE"),
            None => Err(self.error()),
        }
    }

    fn alter_rename(&mut self) -> Result<AlterAction> {
        if self.eat_kw("COLUMN") {
            let old = self.ident()?;
            self.expect_kw("TO")?;
            return Ok(AlterAction::RenameColumn { old, new: self.ident()? });
        }
        if self.eat_kw("INDEX") || self.eat_kw("KEY") {
            let old = self.ident()?;
            self.expect_kw("TO")?;
            return Ok(AlterAction::RenameIndex { old, new: self.ident()? });
        }
        let _ = self.eat_kw("TO") || self.eat_kw("AS") || self.eat(Tok::Eq);
        Ok(AlterAction::RenameTable(self.object_name()?))
    }

    /// DROP of anything.
    pub fn drop(&mut self) -> Result<Statement> {
        self.expect_kw("DROP")?;
        if self.eat_kw("DATABASE") || self.eat_kw("SCHEMA") {
            let if_exists = self.eat_if_exists()?;
            return Ok(Statement::DropDatabase(DropDatabase { if_exists, name: self.ident()? }));
        }
        if self.is_any(&["TABLE", "TABLES", "TEMPORARY", "VIEW"]) {
            let temporary = self.eat_kw("TEMPORARY");
            let view = !temporary && self.eat_kw("VIEW");
            if !view && self.eat_any(&["TABLE", "TABLES"]).is_none() {
                return Err(self.error());
            }
            let if_exists = self.eat_if_exists()?;
            let names = self.object_names()?;
            self.eat_any(&["RESTRICT", "CASCADE"]);
            let drop = DropTable { temporary, if_exists, names };
            return Ok(if view { Statement::DropView(drop) } else { Statement::DropTable(drop) });
        }
        if self.eat_kw("INDEX") {
            let name = if self.eat_kw("PRIMARY") { "PRIMARY".into() } else { self.ident()? };
            self.expect_kw("ON")?;
            let table = self.object_name()?;
            self.algorithm_and_lock()?;
            return Ok(Statement::DropIndex(DropIndex { table, name }));
        }
        if self.eat_kw("PREPARE") {
            return Ok(Statement::Deallocate { name: self.ident()? });
        }
        if self.eat_kw("USER") {
            let if_exists = self.eat_if_exists()?;
            return Ok(Statement::DropUser { if_exists, users: self.comma_list(Self::account)? });
        }
        if self.eat_kw("ROLE") {
            let if_exists = self.eat_if_exists()?;
            return Ok(Statement::DropRole { if_exists, roles: self.comma_list(Self::account)? });
        }
        const UNSUPPORTED: &[&str] = &[
            "PROCEDURE",
            "FUNCTION",
            "TRIGGER",
            "EVENT",
            "SERVER",
            "TABLESPACE",
            "LOGFILE",
            "UNDO",
            "RESOURCE",
            "SPATIAL",
        ];
        match self.eat_any(UNSUPPORTED) {
            Some(word) => self.unsupported(&format!("DROP {word}")),
            None => Err(self.error()),
        }
    }

    /// RENAME TABLE and RENAME USER.
    pub fn rename(&mut self) -> Result<Statement> {
        self.expect_kw("RENAME")?;
        if self.eat_kw("USER") {
            return Ok(Statement::RenameUser(self.comma_list(|p| {
                let from = p.account()?;
                p.expect_kw("TO")?;
                Ok((from, p.account()?))
            })?));
        }
        if self.eat_any(&["TABLE", "TABLES"]).is_none() {
            return Err(self.error());
        }
        Ok(Statement::RenameTable(self.comma_list(|p| {
            let from = p.object_name()?;
            p.expect_kw("TO")?;
            Ok((from, p.object_name()?))
        })?))
    }
}
