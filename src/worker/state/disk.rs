//! Files that are on the disk as a whole, or not at all.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::disk::{self, Site};

/// Writes a file beside its place, to the disk itself, and puts it there. The folder's entry is durable after
/// [`disk::sync_folder`]. Nobody else may read the file: it has a token, or what was learned of private data.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut disk::Writer<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let beside = beside(path);
    let written = write_durably(&beside, write)
        .and_then(|()| disk::rename(Site::WorkerRename, &beside, path));
    if written.is_err() {
        // Half a file is of no use. If it can't be removed, the next write of it replaces it.
        let _ = disk::remove_file(Site::WorkerPartRemove, &beside);
    }
    written
}

/// As [`write_whole`], of these bytes.
pub(super) fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, |file| file.write_all(bytes))
}

fn write_durably(
    path: &Path,
    write: impl FnOnce(&mut disk::Writer<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    write(&mut disk::Writer::new(Site::WorkerWrite, &file, path))?;
    // Before the rename, or a power failure could leave a whole name on half a file.
    disk::sync_file(Site::WorkerSync, &file, path)
}

/// The name under which a file is written.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    path.with_file_name(name)
}

/// Makes a folder and those above it, for this user alone, and their entries durable.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    disk::make_folder(Site::WorkerAboveSync, path, &disk::private_folder())
}

/// Removes a file or a folder; one that is not there is removed already.
pub(super) fn remove(site: Site, path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() {
        disk::remove_tree(site, path)
    } else {
        disk::remove_file(site, path)
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_write_that_fails_leaves_the_file_before_it_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_bytes(&path, b"before").unwrap();
        let written = write_whole(&path, |file| {
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"before");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn files_and_folders_are_for_this_user_alone() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        make_folder(&inner).unwrap();
        let path = inner.join("file");
        write_bytes(&path, b"secret").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&path)), (0o700, 0o600));
    }

    #[test]
    fn what_is_not_there_is_removed_already() {
        let folder = tempfile::tempdir().unwrap();
        remove(Site::WorkerJobRemove, &folder.path().join("nothing")).unwrap();
        make_folder(&folder.path().join("a/b")).unwrap();
        remove(Site::WorkerJobRemove, &folder.path().join("a")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
