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
    planted::{Bug, Planted},
    replica::Replica,
};
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    report::{Refusal, RefusalKind, ReportMetadata},
    rng::ChaCha8Rng,
    round::{
        ClientSpec, Command, Evaluation, EvaluationBy, Event, MachineConfig, Outcome,
        ProgressRules, Response, RoundMachine, Task, TaskKind,
    },
    settings::{EvalSplit, RoundLimits, StopSettings, TrainingSettings},
    strategy::{Aggregation, RoundPlan},
};

mod fair;
mod long_work;
mod workers;

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
    Deal(RoundId),
    Plan(RoundId, Vec<ClientId>),
    Aggregate(RoundId, Vec<ClientId>),
    Publish(ModelVersion),
    Evaluate(ModelVersion, EvalSplit),
}

pub struct World {
    machine: RoundMachine,
    planted: Planted,
    replica: Option<Replica>,
    /// Whether the operator has paused the job; none if that never happens.
    paused: Option<bool>,
    /// The event that the machine has just taken.
    taken: Option<Event>,
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
    /// Whether the driver does all that it should from here on.
    is_fair: bool,
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
            first_round: RoundId(1),
            limits: limits.clone(),
            evaluation: *evaluation.choose(&mut rng).unwrap(),
            deals: !local && seed % 3 == 1,
            pinned: false,
            progress: rules(&mut rng),
        };
        Self {
            machine: RoundMachine::new(config.clone(), Timestamp(0)),
            planted: Planted::default(),
            replica: None,
            paused: None,
            taken: None,
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
            is_fair: false,
            tracing,
            trace: Vec::new(),
        }
    }

    /// With a second machine that gets what a journal has.
    pub fn with_replica(mut self) -> Self {
        self.replica = Some(Replica::new(&self.machine));
        self.paused = Some(false);
        self
    }

    /// With a bug between the driver and the machine.
    pub fn with_bug(mut self, bug: Bug) -> Self {
        self.planted.bug = Some(bug);
        self
    }

    /// Plays this many random events, then drives the job fairly to its end.
    pub fn run(&mut self, events: u32) -> Result<Seen, String> {
        self.drain()?;
        for _ in 0..self.limits.min_workers {
            self.join_new()?;
        }
        for step in 0..events {
            self.now = self.now + Duration::from_millis(self.rng.random_range(0..1500));
            if self.habits.cancel_at == Some(step) {
                self.cancel()?
            } else if self.replica.is_some() && self.chance(2) {
                self.restart()?
            } else if self.replica.is_some() && self.chance(1) {
                self.stand_still()?
            } else {
                self.act()?
            }
        }
        self.finish()?;
        let mut seen = self.checker.seen.clone();
        seen.compared = self.replica.as_ref().map_or(0, |replica| replica.compared);
        Ok(seen)
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
            94..96 if self.paused.is_some() && self.chance(20) => self.pause(),
            94..96 => self.tick(),
            96 => {
                // The driver is late: other events come before the tick.
                self.now = self.now + Duration::from_secs(self.rng.random_range(5..40));
                Ok(())
            }
            _ => self.nonsense(),
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

    /// The operator pauses the job, or lets it go on.
    fn pause(&mut self) -> Step {
        let paused = self.paused != Some(true);
        self.set_paused(paused)
    }

    fn set_paused(&mut self, paused: bool) -> Step {
        self.paused = Some(paused);
        let request = self.request(Asked::Other);
        self.feed(Event::Paused { request, paused })
    }

    /// The driver's process ends, and the next one goes on from the journal.
    fn restart(&mut self) -> Step {
        let Some(replica) = &self.replica else {
            return Ok(());
        };
        self.machine = replica.recovered();
        // The work and the uploads that were under way are lost.
        self.flights.clear();
        self.stale.clear();
        self.uploads.clear();
        let downtime_ms = self.rng.random_range(0..200_000);
        self.now = self.now + Duration::from_millis(downtime_ms);
        let abandon = self.chance(20).then(|| "upgraded".to_string());
        let phase = self.machine.status().phase;
        self.checker.restarted(phase, downtime_ms);
        self.feed(Event::Recovered {
            downtime_ms,
            abandon,
        })
    }

    /// The driver's process is stopped, and goes on with all that it had.
    fn stand_still(&mut self) -> Step {
        let away_ms = self.rng.random_range(0..200_000);
        self.now = self.now + Duration::from_millis(away_ms);
        self.checker.moved(away_ms);
        self.feed(Event::WasAway { away_ms })
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
        let event = self.planted.event(event, self.machine.status().version);
        self.taken = Some(event.clone());
        self.machine.handle(event, self.now);
        Ok(())
    }

    /// Shows what happened to the second machine, if there is one.
    fn replicate(&mut self, commands: &[Command]) -> Step {
        match (self.taken.take(), &mut self.replica) {
            (Some(event), Some(replica)) => {
                replica.follow(&event, self.now, commands, &self.machine)
            }
            _ => Ok(()),
        }
    }

    fn drain(&mut self) -> Result<Vec<(RequestId, Response)>, String> {
        let mut answers = Vec::new();
        let mut commands = Vec::new();
        while let Some(command) = self.machine.poll_command() {
            commands.push(command);
        }
        self.replicate(&commands)?;
        for command in commands {
            let command = self.planted.command(command);
            if self.tracing {
                self.trace.push(format!("    -> {command:?}"));
            }
            self.checker.command(&command)?;
            match command {
                Command::Prepare { workers } => self.flights.push(Flight::Prepare(workers)),
                Command::Deal { round } => self.flights.push(Flight::Deal(round)),
                Command::Plan { round, clients, .. } => {
                    let clients = clients.iter().map(|client| client.id).collect();
                    self.flights.push(Flight::Plan(round, clients));
                }
                Command::Aggregate {
                    round, accepted, ..
                } => {
                    let clients = accepted.iter().map(|(client, _)| *client).collect();
                    self.flights.push(Flight::Aggregate(round, clients));
                }
                Command::Publish { version, .. } => self.flights.push(Flight::Publish(version)),
                Command::Evaluate { version, split } => {
                    self.flights.push(Flight::Evaluate(version, split));
                }
                Command::Respond { request, response } => answers.push((request, response)),
                Command::Wake { .. }
                | Command::EndUpload { .. }
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
            ("preparing", Flight::Prepare(_)) => true,
            ("evaluating" | "finishing", Flight::Evaluate(..)) => true,
            ("dealing", Flight::Deal(of)) => *of == round.next(),
            ("planning", Flight::Plan(of, _)) | ("aggregating", Flight::Aggregate(of, _)) => {
                *of == round
            }
            ("publishing", Flight::Publish(of)) => *of == next,
            _ => false,
        };
        let has_deadline = self.machine.poll_deadline().is_some();
        let waits_for_time = match status.phase {
            "waiting" | "gathering" | "collecting" => has_deadline,
            "evaluating" | "finishing" => has_deadline,
            "paused" => self.paused == Some(true),
            _ => false,
        };
        if self.checker.is_over() || waits_for_time || self.flights.iter().any(is_on_its_way) {
            Ok(())
        } else {
            Err(format!("waits forever: {status:?}"))
        }
    }
}

/// What a job asks of its measurements: nothing, or anything.
fn rules(rng: &mut ChaCha8Rng) -> ProgressRules {
    let mut rules = ProgressRules::default();
    if rng.random_bool(0.5) {
        return rules;
    }
    rules.evaluation.validation = rng.random_bool(0.5);
    rules.evaluation.every = rng.random_range(1..4);
    if rng.random_bool(0.5) {
        let mut stop = StopSettings::default();
        match rng.random_range(0..4) {
            0 => stop.at_least = Some(0.9),
            1 => stop.patience = Some(rng.random_range(1..3)),
            2 => stop.max_seconds = Some(rng.random_range(1..1000)),
            _ => stop.max_joules = Some(3.0),
        }
        rules.stop = Some(stop);
    }
    rules
}
