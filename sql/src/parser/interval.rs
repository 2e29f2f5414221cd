//! `INTERVAL value unit`, as an argument and beside `+` and `-`; and the function INTERVAL, which looks alike.

use crate::error::Result;

use super::ast::{BinaryOp, Expr, Function, IntervalUnit};
use super::cursor::Parser;
use super::expr::prec;
use super::lexer::Tok;

impl Parser<'_> {
    /// After `+` or `-`: `INTERVAL value unit`, or a call of the function INTERVAL.
    #[inline(never)]
    pub(super) fn interval_operand(&mut self, power: u8) -> Result<Expr> {
        let mark = self.mark();
        self.bump();
        let is_call = self.is(Tok::LParen);
        let value = self.expr();
        if value.is_ok() && self.interval_unit_here().is_some() {
            let unit = self.interval_unit()?;
            return Ok(Expr::Interval { value: Box::new(value?), unit });
        }
        if !is_call {
            value?;
            return Err(self.error());
        }
        self.reset(mark);
        self.expr_prec(power + 1)
    }

    /// The unit that the next word names.
    fn interval_unit_here(&self) -> Option<IntervalUnit> {
        if !self.is(Tok::Word) {
            return None;
        }
        std::str::from_utf8(self.bytes(self.tok)).ok().and_then(IntervalUnit::from_name)
    }

    /// A unit, which must be there.
    pub fn interval_unit(&mut self) -> Result<IntervalUnit> {
        let unit = self.interval_unit_here().ok_or_else(|| self.error())?;
        self.bump();
        Ok(unit)
    }

    /// `INTERVAL value unit` as an argument.
    pub fn interval(&mut self) -> Result<Expr> {
        self.expect_kw("INTERVAL")?;
        let value = Box::new(self.expr()?);
        let unit = self.interval_unit()?;
        Ok(Expr::Interval { value, unit })
    }

    /// `INTERVAL 1 DAY + date`, or the function `INTERVAL(n, a, b)`.
    #[inline(never)]
    pub(super) fn leading_interval(&mut self) -> Result<Expr> {
        let mark = self.mark();
        if self.peek().kind == Tok::LParen {
            self.bump();
            let args = self.paren_list(Self::expr)?;
            if args.len() > 1 && self.interval_unit_here().is_none() {
                return Ok(Function::call("INTERVAL", args));
            }
            self.reset(mark);
        }
        let interval = self.interval()?;
        self.expect(Tok::Plus)?;
        let date = self.expr_prec(prec::MUL)?;
        Ok(Expr::Binary { op: BinaryOp::Add, left: Box::new(interval), right: Box::new(date) })
    }
}
