//! What a job asks of its clients' training: a learning rate that follows committed versions, settings that not every worker
//! knows, and objectives, whose state follows what was folded.

use std::{collections::BTreeMap, sync::Mutex};

use futures_util::StreamExt;

use super::{acting::Acting, *};
use crate::{
    DeviceSpec, Objective,
    job::{Schedule, StrategySpec, TrainingSettings},
    parameters::{Layout, Role},
    round::JobEvent,
    strategy::{
        AggregateContext, Aggregation, FedAvg, FederatedStrategy, NextVersion, RoundContext,
        RoundPlan, StrategyError,
    },
    transport::InProcess,
    worker::{
        BurnTrainers, Correction, LocalObjective, PayloadValues, TrainError, TrainTask, Trained,
        Worker, WorkerConfig,
    },
};

/// Federated averaging whose second round is abandoned, with this objective.
struct Abandoning(Objective);

impl FederatedStrategy for Abandoning {
    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        let mut plan = FedAvg::default().plan(round)?;
        plan.objective = self.0.clone();
        Ok(plan)
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        if round.round().0 == 2 {
            return Err(StrategyError::Settings("not this round".to_string()));
        }
        FedAvg::default().aggregate(round, next)
    }
}

fn start(coordinator: &Coordinator, name: &str, trainers: Arc<dyn TrainerFactory>) {
    let transport = InProcess::new(Arc::new(coordinator.clone()));
    let worker = Worker::new(transport, trainers, WorkerConfig::new(name));
    tokio::spawn(worker.run(std::future::pending()));
}

async fn completed(coordinator: &Coordinator, spec: JobSpec) -> JobId {
    let job = coordinator.submit(&HERE, spec, None).await.unwrap().job;
    let ended = tokio::time::timeout(LIMIT, coordinator.wait(&HERE, job)).await;
    let summary = ended.expect("an end in time").unwrap();
    assert_eq!(summary.phase, "completed", "{}", summary.detail);
    job
}

#[tokio::test]
async fn the_rate_follows_committed_versions_and_not_attempts() {
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let noted = seen.clone();
    let trainers = Arc::new(Acting::new(move |task, _, _| {
        let rate = (task.version.0, task.training.lr);
        noted.lock().unwrap().insert(task.round.0, rate);
    }));
    let coordinator = Coordinator::builder(trainers.clone())
        .strategy("abandoning", |_, _| Ok(Abandoning(Objective::Plain)))
        .start();
    start(&coordinator, "one", trainers.clone());
    let mut spec = JobSpec {
        rounds: 3,
        clients: Some(2),
        evaluation: EvaluationMode::Never,
        strategy: StrategySpec::custom("abandoning", Default::default()),
        schedule: "step:1:0.5".parse::<Schedule>().unwrap(),
        ..trainers.inner.job()
    };
    spec.training.lr = 0.8;
    let job = completed(&coordinator, spec).await;
    let records = coordinator.rounds(&HERE, job, RoundId(0)).await.unwrap();
    let recorded: Vec<_> = records.iter().map(|record| record.lr).collect();
    assert_eq!(recorded, [Some(0.8), None, Some(0.4), Some(0.2)]);
    let seen = seen.lock().unwrap().clone();
    let expected = [(1, (0, 0.8)), (2, (1, 0.4)), (3, (1, 0.4)), (4, (2, 0.2))];
    assert_eq!(seen, expected.into());
}

/// A setting that a worker passes over would train something else.
#[tokio::test]
async fn a_worker_that_does_not_know_a_setting_is_passed_over_and_the_job_says_so() {
    // Acting trainers name no capability.
    let unable = Arc::new(Acting::new(|_, _, _| {}));
    let able = Arc::new(NoopTrainers::new(SIZE, 100).unwrap());
    let coordinator = Coordinator::builder(able.clone())
        .strategy("proximal", |_, _| {
            Ok(Abandoning(Objective::Proximal { mu: 0.1 }))
        })
        .start();
    start(&coordinator, "unable", unable);
    start(&coordinator, "able", able.clone());
    let plain = JobSpec {
        rounds: 3,
        clients: Some(4),
        evaluation: EvaluationMode::Never,
        ..able.job()
    };
    let with_setting = |change: fn(&mut TrainingSettings)| {
        let mut spec = plain.clone();
        spec.limits.min_workers = 2;
        change(&mut spec.training);
        spec
    };
    let mut objective = with_setting(|_| {});
    objective.strategy = StrategySpec::custom("proximal", Default::default());
    for (spec, expected) in [
        (
            with_setting(|training| training.clip_norm = Some(1.0)),
            "the capability training:clip_norm",
        ),
        (objective, "the capability objective:proximal"),
    ] {
        let job = completed(&coordinator, spec).await;
        let rounds = coordinator.rounds(&HERE, job, RoundId(0)).await.unwrap();
        for part in rounds.iter().flat_map(|round| &round.contributions) {
            assert_eq!(part.name, "able");
        }
        let log = coordinator.events(&HERE, job, 0).await.unwrap();
        let log: Vec<_> = log.map(Result::unwrap).collect().await;
        let lacks = log.iter().find_map(|logged| match &logged.event {
            JobEvent::WorkerPassedOver { lacks, .. } => Some(lacks.as_str()),
            _ => None,
        });
        assert_eq!(lacks, Some(expected));
    }
}

/// Counts in the client's state how often it has trained, and remembers each count.
struct Counting(Arc<Mutex<Vec<(u64, u32, f32)>>>);

impl LocalObjective for Counting {
    fn begin(
        &self,
        _global: &Parameters,
        task: &TrainTask,
        state: &BTreeMap<String, Parameters>,
    ) -> Result<Correction, TrainError> {
        let count = state.get("count").map_or(0.0, |count| count.values()[0]);
        let mut seen = self.0.lock().unwrap();
        seen.push((task.round.0, task.client.0, count));
        Ok(Correction::none())
    }

    fn end(
        &self,
        _trained: &Trained<'_>,
        state: &mut BTreeMap<String, Parameters>,
    ) -> Result<BTreeMap<String, PayloadValues>, TrainError> {
        let layout = Layout::new([("count".to_string(), vec![1], Role::Trainable)]).unwrap();
        let count = state.get("count").map_or(0.0, |count| count.values()[0]);
        let next = Parameters::new(layout, vec![count + 1.0]).unwrap();
        state.insert("count".to_string(), next);
        Ok(BTreeMap::new())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_objectives_state_is_that_of_the_last_round_that_was_folded() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let trainers = BurnTrainers::new(DeviceSpec::Cpu).unwrap();
    let trainers = Arc::new(trainers.with_objective("counting", Counting(seen.clone())));
    let coordinator = Coordinator::builder(trainers.clone())
        .strategy("abandoning", |_, _| {
            Ok(Abandoning(Objective::Custom {
                name: "counting".to_string(),
                settings: Default::default(),
            }))
        })
        .start();
    start(&coordinator, "one", trainers);
    let spec = JobSpec {
        rounds: 3,
        clients: Some(2),
        evaluation: EvaluationMode::Never,
        strategy: StrategySpec::custom("abandoning", Default::default()),
        ..JobSpec::new("mlp", "digits")
    };
    completed(&coordinator, spec).await;
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_by_key(|(round, client, _)| (*round, *client));
    let counts = [(1, 0.0), (2, 1.0), (3, 1.0), (4, 2.0)];
    let expected: Vec<_> = counts
        .into_iter()
        .flat_map(|(round, count)| [(round, 0, count), (round, 1, count)])
        .collect();
    assert_eq!(seen, expected);
}
