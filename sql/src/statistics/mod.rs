//! What is known of the values in a table: how many rows, how many different values, which are frequent, how they are spread.
//!
//! [`model`] is the knowledge itself, [`selectivity`] what follows from it for conditions, and [`Statistics`] one server's
//! cache. A table that was never analyzed has guesses ([`TableStats::guess`]), which are the same everywhere and every time.

pub mod model;
pub mod selectivity;
mod server;

pub use model::{Bucket, ColumnStats, Histogram, TableStats, TopValue};
pub use server::Statistics;
