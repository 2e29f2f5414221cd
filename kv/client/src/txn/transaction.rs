//! A transaction: own writes in memory, reads merged with them, locks, commit and rollback.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use rutile_proto::ids::Timestamp;
use tokio::sync::OnceCell;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::read_from::ReadFrom;
use crate::txn::committer::Committer;
use crate::txn::membuffer::MemBuffer;
use crate::txn::open::OpenGuard;
use crate::txn::pessimistic;
use crate::txn::{KeyRange, ReadView, ScanOptions, Scanner, Snapshot, TxnCore};

/// When conflicts are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TxnMode {
    /// At commit; [`Transaction::lock_keys`] adds keys to what is checked then.
    #[default]
    Optimistic,
    /// When a key is locked, by [`Transaction::lock_keys`], before it is written.
    Pessimistic,
}

/// How to begin a transaction.
#[derive(Clone, Debug, Default)]
pub struct TxnOptions {
    /// Optimistic or pessimistic.
    pub mode: TxnMode,
    /// Begin at this timestamp instead of a fresh one.
    pub start_ts: Option<Timestamp>,
    /// Ask for the timestamp only when it is first needed.
    pub lazy: bool,
    /// The transaction is one statement: its commit need not be ordered after commits that ended while it ran, which
    /// saves a timestamp.
    pub autocommit: bool,
    /// Which peers serve its reads; never those of locked keys.
    pub read_from: ReadFrom,
}

/// How long to wait for another transaction's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockWait {
    /// Fail at once with `LockNoWait`.
    NoWait,
    /// Fail with `LockWaitTimeout` after so many milliseconds.
    TimeoutMs(u64),
}

/// How to lock keys.
#[derive(Clone, Copy, Debug)]
pub struct LockOptions {
    /// How long to wait.
    pub wait: LockWait,
    /// Give back the keys' current values.
    pub return_values: bool,
    /// Give back whether the keys exist (implied by `return_values`).
    pub check_existence: bool,
    /// When a key was committed after `for_update_ts`: refresh `for_update_ts` and lock again, so that the answer
    /// is current; otherwise fail with `WriteConflict` so that the caller runs its statement again.
    pub refresh_on_conflict: bool,
}

impl Default for LockOptions {
    fn default() -> Self {
        LockOptions {
            wait: LockWait::TimeoutMs(50_000),
            return_values: false,
            check_existence: false,
            refresh_on_conflict: true,
        }
    }
}

/// A locked key's state; own writes come first, then what is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockedValue {
    /// Whether the key exists; only with `return_values` or `check_existence`.
    pub exists: bool,
    /// Its value; only with `return_values`.
    pub value: Option<Bytes>,
}

/// A point to which writes can be undone. Later savepoints vanish when an earlier one is rolled back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Savepoint(usize);

/// A transaction. Cheap to clone; all clones are the same transaction.
///
/// Dropping the last clone without commit or rollback releases its locks in the background.
#[derive(Clone)]
pub struct Transaction {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<TxnCore>,
    options: TxnOptions,
    start_ts: OnceCell<Timestamp>,
    begun: Instant,
    state: Mutex<State>,
    /// From the start timestamp on until the end.
    open: Mutex<Option<OpenGuard>>,
}

/// A key that this transaction locked.
#[derive(Clone, Debug, Default)]
pub(crate) struct LockedKey {
    /// Whether it exists in the store; cannot change while it is locked.
    pub exists: Option<bool>,
    /// Its stored value, once it was asked for (`exists` tells whether there is one).
    pub value: Option<Bytes>,
    /// Whether `value` was asked for.
    pub value_known: bool,
    /// Whether the answer of the store was lost, so that the lock may be missing.
    pub uncertain: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pub buffer: MemBuffer,
    pub locked: BTreeMap<Bytes, LockedKey>,
    pub primary: Option<Bytes>,
    pub for_update_ts: Timestamp,
    pub heartbeat: Option<AbortHandle>,
    ended: bool,
}

impl Transaction {
    pub(crate) async fn begin(core: Arc<TxnCore>, options: TxnOptions) -> Result<Self> {
        let start_ts = OnceCell::new_with(options.start_ts);
        let lazy = options.lazy;
        let open = Mutex::new(options.start_ts.and_then(|ts| core.open.enter(ts)));
        let inner = Inner { core, options, start_ts, begun: Instant::now(), state: Mutex::default(), open };
        let txn = Transaction { inner: Arc::new(inner) };
        if !lazy {
            txn.start_ts().await?;
        }
        Ok(txn)
    }

    pub(crate) fn core(&self) -> &Arc<TxnCore> {
        &self.inner.core
    }

    pub(crate) fn options(&self) -> &TxnOptions {
        &self.inner.options
    }

