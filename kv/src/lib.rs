//! A store: storage engine, multi-raft, MVCC, transactions, raw access, and their gRPC service.
//!
//! Rooms, lowest floor first: [`engine`], [`pd_client`], [`raftstore`], [`mvcc`], [`txn`] and [`raw`], [`copr`], [`server`].
//! [`config`] and [`metrics`] are used on every floor.

pub mod config;
pub mod copr;
pub mod engine;
pub mod metrics;
pub mod mvcc;
pub mod pd_client;
pub mod raftstore;
pub mod raw;
pub mod server;
pub mod txn;

pub use config::Config;
