//! Expressions in the words of SHOW CREATE TABLE: names quoted, every operation in parentheses, literals with their character
//! set. What it gives parses to the same meaning again, whatever the connection.

use std::fmt::Write;

use super::expr::{BinaryOp, ColumnName, Expr, Function, Literal, TemporalKind, Truth, UnaryOp};

impl Expr {
    /// The canonical text; `charset` is the one of literals without an introducer. `None` for the forms that have none here.
    pub fn canonical(&self, charset: &str) -> Option<String> {
        Printer { charset }.expr(self)
    }

    /// Whether the value is a truth value by its form.
    fn is_truth(&self) -> bool {
        match self {
            Expr::Unary { op: UnaryOp::Not, .. }
            | Expr::IsNull { .. }
            | Expr::IsTruth { .. }
            | Expr::Between { .. }
            | Expr::InList { .. }
            | Expr::Like { .. }
            | Expr::Regexp { .. } => true,
            Expr::Binary { op, .. } => {
                op.is_comparison() || matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Xor)
            }
            _ => false,
        }
    }
}

struct Printer<'a> {
    charset: &'a str,
}

impl Printer<'_> {
    fn expr(&self, expr: &Expr) -> Option<String> {
        let not = |negated: &bool| if *negated { "not " } else { "" };
        Some(match expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::Column(name) => column(name),
            Expr::Unary { op: UnaryOp::Neg, expr } => format!("-({})", self.expr(expr)?),
            Expr::Unary { op: UnaryOp::Plus, expr } => self.expr(expr)?,
            Expr::Unary { op: UnaryOp::BitNot, expr } => format!("~({})", self.expr(expr)?),
            Expr::Unary { op: UnaryOp::Not, expr } if expr.is_truth() => {
                format!("(not({}))", self.expr(expr)?)
            }
            Expr::Unary { op: UnaryOp::Not, expr } => format!("(0 = {})", self.expr(expr)?),
            Expr::Binary { op, left, right } => self.binary(*op, left, right)?,
            Expr::IsNull { expr, negated } => format!("({} is {}null)", self.expr(expr)?, not(negated)),
            Expr::IsTruth { expr, truth, negated } => {
                let truth = match truth {
                    Truth::True => "true",
                    Truth::False => "false",
                    Truth::Unknown => "unknown",
                };
                format!("({} is {}{truth})", self.expr(expr)?, not(negated))
            }
            Expr::Between { expr, low, high, negated } => {
                let (low, high) = (self.expr(low)?, self.expr(high)?);
                format!("({} {}between {low} and {high})", self.expr(expr)?, not(negated))
            }
            Expr::InList { expr, list, negated } => {
                format!("({} {}in ({}))", self.expr(expr)?, not(negated), self.list(list)?)
            }
            Expr::Like { expr, pattern, escape: None, negated } => {
                format!("({} {}like {})", self.expr(expr)?, not(negated), self.expr(pattern)?)
            }
            Expr::Case { operand, whens, else_ } => self.case(operand.as_deref(), whens, else_.as_deref())?,
            Expr::Function(function) => self.function(function)?,
            Expr::Interval { value, unit } => {
                format!("interval {} {}", self.expr(value)?, unit.name().to_lowercase())
            }
            Expr::Collate { expr, collation } => format!("({} collate {collation})", self.expr(expr)?),
            Expr::ConvertUsing { expr, charset } => {
                format!("convert({} using {charset})", self.expr(expr)?)
            }
            _ => return None,
        })
    }

    fn list(&self, list: &[Expr]) -> Option<String> {
        Some(list.iter().map(|expr| self.expr(expr)).collect::<Option<Vec<_>>>()?.join(","))
    }

    fn binary(&self, op: BinaryOp, left: &Expr, right: &Expr) -> Option<String> {
        let (mut l, mut r) = (self.expr(left)?, self.expr(right)?);
        if matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Xor) {
            if !left.is_truth() {
                l = format!("(0 <> {l})");
            }
            if !right.is_truth() {
                r = format!("(0 <> {r})");
            }
        }
        if op == BinaryOp::Concat {
            return Some(format!("concat({l},{r})"));
        }
        Some(format!("({l} {} {r})", op.symbol()))
    }

    fn case(&self, operand: Option<&Expr>, whens: &[(Expr, Expr)], else_: Option<&Expr>) -> Option<String> {
        let mut text = "(case ".to_string();
        if let Some(operand) = operand {
            let _ = write!(text, "{} ", self.expr(operand)?);
        }
        for (when, then) in whens {
            let _ = write!(text, "when {} then {} ", self.expr(when)?, self.expr(then)?);
        }
        if let Some(else_) = else_ {
            let _ = write!(text, "else {} ", self.expr(else_)?);
        }
        text.push_str("end)");
        Some(text)
    }

    fn function(&self, function: &Function) -> Option<String> {
        let plain = function.schema.is_none()
            && !function.star
            && !function.distinct
            && function.order_by.is_empty()
            && function.separator.is_none()
            && function.over.is_none();
        if !plain {
            return None;
        }
        let name = function.name.to_lowercase();
        let name = match name.as_str() {
            "current_date" => "curdate",
            "current_time" => "curtime",
            "current_timestamp" | "localtime" | "localtimestamp" => "now",
            "substring" => "substr",
            "lcase" => "lower",
            "ucase" => "upper",
            "mod" => return self.binary(BinaryOp::Mod, function.args.first()?, function.args.get(1)?),
            other => other,
        };
        Some(format!("{name}({})", self.list(&function.args)?))
    }

    fn literal(&self, literal: &Literal) -> String {
        match literal {
            Literal::Null => "NULL".into(),
            Literal::Bool(value) => value.to_string(),
            Literal::Int(value) => value.to_string(),
            Literal::Decimal(text) | Literal::Float(text) => text.clone(),
            Literal::Str { value, charset } => {
                let charset = charset.as_deref().unwrap_or(self.charset);
                match std::str::from_utf8(value) {
                    Ok(text) => format!("_{charset}{}", quoted(text)),
                    Err(_) => format!("_{charset} 0x{}", hex::encode(value)),
                }
            }
            Literal::Hex { value, charset } | Literal::Bit { value, charset } => {
                let introducer = charset.as_ref().map(|name| format!("_{name} ")).unwrap_or_default();
                format!("{introducer}0x{}", hex::encode_upper(value))
            }
            Literal::Temporal { kind, value } => {
                let kind = match kind {
                    TemporalKind::Date => "DATE",
                    TemporalKind::Time => "TIME",
                    TemporalKind::Timestamp => "TIMESTAMP",
                };
                format!("{kind}{}", quoted(value))
            }
        }
    }
}

/// Text in single quotes, with backslashes where they are needed.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("\\'"),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\u{1a}' => out.push_str("\\Z"),
            other => out.push(other),
        }
    }
    out.push('\'');
    out
}

/// A column in backquotes; the table is the one it belongs to.
fn column(name: &ColumnName) -> String {
    format!("`{}`", name.name.replace('`', "``"))
}