    pub(crate) fn with_state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.inner.state.lock())
    }

    /// Milliseconds since the transaction began.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.inner.begun.elapsed().as_millis() as u64
    }

    /// Optimistic or pessimistic.
    #[must_use]
    pub fn mode(&self) -> TxnMode {
        self.inner.options.mode
    }

    /// The start timestamp, asking for it if the transaction is lazy.
    pub async fn start_ts(&self) -> Result<Timestamp> {
        let ask = || async {
            let ts = self.inner.core.cluster.timestamp().await?;
            *self.inner.open.lock() = self.inner.core.open.enter(ts);
            Ok(ts)
        };
        self.inner.start_ts.get_or_try_init(ask).await.copied()
    }

    /// The start timestamp if there is one yet.
    #[must_use]
    pub fn start_ts_now(&self) -> Option<Timestamp> {
        self.inner.start_ts.get().copied()
    }

    /// Reads at `ts` merged with own writes. Statements at READ COMMITTED and current reads pass a fresh timestamp,
    /// others [`Transaction::start_ts`].
    #[must_use]
    pub fn view(&self, ts: Timestamp) -> ReadView {
        let snapshot = Snapshot::new(self.inner.core.clone(), ts);
        ReadView::new(snapshot.read_from(self.inner.options.read_from), self.clone())
    }

    /// The value of `key` at the start timestamp, own writes first.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.view(self.start_ts().await?).get(key).await
    }

    /// The values of those `keys` that exist at the start timestamp, own writes first.
    pub async fn batch_get(&self, keys: Vec<Bytes>) -> Result<HashMap<Bytes, Bytes>> {
        self.view(self.start_ts().await?).batch_get(keys).await
    }

    /// The pairs of a range at the start timestamp, merged with own writes.
    pub async fn scan(&self, range: KeyRange, options: ScanOptions) -> Result<Scanner> {
        Ok(self.view(self.start_ts().await?).scan(range, options))
    }

    /// Own write of `key`: `Some(None)` is a deletion, `None` is no write.
    #[must_use]
    pub fn own_write(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.inner.state.lock().buffer.get(key)
    }

    pub(crate) fn has_own_writes(&self, range: &KeyRange) -> bool {
        self.inner.state.lock().buffer.touches(range)
    }

    pub(crate) fn own_writes(&self, range: &KeyRange) -> Vec<(Bytes, Option<Bytes>)> {
        self.inner.state.lock().buffer.range(range)
    }

    /// Writes a value.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let mut state = self.inner.state.lock();
        state.check_running()?;
        state.buffer.put(key.into(), value.into());
        Ok(())
    }

    /// Writes a value under a key that must not exist; checked at commit unless the key is locked and known absent.
    /// Fails at once with `AlreadyExists` if the key is known to exist: written by this transaction itself, or locked.
    pub fn insert(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        let mut state = self.inner.state.lock();
        state.check_running()?;
        let known = match self.mode() {
            TxnMode::Pessimistic => state.locked.get(&key).and_then(|l| l.exists),
            TxnMode::Optimistic => None,
        };
        if known == Some(true) && state.buffer.get(&key).is_none() {
            return Err(Error::AlreadyExists { key });
        }
        state.buffer.insert(key, value.into(), known == Some(false))
    }

    /// Deletes a key.
    pub fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        let mut state = self.inner.state.lock();
        state.check_running()?;
        state.buffer.delete(key.into());
        Ok(())
    }

    /// Locks keys. Pessimistic: now, answering one [`LockedValue`] per key (all absent unless asked for). Optimistic:
    /// the keys join the conflict check at commit; asked-for values are read at the start timestamp.
    pub async fn lock_keys(&self, keys: Vec<Bytes>, options: LockOptions) -> Result<Vec<LockedValue>> {
        self.inner.state.lock().check_running()?;
        match self.mode() {
            TxnMode::Pessimistic => pessimistic::lock_keys(self, &keys, options).await?,
            TxnMode::Optimistic => self.lock_optimistically(&keys, options).await?,
        }
        let state = self.inner.state.lock();
        Ok(keys.iter().map(|key| state.locked_value(key)).collect())
    }

    async fn lock_optimistically(&self, keys: &[Bytes], options: LockOptions) -> Result<()> {
        let mut found = HashMap::new();
        if options.return_values || options.check_existence {
            let view = Snapshot::new(self.inner.core.clone(), self.start_ts().await?);
            found = view.batch_get(keys.to_vec()).await?;
        }
        let mut state = self.inner.state.lock();
        for key in keys {
            let value = found.remove(key);
            let exists = Some(value.is_some());
            let locked = LockedKey { exists, value, value_known: true, uncertain: false };
            state.locked.insert(key.clone(), locked);
        }
        Ok(())
    }

    /// The timestamp of current reads and pessimistic locks; never below the start timestamp.
    #[must_use]
    pub fn for_update_ts(&self) -> Timestamp {
        let started = self.start_ts_now().unwrap_or_default();
        self.inner.state.lock().for_update_ts.max(started)
    }

    /// Moves `for_update_ts` to now, at the start of a statement that reads current data.
    pub async fn refresh_for_update_ts(&self) -> Result<Timestamp> {
        if self.start_ts_now().is_none() {
            return self.start_ts().await;
        }
        let now = self.inner.core.cluster.timestamp().await?;
        let mut state = self.inner.state.lock();
        state.for_update_ts = state.for_update_ts.max(now);
        Ok(state.for_update_ts)
    }

    /// Marks this point.
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        Savepoint(self.inner.state.lock().buffer.savepoint())
    }

    /// Undoes the writes after the savepoint, which stays valid. Locks stay.
    pub fn rollback_to(&self, savepoint: Savepoint) {
        self.inner.state.lock().buffer.rollback_to(savepoint.0);
    }

    /// Whether anything was written.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.inner.state.lock().buffer.is_empty()
    }

    /// Whether a commit has nothing to do: nothing was written or locked.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        let state = self.inner.state.lock();
        state.buffer.is_empty() && state.locked.is_empty()
    }

    /// Whether the transaction was committed or rolled back.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.inner.state.lock().ended
    }

    /// Bytes of keys and values written.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.inner.state.lock().buffer.size_bytes()
    }

    /// Commits; answers the commit timestamp, `None` if there was nothing to commit. After an error other than
    /// `ResultUndetermined` nothing was committed. The transaction is over in any case. Not cancel-safe: a dropped
    /// commit has an unknown result.
    pub async fn commit(&self) -> Result<Option<Timestamp>> {
        let state = self.end()?;
        let result = self.commit_state(state).await;
        self.inner.open.lock().take();
        result
    }

    async fn commit_state(&self, state: State) -> Result<Option<Timestamp>> {
        if state.buffer.is_empty() && state.locked.is_empty() {
            return Ok(None);
        }
        let start_ts = self.start_ts().await?;
        if state.buffer.is_empty() {
            // Nothing was written: locks only have to go.
            if self.mode() == TxnMode::Pessimistic {
                let keys = state.locked.into_keys().collect();
                pessimistic::release(&self.inner.core, start_ts, keys).await?;
            }
            return Ok(None);
        }
        let result = Committer::new(self, start_ts, &state).run().await;
        if matches!(result, Err(Error::AlreadyExists { .. })) {
            // Who names the duplicate asks what was to be written.
            self.inner.state.lock().buffer = state.buffer;
        }
        result.map(Some)
    }

    /// Gives everything up and releases the locks. Rolling back what has ended is no error.
    pub async fn rollback(&self) -> Result<()> {
        let Ok(state) = self.end() else { return Ok(()) };
        self.inner.open.lock().take();
        match self.start_ts_now() {
            Some(start_ts) if self.mode() == TxnMode::Pessimistic && !state.locked.is_empty() => {
                let keys = state.locked.into_keys().collect();
                pessimistic::release(&self.inner.core, start_ts, keys).await
            }
            _ => Ok(()),
        }
    }

    /// Takes the state out: the transaction accepts nothing more.
    fn end(&self) -> Result<State> {
        self.inner.end()
    }
}

