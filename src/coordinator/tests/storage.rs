//! A spool and a model store that fail, and jobs in each encoding: what is stored, folded and refused.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::*;
use crate::{
    ids::{ModelVersion, RequestId, RoundId},
    job::{Encodings, StrategySpec},
    parameters::{
        BlockError, BlockReader, BlockWriter, BodyForm, Digest, Form, Layout, Payloads, Roles,
        encode,
    },
    report::{DELTA, Report, SpoolError, SpoolKey, SpoolWriter},
    simulation::Simulation,
    store::{
        DataFolder, FileModels, FileSpool, FileSpoolConfig, ModelForm, ModelStore, ModelWriter,
        StoreError, StoredModel,
    },
    strategy::{
        AggregateContext, Aggregation, FedAvg, FederatedStrategy, NextVersion, RoundContext,
        RoundPlan, StateSpec, StrategyError,
    },
    telemetry::canonical,
    transport::http::{ClientConfig, HttpTransport},
    worker::{Backoff, Worker, WorkerConfig},
};

/// Parameters of a model of twenty blocks of the fold.
const BLOCK: usize = 64 * 1024;
const BLOCKS: usize = 20;

/// A spool whose disk is full for the first upload, and whose first fold can't read block 17 of its last report.
struct Failing {
    inner: MemorySpool,
    full: AtomicBool,
    broken: AtomicBool,
}

struct FullWriter;

impl SpoolWriter for FullWriter {
    fn push(&mut self, _piece: &[u8]) -> Result<(), SpoolError> {
        Err(SpoolError::Storage("no space left on device".into()))
    }

    fn finish(
        self: Box<Self>,
        _metadata: ReportMetadata,
        _digest: Option<Digest>,
    ) -> Result<(), SpoolError> {
        Err(SpoolError::Storage("no space left on device".into()))
    }
}

/// A report's delta of which one block can't be read.
struct Broken(Arc<Layout>);

impl BlockReader for Broken {
    fn layout(&self) -> &Arc<Layout> {
        &self.0
    }

    fn read(&self, offset: usize, block: &mut [f32]) -> Result<(), BlockError> {
        block.fill(1.0);
        match offset / BLOCK {
            17 => Err(BlockError::Unreadable("a bad sector".into())),
            _ => Ok(()),
        }
    }
}

impl Spool for Failing {
    fn begin(
        &self,
        key: SpoolKey,
        form: &Arc<BodyForm>,
    ) -> Result<Box<dyn SpoolWriter>, SpoolError> {
        if self.full.swap(false, Ordering::SeqCst) {
            Ok(Box::new(FullWriter))
        } else {
            self.inner.begin(key, form)
        }
    }

    fn reports(
        &self,
        job: JobId,
        round: RoundId,
        accepted: &[(ClientId, RequestId)],
    ) -> Result<Vec<Report>, SpoolError> {
        let mut reports = self.inner.reports(job, round, accepted)?;
        if self.broken.swap(false, Ordering::SeqCst)
            && let Some(last) = reports.last_mut()
        {
            let delta = last.payload(DELTA).expect("a delta").layout().clone();
            let payloads: Vec<(String, Arc<dyn BlockReader + Send + Sync>)> =
                vec![(DELTA.to_string(), Arc::new(Broken(delta)))];
            *last = Report::new(last.client, last.round, last.metadata.clone(), payloads);
        }
        Ok(reports)
    }

    fn forget(&self, key: SpoolKey) {
        self.inner.forget(key);
    }

    fn discard(&self, job: JobId, round: RoundId) {
        self.inner.discard(job, round);
    }
}

/// FedAvg that counts its aggregations, of which those of failed rounds don't last, and tells what state each plan found.
struct Counting {
    planned: Arc<Mutex<Vec<f64>>>,
}

impl FederatedStrategy for Counting {
    fn state(&self) -> StateSpec {
        StateSpec::default().number("aggregations", 0.0)
    }

    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        self.planned
            .lock()
            .unwrap()
            .push(round.numbers["aggregations"]);
        FedAvg::default().plan(round)
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        next.set("aggregations", round.number("aggregations").unwrap() + 1.0);
        FedAvg::default().aggregate(round, next)
    }
}

