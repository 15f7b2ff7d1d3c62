//! Personal tensors follow what was folded, as a client's state does, and their clients stay with the worker that has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::StreamExt;

use super::{
    basis::{ABANDONED, Faulty},
    *,
};
use crate::{
    ids::{CoordinatorId, ModelVersion},
    job::{JobDescription, StrategySpec},
    parameters::{Layout, Role},
    protocol::DatasetInfo,
    round::{Evaluation, JobEvent},
    transport::{InProcess, Transport, TransportError},
    worker::{
        Backoff, ClientContext, EvalTask, LocalTrainer, LocalUpdate, TrainError, TrainTask, Worker,
        WorkerConfig,
    },
};

/// What a trainer was given of a client: the value of its personal tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    /// Of training; of an evaluation none.
    round: Option<u64>,
    /// That is evaluated, or trained from.
    version: u64,
    client: u32,
    worker: usize,
    head: f32,
}

type Notes = Arc<Mutex<Vec<Seen>>>;

/// Trainers whose clients add 1 to their own tensor each time that they train.
#[derive(Clone)]
struct Counting {
    inner: NoopTrainers,
    worker: usize,
    notes: Notes,
    can: bool,
    /// From this round on it does not train until it may.
    waits: Option<(u64, Arc<AtomicBool>)>,
}

struct CountingTrainer(Counting, Box<dyn LocalTrainer>);

fn counting(worker: usize, notes: &Notes) -> Counting {
    let layout = Layout::new([
        ("body".to_string(), vec![5], Role::Trainable),
        ("head".to_string(), vec![1], Role::Trainable),
    ]);
    Counting {
        inner: NoopTrainers::with_layout(layout.unwrap(), 100),
        worker,
        notes: notes.clone(),
        can: true,
        waits: None,
    }
}

impl TrainerFactory for Counting {
    fn trainer(&self, job: &JobDescription) -> Result<Box<dyn LocalTrainer>, TrainError> {
        let inner = self.inner.trainer(job)?;
        Ok(Box::new(CountingTrainer(self.clone(), inner)))
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
        if self.can {
            self.inner.capabilities()
        } else {
            Vec::new()
        }
    }
}

impl CountingTrainer {
    fn note(
        &self,
        global: &Parameters,
        round: Option<u64>,
        version: ModelVersion,
        client: ClientId,
    ) {
        self.0.notes.lock().unwrap().push(Seen {
            round,
            version: version.0,
            client: client.0,
            worker: self.0.worker,
            head: global.tensor("head").unwrap()[0],
        });
    }
}

impl LocalTrainer for CountingTrainer {
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        if let Some((from, may)) = &self.0.waits
            && task.round.0 >= *from
        {
            while !may.load(Ordering::SeqCst) && !context.is_cancelled() {
                std::thread::yield_now();
            }
        }
        self.note(global, Some(task.round.0), task.version, task.client);
        let mut update = self.1.train(global, task, context)?;
        let place = global.layout().find("head").unwrap().range();
        update.parameters.values_mut()[place.start] = global.values()[place.start] + 1.0;
        Ok(update)
    }

    fn evaluate(
        &mut self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError> {
        self.note(global, None, task.version, context.client);
        self.1.evaluate(global, task, context)
    }
}

/// A transport that tells the coordinator's identity, which a worker with a folder asks for.
struct Telling {
    inner: InProcess<Coordinator>,
    identity: CoordinatorId,
}

impl Transport for Telling {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        self.inner.send(request).await
    }

    async fn coordinator(&self) -> Result<Option<CoordinatorId>, TransportError> {
        Ok(Some(self.identity.clone()))
    }
}

fn start(
    coordinator: &Coordinator,
    name: &str,
    trainers: Counting,
    folder: Option<&std::path::Path>,
) -> JoinHandle<()> {
    let mut config = WorkerConfig::new(name);
    config.backoff = Backoff {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(5),
    };
    config.state_dir = folder.map(Into::into);
    let transport = Telling {
        inner: InProcess::new(Arc::new(coordinator.clone())),
        identity: coordinator.0.identity.clone(),
    };
    let worker = Worker::new(transport, Arc::new(trainers), config);
    tokio::spawn(async move {
        worker.run(std::future::pending()).await.unwrap();
    })
}

fn coordinator(notes: &Notes) -> Coordinator {
    let config = CoordinatorConfig {
        workers: WorkerLimits {
            expiry: Duration::from_millis(300),
            heartbeat: Duration::from_millis(50),
            ..WorkerLimits::default()
        },
        ..CoordinatorConfig::default()
    };
    Coordinator::builder(Arc::new(counting(9, notes)))
        .config(config)
        .strategy("faulty", |_, _| Ok(Faulty))
        .start()
}

fn spec(notes: &Notes, rounds: u32, clients: u32) -> JobSpec {
    let mut spec = JobSpec {
        rounds,
        clients: Some(clients),
        personal: vec!["head".to_string()],
        ..counting(9, notes).inner.job()
    };
    spec.limits.min_workers = 2;
    spec
}

