//! How much an attacker trains: [`Effort`].

use crate::{
    job::TrainingSettings,
    parameters::Parameters,
    worker::{ClientContext, LocalTrainer, LocalUpdate, Partition, TrainError, TrainTask},
};

/// How much an attacker trains before it attacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effort {
    /// As much as its task says.
    #[default]
    Full,
    /// This many optimizer steps, at least 1.
    Steps(u32),
    /// Nothing: its update is the global model, and it claims the examples and steps of an honest client, without measurements.
    Nothing,
}

impl Effort {
    /// The update of a client that makes this effort, and is honest else.
    pub(super) fn train(
        self,
        trainer: &mut dyn LocalTrainer,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        match self {
            Self::Full => trainer.train(global, task, context),
            Self::Steps(steps) => {
                let mut short = task.clone();
                short.training.local_steps = Some(steps);
                trainer.train(global, &short, context)
            }
            Self::Nothing => {
                let Partition::Indices(indices) = &task.partition else {
                    let problem = "an attacker that trains nothing does not know how many examples its worker's own data has";
                    return Err(TrainError::Task(problem.to_string()));
                };
                let examples = indices.len() as u64;
                let mut update = LocalUpdate::new(global.clone(), examples);
                update.steps = steps_of(&task.training, examples);
                Ok(update)
            }
        }
    }
}

/// How many optimizer steps an honest client of this many examples takes.
fn steps_of(training: &TrainingSettings, examples: u64) -> u64 {
    if let Some(steps) = training.local_steps {
        return u64::from(steps);
    }
    if examples == 0 {
        return 0;
    }
    // At least 1: the settings come from outside.
    let batch = u64::from(training.batch_size.max(1));
    let trained = training.examples_trained(examples);
    let whole_passes = trained / examples;
    let rest = trained % examples;
    whole_passes.saturating_mul(examples.div_ceil(batch)) + rest.div_ceil(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_those_of_an_honest_client() {
        let mut training = TrainingSettings {
            local_epochs: 2.5,
            batch_size: 10,
            ..TrainingSettings::default()
        };
        // Two passes of three steps, and half of 25 examples, rounded up.
        assert_eq!(steps_of(&training, 25), 8);
        assert_eq!(steps_of(&training, 0), 0);
        training.local_steps = Some(7);
        assert_eq!(steps_of(&training, 25), 7);
    }
}
