//! Databases, tables, columns and indexes: the model, its stored form and its versioned snapshot.

mod bootstrap;
pub mod describe;
pub mod infoschema;
pub mod meta;
pub mod model;
mod servers;
pub mod show_create;
pub mod system_tables;
pub mod usage;

pub use infoschema::Catalog;
