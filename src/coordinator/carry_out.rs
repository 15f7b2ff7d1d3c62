//! What becomes of each command of the round machine.

use std::sync::atomic::Ordering;

use super::{
    capacity::Host, deal::Deal, facts::PARTITIONS, handle::Coordinator, state::State, step::Step,
};
use crate::{
    ids::JobId,
    round::{Command, Event, JobEvent},
    store::journal::Fact,
};

impl Coordinator {
    pub(super) fn carry_out(
        &self,
        state: &mut State,
        id: JobId,
        command: Command,
        step: &mut Step,
    ) {
        let now = self.now();
        let spread = self.0.config.claims.speed_spread;
        if let Command::Wake { worker } = command {
            if let Some(record) = state.roster.find(worker) {
                state.woken.push(record.info.wake.clone());
            }
            return;
        }
        if let Command::Prepare { .. } = command {
            let Some(job) = state.jobs.get(&id) else {
                return;
            };
            return self.spawn_prepare(job, Host::eligible(state, job, spread));
        }
        if let Command::Deal { round } = command {
            match Deal::of(state, id, spread) {
                Some(deal) => return self.spawn_deal(id, round, deal),
                None => {
                    let examples = None;
                    return step.events.push_back(Event::Dealt { round, examples });
                }
            }
        }
        let Some(job) = state.jobs.get_mut(&id) else {
            return;
        };
        match command {
            Command::Respond { response, .. } => step.answer = Some(response),
            Command::Plan {
                round,
                version,
                clients,
            } => {
                if let Err(reason) = self.spawn_plan(job, round, version, clients) {
                    let plan = Err(reason);
                    step.events.push_back(Event::Planned { round, plan });
                }
            }
            Command::Aggregate {
                round,
                base,
                accepted,
            } => {
                if let Err(reason) = self.spawn_aggregate(job, round, base, accepted) {
                    step.events.push_back(Event::Aggregated {
                        round,
                        aggregation: Err(reason),
                        joules: 0.0,
                    });
                }
            }
            Command::Publish { round, version } => {
                if let Err(reason) = self.spawn_publish(job, round, version) {
                    let published = Err(reason);
                    step.events
                        .push_back(Event::Published { version, published });
                }
            }
            Command::Evaluate { version, split } => {
                if let Err(reason) = self.spawn_evaluate(job, version, split) {
                    let evaluation = Err(reason);
                    step.events.push_back(Event::Evaluated {
                        version,
                        split,
                        evaluation,
                    });
                }
            }
            Command::EndUpload { upload } => {
                if let Some(upload) = job.uploads.get(&upload) {
                    upload.end();
                }
            }
            Command::Discard { round } => {
                // To drop an unfinished version removes its files, which may wait for the disk.
                let next = job.next.take();
                self.later(move || drop(next));
                // The reports are needed until the round's end is durable: without it, the round goes on after a crash.
                let coordinator = self.clone();
                step.effects.push(Box::new(move || {
                    let spool = coordinator.0.spool.clone();
                    coordinator.later(move || spool.discard(id, round));
                }));
            }
            Command::Log(event) => {
                log_event(id, &event);
                if let JobEvent::ReportAccepted { client, worker, .. } = event
                    && let Some(record) = state.roster.find(worker)
                {
                    // Taken now: the worker may be forgotten before the round is folded.
                    let registration = record.info.registration.clone();
                    job.senders.insert(client, (worker, registration));
                }
                job.record(event, now);
            }
            Command::End(outcome) => {
                tracing::info!(job = %id, ?outcome, "job ended");
                job.over.store(true, Ordering::Relaxed);
                // What an embedder wrote, and what is long, is dropped outside of the lock.
                let partitions = std::mem::take(&mut job.partitions);
                let unwanted = (job.next.take(), job.evaluator.take(), partitions);
                step.batch.facts.push(Fact {
                    name: PARTITIONS.to_string(),
                    body: None,
                });
                self.later(move || drop(unwanted));
                job.end(now);
            }
            Command::Wake { .. } | Command::Prepare { .. } | Command::Deal { .. } => {}
        }
    }
}

/// A line for each round and each measurement; all else is for debugging.
fn log_event(job: JobId, event: &JobEvent) {
    match event {
        JobEvent::RoundCommitted {
            round,
            version,
            folded,
            train_loss,
            ..
        } => {
            tracing::info!(%job, %round, %version, clients = folded.len(), train_loss, "round committed")
        }
        JobEvent::RoundAbandoned { round, reason, .. } => {
            tracing::warn!(%job, %round, reason, "round abandoned");
        }
        JobEvent::Evaluated {
            version,
            split,
            evaluation: Some(evaluation),
            ..
        } => tracing::info!(
            %job,
            %version,
            %split,
            loss = evaluation.loss,
            accuracy = evaluation.accuracy,
            "version evaluated"
        ),
        JobEvent::Diverges { reason } => tracing::warn!(%job, reason, "training diverges"),
        other => tracing::debug!(%job, event = ?other),
    }
}
