//! What an objective does in a client's round: [`LocalObjective`].

use std::collections::BTreeMap;

use super::super::{PayloadValues, TrainError, TrainTask};
use crate::parameters::Parameters;

/// What a client minimizes beside its loss. A trainer asks it before the first step and after the last one.
///
/// # Contract
///
/// - Both methods are functions of their arguments alone: the same task and state give the same bits.
/// - `state` is what the client keeps between rounds, by name ([`ClientContext::state`](super::super::ClientContext::state)); it
///   is empty in a client's first round, and again if it was lost. An objective changes its own names alone.
/// - Its numbers come from [`TrainTask::objective`], which another machine sent: what is out of range is a
///   [`TrainError::Task`], never a panic.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use fedavg::{Parameters, worker::{Correction, LocalObjective, TrainError, TrainTask}};
///
/// /// Pulls towards zero instead of towards the global model, with no state and no further payload.
/// struct Shrink;
///
/// impl LocalObjective for Shrink {
///     fn begin(
///         &self,
///         global: &Parameters,
///         _task: &TrainTask,
///         _state: &BTreeMap<String, Parameters>,
///     ) -> Result<Correction, TrainError> {
///         let mut shift = global.clone();
///         shift.values_mut().iter_mut().for_each(|value| *value *= 0.01);
///         Ok(Correction::pull(0.01).with_shift(shift))
///     }
/// }
/// ```
pub trait LocalObjective: Send + Sync {
    /// What is added to the gradients of this task's steps.
    ///
    /// # Errors
    ///
    /// [`TrainError::Task`] if the task lacks what the objective needs.
    fn begin(
        &self,
        global: &Parameters,
        task: &TrainTask,
        state: &BTreeMap<String, Parameters>,
    ) -> Result<Correction, TrainError>;

    /// The payloads that the report has beside the delta. Puts into `state` what the client's next round needs, which counts
    /// only if this report is folded. Without an implementation: none, and nothing.
    ///
    /// # Errors
    ///
    /// [`TrainError::Task`] if the training can't be used.
    fn end(
        &self,
        trained: &Trained<'_>,
        state: &mut BTreeMap<String, Parameters>,
    ) -> Result<BTreeMap<String, PayloadValues>, TrainError> {
        let _ = (trained, state);
        Ok(BTreeMap::new())
    }
}

/// What is added to the gradient of each trainable tensor: `pull * (w - w_global) + shift`. Buffers and frozen tensors are
/// left as they are.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Correction {
    /// The factor of the distance to the global model.
    pub pull: f64,
    /// The same in each step, on the model's layout. None if it is zero.
    pub shift: Option<Parameters>,
}

impl Correction {
    /// No correction.
    pub fn none() -> Self {
        Self::default()
    }

    /// A pull towards the global model.
    pub fn pull(pull: f64) -> Self {
        Self { pull, shift: None }
    }

    /// The same with a shift, on the model's layout.
    pub fn with_shift(mut self, shift: Parameters) -> Self {
        self.shift = Some(shift);
        self
    }
}

/// A client's training that is over.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Trained<'a> {
    /// The global model that it started from.
    pub global: &'a Parameters,
    /// The local model.
    pub local: &'a Parameters,
    /// The task; its learning rate is [`TrainTask::training`]'s.
    pub task: &'a TrainTask,
    /// Number of optimizer steps; 0 for a client without examples.
    pub steps: u64,
}

impl<'a> Trained<'a> {
    /// A training of this task that is over.
    pub fn new(
        task: &'a TrainTask,
        global: &'a Parameters,
        local: &'a Parameters,
        steps: u64,
    ) -> Self {
        Self {
            global,
            local,
            task,
            steps,
        }
    }
}
