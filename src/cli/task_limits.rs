//! The flags that bound what a coordinator can ask of a worker.

use std::time::Duration;

use clap::Args;

use super::{
    Failure,
    values::{bytes_above_0, seconds, whole},
};
use crate::{
    job::JobSpec,
    spelling::hint,
    worker::{TaskLimits, TrainError, TrainerFactory},
};

/// What a worker does in a task at most. A task beyond it is refused, with the reason.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits of tasks")]
pub struct TaskLimitArgs {
    /// The largest model that is downloaded, in bytes as it is sent
    #[arg(long, value_name = "BYTES", default_value = "8GiB", value_parser = bytes_above_0)]
    pub max_model_bytes: u64,
    /// How long a client may train in a task, in seconds; one that takes longer is stopped [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub max_task_seconds: Option<Duration>,
    /// How often a task may train on a client's examples [default: no limit]
    #[arg(long, value_name = "X", value_parser = epochs)]
    pub max_task_epochs: Option<f64>,
    /// The most optimizer steps of a task [default: no limit]
    #[arg(long, value_name = "N", value_parser = steps)]
    pub max_task_steps: Option<u64>,
    /// A model that may be trained here; can be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    pub allow_model: Vec<String>,
    /// A dataset that is offered and trained on; can be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    pub allow_dataset: Vec<String>,
}

impl TaskLimitArgs {
    /// The limits.
    pub fn limits(&self) -> TaskLimits {
        TaskLimits {
            model_bytes: self.max_model_bytes,
            time: self.max_task_seconds,
            epochs: self.max_task_epochs,
            steps: self.max_task_steps,
            models: self.allow_model.clone(),
            datasets: self.allow_dataset.clone(),
        }
    }
}

impl TaskLimitArgs {
    /// Refuses names that no model and no dataset here has: such a worker would refuse every task.
    pub(super) fn check_names(&self, trainers: &dyn TrainerFactory) -> Result<(), Failure> {
        for model in &self.allow_model {
            let mut job = JobSpec::default().description();
            // Without a dataset, nothing is made: only the model's name is looked up.
            (job.model, job.dataset) = (model.clone(), String::new());
            if let Err(error @ TrainError::UnknownModel { .. }) = trainers.trainer(&job) {
                return Err(Failure::unusable("--allow-model", &error));
            }
        }
        let here = trainers.datasets();
        let names: Vec<_> = here.iter().map(|dataset| dataset.name.as_str()).collect();
        for dataset in &self.allow_dataset {
            if !names.contains(&dataset.as_str()) {
                return Err(Failure::Usage(format!(
                    "--allow-dataset {dataset}: no dataset here has this name{}; here are {}. --dataset adds one",
                    hint(dataset, names.iter().copied()),
                    names.join(", ")
                )));
            }
        }
        Ok(())
    }
}

/// A number of steps: without one, every task would be refused.
fn steps(text: &str) -> Result<u64, String> {
    whole(text, 1, u64::MAX)
}

/// A number of epochs, above 0.
fn epochs(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(epochs) if epochs.is_finite() && epochs > 0.0 => Ok(epochs),
        _ => Err("not a number above 0, such as 5 or 0.5".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::worker::NoopTrainers;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        limits: TaskLimitArgs,
    }

    fn limits(arguments: &[&str]) -> TaskLimits {
        let parsed = Command::try_parse_from([&["test"], arguments].concat());
        parsed.unwrap().limits.limits()
    }

    #[test]
    fn without_flags_the_limits_are_the_librarys() {
        assert_eq!(limits(&[]), TaskLimits::default());
    }

    #[test]
    fn names_that_nothing_here_has_are_refused_with_those_that_were_meant() {
        let trainers = NoopTrainers::new(8, 100).unwrap();
        for (argument, meant) in [
            ("--allow-model=nop", "noop"),
            ("--allow-dataset=nop", "noop"),
        ] {
            let parsed = Command::try_parse_from(["test", argument]).unwrap();
            let failure = parsed.limits.check_names(&trainers).unwrap_err();
            assert_eq!(failure.code(), 2);
            let told = failure.to_string();
            assert!(told.contains(&format!("did you mean {meant}?")), "{told}");
        }
        let known = ["test", "--allow-model=noop", "--allow-dataset=noop"];
        let parsed = Command::try_parse_from(known).unwrap();
        assert!(parsed.limits.check_names(&trainers).is_ok());
        assert!(Command::try_parse_from(["test", "--max-task-steps=0"]).is_err());
    }

    #[test]
    fn each_flag_is_a_limit() {
        let found = limits(&[
            "--max-model-bytes=1MiB",
            "--max-task-seconds=1.5",
            "--max-task-epochs=0.5",
            "--max-task-steps=7",
            "--allow-model=mlp",
            "--allow-model=lenet",
            "--allow-dataset=digits",
        ]);
        let expected = TaskLimits {
            model_bytes: 1 << 20,
            time: Some(Duration::from_millis(1500)),
            epochs: Some(0.5),
            steps: Some(7),
            models: vec!["mlp".to_string(), "lenet".to_string()],
            datasets: vec!["digits".to_string()],
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn epochs_are_above_zero() {
        for text in ["0", "-1", "nan", "inf", "many"] {
            let flag = format!("--max-task-epochs={text}");
            assert!(Command::try_parse_from(["test", &flag]).is_err(), "{text}");
        }
    }
}
