//! A driver that does everything that can happen, well-behaved or not, in random order. It carries out the machine's
//! commands at its leisure, and shows every event and command to the checker.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{RngExt, SeedableRng, seq::IndexedRandom};

use super::{
    Seen,
    checker::{Asked, Checker, Offered},
};
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    job::{RoundLimits, TrainingSettings},
    report::{Refusal, RefusalKind, ReportMetadata},
    rng::ChaCha8Rng,
    round::{
        ClientSpec, Command, Evaluation, EvaluationBy, Event, MachineConfig, Outcome, Response,
        RoundMachine, Task, TaskKind,
    },
    strategy::{Aggregation, RoundPlan},
};

type Step = Result<(), String>;

/// How a run is inclined.
struct Habits {
    /// Each client's data is a worker's own.
    local: bool,
    clients: u32,
    /// Chance in a hundred that long work fails, that an upload fails, and that a worker sends nonsense.
    faults: u32,
    /// The step at which the operator cancels, if ever.
    cancel_at: Option<u32>,
    /// Whether workers come and go a lot.
    restless: bool,
}

/// Long work that the machine ordered.
#[derive(Debug, Clone)]
enum Flight {
    Prepare(Vec<(WorkerId, u32)>),
    Plan(RoundId, Vec<ClientId>),
    Aggregate(RoundId),
    Publish(ModelVersion),
    Evaluate(ModelVersion),
}

pub struct World {
    machine: RoundMachine,
    checker: Checker,
    rng: ChaCha8Rng,
    habits: Habits,
    limits: RoundLimits,
    now: Timestamp,
    requests: u64,
    workers: u64,
    /// Workers that are gone, and may come back.
    gone: Vec<WorkerId>,
    flights: Vec<Flight>,
    /// Ends of long work that were told already, and are told again.
    stale: Vec<Event>,
    /// Offers that were admitted and have not ended.
    uploads: Vec<(RequestId, Offered)>,
    /// What was offered, to be offered again.
    offered: Vec<Offered>,
    /// The tasks each worker believes it has.
    tasks: BTreeMap<WorkerId, Vec<Task>>,
    tracing: bool,
    pub trace: Vec<String>,
}

impl World {
    pub fn new(seed: u64, tracing: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let min_updates = rng.random_range(1..=3);
        let local = rng.random_ratio(1, 3);
        let limits = RoundLimits {
            round_timeout: rng.random_range(20..=120),
            min_updates,
            goal: None,
            max_attempts: rng.random_range(1..=4),
            min_workers: if local {
                min_updates
            } else {
                rng.random_range(1..=2)
            },
            start_timeout: 60,
            evaluation_timeout: rng.random_range(10..=90),
        };
        let habits = Habits {
            local,
            clients: rng.random_range(min_updates..=8),
            faults: *[0, 3, 12, 40].choose(&mut rng).unwrap(),
            cancel_at: rng.random_ratio(1, 3).then(|| rng.random_range(0..200)),
            restless: rng.random_ratio(1, 2),
        };
        let evaluation = [
            EvaluationBy::Driver,
            EvaluationBy::Workers,
            EvaluationBy::Nobody,
        ];
        let config = MachineConfig {
            rounds: *[1, 2, 3, 14].choose(&mut rng).unwrap(),
            limits: limits.clone(),
            evaluation: *evaluation.choose(&mut rng).unwrap(),
        };
        Self {
            machine: RoundMachine::new(config.clone(), Timestamp(0)),
            checker: Checker::new(config),
            rng,
            habits,
            limits,
            now: Timestamp(0),
            requests: 0,
            workers: 0,
            gone: Vec::new(),
            flights: Vec::new(),
            stale: Vec::new(),
            uploads: Vec::new(),
            offered: Vec::new(),
            tasks: BTreeMap::new(),
            tracing,
            trace: Vec::new(),
        }
    }

