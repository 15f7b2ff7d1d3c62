//! Workers come and go, and ask for tasks.

use std::collections::{BTreeSet, HashSet};

use super::{Phase, RoundMachine};
use crate::{
    ids::{ClientId, ModelVersion, RoundId, Timestamp, WorkerId},
    report::{Refusal, RefusalKind},
    round::{Command, JobEvent, Task, TaskKind, leases::Move},
    settings::EvalSplit,
};

/// Why a client of `local` data drops out.
const DATA_GONE: &str = "the worker that has its data is gone";
/// Why a pinned client drops out.
const HOME_GONE: &str = "the worker that it is pinned to is gone";

impl RoundMachine {
    /// Whether the result of this task would still be taken from this worker. A worker drops tasks for which it
    /// would not.
    pub fn wants(&self, worker: WorkerId, task: &Task) -> bool {
        // The lease decides first: of two workers with the same task, one alone may report.
        if self.leases.holder(task.client) != Some(worker) {
            return false;
        }
        match task.kind {
            TaskKind::Train { .. } => self.current.as_ref().is_some_and(|current| {
                current.round == task.round
                    && !current.closed
                    && current.is_outstanding(task.client)
            }),
            TaskKind::Evaluate { split, .. } => self.evaluating.as_ref().is_some_and(|pending| {
                (pending.version, pending.split) == (task.version, split)
                    && pending.is_open(task.client)
            }),
        }
    }

    /// The worker that holds a client's lease.
    pub fn lease(&self, client: ClientId) -> Option<WorkerId> {
        self.leases.holder(client)
    }

    /// Whether there are clients that this worker alone, live or gone, can act for.
    pub fn is_home(&self, worker: WorkerId) -> bool {
        self.leases.is_home(worker)
    }

    /// The last round whose commit folded this client.
    pub fn basis(&self, client: ClientId) -> Option<RoundId> {
        self.basis.get(&client).copied()
    }

    /// How many clients a worker acts for.
    pub fn clients_of(&self, worker: WorkerId) -> usize {
        self.leases.count(worker)
    }

    pub(super) fn worker_joined(
        &mut self,
        worker: WorkerId,
        slots: u32,
        replaces: Option<WorkerId>,
        now: Timestamp,
    ) {
        if self.outcome().is_some() {
            return;
        }
        let moves = self.leases.join(worker, slots, replaces);
        self.apply(moves);
        match self.phase {
            Phase::Waiting { .. } if self.has_workers() => self.prepare(),
            // It may still be too few: then gathering goes on with the deadline that it had.
            Phase::Gathering { .. } => self.begin_round(now),
            _ => {}
        }
    }

    /// Whether there are enough workers to begin with.
    pub(super) fn has_workers(&self) -> bool {
        self.leases.workers().len() >= self.config.limits.min_workers as usize
    }

    /// Has the driver fix the clients.
    pub(super) fn prepare(&mut self) {
        self.phase = Phase::Preparing;
        // A worker that joins while the data is dealt is not in this list. It gets clients with all others when
        // `prepared` hands out the leases.
        let workers = self.leases.workers().collect();
        self.commands.push_back(Command::Prepare { workers });
    }

    /// Takes the new size of a worker's own data for its clients.
    pub(super) fn data_resized(&mut self, worker: WorkerId, examples: u64) {
        // A client without examples has no weight, and one with the weight 0 would make a mean of nothing.
        let examples = examples.max(1);
        for client in self.leases.at_home(worker) {
            let Some(spec) = self.clients.get_mut(client.0 as usize) else {
                continue;
            };
            // Workers repeat their sizes at each registration. What has not changed is no news for the log.
            if spec.examples == examples {
                continue;
            }
            spec.examples = examples;
            if let Some(current) = &mut self.current {
                current.resize(client, examples);
            }
            self.log(JobEvent::DataResized { client, examples });
        }
    }

    pub(super) fn worker_lost(&mut self, worker: WorkerId) {
        // A worker can be lost twice: by its expiry, and by the next registration under its name.
        if self.outcome().is_none() && self.leases.is_live(worker) {
            let moves = self.leases.lose(worker);
            self.apply(moves);
        }
    }

