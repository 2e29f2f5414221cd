//! Pairs that a scan hands over: keys in the form they are in, and copies in few allocations.

use bytes::{BufMut, Bytes, BytesMut};
use rutile_proto::codec;

use super::Result;

/// The key of a visited pair.
#[derive(Clone, Copy)]
pub enum PairKey<'a> {
    /// In PD form.
    Encoded(&'a [u8]),
    /// In request form.
    Raw(&'a [u8]),
}

impl PairKey<'_> {
    /// Its length as it is held.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            PairKey::Encoded(key) | PairKey::Raw(key) => key.len(),
        }
    }

    /// Whether it is the empty key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends its request form.
    pub fn raw_into(&self, out: &mut Vec<u8>) -> Result<()> {
        match *self {
            PairKey::Raw(key) => out.extend_from_slice(key),
            PairKey::Encoded(mut key) => codec::decode_bytes_into(&mut key, out)?,
        }
        Ok(())
    }
}

/// Keys and values of many pairs in few allocations. A pair keeps its whole piece of at most [`PIECE_BYTES_MAX`] alive.
#[derive(Default)]
pub struct Arena {
    piece: BytesMut,
    piece_bytes: usize,
}

const PIECE_BYTES_MIN: usize = 1 << 10;
const PIECE_BYTES_MAX: usize = 32 << 10;
/// Longer values have allocations of their own.
const SHARED_BYTES_MAX: usize = 2 << 10;

impl Arena {
    fn reserve(&mut self, bytes: usize) {
        if self.piece.capacity() < bytes {
            self.piece_bytes = (self.piece_bytes * 2).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
            self.piece = BytesMut::with_capacity(self.piece_bytes.max(bytes));
        }
    }

    /// A copy of the key in request form.
    pub fn key(&mut self, key: PairKey<'_>) -> Result<Bytes> {
        match key {
            PairKey::Raw(key) => Ok(self.value(key)),
            PairKey::Encoded(key) => self.raw_key(key),
        }
    }

    /// A copy of a value.
    pub fn value(&mut self, value: &[u8]) -> Bytes {
        if value.is_empty() || value.len() > SHARED_BYTES_MAX {
            return Bytes::copy_from_slice(value);
        }
        self.reserve(value.len());
        self.piece.put_slice(value);
        self.piece.split().freeze()
    }

    /// The request form of a key.
    pub(super) fn raw_key(&mut self, mut encoded: &[u8]) -> Result<Bytes> {
        self.reserve(encoded.len());
        codec::decode_bytes_into(&mut encoded, &mut self.piece)?;
        match encoded {
            [] => Ok(self.piece.split().freeze()),
            _ => Err(codec::CodecError::InvalidPadding.into()),
        }
    }
}
