//! A full disk pauses a round, and does not end it: what has no room waits, and is tried again.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::handle::Coordinator;
use crate::{ids::JobId, parameters::BlockError, store::StoreError};

/// How long a job waits before it tries again, and how often it looks meanwhile whether it is still to.
const PAUSE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// Whether a piece of work found the disk full.
#[derive(Debug, Default)]
pub(super) struct Room {
    is_full: AtomicBool,
}

impl Room {
    /// Notes how a block was written.
    pub fn noted<T>(&self, written: Result<T, BlockError>) -> Result<T, BlockError> {
        if let Err(BlockError::Full(_)) = &written {
            self.is_full.store(true, Ordering::Relaxed);
        }
        written
    }

    /// Notes what a store said, and gives its error in words.
    pub fn noted_by<T>(&self, done: Result<T, StoreError>) -> Result<T, String> {
        if let Err(StoreError::Full { .. }) = &done {
            self.is_full.store(true, Ordering::Relaxed);
        }
        done.map_err(|error| error.to_string())
    }
}

impl Coordinator {
    /// Does it, and again while it fails for want of space, until the job is over.
    pub(super) fn with_room<T>(
        &self,
        job: JobId,
        over: &AtomicBool,
        mut work: impl FnMut(&Room) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut is_told = false;
        loop {
            let room = Room::default();
            let done = work(&room);
            let reason = match &done {
                Err(reason) if room.is_full.load(Ordering::Relaxed) => reason,
                _ => {
                    if is_told {
                        tracing::info!(%job, "there is space again, and the round goes on");
                    }
                    return done;
                }
            };
            if !is_told {
                tracing::error!(%job, reason, "the disk is full: the round waits until there is space");
                is_told = true;
            }
            let mut waited = Duration::ZERO;
            while waited < PAUSE {
                if over.load(Ordering::Relaxed) {
                    return done;
                }
                thread::sleep(LOOK);
                waited += LOOK;
            }
        }
    }
}
