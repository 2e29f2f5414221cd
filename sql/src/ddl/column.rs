//! Column definitions: types, defaults and attributes.

use rutile_expr::types::store::{self, Target};
use rutile_expr::types::{Charset, Collation, Datum, Decimal, FieldType, MysqlType, format};
use rutile_expr::{EvalContext, OnBadValue};

use crate::catalog::model::{ColumnDefault, ColumnId, ColumnInfo, SchemaState};
use crate::parser::ast::{ColumnDef, ColumnOption, Expr, Function, Literal, TypeName, UnaryOp};
use crate::{Error, Result};

use super::types;

/// A column as defined, with the key attributes that belong to the table.
pub struct BuiltColumn {
    pub info: ColumnInfo,
    pub primary: bool,
    pub unique: bool,
    /// NULL was written, which a primary key does not allow.
    pub explicit_null: bool,
}

/// A session's context in which a value that does not fit is an error.
pub fn strict_context(session: &EvalContext) -> EvalContext {
    EvalContext { on_bad_value: OnBadValue::Fail, ..session.for_folding() }
}

/// Builds a column. `table` is the table's collation.
pub fn build(def: &ColumnDef, id: ColumnId, table: Collation, ctx: &EvalContext) -> Result<BuiltColumn> {
    check_name(&def.name)?;
    let collate = def.options.iter().rev().find_map(|option| match option {
        ColumnOption::Collate(name) => Some(name.as_str()),
        _ => None,
    });
    let ty = types::field_type(&def.name, &def.ty, collate, table)?;
    let mut column = BuiltColumn {
        info: ColumnInfo {
            id,
            name: def.name.clone(),
            ty,
            default: ColumnDefault::None,
            origin_default: ColumnDefault::Null,
            auto_increment: def.ty.name == TypeName::Serial,
            on_update_now: false,
            generated: None,
            comment: String::new(),
            invisible: false,
            explicit_collation: collate.is_some()
                || def.ty.charset.is_some()
                || def.ty.collate.is_some()
                || def.ty.binary,
            state: SchemaState::Public,
        },
        primary: false,
        unique: def.ty.name == TypeName::Serial,
        explicit_null: false,
    };
    for option in &def.options {
        apply_attribute(&mut column, option)?;
    }
    let info = &mut column.info;
    check_auto_increment(info)?;
    let default = def.options.iter().rev().find_map(|option| match option {
        ColumnOption::Default { expr, text, parenthesized } => Some((expr, text, *parenthesized)),
        _ => None,
    });
    info.default = match default {
        None if info.ty.not_null || column.primary => ColumnDefault::None,
        None => ColumnDefault::Null,
        Some(_) if info.auto_increment => return Err(Error::InvalidDefault { column: info.name.clone() }),
        Some((expr, text, parenthesized)) => default_of(info, expr, text, parenthesized, ctx)?,
    };
    Ok(column)
}

fn apply_attribute(column: &mut BuiltColumn, option: &ColumnOption) -> Result<()> {
    let info = &mut column.info;
    match option {
        ColumnOption::Null => {
            info.ty.not_null = false;
            column.explicit_null = true;
        }
        ColumnOption::NotNull => {
            info.ty.not_null = true;
            column.explicit_null = false;
        }
        ColumnOption::AutoIncrement => {
            info.auto_increment = true;
            info.ty.not_null = true;
        }
        ColumnOption::PrimaryKey | ColumnOption::Key => column.primary = true,
        ColumnOption::Unique => column.unique = true,
        ColumnOption::Comment(text) => {
            if text.chars().count() > 1024 {
                return Err(Error::Mysql {
                    code: 1629,
                    state: "HY000",
                    message: format!("Comment for field '{}' is too long (max = 1024)", info.name),
                });
            }
            info.comment = text.clone();
        }
        ColumnOption::OnUpdate(expr) => {
            if !now_fits(info, expr) {
                return Err(Error::InvalidOnUpdate { column: info.name.clone() });
            }
            info.on_update_now = true;
        }
        ColumnOption::Invisible => info.invisible = true,
        ColumnOption::Visible => info.invisible = false,
        ColumnOption::Generated { .. } => return Err(Error::not_supported("generated columns")),
        ColumnOption::Check { enforced: true, .. } => return Err(Error::not_supported("CHECK constraints")),
        // REFERENCES after a column is read and dropped by MySQL too; DEFAULT and COLLATE are looked at elsewhere.
        ColumnOption::Check { .. }
        | ColumnOption::References(_)
        | ColumnOption::Default { .. }
        | ColumnOption::Collate(_)
        | ColumnOption::ColumnFormat(_)
        | ColumnOption::Storage(_)
        | ColumnOption::EngineAttribute(_)
        | ColumnOption::Srid(_) => {}
    }
    Ok(())
}

fn check_auto_increment(info: &ColumnInfo) -> Result<()> {
    let allowed = match info.ty.tp {
        MysqlType::Year | MysqlType::Bit => false,
        MysqlType::Float | MysqlType::Double => true,
        _ => info.ty.is_integer(),
    };
    if info.auto_increment && !allowed {
        return Err(Error::WrongFieldSpec { column: info.name.clone() });
    }
    Ok(())
}

