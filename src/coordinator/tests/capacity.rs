//! Who trained on what, how fast, and how the data is dealt by it.

use super::*;
use crate::{
    job::JobDescription,
    partition::{Capacity, PartitionSpec},
    protocol::{DatasetInfo, TaskWork, WorkerSummary},
    round::{Evaluation, JobEvent},
    transport::InProcess,
    worker::{
        ClientContext, EvalTask, LocalTrainer, LocalUpdate, Partition, TrainError, TrainTask,
        Worker, WorkerConfig,
    },
};

const MEASURED: PartitionSpec = PartitionSpec::Proportional {
    by: Capacity::Measured,
};

impl Lab {
    /// How many examples a client has.
    async fn size(&self, credentials: &Credentials, task: &TaskMessage) -> u64 {
        let request = Request::Partition {
            credentials: credentials.clone(),
            job: task.job,
            client: task.client,
        };
        match self.coordinator.handle(Peer::InProcess, request).await {
            Response::Partition(share) => share.indices.unwrap().len() as u64,
            other => panic!("{other:?}"),
        }
    }

    /// A worker that trains this many examples a second does its next task: its size and generation.
    async fn train(&self, credentials: &Credentials, speed: f64) -> (u64, u64) {
        let task = self.poll(credentials, Vec::new()).await;
        let TaskWork::Train { generation, .. } = task.work else {
            panic!("{task:?}");
        };
        let examples = self.size(credentials, &task).await;
        let seconds = examples as f64 / speed;
        // A training can't be longer than the worker had the task.
        let clock = &self.coordinator.0.clock;
        clock.skip(Duration::from_secs_f64(seconds));
        let metadata = ReportMetadata {
            examples,
            seconds: Some(seconds),
            ..self.metadata(&task)
        };
        let answer = self
            .put_report(credentials, &task, &metadata, &self.body(1.0))
            .await;
        assert_eq!(answer.0, 204, "{answer:?}");
        (examples, generation)
    }

    /// A job of two clients, both of which each round waits for.
    async fn submit_measured(&self, rounds: u32) -> JobId {
        self.submit(|spec| {
            spec.rounds = rounds;
            spec.partition = MEASURED;
            spec.limits.min_workers = 2;
            spec.limits.min_updates = 2;
        })
        .await
    }

    async fn speeds(&self) -> Vec<Option<f64>> {
        let speed = |worker: &WorkerSummary| worker.examples_per_second;
        self.coordinator
            .workers(&HERE)
            .await
            .unwrap()
            .iter()
            .map(speed)
            .collect()
    }
}

#[tokio::test]
async fn a_committed_round_says_who_trained_on_what_and_an_abandoned_one_nothing() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let (first, second) = (lab.worker("first").await, lab.worker("second").await);
    let job = lab.submit(|spec| spec.clients = Some(3)).await;
    let mut tasks = Vec::new();
    for worker in [&first, &second, &first] {
        let of_worker = |(who, _): &&(Credentials, _)| who == worker;
        let busy = tasks.iter().filter(of_worker);
        let busy = busy.map(|(_, task): &(_, TaskMessage)| task.clone());
        let task = lab.poll(worker, busy.collect()).await;
        tasks.push((worker.clone(), task));
    }
    // What is not folded does not count: this one is refused, and its client fails.
    let nonsense = ReportMetadata {
        examples: 30,
        energy_joules: Some(-1000.0),
        ..lab.metadata(&tasks[0].1)
    };
    let body = lab.body(1.0);
    let answer = lab.put_report(&first, &tasks[0].1, &nonsense, &body).await;
    assert_eq!(answer, (422, "malformed".to_string()));
    for ((worker, task), (device, energy)) in tasks[1..]
        .iter()
        .zip([(Some("numpy"), None), (Some("libtorch:cuda:0"), Some(12.5))])
    {
        let metadata = ReportMetadata {
            examples: 30,
            device: device.map(str::to_string),
            seconds: Some(0.5),
            energy_joules: energy,
            ..lab.metadata(task)
        };
        lab.coordinator.0.clock.skip(Duration::from_secs(1));
        let answer = lab.put_report(worker, task, &metadata, &body).await;
        assert_eq!(answer.0, 204, "{answer:?}");
    }
    let (_, rounds, _) = lab.finished(job).await;
    let parts = &rounds[0].contributions;
    let names: Vec<_> = parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(parts[0].worker, first.worker);
    assert_eq!(parts[0].device.as_deref(), Some("libtorch:cuda:0"));
    assert_eq!(parts[0].clients, [tasks[2].1.client]);
    assert_eq!((parts[0].examples, parts[0].seconds), (30, Some(0.5)));
    assert_eq!(
        (parts[0].energy_joules, parts[1].energy_joules),
        (Some(12.5), None)
    );
    assert_eq!(rounds[0].energy_joules, Some(12.5));

    let job = lab
        .submit(|spec| {
            spec.limits.min_updates = 2;
            spec.limits.max_attempts = 1;
        })
        .await;
    let task = lab.poll(&first, Vec::new()).await;
    lab.report(&first, &task).await;
    let task = lab.poll(&second, Vec::new()).await;
    lab.coordinator
        .handle(
            Peer::InProcess,
            Request::TaskFailed {
                credentials: second,
                job,
                round: task.round,
                client: task.client,
                reason: "out of memory".to_string(),
            },
        )
        .await;
    let ended = tokio::time::timeout(LIMIT, lab.coordinator.wait(&HERE, job)).await;
    assert_eq!(ended.unwrap().unwrap().phase, "failed");
    let rounds = lab
        .coordinator
        .rounds(&HERE, job, RoundId(0))
        .await
        .unwrap();
    assert!(rounds[0].abandoned.is_some() && rounds[0].contributions.is_empty());
    assert_eq!(rounds[0].energy_joules, None);
}

