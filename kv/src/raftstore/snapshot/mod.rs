//! A region's snapshot: a consistent view of the engine at the sender, chunks with checksums on the way, table files at the receiver.
//!
//! A chunk: crc32 of the rest (4 B, LE) · column family (1 B) · entries, each length of key · key · length of value · value
//! (lengths as varints). Keys are data keys and ascend within a column family. The last chunk has the family [`END`] and holds how many
//! entries there were of each family (3 × 8 B, LE).

mod receive;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb;
use rutile_proto::metapb;
use rutile_proto::raft_serverpb::{PeerState, RaftApplyState, RaftSnapshotData, RegionLocalState};

use super::keys;
use super::peer_storage::conf_state;
use super::registry::data_range;
use crate::engine::{Cf, Engine, EngineIterator, EngineSnapshot, Error, IterOptions, Result};

pub(crate) use receive::SnapshotFiles;
pub use receive::receive;

/// A chunk is sent when it is this large.
const CHUNK_SIZE_BYTES: usize = 512 << 10;
/// Version of the form of chunks.
const VERSION: u64 = 1;
/// Family byte of the last chunk.
const END: u8 = 0xFF;

/// What a snapshot is sent from; holds a view of the engine as long as it lives.
pub struct SnapshotSource {
    snapshot: Arc<EngineSnapshot>,
    region: metapb::Region,
    cfs: Vec<Cf>,
}

impl SnapshotSource {
    /// A snapshot of a region as it is applied now, and its raft form. `None` if the region is not there or is about to be merged.
    pub(crate) fn take(engine: &Engine, region_id: u64) -> Result<Option<(Self, eraftpb::Snapshot)>> {
        let snapshot = Arc::new(engine.snapshot());
        let state = snapshot.get(Cf::Raft, &keys::region_state(region_id))?;
        let applied = snapshot.get(Cf::Raft, &keys::apply_state(region_id))?;
        let (Some(state), Some(applied)) = (state, applied) else { return Ok(None) };
        let corrupt = |what| Error::Corruption(format!("the {what} state of region {region_id}"));
        let state = RegionLocalState::decode(state).map_err(|_| corrupt("region"))?;
        let applied = RaftApplyState::decode(applied).map_err(|_| corrupt("apply"))?;
        if state.state() != PeerState::Normal {
            return Ok(None);
        }
        let region = state.region.unwrap_or_default();
        let mut source = Self { snapshot, region, cfs: Vec::new() };
        for cf in Cf::DATA {
            if source.iter(cf).seek_to_first()? {
                source.cfs.push(cf);
            }
        }
        let data = RaftSnapshotData {
            region: Some(source.region.clone()),
            version: VERSION,
            cfs: source.cfs.iter().map(|cf| cf.name().to_owned()).collect(),
        };
        let mut raft = eraftpb::Snapshot { data: data.encode_to_vec().into(), ..Default::default() };
        let metadata = raft.mut_metadata();
        metadata.index = applied.applied_index;
        metadata.term = applied.commit_term;
        metadata.set_conf_state(conf_state(&source.region));
        Ok(Some((source, raft)))
    }

    fn iter(&self, cf: Cf) -> EngineIterator {
        let (start, end) = data_range(&self.region);
        let options =
            IterOptions { lower: start.into(), upper: end.into(), skip_cache: true, ..Default::default() };
        self.snapshot.iter(cf, options)
    }

    /// The chunks, in order, read as they are asked for.
    #[must_use]
    pub fn chunks(self) -> Chunks {
        Chunks { source: self, cf: 0, iter: None, counts: [0; 3], ended: false }
    }
}

/// The chunks of a snapshot.
pub struct Chunks {
    source: SnapshotSource,
    cf: usize,
    iter: Option<EngineIterator>,
    counts: [u64; 3],
    ended: bool,
}

impl Chunks {
    fn fill(&mut self) -> Result<Option<Bytes>> {
        while let Some(cf) = self.source.cfs.get(self.cf).copied() {
            let mut iter = match self.iter.take() {
                Some(iter) => iter,
                None => {
                    let mut iter = self.source.iter(cf);
                    iter.seek_to_first()?;
                    iter
                }
            };
            let mut chunk = vec![0, 0, 0, 0, cf as u8];
            while iter.valid() && chunk.len() < CHUNK_SIZE_BYTES {
                put_bytes(&mut chunk, iter.key());
                put_bytes(&mut chunk, iter.value());
                self.counts[cf as usize] += 1;
                iter.next()?;
            }
            if iter.valid() {
                self.iter = Some(iter);
            } else {
                self.cf += 1;
            }
            if chunk.len() > 5 {
                return Ok(Some(sealed(chunk)));
            }
        }
        if self.ended {
            return Ok(None);
        }
        self.ended = true;
        let mut chunk = vec![0, 0, 0, 0, END];
        self.counts.iter().for_each(|n| chunk.extend_from_slice(&n.to_le_bytes()));
        Ok(Some(sealed(chunk)))
    }
}

impl Iterator for Chunks {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        self.fill().transpose()
    }
}

fn put_bytes(chunk: &mut Vec<u8>, bytes: &[u8]) {
    prost::encoding::encode_varint(bytes.len() as u64, chunk);
    chunk.extend_from_slice(bytes);
}

fn sealed(mut chunk: Vec<u8>) -> Bytes {
    let crc = crc32fast::hash(&chunk[4..]);
    chunk[..4].copy_from_slice(&crc.to_le_bytes());
    chunk.into()
}
