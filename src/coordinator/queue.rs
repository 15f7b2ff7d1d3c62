//! How jobs leave the queue: each gets a machine, when there is a place for it.

use super::{handle::Coordinator, job::Job, offers::bystanders, state::State};
use crate::{
    ids::{JobId, RoundId, Timestamp},
    report::Refusal,
    round::{MachineConfig, ProgressRules, RoundMachine},
};

impl Coordinator {
    /// Starts the next jobs in the queue, if there is a place for them.
    pub(super) fn start_next(&self, state: &mut State) {
        while state.turns.len() < self.0.config.jobs.max_running.max(1) {
            let Some(id) = state.take_from_queue() else {
                break;
            };
            let Some(job) = state.jobs.get(&id) else {
                continue;
            };
            let workers: Vec<_> = state
                .eligible(job)
                .map(|(worker, info)| (worker, info.slots))
                .collect();
            let bystanders = bystanders(state, job);
            let Some(job) = state.jobs.get_mut(&id) else {
                continue;
            };
            let now = self.now();
            let mut machine = machine_of(job, now);
            // Before it begins: its first log entry says what it waits for, and who can't help.
            machine.note_bystanders(bystanders);
            machine.begin(&workers, now);
            job.machine = Some(machine);
            state.turns.start(id, job.spec.priority);
            self.begin(state, id);
        }
        self.rearm(state);
    }

    /// Takes a job out of the queue without running it, so that it can be cancelled.
    pub(super) fn give_machine(&self, state: &mut State, id: JobId) -> Result<(), Refusal> {
        let job = state.job_mut(id)?;
        if job.machine.is_none() {
            job.machine = Some(machine_of(job, self.now()));
            state.queue.retain(|queued| *queued != id);
            self.begin(state, id);
        }
        Ok(())
    }
}

/// The machine of a job that begins.
fn machine_of(job: &Job, now: Timestamp) -> RoundMachine {
    let machine = RoundMachine::new(machine_config(job), now);
    match &job.continuation {
        Some(continuation) => machine.with_basis(continuation.basis.clone()),
        None => machine,
    }
}

fn machine_config(job: &Job) -> MachineConfig {
    let mut limits = job.spec.limits.clone();
    if job.spec.partition.is_local() {
        // One client per worker: the job can't begin with fewer workers than clients.
        limits.min_workers = limits.min_workers.max(job.spec.clients.unwrap_or(1));
    }
    MachineConfig {
        rounds: job.spec.rounds,
        first_round: RoundId(job.spec.first_round.into()),
        limits,
        evaluation: job.evaluation,
        deals: job.spec.partition.is_measured(),
        pinned: job.spec.pins_clients(),
        progress: ProgressRules {
            best: job.spec.best.clone(),
            stop: job.spec.stop.clone(),
            evaluation: job.spec.evaluation_plan(),
        },
    }
}