/// Memory, whose writes are seen: how many models were begun, and how many appeared.
#[derive(Default)]
struct Watched {
    begun: AtomicUsize,
    published: Arc<Mutex<Vec<ModelVersion>>>,
    fail_publishing: Arc<AtomicBool>,
}

struct WatchedWriter {
    inner: Box<dyn ModelWriter>,
    version: ModelVersion,
    published: Arc<Mutex<Vec<ModelVersion>>>,
    fail: Arc<AtomicBool>,
}

impl ModelStore for Watched {
    fn begin(
        &self,
        job: JobId,
        version: ModelVersion,
        form: &ModelForm,
    ) -> Result<Box<dyn ModelWriter>, StoreError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(WatchedWriter {
            inner: MemoryModels.begin(job, version, form)?,
            version,
            published: self.published.clone(),
            fail: self.fail_publishing.clone(),
        }))
    }

    fn remove(&self, _job: JobId, _version: Option<ModelVersion>) {}
}

impl BlockWriter for WatchedWriter {
    fn write(&mut self, offset: usize, block: &[f32]) -> Result<(), BlockError> {
        self.inner.write(offset, block)
    }
}

impl ModelWriter for WatchedWriter {
    fn write_state(
        &mut self,
        state: usize,
        offset: usize,
        values: &[f32],
    ) -> Result<(), BlockError> {
        self.inner.write_state(state, offset, values)
    }

    fn publish(
        self: Box<Self>,
        numbers: &BTreeMap<String, f64>,
    ) -> Result<Arc<dyn StoredModel>, StoreError> {
        if self.version > ModelVersion(0) && self.fail.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Io {
                path: "v1".to_string(),
                problem: "no space left on device".into(),
            });
        }
        self.published.lock().unwrap().push(self.version);
        self.inner.publish(numbers)
    }
}

struct Run {
    rounds: Vec<RoundRecord>,
    summary: JobSummary,
    model: Arc<Parameters>,
    planned: Vec<f64>,
    models: Arc<Watched>,
}

