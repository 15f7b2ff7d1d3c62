//! The files that a run leaves behind. Each is written under a temporary name and renamed, so that a file that is there
//! is whole.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Args;
use serde::Serialize;

use super::{
    Failure, RunSummary,
    failure::in_full,
    progress::ended,
    values::{human_bytes, human_joules, number, percent},
    whole_file::WholeFile,
};
use crate::{
    disk::{self, Site},
    job::Metric,
    parameters::{Parameters, safetensors},
    protocol::{LoggedEvent, RoundRecord},
    text::printable,
    words::plural,
};

/// What a run leaves behind.
#[derive(Debug, Clone)]
pub struct Results {
    /// `summary.json`.
    pub summary: RunSummary,
    /// `rounds.jsonl`, a round a line.
    pub rounds: Vec<RoundRecord>,
    /// `events.jsonl`, an entry of the event log a line.
    pub events: Vec<LoggedEvent>,
    /// `model.safetensors`, the final global model.
    pub model: Arc<Parameters>,
    /// `best.safetensors`, the model of the best version if it is not the final one.
    pub best_model: Option<Arc<Parameters>>,
}

/// The folder for a run's files.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// Write the results into this folder: model.safetensors, best.safetensors (if the best model is not the final one),
    /// summary.json, rounds.jsonl (a line a round) and events.jsonl
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Replace the files of an earlier run in the folder of --output
    #[arg(long, requires = "output")]
    pub force: bool,
}

impl OutputArgs {
    /// Checks, before there is anything to lose, that the files can be written.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] if the folder can't be made or written to, or has an earlier run and there is no --force.
    pub fn prepare(&self) -> Result<Option<OutputFolder>, Failure> {
        let Some(folder) = &self.output else {
            return Ok(None);
        };
        let refuse =
            |problem: String| Failure::Usage(format!("--output {}: {problem}", folder.display()));
        if folder.exists() && !folder.is_dir() {
            return Err(refuse("is a file; give a folder".to_string()));
        }
        if let Some(name) = FILES.iter().find(|name| folder.join(name).is_dir()) {
            return Err(refuse(format!(
                "has a folder named {name}, which is the name of a result; give another folder"
            )));
        }
        // One of them is enough: a run that was interrupted may have left some alone.
        if let Some(file) = FILES.iter().find(|file| folder.join(file).exists())
            && !self.force
        {
            return Err(refuse(format!(
                "has an earlier run ({file}); give another folder, or --force to replace it"
            )));
        }
        let made = MadeFolders::above(folder);
        fs::create_dir_all(folder)
            .map_err(|error| refuse(format!("the folder can't be made: {error}")))?;
        // Permissions alone don't tell: the file system may be read-only.
        let probe = WholeFile::create(&folder.join("probe"));
        // Removed again at once: a `WholeFile` that is dropped leaves nothing.
        probe.map_err(|failure| refuse(in_full(&failure)))?;
        Ok(Some(OutputFolder {
            path: folder.clone(),
            has_checkpoint: Arc::default(),
            _made: Arc::new(made),
        }))
    }
}

/// A folder that a run's files can be written into.
#[derive(Debug, Clone)]
pub struct OutputFolder {
    path: PathBuf,
    /// Whether this run has written its files there before.
    has_checkpoint: Arc<AtomicBool>,
    _made: Arc<MadeFolders>,
}

/// Folders that were made for a run's files, the innermost first. Dropped, those of them go that are still empty: a run that failed
/// before its first file leaves nothing.
#[derive(Debug)]
struct MadeFolders(Vec<PathBuf>);

impl MadeFolders {
    /// This folder and those above it that are not there yet.
    fn above(folder: &Path) -> Self {
        let missing = folder.ancestors().take_while(|above| {
            // The empty path is the current folder.
            !above.as_os_str().is_empty() && !above.exists()
        });
        Self(missing.map(Path::to_path_buf).collect())
    }
}

impl Drop for MadeFolders {
    fn drop(&mut self) {
        for folder in &self.0 {
            // One that has something in it is not removed, nor is one above it.
            if disk::remove_folder(Site::OutputRemove, folder).is_err() {
                return;
            }
        }
    }
}

