//! Tells whether what clients saw of one register could have happened one after the other (Wing and Gong's search with
//! memory). A history is the operations on one register; times are of one clock, in any unit.

use std::collections::HashSet;

/// Operations of one history, at most: those that are done are a bit set.
pub const OPS_MAX: usize = 128;

/// The end of an operation whose outcome is unknown: it may take effect at any time, or never.
pub const NEVER: u64 = u64::MAX;

/// What an operation did, or would have done if its outcome is unknown. A register holds 0 at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Wrote a value.
    Write(u64),
    /// Saw a value.
    Read(u64),
    /// Found the first value and put the second in its place.
    Swap(u64, u64),
    /// Wanted to swap this value but found another.
    Differs(u64),
}

/// One operation of a client.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// What it did.
    pub kind: Kind,
    /// When it was begun.
    pub start: u64,
    /// When its end was known; [`NEVER`] if that is unknown.
    pub end: u64,
}

impl Kind {
    /// The value after the operation, if it can happen while the register holds `value`.
    fn apply(self, value: u64) -> Option<u64> {
        match self {
            Kind::Write(new) => Some(new),
            Kind::Read(read) => (read == value).then_some(value),
            Kind::Swap(old, new) => (old == value).then_some(new),
            Kind::Differs(other) => (other != value).then_some(value),
        }
    }
}

/// Whether a history is one of a register.
///
/// # Panics
///
/// If there are more than [`OPS_MAX`] operations.
#[must_use]
pub fn is_linearizable(ops: &[Op]) -> bool {
    assert!(ops.len() <= OPS_MAX, "{} operations", ops.len());
    let mut seen = HashSet::new();
    search(ops, 0, 0, &mut seen)
}

fn search(ops: &[Op], done: u128, value: u64, seen: &mut HashSet<(u128, u64)>) -> bool {
    let open = || (0..ops.len()).filter(|i| done & (1 << i) == 0);
    // Those with an unknown outcome need not have happened.
    if open().all(|i| ops[i].end == NEVER) {
        return true;
    }
    if !seen.insert((done, value)) {
        return false;
    }
    let first_end = open().map(|i| ops[i].end).min().unwrap_or(NEVER);
    open().filter(|i| ops[*i].start <= first_end).any(|i| match ops[i].kind.apply(value) {
        Some(new) => search(ops, done | 1 << i, new, seen),
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::Kind::{Differs, Read, Swap, Write};
    use super::*;

    const fn op(kind: Kind, start: u64, end: u64) -> Op {
        Op { kind, start, end }
    }

    #[test]
    fn registers_are_told_from_others() {
        assert!(is_linearizable(&[op(Write(1), 0, 5), op(Read(0), 1, 2), op(Read(1), 3, 4)]));
        assert!(!is_linearizable(&[op(Write(1), 0, 5), op(Read(1), 1, 2), op(Read(0), 3, 4)]));
        assert!(!is_linearizable(&[op(Write(1), 0, 1), op(Read(0), 2, 3)]), "a stale read");
        assert!(
            !is_linearizable(&[op(Write(1), 0, 1), op(Write(2), 2, 3), op(Read(1), 4, 5)]),
            "a lost write"
        );
    }

    #[test]
    fn unknown_outcomes_may_happen_late_or_never() {
        let lost = op(Write(2), 2, NEVER);
        assert!(is_linearizable(&[op(Write(1), 0, 1), lost, op(Read(1), 4, 5), op(Read(2), 6, 7)]));
        assert!(!is_linearizable(&[op(Write(1), 0, 1), lost, op(Read(2), 4, 5), op(Read(1), 6, 7)]));
        assert!(is_linearizable(&[op(Write(1), 0, 1), op(Swap(7, 8), 2, NEVER), op(Read(1), 4, 5)]));
    }

    #[test]
    fn swaps_are_atomic() {
        assert!(is_linearizable(&[op(Write(1), 0, 1), op(Swap(1, 2), 2, 5), op(Differs(1), 3, 6)]));
        assert!(!is_linearizable(&[op(Write(1), 0, 1), op(Swap(1, 2), 2, 5), op(Swap(1, 3), 2, 5)]));
        assert!(!is_linearizable(&[op(Write(1), 0, 1), op(Differs(1), 2, 3)]));
    }
}
