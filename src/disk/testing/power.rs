//! A folder whose disk forgets, at a power failure, what was not synced.
//!
//! A file's bytes are those of its last fsync. Of names, a folder has those of its own last fsync, or all: a file system may have
//! written more than it was asked for. So each moment has three images (see [`Names`]), and what was promised must hold in all.
//! SQLite is trusted: the files of a database are there as they are, as soon as the name of the database is on the disk.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::watch::{Observer, Step, Watch, watch};
use crate::disk::{Operation, Site};

/// The database and the files that SQLite has beside it.
const DATABASE: &str = "journal.db";
const BESIDE: [&str; 1] = ["journal.db-wal"];

/// What must hold in a folder that a power failure has left.
type Promise = Arc<dyn Fn(&Path) -> Result<(), String> + Send + Sync>;

/// A folder, by the paths in it: the bytes of files, none of folders.
type Image = BTreeMap<PathBuf, Option<Arc<[u8]>>>;

/// Which names a power failure leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Of each folder those of its last sync.
    Synced,
    /// All names of a folder that was ever synced, and of the watched one: a rename is there, and what is in the folder that was
    /// renamed is not.
    OfSyncedFolders,
    /// All.
    All,
}

/// Watches a folder, and knows what a power failure would leave of it.
pub(crate) struct Power {
    root: PathBuf,
    /// The site whose syncs are left out.
    without: Option<Site>,
    state: Mutex<State>,
}

/// A moment at which the power may fail.
struct Moment {
    after: Option<Site>,
    image: Image,
    promises: BTreeMap<String, Promise>,
}

#[derive(Default)]
struct State {
    synced: Synced,
    databases: HashMap<PathBuf, (u64, SystemTime, Arc<[u8]>)>,
    promises: BTreeMap<String, Promise>,
    moments: Vec<Moment>,
    visited: BTreeSet<Site>,
}

/// What was synced, by inode. An open file keeps the number of its inode from being used again.
#[derive(Default)]
struct Synced {
    files: HashMap<u64, (File, Arc<[u8]>)>,
    folders: HashMap<u64, BTreeMap<OsString, Entry>>,
}

struct Entry {
    inode: u64,
    is_folder: bool,
    _open: File,
}

/// The sites of all syncs.
pub(crate) fn sync_sites() -> BTreeSet<Site> {
    let mut sites = BTreeSet::new();
    for site in Site::ALL {
        if let Operation::SyncFile | Operation::SyncFolder = site.operation() {
            sites.insert(*site);
        }
    }
    sites
}

impl Power {
    /// Watches a folder that is on the disk itself, and empty. Syncs at the site `without` are left out.
    pub fn watch(root: &Path, without: Option<Site>) -> (Arc<Self>, Watch) {
        let power = Arc::new(Self {
            root: root.to_path_buf(),
            without,
            state: Mutex::default(),
        });
        let watch = watch(root, power.clone());
        (power, watch)
    }

    /// From now on, this must hold whenever the power fails.
    pub fn promise(
        &self,
        name: impl Into<String>,
        holds: impl Fn(&Path) -> Result<(), String> + Send + Sync + 'static,
    ) {
        let mut state = self.state();
        state.promises.insert(name.into(), Arc::new(holds));
        self.note_moment(&mut state, None);
    }

    /// From now on, this need not hold any more.
    pub fn withdraw(&self, name: &str) {
        self.state().promises.remove(name);
    }

    /// The sites at which there was a step.
    pub fn visited(&self) -> BTreeSet<Site> {
        self.state().visited.clone()
    }

    /// How many different moments there were.
    pub fn moments(&self) -> usize {
        self.state().moments.len()
    }

