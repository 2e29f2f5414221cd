//! Decisions about regions and stores: pure functions from what is known to the next step of an operator.

pub mod keyspace_split;
