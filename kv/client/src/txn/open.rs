//! Which timestamps are being read at: garbage collection must leave their versions alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rutile_proto::ids::Timestamp;

/// Open transactions and snapshots of one client, by timestamp.
#[derive(Debug, Default)]
pub(crate) struct OpenTimestamps(Mutex<BTreeMap<Timestamp, usize>>);

/// Keeps one timestamp open until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenGuard {
    all: Arc<OpenTimestamps>,
    ts: Timestamp,
}

impl OpenTimestamps {
    /// Opens `ts`. Reads of the newest data (`MAX`) need no versions: they are not counted.
    pub fn enter(self: &Arc<Self>, ts: Timestamp) -> Option<OpenGuard> {
        if ts == Timestamp::MAX {
            return None;
        }
        *self.0.lock().entry(ts).or_default() += 1;
        Some(OpenGuard { all: Arc::clone(self), ts })
    }

    /// The oldest one.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.0.lock().first_key_value().map(|(ts, _)| *ts)
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        if let Some(count) = all.get_mut(&self.ts) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.ts);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_counts_until_its_last_user_is_gone() {
        let open = Arc::new(OpenTimestamps::default());
        assert!(open.enter(Timestamp::MAX).is_none());
        assert_eq!(open.oldest(), None);
        let (first, again, later) =
            (open.enter(Timestamp(5)), open.enter(Timestamp(5)), open.enter(Timestamp(9)));
        drop(first);
        assert_eq!(open.oldest(), Some(Timestamp(5)));
        drop(again);
        assert_eq!(open.oldest(), Some(Timestamp(9)));
        drop(later);
        assert_eq!(open.oldest(), None);
    }
}
