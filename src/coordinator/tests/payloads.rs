//! A job with four payloads of three types, over each transport and each store: its clients send a delta (int8), control values
//! (f16), the curvature (f64) and counts (u64), and get the state tensor `center`. The strategy weighs with norms from a scan,
//! and folds with order statistics.

use super::*;
use crate::{
    job::{Encodings, JobDescription, StrategySpec},
    parameters::{Block, DType, Layout, PayloadSpec, Role, Roles, Values},
    protocol::DatasetInfo,
    report::DELTA,
    round::JobEvent,
    store::{DataFolder, FileModels, FileSpool, FileSpoolConfig},
    strategy::{
        AggregateContext, Aggregation, FederatedStrategy, Inputs, NextVersion, RoundContext,
        RoundPlan, StateSpec, StateTensor, StrategyError,
    },
    transport::{
        InProcess,
        http::{ClientConfig, HttpTransport},
    },
    worker::{
        ClientContext, EvalTask, LocalTrainer, LocalUpdate, PayloadValues, TrainError, TrainTask,
        TrainerFactory, Worker, WorkerConfig,
    },
};

/// Clients whose payloads are drawn from their round and number, around the state that the coordinator sends.
struct Drawing {
    inner: NoopTrainers,
    capabilities: Vec<String>,
}

struct DrawingTrainer(Box<dyn LocalTrainer>);

impl Drawing {
    fn new(capabilities: &[&str]) -> Arc<Self> {
        let frozen = [100_000, 70_000, 513, 1000];
        let roles = [Role::Trainable, Role::Frozen, Role::Buffer, Role::Trainable];
        let tensors = frozen.into_iter().zip(roles).enumerate();
        let tensors = tensors.map(|(index, (len, role))| (format!("t{index}"), vec![len], role));
        Arc::new(Self {
            inner: NoopTrainers::with_layout(Layout::new(tensors).unwrap(), 100),
            capabilities: capabilities
                .iter()
                .map(|name| format!("payload:{name}"))
                .collect(),
        })
    }
}

impl TrainerFactory for Drawing {
    fn trainer(&self, job: &JobDescription) -> Result<Box<dyn LocalTrainer>, TrainError> {
        Ok(Box::new(DrawingTrainer(self.inner.trainer(job)?)))
    }
    fn initial(&self, job: &JobDescription) -> Result<Parameters, TrainError> {
        self.inner.initial(job)
    }
    fn dataset(&self, name: &str) -> Result<DatasetInfo, TrainError> {
        self.inner.dataset(name)
    }
    fn labels(&self, dataset: &str) -> Result<Arc<[u16]>, TrainError> {
        self.inner.labels(dataset)
    }
    fn datasets(&self) -> Vec<DatasetInfo> {
        self.inner.datasets()
    }
    fn capabilities(&self) -> Vec<String> {
        self.capabilities.clone()
    }
}

