//! Expressions, types, values and contexts as protobuf messages.

use std::sync::Arc;

use ethnum::I256;
use rutile_proto::copr;
use rutile_proto::copr::datum::Value as WireValue;
use rutile_proto::copr::node::Node;

use crate::context::{EvalContext, OnBadValue, SqlMode};
use crate::error::{Error, Result};
use crate::expr::{Call, Expr};
use crate::func::registry;
use crate::types::{Collation, Datum, Decimal, Duration, FieldType, MysqlType, Time, TimeZone};

const UNSIGNED: u32 = 1;
const NOT_NULL: u32 = 2;
const ZEROFILL: u32 = 4;

/// The deepest tree that is taken from outside.
const DEPTH_MAX: usize = 1000;

pub(super) fn malformed(what: impl std::fmt::Display) -> Error {
    Error::Internal(format!("malformed plan: {what}"))
}

/// The types in the order of their numbers on the wire; new ones come last.
const TYPES: [MysqlType; 25] = [
    MysqlType::Null,
    MysqlType::Tiny,
    MysqlType::Short,
    MysqlType::Int24,
    MysqlType::Long,
    MysqlType::LongLong,
    MysqlType::Float,
    MysqlType::Double,
    MysqlType::Decimal,
    MysqlType::Year,
    MysqlType::Bit,
    MysqlType::Date,
    MysqlType::DateTime,
    MysqlType::Timestamp,
    MysqlType::Time,
    MysqlType::Char,
    MysqlType::Varchar,
    MysqlType::TinyBlob,
    MysqlType::Blob,
    MysqlType::MediumBlob,
    MysqlType::LongBlob,
    MysqlType::Enum,
    MysqlType::Set,
    MysqlType::Json,
    MysqlType::Geometry,
];

pub fn encode_type(ty: &FieldType) -> copr::FieldType {
    let flag = |on: bool, bit: u32| if on { bit } else { 0 };
    copr::FieldType {
        tp: TYPES.iter().position(|tp| *tp == ty.tp).unwrap_or(0) as u32,
        flags: flag(ty.unsigned, UNSIGNED) | flag(ty.not_null, NOT_NULL) | flag(ty.zerofill, ZEROFILL),
        flen: ty.flen,
        decimals: u32::from(ty.decimals),
        collation: u32::from(ty.collation.id()),
        elems: ty.elems.iter().flat_map(|elems| elems.iter().cloned()).collect(),
        has_elems: ty.elems.is_some(),
    }
}

pub fn decode_type(ty: Option<copr::FieldType>) -> Result<FieldType> {
    let ty = ty.ok_or_else(|| malformed("a type is missing"))?;
    let tp = TYPES.get(ty.tp as usize).ok_or_else(|| malformed(format!("type number {}", ty.tp)))?;
    let field_type = FieldType {
        tp: *tp,
        unsigned: ty.flags & UNSIGNED != 0,
        not_null: ty.flags & NOT_NULL != 0,
        zerofill: ty.flags & ZEROFILL != 0,
        flen: ty.flen,
        decimals: u8::try_from(ty.decimals).map_err(malformed)?,
        collation: decode_collation(ty.collation)?,
        elems: ty.has_elems.then(|| ty.elems.into()),
    };
    let is_decimal = field_type.tp == MysqlType::Decimal;
    if is_decimal
        && (!(1..=76).contains(&field_type.flen) || u32::from(field_type.decimals) > field_type.flen)
    {
        return Err(malformed(format!("DECIMAL({}, {})", field_type.flen, field_type.decimals)));
    }
    Ok(field_type)
}

fn decode_collation(id: u32) -> Result<Collation> {
    let known = u16::try_from(id).ok().and_then(Collation::from_id);
    known.ok_or_else(|| malformed(format!("collation number {id}")))
}

pub fn encode_datum(value: &Datum) -> copr::Datum {
    let value = match value {
        Datum::Null => None,
        Datum::Int(v) => Some(WireValue::Int(*v)),
        Datum::UInt(v) => Some(WireValue::Uint(*v)),
        Datum::Double(v) => Some(WireValue::Double(*v)),
        Datum::Decimal(v) => Some(WireValue::Decimal(copr::Decimal {
            unscaled: v.unscaled().to_le_bytes().to_vec().into(),
            scale: u32::from(v.scale()),
        })),
        Datum::String(v) => Some(WireValue::Text(v.clone())),
        Datum::Bytes(v) => Some(WireValue::Bytes(v.clone().into())),
        Datum::Time(v) => Some(WireValue::Time(v.0)),
        Datum::Duration(v) => Some(WireValue::Duration(v.0)),
    };
    copr::Datum { value }
}

pub fn decode_datum(datum: Option<copr::Datum>) -> Result<Datum> {
    Ok(match datum.and_then(|datum| datum.value) {
        None => Datum::Null,
        Some(WireValue::Int(v)) => Datum::Int(v),
        Some(WireValue::Uint(v)) => Datum::UInt(v),
        Some(WireValue::Double(v)) => Datum::Double(v),
        Some(WireValue::Decimal(v)) => {
            let bytes = <[u8; 32]>::try_from(&v.unscaled[..]).map_err(malformed)?;
            let scale = u8::try_from(v.scale).ok().filter(|scale| *scale <= 76);
            let scale = scale.ok_or_else(|| malformed("a decimal's scale"))?;
            Datum::Decimal(Decimal::new(I256::from_le_bytes(bytes), scale))
        }
        Some(WireValue::Text(v)) => Datum::String(v),
        Some(WireValue::Bytes(v)) => Datum::Bytes(v.into()),
        Some(WireValue::Time(v)) => Datum::Time(Time(v)),
        Some(WireValue::Duration(v)) => Datum::Duration(Duration(v)),
    })
}

