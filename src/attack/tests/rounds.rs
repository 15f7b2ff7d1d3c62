//! Whole runs of trainers that do not train: who attacks, what is shared, and how often it is trained.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;
use crate::{
    ids::{ClientId, RoundId},
    job::{JobDescription, StrategySpec},
    parameters::Parameters,
    protocol::DatasetInfo,
    round::Evaluation,
    simulation::Simulation,
    worker::{
        ClientContext, EvalTask, LocalTrainer, LocalUpdate, NoopTrainers, Partition, TrainError,
        TrainTask, TrainerFactory,
    },
};

/// The clients that were trained, in each round.
type Trained = Arc<Mutex<Vec<(RoundId, ClientId)>>>;

/// Trainers that do not train, and note whom they would have trained.
struct Noting(NoopTrainers, Trained);

struct NotingTrainer(Box<dyn LocalTrainer>, Trained);

impl TrainerFactory for Noting {
    fn trainer(&self, job: &JobDescription) -> Result<Box<dyn LocalTrainer>, TrainError> {
        let inner = self.0.trainer(job)?;
        Ok(Box::new(NotingTrainer(inner, self.1.clone())))
    }
    fn initial(&self, job: &JobDescription) -> Result<Parameters, TrainError> {
        self.0.initial(job)
    }
    fn dataset(&self, name: &str) -> Result<DatasetInfo, TrainError> {
        self.0.dataset(name)
    }
    fn labels(&self, dataset: &str) -> Result<Arc<[u16]>, TrainError> {
        self.0.labels(dataset)
    }
    fn datasets(&self) -> Vec<DatasetInfo> {
        self.0.datasets()
    }
    fn capabilities(&self) -> Vec<String> {
        self.0.capabilities()
    }
}

impl LocalTrainer for NotingTrainer {
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        self.1.lock().unwrap().push((task.round, task.client));
        self.0.train(global, task, context)
    }
    fn evaluate(
        &mut self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError> {
        self.0.evaluate(global, task, context)
    }
}

fn noop_job(clients: u32, rounds: u32) -> (JobSpec, NoopTrainers) {
    let trainers = NoopTrainers::new(100, 600).unwrap();
    let mut job = trainers.job();
    (job.clients, job.rounds) = (Some(clients), rounds);
    (job, trainers)
}

fn list(clients: &[u32]) -> AttackingClients {
    AttackingClients::Clients(clients.iter().copied().map(ClientId).collect())
}

/// One training of a client, as the worker asks for it.
fn train(factory: &dyn TrainerFactory, job: &JobSpec, task: &TrainTask) -> LocalUpdate {
    let description = job.description();
    let global = factory.initial(&description).unwrap();
    let mut trainer = factory.trainer(&description).unwrap();
    let mut state = BTreeMap::new();
    let mut context = ClientContext {
        client: task.client,
        state: &mut state,
        cancelled: &AtomicBool::new(false),
        progress: &mut |_, _| {},
    };
    trainer.train(&global, task, &mut context).unwrap()
}

#[test]
fn attackers_attack_and_all_others_train_as_without_them() {
    let job = digits_job(4, 1);
    let honest = digits_trainers();
    let attack = Arc::new(SignFlip::new(2.0));
    let attackers = Attackers::new(&job, attack, &list(&[1, 3]), honest.clone()).unwrap();
    assert_eq!(attackers.clients(), [ClientId(1), ClientId(3)]);
    assert!(attackers.are_majority());
    let description = job.description();
    let global = honest.initial(&description).unwrap();
    assert_eq!(attackers.initial(&description).unwrap(), global);
    for client in 0..4 {
        let partition = Partition::Indices((client * 20..client * 20 + 20).collect());
        let mut task = TrainTask::new(RoundId(1), ClientId(client), partition);
        task.training = job.training.clone();
        let expected = train(&*honest, &job, &task);
        let found = train(&attackers, &job, &task);
        if client % 2 == 0 {
            assert_eq!(found, expected);
            continue;
        }
        let mut differ = 0;
        for (place, start) in global.values().iter().enumerate() {
            let honest = f64::from(expected.parameters.values()[place] - start);
            let sent = f64::from(found.parameters.values()[place] - start);
            assert!((sent + 2.0 * honest).abs() < 1e-6, "{sent} for {honest}");
            differ += usize::from(honest != 0.0);
        }
        assert!(differ > 1000, "{differ}");
    }
}

