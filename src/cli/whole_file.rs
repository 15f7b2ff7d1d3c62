//! A file that appears as a whole or not at all.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::Failure;
use crate::disk::{self, Site};

/// The names of standard output.
#[cfg(unix)]
const STANDARD_OUTPUT: [&str; 3] = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];

/// A file that is written beside its place, and appears there as a whole or not at all. Standard output, and what is there
/// and is no regular file (a pipe, a terminal, `/dev/null`), is written to instead: it can't be replaced. Of a symbolic
/// link, what it leads to is replaced.
#[derive(Debug)]
pub(super) struct WholeFile {
    path: PathBuf,
    /// None if `path` itself is written to.
    temporary: Option<PathBuf>,
    /// None once the file is in its place.
    file: Option<BufWriter<File>>,
}

impl WholeFile {
    pub fn create(path: &Path) -> Result<Self, Failure> {
        #[cfg(unix)]
        if STANDARD_OUTPUT.iter().any(|name| path == Path::new(name)) {
            return Self::standard_output(path);
        }
        // A link in its place is not replaced: `/dev/stdout` is one.
        // A path that leads to nothing yet can't be resolved, and is taken as it is.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file());
        let (file, temporary) = if is_special {
            // Without creating or truncating, which a pipe has no use for.
            (File::options().write(true).open(path), None)
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // In the same folder: a rename is atomic only within one file system. With the process's number: two runs must
            // not write to one file.
            let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
            (File::create(&temporary), Some(temporary))
        };
        // Its place is an argument that can't be used; what fails later, is the disk.
        let file =
            file.map_err(|error| Failure::of_file(path, format!("it can't be written: {error}")))?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file: Some(BufWriter::new(file)),
        })
    }

    /// The same file, which only its owner may read. To be called before the first byte.
    pub fn private(self) -> Result<Self, Failure> {
        #[cfg(unix)]
        if self.temporary.is_some()
            && let Some(file) = &self.file
        {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            let changed = file.get_ref().set_permissions(mode);
            changed.map_err(|error| cannot_write(&self.path, error))?;
        }
        Ok(self)
    }

    /// A file with these bytes, on the disk, which has not its name yet.
    pub fn written(
        path: &Path,
        write: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> Result<Self, Failure> {
        let mut file = Self::create(path)?;
        let written = write(&mut file).and_then(|()| file.sync());
        written.map_err(|error| cannot_write(path, error))?;
        Ok(file)
    }

    /// Standard output itself: opened by its name, a file that it is redirected to would be written from its beginning.
    #[cfg(unix)]
    fn standard_output(path: &Path) -> Result<Self, Failure> {
        use std::os::fd::AsFd;

        // A copy: when the file is closed, standard output must stay open.
        let descriptor = io::stdout().as_fd().try_clone_to_owned();
        let descriptor = descriptor.map_err(|error| cannot_write(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            temporary: None,
            file: Some(BufWriter::new(File::from(descriptor))),
        })
    }

    /// Whether it is a pipe, a terminal or another thing that is written to as it comes.
    pub fn is_stream(&self) -> bool {
        self.temporary.is_none()
    }

    /// Gives the file its name; one that had it before is replaced.
    pub fn put_in_place(mut self) -> Result<(), Failure> {
        let placed = self.place();
        placed.map_err(|error| cannot_write(&self.path, error))?;
        // So that its drop does not look for the temporary file, which has its name now.
        self.file = None;
        Ok(())
    }

    fn place(&mut self) -> io::Result<()> {
        // Before the rename, or a power failure could leave a whole name on half a file.
        self.sync()?;
        let Some(temporary) = &self.temporary else {
            return Ok(());
        };
        disk::rename(Site::OutputRename, temporary, &self.path)
    }

    /// Writes what is buffered, to the disk itself if there is one: what does not fit shows here.
    fn sync(&mut self) -> io::Result<()> {
        self.buffer()?.flush()?;
        match self.temporary {
            Some(ref temporary) => {
                let temporary = temporary.clone();
                disk::sync_file(Site::OutputSync, self.buffer()?.get_ref(), &temporary)
            }
            // A pipe or a terminal keeps nothing.
            None => Ok(()),
        }
    }

    fn buffer(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.file
            .as_mut()
            .ok_or_else(|| io::Error::other("it is closed"))
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.buffer()?.flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if self.file.take().is_some()
            && let Some(temporary) = &self.temporary
        {
            // Half a file is of no use. About one that can't be removed, nothing can be done here.
            let _ = disk::remove_file(Site::OutputRemove, temporary);
        }
    }
}

fn cannot_write(path: &Path, error: io::Error) -> Failure {
    // Only a pipe can break: its reader has seen enough.
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::OutputClosed;
    }
    Failure::because(format!("can't write {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::Scenario;

    fn write(path: &Path, text: &str) {
        let file = WholeFile::written(path, |file| file.write_all(text.as_bytes()));
        file.unwrap().put_in_place().unwrap();
    }

    #[test]
    fn a_file_replaces_the_one_before_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        write(&file, "1");
        write(&file, "2");
        assert_eq!(fs::read_to_string(&file).unwrap(), "2");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_whole_after_a_power_failure_or_not_there() {
        Scenario::Output.check(|root, power| {
            power.promise("it is whole", |root| {
                match fs::read_to_string(root.join("file")) {
                    Ok(text) if text != "1" && text != "2" => Err(format!("it has {text:?}")),
                    _ => Ok(()),
                }
            });
            write(&root.join("file"), "1");
            write(&root.join("file"), "2");
        });
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_what_it_leads_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "before").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, "1");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    }

    #[test]
    fn a_write_that_breaks_off_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rounds.jsonl");
        write(&file, "1");
        let failure = WholeFile::written(&file, |file| {
            file.write_all(b"3")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(failure.unwrap_err().code(), 1);
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
