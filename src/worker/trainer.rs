//! The seam between a worker and whatever trains: [`LocalTrainer`]. Nothing here names burn.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use thiserror::Error;

use crate::{
    Cause,
    backend::EnergyMeter,
    ids::{ClientId, ModelVersion, RoundId},
    job::{JobDescription, Settings, TrainingSettings},
    objective::Objective,
    parameters::{Parameters, PayloadSpec, Role, TensorPatterns, TensorSpec, Values},
    protocol::DatasetInfo,
    round::Evaluation,
    spelling,
};

/// The payload of one f64 with the mean loss of the client's training examples on the global model, before it trains: without
/// augmentation, dropout and label smoothing, and with BatchNorm's running statistics. q-FedAvg expects it.
pub const LOSS_BEFORE: &str = "loss_before";

/// Trains and evaluates a model on one thread. Synchronous: it runs on a blocking thread, one client at a time.
///
/// # Contract
///
/// - `train` is a function of its arguments and of the client's state: the same global model, task and state give the
///   same bits, whatever the trainer did before. The optimizer is new in each round, unless the task's
///   [`inner_state`](crate::settings::InnerState) is `keep`: then it goes on with what it left in [`ClientContext::state`], under
///   names that begin with `optimizer.`, and is new if nothing is there.
/// - All randomness comes from generators keyed by the task's seed, round and client ([`crate::rng`]).
/// - Tensors for which [`TrainTask::is_fixed`] holds come out as they went in: what changes in them is lost. What an objective adds
///   to gradients is for tensors that are averaged, so not for [`TrainTask::personal`] ones; clipping is for all that are trained.
/// - [`ClientContext::is_cancelled`] is looked at in every batch; a trainer that sees it returns
///   [`TrainError::Cancelled`].
pub trait LocalTrainer: Send {
    /// Trains from the global model on the task's examples.
    ///
    /// # Errors
    ///
    /// [`TrainError`]; a panic is caught by the worker and treated as one.
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError>;

    /// Evaluates a global model on a share of the test split, or on the examples that the task names.
    ///
    /// # Errors
    ///
    /// As for `train`.
    fn evaluate(
        &mut self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError>;

    /// What it trains on, such as `flex` or `libtorch:cuda:0`, for the record of the round; none if it does not say.
    fn device(&self) -> Option<String> {
        None
    }

    /// The meter of the device that it trains on, if there is one. The worker has it run while `train` does.
    fn meter(&self) -> Option<Arc<EnergyMeter>> {
        None
    }
}

/// Makes trainers, and knows the models and the data that they work on. The coordinator uses it too: for the initial
/// model, the labels to deal and the evaluation.
pub trait TrainerFactory: Send + Sync {
    /// A trainer for this job's model and dataset. One is made for each thread.
    ///
    /// # Errors
    ///
    /// [`TrainError::UnknownModel`] and [`TrainError::UnknownDataset`].
    fn trainer(&self, job: &JobDescription) -> Result<Box<dyn LocalTrainer>, TrainError>;

    /// The job's initial global model, drawn from its seed.
    ///
    /// # Errors
    ///
    /// [`TrainError::UnknownModel`]; [`TrainError::UnknownDataset`] if the model's shape depends on data that is not
    /// here and that is not one of the known ones.
    fn initial(&self, job: &JobDescription) -> Result<Parameters, TrainError>;

    /// What is known of a dataset without the data itself being needed by the caller.
    ///
    /// # Errors
    ///
    /// [`TrainError::UnknownDataset`] if it is not here.
    fn dataset(&self, name: &str) -> Result<DatasetInfo, TrainError>;

    /// The labels of a dataset's training examples, in order.
    ///
    /// # Errors
    ///
    /// [`TrainError::UnknownDataset`] if it is not here.
    fn labels(&self, dataset: &str) -> Result<Arc<[u16]>, TrainError>;

    /// The datasets that are here, ready to train on.
    fn datasets(&self) -> Vec<DatasetInfo>;

    /// What the trainers can do beyond a delta of plain SGD: `payload:NAME` for each further payload that they can produce,
    /// `objective:NAME` for each objective ([`Objective::capability`]), what [`TrainingSettings::capabilities`] names, and
    /// `tensors:frozen` and `tensors:personal`, and `evaluation:validation` ([`EvalTask::training`]). A worker that lacks what a plan needs is never given its tasks.
    fn capabilities(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The examples that a client trains on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partition {
    /// These examples of the training split, in rising order.
    Indices(Arc<[u32]>),
    /// All of them: the data is the worker's own.
    Everything,
}

/// One client's training in one round.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TrainTask {
    /// The round.
    pub round: RoundId,
    /// The client.
    pub client: ClientId,
    /// The version of the global model that training starts from.
    pub version: ModelVersion,
    /// The job's seed.
    pub seed: u64,
    /// How to train.
    pub training: TrainingSettings,
    /// What to train on.
    pub partition: Partition,
    /// The payloads of the version that the strategy sends beside the model, each on the model's layout.
    pub payloads: BTreeMap<String, Arc<Parameters>>,
    /// The payloads that the report must have. The worker takes the delta itself; all others are the trainer's to produce, in
    /// [`LocalUpdate::payloads`].
    pub expects: Vec<PayloadSpec>,
    /// What the client minimizes beside its loss.
    pub objective: Objective,
    /// The last round whose commit folded this client's report, if any has: what [`ClientContext::state`] follows.
    pub basis: Option<RoundId>,
    /// The tensors that the client keeps for itself. Their role is [`Role::Frozen`], since they are not averaged; they are trained
    /// all the same, from the client's own values, which the worker has put into the global model.
    pub personal: TensorPatterns,
    /// The job's free-form settings.
    pub settings: Settings,
}

impl TrainTask {
    /// A task with default settings, version 0, seed 0, and a delta for a report. The public fields change that.
    pub fn new(round: RoundId, client: ClientId, partition: Partition) -> Self {
        Self {
            round,
            client,
            version: ModelVersion(0),
            seed: 0,
            training: TrainingSettings::default(),
            partition,
            payloads: BTreeMap::new(),
            expects: Vec::new(),
            objective: Objective::Plain,
            basis: None,
            personal: TensorPatterns::default(),
            settings: Settings::new(),
        }
    }

