//! Hands events to the round machines, has their commands carried out, and has all of it written down.
//!
//! Everything here is called with the lock held and returns at once. Work that takes longer goes to a blocking thread
//! ([`super::work`]), and [`Coordinator::complete`] brings its end back as an event.

use std::sync::atomic::Ordering;

use super::{
    handle::Coordinator,
    state::State,
    step::{Step, record_of},
};
use crate::{
    ids::JobId,
    report::{Refusal, RefusalKind},
    round::{Command, Event, Response},
    store::journal::Batch,
};

impl Coordinator {
    /// Hands an event to a job's machine, carries out what follows, and gives the answer to `event`'s request.
    pub(super) fn drive(&self, state: &mut State, job: JobId, event: Event) -> Option<Response> {
        // Work that was told to stop ends with an error. Taken as an event, it would abandon the round and begin the
        // next one.
        if self.0.stopped.load(Ordering::Relaxed) {
            return None;
        }
        // First: whatever woke the process may be quicker than the time keeper, and finds deadlines that have passed.
        self.excuse_absence(state);
        let response = self.take_events(state, job, event);
        self.rearm(state);
        response
    }

    /// Brings the end of long work back.
    pub(super) fn complete(&self, job: JobId, event: Event) {
        self.drive(&mut self.state(), job, event);
    }

    /// Writes a job's new machine down, and carries out its first commands.
    pub(super) fn begin(&self, state: &mut State, id: JobId) {
        let mut step = Step::default();
        let commands = drained(state, id);
        for command in commands {
            self.carry_out(state, id, command, &mut step);
        }
        self.write_step(state, id, &mut step, true);
        self.go_on(state, id, step);
    }

    /// Hands the machine an event, and then what follows from carrying out its commands, until nothing follows any more.
    pub(super) fn take_events(
        &self,
        state: &mut State,
        id: JobId,
        event: Event,
    ) -> Option<Response> {
        let mut step = Step::default();
        step.events.push_back(event);
        self.go_on(state, id, step)
    }

    fn go_on(&self, state: &mut State, id: JobId, mut step: Step) -> Option<Response> {
        while let Some(event) = step.events.pop_front() {
            self.take_event(state, id, event, &mut step)?;
        }
        self.prune(state, id);
        self.wake(state);
        if state.jobs.get(&id).is_some_and(|job| job.ended.is_some()) {
            self.forget_oldest_jobs(state);
            // A job that was cancelled in the queue ends, too, and has never run.
            if state.turns.end(id) {
                self.start_next(state);
            }
        }
        step.answer
    }

    /// The machine takes one event, its commands are carried out, and all of it goes into the journal as one batch.
    fn take_event(
        &self,
        state: &mut State,
        id: JobId,
        event: Event,
        step: &mut Step,
    ) -> Option<()> {
        let now = self.now();
        let job = state.jobs.get_mut(&id)?;
        // After its end a job only answers, and the answers are the same without a record of them.
        let is_over = job.ended.is_some();
        if self.0.journal.is_some() && !is_over {
            step.batch = job.facts_with(&event);
            step.batch.records.push(record_of(now, &event));
        }
        // Most polls change nothing, which only the commands tell.
        let poll = matches!(event, Event::TaskRequested { .. }).then(|| event.clone());
        job.machine.as_mut()?.handle(event, now);
        let commands = drained(state, id);
        let changed = poll.is_none_or(|poll| !poll.changed_nothing(&commands));
        // The machine wants all of them carried out before it gets the next event.
        for command in commands {
            self.carry_out(state, id, command, step);
        }
        if let Some(job) = state.jobs.get_mut(&id) {
            job.close_records();
        }
        if changed && !is_over {
            self.write_step(state, id, step, false);
        }
        step.batch = Batch::default();
        self.run_effects(state, step);
        Some(())
    }

    /// Lets the polls go on that were woken, a few here and many outside of the lock that each of them takes next.
    fn wake(&self, state: &mut State) {
        const FEW: usize = 32;
        let woken = std::mem::take(&mut state.woken);
        if woken.len() <= FEW {
            return woken.iter().for_each(|wake| wake.notify_one());
        }
        self.0.runtime.spawn(async move {
            for few in woken.chunks(FEW) {
                few.iter().for_each(|wake| wake.notify_one());
                tokio::task::yield_now().await;
            }
        });
    }

    /// Lets a blocking thread do what may wait for a disk, outside of the lock.
    pub(super) fn later(&self, work: impl FnOnce() + Send + 'static) {
        self.0.computing.spawn(&self.0.runtime, work);
    }
}

/// The machine's commands.
fn drained(state: &mut State, id: JobId) -> Vec<Command> {
    let mut commands = Vec::new();
    let machine = state.jobs.get_mut(&id).and_then(|job| job.machine.as_mut());
    if let Some(machine) = machine {
        while let Some(command) = machine.poll_command() {
            commands.push(command);
        }
    }
    commands
}

/// The machine's "no".
pub(super) fn refusal_of(answer: Option<Response>) -> Refusal {
    match answer {
        Some(Response::Refused(refusal)) => refusal,
        // No answer: the job waits in the queue and has no machine, or the coordinator stops.
        _ => Refusal::new(RefusalKind::Conflict, "the job has not started"),
    }
}
