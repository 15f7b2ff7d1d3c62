//! What a coordinator would go on with, and whether all of it is whole.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    contents::{Contents, JOURNAL, JobContents, NO_START},
    error::{StateDirError, failed},
    report::{KeptJob, KeptWorker, StateProblem, StateReport},
};
use crate::{
    coordinator::facts::Stage,
    ids::ModelVersion,
    round::Outcome,
    store::{DataFolder, ReadJournal, at_rest, journal::JournalError},
};

/// Looks at a state folder: reads every file that is needed, and says what a coordinator would go on with and what is damaged.
/// Nothing in the folder is made or changed. While this runs, no coordinator starts on it.
///
/// It may wait for a disk, and reads each model and report that is kept.
///
/// # Errors
///
/// [`StateDirError::InUse`] if a coordinator runs on it, [`StateDirError::NoState`] if it is no state folder, and what the
/// operating system refuses. Damage is no error; it is in [`StateReport::problems`].
pub fn check(path: impl AsRef<Path>) -> Result<StateReport, StateDirError> {
    has_state(path.as_ref())?;
    check_folder(&DataFolder::to_read_alone(path)?)
}

/// The same, of a folder that nobody else has.
pub(super) fn check_folder(folder: &Arc<DataFolder>) -> Result<StateReport, StateDirError> {
    has_state(folder.path())?;
    let contents = match read(folder) {
        Ok(contents) => contents,
        // Of another version, which can read it.
        Err(newer @ JournalError::Newer { .. }) => return Err(newer.into()),
        Err(error) => {
            let problem = match error {
                JournalError::Storage { problem, .. } | JournalError::Damaged { problem, .. } => {
                    problem.to_string()
                }
                JournalError::Lost { .. } => "it is missing or empty".to_string(),
                other => other.to_string(),
            };
            let problem = StateProblem::new(JOURNAL, problem, NO_START);
            return Ok(StateReport {
                problems: vec![problem],
                ..StateReport::default()
            });
        }
    };
    let mut report = summary(&contents);
    check_models(folder, &contents, &mut report);
    check_reports(folder, &contents, &mut report);
    // Of a journal that can't be read, nobody knows what it refers to.
    if contents.coordinator.is_some() {
        find_leftovers(folder, &contents, &mut report)?;
    }
    Ok(report)
}

/// A folder that never had a journal is another one.
pub(super) fn has_state(path: &Path) -> Result<(), StateDirError> {
    match path.join(JOURNAL).try_exists() {
        Ok(true) => Ok(()),
        Ok(false) if at_rest::had_journal(path) => Ok(()),
        Ok(false) => Err(StateDirError::NoState {
            path: path.display().to_string(),
        }),
        Err(error) => Err(failed(path, error)),
    }
}

fn read(folder: &Arc<DataFolder>) -> Result<Contents, JournalError> {
    let journal = ReadJournal::at_rest(folder.clone())?;
    // First, since what the queries below say of a damaged database leads nowhere.
    let problems = journal.problems()?;
    if !problems.is_empty() {
        let problems = problems.into_iter();
        let problems = problems.map(|problem| StateProblem::new(JOURNAL, problem, NO_START));
        return Ok(Contents {
            problems: problems.collect(),
            ..Contents::default()
        });
    }
    let mut contents = Contents::read(journal.journal())?;
    contents.read_logs(journal.journal())?;
    Ok(contents)
}

fn summary(contents: &Contents) -> StateReport {
    let mut report = StateReport {
        alive: contents.alive,
        problems: contents.problems.clone(),
        ..StateReport::default()
    };
    if let Some(kept) = &contents.coordinator {
        report.coordinator = Some(kept.identity.clone());
        report.term = kept.term;
    }
    for (worker, kept) in &contents.workers {
        report.workers.push(KeptWorker {
            worker: *worker,
            name: kept.registration.name.clone(),
            state: kept.state,
        });
    }
    for job in &contents.jobs {
        if let Some(kept) = kept_job(job) {
            report.jobs.push(kept);
        }
    }
    report
}

