//! One job over workers whose backends are unlike: who trained on what is on record, and the mean is right.

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use super::*;
use crate::{
    backend::DeviceSpec,
    coordinator::{deal::deal, training_pool::TrainingPool},
    ids::RoundId,
    report::{DELTA, Report},
    strategy::{FedAvg, testing::next_model},
    transport::InProcess,
    worker::{
        BurnTrainers, ClientContext, LocalUpdate, Partition, TrainTask, TrainerFactory, Worker,
        WorkerConfig,
    },
};

/// The first two CPU backends that are compiled in.
fn unlike() -> Option<[DeviceSpec; 2]> {
    let known = ["ndarray", "libtorch", "flex"];
    let specs = known.map(|name| name.parse::<DeviceSpec>().unwrap());
    let mut built = specs.into_iter().filter(|spec| spec.device().is_ok());
    Some([built.next()?, built.next()?])
}

/// What a device makes of a client's training, without any worker.
fn train(
    trainers: &BurnTrainers,
    spec: &JobSpec,
    global: &Parameters,
    client: ClientId,
    partition: Partition,
) -> LocalUpdate {
    let mut task = TrainTask::new(RoundId(1), client, partition);
    task.seed = spec.seed;
    task.training = spec.training.clone();
    let mut context = ClientContext {
        client,
        state: &mut BTreeMap::new(),
        cancelled: &Default::default(),
        progress: &mut |_, _| {},
    };
    let mut trainer = trainers.trainer(&spec.description()).unwrap();
    trainer.train(global, &task, &mut context).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_round_of_unlike_workers_is_the_mean_of_what_each_backend_trained() {
    let Some(devices) = unlike() else {
        eprintln!("skipped: fewer than two CPU backends are compiled in");
        return;
    };
    let factories: BTreeMap<String, Arc<BurnTrainers>> = devices
        .map(|device| {
            (
                device.to_string(),
                Arc::new(BurnTrainers::new(device).unwrap()),
            )
        })
        .into();
    let first = factories.values().next().unwrap().clone();
    let mut spec = JobSpec {
        model: "tiny_cnn".to_string(),
        dataset: "digits".to_string(),
        rounds: 1,
        clients: Some(4),
        evaluation: EvaluationMode::Never,
        ..JobSpec::default()
    };
    spec.training.lr = 0.05;
    spec.limits.min_workers = 2;
    spec.limits.min_updates = 4;
    let global = first.initial(&spec.description()).unwrap();

    let coordinator = Coordinator::builder(first.clone()).start();
    let job = coordinator
        .submit(&HERE, spec.clone(), Some(Arc::new(global.clone())))
        .await
        .unwrap()
        .job;
    for (name, factory) in &factories {
        let config = WorkerConfig {
            name: name.clone(),
            device: name.clone(),
            ..WorkerConfig::default()
        };
        let transport = InProcess::new(Arc::new(coordinator.clone()));
        let worker = Worker::new(transport, factory.clone(), config);
        tokio::spawn(worker.run(std::future::pending()));
    }
    let ended = tokio::time::timeout(LIMIT, coordinator.wait(&HERE, job)).await;
    let summary = ended.expect("an end in time").unwrap();
    assert_eq!(
        summary.outcome,
        Some(crate::round::Outcome::Completed),
        "{summary:?}"
    );

    let record = coordinator
        .rounds(&HERE, job, RoundId(0))
        .await
        .unwrap()
        .remove(0);
    assert_eq!(record.contributions.len(), 2, "{record:?}");
    // Dealt once more: a job that ended keeps no partitions.
    let examples = first.dataset("digits").unwrap().train_examples as usize;
    let pool = TrainingPool::new(&spec, examples, None).unwrap();
    let partitions = deal(&spec, &pool, &[1.0; 4], &AtomicBool::new(false)).unwrap();
    let mut reports = BTreeMap::new();
    for part in &record.contributions {
        let device = part.device.as_deref().unwrap();
        assert_eq!(part.name, device);
        assert!(part.seconds.unwrap() > 0.0);
        let mut examples = 0;
        for client in &part.clients {
            let partition = partitions[client.0 as usize].clone();
            let update = train(&factories[device], &spec, &global, *client, partition);
            examples += update.examples;
            let metadata = ReportMetadata {
                examples: update.examples,
                steps: update.steps,
                ..ReportMetadata::default()
            };
            let delta = update.parameters.into_delta(&global).unwrap();
            let payloads = vec![(DELTA.to_string(), Arc::new(delta) as _)];
            reports.insert(
                *client,
                Report::new(*client, RoundId(1), metadata, payloads),
            );
        }
        assert_eq!(part.examples, examples);
    }
    assert_eq!(reports.len(), 4);

    let reports: Vec<Report> = reports.into_values().collect();
    let expected = next_model(&FedAvg::default(), &global, &reports).unwrap();
    let model = coordinator.model(&HERE, job, None).await.unwrap();
    assert_eq!(model.values(), expected.values());
    assert_ne!(model.values(), global.values());
}
