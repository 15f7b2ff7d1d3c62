//! `fedavg model`: models as files.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Align, Failure, Screen, Table, block_on, job::read_model, operator::ConnectArgs,
    output::WholeFile, values::human_bytes,
};
use crate::{
    ids::{JobId, ModelVersion},
    parameters::{Parameters, Role, TensorSpec},
    transport::Operator,
};

/// Download models, and look into them.
#[derive(Debug, Clone, Subcommand)]
pub enum ModelCommand {
    /// Download a job's global model as a safetensors file
    Download(DownloadArgs),
    /// Print the tensors of a safetensors file
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
    /// The version; old ones are not kept for ever [default: the latest]
    #[arg(long, value_name = "N")]
    pub version: Option<ModelVersion>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Where the coordinator is.
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
        let mut file = WholeFile::create(&self.output)?;
        let (version, length) = block_on(async {
            let download =
                client
                    .operator
                    .download(&client.caller, self.job, self.version, &mut file);
            download.await.map_err(|error| client.failure(error))
        })?;
        file.put_in_place()?;
        match self.json {
            true => screen.print_json(&json!({
                "job": self.job, "version": version, "bytes": length, "file": self.output
            })),
            false => screen.print(&format!(
                "version {version} of job {}: {}, written to {}",
                self.job,
                human_bytes(length),
                self.output.display()
            )),
        }
    }
}

fn inspect(screen: &Screen, file: &Path, as_json: bool) -> Result<(), Failure> {
    let model = read_model(file)?;
    let layout = model.layout();
    if as_json {
        let tensors: Vec<_> = layout
            .tensors()
            .iter()
            .map(|tensor| {
                json!({
                    "name": tensor.name, "shape": tensor.shape, "role": tensor.role,
                    "values": tensor.range().len(), "norm": norm(&model, tensor)
                })
            })
            .collect();
        return screen.print_json(&json!({ "parameters": layout.len(), "tensors": tensors }));
    }
    let mut table = Table::new(&[
        ("tensor", Align::Left),
        ("shape", Align::Left),
        ("role", Align::Left),
        ("values", Align::Right),
        ("norm", Align::Right),
    ]);
    for tensor in layout.tensors() {
        let shape: Vec<_> = tensor.shape.iter().map(usize::to_string).collect();
        table.row([
            tensor.name.clone(),
            shape.join(" x "),
            role(tensor.role).to_string(),
            tensor.range().len().to_string(),
            format!("{:.4}", norm(&model, tensor)),
        ]);
    }
    screen.print(&table.to_string())?;
    screen.print(&format!(
        "{} tensors, {} parameters, {}",
        layout.tensors().len(),
        layout.len(),
        human_bytes(layout.bytes() as u64)
    ))
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Trainable => "trainable",
        Role::Buffer => "buffer",
        Role::Frozen => "frozen",
    }
}

/// The Euclidean norm of a tensor.
fn norm(model: &Parameters, tensor: &TensorSpec) -> f64 {
    let squares = model.values()[tensor.range()]
        .iter()
        .map(|value| f64::from(*value).powi(2));
    squares.sum::<f64>().sqrt()
}
