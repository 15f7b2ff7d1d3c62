//! Coordinators and workers that abort before and after each durable step, once for each (feature `testing`).
//!
//! First a run is left in peace, and notes the steps that it takes. Then there is a run for each site that it has visited, and for
//! each side of it: the process aborts there, is started again, and all must be as if it had not.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use fedavg::{
    disk,
    ids::JobId,
    protocol::{JobSummary, LoggedEvent},
};

use super::{
    checks,
    plan::JobPlan,
    process::LIMIT,
    site::{Program, Setup, Site, steps_file},
};

/// How many runs there are at once. They mostly wait.
const AT_ONCE: usize = 3;

/// How long a line is waited for before it is looked whether a process has aborted.
const MOMENT: Duration = Duration::from_millis(50);

/// Where a process aborts: `SITE:SIDE:N`, as `FEDAVG_ABORT_AT` has it. A process that is started again takes the next one.
#[derive(Debug, Clone, Default)]
struct Aborts {
    coordinator: Vec<String>,
    worker: Vec<String>,
}

impl Aborts {
    fn of(program: Program, points: &[&str]) -> Self {
        let points = points.iter().map(|point| point.to_string()).collect();
        let mut aborts = Self::default();
        match program {
            Program::Coordinator => aborts.coordinator = points,
            Program::Worker => aborts.worker = points,
        }
        aborts
    }

    fn count(&self) -> usize {
        self.coordinator.len() + self.worker.len()
    }
}

/// How often each site was visited.
type Visits = BTreeMap<String, usize>;

/// Sites that are visited only by a start after an abort, each with the point of that abort.
const AT_THE_START: [(&str, &str); 5] = [
    ("report.old.remove", "report.rename:after:1"),
    ("report.old.round.remove", "report.rename:after:1"),
    ("report.old.job.remove", "report.rename:after:1"),
    ("model.old.version.remove", "model.version.rename:after:2"),
    ("model.old.job.remove", "model.version.rename:after:1"),
];

/// Sites that no coordinator and no worker of these runs visits, each with the reason.
const NOT_VISITED: [(&str, &str); 22] = [
    (
        "model.version.back.rename",
        "only after an error of the disk",
    ),
    ("model.job.remove", "only after an error of the disk"),
    ("model.old.version.rename", "a version is published once"),
    ("log.write", "with a folder, the journal has the logs"),
    ("log.remove", "with a folder, the journal has the logs"),
    (
        "log.folder.remove",
        "with a folder, the journal has the logs",
    ),
    ("log.old.remove", "with a folder, the journal has the logs"),
    ("import.file.sync", "`copy_kill_points` has it"),
    ("import.tree.sync", "`copy_kill_points` has it"),
    ("import.rename", "`copy_kill_points` has it"),
    ("import.folder.sync", "`copy_kill_points` has it"),
    ("import.remove", "`copy_kill_points` has it"),
    ("export.remove", "`copy_kill_points` has it"),
    ("worker.part.remove", "only after an error of the disk"),
    (
        "worker.client.remove",
        "only of a strategy that clears a client's state",
    ),
    ("output.sync", "`copy_kill_points` has it"),
    ("output.rename", "`copy_kill_points` has it"),
    (
        "output.remove",
        "an operator's command, which is given again",
    ),
    (
        "dataset.sync",
        "an operator's command, which is given again",
    ),
    (
        "dataset.folder.sync",
        "an operator's command, which is given again",
    ),
    (
        "dataset.rename",
        "an operator's command, which is given again",
    ),
    (
        "dataset.remove",
        "an operator's command, which is given again",
    ),
];

/// The site that a coordinator visits on a folder of version 0.1.
const OLD_FOLDER: &str = "folder.aside.rename";

