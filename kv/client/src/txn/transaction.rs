//! A transaction: own writes in memory, reads merged with them, locks, commit and rollback.

use std::collections::HashMap;

use bytes::Bytes;
use rutile_proto::ids::Timestamp;

use crate::client::Client;
use crate::error::Result;
use crate::txn::{KeyRange, ReadView, ScanOptions, Scanner};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedValue {
    /// Whether the key exists; only with `return_values` or `check_existence`.
    pub exists: bool,
    /// Its value; only with `return_values`.
    pub value: Option<Bytes>,
}

/// A point to which writes can be undone. Later savepoints vanish when an earlier one is rolled back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Savepoint(pub(crate) usize);

/// A transaction. Cheap to clone; all clones are the same transaction.
///
/// Dropping the last clone without commit or rollback releases its locks in the background.
#[derive(Clone)]
pub struct Transaction {
    client: Client,
}

impl Transaction {
    pub(crate) fn new(client: Client, _options: TxnOptions) -> Self {
        Transaction { client }
    }

    /// Optimistic or pessimistic.
    #[must_use]
    pub fn mode(&self) -> TxnMode {
        TxnMode::Optimistic
    }

    /// The start timestamp, asking for it if the transaction is lazy.
    pub async fn start_ts(&self) -> Result<Timestamp> {
        Err(self.client.not_built())
    }

    /// The start timestamp if there is one yet.
    #[must_use]
    pub fn start_ts_now(&self) -> Option<Timestamp> {
        None
    }

    /// Reads at `ts` merged with own writes. Statements at READ COMMITTED and current reads pass a fresh timestamp,
    /// others [`Transaction::start_ts`].
    #[must_use]
    pub fn view(&self, ts: Timestamp) -> ReadView {
        self.client.snapshot(ts).into()
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

    /// Writes a value.
    pub fn put(&self, _key: impl Into<Bytes>, _value: impl Into<Bytes>) -> Result<()> {
        Err(self.client.not_built())
    }

    /// Writes a value under a key that must not exist; checked at commit unless the key is locked and known absent.
    /// Fails at once with `AlreadyExists` if this transaction itself wrote the key.
    pub fn insert(&self, _key: impl Into<Bytes>, _value: impl Into<Bytes>) -> Result<()> {
        Err(self.client.not_built())
    }

    /// Deletes a key.
    pub fn delete(&self, _key: impl Into<Bytes>) -> Result<()> {
        Err(self.client.not_built())
    }

    /// Locks keys. Pessimistic: now, answering one [`LockedValue`] per key (empty unless asked for). Optimistic: the
    /// keys join the conflict check at commit; asked-for values are read at the start timestamp.
    pub async fn lock_keys(&self, _keys: Vec<Bytes>, _options: LockOptions) -> Result<Vec<LockedValue>> {
        Err(self.client.not_built())
    }

    /// The timestamp of current reads and pessimistic locks; never below the start timestamp.
    #[must_use]
    pub fn for_update_ts(&self) -> Timestamp {
        Timestamp::ZERO
    }

    /// Moves `for_update_ts` to now, at the start of a statement that reads current data.
    pub async fn refresh_for_update_ts(&self) -> Result<Timestamp> {
        Err(self.client.not_built())
    }

    /// Marks this point.
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        Savepoint(0)
    }

    /// Undoes the writes after the savepoint, which stays valid. Locks stay.
    pub fn rollback_to(&self, _savepoint: Savepoint) {}

    /// Whether anything was written.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        false
    }

    /// Whether a commit has anything to do: something was written or locked.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        true
    }

    /// Bytes of keys and values written.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        0
    }

    /// Commits; answers the commit timestamp, `None` if there was nothing to commit. After an error other than
    /// `ResultUndetermined` nothing was committed and the transaction is over.
    pub async fn commit(&self) -> Result<Option<Timestamp>> {
        Err(self.client.not_built())
    }

    /// Gives everything up and releases the locks.
    pub async fn rollback(&self) -> Result<()> {
        Err(self.client.not_built())
    }
}
