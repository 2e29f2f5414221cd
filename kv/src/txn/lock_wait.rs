//! Transactions that wait for a pessimistic lock, in a queue per key.
//!
//! Whoever waits longest is woken first and tries again; the others stay. A wake-up is a token: unless the woken one
//! got the lock or queued up again, dropping it wakes the next. So no wake-up is lost when a waiter goes away.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rutile_proto::deadlock::{DeadlockRequest, DeadlockRequestType};
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{Deadlock, WaitForEntry};
use tokio::sync::{mpsc, oneshot};

use super::deadlock::{Edge, WaitForGraph, key_hash};
use crate::mvcc::key::Key;

/// Longest wait; below the 2 s after which some clients give the request up.
pub const WAIT_MS_MAX: u64 = 1000;
/// After a woken transaction failed with a conflict, its retry gets this head start before the next is woken.
const PASS_ON_DELAY: Duration = Duration::from_millis(5);

/// Why a waiter is woken.
pub enum Wake {
    /// The lock is gone; try again.
    Released(WakeToken),
    /// Another transaction got the lock, and waiting for that one would never end.
    Deadlock(Box<Deadlock>),
}

struct Waiter {
    start_ts: Timestamp,
    holder: Timestamp,
    /// When the holder was last seen to change.
    holder_since: Instant,
    /// Whether the wait is an edge in the graph.
    in_graph: bool,
    sender: oneshot::Sender<Wake>,
}

#[derive(Default)]
struct State {
    queues: HashMap<Vec<u8>, BTreeMap<u64, Waiter>>,
    graph: WaitForGraph,
    next_ticket: u64,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// Waiters in all queues: lets a release skip the mutex.
    waiting: AtomicUsize,
    /// To the store that looks for circles over all stores.
    detector: OnceLock<mpsc::Sender<DeadlockRequest>>,
    /// Something did not fit in there.
    lost: AtomicBool,
}

/// The wait queues of a store. Cheap to clone.
#[derive(Clone, Default)]
pub struct LockWait(Arc<Inner>);

/// The duty to wake the next waiter of a key.
pub struct WakeToken {
    queue: Option<(LockWait, Vec<u8>)>,
}

/// A place in a queue; leaves it on drop.
pub struct WaitHandle {
    lock_wait: LockWait,
    key: Key,
    ticket: u64,
    receiver: oneshot::Receiver<Wake>,
}

/// Who wants to wait for what.
pub struct WaitRequest<'a> {
    pub key: &'a Key,
    pub start_ts: Timestamp,
    pub holder: Timestamp,
    /// The place in the queue from an earlier wait of the same request.
    pub ticket: Option<u64>,
    /// False when the transaction holds no lock yet: nobody can wait for it.
    pub detect_deadlock: bool,
}

impl LockWait {
    /// Queues up. Call while holding the key's latch and having seen the lock, so that its release comes later.
    pub fn enqueue(&self, request: &WaitRequest<'_>) -> Result<WaitHandle, Deadlock> {
        let raw: &Bytes = request.key.raw();
        let mut state = self.0.state.lock();
        if request.detect_deadlock {
            state.graph.add(request.start_ts, edge(request.holder, raw))?;
            self.tell(DeadlockRequestType::Detect, entry(request.start_ts, request.holder, raw));
        }
        let ticket = request.ticket.unwrap_or_else(|| {
            state.next_ticket += 1;
            state.next_ticket
        });
        let (sender, receiver) = oneshot::channel();
        let waiter = Waiter {
            start_ts: request.start_ts,
            holder: request.holder,
            holder_since: Instant::now(),
            in_graph: request.detect_deadlock,
            sender,
        };
        let queue = state.queues.entry(request.key.encoded().to_vec()).or_default();
        let previous = queue.insert(ticket, waiter);
        assert!(previous.is_none(), "a request waits twice for one key");
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        Ok(WaitHandle { lock_wait: self.clone(), key: request.key.clone(), ticket, receiver })
    }

    /// The lock of `key` is gone: wakes its longest waiter.
    pub fn wake(&self, encoded: &[u8]) {
        if self.0.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        // A waiter that is going away drops the token, which would come back here: send outside the mutex.
        let woken = {
            let mut state = self.0.state.lock();
            let first = state.queues.get(encoded).and_then(|q| q.keys().next().copied());
            first.and_then(|ticket| self.take(&mut state, encoded, ticket))
        };
        if let Some(waiter) = woken {
            let queue = Some((self.clone(), encoded.to_vec()));
            // On failure the token wakes the next one when it drops here.
            let _ = waiter.sender.send(Wake::Released(WakeToken { queue }));
        }
    }

