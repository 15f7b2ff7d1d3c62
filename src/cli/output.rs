//! The files that a run leaves behind. Each is written under a temporary name and renamed, so that a file that is there
//! is whole.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use serde::Serialize;

use super::{
    Failure, RunSummary,
    failure::in_full,
    progress::ended,
    values::{human_bytes, human_joules, number, percent},
};
use crate::{
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
}

/// The folder for a run's files.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// Write the results into this folder: model.safetensors, summary.json, rounds.jsonl (a line a round) and events.jsonl
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
        // One of them is enough: a run that was interrupted may have left some alone.
        if let Some(file) = FILES.iter().find(|file| folder.join(file).exists())
            && !self.force
        {
            return Err(refuse(format!(
                "has an earlier run ({file}); give another folder, or --force to replace it"
            )));
        }
        fs::create_dir_all(folder)
            .map_err(|error| refuse(format!("the folder can't be made: {error}")))?;
        // Permissions alone don't tell: the file system may be read-only.
        let probe = WholeFile::create(&folder.join("probe"));
        // Removed again at once: a `WholeFile` that is dropped leaves nothing.
        probe.map_err(|failure| refuse(in_full(&failure)))?;
        Ok(Some(OutputFolder(folder.clone())))
    }
}

/// A folder that a run's files can be written into.
#[derive(Debug, Clone)]
pub struct OutputFolder(PathBuf);

impl OutputFolder {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// The names of standard output.
#[cfg(unix)]
const STANDARD_OUTPUT: [&str; 3] = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];

/// The names of a run's files.
const FILES: [&str; 4] = [
    "summary.json",
    "rounds.jsonl",
    "events.jsonl",
    "model.safetensors",
];

impl Results {
    /// Writes the files. `summary.json` comes last: if it is there, the others are.
    ///
    /// # Errors
    ///
    /// The file that can't be written, and why.
    pub fn write(&self, folder: &OutputFolder) -> Result<(), Failure> {
        let folder = folder.path();
        write_model(&folder.join("model.safetensors"), &self.model)?;
        write_lines(&folder.join("rounds.jsonl"), &self.rounds)?;
        write_lines(&folder.join("events.jsonl"), &self.events)?;
        write_whole(&folder.join("summary.json"), |file| {
            serde_json::to_writer_pretty(&mut *file, &self.summary)?;
            writeln!(file)
        })
    }
}

/// The end of a run in one line.
pub(super) fn last_line(summary: &RunSummary, output: Option<&Path>) -> String {
    let outcome = summary
        .outcome
        .as_ref()
        .map_or("not ended".to_string(), ended);
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
    let files = output.map_or(String::new(), |folder| {
        let folder = folder.display().to_string();
        format!("; written to {}", printable(&folder, usize::MAX))
    });
    let energy = summary.energy_joules.map_or(String::new(), |joules| {
        format!(", {}", human_joules(joules))
    });
    format!(
        "{outcome}: {} in {:.1} s, {}{energy}{measured}{files}",
        plural(summary.rounds_committed, "round"),
        summary.seconds,
        human_bytes(summary.bytes)
    )
}

/// Writes a model as a safetensors file.
///
/// # Errors
///
/// If it can't be written.
fn write_model(file: &Path, model: &Parameters) -> Result<(), Failure> {
    write_whole(file, |file| {
        file.write_all(&safetensors::header(model.layout(), ""))?;
        file.write_all(bytemuck::cast_slice(model.values()))
    })
}

/// Writes values as JSON, one a line.
///
/// # Errors
///
/// If it can't be written.
pub(super) fn write_lines<T: Serialize>(file: &Path, values: &[T]) -> Result<(), Failure> {
    write_whole(file, |file| {
        for value in values {
            serde_json::to_writer(&mut *file, value)?;
            writeln!(file)?;
        }
        Ok(())
    })
}

fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut WholeFile) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut file = WholeFile::create(path)?;
    write(&mut file).map_err(|error| cannot_write(path, error))?;
    file.put_in_place()
}

