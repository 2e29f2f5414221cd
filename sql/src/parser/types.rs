//! Data types.

use crate::error::Result;

use super::ast::{DataType, GeometryKind, TypeName};
use super::cursor::Parser;
use super::lexer::Tok;

/// Character sets that may stand as an introducer.
const CHARSETS: &[&str] = &[
    "armscii8", "ascii", "big5", "binary", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852", "cp866",
    "cp932", "dec8", "eucjpms", "euckr", "gb18030", "gb2312", "gbk", "geostd8", "greek", "hebrew", "hp8",
    "keybcs2", "koi8r", "koi8u", "latin1", "latin2", "latin5", "latin7", "macce", "macroman", "sjis", "swe7",
    "tis620", "ucs2", "ujis", "utf16", "utf16le", "utf32", "utf8", "utf8mb3", "utf8mb4",
];

/// Whether MySQL has a character set of this name, given in lower case.
pub fn is_charset(name: &str) -> bool {
    CHARSETS.contains(&name)
}

/// What may follow a type's name in parentheses.
#[derive(Clone, Copy, PartialEq)]
enum Args {
    None,
    /// `[(n)]`
    Length,
    /// `(n)`
    Required,
    /// `[(p[, s])]`
    Precision,
    /// `[(m, d)]`
    Both,
}

