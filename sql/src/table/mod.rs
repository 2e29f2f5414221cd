//! Rows and index entries of a table, and their mutation.

pub mod row;

pub use row::Handle;
