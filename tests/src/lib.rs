//! What whole-system tests share: a database as a real process, and its clients' environment.

pub mod cluster;
pub mod process;
pub mod tools;
