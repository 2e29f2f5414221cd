//! Aggregate functions: MySQL's result types over DataFusion's machinery. COUNT, MIN and MAX of what compares natively, STDDEV,
//! VARIANCE and ANY_VALUE are DataFusion's own; the rest is ours.

mod bits;
mod collected;
mod extreme;
mod group_concat;
mod one_group;
mod sum;

use std::sync::Arc;

use datafusion_expr::AggregateUDF;
use datafusion_functions_aggregate::{count, first_last, min_max, stddev, variance};

use super::coercion;
use super::registry;
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::types::field_type::{Family, LENGTH_UNSPECIFIED, NOT_FIXED_DECIMALS};
use crate::types::{Collation, Datum, FieldType, MysqlType};

/// What was written: `name([DISTINCT] args [ORDER BY …] [SEPARATOR …])`.
#[derive(Debug, Clone, Default)]
pub struct AggregateCall {
    /// In lower case.
    pub name: String,
    /// Empty for COUNT(*).
    pub args: Vec<Expr>,
    pub distinct: bool,
    /// GROUP_CONCAT's ORDER BY; true is descending.
    pub order_by: Vec<(Expr, bool)>,
    /// GROUP_CONCAT's SEPARATOR; a comma when not given.
    pub separator: Option<String>,
}

/// An aggregate ready for DataFusion: build it with `AggregateExprBuilder::new(udaf, args…)` and `.with_distinct(distinct)`.
#[derive(Debug, Clone)]
pub struct Aggregate {
    pub udaf: Arc<AggregateUDF>,
    /// The arguments, converted; they may differ in number from what was written.
    pub args: Vec<Expr>,
    /// DISTINCT that DataFusion must carry out.
    pub distinct: bool,
    /// The type of the result, whose Arrow type is that of the aggregate's output.
    pub field_type: FieldType,
    /// The result over no rows: 0 for COUNT, NULL for most.
    pub empty: Datum,
}

/// Is this the name of an aggregate function?
#[must_use]
pub fn is_aggregate(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "count",
        "sum",
        "avg",
        "min",
        "max",
        "group_concat",
        "bit_and",
        "bit_or",
        "bit_xor",
        "std",
        "stddev",
        "stddev_pop",
        "stddev_samp",
        "variance",
        "var_pop",
        "var_samp",
        "any_value",
    ];
    NAMES.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// Builds an aggregate.
pub fn resolve(ctx: &Arc<EvalContext>, call: AggregateCall) -> Result<Aggregate> {
    let name = call.name.to_ascii_lowercase();
    let many = matches!(name.as_str(), "count" | "group_concat");
    if !is_aggregate(&name) {
        return Err(Error::FunctionDoesNotExist { function: call.name });
    }
    if (!many && call.args.len() != 1) || (name == "group_concat" && call.args.is_empty()) {
        return Err(Error::WrongParamCount { function: call.name });
    }
    match name.as_str() {
        "count" => resolve_count(call),
        "sum" | "avg" => Ok(sum::resolve(ctx, call)),
        "min" | "max" => Ok(resolve_extreme(ctx, call)),
        "group_concat" => group_concat::resolve(ctx, call),
        "bit_and" | "bit_or" | "bit_xor" => Ok(bits::resolve(call)),
        "any_value" => Ok(resolve_any_value(call)),
        _ => Ok(resolve_deviation(call)),
    }
}

fn resolve_count(call: AggregateCall) -> Result<Aggregate> {
    let field_type = FieldType::bigint().with_flen(21).with_not_null(true);
    let empty = Datum::Int(0);
    let udaf = count::count_udaf();
    if call.args.len() > 1 {
        if !call.distinct {
            return Err(Error::WrongParamCount { function: call.name });
        }
        let key = FieldType::varchar(LENGTH_UNSPECIFIED, Collation::Binary);
        let args = call.args;
        let args = vec![
            registry::lookup("row_key").map_or_else(Expr::null, |e| e.call(args, key, Collation::Binary)),
        ];
        return Ok(Aggregate { udaf, args, distinct: true, field_type, empty });
    }
    let arg = call.args.into_iter().next().unwrap_or_else(|| Expr::int(1));
    let arg = if call.distinct { registry::sort_key(arg) } else { arg };
    Ok(Aggregate { udaf, args: vec![arg], distinct: call.distinct, field_type, empty })
}

fn resolve_extreme(ctx: &EvalContext, call: AggregateCall) -> Aggregate {
    let is_max = call.name.eq_ignore_ascii_case("max");
    let arg = call.args.into_iter().next().unwrap_or_else(Expr::null);
    // An ENUM or SET is compared as the text that it is.
    let arg =
        if arg.field_type().family() == Family::Enum { registry::to_string(ctx, arg, None) } else { arg };
    // The least of years is a number: 0, not 0000.
    let field_type = match arg.field_type().tp {
        MysqlType::Year => FieldType::bigint_unsigned(),
        _ => arg.field_type().clone().with_not_null(false),
    };
    let udaf = if field_type.is_string() && !field_type.collation.is_bytewise() {
        extreme::udaf(is_max, &field_type)
    } else if is_max {
        min_max::max_udaf()
    } else {
        min_max::min_udaf()
    };
    Aggregate { udaf, args: vec![arg], distinct: false, field_type, empty: Datum::Null }
}

fn resolve_any_value(call: AggregateCall) -> Aggregate {
    let field_type = call.args[0].field_type().clone().with_not_null(false);
    Aggregate {
        udaf: first_last::first_value_udaf(),
        args: call.args,
        distinct: false,
        field_type,
        empty: Datum::Null,
    }
}

fn resolve_deviation(call: AggregateCall) -> Aggregate {
    let udaf = match call.name.to_ascii_lowercase().as_str() {
        "stddev_samp" => stddev::stddev_udaf(),
        "variance" | "var_pop" => variance::var_pop_udaf(),
        "var_samp" => variance::var_samp_udaf(),
        _ => stddev::stddev_pop_udaf(),
    };
    let args = call.args.into_iter().map(|a| registry::to_double(registry::to_number(a))).collect();
    let field_type = FieldType::double().with_decimals(NOT_FIXED_DECIMALS);
    Aggregate { udaf, args, distinct: false, field_type, empty: Datum::Null }
}

/// The precision that SUM and AVG start from.
fn exact_precision(expr: &Expr) -> u32 {
    coercion::precision_of(expr)
}
