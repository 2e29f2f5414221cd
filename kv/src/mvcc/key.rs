//! A transactional key in its two forms, and keys that carry a timestamp.

use bytes::Bytes;
use rutile_proto::codec::{self, CodecError};
use rutile_proto::ids::Timestamp;

/// Bytes a timestamp adds to a key.
pub const TS_LEN: usize = 8;

/// A key as the client sends it together with its memcomparable encoding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    encoded: Vec<u8>,
    raw: Bytes,
}

impl Key {
    /// From request form.
    #[must_use]
    pub fn from_raw(raw: &Bytes) -> Self {
        let mut encoded = Vec::with_capacity(codec::encoded_bytes_len(raw.len()) + TS_LEN);
        codec::encode_bytes(&mut encoded, raw);
        Key { encoded, raw: raw.clone() }
    }

    /// From PD form.
    pub fn from_encoded(encoded: &[u8]) -> Result<Self, CodecError> {
        let raw = Bytes::from(codec::decode_bytes_exact(encoded)?);
        Ok(Key { encoded: encoded.to_vec(), raw })
    }

    /// Request form.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// PD form: the key in CF `lock`.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// PD form with a timestamp: the key in CF `write` and CF `default`.
    #[must_use]
    pub fn at(&self, ts: Timestamp) -> Vec<u8> {
        append_ts(&self.encoded, ts)
    }
}

/// Appends `ts` so that newer versions come first.
#[must_use]
pub fn append_ts(encoded: &[u8], ts: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.len() + TS_LEN);
    out.extend_from_slice(encoded);
    codec::encode_u64_desc(&mut out, ts.0);
    out
}

/// Splits what [`append_ts`] made.
#[inline]
pub fn split_ts(key: &[u8]) -> Result<(&[u8], Timestamp), CodecError> {
    let at = key.len().checked_sub(TS_LEN).ok_or(CodecError::UnexpectedEof)?;
    let (encoded, mut ts) = key.split_at(at);
    Ok((encoded, Timestamp(codec::decode_u64_desc(&mut ts)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let key = Key::from_raw(&Bytes::from_static(b"abc"));
        assert_eq!(Key::from_encoded(key.encoded()).unwrap(), key);
        let versioned = key.at(Timestamp(9));
        assert_eq!(split_ts(&versioned).unwrap(), (key.encoded(), Timestamp(9)));
        assert!(key.at(Timestamp(10)) < versioned);
        assert!(split_ts(b"short").is_err());
    }
}
