//! Expressions.

use super::{DataType, Ident, Query, Window};

/// A value written in the text.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    /// Digits that fit 64 bits; longer ones are `Decimal`.
    Int(u64),
    /// Digits with a point, or too many digits for 64 bits, as written.
    Decimal(String),
    /// A number with an exponent, as written.
    Float(String),
    /// The bytes between the quotes, escapes resolved. `charset` is the introducer's name in lower case (`_latin1'…'`,
    /// `N'…'` is `utf8mb3`); without one the bytes are in the connection's character set.
    Str {
        value: Vec<u8>,
        charset: Option<String>,
    },
    /// `x'4D'` or `0x4D`, with an introducer's character set if there was one.
    Hex {
        value: Vec<u8>,
        charset: Option<String>,
    },
    /// `b'0101'` or `0b0101`, most significant byte first.
    Bit {
        value: Vec<u8>,
        charset: Option<String>,
    },
    /// `DATE '…'`, `TIME '…'`, `TIMESTAMP '…'`
    Temporal {
        kind: TemporalKind,
        value: String,
    },
}

impl Literal {
    /// A plain string literal.
    pub fn str(value: impl Into<Vec<u8>>) -> Self {
        Self::Str { value: value.into(), charset: None }
    }
}

/// Which standard temporal literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemporalKind {
    Date,
    Time,
    Timestamp,
}

/// `[[schema.]table.]column`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ColumnName {
    pub schema: Option<Ident>,
    pub table: Option<Ident>,
    pub name: Ident,
}

impl ColumnName {
    /// A name without a table.
    pub fn bare(name: impl Into<String>) -> Self {
        Self { schema: None, table: None, name: name.into() }
    }
}

impl std::fmt::Display for ColumnName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        if let Some(table) = &self.table {
            write!(f, "{table}.")?;
        }
        f.write_str(&self.name)
    }
}

/// An expression. Chains of one `AND` or `OR` are built balanced, so their depth grows with the logarithm.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Literal(Literal),
    Column(ColumnName),
    /// The `?` with this number, from 0.
    Param(usize),
    /// `@name`
    UserVar(String),
    /// `@@[scope.]name`
    SystemVar {
        scope: Option<VarScope>,
        name: String,
    },
    /// `@name := value`
    Assign {
        var: String,
        value: Box<Expr>,
    },
    Unary {
        op: UnaryOp,
        expr: Box<Expr>,
    },
    Binary {
        op: BinaryOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    IsNull {
        expr: Box<Expr>,
        negated: bool,
    },
    /// `IS [NOT] TRUE | FALSE | UNKNOWN`
    IsTruth {
        expr: Box<Expr>,
        truth: Truth,
        negated: bool,
    },
    Between {
        expr: Box<Expr>,
        low: Box<Expr>,
        high: Box<Expr>,
        negated: bool,
    },
    InList {
        expr: Box<Expr>,
        list: Vec<Expr>,
        negated: bool,
    },
    InSubquery {
        expr: Box<Expr>,
        query: Box<Query>,
        negated: bool,
    },
    Like {
        expr: Box<Expr>,
        pattern: Box<Expr>,
        escape: Option<Box<Expr>>,
        negated: bool,
    },
    /// `REGEXP` and `RLIKE`
    Regexp {
        expr: Box<Expr>,
        pattern: Box<Expr>,
        negated: bool,
    },
    MemberOf {
        expr: Box<Expr>,
        array: Box<Expr>,
    },
    /// `EXISTS (…)`; `NOT EXISTS` is `Unary(Not)` around it.
    Exists(Box<Query>),
    /// `(SELECT …)` as a value or a row.
    Subquery(Box<Query>),
    /// `left op ANY|ALL (SELECT …)`
    Quantified {
        left: Box<Expr>,
        op: BinaryOp,
        all: bool,
        query: Box<Query>,
    },
    /// `(a, b, …)` or `ROW(a, b)`
    Row(Vec<Expr>),
    Case {
        operand: Option<Box<Expr>>,
        whens: Vec<(Expr, Expr)>,
        else_: Option<Box<Expr>>,
    },
    /// `CAST(expr AS type)`, `CONVERT(expr, type)`; `BINARY expr` casts to `BINARY`.
    Cast {
        expr: Box<Expr>,
        ty: Box<DataType>,
        array: bool,
    },
    /// `CONVERT(expr USING charset)`
    ConvertUsing {
        expr: Box<Expr>,
        charset: String,
    },
    Collate {
        expr: Box<Expr>,
        collation: String,
    },
    Function(Box<Function>),
    /// `EXTRACT(unit FROM expr)`
    Extract {
        unit: IntervalUnit,
        expr: Box<Expr>,
    },
    Trim {
        side: TrimSide,
        what: Option<Box<Expr>>,
        from: Box<Expr>,
    },
    /// `CHAR(n, … [USING charset])`
    Char {
        args: Vec<Expr>,
        charset: Option<String>,
    },
    /// `INTERVAL value unit`: the right side of `+`, `-` (or the left of `+`) and the second argument of `DATE_ADD` and the like.
    Interval {
        value: Box<Expr>,
        unit: IntervalUnit,
    },
    /// A bare unit: the first argument of `TIMESTAMPADD` and `TIMESTAMPDIFF`.
    Unit(IntervalUnit),
    /// `DEFAULT` or `DEFAULT(column)`
    Default(Option<ColumnName>),
    /// `VALUES(column)` in `ON DUPLICATE KEY UPDATE`
    Values(ColumnName),
    Match {
        columns: Vec<ColumnName>,
        against: Box<Expr>,
        mode: MatchMode,
    },
}

