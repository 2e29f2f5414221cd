//! Statements that change the schema.

use super::{ColumnName, Expr, Ident, ObjectName, Query};

/// A data type as written in a column definition or a CAST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataType {
    pub name: TypeName,
    /// Display width, length in characters or bytes, precision, or fractional seconds; what is written in parentheses first.
    pub length: Option<u64>,
    /// The second number in parentheses.
    pub decimals: Option<u64>,
    pub unsigned: bool,
    pub zerofill: bool,
    /// The `BINARY` attribute: the character set's `_bin` collation.
    pub binary: bool,
    pub charset: Option<String>,
    pub collate: Option<String>,
    /// Members of ENUM and SET.
    pub elems: Vec<Vec<u8>>,
    pub srid: Option<u64>,
}

impl DataType {
    /// The type with no length or attribute.
    pub fn plain(name: TypeName) -> Self {
        Self {
            name,
            length: None,
            decimals: None,
            unsigned: false,
            zerofill: false,
            binary: false,
            charset: None,
            collate: None,
            elems: Vec::new(),
            srid: None,
        }
    }
}

/// Type names; synonyms are folded (`INTEGER` is `Int`, `DEC` is `Decimal`, `CHARACTER VARYING` is `VarChar`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TypeName {
    TinyInt,
    SmallInt,
    MediumInt,
    Int,
    BigInt,
    /// `BOOL`: TINYINT(1)
    Bool,
    /// `SERIAL`: BIGINT UNSIGNED NOT NULL AUTO_INCREMENT UNIQUE
    Serial,
    Decimal,
    Float,
    Double,
    Bit,
    Date,
    Time,
    DateTime,
    Timestamp,
    Year,
    Char,
    VarChar,
    TinyText,
    Text,
    MediumText,
    LongText,
    Binary,
    VarBinary,
    TinyBlob,
    Blob,
    MediumBlob,
    LongBlob,
    Enum,
    Set,
    Json,
    Vector,
    Geometry(GeometryKind),
    /// `CAST(… AS SIGNED)`
    Signed,
    /// `CAST(… AS UNSIGNED)`
    Unsigned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GeometryKind {
    Geometry,
    Point,
    LineString,
    Polygon,
    MultiPoint,
    MultiLineString,
    MultiPolygon,
    GeometryCollection,
}

