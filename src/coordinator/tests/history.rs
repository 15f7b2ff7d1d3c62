//! Logs and records that are larger than their window, and lists that are read by page.

use std::{collections::BTreeSet, fs};

use futures_util::StreamExt;

use super::*;
use crate::{
    parameters::{Encoded, Payloads},
    round::JobEvent,
    store::{DataFolder, LogFiles, MemoryModels},
    transport::{InProcess, http::OperatorClient},
    worker::{Worker, WorkerConfig},
};

/// A coordinator of its own, whose logs go to a folder.
fn with_logs_in(folder: &Arc<DataFolder>, config: CoordinatorConfig) -> Lab {
    let trainers = Arc::new(NoopTrainers::new(SIZE, 100).unwrap());
    let spool = MemorySpool::new(config.uploads.spool_bytes);
    let coordinator = Coordinator::builder(trainers.clone())
        .config(config)
        .spool(Arc::new(spool.clone()))
        .models(Arc::new(MemoryModels))
        .logs(LogFiles::new(folder.clone()))
        .start();
    Lab {
        coordinator,
        address: ([127, 0, 0, 1], 0).into(),
        trainers,
        spool,
        _server: tokio::spawn(async {}),
    }
}

fn config(log_window: usize, max_page: usize) -> CoordinatorConfig {
    CoordinatorConfig {
        jobs: JobLimits {
            log_window,
            max_page,
            ..JobLimits::default()
        },
        ..CoordinatorConfig::default()
    }
}

impl Lab {
    /// A report that is refused, since it is of another version than the task's.
    async fn send_stale_report(&self, worker: &Credentials, task: &TaskMessage, delta: &Payloads) {
        let mut metadata = self.metadata(task);
        metadata.base_version = crate::ids::ModelVersion(99);
        let request = Request::Report {
            credentials: worker.clone(),
            job: task.job,
            round: task.round,
            client: task.client,
            metadata,
            body: ReportBody::Memory(delta.clone()),
        };
        match self.coordinator.handle(Peer::InProcess, request).await {
            Response::Refused(refusal) => assert_eq!(refusal.kind, RefusalKind::Stale),
            other => panic!("{other:?}"),
        }
    }

    fn delta(&self) -> Payloads {
        let description = self.trainers.job().description();
        let layout = self
            .trainers
            .initial(&description)
            .unwrap()
            .layout()
            .clone();
        let delta = Parameters::new(layout, vec![1.0; SIZE]).unwrap();
        Payloads::delta(Encoded::plain(Arc::new(delta)))
    }

    fn window_bytes(&self, job: JobId) -> usize {
        self.coordinator.state().jobs[&job]
            .history
            .events()
            .window_bytes()
    }

