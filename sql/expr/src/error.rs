//! What can go wrong while values are converted and expressions evaluated, each with its MySQL number and SQLSTATE.

use thiserror::Error;

/// Result of anything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of evaluation or type inference; `Display` is MySQL's wording.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// A value that does not fit its column or conversion target.
    #[error("Out of range value for column '{column}' at row {row}")]
    OutOfRangeColumn { column: String, row: u64 },
    /// NULL for a column that takes none.
    #[error("Column '{column}' cannot be null")]
    BadNull { column: String },
    /// A value cut on its way into a column (also a word that is no member of an ENUM or SET).
    #[error("Data truncated for column '{column}' at row {row}")]
    DataTruncated { column: String, row: u64 },
    /// A string longer than its column.
    #[error("Data too long for column '{column}' at row {row}")]
    DataTooLong { column: String, row: u64 },
    /// A text that is not a value of a temporal column.
    #[error("Incorrect {kind} value: '{value}' for column '{column}' at row {row}")]
    IncorrectTemporalColumn { kind: &'static str, value: String, column: String, row: u64 },
    /// A text that is not a value of a numeric or string column.
    #[error("Incorrect {kind} value: '{value}' for column '{column}' at row {row}")]
    IncorrectColumn { kind: &'static str, value: String, column: String, row: u64 },
    /// The valid beginning of a text was used, the rest ignored.
    #[error("Truncated incorrect {kind} value: '{value}'")]
    TruncatedWrong { kind: &'static str, value: String },
    /// A text that is no value of this type at all.
    #[error("Incorrect {kind} value: '{value}'")]
    IncorrectValue { kind: &'static str, value: String },
    /// A number literal beyond DOUBLE.
    #[error("Illegal {kind} '{value}' value found during parsing")]
    IllegalLiteral { kind: &'static str, value: String },
    /// A literal such as DATE'…' that is not valid.
    #[error("Incorrect {kind} value: '{value}'")]
    WrongLiteral { kind: &'static str, value: String },
    /// The function cannot use this text.
    #[error("Incorrect {kind} value: '{value}' for function {function}")]
    WrongValueForFunction { kind: &'static str, value: String, function: &'static str },
    /// Arithmetic left the type's range; `kind` is DOUBLE, BIGINT, BIGINT UNSIGNED or DECIMAL.
    #[error("{kind} value is out of range in '{expr}'")]
    DataOutOfRange { kind: &'static str, expr: String },
    /// Division by zero (a warning unless sql_mode makes it an error).
    #[error("Division by 0")]
    DivisionByZero,
    /// A logarithm of what has none.
    #[error("Invalid argument for logarithm")]
    InvalidLogarithm,
    /// The result of date arithmetic is not a date.
    #[error("Datetime function: {function} field overflow")]
    DatetimeOverflow { function: &'static str },
    /// A wrong number of arguments for a built-in function.
    #[error("Incorrect parameter count in the call to native function '{function}'")]
    WrongParamCount { function: String },
    /// Arguments that the function cannot take.
    #[error("Incorrect arguments to {function}")]
    WrongArguments { function: String },
    /// No such function.
    #[error("FUNCTION {function} does not exist")]
    FunctionDoesNotExist { function: String },
    /// A row or a column list where one value was expected, or the other way round.
    #[error("Operand should contain {columns} column(s)")]
    OperandColumns { columns: usize },
    /// Two collations of equal strength.
    #[error(
        "Illegal mix of collations ({a},{a_coercibility}) and ({b},{b_coercibility}) for operation '{operation}'"
    )]
    IllegalMix2 {
        a: &'static str,
        a_coercibility: &'static str,
        b: &'static str,
        b_coercibility: &'static str,
        operation: String,
    },
    /// Collations that cannot be reconciled.
    #[error("Illegal mix of collations for operation '{operation}'")]
    IllegalMix { operation: String },
    /// No such collation.
    #[error("Unknown collation: '{name}'")]
    UnknownCollation { name: String },
    /// No such character set.
    #[error("Unknown character set: '{name}'")]
    UnknownCharset { name: String },
    /// The collation belongs to another character set.
    #[error("COLLATION '{collation}' is not valid for CHARACTER SET '{charset}'")]
    CollationCharsetMismatch { collation: String, charset: String },
    /// Bytes that are not text of the character set.
    #[error("Invalid {charset} character string: '{value}'")]
    InvalidCharacterString { charset: &'static str, value: String },
    /// Text that the target character set cannot hold.
    #[error("Cannot convert string '{value}' from {from} to {to}")]
    CannotConvertString { value: String, from: &'static str, to: &'static str },
    /// A result above max_allowed_packet.
    #[error("Result of {function}() was larger than max_allowed_packet ({limit}) - truncated")]
    ResultTooLarge { function: &'static str, limit: u64 },
    /// GROUP_CONCAT reached group_concat_max_len.
    #[error("Row {row} was cut by GROUP_CONCAT()")]
    CutByGroupConcat { row: u64 },
    /// A time zone that is neither an offset nor a known name.
    #[error("Unknown or incorrect time zone: '{name}'")]
    UnknownTimeZone { name: String },
    /// DECIMAL(M,D) with D > M.
    #[error("For float(M,D), double(M,D) or decimal(M,D), M must be >= D (column '{column}').")]
    PrecisionBelowScale { column: String },
    /// More digits than the type has.
    #[error("Too-big precision {precision} specified for '{column}'. Maximum is {max}.")]
    TooBigPrecision { precision: u64, column: String, max: u64 },
    /// More fractional digits than the type has.
    #[error("Too big scale {scale} specified for column '{column}'. Maximum is {max}.")]
    TooBigScale { scale: u64, column: String, max: u64 },
    /// A regular expression that does not parse.
    #[error("{message}")]
    Regexp { code: u16, message: String },
    /// A text that is no JSON document.
    #[error(
        "Invalid JSON text in argument {argument} to function {function}: \"{message}\" at position {position}."
    )]
    InvalidJson { argument: usize, function: &'static str, message: String, position: usize },
    /// A built-in that exists in MySQL but not here.
    #[error("This version of Rutile doesn't yet support '{what}'")]
    NotSupported { what: String },
    /// The statement was killed or ran out of time.
    #[error("Query execution was interrupted")]
    Interrupted,
    /// What a store ended an evaluation with.
    #[error("{message}")]
    InStore { code: u16, sqlstate: String, message: String },
    /// Stored bytes that this crate's encoders do not write.
    #[error("Corrupt encoded value: {what}")]
    Corrupt { what: String },
    /// A fault of ours, or of Arrow below us.
    #[error("Internal error: {0}")]
    Internal(String),
}

impl Error {
    /// MySQL's error number.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.numbers().0
    }

    /// The SQLSTATE that goes with [`Error::code`].
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        self.numbers().1
    }

    fn numbers(&self) -> (u16, &'static str) {
        use Error as E;
        match self {
            E::OutOfRangeColumn { .. } => (1264, "22003"),
            E::BadNull { .. } => (1048, "23000"),
            E::DataTruncated { .. } => (1265, "01000"),
            E::DataTooLong { .. } => (1406, "22001"),
            E::IncorrectTemporalColumn { .. } | E::TruncatedWrong { .. } | E::IncorrectValue { .. } => {
                (1292, "22007")
            }
            E::IncorrectColumn { .. } => (1366, "HY000"),
            E::IllegalLiteral { .. } => (1367, "22007"),
            E::WrongLiteral { .. } => (1525, "HY000"),
            E::WrongValueForFunction { .. } => (1411, "HY000"),
            E::DataOutOfRange { .. } => (1690, "22003"),
            E::DivisionByZero => (1365, "22012"),
            E::InvalidLogarithm => (3020, "2201E"),
            E::DatetimeOverflow { .. } => (1441, "22008"),
            E::WrongParamCount { .. } => (1582, "42000"),
            E::WrongArguments { .. } => (1210, "HY000"),
            E::FunctionDoesNotExist { .. } => (1305, "42000"),
            E::OperandColumns { .. } => (1241, "21000"),
            E::IllegalMix2 { .. } => (1267, "HY000"),
            E::IllegalMix { .. } => (1271, "HY000"),
            E::UnknownCollation { .. } => (1273, "HY000"),
            E::UnknownCharset { .. } => (1115, "42000"),
            E::CollationCharsetMismatch { .. } => (1253, "42000"),
            E::InvalidCharacterString { .. } => (1300, "HY000"),
            E::CannotConvertString { .. } => (3854, "HY000"),
            E::ResultTooLarge { .. } => (1301, "HY000"),
            E::CutByGroupConcat { .. } => (1260, "HY000"),
            E::UnknownTimeZone { .. } => (1298, "HY000"),
            E::PrecisionBelowScale { .. } => (1427, "42000"),
            E::TooBigPrecision { .. } => (1426, "42000"),
            E::TooBigScale { .. } => (1425, "42000"),
            E::Regexp { code, .. } => (*code, "HY000"),
            E::InvalidJson { .. } => (3141, "22032"),
            E::NotSupported { .. } => (1235, "42000"),
            E::InStore { code, sqlstate, .. } => (*code, known_state(sqlstate)),
            E::Interrupted => (1317, "70100"),
            E::Corrupt { .. } | E::Internal(_) => (1105, "HY000"),
        }
    }
}

/// The SQLSTATE of this text among those that evaluation can end with.
fn known_state(text: &str) -> &'static str {
    const STATES: [&str; 10] =
        ["01000", "21000", "22001", "22003", "22007", "22008", "22012", "22032", "2201E", "23000"];
    let found = STATES.into_iter().chain(["42000", "70100"]).find(|state| *state == text);
    found.unwrap_or("HY000")
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        match e {
            arrow::error::ArrowError::ExternalError(inner) => match inner.downcast::<Error>() {
                Ok(own) => *own,
                Err(other) => Error::Internal(other.to_string()),
            },
            other => Error::Internal(other.to_string()),
        }
    }
}

impl From<datafusion_common::DataFusionError> for Error {
    fn from(e: datafusion_common::DataFusionError) -> Self {
        match e {
            datafusion_common::DataFusionError::External(inner) => match inner.downcast::<Error>() {
                Ok(own) => *own,
                Err(other) => Error::Internal(other.to_string()),
            },
            other => Error::Internal(other.to_string()),
        }
    }
}

impl From<Error> for datafusion_common::DataFusionError {
    fn from(e: Error) -> Self {
        datafusion_common::DataFusionError::External(Box::new(e))
    }
}
