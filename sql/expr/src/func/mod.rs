//! The built-in functions, one file per family.

pub mod agg;
pub mod arith;
pub mod bits;
pub mod cast;
pub mod coercion;
pub mod compare;
pub mod compare_types;
pub mod control;
pub mod encode;
pub mod hash;
pub mod info;
pub mod like;
pub mod logic;
pub mod math;
pub mod regexp;
pub mod registry;
pub mod string;
pub mod time;
pub mod time_arith;
pub mod time_format;
pub mod time_unit;
