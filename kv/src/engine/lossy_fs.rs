//! For simulations: log files whose unsynced bytes a crash can take.
//!
//! Everything goes to real files. At a crash, what was written since the last sync of its file is cut at a sector, and what lies behind
//! the cut reads as zeros, as the space that a file system had set aside does.

use std::collections::BTreeMap;
use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

/// A disk writes a sector whole or not at all.
const SECTOR_SIZE_BYTES: usize = 512;

type Inner = DefaultFileSystem;
type Files = Arc<Mutex<State>>;

#[derive(Default)]
struct State {
    /// The machine is off: nothing has an effect any more.
    off: bool,
    /// What was written since the last sync, as offsets and lengths in order.
    unsynced: BTreeMap<PathBuf, Vec<(usize, usize)>>,
}

/// The file system. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct LossyFs(Files);

impl LossyFs {
    /// Switches the machine off. Of each file's unsynced bytes `kept(n)` of `n` are on the disk, rounded down to a sector.
    pub(crate) fn crash(&self, mut kept: impl FnMut(usize) -> usize) -> Result<()> {
        let mut state = self.0.lock();
        state.off = true;
        for (path, writes) in std::mem::take(&mut state.unsynced) {
            let total: usize = writes.iter().map(|(_, len)| len).sum();
            let keep = kept(total);
            lose(&path, &writes, keep)?;
        }
        Ok(())
    }
}

fn lose(path: &Path, writes: &[(usize, usize)], mut keep: usize) -> Result<()> {
    let file = match std::fs::OpenOptions::new().write(true).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    for (offset, len) in writes {
        let whole = keep.min(*len);
        keep -= whole;
        if whole == *len {
            continue;
        }
        // What follows the first cut is gone as well.
        keep = 0;
        let cut = ((offset + whole) / SECTOR_SIZE_BYTES * SECTOR_SIZE_BYTES).max(*offset);
        file.write_all_at(&vec![0; offset + len - cut], cut as u64)?;
    }
    Ok(())
}

pub(crate) struct LossyHandle {
    inner: Arc<<Inner as FileSystem>::Handle>,
    path: PathBuf,
    files: Files,
}

impl Handle for LossyHandle {
    fn truncate(&self, offset: usize) -> Result<()> {
        if self.files.lock().off { Ok(()) } else { self.inner.truncate(offset) }
    }

    fn file_size(&self) -> Result<usize> {
        self.inner.file_size()
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.files.lock();
        if !state.off {
            state.unsynced.remove(&self.path);
        }
        Ok(())
    }
}

pub(crate) struct LossyWriter {
    inner: <Inner as FileSystem>::Writer,
    handle: Arc<LossyHandle>,
    offset: usize,
}

impl Write for LossyWriter {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        let mut state = self.handle.files.lock();
        if state.off {
            return Ok(buf.len());
        }
        let written = self.inner.write(buf)?;
        state.unsynced.entry(self.handle.path.clone()).or_default().push((self.offset, written));
        self.offset += written;
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Seek for LossyWriter {
    fn seek(&mut self, pos: SeekFrom) -> Result<u64> {
        let offset = self.inner.seek(pos)?;
        self.offset = offset as usize;
        Ok(offset)
    }
}

impl WriteExt for LossyWriter {
    fn truncate(&mut self, offset: usize) -> Result<()> {
        if self.handle.files.lock().off {
            return Ok(());
        }
        self.offset = offset;
        self.inner.truncate(offset)
    }

    fn allocate(&mut self, offset: usize, size: usize) -> Result<()> {
        if self.handle.files.lock().off { Ok(()) } else { self.inner.allocate(offset, size) }
    }
}

pub(crate) struct LossyReader(<Inner as FileSystem>::Reader);

impl Read for LossyReader {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.0.read(buf)
    }
}

impl Seek for LossyReader {
    fn seek(&mut self, pos: SeekFrom) -> Result<u64> {
        self.0.seek(pos)
    }
}

impl LossyFs {
    fn handle(&self, path: &Path, inner: <Inner as FileSystem>::Handle) -> LossyHandle {
        LossyHandle { inner: Arc::new(inner), path: path.to_owned(), files: Arc::clone(&self.0) }
    }
}

impl FileSystem for LossyFs {
    type Handle = LossyHandle;
    type Reader = LossyReader;
    type Writer = LossyWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> Result<LossyHandle> {
        Ok(self.handle(path.as_ref(), Inner {}.create(&path)?))
    }

    fn open<P: AsRef<Path>>(&self, path: P, perm: Permission) -> Result<LossyHandle> {
        Ok(self.handle(path.as_ref(), Inner {}.open(&path, perm)?))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        let mut state = self.0.lock();
        if state.off {
            return Ok(());
        }
        state.unsynced.remove(path.as_ref());
        Inner {}.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> Result<()> {
        let mut state = self.0.lock();
        if state.off {
            return Ok(());
        }
        if let Some(writes) = state.unsynced.remove(from.as_ref()) {
            state.unsynced.insert(to.as_ref().to_owned(), writes);
        }
        Inner {}.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<LossyHandle>) -> Result<LossyReader> {
        Inner {}.new_reader(Arc::clone(&handle.inner)).map(LossyReader)
    }

    fn new_writer(&self, handle: Arc<LossyHandle>) -> Result<LossyWriter> {
        let inner = Inner {}.new_writer(Arc::clone(&handle.inner))?;
        Ok(LossyWriter { inner, handle, offset: 0 })
    }
}