    /// Carries lease changes into the round that is open: tasks go out again, and a client whose data went with its
    /// worker drops out.
    pub(super) fn apply(&mut self, moves: Vec<Move>) {
        let mut receivers = BTreeSet::new();
        for Move { client, from, to } in moves {
            self.log(JobEvent::Leased { client, from, to });
            let is_at_home = self.client(client).is_ok_and(|spec| spec.home.is_some());
            if let Some(current) = self.current.as_mut().filter(|current| !current.closed) {
                // Before `drop_out`, whose failure then names no worker: the client has none.
                current.release(client, to);
            }
            if let Some(pending) = &mut self.evaluating {
                pending.place(client, to);
            }
            // No other worker has its data or its personal tensors, so it is useless to wait for the deadline.
            if is_at_home && to.is_none() {
                self.drop_out(client);
            }
            // To wake a worker costs one poll. A worker that gets a lease and no task with it is not woken. A set, so
            // that one that gets many clients is woken once.
            receivers.extend(to.filter(|_| self.has_task(client)));
        }
        self.wake(receivers);
    }

    /// Whether a worker that acts for this client would get a task of it.
    fn has_task(&self, client: ClientId) -> bool {
        let trains = self
            .current
            .as_ref()
            .is_some_and(|current| !current.closed && current.is_pending(client));
        trains
            || self
                .evaluating
                .as_ref()
                .is_some_and(|pending| pending.is_open(client))
    }

    /// Expects nothing more of a client whose data, or whose home, is gone.
    pub(super) fn drop_out(&mut self, client: ClientId) {
        let reason = if self.config.pinned {
            HOME_GONE
        } else {
            DATA_GONE
        };
        if let Some(pending) = &mut self.evaluating {
            pending.take(client, Err(reason.to_string()));
        }
        let refusal = Refusal::new(RefusalKind::Late, reason);
        let open = self.current.as_mut().filter(|current| !current.closed);
        if open.is_some_and(|current| current.fail(client, refusal)) {
            self.log_failed(self.round, client, None, reason.to_string());
        }
    }

    pub(super) fn log_failed(
        &mut self,
        round: RoundId,
        client: ClientId,
        worker: Option<WorkerId>,
        reason: String,
    ) {
        self.log(JobEvent::ClientFailed {
            round,
            client,
            worker,
            reason,
        });
    }

    /// A task for this worker that it does not have: evaluation first, since the job's record waits for it.
    pub(super) fn next_task(&mut self, worker: WorkerId, busy: &[Task]) -> Option<Task> {
        // A set: each of the worker's clients is looked up in it, and a worker with many slots has many of both. What
        // the worker says counts, not what was issued to it: an answer that was lost on its way is then given again.
        let busy: HashSet<_> = busy.iter().map(work).collect();
        if let Some(task) = self.evaluation_task(worker, &busy) {
            return Some(task);
        }
        let current = self.current.as_mut().filter(|current| !current.closed)?;
        let (round, version) = (current.round, current.version);
        let client = current
            .ready(worker)
            .find(|client| !busy.contains(&(None, *client, round, version)))?;
        let task = Task {
            client,
            round,
            version,
            kind: TaskKind::Train {
                training: current.plan.training_of(client).clone(),
                deadline: current.deadline,
                basis: self.basis.get(&client).copied(),
                sends: current.plan.sends.clone(),
                expects: current.plan.expects.clone(),
                objective: current.plan.objective.clone(),
            },
        };
        // A task that is given again to the same worker is not news, and the log would grow with each lost answer.
        if current.issue(task.client, worker) {
            self.log(JobEvent::TaskIssued {
                round: task.round,
                client: task.client,
                worker,
            });
        }
        Some(task)
    }

    fn evaluation_task(&self, worker: WorkerId, busy: &HashSet<Work>) -> Option<Task> {
        let pending = self.evaluating.as_ref()?;
        for (client, (share, shares)) in pending.ready(worker) {
            let task = Task {
                client,
                round: pending.round,
                version: pending.version,
                kind: TaskKind::Evaluate {
                    share,
                    shares,
                    split: pending.split,
                },
            };
            if !busy.contains(&work(&task)) {
                return Some(task);
            }
        }
        None
    }
}

/// A piece of work, as [`Task::is_same_work`] compares it.
type Work = (Option<EvalSplit>, ClientId, RoundId, ModelVersion);

fn work(task: &Task) -> Work {
    (task.kind.split(), task.client, task.round, task.version)
}
