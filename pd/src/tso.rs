//! Timestamps: unix milliseconds `<< 18 | logical`.
//!
//! Invariants: every timestamp is larger than all before it, over restarts and clocks that go backwards; a batch lies in
//! one millisecond; no timestamp reaches the persisted `window_end_ms`, from which the next life of the process starts.
//!
//! The window is extended while half of it is left, on the raft thread and only when timestamps are asked for, so that an
//! idle cluster writes nothing. The fast path is one compare-and-swap. A leader gives out timestamps only while it holds its
//! lease, and begins after the window that its predecessor persisted: no two leaders ever give out timestamps side by side.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rutile_proto::ids::{LOGICAL_BITS, Timestamp};

use crate::error::{Error, Result};
use crate::replicated::Replicated;
use crate::replicated::command::{Op, Outcome, SystemBatch};

const WINDOW_KEY: &[u8] = b"tso/window_end_ms";
/// Largest number of timestamps that one request gets: they fit one millisecond.
pub const COUNT_MAX: u32 = (1 << LOGICAL_BITS) - 1;

/// Where the milliseconds come from.
pub trait Clock: Send + Sync {
    /// Unix milliseconds now; may go backwards.
    fn now_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }
}

/// Gives out timestamps, while this member leads.
pub struct Tso {
    group: Arc<Replicated>,
    clock: Arc<dyn Clock>,
    window_ms: u64,
    /// The term in which timestamps are given out; 0 = none.
    term: AtomicU64,
    /// The largest timestamp given out.
    last: AtomicU64,
    /// Persisted: milliseconds that this life must not reach.
    window_end_ms: AtomicU64,
    extending: AtomicBool,
}

impl Tso {
    /// Gives out nothing until [`Tso::begin`].
    #[must_use]
    pub fn new(group: Arc<Replicated>, clock: Arc<dyn Clock>, window_ms: u64) -> Arc<Self> {
        Arc::new(Tso {
            group,
            clock,
            window_ms,
            term: AtomicU64::new(0),
            last: AtomicU64::new(0),
            window_end_ms: AtomicU64::new(0),
            extending: AtomicBool::new(false),
        })
    }

    /// Starts after everything that an earlier life or leader may have given out, in the current term.
    pub async fn open(group: Arc<Replicated>, clock: Arc<dyn Clock>, window_ms: u64) -> Result<Arc<Self>> {
        let term = group.role().term;
        let tso = Self::new(group, clock, window_ms);
        tso.begin(term).await?;
        Ok(tso)
    }

    /// Gives out timestamps as the leader of `term`, whose state holds everything acknowledged before.
    pub async fn begin(self: &Arc<Self>, term: u64) -> Result<()> {
        self.end();
        let old_end_ms = self.group.system_get_u64(WINDOW_KEY);
        let start_ms = self.clock.now_ms().max(old_end_ms).max(self.last().physical_ms() + 1);
        self.last.fetch_max(Timestamp::compose(start_ms, 0).0, Ordering::AcqRel);
        self.term.store(term, Ordering::Release);
        self.extend(start_ms).await
    }

    /// Gives out nothing more: another member may lead.
    pub fn end(&self) {
        self.term.store(0, Ordering::Release);
        self.window_end_ms.store(0, Ordering::Release);
    }

    /// `count` timestamps: the answer is the largest, the others are directly below it.
    pub async fn allocate(self: &Arc<Self>, count: u32) -> Result<Timestamp> {
        loop {
            match self.try_allocate(count)? {
                Ok(ts) => return Ok(ts),
                Err(needed_ms) => self.extend(needed_ms).await?,
            }
        }
    }

