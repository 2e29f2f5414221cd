//! Table files made outside the engine and taken in as a whole: how a region's snapshot arrives.

use std::path::{Path, PathBuf};

use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};

use super::rocks::{self, Inner};
use super::{Cf, Engine, Error, Result};

/// What a table file of one column family is written with.
pub struct SstOptions(Options);

impl Engine {
    /// For files that this engine will take in.
    #[must_use]
    pub fn sst_options(&self, cf: Cf) -> SstOptions {
        SstOptions(rocks::sst_options(cf))
    }

    /// Takes table files in, each into its column family. Their keys must not be there already (or be covered by a
    /// [`Engine::clear_range`]). The files stay where they are, so that an interrupted call can be repeated.
    pub fn ingest(&self, files: &[(Cf, PathBuf)]) -> Result<()> {
        for (cf, path) in files {
            let link = path.with_extension("ingest");
            match std::fs::remove_file(&link) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&link, &e)),
                _ => {}
            }
            std::fs::hard_link(path, &link).map_err(|e| Error::io(path, &e))?;
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            let inner: &Inner = &self.inner;
            let taken = inner.db.ingest_external_file_cf_opts(inner.handle(*cf), &options, vec![&link]);
            taken.map_err(|e| inner.read_failed(e))?;
        }
        Ok(())
    }

    /// Removes a range of data keys from all data families. Not durable before the next [`Engine::flush`].
    pub fn clear_range(&self, start: &[u8], end: &[u8]) -> Result<()> {
        let mut batch = self.batch();
        for cf in Cf::DATA {
            batch.delete_range(cf, start, end);
        }
        self.write(batch)
    }
}

/// Writes one table file; keys must ascend.
pub struct SstWriter<'a> {
    writer: SstFileWriter<'a>,
    path: PathBuf,
}

impl<'a> SstWriter<'a> {
    /// Creates the file.
    pub fn create(options: &'a SstOptions, path: &Path) -> Result<Self> {
        let writer = SstFileWriter::create(&options.0);
        writer.open(path).map_err(Error::from)?;
        Ok(Self { writer, path: path.to_owned() })
    }

    /// Adds a key, which must be larger than the one before.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.writer.put(key, value)?)
    }

    /// Ends the file; it is on disk when this returns.
    pub fn finish(mut self) -> Result<()> {
        self.writer.finish()?;
        let file = std::fs::File::open(&self.path).map_err(|e| Error::io(&self.path, &e))?;
        file.sync_all().map_err(|e| Error::io(&self.path, &e))
    }
}
