//! What a writing command sees: a region's snapshot and the pessimistic locks in memory.

use std::ops::{Deref, DerefMut};

use super::error::Result;
use super::memory_locks::RegionView;
use crate::mvcc::key::Key;
use crate::mvcc::lock::Lock;
use crate::mvcc::reader::MvccReader;

/// A lock and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLock {
    pub lock: Lock,
    /// Only on the leader, not replicated.
    pub in_memory: bool,
}

/// A command's view. Versions come from the [`MvccReader`] it dereferences to.
pub struct CommandReader {
    mvcc: MvccReader,
    memory: RegionView,
}

impl CommandReader {
    /// A view of a snapshot and of the memory locks of the same region and term.
    #[must_use]
    pub fn new(mvcc: MvccReader, memory: RegionView) -> Self {
        CommandReader { mvcc, memory }
    }

    /// The lock of `key`, in memory or stored.
    pub fn find_lock(&self, key: &Key) -> Result<Option<FoundLock>> {
        if let Some(lock) = self.memory.get(key.encoded()) {
            return Ok(Some(FoundLock { lock, in_memory: true }));
        }
        let stored = self.mvcc.load_lock(key)?;
        Ok(stored.map(|lock| FoundLock { lock, in_memory: false }))
    }

    /// Locks of both kinds in `[start, end)` (PD form) that `want` accepts, in key order, at most `limit` (0 = all).
    pub fn find_locks(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        want: impl Fn(&Lock) -> bool,
    ) -> Result<Vec<(Key, FoundLock)>> {
        let stored = self.mvcc.scan_locks(start, end, limit, &want)?;
        let in_memory = self.memory.scan(start, end, &want);
        let mut found: Vec<_> =
            stored.into_iter().map(|(key, lock)| (key, FoundLock { lock, in_memory: false })).collect();
        if !in_memory.is_empty() {
            for (encoded, lock) in in_memory {
                let key = Key::from_encoded(&encoded).map_err(crate::mvcc::Error::from)?;
                found.push((key, FoundLock { lock, in_memory: true }));
            }
            found.sort_by(|(a, _), (b, _)| a.cmp(b));
            if limit > 0 {
                found.truncate(limit);
            }
        }
        Ok(found)
    }
}

impl Deref for CommandReader {
    type Target = MvccReader;

    fn deref(&self) -> &MvccReader {
        &self.mvcc
    }
}

impl DerefMut for CommandReader {
    fn deref_mut(&mut self) -> &mut MvccReader {
        &mut self.mvcc
    }
}
