//! MySQL's types: what a value is, how it is written, converted, compared and stored.

pub mod collation;
pub mod convert;
pub mod datum;
pub mod decimal;
pub mod duration;
pub mod field_type;
pub mod format;
pub mod number;
pub mod store;
pub mod time;
pub mod time_parse;
pub mod time_zone;
pub mod uca;

pub use collation::{Charset, Collation};
pub use datum::Datum;
pub use decimal::Decimal;
pub use duration::Duration;
pub use field_type::{FieldType, MysqlType};
pub use time::{Time, TimeKind};
pub use time_zone::TimeZone;
