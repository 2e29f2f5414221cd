//! Keys as people write and read them.

use rutile_proto::codec;

use crate::error::{Error, Result};

/// Text stands for itself; hexadecimal follows `0x`.
pub fn parse(text: &str) -> Result<Vec<u8>> {
    let Some(digits) = text.strip_prefix("0x") else { return Ok(text.as_bytes().to_vec()) };
    let bad = || Error::Ctl(format!("\"{text}\" is not hexadecimal"));
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return Err(bad());
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| bad()))
        .collect()
}

/// Printable ASCII as text, all else as hexadecimal.
#[must_use]
pub fn show(key: &[u8]) -> String {
    if key.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        return format!("\"{}\"", String::from_utf8_lossy(key));
    }
    let mut out = String::from("0x");
    for byte in key {
        out.push_str(&format!("{byte:02X}"));
    }
    out
}

/// A region's bound: decoded when it is a memcomparable key, as almost all are.
#[must_use]
pub fn show_bound(bound: &[u8], unbounded: &str) -> String {
    if bound.is_empty() {
        return unbounded.into();
    }
    codec::decode_bytes_exact(bound).map_or_else(|_| format!("raw {}", show(bound)), |key| show(&key))
}

/// The keys of a table: `t`, its id, and everything behind.
#[must_use]
pub fn table_range(id: i64) -> (Vec<u8>, Vec<u8>) {
    let prefix = |id: i64| {
        let mut key = vec![b't'];
        codec::encode_i64(&mut key, id);
        key
    };
    (prefix(id), prefix(id.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_text_and_hexadecimal() {
        assert_eq!(parse("abc").unwrap(), b"abc");
        assert_eq!(parse("0x00fF").unwrap(), [0, 255]);
        assert!(parse("0x0").is_err());
        assert_eq!(show(b"abc"), "\"abc\"");
        assert_eq!(show(&[0, 255]), "0x00FF");
        assert_eq!(show_bound(&codec::encoded_bytes(b"abc"), "end"), "\"abc\"");
        assert_eq!(show_bound(b"", "end"), "end");
        let (start, end) = table_range(7);
        assert!(start < end && start[0] == b't');
    }
}
