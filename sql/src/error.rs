//! Every error a client can see: MySQL's number, SQLSTATE and wording, one line each.
//!
//! A line reads `Variant { fields } => number, "SQLSTATE", "wording";`. The enum, its numbers and its text all come from
//! that one line, so a variant without a number cannot exist. Numbers of 8000 and above have no MySQL counterpart: they
//! are the ones other distributed databases of this protocol use for the same condition.

use datafusion_common::DataFusionError;

/// The SQL layer's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! errors {
    ($( $(#[$doc:meta])* $name:ident $( { $($field:ident : $ty:ty),* $(,)? } )? => $code:expr, $state:expr, $text:literal; )*) => {
        /// An error of the SQL layer, as the client will see it.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Error {
            $( $(#[$doc])* #[allow(missing_docs)] $name $( { $($field: $ty),* } )?, )*
        }

        impl Error {
            /// MySQL's error number.
            #[allow(unused_variables)]
            pub fn code(&self) -> u16 {
                match self { $( Error::$name $( { $($field),* } )? => $code.into_number(), )* }
            }

            /// The five-character SQLSTATE.
            #[allow(unused_variables)]
            pub fn sql_state(&self) -> &'static str {
                match self { $( Error::$name $( { $($field),* } )? => $state, )* }
            }
        }

        impl std::fmt::Display for Error {
            #[allow(unused_variables)]
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self { $( Error::$name $( { $($field),* } )? => write!(f, $text), )* }
            }
        }
    };
}

/// Lets a line of the table name its number either as a literal or as a field.
trait IntoNumber {
    fn into_number(self) -> u16;
}

impl IntoNumber for u16 {
    fn into_number(self) -> u16 {
        self
    }
}

impl IntoNumber for &u16 {
    fn into_number(self) -> u16 {
        *self
    }
}

