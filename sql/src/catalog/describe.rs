//! Columns in MySQL's words: for SHOW COLUMNS, SHOW CREATE TABLE and information_schema.

use rutile_expr::types::field_type::NOT_FIXED_DECIMALS;
use rutile_expr::types::{Collation, FieldType, MysqlType};

use super::model::{ColumnDefault, ColumnInfo, TableInfo};

/// The bare type name: `int`, `varchar`.
pub fn data_type(ty: &FieldType) -> &'static str {
    let binary = ty.collation == Collation::Binary;
    match ty.tp {
        MysqlType::Null => "null",
        MysqlType::Tiny => "tinyint",
        MysqlType::Short => "smallint",
        MysqlType::Int24 => "mediumint",
        MysqlType::Long => "int",
        MysqlType::LongLong => "bigint",
        MysqlType::Float => "float",
        MysqlType::Double => "double",
        MysqlType::Decimal => "decimal",
        MysqlType::Year => "year",
        MysqlType::Bit => "bit",
        MysqlType::Date => "date",
        MysqlType::DateTime => "datetime",
        MysqlType::Timestamp => "timestamp",
        MysqlType::Time => "time",
        MysqlType::Char if binary => "binary",
        MysqlType::Char => "char",
        MysqlType::Varchar if binary => "varbinary",
        MysqlType::Varchar => "varchar",
        MysqlType::TinyBlob if binary => "tinyblob",
        MysqlType::TinyBlob => "tinytext",
        MysqlType::Blob if binary => "blob",
        MysqlType::Blob => "text",
        MysqlType::MediumBlob if binary => "mediumblob",
        MysqlType::MediumBlob => "mediumtext",
        MysqlType::LongBlob if binary => "longblob",
        MysqlType::LongBlob => "longtext",
        MysqlType::Enum => "enum",
        MysqlType::Set => "set",
        MysqlType::Json => "json",
        MysqlType::Geometry => "geometry",
    }
}

/// The whole type: `int unsigned`, `varchar(20)`, `enum('a','b')`.
pub fn column_type(ty: &FieldType) -> String {
    let mut text = data_type(ty).to_string();
    match ty.tp {
        MysqlType::Tiny | MysqlType::Short | MysqlType::Int24 | MysqlType::Long | MysqlType::LongLong
            if (ty.zerofill || (ty.tp == MysqlType::Tiny && ty.flen == 1 && !ty.unsigned)) =>
        {
            text.push_str(&format!("({})", ty.flen));
        }
        MysqlType::Decimal => text.push_str(&format!("({},{})", ty.flen, ty.decimals)),
        MysqlType::Float | MysqlType::Double if ty.decimals != NOT_FIXED_DECIMALS => {
            text.push_str(&format!("({},{})", ty.flen, ty.decimals));
        }
        MysqlType::Bit | MysqlType::Char | MysqlType::Varchar => text.push_str(&format!("({})", ty.flen)),
        MysqlType::DateTime | MysqlType::Timestamp | MysqlType::Time if ty.decimals > 0 => {
            text.push_str(&format!("({})", ty.decimals));
        }
        MysqlType::Enum | MysqlType::Set => {
            let elems = ty.elems.as_deref().unwrap_or_default();
            let quoted: Vec<String> = elems.iter().map(|elem| quote(elem)).collect();
            text.push_str(&format!("({})", quoted.join(",")));
        }
        _ => {}
    }
    if ty.unsigned && !matches!(ty.tp, MysqlType::Year | MysqlType::Bit | MysqlType::Enum | MysqlType::Set) {
        text.push_str(" unsigned");
    }
    if ty.zerofill {
        text.push_str(" zerofill");
    }
    text
}

/// Text in single quotes, as SHOW CREATE TABLE writes it.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\0' => out.push_str("\\0"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("''"),
            other => out.push(other),
        }
    }
    out.push('\'');
    out
}

/// A name in backquotes.
pub fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `CURRENT_TIMESTAMP` with the column's digits.
fn now(column: &ColumnInfo) -> String {
    match column.ty.decimals {
        0 => "CURRENT_TIMESTAMP".into(),
        digits => format!("CURRENT_TIMESTAMP({digits})"),
    }
}

fn bits(bytes: &[u8]) -> String {
    let value = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    format!("b'{value:b}'")
}