#[test]
fn colluders_train_each_of_them_once_in_a_round_whatever_the_number_of_workers() {
    let run = |workers| {
        let (job, trainers) = noop_job(6, 3);
        let trained = Trained::default();
        let honest = Arc::new(Noting(trainers, trained.clone()));
        let attack = Arc::new(Ipm::new(0.5));
        let attackers = Attackers::new(&job, attack, &list(&[0, 2, 5]), honest).unwrap();
        let result = Simulation::new(job, Arc::new(attackers))
            .workers(workers)
            .run()
            .unwrap();
        let mut trained = trained.lock().unwrap().clone();
        trained.sort_unstable();
        (result, trained)
    };
    let (one, trained) = run(1);
    let mut expected = Vec::new();
    for round in 1..=3 {
        expected.extend((0..6).map(|client| (RoundId(round), ClientId(client))));
    }
    assert_eq!(trained, expected);
    let (four, trained) = run(4);
    assert_eq!(trained, expected);
    assert_eq!(four.model.values(), one.model.values());
    // 100 examples each: the mean of three honest steps, and of -0.5 times the mean of the three others.
    let mut expected = 0.0;
    for round in 1..=3 {
        let sum = |clients: [u32; 3]| -> f32 {
            clients
                .iter()
                .map(|client| NoopTrainers::step(round, *client))
                .sum()
        };
        expected += (sum([1, 3, 4]) - 0.5 * sum([0, 2, 5])) / 6.0;
    }
    let found = one.model.values()[7];
    assert!(
        (found - expected).abs() < 1e-5,
        "{found} and not {expected}"
    );
}

/// All attackers are one adversary's: those that are not in the cohort train, too.
#[test]
fn colluders_outside_of_the_cohort_are_known_and_runs_are_the_same() {
    let run = |workers| {
        let (mut job, trainers) = noop_job(10, 4);
        job.strategy = StrategySpec::preset("fedavg").with("fraction", 0.3);
        let attack = Arc::new(Alie::with_z(1.0));
        let who = AttackingClients::Fraction(0.5);
        let attackers = Attackers::new(&job, attack, &who, Arc::new(trainers)).unwrap();
        Simulation::new(job, Arc::new(attackers))
            .workers(workers)
            .run()
            .unwrap()
    };
    let (one, three) = (run(1), run(3));
    assert_eq!(one.model.values(), three.model.values());
    assert!(one.rounds.iter().all(|round| round.folded.len() == 3));
}

#[test]
fn a_free_rider_sends_the_last_change_of_the_global_model() {
    let run = |workers| {
        let (job, trainers) = noop_job(4, 3);
        let attack = Arc::new(FreeRider::new(1.0, 0.0));
        let attackers = Attackers::new(&job, attack, &list(&[2]), Arc::new(trainers)).unwrap();
        Simulation::new(job, Arc::new(attackers))
            .workers(workers)
            .run()
            .unwrap()
    };
    let result = run(1);
    assert_eq!(run(3).model.values(), result.model.values());
    // All have as many examples: each round adds a quarter of the honest steps and of its own last change.
    let (mut model, mut change) = (0.0, 0.0);
    for round in 1..=3 {
        let honest: f32 = [0, 1, 3]
            .iter()
            .map(|client| NoopTrainers::step(round, *client))
            .sum();
        change = (honest + change) / 4.0;
        model += change;
    }
    let found = result.model.values()[0];
    assert!((found - model).abs() < 1e-5, "{found} and not {model}");
    // It counts as a client that has trained.
    assert!(result.rounds.iter().all(|round| round.folded.len() == 4));
}

#[test]
fn a_lazy_clients_claim_is_one_that_the_coordinator_takes() {
    let (job, trainers) = noop_job(4, 2);
    let attack = Arc::new(Lazy::new(1, 1000.0));
    let attackers = Attackers::new(&job, attack, &list(&[2]), Arc::new(trainers)).unwrap();
    let result = Simulation::new(job, Arc::new(attackers)).run().unwrap();
    assert!(
        result.rounds.iter().all(|round| round.folded.len() == 4),
        "{:?}",
        result.rounds
    );
}

