//! Digests, checksums, UUIDs and network addresses.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};

use super::registry::{Arg, Entry, ret};
use super::string::{bytes, int, text};
use crate::error::{Error, Result};
use crate::expr::{Function, Scope, Volatility};
use crate::types::Datum;

pub(super) const ENTRIES: &[Entry] = &[
    Entry::fixed(Function::strict("md5", md5_hex), 1, 1, &[Arg::Str], ret::text),
    Entry::fixed(Function::strict("sha1", sha1_hex), 1, 1, &[Arg::Str], ret::text),
    Entry::fixed(Function::strict("sha2", sha2_hex), 2, 2, &[Arg::Str, Arg::Int], ret::text),
    Entry::fixed(Function::strict("crc32", crc32), 1, 1, &[Arg::Str], ret::uint),
    Entry::fixed(
        Function::strict("random_bytes", random_bytes).volatility(Volatility::Volatile),
        1,
        1,
        &[Arg::Int],
        ret::binary,
    ),
    Entry::fixed(Function::strict("uuid", uuid_text).volatility(Volatility::Volatile), 0, 0, &[], ret::text),
    Entry::fixed(Function::strict("is_uuid", is_uuid), 1, 1, &[Arg::Str], ret::boolean),
    Entry::fixed(Function::strict("uuid_to_bin", uuid_to_bin), 1, 2, &[Arg::Str, Arg::Int], ret::binary),
    Entry::fixed(Function::strict("bin_to_uuid", bin_to_uuid), 1, 2, &[Arg::Str, Arg::Int], ret::text),
    Entry::fixed(Function::strict("inet_aton", inet_aton), 1, 1, &[Arg::Str], ret::uint),
    Entry::fixed(Function::strict("inet_ntoa", inet_ntoa), 1, 1, &[Arg::Int], ret::text),
    Entry::fixed(Function::strict("inet6_aton", inet6_aton), 1, 1, &[Arg::Str], ret::binary),
    Entry::fixed(Function::strict("inet6_ntoa", inet6_ntoa), 1, 1, &[Arg::Str], ret::text),
    Entry::fixed(Function::strict("is_ipv4", is_ipv4), 1, 1, &[Arg::Str], ret::boolean),
    Entry::fixed(Function::strict("is_ipv6", is_ipv6), 1, 1, &[Arg::Str], ret::boolean),
];

/// A string's bytes in its own character set.
fn raw(scope: &Scope<'_>, args: &[Datum]) -> Vec<u8> {
    match &args[0] {
        Datum::String(s) => scope.arg_type(0).collation.charset().encode(s).into_owned(),
        other => bytes(other).to_vec(),
    }
}

fn md5_hex(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::String(hex::encode(Md5::digest(raw(scope, args)))))
}

fn sha1_hex(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::String(hex::encode(Sha1::digest(raw(scope, args)))))
}

fn sha2_hex(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let input = raw(scope, args);
    Ok(Datum::String(match int(&args[1]) {
        224 => hex::encode(Sha224::digest(input)),
        0 | 256 => hex::encode(Sha256::digest(input)),
        384 => hex::encode(Sha384::digest(input)),
        512 => hex::encode(Sha512::digest(input)),
        _ => return Ok(Datum::Null),
    }))
}

fn crc32(scope: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::UInt(u64::from(crc32fast::hash(&raw(scope, args)))))
}

fn random_bytes(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let len = int(&args[0]);
    if !(1..=1024).contains(&len) {
        return Err(Error::WrongArguments { function: "random_bytes".to_string() });
    }
    Ok(Datum::Bytes((0..len).map(|_| rand::random()).collect()))
}

fn uuid_text(_: &Scope<'_>, _: &[Datum]) -> Result<Datum> {
    let node: [u8; 6] = rand::random();
    Ok(Datum::String(uuid::Uuid::now_v1(&node).to_string()))
}

/// 32 hexadecimal digits, with dashes after the 8th, 12th, 16th and 20th or none, in braces or not.
fn parse_uuid(text: &str) -> Option<uuid::Uuid> {
    let bare = text.strip_prefix('{').map_or(Some(text), |rest| rest.strip_suffix('}'))?;
    if bare.len() == 36 || (bare.len() == 32 && !text.starts_with('{')) {
        uuid::Uuid::parse_str(bare).ok()
    } else {
        None
    }
}

fn is_uuid(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(i64::from(parse_uuid(text(&args[0])).is_some())))
}

/// The swapped form puts the time's high parts first, so that UUIDs of version 1 sort by time.
fn swapped(b: [u8; 16]) -> [u8; 16] {
    [b[6], b[7], b[4], b[5], b[0], b[1], b[2], b[3], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]
}

fn unswapped(b: [u8; 16]) -> [u8; 16] {
    [b[4], b[5], b[6], b[7], b[2], b[3], b[0], b[1], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]
}

fn is_swap(args: &[Datum]) -> bool {
    args.get(1).is_some_and(|a| int(a) != 0)
}

fn uuid_to_bin(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let value = text(&args[0]);
    let Some(parsed) = parse_uuid(value) else {
        return Err(Error::WrongValueForFunction {
            kind: "string",
            value: value.to_string(),
            function: "uuid_to_bin",
        });
    };
    let raw = parsed.into_bytes();
    Ok(Datum::Bytes(if is_swap(args) { swapped(raw) } else { raw }.to_vec()))
}

fn bin_to_uuid(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let Ok(raw) = <[u8; 16]>::try_from(bytes(&args[0])) else {
        return Err(Error::WrongValueForFunction {
            kind: "string",
            value: String::from_utf8_lossy(bytes(&args[0])).into_owned(),
            function: "bin_to_uuid",
        });
    };
    let raw = if is_swap(args) { unswapped(raw) } else { raw };
    Ok(Datum::String(uuid::Uuid::from_bytes(raw).to_string()))
}

/// `a.b.c.d`, or fewer parts of which the last fills the rest.
fn inet_aton(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let parts: Option<Vec<u64>> = text(&args[0])
        .split('.')
        .map(|p| p.parse().ok().filter(|v| *v <= 255 && !p.starts_with('+')))
        .collect();
    Ok(match parts.as_deref() {
        Some([a]) => Datum::UInt(*a),
        Some([head @ .., last]) if head.len() <= 3 => {
            let high = head.iter().enumerate().map(|(i, v)| v << (24 - 8 * i)).sum::<u64>();
            Datum::UInt(high + last)
        }
        _ => Datum::Null,
    })
}

fn inet_ntoa(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(u32::try_from(int(&args[0])).map_or(Datum::Null, |v| Datum::String(Ipv4Addr::from(v).to_string())))
}

fn inet6_aton(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let value = text(&args[0]);
    if let Ok(v4) = Ipv4Addr::from_str(value) {
        return Ok(Datum::Bytes(v4.octets().to_vec()));
    }
    Ok(Ipv6Addr::from_str(value).map_or(Datum::Null, |v6| Datum::Bytes(v6.octets().to_vec())))
}

fn inet6_ntoa(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    let raw = bytes(&args[0]);
    if let Ok(v4) = <[u8; 4]>::try_from(raw) {
        return Ok(Datum::String(Ipv4Addr::from(v4).to_string()));
    }
    Ok(<[u8; 16]>::try_from(raw).map_or(Datum::Null, |v6| Datum::String(Ipv6Addr::from(v6).to_string())))
}

fn is_ipv4(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(i64::from(Ipv4Addr::from_str(text(&args[0])).is_ok())))
}

fn is_ipv6(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(i64::from(Ipv6Addr::from_str(text(&args[0])).is_ok())))
}
