//! Signs of life, and the tasks that polls are answered with.

use std::time::Duration;

use tokio::time::Instant;

use super::{handle::Coordinator, journaling::durable, state::State};
use crate::{
    ids::{ClientId, JobId, RoundId, Timestamp, WorkerId},
    protocol::{TaskMessage, TaskWork},
    report::Refusal,
    round::{self, Event, Task, TaskKind},
    transport::{Credentials, Response},
};

impl Coordinator {
    /// Checks the credentials and notes the time of this request.
    pub(super) fn heard_of(
        &self,
        state: &mut State,
        credentials: &Credentials,
    ) -> Result<(), Refusal> {
        state.authenticate(credentials)?;
        let now = self.now();
        let is_back = state.heard_of(credentials.worker, &credentials.token, now);
        self.release_if_due(state, credentials.worker, now);
        if is_back {
            tracing::info!(worker = %credentials.worker, "worker is back");
            self.write_workers(state, &[credentials.worker]);
            // It lost its leases when it was silent: to the machine it is a new worker.
            self.worker_joined(state, credentials.worker);
        }
        Ok(())
    }

    pub(super) fn heartbeat(
        &self,
        credentials: &Credentials,
        busy: Vec<TaskMessage>,
    ) -> Result<Response, Refusal> {
        let mut state = self.state();
        self.heard_of(&mut state, credentials)?;
        state.note_busy(credentials.worker, jobs_of(&busy));
        let mut unwanted = Vec::new();
        for message in busy {
            if !is_wanted(&state, credentials.worker, &message) {
                unwanted.push(message);
            }
        }
        Ok(Response::Alive { unwanted })
    }

    pub(super) fn leave(&self, credentials: &Credentials) -> Result<Response, Refusal> {
        let mut state = self.state();
        // Not `heard_of`: a lost worker that leaves would be live again for a moment, and leases would move to
        // it.
        state.authenticate(credentials)?;
        state.note_busy(credentials.worker, Vec::new());
        if state.leave(credentials.worker) {
            tracing::info!(worker = %credentials.worker, "worker left");
            self.write_workers(&mut state, &[credentials.worker]);
            self.worker_lost(&mut state, credentials.worker);
        }
        Ok(Response::Accepted)
    }

    pub(super) async fn poll(
        &self,
        credentials: &Credentials,
        busy: &[TaskMessage],
        wait: Duration,
    ) -> Result<Response, Refusal> {
        let wait = bunched(self.now(), wait.min(self.longest_poll()));
        let deadline = Instant::now() + wait;
        loop {
            let (found, rests_on, wake) = {
                let mut state = self.state();
                // Checked after each wake-up: the worker may have left, or lost its name to another, while this poll
                // waited.
                self.heard_of(&mut state, credentials)?;
                // Before the task is noted. It rests on what came before, its plan and its model; its own note need not be
                // durable, since a client whose task was lost is asked again, and may report unasked.
                let rests_on = state.appended.clone();
                let found = self.next_task(&mut state, credentials, busy);
                let wake = state.authenticate(credentials)?.wake.clone();
                (found, rests_on, wake)
            };
            if let Some(task) = found {
                durable(rests_on).await?;
                return Ok(Response::Task(task));
            }
            // A wake-up between the look and the wait is not lost: it leaves a permit.
            if tokio::time::timeout_at(deadline, wake.notified())
                .await
                .is_err()
            {
                return Ok(Response::Idle);
            }
        }
    }

    /// The longest that a poll waits: a worker that only polls sends a request before it expires, even if one poll is lost.
    pub(super) fn longest_poll(&self) -> Duration {
        let config = &self.0.config;
        config.workers.poll_wait.min(config.workers.expiry / 3)
    }

    pub(super) fn next_task(
        &self,
        state: &mut State,
        credentials: &Credentials,
        busy: &[TaskMessage],
    ) -> Option<TaskMessage> {
        let worker = credentials.worker;
        state.note_busy(worker, jobs_of(busy));
        // It waits as if there were nothing to do, and does not register again and again.
        if state.working(credentials, self.now()).is_err() {
            return None;
        }
        for job in state.turns.order() {
            let request = state.next_request();
            let busy = busy
                .iter()
                // A machine knows one job: a task of another one can have the same round, client and version.
                .filter(|message| message.job == job)
                .map(task_of)
                .collect();
            let event = Event::TaskRequested {
                request,
                worker,
                busy,
            };
            if let Some(round::Response::Task(task)) = self.drive(state, job, event) {
                state.hand_out(worker, job);
                // Under the lock under which the task was issued: both are of the same partition.
                let generation = state.job(job).map_or(0, |job| job.generation);
                let basis = basis_of_personal(state, job, task.client);
                let mut message = self.message_of(job, generation, task);
                if let TaskWork::Evaluate { basis: of, .. } = &mut message.work {
                    *of = basis;
                }
                message.running = state.turns.jobs().collect();
                message.kept = state.kept_states();
                return Some(message);
            }
        }
        None
    }

