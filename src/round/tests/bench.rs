//! A job on a bench: events in by hand, at a time that only the test moves.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    job::{RoundLimits, TrainingSettings},
    report::{Refusal, RefusalKind, ReportMetadata},
    round::{
        ClientSpec, Command, Evaluation, EvaluationBy, Event, JobEvent, MachineConfig,
        ProgressRules, Response, RoundMachine, Task,
    },
    settings::EvalSplit,
    strategy::{Aggregation, RoundPlan},
};

pub struct Bench {
    pub machine: RoundMachine,
    pub now: Timestamp,
    requests: u64,
}

/// Two rounds, a quorum of 2, three attempts; a minute for a round, two for the first worker, nobody evaluates.
pub fn config() -> MachineConfig {
    MachineConfig {
        rounds: 2,
        first_round: R1,
        limits: RoundLimits {
            round_timeout: 60,
            min_updates: 2,
            goal: None,
            max_attempts: 3,
            min_workers: 1,
            start_timeout: 120,
            evaluation_timeout: 30,
        },
        evaluation: EvaluationBy::Nobody,
        deals: false,
        pinned: false,
        progress: ProgressRules::default(),
    }
}

pub const W1: WorkerId = WorkerId(1);
pub const W2: WorkerId = WorkerId(2);
pub const C0: ClientId = ClientId(0);
pub const C1: ClientId = ClientId(1);
pub const C2: ClientId = ClientId(2);
pub const R1: RoundId = RoundId(1);
pub const R2: RoundId = RoundId(2);

pub fn measured(loss: f64) -> Evaluation {
    Evaluation::new(loss, 10).with_accuracy(0.5)
}

pub fn metadata(version: u64) -> ReportMetadata {
    ReportMetadata {
        base_version: ModelVersion(version),
        examples: 10,
        steps: 1,
        metrics: BTreeMap::from([("train_loss".to_string(), 0.25)]),
        ..ReportMetadata::default()
    }
}

impl Bench {
    pub fn new(config: MachineConfig) -> Self {
        let mut bench = Self {
            machine: RoundMachine::new(config, Timestamp(0)),
            now: Timestamp(0),
            requests: 0,
        };
        bench.machine.begin(&[], bench.now);
        bench.drain();
        bench
    }

    /// Workers 1 to `workers` have joined, and share these clients of ten examples; round 1 is being planned.
    pub fn planning(config: MachineConfig, workers: u64, clients: u32) -> Self {
        let spec = ClientSpec {
            examples: 10,
            home: None,
        };
        Self::prepared(config, workers, vec![spec; clients as usize])
    }

    /// The same, if each worker has one client's data.
    pub fn planning_at_home(config: MachineConfig, workers: u64) -> Self {
        let at_home = |worker| ClientSpec {
            examples: 10,
            home: Some(WorkerId(worker)),
        };
        Self::prepared(config, workers, (1..=workers).map(at_home).collect())
    }

    fn prepared(mut config: MachineConfig, workers: u64, clients: Vec<ClientSpec>) -> Self {
        config.limits.min_workers = workers as u32;
        let mut bench = Self::new(config);
        for worker in 1..=workers {
            bench.join(WorkerId(worker));
        }
        bench.send(Event::Prepared(Ok(clients)));
        bench
    }

    /// Round 1 is open, with all clients in its cohort.
    pub fn collecting(config: MachineConfig, workers: u64, clients: u32) -> Self {
        let mut bench = Self::planning(config, workers, clients);
        bench.plan(R1, clients, clients as usize, 2);
        bench
    }

    // Time and commands.

    pub fn send(&mut self, event: Event) -> Vec<Command> {
        self.machine.handle(event, self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.machine.poll_command()).collect()
    }

    pub fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    /// Waits for the next deadline and ticks.
    pub fn tick(&mut self) -> Vec<Command> {
        let deadline = self.machine.poll_deadline().expect("a deadline");
        self.now = self.now.max(deadline);
        self.send(Event::Tick)
    }

