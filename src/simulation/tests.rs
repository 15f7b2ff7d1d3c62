mod buffers;
mod ends;
mod personal;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    coordinator::CoordinatorConfig,
    ids::{ClientId, ModelVersion, RoundId},
    job::{EvaluationMode, JobSpec, StrategySpec},
    parameters::Parameters,
    report::DELTA,
    round::{JobEvent, Outcome},
    strategy::{
        AggregateContext, Aggregation, Catalogue, FedAvg, FederatedStrategy, Inputs, NextVersion,
        PartInfo, RoundContext, RoundPlan, StrategyError, weighting::Examples,
    },
    telemetry::canonical,
    worker::NoopTrainers,
};

fn job(rounds: u32, clients: u32) -> (JobSpec, Arc<NoopTrainers>) {
    let trainers = Arc::new(NoopTrainers::new(1000, 100).unwrap());
    (
        JobSpec {
            rounds,
            clients: Some(clients),
            ..trainers.job()
        },
        trainers,
    )
}

#[test]
fn a_run_commits_every_round_and_the_model_is_the_weighted_mean() {
    let (spec, trainers) = job(5, 4);
    let result = Simulation::new(spec, trainers).workers(2).run().unwrap();
    assert_eq!(result.job.outcome, Some(Outcome::Completed));
    let versions: Vec<_> = result.rounds.iter().map(|record| record.version).collect();
    assert_eq!(
        versions,
        (1..=5)
            .map(|version| Some(ModelVersion(version)))
            .collect::<Vec<_>>()
    );
    assert!(
        result
            .rounds
            .iter()
            .all(|record| record.test_accuracy == Some(0.5))
    );
    assert!(result.rounds.iter().all(|record| record.bytes >= 4 * 4000));
    // 25 examples each: the plain mean of four steps, each a multiple of 1/64.
    let expected: f32 = (1..=5u64)
        .map(|round| {
            (0..4)
                .map(|client| NoopTrainers::step(round, client))
                .sum::<f32>()
                / 4.0
        })
        .sum();
    assert!(
        result
            .model
            .values()
            .iter()
            .all(|value| (value - expected).abs() < 1e-5),
        "{}",
        result.model.values()[0]
    );
}

#[test]
fn workers_and_threads_change_no_bit_and_the_logs_agree() {
    let run = |workers, fold_threads| {
        let (spec, trainers) = job(6, 7);
        let config = CoordinatorConfig {
            fold_threads,
            ..CoordinatorConfig::default()
        };
        Simulation::new(spec, trainers)
            .config(config)
            .workers(workers)
            .run()
            .unwrap()
    };
    let alone = run(1, 1);
    for (workers, threads) in [(2, 1), (5, 3)] {
        let other = run(workers, threads);
        assert_eq!(other.model.values(), alone.model.values());
        assert_eq!(canonical(&other.log), canonical(&alone.log));
    }
}

#[test]
fn partial_participation_folds_only_the_cohort() {
    let (mut spec, trainers) = job(8, 10);
    spec.strategy = StrategySpec::preset("fedavg").with("fraction", 0.3);
    let result = Simulation::new(spec, trainers).workers(3).run().unwrap();
    assert!(result.rounds.iter().all(|record| record.folded.len() == 3));
    let seen: BTreeSet<_> = result
        .rounds
        .iter()
        .flat_map(|record| record.folded.clone())
        .collect();
    assert!(
        seen.len() > 3,
        "cohorts differ from round to round: {seen:?}"
    );
}

#[test]
fn a_replay_folds_the_recorded_clients_and_ends_at_the_same_bits() {
    let (mut spec, trainers) = job(6, 10);
    // More are chosen than are waited for, so who is folded depends on who is quick.
    spec.strategy = StrategySpec::preset("fedavg")
        .with("fraction", 0.3)
        .with("over_selection", 0.7);
    let recorded = Simulation::new(spec.clone(), trainers.clone())
        .workers(3)
        .run()
        .unwrap();
    let again = Simulation::new(spec.clone(), trainers)
        .workers(2)
        .replay(recorded.rounds.clone())
        .run()
        .unwrap();
    // Results say what was done, the defaults included.
    spec.strategy.complete(&Catalogue::default()).unwrap();
    assert_eq!([&recorded.job.spec, &again.job.spec], [&spec, &spec]);
    let folded = |result: &SimulationResult| -> Vec<Vec<ClientId>> {
        result
            .rounds
            .iter()
            .map(|record| record.folded.clone())
            .collect()
    };
    assert_eq!(folded(&again), folded(&recorded));
    assert_eq!(again.model.values(), recorded.model.values());
}