fn kept_job(job: &JobContents) -> Option<KeptJob> {
    let kept = job.fact.as_ref()?;
    let status = job.machine.as_ref().map(|machine| machine.status());
    let phase = match (&kept.outcome, &status) {
        (Some(Outcome::Completed), _) => "completed",
        (Some(Outcome::Failed { .. }), _) => "failed",
        (Some(Outcome::Cancelled), _) => "cancelled",
        (Some(Outcome::Stopped { .. }), _) => "stopped",
        (None, Some(status)) => status.phase,
        (None, None) => "queued",
    };
    Some(KeptJob {
        job: job.id,
        model: kept.spec.model.clone(),
        dataset: kept.spec.dataset.clone(),
        stage: match kept.stage {
            Stage::Queued => "queued",
            Stage::Running => "running",
            Stage::Ended => "ended",
        },
        phase,
        round: status.map(|status| status.round).unwrap_or_default(),
        version: job.latest(),
        versions: job.versions.keys().copied().collect(),
        reports: job.reports().len(),
    })
}

fn check_models(folder: &DataFolder, contents: &Contents, report: &mut StateReport) {
    for job in &contents.jobs {
        let (id, latest) = (job.id, job.latest());
        if !job.versions.contains_key(&latest) {
            let problem = format!("it does not have version {latest} of job {id}");
            let problem = StateProblem::new(JOURNAL, problem, cost(job, latest));
            report.problems.push(problem);
        }
        for (version, published) in &job.versions {
            let place = at_rest::version_path(folder, id, *version);
            for file in &published.files {
                let path = place.join(&file.name);
                let checked = if is_name(&file.name) {
                    at_rest::check_model(&path, file)
                } else {
                    Err("this is no name of a file".to_string())
                };
                match checked {
                    Ok(bytes) => {
                        report.files += 1;
                        report.bytes += bytes;
                    }
                    Err(problem) => report.problems.push(StateProblem::new(
                        within(folder, &path).display().to_string(),
                        problem,
                        cost(job, *version),
                    )),
                }
            }
        }
    }
}

/// What is lost with a version of a job's model.
fn cost(job: &JobContents, version: ModelVersion) -> String {
    let id = job.id;
    if job.has_ended() {
        format!("version {version} of job {id} can't be downloaded")
    } else if version == job.latest() {
        format!("job {id} can't go on")
    } else {
        format!("version {version} of job {id} can't be evaluated or downloaded")
    }
}

/// Whether it names something in a folder itself.
pub(super) fn is_name(name: &str) -> bool {
    Path::new(name)
        .file_name()
        .is_some_and(|found| found == name)
}

fn check_reports(folder: &Arc<DataFolder>, contents: &Contents, report: &mut StateReport) {
    for job in &contents.jobs {
        for key in job.reports() {
            match at_rest::check_report(folder, key) {
                Ok(bytes) => {
                    report.files += 1;
                    report.bytes += bytes;
                }
                Err(problem) => report.problems.push(StateProblem::new(
                    within(folder, &at_rest::report_path(folder, key))
                        .display()
                        .to_string(),
                    problem,
                    format!("round {} of job {} starts over", key.round, key.job),
                )),
            }
        }
    }
}

fn find_leftovers(
    folder: &Arc<DataFolder>,
    contents: &Contents,
    report: &mut StateReport,
) -> Result<(), StateDirError> {
    let mut versions = BTreeSet::new();
    let mut reports = BTreeSet::new();
    for job in &contents.jobs {
        versions.extend(job.versions.keys().map(|version| (job.id, *version)));
        reports.extend(job.reports());
    }
    for (job, version, path) in at_rest::version_folders(folder)? {
        let is_needed = version.is_some_and(|version| versions.contains(&(job, version)));
        if !is_needed {
            report.leftovers.push(within(folder, &path));
        }
    }
    for file in at_rest::spool_files(folder)? {
        let is_needed = if file.is_report {
            reports.contains(&file.key)
        } else {
            file.can_go_on && contents.awaits(file.key)
        };
        if !is_needed {
            report.leftovers.push(within(folder, &file.path));
        }
    }
    Ok(())
}

/// A path in the folder, from the folder on.
fn within(folder: &DataFolder, path: &Path) -> PathBuf {
    path.strip_prefix(folder.path())
        .unwrap_or(path)
        .to_path_buf()
}
