//! A copy of a state folder becomes a state folder of its own.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;

use super::{
    check::check_folder,
    contents::JOURNAL,
    error::{StateDirError, failed},
    report::StateReport,
};
use crate::{
    coordinator::facts::{COORDINATOR, CoordinatorFact, json, parse},
    disk::{self, Site},
    store::{
        DataFolder, Journal, SqliteJournal,
        journal::{Batch, JournalError, Stream, fact},
    },
};

/// How far the terms of a copy are from those of the coordinator that it was made of. Numbers of requests begin with the term:
/// each start of either takes one more, and none may be given by both.
const TERMS_APART: u64 = 1000;

/// A state folder that is filled. It becomes one by [`StateImport::finish`]; dropped before that, nothing of it stays.
#[derive(Debug)]
pub struct StateImport {
    path: PathBuf,
    /// Whether the folder was not there.
    is_made: bool,
    /// In the folder itself, so that putting it in place is a rename. None once it is.
    staging: Option<TempDir>,
    /// No coordinator starts meanwhile.
    _folder: Arc<DataFolder>,
}

impl StateImport {
    /// Begins to fill a folder that is empty or not there.
    ///
    /// # Errors
    ///
    /// [`StateDirError::NotEmpty`], [`StateDirError::InUse`], and what the operating system refuses.
    pub fn begin(path: impl AsRef<Path>) -> Result<Self, StateDirError> {
        let path = path.as_ref();
        let is_made = match fs::read_dir(path) {
            Ok(mut entries) => match entries.next() {
                None => false,
                Some(_) => {
                    return Err(StateDirError::NotEmpty {
                        path: path.display().to_string(),
                    });
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(failed(path, error)),
        };
        let folder = DataFolder::open(path)?;
        let staging = disk::temporary_folder("import-", Some(path));
        let staging = staging.map_err(|error| failed(path, error))?;
        Ok(Self {
            path: path.to_path_buf(),
            is_made,
            staging: Some(staging),
            _folder: folder,
        })
    }

    /// The folder to put the files of a [`StateCopy`](super::StateCopy) into.
    pub fn staging(&self) -> &Path {
        let staging = self.staging.as_ref();
        staging.map_or(&self.path, |staging| staging.path())
    }

    /// Checks what was put there, raises its term, and puts it in place. The coordinator that the copy was made of must not run
    /// any more: workers take both for the same one.
    ///
    /// # Errors
    ///
    /// [`StateDirError::Damaged`] if it is not whole, and what the operating system refuses. Nothing stays then.
    pub fn finish(mut self) -> Result<StateReport, StateDirError> {
        let staging = self.staging().to_path_buf();
        let mut report = check_folder(&DataFolder::to_read(&staging)?)?;
        if !report.problems.is_empty() {
            return Err(StateDirError::Damaged(report.problems));
        }
        report.term = raise_term(&staging)?;
        sync_tree(&staging).map_err(|error| failed(&staging, error))?;
        // The journal last: without it the folder is none that a coordinator has ever had.
        for name in ["spool", "models", "alive", "journal.db-wal", JOURNAL] {
            let (from, to) = (staging.join(name), self.path.join(name));
            let moved = disk::rename(Site::ImportRename, &from, &to);
            match moved {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&self.path.join(name), error));
                }
                _ => {}
            }
        }
        // From here on it stays.
        self.staging = None;
        disk::sync_folder(Site::ImportFolderSync, &self.path)
            .map_err(|error| failed(&self.path, error))?;
        Ok(report)
    }
}

impl Drop for StateImport {
    fn drop(&mut self) {
        if self.staging.take().is_none() {
            return;
        }
        for part in ["spool", "models", "logs"] {
            let _ = disk::remove_tree(Site::ImportRemove, &self.path.join(part));
        }
        for file in ["alive", "lock"] {
            let _ = disk::remove_file(Site::ImportRemove, &self.path.join(file));
        }
        if self.is_made {
            let _ = disk::remove_folder(Site::ImportRemove, &self.path);
        }
    }
}

/// Returns the new term.
fn raise_term(path: &Path) -> Result<u64, StateDirError> {
    let journal = SqliteJournal::open(DataFolder::open(path)?)?;
    let Some(bytes) = fact(&journal, Stream::Coordinator, COORDINATOR)? else {
        return Ok(0);
    };
    let mut kept: CoordinatorFact = parse(COORDINATOR, &bytes).map_err(|problem| {
        // It has just been checked.
        failed(path, io::Error::other(problem))
    })?;
    kept.term += TERMS_APART;
    let streams = journal.streams()?;
    let mut streams = streams.into_iter();
    let position = streams.find(|(stream, _)| *stream == Stream::Coordinator);
    let position = position.map(|(_, position)| position).unwrap_or_default();
    let batch = Batch::default().fact(COORDINATOR, json(&kept));
    let written = journal.append(Stream::Coordinator, position, batch);
    // Its end waits for what was appended.
    drop(journal);
    if !written.is_done() {
        return Err(JournalError::Closed.into());
    }
    Ok(kept.term)
}

/// Brings a folder to the disk with all that is in it.
fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            let path = entry.path();
            disk::sync_file(Site::ImportSync, &File::open(&path)?, &path)?;
        }
    }
    disk::sync_folder(Site::ImportTreeSync, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{coordinator::state_dir::check, disk::testing::Scenario};

    /// Copies a folder with all that is in it.
    fn copy(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let place = to.join(path.file_name().unwrap());
            if path.is_dir() {
                fs::create_dir(&place).unwrap();
                copy(&path, &place);
            } else {
                fs::copy(&path, &place).unwrap();
            }
        }
    }

    fn is_whole(state: &Path) -> Result<(), String> {
        let report = check(state).map_err(|error| error.to_string())?;
        if report.problems.is_empty() {
            Ok(())
        } else {
            Err(format!("{:?}", report.problems))
        }
    }

    #[test]
    fn an_imported_state_survives_a_power_failure_and_is_whole_or_none() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/state-1");
        Scenario::Import.check(|root, power| {
            power.promise("a state is whole", |root| {
                let state = root.join("state");
                if state.join(JOURNAL).exists() {
                    is_whole(&state)
                } else {
                    Ok(())
                }
            });
            let import = StateImport::begin(root.join("state")).unwrap();
            copy(&fixture, import.staging());
            import.finish().unwrap();
            power.promise("the state is there", |root| is_whole(&root.join("state")));
        });
    }
}
