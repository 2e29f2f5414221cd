//! What a raft log entry says.
//!
//! Shape: kind (1 B) · epoch version (varint) · body. A write's body is a list of changes, each
//! `op << 4 | cf` (1 B) · length (varint) · bytes · length (varint) · bytes. A split's body is a protobuf message.
//! An empty entry is the one a new leader appends.

use bytes::Bytes;
use prost::Message as _;

use super::api::{Modify, WriteData};
use crate::engine::Cf;

const KIND_WRITE: u8 = 1;
/// First byte of a [`SplitCommand`].
pub(crate) const KIND_SPLIT: u8 = 2;
/// First byte of a [`PrepareMergeCommand`].
pub(crate) const KIND_PREPARE_MERGE: u8 = 3;
/// First byte of a [`CommitMergeCommand`].
pub(crate) const KIND_COMMIT_MERGE: u8 = 4;
const KIND_ROLLBACK_MERGE: u8 = 5;
/// The only byte of an entry at which every peer computes a checksum of its data.
pub(crate) const KIND_COMPUTE_HASH: u8 = 6;
const KIND_VERIFY_HASH: u8 = 7;
const OP_PUT: u8 = 1;
const OP_DELETE: u8 = 2;
const OP_DELETE_RANGE: u8 = 3;

/// A decoded entry; slices point into its data.
#[derive(Debug, PartialEq)]
pub(crate) enum Command<'a> {
    /// Nothing to do.
    Noop,
    /// Changes to the region's data.
    Write { version: u64, changes: Changes<'a> },
    /// A split of the region.
    Split { version: u64, split: SplitCommand },
    /// The region is about to be merged into another.
    PrepareMerge { version: u64, prepare: PrepareMergeCommand },
    /// Another region is merged into this one.
    CommitMerge { version: u64, commit: CommitMergeCommand },
    /// The region is not merged after all.
    RollbackMerge { version: u64 },
    /// Every peer computes a checksum of its data here.
    ComputeHash,
    /// The checksum that the leader's data had at an index.
    VerifyHash { index: u64, hash: u64 },
}

/// One change; keys in PD form.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Change<'a> {
    Put(Cf, &'a [u8], &'a [u8]),
    Delete(Cf, &'a [u8]),
    DeleteRange(Cf, &'a [u8], &'a [u8]),
}

/// Cuts a region; the original keeps its id and the last piece.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SplitCommand {
    /// One per new region, in key order.
    #[prost(message, repeated, tag = "1")]
    pub(crate) pieces: Vec<SplitPiece>,
}

/// A new region: it ends at `end_key` and begins where the one before it ends.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SplitPiece {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) end_key: Bytes,
    #[prost(uint64, tag = "2")]
    pub(crate) region_id: u64,
    /// Parallel to the peers of the region being split.
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) peer_ids: Vec<u64>,
}

/// Ends a region's life of its own.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PrepareMergeCommand {
    /// Of the source.
    #[prost(uint64, tag = "1")]
    pub(crate) conf_ver: u64,
    /// Every peer of the source has its log up to here.
    #[prost(uint64, tag = "2")]
    pub(crate) min_index: u64,
    /// As it must be when the merge is committed.
    #[prost(message, optional, tag = "3")]
    pub(crate) target: Option<rutile_proto::metapb::Region>,
}

/// Takes a neighbour's range over.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CommitMergeCommand {
    /// Of the target.
    #[prost(uint64, tag = "1")]
    pub(crate) conf_ver: u64,
    /// Of the target.
    #[prost(uint64, tag = "2")]
    pub(crate) version: u64,
    /// As its prepare left it.
    #[prost(message, optional, tag = "3")]
    pub(crate) source: Option<rutile_proto::metapb::Region>,
    /// Where the prepare is in the source's log.
    #[prost(uint64, tag = "4")]
    pub(crate) commit: u64,
    /// The source's log up to there, from where all its peers have it (encoded raft entries); less where it was cut off.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(crate) entries: Vec<Bytes>,
    /// All peers of the source have its log up to here.
    #[prost(uint64, tag = "6")]
    pub(crate) min_index: u64,
}

