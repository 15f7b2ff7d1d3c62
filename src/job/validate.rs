//! The checks of a job that need no coordinator.

use super::{
    EvaluationMode, JobError, JobSpec, Metric, RoundLimits, Schedule, Settings, TrainingSettings,
    free_settings::MOST_SETTINGS,
};
use crate::{
    settings::EvalSplit,
    strategy::{Catalogue, FederatedStrategy},
};

/// The highest priority of a job.
const MOST_PRIORITY: u32 = 100;

impl JobSpec {
    /// Checks what can be checked without a coordinator: every number in its range, and limits that fit each other.
    ///
    /// # Errors
    ///
    /// [`JobError`] names the field.
    pub fn validate(&self) -> Result<(), JobError> {
        at_least_one("first_round", self.first_round)?;
        at_least_one("clients", self.clients.unwrap_or(1))?;
        at_least_one("priority", self.priority)?;
        self.check_evaluation()?;
        if self.priority > MOST_PRIORITY {
            let problem = format!("must be at most {MOST_PRIORITY}, not {}", self.priority);
            return Err(JobError::new("priority", problem));
        }
        check_training(&self.training)?;
        check_schedule(&self.schedule, self.training.lr)?;
        check_limits(&self.limits)?;
        self.check_known_strategy()?;
        check_size("settings", &self.settings)?;
        self.check_tensors()?;
        // Workers need every value of a model; of a delta, those that are left out count as zero and are kept for the
        // next one.
        if !self.encoding.models.is_dense() {
            let problem = "can't be top_k, which is for reports alone: use f32, f16, bf16 or int8";
            return Err(JobError::new("encoding.models", problem));
        }
        self.check_clients()
    }

    /// Whether what decides is measured.
    fn check_evaluation(&self) -> Result<(), JobError> {
        at_least_one("evaluate_every", self.evaluate_every)?;
        if !(0.0..1.0).contains(&self.validation) {
            let problem = format!(
                "must be from 0 (no validation split) to below 1, not {}",
                self.validation
            );
            return Err(JobError::new("validation", problem));
        }
        let is_evaluated = self.evaluation != EvaluationMode::Never;
        if self.rounds == 0 && !is_evaluated {
            let problem = "is 0, so that the initial model is evaluated, and evaluation is never";
            return Err(JobError::new("rounds", problem));
        }
        if self.has_validation() && !is_evaluated {
            let problem = "keeps examples from training, and evaluation is never";
            return Err(JobError::new("validation", problem));
        }
        self.check_metric("best.metric", self.best.metric.as_ref())?;
        let Some(stop) = &self.stop else {
            return Ok(());
        };
        stop.check().map_err(|error| {
            let field = match error.field {
                "metric" => "stop.metric",
                "at_least" => "stop.at_least",
                "patience" => "stop.patience",
                "min_improvement" => "stop.min_improvement",
                "max_seconds" => "stop.max_seconds",
                "max_joules" => "stop.max_joules",
                "at_most" => "stop.at_most",
                _ => "stop",
            };
            JobError::new(field, error.problem)
        })?;
        if self.rounds == 0 {
            return Err(JobError::new("stop", "is for rounds, and the job has none"));
        }
        let metric = stop.metric.as_ref().or(self.best.metric.as_ref());
        if stop.needs_metric() {
            self.check_metric("stop.metric", metric)?;
            let is_of_training = metric.is_some_and(Metric::is_of_training);
            if !is_evaluated && !is_of_training {
                let problem = "needs evaluations, and evaluation is never: use train_loss";
                return Err(JobError::new("stop.metric", problem));
            }
        }
        Ok(())
    }

    /// Whether this is measured while the job runs.
    fn check_metric(&self, field: &'static str, metric: Option<&Metric>) -> Result<(), JobError> {
        let Some(split) = metric.and_then(Metric::split) else {
            return Ok(());
        };
        let measured = self.evaluation_plan().split();
        if split == measured {
            return Ok(());
        }
        let problem = if measured == EvalSplit::Validation {
            "is of the test split, which is evaluated at the job's end alone: use validation_…"
        } else {
            "is of a validation split, which the job does not have: give validation, or use test_…"
        };
        Err(JobError::new(field, problem))
    }

