//! A coordinator that ends at some moment, and the next one over the same journal and the same folder.

mod fuzz;
mod streams;

use super::*;
use crate::{
    protocol::LoggedEvent,
    round::JobEvent,
    store::{
        DataFolder, FileModels, FileSpool, FileSpoolConfig, Journal, MemoryJournal,
        journal::{Batch, Record, Stream},
    },
};

/// A place that outlives coordinators.
pub(super) struct Home {
    journal: Arc<MemoryJournal>,
    folder: Arc<DataFolder>,
    trainers: Arc<NoopTrainers>,
    root: tempfile::TempDir,
}

impl Home {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self {
            journal: Arc::default(),
            folder: DataFolder::open(root.path()).unwrap(),
            trainers: Arc::new(NoopTrainers::new(SIZE, 100).unwrap()),
            root,
        }
    }

    /// The coordinator that goes on with what is here.
    async fn start(&self) -> Lab {
        self.start_with(CoordinatorConfig::default()).await
    }

    pub(super) async fn start_with(&self, config: CoordinatorConfig) -> Lab {
        let spool = FileSpool::new(self.folder.clone(), FileSpoolConfig::default());
        let coordinator = Coordinator::builder(self.trainers.clone())
            .config(config)
            .spool(Arc::new(spool))
            .models(Arc::new(FileModels::new(self.folder.clone())))
            .recover(self.journal.clone())
            .unwrap();
        let (address, server) = serve_here(&coordinator).await;
        Lab {
            coordinator,
            address,
            trainers: self.trainers.clone(),
            spool: MemorySpool::new(0),
            _server: server,
        }
    }

    /// Adds a record that this version can't replay.
    fn append_foreign_record(&self, job: JobId) {
        let stream = Stream::Job(job);
        let streams = self.journal.streams().unwrap();
        let (_, position) = *streams.iter().find(|(found, _)| *found == stream).unwrap();
        let record = Record {
            semantics: 0,
            body: b"of another form".to_vec(),
        };
        let foreign = Batch {
            records: vec![record],
            ..Batch::default()
        };
        self.journal.append(stream, position, foreign);
    }

    /// All files of reports and models.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().unwrap() != "lock" {
                    let path = path.strip_prefix(self.root.path()).unwrap();
                    found.push(path.display().to_string());
                }
            }
        }
        found.sort();
        found
    }
}

/// As `kill -9`: nothing more is said, written or removed.
pub(super) async fn kill(lab: Lab) {
    lab.coordinator
        .0
        .stopped
        .store(true, std::sync::atomic::Ordering::SeqCst);
    lab._server.abort();
    let _ = lab._server.await;
}

async fn log(lab: &Lab, job: JobId) -> Vec<LoggedEvent> {
    lab.coordinator.log(job).await.unwrap()
}

/// A job of two rounds with two clients.
async fn submit(lab: &Lab) -> JobId {
    lab.submit(|spec| spec.rounds = 2).await
}

/// Both workers do all they are asked for, until the job ends.
pub(super) async fn finish(lab: &Lab, workers: &[&Credentials], job: JobId) -> Vec<f32> {
    loop {
        for worker in workers {
            let request = Request::Poll {
                credentials: (*worker).clone(),
                busy: Vec::new(),
                wait: Duration::ZERO,
            };
            match lab.coordinator.handle(Peer::InProcess, request).await {
                Response::Task(task) => {
                    assert_eq!(lab.report(worker, &task).await.0, 204);
                }
                Response::Idle => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        }
        if lab
            .coordinator
            .job(&HERE, job)
            .await
            .unwrap()
            .ended
            .is_some()
        {
            let (_, _, model) = lab.finished(job).await;
            return model.values().to_vec();
        }
    }
}

#[tokio::test]
async fn the_round_goes_on_with_its_reports_its_tasks_and_its_workers() {
    let home = Home::new();
    let lab = home.start().await;
    let (first, second) = (lab.worker("a").await, lab.worker("b").await);
    let job = submit(&lab).await;
    let (done, under_way) = (
        lab.poll(&first, vec![]).await,
        lab.poll(&second, vec![]).await,
    );
    assert_eq!(lab.report(&first, &done).await.0, 204);
    let before = log(&lab, job).await;
    let identity = lab.coordinator.identity().clone();
    kill(lab).await;

    let lab = home.start().await;
    assert_eq!(lab.coordinator.identity(), &identity);
    let after = log(&lab, job).await;
    assert_eq!(after[..before.len()], before);
    assert!(matches!(
        after[before.len()].event,
        JobEvent::Recovered { .. }
    ));
    assert!(
        after
            .iter()
            .zip(1..)
            .all(|(event, number)| event.sequence == number)
    );
    let summary = lab.coordinator.job(&HERE, job).await.unwrap();
    assert_eq!(
        (summary.phase.as_str(), summary.accepted),
        ("collecting", 1)
    );
    // Sent again, since its answer was lost: the same answer.
    assert_eq!(lab.report(&first, &done).await.0, 204);
    // Trained through the restart.
    assert_eq!(lab.report(&second, &under_way).await.0, 204);
    let disturbed = finish(&lab, &[&first, &second], job).await;
    let (_, rounds, _) = lab.finished(job).await;
    assert!(rounds.iter().all(|round| round.abandoned.is_none()));
    // Whose report came before the restart, and whose after it.
    let mut names: Vec<_> = rounds[0]
        .contributions
        .iter()
        .map(|part| &part.name)
        .collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);

    let undisturbed = Lab::open(CoordinatorConfig::default()).await;
    let workers = (undisturbed.worker("a").await, undisturbed.worker("b").await);
    let job = submit(&undisturbed).await;
    assert_eq!(
        disturbed,
        finish(&undisturbed, &[&workers.0, &workers.1], job).await
    );
}

