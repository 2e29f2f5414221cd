//! A range at one timestamp, forward or backward: one cursor over CF `write`, one over CF `lock`, merged by key.
//!
//! Unwanted versions are stepped over a few times, then sought past.

use std::cmp::Ordering;

use bytes::Bytes;
use rutile_proto::codec;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::IsolationLevel;

use super::key::{append_ts, split_ts};
use super::lock::{Lock, LockType};
use super::pair::{Arena, PairKey};
use super::point_getter::Version;
use super::reader::load_long_value;
use super::write::{Write, WriteRef, WriteType};
use super::{
    Error, LockEffect, ReadOptions, Result, STEPS_BEFORE_SEEK_MAX, blocked, lock_effect, rc_check_ts,
};
use crate::engine::{Cf, IterOptions};
use crate::raftstore::{RegionIterator, RegionSnapshot};

/// A key (request form) with its visible version, or the error that its lock is.
pub type ScanItem = (Bytes, std::result::Result<Version, Error>);

/// Walks the visible versions of `[lower, upper)`.
pub struct Scanner {
    snapshot: RegionSnapshot,
    options: ReadOptions,
    reverse: bool,
    write: RegionIterator,
    /// `None` when locks do not matter.
    lock: Option<RegionIterator>,
    started: bool,
    /// Room for the key that is looked at; after [`Scanner::visit`], the last one visited.
    encoded: Vec<u8>,
    arena: Arena,
    /// Over CF `default`, for [`Scanner::visit`].
    values: Option<RegionIterator>,
    visited: bool,
    newer_seen: bool,
    /// Bounds of the range, in PD form.
    bounds: (Vec<u8>, Vec<u8>),
    /// Up to where [`Scanner::visit`] has looked for locks: the first key behind it.
    checked_to: Vec<u8>,
}

impl Scanner {
    /// A scanner over `[lower, upper)` (PD form, empty = unbounded), clamped to the region.
    #[must_use]
    pub fn new(
        snapshot: &RegionSnapshot,
        lower: &[u8],
        upper: &[u8],
        reverse: bool,
        options: ReadOptions,
    ) -> Self {
        let bounds = || IterOptions {
            lower: lower.to_vec(),
            upper: upper.to_vec(),
            prefix_seek: false,
            skip_cache: options.skip_cache,
        };
        let write = snapshot.iter(Cf::Write, bounds());
        Scanner {
            snapshot: snapshot.clone(),
            options,
            reverse,
            write,
            lock: None,
            started: false,
            encoded: Vec::with_capacity(64),
            arena: Arena::default(),
            values: None,
            visited: false,
            newer_seen: false,
            bounds: (lower.to_vec(), upper.to_vec()),
            checked_to: lower.to_vec(),
        }
    }

