//! The files that a run leaves behind. Each is written under a temporary name and renamed, so that a file that is there
//! is whole.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
};

use serde::Serialize;

use super::{Failure, RunSummary};
use crate::{
    parameters::{Parameters, safetensors},
    telemetry::{LoggedEvent, RoundRecord},
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

impl Results {
    /// Writes the files into a folder, which is made where it is missing. `summary.json` comes last: where it is, the
    /// others are.
    ///
    /// # Errors
    ///
    /// The file that can't be written, and why.
    pub fn write(&self, folder: &Path) -> Result<(), Failure> {
        fs::create_dir_all(folder).map_err(|error| cannot_write(folder, error))?;
        write_model(&folder.join("model.safetensors"), &self.model)?;
        write_lines(&folder.join("rounds.jsonl"), &self.rounds)?;
        write_lines(&folder.join("events.jsonl"), &self.events)?;
        write_whole(&folder.join("summary.json"), |file| {
            serde_json::to_writer_pretty(&mut *file, &self.summary)?;
            writeln!(file)
        })
    }
}

/// Writes a model as a safetensors file.
///
/// # Errors
///
/// Where it can't be written.
pub fn write_model(file: &Path, model: &Parameters) -> Result<(), Failure> {
    write_whole(file, |file| {
        file.write_all(&safetensors::header(model.layout(), ""))?;
        file.write_all(bytemuck::cast_slice(model.values()))
    })
}

/// Writes values as JSON, one a line.
///
/// # Errors
///
/// Where it can't be written.
pub fn write_lines<T: Serialize>(file: &Path, values: &[T]) -> Result<(), Failure> {
    write_whole(file, |file| {
        for value in values {
            serde_json::to_writer(&mut *file, value)?;
            writeln!(file)?;
        }
        Ok(())
    })
}

/// Writes a file beside its place, then renames it into it.
fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = File::create(&temporary).and_then(|file| {
        let mut buffered = BufWriter::new(file);
        write(&mut buffered)?;
        buffered.into_inner()?.sync_all()?;
        fs::rename(&temporary, path)
    });
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        cannot_write(path, error)
    })
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
