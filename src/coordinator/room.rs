//! A disk that refuses pauses a round, and does not end it: what is full is waited for, and other errors are tried again some times.

use std::{
    error::Error,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::handle::Coordinator;
use crate::{ids::JobId, parameters::BlockError, store::StoreError};

/// How long a job waits before it tries again, and how often it looks meanwhile whether it is still to.
const PAUSE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// How often an error other than a full disk is tried again. One that stays must come to the job's record.
const TRIES: usize = 5;

/// What a piece of work found on the disk.
#[derive(Debug, Default)]
pub(super) struct Room {
    is_full: AtomicBool,
    is_refused: AtomicBool,
}

impl Room {
    /// Notes how a block was written.
    pub fn noted<T>(&self, written: Result<T, BlockError>) -> Result<T, BlockError> {
        match &written {
            Err(BlockError::Full(_)) => self.is_full.store(true, Ordering::Relaxed),
            // What a store itself refuses is a defect, and has no error of the operating system behind it.
            Err(BlockError::Unwritable(cause)) if cause.source().is_some() => {
                self.is_refused.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
        written
    }

    /// Notes what a store said, and gives its error in words.
    pub fn noted_by<T>(&self, done: Result<T, StoreError>) -> Result<T, String> {
        match &done {
            Err(StoreError::Full { .. }) => self.is_full.store(true, Ordering::Relaxed),
            Err(StoreError::Io { problem, .. }) if problem.source().is_some() => {
                self.is_refused.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
        done.map_err(|error| error.to_string())
    }
}

impl Coordinator {
    /// Does it, and again while it fails for want of space, until the job is over; and some times if the disk refuses otherwise.
    pub(super) fn with_room<T>(
        &self,
        job: JobId,
        over: &AtomicBool,
        mut work: impl FnMut(&Room) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut is_told = false;
        let mut refused = 0;
        loop {
            let room = Room::default();
            let done = work(&room);
            let is_full = room.is_full.load(Ordering::Relaxed);
            let is_refused = room.is_refused.load(Ordering::Relaxed) && refused < TRIES;
            let reason = match &done {
                Err(reason) if is_full || is_refused => reason,
                _ => {
                    if is_told && done.is_ok() {
                        tracing::info!(%job, "the disk takes what it is given again, and the round goes on");
                    }
                    return done;
                }
            };
            if is_full {
                if !is_told {
                    tracing::error!(%job, reason, "the disk is full: the round waits until there is space");
                }
            } else {
                refused += 1;
                tracing::error!(%job, reason, "the disk refuses (try {refused} of {TRIES}): the round waits and tries again");
            }
            is_told = true;
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