impl Parser<'_> {
    /// A data type with its attributes (UNSIGNED, CHARACTER SET …).
    pub fn data_type(&mut self) -> Result<DataType> {
        let at = self.tok.start;
        let word = self.upper_word()?;
        use TypeName as T;
        let (name, args) = match word.as_str() {
            "TINYINT" | "INT1" => (T::TinyInt, Args::Length),
            "SMALLINT" | "INT2" => (T::SmallInt, Args::Length),
            "MEDIUMINT" | "INT3" | "MIDDLEINT" => (T::MediumInt, Args::Length),
            "INT" | "INTEGER" | "INT4" => (T::Int, Args::Length),
            "BIGINT" | "INT8" => (T::BigInt, Args::Length),
            "BOOL" | "BOOLEAN" => (T::Bool, Args::None),
            "SERIAL" => (T::Serial, Args::None),
            "DECIMAL" | "DEC" | "NUMERIC" | "FIXED" => (T::Decimal, Args::Precision),
            "FLOAT" | "FLOAT4" => (T::Float, Args::Precision),
            "DOUBLE" | "REAL" | "FLOAT8" => {
                self.eat_kw("PRECISION");
                (T::Double, Args::Both)
            }
            "BIT" => (T::Bit, Args::Length),
            "DATE" => (T::Date, Args::None),
            "TIME" => (T::Time, Args::Length),
            "DATETIME" => (T::DateTime, Args::Length),
            "TIMESTAMP" => (T::Timestamp, Args::Length),
            "YEAR" => (T::Year, Args::Length),
            "CHAR" | "CHARACTER" | "NCHAR" => return self.char_type(word == "NCHAR"),
            "NATIONAL" => return self.national_type(),
            "VARCHAR" | "VARCHARACTER" => (T::VarChar, Args::Required),
            "NVARCHAR" => return self.national_varchar(),
            "TINYTEXT" => (T::TinyText, Args::None),
            "TEXT" => (T::Text, Args::Length),
            "MEDIUMTEXT" => (T::MediumText, Args::None),
            "LONGTEXT" => (T::LongText, Args::None),
            "LONG" => return self.long_type(),
            "BINARY" => (T::Binary, Args::Length),
            "VARBINARY" => (T::VarBinary, Args::Required),
            "TINYBLOB" => (T::TinyBlob, Args::None),
            "BLOB" => (T::Blob, Args::Length),
            "MEDIUMBLOB" => (T::MediumBlob, Args::None),
            "LONGBLOB" => (T::LongBlob, Args::None),
            "ENUM" => return self.member_type(T::Enum),
            "SET" => return self.member_type(T::Set),
            "JSON" => (T::Json, Args::None),
            "VECTOR" => (T::Vector, Args::Length),
            _ => match geometry(&word) {
                Some(kind) => (T::Geometry(kind), Args::None),
                None => return Err(self.error_at(at)),
            },
        };
        let mut ty = DataType::plain(name);
        self.type_args(&mut ty, args)?;
        self.type_attributes(&mut ty)?;
        Ok(ty)
    }

    fn type_args(&mut self, ty: &mut DataType, args: Args) -> Result<()> {
        if args == Args::None || (args != Args::Required && !self.is(Tok::LParen)) {
            return Ok(());
        }
        self.expect(Tok::LParen)?;
        ty.length = Some(self.unsigned()?);
        if args == Args::Both && !self.is(Tok::Comma) {
            return Err(self.error());
        }
        if matches!(args, Args::Precision | Args::Both) && self.eat(Tok::Comma) {
            ty.decimals = Some(self.unsigned()?);
        }
        self.expect(Tok::RParen)?;
        Ok(())
    }

    fn char_type(&mut self, national: bool) -> Result<DataType> {
        let varying = self.eat_kw("VARYING") || (national && self.eat_kw("VARCHAR"));
        let name = if varying { TypeName::VarChar } else { TypeName::Char };
        let mut ty = DataType::plain(name);
        self.type_args(&mut ty, if varying { Args::Required } else { Args::Length })?;
        if national {
            ty.charset = Some("utf8mb3".into());
        }
        self.type_attributes(&mut ty)?;
        Ok(ty)
    }

    fn national_type(&mut self) -> Result<DataType> {
        match self.eat_any(&["CHAR", "CHARACTER", "VARCHAR", "VARCHARACTER"]) {
            Some("CHAR" | "CHARACTER") => self.char_type(true),
            Some(_) => self.national_varchar(),
            None => Err(self.error()),
        }
    }

    fn national_varchar(&mut self) -> Result<DataType> {
        let mut ty = DataType::plain(TypeName::VarChar);
        self.type_args(&mut ty, Args::Required)?;
        ty.charset = Some("utf8mb3".into());
        self.type_attributes(&mut ty)?;
        Ok(ty)
    }

    /// `LONG [VARCHAR | VARBINARY | CHAR VARYING]`
    fn long_type(&mut self) -> Result<DataType> {
        if self.eat_kw("VARBINARY") {
            return Ok(DataType::plain(TypeName::MediumBlob));
        }
        let _ = self.eat_kw("VARCHAR") || self.eat_kws(&["CHAR", "VARYING"]);
        let mut ty = DataType::plain(TypeName::MediumText);
        self.type_attributes(&mut ty)?;
        Ok(ty)
    }

    fn member_type(&mut self, name: TypeName) -> Result<DataType> {
        let mut ty = DataType::plain(name);
        ty.elems = self.paren_list(Self::string_bytes)?;
        self.type_attributes(&mut ty)?;
        Ok(ty)
    }

    fn type_attributes(&mut self, ty: &mut DataType) -> Result<()> {
        use TypeName as T;
        let is_number = matches!(
            ty.name,
            T::TinyInt
                | T::SmallInt
                | T::MediumInt
                | T::Int
                | T::BigInt
                | T::Decimal
                | T::Float
                | T::Double
                | T::Year
        );
        let is_text = matches!(
            ty.name,
            T::Char | T::VarChar | T::TinyText | T::Text | T::MediumText | T::LongText | T::Enum | T::Set
        );
        while self.is(Tok::Word) {
            if is_number {
                match self.eat_any(&["UNSIGNED", "SIGNED", "ZEROFILL"]) {
                    Some("UNSIGNED") => ty.unsigned = true,
                    Some("ZEROFILL") => (ty.zerofill, ty.unsigned) = (true, true),
                    Some(_) => {}
                    None => break,
                }
            } else if is_text {
                if !self.text_attribute(ty)? {
                    break;
                }
            } else {
                break;
            }
        }
        Ok(())
    }

    /// One of `CHARACTER SET c`, `BINARY`, `ASCII`, `UNICODE`, `BYTE`, `COLLATE c`.
    fn text_attribute(&mut self, ty: &mut DataType) -> Result<bool> {
        if self.eat_charset_keyword() {
            ty.charset = Some(self.charset_name()?);
        } else if self.eat_kw("BINARY") {
            ty.binary = true;
        } else if self.eat_kw("ASCII") {
            ty.charset = Some("latin1".into());
        } else if self.eat_kw("UNICODE") {
            ty.charset = Some("ucs2".into());
        } else if self.eat_kw("BYTE") {
            ty.charset = Some("binary".into());
        } else if self.eat_kw("COLLATE") {
            ty.collate = Some(self.charset_name()?);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// `CHARACTER SET`, `CHAR SET` or `CHARSET`.
    pub fn eat_charset_keyword(&mut self) -> bool {
        self.eat_kw("CHARSET") || self.eat_kws(&["CHARACTER", "SET"]) || self.eat_kws(&["CHAR", "SET"])
    }
}

fn geometry(word: &str) -> Option<GeometryKind> {
    Some(match word {
        "GEOMETRY" => GeometryKind::Geometry,
        "POINT" => GeometryKind::Point,
        "LINESTRING" => GeometryKind::LineString,
        "POLYGON" => GeometryKind::Polygon,
        "MULTIPOINT" => GeometryKind::MultiPoint,
        "MULTILINESTRING" => GeometryKind::MultiLineString,
        "MULTIPOLYGON" => GeometryKind::MultiPolygon,
        "GEOMETRYCOLLECTION" | "GEOMCOLLECTION" => GeometryKind::GeometryCollection,
        _ => return None,
    })
}
