//! Rutile's SQL layer: MySQL protocol server, session, parser, binder, optimizer, executor, catalog and schema change.
//!
//! The life of one statement, each step in its room, each room importing only the ones below it:
//!
//! 1. [`server`] takes a packet from the connection and decodes the command;
//! 2. [`session`] holds the connection's variables and transaction, and drives the rest;
//! 3. [`parser`] turns text into the tree of `parser::ast`;
//! 4. [`binder`] gives names, types and collations, and makes a logical plan of [`plan`];
//! 5. [`optimizer`] chooses access paths and joins by what [`statistics`] says of the tables' values, and makes a physical plan;
//! 6. [`executor`] runs it over batches of Arrow columns, reading and writing through [`table`] and the transaction;
//! 7. [`ddl`] does the same for schema changes, over [`catalog`], and [`show`] prints what is there;
//! 8. [`server`] encodes the batches' cells straight into the connection's out buffer.
//!
//! All state lives in the key-value cluster, reached through `rutile_client`; any number of these servers run side by side.

pub mod binder;
pub mod catalog;
pub mod config;
pub mod context;
pub mod ddl;
pub mod error;
pub mod executor;
pub mod optimizer;
pub mod parser;
pub mod plan;
pub mod server;
pub mod session;
pub mod show;
pub mod statistics;
pub mod table;

pub use context::{Output, Rows, StatementContext};
pub use error::{Error, Result};
