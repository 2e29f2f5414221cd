//! One key at one timestamp: a bloom-filtered lookup in CF `lock`, then one seek in CF `write`.

use bytes::Bytes;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::IsolationLevel;

use super::key::{Key, split_ts};
use super::lock::{Lock, LockType};
use super::reader::load_long_value;
use super::write::{WriteRef, WriteType};
use super::{LockEffect, ReadOptions, Result, STEPS_BEFORE_SEEK_MAX, blocked, lock_effect, rc_check_ts};
use crate::engine::{Cf, IterOptions};
use crate::raftstore::{RegionIterator, RegionSnapshot};

/// A value and when it was committed (zero when read through a lock).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub value: Bytes,
    pub commit_ts: Timestamp,
}

/// Reads keys of one snapshot in any order; keeps its cursor between them.
pub struct PointGetter<'a> {
    snapshot: &'a RegionSnapshot,
    options: &'a ReadOptions,
    cursor: Option<RegionIterator>,
}

impl<'a> PointGetter<'a> {
    /// A getter; opens no cursor yet.
    #[must_use]
    pub fn new(snapshot: &'a RegionSnapshot, options: &'a ReadOptions) -> Self {
        PointGetter { snapshot, options, cursor: None }
    }

    /// The visible version of `key`, if there is one.
    pub fn get(&mut self, key: &Key) -> Result<Option<Version>> {
        if self.options.checks_locks()
            && let Some(stored) = self.snapshot.get(Cf::Lock, key.encoded())?
        {
            let lock = Lock::parse(&stored)?;
            match lock_effect(&lock, key.raw(), self.options) {
                LockEffect::Ignore => {}
                LockEffect::Block => return Err(blocked(&lock, key.raw().clone(), self.options)),
                LockEffect::ReadThrough => match lock.lock_type {
                    LockType::Put => return self.value_of_lock(key, lock).map(Some),
                    LockType::Delete => return Ok(None),
                    LockType::Lock | LockType::Pessimistic => {}
                },
            }
        }
        self.committed(key)
    }

    fn value_of_lock(&self, key: &Key, lock: Lock) -> Result<Version> {
        let value = match lock.short_value {
            Some(value) => value,
            None => load_long_value(self.snapshot, key.encoded(), lock.start_ts)?,
        };
        Ok(Version { value, commit_ts: Timestamp::ZERO })
    }

    fn committed(&mut self, key: &Key) -> Result<Option<Version>> {
        let (snapshot, options) = (self.snapshot, self.options);
        let cursor = self.cursor.get_or_insert_with(|| {
            let skip_cache = options.skip_cache;
            snapshot.iter(Cf::Write, IterOptions { prefix_seek: true, skip_cache, ..IterOptions::default() })
        });
        if options.isolation == IsolationLevel::RcCheckTs {
            check_nothing_newer(cursor, key, options.ts)?;
        }
        let mut valid = cursor.seek(&key.at(options.ts))?;
        let mut steps = 0;
        while valid {
            let (encoded, commit_ts) = split_ts(cursor.key())?;
            if encoded != key.encoded() {
                return Ok(None);
            }
            let write = WriteRef::parse(cursor.value())?;
            match write.write_type {
                WriteType::Put => {
                    let value = match write.short_value {
                        _ if options.key_only => Bytes::new(),
                        Some(value) => Bytes::copy_from_slice(value),
                        None => load_long_value(snapshot, key.encoded(), write.start_ts)?,
                    };
                    return Ok(Some(Version { value, commit_ts }));
                }
                WriteType::Delete => return Ok(None),
                WriteType::Lock | WriteType::Rollback => {}
            }
            steps += 1;
            valid = if steps % STEPS_BEFORE_SEEK_MAX == 0 && !commit_ts.is_zero() {
                cursor.seek(&key.at(commit_ts.prev()))?
            } else {
                cursor.next()?
            };
        }
        Ok(None)
    }
}

fn check_nothing_newer(cursor: &mut RegionIterator, key: &Key, ts: Timestamp) -> Result<()> {
    let mut valid = cursor.seek(&key.at(Timestamp::MAX))?;
    while valid {
        let (encoded, commit_ts) = split_ts(cursor.key())?;
        if encoded != key.encoded() || commit_ts <= ts {
            break;
        }
        let write = WriteRef::parse(cursor.value())?;
        if matches!(write.write_type, WriteType::Put | WriteType::Delete) {
            return Err(rc_check_ts(ts, write.start_ts, commit_ts, key.raw().clone()));
        }
        valid = cursor.next()?;
    }
    Ok(())
}