    pub fn phase(&self) -> &'static str {
        self.machine.status().phase
    }

    pub fn detail(&self) -> String {
        self.machine.status().detail
    }

    /// Sends a request; its answer and whatever else follows.
    pub fn request(&mut self, event: impl FnOnce(RequestId) -> Event) -> (Response, Vec<Command>) {
        self.requests += 1;
        let request = RequestId(self.requests);
        let mut commands = self.send(event(request));
        let is_answer = |command: &Command| matches!(command, Command::Respond { request: to, .. } if *to == request);
        let position = commands.iter().position(is_answer).expect("an answer");
        let Command::Respond { response, .. } = commands.remove(position) else {
            unreachable!("it is an answer");
        };
        assert!(!commands.iter().any(is_answer), "one answer only");
        (response, commands)
    }

    // Workers.

    pub fn join(&mut self, worker: WorkerId) -> Vec<Command> {
        self.join_as(worker, None)
    }

    pub fn join_as(&mut self, worker: WorkerId, replaces: Option<WorkerId>) -> Vec<Command> {
        self.send(Event::WorkerJoined {
            worker,
            slots: 1,
            replaces,
        })
    }

    pub fn lose(&mut self, worker: WorkerId) -> Vec<Command> {
        self.send(Event::WorkerLost { worker })
    }

    pub fn poll(&mut self, worker: WorkerId, busy: &[Task]) -> Option<Task> {
        let busy = busy.to_vec();
        let event = |request| Event::TaskRequested {
            request,
            worker,
            busy,
        };
        match self.request(event).0 {
            Response::Task(task) => Some(task),
            Response::Idle => None,
            other => panic!("a poll got {other:?}"),
        }
    }

    // Reports.

    pub fn offer_with(
        &mut self,
        worker: WorkerId,
        client: ClientId,
        round: RoundId,
        metadata: ReportMetadata,
    ) -> Response {
        let event = |request| Event::ReportOffered {
            request,
            worker,
            client,
            round,
            metadata,
        };
        self.request(event).0
    }

    /// Offers a report that starts from version 0.
    pub fn offer(&mut self, worker: WorkerId, client: ClientId, round: RoundId) -> Response {
        self.offer_with(worker, client, round, metadata(0))
    }

    /// Offers a report, which must be admitted, and names the upload.
    pub fn begin(&mut self, worker: WorkerId, client: ClientId, round: RoundId) -> RequestId {
        let version = self.machine.status().version.0;
        self.begin_with(worker, client, round, metadata(version))
    }

    /// The same with metadata of the test's own.
    pub fn begin_with(
        &mut self,
        worker: WorkerId,
        client: ClientId,
        round: RoundId,
        metadata: ReportMetadata,
    ) -> RequestId {
        let response = self.offer_with(worker, client, round, metadata);
        assert_eq!(response, Response::Admitted);
        RequestId(self.requests)
    }

    pub fn store(
        &mut self,
        upload: RequestId,
        client: ClientId,
        round: RoundId,
        stored: Result<(), RefusalKind>,
    ) -> (Response, Vec<Command>) {
        let stored = stored.map_err(|kind| Refusal::new(kind, "as the test wants it"));
        self.request(|request| Event::ReportStored {
            request,
            upload,
            client,
            round,
            stored,
        })
    }

    /// A whole report, which must be accepted; what follows.
    pub fn report(&mut self, worker: WorkerId, client: ClientId, round: RoundId) -> Vec<Command> {
        let upload = self.begin(worker, client, round);
        let (response, commands) = self.store(upload, client, round, Ok(()));
        assert_eq!(response, Response::Accepted);
        commands
    }

    pub fn give_up(
        &mut self,
        worker: WorkerId,
        client: ClientId,
        round: RoundId,
    ) -> (Response, Vec<Command>) {
        self.request(|request| Event::TaskFailed {
            request,
            worker,
            client,
            round,
            reason: "out of memory".to_string(),
        })
    }

    pub fn share(
        &mut self,
        worker: WorkerId,
        client: ClientId,
        version: u64,
        evaluation: Result<Evaluation, String>,
    ) -> (Response, Vec<Command>) {
        self.request(|request| Event::ShareEvaluated {
            request,
            worker,
            client,
            version: ModelVersion(version),
            split: EvalSplit::Test,
            evaluation,
        })
    }

    // Long work.

    /// Plans the round with clients 0 to `cohort`.
    pub fn plan(
        &mut self,
        round: RoundId,
        cohort: u32,
        goal: usize,
        quorum: usize,
    ) -> Vec<Command> {
        let clients = (0..cohort).map(ClientId);
        let mut plan = RoundPlan::new(clients, TrainingSettings::default());
        (plan.goal, plan.quorum) = (goal, quorum);
        self.send(Event::Planned {
            round,
            plan: Ok(plan),
        })
    }

    /// The strategy has folded clients 0 and 1, which must be the accepted ones.
    pub fn aggregated(&mut self, round: RoundId) -> Vec<Command> {
        self.aggregated_as(round, &[C0, C1], &[])
    }

    /// The strategy has folded these clients, and excluded those.
    pub fn aggregated_as(
        &mut self,
        round: RoundId,
        folded: &[ClientId],
        excluded: &[ClientId],
    ) -> Vec<Command> {
        let mut aggregation = Aggregation::new(folded.iter().copied(), 20.0);
        for client in excluded {
            let reason = format!("client {client} is too far");
            aggregation.excluded.push((*client, reason));
        }
        aggregation.metrics = BTreeMap::from([("norm".to_string(), 0.25)]);
        let aggregation = Ok(aggregation);
        self.send(Event::Aggregated {
            round,
            aggregation,
            joules: 0.0,
        })
    }

    pub fn published(&mut self, version: u64) -> Vec<Command> {
        self.send(Event::Published {
            version: ModelVersion(version),
            published: Ok(()),
        })
    }

    /// Has clients 0 and 1 report, both of this worker, and the round commit.
    pub fn commit(&mut self, worker: WorkerId, round: RoundId) -> Vec<Command> {
        let version = self.machine.status().version.0 + 1;
        self.report(worker, C0, round);
        self.report(worker, C1, round);
        self.aggregated(round);
        self.published(version)
    }

    pub fn cancel(&mut self) -> (Response, Vec<Command>) {
        self.request(|request| Event::Cancelled { request })
    }
}

