//! Expressions, with MySQL's precedences.
//!
//! From loosest to tightest: `OR`; `XOR`; `AND`; `NOT`; comparison and `IS`; `IN`, `LIKE`, `BETWEEN`, `REGEXP`; `|`; `&`; shifts;
//! `+ -`; `* / DIV % MOD`; `^`; `||` under PIPES_AS_CONCAT; unary `- + ~ !`, `BINARY`; `COLLATE`, `->`.

use crate::error::{Error, Result};

use super::ast::{BinaryOp, ColumnName, Expr, Literal, TemporalKind, Truth, TypeName, UnaryOp};
use super::cursor::{CHAIN_MAX, DEPTH_MAX, Parser};
use super::lexer::Tok;

/// Binding powers of the levels above.
pub(super) mod prec {
    pub const OR: u8 = 1;
    pub const XOR: u8 = 2;
    pub const AND: u8 = 3;
    pub const NOT: u8 = 4;
    pub const COMPARE: u8 = 6;
    pub const PREDICATE: u8 = 7;
    pub const BIT_OR: u8 = 8;
    pub const BIT_AND: u8 = 9;
    pub const SHIFT: u8 = 10;
    pub const ADD: u8 = 11;
    pub const MUL: u8 = 12;
    pub const BIT_XOR: u8 = 13;
    pub const CONCAT: u8 = 14;
    /// Nothing infix.
    pub const SIMPLE: u8 = 15;
}

/// An infix operator as found in the text.
enum Infix {
    Binary(BinaryOp, u8),
    /// One of the word operators of the predicate level, or IS.
    Predicate(u8),
}