    /// Plays so many random events, then drives the job fairly to its end.
    pub fn run(&mut self, events: u32) -> Result<Seen, String> {
        self.drain()?;
        for _ in 0..self.limits.min_workers {
            self.join_new()?;
        }
        for step in 0..events {
            self.now = self.now + Duration::from_millis(self.rng.random_range(0..1500));
            match self.habits.cancel_at == Some(step) {
                true => self.cancel()?,
                false => self.act()?,
            }
        }
        self.finish()?;
        Ok(self.checker.seen.clone())
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn faulty(&mut self) -> bool {
        self.chance(self.habits.faults)
    }

    fn any_live(&mut self) -> Option<WorkerId> {
        let live: Vec<_> = self.checker.live.iter().copied().collect();
        live.choose(&mut self.rng).copied()
    }

    // What can happen.

    fn act(&mut self) -> Step {
        match self.rng.random_range(0..100) {
            0..6 => self.come_or_go(),
            6..30 => self.poll(),
            30..55 => self.work(),
            55..72 => self.end_upload(),
            72..78 => self.offer_again(),
            78..92 => self.land(),
            92..94 => self.tell_stale(),
            94..96 => self.tick(),
            96 => {
                // The driver is late: other events come before the tick.
                self.now = self.now + Duration::from_secs(self.rng.random_range(5..40));
                Ok(())
            }
            _ => self.nonsense(),
        }
    }

    fn come_or_go(&mut self) -> Step {
        let live = self.checker.live.len();
        let leaves = if self.habits.restless { 60 } else { 25 };
        if live > 1 && self.chance(leaves) || live > 5 {
            return match self.any_live() {
                Some(worker) => self.lose(worker),
                None => Ok(()),
            };
        }
        match self.rng.random_range(0..4) {
            0 if !self.gone.is_empty() => {
                let index = self.rng.random_range(0..self.gone.len());
                let worker = self.gone.swap_remove(index);
                self.join(worker, None)
            }
            1 => {
                let former = self.gone.choose(&mut self.rng).copied();
                let former = if self.chance(20) {
                    self.any_live()
                } else {
                    former
                };
                self.workers += 1;
                self.join(WorkerId(self.workers), former)
            }
            2 => match self.any_live() {
                Some(worker) => self.join(worker, None),
                None => Ok(()),
            },
            _ => self.join_new(),
        }
    }

    fn join_new(&mut self) -> Step {
        self.workers += 1;
        self.join(WorkerId(self.workers), None)
    }

    fn join(&mut self, worker: WorkerId, replaces: Option<WorkerId>) -> Step {
        let slots = self.rng.random_range(1..4);
        self.feed(Event::WorkerJoined {
            worker,
            slots,
            replaces,
        })
    }

    fn lose(&mut self, worker: WorkerId) -> Step {
        self.gone.push(worker);
        if self.chance(50) {
            self.tasks.remove(&worker);
        }
        self.feed(Event::WorkerLost { worker })
    }

    fn poll(&mut self) -> Step {
        let worker = match self.chance(95) {
            true => self.any_live(),
            false => Some(WorkerId(self.rng.random_range(0..9))),
        };
        let Some(worker) = worker else {
            return Ok(());
        };
        let busy = match self.chance(85) {
            true => self.tasks.get(&worker).cloned().unwrap_or_default(),
            // The answer to an earlier poll was lost.
            false => Vec::new(),
        };
        self.ask_for_task(worker, busy).map(|_| ())
    }

    fn ask_for_task(&mut self, worker: WorkerId, busy: Vec<Task>) -> Result<Option<Task>, String> {
        let request = self.request(Asked::Task {
            worker,
            busy: busy.clone(),
        });
        let response = self.ask(
            request,
            Event::TaskRequested {
                request,
                worker,
                busy,
            },
        )?;
        let Response::Task(task) = response else {
            return Ok(None);
        };
        if !self.machine.wants(worker, &task) {
            return Err(format!("hands out a task and doesn't want it: {task:?}"));
        }
        let tasks = self.tasks.entry(worker).or_default();
        tasks.retain(|other| !other.is_same_work(&task));
        tasks.push(task.clone());
        Ok(Some(task))
    }

    /// A worker gets on with one of its tasks.
    fn work(&mut self) -> Step {
        let workers: Vec<_> = self.tasks.keys().copied().collect();
        let Some(worker) = workers.choose(&mut self.rng).copied() else {
            return Ok(());
        };
        let tasks = self.tasks.entry(worker).or_default();
        if tasks.is_empty() {
            return Ok(());
        }
        let index = self.rng.random_range(0..tasks.len());
        let task = match self.chance(80) {
            true => self.tasks.entry(worker).or_default().swap_remove(index),
            false => self.tasks[&worker][index].clone(),
        };
        let fails = self.faulty() && self.chance(50);
        match task.kind {
            TaskKind::Evaluate { .. } => self.evaluate(worker, &task, fails).map(|_| ()),
            TaskKind::Train { .. } if fails => self.give_up(worker, task.client, task.round),
            TaskKind::Train { .. } => {
                let offered = self.report(worker, &task);
                self.offer(offered).map(|_| ())
            }
        }
    }

    fn evaluate(&mut self, worker: WorkerId, task: &Task, fails: bool) -> Result<Response, String> {
        let measured = Evaluation {
            loss: 1.0,
            accuracy: 0.5,
            examples: 10,
        };
        let request = self.request(Asked::Other);
        let event = Event::ShareEvaluated {
            request,
            worker,
            client: task.client,
            version: task.version,
            evaluation: if fails {
                Err("out of memory".to_string())
            } else {
                Ok(measured)
            },
        };
        self.ask(request, event)
    }

    fn give_up(&mut self, worker: WorkerId, client: ClientId, round: RoundId) -> Step {
        let request = self.request(Asked::Other);
        let reason = "out of memory".to_string();
        self.feed(Event::TaskFailed {
            request,
            worker,
            client,
            round,
            reason,
        })
    }

    /// The report that a worker makes of a task; sometimes it is wrong.
    fn report(&mut self, worker: WorkerId, task: &Task) -> Offered {
        let mut offered = honest(worker, task);
        if self.faulty() {
            let metadata = &mut offered.metadata;
            match self.rng.random_range(0..7) {
                0 => metadata.examples = 1000,
                1 => metadata.examples = 0,
                2 => metadata.base_version = metadata.base_version.next(),
                3 => {
                    metadata.base_version = ModelVersion(metadata.base_version.0.saturating_sub(1))
                }
                4 => drop(metadata.metrics.insert("train_loss".to_string(), f64::NAN)),
                5 => offered.round = RoundId(self.rng.random_range(0..offered.round.0 + 2)),
                _ => offered.client = ClientId(self.rng.random_range(0..9)),
            }
        }
        offered
    }

    fn offer(&mut self, offered: Offered) -> Result<Response, String> {
        self.offered.push(offered.clone());
        let request = self.request(Asked::Offer(offered.clone()));
        let Offered {
            worker,
            client,
            round,
            metadata,
        } = offered.clone();
        let event = Event::ReportOffered {
            request,
            worker,
            client,
            round,
            metadata,
        };
        let response = self.ask(request, event)?;
        if response == Response::Admitted {
            self.uploads.push((request, offered));
        }
        Ok(response)
    }

    fn offer_again(&mut self) -> Step {
        let Some(mut offered) = self.offered.choose(&mut self.rng).cloned() else {
            return Ok(());
        };
        if self.chance(10)
            && let Some(other) = self.any_live()
        {
            offered.worker = other;
        }
        self.offer(offered).map(|_| ())
    }

    fn end_upload(&mut self) -> Step {
        if self.uploads.is_empty() {
            return Ok(());
        }
        let index = self.rng.random_range(0..self.uploads.len());
        let (upload, offered) = self.uploads.swap_remove(index);
        let kinds = [
            RefusalKind::Truncated,
            RefusalKind::Truncated,
            RefusalKind::Busy,
            RefusalKind::Malformed,
            RefusalKind::TooLarge,
        ];
        let stored = match self.faulty() {
            true => Err(Refusal::new(
                *kinds.choose(&mut self.rng).unwrap(),
                "by chance",
            )),
            false => Ok(()),
        };
        self.store(upload, &offered, stored)
    }

    fn store(&mut self, upload: RequestId, offered: &Offered, stored: Result<(), Refusal>) -> Step {
        let is_ok = stored.is_ok();
        let request = self.request(Asked::Stored { upload, is_ok });
        let (client, round) = (offered.client, offered.round);
        self.feed(Event::ReportStored {
            request,
            upload,
            client,
            round,
            stored,
        })
    }

    /// Long work comes to its end, well or badly.
    fn land(&mut self) -> Step {
        if self.flights.is_empty() {
            return Ok(());
        }
        let index = self.rng.random_range(0..self.flights.len());
        let flight = self.flights.swap_remove(index);
        let fails = self.faulty();
        let event = self.end_of(flight, fails);
        if !matches!(event, Event::Prepared(_)) {
            self.stale.push(event.clone());
        }
        self.feed(event)
    }

    fn end_of(&mut self, flight: Flight, fails: bool) -> Event {
        let failure = || "the disk is full".to_string();
        match flight {
            // One in four, or most of the jobs would never begin.
            Flight::Prepare(_) if fails && self.chance(25) => Event::Prepared(Err(failure())),
            Flight::Prepare(workers) => Event::Prepared(Ok(self.clients(&workers))),
            Flight::Plan(round, _) if fails && self.chance(30) => Event::Planned {
                round,
                plan: Err("no plan".to_string()),
            },
            Flight::Plan(round, clients) => {
                let plan = Ok(self.plan(&clients, fails));
                Event::Planned { round, plan }
            }
            Flight::Aggregate(round) => {
                let aggregation = match fails {
                    true => Err(failure()),
                    false => Ok(Aggregation {
                        total_weight: 1.0,
                        train_loss: Some(0.5),
                        metrics: BTreeMap::new(),
                    }),
                };
                Event::Aggregated { round, aggregation }
            }
            Flight::Publish(version) => {
                let published = if fails { Err(failure()) } else { Ok(()) };
                Event::Published { version, published }
            }
            Flight::Evaluate(version) => {
                let measured = Evaluation {
                    loss: 1.0,
                    accuracy: 0.5,
                    examples: 10,
                };
                let evaluation = if fails { Err(failure()) } else { Ok(measured) };
                Event::Evaluated {
                    version,
                    evaluation,
                }
            }
        }
    }

    fn clients(&mut self, workers: &[(WorkerId, u32)]) -> Vec<ClientSpec> {
        let examples = |index: u64| 10 + index;
        match self.habits.local {
            true => workers
                .iter()
                .map(|(worker, _)| ClientSpec {
                    examples: examples(worker.0),
                    home: Some(*worker),
                })
                .collect(),
            false => (0..u64::from(self.habits.clients))
                .map(|index| ClientSpec {
                    examples: examples(index),
                    home: None,
                })
                .collect(),
        }
    }

    fn plan(&mut self, clients: &[ClientId], fails: bool) -> RoundPlan {
        let least = self.limits.min_updates as usize;
        let chosen = self.rng.random_range(least..=clients.len());
        let mut cohort: Vec<_> = clients.sample(&mut self.rng, chosen).copied().collect();
        cohort.sort();
        let goal = self.rng.random_range(least..=cohort.len());
        let quorum = self.rng.random_range(least..=goal);
        let mut plan = RoundPlan {
            cohort,
            goal,
            quorum,
            training: TrainingSettings::default(),
        };
        if fails {
            match self.rng.random_range(0..5) {
                0 => plan.cohort.push(ClientId(99)),
                1 => plan.cohort.push(plan.cohort[0]),
                2 => plan.goal = plan.cohort.len() + 1,
                3 => plan.quorum = least - 1,
                _ => plan.quorum = plan.goal + 1,
            }
        }
        plan
    }

    /// The end of some long work is told a second time.
    fn tell_stale(&mut self) -> Step {
        match self.stale.choose(&mut self.rng).cloned() {
            // Two attempts at one version have the same name; the driver tells the end of each once.
            Some(Event::Published { version, .. }) if version > self.machine.status().version => {
                Ok(())
            }
            Some(event) => self.feed(event),
            None => Ok(()),
        }
    }

    fn tick(&mut self) -> Step {
        match self.machine.poll_deadline() {
            Some(deadline) if self.chance(25) => self.tick_at(deadline),
            _ => self.feed(Event::Tick),
        }
    }

    fn tick_at(&mut self, deadline: Timestamp) -> Step {
        self.now = self.now.max(deadline);
        self.feed(Event::Tick)?;
        match self.machine.poll_deadline() {
            Some(next) if next <= self.now => {
                Err("the deadline is still due after its tick".to_string())
            }
            _ => Ok(()),
        }
    }

    /// What no honest worker sends.
    fn nonsense(&mut self) -> Step {
        let worker = WorkerId(self.rng.random_range(0..9));
        let client = ClientId(self.rng.random_range(0..10));
        let round = RoundId(self.rng.random_range(0..self.machine.status().round.0 + 3));
        match self.rng.random_range(0..4) {
            0 => self.give_up(worker, client, round),
            1 => {
                let version = ModelVersion(self.rng.random_range(0..5));
                let kind = TaskKind::Evaluate {
                    share: 0,
                    shares: 1,
                };
                let task = Task {
                    client,
                    round,
                    version,
                    kind,
                };
                self.evaluate(worker, &task, false).map(|_| ())
            }
            2 => {
                let upload = RequestId(u64::MAX);
                let offered = Offered {
                    worker,
                    client,
                    round,
                    metadata: metadata(ModelVersion(0)),
                };
                self.store(upload, &offered, Ok(()))
            }
            _ => {
                let version = self.machine.status().version;
                let offered = Offered {
                    worker,
                    client,
                    round,
                    metadata: metadata(version),
                };
                self.offer(offered).map(|_| ())
            }
        }
    }

    fn cancel(&mut self) -> Step {
        let request = self.request(Asked::Cancel);
        self.feed(Event::Cancelled { request })
    }

    // Feeding the machine.

    fn request(&mut self, asked: Asked) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.checker.ask(request, asked);
        request
    }