impl LocalTrainer for DrawingTrainer {
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        let draw = |index: usize| {
            let mixed = (index as u32 + 1)
                .wrapping_mul(2_654_435_761)
                .wrapping_add(task.client.0 * 40_503 + task.round.0 as u32 * 7_919);
            (mixed >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let center = &task.payloads["center"];
        let mut update = self.0.train(global, task, context)?;
        let values = update.parameters.values_mut();
        for (index, value) in values.iter_mut().enumerate() {
            *value += draw(index) + center.values()[index] / 8.0;
        }
        let control = (0..global.values().len())
            .map(|index| draw(index + 3))
            .collect();
        let control = Parameters::new(global.layout().clone(), control).unwrap();
        let trainable = global.layout().tensors().iter();
        let trainable: usize = trainable
            .filter(|tensor| tensor.role == Role::Trainable)
            .map(|tensor| tensor.range().len())
            .sum();
        let curvature = (0..trainable).map(|index| 1.0 + f64::from(draw(index)) / 3.0);
        let counts = vec![task.round.0, u64::from(task.client.0), u64::MAX];
        for (name, payload) in [
            ("control", PayloadValues::Model(control)),
            (
                "curvature",
                PayloadValues::Values(Values::F64(curvature.collect())),
            ),
            ("counts", PayloadValues::Values(Values::U64(counts))),
        ] {
            update.payloads.insert(name.to_string(), payload);
        }
        Ok(update)
    }

    fn evaluate(
        &mut self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<crate::round::Evaluation, TrainError> {
        self.0.evaluate(global, task, context)
    }
}

struct Four;

impl FederatedStrategy for Four {
    fn state(&self) -> StateSpec {
        StateSpec::default()
            .tensor(StateTensor::new("center").offered())
            .number("counted", 0.0)
    }

    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        let mut plan = round.plan(round.clients.iter().map(|client| client.id));
        plan.sends.push("center".to_string());
        let control = PayloadSpec::model("control", Roles::TRAINABLE);
        let curvature = PayloadSpec::model("curvature", Roles::TRAINABLE);
        plan.expects.push(control.with_encoding(Encoding::F16));
        plan.expects.push(curvature.with_dtype(DType::F64));
        plan.expects
            .push(PayloadSpec::vector("counts", 3, DType::U64));
        Ok(plan)
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        let mut rows = Vec::new();
        let mut counted = round.number("counted").unwrap();
        for report in round.reports() {
            let counts = round.integers(report.client, "counts")?;
            assert_eq!(
                counts,
                [round.round().0, u64::from(report.client.0), u64::MAX]
            );
            counted += 1.0;
            rows.push((report.client, 1.0));
        }
        let all = Inputs::new(DELTA, rows.clone());
        let norms = round.scan(&all, rows.len(), &|rows, sums| {
            let mut values = vec![0.0; rows.len()];
            for (row, sum) in sums.iter_mut().enumerate() {
                rows.read(DELTA, row, &mut values);
                for value in &values {
                    *sum += f64::from(*value) * f64::from(*value);
                }
            }
        })?;
        for (row, norm) in rows.iter_mut().zip(&norms) {
            row.1 = 1.0 / norm.sqrt();
        }
        let inputs = Inputs::new(DELTA, rows).and("control").and("curvature");
        next.set("counted", counted);
        next.fold(&inputs, &|rows, out| {
            out.add_mean(rows, DELTA);
            if rows.role() != Role::Trainable {
                return;
            }
            let mut median = vec![0.0; rows.len()];
            rows.median("control", &mut median);
            let mut curvature = vec![0.0; rows.len()];
            for row in 0..rows.count() {
                rows.with_block("curvature", row, |start, block| {
                    let Block::F64(values) = block else {
                        panic!("{block:?}");
                    };
                    for (sum, value) in curvature[start..].iter_mut().zip(values) {
                        *sum += value;
                    }
                });
            }
            let (model, [center]) = out.tensors(["center"]);
            for index in 0..median.len() {
                let step = median[index] / curvature[index];
                model[index] += step as f32;
                center[index] = (f64::from(center[index]) / 2.0 + step) as f32;
            }
        })?;
        Ok(Aggregation::new(inputs.clients(), inputs.total()))
    }
}

struct Ended {
    model: Arc<Parameters>,
    center: Arc<Parameters>,
    counted: f64,
    rounds: Vec<RoundRecord>,
}

/// Three rounds of four clients on two workers.
async fn run(http: bool, files: bool) -> Ended {
    let trainers = Drawing::new(&["control", "curvature", "counts"]);
    let mut builder = Coordinator::builder(trainers.clone())
        .config(CoordinatorConfig::open())
        .strategy("four", |_, _| Ok(Four));
    let root = tempfile::tempdir().unwrap();
    if files {
        let folder = DataFolder::open(root.path()).unwrap();
        let spool = FileSpool::new(folder.clone(), FileSpoolConfig::default());
        builder = builder
            .spool(Arc::new(spool))
            .models(Arc::new(FileModels::new(folder)));
    }
    let coordinator = builder.start();
    let (address, serving) = serve_here(&coordinator).await;
    let url = format!("http://{address}");
    for name in ["one", "two"] {
        let config = WorkerConfig {
            name: name.to_string(),
            ..WorkerConfig::default()
        };
        let (trainers, forever) = (trainers.clone(), std::future::pending());
        if http {
            let transport = HttpTransport::new(&url, ClientConfig::default()).unwrap();
            tokio::spawn(Worker::new(transport, trainers, config).run(forever));
        } else {
            let transport = InProcess::new(Arc::new(coordinator.clone()));
            tokio::spawn(Worker::new(transport, trainers, config).run(forever));
        }
    }
    let job = coordinator
        .submit(&HERE, spec(&trainers), None)
        .await
        .unwrap()
        .job;
    let ended = tokio::time::timeout(LIMIT, coordinator.wait(&HERE, job)).await;
    let summary = ended.expect("an end in time").unwrap();
    let log = coordinator.log(job).await.unwrap();
    assert_eq!(summary.phase, "completed", "{log:?}");
    let model = coordinator.model(&HERE, job, None).await.unwrap();
    let stored = coordinator.state().jobs[&job]
        .models
        .values()
        .next_back()
        .cloned()
        .unwrap();
    let layout = stored.layout().clone();
    let mut center = vec![0.0; layout.len()];
    let values = stored.state("center").unwrap();
    for block in layout.blocks() {
        if block.role == Role::Trainable {
            let out = &mut center[block.range.clone()];
            values.read(block.range.start, out).unwrap();
        }
    }
    serving.abort();
    Ended {
        model,
        center: Arc::new(Parameters::new(layout, center).unwrap()),
        counted: stored.numbers()["counted"],
        rounds: coordinator.rounds(&HERE, job, RoundId(0)).await.unwrap(),
    }
}

fn spec(trainers: &Drawing) -> JobSpec {
    let mut spec = JobSpec {
        rounds: 3,
        clients: Some(4),
        evaluation: EvaluationMode::Never,
        strategy: StrategySpec::custom("four", Default::default()),
        encoding: Encodings {
            reports: Encoding::Int8,
            models: Encoding::F32,
        },
        ..trainers.inner.job()
    };
    spec.limits.min_updates = 4;
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_payloads_come_through_every_transport_and_store_with_the_same_bits() {
    let reference = run(false, false).await;
    assert_eq!(reference.counted, 12.0);
    assert!(reference.center.values().iter().any(|value| *value != 0.0));
    for (http, files) in [(true, false), (false, true), (true, true)] {
        let found = run(http, files).await;
        let place = format!("http {http}, files {files}");
        assert_eq!(found.model.values(), reference.model.values(), "{place}");
        assert_eq!(found.center.values(), reference.center.values(), "{place}");
        assert_eq!(found.counted, 12.0, "{place}");
        assert!(found.rounds.iter().all(|round| round.abandoned.is_none()));
    }
}

/// A worker that lacks a payload gets no tasks, the log says why, and another does its clients' work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_can_not_produce_a_payload_is_passed_over_in_words() {
    let able = Drawing::new(&["control", "curvature", "counts"]);
    let unable = Drawing::new(&["control", "curvature"]);
    let coordinator = Coordinator::builder(able.clone())
        .strategy("four", |_, _| Ok(Four))
        .start();
    let mut spec = spec(&able);
    spec.limits.min_workers = 2;
    let start = |name: &str, trainers: Arc<Drawing>| {
        let config = WorkerConfig {
            name: name.to_string(),
            ..WorkerConfig::default()
        };
        let transport = InProcess::new(Arc::new(coordinator.clone()));
        tokio::spawn(Worker::new(transport, trainers, config).run(std::future::pending()));
    };
    start("able", able.clone());
    start("unable", unable);
    let job = coordinator.submit(&HERE, spec, None).await.unwrap().job;
    let ended = tokio::time::timeout(LIMIT, coordinator.wait(&HERE, job)).await;
    let summary = ended.expect("an end in time").unwrap();
    assert_eq!(summary.phase, "completed", "{}", summary.detail);
    for round in coordinator.rounds(&HERE, job, RoundId(0)).await.unwrap() {
        assert!(round.abandoned.is_none(), "{round:?}");
        let names: Vec<_> = round.contributions.iter().map(|part| &part.name).collect();
        assert_eq!(names, ["able"]);
    }
    use futures_util::StreamExt;
    let log: Vec<_> = coordinator
        .events(&HERE, job, 0)
        .await
        .unwrap()
        .map(Result::unwrap)
        .collect()
        .await;
    let lacks: Vec<_> = log
        .iter()
        .filter_map(|logged| match &logged.event {
            JobEvent::WorkerPassedOver { lacks, .. } => Some(lacks.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(lacks, ["the capability payload:counts"]);
}
