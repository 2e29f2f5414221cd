//! The protocol's integers and strings: length-encoded, fixed and NUL-terminated.

use crate::{Error, Result};

/// Appends a length-encoded integer.
pub fn put_lenenc_int(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=250 => out.push(value as u8),
        251..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&(value as u16).to_le_bytes());
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            out.extend_from_slice(&(value as u32).to_le_bytes()[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// Appends a length-encoded string.
pub fn put_lenenc_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_lenenc_int(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a payload from front to back; running out of bytes is [`Error::MalformedPacket`].
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `payload` from its start.
    pub fn new(payload: &'a [u8]) -> Reader<'a> {
        Reader { rest: payload }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Error::MalformedPacket)?;
        self.rest = rest;
        Ok(head)
    }

    /// A fixed number of bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Error::MalformedPacket)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little endian.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little endian.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little endian.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length-encoded integer.
    pub fn lenenc_int(&mut self) -> Result<u64> {
        match self.u8()? {
            value @ 0..=250 => Ok(u64::from(value)),
            0xfc => Ok(u64::from(self.u16()?)),
            0xfd => {
                let [a, b, c] = self.array()?;
                Ok(u64::from(u32::from_le_bytes([a, b, c, 0])))
            }
            0xfe => self.u64(),
            _ => Err(Error::MalformedPacket),
        }
    }

    /// A length-encoded string.
    pub fn lenenc_bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.lenenc_int()?).map_err(|_| Error::MalformedPacket)?;
        self.bytes(length)
    }

    /// A string up to the next NUL; the NUL is read, too.
    pub fn nul_bytes(&mut self) -> Result<&'a [u8]> {
        let end = memchr::memchr(0, self.rest).ok_or(Error::MalformedPacket)?;
        let head = self.bytes(end)?;
        self.bytes(1)?;
        Ok(head)
    }

    /// A string up to the next NUL or the end.
    pub fn nul_or_rest(&mut self) -> &'a [u8] {
        self.nul_bytes().unwrap_or_else(|_| std::mem::take(&mut self.rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_encoded_integers_round_trip_at_every_edge() {
        let cases = [
            (0, 1),
            (250, 1),
            (251, 3),
            (0xffff, 3),
            (0x1_0000, 4),
            (0xff_ffff, 4),
            (0x100_0000, 9),
            (u64::MAX, 9),
        ];
        for (value, length) in cases {
            let mut out = Vec::new();
            put_lenenc_int(&mut out, value);
            assert_eq!(out.len(), length, "{value}");
            let mut reader = Reader::new(&out);
            assert_eq!(reader.lenenc_int().unwrap(), value);
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn short_payloads_are_malformed_and_not_a_panic() {
        assert_eq!(Reader::new(b"").u8(), Err(Error::MalformedPacket));
        assert_eq!(Reader::new(b"\xfb").lenenc_int(), Err(Error::MalformedPacket));
        assert_eq!(
            Reader::new(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff").lenenc_bytes(),
            Err(Error::MalformedPacket)
        );
        assert_eq!(Reader::new(b"abc").nul_bytes(), Err(Error::MalformedPacket));
        assert_eq!(Reader::new(b"abc").nul_or_rest(), b"abc");
    }
}
