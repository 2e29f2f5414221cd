//! The store as a process: its service, its ports, its start and stop order.

pub mod batch_commands;
pub mod deadlock;
pub mod grpc;
pub mod health;
pub mod node;
pub mod raft_client;
pub mod service;
pub mod status;
pub mod store_client;

#[cfg(test)]
mod tests;