    /// Names that are not known pass: the coordinator, which may have parts of an embedder's, says what it knows.
    fn check_known_strategy(&self) -> Result<(), JobError> {
        check_size("strategy.settings", self.strategy.settings())?;
        let built = match self.strategy.build(&Catalogue::default()) {
            Err(error) if error.is_unknown => return Ok(()),
            built => built?,
        };
        match built {
            Some(built) => self.check_strategy(&*built),
            None => Ok(()),
        }
    }

    /// Whether a strategy goes with the job's other settings.
    pub(crate) fn check_strategy(&self, strategy: &dyn FederatedStrategy) -> Result<(), JobError> {
        for (settings, checked) in [
            ("training settings", strategy.check(&self.training)),
            ("limits", strategy.check_limits(&self.limits, self.clients)),
        ] {
            checked.map_err(|problem| {
                let problem = format!("does not go with the {settings}: {problem}");
                JobError::new("strategy", problem)
            })?;
        }
        Ok(())
    }

    /// Whether there are enough clients for a round to commit.
    fn check_clients(&self) -> Result<(), JobError> {
        let Some(clients) = self.clients else {
            return Ok(());
        };
        let quorum = self.limits.min_updates;
        if clients < quorum {
            let problem = format!("is {clients}, below limits.min_updates, which is {quorum}");
            return Err(JobError::new("clients", problem));
        }
        if let Some(goal) = self.limits.goal
            && clients < goal
        {
            let problem = format!("is {clients}, below limits.goal, which is {goal}");
            return Err(JobError::new("clients", problem));
        }
        Ok(())
    }
}

fn check_training(training: &TrainingSettings) -> Result<(), JobError> {
    training.check().map_err(|error| {
        let field = match error.field {
            "local_epochs" => "training.local_epochs",
            "local_steps" => "training.local_steps",
            "batch_size" => "training.batch_size",
            "lr" => "training.lr",
            "momentum" => "training.momentum",
            "nesterov" => "training.nesterov",
            "weight_decay" => "training.weight_decay",
            "clip_norm" => "training.clip_norm",
            "label_smoothing" => "training.label_smoothing",
            _ => "training",
        };
        JobError::new(field, error.problem)
    })
}

fn check_schedule(schedule: &Schedule, lr: f64) -> Result<(), JobError> {
    schedule.check(lr).map_err(|error| {
        let field = match error.field {
            "every" => "schedule.every",
            "factor" => "schedule.factor",
            "min" => "schedule.min",
            "rounds" => "schedule.rounds",
            _ => "schedule",
        };
        JobError::new(field, error.problem)
    })
}

fn check_limits(limits: &RoundLimits) -> Result<(), JobError> {
    at_least_one("limits.round_timeout", limits.round_timeout)?;
    at_least_one("limits.min_updates", limits.min_updates)?;
    at_least_one("limits.goal", limits.goal.unwrap_or(1))?;
    at_least_one("limits.max_attempts", limits.max_attempts)?;
    at_least_one("limits.min_workers", limits.min_workers)?;
    at_least_one("limits.start_timeout", limits.start_timeout)?;
    at_least_one("limits.evaluation_timeout", limits.evaluation_timeout)?;
    let quorum = limits.min_updates;
    if let Some(goal) = limits.goal
        && goal < quorum
    {
        let problem = format!("is {goal}, below limits.min_updates, which is {quorum}");
        return Err(JobError::new("limits.goal", problem));
    }
    Ok(())
}

fn at_least_one(field: &'static str, value: impl Into<u64>) -> Result<(), JobError> {
    if value.into() == 0 {
        return Err(JobError::new(field, "must be at least 1, not 0"));
    }
    Ok(())
}

fn check_size(field: &'static str, settings: &Settings) -> Result<(), JobError> {
    let text = serde_json::to_string(settings)
        .map_err(|error| JobError::new(field, format!("can't be written as JSON: {error}")))?;
    if text.len() > MOST_SETTINGS {
        let problem = format!(
            "has {} bytes as JSON, and {MOST_SETTINGS} is the most",
            text.len()
        );
        return Err(JobError::new(field, problem));
    }
    Ok(())
}