#[test]
fn a_round_of_poisson_sampling_commits_with_nobody() {
    let (mut spec, trainers) = job(20, 3);
    spec.strategy = StrategySpec::preset("fedavg")
        .with("sampler", "poisson")
        .with("probability", 0.3);
    let result = Simulation::new(spec.clone(), trainers.clone())
        .workers(2)
        .run()
        .unwrap();
    let sizes: Vec<_> = result
        .rounds
        .iter()
        .map(|record| record.folded.len())
        .collect();
    assert_eq!(
        result.rounds.last().unwrap().version,
        Some(ModelVersion(20))
    );
    assert!(sizes.contains(&0) && sizes.contains(&2), "{sizes:?}");
    let again = Simulation::new(spec, trainers)
        .workers(3)
        .replay(result.rounds.clone())
        .run()
        .unwrap();
    assert_eq!(again.model.values(), result.model.values());
}

/// The job itself can't tell what a part that it does not know says; the coordinator can.
#[test]
fn limits_are_checked_with_parts_of_an_embedders_own() {
    let (mut spec, trainers) = job(2, 3);
    spec.strategy = StrategySpec::preset("fedavg")
        .with("sampler", "poisson")
        .with("weighting", "own");
    spec.limits.goal = Some(2);
    assert_eq!(spec.validate(), Ok(()));
    let info = PartInfo::new("own", "as many as examples");
    let catalogue = Catalogue::default().with_weighting(info, |_| Ok(Examples));
    let refused = Simulation::new(spec, trainers).catalogue(catalogue).run();
    let reason = refused.unwrap_err().to_string();
    assert!(reason.ends_with("leave limits.goal out"), "{reason}");
}

#[test]
fn workers_evaluate_shares_if_the_job_says_so() {
    let (mut spec, trainers) = job(3, 4);
    spec.evaluation = EvaluationMode::Workers;
    let result = Simulation::new(spec, trainers).workers(2).run().unwrap();
    let examples: Vec<_> = result
        .log
        .iter()
        .filter_map(|entry| match &entry.event {
            JobEvent::Evaluated { evaluation, .. } => {
                Some(evaluation.as_ref().map(|evaluation| evaluation.examples))
            }
            _ => None,
        })
        .collect();
    assert_eq!(examples, [Some(100); 3]);
}

#[test]
fn a_strategy_that_asks_for_capacities_gets_what_was_measured() {
    /// Keeps the capacities that each plan saw.
    struct Asking(Arc<Mutex<Vec<Vec<Option<f64>>>>>, bool);
    impl FederatedStrategy for Asking {
        fn uses_capacity(&self) -> bool {
            self.1
        }
        fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
            let seen = round.clients.iter().map(|client| client.capacity);
            self.0.lock().unwrap().push(seen.collect());
            FedAvg::default().plan(round)
        }
        fn aggregate(
            &self,
            round: &AggregateContext<'_>,
            next: &mut NextVersion<'_>,
        ) -> Result<Aggregation, StrategyError> {
            FedAvg::default().aggregate(round, next)
        }
    }
    for asks in [true, false] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (spec, trainers) = job(3, 4);
        let kept = seen.clone();
        let run = Simulation::new(spec, trainers).workers(2);
        run.strategy(move |_, _| Ok(Asking(kept.clone(), asks)))
            .run()
            .unwrap();
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen[0], [None; 4]);
        let is_measured = |capacity: &Option<f64>| capacity.is_some_and(|speed| speed > 0.0);
        assert_eq!(seen[2].iter().all(is_measured), asks, "{seen:?}");
    }
}

#[test]
fn a_strategy_that_panics_fails_the_job_with_its_message() {
    struct Broken;
    impl FederatedStrategy for Broken {
        fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
            FedAvg::default().plan(round)
        }
        fn aggregate(
            &self,
            _round: &AggregateContext<'_>,
            _next: &mut NextVersion<'_>,
        ) -> Result<Aggregation, StrategyError> {
            panic!("no idea how")
        }
    }
    let (spec, trainers) = job(2, 2);
    let result = Simulation::new(spec, trainers)
        .strategy(|_, _| Ok(Broken))
        .run();
    let reason = result.unwrap_err().to_string();
    assert!(
        reason.contains("attempt 3 of 3 was abandoned") && reason.contains("no idea how"),
        "{reason}"
    );
}

#[test]
fn a_job_that_can_not_run_is_refused_with_its_field() {
    let (mut spec, trainers) = job(2, 2);
    spec.model = "gpt".to_string();
    let refused = Simulation::new(spec, trainers.clone())
        .run()
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("model") && refused.contains("gpt"),
        "{refused}"
    );
    let (mut spec, _) = job(2, 2);
    spec.limits.min_updates = 3;
    assert!(
        Simulation::new(spec, trainers.clone())
            .run()
            .unwrap_err()
            .to_string()
            .contains("clients")
    );
    let (mut spec, _) = job(2, 200);
    spec.clients = Some(200);
    let refused = Simulation::new(spec, trainers).run().unwrap_err();
    assert!(refused.to_string().contains("clients"), "{refused}");
}

