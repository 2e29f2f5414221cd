//! The placement driver: timestamps, the cluster map, ids, safe points, and a small replicated key-value store.
//!
//! Rooms, upper ones import lower ones only:
//! `server` → `schedule` → `cluster` → `tso`, `id_alloc`, `gc_safe_point`, `lease` → `replicated`.
//! The life of a request is told in DESIGN.md.

pub mod cluster;
pub mod config;
pub mod error;
pub mod gc_safe_point;
pub mod id_alloc;
pub mod lease;
pub mod members;
pub mod metrics;
pub mod replicated;
pub mod schedule;
pub mod server;
pub mod tso;

pub use config::Config;
pub use error::{Error, Result};
pub use server::{PdService, Server};