    /// Whether the report must have this payload. What is dear to make is made only then.
    pub fn expects(&self, payload: &str) -> bool {
        self.expects.iter().any(|expected| expected.name == payload)
    }

    /// Whether training must leave this tensor of the global model as it is: it is frozen, and not the client's own.
    pub fn is_fixed(&self, tensor: &TensorSpec) -> bool {
        tensor.role == Role::Frozen && !self.personal.matches(&tensor.name)
    }
}

/// One share of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EvalTask {
    /// The version to evaluate.
    pub version: ModelVersion,
    /// Which share of the split, from 0.
    pub share: u32,
    /// How many equal shares there are; share `i` of `n` examples is `n * i / shares .. n * (i + 1) / shares`.
    pub shares: u32,
    /// If the share is of the validation split: the examples of the training split that it is, in rising order. They are evaluated
    /// instead of a part of the test split. A trainer that can do this says so by the capability `evaluation:validation`.
    pub training: Option<Arc<[u32]>>,
}

impl EvalTask {
    /// The capability of trainers that look at [`EvalTask::training`].
    pub const VALIDATION: &str = "evaluation:validation";

    /// A share of the test split.
    pub fn test(version: ModelVersion, share: u32, shares: u32) -> Self {
        Self {
            version,
            share,
            shares,
            training: None,
        }
    }

    /// The share of a split of this many examples: the rule that all workers follow.
    ///
    /// # Errors
    ///
    /// [`TrainError::Task`] if there is no such share.
    pub fn examples(&self, count: u32) -> Result<Range<u32>, TrainError> {
        if self.share >= self.shares {
            let what = format!("share {} of {}", self.share, self.shares);
            return Err(TrainError::Task(what));
        }
        Ok(self.start_of(self.share, count)..self.start_of(self.share + 1, count))
    }

    /// The first example of a share. At most `count`, since no share is above `shares`.
    fn start_of(&self, share: u32, count: u32) -> u32 {
        // The product of two numbers of 32 bits may need 64.
        (u64::from(count) * u64::from(share) / u64::from(self.shares)) as u32
    }
}

/// What a client's training made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LocalUpdate {
    /// The local model. The worker takes the delta to the global model, nobody else.
    pub parameters: Parameters,
    /// Number of examples in the partition.
    pub examples: u64,
    /// Number of optimizer steps.
    pub steps: u64,
    /// Measurements: `train_loss` (the mean over the examples as they were trained on: augmented, and with label smoothing, but
    /// without what an objective adds) and `train_accuracy`.
    pub metrics: BTreeMap<String, f64>,
    /// The further payloads that the task expects, by name.
    pub payloads: BTreeMap<String, PayloadValues>,
}

impl LocalUpdate {
    /// A local model that was trained on this many examples, in one step, without measurements and further payloads. The public
    /// fields change that.
    pub fn new(parameters: Parameters, examples: u64) -> Self {
        Self {
            parameters,
            examples,
            steps: 1,
            metrics: BTreeMap::new(),
            payloads: BTreeMap::new(),
        }
    }
}

/// The values of a payload that a trainer produces.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PayloadValues {
    /// Of a payload with the model's shape in f32: values for all tensors, of which those of the payload's roles are sent.
    Model(Parameters),
    /// Of a vector, or of a payload with the model's shape in another type: one value after the other, tensors in the layout's
    /// order.
    Values(Values),
}

/// What surrounds a client while it trains.
pub struct ClientContext<'a> {
    /// The client.
    pub client: ClientId,
    /// State that the client keeps between rounds, by name. It is the state that the client's last *folded* report led to: what
    /// a report left behind that was lost, excluded or came to a round that was abandoned is not here. It starts empty, and is
    /// empty again if the lease moved to a worker that does not have it; the report then says so.
    pub state: &'a mut BTreeMap<String, Parameters>,
    /// Set when the task is cancelled.
    pub cancelled: &'a AtomicBool,
    /// Told after each batch how many of how many examples are done.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

impl fmt::Debug for ClientContext<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientContext")
            .field("client", &self.client)
            .field("state", &self.state.keys())
            .finish_non_exhaustive()
    }
}

impl ClientContext<'_> {
    /// Whether the task is cancelled: its round has closed, its job has ended, or the process is to end.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Why a client could not train or evaluate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// No factory for a model of this name.
    #[error("no model {name:?} is known here{}; known are {known}", spelling::hint(.name, .known.split(", ")))]
    UnknownModel {
        /// The name.
        name: String,
        /// The names that are known, separated by commas.
        known: String,
    },
    /// A dataset that is not here.
    #[error("dataset {name:?} can't be used: {reason}")]
    UnknownDataset {
        /// The name.
        name: String,
        /// Why, with what to do about it.
        #[source]
        reason: Cause,
    },
    /// The global model does not fit the model that the factory makes, or its numbers ran away.
    #[error("the model can't be trained: {0}")]
    Model(String),
    /// The report can't be made of what was trained.
    #[error("{0}")]
    Report(String),
    /// The task does not fit the data: an index past its end, for example.
    #[error("the task does not fit: {0}")]
    Task(String),
    /// The task was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The trainer panicked.
    #[error("the trainer panicked: {0}")]
    Panicked(String),
}
