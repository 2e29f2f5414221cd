//! The changes one command makes, gathered before they are replicated together.

use bytes::Bytes;
use rutile_proto::ids::Timestamp;

use super::key::Key;
use super::lock::Lock;
use super::write::Write;
use crate::engine::Cf;
use crate::raftstore::Modify;

/// A change of the pessimistic locks kept in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryChange {
    /// Sets the lock of a key.
    Put(Key, Lock),
    /// Removes the lock of a key.
    Remove(Key),
}

/// The gathered changes of one command.
#[derive(Debug, Default)]
pub struct MvccTxn {
    modifies: Vec<Modify>,
    memory: Vec<MemoryChange>,
    released: Vec<Key>,
}

impl MvccTxn {
    /// No changes.
    #[must_use]
    pub fn new() -> Self {
        MvccTxn::default()
    }

    /// Whether nothing changes, neither in storage nor in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.modifies.is_empty() && self.memory.is_empty()
    }

    /// How many changes are to be replicated.
    #[must_use]
    pub fn modify_count(&self) -> usize {
        self.modifies.len()
    }

    /// The changes to replicate, those in memory, and the keys whose locks go away.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Modify>, Vec<MemoryChange>, Vec<Key>) {
        (self.modifies, self.memory, self.released)
    }

    fn put(&mut self, cf: Cf, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.modifies.push(Modify::Put(cf, key.into(), value.into()));
    }

    fn delete(&mut self, cf: Cf, key: impl Into<Bytes>) {
        self.modifies.push(Modify::Delete(cf, key.into()));
    }

    /// Stores a lock.
    pub fn put_lock(&mut self, key: &Key, lock: &Lock) {
        self.put(Cf::Lock, Bytes::copy_from_slice(key.encoded()), lock.to_bytes());
    }

    /// Sets a lock where it is already: in memory, or stored.
    pub fn update_lock(&mut self, key: &Key, lock: &Lock, in_memory: bool) {
        if in_memory {
            self.put_memory_lock(key, lock.clone());
        } else {
            self.put_lock(key, lock);
        }
    }

    /// Sets a pessimistic lock in memory; the scheduler stores it instead when memory is short.
    pub fn put_memory_lock(&mut self, key: &Key, lock: Lock) {
        self.memory.push(MemoryChange::Put(key.clone(), lock));
    }

    /// Forgets a lock in memory because a stored one takes its place.
    pub fn replace_memory_lock(&mut self, key: &Key) {
        self.memory.push(MemoryChange::Remove(key.clone()));
    }

    /// Removes a lock from where it is; its waiters are woken.
    pub fn unlock(&mut self, key: &Key, in_memory: bool) {
        if in_memory {
            self.memory.push(MemoryChange::Remove(key.clone()));
        } else {
            self.delete(Cf::Lock, Bytes::copy_from_slice(key.encoded()));
        }
        self.released.push(key.clone());
    }

    /// Stores a value too long for the record that names it.
    pub fn put_value(&mut self, key: &Key, start_ts: Timestamp, value: Bytes) {
        self.put(Cf::Default, key.at(start_ts), value);
    }

    /// Removes such a value.
    pub fn delete_value(&mut self, key: &Key, start_ts: Timestamp) {
        self.delete(Cf::Default, key.at(start_ts));
    }

    /// Stores a version or a rollback.
    pub fn put_write(&mut self, key: &Key, commit_ts: Timestamp, write: &Write) {
        self.put(Cf::Write, key.at(commit_ts), write.to_bytes());
    }

    /// Removes a version or a rollback.
    pub fn delete_write(&mut self, key: &Key, commit_ts: Timestamp) {
        self.delete(Cf::Write, key.at(commit_ts));
    }
}
