//! Lock records (CF `lock`, key `mce(key)`).
//!
//! Layout: type byte | primary (compact bytes) | start_ts (var u64) | ttl in ms (var u64) | tagged fields.
//! A tagged field is one tag byte and its content; absent fields have their default. Source: TiKV's lock format.

use bytes::Bytes;
use rutile_proto::codec::{self, CodecError};
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::{LockInfo, Op};

use super::tagged::{decode_compact_bytes, decode_slice, decode_u8, decode_var_u64};
use super::tagged::{encode_compact_bytes, encode_var_u64};

const TAG_SHORT_VALUE: u8 = b'v';
const TAG_FOR_UPDATE_TS: u8 = b'f';
const TAG_TXN_SIZE: u8 = b't';
const TAG_MIN_COMMIT_TS: u8 = b'c';
const TAG_ASYNC_COMMIT: u8 = b'a';
const TAG_ROLLBACK_TS: u8 = b'r';
const TAG_LOCKED_WITH_CONFLICT: u8 = b'F';

/// What a lock will become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockType {
    /// A new value.
    Put,
    /// A removal.
    Delete,
    /// Nothing: the key is only protected.
    Lock,
    /// A pessimistic lock: no prewrite yet.
    Pessimistic,
}

impl LockType {
    fn to_byte(self) -> u8 {
        match self {
            LockType::Put => b'P',
            LockType::Delete => b'D',
            LockType::Lock => b'L',
            LockType::Pessimistic => b'S',
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'P' => Some(LockType::Put),
            b'D' => Some(LockType::Delete),
            b'L' => Some(LockType::Lock),
            b'S' => Some(LockType::Pessimistic),
            _ => None,
        }
    }

    /// The wire form.
    #[must_use]
    pub fn to_op(self) -> Op {
        match self {
            LockType::Put => Op::Put,
            LockType::Delete => Op::Del,
            LockType::Lock => Op::Lock,
            LockType::Pessimistic => Op::PessimisticLock,
        }
    }
}

/// A lock on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    pub lock_type: LockType,
    /// Primary key of the transaction, request form.
    pub primary: Bytes,
    pub start_ts: Timestamp,
    /// Lifetime in ms, counted from the physical part of `start_ts`.
    pub ttl: u64,
    /// The value, when it is at most [`super::SHORT_VALUE_LEN_MAX`] bytes.
    pub short_value: Option<Bytes>,
    /// Zero for optimistic transactions.
    pub for_update_ts: Timestamp,
    /// Keys of the transaction in this region.
    pub txn_size: u64,
    /// No commit below this timestamp.
    pub min_commit_ts: Timestamp,
    pub use_async_commit: bool,
    /// All other keys of an async-commit transaction (request form); on the primary lock only.
    pub secondaries: Vec<Bytes>,
    /// Start timestamps of other transactions rolled back on this key while it was locked.
    pub rollback_ts: Vec<Timestamp>,
    /// A pessimistic lock taken although a newer version existed.
    pub locked_with_conflict: bool,
}

impl Lock {
    /// A lock with no optional field set.
    #[must_use]
    pub fn new(lock_type: LockType, primary: Bytes, start_ts: Timestamp, ttl: u64) -> Self {
        Lock {
            lock_type,
            primary,
            start_ts,
            ttl,
            short_value: None,
            for_update_ts: Timestamp::ZERO,
            txn_size: 0,
            min_commit_ts: Timestamp::ZERO,
            use_async_commit: false,
            secondaries: Vec::new(),
            rollback_ts: Vec::new(),
            locked_with_conflict: false,
        }
    }

    /// Whether this is a pessimistic lock that was not prewritten yet.
    #[must_use]
    pub fn is_pessimistic(&self) -> bool {
        self.lock_type == LockType::Pessimistic
    }

