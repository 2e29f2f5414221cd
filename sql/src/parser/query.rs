//! Queries: SELECT, VALUES, TABLE, set operations, common table expressions.

use crate::error::{Error, Result};

use super::ast::{
    Cte, Expr, Ident, IntoClause, Limit, Literal, LockStrength, LockWait, Locking, ObjectName, Query, Select,
    SelectItem, SetExpr, SetOp, UnaryOp, With,
};
use super::cursor::Parser;
use super::lexer::{Tok, Token};

/// The longest title of a result column in bytes.
const TITLE_LENGTH_MAX: usize = 255;
/// How many levels of expression one level of query counts for.
const QUERY_DEPTH: usize = 2;

impl Parser<'_> {
    /// Whether a token starts a query.
    fn starts_query(&self, token: Token) -> bool {
        ["SELECT", "WITH", "TABLE"].iter().any(|word| self.token_is(token, word))
    }

    /// Whether a query in parentheses starts at the current token, seen from its first two tokens.
    pub fn at_paren_query(&self) -> bool {
        if !self.is(Tok::LParen) {
            return false;
        }
        let next = self.peek();
        self.starts_query(next) || (self.token_is(next, "VALUES") && self.token_is(self.peek2(), "ROW"))
    }

    /// Whether the current token can start a query.
    pub fn at_query(&self) -> bool {
        self.starts_query(self.tok) || self.at_paren_query() || (self.is_kw("VALUES") && self.next_is("ROW"))
    }

    /// `( query )`
    pub fn paren_query(&mut self) -> Result<Query> {
        self.expect(Tok::LParen)?;
        self.depth += QUERY_DEPTH;
        let query = self.nested(Self::query)?;
        self.depth -= QUERY_DEPTH;
        self.expect(Tok::RParen)?;
        Ok(query)
    }

    /// A query with everything that may surround it.
    pub fn query(&mut self) -> Result<Query> {
        let with = if self.is_kw("WITH") { Some(self.with_clause()?) } else { None };
        self.query_after_with(with)
    }

    pub fn query_after_with(&mut self, with: Option<With>) -> Result<Query> {
        let mut query = Query::plain(SetExpr::Values(Vec::new()));
        query.with = with;
        let mut into = None;
        query.body = self.set_expr(1, &mut into)?;
        query.into = into;
        query.order_by = self.order_by()?;
        query.limit = self.limit()?;
        self.query_tail(&mut query)?;
        // `(SELECT …)` with nothing outside the parentheses is the query inside.
        if let SetExpr::Query(_) = &query.body
            && query.with.is_none()
            && query.order_by.is_empty()
            && query.limit.is_none()
            && query.locking.is_empty()
            && query.into.is_none()
            && let SetExpr::Query(inner) = query.body
        {
            return Ok(*inner);
        }
        Ok(query)
    }

    /// INTO and locking clauses in any order.
    fn query_tail(&mut self, query: &mut Query) -> Result<()> {
        loop {
            if self.is_kw("INTO") && query.into.is_none() {
                query.into = Some(self.into_clause()?);
            } else if self.is_kw("FOR") && (self.next_is("UPDATE") || self.next_is("SHARE")) {
                self.bump();
                let strength =
                    if self.upper_word()? == "UPDATE" { LockStrength::Update } else { LockStrength::Share };
                let of = if self.eat_kw("OF") { self.object_names()? } else { Vec::new() };
                let wait = if self.eat_kw("NOWAIT") {
                    LockWait::NoWait
                } else if self.eat_kws(&["SKIP", "LOCKED"]) {
                    LockWait::SkipLocked
                } else {
                    LockWait::Wait
                };
                query.locking.push(Locking { strength, of, wait });
            } else if self.is_kw("LOCK") {
                self.expect_kws(&["LOCK", "IN", "SHARE", "MODE"])?;
                query.locking.push(Locking {
                    strength: LockStrength::Share,
                    of: Vec::new(),
                    wait: LockWait::Wait,
                });
            } else {
                return Ok(());
            }
        }
    }

    pub fn with_clause(&mut self) -> Result<With> {
        self.expect_kw("WITH")?;
        let recursive = self.eat_kw("RECURSIVE");
        let ctes = self.comma_list(|p| {
            let name = p.ident()?;
            let columns = if p.is(Tok::LParen) { p.paren_list(Self::ident)? } else { Vec::new() };
            p.expect_kw("AS")?;
            Ok(Cte { name, columns, query: p.paren_query()? })
        })?;
        Ok(With { recursive, ctes })
    }

    /// Set operations: INTERSECT (level 2) binds tighter than UNION and EXCEPT (level 1).
    fn set_expr(&mut self, level: u8, into: &mut Option<IntoClause>) -> Result<SetExpr> {
        let mut left = if level == 1 { self.set_expr(2, into)? } else { self.query_primary(into)? };
        let mut chain = 0;
        loop {
            let op = match level {
                1 if self.is_kw("UNION") => SetOp::Union,
                1 if self.is_kw("EXCEPT") => SetOp::Except,
                2 if self.is_kw("INTERSECT") => SetOp::Intersect,
                _ => return Ok(left),
            };
            chain += 1;
            if chain > super::cursor::CHAIN_MAX {
                return Err(Error::TooDeep);
            }
            self.bump();
            let all = self.eat_kw("ALL");
            if !all {
                self.eat_kw("DISTINCT");
            }
            let right = if level == 1 { self.set_expr(2, into)? } else { self.query_primary(into)? };
            left = SetExpr::SetOp { op, all, left: Box::new(left), right: Box::new(right) };
        }
    }

    fn query_primary(&mut self, into: &mut Option<IntoClause>) -> Result<SetExpr> {
        if self.is_kw("SELECT") {
            return Ok(SetExpr::Select(Box::new(self.select(into)?)));
        }
        if self.eat_kw("TABLE") {
            return Ok(SetExpr::Table(self.object_name()?));
        }
        if self.is_kw("VALUES") {
            self.bump();
            return Ok(SetExpr::Values(self.comma_list(|p| {
                p.expect_kw("ROW")?;
                p.paren_list(Self::expr)
            })?));
        }
        if self.is(Tok::LParen) {
            return Ok(SetExpr::Query(Box::new(self.paren_query()?)));
        }
        Err(self.error())
    }

    fn select(&mut self, into: &mut Option<IntoClause>) -> Result<Select> {
        let mut select = Select { hints: self.hint_text(), ..Select::default() };
        self.expect_kw("SELECT")?;
        self.select_options(&mut select)?;
        select.items = self.comma_list(Self::select_item)?;
        if self.is_kw("INTO") {
            *into = Some(self.into_clause()?);
        }
        if self.eat_kw("FROM") {
            if self.eat_kw("DUAL") {
                // No table at all.
            } else {
                select.from = self.table_refs()?;
            }
        }
        if self.eat_kw("WHERE") {
            select.where_ = Some(self.expr()?);
        }
        if self.eat_kw("GROUP") {
            self.expect_kw("BY")?;
            select.group_by = self.comma_list(Self::order_item)?;
            select.with_rollup = self.eat_kws(&["WITH", "ROLLUP"]);
        }
        if self.eat_kw("HAVING") {
            select.having = Some(self.expr()?);
        }
        if self.eat_kw("WINDOW") {
            select.windows = self.comma_list(|p| {
                let name = p.ident()?;
                p.expect_kw("AS")?;
                Ok((name, p.window_spec()?))
            })?;
        }
        if self.is_kw("QUALIFY") {
            return self.unsupported("QUALIFY");
        }
        Ok(select)
    }

    /// The text of a `/*+ … */` right after the current token.
    fn hint_text(&self) -> Option<String> {
        let rest = &self.src[self.tok.end..];
        let rest = rest.trim_ascii_start().strip_prefix(b"/*+")?;
        let end = memchr::memmem::find(rest, b"*/")?;
        Some(String::from_utf8_lossy(&rest[..end]).trim().to_string())
    }

    fn select_options(&mut self, select: &mut Select) -> Result<()> {
        const OPTIONS: &[&str] = &[
            "ALL",
            "DISTINCT",
            "DISTINCTROW",
            "HIGH_PRIORITY",
            "STRAIGHT_JOIN",
            "SQL_SMALL_RESULT",
            "SQL_BIG_RESULT",
            "SQL_BUFFER_RESULT",
            "SQL_NO_CACHE",
            "SQL_CALC_FOUND_ROWS",
        ];
        let mut all = false;
        while self.is(Tok::Word) {
            match self.eat_any(OPTIONS) {
                Some("DISTINCT" | "DISTINCTROW") => select.distinct = true,
                Some("ALL") => all = true,
                Some("STRAIGHT_JOIN") => select.straight_join = true,
                Some("SQL_CALC_FOUND_ROWS") => select.calc_found_rows = true,
                Some(_) => {}
                None => break,
            }
            if all && select.distinct {
                return Err(Error::WrongUsage { left: "ALL".into(), right: "DISTINCT".into() });
            }
        }
        Ok(())
    }

    fn select_item(&mut self) -> Result<SelectItem> {
        if self.eat(Tok::Star) {
            return Ok(SelectItem::Wildcard);
        }
        if matches!(self.tok.kind, Tok::Word | Tok::QuotedIdent)
            && self.peek().kind == Tok::Dot
            && let Some(name) = self.table_wildcard()?
        {
            return Ok(SelectItem::TableWildcard(name));
        }
        let start = self.tok.start;
        let expr = self.expr()?;
        let end = self.prev_end;
        if let Some(alias) = self.select_alias()? {
            return Ok(SelectItem::Expr { expr, title: alias.clone(), alias: Some(alias) });
        }
        let title = self.title(&expr, start, end);
        Ok(SelectItem::Expr { expr, alias: None, title })
    }

    /// `[schema.]table.*`, or nothing consumed.
    fn table_wildcard(&mut self) -> Result<Option<ObjectName>> {
        let mark = self.mark();
        let first = self.ident_any()?;
        self.bump();
        if self.eat(Tok::Star) {
            return Ok(Some(ObjectName { schema: None, name: first }));
        }
        if matches!(self.tok.kind, Tok::Word | Tok::QuotedIdent) {
            let name = self.ident_any()?;
            if self.eat(Tok::Dot) && self.eat(Tok::Star) {
                return Ok(Some(ObjectName { schema: Some(first), name }));
            }
        }
        self.reset(mark);
        Ok(None)
    }

    fn select_alias(&mut self) -> Result<Option<Ident>> {
        if self.eat_kw("AS") {
            return match self.tok.kind {
                Tok::Str => Ok(Some(self.string()?)),
                _ => Ok(Some(self.ident()?)),
            };
        }
        match self.tok.kind {
            Tok::Str => Ok(Some(self.string()?)),
            _ if self.is_ident() => Ok(Some(self.ident_any()?)),
            _ => Ok(None),
        }
    }

    /// The title MySQL gives an expression without an alias.
    fn title(&self, expr: &Expr, start: usize, end: usize) -> String {
        let mut title = match expr {
            Expr::Column(column) => return column.name.clone(),
            Expr::Literal(Literal::Null) => return "NULL".into(),
            Expr::Literal(Literal::Bool(value)) => {
                return if *value { "TRUE".into() } else { "FALSE".into() };
            }
            Expr::Literal(Literal::Str { .. }) => {
                // Of `'a' 'b'` only the first piece.
                self.first_string(start).trim_start().to_string()
            }
            Expr::Literal(Literal::Int(_) | Literal::Decimal(_) | Literal::Float(_)) => {
                self.strip_parens(start, end)
            }
            Expr::Unary { op: UnaryOp::Plus, expr } if matches!(**expr, Expr::Literal(_)) => {
                let text = &self.src[start..end];
                let skip = text.iter().position(|byte| *byte == b'+').map_or(0, |at| at + 1);
                String::from_utf8_lossy(text[skip..].trim_ascii_start()).into_owned()
            }
            _ => String::from_utf8_lossy(&self.src[start..end]).into_owned(),
        };
        if title.len() > TITLE_LENGTH_MAX {
            let cut = (0..=TITLE_LENGTH_MAX).rev().find(|at| title.is_char_boundary(*at)).unwrap_or(0);
            title.truncate(cut);
        }
        title
    }

    /// The content of the first string token from a position on.
    fn first_string(&self, start: usize) -> String {
        let mut inner = Parser::new(&self.src[start..], self.options);
        while !matches!(inner.tok.kind, Tok::Str | Tok::NationalStr | Tok::Eof | Tok::Error) {
            inner.bump();
        }
        match inner.tok.kind {
            Tok::Str | Tok::NationalStr => String::from_utf8_lossy(&inner.string_of(inner.tok)).into_owned(),
            _ => String::new(),
        }
    }

    /// A literal's text without parentheses around it.
    fn strip_parens(&self, start: usize, end: usize) -> String {
        let mut text = &self.src[start..end];
        while let Some(inner) = text.strip_prefix(b"(").and_then(|inner| inner.strip_suffix(b")")) {
            text = inner.trim_ascii();
        }
        String::from_utf8_lossy(text).into_owned()
    }

    /// `LIMIT [offset,] count` or `LIMIT count OFFSET offset`, or nothing.
    pub fn limit(&mut self) -> Result<Option<Limit>> {
        if !self.eat_kw("LIMIT") {
            return Ok(None);
        }
        let first = self.limit_value()?;
        if self.eat(Tok::Comma) {
            let count = self.limit_value()?;
            return Ok(Some(Limit { count, offset: Some(first) }));
        }
        let offset = if self.eat_kw("OFFSET") { Some(self.limit_value()?) } else { None };
        Ok(Some(Limit { count: first, offset }))
    }

    fn limit_value(&mut self) -> Result<Expr> {
        if self.eat(Tok::Param) {
            self.params += 1;
            return Ok(Expr::Param(self.params - 1));
        }
        Ok(Expr::Literal(Literal::Int(self.unsigned()?)))
    }

    fn into_clause(&mut self) -> Result<IntoClause> {
        self.expect_kw("INTO")?;
        if self.eat_kw("OUTFILE") {
            let path = self.string()?;
            let format = Box::new(self.load_format()?);
            return Ok(IntoClause::Outfile { path, format });
        }
        if self.eat_kw("DUMPFILE") {
            return Ok(IntoClause::Dumpfile(self.string()?));
        }
        Ok(IntoClause::Vars(self.comma_list(|p| {
            let token = p.expect(Tok::UserVar)?;
            p.user_var_name(token)
        })?))
    }
}
