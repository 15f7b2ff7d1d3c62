//! The steps.

#[cfg(feature = "sqlite")]
use std::{fs::Permissions, os::unix::fs::PermissionsExt};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt},
    path::Path,
};

#[cfg(feature = "sqlite")]
use tempfile::TempDir;

use super::{Site, step::step};

/// Writes all of `bytes` at a place of a file.
pub(crate) fn write_at(
    site: Site,
    file: &File,
    path: &Path,
    bytes: &[u8],
    offset: u64,
) -> io::Result<()> {
    step(site, path, || file.write_all_at(bytes, offset))
}

/// Brings the bytes of a file to the disk.
pub(crate) fn sync_data(site: Site, file: &File, path: &Path) -> io::Result<()> {
    step(site, path, || file.sync_data())
}

/// Brings the bytes of a file to the disk, and what the file system says of it.
pub(crate) fn sync_file(site: Site, file: &File, path: &Path) -> io::Result<()> {
    step(site, path, || file.sync_all())
}

/// Brings the entries of a folder to the disk: the names of what is in it.
pub(crate) fn sync_folder(site: Site, path: &Path) -> io::Result<()> {
    step(site, path, || File::open(path)?.sync_all())
}

/// Gives a file or a folder another name.
pub(crate) fn rename(site: Site, from: &Path, to: &Path) -> io::Result<()> {
    step(site, to, || fs::rename(from, to))
}

/// Removes a file.
pub(crate) fn remove_file(site: Site, path: &Path) -> io::Result<()> {
    step(site, path, || fs::remove_file(path))
}

/// Removes a folder if it is empty.
pub(crate) fn remove_folder(site: Site, path: &Path) -> io::Result<()> {
    step(site, path, || fs::remove_dir(path))
}

/// Removes a folder with all that is in it.
pub(crate) fn remove_tree(site: Site, path: &Path) -> io::Result<()> {
    step(site, path, || fs::remove_dir_all(path))
}

/// Commits a transaction of the database at this path.
#[cfg(feature = "sqlite")]
pub(crate) fn commit<E: From<io::Error>>(
    site: Site,
    path: &Path,
    commit: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    step(site, path, commit)
}

/// How a folder is made that its owner alone may enter, whatever the process's mask (umask) lets others do: models, reports and
/// tokens are in it.
pub(crate) fn private_folder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Makes a folder and those above it for their owner alone. One that is there is left as it is. Nothing of it is durable yet.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    private_folder().recursive(true).create(path)
}

/// Makes a folder of a name that begins so, below `above` or else where the system has temporary files: for its owner alone, and
/// removed with the value.
#[cfg(feature = "sqlite")]
pub(crate) fn temporary_folder(prefix: &str, above: Option<&Path>) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o700));
    match above {
        Some(above) => builder.tempdir_in(above),
        None => builder.tempdir(),
    }
}

/// Makes a folder and those above it, and brings their entries to the disk. One that is there is left as it is.
pub(crate) fn make_folder(site: Site, path: &Path, builder: &DirBuilder) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_folder(site, parent, builder)?;
    }
    match builder.create(path) {
        // Another process was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            let synced = sync_folder(site, parent.unwrap_or(Path::new(".")));
            if synced.is_err() {
                // The next try would find it there, and take it for durable.
                let _ = fs::remove_dir(path);
            }
            synced
        }
    }
}

/// Writes to a file from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    site: Site,
    file: &'a File,
    path: &'a Path,
}

impl<'a> Writer<'a> {
    pub fn new(site: Site, file: &'a File, path: &'a Path) -> Self {
        Self { site, file, path }
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.file;
        step(self.site, self.path, || file.write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut file = self.file;
        file.flush()
    }
}
