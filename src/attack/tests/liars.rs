//! One worker of ten that lies in its reports, on their way to the coordinator: what the coordinator's bounds make of it.

use std::{sync::Arc, time::Duration};

use futures_util::stream;

use super::*;
use crate::{
    coordinator::{Coordinator, CoordinatorConfig, QuarantineLimits},
    ids::RoundId,
    job::StrategySpec,
    partition::{Capacity, PartitionSpec},
    protocol::RoundRecord,
    report::ReportMetadata,
    round::JobEvent,
    transport::{
        Caller, InProcess, Operator, ReportBody, Request, Response, Transport, TransportError,
    },
    worker::{Backoff, Worker, WorkerConfig},
};

const CLIENTS: u32 = 10;
const ROUNDS: u32 = 20;
const SEEDS: [u64; 3] = [1, 2, 3];
/// No run takes longer.
const LIMIT: Duration = Duration::from_secs(300);

/// What is changed in each report.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    Nothing,
    /// The update, times 1000.
    Scaled,
    /// The number of examples is 10^12.
    Examples,
    /// The training took a microsecond.
    Speed,
    /// The first value of the update is not a number.
    NotANumber,
}

impl Lie {
    fn change(self, metadata: &mut ReportMetadata, body: ReportBody) -> ReportBody {
        match self {
            Self::Examples => metadata.examples = 1_000_000_000_000,
            Self::Speed => metadata.seconds = Some(1e-6),
            Self::Nothing | Self::Scaled | Self::NotANumber => {}
        }
        let ReportBody::Memory(payloads) = body else {
            panic!("{body:?}");
        };
        let mut bytes = payloads.pieces().concat();
        // A safetensors body: the length of its header in eight bytes, the header, and then f32 values alone.
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let values = bytes[8 + header..].chunks_exact_mut(4);
        for (place, value) in values.enumerate() {
            let before = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
            let after = match self {
                Self::Scaled => before * 1000.0,
                Self::NotANumber if place == 0 => f32::NAN,
                _ => before,
            };
            value.copy_from_slice(&after.to_le_bytes());
        }
        ReportBody::Stream {
            length: Some(bytes.len() as u64),
            bytes: Box::pin(stream::iter([Ok(bytes.into())])),
            digest: None,
        }
    }
}

/// A transport that changes reports on their way.
struct Lying {
    inner: InProcess<Coordinator>,
    lie: Lie,
}

impl Transport for Lying {
    async fn send(&self, mut request: Request) -> Result<Response, TransportError> {
        if let Request::Report { metadata, body, .. } = &mut request {
            let empty = ReportBody::Stream {
                bytes: Box::pin(stream::empty()),
                length: None,
                digest: None,
            };
            let honest = std::mem::replace(body, empty);
            *body = self.lie.change(metadata, honest);
        }
        self.inner.send(request).await
    }
}

struct Run {
    /// Of the last version; 0 if the job failed.
    accuracy: f64,
    records: Vec<RoundRecord>,
    /// Why clients failed, a reason for each time.
    failures: Vec<String>,
}

impl Run {
    /// How many rounds the liar's report is in.
    fn rounds_with_liar(&self) -> usize {
        let parts =
            |record: &&RoundRecord| record.contributions.iter().any(|part| part.name == "liar");
        self.records.iter().filter(parts).count()
    }
}

/// A job of ten clients on ten workers, of which the first one lies.
async fn run(job: JobSpec, lie: Lie, config: CoordinatorConfig) -> Run {
    let here = Caller::in_process();
    let trainers = digits_trainers();
    let coordinator = Coordinator::builder(trainers.clone())
        .config(config)
        .start();
    let submitted = coordinator.submit(&here, job, None).await.unwrap();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..CLIENTS {
        let mut config = WorkerConfig::new(if worker == 0 { "liar" } else { "honest" });
        config.backoff = Backoff {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(5),
        };
        let transport = Lying {
            inner: InProcess::new(Arc::new(coordinator.clone())),
            lie: if worker == 0 { lie } else { Lie::Nothing },
        };
        let worker = Worker::new(transport, trainers.clone(), config);
        workers.spawn(worker.run(std::future::pending()));
    }
    let ended = tokio::time::timeout(LIMIT, coordinator.wait(&here, submitted.job)).await;
    let summary = ended.expect("an end in time").unwrap();
    let records = coordinator.rounds(&here, submitted.job, RoundId(0)).await;
    let records = records.unwrap();
    let mut failures = Vec::new();
    for entry in coordinator.log(submitted.job).await.unwrap() {
        if let JobEvent::ClientFailed { reason, .. } = entry.event {
            failures.push(reason);
        }
    }
    let last = records.last().and_then(|record| record.test_accuracy);
    let is_complete = summary.phase == "completed";
    Run {
        accuracy: last.filter(|_| is_complete).unwrap_or(0.0),
        records,
        failures,
    }
}

