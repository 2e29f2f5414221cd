//! Rows and index entries of a table, and their mutation.
