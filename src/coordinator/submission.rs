//! Whether a job can run here, and what it starts with.

use super::Coordinator;
use crate::{
    job::{EvaluationMode, JobError, JobSpec, StrategySpec},
    parameters::Parameters,
    report::{Refusal, RefusalKind},
    round::EvaluationBy,
    strategy::FederatedStrategy,
    worker::TrainError,
};

impl Coordinator {
    pub(super) fn initial(
        &self,
        spec: &JobSpec,
        given: Option<Parameters>,
    ) -> Result<Parameters, Refusal> {
        match (self.0.trainers.initial(spec), given) {
            (Ok(drawn), None) => Ok(drawn),
            (Ok(drawn), Some(given)) => {
                let differs = drawn.layout().check_same(given.layout());
                differs.map_err(|error| {
                    invalid(&JobError::new(
                        "initial",
                        format!("does not fit the model: {error}"),
                    ))
                })?;
                // Roles are the factory's to say.
                Parameters::new(drawn.layout().clone(), given.into_values())
                    .map_err(|error| invalid(&JobError::new("initial", error.to_string())))
            }
            (Err(TrainError::UnknownModel { .. }), Some(given)) => Ok(given),
            (Err(error @ TrainError::UnknownModel { .. }), None) => {
                let problem =
                    format!("can't be initialised: {error}; an initial model can be given instead");
                Err(invalid(&JobError::new("model", problem)))
            }
            (Err(error @ TrainError::UnknownDataset { .. }), None) => {
                Err(invalid(&JobError::new("dataset", error.to_string())))
            }
            (Err(error), None) => Err(invalid(&JobError::new("model", error.to_string()))),
            (Err(_), Some(given)) => Ok(given),
        }
    }

    pub(super) fn make_strategy(
        &self,
        spec: &JobSpec,
    ) -> Result<Box<dyn FederatedStrategy>, Refusal> {
        if let Some(strategy) = spec.strategy.build() {
            return Ok(strategy);
        }
        let StrategySpec::Custom { name } = &spec.strategy else {
            return Err(invalid(&JobError::new("strategy", "is not known here")));
        };
        match self.0.strategies.get(name) {
            Some(factory) => Ok(factory(spec)),
            None => Err(invalid(&JobError::new(
                "strategy",
                format!("{name:?} is not known here"),
            ))),
        }
    }

    pub(super) fn evaluation(
        &self,
        spec: &JobSpec,
        has_data: bool,
    ) -> Result<EvaluationBy, Refusal> {
        let here = || match has_data {
            true => self
                .0
                .trainers
                .trainer(spec)
                .map(drop)
                .map_err(|error| error.to_string()),
            false => Err(format!("the coordinator has no dataset {:?}", spec.dataset)),
        };
        Ok(match spec.evaluation {
            EvaluationMode::Never => EvaluationBy::Nobody,
            EvaluationMode::Workers => EvaluationBy::Workers,
            EvaluationMode::Auto => here().map_or(EvaluationBy::Workers, |()| EvaluationBy::Driver),
            EvaluationMode::Coordinator => match here() {
                Ok(()) => EvaluationBy::Driver,
                Err(reason) => {
                    return Err(invalid(&JobError::new(
                        "evaluation",
                        format!("is not possible here: {reason}"),
                    )));
                }
            },
        })
    }
}

pub(super) fn invalid(error: &JobError) -> Refusal {
    Refusal::new(RefusalKind::InvalidJob, error.to_string())
}