/// How often each client was folded up to a round.
fn folded(records: &[RoundRecord], up_to: u64) -> BTreeMap<u32, f32> {
    let mut counts = BTreeMap::new();
    for record in records.iter().filter(|record| record.round.0 <= up_to) {
        for client in &record.folded {
            *counts.entry(client.0).or_insert(0.0) += 1.0;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_is_not_folded_leaves_no_trace_in_a_clients_tensors_or_evaluations() {
    let notes = Notes::default();
    let coordinator = coordinator(&notes);
    let _workers = [0, 1].map(|worker| {
        start(
            &coordinator,
            &format!("worker-{worker}"),
            counting(worker, &notes),
            None,
        )
    });
    let mut spec = spec(&notes, 9, 4);
    spec.strategy = StrategySpec::custom("faulty", Default::default());
    let job = coordinator.submit(&HERE, spec, None).await.unwrap().job;
    let summary = tokio::time::timeout(LIMIT, coordinator.wait(&HERE, job)).await;
    let summary = summary.unwrap().unwrap();
    assert_eq!(summary.phase, "completed", "{}", summary.detail);
    let records = coordinator.rounds(&HERE, job, RoundId(0)).await.unwrap();
    let abandoned = records.iter().filter(|record| record.abandoned.is_some());
    assert!(abandoned.map(|record| record.round.0).eq(ABANDONED));
    assert!(records.iter().any(|record| !record.excluded.is_empty()));
    let round_of: BTreeMap<u64, u64> = records
        .iter()
        .filter_map(|record| Some((record.version?.0, record.round.0)))
        .collect();
    let notes = notes.lock().unwrap().clone();
    let evaluations = notes.iter().filter(|seen| seen.round.is_none()).count();
    assert_eq!(evaluations, 9 * 4, "each client evaluates each version");
    for seen in notes.iter() {
        // What was folded before the round, or up to the version.
        let up_to = seen
            .round
            .map_or_else(|| round_of[&seen.version], |round| round - 1);
        let expected = folded(&records, up_to).get(&seen.client).copied();
        assert_eq!(seen.head, expected.unwrap_or(0.0), "{seen:?}");
    }
    for record in &records {
        assert!(record.state_lost.is_empty(), "{record:?}");
        assert_eq!(record.test_accuracy, record.version.map(|_| 0.5));
    }
    let model = coordinator.model(&HERE, job, None).await.unwrap();
    assert_eq!(model.tensor("head"), Some([0.0].as_slice()));
    assert!(model.tensor("body").unwrap()[0] > 0.0);
}

/// What is known of a job whose worker 1 was killed, and started again later: with its folder, or without.
struct Killed {
    records: Vec<RoundRecord>,
    seen: Vec<Seen>,
    /// The workers that had each client's lease.
    holders: BTreeMap<ClientId, BTreeSet<u64>>,
    returned: usize,
}

async fn killed(keeps_folder: bool) -> Killed {
    let notes = Notes::default();
    let coordinator = coordinator(&notes);
    let base = tempfile::tempdir().unwrap();
    let folder = keeps_folder.then(|| base.path());
    let (mut first, mut second) = (counting(0, &notes), counting(1, &notes));
    let [may_go_on, may_end] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    first.waits = Some((5, may_go_on.clone()));
    second.waits = Some((4, may_end.clone()));
    let _first = start(&coordinator, "worker-0", first, None);
    let mut second = start(&coordinator, "worker-1", second, folder);
    let mut spec = spec(&notes, 12, 4);
    spec.evaluation = EvaluationMode::Never;
    let job = coordinator.submit(&HERE, spec, None).await.unwrap().job;
    let mut events = coordinator.events(&HERE, job, 0).await.unwrap();
    let (mut holders, mut returned) = (BTreeMap::<_, BTreeSet<u64>>::new(), 0);
    let (mut is_paused, mut back) = (false, 0);
    let follow = async {
        while let Some(event) = events.next().await {
            match event.unwrap().event {
                JobEvent::Leased { client, to, .. } => {
                    let of_client = holders.entry(client).or_default();
                    of_client.extend(to.map(|worker| worker.0));
                    back += usize::from(is_paused && to.is_some());
                    if back == 2 {
                        coordinator.pause(&HERE, job, false).await.unwrap();
                    }
                }
                JobEvent::WorkerReturned { name, .. } => {
                    assert_eq!(name, "worker-1");
                    returned += 1;
                }
                // It has not trained in this round: it waits until it may.
                JobEvent::RoundStarted { round, cohort, .. } if round.0 == 4 => {
                    assert_eq!(cohort.len(), 4);
                    second.abort();
                    let _ = (&mut second).await;
                    may_end.store(true, Ordering::SeqCst);
                }
                // Round 4 ended without its clients, which have no worker now. The other worker waits in this round.
                JobEvent::RoundStarted { round, cohort, .. } if round.0 == 5 => {
                    assert_eq!(cohort.len(), 2, "its clients moved");
                    coordinator.pause(&HERE, job, true).await.unwrap();
                    is_paused = true;
                    second = start(&coordinator, "worker-1", counting(2, &notes), folder);
                    may_go_on.store(true, Ordering::SeqCst);
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, follow).await.expect("an end");
    let summary = coordinator.job(&HERE, job).await.unwrap();
    assert_eq!(summary.phase, "completed", "{}", summary.detail);
    let records = coordinator.rounds(&HERE, job, RoundId(0)).await.unwrap();
    let seen = notes.lock().unwrap().clone();
    Killed {
        records,
        seen,
        holders,
        returned,
    }
}

/// The clients of worker 1, which no other worker has ever trained.
fn of_the_second(killed: &Killed) -> Vec<ClientId> {
    let mut names: BTreeMap<ClientId, BTreeSet<&str>> = BTreeMap::new();
    for part in killed
        .records
        .iter()
        .flat_map(|record| &record.contributions)
    {
        for client in &part.clients {
            names.entry(*client).or_default().insert(&part.name);
        }
    }
    assert!(names.values().all(|names| names.len() == 1), "{names:?}");
    let of_second = names.iter().filter(|(_, names)| names.contains("worker-1"));
    let clients: Vec<_> = of_second.map(|(client, _)| *client).collect();
    assert_eq!(clients.len(), 2, "{names:?}");
    let last = killed.records.last().unwrap();
    assert_eq!(last.folded.len(), 4, "they came back");
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_a_lost_worker_wait_for_it_and_go_on_with_their_tensors() {
    let killed = killed(true).await;
    of_the_second(&killed);
    // It is the worker that it was: no lease ever went to another one.
    assert!(
        killed.holders.values().all(|of| of.len() == 1),
        "{:?}",
        killed.holders
    );
    assert_eq!(killed.returned, 0);
    for record in &killed.records {
        assert!(record.state_lost.is_empty(), "{record:?}");
    }
    for seen in &killed.seen {
        let before = folded(&killed.records, seen.round.unwrap() - 1);
        let expected = before.get(&seen.client).copied().unwrap_or(0.0);
        assert_eq!(seen.head, expected, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_comes_back_without_its_folder_gets_its_clients_and_the_record_names_them() {
    let killed = killed(false).await;
    let clients = of_the_second(&killed);
    assert_eq!(killed.returned, 1);
    for (client, holders) in &killed.holders {
        let expected = if clients.contains(client) { 2 } else { 1 };
        assert_eq!(holders.len(), expected, "{:?}", killed.holders);
    }
    let lost: Vec<_> = killed
        .records
        .iter()
        .filter(|record| !record.state_lost.is_empty())
        .collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(lost[0].state_lost, clients);
    let first = killed.seen.iter().filter(|seen| seen.worker == 2);
    let first: Vec<_> = first.take(2).map(|seen| seen.head).collect();
    assert_eq!(first, [0.0, 0.0], "from the initial model");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_can_not_keep_personal_tensors_is_passed_over() {
    let notes = Notes::default();
    let coordinator = coordinator(&notes);
    let mut unable = counting(0, &notes);
    unable.can = false;
    let mut spec = spec(&notes, 2, 2);
    spec.limits.min_workers = 1;
    let job = coordinator.submit(&HERE, spec, None).await.unwrap().job;
    let _unable = start(&coordinator, "worker-0", unable, None);
    let mut events = coordinator.events(&HERE, job, 0).await.unwrap();
    let told = async {
        while let Some(event) = events.next().await {
            if let JobEvent::WorkerPassedOver { lacks, .. } = event.unwrap().event {
                return lacks;
            }
        }
        panic!("it was not passed over");
    };
    let told = tokio::time::timeout(LIMIT, told).await.unwrap();
    assert_eq!(told, "the capability tensors:personal");
    let _able = start(&coordinator, "worker-1", counting(1, &notes), None);
    let summary = tokio::time::timeout(LIMIT, coordinator.wait(&HERE, job)).await;
    assert_eq!(summary.unwrap().unwrap().phase, "completed");
    assert!(notes.lock().unwrap().iter().all(|seen| seen.worker == 1));
}

#[tokio::test]
async fn what_the_model_does_not_have_is_refused_with_the_names_that_it_has() {
    let notes = Notes::default();
    let coordinator = coordinator(&notes);
    for (personal, frozen, expected) in [
        (vec!["hed"], vec![], "personal has the pattern \"hed\""),
        (vec![], vec!["*.bias"], "frozen has the pattern \"*.bias\""),
        (vec!["head"], vec!["*"], "both match the tensor \"head\""),
        (vec!["head"], vec!["body"], "leave no trainable tensor"),
    ] {
        let mut spec = spec(&notes, 1, 2);
        spec.personal = personal.into_iter().map(str::to_string).collect();
        spec.frozen = frozen.into_iter().map(str::to_string).collect();
        // A model that was given is no way around it.
        for initial in [
            None,
            Some(Arc::new(
                counting(9, &notes).initial(&spec.description()).unwrap(),
            )),
        ] {
            let refused = refusal(coordinator.submit(&HERE, spec.clone(), initial).await);
            assert_eq!(refused.kind, RefusalKind::InvalidJob);
            let detail = refused.detail;
            assert!(
                detail.contains(expected) && detail.contains("\"body\", \"head\""),
                "{detail}"
            );
        }
    }
}
