//! Rewrites of the logical tree, one per file.

pub mod decorrelate;
pub mod drop_distinct;
pub mod extreme;
pub mod factor_or;
pub mod propagate;
pub mod prune_columns;
pub mod pull_up;
pub mod push_down;
pub mod push_limit;
pub mod push_topn;
