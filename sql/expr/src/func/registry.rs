//! From a function's name and arguments to a typed call: MySQL's type inference and implicit casts.
//!
//! Names are SQL's, in lower case. Operators go by their sign: `= <=> <> < <= > >= + - * / % & | ^ << >> ~`, and by name: `and or xor
//! not div neg is_null is_true is_false between in like regexp case cast collate`. Forms with their own syntax become plain arguments:
//! `case(when1, then1, …, [else])`, `in(x, a, b, …)`, `like(x, pattern, [escape])`, `between(x, low, high)`;
//! an interval's or EXTRACT's unit is a string literal: `date_add(d, n, 'DAY')`, `extract('YEAR', d)`, `timestampdiff('DAY', a, b)`;
//! `trim(x, [what], ['BOTH' | 'LEADING' | 'TRAILING'])`; `getvar('a')`, `setvar('a', x)`.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::coercion::{self, Derivation};
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::expr::{Call, Expr, Function};
use crate::types::field_type::{Family, LENGTH_UNSPECIFIED};
use crate::types::{Collation, FieldType, MysqlType};

/// What a function wants an argument to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    /// As it is.
    Any,
    /// BIGINT, signed or not.
    Int,
    /// DOUBLE.
    Real,
    /// A number: integers, decimals and doubles stay, the rest becomes DOUBLE.
    Number,
    /// A string; strings of one call get one collation.
    Str,
    /// DATETIME, with zeros allowed in the date.
    Time,
    /// TIME.
    Duration,
}

/// What the result type may depend on.
pub struct Typing<'a> {
    pub ctx: &'a EvalContext,
    /// The arguments, already converted.
    pub args: &'a [Expr],
    /// The collation that the string arguments agreed on.
    pub collation: Collation,
}

/// Computes the result type.
pub type RetFn = fn(&Typing<'_>) -> FieldType;
/// Builds the call when conversions are not fixed per argument.
pub type ResolveFn = fn(&EvalContext, &'static Entry, Vec<Expr>) -> Result<Expr>;

/// How the call is built.
#[derive(Clone, Copy)]
pub enum Resolver {
    /// Convert each argument as listed (the last kind goes for all that follow), then compute the type.
    Fixed(&'static [Arg], RetFn),
    Custom(ResolveFn),
}

/// One built-in function.
pub struct Entry {
    pub function: Function,
    pub min_args: usize,
    pub max_args: usize,
    pub resolver: Resolver,
}

/// No upper bound on the number of arguments.
pub const MANY: usize = usize::MAX;

impl Entry {
    /// A function with a fixed kind for each argument.
    #[must_use]
    pub const fn fixed(
        function: Function,
        min: usize,
        max: usize,
        args: &'static [Arg],
        ret: RetFn,
    ) -> Entry {
        Entry { function, min_args: min, max_args: max, resolver: Resolver::Fixed(args, ret) }
    }

    /// A function that converts its arguments itself.
    #[must_use]
    pub const fn custom(function: Function, min: usize, max: usize, resolve: ResolveFn) -> Entry {
        Entry { function, min_args: min, max_args: max, resolver: Resolver::Custom(resolve) }
    }

    /// The call.
    #[must_use]
    pub fn call(&'static self, args: Vec<Expr>, field_type: FieldType, collation: Collation) -> Expr {
        Expr::Call(Box::new(Call { func: &self.function, args, field_type, collation }))
    }
}

/// Every family's table.
fn tables() -> Vec<&'static [Entry]> {
    vec![
        super::arith::ENTRIES,
        super::bits::ENTRIES,
        super::cast::ENTRIES,
        super::compare::ENTRIES,
        super::control::ENTRIES,
        super::encode::ENTRIES,
        super::hash::ENTRIES,
        super::info::ENTRIES,
        super::like::ENTRIES,
        super::logic::ENTRIES,
        super::math::ENTRIES,
        super::regexp::ENTRIES,
        super::string::ENTRIES,
        super::time::ENTRIES,
        super::time_arith::ENTRIES,
        super::time_format::ENTRIES,
    ]
}

/// Other names of functions.
const ALIASES: &[(&str, &str)] = &[
    ("!", "not"),
    ("!=", "<>"),
    ("mod", "%"),
    ("isnull", "is_null"),
    ("istrue", "is_true"),
    ("isfalse", "is_false"),
    ("unary_minus", "neg"),
    ("rlike", "regexp"),
    ("ceiling", "ceil"),
    ("power", "pow"),
    ("substr", "substring"),
    ("mid", "substring"),
    ("lcase", "lower"),
    ("ucase", "upper"),
    ("character_length", "char_length"),
    ("octet_length", "length"),
    ("position", "locate"),
    ("adddate", "date_add"),
    ("subdate", "date_sub"),
    ("day", "dayofmonth"),
    ("current_timestamp", "now"),
    ("localtime", "now"),
    ("localtimestamp", "now"),
    ("current_date", "curdate"),
    ("current_time", "curtime"),
    ("schema", "database"),
    ("session_user", "user"),
    ("system_user", "user"),
    ("sha", "sha1"),
    ("random", "rand"),
];

fn index() -> &'static HashMap<&'static str, &'static Entry> {
    static INDEX: OnceLock<HashMap<&'static str, &'static Entry>> = OnceLock::new();
    INDEX.get_or_init(|| {
        let entries = tables().into_iter().flatten();
        let mut index: HashMap<_, _> = entries.map(|e| (e.function.name, e)).collect();
        for (alias, name) in ALIASES {
            if let Some(entry) = index.get(name).copied() {
                index.insert(alias, entry);
            }
        }
        index
    })
}

/// Finds an entry by name.
#[must_use]
pub fn lookup(name: &str) -> Option<&'static Entry> {
    index().get(name).copied().or_else(|| index().get(name.to_ascii_lowercase().as_str()).copied())
}

