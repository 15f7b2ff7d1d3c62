//! The payload of one stored report, read by block.

use std::{
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::place::Place;
use crate::{
    parameters::{BlockError, PayloadSource},
    report::SpoolKey,
    store::folder::unreadable,
};

/// A stored report's file. Clones are the same file.
#[derive(Clone)]
pub(super) struct SpooledFile(Arc<Spooled>);

struct Spooled {
    place: Arc<Place>,
    key: SpoolKey,
    path: PathBuf,
    handle: u64,
    forgotten: AtomicBool,
}

impl SpooledFile {
    pub fn new(place: Arc<Place>, key: SpoolKey, path: PathBuf) -> Self {
        Self(Arc::new(Spooled {
            handle: place.handles.name(),
            place,
            key,
            path,
            forgotten: AtomicBool::new(false),
        }))
    }

    /// Removes the file with its last reader. Without this it outlives the process.
    pub fn forget(&self) {
        self.0.forgotten.store(true, Ordering::Release);
    }
}

impl PayloadSource for SpooledFile {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BlockError> {
        let Spooled {
            place,
            handle,
            path,
            ..
        } = &*self.0;
        place
            .handles
            .with(*handle, path, |file| file.read_exact_at(bytes, offset))
            .map_err(|error| unreadable(path, error))
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.place.handles.close(self.handle);
        if *self.forgotten.get_mut() {
            self.place.rounds.remove(self.key, &self.path);
        }
    }
}
