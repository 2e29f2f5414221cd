//! Latches: writers of the same key run one after the other.
//!
//! A key hashes to a slot; a command takes its slots in ascending order, so two commands never wait for each
//! other in a circle. A slot is handed over to the longest waiter. Taking is cancel-safe: a waiter that goes away
//! passes the slot on.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;

const SLOT_COUNT: usize = 1 << 14;

#[derive(Default)]
struct Slot {
    held: bool,
    waiters: VecDeque<oneshot::Sender<SlotGuard>>,
}

struct Inner {
    slots: Vec<Mutex<Slot>>,
    hasher: RandomState,
}

/// All latches of a store. Cheap to clone.
#[derive(Clone)]
pub struct Latches(Arc<Inner>);

/// One slot held.
struct SlotGuard {
    /// `None` once released.
    latches: Option<Arc<Inner>>,
    slot: usize,
}

/// The latches of one command; released on drop.
pub struct LatchGuard {
    _slots: SmallVec<[SlotGuard; 4]>,
}

impl Default for Latches {
    fn default() -> Self {
        let slots = (0..SLOT_COUNT).map(|_| Mutex::default()).collect();
        Latches(Arc::new(Inner { slots, hasher: RandomState::new() }))
    }
}

impl Latches {
    /// Takes the latches of `keys`, waiting for those who hold them.
    pub async fn acquire<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> LatchGuard {
        let mut slots: SmallVec<[usize; 8]> =
            keys.map(|k| self.0.hasher.hash_one(k) as usize % SLOT_COUNT).collect();
        slots.sort_unstable();
        slots.dedup();
        let mut held = SmallVec::with_capacity(slots.len());
        for slot in slots {
            held.push(self.acquire_slot(slot).await);
        }
        LatchGuard { _slots: held }
    }

    async fn acquire_slot(&self, slot: usize) -> SlotGuard {
        let waiting = {
            let mut state = self.0.slots[slot].lock();
            if state.held {
                let (sender, receiver) = oneshot::channel();
                state.waiters.push_back(sender);
                Some(receiver)
            } else {
                state.held = true;
                None
            }
        };
        match waiting {
            None => SlotGuard { latches: Some(self.0.clone()), slot },
            // The sender lives in the slot until it hands the guard over.
            Some(receiver) => receiver.await.expect("a latch slot outlives its waiters"),
        }
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let Some(latches) = self.latches.take() else { return };
        loop {
            let next = {
                let mut state = latches.slots[self.slot].lock();
                match state.waiters.pop_front() {
                    None => {
                        state.held = false;
                        return;
                    }
                    Some(next) => next,
                }
            };
            let guard = SlotGuard { latches: Some(latches.clone()), slot: self.slot };
            match next.send(guard) {
                Ok(()) => return,
                // The waiter is gone: disarm its guard and try the next one.
                Err(mut guard) => guard.latches = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn keys<'a>(keys: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
        keys.iter().copied()
    }

    #[tokio::test]
    async fn one_holder_at_a_time_in_order() {
        let latches = Latches::default();
        let first = latches.acquire(keys(&[b"a", b"b"])).await;
        let mut second = Box::pin(latches.acquire(keys(&[b"b", b"c"])));
        let mut third = Box::pin(latches.acquire(keys(&[b"b"])));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        let second = second.now_or_never().unwrap();
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        third.now_or_never().unwrap();
    }

    #[tokio::test]
    async fn a_cancelled_waiter_passes_the_latch_on() {
        let latches = Latches::default();
        let first = latches.acquire(keys(&[b"a"])).await;
        let mut cancelled_before = Box::pin(latches.acquire(keys(&[b"a"])));
        let mut cancelled_after = Box::pin(latches.acquire(keys(&[b"a"])));
        let mut last = Box::pin(latches.acquire(keys(&[b"a"])));
        assert!((&mut cancelled_before).now_or_never().is_none());
        assert!((&mut cancelled_after).now_or_never().is_none());
        assert!((&mut last).now_or_never().is_none());
        drop(cancelled_before);
        drop(first);
        drop(cancelled_after);
        last.now_or_never().unwrap();
        latches.acquire(keys(&[b"a"])).now_or_never().unwrap();
    }
}
