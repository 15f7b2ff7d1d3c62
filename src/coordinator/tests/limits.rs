//! What a worker refuses to do for a coordinator: with the reason, before it downloads a model, and it goes on.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{acting::Acting, *};
use crate::{
    partition::PartitionSpec,
    transport::{InProcess, Transport, TransportError},
    worker::{TaskLimits, Worker, WorkerConfig},
};

/// Counts the models that are asked for.
struct Counting {
    inner: InProcess<Coordinator>,
    models: Arc<AtomicUsize>,
}

impl Transport for Counting {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        if matches!(request, Request::Model { .. }) {
            self.models.fetch_add(1, Ordering::SeqCst);
        }
        self.inner.send(request).await
    }
}

/// A coordinator with one worker that has limits.
struct Limited {
    coordinator: Coordinator,
    trainers: Arc<Acting>,
    models: Arc<AtomicUsize>,
}

impl Limited {
    fn start(trainers: Acting, change: impl FnOnce(&mut TaskLimits)) -> Self {
        let trainers = Arc::new(trainers);
        let coordinator = Coordinator::builder(trainers.clone()).start();
        let models = Arc::new(AtomicUsize::new(0));
        let transport = Counting {
            inner: InProcess::new(Arc::new(coordinator.clone())),
            models: models.clone(),
        };
        let mut config = WorkerConfig::new("limited");
        change(&mut config.limits);
        let worker = Worker::new(transport, trainers.clone(), config);
        tokio::spawn(worker.run(std::future::pending()));
        Self {
            coordinator,
            trainers,
            models,
        }
    }

    /// How a job of one client ends: its phase, and what is said of it.
    async fn end(&self, change: impl FnOnce(&mut JobSpec)) -> (String, String) {
        let mut spec = JobSpec {
            rounds: 1,
            clients: Some(1),
            evaluation: EvaluationMode::Never,
            ..self.trainers.inner.job()
        };
        spec.limits.max_attempts = 1;
        change(&mut spec);
        let job = self
            .coordinator
            .submit(&HERE, spec, None)
            .await
            .unwrap()
            .job;
        let ended = tokio::time::timeout(LIMIT, self.coordinator.wait(&HERE, job)).await;
        let summary = ended.expect("an end in time").unwrap();
        (summary.phase, summary.detail)
    }
}

fn trainers() -> Acting {
    Acting::new(|_, _, _| {})
}

#[tokio::test]
async fn a_training_that_is_too_long_is_refused_before_the_model_is_fetched() {
    // 100 examples in batches of 64: two steps in an epoch.
    let limited = Limited::start(trainers(), |limits| {
        (limits.epochs, limits.steps) = (Some(2.0), Some(4));
    });
    for (epochs, expected) in [
        (
            3.0,
            "the task has 6 steps, and this worker takes at most 4 (--max-task-steps)",
        ),
        (1e9, "and this worker takes at most 4 (--max-task-steps)"),
    ] {
        let (phase, detail) = limited
            .end(|spec| spec.training.local_epochs = epochs)
            .await;
        assert_eq!(phase, "failed");
        assert!(detail.contains(expected), "{detail}");
    }
    // Large batches: few steps.
    let (_, detail) = limited
        .end(|spec| (spec.training.local_epochs, spec.training.batch_size) = (3.0, 1000))
        .await;
    let expected = "the task trains 3 times on its examples, and this worker at most 2 times (--max-task-epochs)";
    assert!(detail.contains(expected), "{detail}");
    assert_eq!(limited.models.load(Ordering::SeqCst), 0);
    let (phase, detail) = limited.end(|spec| spec.training.local_epochs = 2.0).await;
    assert_eq!(phase, "completed", "{detail}");
}

#[tokio::test]
async fn a_model_that_is_not_allowed_is_refused_before_it_is_fetched() {
    let limited = Limited::start(trainers(), |limits| {
        limits.models = vec!["lenet".to_string(), "mlp".to_string()];
    });
    let (phase, detail) = limited.end(|_| {}).await;
    assert_eq!(phase, "failed");
    let expected = "model \"noop\" is not allowed here; allowed are lenet, mlp (--allow-model)";
    assert!(detail.contains(expected), "{detail}");
    assert_eq!(limited.models.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_dataset_that_is_not_allowed_is_not_offered() {
    let limited = Limited::start(trainers(), |limits| {
        limits.datasets = vec!["digits".to_string()];
    });
    let (phase, _) = limited.end(|spec| spec.limits.start_timeout = 1).await;
    assert_eq!(phase, "failed");
    let workers = limited.coordinator.workers(&HERE).await.unwrap();
    assert_eq!(workers.len(), 1);
    assert!(workers[0].registration.datasets.is_empty(), "{workers:?}");
    assert!(TaskLimits::default().allows_dataset("noop"));
}

#[tokio::test]
async fn a_model_that_is_too_large_is_not_read() {
    let limited = Limited::start(trainers(), |limits| limits.model_bytes = 40);
    let (phase, detail) = limited.end(|_| {}).await;
    assert_eq!(phase, "failed");
    assert!(
        detail.contains("this worker downloads at most 40; its --max-model-bytes raises it"),
        "{detail}"
    );
    // It asked once, and not again and again.
    assert_eq!(limited.models.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_training_that_takes_too_long_is_stopped_and_the_worker_goes_on() {
    // The first job's training ends when it is told to, and not before.
    let calls = AtomicUsize::new(0);
    let trainers = Acting::new(move |_, context, _| {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            while !context.is_cancelled() {
                std::thread::yield_now();
            }
        }
    });
    let limited = Limited::start(trainers, |limits| {
        limits.time = Some(Duration::from_secs(3))
    });
    let (phase, detail) = limited.end(|_| {}).await;
    assert_eq!(phase, "failed");
    let expected = "it took longer than the 3 s that this worker computes for a task at most (--max-task-seconds)";
    assert!(detail.contains(expected), "{detail}");
    let (phase, detail) = limited
        .end(|spec| spec.partition = PartitionSpec::Iid)
        .await;
    assert_eq!(phase, "completed", "{detail}");
}