#[test]
fn round_numbers_go_on_after_an_abandoned_round() {
    /// Plans every second round only.
    struct Moody;
    impl FederatedStrategy for Moody {
        fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
            if round.round.0.is_multiple_of(2) {
                FedAvg::default().plan(round)
            } else {
                Err(StrategyError::Plan("not today".to_string()))
            }
        }
        fn aggregate(
            &self,
            round: &AggregateContext<'_>,
            next: &mut NextVersion<'_>,
        ) -> Result<Aggregation, StrategyError> {
            FedAvg::default().aggregate(round, next)
        }
    }
    let (spec, trainers) = job(2, 2);
    let run = || Simulation::new(spec.clone(), trainers.clone()).strategy(|_, _| Ok(Moody));
    let result = run().run().unwrap();
    let rounds: Vec<_> = result
        .rounds
        .iter()
        .map(|record| (record.round, record.abandoned.is_some()))
        .collect();
    assert_eq!(
        rounds,
        [
            (RoundId(1), true),
            (RoundId(2), false),
            (RoundId(3), true),
            (RoundId(4), false)
        ]
    );
    let again = run().replay(result.rounds.clone()).run().unwrap();
    assert_eq!(again.model.values(), result.model.values());
}

/// Abandoned rounds move no rate, and a run that was cut short had the rates of the whole.
#[test]
fn a_replay_has_the_learning_rates_of_the_recorded_run() {
    use crate::{backend::DeviceSpec, worker::BurnTrainers};
    /// Abandons its second round.
    struct Moody;
    impl FederatedStrategy for Moody {
        fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
            if round.round.0 == 2 {
                return Err(StrategyError::Plan("not today".to_string()));
            }
            FedAvg::default().plan(round)
        }
        fn aggregate(
            &self,
            round: &AggregateContext<'_>,
            next: &mut NextVersion<'_>,
        ) -> Result<Aggregation, StrategyError> {
            FedAvg::default().aggregate(round, next)
        }
    }
    let trainers = Arc::new(BurnTrainers::new(DeviceSpec::Cpu).unwrap());
    let mut spec = JobSpec {
        rounds: 4,
        clients: Some(2),
        evaluation: EvaluationMode::Never,
        schedule: "cosine:0.001".parse().unwrap(),
        ..JobSpec::new("mlp", "digits")
    };
    spec.training.lr = 0.1;
    let run = |spec: &JobSpec| {
        Simulation::new(spec.clone(), trainers.clone())
            .strategy(|_, _| Ok(Moody))
            .workers(2)
    };
    let whole = run(&spec).run().unwrap();
    let again = run(&spec).replay(whole.rounds.clone()).run().unwrap();
    assert_eq!(again.model.values(), whole.model.values());
    // Three records are two versions: the job that they began had four.
    let cut = run(&spec).replay(whole.rounds[..3].to_vec()).run().unwrap();
    let mut two = spec.clone();
    two.rounds = 2;
    two.schedule = two.schedule.made_for(4);
    assert_eq!(cut.model.values(), run(&two).run().unwrap().model.values());
    two.schedule = spec.schedule;
    assert_ne!(cut.model.values(), run(&two).run().unwrap().model.values());
}

#[test]
fn real_models_train_to_the_same_bits_on_one_worker_and_on_two() {
    use crate::{backend::DeviceSpec, worker::BurnTrainers};
    let trainers = Arc::new(BurnTrainers::new(DeviceSpec::Cpu).unwrap());
    for model in ["mlp", "tiny_cnn"] {
        let spec = JobSpec {
            model: model.to_string(),
            rounds: 2,
            clients: Some(4),
            ..JobSpec::default()
        };
        let run = |workers| {
            Simulation::new(spec.clone(), trainers.clone())
                .workers(workers)
                .run()
                .unwrap()
        };
        let (alone, together) = (run(1), run(2));
        assert_eq!(alone.model.values(), together.model.values(), "{model}");
        assert_eq!(canonical(&alone.log), canonical(&together.log), "{model}");
        assert_ne!(alone.rounds[0].test_loss, alone.rounds[1].test_loss);
    }
}