#[tokio::test]
async fn data_is_dealt_by_measured_speeds_between_rounds_and_at_the_next_jobs_start() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let (fast, slow) = (lab.worker("fast").await, lab.worker("slow").await);
    let job = lab.submit_measured(4).await;
    // Nobody has been measured: by GPUs, of which nobody has one.
    assert_eq!(lab.train(&fast, 400.0).await, (50, 0));
    assert_eq!(lab.train(&slow, 100.0).await, (50, 0));
    // Before the second round, the data is dealt again.
    assert_eq!(lab.train(&fast, 400.0).await, (80, 1));
    assert_eq!(lab.speeds().await, [Some(400.0), Some(100.0)]);
    // Within its speed's usual ups and downs: not worth it.
    assert_eq!(lab.train(&slow, 110.0).await, (20, 1));
    assert_eq!(lab.train(&fast, 400.0).await, (80, 1));
    assert_eq!(lab.train(&slow, 695.0).await, (20, 1));
    // (105 + 695) / 2 = 400, the same as the other's.
    assert_eq!(lab.train(&fast, 400.0).await, (50, 2));
    assert_eq!(lab.train(&slow, 100.0).await, (50, 2));
    let (_, rounds, _) = lab.finished(job).await;
    assert!(rounds.iter().all(|record| record.version.is_some()));
    let dealt: Vec<_> = lab
        .coordinator
        .log(job)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|entry| match entry.event {
            JobEvent::Dealt { round, examples } => Some((round.0, examples)),
            _ => None,
        })
        .collect();
    assert_eq!(dealt, [(2, vec![80, 20]), (4, vec![50, 50])]);
    // The next job on the same model and dataset begins with what is known: 400 and (400 + 100) / 2.
    let job = lab.submit_measured(1).await;
    assert_eq!(lab.train(&fast, 400.0).await, (61, 0));
    assert_eq!(lab.train(&slow, 250.0).await, (39, 0));
    lab.finished(job).await;
}

#[tokio::test]
async fn a_claimed_speed_counts_as_eight_times_the_median_and_the_record_says_so() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let (liar, honest) = (lab.worker("liar").await, lab.worker("honest").await);
    let job = lab.submit_measured(2).await;
    assert_eq!(lab.train(&liar, 1e9).await, (50, 0));
    assert_eq!(lab.train(&honest, 100.0).await, (50, 0));
    // 800 to 100, of 100 examples.
    assert_eq!(lab.train(&liar, 1e9).await, (88, 1));
    assert_eq!(lab.train(&honest, 100.0).await, (12, 1));
    let (_, rounds, _) = lab.finished(job).await;
    let notes = &rounds[0].not_counted;
    assert_eq!(notes.len(), 1, "{notes:?}");
    let expected =
        "examples a second is more than 8 times from the round's median of 100: it counts as 800";
    assert!(notes[0].reason.ends_with(expected), "{notes:?}");
}

#[tokio::test]
async fn while_a_worker_has_not_been_measured_the_data_stays_as_it_was_dealt() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let (fast, silent) = (lab.worker("fast").await, lab.worker("silent").await);
    let job = lab.submit_measured(2).await;
    for _ in 0..2 {
        assert_eq!(lab.train(&fast, 400.0).await, (50, 0));
        let task = lab.poll(&silent, Vec::new()).await;
        assert_eq!(lab.report(&silent, &task).await.0, 204);
    }
    lab.finished(job).await;
    assert_eq!(lab.speeds().await, [Some(400.0), None]);
}

