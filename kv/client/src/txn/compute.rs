//! Plans sent to the stores that hold the rows: region by region, page by page, several regions at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rutile_proto::{codec, coprocessor};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::region_cache::Region;
use crate::sender::Sent;
use crate::txn::{KeyRange, Snapshot};

/// Pages of a region that wait to be taken.
const PAGES_AHEAD: usize = 2;

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Computation {
    /// `coprocessor.Request.tp`.
    pub kind: i64,
    /// `coprocessor.Request.data`.
    pub plan: Bytes,
    /// The plan reads from the last key to the first.
    pub desc: bool,
    /// Answers come in the order of keys.
    pub keep_order: bool,
    /// Regions asked at once.
    pub concurrency: usize,
    /// Rows of a region's first page; later ones double. 0 leaves it to the store.
    pub first_page_rows: u64,
}

/// What a computation has cost so far.
#[derive(Debug, Default)]
pub struct ComputeStats {
    /// Parts of ranges within a region.
    pub regions: AtomicU64,
    pub requests: AtomicU64,
    /// Requests that had to be repeated: regions that moved, locks in the way.
    pub retries: AtomicU64,
    /// Bytes of answers.
    pub bytes: AtomicU64,
}

enum Message {
    Page(Bytes),
    End,
    Failed(Error),
}

/// The pages of a computation. Dropping it stops what still runs.
pub struct Computing {
    snapshot: Snapshot,
    job: Arc<Computation>,
    stats: Arc<ComputeStats>,
    /// In scan order; not cut by region yet.
    ranges: Option<Vec<KeyRange>>,
    waiting: VecDeque<VecDeque<KeyRange>>,
    /// One per running region, in scan order; all the same where the order does not matter.
    running: VecDeque<mpsc::Receiver<Message>>,
    unordered: Option<(mpsc::Sender<Message>, mpsc::Receiver<Message>)>,
    active: usize,
    tasks: JoinSet<()>,
}

impl Computing {
    pub(crate) fn new(snapshot: Snapshot, mut ranges: Vec<KeyRange>, job: Computation) -> Self {
        if job.desc {
            ranges.reverse();
        }
        let unordered = (!job.keep_order).then(|| mpsc::channel(PAGES_AHEAD * job.concurrency.max(1)));
        Computing {
            snapshot,
            job: Arc::new(job),
            stats: Arc::default(),
            ranges: Some(ranges),
            waiting: VecDeque::new(),
            running: VecDeque::new(),
            unordered,
            active: 0,
            tasks: JoinSet::new(),
        }
    }

    /// What it has cost so far.
    #[must_use]
    pub fn stats(&self) -> &Arc<ComputeStats> {
        &self.stats
    }

    /// The next answer's data; `None` at the end.
    pub async fn next_page(&mut self) -> Result<Option<Bytes>> {
        if let Some(ranges) = self.ranges.take() {
            self.waiting = cut_by_region(&self.snapshot, ranges, self.job.desc).await?;
            self.stats.regions.store(self.waiting.len() as u64, Ordering::Relaxed);
        }
        loop {
            while self.active < self.job.concurrency.max(1)
                && let Some(ranges) = self.waiting.pop_front()
            {
                self.start(ranges);
            }
            if self.active == 0 {
                return Ok(None);
            }
            let received = match &mut self.unordered {
                Some((_, pages)) => pages.recv().await,
                None => match self.running.front_mut() {
                    Some(pages) => pages.recv().await,
                    None => None,
                },
            };
            match received {
                Some(Message::Page(page)) => {
                    self.stats.bytes.fetch_add(page.len() as u64, Ordering::Relaxed);
                    return Ok(Some(page));
                }
                Some(Message::End) => {
                    self.active -= 1;
                    self.running.pop_front();
                }
                Some(Message::Failed(error)) => return Err(error),
                // Only a panic ends a task without a word.
                None => return Err(Error::Coprocessor("a request was abandoned".to_owned())),
            }
        }
    }

    fn start(&mut self, ranges: VecDeque<KeyRange>) {
        let pages = match &self.unordered {
            Some((pages, _)) => pages.clone(),
            None => {
                let (pages, receiver) = mpsc::channel(PAGES_AHEAD);
                self.running.push_back(receiver);
                pages
            }
        };
        self.active += 1;
        let task = Task {
            snapshot: self.snapshot.clone(),
            job: Arc::clone(&self.job),
            stats: Arc::clone(&self.stats),
            page_rows: self.job.first_page_rows,
        };
        self.tasks.spawn(async move {
            let last = match task.run(ranges, &pages).await {
                Ok(()) => Message::End,
                Err(error) => Message::Failed(error),
            };
            let _ = pages.send(last).await;
        });
    }
}

/// One region's share of the work, or what has become of the region.
struct Task {
    snapshot: Snapshot,
    job: Arc<Computation>,
    stats: Arc<ComputeStats>,
    page_rows: u64,
}