// Looking at what came out.

/// The kind of a refusal.
#[track_caller]
pub fn refused(response: &Response) -> RefusalKind {
    match response {
        Response::Refused(refusal) => refusal.kind,
        other => panic!("not refused: {other:?}"),
    }
}

/// What was added to the event log.
pub fn logged(commands: &[Command]) -> Vec<&JobEvent> {
    let mut events = Vec::new();
    for command in commands {
        if let Command::Log(event) = command {
            events.push(event);
        }
    }
    events
}

/// Why a round was abandoned.
#[track_caller]
pub fn abandoned(commands: &[Command]) -> &str {
    let reason = |event: &&JobEvent| matches!(event, JobEvent::RoundAbandoned { .. });
    match logged(commands).into_iter().find(reason) {
        Some(JobEvent::RoundAbandoned { reason, .. }) => reason,
        _ => panic!("not abandoned: {commands:?}"),
    }
}

/// The clients whose reports are to be folded.
pub fn folded(commands: &[Command]) -> Option<Vec<ClientId>> {
    commands.iter().find_map(|command| match command {
        Command::Aggregate { accepted, .. } => {
            Some(accepted.iter().map(|(client, _)| *client).collect())
        }
        _ => None,
    })
}

pub fn woken(commands: &[Command]) -> Vec<WorkerId> {
    let worker = |command: &Command| match command {
        Command::Wake { worker } => Some(*worker),
        _ => None,
    };
    commands.iter().filter_map(worker).collect()
}
