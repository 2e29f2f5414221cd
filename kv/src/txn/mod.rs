//! Transactional commands.
//!
//! A writing command: latches of its keys → snapshot of the region → pure checks ([`actions`]) → one replicated write
//! → latches released → waiters woken. A reading command: `max_ts` raised → in-flight locks checked → snapshot → read.
//!
//! Lock order: latches (ascending slots), then short mutexes of [`memory_locks`], [`concurrency`] or [`lock_wait`],
//! never two of those together, none of them held across an await.

pub mod actions;
pub mod commands;
pub mod concurrency;
pub mod deadlock;
pub(crate) mod detached;
pub mod error;
pub mod gc;
pub mod latch;
pub mod lock_wait;
pub mod memory_locks;
pub mod other_stores;
pub mod reader;
pub mod replica_read;
pub mod resolved_ts;
pub mod scheduler;

#[cfg(test)]
pub(crate) mod test_kv;
#[cfg(test)]
mod tests;

pub use error::{Error, Result};
pub use scheduler::{PdTimestamps, Scheduler, TimestampSource};
