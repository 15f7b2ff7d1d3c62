//! However a run or a worker ends, no training and no evaluation computes any more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};

use super::*;
use crate::{
    coordinator::Coordinator,
    job::{JobDescription, JobSpec},
    parameters::Parameters,
    partition::PartitionSpec,
    protocol::DatasetInfo,
    round::{Evaluation, Outcome},
    transport::{Caller, InProcess, Operator},
    worker::{
        ClientContext, EvalTask, LocalTrainer, LocalUpdate, NoopTrainers, TrainError, TrainTask,
        TrainerFactory, Worker, WorkerConfig,
    },
};

/// The longest that a test waits.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a trainer computes that nobody tells to stop.
const UNTOLD: Duration = Duration::from_secs(60);

/// Trainers that compute until they are told to stop.
struct Endless {
    inner: Arc<NoopTrainers>,
    /// Whether it is the evaluation that has no end; else the training.
    evaluates: bool,
    /// The labels of the training split, if not the inner trainers'.
    labels: Option<Arc<[u16]>>,
    work: Arc<Work>,
}

/// What computes.
#[derive(Default)]
struct Work {
    live: AtomicUsize,
    changed: Notify,
}

impl Work {
    fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    async fn begun(&self) {
        let begun = async {
            while self.live() == 0 {
                self.changed.notified().await;
            }
        };
        timeout(LIMIT, begun).await.unwrap();
    }

    async fn ended(&self) {
        let ended = async {
            while self.live() > 0 {
                self.changed.notified().await;
            }
        };
        timeout(LIMIT, ended).await.unwrap();
    }

    fn compute(&self, context: &ClientContext<'_>) {
        self.live.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
        let start = Instant::now();
        while !context.is_cancelled() && start.elapsed() < UNTOLD {
            thread::yield_now();
        }
        // The rest of a batch.
        for _ in 0..10_000 {
            thread::yield_now();
        }
        self.live.fetch_sub(1, Ordering::SeqCst);
        self.changed.notify_one();
    }
}

struct EndlessTrainer {
    inner: Box<dyn LocalTrainer>,
    evaluates: bool,
    work: Arc<Work>,
}

impl LocalTrainer for EndlessTrainer {
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        if !self.evaluates {
            self.work.compute(context);
        }
        self.inner.train(global, task, context)
    }

    fn evaluate(
        &mut self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError> {
        if self.evaluates {
            self.work.compute(context);
        }
        self.inner.evaluate(global, task, context)
    }
}

impl TrainerFactory for Endless {
    fn trainer(&self, job: &JobDescription) -> Result<Box<dyn LocalTrainer>, TrainError> {
        Ok(Box::new(EndlessTrainer {
            inner: self.inner.trainer(job)?,
            evaluates: self.evaluates,
            work: self.work.clone(),
        }))
    }

    fn initial(&self, job: &JobDescription) -> Result<Parameters, TrainError> {
        self.inner.initial(job)
    }

    fn dataset(&self, name: &str) -> Result<DatasetInfo, TrainError> {
        let mut dataset = self.inner.dataset(name)?;
        if let Some(labels) = &self.labels {
            dataset.train_examples = labels.len() as u64;
        }
        Ok(dataset)
    }

    fn labels(&self, dataset: &str) -> Result<Arc<[u16]>, TrainError> {
        match &self.labels {
            Some(labels) => Ok(labels.clone()),
            None => self.inner.labels(dataset),
        }
    }

    fn datasets(&self) -> Vec<DatasetInfo> {
        self.inner.datasets()
    }
}

fn endless(evaluates: bool) -> (JobSpec, Arc<Endless>, Arc<Work>) {
    let (spec, inner) = job(3, 4);
    let work = Arc::new(Work::default());
    let trainers = Endless {
        inner,
        evaluates,
        labels: None,
        work: work.clone(),
    };
    (spec, Arc::new(trainers), work)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_ends_when_its_trainings_have() {
    let (spec, trainers, work) = endless(false);
    let simulation = Simulation::new(spec, trainers).workers(2);
    let result = simulation.run_until(work.begun()).await.unwrap();
    assert_eq!(work.live(), 0);
    assert_eq!(result.job.outcome, Some(Outcome::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_ends_when_its_evaluation_has() {
    let (spec, trainers, work) = endless(true);
    let simulation = Simulation::new(spec, trainers).workers(2);
    simulation.run_until(work.begun()).await.unwrap();
    assert_eq!(work.live(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trainings_of_a_run_that_is_dropped_stop() {
    let (spec, trainers, work) = endless(false);
    let run = Simulation::new(spec, trainers).run_until(std::future::pending());
    tokio::select! {
        _ = run => panic!("nothing ends it"),
        () = work.begun() => {}
    }
    work.ended().await;
}

/// A coordinator with an endless job, whose only worker has ended once the work had begun.
async fn after_the_worker(evaluates: bool) -> (Coordinator, Arc<Work>) {
    let (spec, trainers, work) = endless(evaluates);
    let coordinator = Coordinator::builder(trainers.clone()).start();
    let here = Caller::in_process();
    coordinator.submit(&here, spec, None).await.unwrap();
    let transport = InProcess::new(Arc::new(coordinator.clone()));
    let worker = Worker::new(transport, trainers, WorkerConfig::new("only"));
    worker.run(work.begun()).await.unwrap();
    (coordinator, work)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_when_its_trainings_have() {
    let (_coordinator, work) = after_the_worker(false).await;
    assert_eq!(work.live(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_stops_ends_its_evaluation() {
    let (coordinator, work) = after_the_worker(true).await;
    assert_eq!(work.live(), 1);
    assert!(coordinator.stop(LIMIT).await);
    assert_eq!(work.live(), 0);
}

#[test]
fn a_cancelled_job_stops_dealing() {
    // So many labels and clients that it would deal for most of an hour.
    let labels: Arc<[u16]> = (0..200_000).map(|index| (index % 60_000) as u16).collect();
    let (mut spec, inner) = job(1, 100_000);
    let trainers = Endless {
        inner: inner.clone(),
        evaluates: false,
        labels: Some(labels),
        work: Arc::default(),
    };
    spec.partition = PartitionSpec::Dirichlet { alpha: 0.5 };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let has_stopped = runtime.block_on(async {
        let coordinator = Coordinator::builder(Arc::new(trainers)).start();
        let here = Caller::in_process();
        let job = coordinator.submit(&here, spec, None).await.unwrap().job;
        let transport = InProcess::new(Arc::new(coordinator.clone()));
        let worker = Worker::new(transport, inner, WorkerConfig::new("only"));
        tokio::spawn(worker.run(std::future::pending()));
        let preparing = async {
            while coordinator.job(&here, job).await.unwrap().phase != "preparing" {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, preparing).await.unwrap();
        coordinator.cancel(&here, job).await.unwrap();
        coordinator.stop(LIMIT).await
    });
    // Without a wait for its threads: if one still deals, the test must fail and not wait for it.
    runtime.shutdown_background();
    assert!(has_stopped, "it still deals");
}