impl Task {
    async fn run(mut self, mut ranges: VecDeque<KeyRange>, pages: &mpsc::Sender<Message>) -> Result<()> {
        let mut backoff = Backoff::new(Backoff::READ_MS);
        while !ranges.is_empty() {
            let region = locate(&self.snapshot, &ranges, self.job.desc, &mut backoff).await?;
            let within = take_within(&mut ranges, &region, self.job.desc)?;
            let Some(answer) = self.ask(&region, &within, &mut backoff).await? else {
                self.stats.retries.fetch_add(1, Ordering::Relaxed);
                give_back(&mut ranges, within);
                continue;
            };
            backoff = Backoff::new(Backoff::READ_MS);
            self.page_rows = (self.page_rows * 2).min(1 << 20);
            if let Some(covered) = answer.range {
                let at = if self.job.desc { covered.start } else { covered.end };
                give_back(&mut ranges, behind(within, &at, self.job.desc));
            }
            if pages.send(Message::Page(answer.data)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `None`: the region moved, or a lock was in the way.
    async fn ask(
        &self,
        region: &Arc<Region>,
        ranges: &VecDeque<KeyRange>,
        backoff: &mut Backoff,
    ) -> Result<Option<coprocessor::Response>> {
        let mut sent: Vec<_> = ranges
            .iter()
            .map(|range| coprocessor::KeyRange { start: range.start.clone(), end: range.end.clone() })
            .collect();
        if self.job.desc {
            sent.reverse();
        }
        let request = coprocessor::Request {
            tp: self.job.kind,
            data: self.job.plan.clone(),
            ranges: sent,
            start_ts: self.snapshot.ts().0,
            paging_size: self.page_rows,
            ..coprocessor::Request::default()
        };
        self.stats.requests.fetch_add(1, Ordering::Relaxed);
        let (cluster, from) = (&self.snapshot.core().cluster, self.snapshot.from());
        let sent = cluster.read(region, request, from, |c| self.snapshot.adjust(c), backoff).await?;
        let Sent::Answer(answer) = sent else { return Ok(None) };
        if let Some(lock) = answer.locked {
            self.snapshot.on_locks(vec![lock], backoff).await?;
            return Ok(None);
        }
        if !answer.other_error.is_empty() {
            return Err(Error::Coprocessor(answer.other_error));
        }
        Ok(Some(answer))
    }
}

/// The region that holds what is to be read next.
async fn locate(
    snapshot: &Snapshot,
    ranges: &VecDeque<KeyRange>,
    desc: bool,
    backoff: &mut Backoff,
) -> Result<Arc<Region>> {
    let Some(next) = ranges.front() else { return Err(Error::Protocol("no range is left".to_owned())) };
    let cluster = &snapshot.core().cluster;
    match desc {
        false => cluster.locate(&codec::encoded_bytes(&next.start), backoff).await,
        true => cluster.locate_before(&codec::encoded_bytes(&next.end), backoff).await,
    }
}

fn bound(region: &Region, key: &[u8]) -> Result<Option<Bytes>> {
    if key.is_empty() {
        return Ok(None);
    }
    let decoded = codec::decode_bytes_exact(key);
    let decoded =
        decoded.map_err(|_| Error::Protocol(format!("region {} has a bound that is no key", region.id())))?;
    Ok(Some(decoded.into()))
}

/// Takes the ranges that lie in the region off the front, cutting the last where the region ends.
fn take_within(ranges: &mut VecDeque<KeyRange>, region: &Region, desc: bool) -> Result<VecDeque<KeyRange>> {
    let far = if desc { bound(region, region.start_key())? } else { bound(region, region.end_key())? };
    let mut within = VecDeque::new();
    while let Some(range) = ranges.pop_front() {
        let Some(far) = &far else {
            within.push_back(range);
            continue;
        };
        let outside = if desc { range.end <= *far } else { range.start >= *far };
        if outside {
            ranges.push_front(range);
            break;
        }
        let across = if desc { range.start < *far } else { range.end > *far };
        if !across {
            within.push_back(range);
            continue;
        }
        let (low, high) = (KeyRange::new(range.start, far.clone()), KeyRange::new(far.clone(), range.end));
        let (inside, rest) = if desc { (high, low) } else { (low, high) };
        within.push_back(inside);
        ranges.push_front(rest);
        break;
    }
    Ok(within)
}

fn give_back(ranges: &mut VecDeque<KeyRange>, unread: VecDeque<KeyRange>) {
    for range in unread.into_iter().rev() {
        ranges.push_front(range);
    }
}

/// What of the ranges lies behind a key in scan order.
fn behind(ranges: VecDeque<KeyRange>, at: &Bytes, desc: bool) -> VecDeque<KeyRange> {
    let cut = |range: KeyRange| match desc {
        false if range.start < *at => KeyRange { start: at.clone(), ..range },
        true if range.end > *at => KeyRange { end: at.clone(), ..range },
        _ => range,
    };
    ranges.into_iter().map(cut).filter(|range| range.start < range.end).collect()
}

/// The ranges of each region, in scan order.
async fn cut_by_region(
    snapshot: &Snapshot,
    ranges: Vec<KeyRange>,
    desc: bool,
) -> Result<VecDeque<VecDeque<KeyRange>>> {
    let mut backoff = Backoff::new(Backoff::READ_MS);
    let mut left: VecDeque<KeyRange> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
    let mut parts = VecDeque::new();
    while !left.is_empty() {
        let region = locate(snapshot, &left, desc, &mut backoff).await?;
        let within = take_within(&mut left, &region, desc)?;
        if within.is_empty() {
            return Err(Error::Protocol(format!("region {} holds no part of a range", region.id())));
        }
        parts.push_back(within);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: &str) -> KeyRange {
        KeyRange::new(start.to_owned(), end.to_owned())
    }

    #[test]
    fn what_is_behind_a_key() {
        let ranges = || VecDeque::from([range("a", "c"), range("d", "f")]);
        let at = |key: &'static str| Bytes::from_static(key.as_bytes());
        assert_eq!(behind(ranges(), &at("b"), false), [range("b", "c"), range("d", "f")]);
        assert_eq!(behind(ranges(), &at("c"), false), [range("d", "f")]);
        let reversed: VecDeque<_> = ranges().into_iter().rev().collect();
        assert_eq!(behind(reversed.clone(), &at("e"), true), [range("d", "e"), range("a", "c")]);
        assert!(behind(reversed, &at("a"), true).is_empty());
    }
}
