//! Who sees the steps below a folder.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::disk::Site;

/// A step below a watched folder.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub site: Site,
    /// What it is about; of a rename, the new name.
    pub path: PathBuf,
}

/// Sees the steps below a folder, on the threads that do them.
pub(crate) trait Observer: Send + Sync {
    /// Does a step, by `act`; or leaves it out; or has it fail.
    fn step(&self, step: &Step, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;
}

/// Ends an observation when it is dropped.
#[derive(Debug)]
pub(crate) struct Watch(u64);

struct Watched {
    number: u64,
    folder: PathBuf,
    observer: Arc<dyn Observer>,
}

struct Watches {
    last: u64,
    watched: Vec<Watched>,
}

static WATCHES: Mutex<Watches> = Mutex::new(Watches {
    last: 0,
    watched: Vec::new(),
});

fn watches() -> MutexGuard<'static, Watches> {
    WATCHES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has all steps below a folder observed, until the value is dropped. Tests run side by side: each has a folder of its own.
pub(crate) fn watch(folder: &Path, observer: Arc<dyn Observer>) -> Watch {
    let mut watches = watches();
    watches.last += 1;
    let number = watches.last;
    watches.watched.push(Watched {
        number,
        folder: folder.to_path_buf(),
        observer,
    });
    Watch(number)
}

impl Drop for Watch {
    fn drop(&mut self) {
        watches().watched.retain(|watched| watched.number != self.0);
    }
}

/// Does a step, unless the observer of its folder wants something else.
pub(in crate::disk) fn around<E: From<io::Error>>(
    site: Site,
    path: &Path,
    act: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let observer = {
        let watches = watches();
        let mut watched = watches.watched.iter();
        let found = watched.find(|watched| path.starts_with(&watched.folder));
        found.map(|watched| watched.observer.clone())
    };
    let Some(observer) = observer else {
        return act();
    };
    let step = Step {
        site,
        path: path.to_path_buf(),
    };
    let mut act = Some(act);
    let mut failed = None;
    let observed = observer.step(&step, &mut || {
        let act = act.take().expect("a step is done once");
        act().map_err(|error| {
            failed = Some(error);
            io::Error::other("the step failed")
        })
    });
    match (observed, failed) {
        (Err(_), Some(error)) => Err(error),
        (Err(error), None) => Err(error.into()),
        (Ok(()), _) => Ok(()),
    }
}