    /// `holder` got the lock of `key`: everyone in the queue waits for it now.
    pub fn locked_by(&self, key: &Key, holder: Timestamp) {
        if self.0.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut deadlocked = Vec::new();
        {
            let mut guard = self.0.state.lock();
            let state = &mut *guard;
            let Some(queue) = state.queues.get_mut(key.encoded()) else { return };
            for (ticket, waiter) in queue.iter_mut().filter(|(_, w)| w.holder != holder) {
                let old = std::mem::replace(&mut waiter.holder, holder);
                waiter.holder_since = Instant::now();
                if waiter.in_graph {
                    state.graph.remove(0, waiter.start_ts, old, key.raw());
                    self.tell(DeadlockRequestType::CleanUpWaitFor, entry(waiter.start_ts, old, key.raw()));
                    match state.graph.add(waiter.start_ts, edge(holder, key.raw())) {
                        Ok(()) => {
                            self.tell(DeadlockRequestType::Detect, entry(waiter.start_ts, holder, key.raw()));
                        }
                        Err(deadlock) => {
                            waiter.in_graph = false;
                            deadlocked.push((*ticket, deadlock));
                        }
                    }
                }
            }
            for (ticket, deadlock) in deadlocked {
                if let Some(waiter) = self.take(state, key.encoded(), ticket) {
                    let _ = waiter.sender.send(Wake::Deadlock(Box::new(deadlock)));
                }
            }
        }
    }

    fn take(&self, state: &mut State, encoded: &[u8], ticket: u64) -> Option<Waiter> {
        let queue = state.queues.get_mut(encoded)?;
        let waiter = queue.remove(&ticket)?;
        if queue.is_empty() {
            state.queues.remove(encoded);
        }
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        if waiter.in_graph {
            let raw = Bytes::from(rutile_proto::codec::decode_bytes_exact(encoded).unwrap_or_default());
            state.graph.remove(0, waiter.start_ts, waiter.holder, &raw);
            self.tell(DeadlockRequestType::CleanUpWaitFor, entry(waiter.start_ts, waiter.holder, &raw));
        }
        Some(waiter)
    }

    /// From now on everything that begins and ends is told there, in order; see [`LockWait::edges`] for what was before.
    pub fn tell_to(&self, detector: mpsc::Sender<DeadlockRequest>) {
        assert!(self.0.detector.set(detector).is_ok(), "told to two detectors");
    }

    /// Called under the mutex, so that what is told is in order.
    fn tell(&self, tp: DeadlockRequestType, entry: WaitForEntry) {
        if let Some(detector) = self.0.detector.get()
            && detector.try_send(DeadlockRequest { tp: tp.into(), entry: Some(entry) }).is_err()
        {
            self.0.lost.store(true, Ordering::SeqCst);
        }
    }

    /// Whether something was not told since the last call.
    #[must_use]
    pub fn take_lost(&self) -> bool {
        self.0.lost.swap(false, Ordering::SeqCst)
    }

    /// Who waits for whom on this store, with the time of the wait. `forget` runs while nothing can change.
    #[must_use]
    pub fn edges(&self, forget: impl FnOnce()) -> Vec<WaitForEntry> {
        let state = self.0.state.lock();
        forget();
        let waiters = state.queues.iter().flat_map(|(encoded, queue)| {
            let raw = Bytes::from(rutile_proto::codec::decode_bytes_exact(encoded).unwrap_or_default());
            queue.values().filter(|w| w.in_graph).map(move |waiter| WaitForEntry {
                wait_time: waiter.holder_since.elapsed().as_millis() as u64,
                ..entry(waiter.start_ts, waiter.holder, &raw)
            })
        });
        waiters.collect()
    }

    /// Tells of a wait again, if it is still there.
    pub fn tell_again(&self, wait: &WaitForEntry) {
        let state = self.0.state.lock();
        if ticket_of(&state, wait).is_some() {
            self.tell(DeadlockRequestType::Detect, WaitForEntry { wait_time: 0, ..wait.clone() });
        }
    }

    /// Ends a wait that closes a circle of several stores. `false` when it has ended already.
    pub fn fail(&self, wait: &WaitForEntry, deadlock: Deadlock) -> bool {
        let woken = {
            let mut state = self.0.state.lock();
            let Some((encoded, ticket)) = ticket_of(&state, wait) else { return false };
            self.take(&mut state, &encoded, ticket)
        };
        woken.is_some_and(|waiter| waiter.sender.send(Wake::Deadlock(Box::new(deadlock))).is_ok())
    }

    /// Number of waiters.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
    }
}

fn edge(holder: Timestamp, key: &Bytes) -> Edge {
    Edge { holder, key: key.clone(), owner: 0, at: Instant::now() }
}

fn entry(waiter: Timestamp, holder: Timestamp, key: &Bytes) -> WaitForEntry {
    WaitForEntry {
        txn: waiter.0,
        wait_for_txn: holder.0,
        key_hash: key_hash(key),
        key: key.clone(),
        ..WaitForEntry::default()
    }
}

