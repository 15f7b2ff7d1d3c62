//! What must be so after any kills.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use fedavg::{
    ids::{ClientId, JobId, RoundId},
    protocol::{LoggedEvent, RoundRecord},
    report::RefusalKind,
    round::{JobEvent, Outcome},
    telemetry::{canonical, parse_rounds},
};

use super::{
    binaries::{fedavg, model},
    plan::JobPlan,
    process::{Finished, Process},
    site::Site,
};

/// Waits for the end of a job's watch, which must have seen it complete. What it saw.
pub fn seen(watch: Process) -> Vec<LoggedEvent> {
    let Finished { code, out, err } = watch.finish();
    assert_eq!(code, Some(0), "{out}\n{err}");
    events(&out)
}

/// The entries of a log, a line for each.
pub fn events(lines: &str) -> Vec<LoggedEvent> {
    let lines = lines.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A job's results are those of an undisturbed run, and its log is whole.
pub fn results(site: &Site, job: JobId, plan: &JobPlan, seen: &[LoggedEvent]) {
    let place = site.folder.join(format!("job-{job}"));
    let results = site.operator(&format!("results {job} --output {}", place.display()));
    assert_eq!(results.code, Some(0), "{results:#?}");
    let read = |name: &str| fs::read_to_string(place.join(name)).unwrap();
    let log = events(&read("events.jsonl"));
    assert_eq!(
        log, seen,
        "job {job}: the log is not the one that was watched"
    );
    whole(&log);
    folded_once(&log, plan);
    acknowledged(site, job, &log);

    let undisturbed = undisturbed(plan);
    assert_eq!(
        records(&read("rounds.jsonl")),
        undisturbed.records,
        "job {job}: other records"
    );
    let log = canonical(&without_broken_uploads(log));
    let expected = canonical(&undisturbed.events);
    assert!(log == expected, "job {job}: other events");
    assert!(
        model(&place) == undisturbed.model,
        "job {job}: another model"
    );
}

/// What a job comes to if nothing disturbs it.
struct Undisturbed {
    records: Vec<RoundRecord>,
    events: Vec<LoggedEvent>,
    model: Vec<u8>,
}

/// Simulates a plan, once for all runs that have it.
fn undisturbed(plan: &JobPlan) -> Arc<Undisturbed> {
    static KNOWN: Mutex<BTreeMap<String, Arc<Undisturbed>>> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(undisturbed) = known().get(&plan.flags) {
        return undisturbed.clone();
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("results");
    let simulated = fedavg(&format!(
        "simulate {} --output {}",
        plan.flags,
        place.display()
    ));
    assert_eq!(simulated.code, Some(0), "{simulated:#?}");
    let read = |name: &str| fs::read_to_string(place.join(name)).unwrap();
    let undisturbed = Arc::new(Undisturbed {
        records: records(&read("rounds.jsonl")),
        events: events(&read("events.jsonl")),
        model: model(&place),
    });
    known().insert(plan.flags.clone(), undisturbed.clone());
    undisturbed
}

/// The records of rounds without what depends on time and on who trained.
fn records(lines: &str) -> Vec<RoundRecord> {
    let mut records = parse_rounds(lines).unwrap();
    for record in &mut records {
        record.seconds = 0.0;
        record.bytes = 0;
        record.contributions.clear();
        record.energy_joules = None;
    }
    records
}

/// The log without the uploads whose worker was killed in the midst of them.
fn without_broken_uploads(mut log: Vec<LoggedEvent>) -> Vec<LoggedEvent> {
    log.retain(|entry| {
        !matches!(&entry.event, JobEvent::ReportRefused { refusal, .. } if refusal.kind == RefusalKind::Truncated)
    });
    log
}

/// No entry is missing, none is there twice, and the last says that the job completed.
fn whole(log: &[LoggedEvent]) {
    let sequences = log.iter().map(|entry| entry.sequence);
    assert!(
        sequences.eq(1..=log.len() as u64),
        "entries are missing or there twice: {log:#?}"
    );
    let last = log.last().map(|entry| &entry.event);
    assert_eq!(last, Some(&JobEvent::Ended(Outcome::Completed)));
    let ends = log
        .iter()
        .filter(|entry| matches!(entry.event, JobEvent::Ended(_)));
    assert_eq!(ends.count(), 1);
}

/// Every round was committed with the report of each client of its cohort, which was accepted once.
fn folded_once(log: &[LoggedEvent], plan: &JobPlan) {
    let mut cohorts: BTreeMap<RoundId, Vec<ClientId>> = BTreeMap::new();
    let mut reports: BTreeMap<RoundId, BTreeSet<ClientId>> = BTreeMap::new();
    let mut committed = BTreeSet::new();
    for entry in log {
        match &entry.event {
            JobEvent::RoundStarted {
                round,
                cohort,
                goal,
                ..
            } => {
                assert_eq!((cohort.len(), *goal), (plan.goal, plan.goal), "{entry:?}");
                let before = cohorts.insert(*round, cohort.clone());
                assert!(before.is_none(), "round {round} began twice");
            }
            JobEvent::ReportAccepted { round, client, .. } => {
                let is_new = reports.entry(*round).or_default().insert(*client);
                assert!(is_new, "accepted twice: {entry:?}");
            }
            JobEvent::RoundCommitted {
                round,
                accepted,
                folded,
                ..
            } => {
                assert!(
                    committed.insert(*round),
                    "round {round} was committed twice"
                );
                let cohort = &cohorts[round];
                assert!(reports[round].iter().eq(cohort), "round {round}: {log:#?}");
                assert_eq!((accepted, folded), (cohort, cohort), "{entry:?}");
            }
            JobEvent::RoundAbandoned { .. } | JobEvent::ClientFailed { .. } => {
                panic!("a round lost a report: {entry:?} in {log:#?}")
            }
            _ => {}
        }
    }
    assert_eq!(cohorts.len(), committed.len());
}

/// What workers were told that it is accepted was folded.
fn acknowledged(site: &Site, job: JobId, log: &[LoggedEvent]) {
    let mut folded = BTreeSet::new();
    for entry in log {
        if let JobEvent::RoundCommitted {
            round,
            folded: clients,
            ..
        } = &entry.event
        {
            folded.extend(
                clients
                    .iter()
                    .map(|client| format!("round={round} client={client} ")),
            );
        }
    }
    let mut told = 0;
    for (_, text) in texts(&site.logs()) {
        for line in text
            .lines()
            .filter(|line| line.contains("trained and reported"))
        {
            let Some((_, report)) = line.split_once(&format!("job={job} ")) else {
                continue;
            };
            let is_folded = folded.iter().any(|folded| report.starts_with(folded));
            assert!(is_folded, "it was acknowledged and not folded: {line}");
            told += 1;
        }
    }
    assert!(told > 0, "no worker says that it reported");
}

/// Once all have ended, and their results are written: of the reports nothing is left, of each job's models the last and the
/// best, and nobody panicked.
pub fn left_behind(folder: &Path, jobs: &[(JobId, &JobPlan)]) {
    let state = folder.join("coordinator");
    let reports = files(&state.join("spool"));
    assert!(reports.is_empty(), "reports are left: {reports:?}");
    for (job, plan) in jobs {
        let models = state.join("models").join(format!("job-{job}"));
        let versions: BTreeSet<_> = fs::read_dir(&models)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut kept = BTreeSet::from([plan.last_version()]);
        let summary = folder.join(format!("job-{job}")).join("summary.json");
        let summary: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(summary).unwrap()).unwrap();
        if let Some(best) = summary["best"]["version"].as_u64() {
            kept.insert(format!("v{best}"));
        }
        assert_eq!(versions, kept, "job {job}");
    }
    for (path, text) in texts(&folder.join("logs")) {
        let is_calm = !text.contains("panicked") && !text.contains("a panic:");
        assert!(is_calm, "{}: {text}", path.display());
    }
}

/// The files of a folder and of those below it.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn texts(folder: &Path) -> Vec<(PathBuf, String)> {
    let paths = files(folder).into_iter();
    paths
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}