/// The function of this very name, as an expression of another process names it.
#[must_use]
pub fn function(name: &str) -> Option<&'static Function> {
    let unlisted =
        [&super::compare::SORT_KEY, &super::cast::CAST, &super::cast::FUZZY_TIME, &super::cast::COLLATE];
    let listed = || index().get(name).map(|entry| &entry.function).filter(|f| f.name == name);
    unlisted.into_iter().find(|f| f.name == name).or_else(listed)
}

/// Is there a built-in of this name?
#[must_use]
pub fn exists(name: &str) -> bool {
    lookup(name).is_some()
}

/// Builds a typed call of a built-in function or operator.
pub fn resolve(ctx: &EvalContext, name: &str, args: Vec<Expr>) -> Result<Expr> {
    let entry = lookup(name).ok_or_else(|| Error::FunctionDoesNotExist { function: name.to_string() })?;
    if args.len() < entry.min_args || args.len() > entry.max_args {
        return Err(Error::WrongParamCount { function: name.to_string() });
    }
    match entry.resolver {
        Resolver::Custom(resolve) => resolve(ctx, entry, args),
        Resolver::Fixed(kinds, ret) => resolve_fixed(ctx, entry, kinds, ret, args),
    }
}

fn resolve_fixed(
    ctx: &EvalContext,
    entry: &'static Entry,
    kinds: &[Arg],
    ret: RetFn,
    args: Vec<Expr>,
) -> Result<Expr> {
    let kind_of = |i: usize| kinds.get(i).or(kinds.last()).copied().unwrap_or(Arg::Any);
    let strings: Vec<&Expr> =
        args.iter().enumerate().filter(|(i, _)| kind_of(*i) == Arg::Str).map(|(_, a)| a).collect();
    let derivation = coercion::aggregate(ctx, &strings, entry.function.name)?;
    let args: Vec<Expr> =
        args.into_iter().enumerate().map(|(i, arg)| convert_arg(ctx, arg, kind_of(i), &derivation)).collect();
    let field_type = ret(&Typing { ctx, args: &args, collation: derivation.collation });
    Ok(entry.call(args, field_type, derivation.collation))
}

/// Converts an argument to what a function wants.
#[must_use]
pub fn convert_arg(ctx: &EvalContext, arg: Expr, kind: Arg, derivation: &Derivation) -> Expr {
    match kind {
        Arg::Any => arg,
        Arg::Int => to_int(arg),
        Arg::Real => to_double(arg),
        Arg::Number => to_number(arg),
        Arg::Str => to_string(ctx, arg, Some(derivation.collation)),
        Arg::Time => to_fuzzy_time(arg),
        Arg::Duration => {
            let fsp = fsp_of(&arg);
            cast(arg, FieldType::time(fsp))
        }
    }
}