/// A job of two rounds with two clients, over HTTP, by workers that do nothing; and what is wrong at its beginning.
async fn run(parameters: usize, full: bool, broken: bool, unpublished: bool) -> Run {
    let trainers = Arc::new(NoopTrainers::new(parameters, 100).unwrap());
    let spool = Failing {
        inner: MemorySpool::new(1 << 30),
        full: AtomicBool::new(full),
        broken: AtomicBool::new(broken),
    };
    let models = Arc::new(Watched::default());
    models.fail_publishing.store(unpublished, Ordering::SeqCst);
    let planned = Arc::new(Mutex::new(Vec::new()));
    let log = planned.clone();
    let coordinator = Coordinator::builder(trainers.clone())
        .config(CoordinatorConfig::open())
        .spool(Arc::new(spool))
        .models(models.clone())
        .strategy("counting", move |_, _| {
            let planned = log.clone();
            Ok(Counting { planned })
        })
        .start();
    let (address, serving) = serve_here(&coordinator).await;
    let url = format!("http://{address}");
    for name in ["one", "two"] {
        let transport = HttpTransport::new(&url, ClientConfig::default()).unwrap();
        let config = WorkerConfig {
            name: name.to_string(),
            backoff: Backoff {
                first: Duration::from_millis(1),
                ..Backoff::default()
            },
            ..WorkerConfig::default()
        };
        let worker = Worker::new(transport, trainers.clone(), config);
        tokio::spawn(worker.run(std::future::pending()));
    }
    let mut spec = JobSpec {
        rounds: 2,
        clients: Some(2),
        evaluation: EvaluationMode::Never,
        strategy: StrategySpec::Custom {
            name: "counting".to_string(),
            settings: Default::default(),
        },
        ..trainers.job()
    };
    spec.limits.min_workers = 2;
    spec.limits.min_updates = 2;
    let job = coordinator.submit(&HERE, spec, None).await.unwrap().job;
    let ended = tokio::time::timeout(LIMIT, coordinator.wait(&HERE, job)).await;
    let summary = ended.expect("an end in time").unwrap();
    let run = Run {
        rounds: coordinator.rounds(&HERE, job, RoundId(0)).await.unwrap(),
        summary,
        model: coordinator.model(&HERE, job, None).await.unwrap(),
        planned: planned.lock().unwrap().clone(),
        models,
    };
    serving.abort();
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_one_report_and_the_worker_sends_it_again() {
    let (well, full) = (
        run(SIZE, false, false, false).await,
        run(SIZE, true, false, false).await,
    );
    assert_eq!(full.summary.phase, "completed", "{}", full.summary.detail);
    assert!(full.rounds.iter().all(|round| round.abandoned.is_none()));
    assert_eq!(full.model.values(), well.model.values());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_can_not_be_read_abandons_the_round_and_leaves_model_and_strategy() {
    let size = BLOCKS * BLOCK;
    let (well, broken) = (
        run(size, false, false, false).await,
        run(size, false, true, false).await,
    );
    assert_eq!(
        broken.summary.phase, "completed",
        "{}",
        broken.summary.detail
    );
    let reason = broken.rounds[0].abandoned.as_deref().unwrap_or_default();
    assert!(reason.contains("a bad sector"), "{reason}");
    let versions: Vec<_> = broken.rounds.iter().map(|round| round.version).collect();
    let version = |version| Some(ModelVersion(version));
    assert_eq!(versions, [None, version(1), version(2)]);
    // The failed aggregation is not in the strategy that planned the next attempt, and what it wrote did not appear.
    assert_eq!(broken.planned, [0.0, 0.0, 1.0]);
    assert_eq!(broken.models.begun.load(Ordering::SeqCst), 4);
    let published = broken.models.published.lock().unwrap().clone();
    assert_eq!(published, [0, 1, 2].map(ModelVersion));
    // The no-op trainers' update depends on the round's number, which is one further here.
    assert_eq!(well.planned, [0.0, 1.0]);
    let step = |round| (NoopTrainers::step(round, 0) + NoopTrainers::step(round, 1)) / 2.0;
    let expected = step(2) + step(3);
    assert!(broken.model.values().iter().all(|value| *value == expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_can_not_be_published_abandons_the_round() {
    let run = run(SIZE, false, false, true).await;
    assert_eq!(run.summary.phase, "completed", "{}", run.summary.detail);
    let reason = run.rounds[0].abandoned.as_deref().unwrap_or_default();
    assert!(reason.contains("no space left"), "{reason}");
    assert_eq!(run.planned, [0.0, 0.0, 1.0]);
    assert_eq!(run.rounds.len(), 3);
}

/// Over HTTP and in memory, through files and through memory, an encoded job ends in the same bits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_encoding_trains_to_the_same_bits_whatever_carries_it() {
    for (reports, models) in [
        ("f32", "f32"),
        ("f16", "bf16"),
        ("bf16", "f16"),
        ("int8", "int8"),
        ("top_k:0.3", "f32"),
    ] {
        let encoding = Encodings {
            reports: reports.parse().unwrap(),
            models: models.parse().unwrap(),
        };
        let trainers = Arc::new(NoopTrainers::new(1000, 100).unwrap());
        let mut spec = JobSpec {
            rounds: 4,
            clients: Some(3),
            evaluation: EvaluationMode::Never,
            encoding,
            ..trainers.job()
        };
        spec.limits.min_workers = 1;
        let simulated = Simulation::new(spec.clone(), trainers.clone());
        let simulated = simulated.run_until(std::future::pending()).await.unwrap();

        let folder = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(folder.path()).unwrap();
        let spool = FileSpool::new(folder.clone(), FileSpoolConfig::default());
        let coordinator = Coordinator::builder(trainers.clone())
            .config(CoordinatorConfig::open())
            .spool(Arc::new(spool))
            .models(Arc::new(FileModels::new(folder.clone())))
            .start();
        let (address, serving) = serve_here(&coordinator).await;
        let url = format!("http://{address}");
        let transport = HttpTransport::new(&url, ClientConfig::default()).unwrap();
        let worker = Worker::new(transport, trainers.clone(), WorkerConfig::default());
        tokio::spawn(worker.run(std::future::pending()));
        let job = coordinator.submit(&HERE, spec, None).await.unwrap().job;
        let ended = tokio::time::timeout(LIMIT, coordinator.wait(&HERE, job)).await;
        let summary = ended.expect("an end in time").unwrap();
        assert_eq!(summary.phase, "completed", "{reports}: {}", summary.detail);
        let model = coordinator.model(&HERE, job, None).await.unwrap();
        assert_eq!(model.values(), simulated.model.values(), "{reports}");
        let log = coordinator.log(job).await.unwrap();
        assert_eq!(canonical(&log), canonical(&simulated.log), "{reports}");
        // A round sends three tenths of the values, the same ones each time but for what is owed: in four rounds, error
        // feedback brings all of them.
        let brought = model.values().iter().filter(|value| **value != 0.0);
        assert_eq!(brought.count(), 1000, "{reports}");
        // Everything that was sent is smaller than f32 if it should be.
        let bytes = coordinator.rounds(&HERE, job, RoundId(0)).await.unwrap()[1].bytes;
        assert_eq!(
            bytes < 3 * 4000 + 4000,
            reports != "f32",
            "{reports}: {bytes}"
        );
        serving.abort();
    }
}

#[tokio::test]
async fn an_encoding_that_no_worker_knows_is_refused_at_submission() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let int8 = |lab: &Lab| JobSpec {
        encoding: Encodings {
            reports: Encoding::Int8,
            models: Encoding::F32,
        },
        ..lab.trainers.job()
    };
    // Nobody is there: somebody may come who knows it.
    let waiting = lab
        .coordinator
        .submit(&HERE, int8(&lab), None)
        .await
        .unwrap()
        .job;
    lab.coordinator.cancel(&HERE, waiting).await.unwrap();
    let mut plain = lab.registration("plain");
    plain.encodings = vec!["f32".to_string()];
    lab.register(plain).await.unwrap();
    let refused = refusal(lab.coordinator.submit(&HERE, int8(&lab), None).await);
    assert_eq!(refused.kind, RefusalKind::InvalidJob);
    assert!(refused.detail.contains("int8"), "{refused}");
    lab.worker("able").await;
    assert!(
        lab.coordinator
            .submit(&HERE, int8(&lab), None)
            .await
            .is_ok()
    );
    let body = r#"{"model":"noop","dataset":"noop","encoding":{"reports":"int4"}}"#;
    let headers = "content-type: application/json\r\n";
    let (status, code) = lab
        .send("POST /api/v1/jobs", headers, body.as_bytes())
        .await;
    assert_eq!((status, &*code), (422, "invalid_job"));
}

#[tokio::test]
async fn a_report_in_another_encoding_than_the_jobs_is_malformed() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let (worker, other) = (lab.worker("one").await, lab.worker("two").await);
    let job = lab
        .submit(|spec| spec.encoding.reports = Encoding::Int8)
        .await;
    let (task, good) = (
        lab.poll(&worker, Vec::new()).await,
        lab.poll(&other, Vec::new()).await,
    );
    // f32 although int8 is asked for.
    let answer = lab
        .put_report(&worker, &task, &lab.metadata(&task), &lab.body(1.0))
        .await;
    assert_eq!(answer.0, 422, "{answer:?}");
    let layout = lab
        .trainers
        .initial(&lab.trainers.job().description())
        .unwrap();
    let delta = Parameters::new(layout.layout().clone(), vec![1.0; SIZE]).unwrap();
    let form = Form::new(Encoding::Int8, layout.layout().clone(), Roles::TRAINED);
    let encoded = encode(&form, &Arc::new(delta)).unwrap();
    let body = Payloads::delta(encoded).pieces().concat();
    let answer = lab
        .put_report(&other, &good, &lab.metadata(&good), &body)
        .await;
    assert_eq!(answer.0, 204, "{answer:?}");
    let (summary, rounds, model) = lab.finished(job).await;
    assert_eq!(summary.phase, "completed");
    assert_eq!(rounds[0].folded, [good.client]);
    assert!(
        model
            .values()
            .iter()
            .all(|value| (value - 1.0).abs() < 1e-4)
    );
}
