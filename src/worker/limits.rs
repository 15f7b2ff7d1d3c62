//! What a worker does for a coordinator at most: which models and data, how large a model, how long a training. A coordinator may
//! belong to somebody else, and its jobs to anybody who may submit there.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::sleep;

use super::failure::Failure;
use crate::{
    job::{JobDescription, TrainingSettings},
    words::{amount, plural},
};

/// What a worker does in a task at most. A task beyond it is refused with the reason, which the coordinator shows as the client's
/// failure; the worker goes on, and serves other jobs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TaskLimits {
    /// The largest model, in bytes as it is sent, and the largest of each payload beside it. In memory, values are f32: a model in f16
    /// has twice as many bytes there, one in int8 four times.
    pub model_bytes: u64,
    /// How long a client's training or evaluation may compute; none: any time. One that takes longer is told to stop.
    pub time: Option<Duration>,
    /// How often a task may train on the client's examples; none: any number of times.
    pub epochs: Option<f64>,
    /// The most optimizer steps of a task; none: any number.
    pub steps: Option<u64>,
    /// The names of the models that it trains; empty: all.
    pub models: Vec<String>,
    /// The names of the datasets that it trains on; empty: all. Others are not offered to the coordinator.
    pub datasets: Vec<String>,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self {
            model_bytes: 8 << 30,
            time: None,
            epochs: None,
            steps: None,
            models: Vec::new(),
            datasets: Vec::new(),
        }
    }
}

impl TaskLimits {
    /// Whether it trains on this dataset.
    pub fn allows_dataset(&self, name: &str) -> bool {
        is_allowed(&self.datasets, name)
    }

    /// Whether it works for a job, by what is said of the job.
    pub(super) fn check_job(&self, job: &JobDescription) -> Result<(), Failure> {
        if !is_allowed(&self.models, &job.model) {
            return refused(format!(
                "model {:?} is not allowed here; allowed are {} (--allow-model)",
                job.model,
                self.models.join(", ")
            ));
        }
        self.check_dataset(&job.dataset)
    }

    pub(super) fn check_dataset(&self, name: &str) -> Result<(), Failure> {
        if self.allows_dataset(name) {
            return Ok(());
        }
        refused(format!(
            "dataset {name:?} is not allowed here; allowed are {} (--allow-dataset)",
            self.datasets.join(", ")
        ))
    }

    /// Whether anything is limited that depends on the number of a client's examples.
    pub(super) fn needs_examples(&self) -> bool {
        self.epochs.is_some() || self.steps.is_some()
    }

    /// Whether a training on this many examples is short enough.
    pub(super) fn check_training(
        &self,
        training: &TrainingSettings,
        examples: u64,
    ) -> Result<(), Failure> {
        let steps = training.steps(examples);
        if let Some(most) = self.steps
            && steps > most
        {
            return refused(format!(
                "the task has {}, and this worker takes at most {most} (--max-task-steps)",
                plural(steps, "step")
            ));
        }
        let epochs = training.examples_trained(examples) as f64 / examples.max(1) as f64;
        if let Some(most) = self.epochs
            && epochs > most
        {
            return refused(format!(
                "the task trains {} times on its examples, and this worker at most {} times (--max-task-epochs)",
                amount(epochs),
                amount(most)
            ));
        }
        Ok(())
    }

    /// Has a training or an evaluation compute. After [`TaskLimits::time`] it is told to stop, and its result does not count.
    pub(super) async fn in_time<R>(
        &self,
        stop: &AtomicBool,
        work: impl Future<Output = Result<R, Failure>>,
    ) -> Result<R, Failure> {
        let Some(limit) = self.time else {
            return work.await;
        };
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = sleep(limit) => {}
        }
        stop.store(true, Ordering::Relaxed);
        // Its slot is not free before it has stopped: trainers look at the flag in every batch.
        match work.await {
            Ok(_) | Err(Failure::Dropped) => refused(format!(
                "it took longer than the {} s that this worker computes for a task at most (--max-task-seconds)",
                amount(limit.as_secs_f64())
            )),
            failed => failed,
        }
    }
}

fn is_allowed(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|allowed| allowed == name)
}

fn refused<T>(reason: String) -> Result<T, Failure> {
    Err(Failure::Unable(reason))
}
