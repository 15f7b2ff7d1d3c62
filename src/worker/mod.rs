//! A worker: registers, polls for tasks, trains its clients, reports, and repeats.

mod burn_trainer;
mod trainer;

#[cfg(test)]
pub(crate) use burn_trainer::local_optimizer;

pub use burn_trainer::{
    BatchLoss, BurnTrainer, BurnTrainers, Learner, Minibatch, Randomness, Split,
};
pub use trainer::{
    ClientContext, DatasetInfo, EvalTask, LocalTrainer, LocalUpdate, Partition, TrainError,
    TrainTask, TrainerFactory,
};