#[test]
fn a_run_dealt_by_measured_speeds_ends_and_is_not_repeated() {
    let (mut spec, trainers) = job(3, 4);
    spec.partition = "proportional:measured".parse().unwrap();
    let result = Simulation::new(spec.clone(), trainers.clone())
        .workers(2)
        .run()
        .unwrap();
    assert_eq!(result.rounds.len(), 3);
    for record in &result.rounds {
        let examples: u64 = record.contributions.iter().map(|part| part.examples).sum();
        assert_eq!(examples, 100);
    }
    let again = Simulation::new(spec, trainers).replay(result.rounds).run();
    assert!(matches!(again, Err(SimulationError::MeasuredPartition)));
}

/// Leaves one accepted report out in each round: that of the client with the round's number, counted around.
struct Picky;

impl FederatedStrategy for Picky {
    fn plan(&self, round: &RoundContext<'_>) -> Result<RoundPlan, StrategyError> {
        FedAvg::default().plan(round)
    }

    fn aggregate(
        &self,
        round: &AggregateContext<'_>,
        next: &mut NextVersion<'_>,
    ) -> Result<Aggregation, StrategyError> {
        let mut rows = Vec::new();
        let mut excluded = Vec::new();
        for report in round.reports() {
            if u64::from(report.client.0) == round.round().0 % 4 {
                excluded.push((report.client, "its turn".to_string()));
            } else {
                rows.push((report.client, report.metadata.examples as f64));
            }
        }
        let inputs = Inputs::new(DELTA, rows);
        next.fold(&inputs, &|rows, out| out.add_mean(rows, DELTA))?;
        let mut aggregation = Aggregation::new(inputs.clients(), inputs.total());
        let share = excluded.len() as f64 / round.reports().len() as f64;
        aggregation.metrics.insert("excluded".to_string(), share);
        aggregation.excluded = excluded;
        Ok(aggregation)
    }
}

#[test]
fn the_record_tells_who_was_left_out_and_a_replay_leaves_out_the_same() {
    let (mut spec, trainers) = job(3, 4);
    spec.limits.min_updates = 3;
    let run = || Simulation::new(spec.clone(), trainers.clone()).strategy(|_, _| Ok(Picky));
    let recorded = run().workers(2).run().unwrap();
    let record = &recorded.rounds[1];
    let all: Vec<_> = (0..4).map(ClientId).collect();
    assert_eq!(record.accepted, all);
    assert_eq!(record.folded, [ClientId(0), ClientId(1), ClientId(3)]);
    assert_eq!(record.excluded[0].client, ClientId(2));
    assert_eq!(record.excluded[0].reason, "its turn");
    assert_eq!(record.metrics["excluded"], 0.25);
    // What only the folded clients count for.
    let clients: Vec<_> = record.by_client.iter().map(|one| one.client).collect();
    assert_eq!(clients, record.folded);
    let mean = record.client_metrics["train_loss"];
    assert!((mean - 1.0 / 3.0).abs() < 1e-12, "{mean}");
    assert_eq!(record.train_loss, Some(mean));
    let examples: u64 = record.contributions.iter().map(|part| part.examples).sum();
    assert_eq!(examples, 75);
    let again = run().replay(recorded.rounds.clone()).run().unwrap();
    assert_eq!(again.model.values(), recorded.model.values());
    assert_eq!(canonical(&again.log), canonical(&recorded.log));
    for run in [&recorded, &again] {
        let StrategySpec::Custom { name, .. } = &run.job.spec.strategy else {
            panic!("{:?}", run.job.spec);
        };
        assert_eq!(name, "Picky");
    }

    spec.limits.min_updates = 4;
    let failed = Simulation::new(spec, trainers)
        .strategy(|_, _| Ok(Picky))
        .run();
    let reason = failed.unwrap_err().to_string();
    let expected = "3 of 4 accepted reports were folded, and the quorum is 4; 1 report excluded, the first is of client 3: \
                    its turn";
    assert!(reason.ends_with(expected), "{reason}");
}

#[test]
fn a_run_can_go_on_from_the_model_of_another() {
    let run = |rounds: u32, first_round: u32, initial: Option<&Parameters>| {
        let (mut spec, trainers) = job(rounds, 10);
        spec.first_round = first_round;
        // So that cohorts are drawn.
        spec.strategy = StrategySpec::preset("fedavg").with("fraction", 0.3);
        let mut simulation = Simulation::new(spec, trainers);
        if let Some(initial) = initial {
            simulation = simulation.initial(initial.clone());
        }
        simulation.run().unwrap()
    };
    let whole = run(4, 1, None);
    let half = run(2, 1, None);
    let rest = run(2, 3, Some(&half.model));
    assert_eq!(rest.rounds[0].round, RoundId(3));
    assert_eq!(rest.model, whole.model);
    let repeated = run(2, 1, Some(&half.model));
    assert_ne!(repeated.model, whole.model);
}