impl OutputFolder {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The name of the best version's model.
const BEST: &str = "best.safetensors";

/// The names of a run's files.
const FILES: [&str; 5] = [
    "summary.json",
    BEST,
    "rounds.jsonl",
    "events.jsonl",
    "model.safetensors",
];

impl Results {
    /// Writes the files. `summary.json` comes last: if it is there, the others are, and are of the same moment.
    ///
    /// If one can't be written, an earlier checkpoint of this run stays as it was. Without one, those that could be written
    /// are put in place: the final model must not be lost because the event log did not fit on the disk.
    ///
    /// # Errors
    ///
    /// The first file that can't be written, and why.
    pub fn write(&self, folder: &OutputFolder) -> Result<(), Failure> {
        let path = |name| folder.path.join(name);
        // All beside their places first: a disk that is full in the middle must not leave files of two moments.
        let mut parts = vec![
            WholeFile::written(&path("model.safetensors"), |file| {
                write_model(file, &self.model)
            }),
            WholeFile::written(&path("rounds.jsonl"), |file| {
                write_lines(file, &self.rounds)
            }),
            WholeFile::written(&path("events.jsonl"), |file| {
                write_lines(file, &self.events)
            }),
        ];
        if let Some(best) = &self.best_model {
            let file = WholeFile::written(&path(BEST), |file| write_model(file, best));
            parts.push(file);
        } else {
            // One of an earlier run, or of a checkpoint: the final model is the best one now.
            let _ = disk::remove_file(Site::OutputRemove, &path(BEST));
        }
        let mut written = Vec::new();
        let mut problem = None;
        for part in parts {
            match part {
                Ok(file) => written.push(file),
                Err(failure) => problem = problem.or(Some(failure)),
            }
        }
        if let Some(failure) = problem {
            if !folder.has_checkpoint.load(Ordering::Relaxed) {
                // With --force, that of another run is there: it would stand for files that are not its own.
                let _ = disk::remove_file(Site::OutputRemove, &path("summary.json"));
                put_in_place(written)?;
            }
            return Err(failure);
        }
        let summary = WholeFile::written(&path("summary.json"), |file| {
            serde_json::to_writer_pretty(&mut *file, &self.summary)?;
            writeln!(file)
        })?;
        written.push(summary);
        put_in_place(written)?;
        folder.has_checkpoint.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn put_in_place(files: Vec<WholeFile>) -> Result<(), Failure> {
    for file in files {
        file.put_in_place()?;
    }
    Ok(())
}

/// The end of a run in one line.
pub(super) fn last_line(summary: &RunSummary, output: Option<&Path>) -> String {
    let outcome = summary
        .outcome
        .as_ref()
        .map_or("the job goes on".to_string(), ended);
    let mut measured = String::new();
    if let Some(accuracy) = summary.test_accuracy {
        measured.push_str(&format!(", test accuracy {}", percent(accuracy)));
    }
    if let Some(loss) = summary.test_loss {
        measured.push_str(&format!(", test loss {}", number(loss)));
    }
    if let Some(version) = summary.test_version.filter(|of| *of != summary.version) {
        measured.push_str(&format!(" (of version {version}, not {})", summary.version));
    }
    if let Some(best) = &summary.best
        && best.measured.version != summary.version
    {
        measured.push_str(&format!(
            "; best: version {} ({} {})",
            best.measured.version,
            best.metric,
            of_metric(&best.metric, best.value)
        ));
    }
    let files = output.map_or(String::new(), |folder| {
        let folder = folder.display().to_string();
        format!("; written to {}", printable(&folder, usize::MAX))
    });
    let energy = summary.energy_joules.map_or(String::new(), |joules| {
        format!(", {}", human_joules(joules))
    });
    let so_far = match summary.outcome {
        Some(_) => "",
        None => " so far",
    };
    format!(
        "{outcome}: {} in {:.1} s{so_far}, {}{energy}{measured}{files}",
        plural(summary.rounds_committed, "round"),
        summary.seconds,
        human_bytes(summary.bytes)
    )
}

/// A metric's value: shares as percents.
pub(super) fn of_metric(metric: &Metric, value: f64) -> String {
    if metric.name() == "accuracy" {
        percent(value)
    } else {
        number(value)
    }
}

/// Writes a model as a safetensors file.
fn write_model(file: &mut WholeFile, model: &Parameters) -> io::Result<()> {
    file.write_all(&safetensors::header(model.layout(), ""))?;
    file.write_all(bytemuck::cast_slice(model.values()))
}

/// Writes values as JSON, one a line.
fn write_lines<T: Serialize>(file: &mut WholeFile, values: &[T]) -> io::Result<()> {
    for value in values {
        serde_json::to_writer(&mut *file, value)?;
        writeln!(file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{JobId, ModelVersion, RoundId, Timestamp},
        job::JobSpec,
        parameters::{Layout, Role},
        protocol::JobSummary,
        round::Outcome,
    };

    fn results(version: u64) -> Results {
        let layout = Layout::new([("w".to_string(), vec![2], Role::Trainable)]).unwrap();
        let job = JobSummary {
            job: JobId(1),
            spec: JobSpec::default(),
            phase: "completed".to_string(),
            detail: String::new(),
            outcome: Some(Outcome::Completed),
            clients: Some(2),
            round: RoundId(version),
            version: ModelVersion(version),
            accepted: 0,
            goal: 0,
            parameters: 2,
            continued: None,
            best: None,
            last_measured: None,
            initial_digest: None,
            last_event: 0,
            submitted: Timestamp(0),
            ended: None,
        };
        Results {
            summary: RunSummary::new(&job, &[]),
            rounds: Vec::new(),
            events: Vec::new(),
            model: Arc::new(Parameters::new(layout, vec![version as f32; 2]).unwrap()),
            best_model: None,
        }
    }

    fn arguments(folder: &Path, force: bool) -> OutputArgs {
        OutputArgs {
            output: Some(folder.to_owned()),
            force,
        }
    }

    #[test]
    fn the_model_is_the_bytes_of_the_wire() {
        let folder = tempfile::tempdir().unwrap();
        let output = arguments(folder.path(), false).prepare().unwrap().unwrap();
        results(1).write(&output).unwrap();
        let model = fs::read(folder.path().join("model.safetensors")).unwrap();
        assert_eq!(model, safetensors::encode(&results(1).model));
        let mut names = Vec::new();
        for entry in fs::read_dir(folder.path()).unwrap() {
            names.push(entry.unwrap().file_name().into_string().unwrap());
        }
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "events.jsonl",
                "model.safetensors",
                "rounds.jsonl",
                "summary.json"
            ]
        );
    }

    #[test]
    fn a_file_that_cannot_be_written_costs_neither_the_checkpoint_nor_the_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let output = arguments(folder.path(), false).prepare().unwrap().unwrap();
        results(1).write(&output).unwrap();
        // A folder in its place can't be written to, not even by root.
        fs::remove_file(path("events.jsonl")).unwrap();
        fs::create_dir(path("events.jsonl")).unwrap();
        let failure = results(2).write(&output).unwrap_err();
        assert!(in_full(&failure).contains("events.jsonl"), "{failure}");
        let model = || fs::read(path("model.safetensors")).unwrap();
        assert_eq!(model(), safetensors::encode(&results(1).model));
        assert!(path("summary.json").exists());

        // The same in a folder that has no checkpoint of this run.
        fs::remove_dir(path("events.jsonl")).unwrap();
        let output = arguments(folder.path(), true).prepare().unwrap().unwrap();
        fs::create_dir(path("events.jsonl")).unwrap();
        assert!(results(3).write(&output).is_err());
        assert_eq!(model(), safetensors::encode(&results(3).model));
        assert!(!path("summary.json").exists());
    }

