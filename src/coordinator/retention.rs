//! What is forgotten, and when: ended jobs, and versions that nobody needs any more.

use super::{facts::VERSION, handle::Coordinator, state::State};
use crate::{
    ids::JobId,
    store::journal::{Batch, Fact, Stream},
};

impl Coordinator {
    /// Forgets ended jobs beyond what is to be kept of them: the oldest first.
    pub(super) fn forget_oldest_jobs(&self, state: &mut State) {
        let limits = &self.0.config.jobs;
        let mut ended: Vec<_> = state
            .jobs
            .values()
            .filter_map(|job| Some((job.ended?, job.id, job.model_bytes())))
            .collect();
        // The latest first.
        ended.sort_unstable_by(|left, right| right.cmp(left));
        let now = self.now();
        let (mut kept, mut bytes) = (0, 0_u64);
        for (at, id, of_model) in ended {
            bytes = bytes.saturating_add(of_model);
            let is_old = limits.keep_for.is_some_and(|keep| now.since(at) > keep);
            let is_beyond =
                kept >= limits.keep || is_old || limits.keep_bytes.is_some_and(|most| bytes > most);
            // At least the one that ended last: its watchers have perhaps not seen its end yet.
            if is_beyond && kept > 0 {
                self.forget_job(state, id);
            } else {
                kept += 1;
            }
        }
    }

    /// Forgets a job with all that is kept of it.
    pub(super) fn forget_job(&self, state: &mut State, id: JobId) {
        let job = state.jobs.remove(&id);
        self.later(move || drop(job));
        self.forget_stream(state, Stream::Job(id));
        let coordinator = self.clone();
        self.once_durable(state, move || {
            let models = coordinator.0.models.clone();
            coordinator.later(move || models.remove(id, None));
        });
    }

    /// Removes the versions that nobody needs any more.
    pub(super) fn prune(&self, state: &mut State, id: JobId) {
        let Some(job) = state.jobs.get_mut(&id) else {
            return;
        };
        let idle = job.prune_models();
        if idle.is_empty() {
            return;
        }
        let mut batch = Batch::default();
        for version in &idle {
            batch.facts.push(Fact {
                name: format!("{VERSION}{version}"),
                body: None,
            });
        }
        self.append(state, Stream::Job(id), batch);
        let coordinator = self.clone();
        self.once_durable(state, move || {
            let models = coordinator.0.models.clone();
            coordinator.later(move || {
                for version in idle {
                    models.remove(id, Some(version));
                }
            });
        });
    }
}
