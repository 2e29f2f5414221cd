//! Forms of a key.
//!
//! | form | where | what |
//! |---|---|---|
//! | request form | kvrpcpb | the client's key; API V2 puts a mode byte and a 3-byte keyspace id in front |
//! | PD form = storage order | region bounds, pdpb | V1 raw: the key itself; all others: its memcomparable encoding |
//! | data key | RocksDB | `z` and the PD form, so that local records (`0x01…`) never meet user data |

use bytes::Bytes;

use crate::codec;
use crate::kvrpcpb::ApiVersion;

/// First byte of a raw key of API V2.
pub const RAW_MODE_PREFIX: u8 = b'r';
/// First byte of a transactional key of API V2.
pub const TXN_MODE_PREFIX: u8 = b'x';
/// Largest keyspace id (24 bits).
pub const KEYSPACE_ID_MAX: u32 = 0xFF_FFFF;
/// First byte of every data key in RocksDB.
pub const DATA_PREFIX: u8 = b'z';
/// Just after every data key.
pub const DATA_END: &[u8] = b"{";

/// The 4 bytes in front of every key of a keyspace: mode byte and big-endian 24-bit id.
#[must_use]
pub fn keyspace_prefix(mode: u8, keyspace_id: u32) -> [u8; 4] {
    let id = keyspace_id.to_be_bytes();
    [mode, id[1], id[2], id[3]]
}

/// Region bounds (PD form) that isolate the raw and transactional ranges of a keyspace, in key order.
#[must_use]
pub fn keyspace_bounds(keyspace_id: u32) -> Vec<Bytes> {
    let bound = |mode, id| Bytes::from(codec::encoded_bytes(&keyspace_prefix(mode, id)));
    vec![
        bound(RAW_MODE_PREFIX, keyspace_id),
        bound(RAW_MODE_PREFIX, keyspace_id + 1),
        bound(TXN_MODE_PREFIX, keyspace_id),
        bound(TXN_MODE_PREFIX, keyspace_id + 1),
    ]
}

/// The PD form of a raw request's key.
#[must_use]
pub fn raw_pd_key(api: ApiVersion, key: &[u8]) -> Vec<u8> {
    match api {
        ApiVersion::V1 | ApiVersion::V1ttl => key.to_vec(),
        ApiVersion::V2 | ApiVersion::V3 => codec::encoded_bytes(key),
    }
}

/// The PD form of a transactional request's key.
#[must_use]
pub fn txn_pd_key(key: &[u8]) -> Vec<u8> {
    codec::encoded_bytes(key)
}

/// The data key of a PD form key.
#[must_use]
pub fn data_key(pd_key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + pd_key.len());
    out.push(DATA_PREFIX);
    out.extend_from_slice(pd_key);
    out
}

/// The data key of a region's end bound; an empty bound is the end of all data.
#[must_use]
pub fn data_end_key(pd_end: &[u8]) -> Vec<u8> {
    if pd_end.is_empty() { DATA_END.to_vec() } else { data_key(pd_end) }
}

/// Whether `key` lies in `[start, end)`; an empty end is unbounded. All in one form.
#[must_use]
pub fn in_range(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    key >= start && (end.is_empty() || key < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_keyspace_is_isolated() {
        let bounds = keyspace_bounds(0);
        assert!(bounds.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(&codec::decode_bytes_exact(&bounds[1]).unwrap()[..], [0x72, 0, 0, 1]);
        assert_eq!(keyspace_prefix(TXN_MODE_PREFIX, 0x010203), [b'x', 1, 2, 3]);
    }

    #[test]
    fn ranges() {
        assert!(in_range(b"a", b"", b""));
        assert!(in_range(b"a", b"a", b"b"));
        assert!(!in_range(b"b", b"a", b"b"));
        assert!(data_end_key(b"") > data_key(&[0xFF; 40]));
    }
}