    /// The first promise that a power failure would have broken, with the moment.
    pub fn violation(&self) -> Option<String> {
        let moments = std::mem::take(&mut self.state().moments);
        for moment in &moments {
            if moment.promises.is_empty() {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            restore(&moment.image, folder.path());
            for (name, holds) in &moment.promises {
                if let Err(problem) = holds(folder.path()) {
                    let after = moment.after.map_or("a promise", Site::name);
                    return Some(format!("{name}, after {after}: {problem}"));
                }
            }
        }
        None
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a power failure would leave at this moment.
    fn note_moment(&self, state: &mut State, after: Option<Site>) {
        for names in [Names::Synced, Names::OfSyncedFolders, Names::All] {
            let mut image = Image::new();
            if names == Names::Synced {
                let root = fs::metadata(&self.root).map(|found| found.ino());
                self.add_synced(state, root.unwrap(), Path::new(""), &mut image);
            } else {
                self.add_names(state, names, Path::new(""), &mut image);
            }
            let promises = state.promises.clone();
            let mut last = state.moments.iter().rev().take(3);
            let is_known = last
                .any(|moment| moment.image == image && moment.promises.keys().eq(promises.keys()));
            if !is_known {
                state.moments.push(Moment {
                    after,
                    image,
                    promises,
                });
            }
        }
    }

    /// Adds the names that were synced below a folder.
    fn add_synced(&self, state: &mut State, folder: u64, path: &Path, image: &mut Image) {
        let mut entries = Vec::new();
        for (name, entry) in state.synced.folders.get(&folder).into_iter().flatten() {
            entries.push((name.clone(), entry.inode, entry.is_folder));
        }
        for (name, inode, is_folder) in entries {
            let path = path.join(&name);
            if is_folder {
                image.insert(path.clone(), None);
                self.add_synced(state, inode, &path, image);
            } else if name == DATABASE {
                self.add_database(state, &path, image);
            } else if !BESIDE.iter().any(|beside| name == *beside) {
                let synced = state.synced.files.get(&inode);
                let bytes = synced.map(|(_, bytes)| bytes.clone());
                image.insert(path, Some(bytes.unwrap_or_default()));
            }
        }
    }

    /// Adds the names that are there below a folder.
    fn add_names(&self, state: &mut State, names: Names, path: &Path, image: &mut Image) {
        // Other threads may make and remove files at this moment.
        let Ok(entries) = fs::read_dir(self.root.join(path)) else {
            return;
        };
        for entry in entries.flatten() {
            let (name, path) = (entry.file_name(), path.join(entry.file_name()));
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.is_dir() {
                image.insert(path.clone(), None);
                let was_synced = state.synced.folders.contains_key(&found.ino());
                if names == Names::All || was_synced {
                    self.add_names(state, names, &path, image);
                }
            } else if name == DATABASE {
                self.add_database(state, &path, image);
            } else if !BESIDE.iter().any(|beside| name == *beside) {
                let synced = state.synced.files.get(&found.ino());
                let bytes = synced.map(|(_, bytes)| bytes.clone());
                image.insert(path, Some(bytes.unwrap_or_default()));
            }
        }
    }

    fn add_database(&self, state: &mut State, path: &Path, image: &mut Image) {
        let mut files = vec![path.to_path_buf()];
        files.extend(BESIDE.map(|beside| path.with_file_name(beside)));
        for path in files {
            let place = self.root.join(&path);
            let Ok(found) = fs::metadata(&place) else {
                continue;
            };
            let stamp = (found.len(), found.modified().unwrap());
            let bytes = match state.databases.get(&path) {
                Some((length, modified, bytes)) if (*length, *modified) == stamp => bytes.clone(),
                _ => {
                    let Ok(bytes) = fs::read(&place) else {
                        continue;
                    };
                    let bytes: Arc<[u8]> = bytes.into();
                    let known = (stamp.0, stamp.1, bytes.clone());
                    state.databases.insert(path.clone(), known);
                    bytes
                }
            };
            image.insert(path, Some(bytes));
        }
    }
}

impl Observer for Power {
    fn step(&self, step: &Step, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        // One step at a time: an image is of one moment.
        let mut state = self.state();
        state.visited.insert(step.site);
        self.note_moment(&mut state, Some(step.site));
        if self.without == Some(step.site) {
            return Ok(());
        }
        act()?;
        state.synced.note(step)?;
        self.note_moment(&mut state, Some(step.site));
        Ok(())
    }
}

impl Synced {
    fn note(&mut self, step: &Step) -> io::Result<()> {
        match step.site.operation() {
            Operation::SyncFile => {
                let bytes = fs::read(&step.path)?;
                let open = File::open(&step.path)?;
                let inode = open.metadata()?.ino();
                self.files.insert(inode, (open, bytes.into()));
            }
            Operation::SyncFolder => {
                let mut entries = BTreeMap::new();
                for entry in fs::read_dir(&step.path)?.flatten() {
                    // One that has just been removed.
                    let Ok(open) = File::open(entry.path()) else {
                        continue;
                    };
                    let found = open.metadata()?;
                    let entry = (entry.file_name(), found.ino(), found.is_dir());
                    let (name, inode, is_folder) = entry;
                    entries.insert(
                        name,
                        Entry {
                            inode,
                            is_folder,
                            _open: open,
                        },
                    );
                }
                let inode = fs::metadata(&step.path)?.ino();
                self.folders.insert(inode, entries);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Makes the files and folders of an image.
fn restore(image: &Image, folder: &Path) {
    // In order of paths: a folder comes before what is in it.
    for (path, bytes) in image {
        let path = folder.join(path);
        match bytes {
            None => fs::create_dir(path).unwrap(),
            Some(bytes) => fs::write(path, bytes).unwrap(),
        }
    }
}
