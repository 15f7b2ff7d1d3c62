//! Whatever of an embedder's own code panics, the coordinator answers, the job ends with the reason, and the next job runs.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use super::{acting::Acting, *};
use crate::{
    job::{RoundLimits, Settings, StrategySpec, TrainingSettings},
    round::Outcome,
    strategy::{
        AggregateContext, Aggregation, FedAvg, FederatedStrategy, NextVersion, RoundContext,
        RoundPlan, StateSpec, StrategyError,
    },
    transport::InProcess,
    worker::{Worker, WorkerConfig},
};

/// The place that panics while the first job runs.
static PLACE: Mutex<&str> = Mutex::new("");
/// One of these tests at a time has the place.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn pass(place: &str) {
    let here = *PLACE.lock().unwrap() == place;
    assert!(!here, "no idea how to {place}");
}

struct Fragile;

impl FederatedStrategy for Fragile {
    fn state(&self) -> StateSpec {
        pass("state");
        StateSpec::default()
    }

    fn check(&self, _: &TrainingSettings) -> Result<(), String> {
        pass("check");
        Ok(())
    }

    fn check_limits(&self, _: &RoundLimits, _: Option<u32>) -> Result<(), String> {
        pass("check limits");
        Ok(())
    }

    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        pass("plan");
        FedAvg::default().plan(round)
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        pass("aggregate");
        let inputs = crate::strategy::Inputs::new(
            crate::report::DELTA,
            round.reports().iter().map(|report| (report.client, 1.0)),
        );
        next.fold(&inputs, &|rows, out| {
            pass("fold");
            out.add_mean(rows, crate::report::DELTA);
        })?;
        Ok(Aggregation::new(inputs.clients(), inputs.total()))
    }
}

fn factory(_: &JobSpec, _: &Settings) -> Result<Fragile, StrategyError> {
    pass("make");
    if *PLACE.lock().unwrap() == "fail" {
        let problem = "no idea how to fail: settings are missing";
        return Err(StrategyError::Settings(problem.to_string()));
    }
    Ok(Fragile)
}

/// Submits a job while `place` panics; then one while nothing does. Why the first came to nothing.
async fn come_to_nothing(place: &'static str) -> String {
    let _turn = TURN.lock().await;
    *PLACE.lock().unwrap() = place;
    let trainers = || {
        let mut trainers = Acting::new(|_, _, _| pass("train"));
        trainers.before = Arc::new(pass);
        Arc::new(trainers)
    };
    let coordinator = Coordinator::builder(trainers())
        .strategy("fragile", factory)
        .start();
    let transport = InProcess::new(Arc::new(coordinator.clone()));
    let worker = Worker::new(transport, trainers(), WorkerConfig::new("one"));
    tokio::spawn(worker.run(std::future::pending()));
    // Heartbeats of somebody who has no data, meanwhile.
    let registration = Registration::new("heart");
    let request = Request::Register {
        join_token: None,
        registration,
    };
    let registered = coordinator.handle(Peer::InProcess, request).await;
    let Response::Registered(registered) = registered else {
        panic!("{registered:?}");
    };
    let ended = Arc::new(AtomicBool::new(false));
    let beating = tokio::spawn({
        let (coordinator, ended) = (coordinator.clone(), ended.clone());
        async move {
            let mut beats = 0;
            while !ended.load(Ordering::SeqCst) {
                let request = Request::Heartbeat {
                    credentials: Credentials {
                        worker: registered.worker,
                        token: registered.token.clone(),
                    },
                    busy: Vec::new(),
                };
                let answer = coordinator.handle(Peer::InProcess, request).await;
                assert!(matches!(answer, Response::Alive { .. }), "{answer:?}");
                beats += 1;
                tokio::task::yield_now().await;
            }
            beats
        }
    });

    let mut spec = JobSpec {
        rounds: 2,
        clients: Some(2),
        evaluation: match place {
            "evaluate" => EvaluationMode::Workers,
            _ => EvaluationMode::Never,
        },
        strategy: StrategySpec::custom("fragile", Settings::new()),
        ..trainers().inner.job()
    };
    spec.limits.min_workers = 1;
    spec.limits.min_updates = 2;
    let reason = match coordinator.submit(&HERE, spec.clone(), None).await {
        Err(error) => error.to_string(),
        Ok(submitted) => {
            let waited = coordinator.wait(&HERE, submitted.job);
            let summary = tokio::time::timeout(LIMIT, waited).await;
            let summary = summary.expect("an end in time").unwrap();
            match summary.outcome {
                Some(Outcome::Failed { reason }) => reason,
                outcome => {
                    let log = coordinator.log(submitted.job).await.unwrap();
                    format!("{outcome:?}: {log:?}")
                }
            }
        }
    };
    *PLACE.lock().unwrap() = "";
    let next = coordinator.submit(&HERE, spec, None).await.unwrap().job;
    let waited = tokio::time::timeout(LIMIT, coordinator.wait(&HERE, next)).await;
    let summary = waited.expect("an end in time").unwrap();
    assert_eq!(
        summary.phase, "completed",
        "after {place}: {}",
        summary.detail
    );
    ended.store(true, Ordering::SeqCst);
    assert!(beating.await.unwrap() > 0);
    reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_any_method_of_a_strategy_ends_the_job_with_its_message() {
    for place in [
        "state",
        "check",
        "check limits",
        "plan",
        "aggregate",
        "fold",
        "make",
    ] {
        let reason = come_to_nothing(place).await;
        let message = format!("no idea how to {place}");
        assert!(reason.contains(&message), "{place}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_factory_that_fails_refuses_the_job_with_its_message() {
    let reason = come_to_nothing("fail").await;
    let expected = "\"fragile\" can't be made";
    assert!(
        reason.contains(expected) && reason.contains("settings are missing"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_a_trainer_or_its_factory_ends_the_job_with_its_message() {
    for place in ["train", "trainer", "initial"] {
        let reason = come_to_nothing(place).await;
        let message = format!("no idea how to {place}");
        assert!(reason.contains(&message), "{place}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_an_evaluation_is_in_the_log_and_the_job_goes_on() {
    let outcome = come_to_nothing("evaluate").await;
    assert!(outcome.starts_with("Some(Completed)"), "{outcome}");
    assert!(outcome.contains("no idea how to evaluate"), "{outcome}");
}