/// A function call in ordinary syntax, aggregate or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    pub schema: Option<Ident>,
    /// As written.
    pub name: Ident,
    pub args: Vec<Expr>,
    /// `COUNT(*)`
    pub star: bool,
    pub distinct: bool,
    /// `GROUP_CONCAT(… ORDER BY …)`
    pub order_by: Vec<OrderItem>,
    /// `GROUP_CONCAT(… SEPARATOR '…')`
    pub separator: Option<Vec<u8>>,
    pub over: Option<Over>,
    /// `RESPECT NULLS` (false) or `IGNORE NULLS` (true)
    pub ignore_nulls: bool,
    /// `FROM LAST` of `NTH_VALUE`
    pub from_last: bool,
}

impl Function {
    /// A plain call.
    pub fn call(name: impl Into<String>, args: Vec<Expr>) -> Expr {
        Expr::Function(Box::new(Function {
            schema: None,
            name: name.into(),
            args,
            star: false,
            distinct: false,
            order_by: Vec::new(),
            separator: None,
            over: None,
            ignore_nulls: false,
            from_last: false,
        }))
    }
}

/// What follows `OVER`.
#[derive(Debug, Clone, PartialEq)]
pub enum Over {
    Name(Ident),
    Window(Window),
}

/// One key of `ORDER BY`.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderItem {
    pub expr: Expr,
    pub desc: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    Not,
    Neg,
    Plus,
    BitNot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    Or,
    Xor,
    And,
    Eq,
    /// `<=>`
    NullSafeEq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    BitOr,
    BitAnd,
    BitXor,
    ShiftLeft,
    ShiftRight,
    Add,
    Sub,
    Mul,
    Div,
    /// `DIV`
    IntDiv,
    Mod,
    /// `||` under PIPES_AS_CONCAT
    Concat,
    /// `->`
    JsonExtract,
    /// `->>`
    JsonUnquote,
    SoundsLike,
}

impl BinaryOp {
    /// Whether it is a comparison that gives a truth value.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::*;
        matches!(self, Eq | NullSafeEq | Ne | Lt | Le | Gt | Ge)
    }

    /// How it is written.
    pub fn symbol(self) -> &'static str {
        use BinaryOp::*;
        match self {
            Or => "or",
            Xor => "xor",
            And => "and",
            Eq => "=",
            NullSafeEq => "<=>",
            Ne => "<>",
            Lt => "<",
            Le => "<=",
            Gt => ">",
            Ge => ">=",
            BitOr => "|",
            BitAnd => "&",
            BitXor => "^",
            ShiftLeft => "<<",
            ShiftRight => ">>",
            Add => "+",
            Sub => "-",
            Mul => "*",
            Div => "/",
            IntDiv => "DIV",
            Mod => "%",
            Concat => "||",
            JsonExtract => "->",
            JsonUnquote => "->>",
            SoundsLike => "sounds like",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrimSide {
    Both,
    Leading,
    Trailing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchMode {
    NaturalLanguage,
    NaturalLanguageWithExpansion,
    Boolean,
    QueryExpansion,
}

/// The scope of a system variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VarScope {
    Global,
    Session,
    Persist,
    PersistOnly,
}

/// A unit of `INTERVAL`, `EXTRACT`, `TIMESTAMPDIFF`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntervalUnit {
    Microsecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    SecondMicrosecond,
    MinuteMicrosecond,
    MinuteSecond,
    HourMicrosecond,
    HourSecond,
    HourMinute,
    DayMicrosecond,
    DaySecond,
    DayMinute,
    DayHour,
    YearMonth,
}

impl IntervalUnit {
    const NAMES: [(&'static str, IntervalUnit); 20] = [
        ("MICROSECOND", Self::Microsecond),
        ("SECOND", Self::Second),
        ("MINUTE", Self::Minute),
        ("HOUR", Self::Hour),
        ("DAY", Self::Day),
        ("WEEK", Self::Week),
        ("MONTH", Self::Month),
        ("QUARTER", Self::Quarter),
        ("YEAR", Self::Year),
        ("SECOND_MICROSECOND", Self::SecondMicrosecond),
        ("MINUTE_MICROSECOND", Self::MinuteMicrosecond),
        ("MINUTE_SECOND", Self::MinuteSecond),
        ("HOUR_MICROSECOND", Self::HourMicrosecond),
        ("HOUR_SECOND", Self::HourSecond),
        ("HOUR_MINUTE", Self::HourMinute),
        ("DAY_MICROSECOND", Self::DayMicrosecond),
        ("DAY_SECOND", Self::DaySecond),
        ("DAY_MINUTE", Self::DayMinute),
        ("DAY_HOUR", Self::DayHour),
        ("YEAR_MONTH", Self::YearMonth),
    ];

    /// The unit with this name in any case; `SQL_TSI_…` prefixes are allowed.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = match name.get(..8) {
            Some(prefix) if prefix.eq_ignore_ascii_case("SQL_TSI_") => &name[8..],
            _ => name,
        };
        Self::NAMES.iter().find(|(text, _)| text.eq_ignore_ascii_case(name)).map(|(_, unit)| *unit)
    }

    /// Its name in upper case.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, unit)| *unit == self)
            .map(|(name, _)| *name)
            .expect("every unit has a name")
    }
}
