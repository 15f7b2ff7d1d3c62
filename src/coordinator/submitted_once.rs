//! Submissions that come again with the key of an earlier one are the same job.

use super::{handle::Coordinator, state::State, submission_key::SubmittedOnce};
use crate::{
    ids::JobId,
    protocol::JobSummary,
    report::{Refusal, RefusalKind},
};

/// A key whose job is being made. Dropped, it is free again, or its job is there.
pub(super) struct Reserved {
    coordinator: Coordinator,
    pub once: SubmittedOnce,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.coordinator.state().submitting.remove(&self.once.key);
    }
}

impl Coordinator {
    /// The job that was submitted under this key before, or else the right to make it.
    pub(super) fn reserve(&self, once: SubmittedOnce) -> Result<Reservation, Refusal> {
        let mut state = self.state();
        if let Some(job) = job_of(&state, &once)? {
            let known = Box::new(state.job(job)?.summary());
            return Ok(Reservation::Known(known));
        }
        if !state.submitting.insert(once.key.clone()) {
            let detail = "a submission with the same key is under way: ask again in a moment";
            return Err(Refusal::new(RefusalKind::Busy, detail));
        }
        drop(state);
        let coordinator = self.clone();
        Ok(Reservation::New(Reserved { coordinator, once }))
    }
}

/// What a key leads to.
pub(super) enum Reservation {
    Known(Box<JobSummary>),
    New(Reserved),
}

fn job_of(state: &State, once: &SubmittedOnce) -> Result<Option<JobId>, Refusal> {
    for job in state.jobs.values() {
        let Some(known) = &job.once else {
            continue;
        };
        if known.key != once.key {
            continue;
        }
        if known.asked != once.asked {
            let detail = format!(
                "job {} was submitted with the same key, and is another one: use another key for another job",
                job.id
            );
            return Err(Refusal::new(RefusalKind::Conflict, detail));
        }
        return Ok(Some(job.id));
    }
    Ok(None)
}