/// A stateful strategy whose attackers collude could only be attacked with states that they do not have.
#[test]
fn a_strategy_for_which_clients_keep_state_is_refused_before_anybody_trains() {
    let run = |strategy: &str, attack: Arc<dyn Attack>| {
        let (mut job, trainers) = noop_job(4, 1);
        job.strategy = StrategySpec::preset(strategy);
        let attackers = Attackers::new(&job, attack, &list(&[0, 1]), Arc::new(trainers)).unwrap();
        let run = Simulation::new(job, Arc::new(attackers)).run();
        run.map_err(|error| error.to_string())
    };
    for strategy in ["scaffold", "feddyn"] {
        let refused = run(strategy, Arc::new(Ipm::new(1.0))).unwrap_err();
        assert!(
            refused.contains(&format!("lack the capability objective:{strategy}")),
            "{refused}"
        );
        assert!(
            run(strategy, Arc::new(SignFlip::new(1.0))).is_ok(),
            "{strategy}"
        );
    }
    for strategy in ["fedprox", "fednova", "fedadam"] {
        let result = run(strategy, Arc::new(Ipm::new(1.0))).unwrap();
        assert_eq!(result.rounds[0].folded.len(), 4, "{strategy}");
    }
    // Who trains nothing has nothing to report beside a delta.
    let refused = run("qfedavg", Arc::new(Gaussian::new(1.0))).unwrap_err();
    assert!(refused.contains("payload:loss_before"), "{refused}");
}

/// A job that others fold than those who attack would look like one without an attack.
#[test]
fn an_objective_of_ones_own_that_keeps_state_fails_the_attackers_in_words() {
    struct Keeping;
    impl LocalTrainer for Keeping {
        fn train(
            &mut self,
            global: &Parameters,
            _: &TrainTask,
            context: &mut ClientContext<'_>,
        ) -> Result<LocalUpdate, TrainError> {
            context.state.insert("own".to_string(), global.clone());
            Ok(LocalUpdate::new(global.clone(), 1))
        }
        fn evaluate(
            &mut self,
            _: &Parameters,
            _: &EvalTask,
            _: &mut ClientContext<'_>,
        ) -> Result<Evaluation, TrainError> {
            Ok(Evaluation::new(0.0, 1))
        }
    }
    let (job, trainers) = noop_job(2, 1);
    let collusion = super::super::collusion::Collusion::new(&job, 2, &[ClientId(0)], &trainers);
    let collusion = collusion.unwrap();
    let mut state = BTreeMap::new();
    let mut context = ClientContext {
        client: ClientId(0),
        state: &mut state,
        cancelled: &AtomicBool::new(false),
        progress: &mut |_, _| {},
    };
    let global = trainers.initial(&job.description()).unwrap();
    // Examples of which no client of the job has these.
    let task = TrainTask::new(
        RoundId(1),
        ClientId(0),
        Partition::Indices(Arc::from([1, 2])),
    );
    let mut updates = |task: &TrainTask| {
        let found = collusion.updates(Effort::Full, &mut Keeping, &global, task, &mut context);
        found.map(drop).unwrap_err().to_string()
    };
    let refused = updates(&task);
    assert!(refused.contains("client 0 has other examples"), "{refused}");
    let dealt = crate::partition::partition(
        &job.partition,
        crate::partition::Examples::unlabelled(600),
        2,
        None,
        crate::rng::keyed(job.seed, crate::rng::Purpose::Partition, RoundId(0), None),
    );
    let own = Partition::Indices(dealt.unwrap()[0].clone().into());
    let refused = updates(&TrainTask::new(RoundId(1), ClientId(0), own));
    assert!(refused.contains("keep state between rounds"), "{refused}");
}

#[test]
fn a_cancelled_attacker_stops_and_its_fellows_go_on() {
    let (job, trainers) = noop_job(2, 1);
    let honest = Arc::new(trainers);
    let who = list(&[0, 1]);
    let attackers = Attackers::new(&job, Arc::new(Ipm::new(1.0)), &who, honest.clone()).unwrap();
    let global = honest.initial(&job.description()).unwrap();
    let dealt = crate::partition::partition(
        &job.partition,
        crate::partition::Examples::unlabelled(600),
        2,
        None,
        crate::rng::keyed(job.seed, crate::rng::Purpose::Partition, RoundId(0), None),
    );
    let partition = Partition::Indices(dealt.unwrap()[0].clone().into());
    let task = TrainTask::new(RoundId(1), ClientId(0), partition);
    let mut trainer = attackers.trainer(&job.description()).unwrap();
    let cancelled = AtomicBool::new(true);
    let mut attempt = || {
        let mut state = BTreeMap::new();
        let mut context = ClientContext {
            client: ClientId(0),
            state: &mut state,
            cancelled: &cancelled,
            progress: &mut |_, _| {},
        };
        trainer.train(&global, &task, &mut context)
    };
    assert_eq!(attempt().unwrap_err(), TrainError::Cancelled);
    cancelled.store(false, Ordering::Relaxed);
    assert!(attempt().is_ok());
}
