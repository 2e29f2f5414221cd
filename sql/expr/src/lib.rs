//! MySQL's types, collations, functions and row formats, evaluated over Arrow arrays.
//!
//! - `types`: values and their conversions. `row`, `index_key`: how values are stored.
//! - `expr`: the typed tree; `eval`: its evaluation over a batch or over one row of datums.
//! - `func`: the built-in functions; `func::registry` turns a name and arguments into a typed tree, `func::agg` does so for aggregates.
//! - `store_plan`: what a store runs over its own rows, and how such plans travel.
//! - `batch`: conditions and computed columns over a batch; `operator`: DataFusion's operators over a stream.
//! - `physical`: the tree as a DataFusion `PhysicalExpr`.
//!
//! Invariant: a value of a [`FieldType`] is always held in the Arrow type [`FieldType::arrow`] names.

pub mod array;
pub mod batch;
pub mod context;
pub mod error;
pub mod eval;
pub mod expr;
pub mod func;
pub mod index_key;
pub mod operator;
pub mod physical;
pub mod row;
pub mod store_plan;
pub mod types;

pub use context::{ConnectionInfo, EvalContext, OnBadValue, SqlMode, UserVars, Warnings};
pub use error::{Error, Result};
pub use eval::{Input, Value};
pub use expr::{Call, Coercibility, Expr, Function, Volatility};
pub use func::{agg, registry};
pub use types::{Charset, Collation, Datum, Decimal, Duration, FieldType, MysqlType, Time, TimeZone};
