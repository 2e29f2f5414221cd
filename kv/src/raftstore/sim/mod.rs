//! A deterministic simulation: some stores with their threads, disks, clocks and network, driven by one thread.
//!
//! Everything that happens follows from a seed: which part of which store does its next step, what the network does to each message, when
//! a store crashes (also between two steps of one part, see [`edge`]) and what its disk has kept, how its clock runs. Clients write
//! unique values and read them; what they saw must be the history of registers. `SIM_SEEDS=17,42` or `SIM_SEEDS=1-1000` replays seeds,
//! `SIM_TRACE=1` prints what happens.

mod check;
mod clients;
mod disk;
mod faults;
mod net;
mod pd;
mod scenarios;
mod tests;
mod world;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use raft::eraftpb::Entry;

/// Something wrong that a test does to the product, to see whether the simulation notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// What was written is not on the disk when it is acknowledged.
    AnswerBeforeSync,
    /// Entries of an old epoch are applied.
    ForgetEpoch,
}

/// What unwinds a step in which its store crashes.
pub(crate) struct Crash;

/// What was applied at an index of a region: term and checksum.
type AppliedLog = BTreeMap<(u64, u64), (u64, u64)>;

thread_local! {
    static EDGES: Cell<u64> = const { Cell::new(0) };
    static CRASH_AT: Cell<Option<u64>> = const { Cell::new(None) };
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    static APPLIED: RefCell<Option<AppliedLog>> = const { RefCell::new(None) };
}

/// An edge between two steps: the store may crash here.
pub(crate) fn edge(_name: &'static str) {
    let passed = EDGES.get() + 1;
    EDGES.set(passed);
    if CRASH_AT.get().is_some_and(|at| at <= passed) {
        CRASH_AT.set(None);
        std::panic::resume_unwind(Box::new(Crash));
    }
}

/// Edges passed by this thread's stores.
fn edges() -> u64 {
    EDGES.get()
}

/// Whoever passes the `n`-th edge from now on crashes.
fn crash_in(n: Option<u64>) {
    CRASH_AT.set(n.map(|n| EDGES.get() + n));
}

/// Whether a test has planted a bug.
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// An entry is applied: all peers must apply the same one.
pub(crate) fn on_apply(region_id: u64, entry: &Entry) {
    APPLIED.with_borrow_mut(|log| {
        let Some(log) = log else { return };
        let mut digest = crc64fast::Digest::new();
        digest.write(&entry.data);
        digest.write(&entry.context);
        let what = (entry.term, digest.sum64());
        let first = *log.entry((region_id, entry.index)).or_insert(what);
        assert!(first == what, "two peers of region {region_id} apply different entries at {}", entry.index);
    });
}

/// Forgets what happened in this thread before.
fn begin(bug: Option<Bug>) {
    EDGES.set(0);
    CRASH_AT.set(None);
    PLANTED.set(bug);
    APPLIED.set(Some(AppliedLog::new()));
}

/// Other tests in this thread are no simulations.
fn end() {
    CRASH_AT.set(None);
    PLANTED.set(None);
    APPLIED.set(None);
}
