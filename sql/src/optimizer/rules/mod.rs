//! Rewrites of the logical tree, one per file.

pub mod extreme;
pub mod propagate;
pub mod prune_columns;
pub mod push_down;
pub mod push_limit;
