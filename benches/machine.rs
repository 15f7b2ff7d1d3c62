//! How many events a second the round machine takes: one whole round, from its plan to the published version, driven by
//! hand, without threads, sockets or a clock.
//!
//! An event counts with everything that a driver does for it: `handle`, the commands drained to `None`, and a look at the
//! next deadline. Throughput is in events, so a machine whose every step costs O(log n) has about the same in each row.

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fedavg::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    job::{RoundLimits, TrainingSettings},
    report::ReportMetadata,
    round::{
        ClientSpec, Command, EvaluationBy, Event, MachineConfig, ProgressRules, Response,
        RoundMachine, Task,
    },
    strategy::{Aggregation, RoundPlan},
};

/// (workers, clients): one client each, and many clients on few workers.
const TABLE: [(u64, u32); 4] = [(10, 10), (1000, 1000), (10_000, 10_000), (8, 10_000)];

/// A machine and its driver.
struct Drive {
    machine: RoundMachine,
    requests: u64,
    events: u64,
    /// The orders that a real driver would carry out.
    orders: u64,
}

impl Drive {
    /// Its workers are there, its clients are dealt, and its first round waits for a plan.
    fn planning(workers: u64, clients: u32) -> Self {
        let mut limits = RoundLimits::default();
        limits.min_workers = workers as u32;
        let config = MachineConfig {
            deals: false,
            first_round: RoundId(1),
            rounds: 1,
            limits,
            evaluation: EvaluationBy::Nobody,
            pinned: false,
            progress: ProgressRules::default(),
        };
        let mut drive = Self {
            machine: RoundMachine::new(config, Timestamp(0)),
            requests: 0,
            events: 0,
            orders: 0,
        };
        for worker in 1..=workers {
            drive.send(Event::WorkerJoined {
                worker: WorkerId(worker),
                slots: 1,
                replaces: None,
            });
        }
        let spec = ClientSpec {
            examples: 10,
            home: None,
        };
        drive.send(Event::Prepared(Ok(vec![spec; clients as usize])));
        drive
    }

    /// Hands an event over, drains the commands, and gives the answer, if the event is a request.
    fn send(&mut self, event: Event) -> Option<Response> {
        self.machine.handle(event, Timestamp(1));
        self.events += 1;
        let mut answer = None;
        while let Some(command) = self.machine.poll_command() {
            match command {
                Command::Respond { response, .. } => answer = Some(response),
                order => {
                    black_box(&order);
                    self.orders += 1;
                }
            }
        }
        black_box(self.machine.poll_deadline());
        answer
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// The round, with all clients in its cohort. Each worker does one task after the other.
    fn round(&mut self, workers: u64, clients: u32) {
        let round = RoundId(1);
        let all = (0..clients).map(ClientId);
        let plan = RoundPlan::new(all, TrainingSettings::default());
        self.send(Event::Planned {
            round,
            plan: Ok(plan),
        });
        let mut idle: Vec<_> = (1..=workers).map(WorkerId).collect();
        while !idle.is_empty() {
            idle.retain(|worker| match self.poll(*worker) {
                Some(task) => {
                    self.report(*worker, task.client, round);
                    true
                }
                None => false,
            });
        }
        self.send(Event::Aggregated {
            round,
            aggregation: Ok(Aggregation::new((0..clients).map(ClientId), 1.0)),
            joules: 0.0,
        });
        self.send(Event::Published {
            version: ModelVersion(1),
            published: Ok(()),
        });
        assert_eq!(self.machine.status().version, ModelVersion(1));
    }

    fn poll(&mut self, worker: WorkerId) -> Option<Task> {
        let request = self.request();
        let event = Event::TaskRequested {
            request,
            worker,
            busy: Vec::new(),
        };
        match self.send(event) {
            Some(Response::Task(task)) => Some(task),
            _ => None,
        }
    }

    fn report(&mut self, worker: WorkerId, client: ClientId, round: RoundId) {
        let upload = self.request();
        let metadata = ReportMetadata::new(ModelVersion(0), 10);
        self.send(Event::ReportOffered {
            request: upload,
            worker,
            client,
            round,
            metadata,
        });
        let request = self.request();
        self.send(Event::ReportStored {
            request,
            upload,
            client,
            round,
            stored: Ok(()),
        });
    }
}

fn machine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("machine");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    for (workers, clients) in TABLE {
        let size = format!("{workers}x{clients}");
        let mut once = Drive::planning(workers, clients);
        let joins = once.events;
        once.round(workers, clients);
        group.throughput(Throughput::Elements(once.events - joins));
        group.bench_function(BenchmarkId::new("round", &size), |bencher| {
            bencher.iter_batched(
                || Drive::planning(workers, clients),
                |mut drive| {
                    drive.round(workers, clients);
                    drive
                },
                BatchSize::LargeInput,
            );
        });
        group.throughput(Throughput::Elements(joins));
        group.bench_function(BenchmarkId::new("start", &size), |bencher| {
            bencher.iter_with_large_drop(|| Drive::planning(workers, clients));
        });
    }
    group.finish();
}

criterion_group!(benches, machine);
criterion_main!(benches);
