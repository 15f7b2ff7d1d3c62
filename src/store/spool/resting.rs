//! An upload that broke off, and what a writer must be able to do to leave one.

use std::path::PathBuf;

use super::{notes::Note, place::Place};
use crate::report::{SpoolKey, SpoolWriter};

/// The part of an upload that broke off. No file is open.
pub(super) struct Resting {
    /// The report that it would have been; the name of its files.
    pub key: SpoolKey,
    pub part: PathBuf,
    pub notes: PathBuf,
    /// How much of it counts. None: an earlier process left it, and it has not been read yet.
    pub good: Option<Note>,
}

impl Resting {
    /// Removes its files.
    pub fn remove(&self, place: &Place) {
        place.rounds.remove(self.key, &self.notes);
        place.rounds.remove(self.key, &self.part);
    }
}

/// A writer that can be stopped and gone on with.
pub(super) trait Suspend: SpoolWriter {
    /// Closes the file and keeps what has come; none if that is nothing, or can't be kept.
    fn suspend(self: Box<Self>) -> Option<Resting>;
}