impl Inner {
    fn end(&self) -> Result<State> {
        let mut state = self.state.lock();
        state.check_running()?;
        let taken = std::mem::replace(&mut *state, State { ended: true, ..State::default() });
        if let Some(heartbeat) = &taken.heartbeat {
            heartbeat.abort();
        }
        Ok(taken)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Ok(state) = self.end() else { return };
        let (Some(start_ts), TxnMode::Pessimistic) = (self.start_ts.get().copied(), self.options.mode) else {
            return;
        };
        if state.locked.is_empty() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let core = self.core.clone();
            let keys: Vec<Bytes> = state.locked.into_keys().collect();
            runtime.spawn(async move {
                if let Err(error) = pessimistic::release(&core, start_ts, keys).await {
                    tracing::warn!(%error, %start_ts, "locks of an abandoned transaction were not released");
                }
            });
        }
    }
}

impl State {
    fn check_running(&self) -> Result<()> {
        if self.ended { Err(Error::TransactionEnded) } else { Ok(()) }
    }

    fn locked_value(&self, key: &Bytes) -> LockedValue {
        if let Some(own) = self.buffer.get(key) {
            return LockedValue { exists: own.is_some(), value: own };
        }
        let known = self.locked.get(key);
        LockedValue {
            exists: known.is_some_and(|k| k.exists == Some(true)),
            value: known.and_then(|k| k.value.clone()),
        }
    }
}
