//! Which workers a job hears of: those that have its data and are able to do what its plan needs.

use std::collections::BTreeMap;

use super::{handle::Coordinator, job::Job, prepare::local_examples, state::State};
use crate::{
    ids::{JobId, WorkerId},
    round::{Event, JobEvent, RoundMachine, WorkerState},
    strategy::RoundPlan,
};

impl Coordinator {
    /// A worker is there, for the first time or again.
    pub(super) fn worker_joined(&self, state: &mut State, worker: WorkerId) {
        for job in state.turns.order() {
            self.offer(state, job, worker);
        }
    }

    /// Offers a worker to a job that runs.
    pub(super) fn offer(&self, state: &mut State, id: JobId, worker: WorkerId) {
        let (Some(job), Some(record)) = (state.jobs.get(&id), state.roster.find(worker)) else {
            return;
        };
        if !record.info.access.is_admitted() {
            return;
        }
        // A worker without the data has no part in the job. One that has it and gets no tasks is told of in the log.
        if !job.has_its_data(&record.info.registration) {
            return;
        }
        match job.needs.lacks(&record.info.registration) {
            Some(lacks) => self.pass_over(state, id, worker, lacks),
            None => self.join(state, id, worker),
        }
    }

    /// Tells the machine of a worker that can train the job; first of its data's size, if it comes in another one's place, so
    /// that a round that begins with it counts what it has now.
    fn join(&self, state: &mut State, id: JobId, worker: WorkerId) {
        let (Some(job), Some(record)) = (state.jobs.get(&id), state.roster.find(worker)) else {
            return;
        };
        let registration = record.info.registration.clone();
        let pinned_to = former_home(state, job, worker, &registration.name);
        let (slots, replaces) = (registration.slots, record.info.replaces.or(pinned_to));
        let examples = local_examples(&job.spec, &registration, &self.0.config);
        if let Some(former) = pinned_to {
            self.note_return(state, id, worker, former, &registration.name);
        }
        if let (Some(former), Some(examples)) = (replaces, examples) {
            let worker = former;
            self.drive(state, id, Event::DataResized { worker, examples });
        }
        let joined = Event::WorkerJoined {
            worker,
            slots,
            replaces,
        };
        self.drive(state, id, joined);
    }

    /// Notes that pinned clients go from a worker to a new one of the same name, and says so if it was lost. A live one keeps its
    /// clients until it is lost.
    fn note_return(
        &self,
        state: &mut State,
        id: JobId,
        worker: WorkerId,
        replaces: WorkerId,
        name: &str,
    ) {
        let (now, is_gone) = (self.now(), !is_live(state, replaces));
        let Some(job) = state.jobs.get_mut(&id) else {
            return;
        };
        job.pinned.insert(worker, name.to_string());
        if is_gone {
            tracing::warn!(job = %id, %worker, lost = %replaces, name, "a worker takes the pinned clients of a lost one of its name");
            let event = JobEvent::WorkerReturned {
                worker,
                replaces,
                name: name.to_string(),
            };
            job.record(event, now);
            self.append_history(state, id);
        }
    }

    /// Says that a worker gets no tasks of a job.
    fn pass_over(&self, state: &mut State, id: JobId, worker: WorkerId, lacks: String) {
        let now = self.now();
        if let Some(job) = state.jobs.get_mut(&id) {
            tracing::warn!(job = %id, %worker, lacks, "a worker gets no tasks of this job");
            job.record(JobEvent::WorkerPassedOver { worker, lacks }, now);
        }
        self.append_history(state, id);
    }

    /// Takes up the plan of the round that begins. Workers that lack what it needs give their clients to those that do not.
    pub(super) fn adopt(&self, state: &mut State, id: JobId, plan: &RoundPlan) {
        let Some(job) = state.jobs.get_mut(&id) else {
            return;
        };
        let before = job.take_up(plan);
        // Most strategies plan alike each round: then no worker need be looked at.
        if before == job.needs {
            return;
        }
        let (mut able, mut unable) = (Vec::new(), Vec::new());
        for (worker, record) in state.roster.live() {
            let registration = &record.info.registration;
            if !job.has_its_data(registration) || !record.info.access.is_admitted() {
                continue;
            }
            let was_able = before.lacks(registration).is_none();
            match job.needs.lacks(registration) {
                None if !was_able => able.push(worker),
                Some(lacks) if was_able => unable.push((worker, lacks)),
                _ => {}
            }
        }
        // Those that can come first, so that the clients of the others have somewhere to go at once.
        for worker in able {
            self.join(state, id, worker);
        }
        for (worker, lacks) in unable {
            self.pass_over(state, id, worker, lacks);
            self.drive(state, id, Event::WorkerLost { worker });
        }
    }

    /// A worker left, or has been silent for too long.
    pub(super) fn worker_lost(&self, state: &mut State, worker: WorkerId) {
        for job in state.turns.order() {
            self.drive(state, job, Event::WorkerLost { worker });
        }
    }
}

/// The worker whose pinned clients this one takes over: one of the same name that has some, if this one has none. One that is gone
/// comes first.
fn former_home(state: &State, job: &Job, worker: WorkerId, name: &str) -> Option<WorkerId> {
    let machine = job.machine.as_ref()?;
    if machine.is_home(worker) {
        return None;
    }
    let mut found = None;
    for (former, of) in &job.pinned {
        if *former == worker || of != name || !machine.is_home(*former) {
            continue;
        }
        if !is_live(state, *former) {
            return Some(*former);
        }
        found.get_or_insert(*former);
    }
    found
}

fn is_live(state: &State, worker: WorkerId) -> bool {
    let found = state.roster.find(worker);
    found.is_some_and(|record| record.state == WorkerState::Live)
}

/// Brings what the job says of the workers that can't train it up to date, if it waits for workers.
pub(super) fn note_bystanders(state: &mut State, id: JobId) {
    let Some(job) = state.jobs.get(&id) else {
        return;
    };
    if !job
        .machine
        .as_ref()
        .is_some_and(RoundMachine::is_short_of_workers)
    {
        return;
    }
    let text = bystanders(state, job);
    if let Some(machine) = state.jobs.get_mut(&id).and_then(|job| job.machine.as_mut()) {
        machine.note_bystanders(text);
    }
}

/// The live workers that can't train a job, with what each of them lacks, in words; empty if there are none.
pub(super) fn bystanders(state: &State, job: &Job) -> String {
    /// How many different reasons are told.
    const TOLD: usize = 3;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = 0;
    for (_, record) in state.roster.live() {
        if let Some(lacks) = job.lacks(&record.info.registration) {
            *reasons.entry(lacks).or_default() += 1;
            count += 1;
        }
    }
    let mut told = Vec::new();
    for (lacks, workers) in reasons.iter().take(TOLD) {
        told.push(if *workers == count {
            lacks.clone()
        } else {
            format!("{workers} with {lacks}")
        });
    }
    if reasons.len() > TOLD {
        told.push("others with other reasons".to_string());
    }
    match count {
        0 => String::new(),
        1 => format!(
            "; 1 worker is connected that can't train this job: {}",
            told.join(", ")
        ),
        _ => format!(
            "; {count} workers are connected that can't train this job: {}",
            told.join(", ")
        ),
    }
}
