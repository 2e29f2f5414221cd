//! The typed expression tree. Names, types, collations and implicit casts are settled when it is built
//! (see `func::registry`), so that evaluation only dispatches.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::eval::{Input, Value};
use crate::types::{Collation, Datum, Decimal, FieldType};

/// A typed expression.
#[derive(Clone, PartialEq)]
pub enum Expr {
    /// A column of the input, by position.
    Column { index: usize, name: Arc<str>, field_type: FieldType },
    /// A constant.
    Literal { value: Datum, field_type: FieldType },
    /// A parameter: its value is found in [`EvalContext::params`] and converted to the type.
    Param { index: usize, field_type: FieldType },
    /// A function of arguments.
    Call(Box<Call>),
}

/// A function applied to arguments.
#[derive(Clone)]
pub struct Call {
    pub func: &'static Function,
    pub args: Vec<Expr>,
    pub field_type: FieldType,
    /// The collation in which string arguments are compared.
    pub collation: Collation,
}

impl PartialEq for Call {
    fn eq(&self, other: &Call) -> bool {
        self.func.name == other.func.name
            && self.collation == other.collation
            && self.field_type == other.field_type
            && self.args == other.args
    }
}

/// When a function's result may change though its arguments do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    /// Never: may be folded when the plan is made.
    Immutable,
    /// From statement to statement (NOW(), user variables, parameters): constant while a plan runs.
    Stable,
    /// From row to row (RAND(), UUID(), `@a := …`).
    Volatile,
}

/// What a scalar function sees besides its arguments' values.
pub struct Scope<'a> {
    pub ctx: &'a EvalContext,
    pub call: &'a Call,
}

impl Scope<'_> {
    /// The type of an argument.
    #[must_use]
    pub fn arg_type(&self, index: usize) -> &FieldType {
        self.call.args[index].field_type()
    }

    /// The type of the result.
    #[must_use]
    pub fn ret(&self) -> &FieldType {
        &self.call.field_type
    }

    /// The collation in which string arguments are compared.
    #[must_use]
    pub fn collation(&self) -> Collation {
        self.call.collation
    }
}