impl Parser<'_> {
    /// A whole expression.
    pub fn expr(&mut self) -> Result<Expr> {
        self.expr_prec(prec::OR)
    }

    /// An expression without comparison or logic: what BETWEEN's bounds and the like are.
    pub fn bit_expr(&mut self) -> Result<Expr> {
        self.expr_prec(prec::BIT_OR)
    }

    pub fn expr_list(&mut self) -> Result<Vec<Expr>> {
        self.comma_list(Self::expr)
    }

    pub(super) fn expr_prec(&mut self, min: u8) -> Result<Expr> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::TooDeep);
        }
        let result = self.expr_loop(min);
        self.depth -= 1;
        result
    }

    fn expr_loop(&mut self, min: u8) -> Result<Expr> {
        let mut left = if min <= prec::NOT && !self.options.high_not_precedence && self.eat_kw("NOT") {
            let expr = self.expr_prec(prec::NOT)?;
            Expr::Unary { op: UnaryOp::Not, expr: Box::new(expr) }
        } else {
            self.simple_expr()?
        };
        let mut chain = 0;
        // After LIKE, IN and the like only comparison and logic may follow.
        let mut limit = u8::MAX;
        while let Some(infix) = self.infix(min) {
            let (Infix::Binary(_, power) | Infix::Predicate(power)) = infix;
            if power >= limit {
                break;
            }
            limit = if power == prec::PREDICATE { prec::PREDICATE } else { limit };
            chain += 1;
            if chain > CHAIN_MAX {
                return Err(Error::TooDeep);
            }
            left = match infix {
                Infix::Binary(op @ (BinaryOp::And | BinaryOp::Or), power) => {
                    self.logic_chain(left, op, power)?
                }
                Infix::Binary(op, power) => self.binary(left, op, power)?,
                Infix::Predicate(_) => self.predicate(left)?,
            };
        }
        Ok(left)
    }

    /// The operator at the current token if it binds at least as tightly as `min`. Consumes nothing.
    fn infix(&self, min: u8) -> Option<Infix> {
        let (op, power) = match self.tok.kind {
            Tok::Word => return self.word_infix(min),
            Tok::PipePipe if self.options.pipes_as_concat => (BinaryOp::Concat, prec::CONCAT),
            Tok::PipePipe => (BinaryOp::Or, prec::OR),
            Tok::AmpAmp => (BinaryOp::And, prec::AND),
            Tok::Eq => (BinaryOp::Eq, prec::COMPARE),
            Tok::NullSafeEq => (BinaryOp::NullSafeEq, prec::COMPARE),
            Tok::Ne => (BinaryOp::Ne, prec::COMPARE),
            Tok::Lt => (BinaryOp::Lt, prec::COMPARE),
            Tok::Le => (BinaryOp::Le, prec::COMPARE),
            Tok::Gt => (BinaryOp::Gt, prec::COMPARE),
            Tok::Ge => (BinaryOp::Ge, prec::COMPARE),
            Tok::Pipe => (BinaryOp::BitOr, prec::BIT_OR),
            Tok::Amp => (BinaryOp::BitAnd, prec::BIT_AND),
            Tok::ShiftLeft => (BinaryOp::ShiftLeft, prec::SHIFT),
            Tok::ShiftRight => (BinaryOp::ShiftRight, prec::SHIFT),
            Tok::Plus => (BinaryOp::Add, prec::ADD),
            Tok::Minus => (BinaryOp::Sub, prec::ADD),
            Tok::Star => (BinaryOp::Mul, prec::MUL),
            Tok::Slash => (BinaryOp::Div, prec::MUL),
            Tok::Percent => (BinaryOp::Mod, prec::MUL),
            Tok::Caret => (BinaryOp::BitXor, prec::BIT_XOR),
            _ => return None,
        };
        (power >= min).then_some(Infix::Binary(op, power))
    }

    fn word_infix(&self, min: u8) -> Option<Infix> {
        let word = self.bytes(self.tok);
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        let infix = match word.first()?.to_ascii_uppercase() {
            b'A' if is("AND") => Infix::Binary(BinaryOp::And, prec::AND),
            b'O' if is("OR") => Infix::Binary(BinaryOp::Or, prec::OR),
            b'X' if is("XOR") => Infix::Binary(BinaryOp::Xor, prec::XOR),
            b'D' if is("DIV") => Infix::Binary(BinaryOp::IntDiv, prec::MUL),
            b'M' if is("MOD") => Infix::Binary(BinaryOp::Mod, prec::MUL),
            b'I' if is("IS") => Infix::Predicate(prec::COMPARE),
            b'I' if is("IN") => Infix::Predicate(prec::PREDICATE),
            b'L' if is("LIKE") => Infix::Predicate(prec::PREDICATE),
            b'B' if is("BETWEEN") => Infix::Predicate(prec::PREDICATE),
            b'R' if is("REGEXP") || is("RLIKE") => Infix::Predicate(prec::PREDICATE),
            b'S' if is("SOUNDS") && self.next_is("LIKE") => Infix::Predicate(prec::PREDICATE),
            b'M' if is("MEMBER") && (self.next_is("OF") || self.peek().kind == Tok::LParen) => {
                Infix::Predicate(prec::PREDICATE)
            }
            b'N' if is("NOT") => {
                let next = self.peek();
                let found =
                    ["IN", "LIKE", "BETWEEN", "REGEXP", "RLIKE"].iter().any(|word| self.token_is(next, word));
                if !found {
                    return None;
                }
                Infix::Predicate(prec::PREDICATE)
            }
            _ => return None,
        };
        let (Infix::Binary(_, power) | Infix::Predicate(power)) = infix;
        (power >= min).then_some(infix)
    }

    /// All operands of `a AND b AND …`, joined as a balanced tree.
    #[inline(never)]
    fn logic_chain(&mut self, first: Expr, op: BinaryOp, power: u8) -> Result<Expr> {
        let mut operands = vec![first];
        while matches!(self.infix(power), Some(Infix::Binary(found, _)) if found == op) {
            self.bump();
            operands.push(self.expr_prec(power + 1)?);
        }
        Ok(balance(&mut operands.into_iter(), op))
    }

    #[inline(never)]
    fn binary(&mut self, left: Expr, op: BinaryOp, power: u8) -> Result<Expr> {
        self.bump();
        if op.is_comparison() && (self.is_any(&["ANY", "SOME", "ALL"])) && self.peek().kind == Tok::LParen {
            let all = self.upper_word()? == "ALL";
            let query = Box::new(self.paren_query()?);
            return Ok(Expr::Quantified { left: Box::new(left), op, all, query });
        }
        let right = if matches!(op, BinaryOp::Add | BinaryOp::Sub) && self.is_kw("INTERVAL") {
            self.interval_operand(power)?
        } else {
            self.expr_prec(power + 1)?
        };
        Ok(Expr::Binary { op, left: Box::new(left), right: Box::new(right) })
    }

    #[inline(never)]
    fn predicate(&mut self, left: Expr) -> Result<Expr> {
        if self.eat_kw("IS") {
            return self.is_predicate(left);
        }
        let negated = self.eat_kw("NOT");
        let expr = Box::new(left);
        let word = self.upper_word()?;
        match word.as_str() {
            "IN" => self.in_predicate(expr, negated),
            "BETWEEN" => {
                let low = Box::new(self.bit_expr()?);
                self.expect_kw("AND")?;
                let high = Box::new(self.expr_prec(prec::PREDICATE)?);
                Ok(Expr::Between { expr, low, high, negated })
            }
            "LIKE" => {
                let pattern = Box::new(self.expr_prec(prec::SIMPLE)?);
                let escape =
                    if self.eat_kw("ESCAPE") { Some(Box::new(self.expr_prec(prec::SIMPLE)?)) } else { None };
                Ok(Expr::Like { expr, pattern, escape, negated })
            }
            "REGEXP" | "RLIKE" => {
                let pattern = Box::new(self.bit_expr()?);
                Ok(Expr::Regexp { expr, pattern, negated })
            }
            "SOUNDS" => {
                self.expect_kw("LIKE")?;
                let right = Box::new(self.bit_expr()?);
                Ok(Expr::Binary { op: BinaryOp::SoundsLike, left: expr, right })
            }
            "MEMBER" => {
                self.eat_kw("OF");
                self.expect(Tok::LParen)?;
                let array = Box::new(self.expr()?);
                self.expect(Tok::RParen)?;
                Ok(Expr::MemberOf { expr, array })
            }
            _ => Err(self.error()),
        }
    }

    #[inline(never)]
    fn is_predicate(&mut self, left: Expr) -> Result<Expr> {
        let negated = self.eat_kw("NOT");
        let expr = Box::new(left);
        let truth = match self.eat_any(&["NULL", "TRUE", "FALSE", "UNKNOWN"]) {
            Some("NULL") => return Ok(Expr::IsNull { expr, negated }),
            Some("TRUE") => Truth::True,
            Some("FALSE") => Truth::False,
            Some(_) => Truth::Unknown,
            None => return Err(self.error()),
        };
        Ok(Expr::IsTruth { expr, truth, negated })
    }

    #[inline(never)]
    fn in_predicate(&mut self, expr: Box<Expr>, negated: bool) -> Result<Expr> {
        if self.at_paren_query() {
            let query = Box::new(self.paren_query()?);
            return Ok(Expr::InSubquery { expr, query, negated });
        }
        let mut list = self.paren_list(Self::expr)?;
        if list.len() == 1
            && matches!(list[0], Expr::Subquery(_))
            && let Some(Expr::Subquery(query)) = list.pop()
        {
            return Ok(Expr::InSubquery { expr, query, negated });
        }
        Ok(Expr::InList { expr, list, negated })
    }

    /// A primary with its prefixes and the tightest postfixes.
    #[inline(never)]
    pub fn simple_expr(&mut self) -> Result<Expr> {
        let op = match self.tok.kind {
            Tok::Minus => UnaryOp::Neg,
            Tok::Plus => UnaryOp::Plus,
            Tok::Tilde => UnaryOp::BitNot,
            Tok::Bang => UnaryOp::Not,
            Tok::Word if self.options.high_not_precedence && self.is_kw("NOT") => UnaryOp::Not,
            Tok::Word if self.is_kw("BINARY") => {
                self.bump();
                let expr = Box::new(self.nested(Self::simple_expr)?);
                let ty = Box::new(super::ast::DataType::plain(TypeName::Binary));
                return Ok(Expr::Cast { expr, ty, array: false });
            }
            _ => return self.postfix_expr(),
        };
        self.bump();
        let expr = Box::new(self.nested(Self::simple_expr)?);
        Ok(Expr::Unary { op, expr })
    }

    #[inline(never)]
    fn postfix_expr(&mut self) -> Result<Expr> {
        let mut expr = self.primary()?;
        loop {
            match self.tok.kind {
                Tok::Word if self.is_kw("COLLATE") => {
                    self.bump();
                    let collation = self.charset_name()?;
                    expr = Expr::Collate { expr: Box::new(expr), collation };
                }
                Tok::Arrow | Tok::LongArrow if matches!(expr, Expr::Column(_)) => {
                    let op = if self.is(Tok::Arrow) { BinaryOp::JsonExtract } else { BinaryOp::JsonUnquote };
                    self.bump();
                    let right = Box::new(Expr::Literal(Literal::str(self.string_bytes()?)));
                    expr = Expr::Binary { op, left: Box::new(expr), right };
                }
                _ => return Ok(expr),
            }
        }
    }

    fn primary(&mut self) -> Result<Expr> {
        match self.tok.kind {
            Tok::Word => self.word_primary(),
            Tok::QuotedIdent => self.name_primary(),
            Tok::Param => {
                self.bump();
                self.params += 1;
                Ok(Expr::Param(self.params - 1))
            }
            Tok::LParen => self.paren_primary(),
            Tok::UserVar => self.user_var(),
            Tok::AtAt => self.system_var(),
            Tok::LBrace => self.odbc_escape(),
            Tok::Dot => {
                self.bump();
                let name = self.ident_any()?;
                self.column_rest(name)
            }
            _ => Ok(Expr::Literal(self.literal(None)?)),
        }
    }

    /// A number, string, hexadecimal or bit literal.
    #[inline(never)]
    pub fn literal(&mut self, charset: Option<String>) -> Result<Literal> {
        let kind = self.tok.kind;
        let literal = match kind {
            Tok::Int => {
                let text = self.number_text();
                match text.parse() {
                    Ok(value) => Literal::Int(value),
                    Err(_) => Literal::Decimal(text),
                }
            }
            Tok::Decimal => Literal::Decimal(self.number_text()),
            Tok::Float => Literal::Float(self.number_text()),
            Tok::Str | Tok::NationalStr => {
                let token = self.bump();
                let mut value = self.string_of(token);
                while self.is(Tok::Str) {
                    let token = self.bump();
                    value.extend(self.string_of(token));
                }
                let charset = if kind == Tok::NationalStr { Some("utf8mb3".into()) } else { charset };
                return Ok(Literal::Str { value, charset });
            }
            Tok::HexStr | Tok::HexNum => Literal::Hex { value: self.hex_of(self.tok), charset },
            Tok::BitStr | Tok::BitNum => Literal::Bit { value: self.bits_of(self.tok), charset },
            _ => return Err(self.error()),
        };
        self.bump();
        Ok(literal)
    }

    fn number_text(&self) -> String {
        String::from_utf8_lossy(self.bytes(self.tok)).into_owned()
    }

    #[inline(never)]
    fn word_primary(&mut self) -> Result<Expr> {
        let word = self.bytes(self.tok);
        if word[0] == b'_'
            && matches!(self.peek().kind, Tok::Str | Tok::HexStr | Tok::HexNum | Tok::BitStr | Tok::BitNum)
        {
            let name = String::from_utf8_lossy(&word[1..]).to_lowercase();
            if super::types::is_charset(&name) {
                self.bump();
                return Ok(Expr::Literal(self.literal(Some(name))?));
            }
        }
        if let Some(expr) = self.keyword_primary()? {
            return Ok(expr);
        }
        self.name_primary()
    }

    /// Literals and constructs that start with a word of their own; nothing if the word is a name.
    #[inline(never)]
    fn keyword_primary(&mut self) -> Result<Option<Expr>> {
        let word = self.bytes(self.tok);
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        let expr = match word[0].to_ascii_uppercase() {
            b'N' if is("NULL") => self.constant(Literal::Null),
            b'T' if is("TRUE") => self.constant(Literal::Bool(true)),
            b'F' if is("FALSE") => self.constant(Literal::Bool(false)),
            b'D' if is("DATE") && self.peek().kind == Tok::Str => self.temporal(TemporalKind::Date)?,
            b'T' if is("TIME") && self.peek().kind == Tok::Str => self.temporal(TemporalKind::Time)?,
            b'T' if is("TIMESTAMP") && self.peek().kind == Tok::Str => {
                self.temporal(TemporalKind::Timestamp)?
            }
            b'C' if is("CASE") => self.case()?,
            b'E' if is("EXISTS") => {
                self.bump();
                Expr::Exists(Box::new(self.paren_query()?))
            }
            b'R' if is("ROW") && self.peek().kind == Tok::LParen => {
                self.bump();
                self.expect(Tok::LParen)?;
                let mut row = vec![self.expr()?];
                self.expect(Tok::Comma)?;
                row.extend(self.expr_list()?);
                self.expect(Tok::RParen)?;
                Expr::Row(row)
            }
            b'D' if is("DEFAULT") => {
                self.bump();
                match self.eat(Tok::LParen) {
                    true => {
                        let column = self.column_name()?;
                        self.expect(Tok::RParen)?;
                        Expr::Default(Some(column))
                    }
                    false => Expr::Default(None),
                }
            }
            b'I' if is("INTERVAL") => self.leading_interval()?,
            _ => return self.special_call(),
        };
        Ok(Some(expr))
    }

    fn constant(&mut self, literal: Literal) -> Expr {
        self.bump();
        Expr::Literal(literal)
    }

    #[inline(never)]
    fn temporal(&mut self, kind: TemporalKind) -> Result<Expr> {
        self.bump();
        let value = self.string()?;
        Ok(Expr::Literal(Literal::Temporal { kind, value }))
    }

    #[inline(never)]
    fn case(&mut self) -> Result<Expr> {
        self.bump();
        let operand = if self.is_kw("WHEN") { None } else { Some(Box::new(self.expr()?)) };
        let mut whens = Vec::new();
        while self.eat_kw("WHEN") {
            let when = self.expr()?;
            self.expect_kw("THEN")?;
            whens.push((when, self.expr()?));
        }
        if whens.is_empty() {
            return Err(self.error());
        }
        let else_ = if self.eat_kw("ELSE") { Some(Box::new(self.expr()?)) } else { None };
        self.expect_kw("END")?;
        Ok(Expr::Case { operand, whens, else_ })
    }

    #[inline(never)]
    fn paren_primary(&mut self) -> Result<Expr> {
        if self.at_paren_query() {
            return Ok(Expr::Subquery(Box::new(self.paren_query()?)));
        }
        let mark = self.mark();
        self.bump();
        let first = self.expr()?;
        if matches!(first, Expr::Subquery(_))
            && self.is_any(&["UNION", "EXCEPT", "INTERSECT", "ORDER", "LIMIT"])
        {
            self.reset(mark);
            return Ok(Expr::Subquery(Box::new(self.paren_query()?)));
        }
        if !self.is(Tok::Comma) {
            self.expect(Tok::RParen)?;
            return Ok(first);
        }
        let mut row = vec![first];
        while self.eat(Tok::Comma) {
            row.push(self.expr()?);
        }
        self.expect(Tok::RParen)?;
        Ok(Expr::Row(row))
    }

    /// `{d '2020-01-01'}`, `{fn …}` and other ODBC escapes.
    #[inline(never)]
    fn odbc_escape(&mut self) -> Result<Expr> {
        self.bump();
        let word = self.ident_any()?.to_ascii_lowercase();
        let expr = match (word.as_str(), self.tok.kind) {
            ("d", Tok::Str) => {
                Expr::Literal(Literal::Temporal { kind: TemporalKind::Date, value: self.string()? })
            }
            ("t", Tok::Str) => {
                Expr::Literal(Literal::Temporal { kind: TemporalKind::Time, value: self.string()? })
            }
            ("ts", Tok::Str) => {
                Expr::Literal(Literal::Temporal { kind: TemporalKind::Timestamp, value: self.string()? })
            }
            _ => self.expr()?,
        };
        self.expect(Tok::RBrace)?;
        Ok(expr)
    }

    /// `[[schema.]table.]column`
    pub fn column_name(&mut self) -> Result<ColumnName> {
        let first = self.ident()?;
        match self.column_rest(first)? {
            Expr::Column(name) => Ok(name),
            _ => Err(self.error()),
        }
    }

    /// The rest of a column's name after its first part.
    #[inline(never)]
    fn column_rest(&mut self, first: String) -> Result<Expr> {
        let mut parts = vec![first];
        while parts.len() < 3 && self.is(Tok::Dot) && self.peek().kind != Tok::Star {
            self.bump();
            parts.push(self.ident_any()?);
        }
        let name = parts.pop().unwrap_or_default();
        let table = parts.pop();
        let schema = parts.pop();
        Ok(Expr::Column(ColumnName { schema, table, name }))
    }

    /// A column, or a call of a function with an ordinary name.
    #[inline(never)]
    fn name_primary(&mut self) -> Result<Expr> {
        let token = self.tok;
        if self.peek().kind == Tok::LParen && token.kind == Tok::Word && self.callable(token) {
            self.bump();
            let name = self.ident_of(token)?;
            return self.call(None, name);
        }
        let name = self.ident()?;
        if self.is(Tok::LParen) {
            return self.call(None, name);
        }
        if self.is(Tok::Dot) && self.peek2().kind == Tok::LParen {
            self.bump();
            let routine = self.ident_any()?;
            return self.call(Some(name), routine);
        }
        self.column_rest(name)
    }
}

/// A balanced tree over operands that arrive from left to right.
fn balance(operands: &mut std::vec::IntoIter<Expr>, op: BinaryOp) -> Expr {
    fn build(operands: &mut std::vec::IntoIter<Expr>, count: usize, op: BinaryOp) -> Expr {
        if count == 1 {
            return operands.next().expect("one operand per leaf");
        }
        let half = count.div_ceil(2);
        let left = Box::new(build(operands, half, op));
        let right = Box::new(build(operands, count - half, op));
        Expr::Binary { op, left, right }
    }
    let count = operands.len();
    build(operands, count, op)
}