#[test]
fn what_aborts_before_or_after_any_step_goes_on_and_ends_in_the_same_model() {
    let start = Instant::now();
    let visits = peaceful_run();
    let mut points = Vec::new();
    for (program, visits) in &visits {
        for (site, count) in visits {
            for side in ["before", "after"] {
                // In the midst of the run.
                let point = format!("{site}:{side}:{}", count.div_ceil(2));
                points.push(Aborts::of(*program, &[&point]));
            }
        }
    }
    for (site, first) in AT_THE_START {
        for side in ["before", "after"] {
            let second = format!("{site}:{side}:1");
            points.push(Aborts::of(Program::Coordinator, &[first, &second]));
        }
    }
    for side in ["before", "after"] {
        let point = format!("{OLD_FOLDER}:{side}:1");
        points.push(Aborts::of(Program::Coordinator, &[&point]));
    }
    let runs = points.len();
    let points = Mutex::new(VecDeque::from(points));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = points.lock().unwrap().pop_front();
                    let Some(aborts) = next else {
                        return;
                    };
                    kept_if_it_fails(&aborts);
                }
            });
        }
    });
    println!(
        "{runs} runs with an abort each in {} s",
        start.elapsed().as_secs()
    );
}

/// The run without an abort: the sites that it visits, which are all but those that are named above.
fn peaceful_run() -> BTreeMap<Program, Visits> {
    let folder = tempfile::tempdir().unwrap();
    let visits = run(folder.path(), &Aborts::default());
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for visits in visits.values() {
        seen.extend(visits.keys().map(String::as_str));
    }
    let mut expected: BTreeSet<&str> = disk::Site::ALL.iter().map(|site| site.name()).collect();
    for (site, _) in NOT_VISITED.iter().chain(&AT_THE_START) {
        assert!(expected.remove(site), "{site}");
    }
    expected.remove(OLD_FOLDER);
    assert_eq!(seen, expected);
    visits
}

/// A run; its folder stays if it fails.
fn kept_if_it_fails(aborts: &Aborts) {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let ran = catch_unwind(AssertUnwindSafe(|| run(folder.path(), aborts)));
    if let Err(panic) = ran {
        let folder = folder.keep();
        eprintln!(
            "{aborts:?}: what the processes left is in {}",
            folder.display()
        );
        resume_unwind(panic);
    }
    println!("{aborts:?}: {} ms", start.elapsed().as_millis());
}

/// Two jobs, the second of which waits for the first, which is deleted; then a third one. Returns the visits.
fn run(folder: &Path, aborts: &Aborts) -> BTreeMap<Program, Visits> {
    let state = folder.join("coordinator");
    let is_old = aborts
        .coordinator
        .iter()
        .any(|at| at.starts_with(OLD_FOLDER));
    if is_old {
        fs::create_dir_all(state.join("models/job-9/v3")).unwrap();
    }
    let setup = Setup {
        expiry: 20,
        slots: 1,
        // Reports are short, and so are the parts that are synced, and what can be gone on with.
        arguments: "--max-running 1 --sync-every 1024 --resume-uploads-from 1024".to_string(),
        coordinator_aborts: aborts.coordinator.clone().into(),
        worker_aborts: aborts.worker.clone().into(),
    };
    let mut site = Site::begin(folder, setup);
    site.revive();
    site.add_workers(1);
    registered(&mut site);
    let plans = [
        JobPlan::new("top_k:0.05 --strategy scaffold", 2, 2, 3, 1, 3),
        JobPlan::new("int8 --model-encoding f16", 2, 2, 2, 1, 4),
    ];
    let mut jobs = Vec::new();
    for plan in &plans {
        jobs.push(submitted(&mut site, plan, jobs.len()));
    }
    let mut seen = Vec::new();
    for job in &jobs {
        seen.push(watched(&mut site, *job));
    }
    for ((job, plan), seen) in jobs.iter().zip(&plans).zip(&seen) {
        site.revive();
        checks::results(&site, *job, plan, seen);
    }
    deleted(&mut site, jobs[0]);
    // With the tasks of another job, the worker removes what it has kept of the deleted one. Only then does it leave at its end.
    let last = submitted(&mut site, &plans[1], 1);
    watched(&mut site, last);
    site.revive();
    let aborted = stop(site);
    assert_eq!(aborted, aborts.count(), "aborts");
    checks::left_behind(folder, &[(jobs[1], &plans[1])]);
    assert!(!state.join("models/job-1").exists());
    assert_eq!(state.join("models-of-0.1/job-9/v3").is_dir(), is_old);
    visits(folder)
}

