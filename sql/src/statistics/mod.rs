//! What is known of the values in a table: how many rows, how many different values, which are frequent, how they are spread.
//!
//! - [`model`] is the knowledge itself, immutable; [`selectivity`] is what follows from it for conditions, `shares` for the values of one column;
//! - [`sample`] reads rows of a table, spread over its keys, and [`build`] makes the knowledge out of them (pure);
//! - [`store`] is its form in the cluster, under `mstat`;
//! - [`Statistics`] is one server's cache of it and counts what this server's commits change; [`worker`] keeps both current:
//!   it writes the counts to the cluster, learns what other servers wrote, and analyzes tables that have changed much.
//!
//! A table that was never analyzed has guesses ([`TableStats::guess`]). Knowledge that is out of date stays in use, scaled to the
//! present number of rows, until there is newer.

pub mod build;
mod distinct;
pub mod model;
pub mod sample;
pub mod selectivity;
mod server;
mod shares;
mod shown;
pub mod store;
pub mod worker;

pub use model::{Bucket, ColumnStats, Histogram, ShownHistogram, TableStats, TopValue};
pub use server::{Change, Statistics};