#[tokio::test]
async fn what_ended_stays_and_numbers_never_repeat() {
    let home = Home::new();
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    let job = submit(&lab).await;
    let model = finish(&lab, &[&worker], job).await;
    let (summary, rounds, _) = lab.finished(job).await;
    let events = log(&lab, job).await;
    kill(lab).await;

    for _ in 0..2 {
        let lab = home.start().await;
        let (found, records, kept) = lab.finished(job).await;
        assert_eq!(found, summary);
        assert_eq!(records, rounds);
        assert_eq!(kept.values(), model);
        assert_eq!(log(&lab, job).await, events);
        let files = home.files();
        assert!(
            matches!(&files[..], [file] if file.starts_with("models/job-1/v2/")),
            "{files:?}"
        );
        kill(lab).await;
    }
    let lab = home.start().await;
    assert_eq!(submit(&lab).await, JobId(2));
    assert!(lab.worker("b").await.worker > worker.worker);
}

#[tokio::test]
async fn the_queue_goes_on_in_its_order() {
    let home = Home::new();
    let lab = home.start().await;
    let mut jobs = Vec::new();
    for _ in 0..6 {
        jobs.push(submit(&lab).await);
    }
    lab.coordinator.cancel(&HERE, jobs[5]).await.unwrap();
    kill(lab).await;
    let lab = home.start().await;
    let mut phases = Vec::new();
    for job in &jobs {
        phases.push(lab.coordinator.job(&HERE, *job).await.unwrap().phase);
    }
    assert_eq!(
        phases,
        [
            "waiting",
            "waiting",
            "waiting",
            "waiting",
            "queued",
            "cancelled"
        ]
    );
    lab.coordinator.cancel(&HERE, jobs[0]).await.unwrap();
    let next = lab.coordinator.job(&HERE, jobs[4]).await.unwrap();
    assert_eq!(next.phase, "waiting");
}

#[tokio::test]
async fn a_lost_report_costs_its_round_and_a_lost_model_the_job() {
    let home = Home::new();
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    let job = submit(&lab).await;
    let task = lab.poll(&worker, vec![]).await;
    assert_eq!(lab.report(&worker, &task).await.0, 204);
    kill(lab).await;
    let [model, report] = &home.files()[..] else {
        panic!("{:?}", home.files());
    };
    std::fs::write(home.root.path().join(report), b"damaged").unwrap();
    let lab = home.start().await;
    finish(&lab, &[&worker], job).await;
    let (summary, rounds, _) = lab.finished(job).await;
    assert_eq!(summary.phase, "completed");
    let reason = rounds[0].abandoned.as_ref().unwrap();
    assert!(reason.contains("client 0"), "{reason}");
    assert_eq!(rounds.len(), 3);

    let job = submit(&lab).await;
    kill(lab).await;
    let model = model.replace("job-1/v0", "job-2/v0");
    std::fs::remove_file(home.root.path().join(&model)).unwrap();
    let lab = home.start().await;
    let summary = lab.coordinator.job(&HERE, job).await.unwrap();
    assert_eq!(summary.phase, "failed");
    assert!(summary.detail.contains(&model), "{}", summary.detail);
}

#[tokio::test]
async fn records_of_another_version_are_not_replayed_and_cost_the_open_round_alone() {
    let home = Home::new();
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    let job = submit(&lab).await;
    for _ in 0..2 {
        let task = lab.poll(&worker, vec![]).await;
        assert_eq!(lab.report(&worker, &task).await.0, 204);
    }
    let task = lab.poll(&worker, vec![]).await;
    assert_eq!(task.round, RoundId(2));
    kill(lab).await;
    home.append_foreign_record(job);
    let lab = home.start().await;
    finish(&lab, &[&worker], job).await;
    let (summary, rounds, _) = lab.finished(job).await;
    assert_eq!(summary.phase, "completed");
    let reasons: Vec<_> = rounds.iter().map(|round| round.abandoned.clone()).collect();
    assert_eq!(reasons.iter().flatten().count(), 1, "{reasons:?}");
    assert!(reasons[1].as_ref().unwrap().contains("another version"));
}

