//! Receives a snapshot: verifies every chunk and writes what it holds into table files beside the engine.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use prost::Message as _;
use raft::eraftpb;
use rutile_proto::raft_serverpb::{RaftMessage, RaftSnapshotData};

use super::{END, VERSION};
use crate::engine::{Cf, Engine, Error, Result, SstOptions, SstWriter};

/// Makes names of unfinished files unique.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The files of one received snapshot.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFiles {
    dir: PathBuf,
    stem: String,
}

impl SnapshotFiles {
    /// Of a snapshot of a region at an index and term.
    pub(crate) fn new(engine: &Engine, region_id: u64, index: u64, term: u64) -> Self {
        Self { dir: dir(engine), stem: format!("{region_id}-{term}-{index}") }
    }

    fn path(&self, cf: &str) -> PathBuf {
        self.dir.join(format!("{}.{cf}.sst", self.stem))
    }

    /// The files of the column families that hold something; an error when one is missing.
    pub(crate) fn of(&self, data: &RaftSnapshotData) -> Result<Vec<(Cf, PathBuf)>> {
        let file = |name: &String| {
            let path = self.path(name);
            let cf = Cf::from_name(name).filter(|cf| Cf::DATA.contains(cf));
            match cf {
                Some(cf) if path.is_file() => Ok((cf, path)),
                _ => Err(Error::Corruption(format!("{}: the file of a snapshot is missing", path.display()))),
            }
        };
        data.cfs.iter().map(file).collect()
    }

    /// Removes the files.
    pub(crate) fn remove(&self) {
        for cf in Cf::DATA {
            let path = self.path(cf.name());
            let _ = std::fs::remove_file(path.with_extension("ingest"));
            let _ = std::fs::remove_file(path);
        }
    }

    /// Removes all files but those of `keep`, at start.
    pub(crate) fn remove_others(engine: &Engine, keep: &[SnapshotFiles]) {
        let Ok(entries) = std::fs::read_dir(dir(engine)) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kept = keep.iter().any(|k| name.split_once('.').is_some_and(|(stem, _)| stem == k.stem));
            if !kept || !name.ends_with(".sst") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn dir(engine: &Engine) -> PathBuf {
    engine.dir().with_file_name("snap")
}

/// Takes a snapshot's chunks and returns when its files are complete and on disk; the message may then be given to raft. Blocks.
/// An error leaves no files behind; it names what was wrong.
pub fn receive(
    engine: &Engine,
    message: &RaftMessage,
    chunks: impl Iterator<Item = Bytes>,
) -> std::result::Result<(), String> {
    let raft = <eraftpb::Message as protobuf::Message>::parse_from_bytes(&message.message)
        .map_err(|e| format!("malformed raft message: {e}"))?;
    let metadata = raft.get_snapshot().get_metadata();
    let data = RaftSnapshotData::decode(&raft.get_snapshot().data[..]).map_err(|e| e.to_string())?;
    if data.version != VERSION {
        return Err(format!("a snapshot of version {}, not {VERSION}", data.version));
    }
    let files = SnapshotFiles::new(engine, message.region_id, metadata.index, metadata.term);
    std::fs::create_dir_all(&files.dir).map_err(|e| e.to_string())?;
    let unique = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = |cf: Cf| files.dir.join(format!("{}.{}.{unique}.tmp", files.stem, cf.name()));
    let result = write_files(engine, chunks, &temporary).and_then(|written| {
        let names: Vec<String> = written.iter().map(|cf| cf.name().to_owned()).collect();
        if names != data.cfs {
            return Err(format!("files of {names:?} in a snapshot of {:?}", data.cfs));
        }
        for cf in written {
            std::fs::rename(temporary(cf), files.path(cf.name())).map_err(|e| e.to_string())?;
        }
        sync_dir(&files.dir)
    });
    if result.is_err() {
        Cf::DATA.iter().for_each(|cf| drop(std::fs::remove_file(temporary(*cf))));
    }
    result
}

fn sync_dir(dir: &Path) -> std::result::Result<(), String> {
    std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|e| e.to_string())
}

/// Writes one file per column family; returns which.
fn write_files(
    engine: &Engine,
    chunks: impl Iterator<Item = Bytes>,
    path: &dyn Fn(Cf) -> PathBuf,
) -> std::result::Result<Vec<Cf>, String> {
    let options: Vec<SstOptions> = Cf::DATA.iter().map(|cf| engine.sst_options(*cf)).collect();
    let mut writer: Option<(Cf, SstWriter<'_>)> = None;
    let mut counts = [0u64; 3];
    let mut written = Vec::new();
    for mut chunk in chunks {
        let family = open_chunk(&mut chunk)?;
        if family == END {
            let expected: Vec<u64> = (0..3).filter_map(|_| chunk.try_get_u64_le().ok()).collect();
            if expected != counts {
                return Err(format!("{counts:?} entries in a snapshot of {expected:?}"));
            }
            if let Some((_, writer)) = writer.take() {
                writer.finish().map_err(|e| e.to_string())?;
            }
            return Ok(written);
        }
        let cf = Cf::from_u8(family).filter(|cf| Cf::DATA.contains(cf)).ok_or("unknown column family")?;
        if writer.as_ref().is_none_or(|(current, _)| *current != cf) {
            if let Some((_, writer)) = writer.take() {
                writer.finish().map_err(|e| e.to_string())?;
            }
            if written.contains(&cf) {
                return Err("chunks out of order".to_owned());
            }
            written.push(cf);
            let file = SstWriter::create(&options[cf as usize], &path(cf)).map_err(|e| e.to_string())?;
            writer = Some((cf, file));
        }
        let Some((_, file)) = writer.as_mut() else { continue };
        while chunk.has_remaining() {
            let (key, value) = (take_bytes(&mut chunk)?, take_bytes(&mut chunk)?);
            file.put(&key, &value).map_err(|e| e.to_string())?;
            counts[cf as usize] += 1;
        }
    }
    Err("the snapshot was not sent to its end".to_owned())
}

/// Verifies a chunk and returns its family.
fn open_chunk(chunk: &mut Bytes) -> std::result::Result<u8, String> {
    if chunk.len() < 5 {
        return Err("a chunk of a snapshot is too short".to_owned());
    }
    let crc = chunk.get_u32_le();
    if crc32fast::hash(chunk) != crc {
        return Err("a chunk of a snapshot does not match its checksum".to_owned());
    }
    Ok(chunk.get_u8())
}

fn take_bytes(chunk: &mut Bytes) -> std::result::Result<Bytes, String> {
    let len = prost::encoding::decode_varint(chunk).map_err(|e| e.to_string())?;
    match usize::try_from(len) {
        Ok(len) if len <= chunk.len() => Ok(chunk.split_to(len)),
        _ => Err("a chunk of a snapshot ends within an entry".to_owned()),
    }
}
