//! Uploads that can go on after a break: the part of each, and the one writer that may add to it.
//!
//! Locks: a slot's before the list's. What removes files or reads a part holds the slot's alone.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    notes::{Note, read_notes},
    place::Place,
    replay::last_good_note,
    resting::{Resting, Suspend},
};
use crate::{
    ids::{ClientId, JobId, RoundId, WorkerId},
    parameters::{BodyForm, Digest},
    report::PartialKey,
};

/// There is at most one part for each of these.
type Owner = (JobId, RoundId, ClientId, WorkerId);

fn owner(partial: PartialKey) -> Owner {
    (partial.job, partial.round, partial.client, partial.worker)
}

/// The uploads that can go on, or are under way and could.
#[derive(Default)]
pub(super) struct Partials(Mutex<BTreeMap<Owner, Arc<Slot>>>);

/// One of them.
pub(super) struct Slot {
    digest: Digest,
    held: Mutex<Held>,
}

/// What has become of an upload.
pub(super) enum Held {
    /// A writer adds to it.
    Writing(Box<dyn Suspend>),
    /// It broke off.
    Resting(Resting),
    /// It is stored, removed, or another slot's.
    Gone,
}

impl Partials {
    /// The upload of this key, if there is one.
    pub fn find(&self, partial: PartialKey) -> Option<Arc<Slot>> {
        let slot = self.slots().get(&owner(partial)).cloned();
        slot.filter(|slot| slot.digest == partial.digest)
    }

    /// Puts an upload in the place of the one before, which is given back.
    pub fn insert(&self, partial: PartialKey, held: Held) -> (Arc<Slot>, Option<Arc<Slot>>) {
        let slot = Arc::new(Slot {
            digest: partial.digest,
            held: Mutex::new(held),
        });
        let before = self.slots().insert(owner(partial), slot.clone());
        (slot, before)
    }

    /// Puts an upload that goes on in the place of this one; gives it back if that one has been removed meanwhile.
    pub fn replace(
        &self,
        partial: PartialKey,
        before: &Arc<Slot>,
        file: Box<dyn Suspend>,
    ) -> Result<Arc<Slot>, Box<dyn Suspend>> {
        let mut slots = self.slots();
        match slots.get_mut(&owner(partial)) {
            Some(found) if Arc::ptr_eq(found, before) => {
                *found = Arc::new(Slot {
                    digest: partial.digest,
                    held: Mutex::new(Held::Writing(file)),
                });
                Ok(found.clone())
            }
            _ => Err(file),
        }
    }

    /// Takes an upload off the list, if it is still on it.
    pub fn remove(&self, partial: PartialKey, slot: &Arc<Slot>) {
        let mut slots = self.slots();
        let found = slots.get(&owner(partial));
        if found.is_some_and(|found| Arc::ptr_eq(found, slot)) {
            slots.remove(&owner(partial));
        }
    }

    /// Removes the parts of a client's uploads in a round; without a client, those of all.
    pub fn end(&self, place: &Place, job: JobId, round: RoundId, client: Option<ClientId>) {
        let first = client.unwrap_or(ClientId(0));
        let last = client.unwrap_or(ClientId(u32::MAX));
        let range = (job, round, first, WorkerId(0))..=(job, round, last, WorkerId(u64::MAX));
        let ended: Vec<_> = self.slots().extract_if(range, |_, _| true).collect();
        for (_, slot) in ended {
            slot.end(place);
        }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Owner, Arc<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what it has. A writer that it still has is refused from now on.
    pub fn end(&self, place: &Place) {
        let held = self.held().take();
        if let Held::Resting(resting) = &held {
            resting.remove(place);
        }
        // The file of a writer is removed as it is dropped.
    }
}

impl Held {
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Gone)
    }

    /// Ends the writing, if there is a writer: what has come stays.
    pub fn rest(&mut self) {
        match self.take() {
            Self::Writing(file) => {
                if let Some(resting) = file.suspend() {
                    *self = Self::Resting(resting);
                }
            }
            other => *self = other,
        }
    }

    /// How many bytes of the body can be gone on with, once it rests. Removes a part of which none can.
    pub fn offset(&mut self, place: &Place, form: &Arc<BodyForm>) -> u64 {
        let Self::Resting(resting) = self else {
            return 0;
        };
        if resting.good.is_none() {
            resting.good = read_again(resting, form);
        }
        let offset = resting.good.map_or(0, |note| note.offset);
        if offset == 0 {
            resting.remove(place);
            *self = Self::Gone;
        }
        offset
    }
}

/// Looks at what an earlier process left. Files that can't be read are worth nothing.
fn read_again(resting: &Resting, form: &Arc<BodyForm>) -> Option<Note> {
    let read = read_notes(&resting.notes).ok()??;
    let file = File::open(&resting.part).ok()?;
    last_good_note(&file, form, &read)
}
