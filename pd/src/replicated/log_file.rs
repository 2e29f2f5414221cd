//! The raft log's file: records that are appended, synced, and read back once at start.
//!
//! File: magic (8 B), then records: marker (4 B) | payload length (4 B, LE) | crc32 of length and payload (4 B, LE) | payload.
//!
//! Invariant: a record that was synced is read back or the start is refused. A record that was being written when the
//! process died is a prefix (or zeros) at the very end with no good record after it; it was never acknowledged and is cut off.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"RTLPDLG1";
const MARKER: [u8; 4] = [0xA7, 0x52, 0x4C, 0x1E];
const HEADER_SIZE_BYTES: usize = 12;
/// Longer records are refused when written, so a longer length when read is damage.
pub const RECORD_SIZE_BYTES_MAX: usize = 64 << 20;

/// An open log file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    buffer: Vec<u8>,
}

impl LogFile {
    /// A new file holding `records`, synced. The caller syncs the directory.
    pub fn create(path: &Path, records: &[Vec<u8>]) -> Result<Self> {
        let file =
            OpenOptions::new().create(true).write(true).truncate(true).open(path).map_err(Error::io(path))?;
        let mut log = LogFile { path: path.into(), file, size_bytes: 0, buffer: MAGIC.to_vec() };
        for record in records {
            push_record(&mut log.buffer, record);
        }
        log.write_out(true)?;
        Ok(log)
    }

    /// Opens an existing file and hands every record to `visit`; cuts off what was never acknowledged.
    pub fn open(
        path: &Path,
        mut visit: impl FnMut(&[u8]) -> std::result::Result<(), String>,
    ) -> Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(Error::io(path))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(Error::io(path))?;
        let corrupt = |offset: usize, reason: String| Error::Corrupt {
            path: path.into(),
            offset: offset as u64,
            reason,
        };
        if !content.starts_with(MAGIC) {
            return Err(corrupt(0, "not a log of the placement driver".into()));
        }
        let mut offset = MAGIC.len();
        while offset < content.len() {
            match read_record(&content[offset..]) {
                Ok(payload) => {
                    visit(payload).map_err(|reason| corrupt(offset, reason))?;
                    offset += HEADER_SIZE_BYTES + payload.len();
                }
                Err(reason) => {
                    if !is_torn_tail(&content[offset..]) {
                        return Err(corrupt(offset, reason.into()));
                    }
                    tracing::warn!(path = %path.display(), offset, "cut off a record that was never acknowledged");
                    file.set_len(offset as u64).map_err(Error::io(path))?;
                    file.sync_all().map_err(Error::io(path))?;
                    break;
                }
            }
        }
        file.seek(SeekFrom::Start(offset as u64)).map_err(Error::io(path))?;
        Ok(LogFile { path: path.into(), file, size_bytes: offset as u64, buffer: Vec::new() })
    }

    /// Appends one record; with `sync` it survives a crash once this returns.
    pub fn append(&mut self, payload: &[u8], sync: bool) -> Result<()> {
        if payload.len() > RECORD_SIZE_BYTES_MAX {
            return Err(Error::Invalid(format!("a log record of {} bytes is too large", payload.len())));
        }
        push_record(&mut self.buffer, payload);
        self.write_out(sync)
    }

    fn write_out(&mut self, sync: bool) -> Result<()> {
        self.file.write_all(&self.buffer).map_err(Error::io(&self.path))?;
        self.size_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        if sync {
            self.file.sync_data().map_err(Error::io(&self.path))?;
        }
        Ok(())
    }

    /// Bytes written so far.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

fn push_record(out: &mut Vec<u8>, payload: &[u8]) {
    let length = (payload.len() as u32).to_le_bytes();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(&length, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

fn checksum(length: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(payload);
    hasher.finalize()
}

fn read_record(input: &[u8]) -> std::result::Result<&[u8], &'static str> {
    let (header, rest) = input.split_at_checked(HEADER_SIZE_BYTES).ok_or("a record's header is cut short")?;
    if header[..4] != MARKER {
        return Err("no record begins here");
    }
    let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let payload = rest.get(..length).ok_or("a record is cut short")?;
    if checksum(&header[4..8], payload).to_le_bytes() != header[8..12] {
        return Err("a record's checksum does not match");
    }
    Ok(payload)
}

/// Whether a bad record can be one that was being written when the process or the machine died.
fn is_torn_tail(tail: &[u8]) -> bool {
    let later_record = (1..tail.len().saturating_sub(HEADER_SIZE_BYTES - 1))
        .any(|at| tail[at..].starts_with(&MARKER) && read_record(&tail[at..]).is_ok());
    if later_record {
        return false;
    }
    let zeros_from = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if zeros_from == 0 {
        return true;
    }
    let marker_len = tail.len().min(MARKER.len());
    if tail[..marker_len.min(zeros_from)] != MARKER[..marker_len.min(zeros_from)] {
        return false;
    }
    if tail.len() < HEADER_SIZE_BYTES {
        return true;
    }
    let length = u32::from_le_bytes([tail[4], tail[5], tail[6], tail[7]]) as usize;
    let record_end = HEADER_SIZE_BYTES + length;
    // Cut short, or its last sectors were never written; a complete record with a wrong checksum is damage.
    (record_end > tail.len() && length <= RECORD_SIZE_BYTES_MAX) || tail.len() - zeros_from >= 512
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Result<Vec<Vec<u8>>> {
        let mut records = Vec::new();
        LogFile::open(path, |record| {
            records.push(record.to_vec());
            Ok(())
        })?;
        Ok(records)
    }

    fn sample(path: &Path) -> (Vec<Vec<u8>>, Vec<u8>) {
        let records: Vec<Vec<u8>> = (1..=3u8).map(|i| vec![i; 40 * usize::from(i)]).collect();
        LogFile::create(path, &records).unwrap();
        (records, std::fs::read(path).unwrap())
    }

    #[test]
    fn every_torn_tail_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (records, content) = sample(&path);
        let last = content.len() - HEADER_SIZE_BYTES - records[2].len();
        for cut in last..content.len() {
            std::fs::write(&path, &content[..cut]).unwrap();
            assert_eq!(read(&path).unwrap(), records[..2], "cut at {cut}");
            let mut log = LogFile::open(&path, |_| Ok(())).unwrap();
            log.append(b"after", true).unwrap();
            assert_eq!(read(&path).unwrap()[2], b"after");
        }
        std::fs::write(&path, [&content[..last], &[0; 4096]].concat()).unwrap();
        assert_eq!(read(&path).unwrap(), records[..2]);
    }

    #[test]
    fn every_flipped_bit_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("raft-1.log");
        let (_, content) = sample(&path);
        for at in 0..content.len() {
            let mut bad = content.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            let last_length = content.len() - 40 * 3 - HEADER_SIZE_BYTES + 4;
            if (last_length..last_length + 4).contains(&at) {
                continue; // a longer last record looks exactly like a torn one
            }
            let error = read(&path).expect_err(&format!("flip at {at}")).to_string();
            assert!(error.contains("raft-1.log"), "{error}");
        }
    }
}
