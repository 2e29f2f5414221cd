//! Write records (CF `write`, key `mce(key) | !commit_ts`).
//!
//! Layout: type byte | start_ts (var u64) | tagged fields. Values up to [`super::SHORT_VALUE_LEN_MAX`] bytes are inside;
//! longer ones lie in CF `default` at `mce(key) | !start_ts`. Source: TiKV's write format.

use bytes::Bytes;
use rutile_proto::codec::{self, CodecError};
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb::Op;

use super::lock::LockType;
use super::tagged::{decode_slice, decode_u8, decode_var_u64, encode_var_u64};

const TAG_SHORT_VALUE: u8 = b'v';
const TAG_OVERLAPPED_ROLLBACK: u8 = b'R';
const TAG_GC_FENCE: u8 = b'F';
/// The short value of a rollback that must not be collapsed.
const PROTECTED_ROLLBACK: &[u8] = b"p";

/// What a committed (or rolled back) transaction did to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteType {
    Put,
    Delete,
    /// The key was locked; its value did not change.
    Lock,
    /// The transaction with this start_ts must never commit here.
    Rollback,
}

impl WriteType {
    fn to_byte(self) -> u8 {
        match self {
            WriteType::Put => b'P',
            WriteType::Delete => b'D',
            WriteType::Lock => b'L',
            WriteType::Rollback => b'R',
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'P' => Some(WriteType::Put),
            b'D' => Some(WriteType::Delete),
            b'L' => Some(WriteType::Lock),
            b'R' => Some(WriteType::Rollback),
            _ => None,
        }
    }

    /// What a lock becomes when it commits; `None` for a pessimistic lock, which just goes away.
    #[must_use]
    pub fn from_lock(lock_type: LockType) -> Option<Self> {
        match lock_type {
            LockType::Put => Some(WriteType::Put),
            LockType::Delete => Some(WriteType::Delete),
            LockType::Lock => Some(WriteType::Lock),
            LockType::Pessimistic => None,
        }
    }

    /// The wire form.
    #[must_use]
    pub fn to_op(self) -> Op {
        match self {
            WriteType::Put => Op::Put,
            WriteType::Delete => Op::Del,
            WriteType::Lock => Op::Lock,
            WriteType::Rollback => Op::Rollback,
        }
    }
}

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub write_type: WriteType,
    pub start_ts: Timestamp,
    /// The value of a Put, unless it lies in CF `default`; for a protected rollback a marker.
    pub short_value: Option<Bytes>,
    /// A transaction whose start_ts equals this record's commit_ts was rolled back on this key.
    pub has_overlapped_rollback: bool,
}

impl Write {
    /// A version without a rollback mark.
    #[must_use]
    pub fn new(write_type: WriteType, start_ts: Timestamp, short_value: Option<Bytes>) -> Self {
        Write { write_type, start_ts, short_value, has_overlapped_rollback: false }
    }

    /// A rollback record; a protected one survives later rollbacks.
    #[must_use]
    pub fn new_rollback(start_ts: Timestamp, protected: bool) -> Self {
        let short_value = protected.then(|| Bytes::from_static(PROTECTED_ROLLBACK));
        Write::new(WriteType::Rollback, start_ts, short_value)
    }

    /// Whether this is a rollback that must not be collapsed.
    #[must_use]
    pub fn is_protected_rollback(&self) -> bool {
        self.write_type == WriteType::Rollback
            && self.short_value.as_deref().is_some_and(|v| v == PROTECTED_ROLLBACK)
    }

    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.short_value.as_ref().map_or(0, Bytes::len));
        out.push(self.write_type.to_byte());
        encode_var_u64(&mut out, self.start_ts.0);
        if let Some(value) = &self.short_value {
            out.push(TAG_SHORT_VALUE);
            out.push(value.len() as u8);
            out.extend_from_slice(value);
        }
        if self.has_overlapped_rollback {
            out.push(TAG_OVERLAPPED_ROLLBACK);
        }
        out
    }
}

/// A write record that borrows its value from the storage block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteRef<'a> {
    pub write_type: WriteType,
    pub start_ts: Timestamp,
    pub short_value: Option<&'a [u8]>,
    pub has_overlapped_rollback: bool,
}

impl<'a> WriteRef<'a> {
    /// Reads the stored form.
    pub fn parse(mut input: &'a [u8]) -> Result<Self, CodecError> {
        let input = &mut input;
        let write_type = WriteType::from_byte(decode_u8(input)?).ok_or(CodecError::InvalidPadding)?;
        let start_ts = Timestamp(decode_var_u64(input)?);
        let mut write = WriteRef { write_type, start_ts, short_value: None, has_overlapped_rollback: false };
        while !input.is_empty() {
            match decode_u8(input)? {
                TAG_SHORT_VALUE => {
                    let len = decode_u8(input)? as usize;
                    write.short_value = Some(decode_slice(input, len)?);
                }
                TAG_OVERLAPPED_ROLLBACK => write.has_overlapped_rollback = true,
                TAG_GC_FENCE => {
                    codec::decode_u64(input)?;
                }
                // Hints of newer versions of the format come last.
                _ => break,
            }
        }
        Ok(write)
    }

    /// A copy that owns its value.
    #[must_use]
    pub fn to_owned(&self) -> Write {
        Write {
            write_type: self.write_type,
            start_ts: self.start_ts,
            short_value: self.short_value.map(Bytes::copy_from_slice),
            has_overlapped_rollback: self.has_overlapped_rollback,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout() {
        let write = Write::new(WriteType::Put, Timestamp(300), Some(Bytes::from_static(b"v")));
        assert_eq!(write.to_bytes(), b"P\xAC\x02v\x01v");
        let rollback = Write::new_rollback(Timestamp(1), true);
        assert_eq!(rollback.to_bytes(), b"R\x01v\x01p");
        assert!(rollback.is_protected_rollback());
        assert!(!Write::new_rollback(Timestamp(1), false).is_protected_rollback());
        assert!(WriteRef::parse(b"").is_err());
        assert!(WriteRef::parse(b"Z\x01").is_err());
    }

    proptest! {
        #[test]
        fn round_trip(
            kind in 0usize..4, ts: u64, overlapped: bool,
            value in prop::option::of(prop::collection::vec(any::<u8>(), 0..256)),
        ) {
            let kinds = [WriteType::Put, WriteType::Delete, WriteType::Lock, WriteType::Rollback];
            let mut write = Write::new(kinds[kind], Timestamp(ts), value.map(Bytes::from));
            write.has_overlapped_rollback = overlapped;
            let bytes = write.to_bytes();
            prop_assert_eq!(WriteRef::parse(&bytes).unwrap().to_owned(), write);
        }
    }
}
