//! The states of one client on the disk.
//!
//! A state is some safetensors files; `states.json` names those that count, with their digests. A write makes new files first
//! and then puts the new `states.json` in place, so that a process that is killed at any moment leaves the states before the
//! write, or those after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::disk::{make_folder, remove, write_bytes, write_whole};
use crate::{
    Cause,
    disk::{self, Site},
    ids::RoundId,
    parameters::{Digest, Digesting, Layout, ModelFile, Parameters, safetensors},
    worker::memory::{Kept, Prepared},
};

const INDEX: &str = "states.json";

/// Where the states of one client are.
#[derive(Debug)]
pub(in crate::worker) struct ClientFiles {
    folder: PathBuf,
}

/// What `states.json` has.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    committed: Option<StoredState>,
    prepared: Option<StoredState>,
    /// Counts the writes. It is in the names of files: a file that counts is never written to.
    writes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredState {
    /// The round whose report leads to it.
    round: RoundId,
    state: BTreeMap<String, StoredFile>,
    residuals: BTreeMap<String, StoredFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    personal: Option<StoredFile>,
}

impl StoredState {
    fn files(&self) -> impl Iterator<Item = &StoredFile> {
        let named = self.state.values().chain(self.residuals.values());
        named.chain(&self.personal)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredFile {
    file: String,
    digest: Digest,
}

impl ClientFiles {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The committed and the prepared state. What can't be read is a warning and counts as not there.
    pub fn read(&self) -> (Option<Prepared>, Option<Prepared>) {
        let index = self.index();
        let read = |stored: Option<StoredState>| self.read_state(&stored?);
        (read(index.committed), read(index.prepared))
    }

    /// Makes these two states durable, in place of those that are there.
    ///
    /// # Errors
    ///
    /// The path, and what the operating system says. Then the states before are still there.
    pub fn write(
        &self,
        committed: Option<&Prepared>,
        round: RoundId,
        kept: &Kept,
    ) -> Result<(), Cause> {
        let about = |error| Cause::about(self.folder.display(), error);
        make_folder(&self.folder).map_err(about)?;
        let before = self.index();
        let written = self.replace(&before, committed, round, kept);
        let index = written.inspect_err(|_| {
            // On a disk that is full, half a state would take the room of others.
            self.remove_unnamed(&before);
        })?;
        // The entries of the new files and of the index: after this, a power failure changes nothing.
        disk::sync_folder(Site::ClientSync, &self.folder).map_err(about)?;
        self.remove_unnamed(&index);
        Ok(())
    }

    /// Writes the files that are new, and puts the index that names them in the place of the one before.
    fn replace(
        &self,
        before: &Index,
        committed: Option<&Prepared>,
        round: RoundId,
        kept: &Kept,
    ) -> Result<Index, Cause> {
        let mut files = NewFiles {
            folder: &self.folder,
            write: before.writes + 1,
            count: 0,
        };
        let committed = match committed {
            None => None,
            Some((of, kept)) => match before.find(*of) {
                // Its files are there: most rounds write one state, not two.
                Some(stored) => Some(stored.clone()),
                None => Some(files.write_state(*of, kept)?),
            },
        };
        let index = Index {
            committed,
            prepared: Some(files.write_state(round, kept)?),
            writes: files.write,
        };
        let bytes = serde_json::to_vec(&index).map_err(Cause::of)?;
        let path = self.folder.join(INDEX);
        write_bytes(&path, &bytes).map_err(|error| Cause::about(path.display(), error))?;
        Ok(index)
    }

    /// Removes all states.
    pub fn clear(&self) -> Result<(), Cause> {
        remove(Site::ClientRemove, &self.folder)
            .map_err(|error| Cause::about(self.folder.display(), error))
    }

    fn index(&self) -> Index {
        let path = self.folder.join(INDEX);
        let read = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Index>(&bytes)?));
        match read {
            Ok(index) => index,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Index::default(),
            Err(error) => {
                tracing::warn!(
                    file = %path.display(), %error,
                    "can't read which state of a client counts: its state is lost"
                );
                Index::default()
            }
        }
    }

    fn read_state(&self, stored: &StoredState) -> Option<Prepared> {
        match self.try_read_state(stored) {
            Ok(kept) => Some((stored.round, kept)),
            Err(problem) => {
                tracing::warn!(
                    round = %stored.round, %problem,
                    "can't read a client's state: it is lost if the next task asks for it"
                );
                None
            }
        }
    }