errors! {
    // Connections, packets, accounts.
    TooManyConnections => 1040u16, "08004", "Too many connections";
    BadHandshake => 1043u16, "08S01", "Bad handshake";
    DbAccessDenied { user: String, host: String, db: String } => 1044u16, "42000", "Access denied for user '{user}'@'{host}' to database '{db}'";
    AccessDenied { user: String, host: String, using_password: &'static str } => 1045u16, "28000", "Access denied for user '{user}'@'{host}' (using password: {using_password})";
    UnknownCommand => 1047u16, "08S01", "Unknown command";
    ServerShutdown => 1053u16, "08S01", "Server shutdown in progress";
    NoSuchThread { id: u64 } => 1094u16, "HY000", "Unknown thread id: {id}";
    KillDenied { id: u64 } => 1095u16, "HY000", "You are not owner of thread {id}";
    TableAccessDenied { privilege: String, user: String, host: String, table: String } => 1142u16, "42000", "{privilege} command denied to user '{user}'@'{host}' for table '{table}'";
    PacketTooLarge => 1153u16, "08S01", "Got a packet bigger than 'max_allowed_packet' bytes";
    PacketsOutOfOrder => 1156u16, "08S01", "Got packets out of order";
    MalformedPacket => 1835u16, "HY000", "Malformed communication packet.";
    SpecificAccessDenied { privilege: String } => 1227u16, "42000", "Access denied; you need (at least one of) the {privilege} privilege(s) for this operation";
    OptionPreventsStatement { option: String } => 1290u16, "HY000", "The MySQL server is running with the {option} option so it cannot execute this statement";
    UserOperationFailed { operation: &'static str, users: String } => 1396u16, "HY000", "Operation {operation} failed for {users}";
    PluginNotLoaded { plugin: String } => 1524u16, "HY000", "Plugin '{plugin}' is not loaded";
    SecureTransportRequired => 3159u16, "HY000", "Connections using insecure transport are prohibited while --require_secure_transport=ON.";
    IdleTimeout => 4031u16, "HY000", "The client was disconnected by the server because of inactivity. See wait_timeout and interactive_timeout for configuring this behavior.";
    LocalInfileDisabled => 3948u16, "42000", "Loading local data is disabled; this must be enabled on both the client and server sides";
    FileNotFound { path: String, reason: String } => 29u16, "HY000", "File '{path}' not found ({reason})";
    SecureFilePrivilege => 1290u16, "HY000", "The MySQL server is running with the --secure-file-priv option so it cannot execute this statement";

    NoBinaryLogging => 1381u16, "HY000", "You are not using binary logging";

    // Prepared statements and cursors.
    UnknownStatement { handler: String, operation: &'static str } => 1243u16, "HY000", "Unknown prepared statement handler ({handler}) given to {operation}";
    NotPreparable => 1295u16, "HY000", "This command is not supported in the prepared statement protocol yet";
    WrongArguments { to: String } => 1210u16, "HY000", "Incorrect arguments to {to}";
    TooManyPlaceholders => 1390u16, "HY000", "Prepared statement contains too many placeholders";
    TooManyPrepared { max: u64 } => 1461u16, "42000", "Can't create more than max_prepared_stmt_count statements (current value: {max})";
    NoOpenCursor { id: u32 } => 1421u16, "HY000", "The statement ({id}) has no open cursor.";

    // Databases, tables, columns, indexes.
    DbCreateExists { db: String } => 1007u16, "HY000", "Can't create database '{db}'; database exists";
    DbDropExists { db: String } => 1008u16, "HY000", "Can't drop database '{db}'; database doesn't exist";
    NoDatabase => 1046u16, "3D000", "No database selected";
    BadDb { db: String } => 1049u16, "42000", "Unknown database '{db}'";
    TableExists { table: String } => 1050u16, "42S01", "Table '{table}' already exists";
    /// DROP TABLE and RENAME of something that is not there; `table` is `db.table`, several joined by commas.
    BadTable { table: String } => 1051u16, "42S02", "Unknown table '{table}'";
    AmbiguousColumn { column: String, clause: String } => 1052u16, "23000", "Column '{column}' in {clause} is ambiguous";
    BadField { column: String, clause: String } => 1054u16, "42S22", "Unknown column '{column}' in '{clause}'";
    TooLongIdent { name: String } => 1059u16, "42000", "Identifier name '{name}' is too long";
    DupFieldName { column: String } => 1060u16, "42S21", "Duplicate column name '{column}'";
    DupKeyName { key: String } => 1061u16, "42000", "Duplicate key name '{key}'";
    WrongFieldSpec { column: String } => 1063u16, "42000", "Incorrect column specifier for column '{column}'";
    NonUniqTable { table: String } => 1066u16, "42000", "Not unique table/alias: '{table}'";
    InvalidDefault { column: String } => 1067u16, "42000", "Invalid default value for '{column}'";
    MultiplePrimaryKey => 1068u16, "42000", "Multiple primary key defined";
    TooManyKeys { max: usize } => 1069u16, "42000", "Too many keys specified; max {max} keys allowed";
    TooManyKeyParts { max: usize } => 1070u16, "42000", "Too many key parts specified; max {max} parts allowed";
    TooLongKey { max_bytes: usize } => 1071u16, "42000", "Specified key was too long; max key length is {max_bytes} bytes";
    KeyColumnMissing { column: String } => 1072u16, "42000", "Key column '{column}' doesn't exist in table";
    BlobUsedAsKey { column: String } => 1073u16, "42000", "BLOB column '{column}' can't be used in key specification with the used table type";
    TooBigFieldLength { column: String, max: u64 } => 1074u16, "42000", "Column length too big for column '{column}' (max = {max}); use BLOB or TEXT instead";
    WrongAutoKey => 1075u16, "42000", "Incorrect table definition; there can be only one auto column and it must be defined as a key";
    WrongSubKey => 1089u16, "HY000", "Incorrect prefix key; the used key part isn't a string, the used length is longer than the key part, or the storage engine doesn't support unique prefix keys";
    CantRemoveAllFields => 1090u16, "42000", "You can't delete all columns with ALTER TABLE; use DROP TABLE instead";
    CantDropFieldOrKey { name: String } => 1091u16, "42000", "Can't DROP '{name}'; check that column/key exists";
    BlobCantHaveDefault { column: String } => 1101u16, "42000", "BLOB, TEXT, GEOMETRY or JSON column '{column}' can't have a default value";
    WrongDbName { db: String } => 1102u16, "42000", "Incorrect database name '{db}'";
    WrongTableName { table: String } => 1103u16, "42000", "Incorrect table name '{table}'";
    UnknownTable { table: String, clause: String } => 1109u16, "42S02", "Unknown table '{table}' in {clause}";
    FieldSpecifiedTwice { column: String } => 1110u16, "42000", "Column '{column}' specified twice";
    TableMustHaveColumns => 1113u16, "42000", "A table must have at least 1 column";
    UnknownCharset { charset: String } => 1115u16, "42000", "Unknown character set: '{charset}'";
    TooManyFields => 1117u16, "HY000", "Too many columns";
    TooBigRowSize { max: usize } => 1118u16, "42000", "Row size too large. The maximum row size for the used table type, not counting BLOBs, is {max}. This includes storage overhead, check the manual. You have to change some columns to TEXT or BLOBs";
    NoSuchTable { db: String, table: String } => 1146u16, "42S02", "Table '{db}.{table}' doesn't exist";
    WrongColumnName { column: String } => 1166u16, "42000", "Incorrect column name '{column}'";
    WrongKeyColumn { column: String } => 1167u16, "42000", "The used storage engine can't index column '{column}'";
    BlobKeyWithoutLength { column: String } => 1170u16, "42000", "BLOB/TEXT column '{column}' used in key specification without a key length";
    PrimaryCantHaveNull => 1171u16, "42000", "All parts of a PRIMARY KEY must be NOT NULL; if you need NULL in a key, use UNIQUE instead";
    KeyDoesNotExist { key: String, table: String } => 1176u16, "42000", "Key '{key}' doesn't exist in table '{table}'";
    CollationCharsetMismatch { collation: String, charset: String } => 1253u16, "42000", "COLLATION '{collation}' is not valid for CHARACTER SET '{charset}'";
    UnknownCollation { collation: String } => 1273u16, "HY000", "Unknown collation: '{collation}'";
    WrongNameForIndex { key: String } => 1280u16, "42000", "Incorrect index name '{key}'";
    UnknownStorageEngine { engine: String } => 1286u16, "42000", "Unknown storage engine '{engine}'";
    DuplicatedValueInType { column: String, value: String, tp: &'static str } => 1291u16, "HY000", "Column '{column}' has duplicated value '{value}' in {tp}";
    InvalidOnUpdate { column: String } => 1294u16, "HY000", "Invalid ON UPDATE clause for '{column}' column";
    WrongObject { name: String, expected: &'static str } => 1347u16, "HY000", "'{name}' is not {expected}";
    TooBigScale { scale: u64, column: String, max: u64 } => 1425u16, "42000", "Too big scale {scale} specified for column '{column}'. Maximum is {max}.";
    TooBigPrecision { precision: u64, column: String, max: u64 } => 1426u16, "42000", "Too-big precision {precision} specified for '{column}'. Maximum is {max}.";
    MBiggerThanD { column: String } => 1427u16, "42000", "For float(M,D), double(M,D) or decimal(M,D), M must be >= D (column '{column}').";
    TooBigDisplayWidth { column: String, max: u64 } => 1439u16, "42000", "Display width out of range for column '{column}' (max = {max})";
    TableMustHaveVisibleColumn => 4028u16, "HY000", "A table must have at least one visible column.";
    DropPrimaryInvisible => 3522u16, "HY000", "A primary key index cannot be invisible";

    // Parsing and binding.
    /// `near` is the rest of the statement from the offending token, cut at 80 characters.
    Parse { near: String, line: usize } => 1064u16, "42000", "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right syntax to use near '{near}' at line {line}";
    EmptyQuery => 1065u16, "42000", "Query was empty";
    WrongFieldWithGroup { number: usize, clause: String, column: String } => 1055u16, "42000", "Expression #{number} of {clause} is not in GROUP BY clause and contains nonaggregated column '{column}' which is not functionally dependent on columns in GROUP BY clause; this is incompatible with sql_mode=only_full_group_by";
    WrongGroupField { column: String } => 1056u16, "42000", "Can't group on '{column}'";
    WrongValueCount => 1058u16, "21S01", "Column count doesn't match value count";
    CantUseTargetTable { table: String } => 1093u16, "HY000", "You can't specify target table '{table}' for update in FROM clause";
    NoTablesUsed => 1096u16, "HY000", "No tables used";
    InvalidGroupFunction => 1111u16, "HY000", "Invalid use of group function";
    WrongValueCountOnRow { row: usize } => 1136u16, "21S01", "Column count doesn't match value count at row {row}";
    InvalidUseOfNull => 1138u16, "22004", "Invalid use of NULL value";
    MixOfGroupFuncAndFields { number: usize, clause: String, column: String } => 1140u16, "42000", "In aggregated query without GROUP BY, expression #{number} of {clause} contains nonaggregated column '{column}'; this is incompatible with sql_mode=only_full_group_by";
    WrongUsage { left: String, right: String } => 1221u16, "HY000", "Incorrect usage of {left} and {right}";
    WrongNumberOfColumns => 1222u16, "21000", "The used SELECT statements have a different number of columns";
    /// A construct the parser knows and we do not support; `feature` names it.
    NotSupported { feature: String } => 1235u16, "42000", "This version of MySQL doesn't yet support '{feature}'";
    OperandColumns { columns: usize } => 1241u16, "21000", "Operand should contain {columns} column(s)";
    SubqueryNotOneRow => 1242u16, "21000", "Subquery returns more than 1 row";
    IllegalReference { name: String, reason: String } => 1247u16, "42S22", "Reference '{name}' not supported ({reason})";
    DerivedMustHaveAlias => 1248u16, "42000", "Every derived table must have its own alias";
    NonUpdatableTable { table: String, statement: &'static str } => 1288u16, "HY000", "The target table {table} of the {statement} is not updatable";
    /// `kind` is FUNCTION, PROCEDURE or SAVEPOINT.
    DoesNotExist { kind: &'static str, name: String } => 1305u16, "42000", "{kind} {name} does not exist";
    WrongParameterCount { function: String } => 1582u16, "42000", "Incorrect parameter count in the call to native function '{function}'";
    DistinctOrderBy { number: usize, column: String } => 3065u16, "HY000", "Expression #{number} of ORDER BY clause is not in SELECT list, references column '{column}' which is not in SELECT list; this is incompatible with DISTINCT";
    AggregateOrderUnion { number: usize } => 3028u16, "HY000", "Expression #{number} of ORDER BY contains aggregate function and applies to a UNION";
    TooDeep => 1436u16, "HY000", "Thread stack overrun: the statement is nested too deeply";

    // Values.
    BadNull { column: String } => 1048u16, "23000", "Column '{column}' cannot be null";
    DupEntry { entry: String, key: String } => 1062u16, "23000", "Duplicate entry '{entry}' for key '{key}'";
    OutOfRange { column: String, row: usize } => 1264u16, "22003", "Out of range value for column '{column}' at row {row}";
    DataTruncated { column: String, row: usize } => 1265u16, "01000", "Data truncated for column '{column}' at row {row}";
    TooFewRecords { row: usize } => 1261u16, "01000", "Row {row} doesn't contain data for all columns";
    TooManyRecords { row: usize } => 1262u16, "01000", "Row {row} was truncated; it contained more data than there were input columns";
    TruncatedWrongValue { kind: String, value: String } => 1292u16, "22007", "Truncated incorrect {kind} value: '{value}'";
    IncorrectTemporalForColumn { kind: String, value: String, column: String, row: usize } => 1292u16, "22007", "Incorrect {kind} value: '{value}' for column '{column}' at row {row}";
    InvalidCharacterString { charset: String, text: String } => 1300u16, "HY000", "Invalid {charset} character string: '{text}'";
    NoDefaultForField { column: String } => 1364u16, "HY000", "Field '{column}' doesn't have a default value";
    DivisionByZero => 1365u16, "22012", "Division by 0";
    IncorrectValueForColumn { kind: String, value: String, column: String, row: usize } => 1366u16, "HY000", "Incorrect {kind} value: '{value}' for column '{column}' at row {row}";
    DataTooLong { column: String, row: usize } => 1406u16, "22001", "Data too long for column '{column}' at row {row}";
    IncorrectValue { kind: String, value: String } => 1525u16, "HY000", "Incorrect {kind} value: '{value}'";
    AutoIncrementFailed => 1467u16, "HY000", "Failed to read auto-increment value from storage engine";
    /// An expression's value does not fit its type: `kind` is BIGINT, DECIMAL …, `expression` its text.
    ValueOutOfRange { kind: String, expression: String } => 1690u16, "22003", "{kind} value is out of range in '{expression}'";

    // Variables.
    UnknownVariable { name: String } => 1193u16, "HY000", "Unknown system variable '{name}'";
    SessionVariable { name: String } => 1228u16, "HY000", "Variable '{name}' is a SESSION variable and can't be used with SET GLOBAL";
    GlobalVariable { name: String } => 1229u16, "HY000", "Variable '{name}' is a GLOBAL variable and should be set with SET GLOBAL";
    VariableNoDefault { name: String } => 1230u16, "42000", "Variable '{name}' doesn't have a default value";
    WrongValueForVariable { name: String, value: String } => 1231u16, "42000", "Variable '{name}' can't be set to the value of '{value}'";
    WrongTypeForVariable { name: String } => 1232u16, "42000", "Incorrect argument type to variable '{name}'";
    /// `scope` is `read only`, `GLOBAL` or `SESSION`.
    IncorrectVariableScope { name: String, scope: &'static str } => 1238u16, "HY000", "Variable '{name}' is a {scope} variable";
    UnknownTimeZone { zone: String } => 1298u16, "HY000", "Unknown or incorrect time zone: '{zone}'";
    UnsupportedIsolation { level: String } => 8048u16, "HY000", "The isolation level '{level}' is not supported. Set rutile_skip_isolation_level_check=1 to skip this error";

    // Transactions and execution.
    LockWaitTimeout => 1205u16, "HY000", "Lock wait timeout exceeded; try restarting transaction";
    Deadlock => 1213u16, "40001", "Deadlock found when trying to get lock; try restarting transaction";
    QueryInterrupted => 1317u16, "70100", "Query execution was interrupted";
    TransactionInProgress => 1568u16, "25001", "Transaction characteristics can't be changed while a transaction is in progress";
    ReadOnlyTransaction => 1792u16, "25006", "Cannot execute statement in a READ ONLY transaction.";
    QueryTimeout => 3024u16, "HY000", "Query execution was interrupted, maximum statement execution time exceeded";
    LockNowait => 3572u16, "HY000", "Statement aborted because lock(s) could not be acquired immediately and NOWAIT is set.";
    /// The transaction outgrew what a commit may carry.
    TransactionTooLarge { bytes: u64 } => 8004u16, "HY000", "Transaction is too large, size: {bytes}";
    /// This server has lost touch with the cluster for so long that schema changes went on without it.
    SchemaOutOfDate => 8027u16, "HY000", "Information schema is out of date: this server's lease is over and could not be renewed";
    /// The table is not to be written, or changed by another statement, until a schema change is through; who waits for that too long gets this.
    TableChanging => 1205u16, "HY000", "Lock wait timeout exceeded; try restarting transaction";
    /// The table changed between the plan and the commit; running the statement again will work.
    SchemaChanged => 8028u16, "HY000", "Information schema is changed during the execution of the statement. Try again";
    MemoryQuotaExceeded { connection: u64 } => 8175u16, "HY000", "Your query has been cancelled due to exceeding the allowed memory limit for a single SQL query. Please try narrowing your query scope or increase the memory quota limit and try again.[conn={connection}]";
    /// Commit's answer was lost: it may or may not have happened, so the client must look before it repeats. The connection is closed:
    /// nobody takes this for a failed statement in a transaction that goes on.
    ResultUndetermined => 1105u16, "HY000", "result undetermined: the transaction may or may not have been committed";
    PdUnavailable { reason: String } => 9001u16, "HY000", "Placement driver is unavailable: {reason}";
    RegionUnavailable { reason: String } => 9005u16, "HY000", "Region is unavailable: {reason}";
    /// An optimistic transaction lost against another one; the client may repeat it.
    WriteConflict { detail: String } => 9007u16, "HY000", "Write conflict, {detail} [try again later]";

    /// An error whose number, state and text were decided below (expression evaluation).
    Mysql { code: u16, state: &'static str, message: String } => code, state, "{message}";
    /// A bug of ours, or an input nobody foresaw: `message` says what was met.
    Internal { message: String } => 1105u16, "HY000", "{message}";
}

impl std::error::Error for Error {}

impl Error {
    /// A construct we know and do not support, by name.
    pub fn not_supported(feature: impl Into<String>) -> Error {
        Error::NotSupported { feature: feature.into() }
    }

    /// A bug of ours; the text goes to the client and the log.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::Internal { message: message.into() }
    }

    /// `Unknown column 'column' in 'clause'`.
    pub fn bad_field(column: impl Into<String>, clause: impl Into<String>) -> Error {
        Error::BadField { column: column.into(), clause: clause.into() }
    }
}

impl From<rutile_expr::Error> for Error {
    fn from(error: rutile_expr::Error) -> Self {
        Error::Mysql { code: error.code(), state: error.sqlstate(), message: error.to_string() }
    }
}

/// What the cluster's client says. `AlreadyExists` names a key only the table's layer can spell, which catches it first.
impl From<rutile_client::Error> for Error {
    fn from(error: rutile_client::Error) -> Self {
        use rutile_client::Error as E;
        match error {
            E::Pd(reason) => Error::PdUnavailable { reason },
            E::Store { .. } | E::RegionUnavailable { .. } => {
                Error::RegionUnavailable { reason: error.to_string() }
            }
            E::EntryTooLarge { size_bytes, .. } => Error::TransactionTooLarge { bytes: size_bytes },
            E::WriteConflict { .. } | E::Aborted { .. } => Error::WriteConflict { detail: error.to_string() },
            E::KeyIsLocked { .. } | E::LockWaitTimeout { .. } => Error::LockWaitTimeout,
            E::LockNoWait { .. } => Error::LockNowait,
            E::Deadlock { .. } => Error::Deadlock,
            E::AlreadyExists { key } => Error::DupEntry { entry: hex::encode(&key), key: "?".to_owned() },
            E::ResultUndetermined(_) => Error::ResultUndetermined,
            E::TransactionEnded | E::Raw(_) | E::Coprocessor(_) | E::Protocol(_) => {
                Error::internal(error.to_string())
            }
        }
    }
}

/// An error travels through DataFusion's operators as an external one and comes out unchanged.
impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if let Some(ours) = inner.downcast_ref::<Error>() {
                return ours.clone();
            }
            if let Some(below) = inner.downcast_ref::<rutile_expr::Error>() {
                return below.clone().into();
            }
            if let Some(below) = inner.downcast_ref::<rutile_client::Error>() {
                return below.clone().into();
            }
            cause = inner.source();
        }
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Error::MemoryQuotaExceeded { connection: 0 },
            root => Error::internal(root.to_string()),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_knows_its_number_state_and_wording() {
        let error = Error::DupEntry { entry: "1".into(), key: "t.PRIMARY".into() };
        assert_eq!(error.code(), 1062);
        assert_eq!(error.sql_state(), "23000");
        assert_eq!(error.to_string(), "Duplicate entry '1' for key 't.PRIMARY'");
        let below = Error::Mysql { code: 1690, state: "22003", message: "100% {odd}".into() };
        assert_eq!(
            (below.code(), below.sql_state(), below.to_string().as_str()),
            (1690, "22003", "100% {odd}")
        );
    }

    #[test]
    fn an_error_survives_the_way_through_the_operators() {
        let inner = DataFusionError::from(Error::SubqueryNotOneRow).context("while joining");
        assert_eq!(Error::from(inner), Error::SubqueryNotOneRow);
    }
}