/// Waits until the coordinator, which has not answered, has ended.
fn has_aborted(site: &mut Site) {
    let start = Instant::now();
    while !site.coordinator.has_ended() {
        assert!(start.elapsed() < LIMIT, "it does not answer, and runs");
        thread::yield_now();
    }
    site.revive();
}

/// Waits until the worker is registered.
fn registered(site: &mut Site) {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < LIMIT, "the worker is not registered");
        site.revive();
        let lines = ["registered", "goes on as the worker"];
        let worker = &mut site.workers[0].process;
        if worker.err.within(MOMENT, &lines).is_some() {
            return;
        }
    }
}

/// Submits the job of this index, once.
fn submitted(site: &mut Site, plan: &JobPlan, index: usize) -> JobId {
    loop {
        site.revive();
        if let Ok(job) = site.try_submit(plan, 1) {
            return job;
        }
        has_aborted(site);
        // It may have been written down, and only its answer was lost.
        let jobs = site.operator("status --json");
        let jobs: Vec<JobSummary> = serde_json::from_str(&jobs.out).unwrap();
        if let Some(summary) = jobs.get(index) {
            return summary.job;
        }
    }
}

/// Watches a job to its end.
fn watched(site: &mut Site, job: JobId) -> Vec<LoggedEvent> {
    let mut watch = site.begin_watch(job);
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < LIMIT, "job {job} does not end");
        site.revive();
        if watch.has_ended() {
            let finished = watch.remains();
            if finished.code == Some(0) {
                return checks::events(&finished.out);
            }
            // Nobody listened when it began.
            assert!(finished.out.is_empty(), "{finished:?}");
            watch = site.begin_watch(job);
        }
        // Until something happens, or something has aborted.
        let lines = ["round committed", "the job"];
        site.coordinator.err.within(MOMENT, &lines);
    }
}

/// Deletes a job, whatever comes between.
fn deleted(site: &mut Site, job: JobId) {
    loop {
        site.revive();
        let deleted = site.operator(&format!("delete {job}"));
        if deleted.code == Some(0) || deleted.err.contains("no job") {
            return;
        }
        has_aborted(site);
    }
}

/// Ctrl-C for the worker and then for the coordinator. One that aborts at its end is started and ended once more. How many have
/// aborted in all.
fn stop(mut site: Site) -> usize {
    loop {
        site.revive();
        site.workers[0].process.interrupt();
        let left = site.workers[0].process.remains();
        if left.code == Some(0) {
            break;
        }
        site.count_abort(&left);
        site.workers.clear();
        site.add_workers(1);
        registered(&mut site);
    }
    site.workers.clear();
    loop {
        site.revive();
        site.coordinator.interrupt();
        let stopped = site.coordinator.remains();
        if stopped.code == Some(0) {
            return site.aborted;
        }
        // `revive` counts it.
        assert_eq!(stopped.code, None, "{stopped:#?}");
    }
}

fn visits(folder: &Path) -> BTreeMap<Program, Visits> {
    let mut all = BTreeMap::new();
    for program in [Program::Coordinator, Program::Worker] {
        let steps = fs::read_to_string(steps_file(folder, program)).unwrap();
        let mut visits = Visits::new();
        for site in steps.lines() {
            *visits.entry(site.to_string()).or_default() += 1;
        }
        all.insert(program, visits);
    }
    all
}