#[tokio::test]
async fn what_comes_after_records_of_another_version_is_not_lost_with_them() {
    let home = Home::new();
    let lab = home.start().await;
    // It waits for a worker: there is no round to abandon.
    let job = submit(&lab).await;
    kill(lab).await;
    home.append_foreign_record(job);
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    let task = lab.poll(&worker, vec![]).await;
    assert_eq!(lab.report(&worker, &task).await.0, 204);
    kill(lab).await;
    let lab = home.start().await;
    let found = lab.coordinator.job(&HERE, job).await.unwrap();
    assert_eq!((found.phase.as_str(), found.accepted), ("collecting", 1));
}

#[tokio::test]
async fn a_job_that_cannot_go_on_gives_its_place_to_one_job_and_no_more() {
    let home = Home::new();
    let config = || {
        let mut config = CoordinatorConfig::default();
        config.jobs.max_running = 2;
        config
    };
    let lab = home.start_with(config()).await;
    let mut jobs = Vec::new();
    for priority in [1, 1, 1, 1, 9, 9] {
        let submitted = lab.submit(|spec| (spec.rounds, spec.priority) = (2, priority));
        jobs.push(submitted.await);
    }
    // The last two start, and two that came before them still wait.
    for job in &jobs[..2] {
        lab.coordinator.cancel(&HERE, *job).await.unwrap();
    }
    kill(lab).await;
    std::fs::remove_dir_all(home.root.path().join("models/job-5")).unwrap();
    let lab = home.start_with(config()).await;
    let mut phases = Vec::new();
    for job in &jobs[2..] {
        phases.push(lab.coordinator.job(&HERE, *job).await.unwrap().phase);
    }
    assert_eq!(phases, ["waiting", "queued", "failed", "waiting"]);
}

#[tokio::test]
async fn the_time_that_it_was_away_counts_for_no_deadline() {
    let home = Home::new();
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    let job = lab.submit(|spec| spec.limits.round_timeout = 1000).await;
    lab.poll(&worker, vec![]).await;
    let now = lab.coordinator.now();
    kill(lab).await;
    // It was last alive an hour ago.
    home.journal
        .note_time(crate::ids::Timestamp(now.0 - 3_600_000));
    let lab = home.start().await;
    let resumed = log(&lab, job).await.pop().unwrap();
    let JobEvent::Recovered { downtime_ms } = resumed.event else {
        panic!("{resumed:?}");
    };
    assert!(
        (3_600_000..3_700_000).contains(&downtime_ms),
        "{downtime_ms}"
    );
    let task = lab.poll(&worker, vec![]).await;
    let crate::protocol::TaskWork::Train { remaining_ms, .. } = task.work else {
        panic!("{task:?}");
    };
    assert!(remaining_ms > 4_000_000, "{remaining_ms}");
    assert_eq!(
        lab.coordinator.job(&HERE, job).await.unwrap().phase,
        "collecting"
    );
}

