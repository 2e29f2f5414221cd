//! A transaction's own writes, in key order, with savepoints.
//!
//! Every write leaves the entry it replaced in an undo log; a savepoint is a length of that log.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::txn::KeyRange;

/// What a key is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `None` deletes.
    pub value: Option<Bytes>,
    /// The key must not exist when this transaction commits (it was inserted unchecked).
    pub must_not_exist: bool,
}

/// Own writes.
#[derive(Debug, Default)]
pub(crate) struct MemBuffer {
    entries: BTreeMap<Bytes, Entry>,
    undo: Vec<(Bytes, Option<Entry>)>,
    size_bytes: usize,
}

impl MemBuffer {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Own write of `key`: `Some(None)` is a deletion.
    pub fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.entries.get(key).map(|e| e.value.clone())
    }

    pub fn put(&mut self, key: Bytes, value: Bytes) {
        let must_not_exist = self.entries.get(&key).is_some_and(|e| e.must_not_exist);
        self.write(key, Entry { value: Some(value), must_not_exist });
    }

    /// Writes under a key that must not exist. A key that this transaction deleted before is known to be absent.
    pub fn insert(&mut self, key: Bytes, value: Bytes, known_absent: bool) -> Result<()> {
        let must_not_exist = match self.entries.get(&key) {
            Some(Entry { value: Some(_), .. }) => return Err(Error::AlreadyExists { key }),
            Some(deleted) => deleted.must_not_exist,
            None => !known_absent,
        };
        self.write(key, Entry { value: Some(value), must_not_exist });
        Ok(())
    }

    pub fn delete(&mut self, key: Bytes) {
        let must_not_exist = self.entries.get(&key).is_some_and(|e| e.must_not_exist);
        self.write(key, Entry { value: None, must_not_exist });
    }

    pub fn savepoint(&self) -> usize {
        self.undo.len()
    }

    pub fn rollback_to(&mut self, savepoint: usize) {
        while self.undo.len() > savepoint {
            let Some((key, before)) = self.undo.pop() else { return };
            let after = match before {
                Some(entry) => {
                    self.size_bytes += size_of(&key, &entry);
                    self.entries.insert(key.clone(), entry)
                }
                None => self.entries.remove(&key),
            };
            self.size_bytes -= after.map_or(0, |entry| size_of(&key, &entry));
        }
    }

    /// Own writes within a range, in key order.
    pub fn range(&self, range: &KeyRange) -> Vec<(Bytes, Option<Bytes>)> {
        if range.is_empty() || self.entries.is_empty() {
            return Vec::new();
        }
        let end = if range.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(&range.end[..]) };
        let entries = self.entries.range::<[u8], _>((Bound::Included(&range.start[..]), end));
        entries.map(|(k, e)| (k.clone(), e.value.clone())).collect()
    }

    /// Whether there are own writes within a range.
    pub fn touches(&self, range: &KeyRange) -> bool {
        if range.is_empty() || self.entries.is_empty() {
            return false;
        }
        let end = if range.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(&range.end[..]) };
        self.entries.range::<[u8], _>((Bound::Included(&range.start[..]), end)).next().is_some()
    }

    /// All writes, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Entry)> {
        self.entries.iter()
    }

    fn write(&mut self, key: Bytes, entry: Entry) {
        self.size_bytes += size_of(&key, &entry);
        let before = self.entries.insert(key.clone(), entry);
        self.size_bytes -= before.as_ref().map_or(0, |e| size_of(&key, e));
        self.undo.push((key, before));
    }
}

fn size_of(key: &Bytes, entry: &Entry) -> usize {
    key.len() + entry.value.as_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn b(s: &'static str) -> Bytes {
        Bytes::from_static(s.as_bytes())
    }

    #[test]
    fn inserting_twice_is_refused_at_once() {
        let mut buffer = MemBuffer::default();
        buffer.insert(b("k"), b("1"), false).unwrap();
        assert!(matches!(buffer.insert(b("k"), b("2"), false), Err(Error::AlreadyExists { .. })));
        buffer.delete(b("k"));
        let entry = |buffer: &MemBuffer| buffer.iter().next().unwrap().1.clone();
        assert_eq!(entry(&buffer), Entry { value: None, must_not_exist: true });
        buffer.insert(b("k"), b("3"), false).unwrap();
        assert!(entry(&buffer).must_not_exist, "still must not have existed before the transaction");
    }

    #[test]
    fn insert_after_delete_is_a_plain_put() {
        let mut buffer = MemBuffer::default();
        buffer.delete(b("k"));
        buffer.insert(b("k"), b("1"), false).unwrap();
        assert!(!buffer.iter().next().unwrap().1.must_not_exist);
    }

    proptest! {
        #[test]
        fn rolling_back_restores_what_was(
            before in proptest::collection::vec((0u8..8, proptest::option::of(0u8..3)), 0..20),
            after in proptest::collection::vec((0u8..8, proptest::option::of(0u8..3)), 0..20),
        ) {
            let mut buffer = MemBuffer::default();
            let apply = |buffer: &mut MemBuffer, writes: Vec<(u8, Option<u8>)>| {
                for (k, v) in writes {
                    let key = Bytes::from(vec![k]);
                    match v {
                        Some(0) => buffer.delete(key),
                        Some(v) => buffer.put(key, vec![v; v as usize].into()),
                        None => drop(buffer.insert(key, Bytes::new(), false)),
                    }
                }
            };
            apply(&mut buffer, before);
            let entries = buffer.entries.clone();
            let size = buffer.size_bytes();
            let savepoint = buffer.savepoint();
            apply(&mut buffer, after);
            prop_assert_eq!(buffer.size_bytes(), buffer.iter().map(|(k, e)| size_of(k, e)).sum::<usize>());
            buffer.rollback_to(savepoint);
            prop_assert_eq!(&buffer.entries, &entries);
            prop_assert_eq!(buffer.size_bytes(), size);
        }
    }
}
