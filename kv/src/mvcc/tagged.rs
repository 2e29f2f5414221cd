//! Variable-length integers and length-prefixed bytes, as used inside lock and write records.
//!
//! Unsigned: LEB128. Signed: zigzag, then LEB128. Bytes: signed length, then the bytes.

use rutile_proto::codec::CodecError;

type Result<T> = std::result::Result<T, CodecError>;

/// Longest encoding of a u64 in bytes.
pub const VAR_U64_LEN_MAX: usize = 10;

/// Appends an unsigned integer, 7 bits a byte, low bits first.
pub fn encode_var_u64(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Appends bytes behind their length.
pub fn encode_compact_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    encode_var_u64(out, (bytes.len() as u64) << 1);
    out.extend_from_slice(bytes);
}

/// Reads one byte.
pub fn decode_u8(input: &mut &[u8]) -> Result<u8> {
    let (&first, rest) = input.split_first().ok_or(CodecError::UnexpectedEof)?;
    *input = rest;
    Ok(first)
}

/// Reads what [`encode_var_u64`] wrote.
pub fn decode_var_u64(input: &mut &[u8]) -> Result<u64> {
    let mut v = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = decode_u8(input)?;
        if shift == 63 && byte > 1 {
            return Err(CodecError::InvalidPadding);
        }
        v |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Ok(v);
        }
    }
    Err(CodecError::InvalidPadding)
}

/// Reads `len` bytes without copying them.
pub fn decode_slice<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8]> {
    if input.len() < len {
        return Err(CodecError::UnexpectedEof);
    }
    let (head, rest) = input.split_at(len);
    *input = rest;
    Ok(head)
}

/// Reads what [`encode_compact_bytes`] wrote.
pub fn decode_compact_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8]> {
    let zigzag = decode_var_u64(input)?;
    if zigzag & 1 == 1 {
        return Err(CodecError::InvalidPadding);
    }
    decode_slice(input, (zigzag >> 1) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_encodings() {
        let mut out = vec![];
        encode_var_u64(&mut out, 300);
        assert_eq!(out, [0xAC, 0x02]);
        out.clear();
        encode_compact_bytes(&mut out, b"pk");
        assert_eq!(out, [4, b'p', b'k']);
        assert!(decode_var_u64(&mut &[0xFF; 11][..]).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(v: u64, bytes: Vec<u8>) {
            let mut out = vec![];
            encode_var_u64(&mut out, v);
            prop_assert!(out.len() <= VAR_U64_LEN_MAX);
            encode_compact_bytes(&mut out, &bytes);
            let mut input = &out[..];
            prop_assert_eq!(decode_var_u64(&mut input).unwrap(), v);
            prop_assert_eq!(decode_compact_bytes(&mut input).unwrap(), &bytes[..]);
            prop_assert!(input.is_empty());
        }
    }
}
