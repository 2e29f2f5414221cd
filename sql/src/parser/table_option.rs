//! Table options of CREATE and ALTER TABLE.

use crate::error::Result;

use super::ast::TableOption;
use super::cursor::Parser;
use super::lexer::Tok;

impl Parser<'_> {
    /// Table options, separated by blanks or commas.
    pub fn table_options(&mut self) -> Result<Vec<TableOption>> {
        let mut options = Vec::new();
        while let Some(option) = self.table_option()? {
            options.push(option);
            if self.is(Tok::Comma) {
                self.bump();
                if !self.at_table_option() {
                    return Err(self.error());
                }
            }
        }
        Ok(options)
    }

    /// Whether a table option starts here.
    pub fn at_table_option(&self) -> bool {
        const OPTIONS: &[&str] = &[
            "ENGINE",
            "AUTO_INCREMENT",
            "DEFAULT",
            "CHARSET",
            "CHARACTER",
            "CHAR",
            "COLLATE",
            "COMMENT",
            "ROW_FORMAT",
            "CHECKSUM",
            "AVG_ROW_LENGTH",
            "MAX_ROWS",
            "MIN_ROWS",
            "PACK_KEYS",
            "DELAY_KEY_WRITE",
            "KEY_BLOCK_SIZE",
            "STATS_AUTO_RECALC",
            "STATS_PERSISTENT",
            "STATS_SAMPLE_PAGES",
            "COMPRESSION",
            "CONNECTION",
            "DATA",
            "INDEX",
            "ENCRYPTION",
            "INSERT_METHOD",
            "PASSWORD",
            "TABLESPACE",
            "UNION",
            "TABLE_CHECKSUM",
            "AUTOEXTEND_SIZE",
            "ENGINE_ATTRIBUTE",
            "SECONDARY_ENGINE_ATTRIBUTE",
            "SECONDARY_ENGINE",
            "STORAGE",
            "START",
        ];
        self.is_any(OPTIONS)
    }

    pub fn table_option(&mut self) -> Result<Option<TableOption>> {
        if !self.at_table_option() {
            return Ok(None);
        }
        let default = self.eat_kw("DEFAULT");
        if self.eat_charset_keyword() {
            self.eat(Tok::Eq);
            let charset = if self.eat_kw("DEFAULT") { "default".into() } else { self.charset_name()? };
            return Ok(Some(TableOption::Charset(charset)));
        }
        if self.eat_kw("COLLATE") {
            self.eat(Tok::Eq);
            return Ok(Some(TableOption::Collate(self.charset_name()?)));
        }
        if default || self.is_any(&["CHARACTER", "CHAR"]) {
            return Err(self.error());
        }
        let mut name = self.upper_word()?;
        if matches!(name.as_str(), "DATA" | "INDEX") {
            self.expect_kw("DIRECTORY")?;
            name.push_str(" DIRECTORY");
        }
        if name == "START" {
            self.expect_kw("TRANSACTION")?;
            return Ok(Some(TableOption::Other { name: "START TRANSACTION".into(), value: String::new() }));
        }
        self.eat(Tok::Eq);
        Ok(Some(match name.as_str() {
            "ENGINE" => TableOption::Engine(self.ident_or_string()?),
            "AUTO_INCREMENT" => TableOption::AutoIncrement(self.unsigned()?),
            "COMMENT" => TableOption::Comment(self.string()?),
            "ROW_FORMAT" => TableOption::RowFormat(self.upper_word()?),
            "UNION" => {
                let start = self.tok.start;
                self.expect(Tok::LParen)?;
                if !self.is(Tok::RParen) {
                    self.object_names()?;
                }
                self.expect(Tok::RParen)?;
                TableOption::Other { name, value: self.text_from(start) }
            }
            _ => {
                let start = self.tok.start;
                if !matches!(self.tok.kind, Tok::Word | Tok::QuotedIdent | Tok::Str | Tok::Int) {
                    return Err(self.error());
                }
                self.bump();
                TableOption::Other { name, value: self.text_from(start) }
            }
        }))
    }
}
