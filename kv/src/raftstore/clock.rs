//! The clock of a store: time since some moment before its start. Passed in, so that a simulation can have its own.

use std::time::{Duration, Instant};

/// A clock that never goes backward. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(Instant),
    /// Nanoseconds.
    #[cfg(test)]
    Manual(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    /// The machine's.
    pub(crate) fn system() -> Self {
        Clock(Source::System(Instant::now()))
    }

    /// One that shows the nanoseconds that somebody else sets.
    #[cfg(test)]
    pub(crate) fn manual(nanos: std::sync::Arc<std::sync::atomic::AtomicU64>) -> Self {
        Clock(Source::Manual(nanos))
    }

    /// Time since the clock began.
    pub(crate) fn now(&self) -> Duration {
        match &self.0 {
            Source::System(start) => start.elapsed(),
            #[cfg(test)]
            Source::Manual(nanos) => Duration::from_nanos(nanos.load(std::sync::atomic::Ordering::Acquire)),
        }
    }
}