/// The place of a wait in its queue.
fn ticket_of(state: &State, wait: &WaitForEntry) -> Option<(Vec<u8>, u64)> {
    let encoded = rutile_proto::codec::encoded_bytes(&wait.key);
    let same = |w: &Waiter| w.in_graph && w.start_ts.0 == wait.txn && w.holder.0 == wait.wait_for_txn;
    let ticket = state.queues.get(&encoded)?.iter().find(|(_, w)| same(w)).map(|(ticket, _)| *ticket)?;
    Some((encoded, ticket))
}

impl WaitHandle {
    /// The place in the queue, for a later wait of the same request on the same key.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Waits until woken; `None` at `deadline`. Cancel-safe.
    pub async fn wait(&mut self, deadline: tokio::time::Instant) -> Option<Wake> {
        match tokio::time::timeout_at(deadline, &mut self.receiver).await {
            Ok(Ok(wake)) => Some(wake),
            // The sender only goes away with this very handle.
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// How long the present holder has been seen to hold the lock, in ms.
    #[must_use]
    pub fn holder_age_ms(&self) -> u64 {
        let state = self.lock_wait.0.state.lock();
        let waiter = state.queues.get(self.key.encoded()).and_then(|q| q.get(&self.ticket));
        waiter.map_or(0, |w| w.holder_since.elapsed().as_millis() as u64)
    }
}

impl Drop for WaitHandle {
    fn drop(&mut self) {
        // A token already sent drops with the receiver and wakes the next one.
        let mut state = self.lock_wait.0.state.lock();
        drop(self.lock_wait.take(&mut state, self.key.encoded(), self.ticket));
    }
}

impl WakeToken {
    /// The woken one got the lock, or queued up again.
    pub fn consume(mut self) {
        self.queue = None;
    }

    /// The woken one failed and will probably come back with a newer timestamp: lets it go first.
    pub fn pass_on_later(mut self) {
        let Some((lock_wait, key)) = self.queue.take() else { return };
        if lock_wait.waiting() > 0 {
            tokio::spawn(async move {
                tokio::time::sleep(PASS_ON_DELAY).await;
                lock_wait.wake(&key);
            });
        }
    }
}

impl Drop for WakeToken {
    fn drop(&mut self) {
        if let Some((lock_wait, key)) = self.queue.take() {
            lock_wait.wake(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(k: &'static str) -> Key {
        Key::from_raw(&Bytes::from_static(k.as_bytes()))
    }

    fn request(key: &Key, waiter: u64, holder: u64) -> WaitRequest<'_> {
        let (start_ts, holder) = (Timestamp(waiter), Timestamp(holder));
        WaitRequest { key, start_ts, holder, ticket: None, detect_deadlock: true }
    }

    fn soon() -> tokio::time::Instant {
        tokio::time::Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn the_longest_waiter_first_and_lost_wakes_pass_on() {
        let waits = LockWait::default();
        let k = key("k");
        let mut first = waits.enqueue(&request(&k, 2, 1)).unwrap();
        let second = waits.enqueue(&request(&k, 3, 1)).unwrap();
        let mut third = waits.enqueue(&request(&k, 4, 1)).unwrap();
        waits.wake(k.encoded());
        let Some(Wake::Released(token)) = first.wait(soon()).await else { panic!("not woken") };
        token.consume();
        drop(first);
        waits.wake(k.encoded());
        drop(second);
        assert!(matches!(third.wait(soon()).await, Some(Wake::Released(_))));
        assert_eq!(waits.waiting(), 0);
    }

    #[tokio::test]
    async fn a_deadline_ends_the_wait() {
        let waits = LockWait::default();
        let k = key("k");
        let mut waiter = waits.enqueue(&request(&k, 2, 1)).unwrap();
        assert!(waiter.wait(tokio::time::Instant::now()).await.is_none());
        drop(waiter);
        assert_eq!(waits.waiting(), 0);
        assert!(waits.0.state.lock().graph.is_empty());
    }

    #[tokio::test]
    async fn circles_are_found_when_queueing_and_when_the_holder_changes() {
        let waits = LockWait::default();
        let (a, b, c) = (key("a"), key("b"), key("c"));
        let _one = waits.enqueue(&request(&a, 1, 2)).unwrap();
        assert!(waits.enqueue(&request(&b, 2, 1)).is_err());
        // 3 waits on c for 9; 2 waits for 3; then 2 gets c: 3 must fail.
        let mut three = waits.enqueue(&request(&c, 3, 9)).unwrap();
        let _two = waits.enqueue(&request(&b, 2, 3)).unwrap();
        waits.locked_by(&c, Timestamp(2));
        assert!(matches!(three.wait(soon()).await, Some(Wake::Deadlock(_))));
    }
}
