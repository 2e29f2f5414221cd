//! Verifies raft-engine's files before they are opened.
//!
//! raft-engine tolerates a broken tail of its last file by cutting it off, whatever follows. A bit flip in the middle of that file
//! would silently drop acknowledged entries. So every record is checked here, and a broken one is only accepted when it can be what a
//! crash leaves of the last, never acknowledged append.
//!
//! Shape of a record: `len << 8 | compression` (u64 BE) · offset of the footer (u64 BE) · entries and their crc32 (LE) · footer
//! and its crc32 (LE) xor the file's number. A file begins with a magic, its version (u64 BE) and, in version 2, 8 more bytes. Source:
//! raft-engine 0.4, which writes version 2, but version 1 (without the file's number) where it finds a file whose header a crash took.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Error, Result};

const VERSION_SIZE_BYTES: usize = 8;
const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const RECORD_HEADER_SIZE_BYTES: usize = 16;
const CRC_SIZE_BYTES: usize = 4;
/// A disk writes a sector whole or not at all.
const SECTOR_SIZE_BYTES: usize = 512;
const MARKER_NAME: &str = "CLEAN";

/// Names and sizes of all log files at a clean shutdown.
pub(super) struct CleanMarker {
    files: Vec<(String, u64)>,
}

impl CleanMarker {
    /// The marker of the last shutdown, if it was clean.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(MARKER_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(path, &e)),
        };
        let parse = |line: &str| {
            let (name, size) = line.split_once(' ')?;
            Some((name.to_owned(), size.parse().ok()?))
        };
        let (body, crc) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
        let files: Option<Vec<_>> = body.lines().map(parse).collect();
        match files {
            Some(files) if format!("{:08x}", crc32fast::hash(body.as_bytes())) == crc => {
                Ok(Some(Self { files }))
            }
            _ => Err(Error::Corruption(format!("{}: not what was written at shutdown", path.display()))),
        }
    }

    /// Removes the marker before the log is opened and may change.
    pub(super) fn remove(dir: &Path) -> Result<()> {
        let path = dir.join(MARKER_NAME);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, &e)),
            _ => Ok(()),
        }
    }

    /// Notes the files as they are now.
    pub(super) fn write(dir: &Path) -> Result<()> {
        let path = dir.join(MARKER_NAME);
        let mut body = String::new();
        for file in log_files(dir)? {
            let size = fs::metadata(&file.path).map_err(|e| Error::io(&file.path, &e))?.len();
            if !body.is_empty() {
                body.push('\n');
            }
            body.push_str(&format!("{} {size}", file.name()));
        }
        let text = format!("{body}\n{:08x}\n", crc32fast::hash(body.as_bytes()));
        // Renamed when it is complete and on disk: there is never half a marker.
        let new = dir.join("CLEAN.new");
        let written = fs::File::create(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.and_then(|()| fs::rename(&new, &path)).map_err(|e| Error::io(path, &e))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Queue {
    Append,
    Rewrite,
}

struct LogFile {
    queue: Queue,
    seq: u64,
    path: PathBuf,
}

impl LogFile {
    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn corrupt(&self, offset: usize, what: &str) -> Error {
        Error::Corruption(format!("{} at byte {offset}: {what}", self.path.display()))
    }
}

fn log_files(dir: &Path) -> Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io(dir, &e))? {
        let path = entry.map_err(|e| Error::io(dir, &e))?.path();
        let queue = match path.extension().and_then(|e| e.to_str()) {
            Some("raftlog") => Queue::Append,
            Some("rewrite") => Queue::Rewrite,
            _ => continue,
        };
        let seq = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
        if let Some(seq) = seq {
            files.push(LogFile { queue, seq, path });
        }
    }
    files.sort_by_key(|f| (f.queue, f.seq));
    Ok(files)
}

/// Checks all files of `dir`; with the marker of a clean shutdown, that they are complete, too.
pub(super) fn verify_dir(dir: &Path, marker: Option<&CleanMarker>) -> Result<()> {
    let files = log_files(dir)?;
    if let Some(marker) = marker {
        verify_sizes(dir, &files, marker)?;
    }
    for (i, file) in files.iter().enumerate() {
        let next = files.get(i + 1).filter(|next| next.queue == file.queue);
        if next.is_some_and(|next| next.seq != file.seq + 1) {
            let missing =
                dir.join(file.name().replace(&format!("{:016}", file.seq), &format!("{:016}", file.seq + 1)));
            return Err(Error::Corruption(format!("{}: the log file is missing", missing.display())));
        }
        verify_file(file, next.is_none() && marker.is_none())?;
    }
    Ok(())
}

fn verify_sizes(dir: &Path, files: &[LogFile], marker: &CleanMarker) -> Result<()> {
    for (name, size) in &marker.files {
        let path = dir.join(name);
        let actual = fs::metadata(&path).map(|m| m.len());
        match actual {
            Ok(actual) if actual == *size => {}
            Ok(actual) => {
                return Err(Error::Corruption(format!(
                    "{}: {actual} bytes, {size} were written",
                    path.display()
                )));
            }
            Err(e) => return Err(Error::Corruption(format!("{}: {e}", path.display()))),
        }
    }
    match files.iter().find(|f| !marker.files.iter().any(|(name, _)| *name == f.name())) {
        Some(stranger) => {
            Err(Error::Corruption(format!("{}: not there at the last shutdown", stranger.path.display())))
        }
        None => Ok(()),
    }
}