    fn feed(&mut self, event: Event) -> Step {
        self.handle(event)?;
        self.drain().map(|_| ())
    }

    /// Feeds a request and takes its answer.
    fn ask(&mut self, request: RequestId, event: Event) -> Result<Response, String> {
        self.handle(event)?;
        let mut answers = self.drain()?;
        let answer = answers.pop();
        match answer {
            Some((to, response)) if to == request => Ok(response),
            _ => Err(format!("request {request} was not answered")),
        }
    }

    fn handle(&mut self, event: Event) -> Step {
        if self.tracing {
            self.trace.push(format!("{} ms  {event:?}", self.now.0));
        }
        self.checker.event(&event, self.now);
        self.machine.handle(event, self.now);
        Ok(())
    }

    fn drain(&mut self) -> Result<Vec<(RequestId, Response)>, String> {
        let mut answers = Vec::new();
        while let Some(command) = self.machine.poll_command() {
            if self.tracing {
                self.trace.push(format!("    -> {command:?}"));
            }
            self.checker.command(&command)?;
            match command {
                Command::Prepare { workers } => self.flights.push(Flight::Prepare(workers)),
                Command::Plan { round, clients, .. } => {
                    let clients = clients.iter().map(|client| client.id).collect();
                    self.flights.push(Flight::Plan(round, clients));
                }
                Command::Aggregate { round, .. } => self.flights.push(Flight::Aggregate(round)),
                Command::Publish { version, .. } => self.flights.push(Flight::Publish(version)),
                Command::Evaluate { version } => self.flights.push(Flight::Evaluate(version)),
                Command::Respond { request, response } => answers.push((request, response)),
                Command::Wake { .. }
                | Command::Discard { .. }
                | Command::Log(_)
                | Command::End(_) => {}
            }
        }
        self.checker.at_rest(&self.machine)?;
        self.check_wait()?;
        Ok(answers)
    }

