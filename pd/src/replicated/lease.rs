//! The leader's lease: until when no other member can lead.
//!
//! A follower that heard of the leader does not vote for an election timeout. So the answers of a quorum to a heartbeat
//! promise the lead for a little less than that, counted from when the heartbeat was sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// For a group of one: nobody can take the lead.
const FOREVER: u64 = u64::MAX;

/// Shared by the raft thread, which renews it, and all who serve.
#[derive(Debug)]
pub struct LeaderLease {
    alone: bool,
    length: Duration,
    base: Instant,
    term: AtomicU64,
    /// Microseconds after `base`; 0 = none. Written after `term` and read before it, so that a reader never takes a new
    /// lease for one of an old term.
    until_us: AtomicU64,
}

impl LeaderLease {
    /// None held yet.
    pub fn new(alone: bool, length: Duration) -> Self {
        let (term, until_us) = (AtomicU64::new(0), AtomicU64::new(0));
        LeaderLease { alone, length, base: Instant::now(), term, until_us }
    }

    /// A quorum confirmed in `term` a heartbeat sent at `sent`.
    pub fn renew(&self, term: u64, sent: Instant) {
        if self.term.load(Ordering::Relaxed) != term {
            self.until_us.store(0, Ordering::Release);
            self.term.store(term, Ordering::Release);
        }
        let until = (sent + self.length).saturating_duration_since(self.base).as_micros() as u64;
        self.until_us.store(if self.alone { FOREVER } else { until }, Ordering::Release);
    }

    /// Ends it now.
    pub fn end(&self) {
        self.until_us.store(0, Ordering::Release);
    }

    /// Whether it is held in `term` now.
    pub fn holds(&self, term: u64) -> bool {
        let until_us = self.until_us.load(Ordering::Acquire);
        if term == 0 || self.term.load(Ordering::Acquire) != term {
            return false;
        }
        until_us == FOREVER || (self.base.elapsed().as_micros() as u64) < until_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_belongs_to_its_term_and_ends() {
        let lease = LeaderLease::new(false, Duration::from_secs(60));
        assert!(!lease.holds(0) && !lease.holds(2));
        lease.renew(2, Instant::now());
        assert!(lease.holds(2) && !lease.holds(1) && !lease.holds(3));
        lease.end();
        assert!(!lease.holds(2));
        lease.renew(3, Instant::now().checked_sub(Duration::from_secs(61)).unwrap());
        assert!(!lease.holds(3), "sent too long ago");
        let alone = LeaderLease::new(true, Duration::ZERO);
        alone.renew(4, Instant::now());
        assert!(alone.holds(4));
    }
}
