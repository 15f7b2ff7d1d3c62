//! The accepted reports of a spool.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{partials::Partials, place::Place, spooled::SpooledFile};
use crate::{
    parameters::EncodedReader,
    report::{ReportMetadata, SpoolKey},
};

/// What all handles of one spool share.
pub(super) struct Shared {
    pub place: Arc<Place>,
    pub stored: Mutex<BTreeMap<SpoolKey, Stored>>,
    pub partials: Partials,
}

pub(super) struct Stored {
    pub metadata: ReportMetadata,
    /// Each payload by name: all of them in one file.
    pub payloads: Vec<(String, EncodedReader<SpooledFile>)>,
}

impl Stored {
    /// Removes the file with its last reader.
    pub fn forget(&self) {
        if let Some((_, reader)) = self.payloads.first() {
            reader.source().forget();
        }
    }
}

impl Shared {
    pub fn stored(&self) -> MutexGuard<'_, BTreeMap<SpoolKey, Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
