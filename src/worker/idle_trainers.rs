//! The trainers that no task uses at the moment, of all jobs that are open.
//!
//! A trainer has a model on a device, so there are never more than slots, however many jobs a worker works for: before one is
//! made for a job, an idle one of another job goes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::LocalTrainer;
use crate::ids::JobId;

#[derive(Default)]
pub(super) struct IdleTrainers(Mutex<Vec<(JobId, Box<dyn LocalTrainer>)>>);

impl IdleTrainers {
    /// An idle trainer of this job. If there is none, the oldest one of another job is dropped, since the caller makes a new
    /// one.
    pub fn take(&self, job: JobId) -> Option<Box<dyn LocalTrainer>> {
        let mut idle = self.idle();
        if let Some(place) = idle.iter().rposition(|(of, _)| *of == job) {
            return Some(idle.remove(place).1);
        }
        let gone = (!idle.is_empty()).then(|| idle.remove(0));
        // Freeing a model may take long: outside of the lock.
        drop(idle);
        drop(gone);
        None
    }

    /// A task of this job has ended.
    pub fn put(&self, job: JobId, trainer: Box<dyn LocalTrainer>) {
        self.idle().push((job, trainer));
    }

    /// Drops the trainers of all jobs that are not among these.
    pub fn keep(&self, jobs: &[JobId]) {
        let gone: Vec<_> = self
            .idle()
            .extract_if(.., |(job, _)| !jobs.contains(job))
            .collect();
        drop(gone);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(JobId, Box<dyn LocalTrainer>)>> {
        // A push or a removal is whole or has not happened.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{NoopTrainers, TrainerFactory};

    #[test]
    fn a_new_trainer_takes_the_place_of_an_idle_one_of_another_job() {
        let factory = NoopTrainers::new(1, 1).unwrap();
        let trainer = || factory.trainer(&factory.job().description()).unwrap();
        let idle = IdleTrainers::default();
        let [first, second, third] = [1, 2, 3].map(JobId);
        idle.put(first, trainer());
        idle.put(second, trainer());
        assert!(idle.take(second).is_some());
        idle.put(second, trainer());
        assert!(idle.take(third).is_none(), "there is none of this job");
        assert!(idle.take(first).is_none(), "the oldest has made room");
        assert!(idle.idle().is_empty());
        idle.put(first, trainer());
        idle.put(second, trainer());
        idle.keep(&[second, third]);
        assert!(idle.take(second).is_some());
        assert!(idle.idle().is_empty());
    }
}