    /// No wait without a deadline or a command under way.
    fn check_wait(&self) -> Step {
        let status = self.machine.status();
        let (round, next) = (status.round, status.version.next());
        let is_on_its_way = |flight: &Flight| match (status.phase, flight) {
            ("preparing", Flight::Prepare(_)) | ("finishing", Flight::Evaluate(_)) => true,
            ("planning", Flight::Plan(of, _)) | ("aggregating", Flight::Aggregate(of)) => {
                *of == round
            }
            ("publishing", Flight::Publish(of)) => *of == next,
            _ => false,
        };
        let has_deadline = self.machine.poll_deadline().is_some();
        let waits_for_time = match status.phase {
            "waiting" | "gathering" | "collecting" => has_deadline,
            "finishing" => has_deadline,
            _ => false,
        };
        match self.checker.is_over() || waits_for_time || self.flights.iter().any(is_on_its_way) {
            true => Ok(()),
            false => Err(format!("waits for ever: {status:?}")),
        }
    }

    // A fair driver.

    /// From wherever the run has got to: long work ends well, time passes, and the workers either do what they are
    /// told or are never heard of again. The job must come to its end.
    fn finish(&mut self) -> Step {
        let is_silent = self.chance(30);
        let must_complete = !is_silent && self.is_promising();
        for _ in 0..200 {
            if self.checker.is_over() {
                let outcome = self.machine.outcome();
                return match must_complete && outcome != Some(&Outcome::Completed) {
                    true => Err(format!("with honest workers it ends as {outcome:?}")),
                    false => Ok(()),
                };
            }
            if !self.advance(is_silent)? {
                let deadline = self.machine.poll_deadline().ok_or("nothing to wait for")?;
                self.tick_at(deadline)?;
            }
            self.offer_again()?;
        }
        Err(format!("no end in sight: {:?}", self.machine.status()))
    }