fn job(seed: u64) -> JobSpec {
    let mut job = digits_job(CLIENTS, ROUNDS);
    job.seed = seed;
    job.limits.min_workers = CLIENTS;
    job
}

/// With a bound of the norms.
fn bounded(seed: u64) -> JobSpec {
    let mut job = job(seed);
    job.strategy = StrategySpec::preset("fedavg").with("filter", "median_norm");
    job
}

async fn honest(job: JobSpec) -> f64 {
    let run = run(job, Lie::Nothing, CoordinatorConfig::default()).await;
    assert!(run.accuracy > 0.9, "{}", run.accuracy);
    assert_eq!(run.rounds_with_liar(), ROUNDS as usize);
    run.accuracy
}

fn assert_close(found: f64, honest: f64, lie: Lie, seed: u64) {
    assert!(
        (found - honest).abs() <= 0.02,
        "{lie:?}, seed {seed}: {found}, and {honest} without a liar"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scaled_update_ruins_the_mean_and_a_bound_of_norms_leaves_it_out() {
    for seed in SEEDS {
        let honest = honest(job(seed)).await;
        let ruined = run(job(seed), Lie::Scaled, CoordinatorConfig::default()).await;
        assert!(ruined.accuracy < honest - 0.2, "{}", ruined.accuracy);
        let held = run(bounded(seed), Lie::Scaled, CoordinatorConfig::default()).await;
        assert_close(held.accuracy, honest, Lie::Scaled, seed);
        assert_eq!(held.rounds_with_liar(), 0);
        for record in &held.records {
            assert_eq!(record.excluded.len(), 1, "{record:?}");
            let reason = &record.excluded[0].reason;
            assert!(reason.starts_with("norm bound: its norm is "), "{reason}");
            assert!(
                reason.contains("above 5 times the round's median"),
                "{reason}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_is_refused_and_the_round_goes_on_without_it() {
    for seed in SEEDS {
        let honest = honest(job(seed)).await;
        for (lie, expected) in [
            (Lie::Examples, "claims 1000000000000 examples"),
            (Lie::NotANumber, "has a value that is not finite"),
        ] {
            let held = run(job(seed), lie, CoordinatorConfig::default()).await;
            assert_close(held.accuracy, honest, lie, seed);
            assert_eq!(held.rounds_with_liar(), 0);
            // After so many it is in quarantine, and an honest worker has its client.
            let refusals = QuarantineLimits::default().refusals as usize;
            assert!(refusals < ROUNDS as usize);
            assert_eq!(held.failures.len(), refusals);
            for reason in &held.failures {
                assert!(reason.contains(expected), "{reason}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claimed_speed_gets_a_part_of_the_data_and_not_all_of_it() {
    let by_speed = |seed| {
        let mut job = job(seed);
        job.partition = PartitionSpec::Proportional {
            by: Capacity::Measured,
        };
        job
    };
    // The liar's share of the examples in the last round.
    let share = |run: &Run| {
        let parts = &run.records.last().unwrap().contributions;
        let all: u64 = parts.iter().map(|part| part.examples).sum();
        let liars = parts.iter().filter(|part| part.name == "liar");
        liars.map(|part| part.examples).sum::<u64>() as f64 / all as f64
    };
    for seed in SEEDS {
        let honest = honest(by_speed(seed)).await;
        let held = run(by_speed(seed), Lie::Speed, CoordinatorConfig::default()).await;
        assert_close(held.accuracy, honest, Lie::Speed, seed);
        // Eight times the median, and at least half of the others have the median.
        assert!(share(&held) < 0.75, "{}", share(&held));
        for record in &held.records {
            let mut reasons = record.not_counted.iter().map(|note| &note.reason);
            assert!(
                reasons.any(|reason| reason.contains("times from the round's median")),
                "{record:?}"
            );
        }
    }
    let mut unbounded = CoordinatorConfig::default();
    unbounded.claims.speed_spread = f64::INFINITY;
    let taken = run(by_speed(SEEDS[0]), Lie::Speed, unbounded).await;
    assert!(share(&taken) > 0.9, "{}", share(&taken));
}
