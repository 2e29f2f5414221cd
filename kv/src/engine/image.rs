//! What a crash leaves of an engine's files; for tests of recovery.

use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};

use super::Engine;

/// The files as they were at one moment, beside the engine's directory.
#[must_use]
pub struct Image {
    files: PathBuf,
    copy: PathBuf,
}

impl Engine {
    /// Keeps what a killed process would leave now. An engine that is closed writes what only memory held; [`Image::restore`] takes that
    /// back.
    ///
    /// # Errors
    /// When files cannot be copied.
    pub fn image(&self) -> Result<Image> {
        let image = Image { files: self.dir().to_owned(), copy: self.dir().with_extension("image") };
        copy_files(&image.files, &image.copy)?;
        Ok(image)
    }
}

impl Image {
    /// Puts the files in the place of those that an engine, closed since, has left.
    ///
    /// # Errors
    /// When files cannot be moved.
    pub fn restore(self) -> Result<()> {
        std::fs::remove_dir_all(&self.files)?;
        std::fs::rename(&self.copy, &self.files)
    }
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    // Table files before and after the manifest that names them: background threads go on.
    for tables in [true, false, true] {
        for entry in std::fs::read_dir(from)? {
            let path = entry?.path();
            let is_table = path.extension().is_some_and(|e| e == "sst");
            let Some(name) = path.file_name().filter(|name| *name != "LOCK" && is_table == tables) else {
                continue;
            };
            match if tables {
                std::fs::hard_link(&path, to.join(name))
            } else {
                std::fs::copy(&path, to.join(name)).map(drop)
            } {
                // There already, or gone since.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {}
                copied => copied?,
            }
        }
    }
    Ok(())
}