    /// Whether nothing stands between the job and its completion but time and work. The attempt under way may be lost.
    fn is_promising(&self) -> bool {
        let is_waiting = self.machine.status().phase == "waiting";
        let has_workers = !self.checker.live.is_empty() && !is_waiting;
        has_workers
            && !self.habits.local
            && !self.checker.is_over()
            && self.checker.attempts_left() >= 2
    }

    /// Does all there is to do; whether there was anything, or the job is over.
    fn advance(&mut self, is_silent: bool) -> Result<bool, String> {
        let mut is_active = false;
        while let Some(flight) = self.flights.pop() {
            is_active = true;
            let event = self.end_of(flight, false);
            self.feed(event)?;
        }
        while let Some((upload, offered)) = self.uploads.pop() {
            is_active = true;
            self.store(upload, &offered, Ok(()))?;
        }
        let live: BTreeSet<_> = self.checker.live.clone();
        for worker in live.into_iter().filter(|_| !is_silent) {
            while let Some(task) = self.ask_for_task(worker, Vec::new())? {
                is_active = true;
                self.do_task(worker, &task)?;
            }
        }
        Ok(is_active || !self.flights.is_empty() || self.checker.is_over())
    }

    fn do_task(&mut self, worker: WorkerId, task: &Task) -> Step {
        if let TaskKind::Evaluate { .. } = task.kind {
            return match self.evaluate(worker, task, false)? {
                Response::Accepted => Ok(()),
                other => Err(format!("an honest share got {other:?}")),
            };
        }
        match self.offer(honest(worker, task))? {
            Response::Admitted => {}
            other => return Err(format!("an honest offer got {other:?}")),
        }
        match self.uploads.pop() {
            Some((upload, offered)) => self.store(upload, &offered, Ok(())),
            None => Err("an admitted upload is lost".to_string()),
        }
    }
}

fn honest(worker: WorkerId, task: &Task) -> Offered {
    Offered {
        worker,
        client: task.client,
        round: task.round,
        metadata: metadata(task.version),
    }
}

fn metadata(base_version: ModelVersion) -> ReportMetadata {
    ReportMetadata {
        base_version,
        examples: 10,
        steps: 1,
        metrics: BTreeMap::from([("train_loss".to_string(), 0.5)]),
    }
}
