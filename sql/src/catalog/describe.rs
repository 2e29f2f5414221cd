//! Tables and columns in the words of SHOW and information_schema.

use rutile_expr::types::{Collation, FieldType, MysqlType};

use super::model::{ColumnDefault, ColumnInfo, IndexInfo, TableInfo};

/// What a column's key is called: PRI, UNI, MUL or nothing.
pub fn column_key(table: &TableInfo, offset: usize) -> &'static str {
    let public = || table.indexes.iter().filter(|index| index.state.is_public());
    let promoted = public().find(|index| {
        index.unique
            && index
                .columns
                .iter()
                .all(|part| table.columns[part.offset].ty.not_null && part.prefix.is_none())
    });
    let primary = table.primary().filter(|index| index.state.is_public()).or(promoted);
    if primary.is_some_and(|index| index.columns.iter().any(|part| part.offset == offset)) {
        return "PRI";
    }
    let leads =
        |index: &&std::sync::Arc<IndexInfo>| index.columns.first().is_some_and(|part| part.offset == offset);
    if public().filter(leads).any(|index| index.unique && index.columns.len() == 1) {
        return "UNI";
    }
    if public().any(|index| leads(&index)) { "MUL" } else { "" }
}

fn now_text(ty: &FieldType) -> String {
    if ty.decimals > 0 {
        format!("CURRENT_TIMESTAMP({})", ty.decimals)
    } else {
        "CURRENT_TIMESTAMP".to_string()
    }
}

fn bits_text(bytes: &[u8]) -> String {
    let value = bytes.iter().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
    format!("b'{value:b}'")
}

/// The default as SHOW COLUMNS prints it.
pub fn default_text(column: &ColumnInfo) -> Option<String> {
    match &column.default {
        ColumnDefault::None | ColumnDefault::Null => None,
        ColumnDefault::Value(bytes) if column.ty.tp == MysqlType::Bit => Some(bits_text(bytes)),
        ColumnDefault::Value(bytes) if column.ty.is_binary_string() && !bytes.is_empty() => {
            Some(format!("0x{}", hex::encode_upper(bytes)))
        }
        ColumnDefault::Value(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        ColumnDefault::CurrentTimestamp => Some(now_text(&column.ty)),
        ColumnDefault::Expr(text) => Some(text.clone()),
    }
}

/// The column `Extra`.
pub fn extra(column: &ColumnInfo) -> String {
    let mut words = Vec::new();
    if column.auto_increment {
        words.push("auto_increment".to_string());
    }
    if matches!(column.default, ColumnDefault::CurrentTimestamp | ColumnDefault::Expr(_)) {
        words.push("DEFAULT_GENERATED".to_string());
    }
    if column.on_update_now {
        words.push(format!("on update {}", now_text(&column.ty)));
    }
    match &column.generated {
        Some(generated) if generated.stored => words.push("STORED GENERATED".to_string()),
        Some(_) => words.push("VIRTUAL GENERATED".to_string()),
        None => {}
    }
    if column.invisible {
        words.push("INVISIBLE".to_string());
    }
    words.join(" ")
}

/// The bare name of a type: `varchar`, `int`.
pub fn data_type(ty: &FieldType) -> String {
    let full = ty.sql_name();
    full.split(['(', ' ']).next().unwrap_or_default().to_string()
}

/// Characters and bytes a string column holds.
pub fn string_lengths(ty: &FieldType) -> Option<(u64, u64)> {
    let width = u64::from(ty.collation.charset().char_bytes_max());
    match ty.tp {
        MysqlType::Char | MysqlType::Varchar => Some((u64::from(ty.flen), u64::from(ty.flen) * width)),
        MysqlType::TinyBlob => Some((255, 255)),
        MysqlType::Blob => Some((65_535, 65_535)),
        MysqlType::MediumBlob => Some((16_777_215, 16_777_215)),
        MysqlType::LongBlob => Some((u64::from(u32::MAX), u64::from(u32::MAX))),
        MysqlType::Enum | MysqlType::Set => {
            let lengths = ty.elems.iter().flat_map(|elems| elems.iter()).map(|e| e.chars().count() as u64);
            let chars = if ty.tp == MysqlType::Enum {
                lengths.max().unwrap_or(0)
            } else {
                let (sum, count) = lengths.fold((0, 0u64), |(sum, count), len| (sum + len, count + 1));
                sum + count.saturating_sub(1)
            };
            Some((chars, chars * width))
        }
        _ => None,
    }
}

/// Precision and scale of a numeric column.
pub fn numeric_precision(ty: &FieldType) -> Option<(u64, Option<u64>)> {
    use MysqlType as T;
    Some(match ty.tp {
        T::Tiny => (3, Some(0)),
        T::Short => (5, Some(0)),
        T::Int24 => (7 + u64::from(ty.unsigned), Some(0)),
        T::Long => (10, Some(0)),
        T::LongLong => (19 + u64::from(ty.unsigned), Some(0)),
        T::Float => (12, None),
        T::Double => (22, None),
        T::Decimal => (u64::from(ty.flen), Some(u64::from(ty.decimals))),
        T::Bit => (u64::from(ty.flen), None),
        _ => return None,
    })
}

/// Digits of the seconds' fraction of a temporal column.
pub fn datetime_precision(ty: &FieldType) -> Option<u64> {
    use MysqlType as T;
    matches!(ty.tp, T::DateTime | T::Timestamp | T::Time).then(|| u64::from(ty.decimals))
}

/// The indexes in the order in which they are shown: the primary key, unique ones, the rest.
pub fn shown_indexes(table: &TableInfo) -> Vec<&IndexInfo> {
    let mut indexes: Vec<&IndexInfo> =
        table.indexes.iter().filter(|index| index.state.is_public()).map(AsRef::as_ref).collect();
    indexes.sort_by_key(|index| (!index.primary, !index.unique));
    indexes
}

/// A name in backquotes.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n"))
}

