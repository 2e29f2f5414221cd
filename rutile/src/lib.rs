//! The one binary: playground, pd, kv, sql, ctl. As a library: a playground in the process of a test.

pub mod cli;
pub mod config;
pub mod ctl;
pub mod error;
pub mod exit;
pub mod local_pd;
pub mod local_transport;
pub mod logging;
pub mod playground;
pub mod ports;
pub mod processes;
pub mod signals;

pub use error::{Error, Result};
