//! Forms of raw keys and values, by API version.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use rutile_proto::codec;
use rutile_proto::key::RAW_MODE_PREFIX;
use rutile_proto::kvrpcpb::{ApiVersion, Context};

use super::{Error, Result};
use crate::engine::Cf;

const EXPIRY_LEN: usize = 8;
const FLAG_EXPIRY: u8 = 1;

/// The rules of one API version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawApi {
    V1,
    V1Ttl,
    V2,
}

/// A stored value taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawValue {
    pub value: Bytes,
    /// Unix seconds after which the value is gone.
    pub expires_at: Option<u64>,
}

impl RawValue {
    /// Whether the value is gone.
    #[must_use]
    pub fn is_expired(&self, now_secs: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now_secs)
    }
}

impl RawApi {
    /// What the request asks for.
    #[must_use]
    pub fn of(ctx: &Context) -> Self {
        match ctx.api_version() {
            ApiVersion::V1 => RawApi::V1,
            ApiVersion::V1ttl => RawApi::V1Ttl,
            ApiVersion::V2 | ApiVersion::V3 => RawApi::V2,
        }
    }

    /// The column family named.
    pub fn cf(self, name: &str) -> Result<Cf> {
        let cf = match (self, name) {
            (_, "") => Some(Cf::Default),
            (RawApi::V2, _) => None,
            (RawApi::V1Ttl, "default") => Some(Cf::Default),
            (RawApi::V1Ttl, _) => None,
            (RawApi::V1, name) => Cf::from_name(name).filter(|cf| Cf::DATA.contains(cf)),
        };
        cf.ok_or_else(|| {
            Error::InvalidRequest(format!("invalid column family \"{name}\" for this API version"))
        })
    }

    /// PD form of a key.
    pub fn key(self, key: &Bytes) -> Result<Bytes> {
        match self {
            RawApi::V1 | RawApi::V1Ttl => Ok(key.clone()),
            RawApi::V2 if key.first() == Some(&RAW_MODE_PREFIX) => Ok(codec::encoded_bytes(key).into()),
            RawApi::V2 => Err(Error::InvalidRequest("a raw key of API V2 starts with 'r'".into())),
        }
    }

    /// PD form of the bounds of `[lower, upper)`; an empty upper bound means the end of all raw keys.
    pub fn range(self, lower: &[u8], upper: &[u8]) -> Result<(Bytes, Bytes)> {
        match self {
            RawApi::V1 | RawApi::V1Ttl => Ok((Bytes::copy_from_slice(lower), Bytes::copy_from_slice(upper))),
            RawApi::V2 => {
                let last = [RAW_MODE_PREFIX + 1];
                let lower: Cow<'_, [u8]> = lower.max(&[RAW_MODE_PREFIX]).into();
                let upper = if upper.is_empty() { &last[..] } else { upper.min(&last) };
                Ok((codec::encoded_bytes(&lower).into(), codec::encoded_bytes(upper).into()))
            }
        }
    }

    /// Request form of a stored key.
    pub fn user_key(self, stored: &[u8]) -> Result<Bytes> {
        match self {
            RawApi::V1 | RawApi::V1Ttl => Ok(Bytes::copy_from_slice(stored)),
            RawApi::V2 => codec::decode_bytes_exact(stored)
                .map(Bytes::from)
                .map_err(|e| Error::InvalidRequest(format!("not a raw key of API V2: {e}"))),
        }
    }

    /// The stored form of a value.
    pub fn encode(self, value: &Bytes, ttl_secs: u64, now_secs: u64) -> Result<Bytes> {
        let expires_at = if ttl_secs == 0 { 0 } else { now_secs.saturating_add(ttl_secs) };
        match self {
            RawApi::V1 if ttl_secs != 0 => Err(Error::InvalidRequest("TTL is not enabled in API V1".into())),
            RawApi::V1 => Ok(value.clone()),
            RawApi::V1Ttl => {
                let mut out = BytesMut::with_capacity(value.len() + EXPIRY_LEN);
                out.put_slice(value);
                out.put_u64(expires_at);
                Ok(out.freeze())
            }
            RawApi::V2 => {
                let mut out = BytesMut::with_capacity(value.len() + EXPIRY_LEN + 1);
                out.put_slice(value);
                if expires_at == 0 {
                    out.put_u8(0);
                } else {
                    out.put_u64(expires_at);
                    out.put_u8(FLAG_EXPIRY);
                }
                Ok(out.freeze())
            }
        }
    }

    /// Takes a stored value apart.
    pub fn decode(self, mut stored: Bytes) -> Result<RawValue> {
        let has_expiry = match self {
            RawApi::V1 => false,
            RawApi::V1Ttl => true,
            RawApi::V2 => {
                let flags = *stored.last().ok_or_else(malformed)?;
                stored.truncate(stored.len() - 1);
                flags & FLAG_EXPIRY != 0
            }
        };
        if !has_expiry {
            return Ok(RawValue { value: stored, expires_at: None });
        }
        let at = stored.len().checked_sub(EXPIRY_LEN).ok_or_else(malformed)?;
        let expiry = stored.split_off(at);
        let expires_at = codec::decode_u64(&mut &expiry[..]).map_err(|_| malformed())?;
        Ok(RawValue { value: stored, expires_at: (expires_at != 0).then_some(expires_at) })
    }
}

fn malformed() -> Error {
    Error::InvalidRequest("the stored value is of another API version".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip() {
        let value = Bytes::from_static(b"v");
        for api in [RawApi::V1Ttl, RawApi::V2] {
            for (ttl, expires_at) in [(0, None), (10, Some(110))] {
                let stored = api.encode(&value, ttl, 100).unwrap();
                let decoded = api.decode(stored).unwrap();
                assert_eq!(decoded, RawValue { value: value.clone(), expires_at });
                assert_eq!(decoded.is_expired(110), ttl != 0);
                assert!(!decoded.is_expired(109));
            }
            assert!(api.decode(Bytes::new()).is_err());
        }
        assert_eq!(RawApi::V1.encode(&value, 0, 1).unwrap(), value);
        assert!(RawApi::V1.encode(&value, 1, 1).is_err());
    }

    #[test]
    fn keys_and_families() {
        assert!(RawApi::V2.key(&Bytes::from_static(b"x")).is_err());
        let key = Bytes::from_static(b"r\0\0\0k");
        assert_eq!(RawApi::V2.user_key(&RawApi::V2.key(&key).unwrap()).unwrap(), key);
        assert_eq!(RawApi::V1.key(&key).unwrap(), key);
        assert_eq!(RawApi::V1.cf("write").unwrap(), Cf::Write);
        assert!(RawApi::V1.cf("raft").is_err());
        assert!(RawApi::V2.cf("default").is_err());
        let (lower, upper) = RawApi::V2.range(b"", b"").unwrap();
        assert_eq!((&lower[..1], &upper[..1]), (&b"r"[..], &b"s"[..]));
    }
}