fn default_clause(column: &ColumnInfo) -> String {
    let blob = column.ty.is_blob() || column.ty.tp == MysqlType::Json;
    match &column.default {
        ColumnDefault::None => String::new(),
        ColumnDefault::Null if column.ty.not_null || blob || column.generated.is_some() => String::new(),
        ColumnDefault::Null => " DEFAULT NULL".to_string(),
        ColumnDefault::Value(bytes) if column.ty.tp == MysqlType::Bit => {
            format!(" DEFAULT {}", bits_text(bytes))
        }
        ColumnDefault::Value(bytes) => format!(" DEFAULT {}", literal(&String::from_utf8_lossy(bytes))),
        ColumnDefault::CurrentTimestamp => format!(" DEFAULT {}", now_text(&column.ty)),
        ColumnDefault::Expr(text) => format!(" DEFAULT ({text})"),
    }
}

fn column_line(table: &TableInfo, column: &ColumnInfo) -> String {
    let ty = &column.ty;
    let mut line = format!("  {} {}", quoted(&column.name), ty.sql_name());
    if ty.has_charset() && ty.collation != table.collation {
        line += &format!(" CHARACTER SET {} COLLATE {}", ty.collation.charset().name(), ty.collation.name());
    }
    if let Some(generated) = &column.generated {
        let kind = if generated.stored { "STORED" } else { "VIRTUAL" };
        line += &format!(" GENERATED ALWAYS AS ({}) {kind}", generated.expr);
    }
    if ty.not_null {
        line += " NOT NULL";
    } else if ty.tp == MysqlType::Timestamp {
        line += " NULL";
    }
    line += &default_clause(column);
    if column.on_update_now {
        line += &format!(" ON UPDATE {}", now_text(ty));
    }
    if column.auto_increment {
        line += " AUTO_INCREMENT";
    }
    if column.invisible {
        line += " /*!80023 INVISIBLE */";
    }
    if !column.comment.is_empty() {
        line += &format!(" COMMENT {}", literal(&column.comment));
    }
    line
}

fn index_line(table: &TableInfo, index: &IndexInfo) -> String {
    let parts: Vec<String> = index
        .columns
        .iter()
        .map(|part| {
            let name = quoted(&table.columns[part.offset].name);
            let prefix = part.prefix.map(|len| format!("({len})")).unwrap_or_default();
            format!("{name}{prefix}{}", if part.desc { " DESC" } else { "" })
        })
        .collect();
    let head = match (index.primary, index.unique) {
        (true, _) => "PRIMARY KEY".to_string(),
        (_, true) => format!("UNIQUE KEY {}", quoted(&index.name)),
        _ => format!("KEY {}", quoted(&index.name)),
    };
    let mut line = format!("  {head} ({})", parts.join(","));
    if let Some(using) = &index.using {
        line += &format!(" USING {using}");
    }
    if !index.comment.is_empty() {
        line += &format!(" COMMENT {}", literal(&index.comment));
    }
    if index.invisible {
        line += " /*!80000 INVISIBLE */";
    }
    line
}

/// The statement that SHOW CREATE TABLE prints; `next_auto_increment` is left out when it is below 2.
pub fn create_table(table: &TableInfo, next_auto_increment: u64) -> String {
    let mut lines: Vec<String> =
        table.public_columns().map(|(_, column)| column_line(table, column)).collect();
    lines.extend(shown_indexes(table).into_iter().map(|index| index_line(table, index)));
    for key in &table.foreign_keys {
        let names = |names: &[String]| names.iter().map(|n| quoted(n)).collect::<Vec<_>>().join(",");
        let mut line = format!(
            "  CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({})",
            quoted(&key.name),
            names(&key.columns),
            quoted(&key.ref_table),
            names(&key.ref_columns)
        );
        for (event, action) in [("DELETE", &key.on_delete), ("UPDATE", &key.on_update)] {
            if let Some(action) = action {
                line += &format!(" ON {event} {action}");
            }
        }
        lines.push(line);
    }
    for check in &table.checks {
        let enforced = if check.enforced { "" } else { " /*!80016 NOT ENFORCED */" };
        lines.push(format!("  CONSTRAINT {} CHECK ({}){enforced}", quoted(&check.name), check.expr));
    }
    let mut text = format!("CREATE TABLE {} (\n{}\n) ENGINE=InnoDB", quoted(&table.name), lines.join(",\n"));
    if next_auto_increment > 1 && table.auto_column().is_some() {
        text += &format!(" AUTO_INCREMENT={next_auto_increment}");
    }
    text += &format!(" DEFAULT CHARSET={}", table.collation.charset().name());
    if !table.collation.is_default() || table.collation == Collation::DEFAULT {
        text += &format!(" COLLATE={}", table.collation.name());
    }
    for (name, value) in &table.options {
        text += &format!(" {name}={value}");
    }
    if !table.comment.is_empty() {
        text += &format!(" COMMENT={}", literal(&table.comment));
    }
    text
}