/// The column `Default` of SHOW COLUMNS; `None` is NULL.
pub fn shown_default(column: &ColumnInfo) -> Option<String> {
    match &column.default {
        ColumnDefault::None | ColumnDefault::Null => None,
        ColumnDefault::CurrentTimestamp => Some(now(column)),
        ColumnDefault::Expr(text) => Some(text.replace('\\', "\\\\").replace('\'', "\\'")),
        ColumnDefault::Value(bytes) if column.ty.tp == MysqlType::Bit => Some(bits(bytes)),
        ColumnDefault::Value(bytes) if column.ty.is_binary_string() => {
            // MySQL stops at the first zero byte here.
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            Some(if end == 0 { String::new() } else { format!("0x{}", hex::encode_upper(&bytes[..end])) })
        }
        ColumnDefault::Value(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

/// The DEFAULT clause of SHOW CREATE TABLE, if one is written.
pub fn default_clause(column: &ColumnInfo) -> Option<String> {
    match &column.default {
        ColumnDefault::None => None,
        ColumnDefault::Null if column.ty.is_blob() || column.ty.not_null => None,
        ColumnDefault::Null => Some("DEFAULT NULL".into()),
        ColumnDefault::CurrentTimestamp => Some(format!("DEFAULT {}", now(column))),
        ColumnDefault::Expr(text) => Some(format!("DEFAULT ({text})")),
        ColumnDefault::Value(bytes) if column.ty.tp == MysqlType::Bit => {
            Some(format!("DEFAULT {}", bits(bytes)))
        }
        ColumnDefault::Value(bytes) => Some(format!("DEFAULT {}", quote(&String::from_utf8_lossy(bytes)))),
    }
}

/// `ON UPDATE …` if the column has it, in the given words.
pub fn on_update_clause(column: &ColumnInfo, words: &str) -> Option<String> {
    column.on_update_now.then(|| format!("{words} {}", now(column)))
}

/// The column `Extra`.
pub fn extra(column: &ColumnInfo) -> String {
    let mut parts = Vec::new();
    if column.auto_increment {
        parts.push("auto_increment".to_string());
    }
    if matches!(column.default, ColumnDefault::CurrentTimestamp | ColumnDefault::Expr(_)) {
        parts.push("DEFAULT_GENERATED".into());
    }
    parts.extend(on_update_clause(column, "on update"));
    if let Some(generated) = &column.generated {
        parts.push(if generated.stored { "STORED GENERATED".into() } else { "VIRTUAL GENERATED".into() });
    }
    if column.invisible {
        parts.push("INVISIBLE".into());
    }
    parts.join(" ")
}

/// The column `Key`: PRI, UNI, MUL or nothing.
pub fn key(table: &TableInfo, offset: usize) -> &'static str {
    let public = || table.indexes.iter().filter(|index| index.state.is_public());
    if public().any(|index| index.primary && index.columns.iter().any(|part| part.offset == offset)) {
        return "PRI";
    }
    // Without a primary key the first unique index without NULLs stands for it.
    if table.primary().is_none() {
        let stand_in = public().find(|index| {
            index.unique
                && index
                    .columns
                    .iter()
                    .all(|part| table.columns[part.offset].ty.not_null && part.prefix.is_none())
        });
        if stand_in.is_some_and(|index| index.columns.iter().any(|part| part.offset == offset)) {
            return "PRI";
        }
    }
    let first = |index: &&std::sync::Arc<super::model::IndexInfo>| index.columns[0].offset == offset;
    if public().filter(first).any(|index| index.unique && index.columns.len() == 1) {
        return "UNI";
    }
    if public().any(|index| first(&index)) { "MUL" } else { "" }
}

/// `CHARACTER_MAXIMUM_LENGTH` and `CHARACTER_OCTET_LENGTH`.
pub fn character_lengths(ty: &FieldType) -> (Option<i64>, Option<i64>) {
    if !ty.has_charset() || ty.tp == MysqlType::Geometry {
        return (None, None);
    }
    let width = i64::from(ty.collation.charset().char_bytes_max());
    match ty.tp {
        MysqlType::TinyBlob | MysqlType::Blob | MysqlType::MediumBlob | MysqlType::LongBlob => {
            (Some(i64::from(ty.flen)), Some(i64::from(ty.flen)))
        }
        _ => (Some(i64::from(ty.flen)), Some(i64::from(ty.flen) * width)),
    }
}

/// `NUMERIC_PRECISION` and `NUMERIC_SCALE`.
pub fn numeric_precision(ty: &FieldType) -> (Option<u64>, Option<u64>) {
    let integer = |digits| (Some(digits), Some(0));
    match ty.tp {
        MysqlType::Tiny => integer(3),
        MysqlType::Short => integer(5),
        MysqlType::Int24 => integer(if ty.unsigned { 8 } else { 7 }),
        MysqlType::Long => integer(10),
        MysqlType::LongLong => integer(if ty.unsigned { 20 } else { 19 }),
        MysqlType::Decimal => (Some(u64::from(ty.flen)), Some(u64::from(ty.decimals))),
        MysqlType::Float | MysqlType::Double => {
            let scale = (ty.decimals != NOT_FIXED_DECIMALS).then_some(u64::from(ty.decimals));
            (Some(u64::from(ty.flen)), scale)
        }
        MysqlType::Bit => (Some(u64::from(ty.flen)), None),
        _ => (None, None),
    }
}

/// `DATETIME_PRECISION`.
pub fn datetime_precision(ty: &FieldType) -> Option<u64> {
    match ty.tp {
        MysqlType::DateTime | MysqlType::Timestamp | MysqlType::Time => Some(u64::from(ty.decimals)),
        _ => None,
    }
}