    pub(super) fn message_of(&self, job: JobId, generation: u64, task: Task) -> TaskMessage {
        let work = match task.kind {
            TaskKind::Train {
                training,
                deadline,
                basis,
                sends,
                expects,
                objective,
            } => TaskWork::Train {
                training,
                // A span and not a moment: the worker's clock may be wrong.
                remaining_ms: deadline.since(self.now()).as_millis() as u64,
                generation,
                basis,
                sends,
                expects,
                objective,
            },
            TaskKind::Evaluate {
                share,
                shares,
                split,
            } => TaskWork::Evaluate {
                share,
                shares,
                split,
                basis: None,
            },
        };
        TaskMessage {
            job,
            round: task.round,
            client: task.client,
            version: task.version,
            work,
            running: Vec::new(),
            kept: Vec::new(),
        }
    }
}

/// The job of each task.
fn jobs_of(busy: &[TaskMessage]) -> Vec<JobId> {
    busy.iter().map(|message| message.job).collect()
}

/// Whether the task's job runs, and still needs it of this worker.
fn is_wanted(state: &State, worker: WorkerId, message: &TaskMessage) -> bool {
    if !state.turns.contains(message.job) {
        return false;
    }
    let job = state.jobs.get(&message.job);
    let machine = job.and_then(|job| job.machine.as_ref());
    machine.is_some_and(|machine| machine.wants(worker, &task_of(message)))
}

/// The last round that folded a client of a job with personal tensors: evaluations use those that its report led to.
fn basis_of_personal(state: &State, job: JobId, client: ClientId) -> Option<RoundId> {
    let job = state.job(job).ok()?;
    let machine = job.machine.as_ref()?;
    machine.basis(client).filter(|_| job.spec.has_personal())
}

fn task_of(message: &TaskMessage) -> Task {
    // The machine compares what `Task::is_same_work` does: the rest need not be filled in.
    let kind = match &message.work {
        TaskWork::Train { training, .. } => TaskKind::Train {
            training: training.clone(),
            deadline: Default::default(),
            basis: None,
            sends: Vec::new(),
            expects: Vec::new(),
            objective: Default::default(),
        },
        TaskWork::Evaluate {
            share,
            shares,
            split,
            ..
        } => TaskKind::Evaluate {
            share: *share,
            shares: *shares,
            split: *split,
        },
    };
    Task {
        client: message.client,
        round: message.round,
        version: message.version,
        kind,
    }
}

/// How long a poll waits that may wait so long: up to 1/256 less, so that the polls of many workers end in bunches.
/// To wake a thread for each of them alone is most of what an idle worker costs.
fn bunched(now: Timestamp, wait: Duration) -> Duration {
    let bunch = (wait / 256).as_millis() as u64;
    // Below 256 ms a bunch has no length: such a poll waits as long as it asks.
    let early = (now + wait).0.checked_rem(bunch).unwrap_or(0);
    wait - Duration::from_millis(early)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_of_the_same_wait_end_in_bunches_and_never_late() {
        let wait = Duration::from_secs(30);
        let mut ends = std::collections::BTreeSet::new();
        for start in 1_000_000..1_010_000 {
            let start = Timestamp(start);
            let waited = bunched(start, wait);
            assert!(waited <= wait && wait - waited <= wait / 256, "{waited:?}");
            ends.insert(start + waited);
        }
        // Ten seconds in bunches of 117 ms.
        assert!(ends.len() <= 87, "{}", ends.len());
    }

    #[test]
    fn short_polls_wait_as_long_as_they_ask() {
        for wait in [0, 1, 100, 255] {
            let wait = Duration::from_millis(wait);
            assert_eq!(bunched(Timestamp(12_345), wait), wait);
        }
    }
}