/// Options of CREATE and ALTER DATABASE.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatabaseOptions {
    pub charset: Option<String>,
    pub collate: Option<String>,
    pub encryption: Option<String>,
    pub read_only: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateDatabase {
    pub if_not_exists: bool,
    pub name: Ident,
    pub options: DatabaseOptions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterDatabase {
    /// Nothing: the current database.
    pub name: Option<Ident>,
    pub options: DatabaseOptions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropDatabase {
    pub if_exists: bool,
    pub name: Ident,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateTable {
    pub temporary: bool,
    pub if_not_exists: bool,
    pub name: ObjectName,
    pub columns: Vec<ColumnDef>,
    pub constraints: Vec<TableConstraint>,
    pub options: Vec<TableOption>,
    /// The text of `PARTITION BY …`.
    pub partition: Option<String>,
    pub like: Option<ObjectName>,
    pub select: Option<CreateSelect>,
}

/// `[IGNORE | REPLACE] [AS] query`
#[derive(Debug, Clone, PartialEq)]
pub struct CreateSelect {
    pub ignore: bool,
    pub replace: bool,
    pub query: Box<Query>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDef {
    pub name: Ident,
    pub ty: DataType,
    pub options: Vec<ColumnOption>,
}

/// Attributes of a column in the order written.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnOption {
    Null,
    NotNull,
    /// `DEFAULT value`; `text` is the source.
    Default {
        expr: Expr,
        text: String,
        parenthesized: bool,
    },
    AutoIncrement,
    PrimaryKey,
    Unique,
    /// `KEY` alone, which means PRIMARY KEY.
    Key,
    Comment(String),
    Collate(String),
    /// `ON UPDATE CURRENT_TIMESTAMP[(n)]`
    OnUpdate(Expr),
    Generated {
        expr: Box<Expr>,
        text: String,
        stored: bool,
    },
    References(Reference),
    Check {
        name: Option<Ident>,
        expr: Box<Expr>,
        text: String,
        enforced: bool,
    },
    Invisible,
    Visible,
    ColumnFormat(String),
    Storage(String),
    EngineAttribute(String),
    Srid(u64),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    pub table: ObjectName,
    pub columns: Vec<IndexColumn>,
    pub match_: Option<String>,
    pub on_delete: Option<ReferenceAction>,
    pub on_update: Option<ReferenceAction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceAction {
    Restrict,
    Cascade,
    SetNull,
    NoAction,
    SetDefault,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TableConstraint {
    Index(IndexDef),
    ForeignKey { name: Option<Ident>, index: Option<Ident>, columns: Vec<IndexColumn>, reference: Reference },
    Check { name: Option<Ident>, expr: Expr, text: String, enforced: bool },
}

/// An index in CREATE TABLE, ALTER TABLE or CREATE INDEX.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexDef {
    pub kind: IndexKind,
    /// Nothing: MySQL names it after its first column. For PRIMARY KEY ignored. A `CONSTRAINT name` counts too.
    pub name: Option<Ident>,
    pub columns: Vec<IndexColumn>,
    pub options: IndexOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexKind {
    Primary,
    Unique,
    Plain,
    Fulltext,
    Spatial,
}

#[derive(Debug, Clone, PartialEq)]
pub struct IndexColumn {
    pub part: IndexPart,
    pub desc: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum IndexPart {
    /// `name[(prefix length)]`
    Column { name: Ident, length: Option<u64> },
    /// `(expression)`
    Expr { expr: Box<Expr>, text: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IndexOptions {
    /// `BTREE` or `HASH`, in upper case.
    pub using: Option<String>,
    pub comment: Option<String>,
    pub invisible: Option<bool>,
    pub key_block_size: Option<u64>,
    pub parser: Option<Ident>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableOption {
    Engine(String),
    AutoIncrement(u64),
    Charset(String),
    Collate(String),
    Comment(String),
    RowFormat(String),
    /// Options that MySQL accepts and that change nothing here: name in upper case and value as written.
    Other {
        name: String,
        value: String,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct AlterTable {
    pub table: ObjectName,
    pub actions: Vec<AlterAction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlterAlgorithm {
    Default,
    Instant,
    Inplace,
    Copy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnPosition {
    First,
    After(Ident),
}

#[derive(Debug, Clone, PartialEq)]
pub enum AlterAction {
    AddColumn {
        column: ColumnDef,
        position: Option<ColumnPosition>,
    },
    AddConstraint(TableConstraint),
    DropColumn(Ident),
    DropIndex(Ident),
    DropPrimaryKey,
    DropForeignKey(Ident),
    DropCheck(Ident),
    /// `DROP CONSTRAINT name`, whatever it names.
    DropConstraint(Ident),
    AlterCheck {
        name: Ident,
        enforced: bool,
    },
    ModifyColumn {
        column: ColumnDef,
        position: Option<ColumnPosition>,
    },
    ChangeColumn {
        old: Ident,
        column: ColumnDef,
        position: Option<ColumnPosition>,
    },
    RenameColumn {
        old: Ident,
        new: Ident,
    },
    RenameIndex {
        old: Ident,
        new: Ident,
    },
    RenameTable(ObjectName),
    SetDefault {
        column: Ident,
        expr: Expr,
        text: String,
        parenthesized: bool,
    },
    DropDefault(Ident),
    ColumnVisibility {
        column: Ident,
        visible: bool,
    },
    IndexVisibility {
        index: Ident,
        visible: bool,
    },
    ConvertCharset {
        charset: String,
        collate: Option<String>,
    },
    Option(TableOption),
    OrderBy(Vec<ColumnName>),
    /// `DISABLE KEYS` / `ENABLE KEYS`, which change nothing here.
    Keys {
        enable: bool,
    },
    Force,
    Algorithm(AlterAlgorithm),
    Lock(String),
    Validation(bool),
    /// A partition operation, with its source text.
    Partition(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropTable {
    pub temporary: bool,
    pub if_exists: bool,
    pub names: Vec<ObjectName>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateIndex {
    pub table: ObjectName,
    pub index: IndexDef,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropIndex {
    pub table: ObjectName,
    pub name: Ident,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateView {
    pub or_replace: bool,
    pub name: ObjectName,
    pub columns: Vec<Ident>,
    pub query: Query,
    /// The query's source text.
    pub text: String,
}