#[tokio::test]
async fn a_worker_with_many_clients_for_each_slot_gets_less_for_each() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let mut registration = lab.registration("two slots");
    registration.slots = 2;
    let wide = lab.register(registration).await.unwrap();
    let narrow = lab.worker("one slot").await;
    let measured = [(&wide, 100.0), (&narrow, 300.0)];
    {
        let mut state = lab.coordinator.state();
        for (worker, speed) in measured {
            let info = state.roster.info_mut(worker.worker).unwrap();
            let mut measure = crate::coordinator::speed::Measured::default();
            measure.add(speed as u64, Some(1.0));
            info.speeds.note("noop", "noop", measure);
        }
    }
    // Of five clients, four go to the two slots and one to the other: 100 / 2 for each of the four, and 300.
    let job = lab
        .submit(|spec| {
            spec.clients = Some(5);
            spec.partition = MEASURED;
            spec.limits.min_workers = 2;
        })
        .await;
    let state = || lab.coordinator.state();
    let started = async {
        while state().job(job).unwrap().partitions.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, started).await.unwrap();
    let state = state();
    let job = state.job(job).unwrap();
    let machine = job.machine.as_ref().unwrap();
    for (client, partition) in job.partitions.iter().enumerate() {
        let Partition::Indices(indices) = partition else {
            panic!("{partition:?}");
        };
        let holder = machine.lease(ClientId(client as u32));
        let expected: usize = if holder == Some(wide.worker) { 10 } else { 60 };
        let off = indices.len().abs_diff(expected);
        assert!(
            off <= 1,
            "{} for client {client} of {holder:?}",
            indices.len()
        );
    }
}

/// [`NoopTrainers`] that take their time for each example.
struct Slow(NoopTrainers, Duration);

struct SlowTrainer(Box<dyn LocalTrainer>, Duration);

impl TrainerFactory for Slow {
    fn trainer(&self, job: &JobDescription) -> Result<Box<dyn LocalTrainer>, TrainError> {
        Ok(Box::new(SlowTrainer(self.0.trainer(job)?, self.1)))
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
}

impl LocalTrainer for SlowTrainer {
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        let update = self.0.train(global, task, context)?;
        std::thread::sleep(self.1 * update.examples as u32);
        Ok(update)
    }

    fn evaluate(
        &mut self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError> {
        self.0.evaluate(global, task, context)
    }

    fn device(&self) -> Option<String> {
        Some(format!("{:?} an example", self.1))
    }
}

#[tokio::test]
async fn workers_of_unlike_speed_are_soon_ready_together_and_read_their_new_partitions() {
    let trainers = NoopTrainers::new(SIZE, 1000).unwrap();
    let coordinator = Coordinator::builder(Arc::new(trainers.clone())).start();
    let spec = JobSpec {
        rounds: 4,
        clients: Some(2),
        partition: MEASURED,
        evaluation: EvaluationMode::Never,
        ..trainers.job()
    };
    let mut spec = spec;
    (spec.limits.min_workers, spec.limits.min_updates) = (2, 2);
    let job = coordinator.submit(&HERE, spec, None).await.unwrap().job;
    let mut workers = tokio::task::JoinSet::new();
    for micros in [20, 400] {
        let slow = Slow(trainers.clone(), Duration::from_micros(micros));
        let transport = InProcess::new(Arc::new(coordinator.clone()));
        let worker = Worker::new(transport, Arc::new(slow), WorkerConfig::default());
        workers.spawn(worker.run(std::future::pending()));
    }
    let ended = tokio::time::timeout(LIMIT, coordinator.wait(&HERE, job)).await;
    assert_eq!(ended.unwrap().unwrap().phase, "completed");
    let rounds = coordinator.rounds(&HERE, job, RoundId(0)).await.unwrap();
    for record in &rounds {
        let examples: Vec<_> = record
            .contributions
            .iter()
            .map(|part| part.examples)
            .collect();
        assert_eq!(examples.iter().sum::<u64>(), 1000, "{examples:?}");
        assert!(
            record
                .contributions
                .iter()
                .all(|part| part.seconds.is_some())
        );
    }
    let last = &rounds[3].contributions;
    let of = |device: &str| {
        let is_it = |part: &&crate::protocol::Contribution| part.device.as_deref() == Some(device);
        last.iter().find(is_it).unwrap().examples
    };
    let (fast, slow) = (of("20µs an example"), of("400µs an example"));
    assert!(fast > 3 * slow, "{fast} and {slow} examples");
}