pub fn encode_expr(expr: &Expr) -> copr::Expr {
    let mut nodes = Vec::new();
    push_postfix(expr, &mut nodes);
    copr::Expr { nodes }
}

fn push_postfix(expr: &Expr, nodes: &mut Vec<copr::Node>) {
    expr.args().iter().for_each(|arg| push_postfix(arg, nodes));
    let node = match expr {
        Expr::Column { index, name, field_type } => Node::Column(copr::Column {
            index: *index as u32,
            name: name.to_string(),
            r#type: Some(encode_type(field_type)),
        }),
        Expr::Literal { value, field_type } => Node::Literal(copr::Literal {
            value: Some(encode_datum(value)),
            r#type: Some(encode_type(field_type)),
        }),
        Expr::Param { index, field_type } => {
            Node::Param(copr::Param { index: *index as u32, r#type: Some(encode_type(field_type)) })
        }
        Expr::Call(call) => Node::Call(copr::Call {
            function: call.func.name.to_owned(),
            args: call.args.len() as u32,
            r#type: Some(encode_type(&call.field_type)),
            collation: u32::from(call.collation.id()),
        }),
    };
    nodes.push(copr::Node { node: Some(node) });
}

/// An expression over an input whose columns have these types.
pub fn decode_expr(expr: copr::Expr, input: &[FieldType]) -> Result<Expr> {
    // Trees that wait for their call, with their depths.
    let mut stack: Vec<(Expr, usize)> = Vec::new();
    for node in expr.nodes {
        let tree = match node.node.ok_or_else(|| malformed("an unknown kind of expression"))? {
            Node::Call(call) => {
                let first = stack.len().checked_sub(call.args as usize);
                let args = stack.split_off(first.ok_or_else(|| malformed("a call lacks arguments"))?);
                let depth = 1 + args.iter().map(|(_, depth)| *depth).max().unwrap_or(0);
                if depth > DEPTH_MAX {
                    return Err(malformed("an expression is nested too deeply"));
                }
                (decode_call(call, args.into_iter().map(|(arg, _)| arg).collect())?, depth)
            }
            leaf => (decode_leaf(leaf, input)?, 1),
        };
        stack.push(tree);
    }
    match (stack.pop(), stack.is_empty()) {
        (Some((tree, _)), true) => Ok(tree),
        _ => Err(malformed("an expression that is not one tree")),
    }
}

fn decode_call(call: copr::Call, args: Vec<Expr>) -> Result<Expr> {
    let func = registry::function(&call.function);
    let func = func.ok_or_else(|| malformed(format!("unknown function {}", call.function)))?;
    let (field_type, collation) = (decode_type(call.r#type)?, decode_collation(call.collation)?);
    Ok(Expr::Call(Box::new(Call { func, args, field_type, collation })))
}

fn decode_leaf(leaf: Node, input: &[FieldType]) -> Result<Expr> {
    match leaf {
        Node::Column(column) => {
            let index = column.index as usize;
            let field_type = decode_type(column.r#type)?;
            let found = input.get(index).ok_or_else(|| malformed(format!("there is no column {index}")))?;
            if found.arrow() != field_type.arrow() {
                return Err(malformed(format!("column {index} has another type")));
            }
            Ok(Expr::Column { index, name: Arc::from(column.name), field_type })
        }
        Node::Literal(literal) => {
            let (value, field_type) = (decode_datum(literal.value)?, decode_type(literal.r#type)?);
            // The value has to be one of the type.
            crate::array::repeat(&field_type, &value, 1)?;
            Ok(Expr::Literal { value, field_type })
        }
        Node::Param(param) => {
            Ok(Expr::Param { index: param.index as usize, field_type: decode_type(param.r#type)? })
        }
        Node::Call(_) => Err(malformed("a call is no leaf")),
    }
}

/// What of a context an expression in a store may look at.
pub fn encode_context(ctx: &EvalContext) -> copr::Context {
    copr::Context {
        sql_mode: ctx.sql_mode.0,
        time_zone: ctx.time_zone.portable_name(),
        now_micros: ctx.now_micros,
        fail_on_bad_value: ctx.on_bad_value == OnBadValue::Fail,
        connection_collation: u32::from(ctx.connection_collation.id()),
        div_precision_increment: u32::from(ctx.div_precision_increment),
        group_concat_max_len: ctx.group_concat_max_len,
        max_allowed_packet: ctx.max_allowed_packet,
        default_week_format: u32::from(ctx.default_week_format),
        params: ctx.params.iter().map(encode_datum).collect(),
    }
}

pub fn decode_context(ctx: copr::Context) -> Result<EvalContext> {
    let params = ctx.params.into_iter().map(|datum| decode_datum(Some(datum)));
    Ok(EvalContext {
        sql_mode: SqlMode(ctx.sql_mode),
        time_zone: TimeZone::parse(&ctx.time_zone)?,
        now_micros: ctx.now_micros,
        on_bad_value: if ctx.fail_on_bad_value { OnBadValue::Fail } else { OnBadValue::Warn },
        connection_collation: decode_collation(ctx.connection_collation)?,
        div_precision_increment: u8::try_from(ctx.div_precision_increment).map_err(malformed)?,
        group_concat_max_len: ctx.group_concat_max_len,
        max_allowed_packet: ctx.max_allowed_packet,
        default_week_format: u8::try_from(ctx.default_week_format).map_err(malformed)?,
        params: params.collect::<Result<_>>()?,
        ..EvalContext::default()
    })
}