/// The context of a conf change entry: who is meant by the ids in it. Holds at one epoch only.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MembersCommand {
    #[prost(uint64, tag = "1")]
    pub(crate) conf_ver: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) version: u64,
    /// Parallel to the changes of the entry.
    #[prost(message, repeated, tag = "3")]
    pub(crate) peers: Vec<rutile_proto::metapb::Peer>,
}

/// An entry that this module did not write: the log is corrupt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed raft log entry")]
pub(crate) struct Malformed;

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_varint(input: &mut &[u8]) -> Result<u64, Malformed> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first().ok_or(Malformed)?;
        *input = rest;
        n |= u64::from(byte & 0x7F) << shift;
        if *byte < 0x80 {
            return Ok(n);
        }
    }
    Err(Malformed)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = take_varint(input)? as usize;
    let (bytes, rest) = input.split_at_checked(len).ok_or(Malformed)?;
    *input = rest;
    Ok(bytes)
}

/// The entry for some changes, proposed at an epoch version.
pub(crate) fn encode_write(version: u64, data: &WriteData) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + data.size_bytes() + 7 * data.modifies.len());
    out.push(KIND_WRITE);
    put_varint(&mut out, version);
    for modify in &data.modifies {
        match modify {
            Modify::Put(cf, key, value) => {
                out.push(OP_PUT << 4 | *cf as u8);
                put_bytes(&mut out, key);
                put_bytes(&mut out, value);
            }
            Modify::Delete(cf, key) => {
                out.push(OP_DELETE << 4 | *cf as u8);
                put_bytes(&mut out, key);
            }
            Modify::DeleteRange(cf, start, end) => {
                out.push(OP_DELETE_RANGE << 4 | *cf as u8);
                put_bytes(&mut out, start);
                put_bytes(&mut out, end);
            }
        }
    }
    out
}

/// The entry for a split, proposed at an epoch version.
pub(crate) fn encode_split(version: u64, split: &SplitCommand) -> Vec<u8> {
    let mut out = vec![KIND_SPLIT];
    put_varint(&mut out, version);
    out.extend_from_slice(&split.encode_to_vec());
    out
}

/// The entry for the begin of a merge, proposed at an epoch version of the source.
pub(crate) fn encode_prepare_merge(version: u64, prepare: &PrepareMergeCommand) -> Vec<u8> {
    encode_message(KIND_PREPARE_MERGE, version, prepare)
}

/// The entry for the end of a merge, proposed at an epoch version of the target.
pub(crate) fn encode_commit_merge(commit: &CommitMergeCommand) -> Vec<u8> {
    encode_message(KIND_COMMIT_MERGE, commit.version, commit)
}

/// The entry that calls a merge off, proposed at an epoch version of the source.
pub(crate) fn encode_rollback_merge(version: u64) -> Vec<u8> {
    let mut out = vec![KIND_ROLLBACK_MERGE];
    put_varint(&mut out, version);
    out
}

/// The entry at which every peer computes a checksum of its data.
pub(crate) fn encode_compute_hash() -> Vec<u8> {
    vec![KIND_COMPUTE_HASH, 0]
}

/// The entry with the checksum that the leader's data had at an index.
pub(crate) fn encode_verify_hash(index: u64, hash: u64) -> Vec<u8> {
    let mut out = vec![KIND_VERIFY_HASH];
    put_varint(&mut out, index);
    put_varint(&mut out, hash);
    out
}

fn encode_message(kind: u8, version: u64, message: &impl prost::Message) -> Vec<u8> {
    let mut out = vec![kind];
    put_varint(&mut out, version);
    out.extend_from_slice(&message.encode_to_vec());
    out
}