    /// Whether the lock's lifetime is over at `current_ts`; `Timestamp::MAX` expires everything.
    #[must_use]
    pub fn is_expired(&self, current_ts: Timestamp) -> bool {
        self.start_ts.physical_ms().saturating_add(self.ttl) < current_ts.physical_ms()
    }

    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let value_len = self.short_value.as_ref().map_or(0, |v| v.len() + 2);
        let mut out = Vec::with_capacity(48 + self.primary.len() + value_len);
        out.push(self.lock_type.to_byte());
        encode_compact_bytes(&mut out, &self.primary);
        encode_var_u64(&mut out, self.start_ts.0);
        encode_var_u64(&mut out, self.ttl);
        if let Some(value) = &self.short_value {
            out.push(TAG_SHORT_VALUE);
            out.push(value.len() as u8);
            out.extend_from_slice(value);
        }
        for (tag, v) in [
            (TAG_FOR_UPDATE_TS, self.for_update_ts.0),
            (TAG_TXN_SIZE, self.txn_size),
            (TAG_MIN_COMMIT_TS, self.min_commit_ts.0),
        ] {
            if v != 0 {
                out.push(tag);
                codec::encode_u64(&mut out, v);
            }
        }
        if self.use_async_commit {
            out.push(TAG_ASYNC_COMMIT);
            encode_var_u64(&mut out, self.secondaries.len() as u64);
            for key in &self.secondaries {
                encode_compact_bytes(&mut out, key);
            }
        }
        if !self.rollback_ts.is_empty() {
            out.push(TAG_ROLLBACK_TS);
            encode_var_u64(&mut out, self.rollback_ts.len() as u64);
            for ts in &self.rollback_ts {
                codec::encode_u64(&mut out, ts.0);
            }
        }
        if self.locked_with_conflict {
            out.push(TAG_LOCKED_WITH_CONFLICT);
        }
        out
    }

    /// Reads the stored form.
    pub fn parse(mut input: &[u8]) -> Result<Self, CodecError> {
        let input = &mut input;
        let lock_type = LockType::from_byte(decode_u8(input)?).ok_or(CodecError::InvalidPadding)?;
        let primary = Bytes::copy_from_slice(decode_compact_bytes(input)?);
        let start_ts = Timestamp(decode_var_u64(input)?);
        let ttl = if input.is_empty() { 0 } else { decode_var_u64(input)? };
        let mut lock = Lock::new(lock_type, primary, start_ts, ttl);
        while !input.is_empty() {
            match decode_u8(input)? {
                TAG_SHORT_VALUE => {
                    let len = decode_u8(input)? as usize;
                    lock.short_value = Some(Bytes::copy_from_slice(decode_slice(input, len)?));
                }
                TAG_FOR_UPDATE_TS => lock.for_update_ts = Timestamp(codec::decode_u64(input)?),
                TAG_TXN_SIZE => lock.txn_size = codec::decode_u64(input)?,
                TAG_MIN_COMMIT_TS => lock.min_commit_ts = Timestamp(codec::decode_u64(input)?),
                TAG_ASYNC_COMMIT => {
                    lock.use_async_commit = true;
                    for _ in 0..decode_var_u64(input)? {
                        lock.secondaries.push(Bytes::copy_from_slice(decode_compact_bytes(input)?));
                    }
                }
                TAG_ROLLBACK_TS => {
                    for _ in 0..decode_var_u64(input)? {
                        lock.rollback_ts.push(Timestamp(codec::decode_u64(input)?));
                    }
                }
                TAG_LOCKED_WITH_CONFLICT => lock.locked_with_conflict = true,
                // A field of a newer version of the format: what follows cannot be skipped safely.
                _ => return Err(CodecError::InvalidPadding),
            }
        }
        Ok(lock)
    }

    /// What a client learns about this lock; `key` is in request form.
    #[must_use]
    pub fn to_info(&self, key: Bytes) -> LockInfo {
        LockInfo {
            primary_lock: self.primary.clone(),
            lock_version: self.start_ts.0,
            key,
            lock_ttl: self.ttl,
            txn_size: self.txn_size,
            lock_type: self.lock_type.to_op() as i32,
            lock_for_update_ts: self.for_update_ts.0,
            use_async_commit: self.use_async_commit,
            min_commit_ts: self.min_commit_ts.0,
            secondaries: self.secondaries.clone(),
            ..LockInfo::default()
        }
    }

    /// Whether this lock blocks a snapshot read of `key` (request form) at `read_ts`.
    ///
    /// `bypass` holds the start timestamps of locks the reader knows to be irrelevant.
    #[must_use]
    pub fn blocks_read(&self, key: &[u8], read_ts: Timestamp, bypass: &[u64]) -> bool {
        if matches!(self.lock_type, LockType::Lock | LockType::Pessimistic)
            || self.start_ts > read_ts
            || self.min_commit_ts > read_ts
        {
            return false;
        }
        // A read of the newest version orders itself before a commit that was not decided yet.
        if read_ts == Timestamp::MAX && !self.use_async_commit && self.primary == key {
            return false;
        }
        !bypass.contains(&self.start_ts.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Lock {
        Lock::new(LockType::Put, Bytes::from_static(b"pk"), Timestamp(100), 3000)
    }

    #[test]
    fn layout() {
        let mut lock = sample();
        lock.short_value = Some(Bytes::from_static(b"val"));
        lock.for_update_ts = Timestamp(7);
        assert_eq!(
            lock.to_bytes(),
            [b"P\x04pk\x64".as_slice(), &[0xB8, 0x17], b"v\x03val", b"f\0\0\0\0\0\0\0\x07"].concat()
        );
        assert!(Lock::parse(b"X").is_err());
        assert!(Lock::parse(b"").is_err());
        assert!(Lock::parse(b"P\x04p").is_err());
    }

    #[test]
    fn expiry_is_strict() {
        let lock = Lock::new(LockType::Put, Bytes::new(), Timestamp::compose(1000, 5), 10);
        assert!(!lock.is_expired(Timestamp::compose(1010, 0)));
        assert!(lock.is_expired(Timestamp::compose(1011, 0)));
        assert!(lock.is_expired(Timestamp::MAX));
    }

    #[test]
    fn which_locks_block_reads() {
        let mut lock = sample();
        assert!(lock.blocks_read(b"k", Timestamp(100), &[]));
        assert!(!lock.blocks_read(b"k", Timestamp(99), &[]));
        assert!(!lock.blocks_read(b"k", Timestamp(100), &[1, 100]));
        assert!(lock.blocks_read(b"k", Timestamp::MAX, &[]));
        assert!(!lock.blocks_read(b"pk", Timestamp::MAX, &[]));
        lock.min_commit_ts = Timestamp(150);
        assert!(!lock.blocks_read(b"k", Timestamp(149), &[]));
        assert!(lock.blocks_read(b"k", Timestamp(150), &[]));
        lock.use_async_commit = true;
        assert!(lock.blocks_read(b"pk", Timestamp::MAX, &[]));
        lock.lock_type = LockType::Lock;
        assert!(!lock.blocks_read(b"k", Timestamp(200), &[]));
        lock.lock_type = LockType::Pessimistic;
        assert!(!lock.blocks_read(b"k", Timestamp(200), &[]));
    }

    proptest! {
        #[test]
        fn round_trip(
            kind in 0usize..4, primary: Vec<u8>, nums: [u64; 5], value in prop::option::of(prop::collection::vec(any::<u8>(), 0..256)),
            async_commit: bool, secondaries: Vec<Vec<u8>>, rollbacks: Vec<u64>, conflict: bool,
        ) {
            let kinds = [LockType::Put, LockType::Delete, LockType::Lock, LockType::Pessimistic];
            let mut lock = Lock::new(kinds[kind], primary.into(), Timestamp(nums[0]), nums[1]);
            lock.short_value = value.map(Bytes::from);
            lock.for_update_ts = Timestamp(nums[2]);
            lock.txn_size = nums[3];
            lock.min_commit_ts = Timestamp(nums[4]);
            lock.use_async_commit = async_commit;
            if async_commit {
                lock.secondaries = secondaries.into_iter().map(Bytes::from).collect();
            }
            lock.rollback_ts = rollbacks.into_iter().map(Timestamp).collect();
            lock.locked_with_conflict = conflict;
            prop_assert_eq!(Lock::parse(&lock.to_bytes()).unwrap(), lock);
        }
    }
}
