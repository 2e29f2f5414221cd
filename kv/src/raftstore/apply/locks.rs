//! Changes of locks, collected while entries take effect and told to who watches them.

use super::RegionHandle;
use crate::engine::Cf;
use crate::raftstore::command::Change;
use rutile_proto::ids::Timestamp;

/// Of one region, in the current batch.
#[derive(Default)]
pub(super) struct LockChanges {
    changes: Vec<(Box<[u8]>, Option<Timestamp>)>,
    /// There were some that nobody watched, or that are not single keys.
    lost: bool,
}

impl LockChanges {
    /// Takes one change of an entry.
    pub(super) fn note(&mut self, handle: &RegionHandle, change: &Change<'_>) {
        let (key, lock) = match change {
            Change::Put(Cf::Lock, key, lock) => (*key, Some(*lock)),
            Change::Delete(Cf::Lock, key) => (*key, None),
            Change::DeleteRange(Cf::Lock, ..) => {
                self.lost = true;
                return;
            }
            _ => return,
        };
        match &*handle.lock_watch.read() {
            Some(watch) => self.changes.push((key.into(), lock.and_then(|lock| watch.digest(lock)))),
            None => self.lost = true,
        }
    }

    /// After the batch is visible. A watch that came after some of the changes hears that it missed them: whether what it looks at
    /// itself has them is not known.
    pub(super) fn deliver(&mut self, handle: &RegionHandle) {
        let lost = std::mem::take(&mut self.lost);
        if !lost && self.changes.is_empty() {
            return;
        }
        match &*handle.lock_watch.read() {
            Some(watch) if lost => watch.on_lost(),
            Some(watch) => watch.on_changes(&mut self.changes),
            None => {}
        }
        self.changes.clear();
    }
}
