//! Types of casts, unions and aggregates.

use rutile_expr::func::coercion;
use rutile_expr::types::field_type::{Family, LENGTH_UNSPECIFIED};
use rutile_expr::types::{Charset, Collation, FieldType, MysqlType};
use rutile_expr::{Expr, agg, registry};

use super::Binder;
use crate::error::{Error, Result};
use crate::parser::ast::{DataType, TypeName};
use crate::plan::logical::AggregateCall;

impl Binder<'_> {
    /// The type both sides of a UNION, or two rows of VALUES, are brought to.
    pub(super) fn unify(&self, a: &FieldType, b: &FieldType) -> Result<FieldType> {
        let (a, b) = (Expr::column(0, "", a.clone()), Expr::column(1, "", b.clone()));
        Ok(coercion::common_type(&self.ctx.statement.eval, &[&a, &b], "UNION")?)
    }

    /// A value brought to a type, unless it has it already.
    pub(super) fn cast(&self, expr: Expr, ty: &FieldType) -> Result<Expr> {
        if same_representation(expr.field_type(), ty) {
            return Ok(expr);
        }
        Ok(registry::cast(expr, ty.clone()))
    }

    /// An aggregate's result type.
    pub(super) fn aggregate_type(&self, call: agg::AggregateCall) -> Result<FieldType> {
        Ok(agg::resolve(&self.ctx.statement.eval, call)?.field_type)
    }

    /// An aggregate without DISTINCT or an order.
    pub(super) fn simple_aggregate(&mut self, name: &str, args: Vec<Expr>) -> Result<AggregateCall> {
        let call =
            agg::AggregateCall { name: name.to_owned(), args: args.clone(), ..agg::AggregateCall::default() };
        let ty = self.aggregate_type(call)?;
        Ok(AggregateCall::new(name, args, self.output("", ty)))
    }

    /// The type of `CAST(… AS type)`.
    pub(super) fn cast_type(&self, ty: &DataType) -> Result<FieldType> {
        let fsp = || ty.length.map_or(0, |digits| digits as u8);
        Ok(match ty.name {
            TypeName::Unsigned => FieldType::bigint_unsigned(),
            TypeName::Signed => FieldType::bigint(),
            TypeName::Decimal => {
                let (precision, scale) = (ty.length.unwrap_or(10), ty.decimals.unwrap_or(0));
                if precision > 65 {
                    let max = 65;
                    return Err(Error::TooBigPrecision { precision, column: "".into(), max });
                }
                FieldType::decimal(if precision == 0 { 10 } else { precision as u32 }, scale as u8)
            }
            TypeName::Double => FieldType::double(),
            TypeName::Float => FieldType::new(MysqlType::Float),
            TypeName::Date => FieldType::date(),
            TypeName::DateTime | TypeName::Timestamp => FieldType::datetime(fsp()),
            TypeName::Time => FieldType::time(fsp()),
            TypeName::Year => FieldType::new(MysqlType::Year),
            TypeName::Char | TypeName::VarChar => self.cast_char(ty)?,
            TypeName::Binary | TypeName::VarBinary => {
                let length = ty.length.map_or(LENGTH_UNSPECIFIED, |n| n as u32);
                // With a length, shorter values are filled up with zero bytes.
                let tp = if ty.length.is_some() { MysqlType::Char } else { MysqlType::Varchar };
                FieldType { tp, ..FieldType::varchar(length, Collation::Binary) }
            }
            TypeName::Json => FieldType::new(MysqlType::Json),
            other => return Err(Error::not_supported(format!("CAST AS {other:?}"))),
        })
    }

    fn cast_char(&self, ty: &DataType) -> Result<FieldType> {
        let length = ty.length.map_or(LENGTH_UNSPECIFIED, |n| n as u32);
        let collation = match (&ty.charset, &ty.collate) {
            (_, Some(collation)) => Collation::from_name(collation)?,
            (Some(charset), None) => Charset::from_name(charset)?.default_collation(),
            (None, None) if ty.binary => Charset::Utf8mb4.bin_collation(),
            (None, None) => self.ctx.statement.eval.connection_collation,
        };
        Ok(FieldType::varchar(length, collation))
    }
}

/// Whether values of both types are kept and read alike, so that no cast is needed.
pub(super) fn same_representation(a: &FieldType, b: &FieldType) -> bool {
    let detail = match a.family() {
        Family::Decimal => a.flen == b.flen && a.decimals == b.decimals,
        Family::Time | Family::Duration => a.tp == b.tp && a.decimals == b.decimals,
        Family::String => a.collation == b.collation,
        Family::Enum => false,
        Family::Double => a.tp == b.tp,
        Family::Int => a.tp == b.tp || !matches!((a.tp, b.tp), (MysqlType::Bit, _) | (_, MysqlType::Bit)),
        Family::Null | Family::Json => true,
    };
    a.family() == b.family() && a.arrow() == b.arrow() && detail
}