#[tokio::test]
async fn a_process_that_was_stopped_for_hours_has_missed_no_deadline_and_lost_no_worker() {
    let home = Home::new();
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    let job = lab.submit(|spec| spec.limits.round_timeout = 1000).await;
    let task = lab.poll(&worker, vec![]).await;
    for _ in 0..2 {
        lab.coordinator
            .0
            .clock
            .skip(std::time::Duration::from_secs(7200));
        // What comes first finds it out: the time keeper, or as here a worker.
        let (code, answer) = lab.report(&worker, &task).await;
        assert_eq!(code, 204, "{answer}");
    }
    let task = lab.poll(&worker, vec![]).await;
    let crate::protocol::TaskWork::Train { remaining_ms, .. } = task.work else {
        panic!("{task:?}");
    };
    assert!(remaining_ms < 1_100_000, "{remaining_ms}");
    assert_eq!(lab.coordinator.state().roster.live_count(), 1);
    // The journal knows of it, or the next process would take the round for late.
    kill(lab).await;
    let lab = home.start().await;
    let status = lab.coordinator.job(&HERE, job).await.unwrap();
    assert_eq!((status.phase.as_str(), status.round.0), ("collecting", 1));
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_go_back() {
    let home = Home::new();
    let later = crate::ids::Timestamp(home.start().await.coordinator.now().0 + 7_200_000);
    home.journal.note_time(later);
    let lab = home.start().await;
    assert!(lab.coordinator.now() >= later);
}

#[tokio::test]
async fn a_full_disk_pauses_the_round_and_costs_nothing() {
    let home = Home::new();
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    let job = submit(&lab).await;
    let first = lab.poll(&worker, vec![]).await;
    assert_eq!(lab.report(&worker, &first).await.0, 204);
    let second = lab.poll(&worker, vec![]).await;
    // Room for the second report, and not for the next model.
    let files = home.files();
    let report = files.iter().find(|file| file.ends_with(".report")).unwrap();
    let size = std::fs::metadata(home.root.path().join(report))
        .unwrap()
        .len();
    *home.folder.room.lock().unwrap() = Some(size + 20);
    assert_eq!(lab.report(&worker, &second).await.0, 204);
    let status = lab.coordinator.job(&HERE, job).await.unwrap();
    assert!(status.ended.is_none());
    *home.folder.room.lock().unwrap() = None;
    finish(&lab, &[&worker], job).await;
    let (summary, rounds, _) = lab.finished(job).await;
    assert_eq!((summary.phase.as_str(), rounds.len()), ("completed", 2));
}

#[tokio::test]
async fn a_paused_job_waits_through_a_restart_until_it_is_let_go_on() {
    let home = Home::new();
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    let job = submit(&lab).await;
    let tasks = [lab.poll(&worker, vec![]).await];
    lab.coordinator.pause(&HERE, job, true).await.unwrap();
    assert_eq!(lab.report(&worker, &tasks[0]).await.0, 204);
    let second = lab.poll(&worker, vec![]).await;
    assert_eq!(lab.report(&worker, &second).await.0, 204);
    let phase = |lab: &Lab| {
        let coordinator = lab.coordinator.clone();
        async move { coordinator.job(&HERE, job).await.unwrap().phase }
    };
    while phase(&lab).await != "paused" {
        tokio::task::yield_now().await;
    }
    kill(lab).await;
    let lab = home.start().await;
    assert_eq!(phase(&lab).await, "paused");
    lab.coordinator.pause(&HERE, job, false).await.unwrap();
    finish(&lab, &[&worker], job).await;
    let refused = refusal(lab.coordinator.pause(&HERE, job, true).await);
    assert_eq!(refused.kind, RefusalKind::Conflict);
}

#[tokio::test]
async fn a_deleted_job_is_gone_for_good_and_one_that_runs_is_not_deleted() {
    let home = Home::new();
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    let (first, second) = (submit(&lab).await, submit(&lab).await);
    let refused = refusal(lab.coordinator.delete(&HERE, second).await);
    assert_eq!(refused.kind, RefusalKind::Conflict);
    finish(&lab, &[&worker], first).await;
    finish(&lab, &[&worker], second).await;
    let deleted = lab.coordinator.delete(&HERE, first).await.unwrap();
    assert_eq!(deleted.job, first);
    assert_eq!(
        refusal(lab.coordinator.job(&HERE, first).await).kind,
        RefusalKind::UnknownJob
    );
    kill(lab).await;
    let lab = home.start().await;
    let left: Vec<_> = lab.coordinator.jobs(&HERE).await.unwrap();
    assert_eq!(left.iter().map(|job| job.job).collect::<Vec<_>>(), [second]);
    assert!(
        home.files().iter().all(|file| !file.contains("job-1/")),
        "{:?}",
        home.files()
    );
}

#[tokio::test]
async fn ended_jobs_are_kept_by_number_by_age_and_by_bytes() {
    let home = Home::new();
    let limited = |change: fn(&mut JobLimits)| {
        let mut config = CoordinatorConfig::default();
        change(&mut config.jobs);
        config
    };
    let lab = home.start().await;
    let worker = lab.worker("a").await;
    for _ in 0..3 {
        let job = submit(&lab).await;
        finish(&lab, &[&worker], job).await;
    }
    let bytes = {
        let state = lab.coordinator.state();
        state
            .jobs
            .values()
            .map(|job| job.model_bytes())
            .max()
            .unwrap()
    };
    kill(lab).await;
    type Change = fn(&mut JobLimits);
    let limits: [(Change, usize); 3] = [
        (|jobs| jobs.keep_bytes = Some(1), 1),
        (|jobs| jobs.keep_for = Some(Duration::ZERO), 1),
        (|jobs| jobs.keep = 2, 2),
    ];
    assert!(bytes > 1);
    for (change, left) in limits.into_iter().rev() {
        let lab = home.start_with(limited(change)).await;
        // Looked at when a job ends, and at each tick if there is an age.
        lab.coordinator.tick();
        let job = submit(&lab).await;
        finish(&lab, &[&worker], job).await;
        let found = lab.coordinator.jobs(&HERE).await.unwrap();
        assert_eq!(found.len(), left, "{found:#?}");
        assert_eq!(found.last().unwrap().job, job);
        kill(lab).await;
    }
}