    fn try_read_state(&self, stored: &StoredState) -> Result<Kept, Cause> {
        let personal = stored.personal.as_ref();
        Ok(Kept {
            state: self.read_all(&stored.state)?,
            residuals: self.read_all(&stored.residuals)?,
            personal: personal.map(|file| self.read_one(file)).transpose()?,
        })
    }

    fn read_all(
        &self,
        stored: &BTreeMap<String, StoredFile>,
    ) -> Result<BTreeMap<String, Parameters>, Cause> {
        let mut read = BTreeMap::new();
        for (name, file) in stored {
            read.insert(name.clone(), self.read_one(file)?);
        }
        Ok(read)
    }

    fn read_one(&self, file: &StoredFile) -> Result<Parameters, Cause> {
        read_parameters(&self.folder.join(&file.file), file.digest)
    }

    /// Removes the files that no state has. One that stays takes room and nothing else: the next write tries again.
    fn remove_unnamed(&self, index: &Index) {
        let mut named = BTreeSet::from([INDEX]);
        for stored in [&index.committed, &index.prepared].into_iter().flatten() {
            for file in stored.files() {
                named.insert(&file.file);
            }
        }
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name.to_str().is_none_or(|name| !named.contains(name)) {
                let _ = remove(Site::ClientFileRemove, &entry.path());
            }
        }
    }
}

impl Index {
    /// The state that the report of this round leads to.
    fn find(&self, round: RoundId) -> Option<&StoredState> {
        let mut stored = [&self.prepared, &self.committed].into_iter().flatten();
        stored.find(|stored| stored.round == round)
    }
}

/// The files of one write.
struct NewFiles<'a> {
    folder: &'a Path,
    write: u64,
    count: u64,
}

impl NewFiles<'_> {
    fn write_state(&mut self, round: RoundId, kept: &Kept) -> Result<StoredState, Cause> {
        Ok(StoredState {
            round,
            state: self.write_all(&kept.state)?,
            residuals: self.write_all(&kept.residuals)?,
            personal: match &kept.personal {
                Some(personal) => Some(self.write_one(personal)?),
                None => None,
            },
        })
    }

    fn write_all(
        &mut self,
        parameters: &BTreeMap<String, Parameters>,
    ) -> Result<BTreeMap<String, StoredFile>, Cause> {
        let mut stored = BTreeMap::new();
        for (name, parameters) in parameters {
            stored.insert(name.clone(), self.write_one(parameters)?);
        }
        Ok(stored)
    }

    fn write_one(&mut self, parameters: &Parameters) -> Result<StoredFile, Cause> {
        self.count += 1;
        let file = format!("{}-{}.safetensors", self.write, self.count);
        let path = self.folder.join(&file);
        let mut digest = Digest::of(&[]);
        let written = write_whole(&path, |file| {
            digest = write_parameters(file, parameters)?;
            Ok(())
        });
        written.map_err(|error| Cause::about(path.display(), error))?;
        Ok(StoredFile { file, digest })
    }
}

/// Writes the values as they are in memory, without a copy.
fn write_parameters(file: &mut impl Write, parameters: &Parameters) -> io::Result<Digest> {
    let header = safetensors::header(parameters.layout(), "");
    let values: &[u8] = bytemuck::cast_slice(parameters.values());
    let mut digest = Digesting::default();
    for bytes in [&header, values] {
        digest.update(bytes);
        file.write_all(bytes)?;
    }
    Ok(digest.finish())
}

fn read_parameters(path: &Path, digest: Digest) -> Result<Parameters, Cause> {
    let bytes = fs::read(path).map_err(|error| Cause::about(path.display(), error))?;
    let found = Digest::of(&bytes);
    if found != digest {
        let path = path.display();
        return Err(format!("{path}: its digest is {found}, and {digest} was expected").into());
    }
    // Not by `safetensors::decode`, which takes models: a trainer's state may have values that are not finite.
    let about = |error| Cause::about(path.display(), error);
    let file = ModelFile::parse(&bytes).map_err(about)?;
    let mut tensors = Vec::with_capacity(file.tensors().len());
    let mut values = Vec::new();
    for tensor in file.tensors() {
        let role = file.role(&tensor.name);
        tensors.push((tensor.name.clone(), tensor.shape.clone(), role));
        values.extend(tensor.values().unwrap_or_default());
    }
    // The layout sorts by name, and so did that of the file's writer: the values are in its order.
    let parameters = Layout::new(tensors).and_then(|layout| Parameters::new(layout, values));
    parameters.map_err(|error| Cause::about(path.display(), error))
}

#[cfg(test)]
mod tests;
