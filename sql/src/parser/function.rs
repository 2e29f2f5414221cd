//! Function calls: ordinary ones, aggregates and windows, and those with a syntax of their own.

use crate::error::Result;

use super::ast::{
    DataType, Expr, Frame, FrameBound, FrameUnit, Function, Ident, Literal, MatchMode, OrderItem, Over,
    TrimSide, TypeName, Window,
};
use super::cursor::Parser;
use super::keywords::is_reserved;
use super::lexer::{Tok, Token};

/// Reserved words that are functions before a parenthesis.
const RESERVED_FUNCTIONS: &[&str] = &[
    "CUME_DIST",
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "CURRENT_USER",
    "DATABASE",
    "DENSE_RANK",
    "FIRST_VALUE",
    "GROUPING",
    "IF",
    "INSERT",
    "LAG",
    "LAST_VALUE",
    "LEAD",
    "LEFT",
    "LOCALTIME",
    "LOCALTIMESTAMP",
    "MOD",
    "NTH_VALUE",
    "NTILE",
    "PERCENT_RANK",
    "RANK",
    "REPEAT",
    "REPLACE",
    "RIGHT",
    "ROW_NUMBER",
    "SCHEMA",
    "UTC_DATE",
    "UTC_TIME",
    "UTC_TIMESTAMP",
];

/// Functions that are called without parentheses too.
const BARE_FUNCTIONS: &[&str] = &[
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "CURRENT_USER",
    "LOCALTIME",
    "LOCALTIMESTAMP",
    "UTC_DATE",
    "UTC_TIME",
    "UTC_TIMESTAMP",
];

