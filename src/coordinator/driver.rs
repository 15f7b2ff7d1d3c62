//! Carries out the round machine's commands.
//!
//! Everything here is called with the lock held and returns at once. Work that takes longer goes to a blocking thread
//! ([`super::work`]), and [`Coordinator::complete`] brings its end back as an event.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use super::{
    capacity::Host,
    deal::Deal,
    facts::{PARTITIONS, VERSION},
    handle::Coordinator,
    job::Job,
    prepare::local_examples,
    state::State,
    step::{Step, record_of},
};
use crate::{
    ids::{JobId, RoundId, Timestamp, WorkerId},
    report::{Refusal, RefusalKind},
    round::{Command, Event, JobEvent, MachineConfig, Response, RoundMachine},
    store::journal::{Batch, Fact, Stream},
    strategy::RoundPlan,
};

impl Coordinator {
    /// Hands an event to a job's machine, carries out what follows, and gives the answer to `event`'s request.
    pub(super) fn drive(&self, state: &mut State, job: JobId, event: Event) -> Option<Response> {
        // Work that was told to stop ends with an error. Taken as an event, it would abandon the round and begin the
        // next one.
        if self.0.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let response = self.take_events(state, job, event);
        self.rearm(state);
        response
    }

    /// Brings the end of long work back.
    pub(super) fn complete(&self, job: JobId, event: Event) {
        self.drive(&mut self.state(), job, event);
    }

    /// The time keeper was late by this much. If that is longer than any busy machine takes, the process was stopped or the
    /// machine slept: nobody listened to the workers, so their silence is no sign.
    pub(super) fn note_late(&self, late: Duration) {
        const AWAY: Duration = Duration::from_secs(1);
        if late < AWAY {
            return;
        }
        let seconds = late.as_secs_f64();
        tracing::warn!(
            seconds,
            "this process was stopped for a time: workers that were silent then are not lost"
        );
        self.state().roster.excuse(late, self.now());
    }

    /// Sends what is due at this moment, and says when the next is.
    pub(super) fn tick(&self) -> Option<Timestamp> {
        let now = self.now();
        let mut state = self.state();
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
            let mut machine = RoundMachine::new(machine_config(job), now);
            // Before it begins: its first log entry says what it waits for, and who can't help.
            machine.note_bystanders(bystanders);
            machine.begin(&workers, now);
            job.machine = Some(machine);
            state.turns.start(id, job.spec.priority);
            self.begin(state, id);
        }
        self.rearm(state);
    }

    /// Writes a job's new machine down, and carries out its first commands.
    fn begin(&self, state: &mut State, id: JobId) {
        let mut step = Step::default();
        let commands = drained(state, id);
        for command in commands {
            self.carry_out(state, id, command, &mut step);
        }
        self.write_step(state, id, &mut step, true);
        self.go_on(state, id, step);
    }

    /// Takes a job out of the queue without running it, so that it can be cancelled.
    pub(super) fn give_machine(&self, state: &mut State, id: JobId) -> Result<(), Refusal> {
        let job = state.job_mut(id)?;
        if job.machine.is_none() {
            job.machine = Some(RoundMachine::new(machine_config(job), self.now()));
            state.queue.retain(|queued| *queued != id);
            self.begin(state, id);
        }
        Ok(())
    }

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
        let registration = &record.info.registration;
        let (slots, replaces) = (registration.slots, record.info.replaces);
        let examples = local_examples(&job.spec, registration, &self.0.config);
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
            if !job.has_its_data(registration) {
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

    /// Hands the machine an event, and then what follows from carrying out its commands, until nothing follows any more.
    fn take_events(&self, state: &mut State, id: JobId, event: Event) -> Option<Response> {
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
        if changed && !is_over {
            self.write_step(state, id, step, false);
        }
        step.batch = Batch::default();
        self.run_effects(state, step);
        Some(())
    }

    /// Removes the versions that nobody needs any more.
    fn prune(&self, state: &mut State, id: JobId) {
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

    fn carry_out(&self, state: &mut State, id: JobId, command: Command, step: &mut Step) {
        let now = self.now();
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
            return self.spawn_prepare(job, Host::eligible(state, job));
        }
        if let Command::Deal { round } = command {
            match Deal::of(state, id) {
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
                    let aggregation = Err(reason);
                    step.events
                        .push_back(Event::Aggregated { round, aggregation });
                }
            }
            Command::Publish { round, version } => {
                if let Err(reason) = self.spawn_publish(job, round, version) {
                    let published = Err(reason);
                    step.events
                        .push_back(Event::Published { version, published });
                }
            }
            Command::Evaluate { version } => {
                if let Err(reason) = self.spawn_evaluate(job, version) {
                    let evaluation = Err(reason);
                    step.events.push_back(Event::Evaluated {
                        version,
                        evaluation,
                    });
                }
            }
            Command::EndUpload { upload } => {
                // `notify_one` leaves a permit: the upload may not be waiting yet.
                if let Some(end) = job.uploads.get(&upload) {
                    end.notify_one();
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

    /// Lets the time keeper know if a deadline has come nearer.
    pub(super) fn rearm(&self, state: &mut State) {
        let next = next_deadline(state);
        if next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed)) {
            state.armed = next;
            self.0.rearm.notify_one();
        }
    }

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
fn bystanders(state: &State, job: &Job) -> String {
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
            evaluation: Some(evaluation),
            ..
        } => tracing::info!(
            %job,
            %version,
            loss = evaluation.loss,
            accuracy = evaluation.accuracy,
            "version evaluated"
        ),
        other => tracing::debug!(%job, event = ?other),
    }
}
