//! The state of clients follows what was folded: in a job in which rounds are abandoned after they accepted reports, reports are
//! excluded, answers are lost, a worker is killed and its leases move, each training starts from the state that a reference
//! computes from the records alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use futures_util::StreamExt;

use super::{acting::Acting, *};
use crate::{
    job::StrategySpec,
    parameters::{Layout, Role},
    report::DELTA,
    round::JobEvent,
    strategy::{
        AggregateContext, Aggregation, FedAvg, FederatedStrategy, Inputs, NextVersion,
        RoundContext, RoundPlan, StrategyError,
    },
    transport::{InProcess, Transport, TransportError},
    worker::{Backoff, Worker, WorkerConfig},
};

/// Rounds that end after all reports were accepted.
pub(super) const ABANDONED: [u64; 3] = [2, 6, 7];

/// Leaves client 1 out of every third round, and fails in some.
pub(super) struct Faulty;

impl FederatedStrategy for Faulty {
    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        FedAvg::default().plan(round)
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        if ABANDONED.contains(&round.round().0) {
            return Err(StrategyError::Settings("not this round".to_string()));
        }
        let (mut rows, mut excluded) = (Vec::new(), Vec::new());
        for report in round.reports() {
            if report.client == ClientId(1) && round.round().0.is_multiple_of(3) {
                excluded.push((report.client, "its turn".to_string()));
            } else {
                rows.push((report.client, 1.0));
            }
        }
        let inputs = Inputs::new(DELTA, rows);
        next.fold(&inputs, &|rows, out| out.add_mean(rows, DELTA))?;
        let mut aggregation = Aggregation::new(inputs.clients(), inputs.total());
        aggregation.excluded = excluded;
        Ok(aggregation)
    }
}

/// A transport that loses the first answer to some reports that were accepted.
struct Losing {
    inner: InProcess<Coordinator>,
    lost: Mutex<BTreeSet<(u64, u32)>>,
}

impl Transport for Losing {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let report = match &request {
            Request::Report { round, client, .. } if (round.0 + u64::from(client.0)) % 2 == 0 => {
                Some((round.0, client.0))
            }
            _ => None,
        };
        let answer = self.inner.send(request).await;
        match report {
            Some(key) if self.lost.lock().unwrap().insert(key) => {
                Err(TransportError::Unreachable("the answer is lost".into()))
            }
            _ => answer,
        }
    }
}

/// A training as the trainer saw it: who, when, on which worker, and how often the client's state says that it trained.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    round: u64,
    client: u32,
    worker: usize,
    count: f32,
}

/// A worker whose clients count in their state how often they have trained.
fn start(coordinator: &Coordinator, worker: usize, seen: &Arc<Mutex<Vec<Seen>>>) -> JoinHandle<()> {
    let seen = seen.clone();
    let trainers = Acting::new(move |task, context, _| {
        let layout = Layout::new([("count".to_string(), vec![1], Role::Trainable)]).unwrap();
        let before = context.state.get("count");
        let count = before.map_or(0.0, |count| count.values()[0]);
        seen.lock().unwrap().push(Seen {
            round: task.round.0,
            client: task.client.0,
            worker,
            count,
        });
        let next = Parameters::new(layout, vec![count + 1.0]).unwrap();
        context.state.insert("count".to_string(), next);
    });
    let mut config = WorkerConfig::new(format!("worker-{worker}"));
    config.backoff = Backoff {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(5),
    };
    let transport = Losing {
        inner: InProcess::new(Arc::new(coordinator.clone())),
        lost: Mutex::default(),
    };
    let worker = Worker::new(transport, Arc::new(trainers), config);
    tokio::spawn(async move {
        let _ = worker.run(std::future::pending()).await;
    })
}

/// Checks each training against the records: its state is what the client's last folded report led to, if the same worker trained
/// for it then, else the initial one, and the record then says so. Returns how many trainings had lost their state.
fn check(records: &[RoundRecord], seen: &[Seen]) -> usize {
    // Of each client: the last round that folded it, and the counts that each worker reported in that round.
    let mut folded: BTreeMap<u32, u64> = BTreeMap::new();
    let mut lost = 0;
    for record in records {
        let of_round = seen.iter().filter(|seen| seen.round == record.round.0);
        for training in of_round {
            let basis = folded.get(&training.client).copied();
            let then = |before: &&Seen| {
                Some(before.round) == basis
                    && before.client == training.client
                    && before.worker == training.worker
            };
            let expected = seen.iter().find(then).map(|before| before.count + 1.0);
            let is_lost = basis.is_some() && expected.is_none();
            assert_eq!(
                training.count,
                expected.unwrap_or(0.0),
                "{training:?}, basis {basis:?}"
            );
            let client = ClientId(training.client);
            // The lease may have moved within the round: only who reported is in the record.
            let reported = record.contributions.iter().any(|part| {
                part.name == format!("worker-{}", training.worker) && part.clients.contains(&client)
            });
            if reported {
                assert_eq!(record.state_lost.contains(&client), is_lost, "{training:?}");
                lost += usize::from(is_lost);
            }
        }
        for client in &record.folded {
            folded.insert(client.0, record.round.0);
        }
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_training_starts_from_the_state_that_its_last_folded_report_led_to() {
    let config = CoordinatorConfig {
        workers: WorkerLimits {
            expiry: Duration::from_millis(300),
            heartbeat: Duration::from_millis(50),
            ..WorkerLimits::default()
        },
        ..CoordinatorConfig::default()
    };
    let trainers = Arc::new(NoopTrainers::new(SIZE, 100).unwrap());
    let coordinator = Coordinator::builder(trainers.clone())
        .config(config)
        .strategy("faulty", |_, _| Ok(Faulty))
        .start();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut workers = Vec::new();
    for worker in 0..3 {
        workers.push(start(&coordinator, worker, &seen));
    }
    let mut spec = JobSpec {
        rounds: 12,
        clients: Some(6),
        evaluation: EvaluationMode::Never,
        strategy: StrategySpec::custom("faulty", Default::default()),
        ..trainers.job()
    };
    spec.limits.min_workers = 3;
    let job = coordinator.submit(&HERE, spec, None).await.unwrap().job;
    let mut events = coordinator.events(&HERE, job, 0).await.unwrap();
    let follow = async {
        while let Some(event) = events.next().await {
            match event.unwrap().event {
                // Killed while its clients train, so that their leases move within the round; another one comes later.
                JobEvent::RoundStarted { round, .. } if round.0 == 5 => workers[1].abort(),
                JobEvent::RoundStarted { round, .. } if round.0 == 9 => {
                    workers.push(start(&coordinator, 3, &seen));
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, follow).await.expect("an end");
    let summary = coordinator.job(&HERE, job).await.unwrap();
    assert_eq!(summary.phase, "completed", "{}", summary.detail);
    let records = coordinator.rounds(&HERE, job, RoundId(0)).await.unwrap();
    let abandoned: Vec<_> = records
        .iter()
        .filter(|record| record.abandoned.is_some())
        .map(|record| record.round.0)
        .collect();
    assert_eq!(abandoned, ABANDONED);
    assert!(records.iter().any(|record| !record.excluded.is_empty()));
    let seen = seen.lock().unwrap().clone();
    let lost = check(&records, &seen);
    assert!(
        lost >= 2,
        "{lost} clients of the killed worker lost their state"
    );
}