/// What an entry says.
pub(crate) fn decode(data: &[u8]) -> Result<Command<'_>, Malformed> {
    let Some((kind, mut rest)) = data.split_first() else { return Ok(Command::Noop) };
    let version = take_varint(&mut rest)?;
    match *kind {
        KIND_WRITE => Ok(Command::Write { version, changes: Changes { rest } }),
        KIND_SPLIT => {
            let split = SplitCommand::decode(rest).map_err(|_| Malformed)?;
            Ok(Command::Split { version, split })
        }
        KIND_PREPARE_MERGE => {
            let prepare = PrepareMergeCommand::decode(rest).map_err(|_| Malformed)?;
            Ok(Command::PrepareMerge { version, prepare })
        }
        KIND_COMMIT_MERGE => {
            let commit = CommitMergeCommand::decode(rest).map_err(|_| Malformed)?;
            Ok(Command::CommitMerge { version, commit })
        }
        KIND_ROLLBACK_MERGE => Ok(Command::RollbackMerge { version }),
        KIND_COMPUTE_HASH => Ok(Command::ComputeHash),
        KIND_VERIFY_HASH => Ok(Command::VerifyHash { index: version, hash: take_varint(&mut rest)? }),
        _ => Err(Malformed),
    }
}

/// The changes of a write, decoded one by one.
#[derive(Debug, PartialEq, Clone)]
pub(crate) struct Changes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Changes<'a> {
    type Item = Result<Change<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (tag, rest) = self.rest.split_first()?;
        self.rest = rest;
        let change = self.change(*tag);
        if change.is_err() {
            self.rest = &[];
        }
        Some(change)
    }
}

impl<'a> Changes<'a> {
    fn change(&mut self, tag: u8) -> Result<Change<'a>, Malformed> {
        let cf = Cf::from_u8(tag & 0xF).ok_or(Malformed)?;
        let key = take_bytes(&mut self.rest)?;
        match tag >> 4 {
            OP_PUT => Ok(Change::Put(cf, key, take_bytes(&mut self.rest)?)),
            OP_DELETE => Ok(Change::Delete(cf, key)),
            OP_DELETE_RANGE => Ok(Change::DeleteRange(cf, key, take_bytes(&mut self.rest)?)),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn modify() -> impl Strategy<Value = Modify> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        let cf = || prop_oneof![Just(Cf::Default), Just(Cf::Lock), Just(Cf::Write)];
        prop_oneof![
            (cf(), bytes(), bytes()).prop_map(|(cf, k, v)| Modify::Put(cf, k, v)),
            (cf(), bytes()).prop_map(|(cf, k)| Modify::Delete(cf, k)),
            (cf(), bytes(), bytes()).prop_map(|(cf, k, v)| Modify::DeleteRange(cf, k, v)),
        ]
    }

    proptest! {
        #[test]
        fn writes_round_trip(version: u64, modifies in proptest::collection::vec(modify(), 0..20)) {
            let data = WriteData::new(modifies);
            let entry = encode_write(version, &data);
            let Ok(Command::Write { version: decoded, changes }) = decode(&entry) else { panic!("not a write") };
            prop_assert_eq!(decoded, version);
            let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
            let back: Vec<Modify> = changes
                .map(|c| match c.unwrap() {
                    Change::Put(cf, k, v) => Modify::Put(cf, copy(k), copy(v)),
                    Change::Delete(cf, k) => Modify::Delete(cf, copy(k)),
                    Change::DeleteRange(cf, s, e) => Modify::DeleteRange(cf, copy(s), copy(e)),
                })
                .collect();
            prop_assert_eq!(back, data.modifies);
        }

        #[test]
        fn garbage_never_panics(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(Command::Write { changes, .. }) = decode(&data) {
                changes.for_each(drop);
            }
        }
    }

    #[test]
    fn splits_round_trip() {
        let piece = SplitPiece { end_key: Bytes::from_static(b"k"), region_id: 7, peer_ids: vec![8] };
        let split = SplitCommand { pieces: vec![piece] };
        assert_eq!(decode(&encode_split(3, &split)), Ok(Command::Split { version: 3, split }));
        assert_eq!(decode(b""), Ok(Command::Noop));
    }
}
