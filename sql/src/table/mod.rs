//! Rows and index entries of a table, and their mutation.

pub mod auto_id;
pub mod constraint;
pub mod estimate;
pub mod index;
pub mod mutate;
pub mod row;

pub use mutate::{Conflict, Row, TableWriter, duplicate_of_key};
pub use row::Handle;
