//! What a column accepts: conversion to its type, NOT NULL, defaults; strict, not strict, and IGNORE.
//!
//! Strictness lives in the evaluation context: [`dml_context`] makes the one under which a statement's values are judged.

use std::sync::Arc;

use rutile_expr::types::store::{self, Target};
use rutile_expr::types::{Datum, FieldType, MysqlType, Time};
use rutile_expr::{EvalContext, OnBadValue};

use crate::catalog::model::{ColumnDefault, ColumnInfo, TableInfo};
use crate::{Error, Result};

/// The context under which an INSERT, UPDATE or DELETE evaluates and stores: bad values fail in strict mode, and are
/// bent with a warning otherwise or under IGNORE.
pub fn dml_context(eval: &Arc<EvalContext>, ignore: bool) -> Arc<EvalContext> {
    let wanted = if eval.sql_mode.is_strict() && !ignore { OnBadValue::Fail } else { OnBadValue::Warn };
    if eval.on_bad_value == wanted {
        return eval.clone();
    }
    let mut context = eval.for_folding();
    context.on_bad_value = wanted;
    context.params.clone_from(&eval.params);
    context.warnings = eval.warnings.clone();
    Arc::new(context)
}

/// Where a value goes: the column, and the row of the statement (from 1) that messages name.
#[derive(Clone, Copy)]
pub struct Slot<'a> {
    /// The column.
    pub column: &'a ColumnInfo,
    /// The row.
    pub row: usize,
}

impl<'a> Slot<'a> {
    fn target(&self) -> Target<'a> {
        Target { column: &self.column.name, row: self.row as u64, field_type: &self.column.ty }
    }
}

/// Converts a value for its column.
pub fn convert(eval: &EvalContext, value: Datum, from: &FieldType, slot: Slot<'_>) -> Result<Datum> {
    if is_exact(&value, from, &slot.column.ty) {
        return Ok(value);
    }
    Ok(store::assign(eval, value, from, &slot.target())?)
}

/// Whether the value needs no conversion: a 64-bit integer of the same sign.
fn is_exact(value: &Datum, from: &FieldType, to: &FieldType) -> bool {
    match value {
        Datum::Null => true,
        Datum::Int(_) => to.tp == MysqlType::LongLong && !to.unsigned && from.tp == MysqlType::LongLong,
        _ => false,
    }
}

/// Applies NOT NULL. `single`: the statement inserts one row, whose NULL is an error in any mode but under IGNORE;
/// else, where bad values only warn, NULL becomes the type's implicit default.
pub fn check_null(
    eval: &EvalContext,
    value: Datum,
    slot: Slot<'_>,
    single: bool,
    ignore: bool,
) -> Result<Datum> {
    if !value.is_null() || !slot.column.ty.not_null {
        return Ok(value);
    }
    let error = rutile_expr::Error::BadNull { column: slot.column.name.clone() };
    if eval.on_bad_value == OnBadValue::Fail || (single && !ignore) {
        return Err(error.into());
    }
    eval.warn(&error);
    Ok(store::implicit_default(&slot.column.ty))
}

/// The value of a column that a statement does not name, or names as DEFAULT.
pub fn default_value(eval: &EvalContext, column: &ColumnInfo) -> Result<Datum> {
    match &column.default {
        ColumnDefault::Null => Ok(Datum::Null),
        ColumnDefault::Value(bytes) => constant(eval, bytes, column),
        ColumnDefault::CurrentTimestamp => now(eval, &column.ty),
        ColumnDefault::Expr(_) => Err(Error::not_supported("DEFAULT (expression)")),
        ColumnDefault::None => missing(eval, column),
    }
}

/// What rows written before the column existed have in it.
pub fn origin_default(eval: &EvalContext, column: &ColumnInfo) -> Result<Datum> {
    match &column.origin_default {
        ColumnDefault::Value(bytes) => constant(eval, bytes, column),
        _ => Ok(Datum::Null),
    }
}

/// No default: error 1364 in strict mode, else the type's implicit one.
fn missing(eval: &EvalContext, column: &ColumnInfo) -> Result<Datum> {
    if column.ty.tp == MysqlType::Enum {
        // The first member serves as the default of a NOT NULL ENUM.
        return Ok(store::implicit_default(&column.ty));
    }
    let error = Error::NoDefaultForField { column: column.name.clone() };
    if eval.on_bad_value == OnBadValue::Fail {
        return Err(error);
    }
    eval.warnings.push(rutile_expr::context::Level::Warning, error.code(), error.to_string());
    Ok(store::implicit_default(&column.ty))
}

/// A constant as the catalog keeps it, converted to the column's type.
fn constant(eval: &EvalContext, bytes: &[u8], column: &ColumnInfo) -> Result<Datum> {
    let (value, from) = match std::str::from_utf8(bytes) {
        Ok(text) if column.ty.tp != MysqlType::Bit && !column.ty.is_binary_string() => {
            (Datum::from(text), FieldType::varchar(text.len() as u32, eval.connection_collation))
        }
        _ => {
            let ty = FieldType::varchar(bytes.len() as u32, rutile_expr::Collation::Binary);
            (Datum::Bytes(bytes.to_vec()), ty)
        }
    };
    let target = Target { column: &column.name, row: 1, field_type: &column.ty };
    Ok(store::assign(eval, value, &from, &target)?)
}

/// `CURRENT_TIMESTAMP` with the column's fractional digits, in the session's zone.
pub fn now(eval: &EvalContext, ty: &FieldType) -> Result<Datum> {
    let now = eval.time_zone.from_unix_micros(eval.now_micros);
    let now = now.ok_or_else(|| Error::internal("the clock is out of range"))?;
    Ok(Datum::Time(now.truncate(ty.fsp())))
}

/// As stored: a TIMESTAMP in UTC.
pub fn to_storage(eval: &EvalContext, value: &Datum, ty: &FieldType) -> Datum {
    match value {
        Datum::Time(time) if ty.tp == MysqlType::Timestamp && *time != Time::ZERO => {
            Datum::Time(eval.time_zone.local_to_utc(*time))
        }
        other => other.clone(),
    }
}

/// As the session sees it: a stored TIMESTAMP in the session's zone.
pub fn from_storage(eval: &EvalContext, value: Datum, ty: &FieldType) -> Datum {
    match value {
        Datum::Time(time) if ty.tp == MysqlType::Timestamp && time != Time::ZERO => {
            Datum::Time(eval.time_zone.utc_to_local(time))
        }
        other => other,
    }
}

/// Refuses tables whose rules this version cannot keep.
pub fn check_supported(table: &TableInfo) -> Result<()> {
    if table.columns.iter().any(|c| c.generated.is_some()) {
        return Err(Error::not_supported("writing to a table with generated columns"));
    }
    if table.checks.iter().any(|c| c.enforced) {
        return Err(Error::not_supported("writing to a table with enforced CHECK constraints"));
    }
    Ok(())
}
