//! How long to pause before the next try, and when to give up.

use std::time::Duration;

use rand::Rng;

use crate::error::{Error, Result};

/// Why a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackoffKind {
    /// The region moved, split, or has no leader yet.
    RegionMiss,
    /// The store told who leads: the first repetition is free.
    UpdateLeader,
    /// The store asks for patience.
    ServerBusy,
    /// The store cannot be reached.
    Rpc,
    /// Another transaction's lock.
    TxnLock,
}

const KINDS: usize = 5;

impl BackoffKind {
    /// First pause and longest pause in milliseconds.
    const fn bounds_ms(self) -> (u64, u64) {
        match self {
            // An election takes a second or two: whoever waits for one shall notice its end soon.
            BackoffKind::RegionMiss => (2, 200),
            BackoffKind::UpdateLeader => (0, 50),
            BackoffKind::ServerBusy => (20, 2000),
            BackoffKind::Rpc => (20, 250),
            BackoffKind::TxnLock => (1, 500),
        }
    }
}

/// The pauses of one operation, within a budget.
#[derive(Clone, Debug)]
pub struct Backoff {
    budget_ms_left: u64,
    attempts: [u32; KINDS],
    maybe_executed: bool,
}

impl Backoff {
    /// Budget of reads.
    pub const READ_MS: u64 = 20_000;
    /// Budget of writes, commits and rollbacks.
    pub const WRITE_MS: u64 = 40_000;

    /// Pauses of `budget_ms` in all.
    #[must_use]
    pub fn new(budget_ms: u64) -> Self {
        Backoff { budget_ms_left: budget_ms, attempts: [0; KINDS], maybe_executed: false }
    }

    /// Whether a request of this operation may have been executed although its answer was lost.
    #[must_use]
    pub fn maybe_executed(&self) -> bool {
        self.maybe_executed
    }

    /// Remembers that an answer was lost.
    pub fn set_maybe_executed(&mut self) {
        self.maybe_executed = true;
    }

    /// The next pause in milliseconds, taken from the budget: doubling up to the kind's bound, with jitter; at least
    /// `hint_ms`. `None` when the budget is used up.
    pub fn next_delay_ms(&mut self, kind: BackoffKind, hint_ms: u64) -> Option<u64> {
        if self.budget_ms_left == 0 {
            return None;
        }
        let attempt = &mut self.attempts[kind as usize];
        let (first, longest) = kind.bounds_ms();
        let ceiling = if first == 0 {
            if *attempt == 0 { 0 } else { (1u64 << (*attempt).min(20)).min(longest) }
        } else {
            first.saturating_mul(1 << (*attempt).min(20)).min(longest)
        };
        *attempt += 1;
        let jittered = if ceiling < 2 { ceiling } else { rand::rng().random_range(ceiling / 2..=ceiling) };
        let delay = jittered.max(hint_ms).min(self.budget_ms_left);
        self.budget_ms_left -= delay;
        Some(delay)
    }

    /// Pauses, or fails with `error` when the budget is used up.
    pub async fn wait(&mut self, kind: BackoffKind, error: Error) -> Result<()> {
        self.wait_at_least(kind, 0, error).await
    }

    /// Pauses at least `hint_ms`, or fails with `error` when the budget is used up.
    pub async fn wait_at_least(&mut self, kind: BackoffKind, hint_ms: u64, error: Error) -> Result<()> {
        match self.next_delay_ms(kind, hint_ms) {
            Some(0) => tokio::task::yield_now().await,
            Some(delay_ms) => tokio::time::sleep(Duration::from_millis(delay_ms)).await,
            None => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_end_with_the_budget() {
        let mut backoff = Backoff::new(5_000);
        let delays: Vec<u64> =
            std::iter::from_fn(|| backoff.next_delay_ms(BackoffKind::RegionMiss, 0)).collect();
        assert!(delays[0] <= 2);
        assert!(delays.iter().all(|d| *d <= 200));
        assert_eq!(delays.iter().sum::<u64>(), 5_000);
    }

    #[test]
    fn the_first_change_of_leader_is_free() {
        let mut backoff = Backoff::new(100);
        assert_eq!(backoff.next_delay_ms(BackoffKind::UpdateLeader, 0), Some(0));
        assert_ne!(backoff.next_delay_ms(BackoffKind::UpdateLeader, 0), Some(0));
    }

    #[test]
    fn hints_are_kept_within_the_budget() {
        let mut backoff = Backoff::new(100);
        assert_eq!(backoff.next_delay_ms(BackoffKind::ServerBusy, 90), Some(90));
        assert_eq!(backoff.next_delay_ms(BackoffKind::ServerBusy, 90), Some(10));
        assert_eq!(backoff.next_delay_ms(BackoffKind::ServerBusy, 90), None);
    }
}