    #[test]
    fn of_a_job_that_goes_on_the_time_so_far_is_told() {
        let mut summary = results(3).summary;
        summary.seconds = 2.5;
        assert!(last_line(&summary, None).starts_with("completed: 0 rounds in 2.5 s, "));
        summary.outcome = None;
        let line = last_line(&summary, None);
        let expected = "the job goes on: 0 rounds in 2.5 s so far, ";
        assert!(line.starts_with(expected), "{line}");
    }

    #[test]
    fn folders_that_were_made_for_nothing_go_again() {
        let folder = tempfile::tempdir().unwrap();
        let (outer, inner) = (folder.path().join("a"), folder.path().join("a/b"));
        let output = arguments(&inner, false).prepare().unwrap().unwrap();
        let copy = output.clone();
        drop(output);
        assert!(inner.is_dir());
        drop(copy);
        assert!(!outer.exists());
        // With a file in it, all stay.
        let output = arguments(&inner, false).prepare().unwrap().unwrap();
        results(1).write(&output).unwrap();
        drop(output);
        assert!(inner.join("summary.json").exists());
        // A folder that was there before stays, too.
        let empty = folder.path().join("empty");
        fs::create_dir(&empty).unwrap();
        drop(arguments(&empty, false).prepare().unwrap());
        assert!(empty.is_dir());
    }

    #[test]
    fn a_folder_with_the_name_of_a_result_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("rounds.jsonl")).unwrap();
        let failure = arguments(folder.path(), true).prepare().unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().contains("a folder named rounds.jsonl"));
    }
}
