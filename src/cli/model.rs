//! `fedavg model`: models as files.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::{
    Align, Failure, Screen, Table, block_on,
    model_file::read_model_bytes,
    operator::ConnectArgs,
    values::{human_bytes, number},
    whole_file::WholeFile,
};
use crate::{
    ids::{JobId, ModelVersion},
    parameters::{FileTensor, ModelFile, Role},
    transport::Operator,
    words::plural,
};

/// Download a model, or list the tensors of a model file.
#[derive(Debug, Clone, Subcommand)]
pub enum ModelCommand {
    /// Download a job's global model as a safetensors file
    Download(Box<DownloadArgs>),
    /// List the tensors of a safetensors file
    Inspect {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which model to download.
#[derive(Debug, Clone, Args)]
pub struct DownloadArgs {
    /// The job's number
    #[arg(value_name = "JOB")]
    pub job: JobId,
    /// The model's version, which is the number of rounds behind it; only the last ones are kept [default: the last]
    #[arg(long, value_name = "N")]
    pub version: Option<ModelVersion>,
    /// The best version, as "fedavg status JOB" names it, instead of the last
    #[arg(long, conflicts_with = "version")]
    pub best: bool,
    /// The file to write; /dev/stdout writes to standard output
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl ModelCommand {
    /// Carries the command out.
    ///
    /// # Errors
    ///
    /// A file that can't be read or written, no such job or version, no coordinator.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        match self {
            Self::Download(arguments) => arguments.run(screen),
            Self::Inspect { file, json } => inspect(screen, file, *json),
        }
    }
}

impl DownloadArgs {
    fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let client = self.connect.client()?;
        // Before the download, which must not end at a file that can't be written.
        let mut file = WholeFile::create(&self.output)?;
        let (version, length) = block_on(async {
            let version = if self.best {
                Some(client.best_version(self.job).await?)
            } else {
                self.version
            };
            let download = client
                .operator
                .download(&client.caller, self.job, version, &mut file);
            download.await.map_err(|error| client.failure(error))
        })?;
        let is_stream = file.is_stream();
        file.put_in_place()?;
        let line = if self.json {
            json!({ "job": self.job, "version": version, "bytes": length, "file": self.output })
                .to_string()
        } else {
            format!(
                "version {version} of job {}: {}, written to {}",
                self.job,
                human_bytes(length),
                self.output.display()
            )
        };
        if is_stream {
            // It may be standard output: nothing else may come into the model's bytes.
            screen.note(&line);
            Ok(())
        } else {
            screen.print(&line)
        }
    }
}

fn inspect(screen: &Screen, file: &Path, as_json: bool) -> Result<(), Failure> {
    let bytes = read_model_bytes(file).map_err(|error| Failure::of_file(file, error))?;
    let model = ModelFile::parse(&bytes).map_err(|error| Failure::of_file(file, error))?;
    let mut lines = Vec::new();
    for tensor in model.tensors() {
        lines.push(Line::of(&model, tensor));
    }
    let count = parameters(&lines);
    if as_json {
        return screen.print_json(&json!({ "parameters": count, "tensors": lines }));
    }
    let mut table = Table::new(&[
        ("tensor", Align::Left),
        ("type", Align::Left),
        ("shape", Align::Left),
        ("role", Align::Left),
        ("values", Align::Right),
        ("norm", Align::Right),
    ]);
    for line in &lines {
        let shape: Vec<_> = line.shape.iter().map(usize::to_string).collect();
        let norm = match line.norm {
            _ if line.not_finite > 0 => {
                format!("not finite: {}", plural(line.not_finite, "value"))
            }
            Some(norm) => number(norm),
            None => "-".to_string(),
        };
        table.row([
            line.name.clone(),
            line.dtype.clone(),
            shape.join(" x "),
            line.role.map_or("-", role).to_string(),
            line.values.to_string(),
            norm,
        ]);
    }
    screen.print(&table.to_string())?;
    screen.print(&format!(
        "{}, {}, {}",
        plural(lines.len(), "tensor"),
        plural(count, "parameter"),
        human_bytes(bytes.len() as u64)
    ))
}

/// What is shown of a tensor.
#[derive(Serialize)]
struct Line {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    /// None if such a tensor is no part of a model.
    role: Option<Role>,
    values: usize,
    /// The Euclidean norm; none if the values are no floating-point numbers, or not finite.
    norm: Option<f64>,
    /// How many values are infinite or not a number.
    not_finite: usize,
}

impl Line {
    fn of(model: &ModelFile<'_>, tensor: &FileTensor<'_>) -> Self {
        let mut squares = 0.0;
        let mut not_finite = 0;
        let values = tensor.values();
        for value in values.iter().flatten() {
            squares += f64::from(*value).powi(2);
            not_finite += usize::from(!value.is_finite());
        }
        let is_finite = values.is_some() && not_finite == 0;
        let role = model.role(&tensor.name);
        Self {
            name: tensor.name.clone(),
            dtype: tensor.dtype.clone(),
            shape: tensor.shape.clone(),
            role: values.is_some().then_some(role),
            values: tensor.shape.iter().product(),
            norm: is_finite.then(|| squares.sqrt()),
            not_finite,
        }
    }
}

/// How many values the tensors have that can be part of a model.
fn parameters(lines: &[Line]) -> usize {
    let mut count = 0;
    for line in lines {
        if line.role.is_some() {
            count += line.values;
        }
    }
    count
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Trainable => "trainable",
        Role::Buffer => "buffer",
        Role::Frozen => "frozen",
    }
}
