//! Pages of a range, region after region, merged with own writes.

use std::cmp::Ordering;
use std::collections::VecDeque;

use bytes::Bytes;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::ScanRequest;
use rutile_proto::{codec, kvrpcpb};

use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::region_cache::Region;
use crate::sender::Sent;
use crate::txn::snapshot::lock_of;
use crate::txn::{KeyRange, KvPair, ScanOptions, Snapshot};

/// Pairs of the first page, when no limit says otherwise; later pages grow.
const FIRST_PAGE: usize = 128;
/// Most pairs of a page.
const PAGE_MAX: usize = 4096;

/// An own write: `None` deletes.
type OwnWrite = (Bytes, Option<Bytes>);

/// Reads a range page by page, in key order (descending when reversed), merged with a transaction's own writes where it
/// was made by one. Not cancel-safe: a dropped `next_page` may lose a page.
pub struct Scanner {
    snapshot: Snapshot,
    /// What is left of the range in the store.
    range: KeyRange,
    at_end: bool,
    reverse: bool,
    key_only: bool,
    limit_left: usize,
    page: usize,
    own: VecDeque<OwnWrite>,
}

impl Scanner {
    /// `own`: the writes within `range` in ascending order.
    pub(crate) fn new(snapshot: Snapshot, range: KeyRange, options: ScanOptions, own: Vec<OwnWrite>) -> Self {
        let mut own = VecDeque::from(own);
        if options.reverse {
            own.make_contiguous().reverse();
        }
        Scanner {
            at_end: range.is_empty(),
            snapshot,
            range,
            reverse: options.reverse,
            key_only: options.key_only,
            limit_left: options.limit.unwrap_or(usize::MAX),
            page: FIRST_PAGE,
            own,
        }
    }

    /// The next pairs (at least one), or `None` at the end.
    pub async fn next_page(&mut self) -> Result<Option<Vec<KvPair>>> {
        while self.limit_left > 0 {
            if self.at_end && self.own.is_empty() {
                return Ok(None);
            }
            let stored = if self.at_end { Vec::new() } else { self.fetch().await? };
            let mut merged = if self.own.is_empty() { stored } else { self.merge(stored) };
            merged.truncate(self.limit_left);
            if !merged.is_empty() {
                self.limit_left -= merged.len();
                return Ok(Some(merged));
            }
        }
        Ok(None)
    }

    /// Everything that is left.
    pub async fn collect(mut self) -> Result<Vec<KvPair>> {
        let mut all = Vec::new();
        while let Some(page) = self.next_page().await? {
            if all.is_empty() {
                all = page;
            } else {
                all.extend(page);
            }
        }
        Ok(all)
    }

    /// Own writes up to the last stored pair (all, at the end) join the page; a deletion hides a pair.
    fn merge(&mut self, stored: Vec<KvPair>) -> Vec<KvPair> {
        let reverse = self.reverse;
        let order = |a: &Bytes, b: &Bytes| if reverse { b.cmp(a) } else { a.cmp(b) };
        let last = if self.at_end { None } else { stored.last().map(|p| p.key.clone()) };
        if !self.at_end && last.is_none() {
            return stored;
        }
        let mut out = Vec::with_capacity(stored.len() + 1);
        let mut stored = stored.into_iter().peekable();
        loop {
            let own_key = self.own.front().map(|(k, _)| k);
            let in_page = |k: &&Bytes| last.as_ref().is_none_or(|l| order(k, l) != Ordering::Greater);
            match (own_key.filter(in_page), stored.peek()) {
                (None, None) => return out,
                (None, Some(_)) => out.extend(stored.next()),
                (Some(own), pair) => {
                    let ordering = pair.map_or(Ordering::Less, |p| order(own, &p.key));
                    if ordering == Ordering::Greater {
                        out.extend(stored.next());
                        continue;
                    }
                    if ordering == Ordering::Equal {
                        stored.next();
                    }
                    if let Some((key, Some(value))) = self.own.pop_front() {
                        out.push(KvPair { key, value: if self.key_only { Bytes::new() } else { value } });
                    }
                }
            }
        }
    }