impl Parser<'_> {
    /// Whether this word can name a function when a parenthesis follows.
    pub fn callable(&self, token: Token) -> bool {
        let word = self.bytes(token);
        !is_reserved(word) || RESERVED_FUNCTIONS.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// A call of a function with its own syntax; nothing if the current word is not one.
    #[inline(never)]
    pub fn special_call(&mut self) -> Result<Option<Expr>> {
        let token = self.tok;
        if self.peek().kind != Tok::LParen {
            if BARE_FUNCTIONS.iter().any(|name| self.is_kw(name)) {
                self.bump();
                return Ok(Some(Function::call(String::from_utf8_lossy(self.bytes(token)), Vec::new())));
            }
            return Ok(None);
        }
        let mut upper = [0u8; 16];
        let word = self.bytes(token);
        if word.len() > upper.len() {
            return Ok(None);
        }
        let upper = &mut upper[..word.len()];
        upper.copy_from_slice(word);
        upper.make_ascii_uppercase();
        let rule: fn(&mut Self) -> Result<Expr> = match &*upper {
            b"CAST" => Self::cast,
            b"CONVERT" => Self::convert,
            b"EXTRACT" => Self::extract,
            b"TRIM" => Self::trim,
            b"POSITION" => Self::position,
            b"SUBSTRING" | b"SUBSTR" | b"MID" => Self::substring,
            b"CHAR" => Self::char_function,
            b"VALUES" => Self::values_function,
            b"MATCH" => Self::match_against,
            b"TIMESTAMPADD" | b"TIMESTAMPDIFF" => Self::timestamp_function,
            b"DATE_ADD" | b"DATE_SUB" | b"ADDDATE" | b"SUBDATE" => Self::date_arithmetic,
            b"GET_FORMAT" => Self::get_format,
            b"WEIGHT_STRING" => Self::weight_string,
            b"JSON_VALUE" | b"JSON_TABLE" => Self::json_function,
            _ => return Ok(None),
        };
        self.bump();
        self.bump();
        let expr = rule(self)?;
        self.expect(Tok::RParen)?;
        let expr = match expr {
            // These rules do not know how their name was written.
            Expr::Function(mut call) if call.name.is_empty() => {
                call.name = self.ident_of(token)?;
                Expr::Function(call)
            }
            other => other,
        };
        Ok(Some(expr))
    }

    #[inline(never)]
    fn cast(&mut self) -> Result<Expr> {
        let expr = Box::new(self.expr()?);
        if self.is_kw("AT") {
            return self.unsupported("CAST AT TIME ZONE");
        }
        self.expect_kw("AS")?;
        let ty = Box::new(self.cast_type()?);
        let array = self.eat_kw("ARRAY");
        Ok(Expr::Cast { expr, ty, array })
    }

    fn convert(&mut self) -> Result<Expr> {
        let expr = Box::new(self.expr()?);
        if self.eat_kw("USING") {
            let charset = self.charset_name()?;
            return Ok(Expr::ConvertUsing { expr, charset });
        }
        self.expect(Tok::Comma)?;
        let ty = Box::new(self.cast_type()?);
        Ok(Expr::Cast { expr, ty, array: false })
    }

    fn extract(&mut self) -> Result<Expr> {
        let unit = self.interval_unit()?;
        self.expect_kw("FROM")?;
        Ok(Expr::Extract { unit, expr: Box::new(self.expr()?) })
    }

    #[inline(never)]
    fn trim(&mut self) -> Result<Expr> {
        let side = match self.eat_any(&["BOTH", "LEADING", "TRAILING"]) {
            Some("BOTH") => Some(TrimSide::Both),
            Some("LEADING") => Some(TrimSide::Leading),
            Some(_) => Some(TrimSide::Trailing),
            None => None,
        };
        if side.is_some() && self.eat_kw("FROM") {
            let from = Box::new(self.expr()?);
            return Ok(Expr::Trim { side: side.unwrap_or(TrimSide::Both), what: None, from });
        }
        let first = Box::new(self.expr()?);
        let side_or_both = side.unwrap_or(TrimSide::Both);
        if self.eat_kw("FROM") {
            let from = Box::new(self.expr()?);
            return Ok(Expr::Trim { side: side_or_both, what: Some(first), from });
        }
        if side.is_some() {
            return Err(self.error());
        }
        Ok(Expr::Trim { side: side_or_both, what: None, from: first })
    }

    fn position(&mut self) -> Result<Expr> {
        let needle = self.bit_expr()?;
        self.expect_kw("IN")?;
        let haystack = self.expr()?;
        Ok(Function::call("LOCATE", vec![needle, haystack]))
    }

    #[inline(never)]
    fn substring(&mut self) -> Result<Expr> {
        let mut args = vec![self.expr()?];
        if self.eat_kw("FROM") {
            args.push(self.expr()?);
            if self.eat_kw("FOR") {
                args.push(self.expr()?);
            }
        } else {
            while self.eat(Tok::Comma) {
                args.push(self.expr()?);
            }
        }
        if !(2..=3).contains(&args.len()) {
            return Err(self.error());
        }
        Ok(Function::call("", args))
    }

    fn char_function(&mut self) -> Result<Expr> {
        let args = self.expr_list()?;
        let charset = if self.eat_kw("USING") { Some(self.charset_name()?) } else { None };
        Ok(Expr::Char { args, charset })
    }

    fn values_function(&mut self) -> Result<Expr> {
        Ok(Expr::Values(self.column_name()?))
    }

    fn match_against(&mut self) -> Result<Expr> {
        let columns = self.comma_list(Self::column_name)?;
        self.expect(Tok::RParen)?;
        self.expect_kw("AGAINST")?;
        self.expect(Tok::LParen)?;
        let against = Box::new(self.bit_expr()?);
        let mode = if self.eat_kws(&["IN", "BOOLEAN", "MODE"]) {
            MatchMode::Boolean
        } else if self.eat_kws(&["IN", "NATURAL", "LANGUAGE", "MODE"]) {
            match self.eat_kws(&["WITH", "QUERY", "EXPANSION"]) {
                true => MatchMode::NaturalLanguageWithExpansion,
                false => MatchMode::NaturalLanguage,
            }
        } else if self.eat_kws(&["WITH", "QUERY", "EXPANSION"]) {
            MatchMode::QueryExpansion
        } else {
            MatchMode::NaturalLanguage
        };
        Ok(Expr::Match { columns, against, mode })
    }

    fn timestamp_function(&mut self) -> Result<Expr> {
        let unit = self.interval_unit()?;
        let mut args = vec![Expr::Unit(unit)];
        for _ in 0..2 {
            self.expect(Tok::Comma)?;
            args.push(self.expr()?);
        }
        Ok(Function::call("", args))
    }

    fn date_arithmetic(&mut self) -> Result<Expr> {
        let date = self.expr()?;
        self.expect(Tok::Comma)?;
        let amount = if self.is_kw("INTERVAL") { self.interval()? } else { self.expr()? };
        Ok(Function::call("", vec![date, amount]))
    }

    fn get_format(&mut self) -> Result<Expr> {
        let kind = self.eat_any(&["DATE", "TIME", "DATETIME", "TIMESTAMP"]).ok_or_else(|| self.error())?;
        self.expect(Tok::Comma)?;
        let style = self.expr()?;
        Ok(Function::call("", vec![Expr::Literal(Literal::str(kind)), style]))
    }

    /// `WEIGHT_STRING(s [AS CHAR(n) | BINARY(n)])`: a second argument is the string cast.
    fn weight_string(&mut self) -> Result<Expr> {
        let text = self.expr()?;
        let arg = if self.eat_kw("AS") {
            let ty = Box::new(self.cast_type()?);
            Expr::Cast { expr: Box::new(text), ty, array: false }
        } else {
            text
        };
        Ok(Function::call("", vec![arg]))
    }

    fn json_function(&mut self) -> Result<Expr> {
        let args = self.expr_list()?;
        if self.is(Tok::RParen) {
            return Ok(Function::call("", args));
        }
        self.unsupported("RETURNING, ON EMPTY and ON ERROR clauses of JSON functions")
    }

    /// A call in ordinary syntax; the name is consumed, the parenthesis is next.
    #[inline(never)]
    pub fn call(&mut self, schema: Option<Ident>, name: Ident) -> Result<Expr> {
        self.expect(Tok::LParen)?;
        let Expr::Function(mut call) = Function::call(name, Vec::new()) else {
            unreachable!("call() makes a function")
        };
        call.schema = schema;
        if self.is(Tok::Star) && call.name.eq_ignore_ascii_case("COUNT") {
            self.bump();
            call.star = true;
        } else if !self.is(Tok::RParen) {
            if self.eat_kw("DISTINCT") || self.eat_kw("DISTINCTROW") {
                call.distinct = true;
            } else {
                self.eat_kw("ALL");
            }
            call.args = self.expr_list()?;
            if call.name.eq_ignore_ascii_case("GROUP_CONCAT") {
                call.order_by = self.order_by()?;
                if self.eat_kw("SEPARATOR") {
                    call.separator = Some(self.string_bytes()?);
                }
            }
        }
        self.expect(Tok::RParen)?;
        self.window_suffix(&mut call)?;
        Ok(Expr::Function(call))
    }

    /// `[FROM FIRST|LAST] [RESPECT|IGNORE NULLS] [OVER …]`
    fn window_suffix(&mut self, call: &mut Function) -> Result<()> {
        if !self.is(Tok::Word) {
            return Ok(());
        }
        if call.name.eq_ignore_ascii_case("NTH_VALUE") && self.is_kw("FROM") && self.next_is("LAST") {
            self.bump();
            self.bump();
            call.from_last = true;
        } else if call.name.eq_ignore_ascii_case("NTH_VALUE") {
            self.eat_kws(&["FROM", "FIRST"]);
        }
        if self.eat_kws(&["IGNORE", "NULLS"]) {
            call.ignore_nulls = true;
        } else {
            self.eat_kws(&["RESPECT", "NULLS"]);
        }
        if self.eat_kw("OVER") {
            call.over = Some(match self.is(Tok::LParen) {
                true => Over::Window(self.window_spec()?),
                false => Over::Name(self.ident()?),
            });
        }
        Ok(())
    }

    /// `( [name] [PARTITION BY …] [ORDER BY …] [frame] )`
    pub fn window_spec(&mut self) -> Result<Window> {
        self.expect(Tok::LParen)?;
        let mut window = Window::default();
        if self.is_ident() && !self.is_kw("PARTITION") {
            window.base = Some(self.ident()?);
        }
        if self.eat_kw("PARTITION") {
            self.expect_kw("BY")?;
            window.partition_by = self.expr_list()?;
        }
        window.order_by = self.order_by()?;
        if let Some(unit) = self.eat_any(&["ROWS", "RANGE", "GROUPS"]) {
            let unit = match unit {
                "ROWS" => FrameUnit::Rows,
                "RANGE" => FrameUnit::Range,
                _ => return self.unsupported("GROUPS"),
            };
            let (start, end) = if self.eat_kw("BETWEEN") {
                let start = self.frame_bound()?;
                self.expect_kw("AND")?;
                (start, self.frame_bound()?)
            } else {
                (self.frame_bound()?, FrameBound::CurrentRow)
            };
            if self.is_kw("EXCLUDE") {
                return self.unsupported("EXCLUDE");
            }
            window.frame = Some(Frame { unit, start, end });
        }
        self.expect(Tok::RParen)?;
        Ok(window)
    }

    fn frame_bound(&mut self) -> Result<FrameBound> {
        if self.eat_kws(&["CURRENT", "ROW"]) {
            return Ok(FrameBound::CurrentRow);
        }
        if self.eat_kw("UNBOUNDED") {
            return match self.eat_any(&["PRECEDING", "FOLLOWING"]) {
                Some("PRECEDING") => Ok(FrameBound::UnboundedPreceding),
                Some(_) => Ok(FrameBound::UnboundedFollowing),
                None => Err(self.error()),
            };
        }
        let amount = if self.is_kw("INTERVAL") { self.interval()? } else { self.bit_expr()? };
        match self.eat_any(&["PRECEDING", "FOLLOWING"]) {
            Some("PRECEDING") => Ok(FrameBound::Preceding(amount)),
            Some(_) => Ok(FrameBound::Following(amount)),
            None => Err(self.error()),
        }
    }

    /// `ORDER BY …`, or nothing.
    pub fn order_by(&mut self) -> Result<Vec<OrderItem>> {
        if !self.eat_kw("ORDER") {
            return Ok(Vec::new());
        }
        self.expect_kw("BY")?;
        self.comma_list(Self::order_item)
    }

    pub fn order_item(&mut self) -> Result<OrderItem> {
        let expr = self.expr()?;
        let desc = self.eat_kw("DESC");
        if !desc {
            self.eat_kw("ASC");
        }
        Ok(OrderItem { expr, desc })
    }

    /// The type in CAST and CONVERT.
    pub fn cast_type(&mut self) -> Result<DataType> {
        if let Some(sign) = self.eat_any(&["SIGNED", "UNSIGNED"]) {
            let _ = self.eat_kw("INTEGER") || self.eat_kw("INT");
            return Ok(DataType::plain(if sign == "SIGNED" { TypeName::Signed } else { TypeName::Unsigned }));
        }
        let at = self.tok.start;
        let ty = self.data_type()?;
        use TypeName as T;
        let allowed = matches!(
            ty.name,
            T::Binary
                | T::Char
                | T::Date
                | T::Time
                | T::DateTime
                | T::Decimal
                | T::Double
                | T::Float
                | T::Json
                | T::Year
                | T::Geometry(_)
        );
        if allowed { Ok(ty) } else { Err(self.error_at(at)) }
    }
}