/// CAST(expr AS field_type), left out where it would change nothing.
#[must_use]
pub fn cast(expr: Expr, to: FieldType) -> Expr {
    let from = expr.field_type();
    let same = match (from.family(), to.family()) {
        (Family::Null, Family::Null) => true,
        (Family::Int, Family::Int) => from.unsigned == to.unsigned && to.tp == MysqlType::LongLong,
        (Family::Double, Family::Double) => {
            to.tp == MysqlType::Double && to.decimals == FieldType::double().decimals
        }
        (Family::Decimal, Family::Decimal) => from.flen == to.flen && from.decimals == to.decimals,
        (Family::Time, Family::Time) => from.tp == to.tp && from.decimals == to.decimals,
        (Family::Duration, Family::Duration) => from.decimals == to.decimals,
        (Family::String, Family::String) => {
            from.collation == to.collation && (to.flen == LENGTH_UNSPECIFIED || to.tp == MysqlType::Varchar)
        }
        _ => false,
    };
    if same { expr } else { explicit_cast(expr, to) }
}

/// CAST as written: always a call, so that lengths are applied.
#[must_use]
pub fn explicit_cast(expr: Expr, to: FieldType) -> Expr {
    let to = to.with_not_null(false);
    let collation = to.collation;
    Expr::Call(Box::new(Call { func: &super::cast::CAST, args: vec![expr], field_type: to, collation }))
}

/// As BIGINT; unsigned values stay unsigned.
#[must_use]
pub fn to_int(expr: Expr) -> Expr {
    match expr.field_type().family() {
        Family::Int => expr,
        _ => {
            let unsigned = expr.field_type().unsigned && expr.field_type().is_numeric();
            cast(expr, FieldType::bigint().with_unsigned(unsigned))
        }
    }
}

/// As DOUBLE.
#[must_use]
pub fn to_double(expr: Expr) -> Expr {
    match expr.field_type().family() {
        Family::Double => expr,
        _ => cast(expr, FieldType::double()),
    }
}

/// As a number: what arithmetic makes of it.
#[must_use]
pub fn to_number(expr: Expr) -> Expr {
    let from = expr.field_type();
    match from.family() {
        Family::Int | Family::Double | Family::Decimal => expr,
        Family::Time | Family::Duration if from.decimals > 0 => {
            let to = FieldType::decimal(from.decimal_precision(), from.decimals);
            cast(expr, to)
        }
        Family::Time | Family::Duration | Family::Null => cast(expr, FieldType::bigint()),
        Family::Enum => cast(expr, FieldType::bigint_unsigned()),
        Family::String if from.is_binary_string() && from.unsigned => {
            cast(expr, FieldType::bigint_unsigned())
        }
        Family::String | Family::Json => to_double(expr),
    }
}

/// As a string, in `collation` if given: text keeps its own otherwise, and what is no text takes the connection's.
#[must_use]
pub fn to_string(ctx: &EvalContext, expr: Expr, collation: Option<Collation>) -> Expr {
    let from = expr.field_type();
    let mut to = crate::types::format::text_type(from, ctx.connection_collation);
    if let Some(collation) = collation {
        to = to.with_collation(collation);
    }
    if from.is_string() && from.arrow() == to.arrow() {
        // The same bytes: the collation of the call decides, not the argument's.
        return expr;
    }
    cast(expr, to)
}

/// Fractional seconds digits when a value becomes a temporal; a constant text has as many as were written.
#[must_use]
pub fn fsp_of(expr: &Expr) -> u8 {
    match expr {
        Expr::Literal { value, field_type } if field_type.is_string() => {
            let text = value.as_str().unwrap_or_default();
            let fraction =
                text.rsplit_once('.').map(|(_, f)| f.bytes().take_while(u8::is_ascii_digit).count());
            fraction.map_or(0, |digits| digits.min(6) as u8)
        }
        other => other.field_type().fsp(),
    }
}

/// As DATETIME, zeros in the date allowed.
#[must_use]
pub fn to_fuzzy_time(expr: Expr) -> Expr {
    if expr.field_type().family() == Family::Time {
        return expr;
    }
    let fsp = fsp_of(&expr);
    let func = &super::cast::FUZZY_TIME;
    let field_type = FieldType::datetime(fsp);
    Expr::Call(Box::new(Call { func, args: vec![expr], field_type, collation: Collation::Binary }))
}

