//! Memcomparable encodings: the byte order of an encoding is the order of the values.
//!
//! Bytes are cut into groups of 8; each group is followed by a marker `0xFF - pad` (pad = zero bytes added).
//! A last group that is not full always exists, so an encoding of n bytes has `(n / 8 + 1) * 9` bytes.
//! Source: MyRocks' memcomparable format, as used for keys by TiKV.

use bytes::{BufMut, Bytes};

const GROUP_SIZE_BYTES: usize = 8;
const MARKER: u8 = 0xFF;
const SIGN_MASK: u64 = 1 << 63;

/// An encoding that this module did not make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The input ends inside a value.
    #[error("unexpected end of input")]
    UnexpectedEof,
    /// A marker or padding byte is not one that the encoder writes.
    #[error("invalid padding in a memcomparable group")]
    InvalidPadding,
}

type Result<T> = std::result::Result<T, CodecError>;

/// Length in bytes of the memcomparable encoding of `len` bytes.
#[must_use]
pub const fn encoded_bytes_len(len: usize) -> usize {
    (len / GROUP_SIZE_BYTES + 1) * (GROUP_SIZE_BYTES + 1)
}

/// Appends the memcomparable encoding of `key`.
pub fn encode_bytes(out: &mut Vec<u8>, key: &[u8]) {
    out.reserve(encoded_bytes_len(key.len()));
    let mut groups = key.chunks_exact(GROUP_SIZE_BYTES);
    for group in &mut groups {
        out.extend_from_slice(group);
        out.push(MARKER);
    }
    let rest = groups.remainder();
    let pad = GROUP_SIZE_BYTES - rest.len();
    out.extend_from_slice(rest);
    out.resize(out.len() + pad, 0);
    out.push(MARKER - pad as u8);
}

/// The memcomparable encoding of `key`.
#[must_use]
pub fn encoded_bytes(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_bytes_len(key.len()));
    encode_bytes(&mut out, key);
    out
}

/// Decodes one value from the front of `input` and advances `input` past it.
pub fn decode_bytes(input: &mut &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(input.len() / 9 * 8);
    decode_bytes_into(input, &mut out)?;
    Ok(out)
}

/// As [`decode_bytes`], appending to `out`. After an error `out` may hold a part of the value.
pub fn decode_bytes_into(input: &mut &[u8], out: &mut impl BufMut) -> Result<()> {
    loop {
        if input.len() < GROUP_SIZE_BYTES + 1 {
            return Err(CodecError::UnexpectedEof);
        }
        let (group, rest) = input.split_at(GROUP_SIZE_BYTES + 1);
        *input = rest;
        let pad = (MARKER - group[GROUP_SIZE_BYTES]) as usize;
        if pad > GROUP_SIZE_BYTES {
            return Err(CodecError::InvalidPadding);
        }
        let (data, padding) = group[..GROUP_SIZE_BYTES].split_at(GROUP_SIZE_BYTES - pad);
        out.put_slice(data);
        if pad > 0 {
            if padding.iter().any(|b| *b != 0) {
                return Err(CodecError::InvalidPadding);
            }
            return Ok(());
        }
    }
}

/// Length of the encoded value at the front of `input`, without decoding it.
pub fn encoded_prefix_len(input: &[u8]) -> Result<usize> {
    let mut at = GROUP_SIZE_BYTES;
    loop {
        match input.get(at) {
            None => return Err(CodecError::UnexpectedEof),
            Some(&MARKER) => at += GROUP_SIZE_BYTES + 1,
            Some(_) => return Ok(at + 1),
        }
    }
}

/// Decodes a value that fills the whole input.
pub fn decode_bytes_exact(mut input: &[u8]) -> Result<Vec<u8>> {
    let out = decode_bytes(&mut input)?;
    if input.is_empty() { Ok(out) } else { Err(CodecError::InvalidPadding) }
}

/// Appends a u64 in big-endian order.
#[inline]
pub fn encode_u64(out: &mut Vec<u8>, v: u64) {
    out.put_u64(v);
}

/// Appends a u64 so that larger values sort first.
#[inline]
pub fn encode_u64_desc(out: &mut Vec<u8>, v: u64) {
    out.put_u64(!v);
}

/// Appends an i64 so that byte order is numeric order.
#[inline]
pub fn encode_i64(out: &mut Vec<u8>, v: i64) {
    out.put_u64((v as u64) ^ SIGN_MASK);
}

/// Appends an f64 so that byte order is numeric order; -0 is encoded as +0.
pub fn encode_f64(out: &mut Vec<u8>, v: f64) {
    let bits = if v == 0.0 { 0 } else { v.to_bits() };
    out.put_u64(if bits & SIGN_MASK == 0 { bits | SIGN_MASK } else { !bits });
}