    /// Hands visible pairs over until `take` is false (there may be more then: true), or the range ends (false). A key that is locked
    /// ends the scan with its error, which may come after the pairs around it have been handed over: they are worth nothing then.
    ///
    /// Locks are looked for behind the pairs, as far as those went: removed locks leave many records behind, which a look ahead over the
    /// whole range would step over for each page again.
    pub fn visit<E: From<Error>>(
        &mut self,
        take: &mut dyn FnMut(PairKey<'_>, &[u8]) -> std::result::Result<bool, E>,
    ) -> std::result::Result<bool, E> {
        let simple = !self.reverse
            && self.options.isolation == IsolationLevel::Si
            && self.options.access_locks.is_empty();
        if !simple || self.lock.is_some() {
            return self.visit_merged(take);
        }
        if !self.started {
            self.started = true;
            self.write.seek_to_first().map_err(Error::from)?;
        }
        let more = loop {
            let go_on = match self.visit_plain(take)? {
                Some(go_on) => go_on,
                None if !self.write.valid() => break false,
                None => match self.step_committed()? {
                    None => true,
                    Some(version) => {
                        self.visited = true;
                        take(PairKey::Encoded(&self.encoded), &version.value)?
                    }
                },
            };
            if !go_on {
                break true;
            }
        };
        self.check_locks(more)?;
        Ok(more)
    }

    /// As [`Scanner::visit`], in any direction and isolation.
    fn visit_merged<E: From<Error>>(
        &mut self,
        take: &mut dyn FnMut(PairKey<'_>, &[u8]) -> std::result::Result<bool, E>,
    ) -> std::result::Result<bool, E> {
        self.newer_seen = true;
        loop {
            match self.next()? {
                None => return Ok(false),
                Some((_, Err(error))) => return Err(error.into()),
                Some((key, Ok(version))) => {
                    self.encoded.clear();
                    codec::encode_bytes(&mut self.encoded, &key);
                    self.visited = true;
                    if !take(PairKey::Raw(&key), &version.value)? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// The visible version of the key under the write cursor, whose key goes to `encoded`.
    fn step_committed(&mut self) -> Result<Option<Version>> {
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        encoded.extend_from_slice(split_ts(self.write.key())?.0);
        let version = self.committed_forward(&encoded);
        self.encoded = encoded;
        version
    }

    /// Fails for a lock between what was checked before and the last key visited (the end of the range, if there is no more).
    fn check_locks(&mut self, more: bool) -> Result<()> {
        let upper = match more {
            // Just behind the key: nothing is between it and itself with a byte more.
            true => self.encoded.iter().copied().chain([0]).collect(),
            false => self.bounds.1.clone(),
        };
        let bounds = IterOptions {
            lower: std::mem::replace(&mut self.checked_to, upper.clone()),
            upper,
            prefix_seek: false,
            skip_cache: self.options.skip_cache,
        };
        let mut locks = self.snapshot.iter(Cf::Lock, bounds);
        let mut found = locks.seek_to_first()?;
        self.newer_seen |= found;
        while found {
            let lock = Lock::parse(locks.value())?;
            let raw = raw_key(locks.key())?;
            if lock_effect(&lock, &raw, &self.options) != LockEffect::Ignore {
                return Err(blocked(&lock, raw, &self.options));
            }
            found = locks.next()?;
        }
        Ok(())
    }

    /// Forward: hands the pair under the cursor over where the newest version is visible, and says whether `take` wants more.
    /// `None`: it is not as simple, or there is no more.
    fn visit_plain<E: From<Error>>(
        &mut self,
        take: &mut dyn FnMut(PairKey<'_>, &[u8]) -> std::result::Result<bool, E>,
    ) -> std::result::Result<Option<bool>, E> {
        if !self.write.valid() {
            return Ok(None);
        }
        let (key, commit_ts) = split_ts(self.write.key()).map_err(Error::from)?;
        if commit_ts > self.options.ts {
            self.newer_seen = true;
            return Ok(None);
        }
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        encoded.extend_from_slice(key);
        let taken = self.take_newest(&encoded, take);
        self.encoded = encoded;
        let Some(go_on) = taken? else { return Ok(Some(true)) };
        self.visited = true;
        Ok(Some(go_on))
    }

    /// Hands the newest version over that is one of the key under the cursor, if it is a value, and leaves the key.
    fn take_newest<E: From<Error>>(
        &mut self,
        encoded: &[u8],
        take: &mut dyn FnMut(PairKey<'_>, &[u8]) -> std::result::Result<bool, E>,
    ) -> std::result::Result<Option<bool>, E> {
        let mut go_on = None;
        loop {
            let write = WriteRef::parse(self.write.value()).map_err(Error::from)?;
            match (write.write_type, write.short_value) {
                // A mark that guarded the row, or of a transaction that is none.
                (WriteType::Lock | WriteType::Rollback, _) => {
                    self.write.next().map_err(Error::from)?;
                    if self.on_key(encoded) {
                        continue;
                    }
                    return Ok(None);
                }
                (WriteType::Delete, _) => {}
                (WriteType::Put, _) if self.options.key_only => {
                    go_on = Some(take(PairKey::Encoded(encoded), &[])?);
                }
                (WriteType::Put, Some(value)) => go_on = Some(take(PairKey::Encoded(encoded), value)?),
                (WriteType::Put, None) => {
                    let start_ts = write.start_ts;
                    let cursor = self.seek_value(encoded, start_ts)?;
                    go_on = Some(take(PairKey::Encoded(encoded), cursor.value())?);
                }
            }
            self.leave_key(encoded)?;
            return Ok(go_on);
        }
    }

    /// A cursor on the long value of a version. Rows come in the order of their values, so that the next is mostly near.
    fn seek_value(&mut self, encoded: &[u8], start_ts: Timestamp) -> Result<&RegionIterator> {
        let wanted = append_ts(encoded, start_ts);
        let snapshot = &self.snapshot;
        let skip_cache = self.options.skip_cache;
        let cursor = self.values.get_or_insert_with(|| {
            let bounds = IterOptions { skip_cache, ..IterOptions::default() };
            snapshot.iter(Cf::Default, bounds)
        });
        let mut steps = 0;
        while cursor.valid() && cursor.key() < &wanted[..] && steps < STEPS_BEFORE_SEEK_MAX {
            cursor.next()?;
            steps += 1;
        }
        if !(cursor.valid() && cursor.key() == &wanted[..]) {
            cursor.seek(&wanted)?;
        }
        if cursor.valid() && cursor.key() == &wanted[..] {
            return Ok(cursor);
        }
        Err(Error::ValueMissing { start_ts })
    }

    /// The last key visited, in request form.
    pub fn last_key(&self) -> Result<Option<Vec<u8>>> {
        if !self.visited {
            return Ok(None);
        }
        Ok(Some(codec::decode_bytes_exact(&self.encoded)?))
    }

    /// Whether [`Scanner::visit`] met what a later snapshot may see otherwise though nothing is written in between: a version newer than
    /// this one, or a lock.
    #[must_use]
    pub fn newer_seen(&self) -> bool {
        self.newer_seen
    }

    /// The next key that is visible or locked; `None` at the end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<ScanItem>> {
        if !self.started {
            self.started = true;
            if self.options.checks_locks() {
                let (lower, upper) = self.bounds.clone();
                let bounds =
                    IterOptions { lower, upper, prefix_seek: false, skip_cache: self.options.skip_cache };
                self.lock = Some(self.snapshot.iter(Cf::Lock, bounds));
            }
            self.position()?;
        }
        let mut encoded = std::mem::take(&mut self.encoded);
        let item = self.next_into(&mut encoded);
        self.encoded = encoded;
        item
    }

    fn next_into(&mut self, encoded: &mut Vec<u8>) -> Result<Option<ScanItem>> {
        loop {
            encoded.clear();
            let Some((locked, written)) = self.current(encoded)? else { return Ok(None) };
            let encoded = &encoded[..];
            let visible = if locked { self.step_lock(encoded)? } else { Ok(LockView::Committed) };
            let item = match visible {
                Err(error) => {
                    if written {
                        self.leave_key(encoded)?;
                    }
                    Some(Err(error))
                }
                Ok(LockView::Value(version)) => {
                    if written {
                        self.leave_key(encoded)?;
                    }
                    version.map(Ok)
                }
                Ok(LockView::Committed) if !written => None,
                Ok(LockView::Committed) => self.committed(encoded).transpose(),
            };
            match item {
                None => {}
                Some(Err(e @ (Error::KeyIsLocked(_) | Error::RcCheckTs(_)))) => {
                    return Ok(Some((self.arena.raw_key(encoded)?, Err(e))));
                }
                Some(Err(e)) => return Err(e),
                Some(Ok(version)) => return Ok(Some((self.arena.raw_key(encoded)?, Ok(version)))),
            }
        }
    }

    fn position(&mut self) -> Result<()> {
        let reverse = self.reverse;
        for cursor in [Some(&mut self.write), self.lock.as_mut()].into_iter().flatten() {
            if reverse {
                cursor.seek_to_last()?;
            } else {
                cursor.seek_to_first()?;
            }
        }
        Ok(())
    }

    /// Puts the key both cursors come to next into `encoded`; says which of them (lock, write) stand on it.
    fn current(&self, encoded: &mut Vec<u8>) -> Result<Option<(bool, bool)>> {
        let written = if self.write.valid() { Some(split_ts(self.write.key())?.0) } else { None };
        let locked = self.lock.as_ref().filter(|c| c.valid()).map(RegionIterator::key);
        let (key, stand) = match (locked, written) {
            (None, None) => return Ok(None),
            (Some(l), None) => (l, (true, false)),
            (None, Some(w)) => (w, (false, true)),
            (Some(l), Some(w)) => match if self.reverse { w.cmp(l) } else { l.cmp(w) } {
                Ordering::Less => (l, (true, false)),
                Ordering::Equal => (l, (true, true)),
                Ordering::Greater => (w, (false, true)),
            },
        };
        encoded.extend_from_slice(key);
        Ok(Some(stand))
    }

    /// Judges the lock under the lock cursor and moves past it. The inner error is the key's, not the scan's.
    fn step_lock(&mut self, encoded: &[u8]) -> Result<Result<LockView>> {
        let cursor = self.lock.as_mut().expect("a locked key comes from the lock cursor");
        let lock = Lock::parse(cursor.value())?;
        if self.reverse {
            cursor.prev()?;
        } else {
            cursor.next()?;
        }
        let raw = raw_key(encoded)?;
        Ok(match lock_effect(&lock, &raw, &self.options) {
            LockEffect::Ignore => Ok(LockView::Committed),
            LockEffect::Block => Err(blocked(&lock, raw, &self.options)),
            LockEffect::ReadThrough => match lock.lock_type {
                LockType::Put => {
                    let value = match lock.short_value {
                        _ if self.options.key_only => Bytes::new(),
                        Some(value) => value,
                        None => load_long_value(&self.snapshot, encoded, lock.start_ts)?,
                    };
                    Ok(LockView::Value(Some(Version { value, commit_ts: Timestamp::ZERO })))
                }
                LockType::Delete => Ok(LockView::Value(None)),
                LockType::Lock | LockType::Pessimistic => Ok(LockView::Committed),
            },
        })
    }

    /// The visible version of the key under the write cursor; moves past the key.
    fn committed(&mut self, encoded: &[u8]) -> Result<Option<Version>> {
        if self.reverse { self.committed_backward(encoded) } else { self.committed_forward(encoded) }
    }

    fn on_key(&self, encoded: &[u8]) -> bool {
        self.write.valid() && split_ts(self.write.key()).is_ok_and(|(k, _)| k == encoded)
    }

    /// The cursor is on the newest version and goes to older ones.
    fn committed_forward(&mut self, encoded: &[u8]) -> Result<Option<Version>> {
        let ts = self.options.ts;
        let mut steps = 0;
        while self.on_key(encoded) {
            let (_, commit_ts) = split_ts(self.write.key())?;
            if commit_ts <= ts {
                break;
            }
            if self.options.isolation == IsolationLevel::RcCheckTs {
                let write = WriteRef::parse(self.write.value())?;
                if matches!(write.write_type, WriteType::Put | WriteType::Delete) {
                    let error = rc_check_ts(ts, write.start_ts, commit_ts, raw_key(encoded)?);
                    self.leave_key(encoded)?;
                    return Err(error);
                }
            }
            steps += 1;
            if steps > STEPS_BEFORE_SEEK_MAX && self.options.isolation != IsolationLevel::RcCheckTs {
                self.write.seek(&append_ts(encoded, ts))?;
            } else {
                self.write.next()?;
            }
        }
        let version = self.newest_from_here(encoded)?;
        self.leave_key(encoded)?;
        Ok(version)
    }

    /// The cursor is on a version ≤ ts: the first Put or Delete from here on.
    fn newest_from_here(&mut self, encoded: &[u8]) -> Result<Option<Version>> {
        while self.on_key(encoded) {
            let (_, commit_ts) = split_ts(self.write.key())?;
            let write = WriteRef::parse(self.write.value())?;
            match write.write_type {
                WriteType::Put => {
                    let value = match write.short_value {
                        _ if self.options.key_only => Bytes::new(),
                        Some(value) => self.arena.value(value),
                        None => load_long_value(&self.snapshot, encoded, write.start_ts)?,
                    };
                    return Ok(Some(Version { value, commit_ts }));
                }
                WriteType::Delete => return Ok(None),
                WriteType::Lock | WriteType::Rollback => {}
            }
            self.write.next()?;
        }
        Ok(None)
    }

    /// The cursor is on the oldest version and goes to newer ones.
    fn committed_backward(&mut self, encoded: &[u8]) -> Result<Option<Version>> {
        let ts = self.options.ts;
        let mut best: Option<(Timestamp, Write)> = None;
        let mut steps = 0;
        while self.on_key(encoded) {
            let (_, commit_ts) = split_ts(self.write.key())?;
            let write = WriteRef::parse(self.write.value())?;
            let is_data = matches!(write.write_type, WriteType::Put | WriteType::Delete);
            if commit_ts > ts {
                if is_data && self.options.isolation == IsolationLevel::RcCheckTs {
                    let error = rc_check_ts(ts, write.start_ts, commit_ts, raw_key(encoded)?);
                    self.leave_key(encoded)?;
                    return Err(error);
                }
                if self.options.isolation != IsolationLevel::RcCheckTs {
                    break;
                }
            } else if is_data {
                best = Some((commit_ts, write.to_owned()));
            }
            steps += 1;
            if steps > STEPS_BEFORE_SEEK_MAX && self.options.isolation != IsolationLevel::RcCheckTs {
                self.write.seek(&append_ts(encoded, ts))?;
                let version = self.newest_from_here(encoded)?;
                self.leave_key(encoded)?;
                return Ok(version);
            }
            self.write.prev()?;
        }
        self.leave_key(encoded)?;
        let Some((commit_ts, write)) = best.filter(|(_, w)| w.write_type == WriteType::Put) else {
            return Ok(None);
        };
        let value = match write.short_value {
            _ if self.options.key_only => Bytes::new(),
            Some(value) => value,
            None => load_long_value(&self.snapshot, encoded, write.start_ts)?,
        };
        Ok(Some(Version { value, commit_ts }))
    }

    /// Moves the write cursor off `encoded`, in scan direction.
    fn leave_key(&mut self, encoded: &[u8]) -> Result<()> {
        if !self.write.valid() && self.reverse {
            // A seek within the key ran off the upper bound.
            self.write.seek_for_prev(&append_ts(encoded, Timestamp::MAX))?;
            return Ok(());
        }
        let mut steps = 0;
        while self.on_key(encoded) {
            steps += 1;
            match (self.reverse, steps > STEPS_BEFORE_SEEK_MAX) {
                (false, false) => self.write.next()?,
                (false, true) => {
                    self.write.seek(&append_ts(encoded, Timestamp::ZERO))?;
                    if self.on_key(encoded) { self.write.next()? } else { self.write.valid() }
                }
                (true, false) => self.write.prev()?,
                (true, true) => self.write.seek_for_prev(&append_ts(encoded, Timestamp::MAX))?,
            };
        }
        // A backward scan may have gone forward past the key while it looked for the version.
        if self.reverse && self.write.valid() && split_ts(self.write.key())?.0 > encoded {
            self.write.seek_for_prev(&append_ts(encoded, Timestamp::MAX))?;
        }
        Ok(())
    }
}

/// What a lock lets a scan see.
enum LockView {
    /// The committed versions.
    Committed,
    /// The lock's own value; `None` is a removal.
    Value(Option<Version>),
}

fn raw_key(encoded: &[u8]) -> Result<Bytes> {
    Ok(Bytes::from(codec::decode_bytes_exact(encoded)?))
}
