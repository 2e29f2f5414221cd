//! Databases, tables, columns and indexes: the model, its stored form and its versioned snapshot.

pub mod model;