    /// The same without waiting; `Err(ms)` when the window must be extended beyond that millisecond first.
    pub fn try_allocate(self: &Arc<Self>, count: u32) -> Result<std::result::Result<Timestamp, u64>> {
        if count == 0 || count > COUNT_MAX {
            return Err(Error::Invalid(format!("tso count must be between 1 and {COUNT_MAX}, not {count}")));
        }
        let count = u64::from(count);
        let term = self.term.load(Ordering::Acquire);
        if term == 0 {
            return Err(Error::NotLeader);
        }
        let now_ms = self.clock.now_ms();
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let next = next_after(Timestamp(last), now_ms, count);
            let window_end_ms = self.window_end_ms.load(Ordering::Acquire);
            if next.physical_ms() >= window_end_ms {
                return Ok(Err(next.physical_ms()));
            }
            match self.last.compare_exchange_weak(last, next.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    // Asked after the timestamp was taken: at that moment nobody else gave out larger ones.
                    if !self.group.holds_lease(term) {
                        return Err(Error::NotLeader);
                    }
                    if next.physical_ms() + self.window_ms / 2 > window_end_ms {
                        self.extend_ahead(next.physical_ms());
                    }
                    return Ok(Ok(next));
                }
                Err(newer) => last = newer,
            }
        }
    }

    /// The largest timestamp given out so far.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        Timestamp(self.last.load(Ordering::Acquire))
    }

    fn window_batch(&self, from_ms: u64) -> (u64, SystemBatch) {
        let end_ms = from_ms + self.window_ms;
        (end_ms, SystemBatch::default().raise(WINDOW_KEY, end_ms))
    }

    async fn extend(&self, from_ms: u64) -> Result<()> {
        // Read first: what follows must not be written in a later term.
        let term = self.term.load(Ordering::Acquire);
        if term == 0 {
            return Err(Error::NotLeader);
        }
        let (end_ms, batch) = self.window_batch(from_ms);
        self.group.in_term(term).write_system(batch).await?;
        self.raise_window(end_ms);
        Ok(())
    }

    fn extend_ahead(self: &Arc<Self>, from_ms: u64) {
        if self.extending.swap(true, Ordering::AcqRel) {
            return;
        }
        let term = self.term.load(Ordering::Acquire);
        let (end_ms, batch) = self.window_batch(from_ms);
        let this = self.clone();
        self.group.in_term(term).propose_with(Op::System(batch), move |result| {
            match result {
                Ok(Outcome::System { applied: true }) => this.raise_window(end_ms),
                // The next request that needs the window tells its caller.
                other => tracing::debug!(?other, "the timestamp window was not extended"),
            }
            this.extending.store(false, Ordering::Release);
        });
    }

    fn raise_window(&self, end_ms: u64) {
        self.window_end_ms.fetch_max(end_ms, Ordering::AcqRel);
    }

    /// Gives back the rest of the window, so that the next life starts at the clock. No timestamps after this.
    pub async fn close(&self) -> Result<()> {
        let term = self.term.load(Ordering::Acquire);
        if term == 0 {
            return Ok(());
        }
        self.end();
        let end_ms = self.last().physical_ms() + 1;
        self.group
            .in_term(term)
            .write_system(SystemBatch::default().put(WINDOW_KEY, end_ms.to_be_bytes().to_vec()))
            .await?;
        Ok(())
    }
}

/// The largest of the next `count` timestamps, all in one millisecond.
fn next_after(last: Timestamp, now_ms: u64, count: u64) -> Timestamp {
    if now_ms > last.physical_ms() {
        return Timestamp::compose(now_ms, count);
    }
    if last.logical() + count < (1 << LOGICAL_BITS) {
        return Timestamp(last.0 + count);
    }
    Timestamp::compose(last.physical_ms() + 1, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FakeClock(AtomicU64);

    impl Clock for FakeClock {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn open_store(dir: &std::path::Path) -> Arc<Replicated> {
        Arc::new(Replicated::open(dir, 1 << 20).unwrap())
    }

    #[test]
    fn next_is_larger_and_in_one_millisecond() {
        let last = Timestamp::compose(100, (1 << LOGICAL_BITS) - 3);
        assert_eq!(next_after(last, 50, 2), Timestamp::compose(100, (1 << LOGICAL_BITS) - 1));
        assert_eq!(next_after(last, 100, 3), Timestamp::compose(101, 3));
        assert_eq!(next_after(last, 105, 7), Timestamp::compose(105, 7));
        assert_eq!(
            next_after(last, 100, u64::from(COUNT_MAX)),
            Timestamp::compose(101, u64::from(COUNT_MAX))
        );
    }

    #[tokio::test]
    async fn monotonic_over_restarts_and_a_clock_that_goes_backwards() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(FakeClock(AtomicU64::new(1_000_000)));
        let mut last = Timestamp::ZERO;
        for life in 0..6 {
            let store = open_store(dir.path());
            let tso = Tso::open(store.clone(), clock.clone(), 300).await.unwrap();
            for step in 0..400 {
                let ts = tso.allocate(1 + step % 5).await.unwrap();
                assert!(ts > last, "life {life}: {ts} after {last}");
                last = ts;
                clock.0.fetch_add(7, Ordering::Relaxed);
            }
            if life % 2 == 0 {
                tso.close().await.unwrap();
            }
            store.shutdown();
            clock.0.fetch_sub(5_000, Ordering::Relaxed);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_batches_never_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let tso = Tso::open(open_store(dir.path()), Arc::new(SystemClock), 200).await.unwrap();
        let mut tasks = Vec::new();
        for task in 0..8u32 {
            let tso = tso.clone();
            tasks.push(tokio::spawn(async move {
                let mut batches = Vec::new();
                for i in 0..20_000u32 {
                    let count = 1 + (i * 7 + task) % 64;
                    let ts = tso.allocate(count).await.unwrap();
                    assert!(ts.logical() + 1 >= u64::from(count), "a batch underflows its millisecond");
                    batches.push((ts.0 + 1 - u64::from(count), ts.0));
                }
                assert!(batches.windows(2).all(|w| w[0].1 < w[1].0));
                batches
            }));
        }
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all.sort_unstable();
        assert!(all.windows(2).all(|w| w[0].1 < w[1].0), "two batches share a timestamp");
    }

    #[tokio::test]
    async fn a_count_that_fits_no_millisecond_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tso = Tso::open(open_store(dir.path()), Arc::new(SystemClock), 3000).await.unwrap();
        assert!(tso.allocate(0).await.is_err());
        assert!(tso.allocate(COUNT_MAX + 1).await.is_err());
        assert!(tso.allocate(COUNT_MAX).await.is_ok());
    }
}
