//! `fedavg evaluate`: what a model's file does on a dataset.

use std::path::PathBuf;

use clap::Args;

use super::{
    DeviceArgs, Failure, Interrupt, Screen, TrainerArgs, block_on,
    failure::in_full,
    job::read_model,
    values::{number, percent},
};
use crate::{
    job::{EvaluationMode, JobDescription, JobSpec},
    model::zoo,
    parameters::Parameters,
    round::Evaluation,
    simulation::{Simulation, SimulationError},
    text::printable,
    words::plural,
    worker::TrainerFactory,
};

/// Test a model's file on a dataset's test split.
#[derive(Debug, Clone, Args)]
pub struct EvaluateArgs {
    /// The model: a safetensors file
    #[arg(value_name = "MODEL.safetensors")]
    pub file: PathBuf,
    /// The dataset: digits (built in), cifar10 or folder:PATH
    #[arg(long, value_name = "NAME", default_value = "digits")]
    pub dataset: String,
    /// The model's name: mlp, lenet, cifar_cnn or tiny_cnn [default: the one whose tensors the file has]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Devices.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Data.
    #[command(flatten)]
    pub trainers: TrainerArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl EvaluateArgs {
    /// Tests the model.
    ///
    /// # Errors
    ///
    /// A file that is no model of that name, a dataset that is not here.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let parameters = read_model(screen, &self.file)?;
        let devices = self.device.resolve(screen)?;
        let trainers = self.trainers.trainers(&devices)?;
        let mut spec = JobSpec::new("", &self.dataset);
        spec.model = match &self.model {
            Some(model) => model.clone(),
            None => self.name_of(&*trainers, &parameters)?,
        };
        (spec.rounds, spec.clients) = (0, Some(1));
        spec.evaluation = EvaluationMode::Coordinator;
        let simulation = Simulation::new(spec.clone(), trainers).initial(parameters);
        let result = block_on(async {
            let interrupt = Interrupt::listen()?;
            let run = simulation.run_until(interrupt.wait()).await;
            run.map_err(|error| self.failure(error))
        })?;
        let measured = result.job.last_measured.and_then(|measured| measured.test);
        let Some(evaluation) = measured else {
            // It was interrupted, or the loss is not a number.
            return Err(Failure::because(
                "the model could not be evaluated",
                result.job.detail,
            ));
        };
        if self.json {
            return screen.print_json(&evaluation);
        }
        screen.print(&line(&spec, &evaluation))
    }

    /// The known model whose tensors these are.
    fn name_of(
        &self,
        trainers: &dyn TrainerFactory,
        parameters: &Parameters,
    ) -> Result<String, Failure> {
        for name in zoo::NAMES {
            let mut job = JobDescription::default();
            (job.model, job.dataset) = (name.to_string(), self.dataset.clone());
            let fits = trainers
                .initial(&job)
                .is_ok_and(|initial| initial.layout().check_same(parameters.layout()).is_ok());
            if fits {
                return Ok(name.to_string());
            }
        }
        let known = zoo::NAMES.join(", ");
        Err(Failure::of_file(
            &self.file,
            format!(
                "has the tensors of no known model for {} ({known}): --model NAME says what is missing",
                printable(&self.dataset, 100)
            ),
        ))
    }

    fn failure(&self, error: SimulationError) -> Failure {
        match error {
            SimulationError::Failed { reason, .. } => Failure::JobFailed(reason),
            error => Failure::Usage(in_full(&error)),
        }
    }
}

fn line(spec: &JobSpec, evaluation: &Evaluation) -> String {
    let mut line = format!(
        "{} on {} of {}: loss {}",
        spec.model,
        plural(evaluation.examples, "test example"),
        spec.dataset,
        number(evaluation.loss)
    );
    if let Some(accuracy) = evaluation.accuracy {
        line.push_str(&format!(", accuracy {}", percent(accuracy)));
    }
    for (name, value) in &evaluation.metrics {
        line.push_str(&format!(", {name} {}", number(*value)));
    }
    line
}
