//! Decisions about regions and stores: pure functions from what is known to what shall be, and the operators that lead there.
//!
//! A scheduler looks at a [`view::ClusterView`] and makes [`proposal::Proposal`]s; [`builder`] turns a goal into steps; the
//! [`controller::Controller`] follows the operators by the regions' heartbeats.

pub mod balance_leader;
pub mod balance_region;
pub mod builder;
pub mod config;
pub mod controller;
pub mod hot_region;
pub mod keyspace_split;
pub mod merge_checker;
pub mod operator;
pub mod patrol;
pub mod placement;
pub mod proposal;
pub mod replica_checker;
pub mod scatter;
pub mod view;