/// One row's evaluation.
pub type ScalarFn = fn(&Scope<'_>, &[Datum]) -> Result<Datum>;
/// A whole batch's evaluation, for the cases it knows; `None` leaves the work to the scalar function.
pub type VectorFn = fn(&Scope<'_>, &[Value], usize) -> Option<Result<Value>>;
/// Evaluation that decides itself which arguments to evaluate for which rows.
pub type LazyFn = fn(&Scope<'_>, &Input<'_>) -> Result<Value>;

/// A built-in function.
pub struct Function {
    /// The name, unique among all functions: how a tree is sent to another process.
    pub name: &'static str,
    /// NULL arguments make the result NULL without a call.
    pub null_in_null_out: bool,
    pub volatility: Volatility,
    pub scalar: ScalarFn,
    pub vector: Option<VectorFn>,
    pub lazy: Option<LazyFn>,
}

impl Function {
    /// An immutable function that is NULL for NULL arguments.
    #[must_use]
    pub const fn strict(name: &'static str, scalar: ScalarFn) -> Function {
        Function {
            name,
            null_in_null_out: true,
            volatility: Volatility::Immutable,
            scalar,
            vector: None,
            lazy: None,
        }
    }

    /// An immutable function that sees NULL arguments.
    #[must_use]
    pub const fn with_nulls(name: &'static str, scalar: ScalarFn) -> Function {
        Function { null_in_null_out: false, ..Function::strict(name, scalar) }
    }

    #[must_use]
    pub const fn vectorized(self, vector: VectorFn) -> Function {
        Function { vector: Some(vector), ..self }
    }

    #[must_use]
    pub const fn lazily(self, lazy: LazyFn) -> Function {
        Function { lazy: Some(lazy), ..self }
    }

    #[must_use]
    pub const fn volatility(self, volatility: Volatility) -> Function {
        Function { volatility, ..self }
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// How strongly an expression insists on its collation; smaller is stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coercibility {
    /// COLLATE was written.
    Explicit = 0,
    /// Two collations that cannot be reconciled.
    None = 1,
    /// A column.
    Implicit = 2,
    /// A system value: USER(), VERSION().
    SysConst = 3,
    /// A literal.
    Coercible = 4,
    /// A number or temporal.
    Numeric = 5,
    /// NULL.
    Ignorable = 6,
}

impl Coercibility {
    /// The word in error 1267.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Coercibility::Explicit => "EXPLICIT",
            Coercibility::None => "NONE",
            Coercibility::Implicit => "IMPLICIT",
            Coercibility::SysConst => "SYSCONST",
            Coercibility::Coercible => "COERCIBLE",
            Coercibility::Numeric => "NUMERIC",
            Coercibility::Ignorable => "IGNORABLE",
        }
    }
}

impl Expr {
    /// A column by position.
    #[must_use]
    pub fn column(index: usize, name: &str, field_type: FieldType) -> Expr {
        Expr::Column { index, name: name.into(), field_type }
    }

    /// A constant of a known type.
    #[must_use]
    pub fn literal(value: Datum, field_type: FieldType) -> Expr {
        Expr::Literal { value, field_type }
    }

    /// NULL.
    #[must_use]
    pub fn null() -> Expr {
        Expr::Literal { value: Datum::Null, field_type: FieldType::null() }
    }

    /// A signed integer.
    #[must_use]
    pub fn int(value: i64) -> Expr {
        let digits = value.unsigned_abs().checked_ilog10().unwrap_or(0) + 1;
        let field_type =
            FieldType::bigint().with_flen(digits.min(19) + u32::from(value < 0)).with_not_null(true);
        Expr::Literal { value: Datum::Int(value), field_type }
    }

    /// TRUE or FALSE.
    #[must_use]
    pub fn bool(value: bool) -> Expr {
        Expr::int(i64::from(value))
    }

    /// A quoted string in the connection's collation.
    #[must_use]
    pub fn string(value: &str, collation: Collation) -> Expr {
        let field_type = FieldType::varchar(value.chars().count() as u32, collation).with_not_null(true);
        let value = if collation == Collation::Binary {
            Datum::Bytes(value.as_bytes().to_vec())
        } else {
            Datum::String(value.to_string())
        };
        Expr::Literal { value, field_type }
    }

    /// A hexadecimal or bit literal: a binary string that acts as a number in numeric context.
    #[must_use]
    pub fn bytes(value: Vec<u8>) -> Expr {
        // `unsigned` marks the bytes as a number where one is wanted.
        let field_type =
            FieldType::varchar(value.len() as u32, Collation::Binary).with_unsigned(true).with_not_null(true);
        Expr::Literal { value: Datum::Bytes(value), field_type }
    }

    /// A number as written in SQL, without sign: `12` is BIGINT (UNSIGNED, or DECIMAL when it is too long), `1.5` DECIMAL, `1e3` DOUBLE.
    pub fn number(text: &str) -> Result<Expr> {
        if text.bytes().any(|b| matches!(b, b'e' | b'E')) {
            let value: f64 = text.parse().map_err(|_| Error::Internal(format!("not a number: {text}")))?;
            if !value.is_finite() {
                return Err(Error::IllegalLiteral { kind: "double", value: text.to_string() });
            }
            let field_type = FieldType::double().with_not_null(true);
            return Ok(Expr::Literal { value: Datum::Double(value), field_type });
        }
        if !text.contains('.') {
            if let Ok(value) = text.parse::<i64>() {
                return Ok(Expr::int(value));
            }
            if let Ok(value) = text.parse::<u64>() {
                let field_type = FieldType::bigint_unsigned().with_flen(20).with_not_null(true);
                return Ok(Expr::Literal { value: Datum::UInt(value), field_type });
            }
        }
        let value = Decimal::parse(text).ok_or_else(|| Error::Internal(format!("not a number: {text}")))?;
        let field_type = FieldType::decimal(value.precision(), value.scale()).with_not_null(true);
        Ok(Expr::Literal { value: Datum::Decimal(value), field_type })
    }

    /// The expression's type.
    #[must_use]
    pub fn field_type(&self) -> &FieldType {
        match self {
            Expr::Column { field_type, .. }
            | Expr::Literal { field_type, .. }
            | Expr::Param { field_type, .. } => field_type,
            Expr::Call(call) => &call.field_type,
        }
    }

    /// Arguments of a call; empty for the rest.
    #[must_use]
    pub fn args(&self) -> &[Expr] {
        match self {
            Expr::Call(call) => &call.args,
            _ => &[],
        }
    }

    /// The function's name when it is a call.
    #[must_use]
    pub fn function_name(&self) -> Option<&'static str> {
        match self {
            Expr::Call(call) => Some(call.func.name),
            _ => None,
        }
    }

    /// Visits the tree from the root; a child is skipped when `visit` of its parent is false.
    pub fn visit(&self, visit: &mut dyn FnMut(&Expr) -> bool) {
        if visit(self) {
            self.args().iter().for_each(|arg| arg.visit(visit));
        }
    }

    /// Rebuilds the tree from the leaves.
    #[must_use]
    pub fn transform(self, change: &mut dyn FnMut(Expr) -> Expr) -> Expr {
        let rebuilt = match self {
            Expr::Call(mut call) => {
                call.args = call.args.into_iter().map(|arg| arg.transform(change)).collect();
                Expr::Call(call)
            }
            leaf => leaf,
        };
        change(rebuilt)
    }

    /// Replaces column positions.
    #[must_use]
    pub fn map_columns(self, map: &dyn Fn(usize) -> usize) -> Expr {
        self.transform(&mut |expr| match expr {
            Expr::Column { index, name, field_type } => Expr::Column { index: map(index), name, field_type },
            other => other,
        })
    }

    /// Positions of the columns it reads, ascending, each once.
    #[must_use]
    pub fn columns(&self) -> Vec<usize> {
        let mut found = Vec::new();
        self.visit(&mut |expr| {
            if let Expr::Column { index, .. } = expr {
                found.push(*index);
            }
            true
        });
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The strongest volatility of anything in it; parameters are stable.
    #[must_use]
    pub fn volatility(&self) -> Volatility {
        let mut strongest = Volatility::Immutable;
        self.visit(&mut |expr| {
            let own = match expr {
                Expr::Call(call) => call.func.volatility,
                Expr::Param { .. } => Volatility::Stable,
                _ => Volatility::Immutable,
            };
            strongest = strongest.max(own);
            true
        });
        strongest
    }

    /// Has it the same value for every row of one execution: no column, nothing volatile?
    #[must_use]
    pub fn is_constant(&self) -> bool {
        let mut has_column = false;
        self.visit(&mut |expr| {
            has_column |= matches!(expr, Expr::Column { .. });
            true
        });
        !has_column && self.volatility() < Volatility::Volatile
    }

    /// Evaluates what is constant, for all executions if `stable` is false and for this one if it is true. What fails is left as it is.
    #[must_use]
    pub fn fold(self, ctx: &EvalContext, stable: bool) -> Expr {
        let limit = if stable { Volatility::Stable } else { Volatility::Immutable };
        self.transform(&mut |expr| {
            let Expr::Call(call) = &expr else { return expr };
            let all_literal = call.args.iter().all(|arg| {
                matches!(arg, Expr::Literal { .. }) || (stable && matches!(arg, Expr::Param { .. }))
            });
            if !all_literal || call.func.volatility > limit || call.func.name == "collate" {
                return expr;
            }
            // Evaluated aside: a warning must come once per execution, so what warns is not folded.
            let warnings = Arc::new(crate::context::Warnings::new(1));
            let aside =
                EvalContext { warnings: warnings.clone(), params: ctx.params.clone(), ..ctx.for_folding() };
            match expr.eval_scalar(&aside) {
                Ok(value) if warnings.count() == 0 => {
                    let field_type = expr.field_type().clone();
                    Expr::Literal { value, field_type }
                }
                _ => expr,
            }
        })
    }

    /// How strongly it insists on its collation.
    #[must_use]
    pub fn coercibility(&self) -> Coercibility {
        let field_type = self.field_type();
        match self {
            Expr::Column { .. } if field_type.has_charset() => Coercibility::Implicit,
            Expr::Literal { value: Datum::Null, .. } => Coercibility::Ignorable,
            Expr::Call(call) => call.coercibility(),
            _ if !field_type.has_charset() => Coercibility::Numeric,
            _ => Coercibility::Coercible,
        }
    }

    /// The value where there are no rows.
    pub fn eval_scalar(&self, ctx: &EvalContext) -> Result<Datum> {
        self.eval_row(ctx, &[])
    }

    /// The value for one row.
    pub fn eval_row(&self, ctx: &EvalContext, row: &[Datum]) -> Result<Datum> {
        match self.eval_value(ctx, &Input::Row(row))? {
            Value::Scalar(value) => Ok(value),
            Value::Array(array) => Ok(crate::array::datum_at(&array, self.field_type(), 0)),
        }
    }
}

impl Call {
    fn coercibility(&self) -> Coercibility {
        match self.func.name {
            "collate" => return Coercibility::Explicit,
            "user" | "current_user" | "version" | "database" | "charset" | "collation" | "session_user" => {
                return Coercibility::SysConst;
            }
            "getvar" | "getvar_now" | "setvar" | "convert_using" => return Coercibility::Implicit,
            _ => {}
        }
        if !self.field_type.has_charset() {
            return Coercibility::Numeric;
        }
        let args = self.args.iter().map(Expr::coercibility);
        // A number turned into text is as weak as a literal.
        args.min().map_or(Coercibility::Coercible, |c| {
            if c >= Coercibility::Numeric { Coercibility::Coercible } else { c }
        })
    }
}

fn hash_datum<H: Hasher>(value: &Datum, state: &mut H) {
    std::mem::discriminant(value).hash(state);
    match value {
        Datum::Null => {}
        Datum::Int(v) => v.hash(state),
        Datum::UInt(v) => v.hash(state),
        Datum::Double(v) => v.to_bits().hash(state),
        Datum::Decimal(v) => v.to_f64().to_bits().hash(state),
        Datum::String(v) => v.hash(state),
        Datum::Bytes(v) => v.hash(state),
        Datum::Time(v) => v.hash(state),
        Datum::Duration(v) => v.hash(state),
    }
}

impl Eq for Expr {}

impl Hash for Expr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Expr::Column { index, .. } => (0, index).hash(state),
            Expr::Literal { value, .. } => hash_datum(value, state),
            Expr::Param { index, .. } => (2, index).hash(state),
            Expr::Call(call) => {
                call.func.name.hash(state);
                call.args.hash(state);
            }
        }
    }
}

