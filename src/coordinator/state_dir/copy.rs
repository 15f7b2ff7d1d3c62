//! A consistent copy of a state folder, made while a coordinator writes to it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    check::{check_folder, has_state, is_name},
    contents::{Contents, JOURNAL},
    error::{StateDirError, failed},
    report::StateReport,
};
use crate::{
    disk::{self, Site},
    store::{DataFolder, ReadJournal, at_rest},
};

/// How the folder of a copy is named, in the folder that is copied.
const PREFIX: &str = "export-";

/// How long a file may be missing that the journal names: the coordinator removes it a moment after it has forgotten it, so that the
/// journal of the next moment does not name it.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// The file of the last time at which the coordinator was alive.
const ALIVE: &str = "alive";

/// A copy of a state folder as it was at one moment. It is in that folder, so that files are linked instead of copied, and is
/// removed with this value.
#[derive(Debug)]
pub struct StateCopy {
    report: StateReport,
    files: Vec<PathBuf>,
    folder: TempDir,
    /// Others know by it that the copy is in use.
    _lock: File,
}

impl StateCopy {
    /// Copies a folder, whether a coordinator runs on it or not, and checks the copy.
    ///
    /// The journal is read as it is at one moment, and the files that it names are linked at once. If one has been removed right
    /// then, it is tried again with the journal of a later moment.
    ///
    /// # Errors
    ///
    /// [`StateDirError::NoState`] if it is no state folder, [`StateDirError::Damaged`] if the copy is not whole, and what the
    /// operating system refuses.
    pub fn of(path: impl AsRef<Path>) -> Result<Self, StateDirError> {
        let path = path.as_ref();
        has_state(path)?;
        let from = DataFolder::to_read(path)?;
        remove_old(path)?;
        let made = disk::temporary_folder(PREFIX, Some(path));
        let folder = made.map_err(|error| failed(path, error))?;
        let lock = lock(folder.path()).map_err(|error| failed(folder.path(), error))?;
        let started = Instant::now();
        let mut files = loop {
            let to = DataFolder::to_read(folder.path())?;
            match copy(&from, &to)? {
                Copied::Whole(files) => break files,
                Copied::Without(path) if started.elapsed() > PATIENCE => {
                    return Err(failed(&path, io::ErrorKind::NotFound.into()));
                }
                Copied::Without(_) => {}
            }
            std::thread::sleep(PAUSE);
            for part in ["models", "spool"] {
                let _ = disk::remove_tree(Site::ExportRemove, &folder.path().join(part));
            }
        };
        files.sort_unstable();
        let report = check_folder(&DataFolder::to_read(folder.path())?)?;
        if !report.problems.is_empty() {
            return Err(StateDirError::Damaged(report.problems));
        }
        Ok(Self {
            report,
            files,
            folder,
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its files: paths in its folder, in order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What is in it.
    pub fn report(&self) -> &StateReport {
        &self.report
    }
}

/// What came of one moment.
enum Copied {
    /// These files.
    Whole(Vec<PathBuf>),
    /// This one was not there any more.
    Without(PathBuf),
}

/// Copies one moment.
fn copy(from: &Arc<DataFolder>, to: &Arc<DataFolder>) -> Result<Copied, StateDirError> {
    let journal = ReadJournal::of_now(from.clone())?;
    let contents = Contents::read(journal.journal())?;
    let mut needed = Vec::new();
    for job in &contents.jobs {
        for (version, published) in &job.versions {
            let place = at_rest::version_path(from, job.id, *version);
            let files = published.files.iter().filter(|file| is_name(&file.name));
            needed.extend(files.map(|file| place.join(&file.name)));
        }
        let keys = job.reports().into_iter();
        needed.extend(keys.map(|key| at_rest::report_path(from, key)));
    }
    let mut files = Vec::with_capacity(needed.len());
    for path in needed {
        match link(from, to, &path)? {
            Some(name) => files.push(name),
            None => return Ok(Copied::Without(path)),
        }
    }
    // Now that nothing of this moment can vanish any more.
    let database = to.path().join(JOURNAL);
    match disk::remove_file(Site::ExportRemove, &database) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(&database, error));
        }
        _ => journal.copy_to(&database)?,
    }
    files.push(JOURNAL.into());
    if let Some(time) = contents.alive {
        let alive = to.path().join(ALIVE);
        fs::write(&alive, time.0.to_le_bytes()).map_err(|error| failed(&alive, error))?;
        files.push(ALIVE.into());
    }
    Ok(Copied::Whole(files))
}

/// Links a file into the copy, or copies it. Returns its path in both folders; none if it is not there any more.
fn link(from: &DataFolder, to: &DataFolder, path: &Path) -> Result<Option<PathBuf>, StateDirError> {
    let name = path.strip_prefix(from.path()).unwrap_or(path);
    let place = to.path().join(name);
    let parent = place.parent().unwrap_or(to.path());
    disk::make_private(parent).map_err(|error| failed(parent, error))?;
    // A published file is never written to again, so both names may have the same bytes.
    let linked = fs::hard_link(path, &place).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Err(error),
        // Some file systems have no links.
        _ => fs::copy(path, &place).map(|_| ()),
    });
    match linked {
        Ok(()) => Ok(Some(name.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

fn lock(folder: &Path) -> io::Result<File> {
    let file = File::create(folder.join("lock"))?;
    file.try_lock()?;
    Ok(file)
}

/// Removes copies whose process was killed.
fn remove_old(path: &Path) -> Result<(), StateDirError> {
    for entry in fs::read_dir(path).map_err(|error| failed(path, error))? {
        let entry = entry.map_err(|error| failed(path, error))?;
        let is_copy = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // Between the making of the folder and of its lock, another export owns it.
        if is_copy
            && let Ok(lock) = File::options().write(true).open(entry.path().join("lock"))
            && lock.try_lock().is_ok()
        {
            let _ = disk::remove_tree(Site::ExportRemove, &entry.path());
        }
    }
    Ok(())
}
