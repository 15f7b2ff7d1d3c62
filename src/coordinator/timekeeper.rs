//! Deadlines: of workers that are silent, and of jobs.

use std::{
    sync::{Weak, atomic::Ordering},
    time::Duration,
};

use super::{
    handle::{Coordinator, Shared},
    offers::note_bystanders,
    state::State,
};
use crate::{
    ids::{JobId, Timestamp},
    round::Event,
};

/// Sends a tick at each deadline, as long as the coordinator lives.
pub(super) async fn keep_time(shared: Weak<Shared>) {
    loop {
        let Some(coordinator) = shared.upgrade().map(Coordinator) else {
            return;
        };
        let next = coordinator.tick();
        if let Some(journal) = &coordinator.0.journal {
            journal.note_time(coordinator.now());
        }
        let wait = next.map_or(Duration::from_secs(1), |next| next.since(coordinator.now()));
        // At most a second: this holds the coordinator while it waits, and one without other holders must be dropped. At
        // least a millisecond: after `stop` no event is taken, so a deadline that is due stays due, and the loop would
        // spin.
        let wait = wait.clamp(Duration::from_millis(1), Duration::from_secs(1));
        let _ = tokio::time::timeout(wait, coordinator.0.rearm.notified()).await;
    }
}

impl Coordinator {
    /// Sends what is due at this moment, and says when the next is.
    pub(super) fn tick(&self) -> Option<Timestamp> {
        let mut state = self.state();
        self.excuse_absence(&mut state);
        let now = self.now();
        // Workers first: if a round ends at the same moment, the next one begins with the leases as they are now.
        let lost = state.expire(now);
        if !lost.is_empty() {
            self.write_workers(&mut state, &lost);
        }
        for worker in lost {
            tracing::warn!(%worker, "worker lost: it has been silent for longer than --worker-expiry");
            self.worker_lost(&mut state, worker);
        }
        for job in state.turns.order() {
            if machine_deadline(&state, job).is_some_and(|deadline| deadline <= now) {
                // The job may fail at this deadline, and its reason names them.
                note_bystanders(&mut state, job);
                self.drive(&mut state, job, Event::Tick);
            }
        }
        if self.0.config.jobs.keep_for.is_some() {
            self.forget_oldest_jobs(&mut state);
        }
        state.armed = next_deadline(&state);
        state.armed
    }

    /// If nothing was done for longer than any busy machine takes, the process was stopped, or its machine: nobody listened to
    /// the workers, so their silence is no sign, and rounds have not had this time.
    pub(super) fn excuse_absence(&self, state: &mut State) {
        let now = self.now();
        let away = state
            .awake
            .replace(now)
            .map_or(Duration::ZERO, |awake| now.since(awake));
        // The time keeper is here once a second. After `stop` no event is taken.
        if away < Duration::from_secs(2) || self.0.stopped.load(Ordering::Relaxed) {
            return;
        }
        tracing::warn!(
            seconds = away.as_secs_f64(),
            "this process was stopped for a time, which counts for no deadline and for no worker's silence"
        );
        state.roster.excuse(away, now);
        let away_ms = away.as_millis() as u64;
        for job in state.turns.order() {
            self.take_events(state, job, Event::WasAway { away_ms });
        }
    }

    /// Lets the time keeper know if a deadline has come nearer.
    pub(super) fn rearm(&self, state: &mut State) {
        let next = next_deadline(state);
        if next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed)) {
            state.armed = next;
            self.0.rearm.notify_one();
        }
    }
}

fn machine_deadline(state: &State, job: JobId) -> Option<Timestamp> {
    state.jobs.get(&job)?.machine.as_ref()?.poll_deadline()
}

fn next_deadline(state: &State) -> Option<Timestamp> {
    let machines = state
        .turns
        .jobs()
        .filter_map(|job| machine_deadline(state, job));
    machines.chain(state.roster.next_expiry()).min()
}