/// Names of columns may not end in blanks or be empty.
pub fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.ends_with(' ') || name.contains('\0') {
        return Err(Error::WrongColumnName { column: name.into() });
    }
    Ok(())
}

/// Whether an expression is `CURRENT_TIMESTAMP` with the column's own number of digits.
fn now_fits(info: &ColumnInfo, expr: &Expr) -> bool {
    if !matches!(info.ty.tp, MysqlType::DateTime | MysqlType::Timestamp) {
        return false;
    }
    let Expr::Function(call) = expr else { return false };
    let digits = match call.args.as_slice() {
        [] => 0,
        [Expr::Literal(Literal::Int(digits))] => *digits,
        _ => return false,
    };
    is_now(call) && digits == u64::from(info.ty.decimals)
}

fn is_now(call: &Function) -> bool {
    ["CURRENT_TIMESTAMP", "NOW", "LOCALTIME", "LOCALTIMESTAMP"]
        .iter()
        .any(|name| call.name.eq_ignore_ascii_case(name))
}

/// The stored form of a DEFAULT clause.
pub fn default_of(
    info: &ColumnInfo,
    expr: &Expr,
    text: &str,
    parenthesized: bool,
    ctx: &EvalContext,
) -> Result<ColumnDefault> {
    let invalid = || Error::InvalidDefault { column: info.name.clone() };
    if parenthesized {
        return Ok(ColumnDefault::Expr(super::default_expr::stored(&info.name, expr, text, ctx)?));
    }
    if let Expr::Function(call) = expr
        && is_now(call)
    {
        return if now_fits(info, expr) { Ok(ColumnDefault::CurrentTimestamp) } else { Err(invalid()) };
    }
    let (value, ty) = literal_datum(expr).ok_or_else(invalid)?;
    if value.is_null() {
        return if info.ty.not_null { Err(invalid()) } else { Ok(ColumnDefault::Null) };
    }
    if info.ty.is_blob() || matches!(info.ty.tp, MysqlType::Json | MysqlType::Geometry) {
        return Err(Error::BlobCantHaveDefault { column: info.name.clone() });
    }
    let target = Target { column: &info.name, row: 1, field_type: &info.ty };
    let stored = store::assign(&strict_context(ctx), value, &ty, &target).map_err(|_| invalid())?;
    Ok(ColumnDefault::Value(format::to_bytes(&stored, &info.ty)))
}

/// The value of a literal, signed or not.
fn literal_datum(expr: &Expr) -> Option<(Datum, FieldType)> {
    let number = |text: &str, negative: bool| {
        let decimal = Decimal::parse(text)?;
        let decimal = if negative { decimal.neg() } else { decimal };
        let ty = FieldType::decimal(decimal.precision(), decimal.scale());
        Some((Datum::Decimal(decimal), ty))
    };
    match expr {
        Expr::Unary { op: op @ (UnaryOp::Neg | UnaryOp::Plus), expr } => {
            let negative = *op == UnaryOp::Neg;
            match &**expr {
                Expr::Literal(Literal::Int(value)) => number(&value.to_string(), negative),
                Expr::Literal(Literal::Decimal(text)) => number(text, negative),
                Expr::Literal(Literal::Float(text)) => {
                    let value: f64 = text.parse().ok()?;
                    Some((Datum::Double(if negative { -value } else { value }), FieldType::double()))
                }
                _ => None,
            }
        }
        Expr::Literal(literal) => Some(match literal {
            Literal::Null => (Datum::Null, FieldType::null()),
            Literal::Bool(value) => (Datum::Int(i64::from(*value)), FieldType::bigint()),
            Literal::Int(value) => (Datum::UInt(*value), FieldType::bigint_unsigned()),
            Literal::Decimal(text) => return number(text, false),
            Literal::Float(text) => (Datum::Double(text.parse().ok()?), FieldType::double()),
            Literal::Str { value, charset } => return text_datum(value, charset.as_deref()),
            Literal::Hex { value, charset: Some(charset) }
            | Literal::Bit { value, charset: Some(charset) } => {
                return text_datum(value, Some(charset));
            }
            Literal::Hex { value, charset: None } | Literal::Bit { value, charset: None } => {
                (Datum::Bytes(value.clone()), FieldType::varchar(value.len() as u32, Collation::Binary))
            }
            Literal::Temporal { value, .. } => {
                (Datum::String(value.clone()), FieldType::varchar(value.len() as u32, Collation::DEFAULT))
            }
        }),
        _ => None,
    }
}

fn text_datum(value: &[u8], charset: Option<&str>) -> Option<(Datum, FieldType)> {
    let collation = match charset {
        None => Collation::DEFAULT,
        Some(name) => Charset::from_name(name).ok()?.default_collation(),
    };
    if collation == Collation::Binary {
        return Some((Datum::Bytes(value.to_vec()), FieldType::varchar(value.len() as u32, collation)));
    }
    match collation.charset().decode(value) {
        Some(text) => {
            let ty = FieldType::varchar(text.chars().count() as u32, collation);
            Some((Datum::String(text.into_owned()), ty))
        }
        // Bytes that are no text: what a BLOB or BINARY column may still take.
        None => {
            Some((Datum::Bytes(value.to_vec()), FieldType::varchar(value.len() as u32, Collation::Binary)))
        }
    }
}