fn verify_file(file: &LogFile, may_be_torn: bool) -> Result<()> {
    let data = fs::read(&file.path).map_err(|e| Error::io(&file.path, &e))?;
    let Some(Header { mut offset, signature }) = header(&data, file.seq) else {
        // A file that was being created holds a part of the header and zeros.
        let created =
            data.iter().zip(MAGIC).all(|(have, want)| have == want || *have == 0) && all_zero(tail(&data));
        return if may_be_torn && created {
            Ok(())
        } else {
            Err(file.corrupt(0, "the file header is broken"))
        };
    };
    while offset < data.len() {
        match record_len(&data, offset, signature) {
            Some(len) => offset += len,
            None if may_be_torn => return verify_tail(file, &data, offset, signature),
            None => return Err(file.corrupt(offset, "the record is broken")),
        }
    }
    Ok(())
}

/// What a file's header says.
struct Header {
    /// Of the first record.
    offset: usize,
    /// In the checksums of its records.
    signature: u32,
}

fn header(data: &[u8], seq: u64) -> Option<Header> {
    let rest = data.strip_prefix(MAGIC)?;
    let end = MAGIC.len() + VERSION_SIZE_BYTES;
    match u64::from_be_bytes(*rest.first_chunk()?) {
        1 => Some(Header { offset: end, signature: 0 }),
        2 if data.len() >= end + 8 => Some(Header { offset: end + 8, signature: seq as u32 }),
        _ => None,
    }
}

fn tail(data: &[u8]) -> &[u8] {
    data.get(MAGIC.len() + 2 * VERSION_SIZE_BYTES..).unwrap_or_default()
}

fn all_zero(data: &[u8]) -> bool {
    data.iter().all(|b| *b == 0)
}

/// Length of the record at `offset` if it is intact.
fn record_len(data: &[u8], offset: usize, signature: u32) -> Option<usize> {
    let rest = &data[offset..];
    let word = |at: usize| rest.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    let (head, footer) = (word(0)?, usize::try_from(word(8)?).ok()?);
    let len = usize::try_from(head >> 8).ok()?;
    if (head & 0xFF) > 1 || footer < RECORD_HEADER_SIZE_BYTES || footer > len || len > rest.len() {
        return None;
    }
    let entries_ok = footer == RECORD_HEADER_SIZE_BYTES || crc_ok(&rest[RECORD_HEADER_SIZE_BYTES..footer], 0);
    (entries_ok && crc_ok(&rest[footer..len], signature)).then_some(len)
}

fn crc_ok(block: &[u8], signature: u32) -> bool {
    let Some((content, crc)) = block.split_last_chunk::<CRC_SIZE_BYTES>() else { return false };
    !content.is_empty() && crc32fast::hash(content) == u32::from_le_bytes(*crc) ^ signature
}

/// Decides whether what begins at `offset` of the last file can be an append that a crash cut short.
fn verify_tail(file: &LogFile, data: &[u8], offset: usize, signature: u32) -> Result<()> {
    let rest = &data[offset..];
    let end = rest.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    if end == 0 {
        return Ok(());
    }
    // Each append waits for the one before it to be on disk, so nothing can follow a torn one. The rewrite queue is
    // synced less often: there, a hole of zeros may be followed by records.
    let follows = (1..end).any(|skip| {
        rest.len() - skip > RECORD_HEADER_SIZE_BYTES && record_len(rest, skip, signature).is_some()
    });
    let hole = has_zero_sector(data, offset, offset + end);
    match (follows, file.queue) {
        (true, Queue::Append) => Err(file.corrupt(offset, "the record is broken but others follow it")),
        (true, Queue::Rewrite) if hole => Ok(()),
        (true, Queue::Rewrite) => Err(file.corrupt(offset, "the record is broken but others follow it")),
        (false, _) if hole || (is_cut(rest) && !header_flipped(rest, signature)) => Ok(()),
        (false, _) if end_is_lost(data, offset) => Ok(()),
        (false, _) => Err(file.corrupt(offset, "the last record is complete but its checksum is wrong")),
    }
}

/// Whether the record at the front claims more bytes than there are, zeros at the end not counted.
fn is_cut(rest: &[u8]) -> bool {
    let end = rest.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let Some(head) = rest.first_chunk::<8>() else { return true };
    let len = (u64::from_be_bytes(*head) >> 8) as usize;
    // The last byte of an intact record is zero in one of 256 cases, its last four in none.
    end < RECORD_HEADER_SIZE_BYTES || len > end + CRC_SIZE_BYTES
}

/// Whether the last sector of the record at `offset`, of which it may have a few bytes only, is not on the disk.
fn end_is_lost(data: &[u8], offset: usize) -> bool {
    let Some(head) = data[offset..].first_chunk::<8>() else { return false };
    let end = offset.saturating_add((u64::from_be_bytes(*head) >> 8) as usize);
    let sector = end.saturating_sub(1) / SECTOR_SIZE_BYTES * SECTOR_SIZE_BYTES;
    sector > offset && data.get(sector..end).is_some_and(all_zero)
}

/// Whether one flipped bit of the header explains why the record is broken.
fn header_flipped(rest: &[u8], signature: u32) -> bool {
    let Some(header) = rest.first_chunk::<RECORD_HEADER_SIZE_BYTES>() else { return false };
    let mut record = rest.to_vec();
    (0..RECORD_HEADER_SIZE_BYTES * 8).any(|bit| {
        record[bit / 8] = header[bit / 8] ^ (1 << (bit % 8));
        let intact = record_len(&record, 0, signature).is_some();
        record[bit / 8] = header[bit / 8];
        intact
    })
}

fn has_zero_sector(data: &[u8], from: usize, to: usize) -> bool {
    let mut start = from;
    while start < to {
        let end = std::cmp::min((start / SECTOR_SIZE_BYTES + 1) * SECTOR_SIZE_BYTES, data.len());
        if end - start >= RECORD_HEADER_SIZE_BYTES && all_zero(&data[start..end]) {
            return true;
        }
        start = end;
    }
    false
}