/// A file that is written beside its place, and appears there as a whole or not at all. Standard output, and what is there
/// and is no regular file (a pipe, a terminal, `/dev/null`), is written to instead: it can't be replaced. Of a symbolic
/// link, what it leads to is replaced.
#[derive(Debug)]
pub(super) struct WholeFile {
    path: PathBuf,
    /// None if `path` itself is written to.
    temporary: Option<PathBuf>,
    /// None once the file is in its place.
    file: Option<BufWriter<File>>,
}

impl WholeFile {
    pub fn create(path: &Path) -> Result<Self, Failure> {
        #[cfg(unix)]
        if STANDARD_OUTPUT.iter().any(|name| path == Path::new(name)) {
            return Self::standard_output(path);
        }
        // A link in its place is not replaced: `/dev/stdout` is one.
        // A path that leads to nothing yet can't be resolved, and is taken as it is.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file());
        let (file, temporary) = if is_special {
            // Without creating or truncating, which a pipe has no use for.
            (File::options().write(true).open(path), None)
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // In the same folder: a rename is atomic only within one file system. With the process's number: two runs must
            // not write to one file.
            let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
            (File::create(&temporary), Some(temporary))
        };
        let file = file.map_err(|error| cannot_write(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file: Some(BufWriter::new(file)),
        })
    }

    /// Standard output itself: opened by its name, a file that it is redirected to would be written from its beginning.
    #[cfg(unix)]
    fn standard_output(path: &Path) -> Result<Self, Failure> {
        use std::os::fd::AsFd;

        // A copy: when the file is closed, standard output must stay open.
        let descriptor = io::stdout().as_fd().try_clone_to_owned();
        let descriptor = descriptor.map_err(|error| cannot_write(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            temporary: None,
            file: Some(BufWriter::new(File::from(descriptor))),
        })
    }

    /// Whether it is a pipe, a terminal or another thing that is written to as it comes.
    pub fn is_stream(&self) -> bool {
        self.temporary.is_none()
    }

    /// Gives the file its name; one that had it before is replaced.
    pub fn put_in_place(mut self) -> Result<(), Failure> {
        let placed = self.place();
        placed.map_err(|error| cannot_write(&self.path, error))?;
        // So that its drop does not look for the temporary file, which has its name now.
        self.file = None;
        Ok(())
    }

    fn place(&mut self) -> io::Result<()> {
        self.buffer()?.flush()?;
        let Some(temporary) = self.temporary.clone() else {
            return Ok(());
        };
        // Before the rename, or a power failure could leave a whole name on half a file.
        self.buffer()?.get_ref().sync_all()?;
        fs::rename(temporary, &self.path)
    }

    fn buffer(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.file
            .as_mut()
            .ok_or_else(|| io::Error::other("it is closed"))
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.buffer()?.flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if self.file.take().is_some()
            && let Some(temporary) = &self.temporary
        {
            // Half a file is of no use. About one that can't be removed, nothing can be done here.
            let _ = fs::remove_file(temporary);
        }
    }
}

fn cannot_write(path: &Path, error: io::Error) -> Failure {
    Failure::because(format!("can't write {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Layout, Role};

    fn model(value: f32) -> Parameters {
        let layout = Layout::new([("w".to_string(), vec![2], Role::Trainable)]).unwrap();
        Parameters::new(layout, vec![value; 2]).unwrap()
    }

    #[test]
    fn a_model_is_the_bytes_of_the_wire_and_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        write_model(&file, &model(1.0)).unwrap();
        write_model(&file, &model(2.0)).unwrap();
        assert_eq!(fs::read(&file).unwrap(), safetensors::encode(&model(2.0)));
        let names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["model.safetensors"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_what_it_leads_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "before").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_lines(&link, &[1]).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "1\n");
    }

    #[test]
    fn a_write_that_breaks_off_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rounds.jsonl");
        write_lines(&file, &[1, 2]).unwrap();
        let failure = write_whole(&file, |file| {
            file.write_all(b"3")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(failure.unwrap_err().code(), 1);
        assert_eq!(fs::read_to_string(&file).unwrap(), "1\n2\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
