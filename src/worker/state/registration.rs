//! Who a worker is at a coordinator: its registration, and the number and the token that it got for it.

use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{
    StateFolder,
    disk::{remove, write_bytes},
};
use crate::{
    disk::{self, Site},
    protocol::{Registered, Registration},
};

const FILE: &str = "registration.json";

/// What the file has.
#[derive(Serialize, Deserialize)]
struct Kept {
    registration: Registration,
    registered: Registered,
}

impl StateFolder {
    /// What the worker said when it registered last, and what it was answered. A file that can't be read is a warning: the
    /// worker then registers again.
    pub fn registration(&self) -> Option<(Registration, Registered)> {
        let path = self.path().join(FILE);
        let read = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Kept>(&bytes)?));
        match read {
            Ok(kept) => Some((kept.registration, kept.registered)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "can't read who this worker was: it registers again");
                None
            }
        }
    }

    /// Keeps who the worker is. If that fails it is a warning: the worker would only register once more.
    pub fn keep_registration(&self, registration: &Registration, registered: &Registered) {
        let path = self.path().join(FILE);
        let kept = Kept {
            registration: registration.clone(),
            registered: registered.clone(),
        };
        let written = serde_json::to_vec(&kept)
            .map_err(io::Error::other)
            .and_then(|bytes| write_bytes(&path, &bytes))
            .and_then(|()| disk::sync_folder(Site::WorkerRegistrationSync, self.path()));
        if let Err(error) = written {
            tracing::warn!(
                file = %path.display(), %error,
                "can't keep who this worker is: it registers again when it is started again"
            );
        }
    }

    /// Forgets who the worker was: it has left, or the coordinator is gone.
    pub fn forget_registration(&self) {
        let path = self.path().join(FILE);
        if let Err(error) = remove(Site::WorkerRegistrationRemove, &path) {
            // A coordinator that is asked with an old token refuses it.
            tracing::debug!(file = %path.display(), %error, "can't remove who this worker was");
        }
    }
}
