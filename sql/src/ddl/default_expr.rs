//! `DEFAULT (expression)`: what such an expression may be, and its stored text.

use rutile_expr::EvalContext;

use crate::catalog::model::{ColumnDefault, ColumnInfo, TableInfo};
use crate::parser::{self, ast};
use crate::{Error, Result};

/// The stored text of a column's expression: its canonical form, or the source where there is none.
pub fn stored(column: &str, expr: &ast::Expr, source: &str, ctx: &EvalContext) -> Result<String> {
    let variables = |part: &ast::Expr| {
        matches!(part, ast::Expr::UserVar(_) | ast::Expr::SystemVar { .. } | ast::Expr::Assign { .. })
    };
    if expr.any(&mut |part| variables(part)) {
        let message =
            format!("Default value expression of column '{column}' cannot refer user or system variables.");
        return Err(Error::Mysql { code: 3772, state: "HY000", message });
    }
    let subquery = |part: &ast::Expr| {
        use ast::Expr as E;
        matches!(part, E::Subquery(_) | E::Exists(_) | E::InSubquery { .. } | E::Quantified { .. })
    };
    if expr.any(&mut |part| subquery(part)) {
        let message =
            format!("Default value expression of column '{column}' contains a disallowed function.");
        return Err(Error::Mysql { code: 3769, state: "HY000", message });
    }
    for name in functions(expr) {
        if rutile_expr::agg::is_aggregate(&name) {
            return Err(Error::Mysql {
                code: 1111,
                state: "HY000",
                message: "Invalid use of group function".into(),
            });
        }
        if matches!(name.as_str(), "sleep" | "benchmark" | "get_lock" | "release_lock" | "load_file")
            || !rutile_expr::registry::exists(&name)
        {
            let message = format!(
                "Default value expression of column '{column}' contains a disallowed function: `{name}`."
            );
            return Err(Error::Mysql { code: 3770, state: "HY000", message });
        }
    }
    let charset = ctx.connection_collation.charset().name();
    Ok(expr.canonical(charset).unwrap_or_else(|| source.to_owned()))
}

/// Names of the functions called, in lower case.
fn functions(expr: &ast::Expr) -> Vec<String> {
    let mut found = Vec::new();
    expr.any(&mut |part| {
        if let ast::Expr::Function(function) = part {
            found.push(function.name.to_lowercase());
        }
        false
    });
    found
}

/// The columns that a column's default refers to.
fn references(column: &ColumnInfo) -> Result<Vec<String>> {
    let ColumnDefault::Expr(text) = &column.default else { return Ok(Vec::new()) };
    Ok(parser::parse_expr(text)?.column_names().into_iter().map(|name| name.name.clone()).collect())
}

/// Checks what the expressions of a table refer to: columns that exist, are computed before, and count nothing themselves.
pub fn check(table: &TableInfo) -> Result<()> {
    for (offset, column) in table.columns.iter().enumerate() {
        for name in references(column)? {
            let other = table
                .column_offset(&name)
                .ok_or_else(|| Error::bad_field(name.clone(), "default value expression"))?;
            let target = &table.columns[other];
            let computed = target.generated.is_some() || matches!(target.default, ColumnDefault::Expr(_));
            let (code, rest) = match () {
                () if target.auto_increment => (3768, "an auto-increment column."),
                () if other >= offset && computed => (
                    3767,
                    "a column defined after it if that column is a generated column or has an expression as \
                     default value.",
                ),
                () => continue,
            };
            let message =
                format!("Default value expression of column '{}' cannot refer to {rest}", column.name);
            return Err(Error::Mysql { code, state: "HY000", message });
        }
    }
    Ok(())
}

/// A column that another one's default refers to cannot be dropped or renamed.
pub fn check_unreferenced(table: &TableInfo, name: &str) -> Result<()> {
    for column in table.columns.iter().filter(|column| !column.name.eq_ignore_ascii_case(name)) {
        if references(column)?.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            let message = format!(
                "Column '{name}' of table '{}' has a default value expression dependency and cannot be dropped or renamed.",
                table.name
            );
            return Err(Error::Mysql { code: 3766, state: "HY000", message });
        }
    }
    Ok(())
}
