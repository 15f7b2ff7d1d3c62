//! `fedavg-coordinator state`: a state folder is checked, exported, imported.

pub(super) mod archive;

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use clap::Subcommand;

use super::{
    Align, Failure, Screen, Table,
    values::{human_bytes, now},
    whole_file::WholeFile,
};
use crate::{
    coordinator::state_dir::{StateCopy, StateDirError, StateImport, StateReport, check},
    round::WorkerState,
    words::plural,
};

/// Check, export or import a state folder.
#[derive(Debug, Clone, Subcommand)]
pub enum StateCommand {
    /// Read a state folder that no coordinator runs on: what a coordinator would go on with, and what is damaged
    ///
    /// Reads every model and report that is needed, and changes nothing. Exit code 1 if something is damaged; each line of a problem
    /// names the file, what is wrong with it and what is lost by it.
    Check {
        /// The state folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Copy a state folder into one file, while a coordinator may run on it
    ///
    /// The file is a tar archive of the folder as it was at one moment. It has the jobs' secret seeds and all models: keep it as
    /// safe as the folder itself.
    Export {
        /// The state folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The file to write; /dev/stdout writes to standard output
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace the file if it is there
        #[arg(long)]
        force: bool,
    },
    /// Make a state folder of an exported file
    ///
    /// All of it is checked first. The coordinator that was exported must not run any more: workers take both for the same one.
    Import {
        /// The exported file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The state folder to make: one that is empty or not there
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

impl StateCommand {
    /// Carries the command out.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] if a folder or file can't be used, [`Failure::Other`] if something is damaged.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        match self {
            Self::Check { folder, json } => run_check(folder, *json, screen),
            Self::Export {
                folder,
                file,
                force,
            } => export(folder, file, *force, screen),
            Self::Import { file, folder } => import(file, folder, screen),
        }
    }
}

fn run_check(folder: &Path, json: bool, screen: &Screen) -> Result<(), Failure> {
    let report = check(folder).map_err(|error| match error {
        StateDirError::InUse { path } => Failure::Usage(format!(
            "a coordinator runs on {path}: stop it first, or check a copy (\"state export\" makes one while it runs)"
        )),
        other => failure("can't check the state folder", screen, other),
    })?;
    if json {
        screen.print_json(&report)?;
    } else {
        print(&report, screen)?;
    }
    match report.problems.len() {
        0 => Ok(()),
        count => {
            let problems = format!("{} (listed above)", plural(count, "problem"));
            let what = format!("the state folder {} is damaged", folder.display());
            Err(Failure::because(what, problems))
        }
    }
}

fn print(report: &StateReport, screen: &Screen) -> Result<(), Failure> {
    match &report.coordinator {
        Some(coordinator) => {
            let alive = report.alive.map_or(String::new(), |alive| {
                format!(", last alive {}", ago(now().since(alive).as_secs()))
            });
            screen.print(&format!(
                "coordinator {coordinator}, term {} (it rises with each start){alive}",
                report.term
            ))?;
        }
        None if report.problems.is_empty() => {
            screen.print("no coordinator has been started here")?;
        }
        None => {}
    }
    if !report.jobs.is_empty() {
        screen.print(&jobs(report).to_string())?;
    }
    if !report.workers.is_empty() {
        screen.print(&workers(report).to_string())?;
    }
    // Of a journal that can't be read, nobody knows what is queued and which files are needed.
    let is_known = report.coordinator.is_some() || report.problems.is_empty();
    if is_known {
        screen.print(&format!("queue: {}", queue(report)))?;
    }
    for path in &report.leftovers {
        screen.print(&format!(
            "nothing refers to {}: the next coordinator removes it",
            path.display()
        ))?;
    }
    for problem in &report.problems {
        screen.print(&format!("problem: {problem}"))?;
    }
    if !is_known && report.files == 0 {
        return screen
            .print("which models and reports belong to it is not known, so none was read");
    }
    let whole = if report.problems.is_empty() {
        "all is well"
    } else {
        "what the problems name is not"
    };
    screen.print(&format!("{} are whole; {whole}", files(report)))
}

/// The numbers of the jobs that wait their turn.
fn queue(report: &StateReport) -> String {
    let queued = report.jobs.iter().filter(|job| job.stage == "queued");
    let queued: Vec<_> = queued.map(|job| job.job.to_string()).collect();
    if queued.is_empty() {
        "empty".to_string()
    } else {
        queued.join(", ")
    }
}

fn jobs(report: &StateReport) -> Table {
    let mut table = Table::new(&[
        ("job", Align::Right),
        ("model", Align::Left),
        ("dataset", Align::Left),
        ("stage", Align::Left),
        ("phase", Align::Left),
        ("round", Align::Right),
        ("version", Align::Right),
        ("reports kept", Align::Right),
    ]);
    for job in &report.jobs {
        table.row([
            job.job.to_string(),
            job.model.clone(),
            job.dataset.clone(),
            job.stage.to_string(),
            job.phase.to_string(),
            job.round.to_string(),
            job.version.to_string(),
            job.reports.to_string(),
        ]);
    }
    table
}

fn workers(report: &StateReport) -> Table {
    let mut table = Table::new(&[
        ("worker", Align::Right),
        ("name", Align::Left),
        ("state", Align::Left),
    ]);
    for worker in &report.workers {
        let state = match worker.state {
            WorkerState::Live => "live",
            WorkerState::Lost => "lost",
            WorkerState::Left => "left",
        };
        table.row([
            worker.worker.to_string(),
            worker.name.clone(),
            state.to_string(),
        ]);
    }
    table
}

/// "12 files of models and reports (1.5 MB)".
fn files(report: &StateReport) -> String {
    let files = plural(report.files, "file");
    format!(
        "{files} of models and reports ({})",
        human_bytes(report.bytes)
    )
}

/// "3 jobs, 2 workers, 12 files ...".
fn what(report: &StateReport) -> String {
    let (jobs, workers) = (report.jobs.len(), report.workers.len());
    let (jobs, workers) = (plural(jobs, "job"), plural(workers, "worker"));
    format!("{jobs}, {workers}, {}", files(report))
}

fn export(folder: &Path, file: &Path, force: bool, screen: &Screen) -> Result<(), Failure> {
    refuse_within(file, folder)?;
    // First: a file that can't be written is told before anything is copied.
    // Seeds of jobs are in it that nobody else may know.
    let mut to = WholeFile::create(file)?.private()?;
    if !to.is_stream() && file.exists() && !force {
        let problem = "it is there already; give another name, or --force to replace it";
        return Err(Failure::of_file(file, problem));
    }
    let copy = StateCopy::of(folder)
        .map_err(|error| failure("can't export the state folder", screen, error))?;
    let (is_stream, now) = (to.is_stream(), now());
    let packed = archive::pack(copy.path(), copy.files(), now.0 / 1000, &mut to);
    packed.map_err(|error| match error.kind() {
        // Its reader has seen enough.
        std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::because(format!("can't write {}", file.display()), error),
    })?;
    to.put_in_place()?;
    let told = format!("exported {} to {}", what(copy.report()), file.display());
    if is_stream {
        screen.note(&told);
        return Ok(());
    }
    screen.print(&told)
}

/// Refuses to write a file into a state folder: only coordinators write there, and the next export would be for a folder with another
/// one's secrets in it.
fn refuse_within(file: &Path, folder: &Path) -> Result<(), Failure> {
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    // A path that leads to nothing is told of by whoever opens it.
    if let (Ok(parent), Ok(folder)) = (parent.canonicalize(), folder.canonicalize())
        && parent.starts_with(&folder)
    {
        let problem = format!(
            "it is within the state folder {} itself, where a coordinator alone writes; give a place outside of it",
            folder.display()
        );
        return Err(Failure::of_file(file, problem));
    }
    Ok(())
}

fn import(file: &Path, folder: &Path, screen: &Screen) -> Result<(), Failure> {
    let from = File::open(file).map_err(|error| Failure::of_file(file, error))?;
    let metadata = from
        .metadata()
        .map_err(|error| Failure::of_file(file, error))?;
    if !metadata.is_file() {
        // What is claimed of sizes is compared with the file's.
        return Err(Failure::of_file(file, "it is no regular file"));
    }
    let told = "can't import into the state folder";
    let import = StateImport::begin(folder).map_err(|error| failure(told, screen, error))?;
    archive::unpack(&from, metadata.len(), import.staging())
        .map_err(|problem| Failure::of_file(file, format!("it can't be imported: {problem}")))?;
    let report = import
        .finish()
        .map_err(|error| failure(told, screen, error))?;
    screen.print(&format!(
        "imported {} into {}",
        what(&report),
        folder.display()
    ))?;
    screen.print(
        "The coordinator that was exported must not run any more: workers take both for the same one, and their tasks and reports would get mixed up.",
    )
}

fn failure(what: &str, screen: &Screen, error: StateDirError) -> Failure {
    match error {
        StateDirError::Damaged(problems) => {
            for problem in &problems {
                screen.note(&format!("problem: {problem}"));
            }
            Failure::because(what, plural(problems.len(), "problem"))
        }
        StateDirError::InUse { .. }
        | StateDirError::NoState { .. }
        | StateDirError::NotEmpty { .. } => Failure::unusable(what, &error),
        other => Failure::because(what, other),
    }
}

fn ago(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{} ago", plural(number, unit))
}