    /// The next pairs from the store; may be empty. Moves `range` on.
    async fn fetch(&mut self) -> Result<Vec<KvPair>> {
        let mut backoff = Backoff::new(Backoff::READ_MS);
        let wanted = self.limit_left.saturating_add(self.own.len()).min(self.page);
        self.page = (self.page * 2).min(PAGE_MAX);
        loop {
            let cluster = self.snapshot.core().cluster.clone();
            let region = if self.reverse {
                let end = if self.range.end.is_empty() {
                    Vec::new()
                } else {
                    codec::encoded_bytes(&self.range.end)
                };
                cluster.locate_before(&end, &mut backoff).await?
            } else {
                cluster.locate(&codec::encoded_bytes(&self.range.start), &mut backoff).await?
            };
            let request = self.request(wanted);
            let (from, snapshot) = (self.snapshot.from(), &self.snapshot);
            let sent = cluster.read(&region, request, from, |c| snapshot.adjust(c), &mut backoff).await?;
            let Sent::Answer(answer) = sent else { continue };
            if let Some(error) = answer.error {
                self.snapshot.on_locks(vec![lock_of(error, self.snapshot.ts())?], &mut backoff).await?;
                continue;
            }
            let whole = answer.pairs.len() < wanted;
            let (pairs, locks) = split_locked(answer.pairs, self.snapshot.ts())?;
            if locks.is_empty() && whole {
                self.leave_region(&region)?;
            } else if let Some(last) = pairs.last() {
                self.move_past(&last.key);
            }
            if !locks.is_empty() {
                self.snapshot.on_locks(locks, &mut backoff).await?;
                if pairs.is_empty() {
                    continue;
                }
            }
            return Ok(pairs);
        }
    }

    fn request(&self, limit: usize) -> ScanRequest {
        let (start_key, end_key) = if self.reverse {
            (self.range.end.clone(), self.range.start.clone())
        } else {
            (self.range.start.clone(), self.range.end.clone())
        };
        ScanRequest {
            start_key,
            end_key,
            limit: limit as u32,
            version: self.snapshot.ts().0,
            key_only: self.key_only,
            reverse: self.reverse,
            ..Default::default()
        }
    }

    fn move_past(&mut self, last: &Bytes) {
        if self.reverse {
            self.range.end = last.clone();
        } else {
            let mut next = Vec::with_capacity(last.len() + 1);
            next.extend_from_slice(last);
            next.push(0);
            self.range.start = next.into();
        }
        self.at_end = self.range.is_empty() || (self.reverse && self.range.end.is_empty());
    }

    /// Goes on at the region's far bound.
    fn leave_region(&mut self, region: &Region) -> Result<()> {
        let bound = if self.reverse { region.start_key() } else { region.end_key() };
        if bound.is_empty() {
            self.at_end = true;
            return Ok(());
        }
        let bound = codec::decode_bytes_exact(bound)
            .map_err(|_| Error::Protocol(format!("region {} has a bound that is no key", region.id())))?;
        if self.reverse {
            self.range.end = bound.into();
        } else {
            self.range.start = bound.into();
        }
        self.at_end = self.range.is_empty() || (self.reverse && self.range.end.is_empty());
        Ok(())
    }
}

/// The pairs before the first locked key, and all locks met.
fn split_locked(
    answer: Vec<kvrpcpb::KvPair>,
    ts: Timestamp,
) -> Result<(Vec<KvPair>, Vec<kvrpcpb::LockInfo>)> {
    let mut pairs = Vec::with_capacity(answer.len());
    let mut locks = Vec::new();
    for pair in answer {
        match pair.error {
            Some(error) => locks.push(lock_of(*error, ts)?),
            None if locks.is_empty() => pairs.push(KvPair { key: pair.key, value: pair.value }),
            None => {}
        }
    }
    Ok((pairs, locks))
}
