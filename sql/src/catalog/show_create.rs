//! SHOW CREATE TABLE and SHOW CREATE DATABASE, in MySQL's layout.

use std::fmt::Write;

use rutile_expr::types::{Charset, MysqlType};

use super::describe::{column_type, default_clause, on_update_clause, quote, quote_name};
use super::model::{ColumnInfo, DatabaseInfo, IndexInfo, TableInfo};

/// The statement that creates a table. `next_auto_id` is the next AUTO_INCREMENT value, 0 or 1 if none was taken.
pub fn table(table: &TableInfo, next_auto_id: u64) -> String {
    let mut lines: Vec<String> =
        table.public_columns().map(|(_, column)| column_line(table, column)).collect();
    lines.extend(
        table.indexes.iter().filter(|index| index.state.is_public()).map(|index| index_line(table, index)),
    );
    for check in &table.checks {
        let enforced = if check.enforced { "" } else { " /*!80016 NOT ENFORCED */" };
        lines.push(format!("  CONSTRAINT {} CHECK ({}){enforced}", quote_name(&check.name), check.expr));
    }
    let mut sql =
        format!("CREATE TABLE {} (\n{}\n) ENGINE=InnoDB", quote_name(&table.name), lines.join(",\n"));
    if table.auto_column().is_some() && next_auto_id > 1 {
        let _ = write!(sql, " AUTO_INCREMENT={next_auto_id}");
    }
    let _ = write!(sql, " DEFAULT CHARSET={}", table.collation.charset().name());
    if !table.collation.is_default() || table.collation.charset() == Charset::Utf8mb4 {
        let _ = write!(sql, " COLLATE={}", table.collation.name());
    }
    for (name, value) in &table.options {
        let _ = write!(sql, " {name}={value}");
    }
    if !table.comment.is_empty() {
        let _ = write!(sql, " COMMENT={}", quote(&table.comment));
    }
    sql
}

fn column_line(table: &TableInfo, column: &ColumnInfo) -> String {
    let ty = &column.ty;
    let mut line = format!("  {} {}", quote_name(&column.name), column_type(ty));
    if ty.has_charset() && !ty.is_binary_string() {
        let collation = ty.collation;
        let differs = collation != table.collation;
        if differs || column.explicit_collation {
            let _ = write!(line, " CHARACTER SET {}", collation.charset().name());
        }
        if differs || column.explicit_collation || !collation.is_default() {
            let _ = write!(line, " COLLATE {}", collation.name());
        }
    }
    if ty.not_null {
        line.push_str(" NOT NULL");
    } else if ty.tp == MysqlType::Timestamp {
        line.push_str(" NULL");
    }
    if let Some(default) = default_clause(column) {
        let _ = write!(line, " {default}");
    }
    if let Some(on_update) = on_update_clause(column, "ON UPDATE") {
        let _ = write!(line, " {on_update}");
    }
    if column.auto_increment {
        line.push_str(" AUTO_INCREMENT");
    }
    if !column.comment.is_empty() {
        let _ = write!(line, " COMMENT {}", quote(&column.comment));
    }
    if column.invisible {
        line.push_str(" /*!80023 INVISIBLE */");
    }
    line
}

fn index_line(table: &TableInfo, index: &IndexInfo) -> String {
    let mut line = match (index.primary, index.unique) {
        (true, _) => "  PRIMARY KEY".to_string(),
        (_, true) => format!("  UNIQUE KEY {}", quote_name(&index.name)),
        _ => format!("  KEY {}", quote_name(&index.name)),
    };
    let columns: Vec<String> = index
        .columns
        .iter()
        .map(|part| {
            let mut text = quote_name(&table.columns[part.offset].name);
            if let Some(prefix) = part.prefix {
                let _ = write!(text, "({prefix})");
            }
            if part.desc {
                text.push_str(" DESC");
            }
            text
        })
        .collect();
    let _ = write!(line, " ({})", columns.join(","));
    if let Some(using) = &index.using {
        let _ = write!(line, " USING {using}");
    }
    if !index.comment.is_empty() {
        let _ = write!(line, " COMMENT {}", quote(&index.comment));
    }
    if index.invisible {
        line.push_str(" /*!80000 INVISIBLE */");
    }
    line
}

/// The statement that creates a database.
pub fn database(info: &DatabaseInfo, if_not_exists: bool) -> String {
    let collation = info.collation;
    let collate = if collation.is_default() && collation.charset() != Charset::Utf8mb4 {
        String::new()
    } else {
        format!(" COLLATE {}", collation.name())
    };
    format!(
        "CREATE DATABASE {}{} /*!40100 DEFAULT CHARACTER SET {}{collate} */ /*!80016 DEFAULT ENCRYPTION='N' */",
        if if_not_exists { "/*!32312 IF NOT EXISTS*/ " } else { "" },
        quote_name(&info.name),
        collation.charset().name(),
    )
}