impl std::fmt::Debug for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expr::Column { index, name, .. } if name.is_empty() => write!(f, "#{index}"),
            Expr::Column { name, .. } => f.write_str(name),
            Expr::Param { index, .. } => write!(f, "?{index}"),
            Expr::Literal { value, field_type } => match value {
                Datum::Null => f.write_str("NULL"),
                Datum::Bytes(bytes) => bytes.iter().try_for_each(|b| write!(f, "{b:02x}")),
                _ => {
                    let text = crate::types::format::to_text(value, field_type);
                    if field_type.is_numeric() { f.write_str(&text) } else { write!(f, "'{text}'") }
                }
            },
            Expr::Call(call) => {
                let name = call.func.name;
                match call.args.as_slice() {
                    [a] if name == "cast" => write!(f, "cast({a} as {})", call.field_type.sql_name()),
                    [a, b] if !name.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                        write!(f, "({a} {name} {b})")
                    }
                    [a, b] if matches!(name, "and" | "or" | "xor" | "like" | "div" | "mod") => {
                        write!(f, "({a} {name} {b})")
                    }
                    [a] if name == "collate" => write!(f, "({a} collate {})", call.field_type.collation),
                    args => {
                        write!(f, "{name}(")?;
                        for (i, arg) in args.iter().enumerate() {
                            write!(f, "{}{arg}", if i > 0 { "," } else { "" })?;
                        }
                        f.write_str(")")
                    }
                }
            }
        }
    }
}