#[inline]
fn take_u64(input: &mut &[u8]) -> Result<u64> {
    let (head, rest) = input.split_first_chunk::<8>().ok_or(CodecError::UnexpectedEof)?;
    *input = rest;
    Ok(u64::from_be_bytes(*head))
}

/// Reads what [`encode_u64`] wrote and advances `input`.
#[inline]
pub fn decode_u64(input: &mut &[u8]) -> Result<u64> {
    take_u64(input)
}

/// Reads what [`encode_u64_desc`] wrote and advances `input`.
#[inline]
pub fn decode_u64_desc(input: &mut &[u8]) -> Result<u64> {
    Ok(!take_u64(input)?)
}

/// Reads what [`encode_i64`] wrote and advances `input`.
#[inline]
pub fn decode_i64(input: &mut &[u8]) -> Result<i64> {
    Ok((take_u64(input)? ^ SIGN_MASK) as i64)
}

/// Reads what [`encode_f64`] wrote and advances `input`.
pub fn decode_f64(input: &mut &[u8]) -> Result<f64> {
    let bits = take_u64(input)?;
    Ok(f64::from_bits(if bits & SIGN_MASK == 0 { !bits } else { bits & !SIGN_MASK }))
}

/// The smallest key greater than every key that starts with `prefix`; empty (unbounded) when there is none.
#[must_use]
pub fn prefix_next(prefix: &[u8]) -> Bytes {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if last < 0xFF {
            next.push(last + 1);
            return next.into();
        }
    }
    Bytes::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_encodings() {
        assert_eq!(encoded_bytes(b""), [0, 0, 0, 0, 0, 0, 0, 0, 0xF7]);
        assert_eq!(encoded_bytes(b"abc"), [97, 98, 99, 0, 0, 0, 0, 0, 0xFA]);
        assert_eq!(encoded_bytes(b"12345678").len(), 18);
    }

    #[test]
    fn rejects_what_the_encoder_never_writes() {
        assert_eq!(decode_bytes_exact(&[0; 5]), Err(CodecError::UnexpectedEof));
        assert_eq!(decode_bytes_exact(&[1, 2, 3, 4, 5, 6, 7, 8, 0xF7]), Err(CodecError::InvalidPadding));
        assert_eq!(decode_bytes_exact(&[0, 0, 0, 0, 0, 0, 0, 0, 0xF6]), Err(CodecError::InvalidPadding));
        assert_eq!(prefix_next(&[0xFF, 0xFF]), Bytes::new());
        assert_eq!(&prefix_next(b"a\xFF")[..], b"b");
    }

    proptest! {
        #[test]
        fn bytes_round_trip_and_keep_order(a: Vec<u8>, b: Vec<u8>, tail: Vec<u8>) {
            let (ea, eb) = (encoded_bytes(&a), encoded_bytes(&b));
            prop_assert_eq!(ea.len(), encoded_bytes_len(a.len()));
            prop_assert_eq!(a.cmp(&b), ea.cmp(&eb));
            prop_assert_eq!(encoded_prefix_len(&ea).unwrap(), ea.len());
            let mut with_tail = ea.clone();
            with_tail.extend_from_slice(&tail);
            let mut input = &with_tail[..];
            prop_assert_eq!(decode_bytes(&mut input).unwrap(), a);
            prop_assert_eq!(input, &tail[..]);
        }

        #[test]
        fn integers_round_trip_and_keep_order(a: i64, b: i64) {
            let (mut ea, mut eb) = (vec![], vec![]);
            encode_i64(&mut ea, a);
            encode_i64(&mut eb, b);
            prop_assert_eq!(a.cmp(&b), ea.cmp(&eb));
            prop_assert_eq!(decode_i64(&mut &ea[..]).unwrap(), a);
            let (a, b) = (a as u64, b as u64);
            let (mut ea, mut eb) = (vec![], vec![]);
            encode_u64_desc(&mut ea, a);
            encode_u64_desc(&mut eb, b);
            prop_assert_eq!(b.cmp(&a), ea.cmp(&eb));
            prop_assert_eq!(decode_u64_desc(&mut &ea[..]).unwrap(), a);
        }

        #[test]
        fn floats_round_trip_and_keep_order(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            let (mut ea, mut eb) = (vec![], vec![]);
            encode_f64(&mut ea, a);
            encode_f64(&mut eb, b);
            prop_assert_eq!(a.partial_cmp(&b).unwrap(), ea.cmp(&eb));
            prop_assert_eq!(decode_f64(&mut &ea[..]).unwrap(), a);
        }
    }
}