/// `expr COLLATE collation`.
pub fn collate(expr: Expr, collation: Collation) -> Result<Expr> {
    let from = expr.field_type();
    if from.has_charset() && from.collation.charset() != collation.charset() {
        return Err(Error::CollationCharsetMismatch {
            collation: collation.name().to_string(),
            charset: from.collation.charset().name().to_string(),
        });
    }
    let to = crate::types::format::text_type(from, collation).with_collation(collation);
    let func = &super::cast::COLLATE;
    Ok(Expr::Call(Box::new(Call { func, args: vec![expr], field_type: to, collation })))
}

/// What to group, join or sort by. Strings whose collation does not compare bytewise become their sort keys (binary strings); the rest stays.
#[must_use]
pub fn sort_key(expr: Expr) -> Expr {
    let from = expr.field_type();
    if !from.is_string() || from.collation.is_bytewise() {
        return expr;
    }
    let collation = from.collation;
    let field_type = FieldType::varchar(LENGTH_UNSPECIFIED, Collation::Binary).with_not_null(from.not_null);
    let func = &super::compare::SORT_KEY;
    Expr::Call(Box::new(Call { func, args: vec![expr], field_type, collation }))
}

/// Builds a CASE: with an operand each WHEN is compared with it.
pub fn case(
    ctx: &EvalContext,
    operand: Option<Expr>,
    whens: Vec<(Expr, Expr)>,
    otherwise: Option<Expr>,
) -> Result<Expr> {
    let mut args = Vec::with_capacity(whens.len() * 2 + 1);
    for (when, then) in whens {
        let condition = match &operand {
            Some(operand) => resolve(ctx, "=", vec![operand.clone(), when])?,
            None => when,
        };
        args.push(condition);
        args.push(then);
    }
    args.extend(otherwise);
    resolve(ctx, "case", args)
}

/// Result types that many functions share.
pub mod ret {
    use super::{Family, FieldType, LENGTH_UNSPECIFIED, Typing};

    /// BIGINT.
    pub fn int(_: &Typing<'_>) -> FieldType {
        FieldType::bigint()
    }

    /// BIGINT UNSIGNED.
    pub fn uint(_: &Typing<'_>) -> FieldType {
        FieldType::bigint_unsigned()
    }

    /// 0, 1 or NULL.
    pub fn boolean(_: &Typing<'_>) -> FieldType {
        FieldType::boolean()
    }

    /// DOUBLE.
    pub fn double(_: &Typing<'_>) -> FieldType {
        FieldType::double()
    }

    /// A string of the arguments' collation.
    pub fn string(t: &Typing<'_>) -> FieldType {
        FieldType::varchar(LENGTH_UNSPECIFIED, t.collation)
    }

    /// A string of the arguments' collation, as long as the first argument at most.
    pub fn first_string(t: &Typing<'_>) -> FieldType {
        FieldType::varchar(t.args[0].field_type().flen, t.collation)
    }

    /// ASCII text in the connection's collation.
    pub fn text(t: &Typing<'_>) -> FieldType {
        FieldType::varchar(LENGTH_UNSPECIFIED, t.ctx.connection_collation)
    }

    /// A binary string.
    pub fn binary(_: &Typing<'_>) -> FieldType {
        FieldType::varchar(LENGTH_UNSPECIFIED, crate::types::Collation::Binary)
    }

    /// The first argument's type.
    pub fn first(t: &Typing<'_>) -> FieldType {
        t.args[0].field_type().clone().with_not_null(false)
    }

    /// DATE.
    pub fn date(_: &Typing<'_>) -> FieldType {
        FieldType::date()
    }

    /// TIME with the first argument's fraction.
    pub fn time(t: &Typing<'_>) -> FieldType {
        FieldType::time(t.args.first().map_or(0, |a| a.field_type().fsp()))
    }

    /// DATETIME with the first argument's fraction.
    pub fn datetime(t: &Typing<'_>) -> FieldType {
        FieldType::datetime(t.args.first().map_or(0, |a| a.field_type().fsp()))
    }

    /// The first argument's number type; DOUBLE when it is none.
    pub fn first_number(t: &Typing<'_>) -> FieldType {
        let ft = t.args[0].field_type();
        match ft.family() {
            Family::Int => FieldType::bigint().with_unsigned(ft.unsigned),
            Family::Decimal => FieldType::decimal(ft.flen, ft.decimals),
            _ => FieldType::double(),
        }
    }
}