    /// Works until the test's end.
    fn spawn_worker(&self) {
        let transport = InProcess::new(Arc::new(self.coordinator.clone()));
        let worker = Worker::new(transport, self.trainers.clone(), WorkerConfig::new("one"));
        tokio::spawn(worker.run(std::future::pending()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_refused_reports_stays_within_the_window_and_nothing_is_dropped() {
    const REPORTS: usize = 100_000;
    const WINDOW: usize = 256 << 10;
    let lab = Lab::open(config(WINDOW, 256)).await;
    let worker = lab.worker("one").await;
    let job = lab.submit(|_| {}).await;
    let task = lab.poll(&worker, Vec::new()).await;
    let delta = lab.delta();
    let mut most = 0;
    for _ in 0..REPORTS {
        lab.send_stale_report(&worker, &task, &delta).await;
        most = most.max(lab.window_bytes(job));
    }
    // The last event may go beyond.
    assert!(most <= WINDOW + 1000, "{most}");

    let mut events = lab.coordinator.events(&HERE, job, 0).await.unwrap();
    let (mut refused, mut last) = (0, 0);
    while refused < REPORTS {
        let next = tokio::time::timeout(LIMIT, events.next()).await;
        let event = next.expect("an event in time").unwrap().unwrap();
        last += 1;
        assert_eq!(event.sequence, last);
        if let JobEvent::ReportRefused { refusal, .. } = event.event {
            assert_eq!(refusal.kind, RefusalKind::Stale);
            refused += 1;
        }
    }
    let rest = lab.coordinator.events(&HERE, job, last - 1).await.unwrap();
    let sequences = rest.take(1).map(|event| event.unwrap().sequence);
    assert_eq!(sequences.collect::<Vec<_>>().await, [last]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_complete_and_in_order_whatever_is_in_memory() {
    // Each record and each event leaves memory as soon as it can.
    let lab = Lab::open(config(0, 3)).await;
    lab.spawn_worker();
    let job = lab
        .submit(|spec| {
            spec.rounds = 20;
            spec.evaluation = EvaluationMode::Workers;
            spec.limits.min_workers = 1;
        })
        .await;
    let url = format!("http://{}", lab.address);
    let client = OperatorClient::new(&url, None, Default::default()).unwrap();
    let operators: [Arc<dyn Operator>; 2] = [Arc::new(lab.coordinator.clone()), Arc::new(client)];
    for operator in operators {
        let following = operator.records(&HERE, job, RoundId(0)).collect::<Vec<_>>();
        let followed = tokio::time::timeout(LIMIT, following).await;
        let mut followed = followed.expect("an end in time").into_iter();
        for round in 1..=20 {
            let record = followed.next().unwrap().unwrap();
            assert_eq!(record.round, RoundId(round));
            assert!(record.test_loss.is_some(), "round {round} is evaluated");
        }
        assert!(followed.next().is_none());
        let (_, all, _) = lab.finished(job).await;
        assert_eq!(all.len(), 20);
        for after in [0, 1, 2, 3, 17, 18, 19, 20] {
            let rest = operator.rounds(&HERE, job, RoundId(after)).await.unwrap();
            assert_eq!(rest, all[after as usize..]);
            let page = operator.rounds_page(&HERE, job, RoundId(after), 1000).await;
            let page = page.unwrap();
            assert!(page.entries.len() <= 3, "a page of {}", page.entries.len());
        }
        let events = operator.events(&HERE, job, 0).await.unwrap();
        let events: Vec<_> = events.map(Result::unwrap).collect().await;
        assert_eq!(events, lab.coordinator.log(job).await.unwrap());
        let ended = JobEvent::Ended(crate::round::Outcome::Completed);
        assert_eq!(events.last().unwrap().event, ended);
    }
}

#[tokio::test]
async fn lists_are_read_by_pages_of_limited_size() {
    let lab = Lab::open(config(1 << 20, 4)).await;
    let mut names = Vec::new();
    for number in 0..11 {
        names.push(format!("worker-{number}"));
        lab.worker(&names[number]).await;
        lab.submit(|_| {}).await;
    }
    let url = format!("http://{}", lab.address);
    let client = OperatorClient::new(&url, None, Default::default()).unwrap();
    let operators: [Arc<dyn Operator>; 2] = [Arc::new(lab.coordinator.clone()), Arc::new(client)];
    for operator in operators {
        let all = operator.workers(&HERE).await.unwrap();
        let found: Vec<_> = all.iter().map(|worker| &worker.registration.name).collect();
        assert_eq!(found, names.iter().collect::<Vec<_>>());
        let jobs = operator.jobs(&HERE).await.unwrap();
        let numbers: BTreeSet<_> = jobs.iter().map(|job| job.job.0).collect();
        assert_eq!((jobs.len(), numbers), (11, (1..=11).collect()));
        // Whatever is asked for, the lock is held for this many entries at most.
        let (first, third) = (all[0].worker, all[2].worker);
        let workers = operator
            .workers_page(&HERE, first, usize::MAX)
            .await
            .unwrap();
        assert_eq!(workers.entries, all[1..5]);
        assert_eq!(workers.next, Some(all[4].worker));
        let workers = operator.workers_page(&HERE, third, 2).await.unwrap();
        assert_eq!(workers.entries, all[3..5]);
        let workers = operator
            .workers_page(&HERE, all[6].worker, 4)
            .await
            .unwrap();
        assert_eq!((workers.entries.len(), workers.next), (4, None));
        let page = operator
            .jobs_page(&HERE, JobId(3), usize::MAX)
            .await
            .unwrap();
        let numbers: Vec<_> = page.entries.iter().map(|job| job.job.0).collect();
        assert_eq!((numbers, page.next), (vec![4, 5, 6, 7], Some(JobId(7))));
        let page = operator.jobs_page(&HERE, JobId(11), 1).await.unwrap();
        assert_eq!((page.entries.len(), page.next), (0, None));
    }
    let registered = lab.coordinator.state().roster.len();
    let held = lab
        .coordinator
        .list_workers(crate::ids::WorkerId(0), registered);
    assert_eq!(held.entries.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_logs_are_removed_with_their_job() {
    let root = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(root.path()).unwrap();
    let mut config = config(0, 256);
    config.jobs.keep = 1;
    let lab = with_logs_in(&folder, config);
    lab.spawn_worker();
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let job = lab.submit(|spec| spec.limits.min_workers = 1).await;
        lab.finished(job).await;
        jobs.push(root.path().join(format!("logs/job-{job}")));
    }
    // Waits for the threads that write and remove.
    let settled = async {
        while jobs[0].exists() || !jobs[1].join("events.jsonl").exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, settled)
        .await
        .expect("the files of the second job alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_on_if_its_log_can_t_be_written() {
    let root = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(root.path()).unwrap();
    fs::remove_dir(root.path().join("logs")).unwrap();
    fs::write(root.path().join("logs"), "not a folder").unwrap();
    let lab = with_logs_in(&folder, config(0, 256));
    lab.spawn_worker();
    let job = lab
        .submit(|spec| {
            spec.rounds = 10;
            spec.limits.min_workers = 1;
        })
        .await;
    let (summary, rounds, _) = lab.finished(job).await;
    assert_eq!((&*summary.phase, rounds.len()), ("completed", 10));
    let log = lab.coordinator.log(job).await.unwrap();
    let sequences: Vec<_> = log.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=log.len() as u64).collect::<Vec<_>>());
}
